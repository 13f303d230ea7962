"""What more compartments in training bring, at a fixed number of runs in inference, and how many of them count."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.gem_rows import (
    BAND,
    GREY_BAND,
    SCORES,
    at_usual_runs,
    band_key,
    in_words,
    largest,
    looks,
    show,
    with_lines,
)
from spikebench.figures.style import GREY, canvas, curve, key, shifts, size_axis
from spikebench.figures.tables import at, in_sweep, summary, with_all_data
from spikebench.figures.text import number, repetitions

TITLE = "GEM-SNN: compartments in training"
EXPERIMENT = "gem_snn"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All arms of the classification."""
    return with_all_data(in_sweep(rows, "classification"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Four panels, three scores and the effective number of compartments; one curve a rule."""
    rows = with_lines(rows)
    by = ["arm", "compartments", "line"]
    points, band, made = at_usual_runs(rows, by)
    effective = summary(_effective(rows, context.traces), by, "value")
    arms = context.present(points)
    keys = [key(style) for style in arms.values()]
    keys += [Line2D([], [], color=GREY, linestyle="--", label="all compartments weigh the same")]
    figure, axes = canvas(2, 2, TITLE, [*keys, band_key()], height=1.7, left=0.75, gap=0.3, wspace=0.22, sharex=True)
    for panel, (score, (words, _)) in zip(axes.flat, SCORES.items(), strict=False):
        here = at(points, score=score)
        _curves(panel, here, arms)
        top = 0.0
        if score == "ece_width_15":
            # The widest band over the rules: a point above it lies above its own rule's band as well.
            widest = band.groupby("compartments").agg({"ece_null_low": "min", "ece_null_high": "max"})
            panel.fill_between(widest.index, *(widest[end] for end in BAND), color=GREY_BAND, linewidth=0, zorder=0)
            top = widest["ece_null_high"].max() if len(widest) else 0.0
        panel.set_ylabel(words)
        show(panel, score, here, top=top)
    last = axes[1, 1]
    _curves(last, effective, arms)
    numbers = sorted(set(points["compartments"]))
    last.plot(numbers, numbers, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
    last.set(yscale="log", ylabel="effective compartments")
    last.set_yticks(numbers, labels=[str(k) for k in numbers])
    last.yaxis.set_minor_locator(NullLocator())
    for panel in axes.flat:
        size_axis(panel, points["compartments"])
        panel.tick_params(left=True)
    for panel in axes[1]:
        panel.set_xlabel("compartments in training, K")

    n, lines = repetitions(points["n"]), looks(rows, context)
    shown = largest(rows, lines)
    words = f"{in_words(points, shown)}."
    if len(effective):
        found = {p["line"]: number(p, 1) for p in effective.to_dict("records") if p["compartments"] > 1}
        words += f" Effective compartments: {', '.join(f'{name} {found[name]}' for name in shown if name in found)}."
    caption = (
        "Test log-likelihood, accuracy, expected calibration error (15 bins of equal width) and effective number of "
        "compartments (1 over the sum of their squared weights w, mean over training) by rule and number K of "
        f"compartments in training (logarithmic axis); in testing {made}: mean and 95% Student-t interval over "
        f"{n} repetitions. Grey: the widest null band over the rules. GEM with K = 1 does not train its hidden "
        f"neurons; the single-sample rule does. {words}"
    )
    alt = (
        f"Line charts of log-likelihood, accuracy, calibration error and effective number of compartments against "
        f"K = {', '.join(map(str, numbers))} compartments in training, a line each for {', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; in testing {made}; rules set slightly apart"
    tables = {"points": points, "band": band, "effective": effective}
    return Drawing(figure, note, caption, alt, int(points["n"].max()), tables)


def _curves(panel: Axes, points: pd.DataFrame, arms: dict[str, Style]) -> None:
    """One curve a rule against K."""
    panel.set_xscale("log")
    for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.05, 0.25), strict=True):
        curve(panel, at(points, arm=arm), "compartments", style, shift)


def _effective(rows: pd.DataFrame, traces: pd.DataFrame) -> pd.DataFrame:
    """The mean of each cell's trace."""
    means = at(traces, name="effective_samples").groupby("cell")["value"].mean().astype(np.float64)
    return rows[["cell", "arm", "compartments", "line"]].merge(means, left_on="cell", right_index=True)
