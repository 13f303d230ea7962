"""MLflow is filled from rows; what is asserted here is read back through MLflow's public client."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from tracked import REPORTED, Place, add_figures, make_row, make_rows

from spikebench import claims, cli, tracking
from spikebench.errors import UserError
from spikebench.mlflow_ui import ENVIRONMENT
from spikebench.tracking import Summary

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database; creating one takes seconds."""
    os.environ.update(ENVIRONMENT)
    place = Place(tmp_path_factory.mktemp("template"))
    assert place.synchronise(make_rows().iloc[:0]) == Summary(0, 0, 0, 0)
    return place.database


@pytest.fixture
def empty(template: Path, tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    shutil.copy(template, place.database)
    yield place
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()


@pytest.fixture
def place(empty: Place) -> Place:
    """The rows of ``make_rows``, written: 13 cells and 3 parents."""
    assert empty.synchronise() == Summary(created=16, replaced=0, deleted=0, unchanged=0)
    return empty


def test_an_experiment_holds_a_parent_for_each_arm_and_a_child_for_each_cell(place: Place) -> None:
    assert set(place.experiments()) == {"chip_in_the_loop [default]", "grand_comparison [default]"}
    runs = place.runs()
    parents = {"metropolis_hastings in-the-loop, breast_cancer", "backprop off-chip, breast_cancer"}
    assert set(runs) == parents | set(place.rows["cell"]) - {"other"}
    newest = place.client.search_runs([runs["me-0.0-0"].info.experiment_id], order_by=["attributes.start_time DESC"])
    assert {run.info.run_name for run in newest[:2]} == parents  # so they are on the first page of the web view
    for _, row in place.rows.iloc[:-1].iterrows():
        parent = runs[f"{row['method']} {row['mode']}, breast_cancer"]
        assert runs[row["cell"]].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert set(place.runs("grand_comparison [default]")) == {"metropolis_hastings in-the-loop, breast_cancer", "other"}


def test_a_cell_carries_its_row(empty: Place) -> None:
    row = make_row(
        "a",
        data_settings='{"encoding":"latency"}',
        settings='{"temperature":10.0}',
        severity=0.25,
        choice='{"step":{"size":0.05}}',
        diagnostics='{"ess":31.5,"r_hat":null}',
        estimates='{"best-sample":{"accuracy":0.75,"nll":0.5}}',
    )
    empty.synchronise(pd.DataFrame([row]))
    run = empty.runs()["a"]
    assert run.info.run_name == "metropolis_hastings in-the-loop: threshold+tau+gain 0.25, n=398, repetition 0"
    assert (run.info.status, run.info.end_time - run.info.start_time) == ("FINISHED", 1500)
    assert run.data.params == {
        **{"experiment": "chip_in_the_loop", "sweeps": "severity", "paper": "2402.06284", "preset": "default"},
        **{"dataset": "breast_cancer", "data_kind": "real", "method": "metropolis_hastings", "mode": "in-the-loop"},
        **{"fault": "threshold+tau+gain", "severity": "0.25", "training_size": "398", "repetition": "0"},
        **{"data.encoding": "latency", "network.hidden": "[8]", "settings.temperature": "10.0"},
        **{"choice.step.size": "0.05"},
    }
    assert run.data.metrics == {
        **{"accuracy": 0.9, **dict.fromkeys(REPORTED, 0.25), "seconds": 1.5},
        **{"diagnostics/ess": 31.5, "accuracy.best-sample": 0.75, "nll.best-sample": 0.5},
    }
    tags = run.data.tags
    assert {
        "cell": "a",
        "kind": "cell",
        "status": "ok",
        "arm": "metropolis_hastings/in-the-loop",
    }.items() <= tags.items()
    assert {"paper": "2402.06284", "dataset": "breast_cancer", "fault": "threshold+tau+gain"}.items() <= tags.items()
    assert {
        "method": "metropolis_hastings",
        "mode": "in-the-loop",
        "shared": "true",
        "host": "chip",
    }.items() <= tags.items()
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert len(tags["content"]) == 64
    assert "error" not in tags


def test_runs_start_when_training_began(empty: Place) -> None:
    noon = 1_700_000_000
    cells = [("b", noon + 60.0, "in-the-loop"), ("a", noon + 0.25, "in-the-loop"), ("c", noon + 90.0, "oracle")]
    lost = [make_row(c, started=math.nan, mode=mode) for c, mode in (("d", "in-the-loop"), ("e", "off-chip"))]
    rows = pd.DataFrame([*(make_row(c, started=at, mode=mode) for c, at, mode in cells), *lost])
    add_figures(empty, "accuracy")
    empty.synchronise(rows)
    runs = empty.runs()
    fixed = 946_684_800_000  # 2000-01-01
    arm = "metropolis_hastings {}, breast_cancer"
    assert {name: run.info.start_time for name, run in runs.items()} == {
        **{"a": 1000 * noon + 250, "b": 1000 * (noon + 60), "c": 1000 * (noon + 90), "d": fixed, "e": fixed},
        **{arm.format("in-the-loop"): 1000 * (noon + 60) + 1, arm.format("oracle"): 1000 * (noon + 90) + 1},
        **{arm.format("off-chip"): fixed + 1, "figures": 1000 * (noon + 90) + 1},
    }
    assert runs["a"].info.end_time == 1000 * noon + 1750
    assert [m.timestamp for m in empty.client.get_metric_history(runs["a"].info.run_id, "nll")] == [1000 * noon + 250]
    assert not any("started" in {**run.data.metrics, **run.data.tags} for run in runs.values())
    assert empty.synchronise(rows) == Summary(created=0, replaced=0, deleted=0, unchanged=9)
    rows.loc[2, "started"] += 1  # the latest: its parent and the figures follow
    assert empty.synchronise(rows) == Summary(created=0, replaced=3, deleted=0, unchanged=6)


def test_cells_that_met_the_same_chip_and_split_share_a_pair(place: Place) -> None:
    runs = place.runs()
    pair = {cell: runs[cell].data.tags["pair"] for cell in place.rows["cell"] if cell != "other"}
    assert pair["me-0.5-1"] == pair["ba-0.5-1"]
    assert len(set(pair.values())) == 6


def test_repetitions_of_crossed_factors_are_pairs_of_their_own(empty: Place) -> None:
    crossed = '{"chip":3,"split":3}'
    empty.synchronise(pd.DataFrame([make_row("a", crossed="{}"), make_row("b", crossed=crossed)]))
    plain, other = (empty.runs()[cell].data for cell in "ab")
    assert plain.tags["pair"] != other.tags["pair"]
    assert (other.params["crossed.chip"], other.params["crossed.split"]) == ("3", "3")
    assert not any("crossed" in {**run.tags, **run.metrics} for run in (plain, other))


def make_claim_rows() -> pd.DataFrame:
    """Cells like ``mh-in-the-loop-0.5-398``: two methods, two modes, severities 0, 0.5 and 1, 20 and 398 examples."""
    points = product(("metropolis_hastings", "backprop"), ("in-the-loop", "off-chip"), (0.0, 0.5, 1.0), (20, 398))
    return pd.DataFrame(
        make_row(
            f"{'mh' if method[0] == 'm' else 'bp'}-{mode}-{severity}-{size}",
            **{"method": method, "mode": mode, "severity": severity, "training_size": size, "fault": "paper-full"},
        )
        for method, mode, severity, size in points
    )


def test_cells_name_the_claims_whose_primary_test_compares_them(empty: Place) -> None:
    empty.claims = claims.load(ROOT)
    m1 = next(claim for claim in empty.claims if claim["id"] == "M1")
    every = {"select": {**m1["test"]["select"], "training_size": 398, "severity": 0.5}}
    empty.claims = [*empty.claims, {**m1, "id": "X", "test": {**m1["test"], **every}}]
    rows = make_claim_rows()
    rows.loc[rows["cell"] == "bp-in-the-loop-1.0-398", ["status", "error"]] = "failed", "lost"
    empty.synchronise(rows)
    tags = {name: run.data.tags.get("claim") for name, run in empty.runs().items()}
    assert {name: tag for name, tag in tags.items() if tag} == {
        **dict.fromkeys(("mh-in-the-loop-1.0-398", "bp-in-the-loop-1.0-398"), "M1"),  # the failed one too
        **dict.fromkeys(("mh-in-the-loop-0.5-20", "bp-in-the-loop-0.5-20"), "M2"),  # runs over the training size
        **dict.fromkeys(("mh-in-the-loop-0.5-398", "bp-in-the-loop-0.5-398"), "M2;X"),
    }  # not at severity 0, where only the floor is
    found = empty.client.search_runs(
        [empty.experiments()["chip_in_the_loop [default]"].experiment_id],
        "tags.claim LIKE '%M2%' and params.severity = '0.5' and params.training_size = '398'",
        order_by=["metrics.accuracy DESC"],
    )
    assert sorted(run.data.tags["cell"] for run in found) == ["bp-in-the-loop-0.5-398", "mh-in-the-loop-0.5-398"]

    empty.claims = [m1]
    assert empty.synchronise(rows) == Summary(created=0, replaced=4, deleted=0, unchanged=24)  # those of M2 alone


def test_the_command_names_the_claims(empty: Place) -> None:
    shutil.copytree(ROOT / "config", empty.folder / "config")
    results = empty.folder / "results"
    (results / "default").mkdir(parents=True)
    shutil.move(empty.database, results / "mlflow.db")
    make_claim_rows().to_parquet(results / "default" / "rows.parquet")
    empty.traces.to_parquet(results / "default" / "traces.parquet")
    cli._track(SimpleNamespace(name="default", root=empty.folder), argparse.Namespace())  # type: ignore[arg-type]
    tags = [run.data.tags.get("claim") for run in Place(results).runs().values()]
    assert (tags.count("M1"), tags.count("M2")) == (2, 4)


def test_a_claim_that_cannot_be_tested_uses_no_cell(empty: Place) -> None:
    empty.claims = claims.load(ROOT)
    rows = make_claim_rows()
    empty.synchronise(rows[rows["method"] != "backprop"])
    assert not any("claim" in run.data.tags for run in empty.runs().values())


def test_cells_that_did_not_finish_say_why(empty: Place) -> None:
    nothing = {"accuracy": math.nan, **dict.fromkeys(REPORTED, math.nan), "seconds": math.nan}
    expected = {
        **{"failed": "FAILED", "diverged": "FAILED", "unavailable": "FAILED"},
        **{"timed-out": "KILLED", "missing": "SCHEDULED"},
    }
    empty.synchronise(pd.DataFrame([make_row(s, status=s, error=f"was {s}", **nothing) for s in expected]))
    runs = empty.runs()
    for status, state in expected.items():
        run = runs[status]
        assert (run.info.status, run.data.tags["status"], run.data.tags["error"]) == (state, status, f"was {status}")
        assert run.data.metrics == {}
        assert run.info.end_time == run.info.start_time


def test_traces_are_stepped_metrics_by_chain(place: Place) -> None:
    run = place.runs()["me-0.0-0"]
    assert place.history(run, "log_posterior.chain0") == [(0, -10.0), (10, 0.0), (20, 10.0)]
    assert place.history(run, "log_posterior.chain1") == [(0, -20.0), (10, -10.0), (20, 0.0)]
    assert run.data.metrics["log_posterior.chain1"] == 0.0  # the newest


def test_a_trace_may_leave_the_finite_numbers(empty: Place) -> None:
    points = [("me-0.0-0", "train_loss", 0, step, value) for step, value in enumerate((1.0, math.inf, math.nan))]
    empty.traces = pd.DataFrame(points, columns=["cell", "name", "chain", "step", "value"])
    empty.synchronise()
    (_, one), (_, infinite), (_, nothing) = empty.history(empty.runs()["me-0.0-0"], "train_loss.chain0")
    assert (one, infinite) == (1.0, sys.float_info.max)  # as MLflow's own client writes it
    assert math.isnan(nothing)


def test_the_parent_shows_means_against_severity(place: Place) -> None:
    runs = place.runs()
    mh, backprop = (runs[f"{arm}, breast_cancer"] for arm in ("metropolis_hastings in-the-loop", "backprop off-chip"))
    curve = "accuracy/threshold-tau-gain.n398"  # MLflow allows no plus in a name
    assert dict(place.history(mh, curve)) == pytest.approx({0: 0.9, 50: 0.71, 100: 0.51})
    assert dict(place.history(backprop, curve)) == pytest.approx({0: 0.81, 50: 0.61, 100: 0.41})
    assert place.history(mh, "nll/threshold-tau-gain.n398") == [(0, 0.25), (50, 0.25), (100, 0.25)]
    assert place.history(mh, "cells/threshold-tau-gain.n398") == [(0, 1.0), (50, 2.0), (100, 2.0)]
    counts = {name: value for name, value in mh.data.metrics.items() if "/" not in name}
    assert counts == {"cells": 6.0, "cells_ok": 5.0, "cells_failed": 1.0}


def test_cells_of_different_settings_are_not_averaged(empty: Place) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"data_settings": '{"encoding":"rate"}'},
        {"settings": '{"temperature":0.1}'},
        {"network": '{"hidden":[16]}'},
        {"training_size": 20},
    ]
    rows = [
        make_row(f"{i}{s}", severity=s, accuracy=i / 10, **kind) for i, kind in enumerate(kinds) for s in (0.0, 1.0)
    ]
    rows.append(make_row("alone", severity=0.5, fault="threshold"))  # one severity makes no curve
    empty.synchronise(pd.DataFrame(rows))
    run = empty.runs()["metropolis_hastings in-the-loop, breast_cancer"]
    start = "accuracy/threshold-tau-gain"
    assert {name: value for name, value in run.data.metrics.items() if name.startswith("accuracy/")} == {
        f"{start}.n398.hidden--8-": 0.0,
        f"{start}.n398.encoding-rate.hidden--8-": 0.1,
        f"{start}.n398.temperature-0.1.hidden--8-": 0.2,
        f"{start}.n398.hidden--16-": 0.3,
        f"{start}.n20.hidden--8-": 0.4,
    }


