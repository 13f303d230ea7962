"""Compiled simulation of dense LIF networks on many devices at once.

One pure function simulates one network on one device for all samples; samples are the innermost axis, so that the
compiler works on many of them at a time. Multiply-adds may be fused, sums are never reordered: the same machine gives
the same bits whatever else is in the batch.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from spikebench.compiled import OPTIONS

#: At most so many samples are simulated together, as the innermost axis of every array (W below): long enough that
#: starting a loop costs little, short enough that a small network's spikes stay in the cache.
WIDEST = 512
#: Their number is padded to a multiple of this, one vector register.
LANES = 16
#: From so many input lines on, the first layer's currents are a matrix product of the BLAS library, about ten times
#: faster there. It sums in an order of its own, but always in the same one, for each product has one shape: that of one
#: cell, time step and tile, whatever is beside it.
WIDE = 256


@njit(inline="always", **OPTIONS)
def quantise(weight, levels, full_scale):
    """The nearest of ``levels`` mid-rise levels in [-full_scale, full_scale]; 0 levels leaves the weight alone."""
    if levels == 0:
        return weight
    step = np.float32(2.0) * full_scale / np.float32(levels)
    value = (np.floor(weight / step) + np.float32(0.5)) * step
    edge = full_scale - step / np.float32(2.0)
    return min(max(value, -edge), edge)


@njit(inline="always", **OPTIONS)
def compress(current, kappa):
    """tanh(kappa I)/kappa with tanh as its [9/8] Pade approximant (error below 1e-5)."""
    x = kappa * current
    x = x if x < np.float32(6.0) else np.float32(6.0)  # comparisons, not min and max, which do not vectorise
    x = x if x > np.float32(-6.0) else np.float32(-6.0)
    y = x * x
    top = np.float32(34459425.0) + y * (
        np.float32(4729725.0) + y * (np.float32(135135.0) + y * (np.float32(990.0) + y))
    )
    bottom = np.float32(34459425.0) + y * (
        np.float32(16216200.0) + y * (np.float32(945945.0) + y * (np.float32(13860.0) + y * np.float32(45.0)))
    )
    return x * top / bottom / kappa


@njit(**OPTIONS)
def first_currents(weights, inputs, currents):
    """Synaptic currents of the first layer, one tile: I[t, o, n] = sum_i w[o, i] x[t, i, n].

    Args:
        weights: [P] effective weights, the first layer's first.
        inputs: [T or 1, I, W].
        currents: [T or 1, O, W], overwritten.
    """
    width = currents.shape[2]
    lines = inputs.shape[1]
    if lines >= WIDE:
        matrix = weights[: currents.shape[1] * lines].reshape(currents.shape[1], lines)
        for t in range(inputs.shape[0]):
            np.dot(matrix, inputs[t], currents[t])
        return
    for t in range(inputs.shape[0]):
        for o in range(currents.shape[1]):
            for n in range(width):
                currents[t, o, n] = np.float32(0.0)
            for i in range(lines):
                w = weights[o * lines + i]
                for n in range(width):
                    currents[t, o, n] += w * inputs[t, i, n]


@njit(**OPTIONS)
def integrate(currents, weights, shapes, threshold, decay, offset, kappa, fate, spikes, work):
    """Run all layers over time for one tile of samples.

    Args:
        currents: [T or 1, O_1, W], of the first layer.
        weights: [P] effective weights.
        shapes: [L, 2] (neurons, inputs) a layer.
        threshold: [M] of all neurons, layer after layer; likewise decay, offset and fate.
        decay: [M].
        offset: [M].
        kappa: [L], compression; 0 is none.
        fate: [M], 0 sound, 1 dead, 2 saturated.
        spikes: [M, T, W] float32, overwritten.
        work: [2, W] float32, overwritten.
    """
    width = work.shape[1]
    constant = currents.shape[0] == 1
    first, before, base = 0, 0, 0
    for layer in range(shapes.shape[0]):
        neurons, lines = shapes[layer]
        for o in range(neurons):
            m = first + o
            if fate[m] != 0:
                spikes[m] = np.float32(fate[m] - 1)
                continue
            a, theta = decay[m], threshold[m]
            for n in range(width):
                work[0, n] = np.float32(0.0)
            for t in range(spikes.shape[1]):
                if layer > 0:
                    gather(weights, base + o * lines, lines - 1, spikes, before, t, work)
                elif t == 0 or not constant:
                    for n in range(width):
                        work[1, n] = currents[t, o, n]
                if layer > 0 or t == 0 or not constant:
                    distort(work, kappa[layer], offset[m])
                for n in range(width):
                    v = a * work[0, n] + work[1, n]
                    spike = v > theta
                    spikes[m, t, n] = np.float32(1.0) if spike else np.float32(0.0)
                    work[0, n] = np.float32(0.0) if spike else v  # V[t] (1 - S[t]), what is carried over
        before = first
        first += neurons
        base += neurons * lines


@njit(inline="always", **OPTIONS)
def distort(work, kappa, offset):
    """Compress the currents work[1] and add the neuron's own."""
    width = work.shape[1]
    if kappa > 0:
        for n in range(width):
            work[1, n] = compress(work[1, n], kappa)
    if offset != 0:
        for n in range(width):
            work[1, n] += offset


