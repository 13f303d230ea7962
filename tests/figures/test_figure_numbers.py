"""Captions and numbers are those of the rows: every expected value below is worked out by hand or with scipy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]

#: Student t, 2 degrees of freedom, 97.5 %, over sqrt(3): half an interval of three values with standard deviation 1.
HALF = 4.302652729911275 / 3**0.5


def _point(document: dict[str, Any], table: str = "points", **where: object) -> dict[str, Any]:
    found = [p for p in document["numbers"][table] if all(p[k] == v for k, v in where.items())]
    assert len(found) == 1, found
    return found[0]


def test_means_and_t_intervals_are_those_computed_by_hand(gallery: Gallery) -> None:
    document = gallery[1]["accuracy-vs-severity"]
    # 0.95 - 0.02 - 0.4 / sqrt(398) = 0.909950, standard deviation 0.01
    mh = _point(document, arm="MH in the loop", fault="paper-full", severity=1.0)
    assert mh["mean"] == pytest.approx(0.93 - 0.4 / 398**0.5)
    assert mh["high"] - mh["mean"] == pytest.approx(0.01 * HALF)
    assert mh["mean"] - mh["low"] == pytest.approx(0.01 * HALF)
    assert mh["n"] == document["n"] == 3
    assert (
        "severity 1: MH in the loop 91.0% [88.5, 93.5], Backprop in the loop 71.0% [66.0, 76.0]" in document["caption"]
    )
    assert "n = 3 repetitions" in document["caption"]
    assert len(document["numbers"]["points"]) == 3 * 4 * 6


def test_paired_differences_and_their_intervals(gallery: Gallery) -> None:
    document = gallery[1]["paired-difference"]
    # repetition by repetition: 0.20 + 0.01 x (1 - 2) x (-1, 0, 1)
    difference = _point(document, arm="Backprop in the loop", fault="paper-full", severity=1.0)
    assert difference["mean"] == pytest.approx(0.20)
    assert difference["high"] == pytest.approx(0.20 + 0.01 * HALF)
    assert "+20.0 [17.5, 22.5] over Backprop in the loop" in document["caption"]
    assert document["numbers"]["margin"] == 0.03
    assert "±3 points" in document["caption"]
    assert not [p for p in document["numbers"]["points"] if p["arm"] == "MH in the loop"]


def test_pairs_need_both_arms_of_the_same_repetition(draw: Draw, rows: pd.DataFrame) -> None:
    lost = (rows["method"] == "metropolis_hastings") & (rows["repetition"] == 0) & (rows["severity"] == 1.0)
    document = draw("paired-difference", synthetic.fail(rows, lost))
    difference = _point(document, arm="Backprop off-chip", fault="threshold", severity=1.0)
    # the pairs left over are repetitions 1 and 2: 0.28 x 0.4 + 0.01 x (1 - 3) x (0, 1)
    assert difference["mean"] == pytest.approx(0.28 * 0.4 - 0.01)
    assert difference["n"] == 2
    assert _point(document, arm="Backprop off-chip", fault="threshold", severity=0.5)["n"] == 3


def test_the_size_at_which_the_target_is_reached(gallery: Gallery) -> None:
    document = gallery[1]["accuracy-vs-training-size"]
    # severity 0: 0.95 - 0.4 / sqrt(n) >= 0.85 from n = 16 on, so 20 is the first size; at severity 1 backprop in the
    # loop ends at 0.73 - 0.4 / sqrt(398)
    reached = {(r["severity"], r["arm"]): r["training_size"] for r in document["numbers"]["reached"]}
    assert reached[0.0, "MH in the loop"] == 20
    assert reached[1.0, "MH in the loop"] == 40
    assert reached[1.0, "Backprop in the loop"] is None
    assert "reaches 85%: severity 0: MH in the loop 20," in document["caption"]
    assert "Backprop in the loop at no size" in document["caption"]


def test_presentations_are_shown_with_what_they_bought(gallery: Gallery) -> None:
    document = gallery[1]["presentations-vs-accuracy"]
    mh = _point(document, arm="MH in the loop", severity=1.0)
    assert (mh["mean_presentations"], mh["n_presentations"]) == (3_980_000, 3)
    assert mh["low_presentations"] == mh["high_presentations"] == 3_980_000
    assert "MH in the loop 91.0% [88.5, 93.5] for 4.0 million" in document["caption"]
    assert "Backprop in the loop 71.0% [66.0, 76.0] for 12,800" in document["caption"]
    assert _point(document, arm="Backprop off-chip", severity=0.5)["mean_presentations"] == 0


def test_effective_sample_size_and_acceptance_are_told(draw: Draw, rows: pd.DataFrame) -> None:
    rows = rows.copy()
    one = (rows["severity"] == 1.0) & (rows["repetition"] == 0) & (rows["method"] == "metropolis_hastings")
    rows.loc[one, "diagnostics"] = '{"acceptance_rate":0.1,"effective_sample_size":6.0}'
    caption = draw("mh-traces", rows)["caption"]
    assert "severity 0 (n = 3): effective sample size 30.0 (30.0 to 30.0), acceptance 25.0%" in caption
    assert "severity 1 (n = 3): effective sample size 22.0 (6.0 to 30.0), acceptance 20.0%" in caption
    assert "2 chains in each of 3 repetitions" in caption


def test_ablations_hold_the_base_and_each_departure_from_it(gallery: Gallery) -> None:
    document = gallery[1]["ablations"]
    levels = {(p["factor"], p["level"]) for p in document["numbers"]["points"]}
    assert levels == {
        *(("Encoding", level) for level in ("constant", "latency", "rate")),
        *(("Hidden neurons", level) for level in ("8", "16")),
        *(("Temperature", level) for level in ("1", "0.1", "10")),
        *(("Estimator", s) for s in ("mean-of-weights", "averaged-predictions", "best-sample", "last-sample")),
    }
    where = {"severity": 1.0, "arm": "MH in the loop"}
    base = _point(document, factor="Temperature", level="1", **where)["mean"]
    assert base == pytest.approx(0.93 - 0.4 / 398**0.5)
    assert _point(document, factor="Estimator", level="last-sample", **where)["mean"] == pytest.approx(base - 0.02)
    assert {p["arm"] for p in document["numbers"]["points"]} == {"MH in the loop", "Backprop in the loop"}
    assert "mean-of-weights: 91.0% [88.5, 93.5]" in document["caption"]


def test_every_fault_and_size_of_the_common_sweep(gallery: Gallery) -> None:
    document = gallery[1]["faults-and-data"]
    assert len(document["numbers"]["points"]) == 3 * 3 * 4 * 6
    point = _point(document, arm="Backprop oracle", fault="gain-mismatch", training_size=80, severity=1.0)
    assert point["mean"] == pytest.approx(0.95 - 0.05 * 0.6 - 0.4 / 80**0.5)


def test_calibration_stands_beside_its_null_band(gallery: Gallery) -> None:
    document = gallery[1]["faults-and-data-calibration"]
    ece = _point(document, "ece", arm="MH in the loop", fault="paper-full", severity=1.0)
    assert ece["mean"] == pytest.approx(0.5 * (0.07 + 0.4 / 398**0.5))
    assert (ece["ece_null_low"], ece["ece_null_high"]) == (pytest.approx(0.02), pytest.approx(0.05))
    assert "MH in the loop ECE 4.5% [3.3, 5.7], own band [2.0, 5.0], log-loss 0.18 [0.13, 0.23]" in document["caption"]


def test_data_sets_stand_beside_each_other_by_the_names_that_people_read(gallery: Gallery) -> None:
    document = gallery[1]["data-baselines"]
    found = {p["dataset"]: (p["mean"], p["training_size"], p["n"]) for p in document["numbers"]["points"]}
    assert found == {
        "mnist": (pytest.approx(0.95), 1250, 3),
        "mnist-dvs-sim": (pytest.approx(0.84), 1250, 3),
        "cifar10-subset-4000": (pytest.approx(0.3), 600, 3),
        "cifar10-dvs-sim from cifar10-subset-4000": (pytest.approx(0.25), 600, 3),
        "two_moons": (pytest.approx(0.97), 200, 3),
    }
    # Standard deviation 0.03, the best first.
    half = 100 * 0.03 * HALF
    assert f"two_moons 97.0% [{97 - half:.1f}, " in document["caption"]
    places = [document["caption"].index(name) for name in ("two_moons", "mnist 95", "mnist-dvs-sim", "cifar10-subset")]
    assert places == sorted(places)
    assert "MNIST-DVS " not in document["caption"]
