"""Metropolis-Hastings compiled: many chains on many devices as one program.

A chain's proposals come from counter-based bits of its own key, so a chain is the same whatever runs beside it.
The first layer's synaptic currents are kept and only changed synapses are added; callers bound the rounding that this
gathers by the length of a block, at whose start the currents are summed afresh.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from spikebench.chip.kernels import count, first_currents, integrate, quantise
from spikebench.compiled import OPTIONS
from spikebench.networks import FULL_SCALE

_FULL_SCALE = np.float32(FULL_SCALE)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(inline="always", **OPTIONS)
def uniform(key, counter):
    """The ``counter``-th number in (0, 1) of stream ``key`` (SplitMix64; Steele, Lea, Flood, OOPSLA 2014)."""
    z = np.uint64(key) + (np.uint64(counter) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@njit(**OPTIONS)
def propose(weights, key, iteration, step, share, changed, values):
    """Block random walk: each weight is chosen with probability ``share`` and gets N(0, step^2).

    Args:
        weights: [P].
        key: of the chain.
        iteration: number of this proposal in the chain.
        step: standard deviation.
        share: in (0, 1].
        changed: [P] int64, overwritten with the chosen positions.
        values: [P] float32, overwritten with their new weights.

    Returns:
        How many weights were chosen, and log u of the acceptance test.
    """
    size = len(weights)
    counter = np.uint64(iteration) * np.uint64(3 * size + 4)
    log_u = np.log(uniform(key, counter))
    scale = 0.0 if share >= 1.0 else 1.0 / np.log1p(-share)
    position = -1
    chosen = 0
    while True:
        # The gap between chosen weights is geometric: as good as one coin a weight, with fewer random numbers.
        gap = np.log(uniform(key, counter + np.uint64(1))) * scale
        if gap >= size - position - 1:
            return chosen, log_u
        position += 1 + int(gap)
        radius = np.sqrt(-2.0 * np.log(uniform(key, counter + np.uint64(2))))
        normal = radius * np.cos(2.0 * np.pi * uniform(key, counter + np.uint64(3)))
        changed[chosen] = position
        values[chosen] = np.float32(weights[position] + step * normal)
        chosen += 1
        counter += np.uint64(3)


@njit(parallel=True, **OPTIONS)
def propose_all(weights, keys, iteration, step, share, candidates, log_u):
    """One proposal for every chain: weights [D, C, P] to candidates [D, C, P] and log u [D, C], overwritten."""
    chains = weights.shape[1]
    for job in prange(weights.shape[0] * chains):
        d, c = job // chains, job % chains
        changed = np.empty(weights.shape[2], np.int64)
        values = np.empty(weights.shape[2], np.float32)
        chosen, log_u[d, c] = propose(weights[d, c], keys[d, c], iteration, step[d, c], share, changed, values)
        candidates[d, c] = weights[d, c]
        for i in range(chosen):
            candidates[d, c, changed[i]] = values[i]


@njit(inline="always", **OPTIONS)
def tile_log_likelihood(counts, labels, samples, gain, table):
    """sum_n log softmax(gain * counts[:, n])[labels[n]] over the first ``samples`` of a tile.

    Every factor of the normaliser lies in [1, O], so a product of many is far from overflow, and one logarithm does
    for them all.
    """
    total = 0.0
    product = 1.0
    for n in range(samples):
        top = counts[0, n]
        for o in range(1, counts.shape[0]):
            if counts[o, n] > top:
                top = counts[o, n]
        normaliser = 0.0
        for o in range(counts.shape[0]):
            normaliser += table[int(top - counts[o, n])]
        product *= normaliser
        if product > 1e200:
            total -= np.log(product)
            product = 1.0
        total += gain * (counts[labels[n], n] - top)
    return total - np.log(product)


@njit(inline="always", **OPTIONS)
def effective(weight, p, gain, stuck, stuck_value, levels):
    """The weight that acts, of synapse p (the order of ``faults.effective_weights``)."""
    value = stuck_value[p] if stuck[p] else quantise(weight, levels, _FULL_SCALE)
    return value * gain[p]


@njit(parallel=True, **OPTIONS)
def sample(
    weights, log_likelihood, accepted, keys, first, proposals, step, share, prior_sd, temperature, count_gain,
    index, inputs, labels, samples, steps,
    shapes, threshold, decay, offset, kappa, fate,
    gain, stuck, stuck_value, levels,
):  # fmt: skip
    """``proposals`` Metropolis-Hastings steps of every chain; weights, likelihoods and acceptances in place.

    The target is L(D | W)^(1 / temperature) N(W; 0, prior_sd^2); the proposal is symmetric, so the acceptance test is
    log u < [log L(W') - log L(W)] / temperature + log P(W') - log P(W).

    Args:
        weights: [D, C, P] programmed weights.
        log_likelihood: [D, C] float64, of ``weights``.
        accepted: [D, C] int64, added to.
        keys: [D, C] int64.
        first: number of the first proposal.
        proposals: how many.
        step: [D, C].
        share: of weights that a proposal changes.
        prior_sd: standard deviation of the prior.
        temperature: of the likelihood.
        count_gain: b of the read-out.
        index: [D].
        inputs: [R, K, T or 1, I, W].
        labels: [R, K, W] int64.
        samples: N, how many of the K * W are real.
        steps: T.
        shapes: [L, 2], and the device as in ``kernels.evaluate``.
        threshold: [D, M].
        decay: [D, M].
        offset: [D, M].
        kappa: [D, L].
        fate: [D, M].
        gain: [D, P].
        stuck: [D, P].
        stuck_value: [D, P].
        levels: [D].
    """
    devices, chains, size = weights.shape
    tiles = inputs.shape[1]
    neurons, outputs = threshold.shape[1], shapes[-1, 0]
    lines, neurons_1, width = inputs.shape[3], shapes[0, 0], inputs.shape[4]
    table = np.exp(-count_gain * np.arange(steps + 1))
    for job in prange(devices * chains):
        d, c = job // chains, job % chains
        x, y = inputs[index[d]], labels[index[d]]
        w = weights[d, c]
        acting = np.empty(size, np.float32)
        for p in range(size):
            acting[p] = effective(w[p], p, gain[d], stuck[d], stuck_value[d], levels[d])
        currents = np.empty((2, tiles, x.shape[1], neurons_1, width), np.float32)
        for k in range(tiles):
            first_currents(acting, x[k], currents[0, k])
        now = 0
        raster = np.empty((neurons, steps, width), np.float32)
        work = np.empty((2, width), np.float32)
        counts = np.empty((outputs, width), np.float32)
        changed = np.empty(size, np.int64)
        values = np.empty(size, np.float32)
        previous = np.empty(size, np.float32)
        for iteration in range(first, first + proposals):
            chosen, log_u = propose(w, keys[d, c], iteration, step[d, c], share, changed, values)
            prior = 0.0
            for i in range(chosen):
                p = changed[i]
                prior += np.float64(w[p]) ** 2 - np.float64(values[i]) ** 2
                previous[i] = acting[p]
                acting[p] = effective(values[i], p, gain[d], stuck[d], stuck_value[d], levels[d])
            prior /= 2.0 * prior_sd * prior_sd
            likelihood = 0.0
            for k in range(tiles):
                candidate = currents[1 - now, k]
                candidate[:] = currents[now, k]
                for i in range(chosen):
                    p = changed[i]
                    if p >= neurons_1 * lines:
                        break
                    add_synapse(candidate, x[k], p // lines, p % lines, acting[p] - previous[i])
                integrate(candidate, acting, shapes, threshold[d], decay[d], offset[d], kappa[d], fate[d], raster, work)
                count(raster, neurons - outputs, counts)
                real = min(width, samples - k * width)
                likelihood += tile_log_likelihood(counts, y[k], real, count_gain, table)
            if log_u < (likelihood - log_likelihood[d, c]) / temperature + prior:
                for i in range(chosen):
                    w[changed[i]] = values[i]
                log_likelihood[d, c] = likelihood
                accepted[d, c] += 1
                now = 1 - now
            else:
                for i in range(chosen):
                    acting[changed[i]] = previous[i]


@njit(inline="always", **OPTIONS)
def add_synapse(currents, inputs, neuron, line, weight):
    """Add one synapse's change to the currents [T or 1, O, W] of its neuron."""
    width = currents.shape[2]
    for t in range(inputs.shape[0]):
        for n in range(width):
            currents[t, neuron, n] += weight * inputs[t, line, n]
