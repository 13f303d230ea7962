"""How an arm looks: one label, colour, marker and line style, the same in every figure.

An arm is a method in a training mode (and a variant, where it has one). The arms of the replications have fixed styles;
any other arm gets the next free one, in the order of its name, so that a method added later needs no edit here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import pandas as pd

Line = Literal["-", "--", "-.", ":"]


class Arm(NamedTuple):
    """The axes that tell one arm from another."""

    method: str
    mode: str
    variant: str = ""


@dataclass(frozen=True)
class Style:
    """What a reader sees of an arm: a colour that the colour-blind tell apart too, a marker and a line."""

    label: str
    colour: str
    marker: str
    line: Line


#: The arm that the paired figures compare with every other.
REFERENCE = Arm("metropolis_hastings", "in-the-loop")

#: Label and colour (black, of seaborn's ``colorblind`` palette, or of Tol's ``muted`` scheme) of each variant, and its
#: markers off-chip and in the loop. A method without variants has one of no name.
_VARIANTS = {
    "bisnn": {
        "full-precision": ("Full precision", "#949494", "s>"),
        "straight-through": ("Straight-through", "#de8f05", "^<"),
        "bayes-mode": ("Bayes (mode)", "#56b4e9", "Dd"),
        "bayes-ensemble": ("Bayes (ensemble)", "#332288", "op"),
    },
    "gem_snn": {
        "single-sample": ("Single sample", "#949494", "op"),
        "mb": ("MB", "#56b4e9", "^<"),
        "iw": ("IW", "#de8f05", "s>"),
        "gem": ("GEM", "#882255", "Dd"),
    },
    "spide": {"": ("SPIDE", "#117733", "p<")},
    "ide": {"": ("IDE", "#ca9161", ">s")},
    "feedback_bptt": {"": ("BPTT (feedback net)", "#000000", "d^")},
    "psg_pda": {
        "fixed": ("Fixed surrogate", "#949494", "Dd"),
        "psg": ("PSG", "#56b4e9", "op"),
        "pda": ("PDA", "#de8f05", "Dd"),
        "psg+pda": ("PSG+PDA", "#882255", "s>"),
        "ltmd": ("Learnt threshold", "#999933", "^<"),
        "ltmd+psg": ("Learnt threshold+PSG", "#332288", "s>"),
    },
}
_MODES: tuple[tuple[str, str, Line], ...] = (("off-chip", "", "-"), ("in-the-loop", " in the loop", "--"))

#: Fixed styles, in the order of legends and tables.
LEAD: dict[Arm, Style] = {
    REFERENCE: Style("MH in the loop", "#0173b2", "o", "-"),
    Arm("metropolis_hastings", "off-chip"): Style("MH off-chip", "#0173b2", "v", ":"),
    Arm("backprop", "in-the-loop"): Style("Backprop in the loop", "#d55e00", "s", "--"),
    Arm("backprop", "off-chip"): Style("Backprop off-chip", "#cc78bc", "^", ":"),
    Arm("backprop", "oracle"): Style("Backprop oracle", "#029e73", "D", "-."),
    **{
        Arm(method, mode, variant): Style(name + words, colour, markers[place], line)
        for method, variants in _VARIANTS.items()
        for place, (mode, words, line) in enumerate(_MODES)
        for variant, (name, colour, markers) in variants.items()
    },
}

# The palette's other colours, but for those too pale on white: with five markers, which no arm above has, twenty arms
# before a look comes back.
_COLOURS = ("#de8f05", "#56b4e9", "#949494", "#ca9161")
_MARKERS = ("v", "P", "X", "*", "h")
LINES: tuple[Line, ...] = ("-", "--", "-.", ":")


def label(arm: Arm) -> str:
    """The name that people read, as in ``Backprop off-chip`` or ``Bayes bisnn in the loop (ensemble)``."""
    if arm in LEAD:
        return LEAD[arm].label
    mode = "in the loop" if arm.mode == "in-the-loop" else arm.mode
    variant = f" ({arm.variant})" if arm.variant else ""
    return f"{arm.method.replace('_', ' ').capitalize()} {mode}{variant}"


def styles(rows: pd.DataFrame) -> dict[str, Style]:
    """Label to style for every arm of ``rows``, in the order of legends.

    Pass the whole table, not a selection: the styles of new arms depend on which arms there are.
    """
    found = {Arm(*axes) for axes in rows[["method", "mode", "variant"]].itertuples(index=False, name=None)}
    new = [_nth(n, label(arm)) for n, arm in enumerate(sorted(found - set(LEAD)))]
    return {style.label: style for style in [*(LEAD[arm] for arm in LEAD if arm in found), *new]}


def _nth(n: int, name: str) -> Style:
    return Style(name, _COLOURS[n % len(_COLOURS)], _MARKERS[n % len(_MARKERS)], LINES[n % len(LINES)])


def with_arms(rows: pd.DataFrame) -> pd.DataFrame:
    """A copy of ``rows`` with the column ``arm``, the label of each row's arm."""
    axes = rows[["method", "mode", "variant"]].itertuples(index=False, name=None)
    return rows.assign(arm=[label(Arm(*a)) for a in axes])
