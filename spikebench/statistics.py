"""Small-sample statistics: intervals, paired comparisons with verdicts, and what a sample of this size could show.

Ten repetitions are few, so means carry Student-t intervals (a percentile bootstrap of five covers 83 % instead of 95 %)
and comparisons are paired: repetition r of every arm met the same split and the same chip. All functions are pure, and
those that draw take a seed. Values that are not finite, or do not fit each other, raise a ValueError: drop failed rows
before, and say how many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Outcome = Literal["better", "equivalent", "worse", "undecided"]

#: Sign flips beyond this number are drawn, not enumerated (13 pairs have 8,192).
FLIPS = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean of ``n`` values with its interval; one value has no interval (NaN), equal values have one of width 0."""

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedResult:
    """Treatment minus reference over ``n`` pairs; what one pair cannot tell is NaN.

    ``low`` and ``high`` bound the mean difference, ``prediction_low`` and ``prediction_high`` one further difference.
    ``p_sign_flip`` is exact up to 13 pairs, and ``attainable`` is the smallest value it can take at this n.
    """

    n: int
    mean: float
    low: float
    high: float
    sd: float
    prediction_low: float
    prediction_high: float
    margin: float
    p_two_sided: float
    p_sign_flip: float
    attainable: float
    tost_p: float
    probability_of_superiority: float
    verdict: Outcome


