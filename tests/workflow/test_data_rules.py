"""Event data through Snakemake: fetched, filmed, looked at and trained on; or honestly not there, and tried again."""

from __future__ import annotations

import json
from pathlib import Path

import archive_store
import pytest
from project import Done, Project

pytestmark = pytest.mark.xdist_group("workflow")

TABLE, REPORT = "results/tiny/rows.parquet", "results/tiny/report/index.html"
MIRROR = {"SPIKEBENCH_MIRROR": str(archive_store.MIRROR)}
NOTHING = "Nothing to be done"
SIZES = {"mnist_dvs": {"training": 20, "test": 10, "bins": 20}}


def make(root: Path, *datasets: str) -> Project:
    """Two cells a data set."""
    project = Project.create(root)
    project.change("config/presets/tiny.yaml", data=SIZES)
    axes = {"dataset": list(datasets), "network": [{"hidden": [4]}], "fault": ["threshold"]}
    axes |= {"severity": [0.0], "training_size": [20]}
    project.experiment(axes=axes, arms=[{"method": "backprop", "mode": "off-chip"}], figures=[])
    return project


class TestAStory:
    """The tests are steps of it: nothing can be had, then it can; each starts where the last one ended."""

    @pytest.fixture(scope="class")
    def project(self, tmp_path_factory: pytest.TempPathFactory) -> Project:
        archive_store.need("mnist")
        project = make(tmp_path_factory.mktemp("data") / "project", "mnist_dvs")
        project.change("config/config.yaml", data={"kind": "auto", "mirror": "", "download": False})
        return project

    @pytest.fixture(scope="class")
    def without(self, project: Project) -> Done:
        """A run without network and mirror."""
        done = project.snakemake(TABLE)
        assert done.status == 0, done.said + project.explain()
        return done

    @pytest.fixture(scope="class")
    def again(self, project: Project, without: Done) -> Done:
        """A run that tries again, with a mirror folder."""
        done = project.snakemake("--config", "retry=unavailable", "--", REPORT, **MIRROR)
        assert done.status == 0, done.said + project.explain()
        return done

    def sheet(self, project: Project) -> str:
        (name,) = (data.name for data in project.plan().data.values() if data.source)
        return f"results/tiny/data/{name}.json"

    def test_the_start_says_what_is_used_and_what_is_missing(self, without: Done) -> None:
        assert without.sentences == ["spikebench: data: mnist_dvs simulated (from mnist, to be fetched)"]

    def test_without_images_its_cells_are_unavailable_rows_with_the_reason(
        self, project: Project, without: Done
    ) -> None:
        assert (without.count("fetch"), without.count("prepare"), without.count("train")) == (1, 1, 1)
        mine = project.table()
        assert mine["status"].to_list() == ["unavailable"] * 2
        assert set(mine["data_kind"]) == {"simulated"} and set(mine["data_source"]) == {"mnist"}
        for error in mine["error"]:
            assert "train-images-idx3-ubyte could not be had: no mirror folder is set" in error
            assert "downloads are switched off" in error

    def test_a_plain_second_run_tries_nothing_again_not_even_where_it_could_be_had(
        self, project: Project, without: Done
    ) -> None:
        assert NOTHING in project.snakemake(TABLE, **MIRROR).said

    def test_on_wish_what_was_missing_is_fetched_made_and_trained_on_and_nothing_else(
        self, project: Project, without: Done, again: Done
    ) -> None:
        assert [again.count(rule) for rule in ("fetch", "prepare", "train", "sheets")] == [1] * 4
        mine = project.table()
        assert mine["status"].to_list() == ["ok"] * 2
        assert mine["data_sha256"].nunique() == 1 and mine["split_sha256"].nunique() == 2
        assert mine["test_size"].to_list() == [10.0] * 2

    def test_what_was_made_lies_in_the_store(self, project: Project, again: Done) -> None:
        store = project.root / "results" / "data"
        manifest = json.loads((store / "archives" / "mnist.json").read_text())
        assert manifest["available"] and {file["from"] for file in manifest["files"]} == {"mirror"}
        (ready,) = (store / "ready").glob("mnist_dvs-*.json")
        assert json.loads(ready.read_text())["available"]
        (prepared,) = (store / "prepared").glob("mnist_dvs-simulated-*")
        assert len(list(prepared.glob("*.npy"))) == 10
        assert "0: 3 recordings" in (store / "logs" / f"{ready.stem}.log").read_text()

    def test_it_can_be_looked_at_in_the_report(self, project: Project, again: Done) -> None:
        caption = json.loads((project.root / self.sheet(project)).read_text())["caption"]
        assert caption.startswith("MNIST-DVS-sim, scale 4: one recording of each class")
        assert "30 recordings with" in caption
        page = project.results.report.read_text()
        assert caption in page
        assert "mnist-dvs-sim" in page
        assert "downloads are switched off" not in page

    def test_and_then_nothing_is_left_to_do(self, project: Project, again: Done) -> None:
        before = project.times("")
        done = project.snakemake(REPORT)
        assert done.status == 0
        assert NOTHING in done.said
        assert project.times("") == before

    def test_other_frames_are_made_anew_of_the_same_images(self, project: Project, again: Done) -> None:
        project.change("config/presets/tiny.yaml", data={"mnist_dvs": {**SIZES["mnist_dvs"], "bins": 10}})
        done = project.snakemake("-n", REPORT)
        assert [done.count(rule) for rule in ("fetch", "prepare", "train", "sheets")] == [0, 1, 1, 1]


def test_the_kind_can_be_asked_for_on_the_command_line(tmp_path: Path) -> None:
    project = make(tmp_path / "project", "mnist_dvs")
    done = project.snakemake("-n", "--config", "data={kind: real}", "--", REPORT)
    assert done.status == 0, done.said
    assert "archives/mnist-dvs.json" in done.said


def test_an_archive_that_is_not_the_known_one_stops_the_workflow(tmp_path: Path) -> None:
    """Both hashes are named; no row is made of it."""
    archive_store.need("mnist")
    project = make(tmp_path / "project", "mnist_dvs", "breast_cancer")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for path in (archive_store.MIRROR / "mnist").glob("*-ubyte"):
        (mirror / path.name).symlink_to(path)
    labels = mirror / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[100] ^= 1
    labels.unlink()
    labels.write_bytes(content)
    done = project.snakemake(TABLE, SPIKEBENCH_MIRROR=str(mirror))
    assert done.status != 0
    assert "t10k-labels-idx1-ubyte in the mirror folder is not the known file: expected 10008 bytes" in done.said
    assert "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2" in done.said
    assert not project.results.rows.exists()
    assert set(project.shard_rows()["dataset"]) == {"breast_cancer"}, "the others are trained"
