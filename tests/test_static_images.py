"""Pictures as constant currents: which pictures, in which parts, and what a line carries."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from pathlib import Path

import archive_store
import numpy as np
import pytest
import torch
from fake_sources import mirror_of, replace_source
from project import CHECKOUT

from spikebench import config, images, plugins, preparation
from spikebench.data import Provenance, SpikeData, is_constant
from spikebench.errors import Unavailable
from spikebench.images import Images
from spikebench.static_images import PictureSettings, as_currents
from spikebench.store import files_of, identity

SOURCE = Provenance("toy", "real", "a test", "0", "none", "nobody")
#: Three classes, unequally many and in no order.
TRAIN, TEST = np.array([2, 0, 1, 0, 2, 2, 1, 0, 1, 0, 2, 1]), np.array([1, 0, 2, 0, 1, 2])


def numbered(labels: np.ndarray, first: int) -> np.ndarray:
    """Pictures [N, 2, 2] that say who they are: all pixels are the picture's number."""
    return np.broadcast_to((first + np.arange(len(labels)))[:, None, None], (len(labels), 2, 2)).astype(np.uint8)


PICTURES = Images(numbered(TRAIN, 0), TRAIN, numbered(TEST, 100), TEST)


def load(pictures: Images = PICTURES, **settings: int | None) -> SpikeData:
    given: dict[str, int | None] = {"training": 9, "test": 3, "steps": 4, "split_seed": 1, "training_size": None}
    return as_currents(pictures, ("a", "b", "c"), SOURCE, PictureSettings(**{**given, **settings}))


def numbers(part: torch.Tensor) -> list[int]:
    return (part[:, 0, 0] * 255).round().int().tolist()


def test_learners_see_the_first_of_each_class_of_the_training_part_and_are_tested_on_those_of_the_test_part() -> None:
    data = load()
    assert sorted(numbers(data.labelled.inputs)) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert sorted(numbers(load(training=4).labelled.inputs)) == [0, 1, 2, 3], "the first class has one more"
    assert sorted(numbers(data.test.inputs)) == [100, 101, 102]
    assert sorted(numbers(load(test=5).test.inputs)) == [100, 101, 102, 103, 104]
    for part in (data.train, data.validation, data.test):
        places = numbers(part.inputs)
        assert part.targets.tolist() == [(TEST[n - 100] if n >= 100 else TRAIN[n]) for n in places]


def test_smaller_training_sets_are_nested_and_a_fifth_is_for_validation() -> None:
    sets = [load(training=12, training_size=n) for n in (6, 9, 12)]
    learners = [set(numbers(data.labelled.inputs)) for data in sets]
    assert [len(learner) for learner in learners] == [6, 9, 12]
    assert all(small < large for small, large in pairwise(learners))
    assert [len(data.validation.targets) for data in sets] == [2, 2, 2], "a fifth, at least two"
    assert len({data.split_sha256 for data in sets}) == 3
    assert len({load(split_seed=s).split_sha256 for s in range(4)}) == 4
    assert all(torch.equal(data.test.inputs, sets[0].test.inputs) for data in sets)


def test_a_line_carries_a_pixels_brightness_and_the_last_one_a_constant() -> None:
    pictures = PICTURES._replace(train=np.arange(12 * 6, dtype=np.uint8).reshape(12, 2, 3), test=numbered(TEST, 0))
    pictures = pictures._replace(test=np.zeros((6, 2, 3), np.uint8))
    data = load(pictures, training=12)
    assert data.labelled.inputs.shape == (12, 4, 7)
    assert is_constant(data.train.inputs) and is_constant(data.labelled.inputs)
    first = int(np.flatnonzero(np.array(numbers(data.labelled.inputs)) == 6)[0])
    expected = torch.tensor([6, 7, 8, 9, 10, 11, 255]) / 255
    assert torch.equal(data.labelled.inputs[first, 3], expected), "row by row"
    assert data.layout == (1, 2, 3)
    assert not data.binary_inputs


def test_colours_are_planes_one_after_the_other() -> None:
    colours = np.stack([np.full((12, 2, 2), value, np.uint8) for value in (10, 20, 30)], axis=-1)
    data = load(PICTURES._replace(train=colours, test=colours[:6]))
    assert (data.train.inputs[0, 0] * 255).round().tolist() == [10] * 4 + [20] * 4 + [30] * 4 + [255]
    assert data.layout == (3, 2, 2)


