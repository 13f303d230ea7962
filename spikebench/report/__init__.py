"""The report: a page that holds everything, images included, and a page for each method and data set.

None of them asks anything of the network. The one script, which sorts tables, is allowed by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spikebench import comparison
from spikebench.figures import NAMES
from spikebench.figures.tables import margin_and_target
from spikebench.naming import named
from spikebench.paths import replacing
from spikebench.report import formats, variance
from spikebench.report.comparisons import compare
from spikebench.report.coverage import by_arm, errors, maps, totals
from spikebench.report.evidence import evidence
from spikebench.report.gallery import figure, gallery
from spikebench.report.leaderboard import boards, by_dataset, by_fault
from spikebench.report.pages import data_pages, method_pages
from spikebench.report.summary import headline
from spikebench.report.times import times

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
    jobs: Sequence[Mapping[str, Any]] = (),
    root: Path | None = None,
) -> None:
    """Write the pages; whatever exists is shown, and what is missing is named.

    The index holds its images; the other pages show the files of ``figures_dir`` and ``sheets``, by relative address.

    Args:
        rows: the gathered table.
        traces: the gathered traces, of which the page says how many there are.
        claims: the scoreboard, entries of ``claims.json``.
        figures_dir: the folder that ``figures.draw`` wrote to.
        plan_coverage: expected and finished cells (columns experiment, method, mode, dataset, fault, expected, ok, and
            one for each other status).
        provenance: where it all comes from.
        preset: shown on the page, with a banner if it is ``smoke``.
        destination: the file of the index; its folder is made, and holds ``variance.html``, ``methods`` and ``data``.
        definitions: the entries of ``config/claims.yaml``, one of which names the margin of the comparisons.
        sheets: the JSON files of the data sets' contact sheets; those that do not exist are left out.
        jobs: of ``times.records``.
        root: of the project, whose plug-ins say what they are.
    """
    raw, rows, figures = rows, named(rows), gallery(figures_dir)
    drawn = {one.document["name"] for one in figures}
    areas = comparison.areas(rows)
    shown = [figure(sheet) for sheet in sheets if sheet.exists()]
    methods = method_pages(rows, areas, claims, figures, root)
    data = data_pages(raw, provenance["data"], shown, root)
    margin = margin_and_target(definitions, comparison.EXPERIMENT)[0] or comparison.MARGIN  # as in the figures
    common = {"preset": preset, "smoke": preset == SMOKE, "methods": methods, "data": data}
    _write(
        "page.html.j2",
        destination,
        **common,
        headline=headline(rows, plan_coverage, preset),
        claims=claims,
        evidence={claim["id"]: evidence(claim, raw) for claim in claims},
        figures=figures,
        drawn=drawn,
        sheets=shown,
        undrawn=[name for name in NAMES if name not in drawn],
        comparisons=compare(rows, definitions),
        by_dataset=by_dataset(rows, areas),
        by_fault=by_fault(rows, areas, margin),
        margin=margin,
        boards=boards(rows),
        totals=totals(plan_coverage),
        maps=maps(plan_coverage),
        arms=by_arm(plan_coverage),
        coverage=plan_coverage.to_dict("records"),
        errors=errors(rows),
        rows=len(rows),
        traces={"points": len(traces), "cells": traces["cell"].nunique()},
        times=times(rows, jobs, provenance["cpus"]),
        provenance=provenance,
    )
    _write(
        "variance_page.html.j2",
        destination.parent / "variance.html",
        **common,
        levels=variance.levels(rows),
        table=variance.table(rows),
        meanings=variance.MEANINGS,
        figures=[one for one in figures if one.document["name"] == "variance-shares"],
        folder=destination.parent,
    )
    for kind, pages in (("methods", methods), ("data", data)):
        folder = destination.parent / kind
        for page in pages:
            _write(f"{kind}_page.html.j2", folder / f"{page.name}.html", **common, page=page, folder=folder)
        for left in set(folder.glob("*.html")) - {folder / f"{page.name}.html" for page in pages}:
            left.unlink()  # of a plug-in that is no longer among the rows


def write_pointer(results_root: Path, preset: str) -> None:
    """Make ``<results_root>/report/index.html`` lead to this preset's report, unless it is a smoke run's.

    Args:
        results_root: the folder that holds a folder for each preset.
        preset: whose report was just written.
    """
    if preset != SMOKE:
        _write("pointer.html.j2", results_root / "report" / "index.html", preset=preset)


def _write(template: str, destination: Path, **values: Any) -> None:
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    text = _environment().get_template(template).render(script=Markup(script), allowed=allowed, **values)
    with replacing(destination) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
