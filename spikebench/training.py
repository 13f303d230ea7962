"""The harness: from the cells of one shard to their rows. It alone sees test targets, and only after training."""

from __future__ import annotations

import itertools
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from spikebench import evaluation, memory, plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo, SpikeData, StoredBatch, stack
from spikebench.errors import Unavailable
from spikebench.evaluation import Row
from spikebench.events.frames import prefetch
from spikebench.method import Prediction, Task
from spikebench.networks import Network
from spikebench.seeds import Streams, seed
from spikebench.sweep import Cell

Report = Callable[[float], None]

#: Examples on disk that are shown to ``predict`` at once.
PART = 256
#: Gain of the read-out times T: 1 at ten steps.
READ_OUT = 10.0


@dataclass(frozen=True)
class Work:
    """The cells of one shard as a worker gets them.

    Attributes:
        cells: they differ in severity and repetition only.
        settings: for the method's ``Settings``.
        fault: coefficients of the fault family.
        root: of the project.
        data: for the data set's ``Settings``, beside the sweep's own.
    """

    cells: Sequence[Cell]
    settings: Mapping[str, Any]
    fault: Mapping[str, float]
    root: Path
    data: Mapping[str, Any] = field(default_factory=dict)


def train(work: Work, report: Report = lambda share: None) -> list[Row]:
    """Train the cells together where the method allows it; the rows come in the order of the cells.

    Args:
        work: what to train.
        report: called now and then with the share that is done.

    Raises:
        Unavailable: the method or the data set does not offer this combination.
    """
    shared = work.cells[0]
    method = plugins.load("methods", shared.method, work.root)
    if shared.mode not in method.MODES:
        raise Unavailable(f"{shared.method} does not train {shared.mode}; its modes: {', '.join(method.MODES)}")
    if method.BATCHED or len(work.cells) == 1:
        return _train_together(work, method, report)
    rows = []
    for number, cell in enumerate(work.cells):
        rows += _train_together(replace(work, cells=[cell]), method, report=lambda share: None)
        report((number + 1) / len(work.cells))
    return rows


@dataclass(frozen=True)
class _Shard:
    """What the cells of one shard are trained with.

    Attributes:
        network: of all cells.
        info: of their data.
        settings: the method's own.
        mode: training mode.
        splits: the distinct data splits.
        index: each cell's split.
        seeds: each cell's training seed.
        chip: each cell's device.
    """

    network: Network
    info: DataInfo
    settings: Any
    mode: str
    splits: Sequence[SpikeData]
    index: Sequence[int]
    seeds: Sequence[int]
    chip: SimulatedChip

    def task(self, choice: Mapping[str, torch.Tensor]) -> Task:
        """What the method is told, with its chosen hyper-parameters."""
        return Task(self.network, self.info, self.settings, self.mode, choice)

    @property
    def search(self) -> list[dict[str, float]]:
        """Every combination of the candidates of the search space."""
        grid = itertools.product(*self.settings.SEARCH.values())
        return [dict(zip(self.settings.SEARCH, values, strict=True)) for values in grid]


class _Learnt(NamedTuple):
    """What training left, one entry a cell: state, traces [rounds, B, ...], choices [B], presentations [B]."""

    state: Any
    traces: Mapping[str, torch.Tensor]
    choice: Mapping[str, torch.Tensor]
    presented: torch.Tensor


