from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spikebench import metrics


def softmax_cases(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities [n, 3] and labels drawn from them: a perfectly calibrated model."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.6, 0.6, 0.6], size=n)
    labels = (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=2)
    return probabilities, labels.astype(np.int64)


@pytest.mark.parametrize(
    ("row", "majority", "expected"),
    [
        ([0.2, 0.5, 0.3], 0, 1),
        ([0.4, 0.4, 0.2], 1, 1),  # the majority class is among the tied
        ([0.4, 0.4, 0.2], 2, 0),  # it is not: lowest index
        ([0.2, 0.4, 0.4], 0, 1),
        ([0.5 - 4e-10, 0.5 + 4e-10, 0.0], 0, 0),  # closer than 1e-9 is a tie
        ([0.5 - 4e-9, 0.5 + 4e-9, 0.0], 0, 1),
    ],
)
def test_decide_breaks_ties_by_the_majority_class(row: list[float], majority: int, expected: int) -> None:
    assert metrics.decide([row], majority).tolist() == [expected]


def test_samples_are_averaged_before_the_decision() -> None:
    reads = [[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]  # two of three reads vote for class 1, the mean for class 0
    assert metrics.decide(reads, majority=1).tolist() == [0]
    assert metrics.negative_log_likelihood(reads, [0]) == pytest.approx(-math.log(1.7 / 3))
    tied = [[[0.3, 0.7]], [[0.7, 0.3]]]
    assert metrics.decide(tied, majority=1).tolist() == [1]


def test_accuracy_nll_and_brier_by_hand() -> None:
    probabilities, labels = [[0.8, 0.2], [0.5, 0.5], [0.0, 1.0]], [0, 0, 0]
    assert metrics.accuracy(probabilities, labels, majority=1) == pytest.approx(1 / 3)
    assert metrics.accuracy(probabilities, labels, majority=0) == pytest.approx(2 / 3)
    expected_nll = -(math.log(0.8) + math.log(0.5) + math.log(1e-12)) / 3
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(expected_nll)
    assert metrics.brier(probabilities, labels) == pytest.approx((0.08 + 0.5 + 2.0) / 3)


def test_ece_by_hand_with_confidences_of_exactly_one_half_and_one() -> None:
    # bins of width 0.1: two at 0.5, one of them right, in (0.4, 0.5]: no gap; four, mean 0.99, 3/4 right, in (0.9, 1]
    confidence = [0.5, 0.5, 1.0, 1.0, 1.0, 0.96]
    correct = [True, False, True, True, False, True]
    assert metrics.expected_calibration_error(confidence, correct, 10) == pytest.approx(4 / 6 * (0.99 - 0.75))
    table = metrics.reliability(confidence, correct, 10)
    assert table.count.tolist() == [0, 0, 0, 0, 2, 0, 0, 0, 0, 4]
    np.testing.assert_allclose(table.confidence, [np.nan] * 4 + [0.5] + [np.nan] * 4 + [0.99])
    np.testing.assert_allclose(table.accuracy, [np.nan] * 4 + [0.5] + [np.nan] * 4 + [0.75])


def test_fifteen_and_twenty_bins_by_hand_most_of_them_empty() -> None:
    # 15 bins: 0.94, right, and 1, wrong, share (14/15, 1]; 20 bins: they are parted at 0.95; 0.55 is alone in both
    confidence, correct = [0.55, 0.94, 1.0], [True, True, False]
    assert metrics.expected_calibration_error(confidence, correct, 15) == pytest.approx((0.45 + 0.94) / 3)
    assert metrics.expected_calibration_error(confidence, correct, 20) == pytest.approx((0.45 + 0.06 + 1.0) / 3)
    for bins in (15, 20):
        table = metrics.reliability(confidence, correct, bins)
        assert (table.count == 0).sum() == bins - (2 if bins == 15 else 3)
        assert np.isnan(table.accuracy).tolist() == np.isnan(table.confidence).tolist() == (table.count == 0).tolist()


def test_every_edge_belongs_to_the_bin_below_it() -> None:
    for bins in (15, 20):
        edges = [k / bins for k in range(bins + 1)]
        expected = [2] + [1] * (bins - 1)  # 0 joins the first edge in the first bin
        assert metrics.reliability(edges, [True] * (bins + 1), bins).count.tolist() == expected
        beyond = [edge + 1e-12 for edge in edges[1:-1]]  # rounding must not move a confidence into the next bin
        assert metrics.reliability(beyond, [True] * (bins - 1), bins).count.tolist() == [1] * (bins - 1) + [0]


def test_a_sure_and_right_model_has_no_calibration_error() -> None:
    for scheme in ("width", "mass"):
        assert metrics.expected_calibration_error([1.0] * 7, [True] * 7, 15, scheme) == 0
        assert metrics.expected_calibration_error([1.0] * 4, [False] * 4, 15, scheme) == 1
    assert metrics.ece_null_band([1.0] * 7, seed=0) == (0, 0)


def test_equal_mass_by_hand() -> None:
    # three bins of two: gaps |0.5 - 0.15|, |0.5 - 0.45|, |1 - 0.75|
    confidence, correct = [0.1, 0.2, 0.4, 0.5, 0.7, 0.8], [True, False, False, True, True, True]
    expected = (0.35 + 0.05 + 0.25) / 3
    assert metrics.expected_calibration_error(confidence, correct, 3, "mass") == pytest.approx(expected)


def test_equal_mass_keeps_ties_together_whatever_the_order() -> None:
    confidence, correct = np.array([0.5] * 5 + [1.0] * 5), np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 0])
    expected = 0.5 * abs(0.2 - 0.5) + 0.5 * abs(0.8 - 1.0)  # two bins, not ten
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(10)
        ece = metrics.expected_calibration_error(confidence[order], correct[order], 10, "mass")
        assert ece == pytest.approx(expected)


