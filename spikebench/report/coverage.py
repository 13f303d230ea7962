"""What of the plan exists: counts by arm, and the errors of the cells that did not finish."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from spikebench.figures.arms import Arm, label, with_arms

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