def _train_together(work: Work, method: ModuleType, report: Report) -> list[Row]:
    started, clock = time.time(), time.perf_counter()
    shard = _prepare(work, method)
    learnt = _learn_off_chip(shard, method, report) if shard.mode == "off-chip" else _learn(shard, method, report)
    task, deployed = shard.task(learnt.choice), shard.chip.repeat(1)
    deployed.stage = "test"
    test = stack([d.test for d in shard.splits], list(shard.index))
    prediction = predict(method, task, learnt.state, test, deployed)
    if prediction.probabilities is None:
        raise TypeError(
            f"{work.cells[0].method}: predict gave no probabilities; only classification is measured so far"
        )
    others = {}
    if hasattr(method, "estimates"):
        again = shard.chip.repeat(1)  # another one, so that its meter does not mix with the primary estimate's
        again.stage = "test-estimates"
        others = estimates(method, task, learnt.state, test, again)
    finite = evaluation.finite(learnt.state, len(work.cells))
    trainings = 1 + (len(shard.search) if len(shard.search) > 1 else 0)
    common: Row = {
        "gradient_steps": float(shard.settings.gradient_steps * trainings),
        "started": started,
        "seconds": (time.perf_counter() - clock) / len(work.cells),
        "shared": len(work.cells) > 1,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    rows = []
    for b, cell in enumerate(work.cells):
        data = shard.splits[shard.index[b]]
        row = common | {
            "status": "diverged",
            "error": "the trained state is not finite",
            "chip_presentations": float(learnt.presented[b]),
            "choice": json.dumps({name: round(float(values[b]), 9) for name, values in learnt.choice.items()}),
            "data_sha256": data.provenance.sha256,
            "split_sha256": data.split_sha256,
        }
        if finite[b]:
            row |= {"status": "ok", "error": ""}
            row |= evaluation.measure(prediction.probabilities[b], data, cell)
            row |= evaluation.cost(deployed, b, len(data.test.targets))
            row["estimates"] = json.dumps({name: evaluation.scores(p[b], data) for name, p in others.items()})
            row["diagnostics"] = json.dumps({name: float(v[b]) for name, v in prediction.diagnostics.items()})
            row["traces"] = json.dumps(evaluation.thin(learnt.traces, b))
        rows.append(row)
    return rows


def _prepare(work: Work, method: ModuleType) -> _Shard:
    shared = work.cells[0]
    settings = {**json.loads(shared.data_settings), **work.data, "kind": shared.data_kind, "source": shared.data_source}
    loading = json.dumps(settings, sort_keys=True)
    data = [_load(work.root, c.dataset, loading, c.repetition, c.training_size) for c in work.cells]
    splits = {d.split_sha256: d for d in data}
    info = describe(data[0])
    if info.task != "classification":
        raise Unavailable(
            f"{shared.dataset} is a task of {info.task}: only classification is trained and measured so far"
        )
    hidden = tuple(json.loads(shared.network).get("hidden", [8]))
    # The read-out's gain falls with T, so that the same share of steps with a spike means the same probability.
    network = Network(info.inputs, hidden, info.outputs, count_gain=READ_OUT / info.steps)
    specs = [FaultSpec(severity=cell.severity, **work.fault) for cell in work.cells]
    chip_seeds = [seed(purpose="chip", dataset=c.dataset, repetition=c.repetition) for c in work.cells]
    return _Shard(
        network=network,
        info=info,
        settings=method.Settings(**work.settings),
        mode=shared.mode,
        splits=list(splits.values()),
        index=[list(splits).index(d.split_sha256) for d in data],
        seeds=[training_seed(cell) for cell in work.cells],
        chip=SimulatedChip(network, specs, chip_seeds, info.binary_inputs),
    )


def _learn(shard: _Shard, method: ModuleType, report: Report) -> _Learnt:
    """Choose hyper-parameters on validation data, then train on training and validation examples together."""
    cells, search, streams = len(shard.seeds), shard.search, Streams(tuple(shard.seeds))
    choice: Mapping[str, torch.Tensor] = {n: torch.full((cells,), v[0]) for n, v in shard.settings.SEARCH.items()}
    presented = torch.zeros(cells, dtype=torch.float64)
    before = len(search) / (len(search) + 1) if len(search) > 1 else 0.0  # the search's share of the work
    if before:
        choice, presented = _choose(shard, method, search, streams, lambda share: report(before * share))
    batch = stack([d.labelled for d in shard.splits], list(shard.index))
    task = shard.task(choice)
    state, traces = fit(method, task, batch, shard.chip, streams, lambda s: report(before + (1 - before) * s))
    return _Learnt(state, traces, choice, presented + shard.chip.meter.presentations)


def _learn_off_chip(shard: _Shard, method: ModuleType, report: Report) -> _Learnt:
    """Train the ideal model in place of the devices, once for all cells that differ in their device alone."""
    first = [shard.seeds.index(s) for s in dict.fromkeys(shard.seeds)]
    seeds, index = [shard.seeds[b] for b in first], [shard.index[b] for b in first]
    model = replace(shard, seeds=seeds, index=index, chip=shard.chip.ideal(len(first)))
    learnt = _learn(model, method, report)
    place = torch.tensor([seeds.index(s) for s in shard.seeds])
    return _Learnt(
        state=type(learnt.state)(*(tensor[place] if tensor.dim() else tensor for tensor in learnt.state)),
        traces={name: values[:, place] for name, values in learnt.traces.items()},
        choice={name: values[place] for name, values in learnt.choice.items()},
        presented=torch.zeros(len(place), dtype=torch.float64),  # the devices have not been touched
    )


def training_seed(cell: Cell) -> int:
    """Of method, data and repetition: the same at every severity and fault, so that curves are paired."""
    return seed(
        purpose="training",
        dataset=cell.dataset,
        method=cell.method,
        variant=cell.variant,
        training_size=cell.training_size,
        repetition=cell.repetition,
    )


@lru_cache(maxsize=32)
def _load(root: Path, dataset: str, settings: str, repetition: int, size: int) -> SpikeData:
    module = plugins.load("datasets", dataset, root)
    split_seed = seed(purpose="split", dataset=dataset, repetition=repetition)
    chosen = module.Settings(split_seed=split_seed, training_size=size, **json.loads(settings))
    data: SpikeData = module.load(chosen)
    return data


def describe(data: SpikeData) -> DataInfo:
    """What a method may know of the data before it trains."""
    steps, lines = data.train.inputs.shape[1:]
    return DataInfo(data.task, lines, len(data.classes), steps, data.binary_inputs, data.layout)


def fit(
    method: ModuleType, task: Task, batch: Batch | StoredBatch, chip: SimulatedChip, streams: Streams, report: Report
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Call ``step`` for all rounds; the state and the traces, name to [rounds, B] or [rounds, B, chains]."""
    chip.count_activity = False
    state, traces = None, dict[str, list[torch.Tensor]]()
    for number, part in enumerate(_parts(task, batch, streams)):
        if state is None:
            state = method.init(task, part, chip, streams)
        state, info = method.step(task, state, part, chip, streams)
        for name, values in info.traces.items():
            traces.setdefault(name, []).append(values)
        report((number + 1) / task.settings.rounds)
        if number % memory.EVERY == 0:
            memory.give_back()
    return state, {name: torch.stack(values) for name, values in traces.items()}


def _parts(task: Task, batch: Batch | StoredBatch, streams: Streams) -> Iterator[Batch]:
    """What each round is shown: all examples as they are, or minibatches, of which the next is read ahead."""
    rounds = task.settings.rounds
    if task.settings.batch_size is None:
        yield from itertools.repeat(batch.loaded(), rounds)
        return
    size = min(task.settings.batch_size, batch.size)
    epoch = batch.size // size  # an epoch's examples in a new order, those that do not fill a minibatch left out
    orders = (streams.permutation(batch.size, "epoch", first).split(size, dim=1) for first in range(0, rounds, epoch))
    rows = itertools.islice((row for order in orders for row in order[:epoch]), rounds)
    if isinstance(batch, StoredBatch):
        yield from prefetch(rows, batch.minibatch)
    else:
        yield from map(batch.minibatch, rows)


def predict(method: ModuleType, task: Task, state: Any, batch: Batch | StoredBatch, chip: SimulatedChip) -> Prediction:
    """The method's prediction of a whole batch."""
    parts: list[Prediction] = [method.predict(task, state, s.inputs, s.index, chip) for s in _shown(batch)]
    if len(parts) == 1:
        return parts[0]
    shares = [min(PART, batch.size - first) / batch.size for first in range(0, batch.size, PART)]
    return Prediction(
        probabilities=_joined([p.probabilities for p in parts]),
        outputs=_joined([p.outputs for p in parts]),
        diagnostics={
            name: torch.stack([share * p.diagnostics[name] for share, p in zip(shares, parts, strict=True)]).sum(dim=0)
            for name in parts[0].diagnostics
        },
    )


def estimates(
    method: ModuleType, task: Task, state: Any, batch: Batch | StoredBatch, chip: SimulatedChip
) -> dict[str, torch.Tensor]:
    """The method's other estimates of a whole batch."""
    parts = [method.estimates(task, state, shown.inputs, shown.index, chip) for shown in _shown(batch)]
    return {name: torch.cat([part[name] for part in parts], dim=2) for name in parts[0]}


def _shown(batch: Batch | StoredBatch) -> Iterator[Batch]:
    """The batch in memory; what is on disk in parts, so that memory stays bounded."""
    if isinstance(batch, Batch):
        yield batch
    else:
        yield from (batch.part(first, first + PART) for first in range(0, batch.size, PART))


def _joined(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
    """Along the examples [B, S, N, ...]."""
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors, dim=2) if tensors else None


def _choose(
    shard: _Shard, method: ModuleType, candidates: Sequence[Mapping[str, float]], streams: Streams, report: Report
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The candidate with the lowest validation loss, a cell, and the presentations that the search cost [B].

    All candidates are trained as more cells of the same batched program, each cell's from the same random numbers.
    """
    times, index = len(candidates), list(shard.index)
    expanded = {name: torch.tensor([c[name] for c in candidates]).repeat(len(index)) for name in candidates[0]}
    chips, task = shard.chip.repeat(times), shard.task(expanded)
    batch = stack([d.train for d in shard.splits], index).repeat(times)
    state, _ = fit(method, task, batch, chips, streams.repeat(times), report)
    held_out = stack([d.validation for d in shard.splits], index).repeat(times)
    probabilities = predict(method, task, state, held_out, chips).probabilities
    if probabilities is None:
        raise TypeError("predict gave no probabilities, on which hyper-parameters could be chosen")
    probabilities = probabilities.mean(dim=1).clamp(min=1e-12)
    labels = held_out.targets[held_out.index][..., None]
    loss = -probabilities.gather(2, labels).log().mean(dim=(1, 2)).nan_to_num(nan=torch.inf)
    best = loss.unflatten(0, (-1, times)).argmin(dim=1)
    choice = {n: v.unflatten(0, (-1, times)).gather(1, best[:, None])[:, 0] for n, v in expanded.items()}
    return choice, chips.meter.presentations.unflatten(0, (-1, times)).sum(dim=1)