def test_debiased_error_by_hand() -> None:
    # one bin: gap 0.3, chance adds 0.5 * 0.5 / 9
    assert metrics.debiased_calibration_error([0.8] * 10, [1, 0] * 5, 1) == pytest.approx(math.sqrt(0.09 - 0.25 / 9))
    # a gap smaller than chance makes gives 0, and a bin of one sample counts as 0
    assert metrics.debiased_calibration_error([0.55] * 10, [1, 0] * 5, 1) == 0
    two_bins = metrics.debiased_calibration_error([0.8] * 10 + [0.1], [1, 0] * 5 + [1], 2, "width")
    assert two_bins == pytest.approx(math.sqrt(10 / 11 * (0.09 - 0.25 / 9)))


def test_the_debiased_error_is_that_of_bins_of_equal_mass() -> None:
    # four at 0.9, 1/4 right: 0.65^2 - 0.25 * 0.75 / 3; four at 0.6, 1/2 right: 0.1^2 - 0.25 / 3, below 0 but counted
    confidence, correct = [0.9] * 4 + [0.6] * 4, [1, 0, 0, 0, 1, 1, 0, 0]
    expected = math.sqrt((0.65**2 - 0.25 * 0.75 / 3 + 0.1**2 - 0.25 / 3) / 2)
    assert metrics.debiased_calibration_error(confidence, correct) == pytest.approx(expected)


def test_debiasing_removes_the_bias_of_the_squared_error() -> None:
    # 40 samples at 0.7 that are right with 0.9: the squared error is 0.04, the plug-in adds 0.09 / 40 on average
    rng = np.random.default_rng(0)
    hits = rng.random((4000, 40)) < 0.9
    squares = [metrics.debiased_calibration_error([0.7] * 40, hit, 1) ** 2 for hit in hits]
    plug_in = ((hits.mean(axis=1) - 0.7) ** 2).mean()
    assert plug_in == pytest.approx(0.04 + 0.09 / 40, abs=6e-4)
    assert np.mean(squares) == pytest.approx(0.04, abs=6e-4)


