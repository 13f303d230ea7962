"""The figures of BiSNN: every expected value is worked out from ``synthetic``'s formulas by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from spikebench.figures import bisnn_maps, faults_and_data, tables
from spikebench.figures.arms import styles, with_arms
from spikebench.figures.bisnn_bands import _gaps, _spread
from spikebench.figures.drawing import Context
from spikebench.naming import named

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]

#: Half an interval of three values with standard deviation 1 (see test_figure_numbers).
HALF = 4.302652729911275 / 3**0.5
ARMS = ["Full precision", "Straight-through", "Bayes (mode)", "Bayes (ensemble)"]


def _point(document: dict[str, Any], table: str = "points", **where: object) -> dict[str, Any]:
    found = [p for p in document["numbers"][table] if all(p[k] == v for k, v in where.items())]
    assert len(found) == 1, found
    return found[0]


def _selected(rows: pd.DataFrame, module: Any) -> tuple[pd.DataFrame, Context]:
    table = with_arms(module.select(named(rows[rows["experiment"] == module.EXPERIMENT])))
    return table, Context(styles(rows), pd.DataFrame(), None, None)


def test_bands_hold_the_mean_and_both_spreads(gallery: Gallery) -> None:
    document = gallery[1]["bisnn-bands"]
    curves = pd.DataFrame(document["numbers"]["curves"])
    assert list(curves["arm"].unique()) == ARMS
    assert len(curves) == 4 * 120
    # Repetitions lie 0.05 below, at and above the truth: their mean is the truth, their standard deviation 0.05.
    assert np.allclose(curves["mean"], curves["true"])
    assert np.allclose(curves["sd_between_repetitions"], 0.05)
    for arm in ARMS[:3]:
        assert (curves.loc[curves["arm"] == arm, "sd_over_samples"] == 0).all()
    ensemble = curves[curves["arm"] == ARMS[3]].set_index(curves["x"][curves["arm"] == ARMS[3]].round(2))
    # 0.02 where there are data; 0.04, 0.06 and 0.08 in the gaps: root of (16 + 36 + 64) / 3 hundredths.
    for x, sd in ((-1.0, 0.02), (-0.05, 0.02), (0.0, 0.01 * (116 / 3) ** 0.5), (2.0, 0.02), (2.45, 0.02), (4.0, 0.02)):
        assert ensemble.loc[x, "sd_over_samples"] == pytest.approx(sd)
    assert len(document["numbers"]["seen"]) == 60


def test_spread_in_the_gaps_against_elsewhere(gallery: Gallery) -> None:
    document = gallery[1]["bisnn-bands"]
    # ratios 2, 3 and 4
    ratio = _point(document, "spreads", sd="ratio")
    assert (ratio["arm"], ratio["mean"], ratio["n"]) == ("Bayes (ensemble)", pytest.approx(3.0), 3)
    assert ratio["high"] == pytest.approx(3 + HALF)
    assert _point(document, "spreads", sd="in_gaps")["mean"] == pytest.approx(0.06)
    rmse = _point(document, "rmse", arm="Straight-through")
    assert (rmse["mean"], rmse["high"]) == (pytest.approx(0.06), pytest.approx(0.06 + 0.01 * HALF))
    assert "Straight-through 0.060 [0.035, 0.085]" in document["caption"]
    assert (
        "Bayes (ensemble) 0.060 [0.010, 0.110] in the gaps, 0.020 [0.020, 0.020] elsewhere, ratio 3.00"
        in (document["caption"])
    )


def test_a_gap_is_wide_and_begins_after_the_last_example() -> None:
    answer = {"axes": [[0.0, 10.0, 11]], "seen": [[2.0, 0.0], [2.9, 0.0], [7.0, 0.0], [7.5, 0.0]]}
    assert _gaps(answer) == [(0.0, 2.0), (2.9, 7.0), (7.5, 10.0)]
    # Of the points 0 to 10, unseen are 1; 4, 5 and 6; 9. The other six have a standard deviation of 1.
    sd = np.ones(11)
    sd[[1, 4, 5, 6, 9]] = 2.5
    assert _spread({**answer, "sd": sd}) == {"in_gaps": 2.5, "at_data": 1.0, "ratio": 2.5}
    assert np.isnan(list(_spread({**answer, "sd": np.zeros(11)}).values())).all()
    everywhere = [[float(x), 0.0] for x in range(11)]
    assert np.isnan(_spread({**answer, "seen": everywhere, "sd": sd})["ratio"])


def test_a_map_is_that_of_one_repetition_with_its_examples(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["bisnn-maps"]
    assert document["numbers"]["repetition"] == 0
    mine = rows[(rows["variant"] == "bayes-mode") & (rows["dataset"] == "two_moons") & (rows["repetition"] == 0)]
    told = json.loads(mine["outputs"].item())
    assert document["numbers"]["maps"]["Bayes (mode)"] == {name: told[name] for name in ("axes", "mean", "seen")}
    assert list(document["numbers"]["maps"]) == ARMS
    # 0.95 - 0.03 - 0.4 / sqrt(200) = 0.8917
    assert "Bayes (ensemble) 89.2% [86.7, 91.7]. ECE (15 bins)" in document["caption"]


def test_the_repetition_shown_is_the_first_that_most_arms_have(draw: Draw, rows: pd.DataFrame) -> None:
    lost = (rows["variant"] == "straight-through") & (rows["dataset"] == "two_moons") & (rows["repetition"] == 0)
    document = draw("bisnn-maps", synthetic.fail(rows, lost))
    assert document["numbers"]["repetition"] == 1
    assert len(document["numbers"]["maps"]) == 4


def test_a_map_is_the_right_way_up(rows: pd.DataFrame) -> None:
    table, context = _selected(rows, bisnn_maps)
    axes = [[0.0, 1.0, 2], [0.0, 1.0, 3]]
    table = table.assign(outputs=json.dumps({"axes": axes, "mean": [0.0, 0.1, 0.2, 0.3, 0.4, 0.6], "seen": [[0, 1]]}))
    panel = bisnn_maps.draw(table, context).figure.axes[0]
    # x = 0: 0.0, 0.1, 0.2 from below; x = 1: 0.3, 0.4, 0.6. A row of the mesh is one y.
    assert np.asarray(panel.collections[0].get_array()).tolist() == [[0.0, 0.3], [0.1, 0.4], [0.2, 0.6]]
    assert panel.lines[-1].get_xydata().tolist() == [[0.0, 1.0]]


def test_bins_are_pooled_by_their_counts(gallery: Gallery) -> None:
    document = gallery[1]["bisnn-reliability"]
    middle = 14.5 / 15
    last = _point(document, "bins", arm="Straight-through", middle=middle)
    assert last["count"] == (1 + 2 + 3) * 14**2
    assert last["share"] == pytest.approx(14**2 / sum(k * k for k in range(3, 15)))
    assert last["confidence"] == pytest.approx(middle)
    # 0.12 too confident, less 0, 0.05 and 0.1 in repetitions that weigh 1, 2 and 3
    assert last["accuracy"] == pytest.approx(middle - 0.12 + (2 * 0.05 + 3 * 0.1) / 6)
    assert len(document["numbers"]["bins"]) == 4 * 12, "empty bins are left out"
    assert _point(document, "ece", arm="Straight-through")["mean"] == pytest.approx(0.12 * 1.1)
    assert "Straight-through ECE 13.2% [13.0, 13.4], own band [2.0, 5.0]" in document["caption"]
    assert "1,250 training examples" in document["caption"]


def test_ensembles_of_every_size_beside_single_networks(gallery: Gallery) -> None:
    document = gallery[1]["bisnn-ensemble-size"]
    points = document["numbers"]["points"]
    assert {(p["arm"], p["members"]) for p in points} == {
        *(("Bayes (ensemble)", members) for members in (1, 2, 5, 10, 20)),
        *((arm, 0) for arm in ARMS[:3]),
    }
    assert {(p["dataset"], p["training_size"]) for p in points} == {("mnist-dvs-sim", 1250), ("two_moons", 200)}
    here = {"dataset": "mnist-dvs-sim", "score": "accuracy"}
    ten = 0.95 - 0.03 - 0.4 / 1250**0.5
    for members, lost in ((1, 0.01 * np.log2(10)), (10, 0.0), (20, -0.01)):
        assert _point(document, members=members, **here)["mean"] == pytest.approx(ten - lost)
    mode = _point(document, arm="Bayes (mode)", **here)
    assert mode["mean"] == pytest.approx(ten - 0.02), "of the ensemble's own training run"
    assert mode["high"] == pytest.approx(ten - 0.02 + 0.01 * HALF)
    error = {**here, "score": "ece_width_15"}
    assert _point(document, members=1, **error)["mean"] == pytest.approx(0.04)
    assert _point(document, arm="Straight-through", **error)["mean"] == pytest.approx(0.132)
    assert "two_moons: 1 sampled accuracy 85.8% [83.4, 88.3], ECE 4.0%" in document["caption"]


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("bisnn-ensemble-size", "estimates", "no estimates by ensembles"),
        ("bisnn-reliability", "reliability", "no reliability tables"),
        ("bisnn-maps", "outputs", "no maps"),
        ("bisnn-bands", "outputs", "no predictions on a grid"),
    ],
)
def test_rows_without_what_is_to_be_drawn_say_so(
    draw: Draw, rows: pd.DataFrame, name: str, column: str, words: str
) -> None:
    assert f"{words} in" in draw(name, rows.assign(**{column: "{}"}))["caption"]


def test_accuracy_and_calibration_at_every_size(gallery: Gallery) -> None:
    document = gallery[1]["bisnn-training-size"]
    assert {p["training_size"] for p in document["numbers"]["accuracy"]} == {100, 400, 1250}
    assert len(document["numbers"]["accuracy"]) == len(document["numbers"]["ece"]) == 12
    assert _point(document, "accuracy", arm="Bayes (mode)", training_size=400)["mean"] == pytest.approx(0.88)
    ece = _point(document, "ece", arm="Bayes (mode)", training_size=400)
    assert (ece["mean"], ece["high"]) == (pytest.approx(0.099), pytest.approx(0.099 + 0.001 * HALF))
    assert _point(document, "bands", training_size=100)["ece_null_high"] == pytest.approx(0.05)
    assert "100 examples: accuracy Full precision 90.0% [88.8, 91.2]" in document["caption"]


def test_all_scores_of_all_arms(gallery: Gallery) -> None:
    document = gallery[1]["bisnn-scores"]
    assert len(document["numbers"]["points"]) == 2 * 4 * 5
    where = {"dataset": "two_moons", "arm": "Full precision"}
    accuracy = 0.94 - 0.4 / 200**0.5
    for score, value in (
        *(("accuracy", accuracy), ("nll", 2 * (1 - accuracy)), ("brier", 1 - accuracy)),
        *(("ece_width_15", 0.066), ("ece_width_20", 0.076)),
    ):
        assert _point(document, score=score, **where)["mean"] == pytest.approx(value)
    assert _point(document, "bands", **where)["ece_null_low"] == pytest.approx(0.02)
    assert "two_moons: Full precision accuracy 91.2% [89.9, 92.4], log-loss 0.18 [0.15, 0.20]" in document["caption"]


def test_arms_of_a_method_stay_together() -> None:
    arms = pd.DataFrame({"arm": list("abcdefghijklm"), "method": list("vwww" + "xxxxxxxx" + "y")})
    assert tables.in_groups(arms, list("abcd")) == [list("abcd")]
    assert tables.in_groups(arms, list("abcdefg")) == [list("abcdefg")]
    assert tables.in_groups(arms, arms["arm"]) == [list("abcd"), list("efghijkl"), ["m"]]
    assert tables.in_groups(arms, list("efghijk"), most=3) == [list("efghijk")]
    assert tables.in_groups(arms, []) == [[]]


def test_many_arms_are_drawn_in_groups(draw: Draw, rows: pd.DataFrame) -> None:
    oracle = rows[(rows["experiment"] == "grand_comparison") & (rows["mode"] == "oracle")]
    bisnn = [
        oracle.assign(method="bisnn", mode=mode, variant=variant, cell=f"{mode}{variant}" + oracle["cell"])
        for mode in ("off-chip", "in-the-loop")
        for variant in synthetic.VARIANTS
        if (mode, variant) != ("in-the-loop", "full-precision")
    ]
    table = pd.concat([rows, *bisnn], ignore_index=True)
    drawing = faults_and_data.draw(*_selected(table, faults_and_data))
    assert [len(panel.containers) for panel in drawing.figure.axes] == [4, 4, 4, 7, 7, 7] * 3
    before = draw("faults-and-data", rows)
    after = draw("faults-and-data", table)
    old = set(styles(rows)) - set(ARMS)
    assert [p for p in after["numbers"]["points"] if p["arm"] in old] == before["numbers"]["points"]
    assert len(draw("faults-and-data-calibration", table)["numbers"]["ece"]) == 11 * 3 * 6
