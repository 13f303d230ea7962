"""Every expected cell is in the table once, whatever became of it, and the coverage adds up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from project import BACKPROP, MH, OFF_CHIP, Project

from spikebench import gather as gathering
from spikebench import rows as row_file
from spikebench.gather import STATUSES, collect, coverage, gather
from spikebench.sweep import Plan, Planned

AXES = {
    "dataset": ["breast_cancer"],
    "fault": ["threshold", "paper-full"],
    "severity": [0.0, 1.0],
    "training_size": [20],
}
TRACES = [
    {"name": "log_posterior", "chain": 1, "step": 20, "value": -3.5},
    {"name": "log_posterior", "chain": 1, "step": 10, "value": -4.25},
]
SURROUNDINGS = {"host": "h", "versions": "{}", "commit": "c"}


def train(plan: Plan, project: Project, outcome: Callable[[Planned], dict[str, Any] | None]) -> None:
    """Write the shard files: ``outcome`` of each cell, None where it was never trained."""
    for (experiment, shard), planned in plan.shards.items():
        made = [(p, outcome(p)) for p in planned]
        rows = [row_file.complete(p, o, SURROUNDINGS) for p, o in made if o is not None]
        if rows:
            row_file.write(rows, project.results.shard(experiment, shard))


def ok(planned: Planned) -> dict[str, Any]:
    """A row whose accuracy tells the cell."""
    accuracy = int(planned.cell.id, 16) / 16**16
    return {"status": "ok", "error": "", "accuracy": accuracy, "traces": json.dumps(TRACES), "seconds": 0.5}


@pytest.fixture
def plan(project: Project) -> Plan:
    """3 arms, 2 faults, 2 severities, 2 repetitions: 24 cells in 5 shards, as off-chip both faults are one."""
    project.experiment(axes=AXES, arms=[MH, BACKPROP, OFF_CHIP])
    plan = project.plan()
    assert (len(plan.planned), len(plan.shards)) == (24, 5)
    return plan


def test_rows_are_those_of_the_shards(project: Project, plan: Plan) -> None:
    train(plan, project, ok)
    table, traces = collect(plan)
    assert list(table["cell"]) == sorted(p.cell.id for p in plan.planned)
    assert list(table["accuracy"]) == [int(cell, 16) / 16**16 for cell in table["cell"]]
    assert "traces" not in table, "they have a table of their own"
    assert set(table.columns) == {*row_file.RESULT, *row_file.MEASUREMENTS} - {"traces"}
    first = traces[traces["cell"] == table["cell"][0]]
    assert first[["name", "chain", "step", "value"]].to_dict("records") == sorted(TRACES, key=lambda t: t["step"])
    assert len(traces) == 48


def test_failed_missing_and_stale_cells_are_seen(project: Project, plan: Plan) -> None:
    """By hand: MH paper-full at severity 1 failed; MH threshold was not trained; backprop off-chip is of older code."""

    def outcome(p: Planned) -> dict[str, Any] | None:
        if p.cell.method == "metropolis_hastings":
            if p.cell.fault == "threshold":
                return None
            return {"status": "failed", "error": "why"} if p.cell.severity == 1.0 else ok(p)
        return ok(p)

    train(plan, project, outcome)
    for (experiment, shard), planned in plan.shards.items():
        if planned[0].cell.mode == "off-chip":
            path = project.results.shard(experiment, shard)
            row_file.write([{**row, "digest": "of older code"} for row in row_file.read(path)], path)
    table, traces = collect(project.plan())
    assert len(table) == 24
    assert table["status"].value_counts().to_dict() == {"missing": 12, "ok": 10, "failed": 2}

    missing = table[table["status"] == "missing"]
    assert missing["accuracy"].isna().all(), "a stale number is not shown"
    stale = missing["error"] == "stale: its code or settings changed since it was trained"
    assert (missing.loc[stale, "mode"] == "off-chip").all()
    assert stale.sum() == 8
    assert set(missing.loc[~stale, "error"]) == {"not trained yet"}
    assert not missing[[*row_file.AXES]].isna().any(axis=None)
    assert set(table.loc[table["status"] == "failed", "error"]) == {"why"}
    assert set(traces["cell"]) == set(table.loc[table["status"] == "ok", "cell"])

    counts = coverage(table)
    assert list(counts.columns) == ["experiment", "method", "mode", "dataset", "fault", "expected", *STATUSES]
    found = {(r["method"], r["mode"], r["fault"]): r for r in counts.to_dict("records")}
    expected = {
        ("metropolis_hastings", "in-the-loop", "threshold"): {"missing": 4},
        ("metropolis_hastings", "in-the-loop", "paper-full"): {"ok": 2, "failed": 2},
        ("backprop", "in-the-loop", "threshold"): {"ok": 4},
        ("backprop", "in-the-loop", "paper-full"): {"ok": 4},
        ("backprop", "off-chip", "threshold"): {"missing": 4},
        ("backprop", "off-chip", "paper-full"): {"missing": 4},
    }
    assert found.keys() == expected.keys()
    for key, row in found.items():
        assert {s: row[s] for s in STATUSES if row[s]} == expected[key], key
        assert row["expected"] == sum(expected[key].values()) == 4


def test_all_statuses_are_counted_apart(project: Project, plan: Plan) -> None:
    statuses = {p.cell.id: STATUSES[n % 6] for n, p in enumerate(plan.planned)}
    train(
        plan,
        project,
        lambda p: None if statuses[p.cell.id] == "missing" else {"status": statuses[p.cell.id]} | {"error": "e"},
    )
    counts = coverage(collect(plan)[0])
    assert counts[["expected", *STATUSES]].sum().to_dict() == {"expected": 24, **dict.fromkeys(STATUSES, 4)}


def test_a_damaged_or_foreign_file_is_a_gap_not_an_end(project: Project, plan: Plan) -> None:
    train(plan, project, ok)
    (experiment, shard), planned = next(iter(plan.shards.items()))
    project.results.shard(experiment, shard).write_bytes(b"PAR1 half of it")
    project.results.shard(experiment, "f" * 16).write_bytes(b"somebody else's")
    table, _ = collect(plan)
    assert len(table) == 24
    assert set(table.loc[table["status"] == "missing", "cell"]) == {p.cell.id for p in planned}


def test_nothing_trained_is_a_table_too(project: Project, plan: Plan) -> None:
    assert gather(plan) == "24 cells expected: 24 missing"
    table = project.table()
    assert set(table["status"]) == {"missing"}
    traces = pd.read_parquet(project.results.traces)
    assert len(traces) == 0
    assert list(traces.columns) == ["cell", "name", "chain", "step", "value"]


def test_a_rows_sweeps_and_paper_are_those_of_today(project: Project, plan: Plan) -> None:
    train(plan, project, ok)
    keys = {"axes": AXES, "arms": [MH, BACKPROP, OFF_CHIP]}
    project.experiment(**keys, sweeps=[{"name": "one"}, {"name": "two"}], paper="1234.5678")
    table, _ = collect(project.plan())
    assert set(table["sweeps"]) == {"one;two"}
    assert set(table["paper"]) == {"1234.5678"}
    assert set(table["status"]) == {"ok"}


def test_what_is_written_is_what_was_collected(project: Project, plan: Plan) -> None:
    train(plan, project, ok)
    assert gather(plan) == "24 cells expected: 24 ok"
    table, traces = collect(plan)
    pd.testing.assert_frame_equal(pd.read_parquet(project.results.rows), table)
    pd.testing.assert_frame_equal(pd.read_parquet(project.results.traces), traces)
    written = pd.read_csv(project.results.coverage)
    assert np.array_equal(written["expected"], [4] * 6)
    assert [p.name for p in project.results.folder.iterdir() if p.name.startswith(".")] == []


def test_gathering_twice_gives_the_same_bytes(project: Project, plan: Plan) -> None:
    train(plan, project, ok)
    gather(plan)
    first = {p: p.read_bytes() for p in (project.results.rows, project.results.traces, project.results.coverage)}
    gathering.gather(project.plan())
    assert {p: p.read_bytes() for p in first} == first


class TestRows:
    def test_bits_survive_a_file(self, project: Project, plan: Plan) -> None:
        """Numbers come back as they were, NaN and the last bit included."""
        numbers = [0.1 + 0.2, 1 / 3, 5e-324, float("nan"), -0.0]
        rows = [
            row_file.complete(p, {**ok(p), "nll": n}, SURROUNDINGS) for p, n in zip(plan.planned, numbers, strict=False)
        ]
        path = project.root / "rows.parquet"
        row_file.write(rows, path)
        again = {row["cell"]: row for row in row_file.read(path)}
        for row in rows:
            assert repr(again[row["cell"]]) == repr({column: row[column] for column in row_file.SCHEMA.names})

    def test_files_from_before_a_cell_said_when_it_started_are_read(self, project: Project, plan: Plan) -> None:
        (experiment, shard), planned = next(iter(plan.shards.items()))
        path = project.results.shard(experiment, shard)
        row_file.write([row_file.complete(p, {**ok(p), "started": 1.5}, SURROUNDINGS) for p in planned], path)
        assert {row["started"] for row in row_file.read(path)} == {1.5}
        pq.write_table(pq.read_table(path).drop_columns(["started"]), path)
        assert [row["accuracy"] for row in row_file.read(path)] == sorted(ok(p)["accuracy"] for p in planned)
        table, _ = collect(plan)
        assert table["status"].value_counts().to_dict() == {"missing": 20, "ok": 4}
        assert table["started"].dtype == np.float64
        assert table["started"].isna().all()

    def test_files_from_before_a_column_are_read_with_its_default(self, project: Project, plan: Plan) -> None:
        """And what they say is as fresh as it was: no cell is trained again for a new column."""
        for (experiment, shard), planned in plan.shards.items():
            path = project.results.shard(experiment, shard)
            row_file.write([row_file.complete(p, ok(p), SURROUNDINGS) for p in planned], path)
            before = row_file.read(path)
            new = ["ece_debiased", "rmse", "memory_bits", "bit_error", "log_likelihood", "outputs"]
            pq.write_table(pq.read_table(path).drop_columns(new), path)
            for row, old in zip(row_file.read(path), before, strict=True):
                assert repr({**row, **dict.fromkeys(new)}) == repr({**old, **dict.fromkeys(new)})
                assert row["outputs"] == "{}"
                assert all(np.isnan(row[column]) for column in new[:-1])
        table, _ = collect(plan)
        assert set(table["status"]) == {"ok"}
        assert table["rmse"].dtype == np.float64
        assert set(table["outputs"]) == {"{}"}

    def test_the_content_hash_is_of_the_result_columns(self, plan: Plan) -> None:
        rows = [row_file.complete(p, ok(p), SURROUNDINGS) for p in plan.planned]
        reference = row_file.content_hash(rows)
        assert row_file.content_hash(rows[::-1]) == reference
        measured = {"started": 2.0, "seconds": 9.0, "host": "x", "shared": True}
        assert row_file.content_hash([{**rows[0], **measured}, *rows[1:]]) == reference
        for column in ("accuracy", "status", "traces", "digest"):
            assert row_file.content_hash([{**rows[0], column: "other"}, *rows[1:]]) != reference

    def test_measurements_are_no_results(self) -> None:
        assert not set(row_file.RESULT) & set(row_file.MEASUREMENTS)
        expected = {"started", "seconds", "shared", "peak_memory_mb", "host", "versions", "commit"}
        assert set(row_file.MEASUREMENTS) == expected
