from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from spikebench import statistics as st
from spikebench.convergence import effective_sample_size

TREATMENT = [0.93, 0.95, 0.91, 0.94, 0.96, 0.92, 0.95, 0.93]
REFERENCE = [0.90, 0.91, 0.90, 0.89, 0.93, 0.90, 0.92, 0.88]


def test_mean_interval_by_hand_and_by_scipy() -> None:
    found = st.mean_interval([1.0, 2.0, 3.0])
    assert (found.n, found.mean) == (3, 2.0)
    assert found.high - found.mean == pytest.approx(4.302653 * 1 / math.sqrt(3), rel=1e-6)  # t(0.975, 2) from a table
    low, high = stats.t.interval(0.9, 7, loc=np.mean(TREATMENT), scale=stats.sem(TREATMENT))
    found = st.mean_interval(TREATMENT, level=0.9)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_mean_interval_of_one_value_and_of_equal_values() -> None:
    one = st.mean_interval([0.7])
    assert (one.n, one.mean) == (1, 0.7) and math.isnan(one.low) and math.isnan(one.high)
    assert st.mean_interval([0.5, 0.5]) == st.Interval(2, 0.5, 0.5, 0.5)


@pytest.mark.parametrize("n", [3, 10])
def test_mean_interval_covers_the_truth_95_times_in_100(n: int) -> None:
    draws = np.random.default_rng(0).normal(0.8, 0.1, size=(2000, n))
    intervals = [st.mean_interval(draw) for draw in draws]
    assert np.mean([i.low <= 0.8 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.015)


def test_prediction_interval_covers_one_further_run_95_times_in_100() -> None:
    draws = np.random.default_rng(1).normal(0.1, 0.05, size=(1000, 7))
    inside = []
    for draw in draws:
        result = st.paired_difference(draw[:6], np.zeros(6), margin=0.02)
        inside.append(result.prediction_low <= draw[6] <= result.prediction_high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_paired_difference_agrees_with_scipy() -> None:
    found = st.paired_difference(TREATMENT, REFERENCE, margin=0.02)
    d = np.subtract(TREATMENT, REFERENCE)
    theirs = stats.ttest_rel(TREATMENT, REFERENCE)
    interval = theirs.confidence_interval(0.95)
    assert (found.n, found.mean, found.sd) == pytest.approx((8, d.mean(), d.std(ddof=1)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_two_sided == pytest.approx(theirs.pvalue)
    above = stats.ttest_1samp(d, -0.02, alternative="greater").pvalue
    below = stats.ttest_1samp(d, 0.02, alternative="less").pvalue
    assert found.tost_p == pytest.approx(max(above, below))
    assert found.p_sign_flip == found.attainable == 2 / 2**8  # all differences have one sign
    assert found.probability_of_superiority == 1
    assert found.verdict == "better"


def test_paired_difference_changes_sign_with_its_arms() -> None:
    one, other = (st.paired_difference(a, b, 0.02) for a, b in ((TREATMENT, REFERENCE), (REFERENCE, TREATMENT)))
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.p_two_sided == pytest.approx(other.p_two_sided) and one.tost_p == pytest.approx(other.tost_p)
    assert other.verdict == "worse" and other.probability_of_superiority == 0


def test_sign_flip_by_enumeration() -> None:
    # differences 1, 2, -3 of 8 sign patterns: the mean 0 is reached or passed by 5 from either side, so p is 1
    assert st.paired_difference([1, 2, -3], [0, 0, 0], 0.5).p_sign_flip == 1
    # 1, 2, 4: only the observed pattern sums to 7 or more
    assert st.paired_difference([1, 2, 4], [0, 0, 0], 0.5).p_sign_flip == pytest.approx(2 / 8)
    # -1, 2, 4: sums of at least 5 are 7 and 5
    assert st.paired_difference([-1, 2, 4], [0, 0, 0], 0.5).p_sign_flip == pytest.approx(4 / 8)


def test_sign_flips_of_many_pairs_are_drawn_and_repeat() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0.3, 1, 20)
    first, second = (st.paired_difference(values, np.zeros(20), 0.1) for _ in range(2))
    assert first == second
    assert first.attainable == pytest.approx(2 / 10_001)
    assert first.p_sign_flip == pytest.approx(first.p_two_sided, abs=0.03)


def test_probability_of_superiority_counts_ties_as_half() -> None:
    assert st.paired_difference([1, 2, 3, 4], [0, 2, 3, 5], 0.1).probability_of_superiority == (1 + 2 * 0.5) / 4


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ([0.10, 0.12, 0.11, 0.09, 0.10, 0.08], 0.02, "better"),
        ([-0.10, -0.12, -0.11, -0.09, -0.10, -0.08], 0.02, "worse"),
        ([0.001, -0.001, 0.002, 0.0, -0.002, 0.001], 0.02, "equivalent"),
        (
            [0.010, 0.011, 0.009, 0.010, 0.012, 0.008],
            0.02,
            "equivalent",
        ),  # surely above 0, and surely too small to matter
        ([0.010, 0.011, 0.009, 0.010, 0.012, 0.008], 0.005, "better"),
        ([0.3, -0.2, 0.1, -0.1, 0.2, -0.3], 0.02, "undecided"),
        ([0.0] * 6, 0.02, "equivalent"),
        ([0.05] * 6, 0.02, "better"),
        ([-0.05] * 6, 0.02, "worse"),
        ([0.10, 0.12, 0.11, 0.09, 0.10], 0.02, "undecided"),  # five pairs cannot reach p < 0.05 by their signs
    ],
)
def test_verdicts(differences: list[float], margin: float, verdict: str) -> None:
    assert st.paired_difference(differences, np.zeros(len(differences)), margin).verdict == verdict


def test_equivalence_and_the_tost_p_value_say_the_same() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        result = st.paired_difference(rng.normal(0.01, 0.02, 8), np.zeros(8), 0.02)
        assert (result.verdict == "equivalent") == (result.tost_p < 0.05)


def test_equivalence_is_found_by_mistake_at_most_5_times_in_100() -> None:
    draws = np.random.default_rng(4).normal(0.02, 0.01, size=(2000, 6))  # the true difference is the margin itself
    wrong = [st.paired_difference(draw, np.zeros(6), 0.02).tost_p < 0.05 for draw in draws]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)


