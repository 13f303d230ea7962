"""The look of the figures: seaborn's paper style, 17 cm wide, with every distance in inches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, floor
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from spikebench.figures.arms import Style

#: 17 cm, the text width of an A4 page.
WIDTH = 17 / 2.54
GREY = "#5a5a5a"
_LEFT, _RIGHT, _LEGEND_LINE, _TITLE, _FOOTER = 0.6, 0.2, 0.2, 0.3, 0.24

#: A grid of axes.
Panels = NDArray[Any]


@contextmanager
def house_style() -> Iterator[None]:
    """Seaborn's ``ticks`` style in print size, for everything drawn and saved inside the block."""
    parameters = {
        **seaborn.axes_style("ticks"),
        **seaborn.plotting_context("paper"),
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7.5,
        "lines.linewidth": 1.3,
        "lines.markersize": 4,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": "#e3e3e3",
        "grid.linewidth": 0.6,
        "pdf.fonttype": 42,  # text stays text: searchable, and editable by a journal
    }
    with matplotlib.rc_context(parameters):
        yield


def canvas(
    rows: int,
    columns: int,
    title: str,
    keys: Sequence[Artist],
    *,
    height: float = 2.1,
    left: float = _LEFT,
    right: float = _RIGHT,
    gap: float = 0.3,
    wspace: float = 0.12,
    **subplots: Any,
) -> tuple[Figure, Panels]:
    """A figure with a title, one legend for all panels and a grid of axes [rows, columns] below.

    Args:
        rows: rows of panels.
        columns: columns of panels.
        title: what the figure shows, in words.
        keys: entries of the legend.
        height: of one panel, in inches.
        left: space for the y labels, in inches.
        right: space right of the panels, in inches.
        gap: between rows of panels, in inches.
        wspace: between columns of panels, in widths of a panel.
        **subplots: which axes are shared, handed to ``Figure.subplots``.
    """
    columns_of_keys = _columns_that_fit([str(entry.get_label()) for entry in keys])
    top = _TITLE + ceil(len(keys) / columns_of_keys) * _LEGEND_LINE + 0.24
    bottom = 0.42 + _FOOTER
    total = top + rows * height + (rows - 1) * gap + bottom
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    figure.subplots_adjust(
        left=left / WIDTH,
        right=1 - right / WIDTH,
        top=1 - top / total,
        bottom=bottom / total,
        hspace=gap / height,
        wspace=wspace,
    )
    figure.text(0.08 / WIDTH, 1 - 0.07 / total, title, size=9.5, weight="bold", va="top")
    figure.legend(
        handles=keys,
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - (_TITLE - 0.04) / total),
        ncols=columns_of_keys,
        frameon=False,
        borderaxespad=0.2,
        handlelength=2.6,
        columnspacing=1.6,
    )
    for panel in axes.flat:
        seaborn.despine(ax=panel)
        panel.tick_params(left=panel in axes[:, 0], bottom=panel in axes[-1])
    return figure, axes


def _columns_that_fit(labels: Sequence[str]) -> int:
    """The most columns, filled one after the other, in which a legend is no wider than the page."""
    for count in range(len(labels), 1, -1):
        columns = np.array_split([len(label) for label in labels], count)
        if sum(0.53 + 0.055 * lengths.max() for lengths in columns) < WIDTH - 0.2:  # a handle, and inches a letter
            return count
    return 1


def key(style: Style, *, joined: bool = True) -> Line2D:
    """The legend's entry of an arm, whose points are joined by a line or not."""
    linestyle = style.line if joined else "none"
    return Line2D([], [], color=style.colour, marker=style.marker, linestyle=linestyle, label=style.label)


def small_print(figure: Figure, text: str, dataset: str, preset: str) -> None:
    """Small print: what is plotted and n below, data set and preset in the upper right corner."""
    stamp = f"{dataset}, preset {preset}" + (" (means nothing)" if preset == "smoke" else "")
    height = figure.get_figheight()
    figure.text(0.08 / WIDTH, 0.08 / height, text, size=6.5, color=GREY)
    figure.text(1 - 0.08 / WIDTH, 1 - 0.1 / height, stamp, size=6.5, color=GREY, ha="right", va="top", weight="bold")


def curve(panel: Axes, points: pd.DataFrame, x: str, style: Style, shift: float) -> None:
    """One arm's means with interval bars, joined by its line.

    Args:
        panel: where to draw.
        points: a summary (see ``tables.summary``), one row an x.
        x: the column of the horizontal axis.
        style: the arm's.
        shift: moves the points sideways, so that bars of several arms do not hide each other: added on a linear axis,
            a relative change on a logarithmic one.
    """
    points = points.sort_values(x)
    at = points[x].to_numpy(dtype=np.float64)
    at = at * (1 + shift) if panel.get_xscale() == "log" else at + shift
    panel.errorbar(
        at,
        points["mean"],
        yerr=bars(points),
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        elinewidth=0.9,
        markeredgewidth=0.8,
    )


def bars(points: pd.DataFrame, suffix: str = "") -> NDArray[np.float64]:
    """Distances [2, n] from the means down and up to the ends of their intervals; 0 where there is no interval."""
    mean, low, high = (points[name + suffix].to_numpy(dtype=np.float64) for name in ("mean", "low", "high"))
    distances: NDArray[np.float64] = np.stack([mean - low, high - mean])
    return np.nan_to_num(distances)


def shifts(count: int, step: float, room: float) -> list[float]:
    """Offsets of ``count`` arms around 0, ``step`` apart, closer where ``room`` is too little for that."""
    return [(i - (count - 1) / 2) * min(step, room / count) for i in range(count)]


def lower_end(points: pd.DataFrame) -> float:
    """The lowest value that a summary needs to show: an interval of two repetitions may not flatten all the rest."""
    return float(max(points["low"].fillna(points["mean"]).min(), points["mean"].min() - 0.2))


def upper_end(points: pd.DataFrame) -> float:
    """The highest value that a summary needs to show, as ``lower_end``."""
    return float(min(points["high"].fillna(points["mean"]).max(), points["mean"].max() + 0.2))


def zoomed_percent_axis(panels: Panels, points: pd.DataFrame, *, zero: bool = False) -> None:
    """Y axes in per cent that show the shares of a summary as large as possible, from 0 on where ``zero`` says so."""
    low, high = 0.0 if zero else lower_end(points), upper_end(points)
    room = 0.06 * (high - low) + 0.002
    for panel in panels.flat:
        panel.set_ylim(max(low - room, 0.0), min(high + room, 1.01))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))


def size_axis(panel: Axes, sizes: pd.Series) -> None:
    """A logarithmic axis with the training sizes that were run as its ticks."""
    ticks = sorted({int(size) for size in sizes})
    panel.set_xscale("log")
    panel.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    panel.xaxis.set_minor_locator(NullLocator())


def percent_axis(panels: Panels, lowest: float) -> None:
    """Y axes in per cent, from a round number below ``lowest`` (a share) to 100."""
    bottom = min(max(floor(lowest * 10) / 10, 0.0), 0.9)
    for panel in panels.flat:
        panel.set_ylim(bottom, 1.01)
        panel.yaxis.set_major_locator(MultipleLocator(0.1 if bottom >= 0.3 else 0.2))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
