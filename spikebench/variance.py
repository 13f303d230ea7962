"""Where the spread of a result comes from: components of variance of a crossed design, and their shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from spikebench.statistics import Floats

#: Factors, as the axes of an array are numbered.
Subset = tuple[int, ...]


def components(values: Floats) -> dict[Subset, float]:
    """Unbiased components of variance of random factors, one value a combination of their levels.

    Args:
        values: [levels of the first factor, of the second, ...], at least two levels each.

    Returns:
        By factors the variance that is theirs together: main effects, interactions, and that of all factors, which
        holds whatever else differs. Unbiased estimates of small variances may be below 0.

    Source: the mean square of factors S has the expectation sum over T, which contains S, of N / n_T times the
    component of T, with n_T combinations of the levels of T (Searle, Casella, McCulloch: Variance Components, ch. 4).
    """
    if min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values of shape {values.shape}; expected at least two levels a factor, all finite")
    values = values - values.flat[0]  # so that nothing is left of equal values, not even by rounding
    every = [s for size in range(values.ndim + 1) for s in combinations(range(values.ndim), size)]
    effects: dict[Subset, Floats] = {}
    found: dict[Subset, float] = {}
    squares: dict[Subset, float] = {}
    for s in every:
        apart = tuple(axis for axis in range(values.ndim) if axis not in s)
        mean = values.mean(axis=apart, keepdims=True)
        effects[s] = mean - sum((effects[t] for t in every if set(t) < set(s)), np.zeros(1))
        freedom = int(np.prod([values.shape[axis] - 1 for axis in s]))
        squares[s] = _combinations(values, apart) * float(np.square(effects[s]).sum()) / freedom
    for s in reversed(every[1:]):
        larger = [t for t in found if set(s) < set(t)]
        rest = sum(_combinations(values, _others(values, t)) * found[t] for t in larger)
        found[s] = (squares[s] - rest) / _combinations(values, _others(values, s))
    return found


def _others(values: Floats, s: Subset) -> Subset:
    return tuple(axis for axis in range(values.ndim) if axis not in s)


def _combinations(values: Floats, axes: Sequence[int]) -> int:
    return int(np.prod([values.shape[axis] for axis in axes]))


def shares(found: Mapping[Subset, float]) -> Floats:
    """Of the sum of all components, those below 0 taken as 0: of each factor alone, then of all interactions.

    NaN where nothing varies.
    """
    factors = max(map(len, found))
    positive = {s: max(0.0, value) for s, value in found.items()}
    alone = [positive[f,] for f in range(factors)]
    rest = sum(value for s, value in positive.items() if len(s) > 1)
    total = sum(positive.values())
    return np.array([*alone, rest]) / total if total else np.full(factors + 1, np.nan)


def shares_interval(values: Floats, draws: int = 400, *, seed: int, level: float = 0.95) -> tuple[Floats, Floats]:
    """Ends [factors + 1] of percentile intervals of the shares, by normal draws with the components found.

    With three or four levels a factor they are wide, which is what so few levels say. Components below 0 are drawn as
    0, so that a share near 0 has an interval from 0.
    """
    found, random = components(values), np.random.default_rng(seed)
    scales = {s: np.sqrt(max(0.0, value)) for s, value in found.items()}
    drawn = []
    for _ in range(draws):
        parts = (
            scale * random.standard_normal([n if axis in s else 1 for axis, n in enumerate(values.shape)])
            for s, scale in scales.items()
        )
        drawn.append(shares(components(sum(parts, np.zeros(values.shape)))))
    ends = np.quantile(np.array(drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends[0], ends[1]
