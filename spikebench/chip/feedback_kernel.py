"""Compiled simulation of layered networks, with feedback or without, event by event: only spikes cost anything.

Samples run one after the other, so that a network's potentials stay in the cache and a cell has the same bits whatever
is beside it.

Links are rows of integers as in ``link_kernels``; a layer is one too: its first neuron, and one past its last.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from spikebench.chip.kernels import compress
from spikebench.chip.link_kernels import send, send_back
from spikebench.compiled import OPTIONS

_f = np.float32


@njit(inline="always", **OPTIONS)
def advance(sums, kept, rates, constants, leak, hard):
    """One step of a layer's neurons, ``neurons.soft_reset_step``; sums [neurons] are replaced by the spikes.

    A hard reset takes off all of u instead: ``neurons.lif_step``, if the threshold is the next number above its own.
    """
    threshold, reset, decay, offset = constants[0], constants[1], constants[2], constants[3]
    for m in range(len(sums)):
        u = kept[m] + (sums[m] + offset[m])
        spike = _f(1.0) if u >= threshold[m] else _f(0.0)
        kept[m] = decay[m] * (u - (u if hard else reset[m]) * spike)
        rates[m] = leak * rates[m] + spike
        sums[m] = spike


@njit(inline="always", **OPTIONS)
def advance_couples(sums, kept, constants, spikes):
    """One step of a layer's couples, ``neurons.couple_step``; spikes [neurons] are overwritten."""
    threshold, amplitude, decay, offset = constants[0], constants[1], constants[2], constants[3]
    for m in range(len(sums)):
        v = kept[m] + (sums[m] + offset[m])
        negative = -amplitude[m] if v <= -threshold[m] else _f(0.0)
        spike = (
            amplitude[m] if v >= threshold[m] else negative
        )  # of a saturated couple the positive neuron alone spikes
        kept[m] = decay[m] * (v - spike)
        spikes[m] = spike


@njit(inline="always", **OPTIONS)
def collect(spikes, first, fired):
    """The neurons with a spike, counted from ``first`` on; how many there are."""
    count = np.uint64(0)
    for m in range(len(spikes)):
        fired[count] = first + m
        count += np.uint64(spikes[m] != 0)
    return count


@njit(parallel=True, **OPTIONS)
def present(
    links, layers, up, down, bias, constants, kappa, masks, leak, hard, starts, lines, values, rows, constant, steps,
    rates, spikes, operations,
):  # fmt: skip
    """Average rates of all neurons, on B devices.

    Args:
        links: [K, 14], the feedback last where there is one; their weights are those of one device.
        layers: [L, 2].
        up: [B, W] effective weights by the fine channel.
        down: [B, W], by the coarse channel.
        bias: [B, M] of each neuron.
        constants: [4, B, M]: threshold, what a spike subtracts, leak, offset.
        kappa: [B, L], compression; 0 is none.
        masks: [B, N, M + neurons of the first layer], which scale the currents into each layer and the feedback's;
            zero-sized where all are 1.
        leak: lambda of the average.
        hard: whether a spike takes off all of u.
        starts: of events, see ``srm.Events``; lines are [channels, height, width] of the inputs.
        lines: of each event.
        values: of each event.
        rows: [B], first row of each device's events.
        constant: whether there is one row a sample for all steps.
        steps: T.
        rates: [B, N, M], overwritten.
        spikes: [B, L], overwritten.
        operations: [B, 2], overwritten: additions, and multiply-accumulates of the inputs.
    """
    devices, samples, neurons = rates.shape
    last, top = layers.shape[0] - 1, layers[layers.shape[0] - 1]
    feedback = links.shape[0] > layers.shape[0]
    first = layers[0, 1]
    masked = masks.size > 0
    for d in prange(devices):
        kept, sums = np.empty(neurons, np.float32), np.empty(neurons, np.float32)
        base, back = np.empty(first, np.float32), np.empty(first, np.float32)
        fired, number = np.empty(neurons, np.int64), np.zeros(layers.shape[0], np.int64)
        spikes[d] = 0.0
        operations[d] = 0.0
        for n in range(samples):
            kept[:] = _f(0.0)
            number[:] = 0
            rates[d, n] = _f(0.0)
            row = rows[d] + n * (1 if constant else steps)
            for t in range(steps):
                if t == 0 or not constant:
                    base[:] = bias[d, :first]
                    for e in range(starts[row], starts[row + 1]):
                        operations[d, 1] += send(values[e], _place(lines[e], links[0]), links[0], up[d], down[d], base)
                    if masked:
                        base *= masks[d, n, :first]
                    row += 1
                for layer in range(last + 1):
                    low, high = layers[layer]
                    own = sums[low:high]
                    if layer > 0:
                        own[:] = bias[d, low:high]
                        before = layers[layer - 1, 0]
                        for e in range(number[layer - 1]):
                            operations[d, 0] += send(
                                _f(1.0), fired[before + e] - before, links[layer], up[d], down[d], own
                            )
                        if masked:
                            own *= masks[d, n, low:high]
                    else:
                        own[:] = base
                        if feedback:
                            back[:] = _f(0.0)
                            for e in range(number[last]):
                                operations[d, 0] += send(
                                    _f(1.0), fired[top[0] + e] - top[0], links[last + 1], up[d], down[d], back
                                )
                            if masked:
                                back *= masks[d, n, neurons:]
                            own += back
                    if kappa[d, layer] > 0:
                        for m in range(high - low):
                            own[m] = compress(own[m], kappa[d, layer])
                    advance(own, kept[low:high], rates[d, n, low:high], constants[:, d, low:high], leak, hard)
                    number[layer] = collect(own, low, fired[low:high])
                    spikes[d, layer] += number[layer]
        total = 0.0
        for _ in range(steps):
            total = leak * total + 1.0
        rates[d] /= _f(total)


