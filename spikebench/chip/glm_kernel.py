"""Compiled simulation of GLM networks, event by event.

Filters are folded into the weights: a spike adds to what drives each neuron at each of the next steps. What the inputs,
and clamped outputs, add is summed once a sample, for all runs of a network. Neurons are the innermost axis, the hidden
ones first. Sums go over steps, then lines: a run of a sample has the same bits whatever is simulated beside it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.chip.kernels import compress
from spikebench.chip.srm_kernel import add
from spikebench.compiled import OPTIONS
from spikebench.number_kernels import exponential, logarithm, single, step_keys, uniform

_f, _u = single, np.uint32


@njit(**OPTIONS)
def fold(weights, filters):
    """What a spike adds 1, 2, ... steps later: weights [J, M, n] and filters [taps, M] to [J, taps * n]."""
    lines, count, neurons = weights.shape
    folded = np.zeros((lines, len(filters) * neurons), np.float32)
    for j in range(lines):
        for d in range(len(filters)):
            for m in range(count):
                a = filters[d, m]
                if a != 0:
                    for i in range(neurons):
                        folded[j, d * neurons + i] += a * weights[j, m, i]
    return folded


@njit(inline="always", **OPTIONS)
def gather(spikes, first, lines):
    """Lists the lines that spike, ``first`` being that of the first neuron; how many there are."""
    k = np.uint64(0)
    for i in range(len(spikes)):
        lines[k] = first + i
        k += np.uint64(spikes[i] != 0)
    return k


@njit(inline="always", **OPTIONS)
def fire(potential, first, second, index, spikes):
    """A spike where U / (1 - U) < e^u, with the numbers U from ``index`` on; no infinite u makes it undecided."""
    for i in range(len(spikes)):
        u = potential[i]
        e = exponential(-u if u > 0 else u)
        x = uniform(first, second, index + _u(i))
        left = x * e if u > 0 else x
        right = _f(1.0) - x if u > 0 else e * (_f(1.0) - x)
        spikes[i] = _f(1.0) if left < right else _f(0.0)


@njit(inline="always", **OPTIONS)
def transmit(sent, loss, first, second, index, late):
    """What arrives of spikes [H], in their place; ``late`` [H] are those of the step before, then of this one."""
    hidden = len(late)
    for i in range(hidden):
        kept = sent[i] if uniform(first, second, index + _u(i)) >= loss[0] else _f(0.0)
        delayed = kept if uniform(first, second, index + _u(hidden + i)) < loss[1] else _f(0.0)
        sent[i] = kept - delayed + late[i]  # two at once count as one, for only what is not 0 is gathered
        late[i] = delayed


@njit(inline="always", **OPTIONS)
def log_probability(potential, spikes, terms):
    """The sum over neurons of ln sigma(u) where they spike and ln sigma(-u) where they do not; ``terms`` is room."""
    for i in range(len(spikes)):
        u = potential[i] if spikes[i] != 0 else -potential[i]
        terms[i] = (u if u < 0 else _f(0.0)) - logarithm(_f(1.0) + exponential(u if u < 0 else -u))
    total = 0.0
    for i in range(len(spikes)):
        total += terms[i]
    return total


@njit(**OPTIONS)
def shared_drive(folded, starts, lines, values, row, constant, targets, steps, drive):
    """What the inputs, and clamped outputs, of one sample add to the neurons' sums.

    Args:
        folded: [J, taps * n].
        starts: of ``srm_kernel.collect``; likewise lines and values.
        lines: what comes in ...
        values: ... and how strongly.
        row: of the sample's first step, or of all its steps.
        constant: whether there is one row for all steps.
        targets: [T, O] of the last lines, or zero-sized.
        steps: T.
        drive: [(T + taps) * n], overwritten.
    """
    reach = folded.shape[1]
    neurons = (len(drive) - reach) // steps
    drive[:] = _f(0.0)
    for t in range(1 if constant else steps):
        after = (t + 1) * neurons
        add(folded, lines, values, starts[row + t], starts[row + t + 1], drive[after : after + reach])
    if constant:
        for k in range(neurons, steps * neurons):
            drive[k] += drive[k - neurons]
    if targets.size:
        outputs = targets.shape[1]
        fired, ones = np.empty(outputs, np.int32), np.ones(outputs, np.float32)
        for t in range(steps):
            after = (t + 1) * neurons
            count = gather(targets[t], len(folded) - outputs, fired)
            add(folded, fired, ones, 0, count, drive[after : after + reach])


@njit(**OPTIONS)
def run(
    weights, filters, hidden, constants, kappa, loss, keys, starts, lines, values, first_row, constant, steps, targets,
    first_run, counts, spikes, likelihood,
):  # fmt: skip
    """C runs of one network on one device.

    Args:
        weights: [J, M, n] effective weights of J lines: inputs, hidden neurons and outputs; n = H + O.
        filters: [taps, M].
        hidden: H.
        constants: [n], what is added to a sum to give u less the threshold; infinite where a spike is forced.
        kappa: of the compression of the hidden neurons' sums; 0 is none.
        loss: [2], probabilities that a hidden spike is lost and that it is late.
        keys: [2], of the random numbers for spikes and for their losses.
        starts: of ``srm_kernel.collect`` of inputs [R * N * (1 or T), I]; likewise lines and values.
        lines: see ``collect``.
        values: see ``collect``.
        first_row: of the first sample.
        constant: whether a sample has one row for all time steps.
        steps: T.
        targets: [N, T, O], what outputs are clamped to; or zero-sized.
        first_run: its number among those that draw from the same keys.
        counts: [C, N, n], spikes that are sent, overwritten.
        spikes: [N, T, n] bool, of the last run, overwritten; or zero-sized.
        likelihood: [C, N], ln p of the targets, overwritten; or zero-sized.
    """
    runs, samples, neurons = counts.shape
    folded = fold(weights, filters)
    own, reach = folded[len(folded) - neurons :], folded.shape[1]
    clamped, lossy = targets.size > 0, loss[0] > 0 or loss[1] > 0
    free = hidden if clamped else neurons
    drive = np.empty(steps * neurons + reach, np.float32)
    total, sent, late = np.empty_like(drive), np.empty(neurons, np.float32), np.empty(hidden, np.float32)
    fired, ones = np.empty(neurons, np.int32), np.ones(neurons, np.float32)
    for n in range(samples):
        row = first_row + n * (1 if constant else steps)
        shared_drive(folded, starts, lines, values, row, constant, targets[n] if clamped else targets[0], steps, drive)
        for c in range(runs):
            number = _u((first_run + c) * samples + n)
            total[:] = drive
            late[:] = _f(0.0)
            count, logarithms = counts[c, n], 0.0
            count[:] = _f(0.0)
            for t in range(steps):
                u = total[t * neurons : (t + 1) * neurons]
                if kappa > 0:
                    for i in range(hidden):
                        u[i] = compress(u[i], kappa)
                for i in range(neurons):
                    u[i] += constants[i]
                first, second = step_keys(keys[0], t)
                fire(u[:free], first, second, number * _u(neurons), sent[:free])
                if clamped:
                    sent[hidden:] = targets[n, t]
                    logarithms += log_probability(u[hidden:], sent[hidden:], u[hidden:])
                for i in range(neurons):
                    count[i] += sent[i]
                if spikes.size:
                    for i in range(neurons):
                        spikes[n, t, i] = sent[i] != 0
                if lossy:
                    first, second = step_keys(keys[1], t)
                    transmit(sent[:hidden], loss, first, second, number * _u(2 * hidden), late)
                # Those of clamped outputs are in the drive.
                after, arrived = (t + 1) * neurons, gather(sent[:free], 0, fired)
                add(own, fired, ones, 0, arrived, total[after : after + reach])
            if clamped:
                likelihood[c, n] = logarithms
