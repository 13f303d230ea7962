"""CIFAR10-DVS: photographs moving on a screen, seen by an event camera; or the same filmed by a camera model.

There is no official split, and accuracies on different ones cannot be compared: ``first900`` trains on files 0-899 of
each class and tests on 900-999, ``random90`` draws a fixed tenth for testing. Simulated recording k of a class shows
the k-th image of that class in CIFAR-10's training part, and recordings 900-999 show images of its test part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from spikebench import images
from spikebench.data import DataSettings, Provenance, SpikeData
from spikebench.errors import UserError
from spikebench.events import aedat, camera, files, prepared
from spikebench.events.binning import Binning
from spikebench.events.prepared import Item, Recordings
from spikebench.seeds import seed
from spikebench.store import files_of, unpacked

CITATION = (
    "Li, Liu, Ji, Li, Shi: CIFAR10-DVS: An Event-Stream Dataset for Object Classification. Frontiers in Neuroscience "
    "11:309 (2017), doi 10.3389/fnins.2017.00309."
)
LICENCE = (
    "recordings: as figshare article 4724671 says; simulated ones are made here from CIFAR-10, which has no licence"
)
KINDS = ("real", "simulated")
NEEDS = {"real": ("cifar10-dvs",), "simulated": ("cifar10", "cifar10-subset-4000")}
#: Of a recording, about: for the rate over time.
DURATION_US = 1_300_000
#: A recording's events, the mean of all 10,000 files.
EVENTS = 205_071
LOAD = 310.0


@dataclass(frozen=True)
class Settings(DataSettings):
    """Which recordings, and how they become frames.

    Attributes:
        training: recordings that learners may see, the first of each class in the split.
        test: recordings for testing.
        split: ``first900`` or ``random90``.
        bins: time steps T.
        equal: what the bins have in common: ``duration``, over 1.3 s, or ``count`` of events.
        side: rows and columns of the frames.
        binary: a bin is 1 where at least one event fell: with ten bins, nearly all are. Otherwise it counts events, in
            units of their published mean, 205,071 a recording.
        screen_hz: refresh rate of the simulated screen; 0 moves the picture smoothly.
    """

    training: int = 600
    test: int = 250
    split: str = "first900"
    bins: int = 10
    equal: str = "duration"
    side: int = 48
    binary: bool = False
    screen_hz: float = 0.0


def load(settings: Settings) -> SpikeData:
    """Frames [N, T, 2 x side x side + 1]; see ``prepared.load``.

    Raises:
        Unavailable: the archive is not on this machine, or has fewer recordings than are asked for.
    """
    folder = prepared.folder(__file__, settings)
    return prepared.load(recordings(settings), folder, settings.split_seed, settings.training_size)


def prepare(settings: Settings, workers: int, say: prepared.Say) -> Path:
    """Bin all recordings; the folder they are in."""
    folder = prepared.folder(__file__, settings)
    prepared.prepare(recordings(settings), folder, workers, say)
    return folder


def recordings(settings: Settings) -> Recordings:
    """Which recordings there are, and how one is had."""
    real = settings.kind == "real"
    split = files.cifar10_dvs_split(settings.split)
    # The whole archive has an image for every number of the split.
    kept = split if real or settings.source == "cifar10" else _with_images(split, settings.source)
    shown = "" if real or settings.source == "cifar10" else f" from {settings.source}"
    if settings.equal not in ("duration", "count"):
        raise UserError(f"cifar10_dvs: equal: found {settings.equal!r}, allowed: duration, count")
    return Recordings(
        name="cifar10_dvs",
        training=prepared.first_of_each(kept.train, settings.training),
        test=prepared.first_of_each(kept.test, settings.test),
        record=_real() if real else _simulated(settings.source, settings.screen_hz),
        binning=Binning(
            bins=settings.bins,
            span_us=1_300_000 if settings.equal == "duration" else None,
            size=(settings.side, settings.side),
            binary=settings.binary,
        ),
        duration_us=DURATION_US,
        provenance=Provenance(
            name=f"CIFAR10-DVS{'' if real else '-sim'}{shown}, split {settings.split}",
            kind="real" if real else "simulated",
            source="the authors' archives"
            if real
            else f"camera model (docs/data.md) before images of {settings.source}",
            sha256="",
            licence=LICENCE,
            citation=CITATION,
        ),
        classes=files.OBJECTS,
        scale=1.0 if settings.binary else settings.bins * 2 * settings.side**2 / EVENTS,
    )


def _real() -> Callable[[Item], np.ndarray]:
    @cache
    def paths() -> dict[Item, Path]:
        folder = unpacked("cifar10-dvs", "CIFAR10DVS", lambda name: name.endswith(".aedat"))
        return {Item(file.label, file.number): file.path for file in files.cifar10_dvs_files(folder)}

    return lambda item: aedat.read(paths()[item]).events


@cache
def _images(source: str) -> tuple[images.Images, list[np.ndarray], list[np.ndarray]]:
    """CIFAR-10 and the positions of each class in its training and its test part."""
    pictures = images.cifar10(source, files_of(source))
    return pictures, images.by_class(pictures.train_labels, 10), images.by_class(pictures.test_labels, 10)


def _with_images(split: files.NumberSplit, source: str) -> files.NumberSplit:
    """The numbers of the split for which there is an image: 0-899 in the training part, 900-999 in the test part."""
    _, train, test = _images(source)

    def known(numbers: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(n for n in of_class if n < min(900, len(train[c])) or 900 <= n < 900 + len(test[c]))
            for c, of_class in enumerate(numbers)
        )

    return files.NumberSplit(known(split.train), known(split.test))


def _simulated(source: str, screen_hz: float) -> Callable[[Item], np.ndarray]:
    sensor = replace(camera.CIFAR10_DVS, screen_hz=screen_hz)

    def record(item: Item) -> np.ndarray:
        pictures, train, test = _images(source)
        testing = item.number >= 900
        place = (test if testing else train)[item.label][item.number - (900 if testing else 0)]
        image = (pictures.test if testing else pictures.train)[place]
        bits = seed(purpose="camera", dataset="cifar10_dvs", source=source, label=item.label, number=item.number)
        return camera.cifar10_dvs(image, bits, sensor)

    return record
