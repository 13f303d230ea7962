"""Compiled: what one neuron's value adds to the sums of those that it reaches, along a link or against it.

A value goes through a link's square of weights to all channels of the positions that it reaches, which lie side by side
in memory: maps are [height, width, channels], and weights are kept twice, by the channel that sends.

A link is a row of integers: source, target, upwards, fine channels, height, width, coarse channels, height, width,
kernel, stride, padding, first weight, pool (see ``layered_networks.Link``).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.compiled import OPTIONS

_f = np.float32


@njit(inline="always", **OPTIONS)
def add(value, weights, first, sums, to, width):
    """sums[to : to + width] += value * weights[first : first + width]."""
    source, target = weights[first : first + width], sums[to : to + width]
    for c in range(len(target)):
        target[c] += value * source[c]


@njit(inline="always", **OPTIONS)
def to_coarse(value, place, link, weights, sums):
    """Add value * weights to all coarse neurons that see the fine neuron ``place``; how many there are.

    Args:
        value: what is sent.
        place: of the neuron in its map.
        link: its row.
        weights: [fine, kernel, kernel, coarse], flat, from the link's first weight on; in each row the columns are in
            the order of ``columns``.
        sums: [coarse height, width, channels], flat.
    """
    fine, width, coarse, height_c, width_c = link[3], link[5], link[6], link[7], link[8]
    kernel, stride, padding, base = link[9], link[10], link[11], link[12]
    channel, at = place % fine, place // fine
    y, x = at // width + padding, at % width + padding
    phase, column = x % stride, x // stride
    # Columns of the weights of this phase: seen from the left, the fields of the coarse neurons end later and later.
    seen = (kernel - phase + stride - 1) // stride
    before = phase * (kernel // stride) + min(phase, kernel % stride)
    left = max(0, column - seen + 1)
    width_s = (min(width_c - 1, column) - left + 1) * coarse
    skipped = (left - (column - seen + 1)) * coarse
    done = 0
    for ky in range(y % stride, kernel, stride):
        row = (y - ky) // stride
        if row < 0 or row >= height_c or width_s <= 0:
            continue
        first = base + ((channel * kernel + ky) * kernel + before) * coarse + skipped
        to = (row * width_c + left) * coarse
        add(value, weights, first, sums, to, width_s)
        done += width_s
    return done


@njit(inline="always", **OPTIONS)
def to_fine(value, place, link, weights, sums):
    """Add value * weights to all fine neurons that the coarse neuron ``place`` sees; how many there are.

    Args:
        value: what is sent.
        place: of the neuron in its map.
        link: its row.
        weights: [coarse, kernel, kernel, fine], flat, from the link's first weight on.
        sums: [fine height, width, channels], flat.
    """
    fine, height, width, coarse, width_c = link[3], link[4], link[5], link[6], link[8]
    kernel, stride, padding, base = link[9], link[10], link[11], link[12]
    channel, at = place % coarse, place // coarse
    y, x = (at // width_c) * stride - padding, (at % width_c) * stride - padding
    left, right = max(0, -x), min(kernel, width - x)
    done = 0
    for ky in range(max(0, -y), min(kernel, height - y)):
        first = base + ((channel * kernel + ky) * kernel + left) * fine
        to = ((y + ky) * width + x + left) * fine
        add(value, weights, first, sums, to, (right - left) * fine)
        done += (right - left) * fine
    return done


def columns(kernel: int, stride: int) -> list[int]:
    """Columns of a square of weights so that those of neighbouring coarse neurons, which a fine one reaches, adjoin."""
    return [x for phase in range(stride) for x in reversed(range(phase, kernel, stride))]


@njit(inline="always", **OPTIONS)
def pool(value, place, link, sums):
    """Add the fine neuron's share to its square's coarse neuron; 0 where the square is cut off by the border."""
    fine, width, height_c, width_c, side = link[3], link[5], link[7], link[8], link[9]
    channel, at = place % fine, place // fine
    row, column = at // width // side, at % width // side
    if row >= height_c or column >= width_c:
        return 0
    sums[(row * width_c + column) * fine + channel] += value / _f(side * side)
    return 1


@njit(inline="always", **OPTIONS)
def unpool(value, place, link, sums):
    """Add the coarse neuron's share to each fine neuron of its square."""
    fine, width, width_c, side = link[3], link[5], link[8], link[9]
    channel, at = place % fine, place // fine
    share = value / _f(side * side)
    for y in range(at // width_c * side, (at // width_c + 1) * side):
        for x in range(at % width_c * side, (at % width_c + 1) * side):
            sums[(y * width + x) * fine + channel] += share
    return side * side


@njit(inline="always", **OPTIONS)
def send(value, place, link, up, down, sums):
    """Along a link: add to the sums of its target; how many there are. ``up`` and ``down`` are all links' weights."""
    if link[13]:
        return pool(value, place, link, sums)
    if link[2]:
        return to_coarse(value, place, link, up, sums)
    return to_fine(value, place, link, down, sums)


@njit(inline="always", **OPTIONS)
def send_back(value, place, link, up, down, sums):
    """Against a link: add to the sums of its source; how many there are."""
    if link[13]:
        return unpool(value, place, link, sums)
    if link[2]:
        return to_fine(value, place, link, down, sums)
    return to_coarse(value, place, link, up, sums)
