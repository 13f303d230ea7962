"""All methods on the same chips: areas under severity curves, break points, verdicts, ranks, sources of variance.

What is compared is the accuracy with all training data. An arm's severity curve runs from a sound chip to severity 1;
the area under it, a mean over severities, is one number a repetition, in which all arms met the same split and the same
chip. Where arms are set against each other, over the fault families that all of them met (slow arms meet few).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from spikebench.figures.arms import with_arms
from spikebench.figures.tables import at, finished, with_all_data
from spikebench.statistics import holm, mean_interval, paired_difference
from spikebench.sweep import FACTORS, levels
from spikebench.variance import components, shares, shares_interval

EXPERIMENT, METRIC = "grand_comparison", "accuracy"
ALPHA = 0.05
#: The difference in accuracy that does not matter, where no claim names one.
MARGIN = 0.02
#: Parts of the variance, in the order of ``variance_shares``.
PARTS = (*FACTORS, "interactions")
#: What training pays for, in the rows' own names.
BUDGETS = ("gradient_steps", "chip_presentations", "seconds")


def planned(rows: pd.DataFrame) -> pd.DataFrame:
    """Every cell that takes part, finished or not, with all training data and the column ``arm``.

    Not those of arms that cannot meet a fault or a data set at all: nobody planned to measure what is unavailable.
    """
    here = with_arms(at(rows, experiment=EXPERIMENT, crossed="{}"))
    return with_all_data(here[here["status"] != "unavailable"])


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Those that finished."""
    return finished(planned(rows))


def areas(rows: pd.DataFrame) -> pd.DataFrame:
    """Areas under severity curves by repetition: the columns dataset, fault, arm, repetition and area.

    Over the severities that all arms were to meet under a family, by trapezoids, as a mean over severities. A
    repetition that misses one of them is left out.
    """
    records = []
    for (dataset, fault), here in planned(rows).groupby(["dataset", "fault"], sort=False):
        common = _common(here)
        if len(common) < 2:
            continue
        done = finished(here)
        table = done[done["severity"].isin(common)].pivot_table(METRIC, ["arm", "repetition"], "severity")
        if table.shape[1] < len(common):
            continue
        whole = table.dropna()
        values = np.trapezoid(whole.to_numpy(), common, axis=1) / (common[-1] - common[0])
        places = zip(whole.index, values, strict=True)
        records += [(dataset, fault, arm, repetition, float(area)) for (arm, repetition), area in places]
    return pd.DataFrame(records, columns=["dataset", "fault", "arm", "repetition", "area"])


def _common(here: pd.DataFrame) -> list[float]:
    """The severities that all arms were to meet, ascending."""
    return sorted(set.intersection(*(set(arm["severity"]) for _, arm in here.groupby("arm"))))


def break_points(rows: pd.DataFrame, margin: float) -> pd.DataFrame:
    """The largest severity up to which an arm's mean accuracy stays within ``margin`` of its own on a sound chip.

    Returns:
        One row a dataset, fault and arm that was tried on a sound chip: ``break_point``, ``shown`` (as far as the 90 %
        interval of the paired difference stays within, which is a test at 5 %), ``censored`` (it never left the margin)
        and ``n`` (repetitions at least, of a point).
    """
    records = []
    for (dataset, fault, arm), here in compared(rows).groupby(["dataset", "fault", "arm"], sort=False):
        table = here.pivot_table(METRIC, "repetition", "severity")
        if 0.0 not in table:
            continue
        held, shown, counts = True, True, []
        reached = {"break_point": 0.0, "shown": 0.0}
        for severity in table.columns:
            lost = (table[severity] - table[0.0]).dropna().to_numpy()
            if not lost.size:
                continue
            low = mean_interval(lost, 1 - 2 * ALPHA).low if severity else 0.0
            least = -margin - 1e-12  # a mean of k/n may round to a hair beyond its margin
            held, shown = held and bool(lost.mean() >= least), shown and bool(low >= least)
            reached |= {"break_point": float(severity)} if held else {}
            reached |= {"shown": float(severity)} if shown else {}
            counts.append(lost.size)
        place = {"dataset": dataset, "fault": fault, "arm": arm}
        records.append({**place, **reached, "censored": held, "n": min(counts)})
    return pd.DataFrame(records, columns=["dataset", "fault", "arm", "break_point", "shown", "censored", "n"])


