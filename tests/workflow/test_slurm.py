"""The workflow on a real Slurm: the same rows as on this machine, whatever happens to jobs and nodes on the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import archive_store
import pandas as pd
import pytest
from conftest import FIGURES
from project import BIN, MH, Done, Project, Running, results_of, wait_until
from slurm import Cluster, running

pytestmark = pytest.mark.xdist_group("slurm")

#: Beside the profile: no patience, as jobs take seconds.
QUICKLY = (
    "--slurm-init-seconds-before-status-checks",
    "2",
    "--max-status-checks-per-second",
    "2",
    "--latency-wait",
    "10",
)
Sent = Callable[..., list[dict[str, str]]]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def through_slurm(project: Project, cluster: Cluster, *arguments: str, seconds: float = 600, **variables: str) -> Done:
    return start(project, cluster, *arguments, **variables).wait(seconds)


def start(project: Project, cluster: Cluster, *arguments: str, **variables: str) -> Running:
    """Snakemake with the profile."""
    own = {**cluster.environment, **variables}
    own["PATH"] = f"{BIN}{os.pathsep}{own['PATH']}"
    return project.start("snakemake", "--workflow-profile", "profiles/slurm", *QUICKLY, *arguments, **own)


def test_smoke_ends_with_the_rows_of_a_local_run(cluster: Cluster, tmp_path: Path) -> None:
    """Every rule of the workflow, and every method; bit for bit."""
    archive_store.need("mnist")
    variables = {"SPIKEBENCH_DATA": str(archive_store.FOLDER)}
    variables |= {k: v for k, v in os.environ.items() if k == "SPIKEBENCH_MIRROR"}
    here, there = Project.create(tmp_path / "here"), Project.create(tmp_path / "there")
    for project in (here, there):
        shutil.rmtree(project.root / "config")
        shutil.copytree(Path(__file__).parents[2] / "config", project.root / "config")
    smoke = ("--config", "preset=smoke", "--")
    before = len(cluster.jobs())
    done = through_slurm(there, cluster, *smoke, "all", seconds=1200, **variables)
    assert done.status == 0, done.said
    assert (there.root / "results/smoke/report/index.html").exists()
    sent = cluster.jobs()[: len(cluster.jobs()) - before]
    print(cluster.table())
    assert {job["state"] for job in sent} == {"COMPLETED"}
    table = "results/smoke/rows.parquet"
    local = here.start("snakemake", *smoke, table, **variables).wait(600)
    assert local.status == 0, local.said
    ours, theirs = (rows_of(project, table) for project in (there, here))
    assert len(ours) == len(theirs) > 1000
    assert ours == theirs
    print(f"{len(ours)} rows of {len(sent)} jobs are equal")


def rows_of(project: Project, table: str) -> list[str]:
    return results_of(pd.read_parquet(project.root / table).set_index("cell"))


@pytest.fixture
def toys(project: Project) -> Project:
    """A toy and a real method, two cells each, and figures; the toy does what its test says."""
    arms = [{"method": "toy", "mode": "in-the-loop", "settings": {"rounds": 30}}, MH]
    project.experiment(arms=arms, figures=FIGURES)
    project.change("config/config.yaml", checkpoints={"seconds": 1})
    return project


def assert_complete(project: Project, done: Done, *statuses: str) -> None:
    """A report, and each cell once."""
    assert done.status == 0, done.said + project.explain()
    assert project.results.report.exists()
    rows = project.shard_rows()
    expected = sorted(p.cell.id for p in project.plan().planned)
    assert sorted(rows["cell"]) == expected
    assert set(rows["status"]) == (set(statuses) or {"ok"})


@pytest.fixture
def sent(cluster: Cluster) -> Sent:
    """The training jobs that the cluster was sent since the test began, the last one first."""

    def training(state: str) -> list[dict[str, str]]:
        return [job for job in cluster.jobs(state) if "rule_train" in job["comment"]]

    before = {job["id"] for job in training("all")}
    return lambda state="all": [job for job in training(state) if job["id"] not in before]


@pytest.mark.slow
class TestDrills:
    """At most one more call of snakemake, and there is a report of all rows."""

    def run(self, toys: Project, cluster: Cluster, *arguments: str) -> Done:
        done = through_slurm(toys, cluster, *arguments)
        return done if done.status == 0 else through_slurm(toys, cluster)

    def test_a_job_that_is_cancelled_is_sent_again(self, toys: Project, cluster: Cluster, sent: Sent) -> None:
        toys.toy(step="time.sleep(0.5)")
        run = start(toys, cluster)
        wait_until(lambda: any(toys.results.folder.glob("checkpoints/**/*.safetensors")), seconds=120)
        toy = [job for job in sent("running") if "toy" in job["comment"]]
        cluster.ask("scancel", toy[0]["id"])
        assert_complete(toys, run.wait(400))
        assert sorted(job["state"] for job in sent()) == ["CANCELLED", "COMPLETED", "COMPLETED"]
        assert "goes on after round" in toys.explain()

    def test_a_node_is_drained_and_resumed(self, toys: Project, cluster: Cluster, sent: Sent) -> None:
        toys.toy(step="Path('at-work').touch(); time.sleep(0.3)")
        node = f"NodeName={cluster.host}"
        cluster.ask("scontrol", "update", node, "State=DRAIN", "Reason=test")
        run = start(toys, cluster)
        try:
            wait_until(lambda: len(sent("pending")) == 2, seconds=120)
            assert not (toys.root / "at-work").exists()
        finally:
            cluster.ask("scontrol", "update", node, "State=RESUME")
        assert_complete(toys, run.wait(400))

    def test_a_node_fails_under_its_jobs(self, toys: Project, cluster: Cluster, sent: Sent) -> None:
        toys.toy(step="Path('at-work').touch(); time.sleep(0.5)")
        run = start(toys, cluster)
        wait_until((toys.root / "at-work").exists, seconds=120)
        node = f"NodeName={cluster.host}"
        cluster.ask("scontrol", "update", node, "State=DOWN", "Reason=test")
        cluster.ask("scontrol", "update", node, "State=RESUME")
        done = run.wait(400)
        assert_complete(toys, done if done.status == 0 else through_slurm(toys, cluster))
        assert "NODE_FAIL" in {job["state"] for job in sent()}

    def test_a_job_over_its_memory_gets_more(self, toys: Project, cluster: Cluster, sent: Sent) -> None:
        """Slurm ends the whole job."""
        toys.toy(step="held = torch.ones(1_000_000_000); time.sleep(3)")  # 4 GB
        toys.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}, MH], figures=FIGURES)
        assert_complete(toys, self.run(toys, cluster))
        ended = [job["state"] for job in sent() if "toy" in job["comment"]]
        assert len(ended) > 1 and ended[0] == "COMPLETED" and ended[-1] != "COMPLETED", ended

    def test_a_worker_that_is_killed_gets_more(self, toys: Project, cluster: Cluster, sent: Sent) -> None:
        """As control groups do it: the job itself lives on, and sees that its worker is gone."""
        killed_twice = "if Path('met').stat().st_size < 3: os.kill(os.getpid(), 9)"
        toys.toy(step=f"Path('met').open('a').write('x')\n{killed_twice}")
        assert_complete(toys, self.run(toys, cluster))
        assert [job["state"] for job in sent() if "toy" in job["comment"]] == ["COMPLETED", "FAILED", "FAILED"]

    def test_a_job_over_its_time_goes_on(self, toys: Project, cluster: Cluster, sent: Sent) -> None:
        """One minute is not enough for thirty rounds of three seconds; two of them are."""
        toys.toy(step="time.sleep(3)")
        assert_complete(toys, self.run(toys, cluster, "--set-resources", "train:runtime=1"))
        assert "TIMEOUT" in {job["state"] for job in sent()}
        assert "goes on after round" in toys.explain()

    def test_a_job_that_learns_nothing_in_all_its_time_becomes_rows(self, toys: Project, cluster: Cluster) -> None:
        toys.toy(step="time.sleep(3600)")
        done = through_slurm(toys, cluster, "--set-resources", "train:runtime=1")
        assert_complete(toys, done, "ok", "timed-out")

    def test_a_failure_of_the_method_is_never_tried_again(self, toys: Project, cluster: Cluster, sent: Sent) -> None:
        toys.toy(step="raise ValueError('no')")
        assert_complete(toys, through_slurm(toys, cluster), "ok", "failed")
        assert len(sent()) == 2