@dataclass(frozen=True)
class SizeRatio:
    """How many times less training data the treatment needs: smallest size of the reference over that of the treatment.

    A size is None where the arm's mean reaches the target at no size tried. The ratio is then a bound: at least
    ``ratio`` when the treatment alone gets there, at most ``ratio`` when the reference alone does, NaN when neither.
    ``low`` and ``high`` end the interval over resamples, in which such bounds count as the whole range that they leave
    open (up to infinity, down to 0). ``fraction_*`` is the share of resamples in which an arm gets there.
    """

    n: int
    size_reference: int | None
    size_treatment: int | None
    ratio: float
    low: float
    high: float
    fraction_reference: float
    fraction_treatment: float


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean and Student-t interval of ``values`` [n], n >= 1."""
    x = _finite(values)
    half = _half_width(x, level)
    return Interval(len(x), float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def paired_difference(treatment: ArrayLike, reference: ArrayLike, margin: float, level: float = 0.95) -> PairedResult:
    """Compare two arms [n] pair by pair; ``margin`` > 0 is the difference that does not matter.

    The verdict, with alpha = 1 - level, is the first of these that holds:

    - *undecided*: with so few pairs not even differences of one sign give a sign-flip p below alpha (n < 6 at 5 %);
    - *equivalent*: the 1 - 2 alpha interval lies inside (-margin, margin), which is TOST at alpha (Schuirmann 1987);
    - *better* or *worse*: the interval at ``level`` lies above 0 or below 0;
    - *undecided*: else.

    Where all differences are equal, intervals and p-values take their limits for a vanishing spread.
    """
    a, b = _finite(treatment), _finite(reference)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} treatment and {len(b)} reference values; expected pairs")
    if margin <= 0:
        raise ValueError(f"the margin is {margin}; expected a positive number")
    d, n, alpha = a - b, len(a), 1 - level
    mean, half, half_tost = float(d.mean()), _half_width(d, level), _half_width(d, 1 - 2 * alpha)
    attainable = 2.0 / (2**n if 2**n <= FLIPS else FLIPS + 1)
    verdict: Outcome = "undecided"
    if attainable < alpha:
        if -margin < mean - half_tost and mean + half_tost < margin:
            verdict = "equivalent"
        elif mean - half > 0:
            verdict = "better"
        elif mean + half < 0:
            verdict = "worse"
    spread = half * float(np.sqrt(n + 1))  # t sd sqrt(1 + 1/n), from t sd / sqrt(n)
    return PairedResult(
        n=n,
        mean=mean,
        low=mean - half,
        high=mean + half,
        sd=float(d.std(ddof=1)) if n > 1 else float("nan"),
        prediction_low=mean - spread,
        prediction_high=mean + spread,
        margin=margin,
        p_two_sided=2 * _t_tail(d, 0.0, sign=1 if mean > 0 else -1),
        p_sign_flip=_sign_flip(d),
        attainable=attainable,
        tost_p=max(_t_tail(d, -margin, sign=1), _t_tail(d, margin, sign=-1)),
        probability_of_superiority=float(np.mean(d > 0) + 0.5 * np.mean(d == 0)),
        verdict=verdict,
    )


def holm(p_values: ArrayLike) -> Floats:
    """P-values [m] adjusted for a family of m tests by Holm (1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must be a list of numbers from 0 to 1; leave out the tests that gave none")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def detectable_difference(sd: float, n: int, power: float = 0.8, level: float = 0.95) -> float:
    """The true mean difference that a two-sided paired t test of ``n`` pairs finds with probability ``power``.

    ``sd`` is that of the differences. Infinite for fewer than two pairs, 0 without spread.
    """
    if n < 2:
        return float("inf")
    critical = stats.t.ppf((1 + level) / 2, n - 1)

    def shortfall(effect: float) -> float:
        # to be found with the wrong sign is left out: it is negligible at any power of use, and nct.cdf fails there
        return float(stats.nct.sf(critical, n - 1, effect * np.sqrt(n)) - power)

    large = 1.0
    while shortfall(large) < 0:
        large *= 2
    return sd * float(optimize.brentq(shortfall, 0.0, large))


def smallest_size_reaching(sizes: ArrayLike, means: ArrayLike, target: float) -> int | None:
    """The smallest of ``sizes`` [S] whose mean [S] is at least ``target``; None if none is."""
    first = float(_first_size(np.asarray(sizes), _finite(means), target))
    return None if np.isnan(first) else int(first)


def size_ratio(
    reference: ArrayLike,
    treatment: ArrayLike,
    sizes: ArrayLike,
    target: float,
    draws: int = 2000,
    *,
    seed: int,
    level: float = 0.95,
) -> SizeRatio:
    """How many times less training data the treatment needs to reach ``target`` on average.

    ``reference`` and ``treatment`` are [R, S]: R repetitions at the S ``sizes``. The interval is a percentile interval
    over ``draws`` resamples of the repetitions, the same ones for both arms. The sizes that were tried are a grid, and
    the ratio can only take the ratios of its members. Below about ten repetitions the interval is too narrow: say so.
    """
    tables, grid = np.asarray([reference, treatment], dtype=np.float64), np.asarray(sizes)
    if tables.shape[2:] != grid.shape or not tables.size or not np.isfinite(tables).all():
        raise ValueError(f"tables of shape {tables.shape[1:]}; expected [R, {grid.size}] finite numbers each")
    n = tables.shape[1]
    resamples = np.random.default_rng(seed).integers(n, size=(draws, n))
    rows = np.concatenate([np.arange(n)[None], resamples])  # the first "resample" is the data itself
    of_ref, of_trt = _first_size(grid, tables[:, rows].mean(axis=2), target)  # each [1 + draws], NaN: not reached
    has_ref, has_trt = ~np.isnan(of_ref), ~np.isnan(of_trt)
    lows = np.where(has_trt, np.where(has_ref, of_ref, grid.max()) / of_trt, 0.0)
    highs = np.where(has_ref, of_ref / np.where(has_trt, of_trt, grid.max()), np.inf)
    ratio = lows[0] if has_trt[0] else highs[0] if has_ref[0] else np.nan
    tail = int((1 - level) / 2 * draws)  # resamples left out at each end
    return SizeRatio(
        n=n,
        size_reference=int(of_ref[0]) if has_ref[0] else None,
        size_treatment=int(of_trt[0]) if has_trt[0] else None,
        ratio=float(ratio),
        low=float(np.sort(lows[1:])[tail]),
        high=float(np.sort(highs[1:])[-1 - tail]),
        fraction_reference=float(has_ref[1:].mean()),
        fraction_treatment=float(has_trt[1:].mean()),
    )


def break_point(severities: ArrayLike, means: ArrayLike, threshold: float) -> float | None:
    """The severity at which the mean first falls below ``threshold``, interpolated between the severities tried.

    ``severities`` [S] ascend and ``means`` [S] belong to them. The first severity if its mean is below already, None if
    no mean is.
    """
    x, y = _finite(severities), _finite(means)
    if x.shape != y.shape or (np.diff(x) <= 0).any():
        raise ValueError(f"{len(x)} severities and {len(y)} means; expected pairs, by ascending severity")
    below = np.flatnonzero(y < threshold)
    if not below.size:
        return None
    i = int(below[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (y[i - 1] - threshold) / (y[i - 1] - y[i]))


def _finite(values: ArrayLike) -> Floats:
    """Checked values [n], n >= 1."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"values of shape {x.shape}; expected at least one, in a list, all finite")
    return x


def _half_width(x: Floats, level: float) -> float:
    """Half the Student-t interval of the mean; NaN for a single value."""
    if len(x) < 2:
        return float("nan")
    return float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))


def _t_tail(d: Floats, centre: float, sign: int) -> float:
    """One-sided p of the mean lying on the ``sign`` side of ``centre``; NaN for a single value."""
    if len(d) < 2:
        return float("nan")
    distance, error = sign * (d.mean() - centre), d.std(ddof=1) / np.sqrt(len(d))
    if error == 0:
        return float(0.5 - 0.5 * np.sign(distance))
    return float(stats.t.sf(distance / error, len(d) - 1))


def _sign_flip(d: Floats) -> float:
    """Two-sided p of the mean under flips of the signs: all of them up to ``FLIPS``, else drawn with seed 0."""
    if len(d) < 2:
        return 1.0  # a flip of the one sign is as extreme

    def mean(x: Floats, axis: int) -> Floats:
        return np.asarray(x.mean(axis=axis))

    flipped = stats.permutation_test(
        (d,), mean, permutation_type="samples", vectorized=True, n_resamples=FLIPS, rng=np.random.default_rng(0)
    )
    return float(flipped.pvalue)


def _first_size(sizes: NDArray[np.generic], means: Floats, target: float) -> Floats:
    """The smallest size [...] at which the ``means`` [..., S] are at least ``target``; NaN where none is."""
    reached = means >= target - 1e-12  # a mean of k/n may round to a hair below its target
    first = np.where(reached, np.asarray(sizes, dtype=np.float64), np.inf).min(axis=-1)
    return np.where(np.isinf(first), np.nan, first)
