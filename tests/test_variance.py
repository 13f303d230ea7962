"""Components of variance against tables worked out by hand, known components, and the classic analysis of variance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from spikebench.variance import Subset, components, shares, shares_interval

Floats = NDArray[np.float64]


def draw(sizes: tuple[int, ...], variances: Mapping[Subset, float], random: np.random.Generator) -> Floats:
    """A crossed table of normal effects."""
    table = np.full(sizes, 0.8)
    for factors, variance in variances.items():
        shape = [size if axis in factors else 1 for axis, size in enumerate(sizes)]
        table = table + np.sqrt(variance) * random.standard_normal(shape)
    return table


def test_two_by_two_by_hand() -> None:
    # Rows' means 2 and 5, columns' 2 and 5, the whole 3.5. Effects: rows and columns +-1.5, of both together +-0.5.
    # Mean squares: 2 x 2 x 1.5^2 = 9, 9 and 4 x 0.5^2 = 1; so 1 for both, and (9 - 1) / 2 = 4 for each.
    assert components(np.array([[1.0, 3.0], [3.0, 7.0]])) == {
        (0, 1): pytest.approx(1.0), (0,): pytest.approx(4.0), (1,): pytest.approx(4.0)
    }  # fmt: skip


def test_a_component_may_be_below_nothing() -> None:
    # All of the difference lies in the interaction: mean squares 0, 0 and 4 x 1^2; (0 - 4) / 2 for each factor
    found = components(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert found == {(0, 1): pytest.approx(4.0), (0,): pytest.approx(-2.0), (1,): pytest.approx(-2.0)}
    assert shares(found).tolist() == [0.0, 0.0, 1.0]


def test_the_classic_two_way_analysis_of_variance_says_the_same() -> None:
    """Sums of squares by statsmodels' least squares, and the expectations of mean squares of any textbook."""
    a, b = 4, 5
    values = draw((a, b), {(0,): 2.0, (1,): 0.5, (0, 1): 1.0}, np.random.default_rng(3))
    places = np.indices(values.shape).reshape(2, -1)
    table = pd.DataFrame({"row": places[0], "column": places[1], "value": values.ravel()})
    squares = anova_lm(ols("value ~ C(row) + C(column)", table).fit())["mean_sq"]
    rest = squares["Residual"]
    found = components(values)
    assert found[0, 1] == pytest.approx(rest)
    assert found[0,] == pytest.approx((squares["C(row)"] - rest) / b)
    assert found[1,] == pytest.approx((squares["C(column)"] - rest) / a)


def test_one_factor_is_the_sample_variance() -> None:
    values = np.array([0.3, 0.9, 0.4, 0.1])
    assert components(values) == {(0,): pytest.approx(values.var(ddof=1))}


def test_estimates_are_right_on_average() -> None:
    truth: dict[Subset, float] = {
        (0,): 3.0, (1,): 1.0, (2,): 0.0, (0, 1): 0.5, (0, 2): 0.0, (1, 2): 2.0, (0, 1, 2): 0.25,
    }  # fmt: skip
    random = np.random.default_rng(0)
    found = [components(draw((2, 3, 4), truth, random)) for _ in range(3000)]
    for factors, variance in truth.items():
        estimates = np.array([one[factors] for one in found])
        error = estimates.std(ddof=1) / np.sqrt(len(estimates))
        assert abs(estimates.mean() - variance) < 4 * error, factors
        assert error < 0.2, "or the bound above would say nothing"


def test_an_additive_table_has_no_interactions() -> None:
    levels = [np.array([0.0, 1.0]), np.array([0.0, 2.0, 4.0]), np.array([1.0, 1.0]), np.array([0.0, 0.0, 6.0])]
    found = components(sum(np.ix_(*levels)))
    for factors, variance in found.items():
        expected = levels[factors[0]].var(ddof=1) if len(factors) == 1 else 0.0
        assert variance == pytest.approx(expected, abs=1e-9), factors
    assert len(found) == 15
    # 0.5, 4, 0 and 12 of 16.5
    assert shares(found) == pytest.approx([0.5 / 16.5, 4 / 16.5, 0.0, 12 / 16.5, 0.0], abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_positive_and_sum_to_one(seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((2, 3, 2, 3))
    found = shares(components(values))
    assert found.shape == (5,)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0)


def test_scale_and_offset_change_no_share() -> None:
    values = np.random.default_rng(1).standard_normal((3, 3, 3))
    assert shares(components(5.0 - 0.01 * values)) == pytest.approx(shares(components(values)))


def test_where_nothing_varies_there_are_no_shares() -> None:
    assert np.isnan(shares(components(np.full((3, 3, 3, 3), 0.9)))).all()
    assert np.isnan(shares(components(np.zeros((2, 2, 2))))).all()


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Loosely: normal draws from components that were themselves estimated, of few levels."""
    truth: dict[Subset, float] = {(0,): 2.0, (1,): 1.0, (0, 1): 1.0}
    wanted, random = np.array([0.5, 0.25, 0.25]), np.random.default_rng(5)
    inside = np.zeros(3)
    tables = 150
    for seed in range(tables):
        values = draw((6, 6), truth, random)
        low, high = shares_interval(values, 200, seed=seed)
        assert (low <= high).all()
        assert (low >= 0).all()
        assert (high <= 1).all()
        inside += (low <= wanted) & (wanted <= high)
    assert (inside / tables > 0.8).all(), inside
    assert (inside / tables).mean() < 1.0, "an interval that holds everything says nothing"


def test_more_levels_narrow_the_intervals() -> None:
    truth: dict[Subset, float] = {(0,): 1.0, (1,): 1.0, (0, 1): 1.0}
    widths = []
    for size in (3, 12):
        ends = [
            shares_interval(draw((size, size), truth, np.random.default_rng(seed)), 100, seed=seed)
            for seed in range(20)
        ]
        widths.append(float(np.mean([high - low for low, high in ends])))
    assert widths[1] < 0.8 * widths[0]


def test_a_level_widens_an_interval_and_a_seed_repeats_it() -> None:
    values = np.random.default_rng(2).standard_normal((3, 4))
    first, again = (shares_interval(values, 100, seed=7) for _ in range(2))
    assert [end.tolist() for end in first] == [end.tolist() for end in again]
    narrow = shares_interval(values, 100, seed=7, level=0.5)
    assert (narrow[0] >= first[0]).all()
    assert (narrow[1] <= first[1]).all()
    assert (narrow[1] - narrow[0]).sum() < (first[1] - first[0]).sum()


@pytest.mark.parametrize(
    "values", [np.zeros((2, 1)), np.zeros(1), np.array([[0.0, np.nan], [1.0, 2.0]]), np.array([0.0, np.inf])]
)
def test_too_few_levels_and_holes_are_errors(values: Floats) -> None:
    with pytest.raises(ValueError, match="expected at least two levels a factor, all finite"):
        components(values)
