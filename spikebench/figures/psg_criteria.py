"""Which candidate passes which test of the abstract's claims: the criteria, each a function of rows and traces.

An interval is the 95% Student-t interval over repetitions. A test passes where it lies within what is asked for, fails
where it lies outside, and is undecided else, as with fewer than ``LEAST`` repetitions. Where a bar is not of the list
of tests itself (docs/papers.md) but was chosen here, its comment says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spikebench.figures.psg_rows import (
    in_points,
    means,
    of_layers,
    one,
    pairs,
    traced,
    with_candidates,
    with_settings,
)
from spikebench.figures.spide_rows import with_diagnostics
from spikebench.figures.tables import at, in_sweep
from spikebench.figures.text import number

PASSES, FAILS, UNDECIDED, UNTESTED = "passes", "fails", "undecided", "not tested"
#: Repetitions (chosen here): an interval of two, whose values may be alike by chance, decides nothing.
LEAST = 3
#: Spread of final log k over that of its starts, at most.
SPREAD = 0.25
#: Factor to the grid's best k, as log2, and accuracy lost to it, at most.
FACTOR, LOST = 1.0, 0.002
#: Shares of steps so close to one half are near it (chosen here).
NEAR = 0.05


class Result(NamedTuple):
    """What a test says: a verdict, the number that is compared, and both in short words."""

    verdict: str
    number: float
    words: str


NOTHING = Result(UNTESTED, float("nan"), "")


def decided(point: Mapping[str, Any], low: float = -np.inf, high: float = np.inf) -> str:
    """The verdict on an interval that is to lie within two bounds."""
    if point["n"] < LEAST:
        return UNDECIDED if point["n"] else UNTESTED
    if low < point["low"] and point["high"] < high:
        return PASSES
    return FAILS if point["high"] <= low or point["low"] >= high else UNDECIDED


def all_of(*verdicts: str) -> str:
    """Of a test with several conditions; one that could not be tested decides nothing."""
    if FAILS in verdicts:
        return FAILS
    return PASSES if set(verdicts) == {PASSES} else UNDECIDED


def spreads(rows: pd.DataFrame) -> pd.DataFrame:
    """``ratio`` a ``candidate`` and ``repetition``: sd of final over sd of initial log2 k, the mean over layers."""
    begun = with_candidates(pd.concat([in_sweep(rows, name) for name in ("starts", "starts-by-candidate")]))
    found = of_layers(begun, "log2_sharpness_of_layers", ["candidate", "repetition", "sharpness"])
    found = found.assign(start=np.log2(found["sharpness"].astype(float)))
    records = []
    for candidate, own in found.groupby("candidate"):
        starts = own["sharpness"].nunique()
        for repetition, of_repetition in own.groupby("repetition"):
            if of_repetition["sharpness"].nunique() == starts > 1:
                by_layer = of_repetition.groupby("layer")
                ratio = float((by_layer["value"].std() / by_layer["start"].std()).mean())
                records.append({"candidate": candidate, "repetition": repetition, "ratio": ratio})
    return pd.DataFrame(records, columns=["candidate", "repetition", "ratio"])


def independence(rows: pd.DataFrame, candidate: str) -> Result:
    """Test 1: from any start to the same sharpness."""
    point = one(at(spreads(rows), candidate=candidate), "ratio")
    verdict = decided(point, high=SPREAD)
    return Result(verdict, point["mean"], f"ratio {number(point)}") if point["n"] else NOTHING


def against_grid(rows: pd.DataFrame) -> tuple[float, pd.DataFrame]:
    """The best fixed k, and of each PSG ``candidate`` and ``repetition`` its ``distance`` in log2 and ``difference``.

    The best has the highest mean accuracy. A candidate is begun at 1, or as close to it as it was begun; of one that
    was ``retrained``, nothing but its name differs.
    """
    grid = with_settings(at(in_sweep(rows, "grid"), variant="fixed"), "sharpness")
    if grid.empty:
        return float("nan"), pd.DataFrame(columns=["candidate", "start", "repetition", "distance", "difference"])
    scores = means(grid, ["sharpness"], "accuracy").sort_values("accuracy", ascending=False, kind="stable")
    best = float(scores["sharpness"].iloc[0])
    of_best = at(grid, sharpness=best).set_index("repetition")["accuracy"]
    found = beside_grid(rows, int(grid["training_size"].iloc[0]))
    starts = {
        candidate: min(set(own["sharpness"]), key=lambda k: (abs(np.log2(k)), -k))
        for candidate, own in found.groupby("candidate")
    }
    found = found[found["sharpness"] == found["candidate"].map(starts)]
    found = found.assign(
        start=found["sharpness"],
        distance=found["log2_sharpness"] - np.log2(best),
        difference=found["accuracy"] - found["repetition"].map(of_best),
    )
    return best, found[["candidate", "start", "repetition", "distance", "difference"]].reset_index(drop=True)


def beside_grid(rows: pd.DataFrame, training_size: int) -> pd.DataFrame:
    """PSG's rows by ``candidate``, trained on as many examples as the grid, each start and repetition once."""
    sweeps = pd.concat([in_sweep(rows, name) for name in ("starts", "starts-by-candidate", "grid", "thresholds")])
    sweeps = at(sweeps, variant="psg", training_size=training_size).drop_duplicates("cell")
    found = with_candidates(with_diagnostics(sweeps, "log2_sharpness"))
    return found.drop_duplicates(["candidate", "sharpness", "repetition"])


