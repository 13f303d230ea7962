"""Rows to what MLflow should hold: pure functions, without MLflow.

A cell becomes a child run, an arm (method and training mode) on one data set its parent, the figures of an experiment
one run more. The id of a run is the hash of its place, so it is the same in every rebuilt database and links to it stay
valid.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from spikebench.claims import Claim, cells
from spikebench.errors import UserError
from spikebench.naming import display_name
from spikebench.seeds import digest

#: (name, step, value)
Metric = tuple[str, int, float]

#: Axes that become parameters under their own name.
AXES = (
    *("experiment", "sweeps", "paper", "preset", "dataset", "data_kind", "data_source", "method", "mode", "variant"),
    *("fault", "severity", "training_size", "repetition"),
)
#: JSON columns that become parameters, and what stands before their keys.
NESTED = {
    "data_settings": "data",
    "network": "network",
    "settings": "settings",
    "choice": "choice",
    "crossed": "crossed",
}
#: Cells that agree in these met the same chip and the same split.
PAIRING = (
    "dataset",
    "data_kind",
    "data_source",
    "data_settings",
    "network",
    "fault",
    "severity",
    "training_size",
    "repetition",
    "crossed",
)
#: Result columns that a parent run shows against severity.
CURVES = ("accuracy", "nll", "brier", "ece_width_15", "spikes", "energy_pj", "bit_error", "log_likelihood")
#: Where runs start whose rows do not say when their training began: 2000-01-01 UTC, in ms.
START = 946_684_800_000
#: The state that MLflow shows for the status of a row; the tag ``status`` keeps the row's own word.
STATES = {
    "ok": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "unavailable": "FAILED",
    "timed-out": "KILLED",
    "missing": "SCHEDULED",
}


@dataclass(frozen=True)
class Run:
    """What one MLflow run should hold; ``start`` is in ms, and every run of this writer has a tag ``kind``."""

    id: str
    name: str
    state: str
    start: int
    seconds: float
    params: Mapping[str, str]
    metrics: Sequence[Metric]
    tags: Mapping[str, str]

    @cached_property
    def content(self) -> str:
        """The sha256 of all that the run holds."""
        return digest([self.name, self.state, self.start, self.seconds, self.params, self.metrics, self.tags], 64)


def run_id(*place: str) -> str:
    """32 hex digits, like MLflow's own ids, from (preset, experiment, kind, ...)."""
    return digest(place, 32)


def start_of(started: float) -> int:
    """Seconds since the epoch in ms; ``START`` for NaN."""
    return START if math.isnan(started) else round(1000 * started)


def traces_by_cell(traces: pd.DataFrame) -> dict[str, list[Metric]]:
    """Stepped metrics of every cell, named like ``log_posterior.chain0``, in the order of their steps."""
    ordered = traces.sort_values(["cell", "name", "chain", "step"])
    names = ordered["name"].astype(str) + ".chain" + ordered["chain"].astype(str)
    columns = (ordered["cell"], names, ordered["step"], ordered["value"])
    result: dict[str, list[Metric]] = defaultdict(list)
    for cell, name, step, value in zip(*(column.tolist() for column in columns), strict=True):
        result[cell].append((_key(name), step, value))
    return result


