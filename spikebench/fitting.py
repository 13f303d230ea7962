"""Training and asking a method: the loop over rounds, minibatches, and predictions of batches of any size."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import torch

from spikebench import devices, memory
from spikebench.checkpoints import Progress, Stage
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo, SpikeData, Split, StoredBatch, stack
from spikebench.events.frames import prefetch
from spikebench.method import Prediction, Task
from spikebench.networks import Network
from spikebench.seeds import Streams

Report = Callable[[float], None]


class Fitted(NamedTuple):
    """What a training came to.

    Attributes:
        state: the method's own.
        traces: name to [rounds, B] or [rounds, B, chains].
        epochs: the states after each epoch, where they were asked for.
    """

    state: Any
    traces: dict[str, torch.Tensor]
    epochs: list[Any]


#: Examples on disk that are shown to ``predict`` at once.
PART = 256
#: Neurons times examples times devices at most that are, which take some 16 bytes each.
AT_ONCE = 1 << 28
#: Examples at most whose targets' likelihood is asked for.
SCORED = 100


@dataclass(frozen=True)
class Shard:
    """What the units of one shard are trained with. A unit is a device with a split and a training seed.

    Attributes:
        network: of all units.
        info: of their data.
        settings: the method's own.
        mode: training mode.
        training: its name, where the method has ``VARIANTS``; else the arm's label.
        splits: the distinct data splits.
        index: each unit's split.
        seeds: each unit's training seed.
        chip: each unit's device.
        device: what training runs on, see ``devices``.
    """

    network: Network
    info: DataInfo
    settings: Any
    mode: str
    training: str
    splits: Sequence[SpikeData]
    index: Sequence[int]
    seeds: Sequence[int]
    chip: SimulatedChip
    device: str = "cpu"

    def of(self, units: Sequence[int]) -> Shard:
        """The same of some units, a unit as often as it is named; their devices are as if they had never been used."""
        index, seeds = ([own[u] for u in units] for own in (self.index, self.seeds))
        return replace(self, index=index, seeds=seeds, chip=self.chip.of(units))

    def devices(self, stage: str) -> SimulatedChip:
        """The units' devices, unused, with a meter of their own; ``stage`` names what they are to do."""
        chip = self.chip.repeat(1)
        chip.stage = stage
        return chip

    def task(self, choice: Mapping[str, torch.Tensor], variant: str | None = None) -> Task:
        """What the method is told, with its chosen hyper-parameters; without a variant it is being trained."""
        asked = self.training if variant is None else variant
        return Task(self.network, self.info, self.settings, self.mode, choice, asked)

    def batch(self, part: Callable[[SpikeData], Split]) -> Batch | StoredBatch:
        """A part of each unit's data."""
        return stack([part(data) for data in self.splits], list(self.index))

    @property
    def streams(self) -> Streams:
        """The randomness of each unit's training."""
        return Streams(tuple(self.seeds))


