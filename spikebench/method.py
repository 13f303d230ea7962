"""What a training method is: the contract of the files in ``methods/`` (docs/contracts.md explains it with examples).

A method is a module with

    CITATION: str                  the paper
    MODES: tuple[str, ...]         training modes it supports: off-chip, in-the-loop, oracle
    BATCHED: bool                  whether one call may train many cells at once (else B is always 1)
    SECONDS_PER_CELL: float        forecast for packing jobs, default preset, one core
    Settings                       a frozen dataclass of hyper-parameters with defaults
    init, step, predict            pure functions of the types below; ``score`` where a likelihood of targets is wanted,
                                   which a search on sequences needs

and, where it needs them,

    TASKS: tuple[str, ...]         what it learns: classification (alone, where it says nothing), regression, sequence
    VARIANTS: dict[str, str]       its variants, each with the name of the training that it is a reading of
    network                        a function of DataInfo, the sweep's layers and training; else dense LIF layers

Everything random comes from the ``Streams`` that are passed in. States are NamedTuples of tensors, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from spikebench.chip.protocol import Chip
from spikebench.data import Batch, DataInfo
from spikebench.networks import Network
from spikebench.seeds import Streams

#: Candidates of a hyper-parameter, by name.
SearchSpace = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Task:
    """What is to be learnt, the same for all cells of a shard.

    Attributes:
        network: whose parameters are trained.
        info: what may be known of the data.
        settings: the method's own ``Settings``.
        mode: off-chip, in-the-loop or oracle.
        choice: hyper-parameters of the search space, one value a cell, [B] each.
        variant: in ``predict`` and ``estimates`` the variant that is asked for; while training, the training that it
            is a reading of (``VARIANTS``). Methods without ``VARIANTS`` find the arm's free label, mostly empty.
        rounds: how often ``step`` is called in this training; 0 where none is going on.
    """

    network: Network
    info: DataInfo
    settings: Any
    mode: str
    choice: Mapping[str, torch.Tensor]
    variant: str = ""
    rounds: int = 0


class Info(NamedTuple):
    """What a step reports: traces, name to [B] or [B, chains]."""

    traces: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Prediction:
    """What a trained method says of inputs it has not seen.

    Attributes:
        probabilities: [B, S, N, C] over S posterior samples or reads (classification).
        outputs: real outputs [B, S, N, T_out] or spikes [B, S, N, T, O] (regression, sequence).
        diagnostics: numbers of the training run, name to [B], or lists of them, [B, ...].
    """

    probabilities: torch.Tensor | None = None
    outputs: torch.Tensor | None = None
    diagnostics: Mapping[str, torch.Tensor] = field(default_factory=dict)


class MethodSettings(Protocol):
    """What the harness reads of every method's ``Settings``.

    In place of ``rounds`` and ``gradient_steps`` there may be ``epochs``, the passes over the examples, and a method
    ``updates(steps)``, the optimiser steps of one round of T = ``steps``. ``tune_once = True`` has hyper-parameters
    chosen once a shard, for a repetition of its own on the ideal model, rather than once a cell.
    """

    #: Hyper-parameters that are chosen on validation data, with their candidates; empty where there are none.
    SEARCH: SearchSpace

    @property
    def rounds(self) -> int:
        """How often ``step`` is called."""
        ...

    @property
    def gradient_steps(self) -> int:
        """Optimiser steps of one training; 0 for methods without gradients."""
        ...

    @property
    def batch_size(self) -> int | None:
        """Examples a step; None hands over all."""
        ...


class Method(Protocol):
    """The functions of a method's module; ``State`` is the method's own NamedTuple of tensors."""

    CITATION: str
    MODES: tuple[str, ...]
    BATCHED: bool
    Settings: type[Any]

    def init(self, task: Task, batch: Batch, chip: Chip, streams: Streams) -> Any:
        """The state before training."""
        ...

    def step(self, task: Task, state: Any, batch: Batch, chip: Chip, streams: Streams) -> tuple[Any, Info]:
        """One round of training; may overwrite the tensors of ``state``."""
        ...

    def predict(self, task: Task, state: Any, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
        """Predictions for inputs [R, N, T, I]; ``index`` [B] says which of the R each cell sees."""
        ...


class WithEstimates(Method, Protocol):
    """A method that offers other estimators from the same training run."""

    def estimates(
        self, task: Task, state: Any, inputs: torch.Tensor, index: torch.Tensor, chip: Chip
    ) -> Mapping[str, torch.Tensor]:
        """By the estimator's name what ``Prediction`` holds for the task, as probabilities [B, S, N, C]."""
        ...


class WithScore(Method, Protocol):
    """A method that gives targets a likelihood: class labels [R, N], or spikes [R, N, T, O] of a sequence.

    It is asked of some test examples, after the test, and where a search is on sequences of validation examples.
    """

    def score(
        self, task: Task, state: Any, inputs: torch.Tensor, targets: torch.Tensor, index: torch.Tensor, chip: Chip
    ) -> torch.Tensor:
        """log-likelihood [B, S, N] of the targets [R, N, ...] in each of S runs, in nats, float64."""
        ...
