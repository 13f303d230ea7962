"""Compiled LIF layers of the multi-step engine: all time steps of a layer at once, neuron by neuron.

A layer's values are [T, N, H, W, C]: a square of the pool after the other is run through all its time steps with its
C channels side by side, so that potentials never leave the cache. Nothing but the currents is kept for the backward
pass, which runs each square forward again. Sums over samples are made per sample and added in order, whatever the
number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from spikebench.compiled import OPTIONS

_f = np.float32
#: Shapes G of ``surrogates.FAMILIES``, by their place.
RECTANGULAR, TRIANGULAR, ARCTAN, SIGMOID, GAUSSIAN, FAST_SIGMOID = range(6)
#: What neurons send: spikes; the surrogate's primitive of their potential, which then also resets them; or, while
#: spikes reset them, their potential as a share of V, within 0 and 1.
SPIKES, SMOOTH, GRADED = range(3)
#: Moments of potential u and spike o that a layer reports: means of u, u^2, o, of u o with o taken as given, and of the
#: Bernoulli divergence.
MOMENTS = 5


@njit(inline="always", **OPTIONS)
def shape(z, family, found):
    """G'(z) [C] of a family, overwritten."""
    if family == RECTANGULAR:
        for c in range(len(z)):
            found[c] = _f(1.0) if abs(z[c]) < _f(0.5) else _f(0.0)
    elif family == TRIANGULAR:
        for c in range(len(z)):
            found[c] = max(_f(0.0), _f(1.0) - abs(z[c]))
    elif family == ARCTAN:
        for c in range(len(z)):
            scaled = _f(math.pi / 2) * z[c]
            found[c] = _f(0.5) / (_f(1.0) + scaled * scaled)
    elif family == SIGMOID:
        for c in range(len(z)):
            decayed = math.exp(-abs(z[c]))
            found[c] = decayed / ((_f(1.0) + decayed) * (_f(1.0) + decayed))
    elif family == GAUSSIAN:
        for c in range(len(z)):
            found[c] = _f(1.0 / math.sqrt(2 * math.pi)) * math.exp(_f(-2.0) * z[c] * z[c])
    else:
        for c in range(len(z)):
            width = _f(1.0) + _f(2.0) * abs(z[c])
            found[c] = _f(1.0) / (width * width)


@njit(inline="always", **OPTIONS)
def primitive(z, family):
    """G(z) of a family, one value."""
    if family == RECTANGULAR:
        return min(_f(1.0), max(_f(0.0), _f(0.5) + z))
    if family == TRIANGULAR:
        inside = min(_f(1.0), max(_f(-1.0), z))
        return _f(0.5) + inside - _f(0.5) * inside * abs(inside)
    if family == ARCTAN:
        return _f(math.atan(_f(math.pi / 2) * z) / math.pi) + _f(0.5)
    if family == SIGMOID:
        return _f(1.0) / (_f(1.0) + _f(math.exp(-z)))
    if family == GAUSSIAN:
        return _f(0.25) * (_f(1.0) + _f(math.erf(z * math.sqrt(2.0))))
    return _f(0.5) + z / (_f(1.0) + _f(2.0) * abs(z))


@njit(inline="always", **OPTIONS)
def divergence(x, o, sharpness, family, edge):
    """(p - q)(logit p - logit q) / 2 of p = g(x; k) and q = o, both within [edge, 1 - edge], and its slope in p."""
    p = min(_f(1.0) - edge, max(edge, primitive(sharpness * x, family)))
    q = min(_f(1.0) - edge, max(edge, o))
    apart = _f(math.log(p / (_f(1.0) - p))) - _f(math.log(q / (_f(1.0) - q)))
    inside = edge < p < _f(1.0) - edge
    slope = _f(0.5) * (apart + (p - q) / (p * (_f(1.0) - p))) if inside else _f(0.0)
    return _f(0.5) * (p - q) * apart, slope


@njit(inline="always", **OPTIONS)
def step(current, scale, shift, kept, decay, threshold, sharpness, family, mode, potential, spikes):
    """One time step of one position's C neurons (``neurons.lif_step``); ``kept`` is V (1 - S), overwritten."""
    for c in range(len(scale)):
        potential[c] = decay * kept[c] + (scale[c] * current[c] + shift[c])
    if mode == SMOOTH:
        for c in range(len(scale)):
            spikes[c] = primitive(sharpness * (potential[c] - threshold), family)
    else:
        for c in range(len(scale)):
            spikes[c] = _f(1.0) if potential[c] > threshold else _f(0.0)
    for c in range(len(scale)):
        kept[c] = potential[c] * (_f(1.0) - spikes[c])


@njit(inline="always", **OPTIONS)
def outgoing(potential, spike, threshold, mode):
    """What a neuron sends."""
    return min(_f(1.0), max(_f(0.0), potential / threshold)) if mode == GRADED else spike


