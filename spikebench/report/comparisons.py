"""The reference arm against every other at each point of the sweep over severities, as one family of tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from spikebench.figures.arms import REFERENCE, label, styles, with_arms
from spikebench.figures.tables import PAIR, at, differences, faults, finished, in_sweep, margin_and_target
from spikebench.statistics import holm, paired_difference

EXPERIMENT, SWEEP, METRIC = "chip_in_the_loop", "severity", "accuracy"
ALPHA = 0.05


@dataclass(frozen=True)
class Table:
    """The comparisons on one data set under one set of faults.

    Attributes:
        title: data set and faults.
        lines: severity, then for each arm the fields of its ``PairedResult`` and ``p``, which is that of the paired t
            test after Holm (NaN for a single pair); None where no pair finished.
    """

    title: str
    lines: Sequence[tuple[float, Sequence[Mapping[str, Any] | None]]]


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of the section; without tables if no pair finished or no claim names a margin.

    Attributes:
        reference: label of the arm from which the others are subtracted.
        arms: labels of the others, in the order of columns.
        margin: the difference in accuracy that does not matter.
        family: how many tests Holm's procedure corrected for: all that are shown and have a p.
        hopeless: numbers of pairs that cannot reach ``ALPHA`` by sign flips, with the p that they can reach.
        tables: one a data set and set of faults.
    """

    reference: str
    arms: Sequence[str]
    margin: float | None
    family: int
    hopeless: Mapping[int, float]
    tables: Sequence[Table]


def compare(rows: pd.DataFrame, definitions: Sequence[Mapping[str, Any]]) -> Comparisons:
    """Compare pair by pair what has finished.

    Args:
        rows: the gathered table.
        definitions: the entries of ``config/claims.yaml``, one of which names the margin.
    """
    reference, (margin, _) = label(REFERENCE), margin_and_target(definitions, EXPERIMENT)
    sweep = with_arms(in_sweep(at(rows, experiment=EXPERIMENT), SWEEP))
    arms = [arm for arm in styles(sweep) if arm != reference]
    pairs = differences(finished(sweep), reference, METRIC).dropna(subset="difference").sort_values(PAIR)
    if margin is None or pairs.empty:
        return Comparisons(reference, arms, margin, 0, {}, [])
    results = {
        key: paired_difference(values, np.zeros(len(values)), margin, 1 - ALPHA)
        for key, values in pairs.groupby(["dataset", "fault", "severity", "arm"])["difference"]
    }
    tested = [key for key, result in results.items() if not math.isnan(result.p_two_sided)]
    adjusted = dict(zip(tested, holm([results[key].p_two_sided for key in tested]), strict=True))
    found = {key: {**asdict(result), "p": adjusted.get(key, math.nan)} for key, result in results.items()}
    tables = []
    for dataset, here in sweep.groupby("dataset"):
        for fault in faults(here):
            severities = sorted(set(at(here, fault=fault)["severity"]))
            lines = [(s, [found.get((dataset, fault, s, arm)) for arm in arms]) for s in severities]
            tables.append(Table(f"{dataset}: {fault}", lines))
    hopeless = {result.n: result.attainable for result in results.values() if result.attainable >= ALPHA}
    return Comparisons(reference, arms, margin, len(tested), dict(sorted(hopeless.items())), tables)