def test_running_again_adds_nothing(place: Place) -> None:
    before = {name: run.info.run_id for name, run in place.runs().items()}
    assert place.synchronise() == Summary(created=0, replaced=0, deleted=0, unchanged=16)
    assert {name: run.info.run_id for name, run in place.runs().items()} == before


def test_a_changed_row_is_replaced_and_its_parent_follows(place: Place) -> None:
    place.rows.loc[0, "host"] = "another"
    assert place.synchronise() == Summary(created=0, replaced=1, deleted=0, unchanged=15)
    assert place.runs()["me-0.0-0"].data.tags["host"] == "another"

    place.rows.loc[0, "accuracy"] = 0.5
    assert place.synchronise() == Summary(created=0, replaced=2, deleted=0, unchanged=14)
    runs = place.runs()
    assert runs["me-0.0-0"].data.metrics["accuracy"] == 0.5
    parent = runs["metropolis_hastings in-the-loop, breast_cancer"]
    assert place.history(parent, "accuracy/threshold-tau-gain.n398")[0] == (0, 0.5)

    place.traces.loc[0, "value"] = 7.0  # the point at step 20 of chain 0
    assert place.synchronise() == Summary(created=0, replaced=1, deleted=0, unchanged=15)
    assert place.history(place.runs()["me-0.0-0"], "log_posterior.chain0")[-1] == (20, 7.0)


