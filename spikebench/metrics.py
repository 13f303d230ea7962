"""Classification metrics: accuracy, proper scores and calibration, in numpy alone.

Probabilities are [N, C] or, for S posterior samples or chip reads, [S, N, C]; the S are averaged first. Labels are [N].
Calibration looks at the decided class: its probability is the *confidence* [N]; *correct* [N] says if it is the label.

Spike counts are integers, so a softmax over them gives tied classes and confidences of exactly 0.5 and almost 1 all the
time. Ties, bin edges and a confidence of exactly 1 are therefore defined here and tested, not left to rounding.
Input of the wrong shape or range raises a ValueError that says what was expected.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scheme = Literal["width", "mass"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Probabilities closer than this are equal: to one another (a tied decision) or to the edge of a bin.
TIE = 1e-9


class Reliability(NamedTuple):
    """A reliability diagram, one entry a bin [bins]; an empty bin has NaN confidence and accuracy, and count 0."""

    confidence: Floats
    accuracy: Floats
    count: Integers  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def decide(probabilities: ArrayLike, majority: int) -> Integers:
    """The most probable class [N]; a tie goes to ``majority`` if it is among the tied, else to the lowest index.

    ``majority`` is the commonest class of the training labels. Without the rule, a silent output layer would
    always answer class 0.
    """
    return _decide(_mean(probabilities), majority)


def accuracy(probabilities: ArrayLike, labels: ArrayLike, majority: int) -> float:
    """The share of decisions that are right."""
    return float(decided(probabilities, labels, majority)[1].mean())


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean -log p(label) in nats; p is clipped at 1e-12 inside the logarithm only."""
    p = _mean(probabilities)
    of_label = p[np.arange(len(p)), _labels(labels, p)]
    return float(-np.log(np.clip(of_label, 1e-12, 1.0)).mean())


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over samples of the squared distance to the one-hot label, summed over classes: 0 to 2 (Brier 1950)."""
    p = _mean(probabilities)
    one_hot = np.eye(p.shape[1])[_labels(labels, p)]
    return float(((p - one_hot) ** 2).sum(axis=1).mean())


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15, scheme: Scheme = "width"
) -> float:
    """Mean over samples of |accuracy - confidence| of their bin; empty bins do not count (Guo et al. 2017).

    ``width``: ``bins`` bins (lo, hi] of equal width; a confidence of exactly 0 is in the first, of 1 in the last.
    ``mass``: edges at the quantiles, so that bins hold equally many samples; equal confidences always share a bin,
    which makes the result independent of the order of samples and leaves fewer, fuller bins where there are ties.
    """
    c, hit = _confidence(confidence), _correct(correct, confidence)
    gaps = _members(c, bins, scheme) @ (hit - c)
    return float(np.abs(gaps).sum() / len(c))


def debiased_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15, scheme: Scheme = "mass"
) -> float:
    """Root of the debiased squared calibration error (Kumar, Liang and Ma 2019, "Verified uncertainty calibration").

    From the squared gap of each bin of n samples it subtracts what chance adds, accuracy (1 - accuracy) / (n - 1); a
    bin of one sample has no such estimate and counts as 0, and so does a negative total.
    """
    c, hit = _confidence(confidence), _correct(correct, confidence)
    members = _members(c, bins, scheme)
    members = members[members.sum(axis=1) >= 2]
    count = members.sum(axis=1)
    accurate = members @ hit / count
    squared = (accurate - members @ c / count) ** 2 - accurate * (1 - accurate) / (count - 1)
    return float(np.sqrt(max(0.0, float((count * squared).sum()) / len(c))))


def ece_null_band(
    confidence: ArrayLike, bins: int = 15, scheme: Scheme = "width", *, draws: int = 200, seed: int
) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of the ECE that a perfectly calibrated model with these confidences would show.

    Labels are redrawn from the probabilities. Only whether the decided class is hit matters to the ECE, and that is a
    coin that falls right with the confidence, so the confidences are enough.
    """
    c = _confidence(confidence)
    hits = np.random.default_rng(seed).random((draws, len(c))) < c
    gaps = (hits - c) @ _members(c, bins, scheme).T
    low, high = np.quantile(np.abs(gaps).sum(axis=1) / len(c), (0.025, 0.975))
    return float(low), float(high)


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Mean confidence, accuracy and count of each of ``bins`` bins of equal width."""
    c, hit = _confidence(confidence), _correct(correct, confidence)
    members = _members(c, bins, "width")
    count = members.sum(axis=1)
    filled = np.where(count > 0, count, np.nan)
    return Reliability(members @ c / filled, members @ hit / filled, count.astype(np.int64))


def decided(probabilities: ArrayLike, labels: ArrayLike, majority: int) -> tuple[Floats, NDArray[np.bool_]]:
    """(confidence [N], correct [N]) of the decisions: what the calibration metrics take."""
    p = _mean(probabilities)
    chosen = _decide(p, majority)
    return p[np.arange(len(p)), chosen], chosen == _labels(labels, p)


def classification_metrics(probabilities: ArrayLike, labels: ArrayLike, majority: int, seed: int) -> dict[str, float]:
    """Every classification metric of a row, under its column name; the null band is that of ``ece_width_15``."""
    p = _mean(probabilities)
    confidence, correct = decided(p, labels, majority)
    null_low, null_high = ece_null_band(confidence, 15, seed=seed)
    return {
        "accuracy": float(correct.mean()),
        "nll": negative_log_likelihood(p, labels),
        "brier": brier(p, labels),
        "ece_width_15": expected_calibration_error(confidence, correct, 15),
        "ece_width_20": expected_calibration_error(confidence, correct, 20),
        "ece_mass_15": expected_calibration_error(confidence, correct, 15, "mass"),
        "ece_debiased": debiased_calibration_error(confidence, correct),
        "ece_null_low": null_low,
        "ece_null_high": null_high,
    }


def _mean(probabilities: ArrayLike) -> Floats:
    """Checked probabilities, averaged over samples: [N, C]."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim not in (2, 3) or p.size == 0:
        raise ValueError(f"probabilities have shape {p.shape}; expected [N, C] or [S, N, C], not empty")
    # 1e-4 lets the rounding of single precision over many classes pass
    if not np.isfinite(p).all() or p.min() < 0 or np.abs(p.sum(axis=-1) - 1).max() > 1e-4:
        raise ValueError("probabilities must be finite, not negative and sum to 1 over the classes (the last axis)")
    return p.mean(axis=0) if p.ndim == 3 else p