@njit(inline="always", **OPTIONS)
def _place(line, link):
    """Of [channels, height, width] in [height, width, channels]."""
    positions = link[4] * link[5]
    return (line % positions) * link[3] + line // positions


@njit(parallel=True, **OPTIONS)
def differentiate(
    links, layers, up, down, current, factors, constants, kappa, leak, steps, rates, spikes, operations
):  # fmt: skip
    """Average rates of the couples of the second stage, on B devices.

    Args:
        links: as in ``present``.
        layers: likewise.
        up: likewise.
        down: likewise.
        current: [B, N, neurons of the last layer], which drives that layer at every step.
        factors: [B, N, M + neurons of the first layer], which scale what a couple sends down, and back through the
            feedback; 0 sends nothing.
        constants: [4, B, M]: threshold, amplitude, leak, offset; a threshold of -inf spikes at every step.
        kappa: [B, L], compression; 0 is none.
        leak: lambda of the average.
        steps: T_B.
        rates: [B, N, M], overwritten.
        spikes: [B, L], overwritten.
        operations: [B], overwritten.
    """
    devices, samples, neurons = rates.shape
    last = layers.shape[0] - 1
    feedback = links.shape[0] > layers.shape[0]
    for d in prange(devices):
        kept, sums = np.empty(neurons, np.float32), np.empty(neurons, np.float32)
        sent = np.empty(neurons, np.float32)
        fired, number = np.empty(neurons, np.int64), np.zeros(last + 1, np.int64)
        spikes[d] = 0.0
        operations[d] = 0.0
        for n in range(samples):
            kept[:] = _f(0.0)
            number[:] = 0
            rates[d, n] = _f(0.0)
            for _ in range(steps):
                for layer in range(last, -1, -1):
                    low, high = layers[layer]
                    own = sums[low:high]
                    if layer == last:
                        own[:] = current[d, n]
                        if feedback:
                            for e in range(number[0]):
                                m = fired[e]
                                value = sent[m] * factors[d, n, neurons + m]
                                if value != 0:
                                    operations[d] += send_back(value, m, links[last + 1], up[d], down[d], own)
                    else:
                        own[:] = _f(0.0)
                        above = layers[layer + 1, 0]
                        for e in range(number[layer + 1]):
                            m = fired[above + e]
                            value = sent[m] * factors[d, n, m]
                            if value != 0:
                                operations[d] += send_back(value, m - above, links[layer + 1], up[d], down[d], own)
                    if kappa[d, layer] > 0:
                        for m in range(high - low):
                            own[m] = compress(own[m], kappa[d, layer])
                    advance_couples(own, kept[low:high], constants[:, d, low:high], sent[low:high])
                    number[layer] = collect(sent[low:high], low, fired[low:high])
                    spikes[d, layer] += number[layer]
                    if leak != 1:
                        rates[d, n, low:high] *= leak
                    for e in range(number[layer]):
                        m = fired[low + e]
                        rates[d, n, m] += sent[m]
        total = 0.0
        for _ in range(steps):
            total = leak * total + 1.0
        rates[d] /= _f(total)
