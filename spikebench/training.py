"""The harness: from the cells of one shard to their rows. It alone sees test targets, and only after training."""

from __future__ import annotations

import json
import resource
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from spikebench import devices, evaluation, plugins
from spikebench.architectures import feedback_network
from spikebench.checkpoints import Checkpoints
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo, SpikeData
from spikebench.errors import Unavailable
from spikebench.evaluation import Row
from spikebench.fitting import Report, Shard, answer, estimates, fit, predict, score
from spikebench.learning import Learnt, ideal, learn, steps_paid
from spikebench.networks import NOMINAL, Network
from spikebench.seeds import seed
from spikebench.sweep import Cell, levels

__all__ = ["Work", "describe", "fit", "network", "train"]

#: Gain of the read-out times T: 1 at ten steps.
READ_OUT = 10.0
#: The repetition that hyper-parameters are chosen for where they are chosen once.
TUNING = "tuning"


class Unit(NamedTuple):
    """A device with a split and a training seed, by the axes of its cells."""

    fault: str
    severity: float
    repetition: int
    crossed: str


@dataclass(frozen=True)
class Work:
    """The cells of one shard as a worker gets them.

    Attributes:
        cells: they differ in severity, repetition and variants of one training only, and off-chip in the fault family.
        settings: for the method's ``Settings``.
        faults: coefficients of each of their fault families.
        root: of the project.
        data: for the data set's ``Settings``, beside the sweep's own.
        checkpoints: where trainings are saved while they go on; None saves nothing.
        device: what training may run on: ``auto``, ``cuda`` or ``cpu``, see ``devices.choose``.
    """

    cells: Sequence[Cell]
    settings: Mapping[str, Any]
    faults: Mapping[str, Mapping[str, float]]
    root: Path
    data: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: Checkpoints | None = None
    device: str = "cpu"


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
    groups: dict[object, list[Cell]] = defaultdict(list)
    for cell in work.cells:
        groups[method.BATCHED or unit_of(cell)].append(cell)
    rows: dict[Cell, Row] = {}
    for number, cells in enumerate(groups.values()):

        def so_far(share: float, done: int = number) -> None:
            report((done + share) / len(groups))

        rows |= _train_together(replace(work, cells=cells), method, so_far)
    return [rows[cell] for cell in work.cells]


def unit_of(cell: Cell) -> Unit:
    """What cells that are variants of one training share."""
    return Unit(cell.fault, cell.severity, cell.repetition, cell.crossed)