def shared_families(rows: pd.DataFrame, dataset: str) -> list[str]:
    """The fault families that all arms were to meet on a data set, and under which an arm has an area, by name."""
    return _shared(at(planned(rows), dataset=dataset), at(areas(rows), dataset=dataset))


def _shared(here: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    met = [set(arm["fault"]) for _, arm in here.groupby("arm")]
    return sorted(set(found["fault"]).intersection(*met))


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Areas as a mean over the shared families: dataset, arm, repetition, area."""
    cells, parts = planned(rows), []
    for dataset, here in areas(rows).groupby("dataset", sort=False):
        families = _shared(at(cells, dataset=dataset), here)
        table = here[here["fault"].isin(families)].pivot_table("area", ["dataset", "arm", "repetition"], "fault")
        parts.append(table.dropna().mean(axis=1).rename("area").reset_index())
    return pd.concat(parts) if parts else pd.DataFrame(columns=["dataset", "arm", "repetition", "area"])


def ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """Arms of each data set by their mean area over the shared families: dataset, arm, area, low, high, n and rank."""
    records = []
    for (dataset, arm), here in _scores(rows).groupby(["dataset", "arm"], sort=False):
        interval = mean_interval(here["area"])
        found = {"area": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
        records.append({"dataset": dataset, "arm": arm} | found)
    table = pd.DataFrame(records, columns=["dataset", "arm", "area", "low", "high", "n"])
    table["rank"] = table.groupby("dataset")["area"].rank(ascending=False)
    return table.sort_values(["dataset", "rank"], ignore_index=True)


def mean_ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Mean rank over data sets, of the arms that all of them know, ranked again among these alone.

    Args:
        table: what ``ranks`` returned.

    Returns:
        One row an arm: arm, n (data sets), mean, low and high (95% Student-t interval over data sets).
    """
    known = table.groupby("arm")["dataset"].transform("nunique") == table["dataset"].nunique()
    here = table[known].assign(rank=lambda t: t.groupby("dataset")["area"].rank(ascending=False))
    records = [{"arm": arm, **asdict(mean_interval(of["rank"]))} for arm, of in here.groupby("arm", sort=False)]
    found = pd.DataFrame(records, columns=["arm", "n", "mean", "low", "high"])
    return found.sort_values("mean", ignore_index=True)


def budgets(rows: pd.DataFrame) -> pd.DataFrame:
    """What an arm pays for one cell, on average over the shared families and the severities that all arms meet.

    Returns:
        One row a dataset and arm: the mean of each of ``BUDGETS`` (NaN where it was not counted), ``shared`` (the share
        of cells that were trained together with others, and have an equal part of their seconds) and ``cells``.
    """
    everything, records = planned(rows), []
    for dataset, found in areas(rows).groupby("dataset", sort=False):
        here = at(everything, dataset=dataset)
        for fault in _shared(here, found):
            family = at(here, fault=fault)
            records.append(finished(family[family["severity"].isin(_common(family))]))
    if not records:
        return pd.DataFrame(columns=["dataset", "arm", *BUDGETS, "shared", "cells"])
    by_arm = pd.concat(records).astype({"shared": float}).groupby(["dataset", "arm"], sort=False)
    return by_arm[[*BUDGETS, "shared"]].mean().assign(cells=by_arm.size()).reset_index()


def front(points: pd.DataFrame, budget: str) -> list[str]:
    """The arms that no other beats in area for as little, or in the budget with as large an area: the Pareto front.

    Args:
        points: one data set's arms, with ``area`` and the budget.
        budget: the column that is to be small.
    """
    known = points.dropna(subset=["area", budget])
    area, cost = known["area"].to_numpy(dtype=np.float64), known[budget].to_numpy(dtype=np.float64)
    as_good = (area[:, None] >= area) & (cost[:, None] <= cost)
    beaten = np.any(as_good & ((area[:, None] > area) | (cost[:, None] < cost)), axis=0).tolist()
    return [str(arm) for arm, other in zip(known["arm"], beaten, strict=True) if not other]


def most_tests(attainable: float) -> int:
    """In how many tests at most Holm still lets the smallest of the p-values pass, if it is this one."""
    return int(np.ceil(ALPHA / attainable)) - 1


def verdicts(rows: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Every arm against every other on each data set, pair by pair of repetitions, after Holm.

    An arm is *better* or *worse* where the paired t test says so after Holm among all pairs of the data set,
    *equivalent* where TOST does, with its own Holm; *undecided* else, and always where the smallest p of a sign-flip
    test at this n is not below 5 %.

    Returns:
        One row an ordered pair of arms: dataset, arm, reference, n, mean, low, high (95 %, of the difference), p and
        tost_p (both after Holm), attainable (the smallest sign-flip p) and verdict.
    """
    records: list[dict[str, Any]] = []
    for dataset, here in _scores(rows).groupby("dataset", sort=False):
        table = here.pivot_table("area", "repetition", "arm")
        tests = []
        for arm, reference in combinations(table.columns, 2):
            pairs = table[[arm, reference]].dropna()
            if len(pairs) > 1:
                tests.append((arm, reference, paired_difference(pairs[arm], pairs[reference], margin)))
        of_difference = holm([result.p_two_sided for *_, result in tests])
        of_equivalence = holm([result.tost_p for *_, result in tests])
        for (arm, reference, result), p, tost_p in zip(tests, of_difference, of_equivalence, strict=True):
            verdict = "undecided"
            if result.attainable < ALPHA and tost_p < ALPHA:
                verdict = "equivalent"
            elif result.attainable < ALPHA and p < ALPHA:
                verdict = "better" if result.mean > 0 else "worse"
            common = {"n": result.n, "p": p, "tost_p": tost_p, "attainable": result.attainable}
            mirrored = {"better": "worse", "worse": "better"}.get(verdict, verdict)
            ends = {"mean": result.mean, "low": result.low, "high": result.high}
            turned = {"mean": -result.mean, "low": -result.high, "high": -result.low}
            pair = {"dataset": dataset, "arm": arm, "reference": reference}
            swapped = {"dataset": dataset, "arm": reference, "reference": arm}
            records += [
                {**pair, **ends, **common, "verdict": verdict},
                {**swapped, **turned, **common, "verdict": mirrored},
            ]
    columns = ["dataset", "arm", "reference", "n", "mean", "low", "high", "p", "tost_p", "attainable", "verdict"]
    return pd.DataFrame(records, columns=columns)


def variance_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Where accuracy's variance comes from at the point at which split, seed, chip and read are crossed.

    Returns:
        One row a dataset, arm and part of ``PARTS``: share, low, high (95 %), and ``sd`` of the total.
    """
    here = with_arms(rows[(rows["experiment"] == EXPERIMENT) & (rows["crossed"] != "{}")])
    records = []
    for (dataset, arm, crossed), cells in finished(here).groupby(["dataset", "arm", "crossed"], sort=False):
        values = _crossed(cells, str(crossed))
        if values is None:
            continue
        found, (low, high) = components(values), shares_interval(values, seed=0)
        sd = float(np.sqrt(max(0.0, sum(found.values()))))
        place = {"dataset": dataset, "arm": arm}
        parts = zip(PARTS, shares(found), low, high, strict=True)
        records += [{**place, "part": p, "share": s, "low": lo, "high": hi, "sd": sd} for p, s, lo, hi in parts]
    return pd.DataFrame(records, columns=["dataset", "arm", "part", "share", "low", "high", "sd"])


def _crossed(cells: pd.DataFrame, crossed: str) -> np.ndarray | None:
    """Accuracies [split, seed, chip, read]; None where a combination is missing, or a factor has one level."""
    draws = [levels(crossed, repetition) for repetition in cells["repetition"]]
    sizes: Sequence[int] = [json.loads(crossed)[factor] for factor in FACTORS]
    values = np.full(sizes, np.nan)
    for draw, value in zip(draws, cells[METRIC], strict=True):
        values[tuple(draw[factor] for factor in FACTORS)] = value
    return values if np.isfinite(values).all() and min(sizes) > 1 else None
