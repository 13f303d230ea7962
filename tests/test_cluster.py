"""What is asked of a cluster: how it tells what became of jobs, and what jobs ask it for."""

from __future__ import annotations

import json
import os
import signal
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
from spikebench.supervisor import GaveUp, run_job
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

    def test_it_is_asked_often_enough_for_what_it_remembers(self, commands: Path) -> None:
        """The executor takes ``sacct`` again where three of its waits are longer than that."""
        pretend(commands, "scontrol", "MinJobAge = 60 sec")
        executor = Executor()
        assert (cluster.settle(executor), executor) == ("squeue", Executor("squeue", 20))

    def test_a_cluster_that_tells_nothing_is_refused(self, commands: Path) -> None:
        pretend(commands, "scontrol", "MinJobAge = 2 sec")
        with pytest.raises(UserError, match=r"forgets ended jobs after 2 s \(MinJobAge of slurm.conf\)"):
            cluster.settle(Executor())

    def test_other_executors_are_left_alone(self, commands: Path) -> None:
        assert cluster.settle(None) == "" and cluster.settle(object()) == ""


class TestResources:
    def test_later_tries_ask_for_more_memory_and_time(self) -> None:
        first = Resources(20, 3000, 1)
        assert [first.after(n) for n in (1, 2, 3)] == [first, Resources(40, 6000, 1), Resources(60, 9000, 1)]

    def test_a_long_forecast_asks_for_time_with_room(self, project: Project) -> None:
        project.change("config/presets/tiny.yaml", cost=1000.0)
        (job,) = (job for job in project.plan().jobs.values() if "metropolis" in job.name)
        asked = resources_of(job, project.config())
        assert asked.minutes == pytest.approx(resources.SLACK * (job.seconds + 3) / 60, abs=1)
        assert (asked.memory_mb, asked.gpus) == (resources.LARGE_MB, 0)

    def test_what_was_measured_counts_more_than_the_plan(self, project: Project) -> None:
        plan = project.plan()
        kinds = {kind: {"shard_seconds": 7200.0, "peak_memory_mb": 10_000.0} for kind in resources.kinds(plan)}
        path = project.results.calibration
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"kinds": kinds}))
        asked = {name: resources_of(job, plan.config) for name, job in plan.jobs.items()}
        hours = {name: 2 * len(plan.jobs[name].shards) for name in asked}
        for name, found in asked.items():
            assert found.minutes == pytest.approx(resources.SLACK * 60 * hours[name], abs=1)
            assert found.memory_mb == 15_000
        assert f"about {sum(hours.values())} core hours" in resources.table(plan)

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
            run_job(job, killed.config(), log=killed.root / "log", patient=True)
        assert not killed.results.job(job.name).exists()
        assert not list(killed.results.folder.rglob("*.parquet"))

    def test_the_last_one_does(self, killed: Project) -> None:
        (job,) = killed.plan().jobs.values()
        run_job(job, killed.config(), log=killed.root / "log")
        rows = [row for file in killed.results.folder.rglob("*.parquet") for row in row_file.read(file)]
        assert {row["status"] for row in rows} == {"failed"} and "SIGKILL" in rows[0]["error"]

    def test_the_command_is_patient_on_a_cluster_only_and_once(self, killed: Project) -> None:
        (job,) = killed.plan().jobs.values()
        train = ("spikebench", "train", "--job", job.name, "--parent", str(os.getpid()))
        first = killed.run(*train, SLURM_JOB_ID="1")
        assert (first.status, first.sentences[-1].startswith(f"spikebench: {job.name}: the worker process died")) == (
            1,
            True,
        )
        assert killed.run(*train, "--attempt", "2", SLURM_JOB_ID="1").status == 0


def test_a_failure_of_the_method_is_a_row_at_once(project: Project) -> None:
    project.toy(step="raise ValueError('no')")
    project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}, MH])
    for job in project.plan().jobs.values():
        run_job(job, project.config(), log=project.root / "log", patient=True)
    statuses = project.shard_rows().groupby("method")["status"].unique().map(list).to_dict()
    assert statuses == {"metropolis_hastings": ["ok"], "toy": ["failed"]}
