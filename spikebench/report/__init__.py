"""The report: one page that holds everything (images included) and asks nothing of the network."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spikebench.figures import NAMES
from spikebench.naming import named
from spikebench.paths import replacing
from spikebench.report import formats
from spikebench.report.comparisons import compare
from spikebench.report.coverage import by_arm, errors, totals
from spikebench.report.leaderboard import boards
from spikebench.report.summary import headline

TEMPLATES = Path(__file__).parent / "templates"

#: The preset whose numbers mean nothing: its page says so, and nobody is led to it.
SMOKE = "smoke"


class Provenance(TypedDict):
    """Where the results come from.

    Attributes:
        data: one entry a data set, with the fields of ``spikebench.data.Provenance``.
        methods: name to citation.
        versions: package to version.
        commit: of the code that trained the rows (several, if so), or a word for why there is none.
        cpus: of the machine that made the report.
        created: when, as people write it.
    """

    data: Sequence[Mapping[str, str]]
    methods: Mapping[str, str]
    versions: Mapping[str, str]
    commit: str
    cpus: int
    created: str


@dataclass(frozen=True)
class Figure:
    """A figure as the page shows it.

    Attributes:
        document: what ``figures.draw`` wrote: name, title, caption, alt, numbers.
        image: the PNG as a data URI.
    """

    document: Mapping[str, Any]
    image: str

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The tables among its numbers, by name, for those who want to read instead of look."""
        return {k: v for k, v in self.document["numbers"].items() if isinstance(v, list) and v}


def build(
    rows: pd.DataFrame,
    traces: pd.DataFrame,
    claims: Sequence[Mapping[str, Any]],
    figures_dir: Path,
    plan_coverage: pd.DataFrame,
    provenance: Provenance,
    preset: str,
    destination: Path,
    definitions: Sequence[Mapping[str, Any]],
    sheets: Sequence[Path] = (),
) -> None:
    """Write the page to ``destination``; whatever exists is shown, and what is missing is named.

    Args:
        rows: the gathered table.
        traces: the gathered traces, of which the page says how many there are.
        claims: the scoreboard, entries of ``claims.json``.
        figures_dir: the folder that ``figures.draw`` wrote to.
        plan_coverage: expected and finished cells (columns experiment, method, mode, dataset, fault, expected, ok, and
            one for each other status).
        provenance: where it all comes from.
        preset: shown on the page, with a banner if it is ``smoke``.
        destination: the file to write; its folder is made.
        definitions: the entries of ``config/claims.yaml``, one of which names the margin of the comparisons.
        sheets: the JSON files of the data sets' contact sheets; those that do not exist are left out.
    """
    rows, figures = named(rows), _figures(figures_dir)
    drawn = {figure.document["name"] for figure in figures}
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            preset=preset,
            smoke=preset == SMOKE,
            headline=headline(rows, plan_coverage, preset),
            claims=claims,
            figures=figures,
            drawn=drawn,
            sheets=[_figure(sheet) for sheet in sheets if sheet.exists()],
            undrawn=[name for name in NAMES if name not in drawn],
            comparisons=compare(rows, definitions),
            boards=boards(rows),
            totals=totals(plan_coverage),
            arms=by_arm(plan_coverage),
            coverage=plan_coverage.to_dict("records"),
            errors=errors(rows),
            rows=len(rows),
            traces={"points": len(traces), "cells": traces["cell"].nunique()},
            provenance=provenance,
        )
    )
    with replacing(destination) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_pointer(results_root: Path, preset: str) -> None:
    """Make ``<results_root>/report/index.html`` lead to this preset's report, unless it is a smoke run's.

    Args:
        results_root: the folder that holds a folder for each preset.
        preset: whose report was just written.
    """
    if preset == SMOKE:
        return
    page = _environment().get_template("pointer.html.j2").render(preset=preset)
    with replacing(results_root / "report" / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def _figures(folder: Path) -> list[Figure]:
    """What was drawn, in the order of ``figures.NAMES``; others follow by name."""
    order = {name: place for place, name in enumerate(NAMES)}
    files = sorted(folder.glob("*.json"), key=lambda file: (order.get(file.stem, len(order)), file.stem))
    return [_figure(file) for file in files]


def _figure(file: Path) -> Figure:
    """What lies in a JSON file and the PNG beside it."""
    image = base64.b64encode(file.with_suffix(".png").read_bytes()).decode("ascii")
    return Figure(json.loads(file.read_text(encoding="utf-8")), f"data:image/png;base64,{image}")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= formats.FILTERS
    environment.tests["arxiv"] = lambda paper: re.fullmatch(r"\d{4}\.\d{5}", paper) is not None
    return environment
