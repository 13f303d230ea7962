"""From the shards that exist to one table: every expected cell has a row, a missing one included."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from spikebench import rows as row_file
from spikebench.naming import named
from spikebench.paths import Results, replacing
from spikebench.sweep import Plan

_COVERAGE_AXES = ["experiment", "method", "mode", "dataset", "fault"]
STATUSES = ("ok", "failed", "timed-out", "diverged", "unavailable", "missing")


def collect(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of rows and the table of traces; cells without a valid row have the status ``missing``."""
    results = Results(plan.config.name, plan.config.root)
    rows: list[dict[str, Any]] = []
    for (experiment, shard), planned in plan.shards.items():
        found = {row["cell"]: row for row in row_file.read(results.shard(experiment, shard))}
        for p in planned:
            row = found.get(p.cell.id)
            if row is None or row["digest"] != p.digest:
                error = "not trained yet" if row is None else "stale: its code or settings changed since it was trained"
                blank = dict.fromkeys(("host", "versions", "commit"), "")
                row = row_file.complete(p, {"status": "missing", "error": error}, blank)
            # These are no part of a cell's identity: they may have changed although its numbers are fresh.
            rows.append({**row, "sweeps": p.sweeps, "paper": p.paper})
    table = pd.DataFrame(rows).sort_values("cell", ignore_index=True)
    # By column: a dictionary a point would take gigabytes where there are many.
    points: dict[str, list[Any]] = {column: [] for column in ("cell", "name", "chain", "step", "value")}
    for row in rows:
        for point in json.loads(row["traces"]):
            for column, values in points.items():
                values.append(row["cell"] if column == "cell" else point[column])
    traces = pd.DataFrame(points).sort_values(list(points)[:4], ignore_index=True)
    return table.drop(columns="traces"), traces


def coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """Expected cells and their statuses, by experiment, arm, data set and fault."""
    counts = named(rows).groupby(_COVERAGE_AXES)["status"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=list(STATUSES), fill_value=0)
    counts.insert(0, "expected", counts.sum(axis=1))
    return counts.reset_index()


def gather(plan: Plan) -> str:
    """Write ``rows.parquet``, ``traces.parquet`` and ``coverage.csv``; a sentence that says what there is."""
    results = Results(plan.config.name, plan.config.root)
    rows, traces = collect(plan)
    with replacing(results.rows) as temporary:
        rows.to_parquet(temporary, index=False, compression="zstd")
    with replacing(results.traces) as temporary:
        traces.to_parquet(temporary, index=False, compression="zstd")
    with replacing(results.coverage) as temporary:
        coverage(rows).to_csv(temporary, index=False)
    counts = rows["status"].value_counts()
    said = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts)
    return f"{len(rows)} cells expected: {said}"
