"""A training of feedback networks as the harness sets it up, with data made up here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import nets
import torch

from spikebench import fitting, plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo, Split
from spikebench.method import Task
from spikebench.seeds import Streams

SPIDE, IDE, UNROLLED = (plugins.load("methods", name) for name in ("spide", "ide", "feedback_bptt"))
METHODS = {"spide": SPIDE, "ide": IDE, "feedback_bptt": UNROLLED}


def course(
    method: ModuleType, architecture: str = "3C3s-4 (F3)", picture: tuple[int, ...] = (1, 4, 4), classes: int = 3,
    steps: int = 12, mode: str = "off-chip", cells: int = 2, rate: float = 0.1, rest: float = -1.0, leak: float = 1.0,
    rounds: int = 8, **settings: Any,
) -> Task:  # fmt: skip
    """A task of ``rounds`` rounds; without drops, warm-up and weight decay unless they are asked for."""
    info = DataInfo("classification", math.prod(picture) + 1, classes, steps, False, picture)
    layers = {"architecture": architecture, "rest": rest, "leak": leak}
    chosen = method.Settings(**{"drops": (), "weight_decay": 0.0, "loss_scale": 10.0} | settings)
    choice = {"learning_rate": torch.full((cells,), rate)}
    return Task(method.network(info, layers, ""), info, chosen, mode, choice, rounds=rounds)


def chip_of(task: Task, severity: float = 1.0, seed: int = 5, **fault: float) -> SimulatedChip:
    """As many devices as the task has cells."""
    cells = len(task.choice["learning_rate"])
    return SimulatedChip(task.network, [FaultSpec(severity, **fault)] * cells, range(seed, seed + cells))


def streams(task: Task) -> Streams:
    """The randomness of each cell."""
    return Streams(tuple(range(31, 31 + len(task.choice["learning_rate"]))))


def shown(task: Task, samples: int = 6, constant: bool = True, seed: int = 2) -> Batch:
    """Random pictures and labels, of each cell its own."""
    cells, steps = len(task.choice["learning_rate"]), task.info.steps
    generator = nets.generator(seed)
    values = torch.rand((cells, samples, 1 if constant else steps, task.info.inputs), generator=generator)
    values[..., -1] = 1.0
    targets = torch.randint(0, task.info.outputs, (cells, samples), generator=generator)
    return Batch(values.expand(-1, -1, steps, -1), targets, torch.arange(cells))


def separable(task: Task, samples: int, seed: int = 0) -> Split:
    """Noisy pictures, bright in the part that tells the class."""
    targets = torch.arange(samples) % task.info.outputs
    lines = torch.arange(task.info.inputs - 1) % task.info.outputs == targets[:, None]
    noise = torch.rand((samples, task.info.inputs - 1), generator=nets.generator(seed))
    values = torch.cat([1.2 * lines + 0.8 * noise, torch.ones(samples, 1)], dim=1)
    return Split(values[:, None].expand(-1, task.info.steps, -1), targets)


def begin(method: ModuleType, task: Task, batch: Batch, chip: SimulatedChip) -> Any:
    """The state before training."""
    return method.init(task, batch, chip, streams(task))


def train(method: ModuleType, task: Task, batch: Batch, chip: SimulatedChip, rounds: int) -> Any:
    """The state after so many rounds on the same batch."""
    state = begin(method, task, batch, chip)
    for _ in range(rounds):
        state, _ = method.step(task, state, batch, chip, streams(task))
    return state


def fitted(method: ModuleType, task: Task, split: Split, chip: SimulatedChip) -> tuple[Any, dict[str, torch.Tensor]]:
    """The state and traces after the settings' epochs, as ``fitting`` trains."""
    batch = Batch.stack([split], [0] * chip.devices)
    found = fitting.fit(method, task, batch, chip, streams(task), lambda share: None)
    return found.state, found.traces


def alone(task: Task, cell: int) -> Task:
    """The same for one of the cells."""
    return replace(task, choice={name: values[cell : cell + 1] for name, values in task.choice.items()})


def names(states: Sequence[Any]) -> list[str]:
    """Which of the first state's tensors differ from those of any other."""
    first, *others = states
    return [
        name for name in first._fields if not all(torch.equal(getattr(first, name), getattr(o, name)) for o in others)
    ]