def test_calibration_and_accuracy_agree_with_torchmetrics_where_it_is_right() -> None:
    # no confidence on an edge or at exactly 1, where torchmetrics 1.9 opens a bin too many
    import torch
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    probabilities, labels = softmax_cases(500, seed=1)
    p, y = torch.tensor(probabilities), torch.tensor(labels)
    confidence, correct = metrics.decided(probabilities, labels, majority=0)
    for bins in (15, 20):
        theirs = float(multiclass_calibration_error(p, y, num_classes=3, n_bins=bins, norm="l1"))
        assert metrics.expected_calibration_error(confidence, correct, bins) == pytest.approx(theirs, abs=1e-6)
    theirs = float(multiclass_accuracy(p, y, num_classes=3, average="micro"))
    assert metrics.accuracy(probabilities, labels, majority=0) == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("confidence", "bins", "ours", "theirs"),
    [
        # torchmetrics 1.9 opens bins below, [lo, hi), and gives a confidence of exactly 1 a bin beyond the last
        ([1.0, 0.96], 15, 0.96 / 2, (1.0 + 0.04) / 2),
        ([1.0, 0.96], 20, 0.96 / 2, (1.0 + 0.04) / 2),
        ([0.8, 0.79], 15, 0.59 / 2, (0.8 + 0.21) / 2),  # 12/15 and 16/20: a number on an edge is in the bin below it
        ([0.8, 0.79], 20, 0.59 / 2, (0.8 + 0.21) / 2),
        ([0.79, 0.78], 20, 0.57 / 2, 0.57 / 2),
    ],
)
def test_where_torchmetrics_differs_it_is_at_edges_and_at_one(
    confidence: list[float], bins: int, ours: float, theirs: float
) -> None:
    """The first is wrong, the second right. The paper on ECE (Guo et al. 2017) has M bins (lo, hi], none beyond 1."""
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    p = torch.tensor([[c, 1 - c] for c in confidence], dtype=torch.float64)
    found = multiclass_calibration_error(p, torch.tensor([1, 0]), num_classes=2, n_bins=bins, norm="l1")
    assert float(found) == pytest.approx(theirs)
    assert metrics.expected_calibration_error(confidence, [False, True], bins) == pytest.approx(ours)


def relplot_ece(confidence: NDArray[np.float64], correct: NDArray[np.float64], bins: int) -> float:
    """What relplot 1.0.3 computes (``metrics.binnedECE``): the bin of f is the integer part of f / (1 / bins).

    It is not installed here, since it would bring another package with it.
    """
    sums = np.bincount((confidence / (1 / bins)).astype(int), weights=confidence - correct)
    return float(np.abs(sums).sum() / len(confidence))


@pytest.mark.parametrize(
    ("bins", "printed"), [(10, 0.05728665306815393), (15, 0.06479506135976812), (20, 0.059900925290485976)]
)
def test_the_ece_is_what_relplot_printed(bins: int, printed: float) -> None:
    """For 500 confidences from a half to one, none on an edge."""
    rng = np.random.default_rng(0)
    confidence = rng.random(500) * 0.5 + 0.5
    correct = (rng.random(500) < confidence) * 1.0
    assert metrics.expected_calibration_error(confidence, correct, bins) == pytest.approx(printed, abs=1e-12)
    assert relplot_ece(confidence, correct, bins) == pytest.approx(printed, abs=1e-12)


def test_where_relplot_differs_it_is_at_edges_and_at_one() -> None:
    """Its bins are [lo, hi), as far as the division is exact: 0.6 / (1 / 10) falls short of 6."""
    for confidence, bins, ours, theirs in (
        ([1.0, 0.96], 15, 0.96 / 2, (1.0 + 0.04) / 2),
        ([0.6, 0.58], 15, 0.18 / 2, (0.6 + 0.42) / 2),
        ([0.6, 0.58], 10, 0.18 / 2, 0.18 / 2),
    ):
        assert relplot_ece(np.array(confidence), np.array([0.0, 1.0]), bins) == pytest.approx(theirs)
        assert metrics.expected_calibration_error(confidence, [False, True], bins) == pytest.approx(ours)


