"""Changes of the weights from eligibility traces that are not stored, for ``compartment_kernels``.

A trace is e_t = sum over d of kappa^d delta_{t-d} phi_{t-d}, and a step of the weights is a sum over errors delta and
traces phi of the last few steps. Weights lie line by line, neurons are the innermost axis.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.chip.srm_kernel import add
from spikebench.compiled import OPTIONS
from spikebench.number_kernels import single

#: Steps that ``last_steps`` and ``learn_fused`` take at once: as many as matter at the authors' kappa of 0.05.
FUSED = 5
#: Added to the denominator of a control variate.
TINY = single(1e-7)

_f = single


@njit(**OPTIONS)
def trace(signals, filters, width):
    """Traces phi [T, lines x M] of the steps before each, for the first ``width`` lines of signals [T, lines]."""
    steps, (taps, kinds) = len(signals), filters.shape
    phi = np.zeros((steps, width * kinds), np.float32)
    for t in range(steps):
        for j in range(width):
            x = signals[t, j]
            if x == 0:
                continue
            for d in range(min(taps, steps - 1 - t)):
                for m in range(kinds):
                    phi[t + 1 + d, j * kinds + m] += x * filters[d, m]
    return phi


@njit(**OPTIONS)
def weigh(weights, lines, values, first, end, total):
    """``add``, compiled by itself: within the loop of ``present`` it would not be made of vectors."""
    add(weights, lines, values, first, end, total)


@njit(**OPTIONS)
def learn(phi, starts, columns, first, last, weights, errors):
    """Adds to weights the sum over the steps t in [first, last) of phi_t errors[t - first]^T."""
    for t in range(first, last):
        error = errors[t - first]
        for k in range(starts[t], starts[t + 1]):
            x, own = phi[t, columns[k]], weights[columns[k]]
            for i in range(len(own)):
                own[i] += x * error[i]


@njit(**OPTIONS)
def recent_rows(columns, marks):
    """Each of some columns once; ``marks`` is scratch, all false before and after."""
    rows, n = np.empty(len(columns), np.int32), 0
    for c in columns:
        rows[n] = c
        n += not marks[c]
        marks[c] = True
    rows = rows[:n]
    marks[rows] = False
    return rows


@njit(**OPTIONS)
def learn_fused(phi, rows, last, weights, errors):
    """``learn`` of the ``FUSED`` steps before ``last`` in one pass over the rows that any of them touches."""
    e0, e1, e2, e3, e4 = errors[0], errors[1], errors[2], errors[3], errors[4]
    t = last - FUSED
    for row in rows:
        x0, x1, x2, x3, x4 = phi[t, row], phi[t + 1, row], phi[t + 2, row], phi[t + 3, row], phi[t + 4, row]
        own = weights[row]
        for i in range(len(own)):
            own[i] += x0 * e0[i] + x1 * e1[i] + x2 * e2[i] + x3 * e3[i] + x4 * e4[i]


@njit(**OPTIONS)
def learn_recent(phi, starts, columns, first, last, weights, errors, marks):
    """``learn``, as far as it goes in blocks of ``FUSED`` steps."""
    while last - first >= FUSED:
        rows = recent_rows(columns[starts[last - FUSED] : starts[last]], marks)
        learn_fused(phi, rows, last, weights, errors[last - first - FUSED : last - first])
        last -= FUSED
    learn(phi, starts, columns, first, last, weights, errors)


@njit(inline="always", **OPTIONS)
def trace_step(delta, x, signal, decay, e, upper, lower):
    """In place, all [H]: e <- kappa e + delta x, N <- kappa N + e^2 signal, D <- kappa D + e^2."""
    for i in range(len(delta)):
        now = decay * e[i] + x * delta[i]
        e[i] = now
        upper[i] = decay * upper[i] + now * now * signal
        lower[i] = decay * lower[i] + now * now


@njit(inline="always", **OPTIONS)
def last_steps(delta, phi, row, signal, decay, rate, e, upper, lower, weights):
    """Five of ``trace_step`` and the change of the weights in one loop, so that nothing in between goes to memory."""
    t = len(delta)
    d0, d1, d2, d3, d4 = delta[t - 5, 0], delta[t - 4, 0], delta[t - 3, 0], delta[t - 2, 0], delta[t - 1, 0]
    x0, x1, x2, x3, x4 = (
        phi[t - 5, 0, row],
        phi[t - 4, 0, row],
        phi[t - 3, 0, row],
        phi[t - 2, 0, row],
        phi[t - 1, 0, row],
    )
    s0, s1, s2, s3, s4 = signal[t - 5], signal[t - 4], signal[t - 3], signal[t - 2], signal[t - 1]
    for i in range(len(e)):
        a = decay * e[i] + x0 * d0[i]
        b = decay * a + x1 * d1[i]
        c = decay * b + x2 * d2[i]
        d = decay * c + x3 * d3[i]
        f = decay * d + x4 * d4[i]
        n = decay * upper[i] + a * a * s0
        m = decay * lower[i] + a * a
        n, m = decay * n + b * b * s1, decay * m + b * b
        n, m = decay * n + c * c * s2, decay * m + c * c
        n, m = decay * n + d * d * s3, decay * m + d * d
        n, m = decay * n + f * f * s4, decay * m + f * f
        weights[i] += rate * (s4 - n / (m + TINY)) * f


@njit(**OPTIONS)
def learn_controlled(weights, rows, phi, delta, signal, decay, rate, work):
    """Adds rate (signal - beta) e with beta = N / D, the control variate of each weight, to weights [rows, >= H].

    Args:
        weights: of the hidden neurons in the first H columns.
        rows: those whose traces are not all 0.
        phi: [D, C, rows] of the last D steps, the oldest first; products with delta are summed over the C.
        delta: [D, C, H].
        signal: [D].
        decay: kappa.
        rate: eta.
        work: [4, H] scratch.
    """
    depth, parts, hidden = delta.shape
    e, upper, lower, summed = work[0], work[1], work[2], work[3]
    for row in rows:
        for i in range(hidden):
            e[i], upper[i], lower[i] = _f(0.0), _f(0.0), _f(0.0)
        fused = parts == 1 and depth >= FUSED
        for d in range(depth - FUSED if fused else depth):
            if parts == 1:
                trace_step(delta[d, 0], phi[d, 0, row], signal[d], decay, e, upper, lower)
                continue
            for i in range(hidden):
                summed[i] = _f(0.0)
            for c in range(parts):
                x = phi[d, c, row]
                for i in range(hidden):
                    summed[i] += x * delta[d, c, i]
            trace_step(summed, _f(1.0), signal[d], decay, e, upper, lower)
        if fused:
            last_steps(delta, phi, row, signal, decay, rate, e, upper, lower, weights[row])
            continue
        s, own = signal[depth - 1], weights[row]
        for i in range(hidden):
            own[i] += rate * (s - upper[i] / (lower[i] + TINY)) * e[i]
