"""Draw a figure by its name: select its rows, hand them to its module, write what comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spikebench import figures
from spikebench.errors import UserError
from spikebench.figures.arms import Style, styles, with_arms
from spikebench.figures.style import WIDTH, house_style, small_print
from spikebench.figures.tables import PAIR, NothingToDraw, finished, margin_and_target, status_counts
from spikebench.figures.text import listed, shortfall
from spikebench.naming import named
from spikebench.paths import replacing

DPI = 150


@dataclass(frozen=True)
class Context:
    """What a figure's module gets beside its rows.

    Attributes:
        styles: label to style of every arm in the gathered table, in the order of legends.
        traces: the gathered traces.
        margin: the difference in accuracy that does not matter, or None if no claim names one.
        target: the accuracy that counts as effective, or None if no claim names one.
    """

    styles: Mapping[str, Style]
    traces: pd.DataFrame
    margin: float | None
    target: float | None

    def present(self, points: pd.DataFrame) -> dict[str, Style]:
        """The styles of the arms that occur in ``points``, in the order of legends."""
        found = set(points["arm"])
        return {label: style for label, style in self.styles.items() if label in found}


@dataclass(frozen=True)
class Drawing:
    """A finished figure with its words and numbers.

    Attributes:
        figure: without the small print.
        note: the small print: what is plotted, and n.
        caption: sentences with the main numbers.
        alt: what the figure shows, for those who cannot see it.
        n: the largest number of repetitions behind a point.
        numbers: everything plotted, as tables or plain values.
    """

    figure: Figure
    note: str
    caption: str
    alt: str
    n: int
    numbers: Mapping[str, Any]


def draw_figure(
    name: str,
    rows: pd.DataFrame,
    traces: pd.DataFrame,
    preset: str,
    directory: Path,
    claims: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """See ``spikebench.figures.draw``, which is the door to this."""
    if name not in figures.NAMES:
        raise UserError(f"there is no figure {name!r}; known: {', '.join(figures.NAMES)}")
    module = import_module(f"spikebench.figures.{name.replace('-', '_')}")
    selected = with_arms(module.select(named(rows[rows["experiment"] == module.EXPERIMENT])))
    selected = selected.sort_values([*PAIR, "settings", "cell"])  # sums round alike whatever the order of the table
    datasets = sorted(set(selected["dataset"]))
    statuses = status_counts(selected)
    context = Context(styles(rows), traces, *margin_and_target(claims, module.EXPERIMENT))
    with house_style():
        try:
            if not statuses["ok"]:
                raise NothingToDraw("no finished cells for this figure")
            if len(datasets) > 1 and not getattr(module, "SEVERAL_DATASETS", False):
                raise NothingToDraw(f"cells of several data sets ({', '.join(datasets)}), which are not to be averaged")
            whole = getattr(module, "UNFINISHED_TOO", False)  # it matters there what was planned
            drawing = module.draw(selected if whole else finished(selected), context)
            drawing = replace(drawing, caption=drawing.caption + shortfall(statuses))
        except NothingToDraw as reason:
            drawing = _in_words(module.TITLE, str(reason), statuses)
        stamp = ", ".join(datasets) if len(datasets) < 3 else f"{len(datasets)} data sets"
        small_print(drawing.figure, drawing.note, stamp, preset)
        save(drawing.figure, directory, name)
    document: dict[str, Any] = {
        "name": name,
        "title": module.TITLE,
        "experiment": module.EXPERIMENT,
        "preset": preset,
        "caption": drawing.caption,
        "alt": drawing.alt,
        "n": drawing.n,
        "numbers": plain({**drawing.numbers, "statuses": statuses}),
    }
    write_document(document, directory, name)
    return document


def save(figure: Figure, directory: Path, name: str) -> None:
    """PNG and PDF without dates and versions inside: the same rows give the same bytes."""
    for suffix in ("png", "pdf"):
        with replacing(directory / f"{name}.{suffix}") as temporary:
            metadata = dict.fromkeys(("Software",) if suffix == "png" else ("CreationDate", "Creator", "Producer"))
            figure.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)


def write_document(document: Mapping[str, Any], directory: Path, name: str) -> None:
    """Caption and numbers beside the picture."""
    with replacing(directory / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _in_words(title: str, reason: str, statuses: Mapping[str, int]) -> Drawing:
    """The figure of nothing: it says what is missing, so that nobody takes it for an error of the page."""
    sentence = f"{reason[0].upper()}{reason[1:]}."
    counts = listed({status: n for status, n in statuses.items() if n}) or "none expected or run"
    figure = Figure(figsize=(WIDTH, 1.5))
    figure.text(0.08 / WIDTH, 0.95, title, size=9.5, weight="bold", va="top")
    figure.text(0.5, 0.5, f"{sentence}\nCells: {counts}.", size=9, ha="center", va="center", linespacing=1.6)
    words = f"{title}: {reason}. Cells: {counts}."
    return Drawing(figure, "", words, words, 0, {})


def plain(value: Any) -> Any:
    """Tables, arrays and NumPy numbers as what JSON knows; NaN and infinities become null."""
    match value:
        case pd.DataFrame():
            return plain(value.to_dict("records"))
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case np.generic():
            return plain(value.item())
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
