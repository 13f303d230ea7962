"""The two recursions over time of a LIF layer, compiled: dispatching twenty small tensor operations a step costs more
than the arithmetic."""

from __future__ import annotations

from numba import njit, prange

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


@njit(parallel=True, **_OPTIONS)
def potentials(currents, decay, spikes, result):
    """V[t] = a V[t-1] (1 - S[t-1]) + I[t] for given spikes.

    Args:
        currents: [B, N, T or 1, O].
        decay: [B, O].
        spikes: [B, N, T, O].
        result: [B, N, T, O], overwritten with V.
    """
    cells, samples, steps, neurons = spikes.shape
    constant = currents.shape[2] == 1
    for b in prange(cells):
        for n in range(samples):
            for o in range(neurons):
                result[b, n, 0, o] = currents[b, n, 0, o]
            for t in range(1, steps):
                source = 0 if constant else t
                for o in range(neurons):
                    kept = result[b, n, t - 1, o] * (1 - spikes[b, n, t - 1, o])
                    result[b, n, t, o] = decay[b, o] * kept + currents[b, n, source, o]


@njit(parallel=True, **_OPTIONS)
def adjoint(gradient, decay, spikes, potential, slope, result):
    """dL/dV[t] = s'[t] (dL/dS[t] - a V[t] dL/dV[t+1]) + a (1 - S[t]) dL/dV[t+1], backward in time.

    Args:
        gradient: [B, N, T, O], dL/dS.
        decay: [B, O].
        spikes: [B, N, T, O].
        potential: [B, N, T, O], V.
        slope: [B, N, T, O], s'.
        result: [B, N, T, O], overwritten with dL/dV, which is dL/dI.
    """
    cells, samples, steps, neurons = spikes.shape
    for b in prange(cells):
        for n in range(samples):
            last = steps - 1
            for o in range(neurons):
                result[b, n, last, o] = slope[b, n, last, o] * gradient[b, n, last, o]
            for t in range(steps - 2, -1, -1):
                for o in range(neurons):
                    later = decay[b, o] * result[b, n, t + 1, o]
                    s, v, d = spikes[b, n, t, o], potential[b, n, t, o], slope[b, n, t, o]
                    result[b, n, t, o] = d * (gradient[b, n, t, o] - v * later) + (1 - s) * later
