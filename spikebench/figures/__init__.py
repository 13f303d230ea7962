"""Figures, each rebuilt from the gathered rows alone: PNG, PDF, and JSON with the caption and the numbers in it.

A figure's name is that of its module with dashes. Matplotlib and seaborn are imported when the first one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: In the order of the report.
NAMES = (
    "accuracy-vs-severity",
    "accuracy-vs-training-size",
    "paired-difference",
    "presentations-vs-accuracy",
    "mh-traces",
    "ablations",
    "faults-and-data",
    "faults-and-data-calibration",
    "weight-faults",
    "lost-spikes",
    "severity-curves",
    "fault-families",
    "comparison-verdicts",
    "comparison-ranks",
    "comparison-budgets",
    "variance-shares",
    "data-baselines",
    "bisnn-scores",
    "bisnn-training-size",
    "bisnn-reliability",
    "bisnn-ensemble-size",
    "bisnn-maps",
    "bisnn-bands",
    "gem-training",
    "gem-inference",
    "gem-grid",
    "gem-memorisation",
    "gem-raster",
    "gem-communication",
    "gem-ablations",
    "spide-gradient",
    "spide-equilibrium",
    "spide-accuracy",
    "spide-cost",
    "spide-steps",
    "spide-ablations",
    "spide-chip",
    "psg-tests",
    "psg-time-steps",
    "psg-starts",
    "psg-trajectories",
    "psg-grid",
    "psg-look-ahead",
    "psg-families",
    "psg-thresholds",
    "pda-divergences",
    "pda-injection",
    "pda-drift",
    "pda-potentials",
)


def draw(
    name: str,
    rows: pd.DataFrame,
    traces: pd.DataFrame,
    preset: str,
    directory: Path,
    claims: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Draw one figure into ``directory`` as ``<name>.png``, ``<name>.pdf`` and ``<name>.json``.

    Incomplete tables are drawn as far as they go; without a finished cell, the figure says so in words.

    Args:
        name: one of ``NAMES``.
        rows: the gathered table of every experiment, failed and missing cells included.
        traces: the gathered traces (columns cell, name, chain, step, value).
        preset: printed on the figure.
        directory: made if it does not exist.
        claims: the entries of ``config/claims.yaml``; their margins and targets are drawn where they apply.

    Returns:
        What the JSON file holds: name, title, experiment, preset, caption, alt (text for those who cannot see the
        figure), n (the largest number of repetitions behind a point) and numbers (every number plotted).

    Raises:
        UserError: there is no such figure.
    """
    from spikebench.figures.drawing import draw_figure

    return draw_figure(name, rows, traces, preset, directory, claims)