def _decide(p: Floats, majority: int) -> Integers:
    """``decide`` for checked probabilities [N, C]."""
    if not 0 <= majority < p.shape[1]:
        raise ValueError(f"the majority class is {majority}; expected one of the {p.shape[1]} classes, from 0")
    tied = p >= p.max(axis=1, keepdims=True) - TIE
    return np.where(tied[:, majority], majority, tied.argmax(axis=1)).astype(np.int64)


def _labels(labels: ArrayLike, p: Floats) -> Integers:
    """Checked labels [N] for the probabilities [N, C]."""
    y = np.asarray(labels)
    if y.shape != p.shape[:1] or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(
            f"labels are {y.dtype} of shape {y.shape}; expected {len(p)} integers from 0 to {p.shape[1] - 1}"
        )
    return y.astype(np.int64)


def _confidence(confidence: ArrayLike) -> Floats:
    """Checked confidences [N]; rounding may have left them a hair above 1."""
    c = np.asarray(confidence, dtype=np.float64)
    if c.ndim != 1 or c.size == 0 or not ((c >= 0) & (c <= 1 + 1e-4)).all():
        raise ValueError(f"confidence has shape {c.shape}; expected [N], not empty, with values from 0 to 1")
    return np.minimum(c, 1.0)


def _correct(correct: ArrayLike, confidence: ArrayLike) -> Floats:
    """Checked outcomes [N], as 0 and 1."""
    hit = np.asarray(correct, dtype=np.float64)
    if hit.shape != np.shape(confidence) or not np.isin(hit, (0, 1)).all():
        raise ValueError(f"correct has shape {hit.shape}; expected {np.shape(confidence)}, each true or false")
    return hit


def _members(confidence: Floats, bins: int, scheme: Scheme) -> Floats:
    """Which bin each sample is in, as a 0/1 matrix [bins, N]: products with it are sums over bins."""
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1")
    if scheme == "width":
        upper = np.arange(1, bins + 1) / bins
    elif scheme == "mass":
        last = np.ceil(np.arange(1, bins + 1) * len(confidence) / bins).astype(int) - 1
        upper = np.unique(np.sort(confidence)[last])
    else:
        raise ValueError(f"scheme is {scheme!r}; expected 'width' or 'mass'")
    # side="left" makes the bins (lo, hi]; 0 falls into the first and, nothing being above 1, 1 into the last
    index = np.searchsorted(upper + TIE, confidence, side="left")
    return np.asarray(index == np.arange(bins)[:, None], dtype=np.float64)
