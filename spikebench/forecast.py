"""How long the rest of a preset will take, by what its cells, or others like them, took before.

A cell's seconds are one worker's, which are one core's; jobs run beside each other. Imports no torch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spikebench import config as configuration
from spikebench.config import Config
from spikebench.errors import UserError
from spikebench.sweep import Plan, Planned

#: Core-seconds that a job takes beside its cells: the imports of its processes and the plan.
START = 3.0
#: Rows of presets whose cells cost more or less than this many times ours tell nothing: start-up and compilation, which
#: do not scale, make up most of a smoke run.
NEAR = 10.0
#: Bases of a forecast, the best first.
OWN, OTHERS, PLAN = "past rows", "rows of", "SECONDS_PER_CELL"

_COLUMNS = ["cell", "digest", "status", "experiment", "method", "mode", "dataset", "seconds"]


@dataclass(frozen=True)
class Line:
    """One experiment and method of the plan.

    Attributes:
        experiment: its name.
        method: its name.
        done: cells that have a fresh row.
        expected: cells of the plan.
        seconds: core-seconds that the others are expected to take, the jobs' start-up among them.
        basis: where these seconds were read.
    """

    experiment: str
    method: str
    done: int
    expected: int
    seconds: float
    basis: str


@dataclass(frozen=True)
class Past:
    """Rows that there are, of all presets, and what the presets cost.

    Attributes:
        rows: preset to the rows of its shard files, of ``_COLUMNS``.
        costs: preset to what a cell of it takes, against one of the preset ``default``.
    """

    rows: Mapping[str, list[dict[str, Any]]]
    costs: Mapping[str, float]

    @classmethod
    def read(cls, config: Config) -> Past:
        """All that lies under ``results/``; presets that cannot be read, and damaged files, are left out."""
        rows, costs = {}, {}
        for folder in sorted(config.root.glob("results/*/shards")):
            try:
                preset = configuration.read_yaml(
                    config.root / "config" / "presets" / f"{folder.parent.name}.yaml", config.root
                )
                costs[folder.parent.name] = float(preset["cost"])
            except (UserError, KeyError, TypeError, ValueError):
                continue
            rows[folder.parent.name] = [row for file in sorted(folder.glob("*/*.parquet")) for row in _rows(file)]
        return cls(rows, costs)

    @cached_property
    def _means(self) -> dict[tuple[str, ...], float]:
        """Mean seconds by preset, experiment, method, mode and data set."""
        return _means((preset, *_kind(row), row) for preset, rows in self.rows.items() for row in rows)

    def seconds(self, planned: Planned, config: Config, by_plan: float) -> tuple[float, str]:
        """Core-seconds that a cell is expected to take, and the basis of that.

        Rows of the same experiment, method, mode and data set are wanted: of this preset, then of the one that costs
        most nearly the same; then the plan's own forecast ``by_plan``. Other experiments have networks of other sizes.
        """
        cost, kind = float(config.preset["cost"]), _kind(planned.cell.axes)
        own = self._means.get((config.name, *kind))
        if own is not None:
            return own, OWN
        there = [preset for preset in self.rows if (preset, *kind) in self._means]
        far = {preset: abs(math.log(self.costs[preset] / cost)) for preset in there}
        if far and min(far.values()) <= math.log(NEAR):
            near = min(far, key=lambda preset: far[preset])
            return self._means[near, *kind] * cost / self.costs[near], f"{OTHERS} {near}"
        return by_plan, PLAN


def _kind(axes: Mapping[str, Any]) -> tuple[str, ...]:
    """What mostly decides how long a cell takes."""
    return axes["experiment"], axes["method"], axes["mode"], axes["dataset"]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The columns that are wanted of a shard's file; none where it is damaged, as ``spikebench.rows.read`` has it."""
    try:
        found: list[dict[str, Any]] = pq.read_table(path, columns=_COLUMNS).to_pylist()
    except (pa.ArrowException, OSError, KeyError):
        return []
    return found if all(row.keys() == set(_COLUMNS) for row in found) else []


def _means(keyed: Iterable[tuple[Any, ...]]) -> dict[Any, float]:
    """Mean seconds of the rows by what stands before them; an unavailable cell, which has none, took no time."""
    found: dict[Any, list[float]] = defaultdict(list)
    for *key, row in keyed:
        if row["status"] == "unavailable":
            found[tuple(key)].append(0.0)
        elif row["seconds"] is not None and math.isfinite(row["seconds"]):
            found[tuple(key)].append(row["seconds"])
    return {key: sum(values) / len(values) for key, values in found.items()}


def lines(plan: Plan, past: Past) -> tuple[list[Line], float]:
    """A line for each experiment and method, and the core-seconds of the longest job, which no second core shortens."""
    retried = {status for status in plan.config.main["retry"].split(",") if status}
    fresh = {
        (row["cell"], row["digest"]) for row in past.rows.get(plan.config.name, ()) if row["status"] not in retried
    }
    made: dict[tuple[str, str], Line] = {}
    longest = 0.0
    for job in plan.jobs.values():
        cells = [p for members in job.shards.values() for p in members]
        left = [p for p in cells if (p.cell.id, p.digest) not in fresh]
        forecasts = [past.seconds(p, plan.config, job.seconds / len(cells)) for p in left]
        seconds = sum(s for s, _ in forecasts) + START * bool(left)
        longest = max(longest, seconds)
        key = (cells[0].cell.experiment, cells[0].cell.method)
        line = made.get(key, Line(*key, 0, 0, 0.0, ""))
        bases = {basis for basis in [*line.basis.split(", "), *(b for _, b in forecasts)] if basis}
        made[key] = Line(
            *key,
            line.done + len(cells) - len(left),
            line.expected + len(cells),
            line.seconds + seconds,
            ", ".join(sorted(bases, key=lambda basis: (basis != OWN, basis == PLAN, basis))),
        )
    return list(made.values()), longest


def forecast(plan: Plan, cores: int) -> str:
    """A table of what is done and what is left, and the time that all cores need for the rest.

    Args:
        plan: of the preset.
        cores: that jobs run on beside each other, at least 1.

    Raises:
        UserError: there are no cores.
    """
    if cores < 1:
        raise UserError(f"--cores: found {cores}, allowed: 1 or more")
    found, longest = lines(plan, Past.read(plan.config))
    wide = max((len(f"{line.experiment} {line.method}") for line in found), default=0)
    table = [f"{'experiment, method':{wide}}  {'done':>6} of {'cells':>6}  {'left':>14}  basis"]
    table += [
        f"{f'{line.experiment} {line.method}':{wide}}  {line.done:>6,} of {line.expected:>6,}"
        f"  {_time(line.seconds):>14}  {line.basis or '-'}"
        for line in found
    ]
    done, expected = sum(line.done for line in found), sum(line.expected for line in found)
    wall = max(sum(line.seconds for line in found) / cores, longest)
    counted = f"{done:,} of {expected:,} cells are done"
    left = "nothing is left to train" if done == expected else f"about {_time(wall)} on {cores} core{'s'[: cores - 1]}"
    return "\n".join([*table, f"preset {plan.config.name}: {left}; {counted}"])


def _time(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
