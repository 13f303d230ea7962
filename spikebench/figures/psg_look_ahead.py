"""Is the primitive's gradient one of the loss? How often its sign is that of a look-ahead by differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_criteria import NEAR, agreement, looking_ahead
from spikebench.figures.psg_rows import NOTE, layer_styles, means, needed, traced
from spikebench.figures.style import GREY, bars, canvas, curve, key, shifts
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import measured, repetitions

TITLE = "PSG (reconstructed): signs of its slope"
EXPERIMENT = "psg_pda"

#: Networks that are shown, and parts into which training is cut.
SHOWN = {"fixed": "Fixed surrogate", "psg": "PSG", "psg+pda": "PSG+PDA"}
_PARTS = 5


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks that were measured while they were trained, with and without PSG."""
    found = in_sweep(rows, "probe")
    return found[found["variant"].isin(list(SHOWN))]


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """On the left a dot a network and layer, on the right PSG's by parts of training."""
    shares = needed(agreement(rows, context.traces), "with traces of the look-ahead")
    points = summary(shares, ["variant", "layer"], "share")
    table = traced(at(rows, variant="psg"), context.traces, ["look_ahead"], ["repetition"])
    last = float(table["step"].max()) if len(table) else 1.0
    parts = np.ceil(_PARTS * table["step"].to_numpy(dtype=np.float64) / last)
    table = table.assign(part=100 * (parts - 0.5) / _PARTS)
    course = summary(means(table, ["layer", "repetition", "part"], "value"), ["layer", "part"], "value")
    layers = layer_styles(points["layer"].tolist())
    keys = [key(style) for style in layers.values()]
    keys += [Line2D([], [], color="black", linestyle="--", linewidth=0.9, label="one half, as by chance")]
    keys += [Line2D([], [], color=GREY, linewidth=6, alpha=0.2, label=f"within {100 * NEAR:g} points of it")]
    figure, axes = canvas(1, 2, TITLE, keys, height=2.1, left=0.65, wspace=0.14, sharey=True)
    present = [variant for variant in SHOWN if variant in set(points["variant"])]
    for panel in axes[0]:
        panel.axhspan(0.5 - NEAR, 0.5 + NEAR, color=GREY, alpha=0.12, linewidth=0, zorder=0)
        panel.axhline(0.5, color="black", linestyle="--", linewidth=0.9, zorder=0)
    left, right = axes[0]
    for (layer, style), shift in zip(layers.items(), shifts(len(layers), 0.16, 0.6), strict=True):
        for place, variant in enumerate(present):
            own = at(points, variant=variant, layer=layer)
            look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
            left.errorbar([place + shift] * len(own), own["mean"], yerr=bars(own), elinewidth=0.9, **look)
        curve(right, at(course, layer=layer), "part", style, 8 * shift)
    left.set_xticks(range(len(present)), labels=[SHOWN[variant] for variant in present])
    left.set_xlim(-0.5, len(present) - 0.5)
    left.set_title("over all of training", size=8)
    left.set_ylabel("steps of equal sign (%)")
    _shares(left)
    right.set_xlim(0, 100)
    right.set_xlabel("part of training (%)")
    right.set_title("PSG, by fifths of training", size=8)

    n, result = repetitions(points["n"]), looking_ahead(rows, context.traces)
    told = []
    for variant in present:
        said = [f"layer {p['layer']} {measured(p)}" for p in at(points, variant=variant).to_dict("records")]
        told.append(f"{SHOWN[variant]}: {', '.join(said)}")
    words = f"{'; '.join(told)}."
    if result.words:
        words += f" PSG over all layers: {result.words} ({result.verdict})."
    caption = (
        "Share of training steps at which the slope by which PSG (P1, the primitive's gradient) moves log k has the "
        "sign of the loss's true slope: the loss on half a minibatch after a weight step on the other half, by finite "
        "differences in log k. Steps at which one of the slopes is 0 count one half. Shaded: within "
        f"{100 * NEAR:g} points of one half, where a candidate does not pass. The fixed surrogate shows what PSG would "
        f"do there. Mean and 95% Student-t interval over {n} repetitions. {NOTE.capitalize()}. {words}"
    )
    alt = (
        "Two dot plots of the share of steps with equal signs, a mark a layer: by network for "
        f"{', '.join(SHOWN[v] for v in present)}, and over training for PSG, with a line at one half. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions; slightly apart; {NOTE}"
    numbers = {"points": points, "course": course, "verdict": result.verdict}
    return Drawing(figure, note, caption, alt, int(points["n"].max()), numbers)


def _shares(panel: Axes) -> None:
    panel.set_ylim(-0.02, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
