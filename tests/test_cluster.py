"""What is asked of a cluster: how it tells what became of jobs, and what jobs ask it for."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import CHECKOUT, MH, Project

from spikebench import cluster, config, resources, supervisor
from spikebench import rows as row_file
from spikebench.errors import UserError
from spikebench.resources import Resources, resources_of
from spikebench.supervisor import GaveUp, Tries, run_job
from spikebench.sweep import Cell, make_plan


@dataclass
class Executor:
    """The settings of Slurm's executor that matter."""

    status_command: str | None = None
    init_seconds_before_status_checks: int = 40


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole path; ``pretend`` puts commands of Slurm there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def pretend(folder: Path, name: str, says: str, status: int = 0) -> None:
    command = folder / name
    command.write_text(f"#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <<'END'\n{says}\nEND\nexit {status}\n")
    command.chmod(0o755)


class TestStatus:
    def test_accounting_is_asked_where_it_answers(self, commands: Path) -> None:
        pretend(commands, "sacct", "")
        executor = Executor()
        assert (cluster.settle(executor), executor) == ("sacct", Executor("sacct", 40))

    def test_the_queue_is_asked_where_accounting_is_switched_off(self, commands: Path) -> None:
        pretend(commands, "sacct", "Slurm accounting storage is disabled", status=1)
        pretend(commands, "scontrol", "MaxJobCount = 10000\nMinJobAge = 300 sec")
        executor = Executor("sacct")
        assert (cluster.settle(executor), executor) == ("squeue", Executor("squeue", 40))

    def test_a_queue_that_never_forgets_may_be_asked(self, commands: Path) -> None:
        pretend(commands, "scontrol", "MinJobAge = 0 sec")
        assert cluster.settle(Executor()) == "squeue"

    @pytest.mark.parametrize(("says", "seconds"), [("MinJobAge = 120 sec", 120), ("slurmctld is down", 0)])
    def test_one_that_forgets_before_the_executor_asks_is_refused(
        self, commands: Path, says: str, seconds: int
    ) -> None:
        """It waits up to three minutes between two questions."""
        pretend(commands, "scontrol", says)
        with pytest.raises(UserError, match=rf"forgets ended jobs after {seconds} s \(MinJobAge of slurm.conf\)"):
            cluster.settle(Executor())

    def test_other_executors_are_left_alone(self, commands: Path) -> None:
        assert cluster.settle(None) == "" and cluster.settle(object()) == ""


class TestResources:
    def test_later_tries_ask_for_more_memory_and_time(self) -> None:
        first = Resources(20, 3000, 1, most_minutes=50)
        asked = [(first.after(n).minutes, first.after(n).memory_mb, first.after(n).gpus) for n in (1, 2, 3)]
        assert asked == [(20, 3000, 1), (40, 6000, 1), (50, 9000, 1)]

    def test_a_long_forecast_asks_for_time_with_room(self, project: Project) -> None:
        project.change("config/presets/tiny.yaml", cost=1000.0)
        (job,) = (job for job in project.plan().jobs.values() if "metropolis" in job.name)
        asked = resources_of(job, project.config())
        assert asked.minutes == pytest.approx(resources.SLACK * (job.seconds + 3) / 60, abs=1)
        assert (asked.memory_mb, asked.gpus) == (resources.LARGE_MB, 0)

    def calibrated(self, project: Project, **changes: object) -> dict[str, Resources]:
        """What jobs ask for when each kind was measured so."""
        plan, path = project.plan(), project.results.calibration
        one = {"status": "ok", "device": "cpu", "shard_seconds": 7200.0, "peak_memory_mb": 10_000.0}
        kinds = {kind: {**one, "digest": of[0].digest, **changes} for kind, of in resources.kinds(plan).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"kinds": kinds}))
        resources._read.cache_clear()
        return {name: resources_of(job, plan.config) for name, job in plan.jobs.items()}

    def test_what_was_measured_counts_more_than_the_plan(self, project: Project) -> None:
        plan = project.plan()
        hours = {name: 2 * len(job.shards) for name, job in plan.jobs.items()}
        for name, found in self.calibrated(project).items():
            assert found.minutes == pytest.approx(resources.SLACK * 60 * hours[name], abs=1)
            assert found.memory_mb == 15_000
        table = resources.table(plan)
        assert f"about {sum(hours.values())} core hours" in table
        assert f"{len(hours)} jobs as calibrated" in table

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": "unavailable", "shard_seconds": math.nan, "peak_memory_mb": math.nan},
            {"digest": "of other settings"},
            {"device": "cuda"},
        ],
        ids=["not measured", "other settings", "other device"],
    )
    def test_what_was_measured_of_something_else_does_not_count(
        self, project: Project, changes: dict[str, object]
    ) -> None:
        plan = project.plan()
        before = {name: resources_of(job, plan.config) for name, job in plan.jobs.items()}
        assert self.calibrated(project, **changes) == before
        assert "0 jobs as calibrated" in resources.table(plan)

    def test_a_few_examples_do_not_show_that_less_memory_is_enough(self, project: Project) -> None:
        assert {asked.memory_mb for asked in self.calibrated(project, peak_memory_mb=100.0).values()} == {
            resources.MEMORY_MB
        }

    def test_no_job_asks_for_more_time_than_clusters_give(self, project: Project) -> None:
        project.change("config/config.yaml", job_hours=2)
        assert {asked.minutes for asked in self.calibrated(project, shard_seconds=1e6).values()} == {120}

    def test_gpus_are_for_what_can_use_them(self) -> None:
        plan = make_plan(config.load(CHECKOUT, {"preset": "paper", "experiments": ["psg_pda", "spide"]}))
        asked = {job.name: resources_of(job, plan.config).gpus for job in plan.jobs.values()}
        assert {gpus for name, gpus in asked.items() if "psg_pda" in name} == {1}
        assert {gpus for name, gpus in asked.items() if "psg_pda" not in name} == {0}
        for overrides in ({"preset": "full"}, {"preset": "paper", "device": "cpu"}):
            plan = make_plan(config.load(CHECKOUT, {**overrides, "experiments": ["psg_pda"]}))
            assert {resources_of(job, plan.config).gpus for job in plan.jobs.values()} == {0}


