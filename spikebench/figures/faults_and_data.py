"""The sweep of every method: what bad chips and little data leave of the accuracy."""

from __future__ import annotations

import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import canvas, curve, key, lower_end, percent_axis, shifts
from spikebench.figures.tables import at, faults, in_groups, in_sweep, summary
from spikebench.figures.text import by_arm, repetitions

TITLE = "Test accuracy by fault, severity and training data"
EXPERIMENT = "grand_comparison"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the families that meet every training size."""
    return in_sweep(rows, "training-sizes")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """All of it."""
    return grid(rows, context, TITLE)


def grid(rows: pd.DataFrame, context: Context, title: str) -> Drawing:
    """A grid of panels, a column a fault set and a row a training size; one curve an arm.

    Of arms that are too many for a panel, each group has its own row of panels.
    """
    points = summary(rows, ["fault", "training_size", "arm", "severity"], "accuracy")
    arms, columns, sizes = context.present(points), faults(points), sorted(set(points["training_size"]))
    keys = [key(style) for style in arms.values()]
    groups = in_groups(rows, arms)
    rows_of_panels = [(size, group) for size in sizes for group in groups]
    room = {"height": 1.35} if len(groups) == 1 else {"height": 1.1, "gap": 0.15}
    figure, axes = canvas(len(rows_of_panels), len(columns), title, keys, left=0.75, sharex=True, sharey=True, **room)
    for line, (size, group) in zip(axes, rows_of_panels, strict=True):
        for panel, fault in zip(line, columns, strict=True):
            for arm, shift in zip(group, shifts(len(group), 0.012, 0.06), strict=True):
                curve(panel, at(points, fault=fault, training_size=size, arm=arm), "severity", arms[arm], shift)
        line[0].set_ylabel(f"{size} samples\naccuracy (%)")
    for fault, highest, lowest in zip(columns, axes[0], axes[-1], strict=True):
        highest.set_title(fault)
        lowest.set_xlabel("severity")
    percent_axis(axes, lower_end(points))

    n, worst, fault = repetitions(points["n"]), points["severity"].max(), columns[-1]
    told = at(points, fault=fault, severity=worst)
    ends = sorted({sizes[0], sizes[-1]})
    words = "; ".join(f"{size} samples: {by_arm(at(told, training_size=size), arms)}" for size in ends)
    parted = " and a group of arms" if len(groups) > 1 else ""
    caption = (
        f"{title}: a column a set of faults, a row a number of training samples{parted}; mean and 95% Student-t "
        f"interval over {n} repetitions, in which all arms meet the same splits and chips. {fault}, severity "
        f"{worst:g}: {words}."
    )
    alt = (
        f"A grid of line charts of test accuracy against severity, columns {', '.join(columns)}, rows "
        f"{', '.join(map(str, sizes))} training samples, a line each for {', '.join(arms)}. {fault}, severity "
        f"{worst:g}: {words}."
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})
