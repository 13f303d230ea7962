"""Images in the formats that they are published in, read without pickle: IDX (MNIST) and CIFAR's binary records."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikebench.errors import UserError

#: Names of CIFAR-10's classes, in the order of its labels.
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class Images(NamedTuple):
    """Labelled pictures in the order of the archive.

    Attributes:
        train: [N, H, W] or [N, H, W, 3] uint8.
        train_labels: [N] int64.
        test: likewise.
        test_labels: likewise.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist: magic 0, 0, 8, dimensions).

    Raises:
        UserError: the file is none, or has another length than its header says.
    """
    content = path.read_bytes()
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise UserError(f"{path.name}: found the first bytes {content[:4].hex(' ')}, expected 00 00 08 (IDX, bytes)")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4) if len(content) >= 4 + 4 * dimensions else [0]
    expected = 4 + 4 * dimensions + int(np.prod(np.asarray(shape, dtype=np.int64)))
    if len(content) != expected:
        raise UserError(f"{path.name}: found {len(content)} bytes, expected {expected} by its header")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape([int(n) for n in shape])


def mnist(files: list[Path]) -> Images:
    """MNIST from its four unpacked IDX files."""
    named = {path.name: path for path in files}
    arrays = [
        read_idx(named[f"{part}-{kind}-ubyte"]) for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    return Images(arrays[0], arrays[1].astype(np.int64), arrays[2], arrays[3].astype(np.int64))


def cifar(archive: Path, label_bytes: int) -> Images:
    """CIFAR from its binary archive; the last label byte is the class (CIFAR-100 has a coarse one before it).

    Raises:
        UserError: the archive is damaged or holds something else.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    record = label_bytes + 3072
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in sorted(tar.getmembers(), key=lambda m: m.name):
                stem = Path(member.name).stem
                part = (
                    "test" if stem.startswith("test") else "train" if stem.startswith(("data_batch", "train")) else ""
                )
                file = tar.extractfile(member) if member.isfile() and part and member.name.endswith(".bin") else None
                if file is not None:
                    content = file.read(60_000 * record + 1)
                    if len(content) % record:
                        raise UserError(
                            f"{archive.name}: {member.name}: {len(content)} bytes are no multiple of {record}"
                        )
                    parts[part].append(np.frombuffer(content, np.uint8).reshape(-1, record))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{archive.name} cannot be read: {error}") from error
    if not parts["train"] or not parts["test"]:
        raise UserError(f"{archive.name} holds no data_batch_*.bin, train.bin and test*.bin")

    def pixels(rows: np.ndarray) -> np.ndarray:
        return rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    train, test = (np.concatenate(parts[name]) for name in ("train", "test"))
    labels = [rows[:, label_bytes - 1].astype(np.int64) for rows in (train, test)]
    return Images(pixels(train), labels[0], pixels(test), labels[1])


def cifar_subset(path: Path) -> Images:
    """The first 4,000 training and 1,000 test images of CIFAR-10 from an ``.npz`` file."""
    with np.load(path, allow_pickle=False) as file:
        train, test = file["train_images"], file["test_images"]
        return Images(train, file["train_labels"].astype(np.int64), test, file["test_labels"].astype(np.int64))


def cifar10(source: str, files: list[Path]) -> Images:
    """CIFAR-10 from one of the two sources that it comes from: ``cifar10`` whole, or ``cifar10-subset-4000``."""
    return cifar(files[0], label_bytes=1) if source == "cifar10" else cifar_subset(files[0])


def by_class(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """The positions of each class's examples, in the order of the archive."""
    return [np.flatnonzero(labels == label) for label in range(classes)]
