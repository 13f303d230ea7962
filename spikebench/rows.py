"""The rows' columns, and reading and writing them. Rows are the truth; all else is rebuilt from them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from spikebench.paths import replacing
from spikebench.sweep import Cell, Planned

AXES = ("cell", "shard", "sweeps", "paper", *(f.name for f in fields(Cell)))
OUTCOME = ("status", "error")
METRICS = (
    "accuracy", "nll", "brier", "ece_width_15", "ece_width_20", "ece_mass_15", "ece_null_low", "ece_null_high",
    "spikes", "synaptic_operations", "energy_pj", "chip_presentations", "gradient_steps", "test_size",
    "ece_debiased", "rmse", "memory_bits", "bit_error", "log_likelihood",
    "best_accuracy",
)  # fmt: skip
DETAILS = ("choice", "diagnostics", "estimates", "reliability", "traces", "outputs")
PROVENANCE = ("data_sha256", "split_sha256", "digest")
#: Equal, bit for bit, whenever a cell is trained again on the same machine.
RESULT = (*AXES, *OUTCOME, *METRICS, *DETAILS, *PROVENANCE)
#: What differs from run to run. ``started`` is when training began, in seconds since the epoch (UTC).
MEASUREMENTS = ("started", "seconds", "shared", "peak_memory_mb", "host", "versions", "commit")

_NUMBERS = {"severity", *METRICS, "started", "seconds", "peak_memory_mb"}
_INTEGERS = {"training_size", "repetition"}
_DEFAULTS = {**dict.fromkeys(DETAILS, "{}"), "traces": "[]"}


def _type(column: str) -> pa.DataType:
    if column in _NUMBERS:
        return pa.float64()
    if column in _INTEGERS:
        return pa.int64()
    return pa.bool_() if column == "shared" else pa.string()


SCHEMA = pa.schema([(column, _type(column)) for column in (*RESULT, *MEASUREMENTS)])


def complete(planned: Planned, outcome: Mapping[str, Any], surroundings: Mapping[str, str]) -> dict[str, Any]:
    """A whole row: axes, outcome and surroundings; what the outcome does not say is NaN or empty."""
    cell = planned.cell
    row: dict[str, Any] = dict.fromkeys((*METRICS, "started", "seconds", "peak_memory_mb"), math.nan)
    row |= {**_DEFAULTS, "data_sha256": "", "split_sha256": "", "shared": False, **surroundings}
    row |= {"cell": cell.id, "shard": planned.shard, "sweeps": planned.sweeps, "paper": planned.paper, **asdict(cell)}
    return row | dict(outcome) | {"digest": planned.digest}


def write(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Rows sorted by cell to a Parquet file, moved into place whole."""
    ordered = sorted(rows, key=lambda row: str(row["cell"]))
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(ordered, schema=SCHEMA), temporary, compression="zstd")


def read(path: Path | IO[bytes]) -> list[dict[str, Any]]:
    """The rows of a file; none where there is no such file, or it is damaged (then its cells simply run again)."""
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (FileNotFoundError, pa.ArrowInvalid, OSError):
        return []
    # Files from before a column lack it, which Parquet reads as null.
    for place, column in enumerate(SCHEMA.names):
        if table[column].null_count and (column in _NUMBERS or column in _DEFAULTS):
            table = table.set_column(place, column, table[column].fill_null(_DEFAULTS.get(column, math.nan)))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def content_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """Hash of the result columns: equal for equal results, whatever machine time they took."""
    ordered = sorted(rows, key=lambda row: str(row["cell"]))
    text = json.dumps([[row[column] for column in RESULT] for row in ordered])
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def surroundings(root: Path) -> dict[str, str]:
    """Host, package versions and commit: where a row was made."""
    import platform
    import subprocess
    from importlib.metadata import version

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:  # there is no git, as in many containers
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    names = ("spikebench", "torch", "numpy", "numba", "snntorch")
    commit = git("rev-parse", "HEAD") or os.environ.get("SPIKEBENCH_COMMIT", "")  # a container has no .git
    return {
        "host": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": json.dumps({name: version(name) for name in names}),
        "commit": commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else ""),
    }
