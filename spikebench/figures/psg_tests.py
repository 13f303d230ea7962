"""Which candidate passes which test: a line a candidate, a column a test, and the number under each verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.pda_criteria import causality, drift, injection
from spikebench.figures.psg_criteria import (
    FAILS,
    LEAST,
    NOTHING,
    PASSES,
    UNDECIDED,
    UNTESTED,
    Result,
    beyond_thresholds,
    calibration,
    independence,
    looking_ahead,
    optimality,
)
from spikebench.figures.psg_rows import CANDIDATES, DIVERGENCES, NOTE, in_sweeps
from spikebench.figures.style import GREY, canvas
from spikebench.figures.text import repetitions, spread

TITLE = "PSG and PDA (reconstructed): tests"
EXPERIMENT = "psg_pda"

#: The tests of PSG and of PDA, in the order of columns.
PSG_TESTS = ("1 same k from any start", "2 k as good as a grid's best", "3 slope of the look-ahead",
             "4 family matters less", "5 adds to learnt threshold")  # fmt: skip
PDA_TESTS = ("6 rises with any shift", "7 drifts without PDA", "8 lowers shift and error, beats control")
_COLOURS = {PASSES: "#bfe0f2", FAILS: "#f6c99b", UNDECIDED: "#ececec", UNTESTED: "#ffffff"}
#: Room for the names of the tests, in lines of the table.
_HEAD = 0.75
_SWEEPS = ("starts", "starts-by-candidate", "grid", "families", "thresholds", "divergences", "probe")

Table = Mapping[str, Sequence[Result]]


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All sweeps that a test looks at."""
    return in_sweeps(rows, *_SWEEPS)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Above the candidates of PSG, below those of PDA's divergence."""
    psg, pda = results(rows, context.traces)
    keys = [
        Patch(facecolor=colour, edgecolor=GREY, linewidth=0.5, label=verdict) for verdict, colour in _COLOURS.items()
    ]
    figure, axes = canvas(
        2, 1, TITLE, keys, height=2.4, gap=0.12, left=1.2, right=0.1, gridspec_kw={"height_ratios": [1.4, 1]}
    )
    _matrix(axes[0, 0], PSG_TESTS, psg)
    _matrix(axes[1, 0], PDA_TESTS, {DIVERGENCES[name].label: found for name, found in pda.items()})

    cells = [
        {"candidate": name, "test": test, **result._asdict()}
        for tests, table in ((PSG_TESTS, psg), (PDA_TESTS, pda))
        for name, found in table.items()
        for test, result in zip(tests, found, strict=True)
    ]
    told, labels = [], {name: style.label for name, style in DIVERGENCES.items()}
    for verdict in (PASSES, FAILS, UNDECIDED):
        here = [
            f"{labels.get(c['candidate'], c['candidate'])} at {c['test'][0]} ({c['words']})"
            for c in cells
            if c["verdict"] == verdict
        ]
        told.append(f"{verdict.capitalize()}: {'; '.join(here) or 'none'}.")
    n, words = int(rows.groupby(["sweeps", "settings", "variant"])["repetition"].nunique().max()), " ".join(told)
    alone = f" {spread(float('nan'), float('nan')).strip('()').capitalize()}: nothing can be decided." if n == 1 else ""
    caption = (
        "Candidates of what PSG and PDA may mean, and the tests of each against what the abstract says of them. PSG: "
        "1, final log k spreads at most a quarter as much as its starts; 2, the k found is within a factor of 2 of the "
        "best of a grid and its accuracy within 0.2 points; 3, its slope has the sign of a look-ahead's in more than "
        "55% of steps; 4, accuracy differs less between families of surrogates; 5, it adds to a learnt threshold. PDA: "
        "6, every shift put in raises the divergence; 7, it grows over training or with depth without PDA; 8, training "
        "on it lowers it and the squared quantisation error and beats a network of the same firing rates. A test "
        "passes or fails where the 95% Student-t interval over repetitions lies on one side, and is undecided else, "
        f"as with fewer than {LEAST} repetitions; "
        f"not tested: not run, or without meaning for a candidate. n = {n} repetitions at most. "
        f"{NOTE.capitalize()}.{alone} {words}"
    )
    alt = f"Two tables of verdicts, candidates by tests, of PSG and of PDA. {words}"
    note = f"95% Student-t intervals over at most {repetitions([n])} repetitions; {NOTE}"
    return Drawing(figure, note, caption, alt, n, {"cells": cells})


def results(rows: pd.DataFrame, traces: pd.DataFrame) -> tuple[Table, Table]:
    """Of each candidate of PSG and of each divergence, the results in the order of tests."""
    usual = CANDIDATES[0]
    others = [looking_ahead(rows, traces), calibration(rows), beyond_thresholds(rows)]
    psg = {
        name: [independence(rows, name), optimality(rows, name), *(others if name == usual else [NOTHING] * 3)]
        for name in CANDIDATES
    }
    pda = {name: [injection(rows, name), drift(rows, traces, name), causality(rows, name)] for name in DIVERGENCES}
    return psg, pda


def _matrix(panel: Axes, tests: Sequence[str], table: Table) -> None:
    """A coloured cell with words for each result, below the names of the tests."""
    small, lines = int(120 / len(tests)), len(table)
    for column, test in enumerate(tests):
        panel.text(column + 0.5, -0.08, fill(test, int(86 / len(tests))), size=7, ha="center", va="bottom")
    for line, found in enumerate(table.values()):
        for column, result in enumerate(found):
            face = _COLOURS[result.verdict]
            panel.add_patch(
                Rectangle((column, line), 1, 1, facecolor=face, edgecolor=GREY, linewidth=0.5, clip_on=False)
            )
            words: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.05}
            if result.verdict == UNTESTED:
                panel.text(column + 0.5, line + 0.5, "–", size=7.5, color=GREY, **words)
                continue
            panel.text(column + 0.5, line + 0.25, result.verdict, size=7.5, weight="bold", **words)
            panel.text(column + 0.5, line + 0.66, fill(result.words, small), size=5.8, **words)
    panel.set(xlim=(0, len(tests)), ylim=(lines, -_HEAD), xticks=[])
    panel.set_yticks([line + 0.5 for line in range(lines)], labels=list(table))
    panel.tick_params(left=False, bottom=False)
    panel.grid(visible=False)
    for side in panel.spines.values():
        side.set_visible(False)
