"""The harness: from the cells of one shard to their rows. It alone sees test targets, and only after training."""

from __future__ import annotations

import itertools
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from spikebench import metrics, plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo, SpikeData
from spikebench.errors import Unavailable
from spikebench.method import Task
from spikebench.networks import Network
from spikebench.seeds import Streams, seed
from spikebench.sweep import Cell

#: 45 nm CMOS, 32-bit floating point (Horowitz, ISSCC 2014): an addition a synaptic operation, a multiply-accumulate an
#: operation on a real-valued input. In picojoules.
ADDITION_PJ, MULTIPLY_ACCUMULATE_PJ = 0.9, 4.6
#: Steps of a training run that are kept as a trace.
TRACE_POINTS = 50

Row = dict[str, Any]
Report = Callable[[float], None]


@dataclass(frozen=True)
class Work:
    """The cells of one shard as a worker gets them.

    Attributes:
        cells: they differ in severity and repetition only.
        settings: for the method's ``Settings``.
        fault: coefficients of the fault family.
        root: of the project.
    """

    cells: Sequence[Cell]
    settings: Mapping[str, Any]
    fault: Mapping[str, float]
    root: Path


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


def _train_together(work: Work, method: ModuleType, report: Report) -> list[Row]:
    started, clock = time.time(), time.perf_counter()
    shared = work.cells[0]
    data = [
        _load(work.root, c.dataset, c.data_kind, c.data_settings, c.repetition, c.training_size) for c in work.cells
    ]
    distinct = list({d.split_sha256: d for d in data}.values())
    hashes = [d.split_sha256 for d in distinct]
    index = [hashes.index(d.split_sha256) for d in data]
    info = describe(distinct[0])
    network = Network(info.inputs, tuple(json.loads(shared.network).get("hidden", [8])), info.outputs)
    settings = method.Settings(**work.settings)
    specs = [FaultSpec(severity=cell.severity, **work.fault) for cell in work.cells]
    chip_seeds = [seed(purpose="chip", dataset=c.dataset, repetition=c.repetition) for c in work.cells]
    real = SimulatedChip(network, specs, chip_seeds, info.binary_inputs)
    seeds = [training_seed(cell) for cell in work.cells]
    chip, trained = real, list(range(len(seeds)))
    if shared.mode == "off-chip":
        # Off-chip training never touches the device: it sees the ideal model, so one training serves all severities.
        trained = [seeds.index(s) for s in dict.fromkeys(seeds)]
        chip = real.ideal(len(trained))
    place = torch.tensor([[seeds[t] for t in trained].index(s) for s in seeds]) if len(trained) < len(seeds) else None
    streams = Streams(tuple(seeds[t] for t in trained))
    used = [index[t] for t in trained]

    def task(choice: Mapping[str, torch.Tensor]) -> Task:
        return Task(network, info, settings, shared.mode, choice)

    grid = itertools.product(*settings.SEARCH.values())
    search = [dict(zip(settings.SEARCH, values, strict=True)) for values in grid]
    choice = {name: torch.full((len(trained),), values[0]) for name, values in settings.SEARCH.items()}
    presented = torch.zeros(len(trained), dtype=torch.float64)
    if tuned := len(search) > 1:
        choice, presented = _choose(method, task, search, distinct, used, chip, streams, lambda s: report(s / 2))
    batch = Batch.stack([d.labelled for d in distinct], used)
    state, traces = fit(method, task(choice), batch, chip, streams, lambda s: report((1 + s) / 2 if tuned else s))
    presented = (presented + chip.meter.presentations) * (shared.mode != "off-chip")
    if place is not None:
        state = type(state)(*(tensor[place] if tensor.dim() else tensor for tensor in state))
        traces = {name: values[:, place] for name, values in traces.items()}
        choice, presented = {name: values[place] for name, values in choice.items()}, presented[place]

    deployed = real.repeat(1)
    test = Batch.stack([d.test for d in distinct], index)
    prediction = method.predict(task(choice), state, test.inputs, test.index, deployed)
    others = {}
    if hasattr(method, "estimates"):
        others = method.estimates(task(choice), state, test.inputs, test.index, real.repeat(1))
    finite = _finite(state, len(work.cells))
    seconds = (time.perf_counter() - clock) / len(work.cells)
    assert prediction.probabilities is not None, "only classification is measured so far"
    rows = []
    for b, cell in enumerate(work.cells):
        error = "" if finite[b] else "the trained state is not finite"
        row: Row = {"status": "ok" if finite[b] else "diverged", "error": error}
        if finite[b]:
            row |= _measure(prediction.probabilities[b], data[b], cell)
            row |= _cost(deployed, b, len(data[b].test.targets))
            row["estimates"] = json.dumps({n: _scores(p[b], data[b]) for n, p in others.items()})
        row |= {
            "chip_presentations": float(presented[b]),
            "gradient_steps": float(settings.gradient_steps * (1 + len(search) * tuned)),
            "choice": json.dumps({name: round(float(values[b]), 9) for name, values in choice.items()}),
            "diagnostics": _numbers({name: values[b] for name, values in prediction.diagnostics.items()}),
            "traces": json.dumps(_thin(traces, b)) if finite[b] else "[]",
            "started": started,
            "seconds": seconds,
            "shared": len(work.cells) > 1,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "data_sha256": data[b].provenance.sha256,
            "split_sha256": data[b].split_sha256,
        }
        rows.append(row)
    return rows


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