def test_more_than_there_are_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="toy has 9 training examples, 10 were asked for"):
        load(training_size=10)
    with pytest.raises(Unavailable, match="toy has 4 pictures of class 0, 5 were asked for"):
        load(training=13)
    with pytest.raises(Unavailable, match="toy has 2 pictures of class 0, 3 were asked for"):
        load(test=7)


class TestSets:
    def test_mnist(self, store: Path) -> None:
        archive_store.need("mnist")
        plugin = plugins.load("datasets", "mnist", CHECKOUT)
        data = plugin.load(plugin.Settings(training=30, test=20, source="mnist"))
        assert data.test.targets.tolist() == [label for label in range(10) for _ in range(2)]
        # The first test picture is a 7, and the first one of its class.
        whole = images.mnist(files_of("mnist"))
        expected = torch.from_numpy(whole.test[0].astype(np.float32).ravel() / 255)
        assert torch.equal(data.test.inputs[14, 0, :-1], expected)
        assert (data.provenance.name, data.provenance.sha256) == ("MNIST", identity("mnist"))
        assert data.layout == (1, 28, 28)

    def test_cifar10_says_when_it_is_only_its_beginning(self, store: Path) -> None:
        archive_store.need("cifar10-subset-4000")
        plugin = plugins.load("datasets", "cifar10", CHECKOUT)
        data = plugin.load(plugin.Settings(training=30, test=20, source="cifar10-subset-4000"))
        assert data.provenance.name == "cifar10-subset-4000"
        assert data.classes[6] == "frog"
        assert data.layout == (3, 32, 32)
        with pytest.raises(Unavailable, match="cifar10-subset-4000 has 396 pictures of class 0, 400 were asked for"):
            plugin.load(plugin.Settings(training=4000, test=20, source="cifar10-subset-4000"))

    @pytest.mark.parametrize(
        ("dataset", "label_bytes", "name"),
        [("cifar10", 1, "cifar-10-binary.tar.gz"), ("cifar100", 2, "cifar-100-binary.tar.gz")],
    )
    def test_the_binary_archives(
        self,
        dataset: str,
        label_bytes: int,
        name: str,
        own_store: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An archive like the real one, small: fetched out of a mirror folder, read and divided."""
        classes = {"cifar10": 10, "cifar100": 100}[dataset]
        rng = np.random.default_rng(0)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for member, each in (("data_batch_1.bin" if classes == 10 else "train.bin", 3), ("test_batch.bin", 2)):
                labels = np.tile(np.arange(classes), each)
                rows = np.zeros((len(labels), label_bytes + 3072), np.uint8)
                rows[:, label_bytes - 1] = labels
                rows[:, label_bytes:] = rng.integers(0, 256, (len(labels), 3072))
                header = tarfile.TarInfo(member)
                header.size = rows.nbytes
                archive.addfile(header, io.BytesIO(rows.tobytes()))
        replace_source(monkeypatch, dataset, {name: packed.getvalue()})
        monkeypatch.setenv("SPIKEBENCH_MIRROR", str(mirror_of(tmp_path / "mirror", {name: packed.getvalue()})))
        plugin = plugins.load("datasets", dataset, CHECKOUT)
        settings = plugin.Settings(training=2 * classes, test=classes, source=dataset)
        with pytest.raises(Unavailable, match=f"{dataset} has not been fetched"):
            plugin.load(settings)
        assert preparation.fetch_source(dataset, config.load(CHECKOUT), "first") == f"{dataset}: verified"
        data = plugin.load(settings)
        assert data.test.targets.tolist() == list(range(classes))
        assert data.labelled.targets.bincount().tolist() == [2] * classes
        assert (data.labelled.inputs[:, 0, :-1] * 255).round().sum() == _sum(packed, label_bytes, 2 * classes)
        assert data.provenance.name == {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[dataset]
        assert data.provenance.sha256 == identity(dataset)


def _sum(packed: io.BytesIO, label_bytes: int, pictures: int) -> int:
    """Of the pixels of the first training pictures."""
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        assert file is not None
        rows = np.frombuffer(file.read(), np.uint8).reshape(-1, label_bytes + 3072)
    return int(rows[:pictures, label_bytes:].astype(np.int64).sum())
