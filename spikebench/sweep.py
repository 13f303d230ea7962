"""Grid to cells to shards to jobs, without importing torch: this runs each time the Snakefile is read."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any

from spikebench import RESULTS_VERSION, plugins, preparation
from spikebench.config import Config
from spikebench.errors import UserError
from spikebench.preparation import DataJob
from spikebench.seeds import canonical, digest


@dataclass(frozen=True)
class Cell:
    """One point of a sweep. Mappings are kept as canonical JSON, so that a cell can be hashed and compared.

    ``crossed`` holds the numbers of levels of the ``FACTORS`` that a sweep crosses; its repetitions count the
    combinations. Elsewhere every factor is drawn anew in each repetition.
    """

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
    crossed: str = "{}"

    @cached_property
    def axes(self) -> dict[str, Any]:
        """By name; ``asdict`` would copy each of them, which takes most of the time of a plan."""
        return {axis.name: getattr(self, axis.name) for axis in fields(self)}

    @cached_property
    def id(self) -> str:
        """Hash of the axes, 16 hex digits."""
        return digest(self.axes)

    def shard(self, training: str) -> str:
        """Hash of what the cells of one batched program share: all axes but severity and repetition.

        Variants of one training are one program, and off-chip, where no device is met in training, so are all faults.
        """
        shared = {"variant": training} | ({"fault": ""} if self.mode == "off-chip" else {})
        return digest({k: v for k, v in (self.axes | shared).items() if k not in ("severity", "repetition")})


#: What is drawn at random: the data's split, the training's seed, the device, and what it draws anew in each test.
FACTORS = ("split", "seed", "chip", "read")


def levels(crossed: str, repetition: int) -> dict[str, int]:
    """Which draw of each of the ``FACTORS`` a repetition stands for."""
    sizes = json.loads(crossed)
    if not sizes:
        return dict.fromkeys(FACTORS, repetition)
    found = {}
    for factor in FACTORS:
        repetition, found[factor] = divmod(repetition, sizes[factor])
    return found


@dataclass(frozen=True)
class Planned:
    """A cell with what the plan knows of it beyond its axes.

    Attributes:
        cell: itself.
        sweeps: that it belongs to, joined by semicolons.
        paper: of its experiment.
        digest: of all that its numbers depend on.
        data: what it learns from.
        shard: of its training.
        cost: what its sweep takes a cell, in multiples of what the plug-ins say.
    """

    cell: Cell
    sweeps: str
    paper: str
    digest: str
    data: DataJob
    shard: str
    cost: float = 1.0


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
    arms, crossed = config.arms(experiment, sweep), config.crossed(experiment, sweep)
    kinds = {name: preparation.kind(name, config) for name in axes["dataset"]}
    sources = {name: preparation.source(name, kind, config) for name, kind in kinds.items()}
    texts: dict[str, str] = {}

    def text(value: Mapping[str, Any]) -> str:
        """``canonical`` of the few mappings that many cells have in common."""
        said = repr(value)
        if said not in texts:
            texts[said] = canonical(value)
        return texts[said]

    meetings = [
        (arm, fault) for arm in arms for fault in axes["fault"] if config.takes_part(experiment, sweep, arm, fault)
    ]
    product = itertools.product(
        meetings,
        axes["dataset"],
        axes.get("data_settings", [{}]),
        axes.get("network", [{}]),
        axes["severity"],
        axes["training_size"],
        range(math.prod(crossed.values()) if crossed else config.repetitions(experiment, sweep)),
    )
    for (arm, fault), dataset, data_settings, network, severity, size, repetition in product:
        if repetition >= arm.get("repetitions", math.inf):
            continue
        yield Cell(
            experiment=experiment["name"],
            dataset=dataset,
            data_kind=kinds[dataset],
            data_settings=text(data_settings),
            network=text(network),
            method=arm["method"],
            mode=arm["mode"],
            variant=arm.get("variant", ""),
            settings=text({**settings, **arm.get("settings", {})}),
            fault=fault,
            severity=float(severity),
            training_size=_everything(dataset, data_settings, config) if size == "all" else size,
            repetition=repetition,
            preset=config.name,
            data_source=sources[dataset],
            crossed=text(crossed),
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
    return _staleness(cell, data, config, plugins.fingerprint("methods", cell.method, config.root))


def _staleness(cell: Cell, data: DataJob, config: Config, fingerprint: str) -> str:
    return digest(
        {
            "axes": cell.axes,
            "settings": config.method_settings(cell.method, json.loads(cell.settings)),
            "fault": config.faults[cell.fault],
            "method": fingerprint,
            "data": data.name,
            "version": RESULTS_VERSION,
        }
    )


def make_plan(config: Config) -> Plan:
    """All cells of the preset, each once, with the sweeps it belongs to, packed into jobs by forecast seconds."""
    sweeps: dict[Cell, list[str]] = defaultdict(list)
    costs: dict[Cell, float] = {}
    papers = {experiment["name"]: experiment["paper"] for experiment in config.experiments}
    for experiment in config.experiments:
        for sweep in experiment["sweeps"]:
            for cell in _grid(experiment, sweep, config):
                if sweep["name"] not in sweeps[cell]:
                    sweeps[cell].append(sweep["name"])
                    costs[cell] = config.cost(experiment, sweep)
    shards: dict[tuple[str, str, str], list[Planned]] = defaultdict(list)
    known: dict[tuple[str, ...], DataJob] = {}
    fingerprint = cache(lambda method: plugins.fingerprint("methods", method, config.root))
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
            digest=_staleness(cell, known[used], config, fingerprint(cell.method)),
            data=known[used],
            shard=cell.shard(trainings[arm]),
            cost=costs[cell],
        )
        shards[cell.experiment, cell.method, planned.shard].append(planned)
    jobs = dict(_pack(shards, config))
    return Plan(config, tuple(p for cells in shards.values() for p in cells), jobs)


def _pack(shards: Mapping[tuple[str, str, str], list[Planned]], config: Config) -> Iterator[tuple[str, Job]]:
    """Fill jobs up to ``jobs.seconds``, more in costly presets. Shards keep their order: a new one moves few others."""
    most = config.main["jobs"]["seconds"] * config.scale
    groups: dict[tuple[str, str], dict[str, tuple[Planned, ...]]] = defaultdict(dict)
    for (experiment, method, shard), planned in shards.items():
        groups[experiment, method][shard] = tuple(planned)
    load_of = cache(lambda dataset: float(plugins.constant("datasets", dataset, "LOAD", 1.0, config.root)))
    for (experiment, method), members in groups.items():
        own = float(plugins.constant("methods", method, "SECONDS_PER_CELL", 1.0, config.root)) * config.preset["cost"]
        bins: list[dict[str, tuple[Planned, ...]]] = [{}]
        seconds = [0.0]
        for shard, cells in members.items():
            forecast = own * load_of(cells[0].cell.dataset) * cells[0].cost * _trainings(cells)
            if bins[-1] and seconds[-1] + forecast > most:
                bins.append({})
                seconds.append(0.0)
            bins[-1][shard] = cells
            seconds[-1] += forecast
        for number, (content, total) in enumerate(zip(bins, seconds, strict=True)):
            name = f"{experiment}.{method}.{number:02d}"
            yield name, Job(name, content, total)


def _trainings(cells: Sequence[Planned]) -> float:
    """How many trainings the cells of a shard take; off-chip one serves all devices, which are a tenth of one each."""
    if cells[0].cell.mode != "off-chip":
        return len(cells)
    return len({p.cell.repetition for p in cells}) + 0.1 * len(cells)
