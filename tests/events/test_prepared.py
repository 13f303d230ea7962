"""Recordings become frames on disk, a class a file: resumed, hashed, divided; the statistics are worked out by hand."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikebench.data import DataSettings, Provenance, SpikeData, Stored, dense
from spikebench.errors import Unavailable, UserError
from spikebench.events import EVENT, prepared
from spikebench.events.binning import Binning, bin_events
from spikebench.events.prepared import Item, Recordings, first_of_each, load, prepare, statistics

SOURCE = Provenance("toy-sim", "simulated", "a test", "", "none", "nobody")
CLASSES = ("a", "b", "c")
#: Numbers of each class: training 1 to 6, testing 11 to 13.
TRAINING = [Item(label, number) for label in range(3) for number in range(1, 7)]
TEST = [Item(label, number) for label in range(3) for number in range(11, 14)]


def event(t: int, x: int, y: int, p: int) -> np.ndarray:
    return np.array([(t, x, y, p)], EVENT)


def record(item: Item) -> np.ndarray:
    """Random events, more the higher the number, and one that says who it is: column is number, row is label."""
    rng = np.random.default_rng([item.label, item.number])
    events = np.zeros(10 * item.number, EVENT)
    events["t"] = np.sort(rng.integers(0, 1000, len(events)))
    events["x"], events["y"] = rng.integers(20, 128, (2, len(events)))
    events["p"] = rng.integers(0, 2, len(events))
    return np.concatenate([event(0, item.number, item.label, 1), events])


def recordings(made: Callable[[Item], np.ndarray] = record, **changes: Any) -> Recordings:
    return replace(
        Recordings(
            name="toy",
            training=TRAINING,
            test=TEST,
            record=made,
            binning=Binning(bins=4, span_us=1000),
            duration_us=1000,
            provenance=SOURCE,
            classes=CLASSES,
        ),
        **changes,
    )


def who(inputs: torch.Tensor | Stored) -> list[Item]:
    """Which recordings these are [N, T, 2 x 128 x 128 + 1]: the pixel that says so, ON, in the first frame."""
    frames = dense(inputs)[:, 0, :-1].reshape(-1, 2, 128, 128)[:, 1, :3, :20]
    return [Item(int(place[0]), int(place[1])) for frame in frames for place in frame.nonzero()]


def members(data: SpikeData) -> dict[str, list[Item]]:
    return {part: who(getattr(data, part).inputs) for part in ("train", "validation", "test")}


def frames_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


def unstamped(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without the times of the files."""
    parts = [{key: value for key, value in part.items() if key != "stamp"} for part in manifest["parts"]]
    return {**manifest, "parts": parts}