def optimality(rows: pd.DataFrame, candidate: str) -> Result:
    """Test 2: as good as the best of a grid, and close to it."""
    best, found = against_grid(rows)
    own = at(found, candidate=candidate)
    distance, difference = one(own, "distance"), one(own, "difference")
    if not distance["n"]:
        return NOTHING
    verdict = all_of(decided(distance, -FACTOR, FACTOR), decided(difference, low=-LOST))
    words = f"k {best * 2.0 ** distance['mean']:.2g}, best {best:g}; {in_points(difference)} points"
    return Result(verdict, difference["mean"], words)


def agreement(rows: pd.DataFrame, traces: pd.DataFrame) -> pd.DataFrame:
    """``share`` of steps with P1's slope of the look-ahead's sign, a ``variant``, ``layer`` and ``repetition``."""
    found = traced(in_sweep(rows, "probe"), traces, ["look_ahead"], ["variant", "repetition"])
    return means(found.rename(columns={"value": "share"}), ["variant", "layer", "repetition"], "share")


def looking_ahead(rows: pd.DataFrame, traces: pd.DataFrame) -> Result:
    """Test 3: P1's steps are those of the look-ahead more often than by chance."""
    found = means(at(agreement(rows, traces), variant="psg"), ["repetition"], "share")
    point = one(found, "share")
    verdict = decided(point, low=0.5 + NEAR)
    words = f"{100 * point['mean']:.0f}% of steps [{100 * point['low']:.0f}, {100 * point['high']:.0f}]"
    return Result(verdict, point["mean"], words) if point["n"] else NOTHING


def family_spreads(rows: pd.DataFrame) -> pd.DataFrame:
    """``spread`` of the families' accuracies, largest less smallest, a ``variant`` and ``repetition`` with them all."""
    found = with_settings(in_sweep(rows, "families"), "family")
    by = found.groupby(["variant", "repetition"])
    table = by.agg(spread=("accuracy", np.ptp), families=("family", "nunique")).reset_index()
    return table[table["families"] == found["family"].nunique()][["variant", "repetition", "spread"]]


def calibration(rows: pd.DataFrame) -> Result:
    """Test 4: with PSG the family matters less."""
    found = family_spreads(rows)
    point = one(pairs(found.assign(arm=found["variant"]), "psg", "fixed", "spread"), "difference")
    verdict = decided(point, high=0.0)
    return Result(verdict, point["mean"], f"spread {in_points(point)} points") if point["n"] else NOTHING


def beyond_thresholds(rows: pd.DataFrame) -> Result:
    """Test 5: PSG adds to thresholds that are learnt."""
    found = in_sweep(rows, "thresholds")
    point = one(pairs(found.assign(arm=found["variant"]), "ltmd+psg", "ltmd", "accuracy"), "difference")
    words = f"adds {in_points(point)} points"
    return Result(decided(point, low=0.0), point["mean"], words) if point["n"] else NOTHING
