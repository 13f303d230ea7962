"""The sharpness of each layer while PSG trains it, from several starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_rows import NOTE, in_powers, log2_axis, needed, traced, with_settings
from spikebench.figures.style import GREY, canvas
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import repetitions

TITLE = "PSG (reconstructed): sharpness over training"
EXPERIMENT = "psg_pda"

#: Panels, at most.
_MOST = 4


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """PSG by the primitive's gradient, from several starts."""
    return in_sweep(rows, "starts")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a layer; a colour a start, thin lines single repetitions, thick ones their mean."""
    table = traced(with_settings(rows, "sharpness"), context.traces, ["sharpness"], ["sharpness", "repetition"])
    needed(table, "with traces of sharpness")
    every = sorted(set(table["layer"]))
    layers = [every[i] for i in sorted({round(p) for p in np.linspace(0, len(every) - 1, _MOST)})]
    starts = sorted(set(table["sharpness"]))
    means = summary(table, ["layer", "sharpness", "step"], "value")
    ends = means[means["step"] == means.groupby(["layer", "sharpness"])["step"].transform("max")]
    shades = [to_hex(c) for c in seaborn.color_palette("flare", len(starts))]
    keys = [Line2D([], [], color=c, label=f"k₀ = {k:g}") for k, c in zip(starts, shades, strict=True)]
    keys += [Line2D([], [], color=GREY, linewidth=0.6, alpha=0.7, label="single repetitions")]
    figure, axes = canvas(1, len(layers), TITLE, keys, height=2.3, sharey=True, wspace=0.1)
    for panel, layer in zip(axes[0], layers, strict=True):
        for start, colour in zip(starts, shades, strict=True):
            look: dict[str, Any] = {"color": colour}
            for _, own in at(table, layer=layer, sharpness=start).groupby("repetition"):
                own = own.sort_values("step")
                panel.plot([0, *own["step"]], [np.log2(start), *own["value"]], linewidth=0.6, alpha=0.6, **look)
            mean = at(means, layer=layer, sharpness=start).sort_values("step")
            panel.plot([0, *mean["step"]], [np.log2(start), *mean["mean"]], linewidth=1.6, **look)
        panel.set_title(f"layer {layer}", size=8)
        panel.set_xlabel("training step")
    log2_axis(axes[0, 0], "y")
    axes[0, 0].set_ylabel("sharpness k")

    n, told = repetitions(ends["n"]), []
    for layer in layers:
        said = [f"{p['sharpness']:g} to {in_powers(p)}" for p in at(ends, layer=layer).to_dict("records")]
        told.append(f"layer {layer}: {', '.join(said)}")
    words = f"From k at the start to its last value: {'; '.join(told)}."
    shown = "" if len(layers) == len(every) else f" {len(layers)} of {len(every)} layers."
    caption = (
        "Sharpness k (logarithmic axis) of each layer's surrogate over the steps of training with PSG by the "
        f"primitive's gradient (P1, {NOTE}), from several starts k₀: single repetitions (thin), and their mean over "
        f"{n} repetitions, for the last values with its 95% Student-t interval.{shown} {words}"
    )
    froms = ", ".join(f"{k:g}" for k in starts)
    alt = f"Line charts of sharpness over training, a panel a layer, a colour each for starts of {froms}. {words}"
    note = f"thick: mean of {n} repetitions; {NOTE}"
    return Drawing(figure, note, caption, alt, int(ends["n"].max()), {"ends": ends})
