"""What the figures of SPIDE share: numbers out of the rows' documents, data sets in their order, names and axes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context
from spikebench.figures.style import curve
from spikebench.figures.tables import in_sweep, with_all_data
from spikebench.figures.text import spread

#: The sweeps of training, a data set each, in the order of panels.
DATA_SWEEPS = ("mnist", "mnist-dvs", "cifar10", "cifar10-dvs")
#: T_F where the data's settings name none, and T_B where the method's do not.
STEPS, BACKWARD_STEPS = 30, 100
#: Picojoules to microjoules.
MICRO = 1e-6


def said(rows: pd.DataFrame, column: str, name: str, otherwise: Any) -> list[Any]:
    """What each row's document in a column holds under a name."""
    return [json.loads(text).get(name, otherwise) for text in rows[column]]


def with_diagnostics(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """A copy with a column for each of the diagnostics, NaN where a row has it not."""
    found = [json.loads(text) for text in rows["diagnostics"]]
    return rows.assign(**{name: [float(one.get(name, "nan")) for one in found] for name in names})


def short(rows: pd.DataFrame, context: Context) -> tuple[pd.DataFrame, dict[str, Style]]:
    """Rows and styles with arms by the names they have among themselves: all are feedback networks here."""

    def brief(label: str) -> str:
        return label.replace(" (feedback net)", "")

    looks = {brief(label): replace(style, label=brief(label)) for label, style in context.present(rows).items()}
    return rows.assign(arm=rows["arm"].map(brief)), looks


def of_data_sets(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweeps of training, of each data set the cells with the most examples."""
    return with_all_data(pd.concat([in_sweep(rows, name) for name in DATA_SWEEPS]).drop_duplicates("cell"))


def data_sets(rows: pd.DataFrame) -> dict[str, int]:
    """Data set to its number of training examples, in the order of panels."""
    found = pd.concat([in_sweep(rows, name) for name in DATA_SWEEPS])
    return {str(name): int(size) for name, size in found[["dataset", "training_size"]].itertuples(index=False)}


def hollow_curve(panel: Axes, points: pd.DataFrame, x: str, style: Style, shift: float) -> None:
    """As ``style.curve``, dashed and with open marks."""
    curve(panel, points, x, replace(style, line="--"), shift)
    panel.containers[-1][0].set_markerfacecolor("white")


def log_limits(points: pd.DataFrame) -> tuple[float, float]:
    """Ends of a logarithmic axis for the means of a summary; intervals, which may reach below 0, do not count."""
    return 0.7 * float(points["mean"].min()), 1.4 * float(points["mean"].max())


def limits(values: Sequence[float], points: pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis for single values and the intervals of a summary.

    An interval counts a quarter of the values' range beyond them at most: one of two repetitions would flatten
    the rest.
    """
    low, high = min(values), max(values)
    most = 0.25 * (high - low) or 0.05
    ends = points["low"].fillna(low).min(), points["high"].fillna(high).max()
    low, high = min(low, max(float(ends[0]), low - most)), max(high, min(float(ends[1]), high + most))
    room = 0.06 * (high - low)
    return low - room, high + room


def nearest(values: pd.Series, wanted: float) -> float:
    """That of the values that is closest to what is wanted, by ratio."""
    return float(min(sorted(set(values)), key=lambda value: abs(np.log(value / wanted))))


def microjoules(point: Mapping[Any, Any]) -> str:
    """Mean and interval of one point in picojoules, said in microjoules with three digits."""
    digits = max(0, 2 - int(np.floor(np.log10(max(MICRO * point["mean"], 1e-3)))))
    return f"{MICRO * point['mean']:.{digits}f} µJ {spread(point['low'], point['high'], MICRO, digits)}"