def rounds(settings: Any, examples: int) -> int:
    """How often ``step`` is called: as the settings say, or passes over the examples."""
    if not hasattr(settings, "epochs"):
        return int(settings.rounds)
    return int(settings.epochs) * (examples // min(settings.batch_size or examples, examples))


def gradient_steps(settings: Any, examples: int, steps: int) -> int:
    """Optimiser steps of one training on so many examples of so many time steps."""
    if not hasattr(settings, "epochs"):
        return int(settings.gradient_steps)
    return rounds(settings, examples) * int(settings.updates(steps))


def fit(
    method: ModuleType,
    task: Task,
    batch: Batch | StoredBatch,
    chip: SimulatedChip,
    streams: Streams,
    report: Report,
    stage: Stage | None = None,
    keep_epochs: bool = False,
    device: str = "cpu",
) -> Fitted:
    """Call ``step`` for all rounds.

    Args:
        method: the plug-in.
        task: what is to be learnt.
        batch: the examples.
        chip: what is trained on.
        streams: randomness.
        report: called with the share that is done.
        stage: where what is learnt is saved now and then, and goes on from; None saves nothing.
        keep_epochs: the states after each pass over the examples, too, of settings that have ``epochs``.
        device: what training runs on; what it comes to is on the CPU.
    """
    chip.count_activity = False
    total = rounds(task.settings, batch.size)
    task = replace(task, rounds=total)
    streams = devices.streams_for(streams, device)
    parts = _parts(task, batch, streams, total)
    first = next(parts)
    with devices.context(device):
        start = method.init(task, devices.moved(first, device), chip, streams)
    done = (stage.read(start, chip) if stage else None) or Progress(0, start, {}, [])
    state, traces, epochs = done.state, done.traces, done.epochs
    parts = _parts(task, batch, streams, total, done.rounds) if done.rounds else itertools.chain([first], parts)
    for number, part in enumerate(parts, done.rounds + 1):
        shown = devices.moved(part, device)
        with devices.context(device):
            state, info = method.step(task, state, shown, chip, streams)
        for name, values in info.traces.items():
            traces.setdefault(name, []).append(values.cpu())
        report(number / total)
        if keep_epochs and number * task.settings.epochs % total == 0:
            epochs.append(copy.deepcopy(devices.moved(state, "cpu")))
        if stage is not None:
            stage.keep(Progress(number, state, traces, epochs), chip, number == total)
        if number % memory.EVERY == 1:
            memory.give_back()
    state, *epochs = (devices.moved(own, "cpu") for own in (state, *epochs))
    return Fitted(state, {name: torch.stack(values) for name, values in traces.items()}, epochs)


def _parts(task: Task, batch: Batch | StoredBatch, streams: Streams, total: int, first: int = 0) -> Iterator[Batch]:
    """What each round from the first is shown: all examples, or minibatches, of which the next is read ahead."""
    if task.settings.batch_size is None:
        yield from itertools.repeat(batch.loaded(), total - first)
        return
    size = min(task.settings.batch_size, batch.size)
    epoch = batch.size // size  # an epoch's examples in a new order, those that do not fill a minibatch left out
    skipped = first // epoch * epoch
    begins = range(skipped, total, epoch)
    orders = (streams.permutation(batch.size, "epoch", begin).split(size, dim=1) for begin in begins)
    rows = itertools.islice((row for order in orders for row in order[:epoch]), first - skipped, total - skipped)
    if isinstance(batch, StoredBatch):
        yield from prefetch(rows, batch.minibatch)
    else:
        yield from map(batch.minibatch, rows)


def predict(method: ModuleType, task: Task, state: Any, batch: Batch | StoredBatch, chip: SimulatedChip) -> Prediction:
    """The method's prediction of a whole batch."""
    parts, shares = list[Prediction](), list[float]()
    for shown in _shown(task, batch, chip):
        parts.append(method.predict(task, state, shown.inputs, shown.index, chip))
        shares.append(shown.size / batch.size)
    if len(parts) == 1:
        return parts[0]
    return Prediction(
        probabilities=_joined([p.probabilities for p in parts]),
        outputs=_joined([p.outputs for p in parts]),
        diagnostics={
            name: torch.stack([share * p.diagnostics[name] for share, p in zip(shares, parts, strict=True)]).sum(dim=0)
            for name in parts[0].diagnostics
        },
    )


def answer(prediction: Prediction, task: str) -> torch.Tensor:
    """What a task asks for: probabilities [B, S, N, C] of a classification, else outputs.

    Those of a regression are values [B, S, N, 1], those of a sequence spikes [B, S, N, T, O].

    Raises:
        TypeError: the prediction does not say.
    """
    wanted = "probabilities" if task == "classification" else "outputs"
    values: torch.Tensor | None = getattr(prediction, wanted)
    if values is None:
        raise TypeError(f"predict gave no {wanted}, which are what a {task} is measured by")
    return values


def estimates(
    method: ModuleType, task: Task, state: Any, batch: Batch | StoredBatch, chip: SimulatedChip
) -> dict[str, torch.Tensor]:
    """The method's other estimates of a whole batch."""
    parts = [method.estimates(task, state, shown.inputs, shown.index, chip) for shown in _shown(task, batch, chip)]
    return {name: torch.cat([part[name] for part in parts], dim=2) for name in parts[0]}


def score(method: ModuleType, task: Task, state: Any, batch: Batch | StoredBatch, chip: SimulatedChip) -> torch.Tensor:
    """The method's log-likelihood [B, S, n] of the targets of ``SCORED`` examples, or of all where they are fewer.

    They are spread evenly over the batch: the test parts of some data sets come class by class.

    Raises:
        TypeError: the method has no ``score``.
    """
    if not hasattr(method, "score"):
        raise TypeError("the method has no score, by which the hyper-parameters of a sequence are chosen")
    some = min(SCORED, batch.size)
    shown = batch.at(torch.arange(some) * batch.size // some)
    scores: torch.Tensor = method.score(task, state, shown.inputs, shown.targets, shown.index, chip)
    return scores


def _shown(task: Task, batch: Batch | StoredBatch, chip: SimulatedChip) -> Iterator[Batch]:
    """The batch, in parts where it is on disk or the network is large, so that memory stays bounded."""
    fits = max(1, AT_ONCE // (sum(task.network.widths) * chip.devices))
    if isinstance(batch, Batch) and batch.size <= fits:
        yield batch
        return
    yield from map(batch.at, torch.arange(batch.size).split(min(fits, PART)))


def _joined(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
    """Along the examples [B, S, N, ...]."""
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors, dim=2) if tensors else None