@njit(inline="always", **OPTIONS)
def gather(weights, row, count, spikes, before, t, work):
    """work[1, n] = always-on weight + sum_h w[row + h] S_h[t, n], four presynaptic neurons a pass, in their order."""
    width = work.shape[1]
    for n in range(width):
        work[1, n] = weights[row + count]
    h = 0
    while h + 4 <= count:
        w0, w1, w2, w3 = weights[row + h], weights[row + h + 1], weights[row + h + 2], weights[row + h + 3]
        b = before + h
        for n in range(width):
            near = (work[1, n] + w0 * spikes[b, t, n]) + w1 * spikes[b + 1, t, n]
            work[1, n] = (near + w2 * spikes[b + 2, t, n]) + w3 * spikes[b + 3, t, n]
        h += 4
    while h < count:
        w = weights[row + h]
        for n in range(width):
            work[1, n] += w * spikes[before + h, t, n]
        h += 1


@njit(parallel=True, **OPTIONS)
def evaluate(weights, index, inputs, shapes, threshold, decay, offset, kappa, fate, steps, counts, spikes):
    """Spike counts of every neuron, on D devices with C candidates each.

    Args:
        weights: [D, C, P] effective weights.
        index: [D], which of the R inputs each device sees.
        inputs: [R, K, T or 1, I, W], samples in K tiles.
        shapes: [L, 2].
        threshold: [D, M]; likewise decay, offset, fate.
        decay: [D, M].
        offset: [D, M].
        kappa: [D, L].
        fate: [D, M].
        steps: T.
        counts: [D, C, K, M, W], overwritten.
        spikes: [D, C, K, M, T, W] to keep them, or zero-sized.
    """
    devices, candidates, tiles, neurons, width = counts.shape
    for job in prange(devices * candidates):
        d, c = job // candidates, job % candidates
        currents = np.empty((inputs.shape[2], shapes[0, 0], width), np.float32)
        work = np.empty((2, width), np.float32)
        raster = np.empty((neurons, steps, width), np.float32)
        for k in range(tiles):
            first_currents(weights[d, c], inputs[index[d], k], currents)
            integrate(
                currents, weights[d, c], shapes, threshold[d], decay[d], offset[d], kappa[d], fate[d], raster, work
            )
            count(raster, 0, counts[d, c, k])
            if spikes.size:
                spikes[d, c, k] = raster


@njit(inline="always", **OPTIONS)
def count(spikes, first, counts):
    """Spikes over time of the neurons from ``first`` on: [M, T, W] to [O, W]."""
    width = counts.shape[1]
    for o in range(counts.shape[0]):
        for n in range(width):
            counts[o, n] = np.float32(0.0)
        for t in range(spikes.shape[1]):
            for n in range(width):
                counts[o, n] += spikes[first + o, t, n]