@lru_cache(maxsize=128)
def _load(root: Path, dataset: str, kind: str, settings: str, repetition: int, size: int) -> SpikeData:
    module = plugins.load("datasets", dataset, root)
    split_seed = seed(purpose="split", dataset=dataset, repetition=repetition)
    chosen = module.Settings(split_seed=split_seed, training_size=size, kind=kind, **json.loads(settings))
    data: SpikeData = module.load(chosen)
    return data


def describe(data: SpikeData) -> DataInfo:
    """What a method may know of the data before it trains."""
    steps, lines = data.train.inputs.shape[1:]
    return DataInfo(data.task, lines, len(data.classes), steps, data.binary_inputs)


def fit(
    method: ModuleType, task: Task, batch: Batch, chip: SimulatedChip, streams: Streams, report: Report
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Call ``step`` for all rounds; the state and the traces, name to [rounds, B] or [rounds, B, chains]."""
    size = min(task.settings.batch_size or batch.size, batch.size)  # None hands over all examples as they are
    chip.count_activity = False
    state = method.init(task, batch, chip, streams)
    order: list[torch.Tensor] = []
    traces: dict[str, list[torch.Tensor]] = {}
    for number in range(task.settings.rounds):
        part = batch
        if task.settings.batch_size is not None:
            if not order:  # an epoch's examples in a new order, those that do not fill a minibatch left out
                order = list(streams.permutation(batch.size, "epoch", number).split(size, dim=1))[: batch.size // size]
            part = batch.minibatch(order.pop(0))
        state, info = method.step(task, state, part, chip, streams)
        for name, values in info.traces.items():
            traces.setdefault(name, []).append(values)
        report((number + 1) / task.settings.rounds)
    return state, {name: torch.stack(values) for name, values in traces.items()}


def _choose(
    method: ModuleType,
    task: Callable[[Mapping[str, torch.Tensor]], Task],
    candidates: Sequence[Mapping[str, float]],
    data: Sequence[SpikeData],
    index: list[int],
    chip: SimulatedChip,
    streams: Streams,
    report: Report,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The candidate with the lowest validation loss, a cell, and the presentations that the search cost [B].

    All candidates are trained as more cells of the same batched program, each cell's from the same random numbers.
    """
    times = len(candidates)
    expanded = {name: torch.tensor([c[name] for c in candidates]).repeat(len(index)) for name in candidates[0]}
    chips = chip.repeat(times)
    batch = Batch.stack([d.train for d in data], index).repeat(times)
    state, _ = fit(method, task(expanded), batch, chips, streams.repeat(times), report)
    held_out = Batch.stack([d.validation for d in data], index).repeat(times)
    prediction = method.predict(task(expanded), state, held_out.inputs, held_out.index, chips)
    assert prediction.probabilities is not None
    probabilities = prediction.probabilities.mean(dim=1).clamp(min=1e-12)
    labels = held_out.targets[held_out.index][..., None]
    loss = -probabilities.gather(2, labels).log().mean(dim=(1, 2)).nan_to_num(nan=torch.inf)
    best = loss.unflatten(0, (-1, times)).argmin(dim=1)
    choice = {n: v.unflatten(0, (-1, times)).gather(1, best[:, None])[:, 0] for n, v in expanded.items()}
    return choice, chips.meter.presentations.unflatten(0, (-1, times)).sum(dim=1)


def _majority(data: SpikeData) -> int:
    """The most frequent class of the learner's examples: equal votes go to it."""
    return int(np.bincount(data.labelled.targets.numpy()).argmax())


def _measure(probabilities: torch.Tensor, data: SpikeData, cell: Cell) -> Row:
    """Metrics of probabilities [S, N, C] against the test targets."""
    p, labels, majority = probabilities.double().numpy(), data.test.targets.numpy(), _majority(data)
    row: Row = metrics.classification_metrics(p, labels, majority, seed(purpose="null-band", cell=cell.id))
    mean = p.mean(axis=0)
    diagram = metrics.reliability(mean.max(axis=1), metrics.decide(mean, majority) == labels)
    return row | {
        "test_size": float(len(labels)),
        "reliability": json.dumps({name: _plain(values) for name, values in diagram._asdict().items()}),
    }


def _scores(probabilities: torch.Tensor, data: SpikeData) -> dict[str, float]:
    """Accuracy and proper scores of another estimator."""
    p, labels = probabilities.double().numpy(), data.test.targets.numpy()
    return {
        "accuracy": metrics.accuracy(p, labels, _majority(data)),
        "nll": metrics.negative_log_likelihood(p, labels),
        "brier": metrics.brier(p, labels),
    }


def _cost(chip: SimulatedChip, b: int, decisions: int) -> Row:
    """Activity and energy a decision, from a chip that has done nothing but predict the test set."""
    additions = float(chip.meter.synaptic_operations[b]) / decisions
    multiplications = float(chip.meter.input_operations[b]) / decisions
    return {
        "spikes": float(chip.meter.spikes[b]) / decisions,
        "synaptic_operations": additions + multiplications,
        "energy_pj": additions * ADDITION_PJ + multiplications * MULTIPLY_ACCUMULATE_PJ,
    }


def _finite(state: Any, cells: int) -> list[bool]:
    """For each cell, whether all numbers of the state are finite."""
    finite = torch.ones(cells, dtype=torch.bool)
    for tensor in state:
        if tensor.is_floating_point() and tensor.dim() > 0:
            finite &= tensor.reshape(cells, -1).isfinite().all(dim=1)
    return [bool(f) for f in finite]


def _thin(traces: Mapping[str, torch.Tensor], b: int) -> list[dict[str, Any]]:
    """At most ``TRACE_POINTS`` points of each trace, long form."""
    points = []
    for name, values in traces.items():
        mine = values[:, b].double().reshape(len(values), -1)
        stride = -(-len(mine) // TRACE_POINTS)
        for step in range(stride - 1, len(mine), stride):
            for chain, value in enumerate(mine[step].tolist()):
                points.append({"name": name, "chain": chain, "step": step + 1, "value": value})
    return points


def _numbers(values: Mapping[str, torch.Tensor]) -> str:
    return json.dumps({name: float(value) for name, value in values.items()})


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
