"""Surrogate-gradient backpropagation through time, the baseline of arXiv 2402.06284.

Three training modes, always named: ``off-chip`` trains the ideal model and then programs the chip; ``in-the-loop``
takes the chip's spikes forward and the ideal model's derivatives backward; ``oracle`` knows the chip's deviations.
The paper's surrogate, optimiser and schedule could not be read: the defaults are our choices (docs/papers.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from spikebench import bptt
from spikebench.chip.protocol import Chip
from spikebench.data import Batch
from spikebench.method import Info, Prediction, Task
from spikebench.networks import log_probabilities
from spikebench.seeds import Streams

CITATION = (
    "Neftci, Mostafa, Zenke: Surrogate Gradient Learning in Spiking Neural Networks. "
    "IEEE Signal Processing Magazine 36 (2019), arXiv 1901.09948."
)
MODES = ("off-chip", "in-the-loop", "oracle")
BATCHED = True
SECONDS_PER_CELL = 0.07


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters; the learning rate is chosen on validation data.

    Attributes:
        steps: optimiser steps, the same at every training size.
        minibatch: examples a step (all of them where there are fewer).
        initial_sd: weights start from N(0, initial_sd^2), in a layer of n lines from N(0, initial_gain^2 / n) where
            that is narrower: else the currents of a layer with many lines swamp the threshold. Its learning rate is
            smaller by the same factor.
        initial_gain: see ``initial_sd``.
        surrogate: a name of ``spikebench.surrogates.SURROGATES``.
        beta1: Adam's decay of the first moment.
        beta2: of the second.
        learning_rates: the candidates.
    """

    steps: int = 600
    minibatch: int = 32
    initial_sd: float = 0.3
    initial_gain: float = 2.0
    surrogate: str = "gaussian"
    beta1: float = 0.9
    beta2: float = 0.999
    learning_rates: tuple[float, ...] = (1e-3, 5e-3, 1e-2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))  # YAML and JSON give a list

    @property
    def SEARCH(self) -> Mapping[str, tuple[float, ...]]:
        """Chosen on validation data."""
        return {"learning_rate": self.learning_rates}

    @property
    def rounds(self) -> int:
        """Optimiser steps."""
        return self.steps

    @property
    def gradient_steps(self) -> int:
        """One a round."""
        return self.steps

    @property
    def batch_size(self) -> int | None:
        """Examples a step."""
        return self.minibatch


class State(NamedTuple):
    """Weights and Adam's moments, all [B, P], and the number of steps done, [] int64."""

    weights: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor
    round: torch.Tensor


def init(task: Task, batch: Batch, chip: Chip, streams: Streams) -> State:
    """Random weights; the chip is not touched."""
    weights = task.settings.initial_sd * _scale(task) * streams.normal((task.network.parameters,), "start")
    return State(weights, torch.zeros_like(weights), torch.zeros_like(weights), torch.zeros((), dtype=torch.int64))


def _scale(task: Task) -> torch.Tensor:
    """[P], 1 for weights of layers with few lines, less in wide ones: of initial weights and of updates."""
    settings: Settings = task.settings
    lines = [max(1, lines) for _, lines in task.network.shapes]  # a pool has none
    scales = [min(1.0, settings.initial_gain / settings.initial_sd / fan_in**0.5) for fan_in in lines]
    return torch.cat([torch.full((o * i,), s) for (o, i), s in zip(task.network.shapes, scales, strict=True)])


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """Forward on the chip, backward through the model, one Adam step."""
    surrogate = task.settings.surrogate
    losses, gradient = bptt.step_gradient(task.network, state.weights, batch, chip, task.mode, surrogate)
    return _adam(task, state, gradient), Info({"train_loss": losses})


def _adam(task: Task, state: State, gradient: torch.Tensor) -> State:
    """Kingma and Ba (arXiv 1412.6980), algorithm 1, with one learning rate a cell, which torch.optim has not."""
    settings: Settings = task.settings
    count = int(state.round) + 1
    mean = settings.beta1 * state.mean + (1 - settings.beta1) * gradient
    square = settings.beta2 * state.square + (1 - settings.beta2) * gradient.square()
    scale = (square / (1 - settings.beta2**count)).sqrt() + 1e-8
    update = task.choice["learning_rate"][:, None] * _scale(task) * (mean / (1 - settings.beta1**count)) / scale
    return State(state.weights - update, mean, square, state.round + 1)


def predict(task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
    """Class probabilities from the chip's output counts."""
    counts = chip.evaluate(state.weights[:, None], inputs, index)
    return Prediction(probabilities=log_probabilities(counts, task.network.count_gain).exp())
