"""Areas, break points, ranks and verdicts of tables that were worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spikebench import comparison
from spikebench.publishing import tables

#: An arm's name to the label that people read.
A, B, C, D = "A oracle", "B oracle", "C oracle", "D oracle"


def cells(
    arm: str,
    accuracies: Mapping[float, Sequence[float | None]],
    fault: str = "gain-mismatch",
    dataset: str = "iris",
    **columns: object,
) -> list[dict[str, Any]]:
    """Severity to the accuracy of each repetition; None is a cell that failed."""
    return [
        {
            **{"experiment": "grand_comparison", "crossed": "{}", "method": arm[0].lower(), "mode": "oracle"},
            **{"variant": "", "dataset": dataset, "fault": fault, "severity": severity, "training_size": 80},
            **{"repetition": repetition, "status": "failed" if accuracy is None else "ok"},
            **{"accuracy": np.nan if accuracy is None else accuracy},
            **{"gradient_steps": 10.0, "chip_presentations": 0.0, "seconds": 1.0, "shared": False},
            **columns,
        }
        for severity, of_repetition in accuracies.items()
        for repetition, accuracy in enumerate(of_repetition)
    ]


def table(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([cell for part in parts for cell in part])


def flat(arm: str, values: Sequence[float], **where: Any) -> list[dict[str, Any]]:
    """The same at every severity, so that the area of a repetition is its value."""
    return cells(arm, {0.0: values, 1.0: values}, **where)


def test_an_area_is_a_mean_over_severities_by_trapezoids() -> None:
    rows = table(cells(A, {0.0: [1.0, 0.8], 0.25: [0.8, 0.8], 1.0: [0.4, 0.0]}))
    found = comparison.areas(rows)
    # 0.25 x (1.0 + 0.8) / 2 + 0.75 x (0.8 + 0.4) / 2 = 0.675; 0.25 x 0.8 + 0.75 x 0.4 = 0.5
    assert found["area"].tolist() == pytest.approx([0.675, 0.5])
    assert list(found.columns) == ["dataset", "fault", "arm", "repetition", "area"]
    assert found[["dataset", "fault", "arm"]].drop_duplicates().to_numpy().tolist() == [["iris", "gain-mismatch", A]]


def test_an_area_does_not_depend_on_how_far_severities_reach() -> None:
    (area,) = comparison.areas(table(cells(A, {0.0: [1.0], 0.5: [0.5]})))["area"]
    assert area == pytest.approx(0.75)


def test_a_repetition_without_one_of_the_severities_is_left_out() -> None:
    rows = table(cells(A, {0.0: [1.0, 0.9, 0.9], 0.5: [0.5, None, 0.7], 1.0: [0.1, 0.3, 0.5]}))
    assert comparison.areas(rows).set_index("repetition")["area"].to_dict() == pytest.approx({0: 0.525, 2: 0.7})


def test_arms_of_different_grids_are_compared_where_both_were_planned() -> None:
    fine = cells(A, {0.0: [1.0], 0.25: [0.0], 0.5: [0.6], 1.0: [0.2]})
    coarse = cells(B, {0.0: [0.9], 0.5: [0.9], 1.0: [0.9]})
    # A's own grid would give 0.125 + 0.075 + 0.2 = 0.4; over 0, 0.5 and 1 it is 0.4 + 0.2
    assert comparison.areas(table(fine, coarse)).set_index("arm")["area"].to_dict() == pytest.approx({A: 0.6, B: 0.9})
    unfinished = cells(B, {0.0: [0.9], 0.5: [None], 1.0: [0.9]})
    # What was planned counts, not what was finished: the severity stays, and B is out
    assert comparison.areas(table(fine, unfinished)).set_index("arm")["area"].to_dict() == pytest.approx({A: 0.6})


def test_what_is_unavailable_was_never_planned() -> None:
    rows = table(
        flat(A, [0.9]), flat(A, [0.7], fault="threshold"),
        flat(B, [0.8]), flat(B, [None], fault="threshold", status="unavailable"),
    )  # fmt: skip
    assert comparison.shared_families(rows, "iris") == ["gain-mismatch"]
    rows["status"] = rows["status"].replace("unavailable", "timed-out")
    assert comparison.shared_families(rows, "iris") == ["gain-mismatch", "threshold"]


def test_only_cells_of_the_experiment_with_all_data_and_uncrossed_take_part() -> None:
    kept = flat(A, [0.9])
    others = [{"training_size": 20}, {"crossed": '{"chip":2}'}, {"experiment": "chip_in_the_loop"}]
    rows = table(kept, *(flat(A, [0.1], **other) for other in others))
    assert len(comparison.compared(rows)) == 2
    assert comparison.areas(rows)["area"].tolist() == pytest.approx([0.9])


def test_a_break_point_is_the_last_severity_within_the_margin() -> None:
    rows = table(
        cells(A, {0.0: [0.90, 0.92], 0.25: [0.89, 0.91], 0.5: [0.80, 0.82], 1.0: [0.90, 0.92]}),
        cells(B, {0.0: [0.9, 0.9], 0.25: [0.9, 0.9], 0.5: [0.91, 0.91], 1.0: [0.88, 0.88]}),
        cells(C, {0.0: [0.9, 0.9], 0.25: [0.8, 0.8], 0.5: [0.9, 0.9], 1.0: [0.9, 0.9]}),
        cells(D, {0.5: [0.9, 0.9]}),
    )
    found = comparison.break_points(rows, 0.02).set_index("arm")
    # A comes back at severity 1, but had left the margin; B loses 0.02, which is the margin itself
    assert found["break_point"].to_dict() == {A: 0.25, B: 1.0, C: 0.0}
    assert found["censored"].to_dict() == {A: False, B: True, C: False}
    assert found["n"].to_dict() == {A: 2, B: 2, C: 2}


def test_a_break_point_is_shown_as_far_as_the_interval_holds() -> None:
    # Lost at 0.5: 0, 0 and 0.03, 0.01 on average, with a 90 % interval of 0.01 +- 2.92 x 0.01
    rows = table(cells(A, {0.0: [0.9, 0.9, 0.9], 0.25: [0.9, 0.9, 0.9], 0.5: [0.9, 0.9, 0.87]}))
    for margin, shown in ((0.038, 0.25), (0.040, 0.5)):
        found = comparison.break_points(rows, margin).iloc[0]
        assert (found["break_point"], found["shown"], found["censored"]) == (0.5, shown, True)


def test_losses_are_paired_and_counted_by_repetition() -> None:
    # Unpaired the mean at 1 is 0.85 against 0.8; in the one pair there is, 0.2 is lost
    rows = table(cells(A, {0.0: [0.6, None, 1.0], 0.5: [0.6, 0.9, 1.0], 1.0: [None, 0.9, 0.8]}))
    (found,) = comparison.break_points(rows, 0.02).to_dict("records")
    assert (found["break_point"], found["shown"], found["n"]) == (0.5, 0.5, 1)


def test_a_slow_arm_narrows_the_families_that_are_shared() -> None:
    values = {"gain-mismatch": 0.9, "paper-full": 0.5, "threshold": 0.7}
    quick = [flat(A, [value], fault=fault) for fault, value in values.items()]
    slow, elsewhere = flat(B, [0.6], fault="paper-full"), flat(B, [0.4], fault="threshold", dataset="digits")
    rows = table(*quick, slow, elsewhere)
    assert comparison.shared_families(table(*quick), "iris") == sorted(values)
    assert comparison.shared_families(rows, "iris") == ["paper-full"]
    assert comparison.shared_families(rows, "digits") == ["threshold"]
    assert comparison.shared_families(rows, "moons") == []
    here = comparison.ranks(table(*quick)).iloc[0]
    assert here["area"] == pytest.approx(0.7), "the mean over families"
    of_iris = comparison.ranks(rows).query("dataset == 'iris'").set_index("arm")["area"]
    assert of_iris.to_dict() == pytest.approx({A: 0.5, B: 0.6})


def test_a_family_that_nobody_has_an_area_of_is_not_shared() -> None:
    parts = [flat(arm, [0.9]) + cells(arm, {1.0: [0.2]}, fault="threshold") for arm in (A, B)]
    assert comparison.shared_families(table(*parts), "iris") == ["gain-mismatch"]
    assert comparison.ranks(table(*parts))["area"].tolist() == pytest.approx([0.9, 0.9])


def test_a_repetition_without_one_of_the_families_is_left_out() -> None:
    rows = table(flat(A, [0.9, 0.5]), flat(A, [0.7, None], fault="threshold"))
    (found,) = comparison.ranks(rows).to_dict("records")
    assert (found["area"], found["n"]) == (pytest.approx(0.8), 1)


def test_equal_areas_share_their_rank() -> None:
    rows = table(flat(A, [0.5, 0.7]), flat(B, [0.9, 0.9]), flat(C, [0.7, 0.5]), flat(D, [0.1, 0.3]))
    found = comparison.ranks(rows)
    assert found["rank"].tolist() == [1.0, 2.5, 2.5, 4.0]
    assert found["arm"].tolist()[0] == B
    # Student t, 1 degree of freedom: 12.706 x 0.1414 / sqrt(2)
    last = found.iloc[-1]
    assert (last["area"], last["high"] - last["area"]) == (pytest.approx(0.2), pytest.approx(1.2706, abs=1e-4))


def test_mean_ranks_are_of_the_arms_that_all_data_sets_know_among_themselves() -> None:
    of_set = {"iris": {A: 0.9, B: 0.8, C: 0.7}, "digits": {A: 0.5, C: 0.6}, "moons": {A: 0.9, C: 0.2, D: 0.95}}
    rows = table(*(flat(arm, [v], dataset=name) for name, arms in of_set.items() for arm, v in arms.items()))
    found = comparison.mean_ranks(comparison.ranks(rows))
    assert found["arm"].tolist() == [A, C]
    # A: 1, 2, 1; C: 2, 1, 2, without B and D between them. Standard deviation 1 / sqrt(3), t 4.3027
    assert found["mean"].tolist() == pytest.approx([4 / 3, 5 / 3])
    assert (found["high"] - found["mean"]).tolist() == pytest.approx([4.3027 / 3] * 2, abs=1e-4)
    assert found["n"].tolist() == [3, 3]


#: A treatment's gain over the base of each of eight repetitions.
BASE = np.array([0.70, 0.74, 0.68, 0.72, 0.71, 0.69, 0.73, 0.71])
GAINS = {
    B: [0.10, 0.12, 0.09, 0.11, 0.10, 0.12, 0.08, 0.11],
    C: [0.001, -0.002, 0.002, 0.0, -0.001, 0.001, 0.0, 0.002],
    D: [0.10, -0.08, 0.05, -0.06, 0.09, -0.01, 0.02, -0.07],
}


def _verdict_rows(n: int = 8) -> pd.DataFrame:
    gains = {arm: np.array(gain[:n]) for arm, gain in GAINS.items()}
    return table(flat(A, list(BASE[:n])), *(flat(arm, list(BASE[:n] + gain)) for arm, gain in gains.items()))


def test_every_verdict_and_its_mirror() -> None:
    found = comparison.verdicts(_verdict_rows(), 0.02)
    said = {(pair["arm"], pair["reference"]): pair["verdict"] for pair in found.to_dict("records")}
    assert len(said) == len(found) == 12
    expected = {(B, A): "better", (B, C): "better", (C, A): "equivalent", (D, A): "undecided", (D, C): "undecided"}
    assert {pair: said[pair] for pair in expected} == expected
    turned = {"better": "worse", "worse": "better", "equivalent": "equivalent", "undecided": "undecided"}
    assert all(said[reference, arm] == turned[verdict] for (arm, reference), verdict in said.items())
    means = found.set_index(["arm", "reference"])
    for arm, reference in said:
        one, other = means.loc[(arm, reference)], means.loc[(reference, arm)]
        assert (one["mean"], one["low"], one["high"]) == (-other["mean"], -other["high"], -other["low"])
        assert one["low"] < one["mean"] < one["high"]
    assert means.loc[(B, A), "mean"] == pytest.approx(0.10375)


def test_survivors_by_family() -> None:
    """E falls from 0.6 to 0.5, the others stay where they are; F is now above and now below the best.

    D is 0.099 below B, with p = 0.009, which does not survive Holm among fifteen pairs.
    """
    near = flat("F oracle", list(BASE + GAINS[B] + [-0.02, 0.01, -0.01, 0.01, -0.01, 0.01, -0.01, 0.01]))
    falling = cells("E oracle", {0.0: [0.6] * 8, 1.0: [0.5] * 8})
    elsewhere = flat(A, [1.0] * 8, fault="threshold")
    rows = table(near, falling, elsewhere).assign(dataset="breast_cancer")
    rows = pd.concat([_verdict_rows().assign(dataset="breast_cancer"), rows, _verdict_rows()])
    rows = rows.assign(data_kind="real", data_source="")
    found = tables.survivors(rows).set_index("fault family")
    assert found.index.tolist() == ["threshold", "gain-mismatch"]
    here = found.loc["gain-mismatch"]
    assert (here["best arm"], here["not told apart from it"], here["arms that hold out"]) == (B, "2 of 5", "5 of 6")
    assert here["MH in the loop"] == "not run"
    assert found.loc["threshold", "not told apart from it"] == "0 of 0"
    everywhere = tables.areas(rows)
    first = everywhere.columns[0]
    assert everywhere.columns.tolist() == [first, "threshold", "gain-mismatch"]
    (line,) = everywhere[everywhere[first] == "breast_cancer, E oracle"].to_numpy().tolist()
    assert line == ["breast_cancer, E oracle", "–", "55.0 ± 0.0"]
    assert len(everywhere) == 10


def test_p_values_are_holm_s_among_all_pairs() -> None:
    rows = _verdict_rows()
    found = comparison.verdicts(rows, 0.02).set_index(["arm", "reference"])
    values = {A: BASE, **{arm: BASE + np.array(gain) for arm, gain in GAINS.items()}}
    pairs = [(A, B), (A, C), (A, D), (B, C), (B, D), (C, D)]
    raw = {pair: stats.ttest_rel(*(values[arm] for arm in pair)).pvalue for pair in pairs}
    adjusted, largest = {}, 0.0
    for place, pair in enumerate(sorted(pairs, key=raw.__getitem__)):
        largest = max(largest, min(1.0, (6 - place) * raw[pair]))
        adjusted[pair] = largest
    for pair, p in adjusted.items():
        assert found.loc[pair, "p"] == found.loc[pair[::-1], "p"] == pytest.approx(p)
    lower, upper = (stats.ttest_1samp(np.array(GAINS[C]), edge, alternative=side).pvalue
                    for edge, side in ((-0.02, "greater"), (0.02, "less")))  # fmt: skip
    assert found.loc[(C, A), "tost_p"] == pytest.approx(6 * max(lower, upper)), "the smallest of six"


def test_a_difference_that_one_test_finds_may_not_survive_many() -> None:
    """Of B over A, p is about 0.03: enough for one pair, and not among three."""
    gain = np.array([0.05, 0.01, 0.06, -0.01, 0.04, 0.02, -0.02, 0.05])
    alone = table(flat(A, list(BASE)), flat(B, list(BASE + gain)))
    third = flat(C, list(BASE + np.array(GAINS[D])))
    assert 0.02 < stats.ttest_1samp(gain, 0.0).pvalue < 0.05
    for rows, verdict in ((alone, "better"), (pd.concat([alone, table(third)]), "undecided")):
        found = comparison.verdicts(rows, 0.001).set_index(["arm", "reference"])
        assert found.loc[(B, A), "verdict"] == verdict


def test_five_pairs_decide_nothing() -> None:
    found = comparison.verdicts(_verdict_rows(5), 0.02)
    assert set(found["verdict"]) == {"undecided"}
    assert set(found["attainable"]) == {2 / 2**5}
    assert found["p"].min() < 0.001, "though the t test alone would"
    assert set(comparison.verdicts(_verdict_rows(6), 0.02)["verdict"]) > {"undecided"}


def test_one_pair_is_no_test() -> None:
    assert comparison.verdicts(table(flat(A, [0.9]), flat(B, [0.5])), 0.02).empty


def test_arms_that_share_no_family_are_not_compared() -> None:
    rows = table(flat(A, list(BASE)), flat(B, list(BASE), fault="threshold"))
    assert comparison.verdicts(rows, 0.02).empty
    assert comparison.ranks(rows).empty
    assert comparison.budgets(rows).empty


def test_holm_lets_the_smallest_p_pass_among_so_many() -> None:
    # At n = 10 it is 2 / 1024: 25 times that is 0.0488, 26 times 0.0508
    assert comparison.most_tests(2 / 2**10) == 25
    assert comparison.most_tests(2 / 2**6) == 1
    assert comparison.most_tests(2 / 2**5) == 0
    assert comparison.most_tests(0.05) == 0, "5% itself is not below 5%"


def test_a_budget_is_the_mean_over_the_cells_that_are_compared() -> None:
    rows = table(
        cells(A, {0.0: [0.9, 0.9], 0.5: [0.9, 0.9], 1.0: [0.9, None]}, gradient_steps=100.0),
        cells(B, {0.0: [0.9, 0.9], 1.0: [0.9, 0.9]}, gradient_steps=0.0, shared=True),
        flat(A, [0.9], fault="threshold", gradient_steps=5000.0),
    )
    rows.loc[(rows["method"] == "a") & (rows["severity"] == 0.0) & (rows["fault"] == "gain-mismatch"), "seconds"] = 4.0
    rows.loc[(rows["method"] == "a") & (rows["severity"] == 0.5), "seconds"] = 99.0
    found = comparison.budgets(rows).set_index("arm")
    # The family and the severity that only A meets do not count, nor does the cell that failed
    assert found["gradient_steps"].to_dict() == {A: 100.0, B: 0.0}
    assert found["seconds"].to_dict() == {A: 3.0, B: 1.0}
    assert found["cells"].to_dict() == {A: 3, B: 4}
    assert found["shared"].to_dict() == {A: 0.0, B: 1.0}


def test_the_front_holds_whom_nobody_beats() -> None:
    points = pd.DataFrame({
        "arm": list("abcdefgh"),
        "area": [0.9, 0.8, 0.8, 0.7, 0.7, 0.95, 0.9, 0.85],
        "cost": [10.0, 5.0, 7.0, 0.0, 0.0, np.nan, 10.0, 10.0],
    })  # fmt: skip
    # c pays more than b for as much, h as much as a for less; d and e, and a and g, are alike; f's cost is not known
    assert comparison.front(points, "cost") == ["a", "b", "d", "e", "g"]


CROSSED = '{"chip":2,"read":3,"seed":2,"split":2}'


def _crossing(effects: Mapping[str, Sequence[float]], **columns: object) -> pd.DataFrame:
    """An additive table: the first factor's level changes fastest."""
    made = []
    for repetition in range(24):
        split, seed, chip, read = (
            repetition % 2, repetition // 2 % 2, repetition // 4 % 2, repetition // 8,
        )  # fmt: skip
        level = {"split": split, "seed": seed, "chip": chip, "read": read}
        accuracy = 0.7 + sum(effects.get(factor, [0] * 3)[place] for factor, place in level.items())
        made += cells(A, {0.5: [accuracy]}, crossed=CROSSED, **{"repetition": repetition, **columns})
    return pd.DataFrame(made)


