"""Spikes that are lost on their way from the hidden neurons."""

from __future__ import annotations

import pandas as pd

from spikebench.figures import faults_and_data
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.tables import at, in_sweep

TITLE = "Test accuracy where hidden neurons' spikes are lost"
EXPERIMENT = "grand_comparison"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells with such faults."""
    return at(in_sweep(rows, "families"), fault="dropped-spikes")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """The grid of ``faults-and-data``."""
    return faults_and_data.grid(rows, context, TITLE)
