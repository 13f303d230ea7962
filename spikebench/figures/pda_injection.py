"""Does a divergence notice a shift? Each one's change when the drive of a layer is offset, or scaled."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.pda_criteria import injected, injection
from spikebench.figures.psg_rows import DIVERGENCES, NOTE, in_powers, log2_axis, needed
from spikebench.figures.style import GREY, canvas, curve, key, lower_end, upper_end
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import repetitions

TITLE = "PDA (reconstructed): injected shifts"
EXPERIMENT = "psg_pda"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """Networks with a fixed surrogate and no PDA that were probed."""
    return at(in_sweep(rows, "probe"), variant="fixed")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Two panels, offset and scale; a curve a divergence, relative to its value without."""
    table = needed(injected(rows), "that were probed")
    table = table[np.isfinite(table["change"])]
    points = summary(table, ["divergence", "kind", "size"], "change")
    points = points.assign(
        place=[np.log2(s) if kind == "scaled" else s for kind, s in points[["kind", "size"]].itertuples(index=False)]
    )
    looks = {name: style for name, style in DIVERGENCES.items() if name in set(points["divergence"])}
    keys = [key(style) for style in looks.values()]
    keys += [Line2D([], [], color=GREY, linestyle="--", linewidth=0.9, label="unchanged")]
    figure, axes = canvas(1, 2, TITLE, keys, height=2.4, left=0.85, wspace=0.1, sharey=True)
    titles = {"offset": "offset of the drive (in units of V)", "scaled": "drive multiplied by"}
    for panel, (kind, words) in zip(axes[0], titles.items(), strict=True):
        panel.axhline(0, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
        for name, style in looks.items():
            curve(panel, at(points, divergence=name, kind=kind), "place", style, 0.0)
        panel.set_xlabel(words)
    log2_axis(axes[0, 1], "x")
    axes[0, 0].set_ylabel("divergence, relative to\nthat without a shift")
    low, high = points["mean"].min(), points["mean"].max()
    low, high = max(lower_end(points), low - 0.3 * (high - low)), min(upper_end(points) + 1, high + 0.3 * (high - low))
    axes[0, 0].set_ylim(min(low, -0.3) - 0.1, max(high, 0.3) + 0.1)
    log2_axis(axes[0, 0], "y")
    axes[0, 0].xaxis.set_major_locator(MultipleLocator(0.5))

    n, told = repetitions(points["n"]), []
    for name, style in looks.items():
        found = {(p["kind"], p["size"]): in_powers(p) for p in at(points, divergence=name).to_dict("records")}
        chosen = {
            ("offset", -1.0): "offset −V",
            ("offset", 1.0): "offset V",
            ("scaled", 0.25): "scale 0.25",
            ("scaled", 4.0): "scale 4",
        }
        result = injection(rows, name)
        parts = [f"{words} ×{found[place]}" for place, words in chosen.items() if place in found]
        told.append(f"{style.label}: {', '.join(parts)}; {result.words} ({result.verdict})")
    words = f"{'. '.join(told)}."
    caption = (
        "Each candidate of PDA's divergence in the middle layer, on test examples, when the drive of that layer's "
        "potentials is offset or multiplied, relative to its value without (logarithmic), in networks trained with a "
        "fixed surrogate and without PDA. A candidate passes if every shift raises it in every repetition, and fails "
        f"if one raises it in none. Means of logarithms and 95% Student-t intervals over {n} repetitions. "
        f"{NOTE.capitalize()}. {words}"
    )
    alt = (
        "Two line charts of relative divergence against an injected offset and scale, a line each for "
        f"{', '.join(style.label for style in looks.values())}. {words}"
    )
    note = f"mean and 95% Student-t interval of logarithms, {n} repetitions; {NOTE}"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points.drop(columns="place")})
