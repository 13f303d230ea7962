"""MNIST-DVS: handwritten digits moving on a screen, seen by an event camera; or the same filmed by a camera model.

The recipe of frames is that of BiSNN (arXiv 2012.08300, authors' code): scale 4, the 26 by 26 pixels 48..73, two
seconds, a bin is 1 where at least one event fell. Files 1-900 of each digit are for training, 901-1000 for testing;
smaller sizes take the first of each. Simulated recording k of a digit shows the k-th image of that digit in MNIST's
training part, and recordings 901-1000 show images of its test part: which images were on the screen in the original is
not known to us.

With ``halves`` it is the structured-output task of multi-compartment networks (arXiv 2007.11894, authors' code): a few
recordings are memorised, their upper half as inputs and their lower half, at the same steps, as targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from spikebench import images
from spikebench.data import DataSettings, Provenance, SpikeData, Split, dense, hash_split
from spikebench.errors import Unavailable, UserError
from spikebench.events import aedat, camera, files, prepared
from spikebench.events.binning import Binning
from spikebench.events.prepared import Item, Recordings
from spikebench.seeds import seed
from spikebench.store import files_of, unpacked

CITATION = (
    "Serrano-Gotarredona, Linares-Barranco: Poker-DVS and MNIST-DVS. Frontiers in Neuroscience 9:481 (2015), "
    "doi 10.3389/fnins.2015.00481."
)
LICENCE = "recordings: none stated by their authors; simulated ones are made here from MNIST (LeCun, Cortes, Burges)"
KINDS = ("real", "simulated")
NEEDS = {"real": ("mnist-dvs",), "simulated": ("mnist",)}
#: Of a recording, about: for the rate over time.
DURATION_US = 2_300_000
LOAD = 570.0


@dataclass(frozen=True)
class Settings(DataSettings):
    """Which recordings, and how they become frames.

    Attributes:
        training: recordings that learners may see, the first of each digit.
        test: recordings for testing.
        scale: of the digits on the screen: 4, 8 or 16.
        bins: time steps T: 80 (25 ms each) or 400 (5 ms) in the BiSNN recipe.
        span_ms: how much of a recording they cover.
        crop: rows and columns 48 to 73 alone, which is where the digits are at scale 4.
        polarity: ON and OFF events as two channels.
        screen_hz: refresh rate of the simulated screen; 0 moves the digits smoothly.
        classes: some of the digits alone, in this order; none are all ten.
        halves: the upper half of the pictures is shown, and the lower half is the target, of the learner's recordings
            alone: the first of each digit, then the second. Needs a crop without polarity.

    Raises:
        UserError: a digit that there is not, or one given twice; halves of other frames.
    """

    training: int = 1250
    test: int = 500
    scale: int = 4
    bins: int = 80
    span_ms: int = 2000
    crop: bool = True
    polarity: bool = True
    screen_hz: float = 0.0
    classes: tuple[int, ...] = ()
    halves: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))  # YAML and JSON give a list
        for place, digit in enumerate(self.classes):
            if digit not in range(10) or digit in self.classes[:place]:
                raise UserError(f"mnist_dvs: classes: found {digit!r}, allowed: digits from 0 to 9, each once")
        if self.halves and (self.polarity or not self.crop):
            found = f"polarity {str(self.polarity).lower()} and crop {str(self.crop).lower()}"
            raise UserError(f"mnist_dvs: halves: found {found}, allowed: polarity false and crop true")

    @property
    def fewest(self) -> int:
        """One recording can be memorised."""
        return 1 if self.halves else super().fewest


def load(settings: Settings) -> SpikeData:
    """Frames [N, T, 2 x 26 x 26 + 1]; see ``prepared.load``.

    Raises:
        Unavailable: the archive is not on this machine, or has fewer recordings than are asked for.
    """
    if settings.halves:
        return _halves(settings)
    return prepared.load(recordings(settings), _folder(settings), settings.split_seed, settings.training_size)


def prepare(settings: Settings, workers: int, say: prepared.Say) -> Path:
    """Bin all recordings; the folder they are in."""
    folder = _folder(settings)
    prepared.prepare(recordings(settings), folder, workers, say)
    return folder


def _folder(settings: Settings) -> Path:
    """Halves are made of the same frames."""
    return prepared.folder(__file__, replace(settings, halves=False))


def _halves(settings: Settings) -> SpikeData:
    """Inputs [N, T, 13 x 26 + 1], rows 0 to 12 and the constant line, and targets [N, T, 13 x 26], rows 13 to 25.

    Pixels come row by row. The published code divides them by its y (docs/data.md).
    """
    whole, folder = recordings(settings), _folder(settings)
    size = len(whole.training) if settings.training_size is None else settings.training_size
    if size > len(whole.training):
        raise Unavailable(f"mnist_dvs has {len(whole.training)} training examples, {size} were asked for")
    chosen = sorted(whole.training, key=lambda item: item.number)[:size]
    prepared.prepare(whole, folder)
    # Shown as the test part, in an order that no seed changes; prepared before, as there are others beside them.
    data = prepared.load(replace(whole, test=chosen), folder, settings.split_seed, None)
    _, height, width = data.layout
    upper, lower, constant = dense(data.test.inputs).split([height // 2 * width, height // 2 * width, 1], dim=2)
    part = Split(torch.cat([upper, constant], dim=2), lower.contiguous())
    numbers = np.array([item.label * 10_000 + item.number for item in chosen])
    return replace(
        data,
        task="sequence",
        train=part,
        validation=part,
        test=part,
        classes=(),
        split_sha256=hash_split(train=numbers, validation=numbers, test=numbers),
        layout=(1, height // 2, width),
        memorised=True,
    )


def recordings(settings: Settings) -> Recordings:
    """Which recordings there are, and how one is had."""
    split = files.mnist_dvs_split()
    digits = settings.classes or tuple(range(10))
    real = settings.kind == "real"
    record = _real(settings.scale) if real else _simulated(settings.scale, settings.screen_hz)
    return Recordings(
        name="mnist_dvs",
        training=prepared.first_of_each([split.train[digit] for digit in digits], settings.training),
        test=prepared.first_of_each([split.test[digit] for digit in digits], settings.test),
        record=lambda item: record(Item(digits[item.label], item.number)),
        binning=Binning(
            bins=settings.bins,
            span_us=settings.span_ms * 1000,
            crop=(48, 48, 26, 26) if settings.crop else None,
            polarity=settings.polarity,
        ),
        duration_us=DURATION_US,
        provenance=Provenance(
            name=f"MNIST-DVS{'' if real else '-sim'}, scale {settings.scale}",
            kind="real" if real else "simulated",
            source="the authors' archives" if real else "camera model (docs/data.md) before images of MNIST",
            sha256="",
            licence=LICENCE,
            citation=CITATION,
        ),
        classes=tuple(files.DIGITS[digit] for digit in digits),
    )


def _real(scale: int) -> Callable[[Item], np.ndarray]:
    @cache
    def paths() -> dict[Item, Path]:
        folder = unpacked("mnist-dvs", f"MNISTDVS/scale{scale}", lambda name: f"/scale{scale}/" in f"/{name}")
        return {Item(file.label, file.number): file.path for file in files.mnist_dvs_files(folder, scale)}

    return lambda item: aedat.read(paths()[item]).events


def _simulated(scale: int, screen_hz: float) -> Callable[[Item], np.ndarray]:
    @cache
    def shown() -> tuple[images.Images, list[np.ndarray], list[np.ndarray]]:
        mnist = images.mnist(files_of("mnist"))
        return mnist, images.by_class(mnist.train_labels, 10), images.by_class(mnist.test_labels, 10)

    sensor = replace(camera.MNIST_DVS, screen_hz=screen_hz)

    def record(item: Item) -> np.ndarray:
        mnist, train, test = shown()
        testing = item.number > 900
        place = (test if testing else train)[item.label][item.number - (901 if testing else 1)]
        image = (mnist.test if testing else mnist.train)[place]
        bits = seed(purpose="camera", dataset="mnist_dvs", scale=scale, label=item.label, number=item.number)
        return camera.mnist_dvs(image, scale, bits, sensor)

    return record
