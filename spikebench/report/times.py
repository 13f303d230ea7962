"""Where the time went: what each experiment took, and what all jobs took beside training.

A row's seconds are those of one worker, which has one core, and cells that were trained together share them out: so
sums of them are core-seconds. A worker's imports come before them; loading compiled kernels at their first call is
part of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

_COLUMNS = ["experiment", "shard", "started", "seconds", "peak_memory_mb"]


@dataclass(frozen=True)
class Part:
    """What one experiment took.

    Attributes:
        experiment: its name.
        cells: that were trained, whatever became of them.
        seconds: core-seconds.
        share: of the core-seconds of all experiments, 0 to 1.
        wall: seconds from the start of its first training to the end of its last; other experiments ran meanwhile.
        peak_gib: the most memory that a worker had held when it ended a cell; NaN where none says.
    """

    experiment: str
    cells: int
    seconds: float
    share: float
    wall: float
    peak_gib: float


@dataclass(frozen=True)
class Step:
    """One thing that the cores did while jobs were running: core-seconds, and the share of all that they had."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Times:
    """Where the time of a preset went.

    Attributes:
        parts: by experiment, the longest first.
        cells: that were trained.
        seconds: core-seconds of their training.
        wall: seconds from the start of the first training to the end of the last, pauses and nights included.
        at_work: seconds of these in which something was being trained.
        peak_gib: the most memory that a worker had held.
        steps: what the cores did while jobs ran, in every run that there is a record of; empty without records.
        runs: how many runs of jobs these are.
        running: seconds in which at least one of them ran.
        first_row: seconds from such a run's start to its first trained shard, the median; NaN where none trained.
        cores: that jobs could run on.
    """

    parts: Sequence[Part]
    cells: int
    seconds: float
    wall: float
    at_work: float
    peak_gib: float
    steps: Sequence[Step]
    runs: int
    running: float
    first_row: float
    cores: int


def records(folder: Path) -> list[dict[str, Any]]:
    """What ``supervisor.times_file`` holds of each job, by the job's name; damaged files are left out.

    Args:
        folder: of the preset, ``Results.folder``.
    """
    found = []
    for path in sorted(folder.glob("times/*.json")):
        try:
            record = json.loads(path.read_text())
        except ValueError:
            continue
        if isinstance(record, dict) and {"job", "runs"} <= record.keys():
            found.append(record)
    return found


def times(rows: pd.DataFrame, jobs: Iterable[Mapping[str, Any]], cores: int) -> Times:
    """Add it all up.

    Args:
        rows: the gathered table; of it the columns experiment, shard, started, seconds, peak_memory_mb. The
            published table has no ``started``: then nothing is known to have been trained.
        jobs: of ``records``; those of experiments that are not in the table are left out.
        cores: that jobs could run on, at least 1.
    """
    rows = rows.reindex(columns=_COLUMNS)
    trained = rows[rows["started"].notna()]
    seconds = trained["seconds"]  # NaN of an unavailable cell, which sums leave out
    # The cells of one batched program have one start, and share its time out.
    programs = seconds.groupby([trained["experiment"], trained["shard"], trained["started"]]).sum().reset_index()
    spans = list(zip(programs["started"], programs["started"] + programs["seconds"], strict=True))
    total = float(seconds.sum())
    parts = []
    for experiment, cells in trained.groupby("experiment"):
        here = [span for span, name in zip(spans, programs["experiment"], strict=True) if name == experiment]
        own = float(seconds[cells.index].sum())
        share = own / total if total else 0.0
        parts.append(Part(str(experiment), len(cells), own, share, _wall(here), _gib(cells)))
    known = set(rows["experiment"])
    runs = [run for job in jobs if job["job"].split(".")[0] in known for run in job["runs"]]
    running = _union((run["started"] - run["before"], run["started"] + run["wall"]) for run in runs)
    return Times(
        parts=sorted(parts, key=lambda part: (-part.seconds, part.experiment)),
        cells=len(trained),
        seconds=total,
        wall=_wall(spans),
        at_work=_union(spans),
        peak_gib=_gib(trained),
        steps=_steps(runs, running * cores),
        runs=len(runs),
        running=running,
        first_row=float(pd.Series([run["first_row"] for run in runs], dtype=float).median()),
        cores=cores,
    )


def _steps(runs: Sequence[Mapping[str, Any]], offered: float) -> list[Step]:
    """The core-seconds that there were while jobs ran, divided up."""
    if not runs:
        return []
    training, start_up, before, wall = (
        sum(float(run[name]) for run in runs) for name in ("training", "start_up", "before", "wall")
    )
    parts = {
        "training": training,
        "start-up of workers (imports)": start_up,
        "start-up of jobs (imports and plan)": before,
        "rest of the jobs (reading and writing rows, tries that came to nothing)": wall - start_up - training,
    }
    # Negative where more cores were at work than there are here: then there is no telling.
    parts["no job (Snakemake between jobs, preparing data, other rules, idle cores)"] = offered - sum(parts.values())
    parts = {name: max(0.0, seconds) for name, seconds in parts.items()}
    whole = sum(parts.values())
    return [Step(name, seconds, seconds / whole if whole else 0.0) for name, seconds in parts.items()]


def _wall(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds from the first start to the last end; 0 where there is nothing."""
    return float(max(end for _, end in spans) - min(start for start, _ in spans)) if spans else 0.0


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the spans."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return float(covered)


def _gib(rows: pd.DataFrame) -> float:
    """The largest peak of memory; NaN where no row has one."""
    return float(rows["peak_memory_mb"].max()) / 1024
