"""Does confidence mean what it says? Reliability diagrams of BiSNN's variants on the recordings."""

from __future__ import annotations

import json

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, canvas
from spikebench.figures.tables import NothingToDraw, at, in_sweep, summary, with_all_data
from spikebench.figures.text import measured, percent, repetitions, spread

TITLE = "BiSNN: reliability diagrams"
EXPERIMENT = "bisnn"

#: A bin with fewer predictions than this is drawn pale: its accuracy is mostly chance.
FEW = 20


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the recordings with all training data."""
    return with_all_data(in_sweep(rows, "recordings"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A column an arm: above accuracy against confidence, below how many predictions have that confidence."""
    bins = _pooled(rows)
    if bins.empty:
        raise NothingToDraw("no reliability tables in the finished cells for this figure")
    ece = summary(rows, ["arm"], "ece_width_15")
    ece = ece.merge(rows.groupby("arm")[["ece_null_low", "ece_null_high"]].mean().reset_index(), on="arm")
    arms = context.present(bins)
    keys = [
        Line2D([], [], color=GREY, linestyle="--", label="as accurate as confident"),
        Line2D([], [], color=GREY, alpha=0.4, marker="o", linestyle="none", label=f"fewer than {FEW} predictions"),
    ]
    ratios = {"height_ratios": [7, 3]}
    figure, axes = canvas(
        2, len(arms), TITLE, keys, height=1.05, gap=0.45, sharex=True, sharey="row", gridspec_kw=ratios
    )
    for (above, below), (arm, style) in zip(axes.T, arms.items(), strict=True):
        mine, error = at(bins, arm=arm), at(ece, arm=arm).to_dict("records")[0]
        _diagram(above, mine, style)
        band = spread(error["ece_null_low"], error["ece_null_high"])
        interval = "" if error["n"] == 1 else spread(error["low"], error["high"])
        words = f"ECE {percent(error['mean'])} {interval}\ncalibrated {band}"
        above.text(0.5, -0.05, words, transform=above.transAxes, size=6.5, ha="center", va="top", linespacing=1.4)
        below.bar(mine["middle"], mine["share"], 0.9 / mine["bins"].iloc[0], color=style.colour)
        above.set_title(arm)
        below.set_xlabel("confidence (%)")
    axes[0, 0].set(ylabel="accuracy (%)", xlim=(0, 1), ylim=(0, 1.02))
    axes[1, 0].set(ylabel="predictions\n(%)", ylim=(0, 1.05 * bins["share"].max()))
    for axis in (axes[0, 0].xaxis, axes[0, 0].yaxis, axes[1, 0].yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    axes[0, 0].set(xticks=[0.25, 0.5, 0.75], yticks=[0, 0.25, 0.5, 0.75, 1])

    n, size = repetitions(ece["n"]), rows["training_size"].iloc[0]
    words = "; ".join(
        f"{e['arm']} ECE {measured(e)}, own band {spread(e['ece_null_low'], e['ece_null_high'])}"
        for arm in arms
        for e in at(ece, arm=arm).to_dict("records")
    )
    caption = (
        f"Accuracy against confidence on the test data (15 bins of equal width, all repetitions pooled) of BiSNN's "
        f"variants, {size:,} training examples, and the share of predictions in each bin. Expected calibration error: "
        f"mean and 95% Student-t interval over {n} repetitions, and the band in which perfectly calibrated predictions "
        f"with the same confidences would lie in 95% of draws: {words}."
    )
    alt = (
        f"Reliability diagrams with histograms of confidence below, a column each for {', '.join(arms)}. Points below "
        f"the diagonal are too confident. {words}."
    )
    note = f"all predictions of {n} repetitions; {size:,} training examples; ECE: mean and 95% Student-t interval"
    return Drawing(figure, note, caption, alt, int(ece["n"].max()), {"bins": bins, "ece": ece})


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """The filled bins of each arm over all its cells: mean confidence, accuracy, count, share of the arm's predictions.

    The middle and number of the equally wide bins say where a bin lies.
    """
    lines = [
        {"arm": arm, "middle": (k + 0.5) / len(found["count"]), "bins": len(found["count"]), "count": count,
         "confidence": found["confidence"][k] * count, "accuracy": found["accuracy"][k] * count}
        for arm, text in zip(rows["arm"], rows["reliability"], strict=True)
        for found in [json.loads(text)]
        for k, count in enumerate(found.get("count", ()))
        if count
    ]  # fmt: skip
    columns = ["arm", "middle", "bins", "count", "confidence", "accuracy"]
    bins = pd.DataFrame(lines, columns=columns).groupby(["arm", "middle", "bins"], as_index=False).sum()
    bins[["confidence", "accuracy"]] = bins[["confidence", "accuracy"]].div(bins["count"], axis=0)
    return bins.assign(share=bins["count"] / bins.groupby("arm")["count"].transform("sum"))


def _diagram(panel: Axes, bins: pd.DataFrame, style: Style) -> None:
    """Accuracy against confidence with each bin's distance from the diagonal."""
    panel.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.9)
    panel.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color=style.colour, linewidth=2.5, alpha=0.3)
    many, few = bins[bins["count"] >= FEW], bins[bins["count"] < FEW]
    panel.plot(many["confidence"], many["accuracy"], marker=style.marker, color=style.colour, linewidth=0.8)
    panel.plot(few["confidence"], few["accuracy"], style.marker, color=style.colour, alpha=0.4)
