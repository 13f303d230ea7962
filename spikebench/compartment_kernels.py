"""Probabilistic networks with several compartments, compiled: one presentation of one cell, an update at every step.

``spikebench.compartments`` states the rules and is what these loops are tested against. Eligibility traces are never
stored: with decay kappa, e_t = sum over d of kappa^d delta_{t-d} phi_{t-d}, so that errors delta and traces phi of the
last few steps give them back, and memory does not grow with compartments times weights.

Weights lie line by line (a line's filters side by side), neurons are the innermost axis: hidden ones, then outputs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.chip.srm_kernel import add, collect
from spikebench.compiled import OPTIONS
from spikebench.number_kernels import exponential, logarithm, single, step_keys, uniform

SINGLE, MB, IW, GEM = 0, 1, 2, 3
NONE, SCALAR, WEIGHT = 0, 1, 2
#: Steps that ``last_steps`` takes at once: as many as matter at the authors' kappa of 0.05.
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


@njit(inline="always", **OPTIONS)
def probability(u):
    """sigma(u), and -log(1 + e^-|u|), to which y u - max(u, 0) is added for log p(y)."""
    a = exponential(-abs(u))
    p = _f(1.0) / (_f(1.0) + a)
    return (p if u >= _f(0.0) else a * p), -logarithm(_f(1.0) + a)


@njit(**OPTIONS)
def scalar_baseline(signal, decay):
    """The discounted mean of the signals [D], the oldest first."""
    upper, lower = _f(0.0), _f(0.0)
    for s in signal:
        upper, lower = decay * upper + s, decay * lower + _f(1.0)
    return upper / lower


@njit(**OPTIONS)
def present(
    parameters, inputs, targets, filters, hidden, compartments, rule, baseline, decay, share, depth, feedback, rate, key
):
    """Show one example to one cell and learn at every time step.

    Args:
        parameters: [P], layer after layer, neuron after neuron, a bias last; overwritten.
        inputs: [T, I] with the constant line, which is left out.
        targets: [T, O], to which the outputs are clamped.
        filters: [taps, M].
        hidden: H.
        compartments: K.
        rule: SINGLE, MB, IW or GEM.
        baseline: NONE, SCALAR or WEIGHT, of the hidden neurons' signal (not of GEM, which has none).
        decay: kappa.
        share: what the hidden step of IW is multiplied with.
        depth: steps after which a trace is forgotten.
        feedback: whether outputs see the outputs' past.
        rate: eta.
        key: of the cell and this presentation.

    Returns:
        Log-likelihood of the targets, log 1/K sum_k p_k; the rule's bound, sum over t of L_t; and means over time of
        the effective number of compartments, the hidden rate and the probability of a wrong output bit.
    """
    steps, outputs = targets.shape
    lines, (taps, kinds) = inputs.shape[1] - 1, filters.shape
    neurons, width_x, width_h = hidden + outputs, lines * kinds, hidden * kinds
    # By line, so that a signal adds a row to the potentials of all neurons.
    w_h = parameters[: hidden * (width_x + width_h + 1)].reshape(hidden, -1)
    w_o = parameters[hidden * (width_x + width_h + 1) :].reshape(outputs, -1)
    from_x, from_h = np.empty((width_x, neurons), np.float32), np.empty((width_h, neurons), np.float32)
    from_x[:, :hidden], from_h[:, :hidden] = w_h[:, :width_x].T, w_h[:, width_x:-1].T
    from_x[:, hidden:], from_h[:, hidden:] = w_o[:, :width_x].T, w_o[:, width_x : width_x + width_h].T
    from_y = np.ascontiguousarray(w_o[:, width_x + width_h : -1].T)
    bias = np.concatenate((w_h[:, -1], w_o[:, -1]))

    phi_x = trace(inputs, filters, lines)
    phi_y = trace(targets, filters, outputs if feedback else 0)
    starts_x, columns_x, values_x = collect(phi_x, phi_x.shape[1])
    starts_y, columns_y, values_y = collect(phi_y, phi_y.shape[1])
    ones = np.ones((depth, 1, 1), np.float32)
    phi_h = np.zeros((steps + taps, compartments, width_h), np.float32)
    delta = np.empty((steps, compartments, neurons), np.float32)
    pooled = np.empty((steps, 1, hidden), np.float32)  # the hidden errors, summed over compartments
    signals = np.empty((compartments, steps), np.float32)  # v
    common = np.empty(steps, np.float32)  # L
    shared, weight = np.empty(neurons, np.float32), np.empty(compartments, np.float32)
    errors = np.zeros((depth * compartments, neurons), np.float32)
    summed = np.empty((depth, neurons), np.float32)
    marks, all_h = np.zeros(max(width_x, outputs * kinds), np.bool_), np.arange(width_h).astype(np.int32)
    work = np.empty((4, hidden), np.float32)
    single_sample = rule in (SINGLE, MB)
    likelihood = np.zeros(compartments)
    bound, effective, fired, wrong = 0.0, 0.0, 0.0, 0.0

    for t in range(steps):
        shared[:] = bias
        weigh(from_x, columns_x, values_x, starts_x[t], starts_x[t + 1], shared)
        weigh(from_y, columns_y, values_y, starts_y[t], starts_y[t + 1], shared[hidden:])
        potentials = np.dot(phi_h[t], from_h)
        first, second = step_keys(key, t)
        for k in range(compartments):
            for i in range(hidden):
                u = shared[i] + potentials[k, i]
                noise = uniform(first, second, k * hidden + i)
                p, _ = probability(u)
                spike = u > logarithm(noise) - logarithm(_f(1.0) - noise)
                delta[t, k, i] = (_f(1.0) if spike else _f(0.0)) - p
                if spike:
                    fired += 1.0
                    for d in range(taps):
                        for m in range(kinds):
                            phi_h[t + 1 + d, k, i * kinds + m] += filters[d, m]
            total = 0.0
            for i in range(outputs):
                u, y = shared[hidden + i] + potentials[k, hidden + i], targets[t, i]
                p, log_p = probability(u)
                delta[t, k, hidden + i] = y - p
                total += log_p + y * u - max(u, _f(0.0))
                wrong += abs(y - p)
            likelihood[k] += total
            signals[k, t] = total + (decay * signals[k, t - 1] if t else _f(0.0))
        for i in range(hidden):
            pooled[t, 0, i] = delta[t, :, i].sum()
        top = signals[:, t].max()
        weight[:] = np.exp(signals[:, t] - top)
        mass = weight.sum()
        weight /= mass
        common[t] = top + np.log(mass) - np.log(compartments)
        bound += common[t]
        effective += 1.0 / (weight * weight).sum()

        # The errors of the last steps, each times kappa^d eta and what its compartment counts; the oldest step first.
        begin = max(0, t + 1 - depth)
        span = t + 1 - begin
        linear = rule == GEM or baseline != WEIGHT
        for k in range(compartments):
            visible = _f(1.0 / compartments) if single_sample else weight[k]
            if rule == GEM:
                inner = weight[k]
            elif not linear:
                inner = _f(0.0)
            else:
                signal = signals[k, begin : t + 1] if single_sample else common[begin : t + 1]
                inner = signal[-1] - (scalar_baseline(signal, decay) if baseline == SCALAR else _f(0.0))
                inner *= _f(1.0 / compartments) if single_sample else share
            factor = rate
            for d in range(span):
                row, own = (span - 1 - d) * compartments + k, delta[t - d, k]
                for i in range(hidden):
                    errors[row, i] = factor * inner * own[i]
                for i in range(hidden, neurons):
                    errors[row, i] = factor * visible * own[i]
                factor *= decay
        for d in range(span):
            summed[d] = errors[d * compartments : (d + 1) * compartments].sum(axis=0)
        learn_recent(phi_x, starts_x, columns_x, begin, t + 1, from_x, summed, marks)
        learn_recent(phi_y, starts_y, columns_y, begin, t + 1, from_y, summed[:, hidden:].copy(), marks)
        recent = phi_h[begin : t + 1].reshape(span * compartments, width_h)
        from_h += np.dot(recent.T, errors[: span * compartments])
        for d in range(span):
            bias += summed[d]

        if not linear:
            seen = phi_x[begin : t + 1].reshape(span, 1, width_x)
            active = recent_rows(columns_x[starts_x[begin] : starts_x[t + 1]], marks)
            own_bias = bias.reshape(1, neurons)
            if rule == IW:
                drive, signal, eta = pooled[begin : t + 1], common[begin : t + 1], rate * share
                learn_controlled(from_x, active, seen, drive, signal, decay, eta, work)
                learn_controlled(own_bias, all_h[:1], ones[:span], drive, signal, decay, eta, work)
                errors_h = np.ascontiguousarray(delta[begin : t + 1, :, :hidden])
                learn_controlled(from_h, all_h, phi_h[begin : t + 1], errors_h, signal, decay, eta, work)
            else:
                eta = rate / _f(compartments)
                for k in range(compartments):
                    # In one piece, or the innermost loops are not made of vectors.
                    drive, signal = delta[begin : t + 1, k : k + 1, :hidden].copy(), signals[k, begin : t + 1]
                    learn_controlled(from_x, active, seen, drive, signal, decay, eta, work)
                    learn_controlled(own_bias, all_h[:1], ones[:span], drive, signal, decay, eta, work)
                    learn_controlled(from_h, all_h, phi_h[begin : t + 1, k : k + 1], drive, signal, decay, eta, work)
        # Synapses that are not there: of a neuron on itself all but the first filter's.
        for i in range(hidden):
            for m in range(1, kinds):
                from_h[i * kinds + m, i] = _f(0.0)
        for i in range(outputs):
            for m in range(1, kinds):
                from_y[i * kinds + m, i] = _f(0.0)

    w_h[:, :width_x], w_h[:, width_x:-1], w_h[:, -1] = from_x[:, :hidden].T, from_h[:, :hidden].T, bias[:hidden]
    w_o[:, :width_x], w_o[:, width_x : width_x + width_h] = from_x[:, hidden:].T, from_h[:, hidden:].T
    w_o[:, -1] = bias[hidden:]
    if feedback:
        w_o[:, width_x + width_h : -1] = from_y.T
    best = likelihood.max()
    log_likelihood = best + np.log(np.exp(likelihood - best).sum() / compartments)
    rate_of_hidden = fired / (steps * compartments * hidden)
    return log_likelihood, bound, effective / steps, rate_of_hidden, wrong / (steps * compartments * outputs)
