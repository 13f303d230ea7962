"""What BiSNN's variants make of the plane around two moons: where they are sure, and where they are not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.lines import Line2D

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import WIDTH, canvas
from spikebench.figures.tables import NothingToDraw, at, in_sweep, summary, with_all_data
from spikebench.figures.text import by_arm, repetitions

TITLE = "BiSNN: probability maps of two moons"
EXPERIMENT = "bisnn"

#: Room for the colour bar, in inches.
_RIGHT = 0.72


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep with all training data."""
    return with_all_data(in_sweep(rows, "two-moons"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel an arm: its map in one repetition.

    The mean over repetitions is not shown: averaging makes an ensemble of single networks and would blur what they
    claim; besides, each repetition has its own points.
    """
    mapped = rows[rows["outputs"] != "{}"]
    if mapped.empty:
        raise NothingToDraw("no maps in the finished cells for this figure")
    repetition = mapped.groupby("repetition")["arm"].nunique().idxmax()  # the first that most arms have
    shown = at(mapped, repetition=repetition)
    accuracy, ece = summary(rows, ["arm"], "accuracy"), summary(rows, ["arm"], "ece_width_15")
    arms = context.present(shown)
    maps = {arm: json.loads(at(shown, arm=arm)["outputs"].iloc[0]) for arm in arms}
    keys = [
        Line2D([], [], color="black", marker=".", markersize=3, linestyle="none", label="training examples"),
        Line2D([], [], color="black", label="undecided, P = 0.5"),
    ]
    width = (WIDTH - 0.6 - _RIGHT) / (len(arms) + 0.1 * (len(arms) - 1))  # square panels
    figure, axes = canvas(
        1, len(arms), TITLE, keys, height=min(width, 2.5), right=_RIGHT, wspace=0.1, sharex=True, sharey=True
    )
    for panel, arm in zip(axes[0], arms, strict=True):
        mesh = _map(panel, maps[arm])
        panel.set(title=arm, xlabel="x (scaled)")
    axes[0, 0].set(ylabel="y (scaled)", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes[0, 0].xaxis.set_major_formatter("{x:g}")
    axes[0, 0].yaxis.set_major_formatter("{x:g}")
    box = axes[0, -1].get_position()
    bar = figure.colorbar(mesh, cax=figure.add_axes((box.x1 + 0.1 / WIDTH, box.y0, 0.1 / WIDTH, box.height)))
    bar.set_label("P(lower moon)", labelpad=2)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "", "0.5", "", "1"])
    bar.outline.set_visible(False)

    n, size = repetitions(accuracy["n"]), rows["training_size"].iloc[0]
    words = f"Test accuracy: {by_arm(accuracy, context.styles)}. ECE (15 bins): {by_arm(ece, context.styles)}."
    caption = (
        f"Probability of the lower moon over the plane by BiSNN's variants, {size:,} training examples (dots), in "
        f"repetition {repetition}: a mean over repetitions would make ensembles of single networks. Numbers are means "
        f"with 95% Student-t intervals over {n} repetitions. {words}"
    )
    alt = (
        f"Maps of the probability of the lower moon over the square of two interleaved half moons, one each for "
        f"{', '.join(arms)}, with the training examples and the line of probability one half. {words}"
    )
    note = f"repetition {repetition}; {size:,} training examples, scaled by their range"
    plotted = {arm: {name: found[name] for name in ("axes", "mean", "seen")} for arm, found in maps.items()}
    numbers = {"accuracy": accuracy, "ece": ece, "repetition": repetition, "maps": plotted}
    return Drawing(figure, note, caption, alt, int(accuracy["n"].max()), numbers)


def _map(panel: Axes, found: dict[str, Any]) -> QuadMesh:
    """Probabilities [G] of class 1, the lower moon, on a grid of which the last axis, y, changes fastest."""
    x, y = (np.linspace(low, high, count) for low, high, count in found["axes"])
    p = np.reshape(found["mean"], (len(x), len(y))).T
    colours = seaborn.blend_palette(["#de8f05", "#f7f7f7", "#0173b2"], as_cmap=True)
    mesh = panel.pcolormesh(x, y, p, cmap=colours, vmin=0, vmax=1, shading="nearest", rasterized=True)
    if p.min() < 0.5 < p.max():
        panel.contour(x, y, p, levels=[0.5], colors="black", linewidths=1)
    panel.plot(*np.transpose(found["seen"])[:2], ".", color="black", markersize=2.5, markeredgewidth=0)
    panel.grid(False)
    return mesh