@njit(parallel=True, **OPTIONS)
def sums(values, totals):
    """Sums of values and of their squares, [2, C] float64, of values [R, S, C]."""
    rows, places, channels = values.shape
    parts = np.zeros((rows, 2, channels), np.float64)
    for r in prange(rows):
        first, second = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for s in range(places):
            own = values[r, s]
            for c in range(channels):
                first[c] += own[c]
                second[c] += own[c] * own[c]
        parts[r, 0] = first
        parts[r, 1] = second
    totals[:] = 0.0
    for r in range(rows):
        totals += parts[r]


@njit(parallel=True, **OPTIONS)
def forward(
    currents, scale, shift, sharpness, threshold, decay, family, mode, pool, edge, given, sent, moments
):  # fmt: skip
    """Spikes that leave a layer.

    Args:
        currents: [T or 1, N, H, W, C]; one step where they are constant.
        scale: [C], that currents are multiplied with.
        shift: [C], that is added.
        sharpness: [T], k of the surrogate.
        threshold: V.
        decay: what a step leaves of a potential.
        family: of the surrogate.
        mode: what is sent.
        pool: side of the squares that send their largest value.
        edge: of the Bernoulli divergence, see ``divergence``; 0 does not compute it.
        given: [T, N, H, W, C], what the neurons send instead; zero-sized where they send their own.
        sent: [T, N, H // pool, W // pool, C], overwritten.
        moments: [MOMENTS, T, C], overwritten; neurons that no square holds are left out.
    """
    steps, samples, high, wide, channels = sent.shape
    parts = np.zeros((samples, MOMENTS, steps, channels), np.float64)
    constant, square, replaced = currents.shape[0] == 1, pool * pool, given.size > 0
    for n in prange(samples):
        kept, totals = np.empty((square, channels), np.float32), np.zeros((MOMENTS, steps, channels), np.float32)
        potential, spikes = np.empty(channels, np.float32), np.empty(channels, np.float32)
        for h in range(high):
            totals[:] = _f(0.0)
            for w in range(wide):
                kept[:] = _f(0.0)
                for t in range(steps):
                    own = sent[t, n, h, w]
                    mean, mean_square, rate, product = totals[0, t], totals[1, t], totals[2, t], totals[3, t]
                    for q in range(square):
                        y, x = h * pool + q // pool, w * pool + q % pool
                        current = currents[0 if constant else t, n, y, x]
                        step(current, scale, shift, kept[q], decay, threshold, sharpness[t], family, mode,
                             potential, spikes)  # fmt: skip
                        if replaced:
                            for c in range(channels):
                                spikes[c] = given[t, n, y, x, c]
                                kept[q, c] = potential[c] * (_f(1.0) - spikes[c])
                        for c in range(channels):
                            leaving = outgoing(potential[c], spikes[c], threshold, mode)
                            own[c] = leaving if q == 0 else max(own[c], leaving)
                        for c in range(channels):  # rows, and a loop of their own: else it is half as fast
                            u, o = potential[c], spikes[c]
                            mean[c] += u
                            mean_square[c] += u * u
                            rate[c] += o
                            product[c] += u * o
                        if edge > 0:
                            for c in range(channels):
                                u, o = potential[c], spikes[c]
                                totals[4, t, c] += divergence(u - threshold, o, sharpness[t], family, edge)[0]
            parts[n] += totals
    moments[:] = _f(0.0)
    total = np.zeros((MOMENTS, steps, channels), np.float64)
    for n in range(samples):
        total += parts[n]
    moments[:] = total / (samples * high * wide * square)


