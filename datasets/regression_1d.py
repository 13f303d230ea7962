"""One-dimensional regression, as BiSNN trains on (arXiv 2012.08300, authors' code): f(x) = x - 0.1 x^2 + cos(pi x / 2).

Sixty noisy points in three intervals with gaps between them, where a model should say that it does not know; tested on
six hundred points without noise from -1 to 5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from spikebench import encoding, population
from spikebench.data import DataSettings, Probe, Provenance, SpikeData, Split, hash_split
from spikebench.errors import Unavailable
from spikebench.seeds import seed

CITATION = "Jang, Skatchkovsky, Simeone: BiSNN. DSLW (2021), arXiv 2012.08300."
LICENCE = "none needed: drawn from a formula"
KINDS = ("synthetic",)
LOAD = 80.0
INTERVALS = ((-1.0, 0.0), (1.5, 2.5), (4.0, 5.0))
#: The places x whose predictions are kept: as dense as the training points, in the gaps too.
PROBE = -1 + 0.05 * np.arange(120)


@dataclass(frozen=True)
class Settings(DataSettings):
    """How the points are drawn and told.

    Attributes:
        noise: standard deviation of the training targets.
        neurons: that tell x.
        steps: time steps T.
    """

    noise: float = 0.1
    neurons: int = 20
    steps: int = 100


def load(settings: Settings) -> SpikeData:
    """Spikes [N, T, neurons + 1], drawn once, and targets [N, 1]; x and f are scaled to [0, 1] by the test range.

    Raises:
        Unavailable: more than 60 training examples are asked for.
    """
    x = np.concatenate([a + 0.05 * np.arange(20) for a, _ in INTERVALS])
    grid = -1 + 0.01 * np.arange(600)
    size = len(x) if settings.training_size is None else settings.training_size
    if size > len(x):
        raise Unavailable(f"regression_1d has {len(x)} training examples, {size} were asked for")
    generator = np.random.Generator(np.random.PCG64(settings.split_seed))
    noisy = function(x) + settings.noise * generator.standard_normal(len(x))
    low, high = function(grid).min(), function(grid).max()

    def scaled(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((values - low) / (high - low)).astype(np.float32))

    def told(x: np.ndarray, spikes: int) -> torch.Tensor:
        place = torch.from_numpy(((x + 1) / (grid[-1] + 1)).astype(np.float32).clip(0, 1))
        probabilities = population.rates(place, settings.neurons, width=4.0)
        drawn = encoding.rate(probabilities, settings.steps, torch.Generator().manual_seed(spikes))
        return encoding.with_constant_line(drawn)

    targets = scaled(np.concatenate([noisy, function(grid)]))
    lines = told(np.concatenate([x, grid]), settings.split_seed)

    learner = generator.permutation(len(x))[:size]
    cut = size - max(2, round(0.2 * size))
    parts = {"train": learner[:cut], "validation": learner[cut:], "test": len(x) + np.arange(len(grid))}

    def part(name: str) -> Split:
        chosen = torch.from_numpy(parts[name])
        return Split(lines[chosen], targets[chosen, None])

    probe = Probe(
        # Spikes of its own, which leave those of the examples as they are.
        inputs=told(PROBE, seed(purpose="probe", split_seed=settings.split_seed)),
        axes=((PROBE[0], PROBE[-1], len(PROBE)),),
        seen=torch.stack([torch.from_numpy(x[learner]).float(), targets[torch.from_numpy(learner)]], dim=1),
        targets=scaled(function(PROBE)),
    )
    return SpikeData(
        task="regression",
        classes=(),
        train=part("train"),
        validation=part("validation"),
        test=part("test"),
        binary_inputs=True,
        provenance=Provenance(
            name="one-dimensional regression",
            kind="synthetic",
            source="a formula with Gaussian noise",
            sha256=hashlib.sha256(targets.numpy().tobytes()).hexdigest(),
            licence=LICENCE,
            citation=CITATION,
        ),
        # The noise is drawn by the seed, so it is part of the split.
        split_sha256=hash_split(**parts, seed=np.array([settings.split_seed])),
        probe=probe,
    )


def function(x: np.ndarray) -> np.ndarray:
    """f(x), noiseless and unscaled."""
    return x - 0.1 * x**2 + np.cos(np.pi * x / 2)
