"""A few steps of each kind of training that a preset holds: does it start, and how long will it take?

Networks, time steps and settings are the preset's; of the data there are a few examples. What a step took is multiplied
with the steps of all trainings of a shard. On a machine with a GPU it forecasts hours of that GPU.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from spikebench import devices, plugins, preparation, resources, training
from spikebench.config import Config
from spikebench.errors import Unavailable, UserError
from spikebench.fitting import Shard, predict, rounds
from spikebench.learning import ideal, search_space
from spikebench.paths import Results, replacing
from spikebench.sweep import Plan, Planned, levels

#: Recordings or pictures that are made ready, and shown.
FEW = {"cpu": 40, "cuda": 160}
#: Examples of a minibatch on a CPU, where a whole one of the papers' sizes takes minutes; a GPU gets all of it.
EXAMPLES = 2
#: Steps and predictions of each kind: the first finds memory and machine code, the second is timed.
TRIES = 2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Of one kind.

    Attributes:
        status: ok, unavailable (its data is not here) or failed.
        reason: of another status than ok.
        shard_seconds: that all trainings and predictions of one shard are expected to take.
        peak_memory_mb: of the process while it was tried, with one network; a shard may train several side by side.
        device: cpu or cuda.
        cells: of the shard.
    """

    status: str
    reason: str = ""
    shard_seconds: float = float("nan")
    peak_memory_mb: float = float("nan")
    device: str = "cpu"
    cells: int = 0


def calibrate(plan: Plan, say: Say) -> str:
    """Try each kind of the plan, write what came of it, and say it in a sentence.

    What was measured before is kept where it was on the same kind of device, so that a run that was cut off goes on.

    Raises:
        UserError: some kinds do not start.
    """
    config, found = plan.config, dict[str, dict[str, Any]]()
    path = Results(config.name, config.root).calibration
    for number, (kind, planned) in enumerate((every := resources.kinds(plan)).items(), 1):
        cell = planned[0].cell
        device = devices.choose(resources.device(cell, config))
        if known := resources.calibration(config).get(kind, {}):
            if (known["status"], known["device"], known["digest"]) == ("ok", device, planned[0].digest):
                found[kind] = dict(known)
                continue
        outcome = measure(planned, config, device)
        found[kind] = {**vars(outcome), "digest": planned[0].digest}
        told = f"{outcome.shard_seconds / 3600:.2f} h, {outcome.peak_memory_mb:.0f} MB on {outcome.device}"
        said = told if outcome.status == "ok" else f"{outcome.status}: {outcome.reason}"
        say(
            f"{number}/{len(every)} {planned[0].sweeps} {cell.method} {cell.mode} {cell.variant} {cell.dataset}: {said}"
        )
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"kinds": {**resources.calibration(config), **found}}, indent=1) + "\n")
    statuses = [outcome["status"] for outcome in found.values()]
    counted = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    told = f"preset {config.name}: {len(found)} kinds of training: {counted}"
    if failed := [outcome["reason"] for outcome in found.values() if outcome["status"] == "failed"]:
        raise UserError(f"{told}; the first that does not start: {failed[0]}")
    return told


def measure(planned: tuple[Planned, ...], config: Config, device: str) -> Outcome:
    """Try the first cell of a shard."""
    _forget_peak()
    try:
        method = plugins.load("methods", planned[0].cell.method, config.root)
        one, settings = _small(planned, config, method, device)
        took = _try(one, method, device)
    except Unavailable as reason:
        return Outcome("unavailable", str(reason))
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    size = planned[0].cell.training_size
    whole = min(getattr(settings, "batch_size", None) or size, size)
    seconds = took.step * max(1.0, whole / took.shown) * _steps_of_all(planned, settings, one)
    # Every cell is tested, after each epoch where its best accuracy is asked for.
    tests = len(planned) * (settings.epochs + 1 if getattr(settings, "report_best", False) else 1)
    seconds += took.prediction * tests * json.loads(planned[0].data.settings).get("test", 1)
    return Outcome("ok", "", seconds, _peak(), device, len(planned))


