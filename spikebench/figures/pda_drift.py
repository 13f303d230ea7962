"""Is there a shift to repair? Each divergence over training without PDA, layer by layer."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.pda_criteria import drift, drifts
from spikebench.figures.psg_rows import DIVERGENCES, NOTE, layer_styles, needed, traced
from spikebench.figures.style import GREY, canvas
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import number, repetitions

TITLE = "PDA (reconstructed): drift without it"
EXPERIMENT = "psg_pda"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """Networks with a fixed surrogate and no PDA that were probed."""
    return at(in_sweep(rows, "probe"), variant="fixed")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a divergence, a line a layer."""
    names = {f"shift-{name}": name for name in DIVERGENCES}
    table = needed(traced(rows, context.traces, list(names), ["repetition"]), "with traces of divergences")
    means = summary(table, ["name", "layer", "step"], "value")
    layers = layer_styles(table["layer"].tolist())
    ends = drifts(rows, context.traces)
    points = pd.concat([summary(ends, ["divergence", "layer"], end).assign(end=end) for end in ("early", "late")])
    lines: dict[int, dict[str, Any]] = {layer: {"color": s.colour, "linestyle": s.line} for layer, s in layers.items()}
    keys = [Line2D([], [], **lines[layer], label=style.label) for layer, style in layers.items()]
    keys += [Line2D([], [], color=GREY, linewidth=0.5, label="single repetitions")]
    figure, axes = canvas(2, 2, TITLE, keys, height=1.55, gap=0.35, left=0.7, wspace=0.25, sharex=True)
    for panel, (name, divergence) in zip(axes.flat, names.items(), strict=True):
        own = at(table, name=name)
        for layer, look in lines.items():
            for _, single in at(own, layer=layer).groupby("repetition"):
                thin = look | {"linestyle": "-", "linewidth": 0.5, "alpha": 0.5}
                panel.plot(single["step"], single["value"], **thin)
            mean = at(means, name=name, layer=layer).sort_values("step")
            marker = "." if len(mean) == 1 else ""
            panel.plot(mean["step"], mean["mean"], **look, marker=marker)
        panel.set_title(DIVERGENCES[divergence].label, size=8)
        panel.tick_params(left=True)
        positive = own.loc[own["value"] > 0, "value"]
        if len(positive) and positive.max() > 8 * positive.min():
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.minorticks_off()
        elif len(positive):
            panel.set_ylim(0, 1.1 * positive.max())
    for panel in axes[1]:
        panel.set_xlabel("training step")
    for panel in axes[:, 0]:
        panel.set_ylabel("divergence")

    n, told = int(means["n"].max()), []
    for divergence, style in DIVERGENCES.items():
        result = drift(rows, context.traces, divergence)
        found = {(p["layer"], p["end"]): p for p in at(points, divergence=divergence).to_dict("records")}
        parts = [
            f"layer {layer} {number(found[layer, 'early'], 3)} to {number(found[layer, 'late'], 3)}"
            for layer in layers
            if (layer, "early") in found
        ]
        told += [f"{style.label}: {', '.join(parts)}; mean over layers {result.words} ({result.verdict})"] * bool(parts)
    words = f"{'. '.join(told)}." if told else "Too few recorded steps to compare (one value, no interval)."
    caption = (
        "Each candidate of PDA's divergence on the minibatches of training with a fixed surrogate and without PDA, by "
        f"layer: single repetitions (thin) and their mean over n = {n}; C compares what a layer gets, so that the "
        "first has none. Axes differ, some are logarithmic. Told are means over the first and over the last tenth of "
        "steps, with 95% Student-t intervals; a candidate passes if it grows over training or from the first to the "
        f"last layer, and fails if it grows in neither by a quarter. {NOTE.capitalize()}. {words}"
    )
    alt = f"Four line charts of divergences over training steps, a line a layer. {words}"
    note = f"thick: mean of {repetitions([n])} repetitions; axes differ; {NOTE}"
    return Drawing(figure, note, caption, alt, n, {"points": points})
