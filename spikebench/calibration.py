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
from typing import Any

import torch

from spikebench import devices, plugins, preparation, resources, training
from spikebench.config import Config
from spikebench.errors import Unavailable
from spikebench.fitting import Shard, predict, rounds
from spikebench.learning import ideal, search_space
from spikebench.paths import Results, replacing
from spikebench.sweep import Plan, Planned

#: Recordings or pictures that are made ready, and shown.
FEW = 40
#: Examples of a minibatch on a CPU, where a whole one of the papers' sizes takes minutes; a GPU gets all of it.
EXAMPLES = 2
#: Steps of each kind: the first finds memory and machine code, the second is timed.
STEPS = 2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Of one kind.

    Attributes:
        status: ok, unavailable (its data is not here) or failed.
        reason: of another status than ok.
        shard_seconds: that all trainings of one shard are expected to take.
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
    """
    config, found = plan.config, dict[str, dict[str, Any]]()
    path = Results(config.name, config.root).calibration
    for number, (kind, planned) in enumerate((every := resources.kinds(plan)).items(), 1):
        cell = planned[0].cell
        device = devices.choose(resources.device(cell, config))
        known = resources.calibration(config).get(kind, {})
        if known.get("status") == "ok" and known["device"] == device and known["digest"] == planned[0].digest:
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
    return _summary(found, plan)


def _summary(found: dict[str, dict[str, Any]], plan: Plan) -> str:
    statuses = [outcome["status"] for outcome in found.values()]
    counted = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    return f"preset {plan.config.name}: {len(found)} kinds of training: {counted}"


def measure(planned: tuple[Planned, ...], config: Config, device: str) -> Outcome:
    """Try the first cell of a shard."""
    _forget_peak()
    try:
        method = plugins.load("methods", planned[0].cell.method, config.root)
        one, settings = _small(planned, config, method, device)
        seconds = _steps(one, method, device)
    except Unavailable as reason:
        return Outcome("unavailable", str(reason))
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    shown = getattr(one.settings, "batch_size", None) or len(one.splits[0].labelled.targets)
    size = planned[0].cell.training_size
    whole = min(getattr(settings, "batch_size", None) or size, size)
    total = seconds * max(1.0, whole / shown) * _steps_of_all(planned, settings, one)
    return Outcome("ok", "", total, _peak(), device, len(planned))


def _small(planned: tuple[Planned, ...], config: Config, method: ModuleType, device: str) -> tuple[Shard, Any]:
    """The first unit of the shard with few examples, and the settings that it has with all of them.

    Raises:
        Unavailable: its data, or the combination.
    """
    cell = planned[0].cell
    sizes = {k: min(v, FEW) for k, v in json.loads(planned[0].data.settings).items() if k in ("training", "test")}
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


def _steps(one: Shard, method: ModuleType, device: str) -> float:
    """Seconds of a step of one network; a prediction is made, too."""
    choice = {name: torch.tensor(values[:1]) for name, values in one.settings.SEARCH.items()}
    task = replace(one.task(choice), rounds=STEPS)
    batch = one.batch(lambda data: data.labelled).loaded()
    if one.settings.batch_size:
        batch = batch.minibatch(torch.arange(min(one.settings.batch_size, batch.size))[None])
    one.chip.count_activity = False
    shown, streams, seconds = devices.moved(batch, device), devices.streams_for(one.streams, device), 0.0
    with devices.context(device):
        state = method.init(task, shown, one.chip, streams)
        for _ in range(STEPS):
            clock = time.perf_counter()
            state, _ = method.step(task, state, shown, one.chip, streams)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - clock
    state = devices.moved(state, "cpu")
    asked = one.task(choice, one.training)
    predict(method, asked, state, one.batch(lambda data: data.test).at(torch.arange(EXAMPLES)), one.devices("test"))
    return seconds


def _steps_of_all(planned: tuple[Planned, ...], settings: Any, one: Shard) -> int:
    """Steps of one network's size that a shard's trainings make, the search among them."""
    cell, candidates = planned[0].cell, len(search_space(replace(one, settings=settings)))
    off_chip = cell.mode == "off-chip"
    units = len({p.cell.repetition for p in planned}) if off_chip else len(planned)
    trained = units * rounds(settings, cell.training_size)
    if candidates == 1:
        return trained
    searched = 1 if getattr(settings, "tune_once", False) else units
    return trained + candidates * searched * rounds(settings, round(0.8 * cell.training_size))


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
