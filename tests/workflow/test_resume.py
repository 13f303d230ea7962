"""`kill -9` inside of a long training: the next `snakemake` goes on from its checkpoint, and the rows are the same."""

from __future__ import annotations

from pathlib import Path

import archive_store
import pytest
from project import Project, cut_the_power, results_of, wait_until

pytestmark = pytest.mark.xdist_group("workflow")

TABLE = "results/tiny/rows.parquet"


@pytest.fixture
def recordings(tmp_path: Path) -> Project:
    """Backprop on recordings, saved after every round: a search, then a training."""
    return make(tmp_path / "project")


def make(root: Path) -> Project:
    archive_store.need("mnist")
    project = Project.create(root)
    arm = {"method": "backprop", "mode": "in-the-loop", "settings": {"steps": 60, "minibatch": 10}}
    axes = {"dataset": ["mnist_dvs"], "data_settings": [{"bins": 10, "training": 60, "test": 20}]}
    axes |= {"network": [{"hidden": [32]}], "fault": ["paper-full"], "severity": [0.0, 1.0], "training_size": [60]}
    project.experiment(arms=[arm], axes=axes)
    project.change("config/config.yaml", checkpoints={"seconds": 0})
    return project


def train(project: Project) -> None:
    done = project.snakemake(TABLE, SPIKEBENCH_DATA=str(archive_store.FOLDER))
    assert done.status == 0, done.said + project.explain()


def checkpoints(project: Project, stage: str) -> list[Path]:
    return list((project.results.folder / "checkpoints").rglob(f"{stage}.safetensors"))


def test_it_goes_on_where_it_was(recordings: Project, tmp_path: Path) -> None:
    for stage in ("01", "02"):  # of the search, and of the training
        running = recordings.start("snakemake", TABLE, SPIKEBENCH_DATA=str(archive_store.FOLDER))
        wait_until(lambda stage=stage: checkpoints(recordings, stage), seconds=120)
        cut_the_power(recordings.root)
        running.process.wait()
        assert not list(recordings.results.folder.rglob("*.parquet"))
    train(recordings)
    said = recordings.explain()
    assert "training 01 goes on after round" in said and "training 02 goes on after round" in said
    assert not checkpoints(recordings, "*"), "they are removed when the rows are there"
    undisturbed = make(tmp_path / "undisturbed")
    train(undisturbed)
    assert "goes on" not in undisturbed.explain()
    ours, theirs = recordings.table(), undisturbed.table()
    assert ours["status"].eq("ok").all() and len(ours) == 4
    assert results_of(ours) == results_of(theirs)


def test_a_damaged_checkpoint_is_named_and_left_alone(recordings: Project, tmp_path: Path) -> None:
    running = recordings.start("snakemake", TABLE, SPIKEBENCH_DATA=str(archive_store.FOLDER))
    wait_until(lambda: checkpoints(recordings, "01"), seconds=120)
    cut_the_power(recordings.root)
    running.process.wait()
    (saved,) = checkpoints(recordings, "01")
    saved.write_bytes(saved.read_bytes()[:-100])
    train(recordings)
    assert "checkpoint 01.safetensors cannot be used" in recordings.explain()
    assert recordings.table()["status"].eq("ok").all()


def test_what_ran_out_of_time_goes_on_with_a_longer_limit(project: Project) -> None:
    """The checkpoints of a timed-out cell stay, and a try with more time begins where it ended."""
    step = "time.sleep(0.25); state = State(state.weights + 1)"
    project.toy(step=step)
    project.experiment(arms=[{"method": "toy", "mode": "in-the-loop", "settings": {"rounds": 40}}])
    settings = {"repetitions": 1, "checkpoints": {"seconds": 0}}
    project.change("config/presets/tiny.yaml", repetitions=settings.pop("repetitions"))
    project.change("config/config.yaml", **settings, limits={"cell_seconds": 4, "shard_seconds": 1})
    assert project.snakemake(TABLE).status == 0
    assert set(project.table()["status"]) == {"timed-out"}
    kept = checkpoints(project, "01")
    assert len(kept) == 3, "of the shard, and one a cell"
    project.change("config/config.yaml", limits={"cell_seconds": 60, "shard_seconds": 1})
    assert project.snakemake("--config", "retry=timed-out", "--", TABLE).status == 0
    assert set(project.table()["status"]) == {"ok"}
    assert "goes on after round" in project.explain()
    assert not checkpoints(project, "*")
