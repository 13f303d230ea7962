"""How much data BiSNN's variants need for accuracy, and for confidence that can be believed."""

from __future__ import annotations

import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import canvas, curve, key, shifts, size_axis, zoomed_percent_axis
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import by_arm, repetitions

TITLE = "BiSNN: accuracy and calibration by training size"
EXPERIMENT = "bisnn"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the recordings, of all training sizes."""
    return in_sweep(rows, "recordings")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Two panels, accuracy and calibration error (15 bins of equal width); one curve an arm."""
    by = ["arm", "training_size"]
    accuracy, ece = summary(rows, by, "accuracy"), summary(rows, by, "ece_width_15")
    arms = context.present(accuracy)
    keys = [key(style) for style in arms.values()]
    figure, axes = canvas(1, 2, TITLE, keys, height=2.4, wspace=0.25)
    for panel, points in zip(axes[0], (accuracy, ece), strict=True):
        size_axis(panel, points["training_size"])
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.03, 0.2), strict=True):
            curve(panel, at(points, arm=arm), "training_size", style, shift)
        panel.set_xlabel("training examples")
        panel.tick_params(left=True)
    # The widest band over the arms: a point above it lies above its own arm's band as well.
    bands = rows.groupby("training_size").agg({"ece_null_low": "min", "ece_null_high": "max"}).reset_index()
    ends = bands["ece_null_low"], bands["ece_null_high"]
    axes[0, 1].fill_between(bands["training_size"], *ends, color="#d9d9d9", linewidth=0, zorder=0)
    zoomed_percent_axis(axes[:, 0], accuracy)
    zoomed_percent_axis(axes[:, 1], ece, zero=True)
    axes[0, 1].set_ylim(top=max(axes[0, 1].get_ylim()[1], 1.05 * bands["ece_null_high"].max()))
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[0, 1].set_ylabel("ECE (%)")

    n, sizes = repetitions(accuracy["n"]), sorted(set(accuracy["training_size"]))
    words = " ".join(
        f"{size:,} examples: accuracy {by_arm(at(accuracy, training_size=size), arms)}; "
        f"ECE {by_arm(at(ece, training_size=size), arms)}."
        for size in sorted({sizes[0], sizes[-1]})
    )
    caption = (
        "Test accuracy and expected calibration error (ECE, 15 bins of equal width) of BiSNN's variants against the "
        f"number of training examples (logarithmic axis): mean and 95% Student-t interval over {n} repetitions. Grey: "
        "what perfectly calibrated predictions with the same confidences would show in 95% of draws, the widest over "
        f"the arms. {words}"
    )
    alt = (
        f"Line charts of test accuracy and of calibration error against {sizes[0]:,} to {sizes[-1]:,} training "
        f"examples, a line each for {', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; grey: calibrated; arms set slightly apart"
    numbers = {"accuracy": accuracy, "ece": ece, "bands": bands}
    return Drawing(figure, note, caption, alt, int(accuracy["n"].max()), numbers)
