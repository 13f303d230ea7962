"""Is the sharpness that PSG finds the best one? Accuracy and likelihood over a grid of fixed k, and of PSG's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_criteria import FACTOR, LOST, against_grid, beside_grid, optimality
from spikebench.figures.psg_rows import (
    NOTE,
    in_points,
    in_powers,
    in_sweeps,
    log2_axis,
    needed,
    one,
    with_settings,
)
from spikebench.figures.spide_rows import limits
from spikebench.figures.style import GREY, canvas, curve, key
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import measured, number, repetitions

TITLE = "PSG (reconstructed): a grid of sharpness"
EXPERIMENT = "psg_pda"

#: Candidate to its words and whether its mark is filled.
FOUND = {"P1, rate 1×": ("PSG", True), "P1, rate 1×, retrained": ("PSG's k, frozen, trained anew", False)}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The grid, and PSG begun at k = 1."""
    return in_sweeps(rows, "grid", "starts", "thresholds")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Two panels against k: accuracy and negative log-likelihood."""
    grid = needed(with_settings(at(in_sweep(rows, "grid"), variant="fixed"), "sharpness"), "of the grid")
    grid = grid.assign(log2=np.log2(grid["sharpness"].astype(float)))
    found = beside_grid(rows, int(grid["training_size"].iloc[0]))
    found = found[(found["sharpness"] == 1.0) & found["candidate"].isin(list(FOUND))]
    metrics = ("accuracy", "nll")
    points = pd.concat([summary(grid, ["log2"], metric).assign(metric=metric) for metric in metrics])
    marks = pd.concat([summary(found, ["candidate"], m).assign(metric=m) for m in (*metrics, "log2_sharpness")])
    best, compared = against_grid(rows)
    looks = list(context.present(rows).values())
    fixed, psg = looks[0], looks[-1]
    keys = [key(fixed)]
    present = [name for name in FOUND if name in set(marks["candidate"])]
    look: dict[str, Any] = {"color": psg.colour, "marker": psg.marker, "linestyle": "none", "markersize": 6}
    for name in present:
        inside = psg.colour if FOUND[name][1] else "white"
        keys.append(Line2D([], [], **look, markerfacecolor=inside, label=f"{FOUND[name][0]} (mean k; small: single)"))
    keys.append(Line2D([], [], color=GREY, linewidth=6, alpha=0.25, label="within a factor of 2 of the grid's best k"))
    figure, axes = canvas(1, 2, TITLE, keys, height=2.3, wspace=0.28)
    for panel, metric in zip(axes[0], metrics, strict=True):
        own = at(points, metric=metric)
        panel.axvspan(np.log2(best) - FACTOR, np.log2(best) + FACTOR, color=GREY, alpha=0.15, linewidth=0, zorder=0)
        curve(panel, own, "log2", fixed, 0.0)
        for name in present:
            at_k, height = (at(marks, candidate=name, metric=m) for m in ("log2_sharpness", metric))
            inside = psg.colour if FOUND[name][1] else "white"
            single = at(found, candidate=name)
            small = look | {"markersize": 3, "alpha": 0.6, "markerfacecolor": inside}
            panel.plot(single["log2_sharpness"], single[metric], **small, zorder=2.9)
            panel.errorbar(at_k["mean"], height["mean"], **look, markerfacecolor=inside, zorder=3)
        values = [*grid[metric], *found[metric]]
        low, high = limits(values, pd.concat([own, at(marks, metric=metric)]))
        panel.set_ylim(max(low, 0.0), high)
        ends = [*grid["log2"], *found["log2_sharpness"]]
        panel.set_xlim(min(ends) - 0.5, max(ends) + 0.5)
        log2_axis(panel, "x")
        panel.set_xlabel("sharpness k")
        panel.tick_params(left=True)
        panel.yaxis.set_major_locator(MaxNLocator(6))
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    axes[0, 1].set_ylabel("negative log-likelihood (nats)")

    n, told = repetitions([*points["n"], *marks["n"]]), []
    for point in at(points, metric="accuracy").to_dict("records"):
        told.append(f"k = {2 ** point['log2']:g} {measured(point)}")
    words = f"Accuracy of the grid: {', '.join(told)}; the best is k = {best:g}."
    for name in present:
        accuracy, k, nll = (
            at(marks, candidate=name, metric=m).to_dict("records")[0] for m in ("accuracy", "log2_sharpness", "nll")
        )
        words += f" {FOUND[name][0]}: k = {in_powers(k)}, accuracy {measured(accuracy)}, NLL {number(nll)}"
        difference = one(at(compared, candidate=name), "difference")
        words += f"; {in_points(difference)} points to the grid's best, in pairs" if difference["n"] else ""
        words += f" ({optimality(rows, name).verdict})."
    caption = (
        "Test accuracy and negative log-likelihood after training with surrogates of a fixed sharpness k (all layers "
        f"alike; logarithmic axis), mean and 95% Student-t interval over {n} repetitions; and at the k that PSG (P1, "
        f"from k = 1; {NOTE}) ended with, the mean over layers: means (large) and single "
        "repetitions. PSG passes where that is within a factor of 2 of the grid's best k and its accuracy "
        f"within {100 * LOST:g} points of it; the grid's best was chosen on these test "
        f"data, which favours the grid. {words}"
    )
    alt = (
        "Line charts of accuracy and negative log-likelihood against fixed sharpness, with marks where PSG ended. "
        f"{words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions; {NOTE}"
    return Drawing(
        figure, note, caption, alt, int(max([*points["n"], *marks["n"]])), {"points": points, "found": marks}
    )
