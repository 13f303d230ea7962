from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spikebench import seeds
from spikebench.errors import UserError
from spikebench.events import EVENT, aedat, files

COUNT = 400  # events a recording
SPAN = 100_000  # us


def some_events(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(COUNT, EVENT)
    events["t"] = np.sort(rng.integers(0, SPAN, COUNT))
    events["t"][[0, -1]] = 0, SPAN
    events["x"], events["y"] = rng.integers(0, 128, (2, COUNT))
    events["p"] = rng.integers(0, 2, COUNT)
    return events


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of both data sets, half of the folders one level deeper; a class has one content.

    They are made in falling order, so that no folder lists them in the right one by itself.
    """
    root = tmp_path_factory.mktemp("archives")
    for label in range(10):
        content = aedat.encode(some_events(label))
        deeper = Path("unpacked") if label % 2 else Path()
        digits = root / "MNISTDVS" / deeper / f"grabbed_data{label}"
        objects = root / "CIFAR10DVS" / deeper / files.OBJECTS[label]
        for folder in (digits / "scale4", digits / "scale16", objects):
            folder.mkdir(parents=True)
        (digits / "scale16" / f"mnist_{label}_scale16_0001.aedat").write_bytes(b"another scale")
        for number in range(1000, 0, -1):
            (digits / "scale4" / f"mnist_{label}_scale04_{number:04d}.aedat").write_bytes(content)
            (objects / f"cifar10_{files.OBJECTS[label]}_{number - 1}.aedat").write_bytes(content)
    return root


def test_files_come_by_class_and_number(archives):
    digits = files.mnist_dvs_files(archives, "scale4")
    assert [file[1:] for file in digits] == [(d, n) for d in range(10) for n in range(1, 1001)]
    assert [file.path.name for file in digits[998:1001]] == [
        "mnist_0_scale04_0999.aedat",
        "mnist_0_scale04_1000.aedat",
        "mnist_1_scale04_0001.aedat",
    ]
    assert digits == files.mnist_dvs_files(str(archives), 4)
    objects = files.cifar10_dvs_files(archives)
    assert [file[1:] for file in objects] == [(c, n) for c in range(10) for n in range(1000)]
    assert objects[2010].path.name == "cifar10_bird_10.aedat"


def test_missing_and_doubled_files_are_clear_errors(archives, tmp_path):
    with pytest.raises(
        UserError, match=r"MNIST-DVS at scale 16: found 10 of 10000 .*; missing are mnist_0_scale16_0002"
    ):
        files.mnist_dvs_files(archives, 16)
    with pytest.raises(
        UserError, match=r"CIFAR10-DVS: found 0 of 10000 recordings below .*none; missing are .*, \.\.\.:"
    ):
        files.cifar10_dvs_files(tmp_path / "none")
    path = files.cifar10_dvs_files(archives)[3007].path
    moved = path.rename(tmp_path / path.name)
    try:
        with pytest.raises(UserError, match=r"found 9999 of 10000 .*; missing are cifar10_cat_7\.aedat: unpack"):
            files.cifar10_dvs_files(archives)
    finally:
        moved.rename(path)
    second = archives / "a copy" / path.name
    second.parent.mkdir()
    second.write_bytes(b"")
    try:
        with pytest.raises(UserError, match=r"CIFAR10-DVS: found cifar10_cat_7\.aedat twice, expected it once"):
            files.cifar10_dvs_files(archives)
    finally:
        second.unlink()


@pytest.mark.parametrize(
    ("split", "first", "sha256"),
    [
        (files.mnist_dvs_split(), 1, "02e0440bc98b27b27cce316bf0c460a53bd1d2495056c4f0b45c571ae9d1822d"),
        (files.cifar10_dvs_split("first900"), 0, "a76846234b99819cee057c57f5682c0baf35cef3cdccb894ebcf49a82bafa831"),
        (files.cifar10_dvs_split("random90"), 0, "a60a23fba2163a476269e0c5e28b51832e16bb0510b55498092048a022fdcd84"),
    ],
)
def test_splits_are_disjoint_complete_and_as_published(split, first, sha256):
    for train, test in zip(split.train, split.test, strict=True):
        assert (len(train), len(test)) == (900, 100)
        assert sorted(train + test) == list(range(first, first + 1000))
        assert sorted(train) == list(train) and sorted(test) == list(test)
    assert len(split.train) == 10
    assert split.sha256 == sha256


def test_named_splits_are_what_their_names_say(monkeypatch):
    assert files.mnist_dvs_split().test == (tuple(range(901, 1001)),) * 10
    assert files.cifar10_dvs_split("first900").test == (tuple(range(900, 1000)),) * 10
    test = files.cifar10_dvs_split("random90").test
    for label, numbers in enumerate(test):
        drawn = sorted(range(1000), key=lambda n: seeds.digest(["cifar10-dvs-random90-v1", label, n], 64))[:100]
        assert sorted(drawn) == list(numbers)
    assert len(set(test)) == 10
    with pytest.raises(UserError, match="split: found 'random', allowed: first900, random90"):
        files.cifar10_dvs_split("random")
    files.cifar10_dvs_split.cache_clear()
    monkeypatch.setattr(files, "RANDOM90_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"random90_v1\.json: found sha256 [0-9a-f]{64}, expected 0{64}"):
        files.cifar10_dvs_split("random90")


def test_data_sets_have_tonics_conventions_and_the_splits(archives):
    from spikebench.events.recordings import CIFAR10DVS, MNISTDVS

    for data, classes in (
        (MNISTDVS(str(archives)), files.DIGITS),
        (MNISTDVS(str(archives), train=False, scale=4), files.DIGITS),
        (CIFAR10DVS(str(archives), split="first900"), files.OBJECTS),
        (CIFAR10DVS(str(archives), train=False), files.OBJECTS),
    ):
        size = 900 if data.train else 100
        assert len(data) == len(data.data) == 10 * size
        assert data.targets == [label for label in range(10) for _ in range(size)]
        assert (data.sensor_size, data.dtype, data.ordering) == ((128, 128, 2), EVENT, ("t", "x", "y", "p"))
        assert data.classes == classes and data._check_exists()
        events, target = data[size]
        assert target == 1 and events.tolist() == some_events(1).tolist()
        with pytest.raises(IndexError):
            data[10 * size]
    test = files.cifar10_dvs_split("random90").test
    names = [f"cifar10_{files.OBJECTS[label]}_{n}.aedat" for label in range(10) for n in test[label]]
    assert [Path(path).name for path in data.data] == names
    upside = MNISTDVS(str(archives), orientation="raw")[0][0]
    assert (upside["x"] == 127 - some_events(0)["y"]).all()


def test_missing_recordings_end_in_one_sentence(tmp_path):
    from spikebench.events.recordings import MNISTDVS

    with pytest.raises(UserError, match=r"found 0 of 10000 recordings below .*MNISTDVS"):
        MNISTDVS(str(tmp_path))


def test_tonics_transforms_work_on_items(archives):
    from tonic import transforms

    from spikebench.events.recordings import MNISTDVS

    def item(transform):
        return MNISTDVS(str(archives), train=False, transform=transform)[0][0]

    events, size = some_events(0), (128, 128, 2)
    frames = item(transforms.ToFrame(sensor_size=size, time_window=10_000))
    expected = np.zeros((11, 2, 128, 128))
    np.add.at(expected, (events["t"] // 10_000, events["p"], events["y"], events["x"]), 1)
    assert (frames == expected[:10]).all()  # tonic leaves out the event at the very end
    assert item(transforms.ToFrame(sensor_size=size, n_time_bins=5)).shape == (5, 2, 128, 128)
    half = item(transforms.Downsample(spatial_factor=0.5))
    assert (half["x"] == events["x"] // 2).all() and (half["y"] == events["y"] // 2).all()
    inside = (abs(events["x"] - 63.5) < 32) & (abs(events["y"] - 63.5) < 32)
    assert len(item(transforms.CenterCrop(sensor_size=size, size=(64, 64)))) == inside.sum()
    assert (item(transforms.CropTime(max=50_000)) == events[events["t"] <= 50_000]).all()
    both = MNISTDVS(
        str(archives), target_transform=lambda label: -label, transforms=lambda e, label: (len(e), label - 1)
    )
    assert both[901] == (COUNT, -2)


def test_tonics_slicer_and_cache_come_to_an_end(archives, tmp_path):
    from tonic import DiskCachedDataset, SlicedDataset
    from tonic.slicers import SliceByTime

    from spikebench.events.recordings import CIFAR10DVS

    data = CIFAR10DVS(str(archives), train=False)
    assert sum(1 for _ in itertools.islice(data, 2000)) == len(data) == 1000  # without an end, SlicedDataset hangs
    sliced = SlicedDataset(data, slicer=SliceByTime(time_window=SPAN // 2))
    assert len(sliced) == 2000
    first, target = sliced[1998]
    assert target == 9 and (first == some_events(9)[: len(first)]).all()
    cached = DiskCachedDataset(data, cache_path=str(tmp_path))
    assert cached[0][0].tolist() == cached[0][0].tolist() == some_events(0).tolist()


def test_files_and_splits_are_found_without_tonic():
    code = "import sys; from spikebench.events import aedat, files; sys.exit('tonic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