@njit(parallel=True, **OPTIONS)
def backward(
    currents, scale, shift, sharpness, threshold, decay, family, mode, pool, edge, given, sent_slope, moment_slope,
    slope, by_channel, by_step, by_threshold,
):  # fmt: skip
    """What ``forward`` hands back: the reset is differentiated too, and only what is sent has a surrogate.

    Args:
        currents: as there, and so are the next ones.
        scale: likewise.
        shift: likewise.
        sharpness: likewise.
        threshold: likewise.
        decay: likewise.
        family: likewise.
        mode: likewise.
        pool: likewise.
        edge: likewise.
        given: likewise.
        sent_slope: [T, N, H // pool, W // pool, C], of the loss in what is sent.
        moment_slope: [MOMENTS, T, C], in the moments.
        slope: [T or 1, N, H, W, C], overwritten by that in scale x current + shift.
        by_channel: [2, C] float64, overwritten: its sums, and those of it times the current.
        by_step: [T] float64, overwritten: the slope in log k.
        by_threshold: [1] float64, overwritten: the slope in V.
    """
    steps, samples, high, wide, channels = sent_slope.shape
    constant, square, replaced = currents.shape[0] == 1, pool * pool, given.size > 0
    count = _f(1.0 / (samples * high * wide * square))
    channel_parts = np.zeros((samples, 2, channels), np.float64)
    step_parts, threshold_parts = np.zeros((samples, steps), np.float64), np.zeros(samples, np.float64)
    # Slopes of the moments' sums.
    of_u, of_square, of_spike, of_product, of_divergence = (
        moment_slope[0] * count, _f(2.0) * moment_slope[1] * count, moment_slope[2] * count,
        moment_slope[3] * count, moment_slope[4] * count,
    )  # fmt: skip
    for n in prange(samples):
        potential = np.empty((steps, square, channels), np.float32)
        spikes = np.empty((steps, square, channels), np.float32)
        kept, carried = np.empty((square, channels), np.float32), np.empty((square, channels), np.float32)
        largest, winner = np.empty(channels, np.float32), np.empty(channels, np.int32)
        z, bump = np.empty(channels, np.float32), np.empty(channels, np.float32)
        channel, of_step = np.zeros((2, channels), np.float32), np.zeros((steps, channels), np.float32)
        of_threshold = np.zeros(channels, np.float32)
        if high * pool < slope.shape[2] or wide * pool < slope.shape[3]:
            slope[:, n] = _f(0.0)
        for h in range(high):
            channel[:], of_step[:], of_threshold[:] = _f(0.0), _f(0.0), _f(0.0)
            for w in range(wide):
                kept[:], carried[:] = _f(0.0), _f(0.0)
                for t in range(steps):
                    for q in range(square):
                        y, x = h * pool + q // pool, w * pool + q % pool
                        current = currents[0 if constant else t, n, y, x]
                        step(current, scale, shift, kept[q], decay, threshold, sharpness[t], family, mode,
                             potential[t, q], spikes[t, q])  # fmt: skip
                        if replaced:
                            for c in range(channels):
                                spikes[t, q, c] = given[t, n, y, x, c]
                                kept[q, c] = potential[t, q, c] * (_f(1.0) - spikes[t, q, c])
                        if constant and t == 0:
                            slope[0, n, y, x] = _f(0.0)
                for t in range(steps - 1, -1, -1):
                    k, incoming = sharpness[t], sent_slope[t, n, h, w]
                    for c in range(channels):
                        largest[c], winner[c] = outgoing(potential[t, 0, c], spikes[t, 0, c], threshold, mode), 0
                    for q in range(1, square):
                        for c in range(channels):
                            leaving = outgoing(potential[t, q, c], spikes[t, q, c], threshold, mode)
                            more = leaving > largest[c]
                            largest[c] = leaving if more else largest[c]
                            winner[c] = q if more else winner[c]
                    for q in range(square):
                        u, o, own = potential[t, q], spikes[t, q], carried[q]
                        y, x = h * pool + q // pool, w * pool + q % pool
                        current, handed = currents[0 if constant else t, n, y, x], slope[0 if constant else t, n, y, x]
                        for c in range(channels):
                            z[c] = k * (u[c] - threshold)
                        shape(z, family, bump)
                        for c in range(channels):
                            # dL/do[t]: what is sent, the moments, and u[t+1] = decay u[t] (1 - o[t]) + I[t+1].
                            arriving = incoming[c] if winner[c] == q else _f(0.0)
                            in_spike = _f(0.0) if mode == GRADED else arriving
                            in_spike += of_spike[t, c] - decay * u[c] * own[c]
                            through = in_spike * k * bump[c]
                            of_step[t, c] += through * (u[c] - threshold)
                            of_threshold[c] -= through
                            in_u = through + decay * (_f(1.0) - o[c]) * own[c]
                            in_u += of_u[t, c] + of_square[t, c] * u[c] + of_product[t, c] * o[c]
                            graded = mode == GRADED and _f(0.0) < u[c] < threshold
                            in_u += arriving / threshold if graded else _f(0.0)
                            own[c] = in_u
                        if edge > 0:  # k, the threshold and o are no variables of the divergence
                            for c in range(channels):
                                found = divergence(u[c] - threshold, o[c], k, family, edge)[1]
                                own[c] += of_divergence[t, c] * found * k * bump[c]
                        if constant:
                            for c in range(channels):
                                handed[c] += own[c]
                        else:
                            for c in range(channels):
                                handed[c] = own[c]
                        for c in range(channels):
                            channel[0, c] += own[c]
                            channel[1, c] += own[c] * current[c]
            channel_parts[n] += channel
            for t in range(steps):
                step_parts[n, t] += of_step[t].sum()
            threshold_parts[n] += of_threshold.sum()
    by_channel[:], by_step[:], by_threshold[:] = 0.0, 0.0, 0.0
    for n in range(samples):
        by_channel += channel_parts[n]
        by_step += step_parts[n]
        by_threshold += threshold_parts[n]


@njit(parallel=True, **OPTIONS)
def centre(slope, values, scale, level, tilt):
    """Turn a slope in normalised values to one in values, in place: scale x slope + level + tilt x values [R, S, C]."""
    for r in prange(len(slope)):
        for s in range(slope.shape[1]):
            own, value = slope[r, s], values[r, s]
            for c in range(len(scale)):
                own[c] = scale[c] * own[c] + level[c] + tilt[c] * value[c]
