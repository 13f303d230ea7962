"""Pictures of independent Gaussian pixels, with labels that mean nothing: they show how gradients behave, no more.

The inputs on which arXiv 2302.00232's reset is measured here (docs/papers.md).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from spikebench import encoding
from spikebench.data import DataSettings, Provenance, SpikeData, Split, hash_split, stratified_order
from spikebench.errors import Unavailable
from spikebench.seeds import seed

CITATION = "Drawn from a formula, to measure gradients of Xiao et al.: SPIDE (2023), arXiv 2302.00232."
LICENCE = "none needed: drawn from a formula"
KINDS = ("synthetic",)
LOAD = 5.0
CLASSES = 10


@dataclass(frozen=True)
class Settings(DataSettings):
    """How many pictures, how large, and how long they are shown.

    Attributes:
        training: pictures that learners may see.
        test: pictures for testing.
        side: pixels along each side.
        steps: time steps T.
    """

    training: int = 200
    test: int = 50
    side: int = 16
    steps: int = 30


def load(settings: Settings) -> SpikeData:
    """Constant currents [N, T, side x side + 1], drawn from N(0, 1) by the split's seed.

    Raises:
        Unavailable: more training examples are asked for than there are.
    """
    size = settings.training if settings.training_size is None else settings.training_size
    if size > settings.training:
        raise Unavailable(f"gaussian_pictures has {settings.training} training examples, {size} were asked for")
    generator = torch.Generator().manual_seed(seed(purpose="pictures", split_seed=settings.split_seed))
    pixels = torch.randn(settings.training + settings.test, settings.side**2, generator=generator)
    labels = torch.arange(len(pixels)) % CLASSES
    learner = stratified_order(labels[: settings.training].numpy(), settings.split_seed)[:size]
    cut = size - max(2, round(0.2 * size))
    parts = {"train": learner[:cut], "validation": learner[cut:], "test": np.arange(settings.training, len(pixels))}

    def part(name: str) -> Split:
        own = torch.from_numpy(parts[name])
        return Split(encoding.with_constant_line(encoding.constant_current(pixels[own], settings.steps)), labels[own])

    return SpikeData(
        task="classification",
        train=part("train"),
        validation=part("validation"),
        test=part("test"),
        classes=tuple(f"label {label}" for label in range(CLASSES)),
        binary_inputs=False,
        provenance=Provenance(
            name="Gaussian pictures",
            kind="synthetic",
            source="independent Gaussian pixels, labels in turn",
            sha256=hashlib.sha256(pixels.numpy().tobytes()).hexdigest(),
            licence=LICENCE,
            citation=CITATION,
        ),
        # The pixels themselves are drawn by the seed, so it is part of the split.
        split_sha256=hash_split(**parts, seed=np.array([settings.split_seed])),
        layout=(1, settings.side, settings.side),
    )
