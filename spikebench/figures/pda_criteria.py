"""Which divergence passes which test of what the abstract says of PDA; ``psg_criteria`` has the other tests."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from spikebench.figures.psg_criteria import FAILS, LEAST, NOTHING, PASSES, UNDECIDED, UNTESTED, Result, all_of, decided
from spikebench.figures.psg_rows import USUAL, means, one, pairs, traced, with_treatments
from spikebench.figures.spide_rows import with_diagnostics
from spikebench.figures.tables import at, in_sweep
from spikebench.potentials import MEASURED, OFFSETS, SCALES

#: A divergence that grows by less than this factor does not drift, as log2 (chosen here); over the first and the last
#: of its recorded steps, this share of them.
FLAT, EDGE = float(np.log2(1.25)), 0.1
#: The diagnostic that measures a divergence in every row; the others are measured in the sweep ``probe`` alone.
MEASURES = {"a-gauss": "shift_decades", "b": "shift_b"}


def injected(rows: pd.DataFrame) -> pd.DataFrame:
    """``change`` (log2) of each ``divergence`` by a shift of ``kind`` and ``size`` in one layer, by ``repetition``."""
    records = []
    for row in at(in_sweep(rows, "probe"), variant="fixed").to_dict("records"):
        diagnostics = json.loads(row["diagnostics"])
        for kind, sizes, without in (("offset", OFFSETS, 0.0), ("scaled", SCALES, 1.0)):
            for divergence, values in zip(MEASURED, diagnostics.get(kind, []), strict=False):
                with np.errstate(divide="ignore", invalid="ignore"):
                    change = np.log2(np.array(values, dtype=np.float64) / values[sizes.index(without)])
                common = {"divergence": divergence, "kind": kind, "repetition": row["repetition"]}
                records += [{**common, "size": s, "change": c} for s, c in zip(sizes, change.tolist(), strict=True)]
    return pd.DataFrame(records, columns=["divergence", "kind", "repetition", "size", "change"])


def injection(rows: pd.DataFrame, divergence: str) -> Result:
    """Test 6: whatever the shift that is put in, the divergence rises.

    It fails where some shift raises it in no repetition.
    """
    found = at(injected(rows), divergence=divergence)
    found = found[found["size"] != found["kind"].map({"offset": 0.0, "scaled": 1.0})]
    if found.empty:
        return NOTHING
    rose = found.assign(rose=found["change"] > 0).groupby(["kind", "size"])["rose"]
    always, never = int(rose.all().sum()), int((~rose.any()).sum())
    verdict = FAILS if never else PASSES if always == len(rose) else UNDECIDED
    verdict = verdict if found["repetition"].nunique() >= LEAST else UNDECIDED
    return Result(verdict, always / len(rose), f"{always} of {len(rose)} shifts raise it")


def drifts(rows: pd.DataFrame, traces: pd.DataFrame) -> pd.DataFrame:
    """``early`` and ``late`` value of each ``divergence``, ``layer`` and ``repetition`` without training on it."""
    names = {f"shift-{divergence}": divergence for divergence in MEASURED}
    found = traced(at(in_sweep(rows, "probe"), variant="fixed"), traces, list(names), ["repetition"])
    records = []
    for (name, layer, repetition), own in found.groupby(["name", "layer", "repetition"]):
        values, some = own.sort_values("step")["value"].to_numpy(dtype=np.float64), max(1, int(EDGE * len(own)))
        if len(values) > 1:
            ends = {"early": float(values[:some].mean()), "late": float(values[-some:].mean())}
            records.append({"divergence": names[str(name)], "layer": layer, "repetition": repetition, **ends})
    return pd.DataFrame(records, columns=["divergence", "layer", "repetition", "early", "late"])


def drift(rows: pd.DataFrame, traces: pd.DataFrame, divergence: str) -> Result:
    """Test 7: without training on it, the divergence grows over training, or from the first layer to the last.

    It fails where neither grows by ``FLAT``.
    """
    found = at(drifts(rows, traces), divergence=divergence)
    if found.empty:
        return NOTHING
    grown = found.assign(change=np.log2(found["late"] / found["early"]))
    over_time = one(means(grown, ["repetition"], "change"), "change")
    first, last = (at(found, layer=layer) for layer in (found["layer"].min(), found["layer"].max()))
    deep = last.merge(first, on="repetition", suffixes=("", "_first"))
    deep = deep.assign(change=np.log2(deep["late"] / deep["late_first"]))
    in_depth = one(deep if found["layer"].nunique() > 1 else deep.iloc[:0], "change")
    points = [point for point in (over_time, in_depth) if point["n"]]
    verdict = UNDECIDED
    if any(point["n"] >= LEAST and point["low"] > 0 for point in points):
        verdict = PASSES
    elif all(point["n"] >= LEAST and point["high"] < FLAT for point in points):
        verdict = FAILS
    words = f"×{2 ** over_time['mean']:.2g} in training"
    words += f", ×{2 ** in_depth['mean']:.2g} with depth" if in_depth["n"] else ""
    return Result(verdict, over_time["mean"], words)


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """``difference`` to training without PDA, an ``arm``, ``metric`` and ``repetition``."""
    metrics = ["accuracy", "shift_decades", "shift_b", "quantisation", "rate"]
    found = with_treatments(with_diagnostics(in_sweep(rows, "divergences"), *metrics[1:]))
    parts = [
        pairs(found, arm, "none", metric).assign(arm=arm, metric=metric)
        for arm in sorted(set(found["arm"]) - {"none"})
        for metric in metrics
    ]
    return pd.concat(parts) if parts else pd.DataFrame(columns=["repetition", "difference", "arm", "metric"])


def causality(rows: pd.DataFrame, divergence: str) -> Result:
    """Test 8: PDA lowers its divergence and the quantisation error, and beats a network of the same firing rates."""
    found = at(effects(rows), arm=divergence)
    if found.empty:
        return NOTHING
    own = one(at(found, metric=MEASURES.get(divergence, "")), "difference")
    error = one(at(found, metric="quantisation"), "difference")
    control = one(beside_control(rows, divergence), "difference")
    verdicts = [decided(own, high=0.0), decided(error, high=0.0), decided(control, low=0.0)]
    marks = {PASSES: "yes", FAILS: "no", UNDECIDED: "?"}
    said = [
        (verdicts[0], f"D {own['mean']:+.2g}"),
        (verdicts[1], f"error {error['mean']:+.2g}"),
        (verdicts[2], f"{100 * control['mean']:+.1f} to control"),
    ]
    words = ", ".join(f"{words} ({marks[verdict]})" for verdict, words in said if verdict != UNTESTED)
    return Result(all_of(*verdicts), error["mean"], words)


def beside_control(rows: pd.DataFrame, divergence: str) -> pd.DataFrame:
    """``difference`` in accuracy to the rate-matched control, by ``repetition``; only the usual divergence has one."""
    found = with_treatments(in_sweep(rows, "divergences"))
    arm = divergence if divergence == USUAL["pda"] else "none of them"
    return pairs(found, arm, "rate_matched", "accuracy")
