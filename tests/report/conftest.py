from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))
import synthetic

from spikebench import figures


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    """Three repetitions; one arm's hardest cells timed out, one cell failed with a hostile message."""
    table = synthetic.rows()
    late = (table["mode"] == "oracle") & (table["severity"] == 1.0) & (table["experiment"] == "chip_in_the_loop")
    table = synthetic.fail(table, late, "timed-out", "no result after 120 seconds")
    first = table.index == table.index[table["mode"] == "off-chip"][0]
    return synthetic.fail(table, first, "failed", "ValueError: <script>alert('x')</script> & \"quotes\"")


@pytest.fixture(scope="session")
def drawn(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all figures."""
    folder = tmp_path_factory.mktemp("figures")
    for name in figures.NAMES:
        figures.draw(name, rows, synthetic.traces(rows), "default", folder)
    return folder
