"""What each job asks a cluster for: minutes, memory, a GPU. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spikebench import plugins
from spikebench.config import Config
from spikebench.forecast import START
from spikebench.paths import Results
from spikebench.sweep import Cell, Job, Plan, Planned

#: A forecast may be so many times too short before a job is ended; it is then tried again with more.
SLACK = 4.0
#: Of the shortest job.
MINUTES = 20
#: Of a job whose memory nobody has measured, in presets like ``default`` and in costlier ones.
MEMORY_MB, LARGE_MB = 3000, 16000
#: What is asked for in multiples of the peak that a calibration found in a few steps.
ROOM = 1.5


@dataclass(frozen=True)
class Resources:
    """For one try of a job; ``after`` says what a later try asks for."""

    minutes: int
    memory_mb: int
    gpus: int
    most_minutes: int

    def after(self, attempt: int) -> Resources:
        """Of try 1, 2, ...: what was ended for want of time or memory gets twice, then three times as much.

        But never more time than ``most_minutes``: trainings go on from their checkpoints.
        """
        minutes = min(self.minutes * attempt, self.most_minutes)
        return Resources(minutes, self.memory_mb * attempt, self.gpus, self.most_minutes)


def kind(planned: Sequence[Planned]) -> str:
    """What shards that take as long as each other share: all that decides how large their trainings are."""
    cell = planned[0].cell
    parts = (cell.experiment, cell.method, cell.mode, cell.variant, cell.dataset, cell.data_settings)
    sizes = (str(cell.training_size), cell.crossed, str(len(planned)))
    return " ".join((*parts, cell.network, cell.settings, *sizes))


def kinds(plan: Plan) -> dict[str, tuple[Planned, ...]]:
    """One shard of each kind."""
    found: dict[str, tuple[Planned, ...]] = {}
    for planned in plan.shards.values():
        found.setdefault(kind(planned), planned)
    return found


def wants_gpu(cell: Cell, config: Config) -> bool:
    """Whether a cell is to be trained on a GPU.

    In presets that say ``gpus``, by methods that can, off-chip, where no simulated device is met in training, and of
    networks with an architecture: of others the compiled kernels are faster than a GPU would be.
    """
    if not config.preset.get("gpus", False) or config.main["device"] == "cpu":
        return False
    able: tuple[str, ...] = plugins.constant("methods", cell.method, "DEVICES", ("cpu",), config.root)
    return "cuda" in able and cell.mode == "off-chip" and "architecture" in json.loads(cell.network)


def device(cell: Cell, config: Config) -> str:
    """What a cell is to be trained on: ``device`` of the configuration where it wants a GPU, else the CPU."""
    return str(config.main["device"]) if wants_gpu(cell, config) else "cpu"


def calibration(config: Config) -> Mapping[str, Mapping[str, Any]]:
    """What ``spikebench calibrate`` measured, by kind; empty where nobody did."""
    try:
        path = Results(config.name, config.root).calibration
        return _read(str(path), path.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=4)
def _read(path: str, modified: int) -> Mapping[str, Mapping[str, Any]]:
    with open(path) as file:
        found: Mapping[str, Mapping[str, Any]] = json.load(file)["kinds"]
    return found


def known(planned: Sequence[Planned], config: Config) -> Mapping[str, Any]:
    """What a calibration says of a shard; empty where none that held counts: of other settings, or another device."""
    found, device = calibration(config).get(kind(planned), {}), "cuda" if wants_gpu(planned[0].cell, config) else "cpu"
    counts = found.get("status") == "ok" and found["device"] == device and found["digest"] == planned[0].digest
    return found if counts else {}


def seconds(job: Job, config: Config) -> float:
    """That a job's shards are expected to take, by the calibration where it knows all of them, else by the plan."""
    measured = [known(cells, config) for cells in job.shards.values()]
    return sum(found["shard_seconds"] for found in measured) if all(measured) else job.seconds


def resources_of(job: Job, config: Config) -> Resources:
    """What the first try of a training job asks for."""
    peaks = [known(cells, config).get("peak_memory_mb", 0.0) for cells in job.shards.values()]
    # A calibration sees few examples and one network: it can show that more is needed, not that less is enough.
    memory = max(MEMORY_MB if config.scale < 10 else LARGE_MB, ROOM * max(peaks))
    gpus = int(any(wants_gpu(cells[0].cell, config) for cells in job.shards.values()))
    most = round(60 * config.main["job_hours"])
    minutes = max(MINUTES, math.ceil(SLACK * (seconds(job, config) + START) / 60))
    return Resources(min(minutes, most), math.ceil(memory), gpus, most)


def table(plan: Plan) -> str:
    """What the first try of each training job asks for, and what all of them together take."""
    wide = max((len(name) for name in plan.jobs), default=0)
    lines = [f"{'job':{wide}}  {'shards':>6} {'cells':>6} {'cpus':>4} {'gpus':>4} {'memory':>9} {'time':>10}"]
    hours, measured = [0.0, 0.0], 0
    for job in plan.jobs.values():
        request, cells = resources_of(job, plan.config), sum(map(len, job.shards.values()))
        hours[request.gpus] += seconds(job, plan.config) / 3600
        measured += all(known(planned, plan.config) for planned in job.shards.values())
        lines.append(
            f"{job.name:{wide}}  {len(job.shards):>6} {cells:>6} {1:>4} {request.gpus:>4} {request.memory_mb:>6} MB"
            f" {request.minutes // 60:>5}:{request.minutes % 60:02d} h"
        )
    total = f"{len(plan.jobs)} jobs, about {hours[0]:,.0f} core hours and {hours[1]:,.0f} GPU hours: {measured} jobs as"
    total += " calibrated on such a device, the others by the plan, a guess that `spikebench calibrate` betters"
    return "\n".join([*lines, f"preset {plan.config.name}: {total}"])
