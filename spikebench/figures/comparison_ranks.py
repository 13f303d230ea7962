"""Methods in the order of what faults leave of their accuracy, on each data set and over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench import comparison
from spikebench.figures.arms import Style
from spikebench.figures.comparison_rows import areas_over, data_sets, in_lines, room_for
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import WIDTH, bars, canvas
from spikebench.figures.tables import NothingToDraw, at
from spikebench.figures.text import by_arm, measured, number, repetitions

TITLE = "Methods by what faults leave of their accuracy"
EXPERIMENT = comparison.EXPERIMENT
SEVERAL_DATASETS = True
UNFINISHED_TOO = True
#: Fewer data sets than about this many, and a critical-difference diagram says nothing.
ENOUGH = 8
_LINE = 0.155


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All cells with all training data."""
    return comparison.planned(rows)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Two panels beside each other, the mean ranks last."""
    ranks = comparison.ranks(rows)
    if ranks.empty:
        raise NothingToDraw("no finished cells for this figure under faults that all arms meet")
    points = ranks.rename(columns={"area": "mean"})
    overall, sets, arms = comparison.mean_ranks(ranks), data_sets(ranks), context.present(ranks)
    panels = len(sets) + (len(overall) > 0)
    columns = min(2, panels)
    left, lines = room_for(arms), int(points.groupby("dataset").size().max())
    width = (WIDTH - left * columns - 0.2) / columns
    figure, axes = canvas(
        ceil(panels / columns), columns, TITLE, [], height=max(1.6, _LINE * lines + 0.1), left=left, gap=0.62,
        wspace=left / width,
    )  # fmt: skip
    for panel, name in zip(axes.flat, sets, strict=False):
        here = at(points, dataset=name)
        _dots(panel, here, arms)
        _limits(panel, here)
        panel.set_title(in_lines(name), weight="bold", pad=3)
        panel.set_xlabel("area under severity curves (%)", labelpad=2)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    if len(overall):
        last = axes.flat[len(sets)]
        _dots(last, overall, arms)
        last.set_xlim(0, len(overall) + 1)
        last.set_title("mean rank over data sets", weight="bold", pad=3)
        last.set_xlabel("rank (1 is best)", labelpad=2)
    for panel in axes.flat[panels:]:
        panel.set_visible(False)

    n = repetitions(points["n"])
    words = " ".join(
        f"{name}, over {areas_over(rows, name)}: {by_arm(at(points, dataset=name), at(points, dataset=name)['arm'])}."
        for name in sets
    )
    ranked = f" Mean ranks: {by_arm(overall, overall['arm'], number)}." if len(overall) else ""
    few = (
        f"With {len(sets)} data set{'s' * (len(sets) != 1)}, fewer than about {ENOUGH}, a critical-difference diagram "
        "says nothing, so none is drawn. "
    ) * (len(sets) < ENOUGH)
    caption = (
        "Area under the curves of accuracy by severity, which is the mean over severities, as a mean over the fault "
        f"families that all arms meet; mean and 95% Student-t interval over {n} repetitions, in the order of rank. "
        "Last the mean rank of the arms that all data sets know, ranked among these alone, with its 95% Student-t "
        f"interval over data sets. {few}{words}{ranked}"
    )
    first = points.groupby("dataset").head(1).to_dict("records")
    best = "; ".join(f"{p['dataset']} {p['arm']} {measured(p)}" for p in first)
    alt = (
        f"Dots with intervals, an arm a line, a panel each for {', '.join(sets)}, and one of mean ranks. First in "
        f"rank: {best}."
    )
    note = f"mean and 95% Student-t interval, {n} repetitions, of ranks over {len(sets)} data sets; axes differ"
    numbers = {"ranks": ranks, "mean_ranks": overall}
    return Drawing(figure, note, caption, alt, int(points["n"].max()), numbers)


def _dots(panel: Axes, points: pd.DataFrame, arms: Mapping[str, Style]) -> None:
    """A line an arm, the first above."""
    for line, point in enumerate(points.to_dict("records")):
        style = arms[point["arm"]]
        error = bars(pd.DataFrame([point]))
        panel.errorbar(point["mean"], line, xerr=error, color=style.colour, marker=style.marker, elinewidth=0.9)
    panel.set_yticks(range(len(points)), labels=list(points["arm"]))
    panel.set_ylim(len(points) - 0.5, -0.5)
    panel.tick_params(left=False, bottom=True, pad=2)
    panel.grid(axis="x")
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _limits(panel: Axes, points: pd.DataFrame) -> None:
    """As wide as means and most intervals need: one of two repetitions may not flatten all the rest."""
    means = points["mean"]
    beyond = max(0.02, float(np.ptp(means)))
    low = max(float(points["low"].fillna(means).min()), means.min() - beyond, 0.0)
    high = min(float(points["high"].fillna(means).max()), means.max() + beyond, 1.0)
    room = 0.05 * (high - low) + 0.002
    panel.set_xlim(low - room, high + room)
