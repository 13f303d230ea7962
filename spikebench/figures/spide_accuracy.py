"""SPIDE, IDE and backpropagation through time on the same feedback networks: accuracy on each data set."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.spide_rows import data_sets, limits, of_data_sets, short
from spikebench.figures.style import GREY, bars, canvas
from spikebench.figures.tables import at, summary
from spikebench.figures.text import measured, percent, repetitions

TITLE = "SPIDE, IDE and BPTT: test accuracy"
EXPERIMENT = "spide"
SEVERAL_DATASETS = True

#: Classes where the data's settings do not choose some: all four data sets have ten.
_CLASSES = 10
#: So far above chance, an axis that reaches down to it would hide how arms differ.
_FAR = 0.4
#: Where single repetitions and the best epoch stand beside the mean.
_ASIDE = 0.2
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
_FAINT: dict[str, Any] = {"markersize": 3, "alpha": 0.45, "linestyle": "none", "markeredgewidth": 0}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The trainings on each data set, with all its examples."""
    return of_data_sets(rows)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a data set, an arm beside the other: the last epoch, and as an open mark the best on the test set."""
    rows, arms = short(rows, context)
    sets, by = data_sets(rows), ["dataset", "training_size", "arm"]
    parts = [("last", "accuracy"), ("best", "best_accuracy")]
    points = pd.concat([summary(rows, by, column).assign(epoch=epoch) for epoch, column in parts])
    chance = {name: _chance(at(rows, dataset=name)) for name in sets}
    mark: dict[str, Any] = {"color": GREY, "marker": "o", "linestyle": "none"}
    keys = [
        Line2D([], [], **mark, label="last epoch, mean"),
        Line2D([], [], **mark | _FAINT, label="single repetitions"),
        Line2D([], [], **mark, markerfacecolor="white", label="best epoch on the test set (optimistic)"),
        Line2D([], [], color=GREY, linestyle=":", label="chance"),
    ]
    columns = min(2, len(sets))
    lines = -(-len(sets) // columns)
    figure, axes = canvas(lines, columns, TITLE, keys, height=1.7, gap=0.55, wspace=0.16)
    for panel, (name, size) in zip(axes.flat, sets.items(), strict=False):
        _panel(panel, at(rows, dataset=name), at(points, dataset=name), arms, chance[name])
        panel.set_title(f"{name}, {size:,} examples", size=7)
        panel.tick_params(left=True)
    for panel in axes.flat[len(sets) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("test accuracy (%)")

    n, last = repetitions(points["n"]), at(points, epoch="last")
    told = []
    for name, size in sets.items():
        here = {
            epoch: {p["arm"]: p for p in at(points, dataset=name, epoch=epoch).to_dict("records")} for epoch, _ in parts
        }
        arm_words = [
            f"{arm} {measured(here['last'][arm])}"
            + (f" (best epoch {percent(here['best'][arm]['mean'])})" if arm in here["best"] else "")
            for arm in arms
            if arm in here["last"]
        ]
        told.append(f"{name}, {size:,} examples: {', '.join(arm_words)}; chance {percent(chance[name])}.")
    words = " ".join(told)
    caption = (
        "Test accuracy after the last epoch on the same feedback networks, a learning rate chosen for each method: "
        f"mean and 95% Student-t interval over {n} repetitions, and single repetitions. Open marks: the best epoch, "
        f"chosen on the test set, as papers often report it, are optimistic. {words}"
    )
    alt = (
        f"Dot plots with intervals of test accuracy, a panel each for {', '.join(sets)}, a mark each for "
        f"{', '.join(arms)}. {words}"
    )
    note = f"mean (written above) and 95% Student-t interval, {n} repetitions; axes differ"
    tables = {"points": points, "chance": [{"dataset": name, "accuracy": share} for name, share in chance.items()]}
    return Drawing(figure, note, caption, alt, int(last["n"].max()), tables)


def _panel(panel: Axes, rows: pd.DataFrame, points: pd.DataFrame, arms: dict[str, Style], chance: float) -> None:
    """One data set."""
    panel.axhline(chance, color=GREY, linestyle=":", linewidth=0.9, zorder=0)
    for place, (arm, style) in enumerate(arms.items()):
        single = at(rows, arm=arm)["accuracy"]
        panel.plot([place - _ASIDE] * len(single), single, color=style.colour, marker=style.marker, **_FAINT)
        look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
        last, best = (at(points, arm=arm, epoch=epoch) for epoch in ("last", "best"))
        panel.errorbar([place] * len(last), last["mean"], yerr=bars(last), elinewidth=0.9, **look)
        panel.plot([place + _ASIDE] * len(best), best["mean"], markerfacecolor="white", **look)
        for mean in last["mean"]:
            words = panel.text(place, 1.0, f"{100 * mean:.1f}", transform=panel.get_xaxis_transform(),
                               ha="center", va="top", size=7, color=style.colour)  # fmt: skip
            words.set_bbox(_WHITE)
    values = [*rows["accuracy"], *points["mean"]]
    if min(values) - chance < _FAR:
        values.append(chance)
    else:
        below = panel.text(0.5, 0.04, f"chance, {100 * chance:.3g}%, lies below", transform=panel.transAxes,
                           ha="center", size=6.5, color=GREY)  # fmt: skip
        below.set_bbox(_WHITE)
    low, high = limits(values, at(points, epoch="last"))
    panel.set_ylim(max(low - 0.08 * (high - low), -0.02), min(high, 1.01) + 0.14 * (high - low))
    panel.set_xlim(-0.5, len(arms) - 0.5)
    panel.set_xticks(range(len(arms)), labels=list(arms))
    panel.tick_params(bottom=False)
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}" if -1e-9 < share < 1.001 else ""))


def _chance(rows: pd.DataFrame) -> float:
    """1 over the number of classes."""
    return 1 / len(json.loads(rows["data_settings"].iloc[0]).get("classes") or range(_CLASSES))