def _small(planned: tuple[Planned, ...], config: Config, method: ModuleType, device: str) -> tuple[Shard, Any]:
    """The first unit of the shard with few examples, and the settings that it has with all of them.

    Raises:
        Unavailable: its data, or the combination.
    """
    cell = planned[0].cell
    sizes = {
        k: min(v, FEW[device]) for k, v in json.loads(planned[0].data.settings).items() if k in ("training", "test")
    }
    data = {**json.loads(planned[0].data.settings), **sizes}
    job = preparation.data_job(cell.dataset, cell.data_kind, cell.data_source, json.dumps(data), config)
    if job.source:
        preparation.fetch_source(job.source, config, "calibration", lambda sentence: None)
    module = plugins.load("datasets", cell.dataset, config.root)
    if hasattr(module, "prepare"):
        module.prepare(module.Settings(**job.loading), 1, lambda sentence: None)
    few = replace(cell, training_size=min(cell.training_size, data.get("training", cell.training_size)))
    settings = method.Settings(**config.method_settings(cell.method, json.loads(cell.settings)))
    work = training.Work([few], vars(settings), config.faults, config.root, data)
    shard, _ = training.prepare(work, method, [training.unit_of(few)])
    shard = ideal(shard) if cell.mode == "off-chip" else shard
    if getattr(settings, "minibatch", None) and device == "cpu":
        shard = replace(shard, settings=replace(settings, minibatch=min(EXAMPLES, settings.minibatch)))
    return shard, settings


class _Took(NamedTuple):
    """Seconds of a ``step`` of one network with so many examples ``shown``, and of a ``prediction`` of one example."""

    step: float
    shown: int
    prediction: float


def _try(one: Shard, method: ModuleType, device: str) -> _Took:
    """A few steps, and predictions of a few examples."""
    choice = {name: torch.tensor(values[:1]) for name, values in one.settings.SEARCH.items()}
    task = replace(one.task(choice), rounds=TRIES)
    batch = one.batch(lambda data: data.labelled).loaded()
    if one.settings.batch_size:
        batch = batch.minibatch(torch.arange(min(one.settings.batch_size, batch.size))[None])
    one.chip.count_activity = False
    shown, streams = devices.moved(batch, device), devices.streams_for(one.streams, device)
    with devices.context(device):
        state = method.init(task, shown, one.chip, streams)
        for _ in range(TRIES):
            clock = time.perf_counter()
            state, _ = method.step(task, state, shown, one.chip, streams)
            if device != "cpu":
                torch.cuda.synchronize()
            step = time.perf_counter() - clock
    state, asked = devices.moved(state, "cpu"), one.task(choice, one.training)
    tests = one.batch(lambda data: data.test)
    tested = tests.at(torch.arange(min(EXAMPLES, tests.size)))
    for _ in range(TRIES):
        clock = time.perf_counter()
        predict(method, asked, state, tested, one.devices("test"))
        prediction = time.perf_counter() - clock
    return _Took(step, batch.size, prediction / tested.size)


def _steps_of_all(planned: tuple[Planned, ...], settings: Any, one: Shard) -> int:
    """Steps of one network's size that a shard's trainings make, the search among them."""
    cell, candidates = planned[0].cell, len(search_space(replace(one, settings=settings)))
    units = {training.unit_of(p.cell) for p in planned}
    drawn = [levels(unit.crossed, unit.repetition) for unit in units]
    trainings = len({(d["split"], d["seed"]) for d in drawn}) if cell.mode == "off-chip" else len(units)
    steps = trainings * rounds(settings, cell.training_size)
    if candidates == 1:
        return steps
    searched = 1 if getattr(settings, "tune_once", False) else trainings
    return steps + candidates * searched * rounds(settings, round(0.8 * cell.training_size))


def _forget_peak() -> None:
    """Have the kernel count this process's peak memory anew; where it cannot, the peak is that of all kinds so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """MB."""
    try:
        return int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