def test_a_vanished_cell_is_deleted_for_good(place: Place) -> None:
    gone = place.runs()["ba-1.0-1"].info.run_id
    place.rows = place.rows[place.rows["cell"] != "ba-1.0-1"]
    assert place.synchronise() == Summary(created=0, replaced=1, deleted=1, unchanged=14)
    assert "ba-1.0-1" not in place.runs()
    with pytest.raises(Exception, match="not found"):
        place.client.get_run(gone)


def test_a_vanished_experiment_is_deleted_and_comes_back(place: Place) -> None:
    before = place.dump()
    assert place.synchronise(place.rows.iloc[:-1]) == Summary(created=0, replaced=0, deleted=2, unchanged=14)
    assert set(place.experiments()) == {"chip_in_the_loop [default]"}
    assert place.synchronise() == Summary(created=2, replaced=0, deleted=0, unchanged=14)
    assert place.dump() == before


def test_a_rebuilt_database_has_the_same_content(place: Place, template: Path) -> None:
    add_figures(place, "accuracy")
    place.synchronise()
    before = place.dump()
    shutil.rmtree(place.folder / "artifacts")
    place.client._tracking_client.store.engine.dispose()  # this process alone still has the deleted file open
    place.database.unlink()
    shutil.copy(template, place.database)
    assert place.synchronise().created == 17
    assert place.dump() == before