def test_one_pair_decides_nothing() -> None:
    result = st.paired_difference([0.9], [0.5], 0.02)
    assert result.verdict == "undecided"
    assert (result.n, result.mean, result.p_sign_flip, result.attainable) == pytest.approx((1, 0.4, 1, 1))
    for name in ("low", "high", "sd", "prediction_low", "prediction_high", "p_two_sided", "tost_p"):
        assert math.isnan(getattr(result, name))


def test_equal_differences_take_the_limits_of_a_vanishing_spread() -> None:
    apart = st.paired_difference([0.75] * 6, [0.5] * 6, 0.02)
    assert (apart.low, apart.high, apart.sd, apart.p_two_sided, apart.tost_p) == (0.25, 0.25, 0, 0, 1)
    same = st.paired_difference([0.5] * 6, [0.5] * 6, 0.02)
    assert (same.mean, same.p_two_sided, same.p_sign_flip, same.tost_p) == (0, 1, 1, 0)


def test_holm_textbook_example() -> None:
    # Holm's step-down: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04 may not fall below the one before
    np.testing.assert_allclose(st.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(st.holm([0.9, 0.8]), [1, 1])
    assert st.holm([]).size == 0


def test_holm_agrees_with_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(5).random(12) ** 3
    np.testing.assert_allclose(st.holm(p), multipletests(p, method="holm")[1])


@pytest.mark.parametrize("n", [5, 10, 20])
def test_detectable_difference_agrees_with_statsmodels(n: int) -> None:
    from statsmodels.stats.power import TTestPower

    found = st.detectable_difference(0.05, n)
    assert TTestPower().power(found / 0.05, n, 0.05) == pytest.approx(0.8, abs=1e-4)


def test_detectable_difference_of_two_pairs_is_found_four_times_in_five() -> None:
    # a case in which statsmodels and scipy's nct.cdf give NaN
    x = np.random.default_rng(9).normal(st.detectable_difference(1.0, 2), 1.0, size=(20_000, 2))
    assert (stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_detectable_difference_without_spread_or_without_pairs() -> None:
    assert st.detectable_difference(0.0, 10) == 0
    assert st.detectable_difference(0.05, 1) == math.inf


def test_smallest_size_reaching() -> None:
    sizes = [40, 10, 20]
    assert st.smallest_size_reaching(sizes, [0.95, 0.80, 0.90], 0.90) == 20
    assert st.smallest_size_reaching(sizes, [0.80, 0.92, 0.85], 0.90) == 10  # it need not stay there
    assert st.smallest_size_reaching(sizes, [0.80, 0.70, 0.85], 0.90) is None
    assert st.smallest_size_reaching([5], [np.mean([0.8, 0.9, 1.0])], 0.90) == 5  # rounding is no failure


SIZES = [10, 20, 40, 80]
EARLY = [0.95, 0.95, 0.95, 0.95]
LATE = [0.50, 0.60, 0.70, 0.95]
NEVER = [0.50, 0.60, 0.70, 0.80]


@pytest.mark.parametrize(
    ("reference", "treatment", "sizes", "ratio", "interval"),
    [
        (LATE, EARLY, (80, 10), 8.0, (8.0, 8.0)),
        (EARLY, LATE, (10, 80), 1 / 8, (1 / 8, 1 / 8)),
        (NEVER, EARLY, (None, 10), 8.0, (8.0, math.inf)),  # at least
        (EARLY, NEVER, (10, None), 1 / 8, (0.0, 1 / 8)),  # at most
        (NEVER, NEVER, (None, None), math.nan, (0.0, math.inf)),
    ],
)
def test_size_ratio_without_noise(
    reference: list[float],
    treatment: list[float],
    sizes: tuple[int | None, int | None],
    ratio: float,
    interval: tuple[float, float],
) -> None:
    found = st.size_ratio([reference] * 6, [treatment] * 6, SIZES, 0.9, draws=50, seed=0)
    assert (found.n, found.size_reference, found.size_treatment) == (6, *sizes)
    assert found.ratio == pytest.approx(ratio, nan_ok=True)
    assert (found.low, found.high) == pytest.approx(interval)
    assert (found.fraction_reference, found.fraction_treatment) == tuple(float(s is not None) for s in sizes)


def test_size_ratio_resamples_both_arms_together() -> None:
    # Both arms share the repetitions' luck, so in every resample they reach the target at the same size
    rng = np.random.default_rng(6)
    luck = rng.normal(0, 0.05, size=(10, 1))
    table = np.array([0.80, 0.85, 0.90, 0.95]) + luck
    found = st.size_ratio(table, table, SIZES, 0.9, seed=0)
    assert (found.ratio, found.low, found.high) == (1, 1, 1)
    assert 0 < found.fraction_reference == found.fraction_treatment
    shifted = st.size_ratio(table, rng.permutation(table), SIZES, 0.9, seed=0)
    assert shifted.ratio == 1 and shifted.low < 1 < shifted.high


def test_size_ratio_counts_resamples_that_do_not_get_there() -> None:
    # The reference's mean reaches 0.9 when at most 1 of 4 drawn repetitions is the bad one: binomial(4, 1/4)
    reference = [[0.95]] * 3 + [[0.75]]
    found = st.size_ratio(reference, [[0.95]] * 4, [10], 0.9, draws=20_000, seed=0)
    assert found.fraction_reference == pytest.approx(0.75**4 + 4 * 0.25 * 0.75**3, abs=0.01)
    assert (found.ratio, found.low, found.high) == (1, 1, math.inf)


def test_break_point_interpolates() -> None:
    assert st.break_point([0, 0.5, 1], [0.95, 0.85, 0.65], 0.80) == pytest.approx(0.5 + 0.5 * 0.05 / 0.20)
    assert st.break_point([0, 0.5, 1], [0.95, 0.90, 0.85], 0.80) is None
    assert st.break_point([0, 0.5, 1], [0.70, 0.90, 0.60], 0.80) == 0
    assert st.break_point([0, 0.5, 1], [0.95, 0.80, 0.60], 0.80) == 0.5  # at the threshold it is not yet broken


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho: float) -> None:
    # x[t] = rho x[t-1] + noise is worth (1 - rho) / (1 + rho) independent draws a step
    rng = np.random.default_rng(7)
    x = np.empty((4, 20_000))
    x[:, 0] = rng.normal(0, 1 / math.sqrt(1 - rho**2), 4)
    noise = rng.normal(size=x.shape)
    for t in range(1, x.shape[1]):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    assert effective_sample_size(x) == pytest.approx(x.size * (1 - rho) / (1 + rho), rel=0.1)


def test_effective_sample_size_of_chains_that_disagree_is_one_or_two() -> None:
    rng = np.random.default_rng(8)
    apart = rng.normal(size=(2, 1000)) + np.array([[0.0], [100.0]])
    assert 1 <= effective_sample_size(apart) < 3
    assert effective_sample_size(rng.normal(size=(2, 1000))) == pytest.approx(2000, rel=0.15)
    assert effective_sample_size([[0.0] * 100, [1.0] * 100]) == pytest.approx(1, abs=0.01)  # both stuck


def test_effective_sample_size_is_undefined_without_movement_or_steps() -> None:
    assert math.isnan(effective_sample_size(np.full((2, 100), 3.0)))
    assert math.isnan(effective_sample_size([[1.0, 2.0, 3.0]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: st.mean_interval([]), "at least one"),
        (lambda: st.mean_interval([0.5, math.nan]), "finite"),
        (lambda: st.paired_difference([1, 2], [1], 0.1), "2 treatment and 1 reference"),
        (lambda: st.paired_difference([1], [1], 0.0), "margin is 0.0"),
        (lambda: st.holm([0.5, math.nan]), "leave out"),
        (lambda: st.size_ratio([[1, 2]], [[1, 2]], [10], 0.9, seed=0), r"expected \[R, 1\]"),
        (lambda: st.size_ratio([[math.nan]], [[1]], [10], 0.9, seed=0), "finite"),
        (lambda: st.break_point([1, 0], [1, 1], 0.5), "ascending"),
        (lambda: effective_sample_size([1.0, 2.0]), r"\[chains, steps\]"),
    ],
)
def test_wrong_input_is_refused_with_a_reason(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
