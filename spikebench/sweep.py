"""Grid to cells to shards to jobs, without importing torch: this runs each time the Snakefile is read."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from spikebench import RESULTS_VERSION, plugins
from spikebench.config import Config
from spikebench.errors import UserError
from spikebench.seeds import canonical, digest


@dataclass(frozen=True)
class Cell:
    """One point of a sweep. Mappings are kept as canonical JSON, so that a cell can be hashed and compared."""

    experiment: str
    dataset: str
    data_kind: str
    data_settings: str
    network: str
    method: str
    mode: str
    variant: str
    settings: str
    fault: str
    severity: float
    training_size: int
    repetition: int
    preset: str

    @cached_property
    def id(self) -> str:
        """Hash of the axes, 16 hex digits."""
        return digest(asdict(self))

    @cached_property
    def shard(self) -> str:
        """Hash of the axes that the cells of one batched program share: all but severity and repetition."""
        return digest({k: v for k, v in asdict(self).items() if k not in ("severity", "repetition")})


@dataclass(frozen=True)
class Planned:
    """A cell with what the plan knows of it beyond its axes."""

    cell: Cell
    sweeps: str
    paper: str
    digest: str


@dataclass(frozen=True)
class Job:
    """Shards that one Snakemake job trains; all of one experiment and one method."""

    name: str
    shards: Mapping[str, tuple[Planned, ...]]
    seconds: float

    @cached_property
    def digest(self) -> str:
        """Changes when any of its cells becomes stale."""
        return digest([[p.cell.id, p.digest] for cells in self.shards.values() for p in cells])


@dataclass(frozen=True)
class Plan:
    """Everything that a preset expects."""

    config: Config
    planned: tuple[Planned, ...]
    jobs: Mapping[str, Job]

    @cached_property
    def expected(self) -> str:
        """Changes when the gathered table must: with the cells, what they depend on, or the sweeps they belong to."""
        return digest([[p.cell.id, p.digest, p.sweeps, p.paper] for p in self.planned])

    @cached_property
    def shards(self) -> dict[tuple[str, str], tuple[Planned, ...]]:
        """Cells by (experiment, shard)."""
        members = [item for job in self.jobs.values() for item in job.shards.items()]
        return {(cells[0].cell.experiment, shard): cells for shard, cells in members}


def _grid(experiment: Mapping[str, Any], sweep: Mapping[str, Any], config: Config) -> Iterator[Cell]:
    axes = {**experiment["axes"], **sweep.get("axes", {})}
    for name, kept in config.preset.get("keep", {}).items():
        # A preset thins an axis to the values it names; an axis without any of them keeps its last value.
        axes[name] = [value for value in axes[name] if value in kept] or axes[name][-1:]
    arms = sweep.get("arms", experiment["arms"])
    product = itertools.product(
        arms,
        axes["dataset"],
        axes.get("data_settings", [{}]),
        axes.get("network", [{}]),
        axes["fault"],
        axes["severity"],
        axes["training_size"],
        range(config.preset["repetitions"]),
    )
    for arm, dataset, data_settings, network, fault, severity, size, repetition in product:
        yield Cell(
            experiment=experiment["name"],
            dataset=dataset,
            data_kind=data_kind(dataset, config),
            data_settings=canonical(data_settings),
            network=canonical(network),
            method=arm["method"],
            mode=arm["mode"],
            variant=arm.get("variant", ""),
            settings=canonical(arm.get("settings", {})),
            fault=fault,
            severity=float(severity),
            training_size=size,
            repetition=repetition,
            preset=config.name,
        )


def data_kind(dataset: str, config: Config) -> str:
    """Whether this data set's recordings are ``real`` or ``simulated``; settled before the plan is made.

    Raises:
        UserError: the configuration asks for a kind that the data set does not come in.
    """
    kinds: tuple[str, ...] = plugins.constant("datasets", dataset, "KINDS", ("real",), config.root)
    wanted = config.main["data"]["kind"]
    if wanted == "auto":
        return kinds[0]
    if wanted not in kinds:
        allowed = ", ".join(("auto", *kinds))
        raise UserError(f"config/config.yaml: data.kind: found {wanted!r}, allowed for {dataset}: {allowed}")
    return str(wanted)


def staleness(cell: Cell, config: Config) -> str:
    """What a row's numbers depend on: when this changes, the cell is stale (comments and formatting do not count)."""
    return digest(
        {
            "axes": asdict(cell),
            "settings": config.method_settings(cell.method, json.loads(cell.settings)),
            "fault": config.faults[cell.fault],
            "method": plugins.fingerprint("methods", cell.method, config.root),
            "dataset": plugins.fingerprint("datasets", cell.dataset, config.root),
            "version": RESULTS_VERSION,
        }
    )


def make_plan(config: Config) -> Plan:
    """All cells of the preset, each once, with the sweeps it belongs to, packed into jobs by forecast seconds."""
    sweeps: dict[Cell, list[str]] = defaultdict(list)
    papers = {experiment["name"]: experiment["paper"] for experiment in config.experiments}
    for experiment in config.experiments:
        for sweep in experiment["sweeps"]:
            for cell in _grid(experiment, sweep, config):
                if sweep["name"] not in sweeps[cell]:
                    sweeps[cell].append(sweep["name"])
    shards: dict[tuple[str, str, str], list[Planned]] = defaultdict(list)
    for cell, names in sweeps.items():
        planned = Planned(cell, ";".join(names), papers[cell.experiment], staleness(cell, config))
        shards[cell.experiment, cell.method, cell.shard].append(planned)
    jobs = dict(_pack(shards, config))
    return Plan(config, tuple(p for cells in shards.values() for p in cells), jobs)


def _pack(shards: Mapping[tuple[str, str, str], list[Planned]], config: Config) -> Iterator[tuple[str, Job]]:
    """Fill jobs up to ``jobs.seconds``. Shards keep their order, so one new shard moves few others."""
    groups: dict[tuple[str, str], dict[str, tuple[Planned, ...]]] = defaultdict(dict)
    for (experiment, method, shard), planned in shards.items():
        groups[experiment, method][shard] = tuple(planned)
    for (experiment, method), members in groups.items():
        each = float(plugins.constant("methods", method, "SECONDS_PER_CELL", 1.0, config.root)) * config.preset["cost"]
        bins: list[dict[str, tuple[Planned, ...]]] = [{}]
        filled = 0.0
        for shard, cells in members.items():
            if bins[-1] and filled + each * len(cells) > config.main["jobs"]["seconds"]:
                bins.append({})
                filled = 0.0
            bins[-1][shard] = cells
            filled += each * len(cells)
        for number, content in enumerate(bins):
            name = f"{experiment}.{method}.{number:02d}"
            yield name, Job(name, content, each * sum(map(len, content.values())))
