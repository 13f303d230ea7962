"""A finished run's rows and figures, made small enough for a repository and free of what must not be handed on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spikebench import figures
from spikebench.errors import UserError
from spikebench.paths import Results, replacing
from spikebench.rows import METRICS

#: Experiments with so many rows that only what figures and tables use is kept; the second is the first's old name.
BULKY = ("grand_comparison", "faults_and_data")
#: Bytes that the published table may have.
LIMIT = 2_000_000


def copy(root: Path) -> None:
    """Copy rows, coverage and figures of the preset ``full`` below ``root`` into ``docs/published``."""
    source, folder = Results("full", root), root / "docs" / "published"
    if not source.rows.exists():
        raise UserError("there is no results/full/rows.parquet to publish: run `make full`, or --render what lies here")
    copy_rows(source.rows, folder / "rows.parquet")
    shutil.copy(source.coverage, folder)
    copy_figures(source.figures, folder / "figures")


def copy_rows(source: Path, target: Path) -> None:
    """The rows, small enough for a repository: metrics to five digits, more than any printed figure shows.

    Hashes of a row's axes and of what makes it stale are left out, and of bulky experiments what is in no figure:
    reliability, estimates and diagnostics.

    Raises:
        UserError: the table would be larger than ``LIMIT``.
    """
    table = pq.read_table(source)
    bulky = pc.is_in(table["experiment"], pa.array(BULKY))
    for name in ("reliability", "estimates", "diagnostics"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pc.if_else(bulky, "{}", table[name]))
    for name in METRICS:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(_shortened(table[name].to_numpy())))
    table = table.drop_columns(["cell", "shard", "digest", "started"])
    words = [field.name for field in table.schema if field.name not in METRICS]
    with replacing(target) as temporary:
        pq.write_table(table, temporary, compression="brotli", compression_level=11, use_dictionary=words)
        if (size := temporary.stat().st_size) >= LIMIT:
            raise UserError(f"the published table has {size:,} bytes, and {LIMIT:,} are the limit: leave columns out")


def copy_figures(source: Path, target: Path) -> None:
    """The figures by name, and nothing else that may lie there; those that are no longer drawn go.

    Contact sheets are no figures: those of CIFAR show its pictures, which are not ours to hand on.
    """
    target.mkdir(exist_ok=True)
    for name in figures.NAMES:
        if (source / f"{name}.json").exists():
            for ending in ("png", "json"):
                shutil.copy(source / f"{name}.{ending}", target)
    for file in target.iterdir():
        if file.stem not in figures.NAMES:
            file.unlink()


def _shortened(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Single precision, of whose 23 bits after the point the first 16 are kept: the others hardly compress."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x40)) & np.uint32(0xFFFFFF80)).view(np.float32)
