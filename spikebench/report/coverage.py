"""What of the plan exists: counts by arm, and the errors of the cells that did not finish."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from spikebench.figures.arms import Arm, label, with_arms
from spikebench.report.tables import DASH, Entry, Table, word

STATUSES = ("ok", "failed", "timed-out", "diverged", "unavailable", "missing")


@dataclass(frozen=True)
class ErrorGroup:
    """Cells that ended alike: status, message, how many, whose, and a few of their ids."""

    status: str
    message: str
    count: int
    arms: tuple[str, ...]
    cells: tuple[str, ...]


def totals(coverage: pd.DataFrame) -> dict[str, int]:
    """Expected cells and cells of each status over the whole plan."""
    return {name: int(coverage[name].sum()) for name in ("expected", *STATUSES)}


def by_arm(coverage: pd.DataFrame) -> list[dict[str, str | int]]:
    """The coverage table, summed over data sets and faults: one entry an experiment and arm, in the plan's order."""
    sums = coverage.groupby(["experiment", "method", "mode"], sort=False)[["expected", *STATUSES]].sum()
    return [
        {"experiment": experiment, "arm": label(Arm(method, mode)), **totals(sums.loc[[(experiment, method, mode)]])}
        for experiment, method, mode in sums.index
    ]


def maps(coverage: pd.DataFrame) -> list[Table]:
    """A map an experiment: a line an arm, a column a data set and fault, in each how many of the cells finished."""
    tables = []
    for experiment, here in coverage.groupby("experiment", sort=False):
        columns = here[["dataset", "fault"]].drop_duplicates().sort_values(["dataset", "fault"])
        places = list(columns.itertuples(index=False, name=None))
        found = here.groupby(["method", "mode", "dataset", "fault"])[["ok", "expected"]].sum()
        counts = {key: (int(ok), int(expected)) for key, ok, expected in found.itertuples(name=None)}
        arms = here[["method", "mode"]].drop_duplicates().itertuples(index=False, name=None)
        lines = [
            [word(label(Arm(*arm))), *(_finished(counts.get((*arm, *place), (0, 0))) for place in places)]
            for arm in arms
        ]
        groups = [(str(dataset), len(group)) for dataset, group in columns.groupby("dataset")]
        tables.append(
            Table(f"Finished cells of {experiment}", ["Arm", *(fault for _, fault in places)], lines, groups=groups)
        )
    return tables


def _finished(count: tuple[int, int]) -> Entry:
    ok, expected = count
    if not expected:
        return DASH
    mark = "whole" if ok == expected else "part" if ok else "none"
    return Entry(f"{ok:,}" if ok == expected else f"{ok:,} of {expected:,}", ok / expected, mark=mark)


def errors(rows: pd.DataFrame) -> list[ErrorGroup]:
    """The cells that did not finish, grouped by status and message, the most frequent first."""
    lost = with_arms(rows[rows["status"] != "ok"])
    groups = [
        ErrorGroup(
            str(status),
            str(message) or "no message",
            len(cells),
            tuple(sorted(set(cells["arm"]))),
            tuple(sorted(cells["cell"])[:3]),
        )
        for (status, message), cells in lost.groupby(["status", lost["error"].fillna("")])
    ]
    return sorted(groups, key=lambda group: (-group.count, group.status, group.message))