def _train_together(work: Work, method: ModuleType, report: Report) -> dict[Cell, Row]:
    started, clock = time.time(), time.perf_counter()
    units = list(dict.fromkeys(unit_of(cell) for cell in work.cells))
    shard, tuning = prepare(work, method, units)
    # By fault, too: which way a device is simulated is decided by its family alone.
    tested: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in work.cells:
        tested[cell.variant, cell.fault].append(cell)
    learnt = learn(
        shard, tuning, method, list(dict.fromkeys(variant for variant, _ in tested)), report, work.checkpoints
    )
    rows: dict[Cell, Row] = {}
    for (variant, _), cells in tested.items():
        mine = [units.index(unit_of(cell)) for cell in cells]
        rows |= dict(zip(cells, _measure(cells, shard.of(mine), method, learnt[variant].of(mine)), strict=True))
    common = {
        "gradient_steps": float(steps_paid(shard)),
        "memory_bits": float(shard.network.memory_bits),
        "started": started,
        "seconds": (time.perf_counter() - clock) / len(work.cells),
        "shared": len(work.cells) > 1,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return {cell: common | row for cell, row in rows.items()}


def _measure(cells: Sequence[Cell], shard: Shard, method: ModuleType, learnt: Learnt) -> list[Row]:
    """What one variant learnt, tested; a row for each cell, which is the unit of the same number."""
    task, test = shard.task(learnt.choice, cells[0].variant), shard.batch(lambda data: data.test)
    deployed = shard.devices("test")
    prediction = predict(method, task, learnt.state, test, deployed)
    values, others, scored = answer(prediction, shard.info.task), dict[str, torch.Tensor](), list[torch.Tensor]()
    # Other devices, so that their meters do not mix with that of the primary estimate.
    if hasattr(method, "estimates"):
        others = estimates(method, task, learnt.state, test, shard.devices("test-estimates"))
    if hasattr(method, "score") and shard.info.task != "regression":
        scored = [score(method, task, learnt.state, test, shard.devices("score"))]
    made = {"the trained state": learnt.state, "what was predicted": [values], "the likelihood": scored}
    finite = {name: evaluation.finite(tensors, len(cells)) for name, tensors in made.items()}
    maps = _map(shard, method, learnt, cells[0].variant)
    # Each epoch on devices that have not been used, as the last one was tested.
    epochs = [
        answer(predict(method, task, state, test, shard.devices("test")), shard.info.task) for state in learnt.epochs
    ]
    rows = []
    for b, cell in enumerate(cells):
        data = shard.splits[shard.index[b]]
        wrong = [name for name, good in finite.items() if not good[b]]
        row: Row = {
            "status": "diverged" if wrong else "ok",
            "error": f"{wrong[0]} is not finite" if wrong else "",
            "chip_presentations": float(learnt.presented[b]),
            "choice": json.dumps({name: round(float(chosen[b]), 9) for name, chosen in learnt.choice.items()}),
            "data_sha256": data.provenance.sha256,
            "split_sha256": data.split_sha256,
        }
        if not wrong:
            row |= evaluation.measure(values[b], data, cell)
            row |= evaluation.cost(deployed, b, len(data.test.targets))
            if epochs:
                row["best_accuracy"] = max(evaluation.accuracy(epoch[b], data) for epoch in epochs)
            found = {name: evaluation.scores(v[b], data, cell, name) for name, v in others.items()}
            for scores in scored:
                row["log_likelihood"] = float(evaluation.log_likelihood(scores[b], scores.shape[1]))
                found |= evaluation.likelihoods(scores[b])
            row["estimates"] = json.dumps(found)
            row["diagnostics"] = evaluation.diagnostics(prediction.diagnostics, b)
            row["traces"] = json.dumps(evaluation.thin(learnt.traces, b))
            row["outputs"] = maps.get(b, "{}")
            if data.task == "sequence":
                row["outputs"] = evaluation.raster(values[b], data.test.targets)
        rows.append(row)
    return rows


def _map(shard: Shard, method: ModuleType, learnt: Learnt, variant: str) -> dict[int, str]:
    """What each unit answers at the points of its data's probe, split by split: all at once would fill the memory."""
    maps: dict[int, str] = {}
    for number, data in enumerate(shard.splits):
        units = [u for u, split in enumerate(shard.index) if split == number]
        if data.probe is None or not units:
            continue
        own, known = shard.of(units), learnt.of(units)
        inputs = data.probe.inputs[None]
        shown = Batch(inputs, torch.zeros(inputs.shape[:2]), torch.zeros(len(units), dtype=torch.int64))
        prediction = predict(method, own.task(known.choice, variant), known.state, shown, own.devices("probe"))
        values = answer(prediction, shard.info.task)
        maps |= {u: evaluation.outputs(v, data.probe) for u, v in zip(units, values, strict=True)}
    return maps


def prepare(work: Work, method: ModuleType, units: Sequence[Unit]) -> tuple[Shard, Shard | None]:
    """What is trained, and the unit that hyper-parameters are chosen for where the method chooses them once."""
    shared = work.cells[0]
    given = {**json.loads(shared.data_settings), **work.data, "kind": shared.data_kind, "source": shared.data_source}
    settings = method.Settings(**work.settings)
    training = getattr(method, "VARIANTS", {}).get(shared.variant, shared.variant)

    def load(repetition: int | str) -> SpikeData:
        return _load(work.root, shared.dataset, json.dumps(given, sort_keys=True), repetition, shared.training_size)

    draws = [levels(unit.crossed, unit.repetition) for unit in units]
    data = [load(draw["split"]) for draw in draws]
    splits = {d.split_sha256: d for d in data}
    info = describe(data[0])
    tasks = getattr(method, "TASKS", ("classification",))
    if info.task not in tasks:
        raise Unavailable(
            f"{shared.method} does not train on a task of {info.task}, which {shared.dataset} is; "
            f"its tasks: {', '.join(tasks)}"
        )
    net = network(method, info, json.loads(shared.network) or {"hidden": [8]}, training)
    specs = [FaultSpec(severity=unit.severity, **work.faults[unit.fault]) for unit in units]
    chips, reads = (
        [seed(purpose="chip", dataset=shared.dataset, repetition=draw[factor]) for draw in draws]
        for factor in ("chip", "read")
    )
    shard = Shard(
        network=net,
        info=info,
        settings=settings,
        mode=shared.mode,
        training=training,
        splits=list(splits.values()),
        index=[list(splits).index(d.split_sha256) for d in data],
        seeds=[_training_seed(shared, training, draw["seed"]) for draw in draws],
        chip=SimulatedChip(net, specs, chips, info.binary_inputs, reads),
        device=devices.choose(work.device),
    )
    if not getattr(settings, "tune_once", False):
        return shard, None
    one = replace(shard.of([0]), splits=[load(TUNING)], index=[0], seeds=[_training_seed(shared, training, TUNING)])
    return shard, ideal(one)


def network(method: ModuleType, info: DataInfo, layers: Mapping[str, Any], training: str) -> Network:
    """The method's own network for a training, else one of LIF neurons; ``layers`` is the sweep's axis.

    One of an ``architecture`` has a last layer of output neurons behind it.

    Raises:
        Unavailable: they are to be others.
    """
    if hasattr(method, "network"):
        own: Network = method.network(info, layers, training)
        return own
    # The read-out's gain falls with T, so that the same share of steps with a spike means the same probability.
    gain = READ_OUT / info.steps
    if layers.keys() == {"architecture"}:
        named = f"{layers['architecture']}-{info.outputs}"
        try:
            made = feedback_network(named, info.inputs, info.layout or (), info.outputs, NOMINAL)
        except ValueError as error:
            raise Unavailable(str(error)) from error
        return replace(made, count_gain=gain)
    if layers.keys() - {"hidden"}:
        raise Unavailable(
            f"networks of LIF neurons have 'hidden' layers or an 'architecture'; found {json.dumps(layers)}"
        )
    return Network(info.inputs, tuple(layers.get("hidden", ())), info.outputs, count_gain=gain)


def _training_seed(cell: Cell, training: str, repetition: int | str) -> int:
    """Of method, data and repetition: the same at every severity and fault, so that curves are paired."""
    return seed(
        purpose="training",
        dataset=cell.dataset,
        method=cell.method,
        variant=training,
        training_size=cell.training_size,
        repetition=repetition,
    )


@lru_cache(maxsize=32)
def _load(root: Path, dataset: str, settings: str, repetition: int | str, size: int) -> SpikeData:
    module = plugins.load("datasets", dataset, root)
    split_seed = seed(purpose="split", dataset=dataset, repetition=repetition)
    chosen = module.Settings(split_seed=split_seed, training_size=size, **json.loads(settings))
    if size < chosen.fewest:
        raise Unavailable(f"{dataset} needs at least {chosen.fewest} training examples, {size} were asked for")
    data: SpikeData = module.load(chosen)
    return data


def describe(data: SpikeData) -> DataInfo:
    """What a method may know of the data before it trains."""
    steps, lines = data.train.inputs.shape[1:]
    outputs = len(data.classes) or data.train.targets.shape[-1]
    return DataInfo(data.task, lines, outputs, steps, data.binary_inputs, data.layout)
