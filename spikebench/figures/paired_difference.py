"""E1, as differences: what the reference arm gains over each other arm on the same chips and splits."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.ticker import FuncFormatter

from spikebench.figures.arms import REFERENCE, label
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, canvas, curve, key, shifts
from spikebench.figures.tables import NothingToDraw, at, differences, faults, in_sweep, summary
from spikebench.figures.text import repetitions, spread

TITLE = "What MH in the loop gains over the other arms, paired"
EXPERIMENT = "chip_in_the_loop"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep over severities."""
    return in_sweep(rows, "severity")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel a fault set, one curve for each arm that the reference is compared with."""
    reference = label(REFERENCE)
    pairs = differences(rows, reference, "accuracy")
    if pairs.empty:
        raise NothingToDraw(f"no finished cells for this figure that pair {reference} with another arm")
    points = summary(pairs, ["fault", "arm", "severity"], "difference")
    arms, panels = context.present(points), faults(points)
    keys = [key(style) for style in arms.values()]
    for entry, arm in zip(keys, arms, strict=True):
        entry.set_label(f"over {arm}")
    figure, axes = canvas(1, len(panels), TITLE, keys, sharey=True)
    for panel, fault in zip(axes[0], panels, strict=True):
        if context.margin is not None:
            panel.axhspan(-context.margin, context.margin, color="#ebebeb", linewidth=0, zorder=0)
        panel.axhline(0, color=GREY, linewidth=0.9)
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.014, 0.06), strict=True):
            curve(panel, at(points, fault=fault, arm=arm), "severity", style, shift)
        panel.set(title=fault, xlabel="severity")
    axes[0, 0].set_ylabel("accuracy gained (points)")
    axes[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f}" if value else "0"))
    reach = points["mean"].abs().max() + 0.2  # the intervals of two pairs must not flatten the rest
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(max(low, -reach), min(high, reach))

    n, worst, fault = repetitions(points["n"]), points["severity"].max(), panels[-1]
    gains = f"{fault}, severity {worst:g}: {_in_words(at(points, severity=worst, fault=fault), arms)}."
    note, band = f"mean and 95% Student-t interval of the paired difference, {n} pairs a point", ""
    if context.margin is not None:
        note += f"; grey: ±{100 * context.margin:g} points"
        band = f" Grey: the ±{100 * context.margin:g} points that do not matter."
    caption = (
        f"Test accuracy of {reference} minus that of each other arm in points, paired over the same splits and chips: "
        f"mean and 95% Student-t interval over {n} pairs; above 0, {reference} is better.{band} {gains}"
    )
    alt = (
        f"Line charts of the paired difference in test accuracy, {reference} minus {', '.join(arms)}, against "
        f"severity, a panel each for {', '.join(panels)}. {gains}"
    )
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "margin": context.margin})


def _in_words(points: pd.DataFrame, arms: Iterable[str]) -> str:
    found = {point["arm"]: point for point in points.to_dict("records")}
    told = ((arm, found[arm]) for arm in arms if arm in found)
    return ", ".join(f"{100 * p['mean']:+.1f} {spread(p['low'], p['high'])} over {arm}" for arm, p in told)