class TestPreparing:
    def test_a_class_is_a_file_and_the_manifest_has_their_hashes(self, tmp_path: Path) -> None:
        said: list[str] = []
        manifest = prepare(recordings(), tmp_path, say=said.append)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            f"class-{label:02d}.{kind}" for label in range(3) for kind in ("json", "npy")
        ]
        hashes = [hashlib.sha256((tmp_path / f"class-{i:02d}.npy").read_bytes()).hexdigest() for i in range(3)]
        assert [part["sha256"] for part in manifest["parts"]] == hashes
        assert manifest["sha256"] == hashlib.sha256("".join(hashes).encode()).hexdigest()
        assert manifest["shape"] == [4, 2, 128, 128]
        assert [part["numbers"] for part in manifest["parts"]] == [[1, 2, 3, 4, 5, 6, 11, 12, 13]] * 3
        assert [json.loads((tmp_path / f"class-{i:02d}.json").read_text()) for i in range(3)] == manifest["parts"]
        # (1 + 10 n events, n = 1 to 6 and 11 to 13)
        assert [sentence.rsplit(",", 1)[0] for sentence in said] == [
            f"{name}: 9 recordings, 64 events each" for name in CLASSES
        ]

    def test_frames_are_those_of_the_events(self, tmp_path: Path) -> None:
        prepare(recordings(), tmp_path)
        packed = np.load(tmp_path / "class-01.npy", allow_pickle=False)
        for row, item in enumerate(item for item in (*TRAINING, *TEST) if item.label == 1):
            expected = bin_events(record(item), recordings().binning)
            assert np.array_equal(np.unpackbits(packed[row]), expected.ravel())

    def test_the_bits_do_not_depend_on_the_number_of_workers_or_the_order_they_end_in(self, tmp_path: Path) -> None:
        gate = threading.Barrier(2, timeout=10)

        def together(item: Item) -> np.ndarray:
            if item.number in (1, 2):
                gate.wait()  # two threads are in here at once, or this fails
            return record(item)

        one = prepare(recordings(), tmp_path / "1", workers=1)
        two = prepare(recordings(together), tmp_path / "2", workers=2)
        many = prepare(recordings(), tmp_path / "7", workers=7)
        assert unstamped(one) == unstamped(two) == unstamped(many)
        assert frames_in(tmp_path / "1") == frames_in(tmp_path / "2") == frames_in(tmp_path / "7")

    def test_what_was_cut_off_goes_on_with_the_class_it_was_at(self, tmp_path: Path) -> None:
        whole = prepare(recordings(), tmp_path / "whole")
        asked: list[Item] = []

        def breaking(item: Item) -> np.ndarray:
            asked.append(item)
            if item == Item(1, 5):
                raise KeyboardInterrupt
            return record(item)

        folder = tmp_path / "cut"
        with pytest.raises(KeyboardInterrupt):
            prepare(recordings(breaking), folder)
        found = sorted(path.name for path in folder.iterdir())
        assert found == ["class-00.json", "class-00.npy"], "the first class, whole; of the second nothing"
        kept = (folder / "class-00.npy").stat().st_mtime_ns
        asked.clear()

        def noting(item: Item) -> np.ndarray:
            asked.append(item)
            return record(item)

        assert unstamped(prepare(recordings(noting), folder)) == unstamped(whole)
        assert {item.label for item in asked} == {1, 2}
        assert len(asked) == 18
        assert (folder / "class-00.npy").stat().st_mtime_ns == kept
        assert frames_in(folder) == frames_in(tmp_path / "whole")

    @pytest.mark.parametrize("damage", ["no description", "half a description", "half of it", "another time", "gone"])
    def test_what_is_not_as_it_was_written_is_made_again_and_nothing_else(self, tmp_path: Path, damage: str) -> None:
        """The description is written last, with size and time of the frames: it tells whether they are whole."""
        whole = prepare(recordings(), tmp_path)
        frames, description = tmp_path / "class-02.npy", tmp_path / "class-02.json"
        before = frames.read_bytes()
        if damage == "no description":
            description.unlink()
        elif damage == "half a description":
            description.write_text(description.read_text()[:50])
        elif damage == "half of it":
            frames.write_bytes(before[:1000])
        elif damage == "another time":
            os.utime(frames, ns=(5, 5))
        else:
            frames.unlink()
        asked: set[int] = set()

        def noting(item: Item) -> np.ndarray:
            asked.add(item.label)
            return record(item)

        assert unstamped(prepare(recordings(noting), tmp_path)) == unstamped(whole)
        assert asked == {2}
        assert frames.read_bytes() == before

    def test_what_is_ready_is_not_touched(self, tmp_path: Path) -> None:
        def never(item: Item) -> np.ndarray:
            raise AssertionError(item)

        whole = prepare(recordings(), tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert prepare(recordings(never), tmp_path) == whole
        assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before

    def test_what_a_recording_raises_is_raised(self, tmp_path: Path) -> None:
        def gone(item: Item) -> np.ndarray:
            raise Unavailable("the archive is not here")

        with pytest.raises(Unavailable, match="the archive is not here"):
            prepare(recordings(gone), tmp_path, workers=2)
        assert not list(tmp_path.glob("*.*")), "nothing half done is left"

    def test_few_recordings_are_held_at_a_time(self, tmp_path: Path) -> None:
        """Filming is faster than writing: it waits."""
        ahead, most = 0, 0
        lock = threading.Lock()
        items = [Item(0, n) for n in range(100)]

        def counting(item: Item) -> np.ndarray:
            nonlocal ahead, most
            with lock:
                ahead += 1
                most = max(most, ahead)
            return event(0, 0, 0, 1)

        def binned(*arguments: Any) -> np.ndarray:
            return bin_events(*arguments)

        original = prepared.write_part

        def slow(path: Path, frames: Any) -> str:
            def taken() -> Any:
                nonlocal ahead
                for frame in frames:
                    with lock:
                        ahead -= 1
                    yield frame

            return original(path, taken())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prepared, "write_part", slow)
            one_class = recordings(counting, training=items, test=[], classes=("a",))
            prepare(one_class, tmp_path, workers=2)
        assert most <= 2 * 8 * 2


