"""From the gathered rows to what a figure plots: selections, means with intervals, paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from spikebench.statistics import mean_interval

#: Rows of two arms that agree on these met the same data, the same split and the same chip.
PAIR = [
    "dataset",
    "data_kind",
    "data_source",
    "data_settings",
    "network",
    "fault",
    "severity",
    "training_size",
    "repetition",
]

#: The order of panels; other faults follow by name.
_FAULTS = ("threshold", "threshold+tau+gain", "gain-mismatch")
_LAST_FAULT = "paper-full"


class NothingToDraw(Exception):
    """The rows hold nothing that this figure could show; the message says what is missing."""


def in_sweep(rows: pd.DataFrame, sweep: str) -> pd.DataFrame:
    """The rows that belong to a named sweep of their experiment."""
    return rows[np.array([sweep in names.split(";") for names in rows["sweeps"]], dtype=bool)]


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with results."""
    return rows[rows["status"] == "ok"]


def status_counts(rows: pd.DataFrame) -> dict[str, int]:
    """How many cells have each status, ``ok`` first."""
    counts = {str(status): int(n) for status, n in rows["status"].value_counts().items()}
    return {"ok": counts.pop("ok", 0), **dict(sorted(counts.items()))}


def at(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The part of a table in which each named column has the given value."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def hardest(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells with the strongest set of faults and all training data."""
    if rows.empty:
        return rows
    return at(rows, fault=faults(rows)[-1], training_size=rows["training_size"].max())


def with_all_data(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of each data set that were trained with the most examples."""
    return rows[rows["training_size"] == rows.groupby("dataset")["training_size"].transform("max")]


def in_groups(rows: pd.DataFrame, arms: Iterable[str], most: int = 8) -> list[list[str]]:
    """The arms in groups of at most ``most``, in which a panel stays legible; arms of a method are never parted.

    Args:
        rows: with the columns ``arm`` and ``method``.
        arms: labels, in the order of legends.
        most: arms in a group.
    """
    method_of = dict(zip(rows["arm"], rows["method"], strict=True))
    groups: list[list[str]] = [[]]
    for _, same in groupby(arms, key=method_of.__getitem__):
        together = list(same)
        if groups[-1] and len(groups[-1]) + len(together) > most:
            groups.append([])
        groups[-1] += together
    return groups


def summary(rows: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """Mean and 95% Student-t interval of a metric over the repetitions.

    Args:
        rows: finished rows.
        by: the columns that make one point.
        metric: a numeric column; values that are not finite are left out, which ``n`` shows.

    Returns:
        One row a point: the columns ``by``, then ``mean``, ``low``, ``high`` (NaN for one value) and ``n``.
    """
    records = []
    for key, values in rows.groupby(list(by))[metric]:
        numbers = values.to_numpy(dtype=np.float64)
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            records.append(dict(zip(by, key, strict=True)) | asdict(mean_interval(numbers)))
    return pd.DataFrame(records, columns=[*by, "mean", "low", "high", "n"])


def differences(rows: pd.DataFrame, reference: str, metric: str) -> pd.DataFrame:
    """``reference`` minus every other arm, pair by pair.

    Args:
        rows: finished rows with the column ``arm``.
        reference: label of the arm from which the others are subtracted.
        metric: a numeric column.

    Returns:
        One row a pair: the columns of ``PAIR``, ``arm`` (the one subtracted) and ``difference``.
    """
    of_reference = rows.loc[rows["arm"] == reference, [*PAIR, metric]]
    of_others = rows.loc[rows["arm"] != reference, [*PAIR, "arm", metric]]
    pairs = of_others.merge(of_reference, on=PAIR, suffixes=("", "_reference"))
    return pairs.assign(difference=pairs[f"{metric}_reference"] - pairs[metric])[[*PAIR, "arm", "difference"]]


def faults(rows: pd.DataFrame) -> list[str]:
    """The fault sets of ``rows`` in the order of panels, the strongest last."""
    known = [*_FAULTS, *sorted(set(rows["fault"]) - {*_FAULTS, _LAST_FAULT}), _LAST_FAULT]
    return [fault for fault in known if fault in set(rows["fault"])]


def margin_and_target(claims: Sequence[Mapping[str, Any]], experiment: str) -> tuple[float | None, float | None]:
    """The difference in accuracy that does not matter and the accuracy that counts as effective in an experiment.

    ``claims`` are the entries of ``config/claims.yaml``; what none of them names is None.
    """
    here = [c for c in claims if (c["test"]["experiment"], c["test"]["metric"]) == (experiment, "accuracy")]
    margins = (claim["margin"] for claim in here if claim["test"]["kind"] == "paired-difference")
    targets = (claim["test"]["target"] for claim in here if claim["test"]["kind"] == "size-ratio")
    return next(margins, None), next(targets, None)


def pick(values: pd.Series, wanted: Sequence[float] = (0.0, 0.5, 1.0)) -> list[float]:
    """The wanted values that occur; if none does, the smallest, the middle and the largest that do."""
    present = sorted({float(value) for value in values})
    chosen = [value for value in present if value in wanted]
    return chosen or sorted({present[0], present[len(present) // 2], present[-1]})
