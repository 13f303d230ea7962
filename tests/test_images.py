"""Reading IDX and CIFAR's records: archives built by hand, damaged ones, and what is known of the real ones."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import archive_store
import numpy as np
import pytest

from spikebench import images
from spikebench.errors import UserError
from spikebench.store import files_of

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


class TestIdx:
    @pytest.mark.parametrize("shape", [(4, 3, 2), (7,), (1, 1, 1), (0, 28, 28)])
    def test_the_array_is_read_as_it_was_written(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        array = RNG.integers(0, 256, shape, dtype=np.uint8)
        found = images.read_idx(write(tmp_path, "x", idx(array)))
        assert found.dtype == np.uint8
        assert np.array_equal(found, array)

    def test_the_last_axis_is_the_columns(self, tmp_path: Path) -> None:
        content = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 20, 21, 22])
        assert images.read_idx(write(tmp_path, "x", content)).tolist() == [[[10, 11, 12], [20, 21, 22]]]

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"", r"found the first bytes , expected 00 00 08"),
            (b"\x1f\x8b\x08\x00" + bytes(30), r"found the first bytes 1f 8b 08 00, expected 00 00 08"),
            (b"\0\0\x0d\x01\0\0\0\x01" + bytes(4), r"found the first bytes 00 00 0d 01"),  # float32
            (idx(np.ones((4, 3)))[:-1], "found 23 bytes, expected 24 by its header"),
            (idx(np.ones((4, 3))) + b"\0", "found 25 bytes, expected 24 by its header"),
            (b"\0\0\x08\x03\0\0\0\x01", r"found 8 bytes, expected \d+ by its header"),  # of three dimensions one
            (b"\0\0\x08\xff", r"found 4 bytes, expected \d+ by its header"),
        ],
    )
    def test_a_damaged_file_is_refused(self, tmp_path: Path, content: bytes, sentence: str) -> None:
        with pytest.raises(UserError, match=f"train-labels: {sentence}"):
            images.read_idx(write(tmp_path, "train-labels", content))

    def test_mnist_is_four_files_known_by_their_names(self, tmp_path: Path) -> None:
        parts = {
            "train-images-idx3-ubyte": RNG.integers(0, 256, (6, 28, 28)),
            "train-labels-idx1-ubyte": RNG.integers(0, 10, 6),
            "t10k-images-idx3-ubyte": RNG.integers(0, 256, (2, 28, 28)),
            "t10k-labels-idx1-ubyte": RNG.integers(0, 10, 2),
        }
        files = [write(tmp_path, name, idx(array)) for name, array in parts.items()]
        found = images.mnist(files[::-1])
        for array, expected in zip(found, parts.values(), strict=True):
            assert np.array_equal(array, expected)
        assert found.train_labels.dtype == found.test_labels.dtype == np.int64


Parts = dict[str, tuple[np.ndarray, np.ndarray]]


def records(count: int, label_bytes: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N, label bytes] and pixels [N, 32, 32, 3]."""
    return RNG.integers(0, classes, (count, label_bytes)), RNG.integers(0, 256, (count, 32, 32, 3))


def as_bytes(labels: np.ndarray, pixels: np.ndarray) -> bytes:
    """The labels, then the red plane row by row, then green and blue; record after record."""
    planes = [pixels[..., channel].reshape(len(pixels), 1024) for channel in range(3)]
    return np.concatenate([labels, *planes], axis=1).astype(np.uint8).tobytes()


def tar(folder: Path, members: dict[str, bytes], name: str = "cifar.tar.gz") -> Path:
    with tarfile.open(folder / name, "w:gz") as archive:
        for member, content in members.items():
            header = tarfile.TarInfo(member)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return folder / name


@pytest.fixture
def ten() -> Parts:
    names = ("data_batch_1", "data_batch_2", "test_batch")
    return {name: records(n, 1) for name, n in zip(names, (3, 4, 2), strict=True)}


