"""Faults of the memory that holds the weights: stuck and flipped, for weights of one bit and of many."""

from __future__ import annotations

import pandas as pd

from spikebench.figures import faults_and_data
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.tables import in_sweep

TITLE = "Test accuracy where the memory of the weights is faulty"
EXPERIMENT = "grand_comparison"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells with such faults."""
    rows = in_sweep(rows, "families")
    return rows[rows["fault"].isin(["stuck-at", "sign-flips"])]


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """The grid of ``faults-and-data``, and what the weights take in memory."""
    grid = faults_and_data.grid(rows, context, TITLE)
    bits = rows.groupby("arm")["memory_bits"].max()
    told = ", ".join(f"{bits[arm]:,.0f} bits {arm}" for arm in context.present(rows) if bits[arm] == bits[arm])
    return Drawing(
        grid.figure, grid.note, f"{grid.caption} The weights take {told}.", grid.alt, grid.n,
        {**grid.numbers, "memory_bits": bits.to_dict()},
    )  # fmt: skip
