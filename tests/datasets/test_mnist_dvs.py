"""MNIST-DVS as its authors recorded it, and as the camera model films MNIST."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archive_store
import numpy as np
import pytest
import real_archives
import torch
from fake_sources import replace_source
from project import CHECKOUT
from test_fetch import Server

from spikebench import config, images, plugins, preparation, training
from spikebench.archives import SOURCES
from spikebench.cli import main
from spikebench.config import Config
from spikebench.data import SpikeData, dense
from spikebench.errors import Unavailable, UserError
from spikebench.events import camera, prepared
from spikebench.events.binning import BISNN_T80, bin_events
from spikebench.events.prepared import Item
from spikebench.paths import Store
from spikebench.preparation import DataJob
from spikebench.seeds import seed
from spikebench.store import files_of
from spikebench.sweep import Cell
from spikebench.training import Work

PLUGIN = plugins.load("datasets", "mnist_dvs")


def fingerprint(frames: np.ndarray) -> str:
    return hashlib.sha256(frames.tobytes()).hexdigest()


class TestSimulated:
    @pytest.fixture(autouse=True)
    def with_images(self, own_store: Path) -> None:
        archive_store.link(own_store, "mnist")

    def settings(self, **changes: Any) -> Any:
        return PLUGIN.Settings(**{"training": 10, "test": 10, "kind": "simulated", "source": "mnist", **changes})

    def test_the_same_bits_every_time(self, own_store: Path) -> None:
        folders = []
        for workers in (1, 3):
            folder = PLUGIN.prepare(self.settings(), workers, lambda sentence: None)
            folders.append(folder.rename(own_store / f"made-by-{workers}"))
        first, second = ({path.name: path.read_bytes() for path in folder.glob("*.npy")} for folder in folders)
        assert first == second
        assert len(first) == 10

    def test_training_recordings_show_the_training_part_and_test_recordings_the_test_part(self) -> None:
        """Each is the k-th image of its digit: filmed here once more, by the camera alone."""
        data = PLUGIN.load(self.settings(training=20))
        mnist = images.mnist(files_of("mnist"))
        parts = [
            (data.labelled, mnist.train, mnist.train_labels, (1, 2)),
            (data.test, mnist.test, mnist.test_labels, (901,)),
        ]
        for split, pictures, labels, numbers in parts:
            expected = {}
            for label in range(10):
                for k, number in enumerate(numbers):
                    picture = pictures[np.flatnonzero(labels == label)[k]]
                    bits = seed(purpose="camera", dataset="mnist_dvs", scale=4, label=label, number=number)
                    frames = bin_events(camera.mnist_dvs(picture, 4, bits), BISNN_T80)
                    expected[fingerprint(frames.astype(np.float32))] = label
            found = [fingerprint(example.numpy()) for example in dense(split.inputs)[..., :-1]]
            assert len(found) == len(expected)
            assert [expected[example] for example in found] == split.targets.tolist()

    def test_it_is_called_by_its_own_name(self) -> None:
        data = PLUGIN.load(self.settings())
        assert data.provenance.name == "MNIST-DVS-sim, scale 4"
        assert data.provenance.kind == "simulated"
        assert "camera model" in data.provenance.source and "MNIST" in data.provenance.source
        assert data.classes == tuple("0123456789")

    @pytest.mark.parametrize(
        ("changes", "layout", "steps"),
        [
            ({}, (2, 26, 26), 80),
            ({"polarity": False, "bins": 20}, (1, 26, 26), 20),
            ({"crop": False, "scale": 16, "bins": 5}, (2, 128, 128), 5),
        ],
    )
    def test_frames_are_as_the_settings_say(self, changes: dict[str, Any], layout: tuple[int, ...], steps: int) -> None:
        data = PLUGIN.load(self.settings(**changes))
        assert data.layout == layout
        assert data.train.inputs.shape[1:] == (steps, int(np.prod(layout)) + 1)
        assert data.binary_inputs
        spikes = dense(data.test.inputs)[..., :-1].mean(dim=(1, 2))
        assert (spikes > 0.001).all() and (spikes < 0.5).all(), "neither dark nor saturated"

    def test_the_screens_refresh_and_the_scale_are_seen(self) -> None:
        made = [dense(PLUGIN.load(self.settings(**c)).test.inputs) for c in ({}, {"screen_hz": 75.0}, {"scale": 8})]
        assert not torch.equal(made[0], made[1])
        assert not torch.equal(made[0], made[2])

    def test_some_digits_alone_are_the_same_recordings_with_labels_of_their_own(self) -> None:
        whole = PLUGIN.load(self.settings(training=20))
        some = PLUGIN.load(self.settings(training=4, test=2, classes=[7, 1]))
        assert some.classes == ("7", "1")
        for ours, every in ((some.labelled, whole.labelled), (some.test, whole.test)):
            known, found = (
                {fingerprint(x.numpy()): y for x, y in zip(dense(part.inputs), part.targets.tolist(), strict=True)}
                for part in (every, ours)
            )
            assert sorted(found.values()) == [0] * (len(found) // 2) + [1] * (len(found) // 2)
            assert {x: (7, 1)[label] for x, label in found.items()} == {x: y for x, y in known.items() if y in (7, 1)}

    @pytest.mark.parametrize("classes", [(10,), (1, -1), ("7",), (1, 7, 1)], ids=str)
    def test_only_digits_and_each_once(self, classes: tuple[Any, ...]) -> None:
        sentence = f"mnist_dvs: classes: found {classes[-1]!r}, allowed: digits from 0 to 9, each once"
        with pytest.raises(UserError, match=sentence):
            self.settings(classes=classes)

    def halves(self, **changes: Any) -> Any:
        given = {"halves": True, "polarity": False, "classes": [1, 7], "training": 6, "test": 2, "training_size": 3}
        return self.settings(**{**given, **changes})

    def test_halves_are_those_of_the_frames_of_the_first_recordings_of_each_digit_in_turn(self) -> None:
        """Filmed here once more: of a picture's rows, the first thirteen are shown and the others are the target."""
        mnist = images.mnist(files_of("mnist"))
        binning = dataclasses.replace(BISNN_T80, polarity=False)
        expected = set()
        for label, number in ((1, 1), (7, 1), (1, 2)):
            picture = mnist.train[np.flatnonzero(mnist.train_labels == label)[number - 1]]
            bits = seed(purpose="camera", dataset="mnist_dvs", scale=4, label=label, number=number)
            expected.add(fingerprint(bin_events(camera.mnist_dvs(picture, 4, bits), binning).astype(np.float32)))
        data = PLUGIN.load(self.halves())
        assert data.task == "sequence"
        assert data.memorised
        assert data.layout == (1, 13, 26)
        inputs, targets = dense(data.train.inputs), data.train.targets
        assert (inputs.shape, targets.shape) == ((3, 80, 339), (3, 80, 338))
        assert inputs[..., -1].eq(1).all()
        assert inputs.is_contiguous() and targets.is_contiguous()
        pictures = torch.cat([inputs[..., :-1].unflatten(2, (13, 26)), targets.unflatten(2, (13, 26))], dim=2)
        assert {fingerprint(frames[:, None].numpy()) for frames in pictures} == expected
        # The first is a '1', the first of the digits that are asked for.
        one = PLUGIN.load(self.halves(training_size=1))
        upper, lower = (x.unflatten(2, (13, 26)) for x in (dense(one.train.inputs)[..., :-1], one.train.targets))
        picture = mnist.train[np.flatnonzero(mnist.train_labels == 1)[0]]
        bits = seed(purpose="camera", dataset="mnist_dvs", scale=4, label=1, number=1)
        frames = torch.from_numpy(bin_events(camera.mnist_dvs(picture, 4, bits), binning)[:, 0])
        assert torch.equal(upper[0].bool(), frames[:, :13])
        assert torch.equal(lower[0].bool(), frames[:, 13:])

    def test_halves_are_made_of_the_frames_that_lie_there(self, own_store: Path) -> None:
        whole = PLUGIN.load(self.halves(halves=False, training_size=None))
        data = PLUGIN.load(self.halves())
        assert data.provenance == whole.provenance
        folder = PLUGIN.prepare(self.halves(), 1, lambda sentence: None)
        assert list((own_store / "prepared").glob("mnist_dvs-*")) == [folder]

    def test_what_is_prepared_for_few_is_there_for_all(self) -> None:
        PLUGIN.load(self.halves(training_size=1))
        assert len(PLUGIN.load(self.halves(training_size=None)).labelled.targets) == 6
        assert len(PLUGIN.load(self.halves(halves=False, training_size=None)).test.targets) == 2

    def test_there_are_as_many_to_memorise_as_to_learn_from(self) -> None:
        with pytest.raises(Unavailable, match="mnist_dvs has 6 training examples, 7 were asked for"):
            PLUGIN.load(self.halves(training_size=7))

    @pytest.mark.parametrize(
        ("changes", "found"),
        [({"polarity": True}, "polarity true and crop true"), ({"crop": False}, "polarity false and crop false")],
    )
    def test_halves_of_other_frames_are_an_error(self, changes: dict[str, Any], found: str) -> None:
        sentence = f"mnist_dvs: halves: found {found}, allowed: polarity false and crop true"
        with pytest.raises(UserError, match=sentence):
            self.halves(**changes)

    def test_there_are_900_for_training_and_100_for_testing_of_each_digit(self) -> None:
        for changes, sentence in (
            ({"training": 9001}, "class 0 has 900 recordings, 901 were asked for"),
            ({"test": 1001}, "class 0 has 100 recordings, 101 were asked for"),
        ):
            with pytest.raises(Unavailable, match=sentence):
                PLUGIN.load(self.settings(**changes))


