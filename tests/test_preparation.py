"""Which kind and which archive, settled before the plan: by what lies verified in the store, never by a name alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_sources import mirror_of, replace_source
from project import Project

from spikebench import plugins, preparation
from spikebench.archives import SOURCES
from spikebench.config import Config
from spikebench.errors import Unavailable, UserError
from spikebench.paths import Store
from spikebench.preparation import DataJob, attempt, describe, fetch_source, make_ready
from spikebench.store import files_of, identity

#: Source to its one file.
FILES = {
    "mnist": ("train-images-idx3-ubyte", b"digits"),
    "cifar10": ("cifar-10-binary.tar.gz", b"photographs"),
    "cifar10-subset-4000": ("cifar10_subset.npz", b"some photographs"),
    "mnist-dvs": ("grabbed_data0.zip", b"recordings of digits"),
    "cifar10-dvs": ("airplane.zip", b"recordings of photographs"),
}


@pytest.fixture(autouse=True)
def nothing_is_here(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty store, no mirror, no network, and archives of a few bytes."""
    monkeypatch.delenv("SPIKEBENCH_MIRROR", raising=False)
    for source, (name, content) in FILES.items():
        replace_source(monkeypatch, source, {name: content})


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mirror folder that is in use."""
    monkeypatch.setenv("SPIKEBENCH_MIRROR", str(tmp_path / "mirror"))
    return mirror_of(tmp_path / "mirror", {})


def offer(mirror: Path, source: str) -> None:
    mirror_of(mirror, dict([FILES[source]]))


def job(project: Project, dataset: str, settings: str = "{}", **overrides: Any) -> DataJob:
    config = project.config(**overrides)
    kind = preparation.kind(dataset, config)
    return preparation.data_job(dataset, kind, preparation.source(dataset, kind, config), settings, config)


class TestKind:
    def test_auto_is_real_only_where_recordings_lie_verified(
        self, project: Project, mirror: Path, own_store: Path
    ) -> None:
        def kinds() -> list[str]:
            return [preparation.kind(name, project.config()) for name in ("mnist_dvs", "cifar10_dvs")]

        assert kinds() == ["simulated", "simulated"]
        offer(mirror, "mnist-dvs")
        assert kinds() == ["simulated", "simulated"], "in the mirror, but nobody has verified it"
        (own_store / "archives" / "mnist-dvs").mkdir(parents=True)
        shutil.copy(mirror / "grabbed_data0.zip", own_store / "archives" / "mnist-dvs")
        assert kinds() == ["simulated", "simulated"], "in the store, but nobody has verified it"
        assert fetch_source("mnist-dvs", project.config(), "first") == "mnist-dvs: verified"
        assert kinds() == ["real", "simulated"]
        os.utime(own_store / "archives" / "mnist-dvs" / "grabbed_data0.zip", ns=(5, 5))
        assert kinds() == ["simulated", "simulated"], "it was changed since"

    def test_all_files_of_it(self, project: Project, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        replace_source(monkeypatch, "mnist-dvs", {"grabbed_data0.zip": b"0", "grabbed_data1.zip": b"1"})
        mirror_of(mirror, {"grabbed_data0.zip": b"0"})
        said = fetch_source("mnist-dvs", project.config(), "first")
        assert said.startswith("mnist-dvs: unavailable: ")
        assert preparation.kind("mnist_dvs", project.config()) == "simulated"

    def test_the_configuration_decides_where_it_says_so(self, project: Project, mirror: Path) -> None:
        real, simulated = ({"data.kind": kind} for kind in ("real", "simulated"))
        assert preparation.kind("mnist_dvs", project.config(**real)) == "real", "then it is fetched"
        offer(mirror, "mnist-dvs")
        fetch_source("mnist-dvs", project.config(), "first")
        assert preparation.kind("mnist_dvs", project.config(**simulated)) == "simulated"

    @pytest.mark.parametrize("wanted", ["auto", "real", "simulated"])
    def test_a_set_of_one_kind_has_no_choice(self, project: Project, wanted: str) -> None:
        config = project.config(**{"data.kind": wanted})
        expected = {"breast_cancer": "real", "mnist": "real", "two_moons": "synthetic", "regression_1d": "synthetic"}
        assert {name: preparation.kind(name, config) for name in expected} == expected


class TestSource:
    def test_the_full_set_comes_before_its_beginning_where_neither_is_here(self, project: Project) -> None:
        for dataset, kind in (("cifar10_dvs", "simulated"), ("cifar10", "real")):
            assert preparation.source(dataset, kind, project.config()) == "cifar10"

    def test_what_is_near_comes_before_what_is_not(self, project: Project, mirror: Path) -> None:
        def chosen() -> str:
            return preparation.source("cifar10_dvs", "simulated", project.config())

        offer(mirror, "cifar10-subset-4000")
        assert chosen() == "cifar10-subset-4000"
        offer(mirror, "cifar10")
        assert chosen() == "cifar10", "both are near: the full one"
        (mirror / "cifar-10-binary.tar.gz").write_bytes(b"another size")
        assert chosen() == "cifar10-subset-4000"
        fetch_source("cifar10-subset-4000", project.config(), "first")
        assert chosen() == "cifar10-subset-4000", "verified, and the other one is not the known one"
        offer(mirror, "cifar10")
        assert chosen() == "cifar10", "the full one again, though it is not verified yet"

    def test_each_kind_has_its_own(self, project: Project) -> None:
        config = project.config()
        assert preparation.source("mnist_dvs", "real", config) == "mnist-dvs"
        assert preparation.source("mnist_dvs", "simulated", config) == "mnist"
        assert preparation.source("cifar10_dvs", "real", config) == "cifar10-dvs"
        assert preparation.source("breast_cancer", "real", config) == ""
        assert preparation.source("two_moons", "synthetic", config) == ""


class TestJob:
    def test_it_says_what_the_plug_in_is_loaded_with(self, project: Project) -> None:
        project.change("config/presets/tiny.yaml", data={"mnist_dvs": {"training": 40, "test": 20}})
        made = job(project, "mnist_dvs", '{"test":30}')
        assert made.loading == {"training": 40, "test": 30, "kind": "simulated", "source": "mnist"}
        settings = plugins.load("datasets", "mnist_dvs", project.root).Settings(**made.loading)
        assert (settings.training, settings.test, settings.kind, settings.source) == (40, 30, "simulated", "mnist")
        assert made.name.startswith("mnist_dvs-")
        assert made.name == job(project, "mnist_dvs", '{"test":30}').name

    def test_it_is_another_one_with_other_settings_kind_or_archive(self, project: Project, mirror: Path) -> None:
        names = [job(project, "cifar10_dvs", s).name for s in ("{}", '{"bins":5}', '{"bins":6}')]
        project.change("config/presets/tiny.yaml", data={"cifar10_dvs": {"bins": 5}})
        assert job(project, "cifar10_dvs").name == names[1], "whoever gave the settings"
        project.change("config/presets/tiny.yaml", data={"cifar10_dvs": {"bins": 6}})
        assert job(project, "cifar10_dvs").name == names[2]
        names.append(job(project, "cifar10_dvs", **{"data.kind": "real"}).name)
        offer(mirror, "cifar10-subset-4000")
        names.append(job(project, "cifar10_dvs").name)
        assert len(set(names)) == 5

    @pytest.mark.parametrize(
        ("settings", "threads"), [('{"training": 40, "test": 20}', 1), ('{"training": 150, "test": 50}', 8), ("{}", 8)]
    )
    def test_one_thread_is_enough_for_few_recordings(self, settings: str, threads: int) -> None:
        assert DataJob("mnist_dvs", "simulated", "mnist", settings, "").threads == threads

    def test_an_archives_hash_counts(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        before = {name: job(project, name).digest for name in ("mnist_dvs", "mnist", "cifar10_dvs", "breast_cancer")}
        archive = identity("mnist")
        replace_source(monkeypatch, "mnist", {FILES["mnist"][0]: b"DIGITS"})
        assert identity("mnist") != archive
        assert len(archive) == 64
        moved = {name for name, known in before.items() if job(project, name).digest != known}
        assert moved == {"mnist_dvs", "mnist"}

    def test_the_plug_ins_code_counts_and_comments_do_not(self, project: Project) -> None:
        before = {name: job(project, name).digest for name in ("mnist_dvs", "cifar10_dvs")}
        path = project.root / "datasets/mnist_dvs.py"
        path.write_text("# A comment.\n" + path.read_text().replace('"""MNIST-DVS: ', '"""Another text: '))
        assert {name: job(project, name).digest for name in before} == before
        project.edit("datasets/mnist_dvs.py", "bins: int = 80", "bins: int = 81")
        assert job(project, "mnist_dvs").digest != before["mnist_dvs"]
        assert job(project, "cifar10_dvs").digest == before["cifar10_dvs"]

    @pytest.fixture
    def engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A copy of the code that inputs are made with, which counts in its place."""
        copy = shutil.copytree(preparation._PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("__pycache__"))
        before = preparation.engine_fingerprint(recordings=True)
        monkeypatch.setattr(preparation, "_PACKAGE", copy)
        preparation.engine_fingerprint.cache_clear()
        assert preparation.engine_fingerprint(recordings=True) == before, "its place does not count"
        yield copy
        preparation.engine_fingerprint.cache_clear()

    def moved_by(self, project: Project, change: Callable[[], object]) -> set[str]:
        """The data sets that a change makes other ones."""
        names = ("mnist_dvs", "cifar10_dvs", "mnist", "cifar10", "breast_cancer", "two_moons")
        before = {name: job(project, name).digest for name in names}
        change()
        preparation.engine_fingerprint.cache_clear()
        return {name for name in names if job(project, name).digest != before[name]}

    def test_the_code_that_inputs_are_made_with_counts(self, project: Project, engine: Path) -> None:
        def changed(file: str, addition: str) -> set[str]:
            path = engine / file
            return self.moved_by(project, lambda: path.write_text(f"{path.read_text()}{addition}\n"))

        recordings, pictures = {"mnist_dvs", "cifar10_dvs"}, {"mnist", "cifar10"}
        assert changed("events/camera.py", "# A comment.") == set()
        for file in ("events/camera.py", "events/camera_kernel.py", "events/aedat.py", "events/binning_kernels.py"):
            assert changed(file, "ADDED = 1") == recordings, file
        assert changed("static_images.py", "ADDED = 1") == pictures
        assert changed("images.py", "ADDED = 1") == recordings | pictures
        assert changed("report/__init__.py", "ADDED = 1") == set()

    def test_so_does_the_version_of_the_results(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = self.moved_by(project, lambda: monkeypatch.setattr(preparation, "RESULTS_VERSION", -1))
        assert moved == {"mnist_dvs", "cifar10_dvs", "mnist", "cifar10"}, "what has no archive is not kept on disk"
        monkeypatch.undo()
        preparation.engine_fingerprint.cache_clear()


class TestAttempt:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "note.json"

    def note(self, file: Path, available: bool, token: str) -> None:
        file.write_text(json.dumps({"available": available, "attempt": token}))

    def test_what_nobody_tried_is_tried_first(self, file: Path) -> None:
        assert attempt(file, "") == attempt(file, "unavailable") == "first"
        file.write_text('{"available": tr')
        assert attempt(file, "unavailable") == "first", "half a file is none"

    def test_without_a_wish_it_is_what_was_recorded_so_that_nothing_runs_twice(self, file: Path) -> None:
        for available in (True, False):
            self.note(file, available, "after 17")
            assert attempt(file, "") == attempt(file, "failed,timed-out") == "after 17"

    def test_what_is_there_is_not_tried_again(self, file: Path) -> None:
        self.note(file, True, "first")
        assert attempt(file, "unavailable") == "first"

    def test_what_was_unavailable_is_tried_again_on_wish_and_then_rests(self, file: Path) -> None:
        self.note(file, False, "first")
        os.utime(file, ns=(1, 1))
        token = attempt(file, "failed,unavailable")
        assert token not in ("first", ""), "another parameter: Snakemake runs the rule"
        self.note(file, False, token)  # as the rule records it; in vain once more
        os.utime(file, ns=(2, 2))
        assert attempt(file, "") == token, "the next plain run has nothing to do"
        assert attempt(file, "unavailable") != token, "and the next wish is heard too"


class TestStartLine:
    def said(self, project: Project, *datasets: str, **overrides: Any) -> str:
        return describe([job(project, name, **overrides) for name in datasets], project.config(**overrides))

    def test_it_tells_kind_origin_and_what_is_missing(self, project: Project, mirror: Path) -> None:
        names = ("breast_cancer", "mnist_dvs", "two_moons", "mnist")
        assert self.said(project, *names) == (
            "spikebench: data: breast_cancer real; mnist_dvs simulated (from mnist, to be fetched); "
            "two_moons synthetic; mnist real (mnist, to be fetched)"
        )
        offer(mirror, "mnist")
        assert "mnist, to be fetched" in self.said(project, *names), "the mirror folder is not the store"
        fetch_source("mnist", project.config(), "first")
        assert self.said(project, *names) == (
            "spikebench: data: breast_cancer real; mnist_dvs simulated (from mnist); "
            "two_moons synthetic; mnist real (mnist)"
        )

    def test_what_could_not_be_had_is_said_with_the_way_to_try_again(self, project: Project) -> None:
        fetch_source("mnist", project.config(**{"data.download": False}), "first")
        assert self.said(project, "mnist") == (
            "spikebench: data: mnist real (mnist, which could not be had: `--config retry=unavailable` tries again)"
        )

    def test_real_recordings_are_named(self, project: Project) -> None:
        assert self.said(project, "mnist_dvs", **{"data.kind": "real"}) == (
            "spikebench: data: mnist_dvs real (mnist-dvs, to be fetched)"
        )

    def test_the_beginning_of_cifar10_is_named(self, project: Project, mirror: Path) -> None:
        offer(mirror, "cifar10-subset-4000")
        assert "cifar10_dvs simulated (from cifar10-subset-4000, to be fetched)" in self.said(project, "cifar10_dvs")

    def test_the_same_words_are_said_once(self, project: Project) -> None:
        jobs = [job(project, "breast_cancer", f'{{"steps":{n}}}') for n in (5, 6)]
        assert jobs[0] != jobs[1]
        assert describe(jobs, project.config()) == "spikebench: data: breast_cancer real"


class TestFetching:
    def test_it_says_what_became_of_it(self, project: Project, mirror: Path, own_store: Path) -> None:
        offline = project.config(**{"data.download": False})
        assert fetch_source("mnist", offline, "first") == (
            "mnist: unavailable: mnist: train-images-idx3-ubyte could not be had: the mirror folder does not have it; "
            "downloads are switched off"
        )
        note = json.loads((own_store / "archives" / "mnist.json").read_text())
        assert (note["available"], note["attempt"]) == (False, "first")
        offer(mirror, "mnist")
        assert fetch_source("mnist", offline, "second") == "mnist: verified"
        assert json.loads((own_store / "archives" / "mnist.json").read_text())["attempt"] == "second"

    def test_a_file_that_is_not_the_known_one_stops_it(self, project: Project, mirror: Path) -> None:
        offer(mirror, "mnist")
        (mirror / "train-images-idx3-ubyte").write_bytes(b"DIGITS")  # of the same size
        with pytest.raises(UserError, match=r"mnist: train-images-idx3-ubyte in the mirror folder is not the known"):
            fetch_source("mnist", project.config(), "first")
        assert preparation.source("mnist", "real", project.config()) == "mnist"
        assert "to be fetched" in describe([job(project, "mnist")], project.config())


TOY = """
from dataclasses import dataclass

from spikebench.data import DataSettings
from spikebench.errors import Unavailable

KINDS = ("real",)
NEEDS = {"real": ("mnist",)}


@dataclass(frozen=True)
class Settings(DataSettings):
    behaviour: str = ""


def load(settings):
    if settings.behaviour == "unavailable":
        raise Unavailable("it is nowhere")
    if settings.behaviour == "raise":
        raise RuntimeError("a mistake")
"""
PREPARE = """

def prepare(settings, workers, say):
    say(f"{settings.kind} {settings.source} {workers}")
    load(settings)
"""


class TestMakingReady:
    @pytest.fixture
    def config(self, project: Project) -> Config:
        (project.root / "datasets/toy.py").write_text(TOY)
        (project.root / "datasets/stored.py").write_text(TOY + PREPARE)
        return project.config()

    def note(self, config: Config, made: DataJob) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Store.of(config.root).ready(made.name).read_text())
        return found

    def test_what_became_of_it_is_written_down(self, project: Project, config: Config) -> None:
        made = job(project, "toy")
        assert make_ready(made, config, 2, "first") == "toy: ready"
        assert self.note(config, made) == {
            "dataset": "toy", "kind": "real", "source": "mnist", "settings": "{}", "digest": made.digest,
            "available": True, "reason": "", "attempt": "first",
        }  # fmt: skip

    def test_a_plug_in_with_something_to_prepare_is_asked_to(
        self, project: Project, config: Config, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert make_ready(job(project, "stored"), config, 7, "first") == "stored: ready"
        assert capsys.readouterr().out == "real mnist 7\n"

    @pytest.mark.parametrize("dataset", ["toy", "stored"])
    def test_what_is_unavailable_is_no_error_and_its_reason_is_kept(
        self, dataset: str, project: Project, config: Config
    ) -> None:
        made = job(project, dataset, '{"behaviour":"unavailable"}')
        assert make_ready(made, config, 1, "after 5") == f"{dataset}: unavailable: it is nowhere"
        note = self.note(config, made)
        assert (note["available"], note["reason"], note["attempt"]) == (False, "it is nowhere", "after 5")

    def test_a_mistake_is_no_note(self, project: Project, config: Config) -> None:
        made = job(project, "toy", '{"behaviour":"raise"}')
        with pytest.raises(RuntimeError, match="a mistake"):
            make_ready(made, config, 1, "first")
        assert not Store.of(config.root).ready(made.name).exists()


def test_of_a_set_that_needs_no_archive_the_real_one_is_there(project: Project) -> None:
    text = TOY.replace('("real",)', '("real", "simulated")', 1).replace('NEEDS = {"real": ("mnist",)}', "")
    (project.root / "datasets/toy.py").write_text(text)
    assert preparation.kind("toy", project.config()) == "real"
    assert preparation.kind("toy", project.config(**{"data.kind": "simulated"})) == "simulated"
    assert preparation.source("toy", "real", project.config()) == ""


def test_a_source_that_is_none_is_named_with_those_there_are(project: Project) -> None:
    for ask in (identity, files_of):
        with pytest.raises(UserError, match=r"source: found '', allowed: mnist, cifar10, cifar10-subset-4000"):
            ask("")
    with pytest.raises(Unavailable, match="mnist has not been fetched"):
        files_of("mnist")


def test_the_store_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEBENCH_DATA", "/large/disk")
    assert Store.of(tmp_path).folder == Path("/large/disk")
    monkeypatch.setenv("SPIKEBENCH_DATA", "")
    assert Store.of(tmp_path).folder == tmp_path / "results" / "data"


def test_the_command_line_tells_the_names_it_knows(project: Project) -> None:
    for arguments, sentence in (
        (("fetch", "mnist-dvd"), f"spikebench: source: found 'mnist-dvd', allowed: {', '.join(SOURCES)}"),
        (("prepare", "--data", "x"), f"spikebench: --data: found 'x', allowed: {job(project, 'breast_cancer').name}"),
    ):
        done = project.run("spikebench", *arguments)
        assert done.status == 1
        assert done.said.strip() == sentence


def test_settling_it_imports_nothing_heavy() -> None:
    script = "import sys, spikebench.preparation; print(*{'torch', 'numpy', 'requests', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
