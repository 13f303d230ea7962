"""The files of the original recordings, and which of them are for testing.

Files are known by their names alone, wherever they lie below a folder, and ordered by class and number: the order in
which a folder lists its files differs from machine to machine.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from spikebench import seeds
from spikebench.errors import UserError

SENSOR_SIZE = (128, 128, 2)
PER_CLASS = 1000
SCALES = (4, 8, 16)
DIGITS = tuple("0123456789")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: The test numbers of each class. They never change: another draw is another file, with the next version in its name.
RANDOM90 = "splits/cifar10_dvs_random90_v1.json"
RANDOM90_SHA256 = "f0df8aaab7488b03327e3a4fbff65fdb689a2a66330a6e60748178f5ef9a8760"


class RecordingFile(NamedTuple):
    """One recording: where it lies, the index of its class, its number within the class."""

    path: Path
    label: int
    number: int


class NumberSplit(NamedTuple):
    """Numbers of the recordings of each class, [classes][n], ascending."""

    train: tuple[tuple[int, ...], ...]
    test: tuple[tuple[int, ...], ...]

    @property
    def sha256(self) -> str:
        """Equal splits have equal hashes."""
        return seeds.digest(self, length=64)

    def select(self, files: list[RecordingFile], train: bool) -> list[RecordingFile]:
        """The files for training, or those for testing."""
        numbers = [frozenset(chosen) for chosen in (self.train if train else self.test)]
        return [file for file in files if file.number in numbers[file.label]]


def mnist_dvs_files(folder: str | Path, scale: int | str = 4) -> list[RecordingFile]:
    """The 10,000 recordings of MNIST-DVS at one scale, numbered from 1.

    Args:
        folder: ``grabbed_data0.zip`` to ``grabbed_data9.zip`` were unpacked anywhere below it.
        scale: of the digits on the screen: 4, 8, 16, or ``"scale4"`` and so on.

    Raises:
        UserError: an unknown scale; a missing recording, or two of one name.
    """
    known = {str(allowed): allowed for allowed in SCALES}
    chosen = known.get(str(scale).removeprefix("scale"))
    if chosen is None:
        raise UserError(f"scale: found {scale!r}, allowed: {', '.join(known)}")
    names = [[f"mnist_{d}_scale{chosen:02d}_{n:04d}.aedat" for n in range(1, PER_CLASS + 1)] for d in DIGITS]
    return _find(folder, f"MNIST-DVS at scale {chosen}", names, first=1)


def cifar10_dvs_files(folder: str | Path) -> list[RecordingFile]:
    """The 10,000 recordings of CIFAR10-DVS, numbered from 0.

    Args:
        folder: ``airplane.zip`` to ``truck.zip`` were unpacked anywhere below it.

    Raises:
        UserError: a missing recording, or two of one name.
    """
    names = [[f"cifar10_{c}_{n}.aedat" for n in range(PER_CLASS)] for c in OBJECTS]
    return _find(folder, "CIFAR10-DVS", names, first=0)


def mnist_dvs_split() -> NumberSplit:
    """The usual one, for there is no official one: of each digit 1 to 900 for training, 901 to 1000 for testing."""
    return NumberSplit((tuple(range(1, 901)),) * len(DIGITS), (tuple(range(901, 1001)),) * len(DIGITS))


@cache
def cifar10_dvs_split(name: str) -> NumberSplit:
    """A named one, for there is no official one; accuracies on different splits do not compare.

    Args:
        name: ``first900``: of each class 0 to 899 for training, 900 to 999 for testing. ``random90``: of each class 100
            at random for testing, those with the smallest sha256 of (split, class, number).

    Raises:
        UserError: an unknown name; the file of the split was changed.
    """
    if name == "first900":
        test = [list(range(900, PER_CLASS))] * len(OBJECTS)
    elif name == "random90":
        content = resources.files(__package__).joinpath(RANDOM90).read_bytes().strip()
        found = hashlib.sha256(content).hexdigest()
        if found != RANDOM90_SHA256:
            raise UserError(f"spikebench/events/{RANDOM90}: found sha256 {found}, expected {RANDOM90_SHA256}")
        test = json.loads(content)
    else:
        raise UserError(f"split: found {name!r}, allowed: first900, random90")
    train = (sorted(set(range(PER_CLASS)).difference(chosen)) for chosen in test)
    return NumberSplit(tuple(map(tuple, train)), tuple(map(tuple, test)))


def _find(folder: str | Path, data: str, names: list[list[str]], first: int) -> list[RecordingFile]:
    """Each of the named files, exactly once; other files below the folder do not matter.

    Args:
        folder: to look into, at any depth.
        data: the data set, for messages.
        names: of the files of each class, [classes][n].
        first: number of the first file of a class.
    """
    expected = {name for of_class in names for name in of_class}
    found: dict[str, Path] = {}
    for path in Path(folder).rglob("*.aedat"):
        if path.name in found:
            raise UserError(f"{data}: found {path.name} twice, expected it once: remove one")
        if path.name in expected:
            found[path.name] = path
    missing = [name for of_class in names for name in of_class if name not in found]
    if missing:
        raise UserError(
            f"{data}: found {len(found)} of {len(expected)} recordings below {Path(folder).name}; missing are "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}: unpack the original archives there"
        )
    return [
        RecordingFile(found[name], label, number)
        for label, of_class in enumerate(names)
        for number, name in enumerate(of_class, start=first)
    ]