def test_without_the_images_it_is_unavailable_and_says_why(own_store: Path) -> None:
    with pytest.raises(Unavailable, match="mnist has not been fetched"):
        PLUGIN.load(PLUGIN.Settings(training=10, test=10, kind="simulated", source="mnist"))


def hash_of_frames(job: DataJob) -> str:
    """The sha256 of the sha256 of all parts."""
    folder = prepared.folder(str(PLUGIN.__file__), PLUGIN.Settings(**job.loading))
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.npy"))]
    assert len(parts) == 10
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@pytest.fixture(scope="module")
def recorded() -> dict[str, bytes]:
    return real_archives.mnist_dvs()


@pytest.fixture(scope="module")
def server(recorded: dict[str, bytes]) -> Iterator[Server]:
    with Server() as server:
        server.files = {f"/{name}": content for name, content in recorded.items()}
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()


def settled(main: Config) -> DataJob:
    """The data set as the plan uses it."""
    kind = preparation.kind("mnist_dvs", main)
    source = preparation.source("mnist_dvs", kind, main)
    return preparation.data_job("mnist_dvs", kind, source, '{"training":40,"test":20}', main)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKEBENCH_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.usefixtures("own_store", "online")
class TestReal:
    """From the authors' archives to a trained network, in one process; they are served on this machine."""

    def test_fetched_unpacked_read_binned_loaded_and_learnt_from(
        self, recorded: dict[str, bytes], server: Server, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace_source(monkeypatch, "mnist-dvs", recorded, server.url(""))
        main = config.load(CHECKOUT)
        assert settled(main).kind == "simulated", "auto: they are not here yet"
        wanted = settled(config.load(CHECKOUT, {"data.kind": "real"}))
        assert preparation.fetch_source("mnist-dvs", main, "first") == "mnist-dvs: verified"
        assert len(server.requests) == 10
        job = settled(main)
        assert (job.kind, job.source) == ("real", "mnist-dvs")
        assert job == wanted, "auto has become what was asked for"
        assert preparation.make_ready(job, main, 2, "first") == "mnist_dvs: ready"
        assert json.loads(Store.of(CHECKOUT).ready(job.name).read_text())["available"]
        unpacked = [path.name for path in (own_store / "unpacked").rglob("*.aedat")]
        assert len(unpacked) == 10_000 and all("scale04" in name for name in unpacked), (
            "the other scales are left packed"
        )

        data: SpikeData = PLUGIN.load(PLUGIN.Settings(**job.loading))
        learners = real_archives.who(data.labelled.inputs, data.layout)
        assert sorted(learners) == [Item(digit, number) for digit in range(10) for number in (1, 2, 3, 4)]
        assert sorted(real_archives.who(data.test.inputs, data.layout)) == [
            Item(digit, number) for digit in range(10) for number in (901, 902)
        ]
        assert data.labelled.targets.tolist() == [item.label for item in learners]
        # Number 902 is 0b1110000110, so the event of bit 7 is in the bin of 1.4 s: 56 of 80.
        frames = dense(data.test.inputs)[..., :-1].reshape(-1, 80, 2, 26, 26)
        row = real_archives.who(data.test.inputs, data.layout).index(Item(3, 902))
        assert frames[row, :, 1, 3, 7].nonzero().tolist() == [[56]]
        two = PLUGIN.Settings(**{**job.loading, "classes": [7, 1], "training": 4, "test": 2})
        some = PLUGIN.load(two).labelled
        found = [item.label for item in real_archives.who(some.inputs, data.layout)]
        assert found == [(7, 1)[label] for label in some.targets]
        assert data.provenance.kind == "real"
        assert data.provenance.name == "MNIST-DVS, scale 4"
        assert data.provenance.sha256 == hash_of_frames(job)

        cell = Cell(
            experiment="toy", dataset="mnist_dvs", data_kind=job.kind, data_settings="{}", data_source=job.source,
            network='{"hidden":[16]}', method="backprop", mode="in-the-loop", variant="", settings="{}", fault="none",
            severity=0.0, training_size=40, repetition=0, preset="test",
        )  # fmt: skip
        work = Work([cell], {"steps": 5}, {cell.fault: {}}, CHECKOUT, {"training": 40, "test": 20})
        (row_,) = training.train(work)
        assert (row_["status"], row_["test_size"]) == ("ok", 20.0)
        assert row_["data_sha256"] == data.provenance.sha256
        assert 0 <= row_["accuracy"] <= 1

    def test_a_wrong_hash_stops_it(
        self, recorded: dict[str, bytes], server: Server, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace_source(monkeypatch, "mnist-dvs", recorded, server.url(""), wrong="grabbed_data3.zip")
        main_config = config.load(CHECKOUT, {"data.kind": "real"})
        with pytest.raises(UserError, match=r"mnist-dvs: grabbed_data3\.zip of 127.* is not the known file: expected"):
            preparation.fetch_source("mnist-dvs", main_config, "first")
        assert (own_store / "archives" / "mnist-dvs" / "grabbed_data3.zip.mismatch").exists()
        assert settled(config.load(CHECKOUT)).kind == "simulated"
        with pytest.raises(Unavailable):
            PLUGIN.load(PLUGIN.Settings(**settled(main_config).loading))

    def test_on_the_command_line_that_is_one_sentence(
        self, recorded: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = dict(list(recorded.items())[:1])
        replace_source(monkeypatch, "mnist-dvs", some, server.url(""), wrong="grabbed_data0.zip")
        monkeypatch.delenv("SPIKEBENCH_CONFIG", raising=False)
        with pytest.raises(SystemExit, match=r"spikebench: mnist-dvs: grabbed_data0\.zip of .* is not the known file"):
            main(["fetch", "mnist-dvs"])

    def from_mirror(self, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Settings of recordings that come from these archives, which are in the store."""
        replace_source(monkeypatch, "mnist-dvs", files)
        (tmp_path / "mirror").mkdir()
        for name, content in files.items():
            (tmp_path / "mirror" / name).write_bytes(content)
        monkeypatch.setenv("SPIKEBENCH_MIRROR", str(tmp_path / "mirror"))
        assert preparation.fetch_source("mnist-dvs", config.load(CHECKOUT), "first") == "mnist-dvs: verified"
        return PLUGIN.Settings(training=10, test=10, kind="real", source="mnist-dvs")

    def test_a_member_that_leads_out_of_the_folder_is_refused(
        self, recorded: dict[str, bytes], own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evil = io.BytesIO(recorded["grabbed_data0.zip"])
        with zipfile.ZipFile(evil, "a") as archive:
            archive.writestr("grabbed_data0/scale4/../../../../../escaped.aedat", b"evil")
        files = {**recorded, "grabbed_data0.zip": evil.getvalue()}
        settings = self.from_mirror(files, tmp_path, monkeypatch)
        with pytest.raises(UserError, match=r"grabbed_data0\.zip: '.*escaped\.aedat' leads out of the folder"):
            PLUGIN.load(settings)
        assert not list(tmp_path.rglob("escaped.aedat")) and not list(tmp_path.parent.glob("escaped.aedat"))
        assert not list((own_store / "unpacked").rglob("*.aedat")), "nothing was unpacked"
        assert not list((own_store / "prepared").rglob("*.npy"))

    def test_a_recording_that_is_not_in_its_archive_is_named(
        self, recorded: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with zipfile.ZipFile(io.BytesIO(recorded["grabbed_data7.zip"])) as archive:
            members = {name: archive.read(name) for name in archive.namelist() if "_0500" not in name}
        settings = self.from_mirror(
            {**recorded, "grabbed_data7.zip": real_archives.zipped(members)}, tmp_path, monkeypatch
        )
        with pytest.raises(UserError, match=r"found 9999 of 10000 .*; missing are mnist_7_scale04_0500\.aedat"):
            PLUGIN.load(settings)


def test_the_archives_are_ten_with_their_published_hashes() -> None:
    files = SOURCES["mnist-dvs"].files
    assert [file.name for file in files] == [f"grabbed_data{digit}.zip" for digit in range(10)]
    assert sum(file.size for file in files) == 6_205_980_609
    assert all(len(file.sha256) == 64 for file in files)
    assert dataclasses.replace(files[0], sha256="").digest == "451c1d2f6b195ce96d1dd478ee8aaf6e"