CELL = Cell(
    experiment="x", dataset="mnist_dvs", data_kind="simulated", data_settings="{}", variant="psg", settings="{}",
    network='{"architecture":"3C3-M2-4"}', method="psg_pda", mode="off-chip", fault="none", severity=0.0,
    training_size=20, repetition=0, preset="paper",
)  # fmt: skip


class TestDevice:
    @pytest.fixture(scope="class")
    def paper(self) -> config.Config:
        return config.load(CHECKOUT, {"preset": "paper", "experiments": ["psg_pda"], "device": "cuda"})

    def test_what_may_use_a_gpu_is_told_what_the_configuration_says(self, paper: config.Config) -> None:
        assert resources.device(CELL, paper) == "cuda"
        for overrides, expected in (({}, "auto"), ({"device": "cpu"}, "cpu")):
            other = config.load(CHECKOUT, {"preset": "paper", "experiments": ["psg_pda"], **overrides})
            assert resources.device(CELL, other) == expected

    @pytest.mark.parametrize(
        "other",
        [
            {"method": "backprop"},
            {"mode": "in-the-loop"},
            {"mode": "oracle"},
            {"network": '{"hidden":[8]}'},
            {"network": "{}"},
        ],
        ids=["cannot", "in the loop", "oracle", "dense", "no network"],
    )
    def test_all_else_is_trained_on_the_cpu(self, paper: config.Config, other: dict[str, str]) -> None:
        assert resources.device(replace(CELL, **other), paper) == "cpu"  # type: ignore[arg-type]

    def test_the_worker_is_told(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[str] = []

        def ask(worker: object, request: dict[str, Any], *_: object) -> list[dict[str, str]]:
            told.append(request["device"])
            return [{"status": "ok", "error": ""} for _ in request["cells"]]

        monkeypatch.setattr(supervisor._Worker, "ask", ask)
        monkeypatch.setattr(supervisor, "device", lambda cell, config: f"that of {cell.method}")
        job = next(iter(project.plan().jobs.values()))
        run_job(job, project.config(), log=project.root / "log")
        assert set(told) == {f"that of {job.name.split('.')[1]}"}


class TestProfile:
    def test_it_says_what_the_default_one_says_of_reruns(self) -> None:
        default, slurm = (
            yaml.safe_load((CHECKOUT / "profiles" / name / "profile.yaml").read_text()) for name in ("default", "slurm")
        )
        shared = default.keys() - {"cores"}
        assert {key: slurm[key] for key in shared} == {key: default[key] for key in shared}

    def test_no_rule_has_retries_of_its_own(self) -> None:
        """They would multiply with the profile's, inside of each job."""
        for path in (CHECKOUT / "Snakefile", *(CHECKOUT / "workflow" / "rules").glob("*.smk")):
            assert "retries:" not in path.read_text()

    @pytest.mark.xdist_group("workflow")
    def test_every_job_of_the_paper_preset_says_what_it_needs(self, project: Project) -> None:
        project.change("config/presets/tiny.yaml", cost=100.0)
        done = project.snakemake("-n", "--workflow-profile", "profiles/slurm", "results/tiny/rows.parquet")
        assert done.status == 0, done.said
        asked = [line for line in done.said.splitlines() if line.strip().startswith("resources:")]
        assert len(asked) >= 3
        assert all("mem_mb=" in line and "runtime=" in line for line in asked)
        assert any(f"mem_mb={resources.LARGE_MB}" in line for line in asked)


class TestKilled:
    """A worker that is killed for its memory: on a cluster the job is tried again before there is a row."""

    @pytest.fixture
    def killed(self, project: Project) -> Project:
        project.toy(step=f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
        return project

    def test_the_first_try_makes_no_row(self, killed: Project) -> None:
        (job,) = killed.plan().jobs.values()
        with pytest.raises(GaveUp, match="SIGKILL"):
            run_job(job, killed.config(), log=killed.root / "log", tries=Tries(last=False))
        assert not killed.results.job(job.name).exists()
        assert not list(killed.results.folder.rglob("*.parquet"))

    def test_the_last_one_does(self, killed: Project) -> None:
        (job,) = killed.plan().jobs.values()
        run_job(job, killed.config(), log=killed.root / "log")
        rows = [row for file in killed.results.folder.rglob("*.parquet") for row in row_file.read(file)]
        assert {row["status"] for row in rows} == {"failed"} and "SIGKILL" in rows[0]["error"]

    def test_only_the_last_of_the_tries_that_the_workflow_announces_makes_rows(self, killed: Project) -> None:
        (job,) = killed.plan().jobs.values()
        train = ("spikebench", "train", "--job", job.name, "--parent", str(os.getpid()))
        second = killed.run(*train, "--attempt", "2", SPIKEBENCH_TRIES="3")
        assert second.status == 1
        assert second.sentences[-1].startswith(f"spikebench: {job.name}: the worker process died")
        assert killed.run(*train, "--attempt", "3", SPIKEBENCH_TRIES="3").status == 0

    @pytest.mark.xdist_group("workflow")
    def test_it_announces_them(self, project: Project) -> None:
        project.toy(step="Path('met').open('a').write('x')\nif Path('met').stat().st_size < 3: os.kill(os.getpid(), 9)")
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
        done = project.snakemake("--retries", "1", "results/tiny/rows.parquet")
        assert done.status == 0, done.said
        assert set(project.table()["status"]) == {"ok"}

    @pytest.mark.parametrize(
        "step",
        ["raise OSError('quota exceeded')", "raise MemoryError", "raise torch.OutOfMemoryError('CUDA out of memory')"],
    )
    def test_so_is_what_the_machine_lacks(self, project: Project, step: str) -> None:
        project.toy(step=step)
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
        (job,) = project.plan().jobs.values()
        with pytest.raises(GaveUp, match="to be tried again with more"):
            run_job(job, project.config(), log=project.root / "log", tries=Tries(last=False))
        run_job(job, project.config(), log=project.root / "log")
        assert set(project.shard_rows()["status"]) == {"failed"}


class TestTime:
    """The cluster ends the job in a moment, and it is the last try."""

    def test_what_learns_nothing_becomes_rows(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        starts, start = [], supervisor._Worker._start
        monkeypatch.setattr(supervisor._Worker, "_start", lambda worker: starts.append(0) or start(worker))
        project.toy(step="time.sleep(600)")
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
        (job,) = project.plan().jobs.values()
        run_job(job, project.config(), log=project.root / "log", tries=Tries(until=time.time() + 10))
        rows = project.shard_rows()
        assert set(rows["status"]) == {"timed-out"} and len(rows) == len(project.plan().planned)
        assert rows["error"].str.contains("learnt nothing until the cluster ended the job").all()
        assert len(starts) == 1, "no worker is started for cells whose time is over already"

    def test_what_learns_goes_on_in_the_next_call(self, project: Project) -> None:
        project.toy(step="time.sleep(1)")
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop", "settings": {"rounds": 600}}])
        (job,) = project.plan().jobs.values()
        with pytest.raises(GaveUp, match="goes on from its checkpoint"):
            run_job(job, project.config(), log=project.root / "log", tries=Tries(until=time.time() + 12))
        assert not project.results.job(job.name).exists()

    def test_there_is_a_margin_and_it_counts_in_the_last_try_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Tries.of(1) == Tries(True, math.inf)
        monkeypatch.setattr(supervisor.time, "time", lambda: 1000.0)
        monkeypatch.setenv("SPIKEBENCH_TRIES", "3")
        assert Tries.of(3, 20) == Tries(True, math.inf), "at home nobody ends it"
        monkeypatch.setenv("SLURM_JOB_ID", "1")
        expected = [Tries(False, math.inf), Tries(True, 1000 + 20 * 60 - supervisor.MARGIN)]
        assert [Tries.of(n, 20) for n in (2, 3)] == expected


def test_two_processes_with_one_job_take_turns(project: Project) -> None:
    """The second finds the first one's rows."""
    rounds = project.root / "rounds"
    project.toy(step=f"Path({str(rounds)!r}).open('a').write('x'); time.sleep(0.2)")
    project.experiment(arms=[{"method": "toy", "mode": "in-the-loop", "settings": {"rounds": 5}}])
    (job,) = project.plan().jobs.values()
    runs = [
        threading.Thread(target=run_job, args=(job, project.config()), kwargs={"log": project.root / "log"})
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(rounds.read_text()) == 5 * len(job.shards)
    assert "another process is at it: waiting" in (project.root / "log").read_text()


def test_a_failure_of_the_method_is_a_row_at_once(project: Project) -> None:
    project.toy(step="raise ValueError('no')")
    project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}, MH])
    for job in project.plan().jobs.values():
        run_job(job, project.config(), log=project.root / "log", tries=Tries(last=False))
    statuses = project.shard_rows().groupby("method")["status"].unique().map(list).to_dict()
    assert statuses == {"metropolis_hastings": ["ok"], "toy": ["failed"]}
