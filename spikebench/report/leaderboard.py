"""Who ranks where on the worst chips, and at what price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from spikebench.figures.arms import with_arms
from spikebench.figures.tables import at, finished, hardest, pick, summary

#: What an arm spent on a cell, on average: column to heading.
COSTS = {
    "chip_presentations": "chip presentations",
    "gradient_steps": "gradient steps",
    "seconds": "seconds",
    "peak_memory_mb": "peak MB",
}


@dataclass(frozen=True)
class Board:
    """One table: the arms of an experiment on a data set, the best at the greatest severity first.

    Attributes:
        title: where it was measured.
        severities: of the columns of accuracies.
        headings: of the columns of costs.
        lines: arm, ``accuracy`` by severity (mean, low, high, n; None where nothing finished) and mean ``costs``.
    """

    title: str
    severities: list[float]
    headings: list[str]
    lines: Sequence[Mapping[str, Any]]


def boards(rows: pd.DataFrame) -> list[Board]:
    """A table for each experiment and data set: strongest faults, all training data, default settings."""
    plain = with_arms(rows[(rows["settings"] == "{}") & (rows["data_settings"] == "{}")])
    found = []
    for (experiment, dataset), here in plain.groupby(["experiment", "dataset"], sort=False):
        main = hardest(at(here, network=here["network"].mode().iloc[0]))  # the ablations' networks have fewer cells
        if not finished(main).empty:
            found.append(_board(f"{experiment}, {dataset}", main))
    return found


def _board(place: str, rows: pd.DataFrame) -> Board:
    severities, done = pick(rows["severity"]), finished(rows)
    points = summary(done, ["arm", "severity"], "accuracy").to_dict("records")
    found = {(point["arm"], point["severity"]): point for point in points}
    costs = done.groupby("arm")[list(COSTS)].mean()
    lines = [
        {"arm": arm, "accuracy": [found.get((arm, s)) for s in severities], "costs": costs.loc[arm].to_dict()}
        for arm in sorted(costs.index, key=lambda arm: _rank(found.get((arm, severities[-1]))))
    ]
    title = f"{place}: {rows['fault'].iloc[0]}, {rows['training_size'].iloc[0]} training samples"
    return Board(title, severities, list(COSTS.values()), lines)


def _rank(point: Mapping[Any, Any] | None) -> float:
    return 1.0 if point is None else -point["mean"]
