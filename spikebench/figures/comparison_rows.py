"""What the figures of the grand comparison share: data sets, margin, matrices, logarithmic axes with a place of 0."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from spikebench.comparison import MARGIN, shared_families
from spikebench.figures.drawing import Context
from spikebench.figures.style import GREY


def data_sets(table: pd.DataFrame) -> list[str]:
    """The names of the data sets, in the order of panels."""
    return sorted(set(table["dataset"]))


def in_lines(dataset: str) -> str:
    """A name that is too long for a panel, in two lines."""
    return dataset.replace(" from ", "\nfrom ")


def room_for(labels: Iterable[str]) -> float:
    """Inches left of panels whose lines have these names."""
    return 0.15 + 0.055 * max(map(len, labels))


def margin(context: Context) -> float:
    """The difference in accuracy that does not matter."""
    return MARGIN if context.margin is None else context.margin


def areas_over(rows: pd.DataFrame, dataset: str) -> str:
    """The fault families over which the areas of a data set are averaged, in words."""
    return ", ".join(shared_families(rows, dataset))


def matrix_panel(panel: Axes, columns: int, lines: int, head: float, labels: list[str]) -> None:
    """Axes for cells of size 1, the first line above, with room of ``head`` lines for the names of columns."""
    panel.set(xlim=(0, columns), ylim=(lines, -head), xticks=[])
    panel.set_yticks([line + 0.5 for line in range(lines)], labels=labels)
    panel.tick_params(left=False, bottom=False, pad=1)
    panel.grid(visible=False)
    for side in panel.spines.values():
        side.set_visible(False)


def place_of_none(budget: pd.Series) -> float:
    """Where a logarithmic axis shows 0: a decade below that of the smallest positive value."""
    positive = budget[budget > 0]
    return float(10.0 ** (np.floor(np.log10(positive.min())) - 1)) if len(positive) else 1.0


def log_ticks(panel: Axes, budget: pd.Series) -> None:
    """Few ticks, as plain numbers where the values span less than two decades."""
    if budget.max() < 4 * budget.min():  # next to equal: without room around them there would be no tick, or too many
        panel.set_xlim(budget.min() / 2.5, budget.max() * 2.5)
    if budget.max() < 100 * budget.min():
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.minorticks_off()


def mark_none(panel: Axes, none: float) -> None:
    """Set the place of 0 apart from the logarithmic part, and label it."""
    panel.axvline(none * 10**0.5, color=GREY, linewidth=0.7, linestyle=(0, (2, 2)))
    panel.set_xlim(left=none / 3)
    ticks = [tick for tick in panel.get_xticks() if none * 5 < tick <= panel.get_xlim()[1]]
    panel.set_xticks([none, *ticks], labels=["none", *(f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks)])
    panel.minorticks_off()
