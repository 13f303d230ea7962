"""What accuracy costs: samples shown to the chip while training, against what came of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, bars, canvas, key, percent_axis, shifts
from spikebench.figures.tables import at, hardest, in_sweep, pick, summary
from spikebench.figures.text import big, measured, repetitions

TITLE = "Test accuracy against chip presentations"
EXPERIMENT = "chip_in_the_loop"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The strongest fault set's cells, with all training data, of the sweep over severities."""
    return hardest(in_sweep(rows, "severity"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel a severity; a pale point a cell, a full one an arm's mean with the intervals of both axes."""
    severities, by = pick(rows["severity"]), ["severity", "arm"]
    rows = rows[rows["severity"].isin(severities)]
    spent = summary(rows, by, "chip_presentations")
    points = summary(rows, by, "accuracy").merge(spent, on=by, suffixes=("", "_presentations"))
    arms = context.present(points)
    keys = [key(style, joined=False) for style in arms.values()]
    figure, axes = canvas(1, len(severities), TITLE, keys, sharey=True)
    zero = _place_of_zero(rows["chip_presentations"])
    for panel, severity in zip(axes[0], severities, strict=True):
        panel.set(xscale="log", title=f"severity {severity:g}", xlabel="samples shown to the chip")
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.06, 0.3), strict=True):
            aside = 10**shift  # arms that spent the same must not hide each other
            look = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
            cells, mean = (at(table, severity=severity, arm=arm) for table in (rows, points))
            spent_by_cell = cells["chip_presentations"].clip(lower=zero)
            panel.plot(spent_by_cell * aside, cells["accuracy"], alpha=0.25, markersize=3, **look)
            panel.errorbar(
                mean["mean_presentations"].clip(lower=zero) * aside,
                mean["mean"],
                xerr=bars(mean, "_presentations"),
                yerr=bars(mean),
                markersize=6,
                markeredgecolor="black",
                **look,
            )
    if (rows["chip_presentations"] == 0).any():
        for panel in axes[0]:
            _mark_zero(panel, zero)
    axes[0, 0].set_ylabel("test accuracy (%)")
    percent_axis(axes, rows["accuracy"].min())

    n, fault, size = repetitions(points["n"]), rows["fault"].iloc[0], rows["training_size"].iloc[0]
    found = {point["arm"]: point for point in at(points, severity=severities[-1]).to_dict("records")}
    told = (f"{arm} {measured(p)} for {big(p['mean_presentations'])}" for arm in arms if (p := found.get(arm)))
    words = f"At severity {severities[-1]:g}: {', '.join(told)}."
    caption = (
        f"{TITLE} spent on training (tuning and all chains included; logarithmic axis), {fault}, {size} training "
        f"samples: pale points are repetitions, full ones means with 95% Student-t intervals over {n}. {words}"
    )
    alt = (
        f"Scatter plots of test accuracy against chip presentations, a panel each for severity "
        f"{', '.join(f'{s:g}' for s in severities)}, a mark each for {', '.join(arms)}. {words}"
    )
    note = (
        f"pale: repetitions; full: mean and 95% Student-t interval, {n}; fault: {fault}, {size} training samples; arms "
        "set slightly apart"
    )
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})


def _place_of_zero(presentations: pd.Series) -> float:
    """Where a logarithmic axis shows 0: a decade below that of the smallest positive value."""
    positive = presentations[presentations > 0]
    return float(10.0 ** (np.floor(np.log10(positive.min())) - 1)) if len(positive) else 1.0


def _mark_zero(panel: Axes, zero: float) -> None:
    """Set the place of 0 apart from the logarithmic part, and label it."""
    panel.axvline(zero * 10**0.5, color=GREY, linewidth=0.7, linestyle=(0, (2, 2)))
    panel.set_xlim(left=zero / 3)
    ticks = [tick for tick in panel.get_xticks() if zero * 5 < tick <= panel.get_xlim()[1]]
    panel.set_xticks([zero, *ticks], labels=["0", *(f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks)])
    panel.minorticks_off()