def test_the_null_band_of_one_confidence_is_that_of_a_binomial() -> None:
    """Labels of 40 decisions at 0.8 are redrawn: the ECE is |K / 40 - 0.8|, K binomial, whose quantiles are known."""
    from scipy.stats import binom

    gaps = np.abs(np.arange(41) / 40 - 0.8)
    order = np.argsort(gaps)
    total = binom.pmf(np.arange(41), 40, 0.8)[order].cumsum()
    expected = [gaps[order][np.searchsorted(total, level)] for level in (0.025, 0.975)]
    found = metrics.ece_null_band([0.8] * 40, draws=20_000, seed=3)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_null_band_holds_the_ece_of_a_calibrated_model_95_times_in_100(scheme: metrics.Scheme) -> None:
    inside = 0
    for seed in range(400):
        confidence, correct = metrics.decided(*softmax_cases(171, seed), majority=0)
        low, high = metrics.ece_null_band(confidence, 15, scheme, seed=1000 + seed)
        inside += low <= metrics.expected_calibration_error(confidence, correct, 15, scheme) <= high
    assert 0.92 <= inside / 400 <= 0.98  # 95 % plus or minus two and a half standard errors, and quantiles of 200 draws


def test_null_band_depends_on_its_seed_alone() -> None:
    confidence = np.linspace(0.5, 1, 50)
    assert metrics.ece_null_band(confidence, seed=3) == metrics.ece_null_band(confidence, seed=3)
    assert metrics.ece_null_band(confidence, seed=3) != metrics.ece_null_band(confidence, seed=4)


def test_classification_metrics_fill_the_columns_of_a_row() -> None:
    probabilities, labels = softmax_cases(200, seed=2)
    found = metrics.classification_metrics(probabilities, labels, majority=1, seed=7)
    confidence, correct = metrics.decided(probabilities, labels, majority=1)
    assert found == {
        "accuracy": metrics.accuracy(probabilities, labels, 1),
        "nll": metrics.negative_log_likelihood(probabilities, labels),
        "brier": metrics.brier(probabilities, labels),
        "ece_width_15": metrics.expected_calibration_error(confidence, correct, 15, "width"),
        "ece_width_20": metrics.expected_calibration_error(confidence, correct, 20, "width"),
        "ece_mass_15": metrics.expected_calibration_error(confidence, correct, 15, "mass"),
        "ece_debiased": metrics.debiased_calibration_error(confidence, correct, 15, "mass"),
        "ece_null_low": metrics.ece_null_band(confidence, 15, seed=7)[0],
        "ece_null_high": metrics.ece_null_band(confidence, 15, seed=7)[1],
    }


def test_single_precision_probabilities_are_welcome() -> None:
    counts = np.array([[10, 0, 3], [5, 5, 0], [0, 0, 0]], dtype=np.float32)
    exponentials = np.exp(counts - counts.max(axis=1, keepdims=True))
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert p.dtype == np.float32
    assert metrics.decide(p, majority=2).tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.decide([[0.5, 0.6]], 0), "sum to 1"),
        (lambda: metrics.decide([[np.nan, 1.0]], 0), "finite"),
        (lambda: metrics.decide([0.5, 0.5], 0), r"expected \[N, C\]"),
        (lambda: metrics.decide([[0.5, 0.5]], 2), "majority class is 2"),
        (lambda: metrics.brier([[0.5, 0.5]], [2]), "from 0 to 1"),
        (lambda: metrics.brier([[0.5, 0.5]], [0, 1]), "expected 1 integers"),
        (lambda: metrics.expected_calibration_error([1.2], [True]), "from 0 to 1"),
        (lambda: metrics.expected_calibration_error([0.9], [True, False]), "each true or false"),
        (lambda: metrics.expected_calibration_error([0.9], [True], 0), "bins is 0"),
    ],
)
def test_wrong_input_is_refused_with_a_reason(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