class TestNumbers:
    """Two recordings: three events at 0, 100 and 900 us, two of them ON; and one event, OFF, outside the crop."""

    def made(self, item: Item) -> np.ndarray:
        if item.number == 1:
            return np.concatenate([event(0, 10, 10, 1), event(100, 11, 10, 1), event(900, 12, 10, 0)])
        return event(500, 90, 90, 0)

    def manifest(self, folder: Path, **changes: Any) -> dict[str, Any]:
        items = [Item(0, 1), Item(0, 2)]
        binning = Binning(bins=2, span_us=800, crop=(8, 8, 4, 4))
        given = {"training": items, "test": [], "classes": ("a",), "binning": binning, "duration_us": 1000}
        return prepare(recordings(self.made, **{**given, **changes}), folder)

    def test_of_each_recording(self, tmp_path: Path) -> None:
        (part,) = self.manifest(tmp_path)["parts"]
        assert part["events"] == [3, 1]
        assert part["on_share"] == [0.66667, 0.0]
        assert part["kept"] == [0.66667, 0.0], "the third is too late and outside, the fourth outside"
        assert part["shape"] == [2, 2, 4, 4]

    def test_the_rate_over_time_is_of_an_average_recording(self, tmp_path: Path) -> None:
        """Fifty bins of 20 us: one event in bins 0, 5, 25 and 45, in two recordings, is 1 / 2 / 20 us."""
        rate = np.array(self.manifest(tmp_path)["parts"][0]["rate"])
        assert np.flatnonzero(rate).tolist() == [0, 5, 25, 45]
        assert rate[[0, 5, 25, 45]].tolist() == [25_000.0] * 4

    def test_events_after_the_usual_duration_are_no_rate(self, tmp_path: Path) -> None:
        rate = np.array(self.manifest(tmp_path, duration_us=500)["parts"][0]["rate"])
        assert np.flatnonzero(rate).tolist() == [0, 10], "those at 500 and 900 us come after the end"

    def test_of_a_class(self, tmp_path: Path) -> None:
        (line,) = statistics(self.manifest(tmp_path), ["zero"])
        assert line == {
            "class": "zero",
            "recordings": 2,
            "events a recording": 2.0,
            "ON share": pytest.approx(1 / 3, abs=1e-5),
            "kept share": pytest.approx(1 / 3, abs=1e-5),
        }

    def test_a_recording_without_events_has_no_on_share(self, tmp_path: Path) -> None:
        items = [Item(0, 1), Item(0, 2)]
        none = lambda item: np.zeros(0, EVENT) if item.number == 2 else event(0, 9, 9, 1)  # noqa: E731
        manifest = prepare(recordings(none, training=items, test=[], classes=("a",)), tmp_path)
        assert manifest["parts"][0]["on_share"] == [1.0, None]
        assert manifest["parts"][0]["events"] == [1, 0]
        assert statistics(manifest, ["a"])[0]["ON share"] == 1.0
        json.loads((tmp_path / "class-00.json").read_text(), parse_constant=pytest.fail)


class TestLoading:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("toy")
        prepare(recordings(), folder)
        return folder

    def test_inputs_are_the_frames_with_a_constant_line(self, folder: Path) -> None:
        data = load(recordings(), folder, 1, None)
        assert isinstance(data.train.inputs, Stored)
        assert data.train.inputs.shape == (14, 4, 2 * 128 * 128 + 1)
        shown = data.train.inputs.load()
        assert shown[..., -1].eq(1).all()
        for example, item in zip(shown, who(data.train.inputs), strict=True):
            expected = bin_events(record(item), recordings().binning).reshape(4, -1)
            assert torch.equal(example[:, :-1], torch.from_numpy(expected).float())
        assert data.layout == (2, 128, 128)
        assert data.binary_inputs

    def test_counts_are_no_spikes(self, tmp_path: Path) -> None:
        counting = recordings(binning=Binning(bins=1, span_us=1000, binary=False, polarity=False, size=(2, 2)))
        data = load(counting, tmp_path, 1, None)
        assert not data.binary_inputs
        assert data.test.inputs.shape == (9, 1, 5)
        totals = dense(data.test.inputs)[..., :-1].sum(dim=(1, 2))
        assert sorted(totals.tolist()) == sorted([111, 121, 131] * 3), "every event is counted"

    def test_training_recordings_are_learnt_from_and_test_recordings_are_not(self, folder: Path) -> None:
        parts = members(load(recordings(), folder, 1, None))
        assert sorted(parts["train"] + parts["validation"]) == sorted(TRAINING)
        assert sorted(parts["test"]) == sorted(TEST)
        assert len(parts["validation"]) == round(0.2 * 18)

    def test_targets_belong_to_their_recordings(self, folder: Path) -> None:
        data = load(recordings(), folder, 5, 9)
        for part, items in members(data).items():
            assert getattr(data, part).targets.tolist() == [item.label for item in items]

    def test_learners_are_nested_and_the_test_recordings_always_the_same(self, folder: Path) -> None:
        sets = [members(load(recordings(), folder, seed, size)) for seed in (1, 2) for size in (6, 9, 18)]
        learners = [set(parts["train"] + parts["validation"]) for parts in sets]
        for of_seed in (learners[:3], learners[3:]):
            assert [len(learner) for learner in of_seed] == [6, 9, 18]
            assert all(small < large for small, large in pairwise(of_seed))
        assert learners[1] != learners[4], "another seed, other recordings"
        assert {tuple(parts["test"]) for parts in sets} == {tuple(sets[0]["test"])}, "in the same order too"

    def test_the_split_hash_does_not_depend_on_what_else_was_prepared(self, folder: Path, tmp_path: Path) -> None:
        """Row numbers on disk do: here four more recordings of each class lie before those of the test."""
        more = recordings(test=[*(Item(label, n) for label in range(3) for n in range(7, 11)), *TEST])
        prepare(more, tmp_path)
        ours, theirs = load(recordings(), folder, 1, 9), load(recordings(), tmp_path, 1, 9)
        assert ours.split_sha256 == theirs.split_sha256
        assert members(ours) == members(theirs)
        hashes = {load(recordings(), folder, s, n).split_sha256 for s in (1, 2) for n in (9, 10)}
        assert len(hashes) == 4

    def test_the_provenance_has_the_hash_of_the_frames(self, folder: Path) -> None:
        manifest = prepare(recordings(), folder)
        provenance = load(recordings(), folder, 1, None).provenance
        assert provenance == replace(SOURCE, sha256=manifest["sha256"])

    def test_too_many_are_unavailable(self, folder: Path) -> None:
        with pytest.raises(Unavailable, match="toy has 18 training examples, 19 were asked for"):
            load(recordings(), folder, 1, 19)

    def test_what_was_not_prepared_is_prepared(self, folder: Path, tmp_path: Path) -> None:
        assert members(load(recordings(), tmp_path, 1, 9)) == members(load(recordings(), folder, 1, 9))
        assert frames_in(tmp_path) == frames_in(folder)

    def test_counts_become_currents_by_a_scale_and_the_constant_line_stays(self, tmp_path: Path) -> None:
        counting = recordings(binning=Binning(bins=1, span_us=1000, binary=False, size=(4, 4)))
        plain = load(counting, tmp_path, 1, None)
        scaled = load(replace(counting, scale=0.25), tmp_path, 1, None)
        assert torch.equal(dense(scaled.test.inputs)[..., :-1], 0.25 * dense(plain.test.inputs)[..., :-1])
        assert dense(scaled.test.inputs)[..., -1].eq(1).all()