def test_the_database_is_a_function_of_the_rows_not_of_their_order(place: Place) -> None:
    place.traces = place.traces.sample(frac=1, random_state=1)
    assert place.synchronise(place.rows.sample(frac=1, random_state=1)) == Summary(0, 0, 0, unchanged=16)


def test_a_writer_killed_in_the_middle_leaves_nothing_half_written(place: Place) -> None:
    place.rows["host"] = "another"
    place.rows.to_parquet(place.folder / "rows.parquet")
    place.traces.to_parquet(place.folder / "traces.parquet")
    script = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from sqlalchemy import Connection
from spikebench.tracking import synchronise
execute = Connection.execute
def killed(self, statement, *arguments, **options):
    result = execute(self, statement, *arguments, **options)
    if str(statement).startswith("INSERT INTO metrics"):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Connection.execute = killed
folder = Path(sys.argv[1])
rows, traces = pd.read_parquet(folder / "rows.parquet"), pd.read_parquet(folder / "traces.parquet")
synchronise(rows, traces, None, folder / "mlflow.db", folder / "artifacts", "default")
"""
    before = place.dump()
    ended = subprocess.run([sys.executable, "-c", script, str(place.folder)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert place.dump() == before
    assert place.synchronise() == Summary(created=0, replaced=13, deleted=0, unchanged=3)
    assert {run.data.tags["host"] for run in place.runs().values() if "host" in run.data.tags} == {"another"}


def test_runs_left_by_others_are_healed_or_left_alone(place: Place) -> None:
    experiment = place.experiments()["chip_in_the_loop [default]"].experiment_id
    place.client.delete_run(place.runs()["ba-0.0-0"].info.run_id)
    half = place.client.create_run(experiment, tags={"kind": "cell", "cell": "me-0.0-0"})  # RUNNING, without content
    own = place.client.create_run(experiment, run_name="my own")
    assert place.synchronise() == Summary(created=0, replaced=1, deleted=1, unchanged=15)
    runs = place.runs()
    assert half.info.run_id not in {run.info.run_id for run in runs.values()}
    assert runs["my own"].info.run_id == own.info.run_id
    assert runs["ba-0.0-0"].info.status == "FINISHED"


def test_other_presets_stay_as_they_are(place: Place) -> None:
    before = place.dump()
    smoke = make_rows("smoke").iloc[:2]
    assert place.synchronise(smoke, "smoke") == Summary(created=3, replaced=0, deleted=0, unchanged=0)
    after = place.dump()
    assert set(after.pop("chip_in_the_loop [smoke]")) == {
        "metropolis_hastings in-the-loop, breast_cancer",
        *("me-0.0-0", "me-0.0-1"),
    }
    assert after == before
    assert place.synchronise(smoke.iloc[:0], "smoke") == Summary(created=0, replaced=0, deleted=3, unchanged=0)
    assert place.dump() == before


def test_figures_are_artifacts_of_one_run(place: Place) -> None:
    add_figures(place, "accuracy", "chains")
    assert place.synchronise() == Summary(created=1, replaced=0, deleted=0, unchanged=16)
    assert place.synchronise() == Summary(created=0, replaced=0, deleted=0, unchanged=17)
    run = place.runs()["figures"].info.run_id
    names = ["accuracy.pdf", "accuracy.png", "chains.pdf", "chains.png"]
    assert [artifact.path for artifact in place.client.list_artifacts(run)] == names
    downloaded = place.client.download_artifacts(run, "chains.png", str(place.folder))
    assert Path(downloaded).read_bytes() == b"\x89PNG chains"

    assert place.figures is not None
    (place.figures / "chains.png").write_bytes(b"\x89PNG redrawn")
    for old in place.figures.glob("accuracy.*"):
        old.unlink()
    assert place.synchronise() == Summary(created=0, replaced=1, deleted=0, unchanged=16)
    assert [artifact.path for artifact in place.client.list_artifacts(run)] == ["chains.pdf", "chains.png"]

    shutil.rmtree(place.folder / "artifacts")
    assert place.synchronise() == Summary(created=0, replaced=0, deleted=0, unchanged=17)
    assert [artifact.path for artifact in place.client.list_artifacts(run)] == ["chains.pdf", "chains.png"]

    place.figures = None
    assert place.synchronise() == Summary(created=0, replaced=0, deleted=1, unchanged=16)
    assert not list((place.folder / "artifacts").rglob("*.png"))


def test_artifacts_are_found_again_after_the_checkout_was_moved(place: Place, tmp_path_factory: Any) -> None:
    add_figures(place, "accuracy")
    place.synchronise()
    moved = Place(tmp_path_factory.mktemp("moved"), figures=place.figures)
    shutil.copy(place.database, moved.database)
    assert moved.synchronise() == Summary(created=0, replaced=17, deleted=0, unchanged=0)
    run = moved.runs()["figures"]
    assert run.info.artifact_uri.startswith(str(moved.folder))
    assert [artifact.path for artifact in moved.client.list_artifacts(run.info.run_id)] == [
        "accuracy.pdf",
        "accuracy.png",
    ]


def test_texts_longer_than_mlflow_allows_are_cut(empty: Place) -> None:
    empty.synchronise(
        pd.DataFrame([make_row("a", status="failed", error="x" * 9000, choice=f'{{"a":"{"y" * 7000}"}}')])
    )
    run = empty.runs()["a"]
    assert (len(run.data.tags["error"]), len(run.data.params["choice.a"])) == (8000, 6000)


def test_two_presets_may_write_a_new_database_at_once(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import pandas as pd
from spikebench.tracking import synchronise
folder, preset = Path(sys.argv[1]), sys.argv[2]
traces = pd.DataFrame(columns=["cell", "name", "chain", "step", "value"])
rows = pd.read_parquet(folder / f"{preset}.parquet")
print(synchronise(rows, traces, None, folder / "mlflow.db", folder / "artifacts", preset).created)
"""
    writers = []
    for preset in ("default", "smoke"):
        make_rows(preset).to_parquet(tmp_path / f"{preset}.parquet")
        command = [sys.executable, "-c", script, str(tmp_path), preset]
        writers.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert (writer.returncode, out, err) == (0, "16\n", "")
    assert len(Place(tmp_path).experiments()) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.assign(preset="smoke"), "found preset smoke, expected default alone"),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "rows: found cell me-0.0-0 twice"),
        (lambda rows: rows.assign(status="lost"), "found status 'lost', expected one of ok, failed"),
        (lambda rows: rows.assign(choice="[1"), r"column choice: found '\[1', expected a JSON object"),
        (lambda rows: rows.assign(diagnostics='{"ess":"many"}'), "found 'many' in diagnostics or estimates"),
    ],
)
def test_wrong_rows_change_nothing(place: Place, change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    before = place.runs().keys()
    with pytest.raises(UserError, match=message):
        place.synchronise(change(place.rows))
    assert place.runs().keys() == before


def test_a_figure_that_names_no_experiment_is_refused(place: Place) -> None:
    add_figures(place, "accuracy")
    assert place.figures is not None
    (place.figures / "accuracy.json").write_text("{}")
    with pytest.raises(UserError, match=r"accuracy.json: found experiment None, expected a name"):
        place.synchronise()


def test_a_database_that_mlflow_cannot_open_is_refused_with_the_way_out(place: Place) -> None:
    with sqlite3.connect(place.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ff01dab7ff01'")
    connection.close()
    with pytest.raises(UserError, match=r"out-of-date database schema.*delete it and run `make` again"):
        place.synchronise()
    place.database.write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"file is not a database.*delete it and run `make` again"):
        place.synchronise()


def test_importing_the_tracker_does_not_import_mlflow() -> None:
    script = f"import sys, {tracking.__name__}; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
