"""MNIST-DVS: handwritten digits moving on a screen, seen by an event camera; or the same filmed by a camera model.

The recipe of frames is that of BiSNN (arXiv 2012.08300, authors' code): scale 4, the 26 by 26 pixels 48..73, two
seconds, a bin is 1 where at least one event fell. Files 1-900 of each digit are for training, 901-1000 for testing;
smaller sizes take the first of each. Simulated recording k of a digit shows the k-th image of that digit in MNIST's
training part, and recordings 901-1000 show images of its test part: which images were on the screen in the original is
not known to us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from spikebench import images
from spikebench.data import DataSettings, Provenance, SpikeData
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
    """

    training: int = 1250
    test: int = 500
    scale: int = 4
    bins: int = 80
    span_ms: int = 2000
    crop: bool = True
    polarity: bool = True
    screen_hz: float = 0.0


def load(settings: Settings) -> SpikeData:
    """Frames [N, T, 2 x 26 x 26 + 1]; see ``prepared.load``.

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
    split = files.mnist_dvs_split()
    real = settings.kind == "real"
    return Recordings(
        name="mnist_dvs",
        training=prepared.first_of_each(split.train, settings.training),
        test=prepared.first_of_each(split.test, settings.test),
        record=_real(settings.scale) if real else _simulated(settings.scale, settings.screen_hz),
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
        classes=files.DIGITS,
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
