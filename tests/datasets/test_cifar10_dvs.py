"""CIFAR10-DVS as its authors recorded it, and as the camera model films CIFAR-10 or its beginning."""

from __future__ import annotations

import hashlib
import json
import threading
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
from spikebench.data import SpikeData, dense
from spikebench.errors import Unavailable, UserError
from spikebench.events import camera, files, prepared
from spikebench.events.binning import Binning, bin_events, kept_share
from spikebench.events.prepared import Item
from spikebench.preparation import DataJob
from spikebench.seeds import seed
from spikebench.store import files_of
from spikebench.sweep import Cell
from spikebench.training import Work

PLUGIN = plugins.load("datasets", "cifar10_dvs")
SUBSET = "cifar10-subset-4000"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """The plug-in remembers a source's images, which differ from test to test."""
    yield
    PLUGIN._images.cache_clear()


def fingerprint(frames: np.ndarray) -> str:
    return hashlib.sha256(frames.tobytes()).hexdigest()


class TestSimulated:
    @pytest.fixture(autouse=True)
    def with_images(self, own_store: Path) -> None:
        archive_store.link(own_store, SUBSET)

    def settings(self, **changes: Any) -> Any:
        return PLUGIN.Settings(**{"training": 10, "test": 10, "kind": "simulated", "source": SUBSET, **changes})

    def numbers(self, settings: Any, part: str) -> dict[int, list[int]]:
        """Class to numbers of its recordings."""
        items = getattr(PLUGIN.recordings(settings), part)
        return {label: [item.number for item in items if item.label == label] for label in range(10)}

    def test_the_same_bits_every_time(self, own_store: Path) -> None:
        folders = []
        for workers in (1, 3):
            folder = PLUGIN.prepare(self.settings(), workers, lambda sentence: None)
            folders.append(folder.rename(own_store / f"made-by-{workers}"))
        first, second = ({path.name: path.read_bytes() for path in folder.glob("*.npy")} for folder in folders)
        assert first == second
        assert len(first) == 10

    def test_training_recordings_show_the_training_part_and_test_recordings_the_test_part(self) -> None:
        data = PLUGIN.load(self.settings(training=20, binary=True))
        whole = images.cifar10(SUBSET, files_of(SUBSET))
        parts = [
            (data.labelled, whole.train, whole.train_labels, (0, 1)),
            (data.test, whole.test, whole.test_labels, (900,)),
        ]
        for split, pictures, labels, numbers in parts:
            expected = {}
            for label in range(10):
                for k, number in enumerate(numbers):
                    picture = pictures[np.flatnonzero(labels == label)[k]]
                    bits = seed(purpose="camera", dataset="cifar10_dvs", source=SUBSET, label=label, number=number)
                    frames = bin_events(camera.cifar10_dvs(picture, bits), Binning(10, 1_300_000, size=(48, 48)))
                    expected[fingerprint(frames.astype(np.float32))] = label
            found = [fingerprint(example.numpy()) for example in dense(split.inputs)[..., :-1]]
            assert len(found) == len(expected)
            assert [expected[example] for example in found] == split.targets.tolist()

    def test_its_name_says_that_it_is_simulated_from_what_and_by_which_split(self) -> None:
        provenance = PLUGIN.load(self.settings()).provenance
        assert provenance.name == "CIFAR10-DVS-sim from cifar10-subset-4000, split first900"
        assert provenance.kind == "simulated"
        assert provenance.source.endswith("before images of cifar10-subset-4000")
        assert PLUGIN.recordings(self.settings(split="random90")).provenance.name.endswith(", split random90")
        assert PLUGIN.load(self.settings()).classes == files.OBJECTS == images.CIFAR10_CLASSES

    def test_only_numbers_that_an_image_stands_behind_are_recorded(self) -> None:
        """Class 1 has 366 training and 89 test images here: numbers 0 to 365 and 900 to 988."""
        whole = images.cifar10(SUBSET, files_of(SUBSET))
        fewest = int(np.bincount(whole.train_labels).min())
        assert fewest == 366
        settings = self.settings(training=10 * fewest, test=860)
        assert self.numbers(settings, "training")[1] == list(range(366))
        assert self.numbers(settings, "test")[1] == list(range(900, 986))
        for changes, sentence in (
            ({"training": 10 * fewest + 2}, "class 1 has 366 recordings, 367 were asked for"),
            ({"test": 870}, "class 5 has 86 recordings, 87 were asked for"),
        ):
            with pytest.raises(Unavailable, match=sentence):
                PLUGIN.recordings(self.settings(**changes))

    def test_the_drawn_split_keeps_its_numbers_apart(self) -> None:
        settings = self.settings(split="random90", training=3000, test=300)
        training, test = (self.numbers(settings, part) for part in ("training", "test"))
        published = files.cifar10_dvs_split("random90")
        for label in range(10):
            assert not set(training[label]) & set(test[label])
            assert set(training[label]) <= set(published.train[label])
            assert set(test[label]) <= set(published.test[label])
            assert (len(training[label]), len(test[label])) == (300, 30)

    @pytest.mark.parametrize(
        ("changes", "layout", "steps"),
        [
            ({}, (2, 48, 48), 10),
            ({"equal": "count", "bins": 4, "side": 32}, (2, 32, 32), 4),
            ({"binary": True, "side": 24}, (2, 24, 24), 10),
        ],
    )
    def test_frames_are_as_the_settings_say(self, changes: dict[str, Any], layout: tuple[int, ...], steps: int) -> None:
        data = PLUGIN.load(self.settings(**changes))
        assert data.layout == layout
        assert data.train.inputs.shape[1:] == (steps, int(np.prod(layout)) + 1)
        assert data.binary_inputs == changes.get("binary", False)
        inputs = dense(data.test.inputs)
        assert inputs[..., -1].eq(1).all(), "the constant line is not scaled"

    def test_counts_are_in_units_of_the_published_mean(self) -> None:
        """A recording of 205,071 events would have the value 1 on average, whatever the frames' size and number."""
        for changes in ({}, {"bins": 20, "side": 32}):
            settings = self.settings(**changes)
            data = PLUGIN.load(settings)
            recordings = PLUGIN.recordings(settings)
            events = [len(recordings.record(item)) for item in recordings.test]
            shares = [kept_share(recordings.record(item), recordings.binning) for item in recordings.test]
            expected = sorted(n * share / 205_071 for n, share in zip(events, shares, strict=True))
            found = dense(data.test.inputs)[..., :-1].double().mean(dim=(1, 2))
            assert sorted(found.tolist()) == pytest.approx(expected, rel=1e-5)
            assert 0.3 < float(found.mean()) < 2

    def test_bins_of_equal_counts_hold_equally_many_events(self) -> None:
        inputs = dense(PLUGIN.load(self.settings(equal="count", bins=4)).test.inputs)[..., :-1].double().sum(dim=2)
        torch.testing.assert_close(inputs, inputs[:, :1].expand(-1, 4), rtol=1e-5, atol=0)

    def test_what_is_not_known_is_named(self) -> None:
        for changes, sentence in (
            ({"equal": "area"}, "cifar10_dvs: equal: found 'area', allowed: duration, count"),
            ({"split": "random"}, "split: found 'random', allowed: first900, random90"),
        ):
            with pytest.raises(UserError, match=sentence):
                PLUGIN.recordings(self.settings(**changes))

    def test_the_full_set_needs_no_mention(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its images are those of the beginning here; the name is what counts."""
        monkeypatch.setattr(PLUGIN, "files_of", lambda source: files_of(SUBSET))
        monkeypatch.setattr(images, "cifar10", lambda source, paths: images.cifar_subset(paths[0]))
        provenance = PLUGIN.recordings(self.settings(source="cifar10")).provenance
        assert provenance.name == "CIFAR10-DVS-sim, split first900"


def hash_of_frames(job: DataJob) -> str:
    """The sha256 of the sha256 of all parts."""
    folder = prepared.folder(str(PLUGIN.__file__), PLUGIN.Settings(**job.loading))
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.npy"))]
    assert len(parts) == 10
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@pytest.fixture(scope="module")
def recorded() -> dict[str, bytes]:
    return real_archives.cifar10_dvs()


@pytest.fixture(scope="module")
def server(recorded: dict[str, bytes]) -> Iterator[Server]:
    with Server() as server:
        server.files = {f"/{name}": content for name, content in recorded.items()}
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.usefixtures("own_store")
def test_real_recordings_from_the_archives_to_a_trained_network(
    recorded: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPIKEBENCH_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    replace_source(monkeypatch, "cifar10-dvs", recorded, server.url(""))
    main = config.load(CHECKOUT)
    assert preparation.kind("cifar10_dvs", main) == "simulated"
    assert preparation.fetch_source("cifar10-dvs", main, "first") == "cifar10-dvs: verified"
    kind = preparation.kind("cifar10_dvs", main)
    source = preparation.source("cifar10_dvs", kind, main)
    assert (kind, source) == ("real", "cifar10-dvs")
    given = '{"binary":true,"split":"random90","test":20,"training":30}'
    job = preparation.data_job("cifar10_dvs", kind, source, given, main)
    assert preparation.make_ready(job, main, 2, "first") == "cifar10_dvs: ready"

    data: SpikeData = PLUGIN.load(PLUGIN.Settings(**job.loading))
    split = files.cifar10_dvs_split("random90")
    learners = real_archives.who(data.labelled.inputs, data.layout)
    assert sorted(learners) == [Item(c, n) for c in range(10) for n in split.train[c][:3]]
    tested = real_archives.who(data.test.inputs, data.layout)
    assert sorted(tested) == [Item(c, n) for c in range(10) for n in split.test[c][:2]]
    assert data.labelled.targets.tolist() == [item.label for item in learners]
    assert data.test.targets.tolist() == [item.label for item in tested]
    # The event of bit b comes after b tenths of the span: in bin b of ten.
    frames = dense(data.test.inputs)[..., :-1].reshape(-1, 10, 2, 48, 48)
    for row, item in enumerate(tested):
        times, places = frames[row, :, 1, item.label, :].nonzero().T
        assert torch.equal(times, places)
    assert data.provenance.name == "CIFAR10-DVS, split random90"
    assert data.provenance.kind == "real"
    assert data.provenance.sha256 == hash_of_frames(job)

    cell = Cell(
        experiment="toy", dataset="cifar10_dvs", data_kind=kind, data_settings='{"split":"random90"}',
        data_source=source, network='{"hidden":[16]}', method="backprop", mode="off-chip", variant="", settings="{}",
        fault="none", severity=0.0, training_size=30, repetition=0, preset="test",
    )  # fmt: skip
    (row_,) = training.train(Work([cell], {"steps": 5}, {cell.fault: {}}, CHECKOUT, json.loads(job.settings)))
    assert (row_["status"], row_["test_size"], row_["data_sha256"]) == ("ok", 20.0, data.provenance.sha256)


def test_the_archives_are_ten_with_their_published_hashes() -> None:
    archives = SOURCES["cifar10-dvs"].files
    assert [file.name for file in archives] == [f"{name}.zip" for name in files.OBJECTS]
    assert sum(file.size for file in archives) == 8_384_751_365
    assert all(len(file.sha256) == 64 and len(file.md5) == 32 for file in archives)
    assert archives[0].md5 == "0afd5c4bf9ae06af762a77b180354fdd"
