"""Rows of the comparison of all methods, on two data sets, with areas that can be told by heart.

An arm's accuracy falls on a straight line from 0.9 on a sound chip to 0.9 less its loss at severity 1, whatever the
fault, so that the area under it is 0.9 less half the loss.
"""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import synthetic

#: Arm and variant to its loss. Of ``mine`` there is no plug-in: a method whose file is gone.
LOSSES: dict[tuple[str, str, str], float] = {
    ("metropolis_hastings", "in-the-loop", ""): 0.1,
    ("backprop", "off-chip", ""): 0.4,
    ("bisnn", "off-chip", "bayes-ensemble"): 0.2,
    ("spide", "off-chip", ""): 0.3,
    ("mine", "oracle", ""): 0.6,
}
FAULTS = ("gain-mismatch", "threshold", "paper-full")
SETS: dict[tuple[str, str, str], int] = {("breast_cancer", "real", ""): 398, ("mnist_dvs", "simulated", "mnist"): 150}
MINE = "Mine oracle"


def rows(repetitions: int = 3) -> pd.DataFrame:
    """Every arm, fault and data set at severities 0, 0.5 and 1; presentations from 900 to 10,900, by the loss."""
    made: list[dict[str, Any]] = []
    places = itertools.product(LOSSES.items(), SETS.items(), FAULTS, (0.0, 0.5, 1.0), range(repetitions))
    for (arm, loss), (data, size), fault, severity, repetition in places:
        axes: tuple[Any, ...] = (
            "grand_comparison",
            "families",
            arm[:2],
            fault,
            severity,
            size,
            {},
            {"hidden": [8]},
            {},
        )
        row = synthetic._row(*axes, repetition, repetitions, "default", data, arm[2])
        aside = 0.001 * (repetition - (repetitions - 1) / 2)
        row |= {
            "paper": "comparison",
            "accuracy": 0.9 - loss * severity + aside,
            "chip_presentations": 20_000 * loss - 1_100,
        }
        made.append(row)
    return pd.DataFrame(made)
