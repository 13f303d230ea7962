"""The event camera's pixels, compiled: one row of the sensor after the other, each through all time.

Within a step the light moves in a straight line, so crossings of a threshold have a closed form. The columns of a row
are simulated at once; only pixels that may send an event in this step are then looked at one by one.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.compiled import OPTIONS

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: Each pixel owns so many numbers of the stream: two for its thresholds, one for its phase, the rest for shot noise.
_OWN = np.uint64(1 << 32)
_PHASE, _SHOT = np.uint64(2), np.uint64(3)


@njit(inline="always", **OPTIONS)
def uniform(key, counter):
    """The ``counter``-th number in (0, 1) of stream ``key`` (SplitMix64; Steele, Lea, Flood, OOPSLA 2014)."""
    z = key + (counter + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@njit(inline="always", **OPTIONS)
def look(planes, corner, weight, y, light):
    """The row ``y`` of the picture at one moment: bilinear between the four nearest points of the fine picture.

    The fine picture is stored as F x F coarse ones, so that neighbouring pixels of the sensor lie side by side.

    Args:
        planes: [F, F, Y, X] log intensity.
        corner: [4] row and column phase, row and column shift of the upper left point.
        weight: [2] how far down and right of that point, in [0, 1).
        y: the row.
        light: [W], overwritten.
    """
    fine = planes.shape[0]
    width = len(light)
    top, left, down, right = corner[0], corner[1], corner[2] + y, corner[3]
    top2, down2 = (top + 1, down) if top + 1 < fine else (0, down + 1)
    left2, right2 = (left + 1, right) if left + 1 < fine else (0, right + 1)
    a, b = planes[top, left, down, right : right + width], planes[top, left2, down, right2 : right2 + width]
    c, d = planes[top2, left, down2, right : right + width], planes[top2, left2, down2, right2 : right2 + width]
    u, v = weight[0], weight[1]
    for x in range(width):
        upper = a[x] + v * (b[x] - a[x])
        lower = c[x] + v * (d[x] - c[x])
        light[x] = upper + u * (lower - upper)


@njit(inline="always", **OPTIONS)
def outside(contrast, on, off):
    """Whether a contrast is beyond a threshold."""
    return (contrast >= on) | (contrast <= -off)


@njit(**OPTIONS)
def sense(planes, corners, weights, edges, filters, pixel, height, width, seed):
    """All events of one recording: ``sense_row`` for each of the ``height`` rows.

    Returns:
        [N] int64: t in microseconds from bit 32 on, y from bit 17, x from bit 1, p in bit 0.
    """
    events = np.empty(1 << 17, np.int64)
    total, y = 0, 0
    while y < height:
        found = sense_row(planes, corners, weights, edges, filters, pixel, y, width, seed, events[total:])
        if total + found > len(events):
            # The row is done again with room for it: to grow where events are found would cost a quarter of the speed.
            events = np.concatenate((events[:total], np.empty(len(events) + found, np.int64)))
        else:
            total += found
            y += 1
    return events[:total]


@njit(**OPTIONS)
def sense_row(planes, corners, weights, edges, filters, pixel, y, width, seed, events):
    """The events of one row of the sensor, as many as there is room for; returns how many there are.

    Args:
        planes: [F, F, Y, X] float32 log intensity, the picture's fine samples by phase.
        corners: [S + 1, 4] int64, where the sensor's first pixel looks at each edge of the steps (see ``look``).
        weights: [S + 1, 2] float32, likewise.
        edges: [S + 1] times of the steps' edges in microseconds.
        filters: [S, 3] float32, the weights of the low-pass's level, of old and of new light (``camera.low_pass``).
        pixel: mean thresholds ON and OFF, their standard deviation, leak and shot noise in events a microsecond, and
            the refractory time in microseconds.
        y: the row.
        width: W.
        seed: uint64.
        events: overwritten with event codes, ordered by step and column only.
    """
    theta_on, theta_off, mismatch, leak, shot, refractory = pixel
    on, off = np.empty(width, np.float32), np.empty(width, np.float32)
    light, seen = np.empty(width, np.float32), np.empty(width, np.float32)
    level, reference = np.empty(width, np.float32), np.empty(width, np.float32)
    begin, end = np.empty(width, np.float32), np.empty(width, np.float32)
    ready, noise = np.empty(width, np.float64), np.empty(width, np.float64)
    counter = np.empty(width, np.uint64)
    busy = np.zeros((width + 7) // 8 * 8, np.uint8)
    eight = busy.view(np.uint64)
    total = 0
    look(planes, corners[0], weights[0], y, light)
    for x in range(width):
        own = np.uint64(y * width + x) * _OWN
        radius = mismatch * np.sqrt(-2.0 * np.log(uniform(seed, own)))
        angle = 2.0 * np.pi * uniform(seed, own + np.uint64(1))
        on[x] = max(theta_on + radius * np.cos(angle), 0.25 * theta_on)
        off[x] = max(theta_off + radius * np.sin(angle), 0.25 * theta_off)
        level[x] = light[x]
        reference[x] = light[x]
        ready[x] = -np.inf
        noise[x] = np.inf
        counter[x] = own + _SHOT
        if leak > 0:
            # The leak of a pixel that has long seen the same has brought it anywhere between two events.
            reference[x] -= on[x] * np.float32(uniform(seed, own + _PHASE))
        if shot > 0:
            noise[x] = -np.log(uniform(seed, counter[x])) / shot
    for s in range(len(edges) - 1):
        t0, t1 = edges[s], edges[s + 1]
        # Counted from the start: so small a change a step would be lost when it is subtracted from the reference.
        leaked0, leaked1 = np.float32(leak * t0), np.float32(leak * t1)
        keep, old, new = filters[s, 0], filters[s, 1], filters[s, 2]
        look(planes, corners[s + 1], weights[s + 1], y, seen)
        for x in range(width):
            after = keep * level[x] + old * light[x] + new * seen[x]
            begin[x] = (level[x] - reference[x]) + leaked0 * on[x]
            end[x] = (after - reference[x]) + leaked1 * on[x]
            level[x] = after
            light[x] = seen[x]
            # At the beginning it is outside where an event waits for the refractory time.
            busy[x] = outside(begin[x], on[x], off[x]) | outside(end[x], on[x], off[x]) | (noise[x] < t1)
        for eighth in range(len(eight)):
            if eight[eighth] == 0:
                continue
            for x in range(8 * eighth, min(8 * eighth + 8, width)):
                if busy[x] == 0:
                    continue
                plus, minus = np.float64(on[x]), np.float64(off[x])
                # From now at the time start, the contrast goes straight to last at t1.
                start, now, last = t0, np.float64(begin[x]), np.float64(end[x])
                slope = (last - now) / (t1 - t0)
                while outside(now, plus, minus) or outside(last, plus, minus) or noise[x] < t1:
                    if ready[x] > start:
                        now += slope * (ready[x] - start)
                        start = ready[x]
                    time, up = np.inf, now >= plus
                    if start < t1:
                        if outside(now, plus, minus):
                            time = start
                        elif outside(last, plus, minus):
                            up = last >= plus
                            time = start + ((plus if up else -minus) - now) / slope
                    if noise[x] < t1 and noise[x] < time:
                        # A noise event leaves the reference alone; it occupies the pixel like any other.
                        time, up = noise[x], uniform(seed, counter[x] + np.uint64(1)) < 0.5
                        counter[x] += np.uint64(2)
                        noise[x] -= np.log(uniform(seed, counter[x])) / shot
                        if time < ready[x]:
                            continue
                    elif time < t1:
                        move = plus if up else -minus
                        now += slope * (time - start) - move
                        last -= move
                        start = time
                        reference[x] += move
                    else:
                        break
                    ready[x] = time + refractory
                    if total < len(events):
                        events[total] = np.int64(time) << 32 | y << 17 | x << 1 | np.int64(up)
                    total += 1
    return total


@njit(**OPTIONS)
def unpack(codes, words):
    """Event codes [N] of ``sense`` to the two words [N, 2] of an event, t and (x, y, p), overwritten."""
    for i in range(len(codes)):
        words[i, 0] = codes[i] >> 32
        words[i, 1] = (codes[i] >> 1 & 0xFFFF) | (codes[i] >> 17 & 0x7FFF) << 16 | (codes[i] & 1) << 32