def members_of(parts: Parts) -> dict[str, bytes]:
    return {f"cifar-10-batches-bin/{name}.bin": as_bytes(*part) for name, part in parts.items()}


class TestCifar:
    def test_cifar10_is_its_batches_in_their_order_and_the_test_batch(self, tmp_path: Path, ten: Parts) -> None:
        other = {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", "cifar-10-batches-bin/readme.html": b"<html>"}
        path = tar(tmp_path, {**dict(list(members_of(ten).items())[::-1]), **other})
        found = images.cifar(path, label_bytes=1)
        train = [ten["data_batch_1"], ten["data_batch_2"]]
        assert np.array_equal(found.train, np.concatenate([pixels for _, pixels in train]))
        assert np.array_equal(found.train_labels, np.concatenate([labels[:, 0] for labels, _ in train]))
        assert np.array_equal(found.test, ten["test_batch"][1])
        assert np.array_equal(found.test_labels, ten["test_batch"][0][:, 0])
        assert (found.train.dtype, found.train_labels.dtype) == (np.uint8, np.int64)

    def test_cifar100_has_a_coarse_label_before_the_class(self, tmp_path: Path) -> None:
        parts = {"train": records(5, 2, 100), "test": records(3, 2, 100)}
        path = tar(tmp_path, {f"cifar-100-binary/{name}.bin": as_bytes(*part) for name, part in parts.items()})
        found = images.cifar(path, label_bytes=2)
        assert np.array_equal(found.train_labels, parts["train"][0][:, 1])
        assert np.array_equal(found.test_labels, parts["test"][0][:, 1])
        assert np.array_equal(found.train, parts["train"][1])

    def test_records_that_do_not_come_out_even_are_refused(self, tmp_path: Path, ten: Parts) -> None:
        members = members_of(ten)
        members["cifar-10-batches-bin/data_batch_2.bin"] += b"\0"
        with pytest.raises(
            UserError, match=r"cifar\.tar\.gz: .*data_batch_2\.bin: 12293 bytes are no multiple of 3073"
        ):
            images.cifar(tar(tmp_path, members), label_bytes=1)

    @pytest.mark.parametrize("missing", ["test_batch", "data_batch_1"])
    def test_an_archive_without_a_part_is_refused(self, tmp_path: Path, ten: Parts, missing: str) -> None:
        parts = {name: part for name, part in ten.items() if name[:4] != missing[:4]}
        with pytest.raises(UserError, match=r"cifar\.tar\.gz holds no data_batch_\*\.bin"):
            images.cifar(tar(tmp_path, members_of(parts)), label_bytes=1)

    def test_a_link_is_not_followed(self, tmp_path: Path, ten: Parts) -> None:
        (tmp_path / "secret.bin").write_bytes(as_bytes(*records(1, 1)))
        path = tmp_path / "cifar.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            content = as_bytes(*ten["test_batch"])
            header = tarfile.TarInfo("test_batch.bin")
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
            link = tarfile.TarInfo("data_batch_1.bin")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.bin")
            archive.addfile(link)
        with pytest.raises(UserError, match="holds no data_batch"):
            images.cifar(path, label_bytes=1)

    @pytest.mark.parametrize("where", ["empty", "html", "no tar", "cut off", "header", "middle"])
    def test_a_damaged_archive_is_one_sentence(self, tmp_path: Path, ten: Parts, where: str) -> None:
        whole = tar(tmp_path, members_of(ten)).read_bytes()
        middle = len(whole) // 2
        content = {
            "empty": b"",
            "html": b"<html>Not found</html>",
            "no tar": gzip.compress(b"hello" * 500),
            "cut off": whole[:middle],
            "header": whole[:40] + bytes(60) + whole[100:],
            "middle": whole[:middle] + bytes(50) + whole[middle + 50 :],
        }[where]
        path = write(tmp_path, "damaged.tar.gz", content)
        with pytest.raises(UserError, match=r"^damaged\.tar\.gz"):
            images.cifar(path, label_bytes=1)

    def test_a_turned_bit_is_one_sentence_or_does_not_matter(self, tmp_path: Path) -> None:
        """Nothing else comes out of gzip, zlib and tarfile. (That the bytes are right is for the hash to tell.)"""
        members = {
            name: as_bytes(*(a // 64 for a in records(20, 1))) for name in ("data_batch_1.bin", "test_batch.bin")
        }
        whole = tar(tmp_path, members).read_bytes()
        refused = 0
        for place in RNG.integers(0, len(whole), 150):
            content = bytearray(whole)
            content[place] ^= 1 << int(RNG.integers(8))
            try:
                images.cifar(write(tmp_path, "turned.tar.gz", bytes(content)), label_bytes=1)
            except UserError:
                refused += 1
        assert refused > 5


class TestSubset:
    def test_the_file_holds_four_arrays(self, tmp_path: Path) -> None:
        labels, pixels = records(4, 1)
        arrays = {"train_images": pixels[:3], "train_labels": labels[:3, 0], "test_images": pixels[3:]}
        np.savez(tmp_path / "some.npz", **arrays, test_labels=labels[3:, 0])
        found = images.cifar_subset(tmp_path / "some.npz")
        assert np.array_equal(found.train, pixels[:3])
        assert found.test_labels.tolist() == labels[3:, 0].tolist()
        assert found.train_labels.dtype == np.int64

    def test_pickled_objects_are_not_loaded(self, tmp_path: Path) -> None:
        objects = np.array([{"a": 1}], dtype=object)
        np.savez(tmp_path / "evil.npz", train_images=objects, train_labels=objects, test_images=objects)
        with pytest.raises(ValueError, match="allow_pickle=False"):
            images.cifar_subset(tmp_path / "evil.npz")


def test_positions_of_a_class_are_in_the_archives_order() -> None:
    found = images.by_class(np.array([2, 0, 2, 2, 1, 0]), 4)
    assert [places.tolist() for places in found] == [[1, 5], [4], [0, 2, 3], []]


class TestTheRealOnes:
    def test_mnist(self, store: Path) -> None:
        archive_store.need("mnist")
        found = images.mnist(files_of("mnist"))
        assert (found.train.shape, found.test.shape) == ((60_000, 28, 28), (10_000, 28, 28))
        assert found.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert found.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(found.train_labels).tolist() == counts
        assert np.bincount(found.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        # The mean and standard deviation by which everybody normalises it.
        shares = np.bincount(found.train.ravel(), minlength=256) / found.train.size
        mean = shares @ np.arange(256)
        assert mean / 255 == pytest.approx(0.1307, abs=5e-5)
        assert (shares @ (np.arange(256) - mean) ** 2) ** 0.5 / 255 == pytest.approx(0.3081, abs=5e-5)
        assert not found.train[:, :2].mean(axis=0).max() > 1, "white above: rows come before columns, and in order"

    def test_the_beginning_of_cifar10(self, store: Path) -> None:
        archive_store.need("cifar10-subset-4000")
        found = images.cifar10("cifar10-subset-4000", files_of("cifar10-subset-4000"))
        assert (found.train.shape, found.test.shape) == ((4000, 32, 32, 3), (1000, 32, 32, 3))
        names = [images.CIFAR10_CLASSES[label] for label in found.train_labels[:5]]
        assert names == ["frog", "truck", "truck", "deer", "automobile"]
        names = [images.CIFAR10_CLASSES[label] for label in found.test_labels[:5]]
        assert names == ["cat", "ship", "ship", "airplane", "frog"]
        assert found.train[0, 0, 0].tolist() == [59, 62, 63], "the first pixel of the first picture"
        # The channel means by which everybody normalises it, of 50,000 pictures.
        assert found.train.mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.003)
