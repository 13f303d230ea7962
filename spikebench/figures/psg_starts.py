"""Does PSG find the same sharpness from any start? The last against the first, a panel a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_criteria import SPREAD, independence, spreads
from spikebench.figures.psg_rows import (
    CANDIDATES,
    NOTE,
    in_powers,
    in_sweeps,
    layer_styles,
    log2_axis,
    needed,
    of_layers,
    records,
    with_candidates,
)
from spikebench.figures.style import GREY, bars, canvas, key, shifts
from spikebench.figures.tables import at, summary
from spikebench.figures.text import number, repetitions

TITLE = "PSG (reconstructed): sharpness by its start"
EXPERIMENT = "psg_pda"

_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
_FAINT: dict[str, Any] = {"markersize": 2.5, "alpha": 0.5, "markeredgewidth": 0}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """Both sweeps over starts."""
    return in_sweeps(rows, "starts", "starts-by-candidate")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a candidate with several starts, and one of the ratios of spreads."""
    begun = with_candidates(rows)
    found = of_layers(begun, "log2_sharpness_of_layers", ["candidate", "repetition", "sharpness"])
    found = found.assign(start=np.log2(found["sharpness"].astype(float)))
    points = summary(found, ["candidate", "layer", "start"], "value")
    starts = points.groupby("candidate")["start"].nunique()
    several = [name for name in _ordered(points["candidate"]) if starts[name] > 1]
    points, alone = points[points["candidate"].isin(several)], points[~points["candidate"].isin(several)]
    needed(points, "of PSG begun at several values")
    ratios = summary(spreads(rows), ["candidate"], "ratio")
    layers = layer_styles(points["layer"].tolist())
    keys = [key(style) for style in layers.values()]
    keys += [Line2D([], [], color=GREY, marker="o", linestyle="none", label="single repetitions", **_FAINT)]
    keys += [Line2D([], [], color=GREY, linestyle="--", linewidth=0.9, label="as it began")]
    keys += [Line2D([], [], color="black", linestyle=":", label="a quarter of the spread")]
    columns = min(3, len(several) + 1)
    lines = -(-(len(several) + 1) // columns)
    figure, axes = canvas(lines, columns, TITLE, keys, height=2.0, gap=0.65, left=0.6, wspace=0.32)
    values = [*found.loc[found["candidate"].isin(several), "value"], *points["start"]]
    ends = min(values) - 0.5, max(values) + 0.5
    for panel, name in zip(axes.flat, several, strict=False):
        panel.plot(ends, ends, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
        for (layer, style), shift in zip(layers.items(), shifts(len(layers), 0.1, 0.5), strict=True):
            own = at(points, candidate=name, layer=layer).sort_values("start")
            look: dict[str, Any] = {"color": style.colour, "marker": style.marker}
            panel.plot(own["start"] + shift, own["mean"], linestyle=style.line, **look)
            single = at(found, candidate=name, layer=layer)
            panel.plot(single["start"] + shift, single["value"], linestyle="none", **look | _FAINT)
        panel.set(xlim=(points["start"].min() - 0.5, points["start"].max() + 0.5), ylim=ends)
        log2_axis(panel, "x")
        log2_axis(panel, "y")
        panel.set_title(name, size=8)
        panel.set_xlabel("sharpness k at the start")
        panel.tick_params(left=True, bottom=True)
    for panel in axes[:, 0]:
        panel.set_ylabel("sharpness k at the end")
    _ratios(axes.flat[len(several)], ratios, several)
    for panel in axes.flat[len(several) + 1 :]:
        panel.set_visible(False)

    n, told = repetitions(points["n"]), []
    for point in sorted(records(ratios), key=lambda point: CANDIDATES.index(point["candidate"])):
        verdict = independence(rows, point["candidate"]).verdict
        told.append(f"{point['candidate']} {number(point)} ({verdict})")
    words = f"Ratio of spreads, final over initial, at most {SPREAD:g} to pass: {', '.join(told) or 'none'}."
    if len(alone):
        once = [f"{p['candidate']}, layer {p['layer']}, {in_powers(p)}" for p in records(alone)]
        words += f" Begun once, at k = 1, end at k: {'; '.join(once)}."
    caption = (
        "Sharpness k of each layer's surrogate after training with PSG, against the one it was begun with, both "
        "logarithmic; P1 trains it by the primitive's gradient, at a multiple of the weights' learning rate, P2 by the "
        f"look-ahead. Single repetitions, and their mean over {n}. The ratio is that of the standard "
        "deviations of log2 k over the starts, the mean over layers: 1 if training leaves k as it began, 0 if it ends "
        f"at one value. {NOTE.capitalize()}. {words}"
    )
    alt = (
        f"Line charts of final against initial sharpness, a panel each for {', '.join(several)}, a line a layer, with "
        f"the diagonal of an untouched sharpness; and a dot plot of the ratios of spreads. {words}"
    )
    note = f"lines: mean of {n} repetitions; right: 95% Student-t interval; slightly apart; {NOTE}"
    numbers = {"points": points, "ratios": ratios, "begun once": alone}
    return Drawing(figure, note, caption, alt, int(points["n"].max()), numbers)


def _ordered(names: pd.Series) -> list[str]:
    """Candidates in the order of panels."""
    found = set(names)
    return [*(name for name in CANDIDATES if name in found), *sorted(found - set(CANDIDATES))]


def _ratios(panel: Axes, ratios: pd.DataFrame, names: list[str]) -> None:
    """A dot a candidate."""
    panel.axvline(SPREAD, color="black", linestyle=":", zorder=0)
    panel.axvline(1.0, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
    for place, name in enumerate(names):
        own = at(ratios, candidate=name)
        panel.errorbar(
            own["mean"], [place] * len(own), xerr=bars(own), color="black", marker="o", linestyle="none", elinewidth=0.9
        )
        panel.text(0.02, place - 0.08, name, size=7, transform=panel.get_yaxis_transform(), va="bottom", bbox=_WHITE)
    panel.set(yticks=[], ylim=(len(names) - 0.5, -0.7), xlim=(0, 1.1 * max(1.1, ratios["mean"].max())))
    panel.grid(visible=True, axis="x")
    panel.set_title("ratio of spreads of log2 k", size=8)
    panel.set_xlabel("final over initial")
    panel.tick_params(left=False, bottom=True)
