"""What potentials look like before the reset: untrained, after training, and after training with PDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator, PercentFormatter

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_rows import NOTE, needed, of_layers
from spikebench.figures.style import GREY, canvas
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import measured, repetitions
from spikebench.potentials import BINS, HIGHEST, LOWEST

TITLE = "PDA (reconstructed): potentials before the reset"
EXPERIMENT = "psg_pda"

#: Variant and diagnostic of each curve, to its words.
CURVES = {
    ("fixed", "potentials_before"): "before training",
    ("fixed", "potentials"): "trained with a fixed surrogate",
    ("pda", "potentials"): "trained with PDA (A-gauss)",
}
_MOST = 4


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """Networks with a fixed surrogate that were probed, without and with PDA."""
    found = in_sweep(rows, "probe")
    return found[found["variant"].isin(["fixed", "pda"])]


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a layer, a histogram a stage."""
    parts = []
    for (variant, diagnostic), words in CURVES.items():
        own = of_layers(at(rows, variant=variant), diagnostic, ["repetition"])
        own = own[[isinstance(value, list) for value in own["value"]]]
        parts.append(own.assign(curve=words))
    table = needed(pd.concat([part for part in parts if len(part)] or parts[:1]), "with histograms of potentials")
    edges = np.linspace(LOWEST, HIGHEST, BINS + 1)
    above = [float(np.sum(np.array(shares)[edges[:-1] >= 1 - 1e-9])) for shares in table["value"]]
    points = summary(table.assign(above=above), ["layer", "curve"], "above")
    every = sorted(set(table["layer"]))
    layers = [every[i] for i in sorted({round(p) for p in np.linspace(0, len(every) - 1, _MOST)})]
    colours = {style.label: style.colour for style in context.styles.values()}
    shades = ["#000000", colours.get("Fixed surrogate", GREY), colours.get("PDA", GREY)]
    looks: dict[str, dict[str, Any]] = {
        words: {"color": shade, "linestyle": "--" if shade == "#000000" else "-"}
        for words, shade in zip(CURVES.values(), shades, strict=True)
    }
    curves = [words for words in CURVES.values() if words in set(table["curve"])]
    keys = [Line2D([], [], **looks[words], label=words) for words in curves]
    keys += [Line2D([], [], color=GREY, linestyle=":", label="threshold")]
    figure, axes = canvas(1, len(layers), TITLE, keys, height=2.1, sharey=True, wspace=0.13)
    histograms = []
    for panel, layer in zip(axes[0], layers, strict=True):
        panel.axvline(1, color=GREY, linestyle=":", zorder=0)
        for words in curves:
            values = at(table, layer=layer, curve=words)["value"].tolist()
            if values:
                shares = np.mean(values, axis=0)
                panel.stairs(shares, edges, **looks[words], linewidth=1.3)
                histograms.append({"layer": layer, "curve": words, "shares": shares.tolist()})
        panel.set_title(f"layer {layer}", size=8)
        panel.set_xlabel("potential u / V")
        panel.set_xlim(LOWEST, HIGHEST)
        panel.xaxis.set_major_locator(MultipleLocator(2))
    axes[0, 0].set_ylabel("share of potentials (%)")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))

    n, told = repetitions(points["n"]), []
    for layer in layers:
        found = {p["curve"]: p for p in at(points, layer=layer).to_dict("records")}
        told.append(
            f"layer {layer}: {', '.join(f'{words} {measured(found[words])}' for words in curves if words in found)}"
        )
    words = f"Share of potentials above the threshold, mean and 95% Student-t interval: {'; '.join(told)}."
    caption = (
        "Potentials before the reset in units of the threshold V, over all neurons, examples and time steps, by layer: "
        "before training with batch norm of the first minibatch, and after training on test examples. Shares in bins "
        f"of {(HIGHEST - LOWEST) / BINS:g}, means over {n} repetitions; the outermost bins hold what lies beyond, too. "
        f"{NOTE.capitalize()}. {words}"
    )
    alt = f"Histograms of potentials, a panel a layer, a line each for {', '.join(curves)}. {words}"
    note = f"means over {n} repetitions; the outermost bins hold what lies beyond; {NOTE}"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"above": points, "histograms": histograms})
