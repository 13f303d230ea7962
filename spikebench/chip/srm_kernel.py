"""Compiled simulation of dense SRM networks, event by event.

Time steps and samples are walked one by one, and only lines with a signal are summed; neurons are the innermost axis,
along which the weights of a line lie. Sums run over the lines in their order: a device and a sample have the same bits
whatever is simulated beside them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.chip.kernels import compress
from spikebench.compiled import OPTIONS


@njit(**OPTIONS)
def collect(rows, width):
    """The entries of rows [X, Y] that are not 0, of the first ``width`` columns.

    Returns:
        Row x's entries lie in [starts[x], starts[x + 1]) of their lines and of their values.
    """
    starts = np.zeros(len(rows) + 1, np.int64)
    lines = np.empty(width + rows.size // 16, np.int32)
    values = np.empty(len(lines), np.float32)
    k = np.uint64(0)  # without a sign, no index is checked for counting from the end
    for x in range(len(rows)):
        if k + np.uint64(width) > np.uint64(len(lines)):
            lines = np.concatenate((lines, np.empty(len(lines) + width, np.int32)))
            values = np.concatenate((values, np.empty(len(values) + width, np.float32)))
        for i in range(width):
            value = rows[x, i]
            lines[k] = i
            values[k] = value
            k += np.uint64(value != 0)
        starts[x + 1] = k
    return starts, lines, values


@njit(inline="always", **OPTIONS)
def add(weights, lines, values, first, end, total):
    """total[o] += sum of values[k] w[lines[k], o], four lines a pass, in their order."""
    width = len(total)
    k = first
    while k + 4 <= end:
        w0, w1, w2, w3 = weights[lines[k]], weights[lines[k + 1]], weights[lines[k + 2]], weights[lines[k + 3]]
        x0, x1, x2, x3 = values[k], values[k + 1], values[k + 2], values[k + 3]
        for o in range(width):
            near = (total[o] + x0 * w0[o]) + x1 * w1[o]
            total[o] = (near + x2 * w2[o]) + x3 * w3[o]
        k += 4
    while k < end:
        w0, x0 = weights[lines[k]], values[k]
        for o in range(width):
            total[o] += x0 * w0[o]
        k += 1


@njit(inline="always", **OPTIONS)
def advance(total, constants, scale, kappa, state, spikes):
    """One step of a layer's neurons; a loop of its own for each quantity, for only short ones become vectors.

    Args:
        total: [O], x[t].
        constants: [5, O]: alpha, beta, alpha_r, theta, offset.
        scale: c.
        kappa: of the compression; 0 is none.
        state: [5, O]: q, p, R, the last spikes, and room for u.
        spikes: [O], overwritten.
    """
    width = len(total)
    for o in range(width):
        state[1, o] = constants[0, o] * state[1, o] + state[0, o]
    for o in range(width):
        state[0, o] = constants[1, o] * state[0, o] + total[o]
    for o in range(width):
        state[2, o] = constants[2, o] * state[2, o] + state[3, o]
    for o in range(width):
        state[4, o] = scale * state[1, o]
    if kappa > 0:
        for o in range(width):
            state[4, o] = compress(state[4, o], kappa)
    for o in range(width):
        u = state[4, o] + constants[4, o] - state[2, o]
        state[3, o] = np.float32(1.0) if u >= constants[3, o] else np.float32(0.0)
    for o in range(width):
        spikes[o] = state[3, o] != 0


@njit(**OPTIONS)
def run_layer(weights, starts, lines, values, first_row, constant, constants, scale, kappa, spikes):
    """All spikes of one layer of one device.

    Args:
        weights: [I, O].
        starts: of ``collect``, of all rows; likewise lines and values.
        lines: what comes in ...
        values: ... and how strongly.
        first_row: of the first sample; its time steps follow, then the other samples.
        constant: whether a sample has one row for all time steps.
        constants: as in ``advance``; likewise scale and kappa.
        scale: c.
        kappa: of the compression.
        spikes: [N, T, O] bool, overwritten.
    """
    samples, steps, width = spikes.shape
    total, state = np.empty(width, np.float32), np.empty((5, width), np.float32)
    row = first_row
    for n in range(samples):
        state[:] = np.float32(0.0)
        for t in range(steps):
            if t == 0 or not constant:
                total[:] = np.float32(0.0)
                add(weights, lines, values, starts[row], starts[row + 1], total)
                row += 1
            advance(total, constants, scale, kappa, state, spikes[n, t])


@njit(**OPTIONS)
def run(weights, index, starts, lines, values, constant, shapes, constants, scales, kappa, samples, steps, spikes):
    """All spikes of D devices.

    Args:
        weights: [D, P] effective weights, each layer's line after line.
        index: [D], which of the R inputs each device sees.
        starts: of ``collect`` of inputs [R * N * (1 or T), I]; likewise lines and values.
        lines: see ``collect``.
        values: see ``collect``.
        constant: whether inputs have one row for all time steps.
        shapes: [L, 2], (neurons, lines) a layer.
        constants: [D, 5, M] of all neurons, see ``advance``.
        scales: [L], c.
        kappa: [D, L].
        samples: N.
        steps: T.
        spikes: bool, overwritten: one [D, N, T, O] a layer, one after the other.
    """
    devices, rows = len(weights), samples * steps
    for d in range(devices):
        s, x, v, still = starts, lines, values, constant
        first_row = index[d] * (samples if constant else rows)
        base, column = 0, 0
        for layer in range(len(shapes)):
            neurons, width = shapes[layer]
            place = (column * devices + d * neurons) * rows
            own = spikes[place : place + rows * neurons].reshape(samples, steps, neurons)
            w = weights[d, base : base + neurons * width].reshape(width, neurons)
            c = constants[d, :, column : column + neurons].copy()
            run_layer(w, s, x, v, first_row, still, c, scales[layer], kappa[d, layer], own)
            if layer + 1 < len(shapes):
                s, x, v = collect(own.reshape(rows, neurons), neurons)
                first_row, still = 0, False
            base += neurons * width
            column += neurons