def test_the_first_of_each_class_come_as_evenly_as_they_can() -> None:
    numbers = [(1, 2, 3), (5, 6, 9), (0, 4, 8)]
    assert first_of_each(numbers, 3) == [Item(0, 1), Item(1, 5), Item(2, 0)]
    assert first_of_each(numbers, 5) == [Item(0, 1), Item(0, 2), Item(1, 5), Item(1, 6), Item(2, 0)]
    assert first_of_each(numbers, 9) == [Item(c, n) for c, of_class in enumerate(numbers) for n in of_class]
    with pytest.raises(Unavailable, match="class 0 has 3 recordings, 4 were asked for"):
        first_of_each(numbers, 10)
    with pytest.raises(UserError, match="found 2 recordings, allowed: at least one of each of 3 classes"):
        first_of_each(numbers, 2)


class TestFolder:
    @dataclass(frozen=True)
    class Settings(DataSettings):
        bins: int = 10

    @pytest.fixture
    def plugin(self, tmp_path: Path, own_store: Path) -> Path:
        path = tmp_path / "toy.py"
        path.write_text('"""A data set."""\nBINS = 10\n')
        return path

    def name(self, plugin: Path, **settings: Any) -> str:
        given = {"kind": "simulated", "source": "mnist", **settings}
        return prepared.folder(str(plugin), self.Settings(**given)).name

    def test_it_lies_in_the_store(self, plugin: Path, own_store: Path) -> None:
        place = prepared.folder(str(plugin), self.Settings(kind="simulated", source="mnist"))
        assert place.parent == own_store / "prepared"
        assert place.name.startswith("toy-simulated-")

    def test_it_is_named_after_all_that_frames_depend_on(self, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [self.name(plugin), self.name(plugin, bins=20), self.name(plugin, kind="real")]
        names.append(self.name(plugin, source="cifar10"))
        plugin.write_text(plugin.read_text().replace("BINS = 10", "BINS = 11"))
        os.utime(plugin, ns=(1, 1))
        names.append(self.name(plugin))
        monkeypatch.setattr(prepared, "engine_fingerprint", lambda recordings: "another")
        names.append(self.name(plugin))
        assert len(set(names)) == 6

    def test_but_not_after_which_of_them_a_learner_gets_nor_after_comments(self, plugin: Path) -> None:
        name = self.name(plugin)
        assert self.name(plugin, split_seed=9, training_size=7) == name
        plugin.write_text('"""Another text."""\n# A comment.\nBINS = 10\n')
        os.utime(plugin, ns=(1, 1))
        assert self.name(plugin) == name
