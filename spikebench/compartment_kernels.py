"""Probabilistic networks with several compartments, compiled: one presentation of one cell, an update at every step.

``spikebench.compartments`` states the rules and is what these loops are tested against. Eligibility traces are never
stored: with decay kappa, e_t = sum over d of kappa^d delta_{t-d} phi_{t-d}, so that errors delta and traces phi of the
last few steps give them back, and memory does not grow with compartments times weights.

Weights lie line by line (a line's filters side by side), neurons are the innermost axis: hidden ones, then outputs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.chip.srm_kernel import collect
from spikebench.compiled import OPTIONS
from spikebench.eligibility_kernels import learn_controlled, learn_recent, recent_rows, trace, weigh
from spikebench.number_kernels import exponential, logarithm, single, step_keys, uniform

SINGLE, MB, IW, GEM = 0, 1, 2, 3
NONE, SCALAR, WEIGHT = 0, 1, 2

_f = single


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