def with_claims(rows: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """The rows with a column ``claim``: the ids, like ``M1;M2``, of the claims whose primary test compares the cell.

    It is the empty text where there are none. What ``experiment_runs`` makes of it is a tag.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for claim in claims:
        for cell in set(cells(claim, rows)):  # arms may share cells
            found[cell].append(claim["id"])
    return rows.assign(claim=[";".join(found[cell]) for cell in rows["cell"]])


def experiment_runs(rows: pd.DataFrame, traces: Mapping[str, list[Metric]]) -> list[Run]:
    """The parents and children of one experiment of one preset, each parent before its children.

    Raises:
        UserError: if a row has an unknown status or a JSON column that cannot be read.
    """
    numeric = [c for c in rows.select_dtypes("number").columns if c not in (*AXES, "started")]
    runs: list[Run] = []
    # Sorted, because a mean's last bit depends on the order of its terms.
    for _, group in rows.sort_values("cell").groupby(["method", "mode", "dataset", "data_kind", "data_source"]):
        parent = _arm_run(group)
        runs.append(parent)
        runs.extend(
            _cell_run({str(k): v for k, v in row.items()}, numeric, traces.get(row["cell"], []), parent.id)
            for row in group.to_dict("records")
        )
    return runs


def _cell_run(row: dict[str, Any], numeric: Sequence[str], traces: Sequence[Metric], parent: str) -> Run:
    if row["status"] not in STATES:
        raise UserError(
            f"rows: cell {row['cell']}: found status {row['status']!r}, "
            f"expected one of {', '.join(STATES)}; gather again"
        )
    params = {axis: _text(row[axis]) for axis in AXES}
    for column, prefix in NESTED.items():
        params |= {name: _text(value) for name, value in _flat(_decoded(row, column), f"{prefix}.")}

    metrics = [(name, float(row[name])) for name in numeric]
    told = _flat(_decoded(row, "diagnostics"), "diagnostics/")
    metrics += [(name, _number(row, value)) for name, value in told if not isinstance(value, list)]
    metrics += [
        (f"{metric}.{estimator}", _number(row, value))
        for estimator, values in _decoded(row, "estimates").items()
        for metric, value in values.items()
    ]

    apart = {*AXES, *NESTED, *numeric, "started", "diagnostics", "estimates", "reliability"}
    tags = {column: _text(value) for column, value in row.items() if column not in apart}
    tags |= {axis: _text(row[axis]) for axis in ("paper", "method", "mode", "dataset", "fault")}
    tags |= {
        "kind": "cell",
        "arm": f"{row['method']}/{row['mode']}",
        "pair": digest([row[axis] for axis in PAIRING]),
        "mlflow.parentRunId": parent,
        "mlflow.source.git.commit": _text(row["commit"]),
    }
    return Run(
        id=run_id(row["preset"], row["experiment"], "cell", row["cell"]),
        name=f"{row['method']} {row['mode']}: {row['fault']} {row['severity']:g}, "
        f"n={row['training_size']}, repetition {row['repetition']}",
        state=STATES[row["status"]],
        start=start_of(row["started"]),
        seconds=0.0 if math.isnan(row["seconds"]) else row["seconds"],
        params={name: value for name, value in params.items() if value},
        metrics=[(_key(name), 0, value) for name, value in metrics if not math.isnan(value)] + list(traces),
        tags={name: value for name, value in tags.items() if value},
    )


def _arm_run(rows: pd.DataFrame) -> Run:
    """The parent: how many cells ended how, and means over repetitions against severity."""
    first = rows.iloc[0]
    place = {axis: str(first[axis]) for axis in ("method", "mode")}
    place["dataset"] = display_name(str(first["dataset"]), str(first["data_kind"]), str(first["data_source"]))
    shared = {axis: str(first[axis]) for axis in ("preset", "experiment", "paper")}
    counts = rows["status"].value_counts().sort_index()
    metrics = [("cells", 0, float(len(rows)))]
    metrics += [(f"cells_{status}", 0, float(count)) for status, count in counts.items()]
    return Run(
        id=run_id(shared["preset"], shared["experiment"], "arm", *place.values()),
        name=f"{place['method']} {place['mode']}, {place['dataset']}",
        state="FINISHED",
        start=start_of(rows["started"].max()),
        seconds=float(rows["seconds"].sum()),
        params=shared | place,
        metrics=metrics + list(_curves(rows)),
        tags=place
        | {"kind": "arm", "arm": f"{place['method']}/{place['mode']}", "paper": shared["paper"]}
        | {"mlflow.note.content": "Means over the repetitions of each severity; the step is 100 x severity."},
    )


def _curves(rows: pd.DataFrame) -> Iterator[Metric]:
    """Means of the ``ok`` cells against severity (step = 100 x severity), and how many cells each mean is over.

    One curve for each combination of the other axes that was run at two or more severities, named like
    ``accuracy/paper-full.n398``; MLflow draws what stands before the slash as one section of charts.
    """
    ok = rows[rows["status"] == "ok"]
    named = ["data_settings", "settings"]
    if rows["network"].nunique() > 1:
        named.append("network")
    for _, curve in ok.groupby(["fault", "training_size", "network", "data_settings", "settings", "variant"]):
        row = {str(k): v for k, v in curve.iloc[0].items()}
        parts = [row["fault"], f"n{row['training_size']}", row["variant"]]
        parts += [f"{name}-{_text(value)}" for column in named for name, value in _flat(_decoded(row, column))]
        name = ".".join(part for part in parts if part)
        points = curve.groupby("severity")
        means = points[list(CURVES)].mean().assign(cells=points.size())
        if len(means) < 2:
            continue
        for severity, *values in means.itertuples():
            for metric, value in zip(means.columns, values, strict=True):
                if not math.isnan(value):
                    yield _key(f"{metric}/{name}"), round(100 * severity), float(value)


def _decoded(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """The JSON object of a column; a row that never got so far has none."""
    text = row[column]
    if not isinstance(text, str) or not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(
            f"rows: cell {row['cell']}, column {column}: found {text[:60]!r}, expected a JSON object; gather again"
        )
    return value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield _key(prefix + name), value


def _number(row: Mapping[str, Any], value: object) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise UserError(f"rows: cell {row['cell']}: found {value!r} in diagnostics or estimates, expected a number")
    return float(value)


def _text(value: object) -> str:
    """A parameter or tag as text; nothing becomes the empty text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


@lru_cache(maxsize=4096)
def _key(name: str) -> str:
    """A name that MLflow accepts: its other characters become dashes."""
    return re.sub(r"[^\w\-. :/]", "-", name)