def test_shares_of_variance_of_an_additive_crossing() -> None:
    # Variances of the levels: split (0.04, 0)/2 -> 0.0008, chip 0.0002, read 0.0001; nothing else
    rows = _crossing({"split": [0.0, 0.04], "chip": [0.02, 0.0], "read": [0.0, 0.01, 0.02]})
    found = comparison.variance_shares(rows).set_index("part")
    assert list(found.index) == ["split", "seed", "chip", "read", "interactions"]
    assert found["share"].tolist() == pytest.approx([8 / 11, 0, 2 / 11, 1 / 11, 0], abs=1e-9)
    assert found["sd"].tolist() == pytest.approx([0.0011**0.5] * 5)
    assert (found["low"] <= found["share"] + 1e-9).all()
    assert (found["share"] <= found["high"] + 1e-9).all()


def test_a_crossing_with_holes_has_no_shares() -> None:
    rows = _crossing({"split": [0.0, 0.04]})
    assert len(comparison.variance_shares(rows)) == 5
    assert comparison.variance_shares(rows.iloc[1:]).empty
    assert comparison.variance_shares(rows.iloc[:16]).empty, "a level of the last factor is missing altogether"
    assert comparison.variance_shares(rows.assign(crossed=CROSSED.replace('"read":3', '"read":1')).iloc[:8]).empty


def test_without_rows_there_is_nothing_and_no_error() -> None:
    none = table(flat(A, [0.9])).iloc[:0]
    assert comparison.areas(none).empty
    assert comparison.break_points(none, 0.02).empty
    assert comparison.shared_families(none, "iris") == []
    ranks = comparison.ranks(none)
    assert ranks.empty
    assert comparison.mean_ranks(ranks).empty
    assert comparison.verdicts(none, 0.02).empty
    assert comparison.budgets(none).empty
    assert comparison.variance_shares(none).empty
