"""E2: how much training data an arm needs, on a perfect chip and on bad ones."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, canvas, curve, key, lower_end, percent_axis, shifts, size_axis
from spikebench.figures.tables import at, in_sweep, pick, summary
from spikebench.figures.text import by_arm, repetitions
from spikebench.statistics import smallest_size_reaching

TITLE = "Test accuracy against training samples"
EXPERIMENT = "chip_in_the_loop"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep over training sizes."""
    return in_sweep(rows, "training-size")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel a severity, one curve an arm, and the target that a claim names."""
    severities = pick(rows["severity"])
    points = summary(rows[rows["severity"].isin(severities)], ["severity", "arm", "training_size"], "accuracy")
    arms = context.present(points)
    figure, axes = canvas(1, len(severities), TITLE, [key(style) for style in arms.values()], sharey=True)
    for panel, severity in zip(axes[0], severities, strict=True):
        size_axis(panel, points["training_size"])
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.05, 0.25), strict=True):
            curve(panel, at(points, severity=severity, arm=arm), "training_size", style, shift)
        panel.set(title=f"severity {severity:g}", xlabel="training samples")
        if context.target is not None:
            panel.axhline(context.target, color=GREY, linewidth=0.9, linestyle=(0, (1, 1)))
    axes[0, 0].set_ylabel("test accuracy (%)")
    percent_axis(axes, lower_end(points))

    n, worst, largest = repetitions(points["n"]), severities[-1], points["training_size"].max()
    fault = " and ".join(sorted(set(rows["fault"])))
    note = f"mean and 95% Student-t interval, {n} repetitions a point; fault: {fault}"
    numbers, reached = {"points": points}, ""
    if context.target is not None:
        note += f"; dotted: target {context.target:.0%}"
        numbers["reached"] = _reached(points, context.target, arms)
        reached = f" Samples at which the mean reaches {context.target:.0%}: {_in_words(numbers['reached'])}."
    caption = (
        f"{TITLE} (logarithmic axis) on chips with {fault} faults: mean and 95% Student-t interval over {n} "
        f"repetitions.{reached} With all {largest} samples at severity {worst:g}: "
        f"{by_arm(at(points, training_size=largest, severity=worst), arms)}."
    )
    alt = (
        f"Line charts of test accuracy against {points['training_size'].min()} to {largest} training samples, a panel "
        f"each for severity {', '.join(f'{s:g}' for s in severities)}, a line each for {', '.join(arms)}.{reached}"
    )
    return Drawing(figure, note, caption, alt, int(points["n"].max()), numbers)


def _reached(points: pd.DataFrame, target: float, arms: Iterable[str]) -> pd.DataFrame:
    """The smallest size at which each arm's mean is at least the target; None if none is."""
    records = [
        {
            "severity": severity,
            "arm": arm,
            "training_size": smallest_size_reaching(mine["training_size"], mine["mean"], target),
        }
        for severity, here in points.groupby("severity")
        for arm in arms
        if len(mine := at(here, arm=arm))
    ]
    return pd.DataFrame(records, dtype=object)


def _in_words(reached: pd.DataFrame) -> str:
    return "; ".join(
        f"severity {severity:g}: "
        + ", ".join(f"{r['arm']} {r['training_size'] or 'at no size'}" for r in here.to_dict("records"))
        for severity, here in reached.groupby("severity")
    )
