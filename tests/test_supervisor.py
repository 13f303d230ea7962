"""A job trains, kills on time and always leaves complete files; nothing outlives the one that started it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from project import BACKPROP, BIN, MH, Project, kill_all, results_of, wait_until

from spikebench import rows as row_file
from spikebench import supervisor
from spikebench.config import Config
from spikebench.paths import replacing
from spikebench.supervisor import run_job
from spikebench.sweep import Cell, Job

JOB = "chip_in_the_loop.toy.00"
LIMITS = {"cell_seconds": 4, "shard_seconds": 5}
#: What the toy does, by its setting; where only the guilty cell (severity 1) does it, the other must come out well.
STEP = """
if behaviour == "raise" and guilty.any():
    raise RuntimeError("the synapse\\nis gone")
if behaviour == "raise always":
    raise ValueError("nothing works")
if behaviour == "sleep" and guilty.any():
    time.sleep(3600)
if behaviour == "die" and guilty.any():
    os.kill(os.getpid(), 9)
if behaviour == "nan":
    state = State(torch.where(guilty[:, None], torch.nan, state.weights))
if behaviour == "diverge" and guilty.any():
    raise Diverged("the loss is above 1e30")
if behaviour == "unavailable":
    raise Unavailable("toy cannot do that")
if behaviour == "chatter":
    print('{"rows": []}', flush=True)
    os.write(1, b'{"error": "not an answer"}\\n')
    sys.stdout.write("no newline")
    sys.stdout.flush()
