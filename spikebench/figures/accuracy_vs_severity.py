"""E1: how accuracy falls as the chip gets worse, for each set of faults."""

from __future__ import annotations

import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import canvas, curve, key, lower_end, percent_axis, shifts
from spikebench.figures.tables import at, faults, in_sweep, summary
from spikebench.figures.text import by_arm, repetitions

TITLE = "Test accuracy against fault severity"
EXPERIMENT = "chip_in_the_loop"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep over severities."""
    return in_sweep(rows, "severity")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel a fault set, one curve an arm."""
    points = summary(rows, ["fault", "arm", "severity"], "accuracy")
    arms, panels = context.present(points), faults(points)
    figure, axes = canvas(1, len(panels), TITLE, [key(style) for style in arms.values()], sharey=True)
    for panel, fault in zip(axes[0], panels, strict=True):
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.012, 0.06), strict=True):
            curve(panel, at(points, fault=fault, arm=arm), "severity", style, shift)
        panel.set(title=fault, xlabel="severity")
    axes[0, 0].set_ylabel("test accuracy (%)")
    percent_axis(axes, lower_end(points))

    n, best, worst = repetitions(points["n"]), points["severity"].min(), points["severity"].max()
    fault = panels[-1]
    start, end = (
        f"{fault}, severity {severity:g}: {by_arm(at(points, fault=fault, severity=severity), arms)}."
        for severity in (best, worst)
    )
    caption = (
        f"{TITLE}, one panel a set of faults: mean and 95% Student-t interval over {n} repetitions, each with its "
        f"own split and chip. {start} {end}"
    )
    alt = (
        f"Line charts of test accuracy against severity from {best:g} to {worst:g}, a panel each for "
        f"{', '.join(panels)}, a line each for {', '.join(arms)}. {end}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})
