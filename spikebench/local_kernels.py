"""Local online learning of SRM networks, compiled: one presentation of one cell, an update of all weights a time step.

``spikebench.local_learning`` states the equations and is what these loops are tested against. Random numbers are
functions of (key, time step, weight), so a cell has the same bits whatever is trained beside it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.compiled import OPTIONS
from spikebench.number_kernels import exponential, logarithm, single, step_keys, uniform

REAL, STRAIGHT_THROUGH, BERNOULLI = 0, 1, 2
SOFTMAX, LOGISTIC, SMOOTH_L1 = 0, 1, 2
BOXCAR, SIGMOID = 0, 1

_f = single


@njit(**OPTIONS)
def relax(natural, temperature, key, step, weights, slope):
    """Relaxed samples w = tanh((w^r + delta) / tau), and 1 - w^2, which subtraction would round away.

    Args:
        natural: [P] w^r.
        temperature: tau.
        key: of the cell.
        step: names the draw.
        weights: [P], overwritten with w.
        slope: [P], overwritten with 1 - w^2.
    """
    first, second = step_keys(key, step)
    inverse = _f(1.0) / temperature
    for i in range(len(natural)):
        u = uniform(first, second, i)
        z = (_f(2.0) * natural[i] + logarithm(u) - logarithm(_f(1.0) - u)) * inverse
        a = exponential(-abs(z))
        w = (_f(1.0) - a) / (_f(1.0) + a)
        weights[i] = w if z >= _f(0.0) else -w
        slope[i] = _f(4.0) * a / ((_f(1.0) + a) * (_f(1.0) + a))


@njit(**OPTIONS)
def natural_step(natural, gradient, weights, slope, rate, temperature, kl_weight, prior, cap, literal):
    """w^r <- (1 - eta rho) w^r - eta (g (1 - w^2) / (tau (1 - mu^2)) - rho w^r_0), in place; all arrays [P]."""
    inverse = _f(1.0) / temperature
    keep = _f(1.0) - rate * kl_weight
    for i in range(len(natural)):
        if literal:
            mean = _f(np.tanh(natural[i]))
            scale = (_f(1.0) - weights[i] * weights[i] + _f(1e-10)) * inverse
            scale = scale / (_f(1.0) - mean * mean + _f(1e-10))
        else:
            a = exponential(_f(-2.0) * abs(natural[i]))  # 1 / (1 - mu^2) = (1 + a)^2 / 4a
            scale = slope[i] * inverse * (_f(1.0) + a) * (_f(1.0) + a) / (_f(4.0) * a)
            scale = scale if scale < cap else cap
        natural[i] = keep * natural[i] - rate * (gradient[i] * scale - kl_weight * prior)


@njit(inline="always", **OPTIONS)
def _error(loss, readout, targets, error):
    """The derivative of the loss in the read-outs, [N, O], into ``error``; the mean loss."""
    total = 0.0
    samples, outputs = readout.shape
    for n in range(samples):
        if loss == SOFTMAX:
            top = readout[n].max()
            mass = _f(0.0)
            for k in range(outputs):
                error[n, k] = np.exp(readout[n, k] - top)
                mass += error[n, k]
            for k in range(outputs):
                error[n, k] = error[n, k] / mass - targets[n, k]
                total += targets[n, k] * (np.log(mass) + top - readout[n, k])
        elif loss == LOGISTIC:
            r = readout[n, 0]
            error[n, 0] = _f(1.0) / (_f(1.0) + np.exp(-r)) - targets[n, 0]
            total += max(r, _f(0.0)) - r * targets[n, 0] + np.log1p(np.exp(-abs(r)))
        else:
            d = readout[n, 0] - targets[n, 0]
            error[n, 0] = min(max(d, _f(-1.0)), _f(1.0))
            total += 0.5 * d * d if abs(d) < 1.0 else abs(d) - 0.5
    return total / samples


@njit(inline="always", **OPTIONS)
def _receive(source, synapse, trace, alpha, beta):
    """Filters the lines, p <- alpha p + q and q <- beta q + x, in place; all [N, lines]."""
    for n in range(len(trace)):
        for i in range(trace.shape[1]):
            trace[n, i] = alpha * trace[n, i] + synapse[n, i]
            synapse[n, i] = beta * synapse[n, i] + source[n, i]


@njit(inline="always", **OPTIONS)
def _fire(potential, refractory, spikes, scale, alpha_r, threshold):
    """Potentials u <- c u - R and spikes, in place; all [N, neurons]."""
    for n in range(len(spikes)):
        for o in range(spikes.shape[1]):
            refractory[n, o] = alpha_r * refractory[n, o] + spikes[n, o]
            potential[n, o] = scale * potential[n, o] - refractory[n, o]
            spikes[n, o] = _f(1.0) if potential[n, o] >= threshold else _f(0.0)


@njit(inline="always", **OPTIONS)
def _sensitise(credit, potential, threshold, surrogate, factor):
    """Two of the three factors in place of the first, [N, neurons]; returns how many potentials are in the boxcar."""
    near = 0
    for n in range(len(credit)):
        for o in range(credit.shape[1]):
            x = potential[n, o] - threshold
            inside = _f(1.0) if (x > _f(-0.5)) & (x <= _f(0.5)) else _f(0.0)
            near += int(inside)
            if surrogate == BOXCAR:
                derivative = inside
            else:
                a = exponential(-abs(x))
                derivative = a / ((_f(1.0) + a) * (_f(1.0) + a))
            credit[n, o] = credit[n, o] * derivative * factor
    return near


@njit(inline="always", **OPTIONS)
def _matrix(flat, first, rows, columns):
    """A matrix in a flat array."""
    return flat[first : first + rows * columns].reshape(rows, columns)


@njit(inline="always", **OPTIONS)
def sign(natural, weights):
    """The most probable weights, -1 or 1; that of 0 is 1."""
    for k in range(len(natural)):
        weights[k] = _f(1.0) if natural[k] >= _f(0.0) else _f(-1.0)


@njit(**OPTIONS)
def present(
    natural, inputs, steps, targets, readouts, shapes, decays, threshold, loss, surrogate, burn_in,
    rule, rate, temperature, kl_weight, prior, cap, literal, key, work,
):  # fmt: skip
    """Show a minibatch to one cell and learn at every time step after burn-in.

    Args:
        natural: [P] real weights, those behind binary ones, or natural parameters; overwritten.
        inputs: [N, T or 1, I] with the constant line, which is left out.
        steps: T.
        targets: [N, O], one-hot labels or values.
        readouts: one [O, n] a layer, one after the other.
        shapes: [L, 2], (neurons, lines) of each layer.
        decays: alpha, beta, alpha_r.
        threshold: theta.
        loss: SOFTMAX, LOGISTIC or SMOOTH_L1.
        surrogate: BOXCAR or SIGMOID.
        burn_in: steps without learning.
        rule: REAL, STRAIGHT_THROUGH or BERNOULLI.
        rate: eta.
        temperature: tau.
        kl_weight: rho.
        prior: w^r_0.
        cap: of the natural gradient's scale.
        literal: the published code's scale, which single precision ruins far from 0.
        key: of the cell and this presentation.
        work: [3, P] scratch.

    Returns:
        The last layer's mean loss, and the share of potentials where the boxcar is not 0, of all steps that learn.
    """
    alpha, beta, alpha_r = decays
    samples, outputs = targets.shape
    weights, slope, gradient = work[0], work[1], work[2]
    layers, neurons, lines = len(shapes), shapes[:, 0].sum(), shapes[:, 1].sum()
    synapse, trace = np.zeros(samples * lines, np.float32), np.zeros(samples * lines, np.float32)
    refractory, spikes = np.zeros(samples * neurons, np.float32), np.zeros(samples * neurons, np.float32)
    error, credit = np.empty((samples, outputs), np.float32), np.empty(samples * shapes[:, 0].max(), np.float32)
    readout = np.empty((samples, outputs), np.float32)
    total, near = 0.0, 0
    if rule == BERNOULLI:
        relax(natural, temperature, key, 0, weights, slope)
    elif rule == STRAIGHT_THROUGH:
        sign(natural, weights)
    else:
        weights[:] = natural
    for t in range(steps):
        learning = t >= burn_in
        weight, line, neuron = 0, 0, 0  # where the layer begins
        source = inputs[:, min(t, inputs.shape[1] - 1)]
        for layer in range(layers):
            o, i = shapes[layer]
            c, c_readout = _f(1.0 / np.sqrt(i)), _f(1.0 / np.sqrt(o))
            p = _matrix(trace, line * samples, samples, i)
            s = _matrix(spikes, neuron * samples, samples, o)
            _receive(source, _matrix(synapse, line * samples, samples, i), p, alpha, beta)
            u = np.dot(p, _matrix(weights, weight, o, i).T)
            _fire(u, _matrix(refractory, neuron * samples, samples, o), s, c, alpha_r, threshold)
            if learning:
                b = _matrix(readouts, neuron * outputs, outputs, o)
                np.dot(s, b.T, readout)
                readout *= c_readout
                mean_loss = _error(loss, readout, targets, error)
                total += mean_loss if layer == layers - 1 else 0.0
                delta = _matrix(credit, 0, samples, o)
                np.dot(error, b, delta)
                near += _sensitise(delta, u, threshold, surrogate, c * c_readout / _f(samples))
                np.dot(delta.T, p, _matrix(gradient, weight, o, i))
            source = s
            weight, line, neuron = weight + o * i, line + i, neuron + o
        if not learning:
            continue
        if rule == BERNOULLI:
            natural_step(natural, gradient, weights, slope, rate, temperature, kl_weight, prior, cap, literal)
            relax(natural, temperature, key, t + 1, weights, slope)
            continue
        for k in range(len(natural)):
            natural[k] = natural[k] - rate * gradient[k]
        if rule == STRAIGHT_THROUGH:
            sign(natural, weights)
        else:
            weights[:] = natural
    return total / (steps - burn_in), near / ((steps - burn_in) * samples * neurons)
