"""Which fault hurts which method: areas under severity curves as a heat map, with break points in the cells."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from spikebench import comparison
from spikebench.figures.comparison_rows import data_sets, in_lines, margin, matrix_panel, room_for
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, canvas
from spikebench.figures.tables import NothingToDraw, at, faults, summary
from spikebench.figures.text import measured, repetitions

TITLE = "Which faults hurt which methods, and how much"
EXPERIMENT = comparison.EXPERIMENT
SEVERAL_DATASETS = True
UNFINISHED_TOO = True
#: Panels beside each other.
_COLUMNS = 3
#: Inches: a line, the names of the families above, the colours' bar below.
_LINE, _HEAD, _FOOT = 0.165, 0.82, 0.3


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All cells with all training data."""
    return comparison.planned(rows)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a data set; the same arms in all of them."""
    limit, places = margin(context), ["dataset", "fault", "arm"]
    found, breaks = summary(comparison.areas(rows), places, "area"), comparison.break_points(rows, limit)
    if found.empty:
        raise NothingToDraw("no finished cells for this figure at two severities that all arms meet")
    cells = found.merge(breaks.drop(columns="n"), on=places, how="outer")
    arms, sets = list(context.present(cells)), data_sets(cells)
    widths = [len(faults(at(cells, dataset=name))) for name in sets]
    columns = min(_COLUMNS, len(sets))
    body = _LINE * len(arms)
    ratios = [max(widths[column::columns]) for column in range(columns)]
    figure, axes = canvas(
        ceil(len(sets) / columns), columns, TITLE, [], height=_HEAD + body + _FOOT, left=room_for(arms), right=0.1,
        wspace=0.06, sharey=True, gridspec_kw={"width_ratios": ratios},
    )  # fmt: skip
    dense = sum(ratios) > 22
    for panel, name in zip(axes.flat, sets, strict=False):
        _heat_map(panel, at(cells, dataset=name), arms, dense)
        panel.text(0, -_HEAD / _LINE, in_lines(name), size=7, weight="bold", va="bottom", linespacing=1.0)
    for panel in axes.flat[len(sets) :]:
        panel.set_visible(False)

    n, told = repetitions(found["n"]), []
    for name in sets:
        best = [
            f"{fault} {point['arm']} {measured(point)}"
            for fault in faults(at(found, dataset=name))
            for point in at(found, dataset=name, fault=fault).nlargest(1, "mean").to_dict("records")
        ]
        told.append(f"{name}: {', '.join(best)}.")
    words = f"The largest area by family, {' '.join(told)}"
    caption = (
        "Area under the curve of accuracy by severity, which is the mean over severities, an arm a line and a family "
        "of faults a column, over the severities that all arms meet under it (colour; each data set has its own "
        "scale). In the cell the break point: the largest severity up to which the mean stays within "
        f"{100 * limit:g} points of the arm's own on a sound chip; ≥ where it never leaves them; – where an arm does "
        "not meet a family, or has not finished. An arm near chance has nothing to lose. Means over "
        f"{n} repetitions, with 95% Student-t intervals here and in the numbers. {words}"
    )
    alt = (
        f"Heat maps of the mean accuracy over severities, a panel each for {', '.join(sets)}, columns "
        f"{', '.join(faults(cells))}, lines {', '.join(arms)}. {words}"
    )
    note = f"colour: area under the severity curve (%); number: break point at {100 * limit:g} points; –: not met; {n}"
    return Drawing(figure, note, caption, alt, int(found["n"].max()), {"cells": cells, "margin": limit})


def _heat_map(panel: Axes, cells: pd.DataFrame, arms: Sequence[str], dense: bool) -> None:
    """Colours with numbers in them, families' names above, a bar of the colours below."""
    families = faults(cells)
    table = cells.pivot(index="arm", columns="fault", values="mean").reindex(index=list(arms), columns=families)
    values = 100 * table.to_numpy(dtype=np.float64)
    colours = panel.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", edgecolor="white", linewidth=0.4)
    matrix_panel(panel, len(families), len(arms), _HEAD / _LINE, list(arms))
    panel.set_ylim(len(arms) + _FOOT / _LINE, -_HEAD / _LINE)
    for column, fault in enumerate(families):
        panel.text(column + 0.5, -0.25, fault, size=6.5, rotation=90, ha="center", va="bottom")
    middle = float(np.nanmean([np.nanmin(values), np.nanmax(values)])) if np.isfinite(values).any() else 0.0
    texts = {(cell["arm"], cell["fault"]): _words(cell, dense) for cell in cells.to_dict("records")}
    look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "size": 5.8 if dense else 6.5}
    for line, arm in enumerate(arms):
        for column, fault in enumerate(families):
            value = values[line, column]
            colour = GREY if np.isnan(value) else "white" if value < middle else "black"
            panel.text(column + 0.5, line + 0.5, texts.get((arm, fault), "–"), color=colour, **look)
    place = [0.0, len(arms) + 0.6, float(len(families)), 0.45]
    bar = panel.inset_axes(place, transform=panel.transData)  # type: ignore[arg-type]
    panel.figure.colorbar(colours, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=6, length=2, pad=1)
    bar.locator_params(nbins=4)


def _words(cell: dict[Any, Any], dense: bool) -> str:
    """A break point, without the leading 0 where cells are narrow."""
    if pd.isna(cell["break_point"]):
        return "–"
    number = f"{cell['break_point']:g}"
    if dense and number.startswith("0."):
        number = number[1:]
    return f"≥{number}" if cell["censored"] else number
