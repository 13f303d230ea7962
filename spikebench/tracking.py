"""MLflow from rows: one writer that makes the database say what the rows say.

The rows are the truth. Each call makes the runs of one preset exactly those of the given rows: new cells are added,
changed ones replaced, vanished ones deleted for good, everything else, other presets included, stays as it is. So the
database may be deleted at any time: the next call builds the same runs, with the same ids.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from spikebench.claims import Claim
from spikebench.errors import UserError
from spikebench.mlflow_ui import ENVIRONMENT
from spikebench.paths import replacing
from spikebench.seeds import digest
from spikebench.tracking_runs import Run, experiment_runs, run_id, start_of, traces_by_cell, with_claims


@dataclass(frozen=True)
class Summary:
    """How many runs (cells, their parents, figures) a call created, replaced, deleted and left alone."""

    created: int
    replaced: int
    deleted: int
    unchanged: int


def synchronise(
    rows: pd.DataFrame,
    traces: pd.DataFrame,
    figures: Path | None,
    database: Path,
    artifacts: Path,
    preset: str,
    claims: Sequence[Claim] = (),
) -> Summary:
    """Make MLflow's runs of one preset those of its rows, traces and figures.

    An experiment is called like ``chip_in_the_loop [default]``. In it lies a parent run for each arm and data set with
    a child run for each cell, and one run with the figures (PNG and PDF) as artifacts. Writers of the same database
    wait for each other. A killed writer leaves whole experiments, old or new; the next call does the rest.

    Args:
        rows: One row a cell, all of one preset.
        traces: Columns cell, name, chain, step, value.
        figures: The folder with ``<name>.png``, ``.pdf`` and ``.json``, or None for no figures.
        database: MLflow's SQLite file; created if it does not exist.
        artifacts: The folder of all artifacts.
        preset: The preset that the rows belong to.
        claims: What ``claims.load`` gives; a cell's tag ``claim`` names those whose primary test compares it.

    Raises:
        UserError: if the rows are of another preset, a cell or a point of a trace comes twice, a row or a figure
            cannot be read, or MLflow cannot open the database.
    """
    _check(rows, traces, preset)
    for column, value in (("started", math.nan), ("crossed", "{}")):
        if column not in rows:  # gathered before rows said it
            rows = rows.assign(**{column: value})
    rows = with_claims(rows, claims)
    os.environ.update(ENVIRONMENT)  # MLflow reads it when it is imported
    from spikebench.mlflow_store import writing

    stepped = traces_by_cell(traces)
    pictures = _pictures(figures)
    database, artifacts = database.resolve(), artifacts.resolve()
    changes = []
    with writing(database, artifacts) as store:
        wanted = sorted({*rows["experiment"], *pictures})
        for name in wanted:
            experiment = store.experiment(f"{name} [{preset}]", preset, artifacts / preset / name)
            cells = rows[rows["experiment"] == name]
            runs = experiment_runs(cells, stepped)
            if name in pictures:
                runs.append(_figures_run(preset, name, pictures[name], start_of(cells["started"].max())))
                _copy(pictures[name], experiment.artifacts(runs[-1].id))
            changes.append(store.update(experiment, runs))
        for experiment in store.experiments(preset):
            if experiment.name not in {f"{name} [{preset}]" for name in wanted}:
                changes.append(store.update(experiment, []))
                store.drop(experiment)
    return Summary(
        created=sum(len(c.created) for c in changes),
        replaced=sum(len(c.replaced) for c in changes),
        deleted=sum(len(c.deleted) for c in changes),
        unchanged=sum(len(c.unchanged) for c in changes),
    )


def _check(rows: pd.DataFrame, traces: pd.DataFrame, preset: str) -> None:
    others = set(rows["preset"]) - {preset}
    if others:
        raise UserError(f"rows: found preset {', '.join(sorted(others))}, expected {preset} alone; gather again")
    for table, name, key in ((rows, "rows", ["cell"]), (traces, "traces", ["cell", "name", "chain", "step"])):
        twice = table[table.duplicated(key)]
        if len(twice):
            raise UserError(f"{name}: found cell {twice['cell'].iloc[0]} twice, expected each {'+'.join(key)} once")


def _pictures(figures: Path | None) -> dict[str, list[Path]]:
    """The PNG and PDF files of each experiment, as the JSON beside them says."""
    found: dict[str, list[Path]] = defaultdict(list)
    for described in sorted(figures.glob("*.json")) if figures else []:
        experiment = json.loads(described.read_text()).get("experiment")
        if not isinstance(experiment, str):
            raise UserError(f"{described}: found experiment {experiment!r}, expected a name; draw the figures again")
        found[experiment] += [f for f in map(described.with_suffix, (".png", ".pdf")) if f.exists()]
    return {experiment: pictures for experiment, pictures in found.items() if pictures}


def _figures_run(preset: str, experiment: str, pictures: Sequence[Path], start: int) -> Run:
    hashes = {picture.name: hashlib.sha256(picture.read_bytes()).hexdigest() for picture in pictures}
    return Run(
        id=run_id(preset, experiment, "figures"),
        name="figures",
        state="FINISHED",
        start=start,
        seconds=0.0,
        params={"preset": preset, "experiment": experiment},
        metrics=[],
        tags={"kind": "figures", "files": digest(hashes, 64)},
    )


def _copy(pictures: Sequence[Path], folder: Path) -> None:
    """Make the folder hold exactly these files."""
    for picture in pictures:
        with replacing(folder / picture.name) as temporary:
            shutil.copyfile(picture, temporary)
    for old in set(folder.iterdir()) - {folder / picture.name for picture in pictures}:
        old.unlink()
