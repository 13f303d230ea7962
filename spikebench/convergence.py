"""How much a Markov chain's trace is worth; numpy alone, since every training process imports it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def effective_sample_size(trace: ArrayLike) -> float:
    """How many independent draws the ``trace`` [chains, steps] is worth, at most chains x steps x its log10.

    Autocorrelations are summed by the initial positive sequence of Geyer (1992, "Practical Markov chain Monte Carlo",
    Statistical Science 7, section 3.3): in pairs, until a pair's sum is not positive. The chains are combined as in
    Vehtari et al. (2021, Bayesian Analysis 16, equations 10 and 11), so that chains which disagree are worth little.
    NaN where there is nothing to estimate from: fewer than four steps, a trace that never
    moves, or one that left the finite numbers.
    """
    x = np.asarray(trace, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"the trace has shape {x.shape}; expected [chains, steps]")
    chains, steps = x.shape
    if steps < 4 or not np.isfinite(x).all() or np.ptp(x) == 0:
        return float("nan")
    centred = x - x.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * steps, axis=1)  # padded, so that the circular sums do not wrap
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :steps].mean(axis=0) / steps
    within = covariance[0] * steps / (steps - 1)
    between = x.mean(axis=1).var(ddof=1) if chains > 1 else 0.0
    rho = 1 - (within - covariance) / (within * (steps - 1) / steps + between)
    rho[0] = 1.0
    pairs = rho[: steps // 2 * 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    total = chains * steps
    return float(total / max(2 * pairs[:stop].sum() - 1, 1 / np.log10(total)))
