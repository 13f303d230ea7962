"""Every family of faults on the cheap data set: accuracy by severity, and where each arm breaks."""

from __future__ import annotations

from math import ceil
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from spikebench import comparison
from spikebench.figures.comparison_rows import margin
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, canvas, curve, key, lower_end, percent_axis, shifts
from spikebench.figures.tables import at, faults, finished, in_groups, summary
from spikebench.figures.text import measured, repetitions

TITLE = "Accuracy by severity, and where methods break"
EXPERIMENT = comparison.EXPERIMENT
UNFINISHED_TOO = True
DATASET = "breast_cancer"
#: Columns of panels; more families begin a further block of rows.
COLUMNS = 5
#: A break point's mark: a ring around the mean.
_RING: dict[str, Any] = {"marker": "o", "markersize": 7.5, "markerfacecolor": "none", "linestyle": "none"}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of all families with all training data."""
    return at(comparison.planned(rows), dataset=DATASET)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a family, five in a row; each group of arms has its own row of panels."""
    limit = margin(context)
    points = summary(finished(rows), ["fault", "arm", "severity"], "accuracy")
    breaks = comparison.break_points(rows, limit)
    arms, families = context.present(points), faults(points)
    groups = in_groups(finished(rows), arms)
    columns, blocks = min(COLUMNS, len(families)), ceil(len(families) / COLUMNS)
    ring = Line2D([], [], color=GREY, label="break point", **_RING)
    height = 1.4 if len(groups) == 1 else 1.0
    figure, axes = canvas(
        blocks * len(groups), columns, TITLE, [*map(key, arms.values()), ring],
        height=height, gap=0.28 if blocks > 1 else 0.15, sharex=True, sharey=True,
    )  # fmt: skip
    for place, fault in enumerate(families):
        block, column = divmod(place, columns)
        panels = axes[block * len(groups) : (block + 1) * len(groups), column]
        for panel, group in zip(panels, groups, strict=True):
            for arm, shift in zip(group, shifts(len(group), 0.012, 0.06), strict=True):
                here = at(points, fault=fault, arm=arm)
                curve(panel, here, "severity", arms[arm], shift)
                for found in at(breaks, fault=fault, arm=arm, censored=False).to_dict("records"):
                    mean = at(here, severity=found["break_point"])["mean"].iloc[0]
                    panel.plot(found["break_point"] + shift, mean, color=arms[arm].colour, **_RING)
        panels[0].set_title(fault, pad=3)
        if place + columns >= len(families):  # the lowest of its column
            panels[-1].set_xlabel("severity")
            panels[-1].tick_params(bottom=True, labelbottom=True)
    for panel in axes[-len(groups) :, len(families) - (blocks - 1) * columns :].flat:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("accuracy (%)")
    percent_axis(axes, lower_end(points))

    n, worst, fault = repetitions(points["n"]), points["severity"].max(), families[-1]
    ends = {p["arm"]: p for p in at(points, fault=fault, severity=worst).to_dict("records")}
    broken = {p["arm"]: p for p in at(breaks, fault=fault).to_dict("records")}
    words = ", ".join(f"{arm} {measured(ends[arm])}{_break(broken.get(arm))}" for arm in arms if arm in ends)
    told = f"{fault}, severity {worst:g}: {words}."
    size = rows["training_size"].iloc[0]
    caption = (
        f"Test accuracy on {DATASET} by severity, a panel a family of faults{_parted(len(groups), blocks)}, {size} "
        f"training samples: mean and 95% Student-t interval over {n} repetitions, in which all arms meet the same "
        "splits and chips. A ring is the break point, the largest severity up to which an arm's mean stays within "
        f"{100 * limit:g} points of its own on a sound chip; a curve without one never leaves them. {told}"
    )
    alt = (
        f"Line charts of test accuracy against severity, a panel each for {', '.join(families)}, a line each for "
        f"{', '.join(arms)}, with a ring where accuracy has fallen by {100 * limit:g} points. {told}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; ring: break point at {100 * limit:g} points"
    return Drawing(
        figure, note, caption, alt, int(points["n"].max()), {"points": points, "break_points": breaks, "margin": limit}
    )


def _break(found: dict[Any, Any] | None) -> str:
    if found is None:
        return ""
    return " (never breaks)" if found["censored"] else f" (breaks after {found['break_point']:g})"


def _parted(groups: int, blocks: int) -> str:
    if groups == 1:
        return ""
    return f", {groups} rows of panels for as many groups of arms" + (" in each block" if blocks > 1 else "")
