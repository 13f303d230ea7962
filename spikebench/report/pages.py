"""A page for each method and each data set of the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from spikebench import plugins
from spikebench.comparison import planned
from spikebench.errors import UserError
from spikebench.figures.arms import styles, with_arms
from spikebench.figures.tables import at, faults, finished, summary
from spikebench.naming import named
from spikebench.report.gallery import Figure
from spikebench.report.tables import Table, amount, share, word

#: What a cell of a method costs, on average: column to heading.
COSTS = {
    "chip_presentations": "chip presentations",
    "gradient_steps": "gradient steps",
    "seconds": "seconds of training",
    "memory_bits": "bits of weights",
    "energy_pj": "pJ an inference, estimated",
    "peak_memory_mb": "peak MB",
}
BASELINES = "data_baselines"


@dataclass(frozen=True)
class MethodPage:
    """What the report says of one method.

    Attributes:
        name: of the plug-in.
        title: the first line of its docstring, or its name.
        paragraphs: the others of its docstring.
        citation: the paper.
        modes: training modes that it declares.
        variants: name to the training that it is a reading of.
        arms: labels.
        claims: entries of the scoreboard whose experiments it takes part in.
        figures: of these experiments, those of the comparison of all methods last.
        areas: under severity curves, a line an arm and data set, a column a fault family.
        costs: a line an arm, experiment and data set.
    """

    name: str
    title: str
    paragraphs: Sequence[str]
    citation: str
    modes: Sequence[str]
    variants: Mapping[str, str]
    arms: Sequence[str]
    claims: Sequence[Mapping[str, Any]]
    figures: Sequence[Figure]
    areas: Table
    costs: Table


@dataclass(frozen=True)
class DataPage:
    """What the report says of one data set.

    Attributes:
        name: of the plug-in.
        names: as people read it; several where parts or kinds of it were used.
        title: the first line of its docstring, or its name.
        paragraphs: the others of its docstring.
        licence: of the data.
        citation: of the data.
        provenance: entries of ``Provenance.data``, without those that no finished cell used.
        sheets: contact sheets.
        uses: a line an experiment and settings of the data.
        baselines: what backprop reaches on the ideal model, a line a name and arm.
    """

    name: str
    names: Sequence[str]
    title: str
    paragraphs: Sequence[str]
    licence: str
    citation: str
    provenance: Sequence[Mapping[str, str]]
    sheets: Sequence[Figure]
    uses: Table
    baselines: Table


def method_pages(
    rows: pd.DataFrame,
    areas: pd.DataFrame,
    claims: Sequence[Mapping[str, Any]],
    figures: Sequence[Figure],
    root: Path | None = None,
) -> list[MethodPage]:
    """A page for each method of the rows, by name.

    Args:
        rows: the gathered table, with the names of data sets that people read.
        areas: theirs (``comparison.areas``).
        claims: entries of the scoreboard.
        figures: all that were drawn.
        root: of the project, which holds the plug-ins.
    """
    plan = planned(rows)
    pages = []
    for name, here in with_arms(rows).groupby("method"):
        said = _said("methods", str(name), root)
        experiments = set(here["experiment"])
        pages.append(
            MethodPage(
                name=str(name),
                title=said.title,
                paragraphs=said.paragraphs,
                citation=said.constant("CITATION", ""),
                modes=said.constant("MODES", ()),
                variants=said.constant("VARIANTS", {}),
                arms=list(styles(here)),
                claims=[claim for claim in claims if claim["test"]["experiment"] in experiments],
                figures=[figure for figure in figures if figure.document["experiment"] in experiments],
                areas=_areas(at(plan, method=name), areas),
                costs=_costs(here),
            )
        )
    return pages


def _areas(plan: pd.DataFrame, found: pd.DataFrame) -> Table:
    families = faults(plan)
    means = found.groupby(["arm", "dataset", "fault"])["area"].mean().to_dict()
    lines = [
        [word(arm), word(dataset), *(share(means.get((arm, dataset, fault))) for fault in families)]
        for arm in styles(plan)
        for dataset in sorted(set(at(plan, arm=arm)["dataset"]))
    ]
    return Table("Area under the severity curve of accuracy", ["Arm", "data set", *families], lines, words=2)


def _costs(here: pd.DataFrame) -> Table:
    done = finished(here)
    lines = []
    for arm in styles(done):
        for places, cells in at(done, arm=arm).groupby(["experiment", "dataset"]):
            means = cells[list(COSTS)].mean()
            lines.append([word(arm), *map(word, map(str, places)), amount(len(cells)), *map(amount, means)])
    heads = ["Arm", "experiment", "data set", "cells", *COSTS.values()]
    return Table("Means of the finished cells", heads, lines, words=3)


def data_pages(
    rows: pd.DataFrame, provenance: Sequence[Mapping[str, str]], sheets: Sequence[Figure], root: Path | None = None
) -> list[DataPage]:
    """A page for each data set of the rows, by name.

    Args:
        rows: the gathered table as it lies on disk, with the plug-ins' names of data sets.
        provenance: ``Provenance.data``.
        sheets: contact sheets, whose names begin with their data set's.
        root: of the project, which holds the plug-ins.
    """
    pages = []
    for name, raw in rows.groupby("dataset"):
        here, said = with_arms(named(raw)), _said("datasets", str(name), root)
        names = sorted(set(here["dataset"]))
        pages.append(
            DataPage(
                name=str(name),
                names=names,
                title=said.title,
                paragraphs=said.paragraphs,
                licence=said.constant("LICENCE", ""),
                citation=said.constant("CITATION", ""),
                provenance=[entry for entry in provenance if entry["name"] in names],
                sheets=[sheet for sheet in sheets if sheet.document["name"].rpartition("-")[0] == name],
                uses=_uses(here),
                baselines=_baselines(here),
            )
        )
    return pages


def _uses(here: pd.DataFrame) -> Table:
    lines = []
    for (experiment, dataset, settings), cells in here.groupby(["experiment", "dataset", "data_settings"]):
        given = ", ".join(f"{key} {value}" for key, value in json.loads(str(settings)).items()) or "the preset's"
        sizes, tests = (sorted(set(cells[column].dropna())) for column in ("training_size", "test_size"))
        splits = len(set(cells["split_sha256"].dropna()) - {""})
        counts = [amount(splits), amount(len(finished(cells))), amount(len(cells))]
        counts.insert(0, word(", ".join(f"{test:g}" for test in tests) or "–"))
        lines.append(
            [word(str(experiment)), word(str(dataset)), word(given), word(", ".join(map(str, sizes))), *counts]
        )
    heads = ["Experiment", "data", "settings", "learner's examples", "test examples", "splits drawn"]
    return Table("Experiments on these data", [*heads, "finished cells", "of"], lines, words=5)


def _baselines(here: pd.DataFrame) -> Table:
    done = finished(at(here, experiment=BASELINES))
    points = summary(done, ["dataset", "arm", "training_size"], "accuracy").to_dict("records")
    lines = [
        [word(point["dataset"]), word(point["arm"]), amount(point["training_size"])]
        + [share(point[column]) for column in ("mean", "low", "high")]
        + [amount(point["n"])]
        for point in points
    ]
    heads = ["Data", "arm", "learner's examples", "mean", "low", "high", "n"]
    return Table("Test accuracy of the baseline, with a 95% Student-t interval", heads, lines, words=2)


@dataclass(frozen=True)
class _Said:
    """What a plug-in's source says of it; nothing where its file is gone, as its rows may be older."""

    kind: str
    name: str
    root: Path | None
    title: str
    paragraphs: Sequence[str]

    def constant(self, constant: str, default: Any) -> Any:
        try:
            return plugins.constant(self.kind, self.name, constant, default, self.root)
        except (UserError, ValueError):  # no such file, or no literal
            return default


def _said(kind: str, name: str, root: Path | None) -> _Said:
    try:
        first, *others = plugins.docstring(kind, name, root).split("\n\n")
    except UserError:
        first, others = "", []
    return _Said(kind, name, root, " ".join(first.split()) or name, others)
