"""The ablation of both parts: fixed surrogate, PSG, PDA and both, by time steps, a panel a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_rows import NOTE, in_points, in_sweeps
from spikebench.figures.spide_rows import limits, said
from spikebench.figures.style import GREY, bars, canvas, key, shifts
from spikebench.figures.tables import at, differences, summary
from spikebench.figures.text import measured, repetitions

TITLE = "PSG and PDA (reconstructed): accuracy by time steps"
EXPERIMENT = "psg_pda"
SEVERAL_DATASETS = True

#: In the order of panels.
SWEEPS = ("two-steps", "time-steps", "cifar10", "cifar10-dvs")
REFERENCE = "Fixed surrogate"
#: All data sets here have ten classes.
_CHANCE = 0.1
#: Accuracies above this have axes that end above chance.
_FAR = 0.3
_BY = ["dataset", "steps", "training_size"]


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweeps with all four arms."""
    return in_sweeps(rows, *SWEEPS)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a data set; at each T the arms side by side, with single repetitions."""
    frames = said(rows, "data_settings", "bins", 0)
    steps = [n or other for n, other in zip(frames, said(rows, "data_settings", "steps", 0), strict=True)]
    rows, arms = rows.assign(steps=steps), context.present(rows)
    points = summary(rows, [*_BY, "arm"], "accuracy")
    apart = differences(rows, REFERENCE, "accuracy").merge(rows[["data_settings", *_BY]].drop_duplicates())
    apart = summary(apart.assign(difference=-apart["difference"]), [*_BY, "arm"], "difference")
    sets = [name for sweep in SWEEPS for name in dict.fromkeys(in_sweeps(rows, sweep)["dataset"])]
    sets = list(dict.fromkeys(sets))
    keys = [key(style, joined=False) for style in arms.values()]
    if rows["accuracy"].min() < _FAR:
        keys += [Line2D([], [], color=GREY, linestyle=":", label="chance")]
    columns = min(2, len(sets))
    lines = -(-len(sets) // columns)
    figure, axes = canvas(lines, columns, TITLE, keys, height=1.9, gap=0.62, wspace=0.16)
    for panel, name in zip(axes.flat, sets, strict=False):
        _panel(panel, at(rows, dataset=name), at(points, dataset=name), arms)
        panel.set_title(name, size=8)
        panel.tick_params(left=True, bottom=False)
        panel.set_xlabel("time steps T (and training examples)")
    for panel in axes.flat[len(sets) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("test accuracy (%)")

    n = repetitions(points["n"])
    words = " ".join(
        f"{name}: {_told(at(points, dataset=name), at(apart, dataset=name), list(arms))}." for name in sets
    )
    caption = (
        "Test accuracy of networks of LIF neurons trained with a fixed surrogate, with PSG (sharpness trained by the "
        "primitive's gradient, P1), with PDA (divergence A-gauss) and with both, by time steps T: mean and 95% "
        f"Student-t interval over {n} repetitions, and single repetitions. Compare arms at one T: the numbers of "
        "training examples, and of the data shown, may differ between T. PSG and PDA are "
        f"{NOTE}. Accuracy of the fixed surrogate, and paired differences to it in points: {words}"
    )
    alt = (
        f"Dot plots with intervals of test accuracy against the number of time steps, a panel each for "
        f"{', '.join(sets)}, a mark each for {', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions; axes differ; {NOTE}"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "differences": apart})


def _panel(panel: Axes, rows: pd.DataFrame, points: pd.DataFrame, arms: Mapping[str, Style]) -> None:
    """One data set; T are evenly spaced."""
    places = points[["steps", "training_size"]].drop_duplicates().sort_values(["steps", "training_size"])
    panel.axhline(_CHANCE, color=GREY, linestyle=":", linewidth=0.9, zorder=0)
    for place, (steps, size) in enumerate(places.itertuples(index=False, name=None)):
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.19, 0.8), strict=True):
            here: dict[str, Any] = {"steps": steps, "training_size": size, "arm": arm}
            single, mean = at(rows, **here)["accuracy"], at(points, **here)
            look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
            faint = {"markersize": 2.5, "alpha": 0.5, "markeredgewidth": 0}
            panel.plot([place + shift - 0.07] * len(single), single, **look | faint)
            panel.errorbar([place + shift] * len(mean), mean["mean"], yerr=bars(mean), elinewidth=0.9, **look)
    near = [_CHANCE] * bool(rows["accuracy"].min() < _FAR)
    low, high = limits([*rows["accuracy"], *near], points)
    panel.set_ylim(max(low, 0.0), min(high, 1.01))
    panel.set_xlim(-0.5, len(places) - 0.5)
    ticks = [f"{steps} ({size:,})" for steps, size in places.itertuples(index=False, name=None)]
    panel.set_xticks(range(len(places)), labels=ticks)
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))


def _told(points: pd.DataFrame, apart: pd.DataFrame, arms: list[str]) -> str:
    """``T = 2, fixed 80.0% [..]; PSG +0.1 [..], PDA ..``, T by T."""
    said = []
    for steps, size in points[["steps", "training_size"]].drop_duplicates().itertuples(index=False, name=None):
        here = at(points, steps=steps, training_size=size, arm=REFERENCE).to_dict("records")
        found = {p["arm"]: p for p in at(apart, steps=steps, training_size=size).to_dict("records")}
        told = [f"fixed {measured(point)}" for point in here]
        told += [f"{arm} {in_points(found[arm])}" for arm in arms if arm in found]
        said.append(f"T = {steps}, {', '.join(told)}")
    return "; ".join(said)