if behaviour in ("half an answer", "garbled answer") and guilty.any():
    pipes = [fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")]
    for fd in pipes:
        if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
            os.write(fd, b'{"rows": [{"status"')
    if behaviour == "half an answer":
        os._exit(4)
"""
BEHAVIOURS = [
    "", "raise", "raise always", "sleep", "die", "nan", "diverge", "unavailable", "chatter", "half an answer",
    "garbled answer", "end",
]  # fmt: skip


#: Those that spare no cell.
ALL_FAIL = ("raise always", "unavailable")


def arm(behaviour: str) -> dict[str, Any]:
    return {"method": "toy", "mode": "in-the-loop", "settings": {"behaviour": behaviour}}


def asked(worker: supervisor._Worker, project: Project, cell: Cell, settings: dict[str, Any]) -> str:
    """The status of a cell that a worker was handed, on chips without faults."""
    request = {"cells": [asdict(cell)], "settings": settings, "data": {}, "faults": {cell.fault: {}}}
    status: str = worker.ask(request | {"root": str(project.root)}, 60, lambda share: None)[0]["status"]
    return status


def make(root: Path, behaviours: list[str], step: str = STEP, **config: Any) -> Project:
    """A project with one job: a shard of two cells (severities 0 and 1) for each behaviour."""
    project = Project.create(root)
    project.toy(step=step)
    project.experiment(arms=[arm(behaviour) for behaviour in behaviours])
    project.change("config/presets/tiny.yaml", repetitions=1)
    project.change("config/config.yaml", limits=LIMITS, **config)
    return project


def job_of(project: Project, **overrides: Any) -> tuple[Job, Config]:
    plan = project.plan(**overrides)
    return plan.jobs[JOB], plan.config


def run(project: Project, **overrides: Any) -> dict[str, Any]:
    """Run the job in this process; its manifest."""
    run_job(*job_of(project, **overrides), log=project.root / "job.log")
    manifest: dict[str, Any] = json.loads(project.results.job(JOB).read_text())
    return manifest


def by_behaviour(project: Project) -> dict[tuple[str, float], Any]:
    """Rows by what the toy was told to do and severity."""
    table = project.shard_rows()
    keys = [json.loads(settings)["behaviour"] for settings in table["settings"]]
    return {(b, row.severity): row for b, row in zip(keys, table.itertuples(), strict=True)}


class TestFailuresAreRows:
    """One job in which nearly everything that can go wrong does."""

    @pytest.fixture(scope="class")
    def project(self, compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
        project = make(tmp_path_factory.mktemp("failures") / "project", BEHAVIOURS)
        run(project)
        return project

    @pytest.fixture(scope="class")
    def rows(self, project: Project) -> dict[tuple[str, float], Any]:
        return by_behaviour(project)

    def test_every_cell_has_a_row_with_all_its_axes(self, project: Project) -> None:
        table, plan = project.shard_rows(), project.plan()
        assert set(table["cell"]) == {p.cell.id for p in plan.planned}
        assert len(table) == 2 * len(BEHAVIOURS)
        assert list(table.columns) == [*row_file.RESULT, *row_file.MEASUREMENTS]
        assert not table[[*row_file.AXES, *row_file.OUTCOME, "digest"]].isna().any(axis=None)
        assert set(table["status"]) == {"ok", "failed", "timed-out", "diverged", "unavailable"}

    def test_metrics_are_there_exactly_where_it_went_well(self, project: Project) -> None:
        table = project.shard_rows()
        well = table["status"] == "ok"
        # For values, sequences, methods with a score, and settings that ask for the best epoch.
        others = {"rmse", "bit_error", "log_likelihood", "best_accuracy"}
        measured = [name for name in row_file.METRICS if name not in others]
        assert table.loc[well, measured].notna().all(axis=None)
        assert table.loc[~well, ["accuracy", "nll", "brier", "spikes", "energy_pj"]].isna().all(axis=None)
        assert (table.loc[well, "error"] == "").all()
        assert (table.loc[~well, "error"] != "").all()

    @pytest.mark.parametrize("behaviour", sorted({*BEHAVIOURS} - {"", "end", "chatter", *ALL_FAIL}))
    def test_only_the_guilty_cell_fails(self, rows: dict[tuple[str, float], Any], behaviour: str) -> None:
        assert rows[behaviour, 0.0].status == "ok"
        assert rows[behaviour, 1.0].status != "ok"
        # An empty behaviour trains the same: the settings are no part of the training seed.
        assert rows[behaviour, 0.0].nll == rows["", 0.0].nll, "and its neighbour has the row it always has"

    @pytest.mark.parametrize(
        ("behaviour", "status", "error"),
        [
            ("raise", "failed", "RuntimeError: the synapse\nis gone"),
            ("raise always", "failed", "ValueError: nothing works"),
            ("sleep", "timed-out", "killed after 4 s (limits.cell_seconds of config/config.yaml)"),
            ("die", "failed", "the worker process died (signal SIGKILL); out of memory is a common cause"),
            ("half an answer", "failed", "the worker process died (exit status 4)"),
            ("garbled answer", "failed", "the worker's answer could not be read"),
            ("nan", "diverged", "the trained state is not finite"),
            ("diverge", "diverged", "the loss is above 1e30"),
            ("unavailable", "unavailable", "toy cannot do that"),
        ],
    )
    def test_the_row_says_why(
        self, rows: dict[tuple[str, float], Any], behaviour: str, status: str, error: str
    ) -> None:
        row = rows[behaviour, 1.0]
        assert row.status == status
        assert row.error.startswith(error)

    def test_a_time_out_is_the_cells_own_time(self, rows: dict[tuple[str, float], Any]) -> None:
        assert 4.0 <= rows["sleep", 1.0].seconds < 8.0
        assert rows["sleep", 0.0].seconds < 4.0

    def test_what_a_method_prints_goes_to_the_log(self, project: Project, rows: dict[tuple[str, float], Any]) -> None:
        log = (project.root / "job.log").read_text()
        assert rows["chatter", 0.0].status == rows["chatter", 1.0].status == "ok"
        for text in ('{"rows": []}', '{"error": "not an answer"}', "no newline", "RuntimeError: the synapse"):
            assert text in log
        assert "Traceback" in log, "for the author of the method"
        assert f"[{JOB}] 24 of 24 cells (0 from before; " in log.splitlines()[-1]
        assert "s left" in log.splitlines()[-1]

    def test_shards_before_and_after_are_whole(self, rows: dict[tuple[str, float], Any]) -> None:
        for severity in (0.0, 1.0):
            assert rows["", severity].status == rows["end", severity].status == "ok"
            assert rows["", severity].nll == rows["end", severity].nll
            assert rows["", severity].shared, "two cells were trained as one program"
        assert not rows["raise", 0.0].shared

    def test_the_manifest_counts_them(self, project: Project) -> None:
        manifest = json.loads(project.results.job(JOB).read_text())
        job, _ = job_of(project)
        assert manifest["digest"] == job.digest
        assert set(manifest["shards"]) == set(job.shards)
        assert manifest["statuses"] == project.shard_rows()["status"].value_counts().to_dict()
        assert manifest["statuses"] == {"ok": 13, "failed": 6, "timed-out": 1, "diverged": 2, "unavailable": 2}
        rows = row_file.read(project.results.shard("chip_in_the_loop", next(iter(job.shards))))
        assert manifest["shards"][next(iter(job.shards))] == row_file.content_hash(rows)

    def test_no_worker_is_left(self) -> None:
        command = ["-m", "spikebench.worker"]
        assert not [p for p in psutil.Process().children(recursive=True) if p.cmdline()[1:] == command]


FINISHED = ["", "nan", "truncated", "empty", "missing", "other bytes", "other table"]


@pytest.fixture(scope="module")
def trained(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose job has ended; one of its cells diverged."""
    project = make(tmp_path_factory.mktemp("finished") / "project", FINISHED)
    run(project)
    return project


class TestFinishedShards:
    @pytest.fixture
    def project(self, trained: Project, tmp_path: Path) -> Project:
        return trained.copy(tmp_path / "project")

    @pytest.fixture
    def no_worker(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Starting a worker is an error."""
        monkeypatch.setattr(supervisor._Worker, "_start", lambda self: pytest.fail("a worker was started"))
        yield

    @pytest.mark.usefixtures("no_worker")
    def test_they_are_skipped_and_not_written_again(self, project: Project) -> None:
        times, manifest = project.times("shards"), project.results.job(JOB).read_text()
        project.results.job(JOB).unlink()
        run(project)
        assert project.times("shards") == times
        assert project.results.job(JOB).read_text() == manifest
        assert f"[{JOB}] 14 of 14 cells (14 from before; none trained yet)" in (project.root / "job.log").read_text()

    @pytest.mark.usefixtures("no_worker")
    def test_a_renamed_sweep_is_written_without_training(self, project: Project) -> None:
        project.experiment(arms=[arm(b) for b in FINISHED], sweeps=[{"name": "renamed"}])
        before = project.shard_rows()
        run(project)
        after = project.shard_rows()
        assert set(after["sweeps"]) == {"renamed"}
        pd.testing.assert_frame_equal(before.drop(columns="sweeps"), after.drop(columns="sweeps"))

    def test_damaged_shards_run_again_and_no_others(self, project: Project) -> None:
        before, times = project.shard_rows(), project.times("shards")
        job, _ = job_of(project)
        files = {d: project.results.shard("chip_in_the_loop", s) for d, s in zip(FINISHED, job.shards, strict=True)}
        content = files["truncated"].read_bytes()
        files["truncated"].write_bytes(content[: len(content) // 2])
        files["empty"].write_bytes(b"")
        files["missing"].unlink()
        files["other bytes"].write_bytes(bytes(range(256)) * 40)
        pd.DataFrame({"cell": ["x"], "accuracy": [1.0]}).to_parquet(files["other table"])
        run(project)
        assert results_of(project.shard_rows()) == results_of(before)
        rewritten = {name for name, time in project.times("shards").items() if time != times[name]}
        assert rewritten == {files[damage].name for damage in FINISHED[2:]}
        assert "14 of 14 cells (4 from before; 10 ok)" in (project.root / "job.log").read_text()

    def test_only_a_stale_cell_of_a_shard_runs_again(self, project: Project) -> None:
        """Cells that came from an older version of the code, beside fresh ones."""
        job, _ = job_of(project)
        path = project.results.shard("chip_in_the_loop", next(iter(job.shards)))
        rows = row_file.read(path)
        old = next(row for row in rows if row["severity"] == 1.0)
        marked = [
            {**row, "host": "before", "accuracy": 0.123, "digest": "old" if row is old else row["digest"]}
            for row in rows
        ]
        row_file.write(marked, path)
        run(project)
        after = {row["severity"]: row for row in row_file.read(path)}
        assert (after[0.0]["host"], after[0.0]["accuracy"]) == ("before", 0.123)
        assert after[1.0]["host"] != "before"
        assert after[1.0]["accuracy"] == old["accuracy"]

    def test_a_cell_that_is_no_longer_wanted_leaves_the_file(self, project: Project) -> None:
        project.change("config/presets/tiny.yaml", keep={"severity": [0.0]})
        run(project)
        assert set(project.shard_rows()["severity"]) == {0.0}

    def test_retried_statuses_run_again_alone(self, project: Project) -> None:
        times = project.times("shards")
        manifest = run(project, retry="failed,diverged")
        assert manifest["statuses"] == {"ok": 13, "diverged": 1}
        job, _ = job_of(project)
        assert {n for n, t in project.times("shards").items() if t != times[n]} == {f"{list(job.shards)[1]}.parquet"}


def test_the_row_is_the_same_from_the_shard_and_alone(trained: Project, tmp_path: Path) -> None:
    """A shard that takes too long as a whole: its cells, run again singly, give the rows of a shard that does not."""
    slow = make(tmp_path / "slow", [""], step="time.sleep(3600 if len(guilty) > 1 else 0)")
    slow.change("config/config.yaml", limits={**LIMITS, "shard_seconds": 1})
    run(slow)
    assert "took too long; its 2 cells run again singly" in (slow.root / "job.log").read_text()
    alone, together = (by_behaviour(project) for project in (slow, trained))
    for severity in (0.0, 1.0):
        a, b = alone["", severity], together["", severity]
        assert a.status == "ok"
        for column in row_file.RESULT:
            if column != "digest":
                assert repr(getattr(a, column)) == repr(getattr(b, column)), column  # NaN is NaN here


def test_a_worker_that_cannot_start_fails_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the installation is broken: no row is missing, the log says why."""
    project = make(tmp_path / "project", [""])
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho torch is broken >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(supervisor.sys, "executable", str(broken))
    assert run(project)["statuses"] == {"failed": 2}
    assert set(project.shard_rows()["error"]) == {
        "the worker process died (exit status 7); out of memory is a common cause"
    }
    assert "torch is broken" in (project.root / "job.log").read_text()


def test_a_worker_imports_no_plotting_or_tracking(tmp_path: Path) -> None:
    """They cost seconds at each start. Real methods, in a real worker; the toy tells what is loaded."""
    modules = tmp_path / "modules.json"
    step = f'Path({str(modules)!r}).write_text(__import__("json").dumps(sorted(sys.modules)))'
    project = make(tmp_path / "project", [""], step=step)
    project.experiment(arms=[MH, BACKPROP])
    plan = project.plan()
    cells = [p.cell for p in plan.planned if p.cell.severity == 0.0]
    worker = supervisor._Worker(sys.stderr)
    for cell in [*cells, replace(cells[0], method="toy")]:
        assert asked(worker, project, cell, plan.config.method_settings(cell.method, {})) == "ok"
    worker.stop()
    loaded = set(json.loads(modules.read_text()))
    assert "torch" in loaded
    heavy = {
        "mlflow",
        "seaborn",
        "torchmetrics",
        "matplotlib",
        "pandas",
        "statsmodels",
        "sklearn",
        "snakemake",
        "tonic",
    }
    assert not heavy & loaded


def test_matrix_products_of_a_worker_take_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts it: with more, BLAS sums in another order, and inside the kernels' own threads it may hang."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "2")
    told = tmp_path / "told.json"
    step = (
        '__import__("scipy.linalg.cython_blas"); info = __import__("threadpoolctl").threadpool_info()\n'
        f'Path({str(told)!r}).write_text(__import__("json").dumps(info))'
    )
    project = make(tmp_path / "project", [""], step=step)
    cell = project.plan().planned[0].cell
    worker = supervisor._Worker(sys.stderr)
    assert asked(worker, project, cell, json.loads(cell.settings)) == "ok"
    worker.stop()
    products = [library for library in json.loads(told.read_text()) if library["user_api"] == "blas"]
    assert products
    assert {library["num_threads"] for library in products if library["internal_api"] == "openblas"} <= {1}


class TestDying:
    """``kill -9`` of whoever started a process ends that process too."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Iterator[Project]:
        project = make(
            tmp_path / "project", [""], step='Path("worker.pid").write_text(str(os.getpid())); time.sleep(3600)'
        )
        project.change("config/config.yaml", limits={"cell_seconds": 600, "shard_seconds": 600})
        yield project
        kill_all(project.processes())

    def worker(self, project: Project) -> psutil.Process:
        """The worker, once it is at work."""
        file = project.root / "worker.pid"
        wait_until(lambda: file.exists() and file.read_text())
        return psutil.Process(int(file.read_text()))

    def test_the_worker_dies_with_the_supervisor(self, project: Project) -> None:
        running = project.start("spikebench", "train", "--job", JOB)
        worker = self.worker(project)
        assert worker.ppid() == running.process.pid
        running.process.kill()
        assert running.process.wait() == -signal.SIGKILL
        psutil.wait_procs([worker], timeout=10)
        assert not worker.is_running()

    def test_both_die_with_the_supervisors_parent(self, project: Project) -> None:
        command = [str(BIN / "spikebench"), "train", "--job", JOB]
        script = f"import subprocess; subprocess.run({command!r})"
        parent = subprocess.Popen([sys.executable, "-c", script], cwd=project.root)
        worker = self.worker(project)
        boss = psutil.Process(worker.ppid())
        assert boss.ppid() == parent.pid
        parent.kill()
        parent.wait()
        psutil.wait_procs([worker, boss], timeout=10)
        assert not project.processes()

    def test_a_supervisor_whose_parent_died_before_it_could_look_ends_at_once(self, project: Project) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        done = project.run("spikebench", "train", "--job", JOB, "--parent", str(gone.pid))
        assert done.status == 1
        assert not project.processes()
        assert not project.results.job(JOB).exists()


class TestCommand:
    def test_a_job_of_failures_ends_with_0(self, tmp_path: Path) -> None:
        project = make(tmp_path / "project", ["raise always"])
        done = project.run("spikebench", "train", "--job", JOB)
        assert done.status == 0, done.said
        assert "2 of 2 cells (0 from before; 2 failed)" in done.said
        assert set(project.shard_rows()["status"]) == {"failed"}

    def test_an_unknown_job_is_one_sentence(self, project: Project) -> None:
        done = project.run("spikebench", "train", "--job", "nothing.00")
        assert done.status == 1
        assert done.said.splitlines() == done.sentences
        assert "--job: found 'nothing.00', allowed: chip_in_the_loop.metropolis_hastings.00" in done.sentences[0]

    def test_a_plan_that_changed_under_way_is_refused(self, project: Project) -> None:
        done = project.run("spikebench", "train", "--job", "chip_in_the_loop.backprop.00", "--digest", "0" * 16)
        assert done.status == 1
        assert "changed while the workflow was running: start `snakemake` again" in done.sentences[0]
        assert not project.results.folder.exists()


class TestReplacing:
    def test_the_file_appears_whole_with_ordinary_permissions(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "file.txt"
        with replacing(path) as temporary:
            temporary.write_text("done")
            assert not path.exists()
            assert temporary.parent == path.parent, "moving between file systems would not be atomic"
        assert path.read_text() == "done"
        assert os.listdir(path.parent) == ["file.txt"]
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        path.write_text("old")
        with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["file.txt"]

    def test_a_reader_of_the_old_file_goes_on_reading_the_old_file(self, tmp_path: Path) -> None:
        """The new file takes the name; the old one's bytes are not touched, so that nobody ever sees a mixture."""
        path = tmp_path / "file.txt"
        path.write_text("old" * 1000)
        with path.open() as reader:
            assert reader.read(3) == "old"
            with replacing(path) as temporary:
                temporary.write_text("new")
            assert reader.read() == "old" * 999
        assert path.read_text() == "new"

    def test_two_writers_never_share_a_temporary_name(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        with replacing(path) as first, replacing(path) as second:
            assert first != second
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "first", "the outer block ends last"

    def test_a_killed_writer_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "table.parquet"
        script = (
            "import os, sys; from pathlib import Path; from spikebench.paths import replacing\n"
            "with replacing(Path(sys.argv[1])) as temporary:\n"
            "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
        )
        pd.DataFrame({"x": [1]}).to_parquet(path)
        assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL
        assert pq.read_table(path).to_pydict() == {"x": [1]}
        assert all(name.startswith(".table.parquet.") for name in os.listdir(tmp_path) if name != path.name)


def test_progress_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a clock that is turned by hand: a line at most every ten seconds, with rate and time left."""
    from spikebench import progress

    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with (tmp_path / "log").open("w+") as log:
        bar = progress.Progress("job", 100, log)
        bar.skip(20)
        for _ in range(30):
            now[0] += 1.0
            bar.done("ok")
        bar.show(5.0)
        bar.close()
        log.seek(0)
        lines = log.read().splitlines()
    assert lines == [
        "[job] 31 of 100 cells (20 from before; 11 ok), 1.0 cells/s, 69 s left",
        "[job] 42 of 100 cells (20 from before; 22 ok), 1.0 cells/s, 58 s left",
        "[job] 50 of 100 cells (20 from before; 30 ok), 1.0 cells/s, 50 s left",
    ]
    assert time.monotonic() == now[0]
