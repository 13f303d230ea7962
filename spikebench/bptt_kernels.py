"""Backpropagation through time of a dense LIF network in one compiled pass, for given spikes.

The same gradient as automatic differentiation of ``bptt.forward`` gives (a test compares them), without the dispatch
of some hundred small tensor operations a step. Samples are the innermost axis, as in ``chip.kernels``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from spikebench.chip.kernels import LANES, WIDE, compress, first_currents, gather
from spikebench.compiled import OPTIONS

#: Surrogate families by number.
FAMILIES = ("gaussian", "fast-sigmoid", "arctan")


@njit(inline="always", **OPTIONS)
def slopes(centred, m, t, family, result):
    """The surrogate derivatives of x = V - theta into result[1], the functions of ``surrogates.SURROGATES``.

    One loop a family: a branch inside the loop would keep it from being vectorised.
    """
    width = result.shape[1]
    one = np.float32(1.0)
    if family == 0:
        for n in range(width):
            # 0.5 N(x; 0, 0.5^2) = 0.3989 exp(-2 x^2), the exponential as the 16th power of a Taylor polynomial: the
            # absolute error is below 1e-6.
            x = centred[m, t, n]
            z = x * x * np.float32(0.125)
            z = z if z < one else one
            p = one - z * (one - z * (np.float32(0.5) - z * (np.float32(1 / 6) - z * np.float32(1 / 24))))
            p = p * p
            p = p * p
            p = p * p
            result[1, n] = np.float32(0.3989422804) * p * p
    elif family == 1:
        for n in range(width):
            y = one + np.float32(2.0) * abs(centred[m, t, n])
            result[1, n] = one / (y * y)
    else:
        for n in range(width):
            y = np.float32(np.pi) * centred[m, t, n]
            result[1, n] = one / (one + y * y)


@njit(inline="always", **OPTIONS)
def add_products(a, i, j, b, k, m, lanes):
    """lanes[n mod 16] += a[i, j, n] b[k, m, n] over a tile; the order of the sum is fixed."""
    for block in range(a.shape[2] // LANES):
        for lane in range(LANES):
            n = block * LANES + lane
            lanes[lane] += a[i, j, n] * b[k, m, n]


@njit(inline="always", **OPTIONS)
def collect(lanes):
    """The sum of the 16 partial sums, which are set to zero."""
    total = np.float32(0.0)
    for lane in range(LANES):
        total += lanes[lane]
        lanes[lane] = np.float32(0.0)
    return total


@njit(**OPTIONS)
def potentials(currents, weights, shapes, threshold, decay, offset, kappa, raster, centred, factor, work):
    """V[t] - theta of all neurons for one tile, and dI/d(synaptic current).

    Args:
        currents: [T or 1, O_1, W], of the first layer.
        weights: [P], as the model has them.
        shapes: [L, 2].
        threshold: [M]; likewise decay, offset.
        decay: [M].
        offset: [M].
        kappa: [L].
        raster: [M, T, W], the spikes that happened.
        centred: [M, T, W], overwritten.
        factor: [M, T, W], overwritten where the layer compresses.
        work: [2, W], overwritten.
    """
    width = work.shape[1]
    first, before, base = 0, 0, 0
    for layer in range(shapes.shape[0]):
        neurons, lines = shapes[layer]
        k = kappa[layer]
        for o in range(neurons):
            m = first + o
            for n in range(width):
                work[0, n] = np.float32(0.0)
            for t in range(raster.shape[1]):
                if layer > 0:
                    gather(weights, base + o * lines, lines - 1, raster, before, t, work)
                else:
                    for n in range(width):
                        work[1, n] = currents[t if currents.shape[0] > 1 else 0, o, n]
                if k > 0:
                    for n in range(width):
                        work[1, n] = compress(work[1, n], k)
                        slack = k * work[1, n]
                        factor[m, t, n] = np.float32(1.0) - slack * slack
                for n in range(width):
                    v = decay[m] * work[0, n] + (work[1, n] + offset[m])
                    centred[m, t, n] = v - threshold[m]
                    work[0, n] = v * (np.float32(1.0) - raster[m, t, n])
        before = first
        first += neurons
        base += neurons * lines


@njit(parallel=True, **OPTIONS)
def gradient(
    weights, index, inputs, labels, samples, spikes,
    shapes, threshold, decay, offset, kappa, count_gain, family, result, losses,
):  # fmt: skip
    """Gradient of the mean cross-entropy of softmax(count_gain * counts), for every cell.

    dL/dV[t] = s'[t] (dL/dS[t] - a V[t] dL/dV[t+1]) + a (1 - S[t]) dL/dV[t+1], and dL/dI[t] = dL/dV[t].

    Args:
        weights: [B, P], as the model has them.
        index: [B], which of the R inputs.
        inputs: [R, K, T or 1, I, W].
        labels: [R, K, W] int64.
        samples: N.
        spikes: one [B, N, T, neurons] a layer, of the device.
        shapes: [L, 2].
        threshold: [B, M]; likewise decay, offset.
        decay: [B, M].
        offset: [B, M].
        kappa: [B, L].
        count_gain: of the read-out.
        family: number of the surrogate.
        result: [B, P], overwritten.
        losses: [B] float64, overwritten.
    """
    width = inputs.shape[4]
    cells, size = weights.shape
    tiles, steps_in, lines_in = inputs.shape[1], inputs.shape[2], inputs.shape[3]
    neurons, layers = threshold.shape[1], shapes.shape[0]
    steps = spikes[0].shape[2]
    outputs = shapes[layers - 1, 0]
    for b in prange(cells):
        w = weights[b]
        grad = result[b]
        grad[:] = np.float32(0.0)
        losses[b] = 0.0
        currents = np.empty((steps_in, shapes[0, 0], width), np.float32)
        raster = np.zeros((neurons, steps, width), np.float32)
        centred = np.empty((neurons, steps, width), np.float32)
        factor = np.empty((neurons, steps, width), np.float32)
        delta = np.empty((neurons, steps, width), np.float32)
        work = np.empty((2, width), np.float32)
        lanes = np.zeros(LANES, np.float32)
        ones = np.ones((1, 1, width), np.float32)
        for tile in range(tiles):
            real = min(width, samples - tile * width)
            load(spikes, b, tile * width, real, raster)
            x = inputs[index[b], tile]
            first_currents(w, x, currents)
            potentials(currents, w, shapes, threshold[b], decay[b], offset[b], kappa[b], raster, centred, factor, work)
            delta[:] = np.float32(0.0)
            losses[b] += output_gradient(raster, labels[index[b], tile], real, count_gain, samples, outputs, delta)
            first, base = neurons, size
            for layer in range(layers - 1, -1, -1):
                count, lines = shapes[layer]
                first -= count
                base -= count * lines
                for o in range(count):
                    m = first + o
                    adjoint(raster, centred, delta, m, threshold[b, m], decay[b, m], family, work)
                    if kappa[b, layer] > 0:
                        for t in range(steps):
                            for n in range(width):
                                delta[m, t, n] *= factor[m, t, n]
                    row = base + o * lines
                    if layer == 0:
                        if steps_in == 1:  # one current for all steps: its gradient is the sum over them
                            for t in range(1, steps):
                                for n in range(width):
                                    delta[m, 0, n] += delta[m, t, n]
                        for i in range(lines_in if lines_in < WIDE else 0):
                            for t in range(steps_in):
                                add_products(delta, m, t, x, t, i, lanes)
                            grad[row + i] += collect(lanes)
                    else:
                        below = first - shapes[layer - 1, 0]
                        for h in range(lines - 1):
                            for t in range(steps):
                                add_products(delta, m, t, raster, below + h, t, lanes)
                                for n in range(width):
                                    delta[below + h, t, n] += w[row + h] * delta[m, t, n]
                            grad[row + h] += collect(lanes)
                        for t in range(steps):
                            add_products(delta, m, t, ones, 0, 0, lanes)
                        grad[row + lines - 1] += collect(lanes)
            if lines_in >= WIDE:
                add_outer(delta, x, grad[: shapes[0, 0] * lines_in].reshape(shapes[0, 0], lines_in))


@njit(**OPTIONS)
def add_outer(delta, inputs, result):
    """result[o, i] += sum over t, n of delta[o, t, n] x[t, i, n] as matrix products (``chip.kernels.WIDE``)."""
    now = np.empty((result.shape[0], delta.shape[2]), np.float32)
    part = np.empty_like(result)
    for t in range(inputs.shape[0]):
        now[:] = delta[: result.shape[0], t]
        np.dot(now, inputs[t].T, part)
        result += part


@njit(**OPTIONS)
def load(spikes, b, start, real, raster):
    """Spikes of one cell and tile, [N, T, neurons] a layer, to [M, T, W]."""
    first = 0
    for layer in range(len(spikes)):
        source = spikes[layer]
        for o in range(source.shape[3]):
            for t in range(source.shape[2]):
                for n in range(real):
                    raster[first + o, t, n] = source[b, start + n, t, o]
        first += source.shape[3]


@njit(**OPTIONS)
def output_gradient(raster, labels, real, count_gain, samples, outputs, delta):
    """dL/dS of the output neurons, the same at every step, into ``delta``; the tile's part of the mean loss."""
    neurons, steps = raster.shape[0], raster.shape[1]
    counts = np.empty(outputs)
    loss = 0.0
    for n in range(real):
        for o in range(outputs):
            total = np.float32(0.0)
            for t in range(steps):
                total += raster[neurons - outputs + o, t, n]
            counts[o] = count_gain * total
        top = counts.max()
        normaliser = np.exp(counts - top).sum()
        loss -= (counts[labels[n]] - top - np.log(normaliser)) / samples
        for o in range(outputs):
            share = np.exp(counts[o] - top) / normaliser - (1.0 if o == labels[n] else 0.0)
            for t in range(steps):
                delta[neurons - outputs + o, t, n] = np.float32(count_gain * share / samples)
    return loss


@njit(**OPTIONS)
def adjoint(raster, centred, delta, m, threshold, decay, family, work):
    """Neuron m's dL/dS to dL/dI in place in ``delta``, backward in time; all [M, T, W]."""
    width = work.shape[1]
    for n in range(width):
        work[0, n] = np.float32(0.0)  # a dL/dV[t+1]
    for t in range(raster.shape[1] - 1, -1, -1):
        slopes(centred, m, t, family, work)
        for n in range(width):
            later = work[0, n]
            kept = np.float32(1.0) - raster[m, t, n]
            v = centred[m, t, n] + threshold
            change = work[1, n] * (delta[m, t, n] - v * later) + kept * later
            delta[m, t, n] = change
            work[0, n] = decay * change
