"""`kill -9` of the scheduler alone, or of everything, at random moments; then `snakemake` again, as a user would.

It must end with the result columns of an undisturbed run, bit for bit. Moments are random but seeded by the test.
"""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import ARMS, FIGURES, Base, make
from project import Project, cut_the_power, results_of, wait_until

pytestmark = pytest.mark.xdist_group("workflow")

TABLE = "results/tiny/rows.parquet"


def interrupted(project: Project, moment: float, everything: bool, *targets: str) -> bool:
    """Start `snakemake` and kill it after so many seconds; whether there was something to kill."""
    running = project.start("snakemake", *targets)
    try:
        running.process.wait(timeout=moment)
    except Exception:
        if everything:
            cut_the_power(project.root)
        else:
            running.process.kill()
        running.process.wait()
        return True
    assert running.process.returncode == 0, running.file.read_text() + project.explain()
    return False


def assert_nobody_is_at_work(project: Project) -> None:
    wait_until(lambda: not project.processes(), seconds=15)


def assert_same_results(project: Project, reference: Project) -> None:
    """Rows, traces and coverage are those of an undisturbed run, and every other file is there and whole."""
    ours, theirs = project.table(), reference.table()
    assert ours["status"].eq("ok").all()
    assert results_of(ours) == results_of(theirs)
    assert len(ours) == len(theirs)
    traces = [pd.read_parquet(p.results.traces) for p in (project, reference)]
    pd.testing.assert_frame_equal(*traces, check_exact=True)
    assert project.results.coverage.read_text() == reference.results.coverage.read_text()


def visible(project: Project) -> set[str]:
    """Everything below ``results`` that does not say by its name that it is temporary, logs excepted."""
    root = project.root / "results"
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path) for path in files if path.parent.name != "logs"}


def test_two_cuts(base: Base, tmp_path: Path) -> None:
    """The scheduler dies in the middle of training and is started again at once; then the power goes."""
    dice = random.Random(1)
    project = make(tmp_path / "project")
    log = project.results.folder / "logs"
    running = project.start("snakemake", TABLE)
    wait_until(lambda: log.is_dir() and any(log.iterdir()))
    time.sleep(dice.uniform(0.0, 2.0))
    running.process.kill()
    running.process.wait()
    assert not project.results.rows.exists(), "it was cut off before it was done"
    began = time.monotonic()
    assert interrupted(project, dice.uniform(3.0, 4.5), True, TABLE)
    assert time.monotonic() - began < 10
    assert not project.processes()
    done = project.snakemake(TABLE)
    assert done.status == 0, done.said + project.explain()
    assert "LockException" not in done.said
    assert_same_results(project, base.project)
    assert_nobody_is_at_work(project)


def test_orphans_end_soon_after_the_scheduler(base: Base, tmp_path: Path) -> None:
    project = make(tmp_path / "project")
    project.toy(step="Path(f'{behaviour}.pid').write_text(str(os.getpid())); time.sleep(3600)")
    arms = [{"method": "toy", "mode": "in-the-loop", "settings": {"behaviour": "here"}}]
    project.experiment(arms=arms, figures=FIGURES)
    running = project.start("snakemake", TABLE)
    wait_until((project.root / "here.pid").exists)
    assert len(project.processes()) == 3, "scheduler, supervisor, worker"
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not project.processes(), seconds=5)
    assert not list(project.results.folder.rglob("*.parquet"))


@pytest.mark.slow
class TestManyCuts:
    @pytest.fixture(scope="class")
    def undisturbed(self, tmp_path_factory: pytest.TempPathFactory) -> Project:
        """Several jobs of several shards each."""
        project = self.larger(tmp_path_factory.mktemp("undisturbed") / "project")
        done = project.snakemake()
        assert done.status == 0, done.said + project.explain()
        assert done.count("train") >= 3
        return project

    def larger(self, root: Path) -> Project:
        project = make(root)
        axes = {"dataset": ["breast_cancer"], "network": [{"hidden": [4]}], "fault": ["threshold", "paper-full"]}
        axes |= {"severity": [0.0, 1.0], "training_size": [20, 40]}
        project.experiment(arms=ARMS, figures=FIGURES, axes=axes)
        project.change("config/config.yaml", jobs={"seconds": 1})
        return project

    @pytest.mark.parametrize("seed", range(3))
    def test_whatever_is_cut_off_the_end_is_the_same(self, undisturbed: Project, tmp_path: Path, seed: int) -> None:
        dice = random.Random(seed)
        project = self.larger(tmp_path / "project")
        cuts = 0
        for _ in range(10):
            cuts += interrupted(project, dice.uniform(0.3, 14.0), dice.random() < 0.5)
            if dice.random() < 0.5:
                assert_nobody_is_at_work(project)
        assert cuts >= 3
        done = project.snakemake()
        assert done.status == 0, done.said + project.explain()
        assert "LockException" not in done.said
        assert_nobody_is_at_work(project)
        assert_same_results(project, undisturbed)
        assert visible(project) == visible(undisturbed)
        assert project.results.claims.read_text() == undisturbed.results.claims.read_text()
        again = project.snakemake()
        assert again.status == 0
        assert "Nothing to be done" in again.said

    @pytest.mark.parametrize("seed", range(3))
    def test_cuts_while_mlflow_is_filled(self, base: Base, tmp_path: Path, seed: int) -> None:
        """The database is made anew, and the power goes before it is done."""
        dice = random.Random(seed)
        project = base.project.copy(tmp_path / "project")
        for path in (project.results.tracking, *(project.root / "results").glob("mlflow.db*")):
            path.unlink()
        for _ in range(4):
            interrupted(project, dice.uniform(2.5, 9.0), dice.random() < 0.7)
        done = project.snakemake()
        assert done.status == 0, done.said + project.explain()
        assert runs(project) == runs(base.project)


def runs(project: Project) -> list[tuple[str, ...]]:
    """Cell, status and accuracy of MLflow's runs, sorted."""
    with sqlite3.connect(project.results.database) as database:
        query = (
            "select t.value, r.status, m.value from runs r join tags t using (run_uuid) join latest_metrics m using "
            "(run_uuid) where t.key = 'cell' and m.key = 'accuracy' and r.lifecycle_stage = 'active'"
        )
        found = [tuple(map(str, row)) for row in database.execute(query)]
    assert len(found) == len(set(found)) > 0
    return sorted(found)
