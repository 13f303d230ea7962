"""What accuracy on bad chips costs: gradient steps, samples shown to the chip, seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from spikebench import comparison
from spikebench.figures.arms import Style
from spikebench.figures.comparison_rows import areas_over, data_sets, in_lines, log_ticks, mark_none, place_of_none
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import bars, canvas, key, shifts, zoomed_percent_axis
from spikebench.figures.tables import NothingToDraw, at
from spikebench.figures.text import big, measured, percent, repetitions

TITLE = "What accuracy on bad chips costs"
EXPERIMENT = comparison.EXPERIMENT
SEVERAL_DATASETS = True
UNFINISHED_TOO = True
#: What a budget is called on its axis.
WORDS = {
    "gradient_steps": "gradient steps",
    "chip_presentations": "samples shown to the chip",
    "seconds": "seconds of one cell",
}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All cells with all training data."""
    return comparison.planned(rows)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A row of panels a data set, a column a budget."""
    points = comparison.ranks(rows).merge(comparison.budgets(rows), on=["dataset", "arm"])
    if points.empty:
        raise NothingToDraw("no finished cells for this figure under faults that all arms meet")
    sets, arms = data_sets(points), context.present(points)
    keys = [key(style, joined=False) for style in arms.values()]
    figure, axes = canvas(
        len(sets), len(WORDS), TITLE, keys, height=2.0 if len(sets) < 3 else 1.7, left=0.75, gap=0.2,
        sharex="col", sharey="row",
    )  # fmt: skip
    for column, (budget, words) in zip(axes.T, WORDS.items(), strict=True):
        none = place_of_none(points[budget])
        for panel, name in zip(column, sets, strict=True):
            panel.set(xscale="log")
            _dots(panel, at(points, dataset=name), budget, none, arms)
        for panel in column:
            if (points[budget] == 0).any():
                mark_none(panel, none)
            else:
                log_ticks(panel, points[budget])
        column[-1].set_xlabel(words)
    for line, name in zip(axes, sets, strict=True):
        line[0].set_ylabel(f"{in_lines(name)}\narea (%)")
        zoomed_percent_axis(line, at(points, dataset=name).rename(columns={"area": "mean"}))

    n = repetitions(points["n"])
    fronts = {name: {budget: comparison.front(at(points, dataset=name), budget) for budget in WORDS} for name in sets}
    told = []
    for name in sets:
        found = {p["arm"]: p for p in at(points, dataset=name).to_dict("records")}
        for budget, words in WORDS.items():
            on_front = ", ".join(
                f"{arm} {measured({**found[arm], 'mean': found[arm]['area']})} for {_cost(found[arm][budget])}"
                for arm in fronts[name][budget]
            )
            told.append(f"{name}, {words}: {on_front or 'none'}.")
    over = "; ".join(f"{name}: {areas_over(rows, name)}" for name in sets)
    shared = float((points["shared"] * points["cells"]).sum() / points["cells"].sum())
    fronts_told = f"On the Pareto front, where no arm has more for as little: {' '.join(told)}"
    caption = (
        "Accuracy as a mean over severities and over the fault families that all arms meet (area, with its 95% "
        f"Student-t interval over {n} repetitions; {over}) against what one cell costs on average over the same "
        "faults: gradient steps and samples shown to the chip, tuning and all chains included, and seconds "
        "(logarithmic axes; an arm that pays nothing stands at none; arms are set slightly apart). Seconds are the "
        "rows' own: cells that were trained together have an equal part each of their time, "
        f"{percent(shared)} of those here, so that they say what a cell costs in this sweep and not what it would cost "
        f"alone. {fronts_told}"
    )
    alt = (
        f"Scatter plots of area against {', '.join(WORDS.values())}, a row each for {', '.join(sets)}, a mark each for "
        f"{', '.join(arms)}. {fronts_told}"
    )
    note = (
        f"area: mean over severities and families, 95% Student-t interval, {n} repetitions; cost: mean of a cell; arms "
        "set slightly apart"
    )
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "fronts": fronts})


def _dots(panel: Axes, points: pd.DataFrame, budget: str, none: float, arms: Mapping[str, Style]) -> None:
    """A mark an arm at what it pays; one whose budget was not counted has none.

    Arms that pay the same must not hide each other; where all pay nothing there is more room.
    """
    free = [arm for arm in arms if arm in set(at(points, **{budget: 0})["arm"])]
    apart = dict(zip(arms, shifts(len(arms), 0.04, 0.3), strict=True))
    apart |= dict(zip(free, shifts(len(free), 0.15, 0.75), strict=True))
    for arm, style in arms.items():
        here = at(points, arm=arm).dropna(subset=[budget]).rename(columns={"area": "mean"})
        look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
        place = here[budget].clip(lower=none) * 10 ** apart[arm]
        panel.errorbar(place, here["mean"], yerr=bars(here), elinewidth=0.7, **look)


def _cost(value: float) -> str:
    """A count, or seconds, that may be small."""
    return "none" if value == 0 else big(value) if value >= 100 else f"{value:.2g}"
