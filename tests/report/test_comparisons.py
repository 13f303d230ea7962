"""Exploratory comparisons against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pytest
from scoreboard import DEFINITIONS

from spikebench.figures.tables import PAIR
from spikebench.report.comparisons import Comparisons, compare

MH = ("metropolis_hastings", "in-the-loop")
LOOP, OFF, NEW = ("backprop", "in-the-loop"), ("backprop", "off-chip"), ("bayes_bisnn", "in-the-loop")


def row(arm: tuple[str, str], severity: float, repetition: int, accuracy: float, **columns: Any) -> dict[str, Any]:
    axes = dict.fromkeys(PAIR, "") | {"dataset": "wdbc", "fault": "threshold", "training_size": 398}
    axes |= {"severity": severity, "repetition": repetition, "method": arm[0], "mode": arm[1], "variant": ""}
    place = {"experiment": "chip_in_the_loop", "sweeps": "severity;width", "status": "ok", "accuracy": accuracy}
    return axes | place | columns


def table(gains: Mapping[tuple[tuple[str, str], float], Sequence[float]], **columns: Any) -> pd.DataFrame:
    """MH at 0.5 in every repetition, each other arm at 0.5 minus what MH gains over it there."""
    rows = [row(arm, s, n, 0.5 - gain, **columns) for (arm, s), d in gains.items() for n, gain in enumerate(d)]
    met = sorted({(r["severity"], r["repetition"]) for r in rows})
    return pd.DataFrame([*rows, *(row(MH, s, n, 0.5, **columns) for s, n in met)])


def lines(found: Comparisons, number: int = 0) -> dict[tuple[float, str], Mapping[str, Any] | None]:
    return {
        (severity, arm): point
        for severity, line in found.tables[number].lines
        for arm, point in zip(found.arms, line, strict=True)
    }


def test_differences_intervals_and_adjusted_p() -> None:
    # n = 3 and spread 0.01: t = mean sqrt(3) / 0.01, p = 1 - t / sqrt(t^2 + 2)
    half = 4.3026527 * 0.01 / 3**0.5
    gains = {
        (LOOP, 0.0): [0.19, 0.20, 0.21],  # t^2 = 1200, p = 0.00083229
        (LOOP, 1.0): [0.00, 0.01, 0.02],  # t^2 = 3, p = 0.22540
        (OFF, 1.0): [-0.04, -0.03, -0.02],  # t^2 = 27, p = 0.035098
    }
    found = compare(table(gains), DEFINITIONS)
    assert (found.reference, found.arms) == ("MH in the loop", ["Backprop in the loop", "Backprop off-chip"])
    assert (found.margin, found.family, found.hopeless) == (0.03, 3, {3: 0.25})
    assert [t.title for t in found.tables] == ["wdbc: threshold"]
    points = lines(found)
    assert points.pop((0.0, "Backprop off-chip")) is None
    for (severity, arm), mean, p in (
        ((0.0, "Backprop in the loop"), 0.20, 3 * 0.00083229),
        ((1.0, "Backprop in the loop"), 0.01, 0.22540),
        ((1.0, "Backprop off-chip"), -0.03, 2 * 0.035098),
    ):
        point = points.pop((severity, arm))
        assert point is not None
        assert [point[k] for k in ("mean", "low", "high")] == pytest.approx([mean, mean - half, mean + half])
        assert point["p"] == pytest.approx(p, rel=1e-4)
        assert (point["n"], point["verdict"]) == (3, "undecided"), "three pairs decide nothing"
    assert not points


def test_verdicts_keep_to_the_claims_margin_and_a_later_arm_gets_a_column() -> None:
    wobble = [0.001 * (n % 2) for n in range(8)]
    gains = {(LOOP, 1.0): 0.1, (OFF, 1.0): -0.1, (NEW, 1.0): 0.029}
    found = compare(table({key: [gain + w for w in wobble] for key, gain in gains.items()}), DEFINITIONS)
    assert {arm: point and point["verdict"] for (_, arm), point in lines(found).items()} == {
        "Backprop in the loop": "better",
        "Backprop off-chip": "worse",
        "Bayes bisnn in the loop": "equivalent",  # 2.95 +- 0.04 points; the margin is 3
    }
    assert found.hopeless == {}


def test_a_single_pair_is_shown_but_not_counted() -> None:
    found = compare(table({(LOOP, 0.0): [0.1], (OFF, 0.0): [0.1, 0.3]}), DEFINITIONS)
    point = lines(found)[0.0, "Backprop in the loop"]
    assert point is not None
    assert (point["mean"], point["verdict"]) == (pytest.approx(0.1), "undecided")
    assert math.isnan(point["p"])
    assert (found.family, found.hopeless) == (1, {1: 1.0, 2: 0.5})


def test_only_finished_cells_of_the_sweep_over_severities_are_compared() -> None:
    gains = {(LOOP, 0.0): [0.1, 0.2]}
    late, elsewhere = table(gains, fault="paper-full"), table(gains, sweeps="width")
    late.loc[late["method"] == "backprop", ["status", "accuracy"]] = ["failed", math.nan]
    found = compare(pd.concat([table(gains), late, elsewhere]), DEFINITIONS)
    assert [t.title for t in found.tables] == ["wdbc: threshold", "wdbc: paper-full"]
    assert lines(found, 1) == {(0.0, "Backprop in the loop"): None}
    assert found.family == 1
    assert compare(elsewhere, DEFINITIONS).tables == []
    assert compare(table(gains), []).tables == [], "no claim names a margin"
