from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic

from spikebench import figures

#: As in config/claims.yaml, cut down to what figures read.
CLAIMS = (
    {"margin": 0.03, "test": {"experiment": "chip_in_the_loop", "metric": "accuracy", "kind": "paired-difference"}},
    {"test": {"experiment": "chip_in_the_loop", "metric": "accuracy", "kind": "size-ratio", "target": 0.85}},
)


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    return synthetic.rows()


@pytest.fixture
def draw(rows: pd.DataFrame, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Draw a figure of the synthetic rows, or of others, into ``tmp_path``."""

    def draw_one(name: str, table: pd.DataFrame | None = None, preset: str = "default") -> dict[str, Any]:
        table = rows if table is None else table
        return figures.draw(name, table, synthetic.traces(rows), preset, tmp_path, CLAIMS)

    return draw_one


@pytest.fixture(scope="session")
def gallery(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """All figures of the synthetic rows: their folder, and name to what ``draw`` returned."""
    folder = tmp_path_factory.mktemp("gallery")
    traces = synthetic.traces(rows)
    return folder, {name: figures.draw(name, rows, traces, "default", folder, CLAIMS) for name in figures.NAMES}
