"""The rows behind a claim: those that its primary test compares, and the query that selects them from the table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from spikebench import claims
from spikebench.figures.arms import with_arms
from spikebench.report.tables import Entry, Table, amount, word

_AXES = ("experiment", *claims.OWN, *claims.SHARED)


@dataclass(frozen=True)
class Evidence:
    """What a claim rests on.

    Attributes:
        query: for ``pandas.read_parquet("rows.parquet").query(...)``; it selects these rows and no others.
        table: a line a row.
    """

    query: str
    table: Table


def evidence(claim: Mapping[str, Any], rows: pd.DataFrame) -> Evidence | None:
    """The rows of a claim, or None where there are none that it could be tested on.

    Args:
        claim: an entry of the scoreboard.
        rows: the gathered table as it lies on disk, with the plug-ins' names of data sets.
    """
    cells = claims.cells(claim, rows)
    found = with_arms(rows[rows["cell"].isin(cells)]).sort_values(["arm", "training_size", "repetition"])
    return None if found.empty else Evidence(_query(found), _table(claim, found))


def _query(found: pd.DataFrame) -> str:
    """One condition an axis where the values make a grid, else the varying axes' combinations one by one."""
    varying = [axis for axis in _AXES if found[axis].nunique() > 1]
    parts = [f"{axis} == {_literal(found[axis].iloc[0])}" for axis in _AXES if axis not in varying]
    combinations = set(found[varying].itertuples(index=False, name=None))
    values = [sorted(set(found[axis])) for axis in varying]
    if combinations == set(itertools.product(*values)):
        lists = (", ".join(map(_literal, some)) for some in values)
        parts += [f"{axis} in [{some}]" for axis, some in zip(varying, lists, strict=True)]
    else:
        pairs = [[f"{a} == {_literal(v)}" for a, v in zip(varying, some, strict=True)] for some in combinations]
        parts.append("(" + " or ".join(sorted(f"({' and '.join(pair)})" for pair in pairs)) + ")")
    return " and ".join(parts)


def _literal(value: Any) -> str:
    """As Python writes it; NumPy's numbers name their type."""
    return repr(value.item() if hasattr(value, "item") else value)


def _table(claim: Mapping[str, Any], found: pd.DataFrame) -> Table:
    metric = claim["test"]["metric"]
    own = [axis for axis in ("settings", "data_settings", "fault", "severity", "training_size")]
    own = [axis for axis in own if found[axis].nunique() > 1]
    lines = []
    for row in found.to_dict("records"):
        axes = [amount(row[axis]) if not isinstance(row[axis], str) else word(row[axis]) for axis in own]
        value = amount(_value(row, metric))
        lines.append([word(row["arm"]), *axes, amount(row["repetition"]), value, word(row["status"]), _cell(row)])
    columns = ["Arm", *(axis.replace("_", " ") for axis in own), "repetition", metric, "status", "cell"]
    return Table(f"Rows of claim {claim['id']}", columns, lines)


def _cell(row: Mapping[Any, Any]) -> Entry:
    return word(row["cell"])


def _value(row: Mapping[Any, Any], metric: str) -> Any:
    """A metric that is a column, or a number of the diagnostics."""
    _, dot, name = metric.partition(".")
    return json.loads(row["diagnostics"]).get(name) if dot else row[metric]
