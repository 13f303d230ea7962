"""Two moons: two interleaved half circles, as BiSNN trains on (arXiv 2012.08300, authors' code).

Two hundred points with noise 0.1; each coordinate is told by ten neurons. The paper has no labelled test set, only a
map: a thousand fresh points are ours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from spikebench import encoding, population
from spikebench.data import DataSettings, Probe, Provenance, SpikeData, Split, hash_split, stratified_order
from spikebench.errors import Unavailable
from spikebench.seeds import seed

CITATION = "Jang, Skatchkovsky, Simeone: BiSNN. DSLW (2021), arXiv 2012.08300."
LICENCE = "none needed: drawn from a formula"
KINDS = ("synthetic",)
LOAD = 80.0
POINTS, TEST = 200, 1000


@dataclass(frozen=True)
class Settings(DataSettings):
    """How the points are drawn and told.

    Attributes:
        noise: standard deviation of both coordinates.
        neurons: of each coordinate.
        steps: time steps T.
        map: points along each side of the square whose predictions are mapped.
    """

    noise: float = 0.1
    neurons: int = 10
    steps: int = 100
    map: int = 40


def load(settings: Settings) -> SpikeData:
    """Spikes [N, T, 2 x neurons + 1], drawn once; the points are scaled to [0, 1] by the range of the 200.

    Raises:
        Unavailable: more than 200 training examples are asked for.
    """
    size = POINTS if settings.training_size is None else settings.training_size
    if size > POINTS:
        raise Unavailable(f"two_moons has {POINTS} training examples, {size} were asked for")
    generator = np.random.Generator(np.random.PCG64(settings.split_seed))
    points, labels = zip(*(_moons(n, settings.noise, generator) for n in (POINTS, TEST)), strict=True)
    low, high = points[0].min(axis=0), points[0].max(axis=0)
    scaled = torch.from_numpy(np.clip((np.concatenate(points) - low) / (high - low), 0, 1).astype(np.float32))
    lines, targets = _told(scaled, settings, settings.split_seed), torch.from_numpy(np.concatenate(labels))

    learner = stratified_order(labels[0], settings.split_seed)[:size]
    cut = size - max(2, round(0.2 * size))
    parts = {"train": learner[:cut], "validation": learner[cut:], "test": POINTS + np.arange(TEST)}

    def part(name: str) -> Split:
        chosen = torch.from_numpy(parts[name])
        return Split(lines[chosen], targets[chosen])

    side = torch.linspace(0, 1, settings.map)
    square = torch.cartesian_prod(side, side)
    # Spikes of its own, which leave those of the examples as they are.
    told = _told(square, settings, seed(purpose="probe", split_seed=settings.split_seed))
    axis = (0.0, 1.0, settings.map)

    return SpikeData(
        task="classification",
        classes=("upper", "lower"),
        train=part("train"),
        validation=part("validation"),
        test=part("test"),
        binary_inputs=True,
        provenance=Provenance(
            name="two moons",
            kind="synthetic",
            source="two half circles with Gaussian noise",
            sha256=hashlib.sha256(scaled.numpy().tobytes()).hexdigest(),
            licence=LICENCE,
            citation=CITATION,
        ),
        # The points themselves are drawn by the seed, so it is part of the split.
        split_sha256=hash_split(**parts, seed=np.array([settings.split_seed])),
        probe=Probe(told, (axis, axis), scaled[torch.from_numpy(learner)]),
    )


def _told(points: torch.Tensor, settings: Settings, spikes: int) -> torch.Tensor:
    """What the neurons say of points [N, 2], [N, T, 2 x neurons + 1]; ``spikes`` is the seed of their spikes."""
    probabilities = population.rates(points, settings.neurons, width=1.0).flatten(1)
    drawn = encoding.rate(probabilities, settings.steps, torch.Generator().manual_seed(spikes))
    return encoding.with_constant_line(drawn)


def _moons(points: int, noise: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 2] and labels [N], half of each class, in random order."""
    angle = generator.uniform(0, np.pi, points)
    labels = np.arange(points) % 2
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    order = generator.permutation(points)
    moons = np.where(labels[:, None] == 0, upper, lower) + noise * generator.standard_normal((points, 2))
    return moons[order], labels[order].astype(np.int64)
