"""Grid to cells to shards to jobs, without importing torch: this runs each time the Snakefile is read."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from spikebench import RESULTS_VERSION, plugins, preparation
from spikebench.config import Config
from spikebench.errors import UserError
from spikebench.preparation import DataJob
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
    data_source: str = ""

    @cached_property
    def id(self) -> str:
        """Hash of the axes, 16 hex digits."""
        return digest(asdict(self))

    @cached_property
    def shard(self) -> str:
        """Hash of the axes that the cells of one batched program share: all but severity and repetition.

        That holds within one variant: variants of one training are one program (``Planned.shard``).
        """
        return digest({k: v for k, v in asdict(self).items() if k not in ("severity", "repetition")})


@dataclass(frozen=True)
class Planned:
    """A cell with what the plan knows of it beyond its axes.

    Attributes:
        cell: itself.
        sweeps: that it belongs to, joined by semicolons.
        paper: of its experiment.
        digest: of all that its numbers depend on.
        data: what it learns from.
        shard: the shard of its training: that of its axes with the training in place of the variant.
    """

    cell: Cell
    sweeps: str
    paper: str
    digest: str
    data: DataJob
    shard: str


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

    @cached_property
    def data(self) -> tuple[DataJob, ...]:
        """The data sets that its cells learn from."""
        return tuple(dict.fromkeys(p.data for cells in self.shards.values() for p in cells))


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
    def data(self) -> dict[str, DataJob]:
        """All data sets, as they are used, by name."""
        return {data.name: data for job in self.jobs.values() for data in job.data}

    @cached_property
    def shards(self) -> dict[tuple[str, str], tuple[Planned, ...]]:
        """Cells by (experiment, shard)."""
        members = [item for job in self.jobs.values() for item in job.shards.items()]
        return {(cells[0].cell.experiment, shard): cells for shard, cells in members}


def _grid(experiment: Mapping[str, Any], sweep: Mapping[str, Any], config: Config) -> Iterator[Cell]:
    axes, settings = config.axes(experiment, sweep), config.sweep_settings(experiment, sweep)
    arms = sweep.get("arms", experiment["arms"])
    kinds = {name: preparation.kind(name, config) for name in axes["dataset"]}
    sources = {name: preparation.source(name, kind, config) for name, kind in kinds.items()}
    product = itertools.product(
        arms,
        axes["dataset"],
        axes.get("data_settings", [{}]),
        axes.get("network", [{}]),
        axes["fault"],
        axes["severity"],
        axes["training_size"],
        range(config.repetitions(experiment, sweep)),
    )
    for arm, dataset, data_settings, network, fault, severity, size, repetition in product:
        yield Cell(
            experiment=experiment["name"],
            dataset=dataset,
            data_kind=kinds[dataset],
            data_settings=canonical(data_settings),
            network=canonical(network),
            method=arm["method"],
            mode=arm["mode"],
            variant=arm.get("variant", ""),
            settings=canonical({**settings, **arm.get("settings", {})}),
            fault=fault,
            severity=float(severity),
            training_size=_everything(dataset, data_settings, config) if size == "all" else size,
            repetition=repetition,
            preset=config.name,
            data_source=sources[dataset],
        )


def _everything(dataset: str, overrides: Mapping[str, Any], config: Config) -> int:
    """The training size ``all``."""
    settings = config.data_settings(dataset, overrides)
    if "training" not in settings:
        file = f"config/presets/{config.name}.yaml"
        raise UserError(f"{file}: data.{dataset}.training is missing, which the training size 'all' stands for")
    return int(settings["training"])


def staleness(cell: Cell, data: DataJob, config: Config) -> str:
    """What a row's numbers depend on: when this changes, the cell is stale (comments and formatting do not count)."""
    return digest(
        {
            "axes": asdict(cell),
            "settings": config.method_settings(cell.method, json.loads(cell.settings)),
            "fault": config.faults[cell.fault],
            "method": plugins.fingerprint("methods", cell.method, config.root),
            "data": data.name,
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
    known: dict[tuple[str, ...], DataJob] = {}
    trainings: dict[tuple[str, str], str] = {}
    for cell, names in sweeps.items():
        used = (cell.dataset, cell.data_kind, cell.data_source, cell.data_settings)
        if used not in known:
            known[used] = preparation.data_job(*used, config)
        arm = (cell.method, cell.variant)
        if arm not in trainings:
            trainings[arm] = plugins.training_of(*arm, config.root)
        planned = Planned(
            cell=cell,
            sweeps=";".join(names),
            paper=papers[cell.experiment],
            digest=staleness(cell, known[used], config),
            data=known[used],
            shard=replace(cell, variant=trainings[arm]).shard,
        )
        shards[cell.experiment, cell.method, planned.shard].append(planned)
    jobs = dict(_pack(shards, config))
    return Plan(config, tuple(p for cells in shards.values() for p in cells), jobs)


def _pack(shards: Mapping[tuple[str, str, str], list[Planned]], config: Config) -> Iterator[tuple[str, Job]]:
    """Fill jobs up to ``jobs.seconds``. Shards keep their order, so one new shard moves few others."""
    groups: dict[tuple[str, str], dict[str, tuple[Planned, ...]]] = defaultdict(dict)
    for (experiment, method, shard), planned in shards.items():
        groups[experiment, method][shard] = tuple(planned)
    for (experiment, method), members in groups.items():
        own = float(plugins.constant("methods", method, "SECONDS_PER_CELL", 1.0, config.root)) * config.preset["cost"]
        bins: list[dict[str, tuple[Planned, ...]]] = [{}]
        seconds = [0.0]
        for shard, cells in members.items():
            load = float(plugins.constant("datasets", cells[0].cell.dataset, "LOAD", 1.0, config.root))
            forecast = own * load * len(cells)
            if bins[-1] and seconds[-1] + forecast > config.main["jobs"]["seconds"]:
                bins.append({})
                seconds.append(0.0)
            bins[-1][shard] = cells
            seconds[-1] += forecast
        for number, (content, total) in enumerate(zip(bins, seconds, strict=True)):
            name = f"{experiment}.{method}.{number:02d}"
            yield name, Job(name, content, total)
