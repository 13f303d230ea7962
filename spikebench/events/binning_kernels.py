"""Compiled loops over events, and over frames packed on disk; no bounds are checked, the callers do that."""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.compiled import OPTIONS

#: The offset of a row or column that is not in the frame: so low that any sum with it is negative.
OUTSIDE = -(1 << 40)


@njit(**OPTIONS)
def accumulate(x, y, p, bounds, columns, rows, channels, limit, frames):
    """Count every event in its cell, or set the cell (OR) where frames are boolean.

    Args:
        x: [E] sensor columns, any integer type but uint64; likewise rows y and polarities p.
        y: [E].
        p: [E].
        bounds: [T+1], bin i holds the events from bounds[i] up to, but not including, bounds[i+1].
        columns: [sensor width] what each sensor column adds to the place of a cell in its frame, or ``OUTSIDE``.
        rows: [sensor height], the same of sensor rows.
        channels: [sensor polarities], the same of polarities.
        limit: the largest count that a cell can hold.
        frames: [T, P H W] of zeros, boolean or unsigned, overwritten.

    Returns:
        The first event that lies outside the sensor or overfills its cell, where counting stopped; -1 if none.
    """
    width, height, polarities = np.uint64(len(columns)), np.uint64(len(rows)), np.uint64(len(channels))
    for i in range(len(bounds) - 1):
        frame = frames[i]
        for n in range(np.uint64(bounds[i]), np.uint64(bounds[i + 1])):
            # Unsigned numbers make this 1.5 times as fast: signed indices would be looked at once more, for Python's
            # counting from the end.
            a, b, c = np.uint64(x[n]), np.uint64(y[n]), np.uint64(p[n])
            if a >= width or b >= height or c >= polarities:
                return np.int64(n)
            place = channels[c] + rows[b] + columns[a]
            if place >= 0:
                cell = np.uint64(place)
                count = np.int64(frame[cell]) + 1
                if count > limit:
                    return np.int64(n)
                frame[cell] = count
    return np.int64(-1)


@njit(**OPTIONS)
def unpack(packed, rows, places, lines, out):
    """Decode recordings of one bit a value, as ``numpy.packbits`` writes them: the highest bit of a byte comes first.

    Args:
        packed: [N, bytes] uint8.
        rows: [R] recordings to decode.
        places: [R] where each goes.
        lines: I, values a time step.
        out: [.., T, I or more] float32, overwritten there; what lies behind I becomes 1.
    """
    for k in range(len(rows)):
        source = packed[rows[k]]
        for t in range(out.shape[1]):
            step = out[places[k], t]
            bit = t * lines
            head = min(-bit % 8, lines)  # up to the first byte that begins in this step
            for v in range(head):
                step[v] = np.float32((source[bit // 8] >> (7 - (bit + v) % 8)) & 1)
            first, whole = (bit + head) // 8, (lines - head) // 8
            # As slices from 0 on: the compiler then sees that no index is negative, and works on many at a time.
            middle, bytes_ = step[head : head + 8 * whole], source[first : first + whole]
            for b in range(whole):
                for j in range(8):
                    middle[8 * b + j] = np.float32((bytes_[b] >> (7 - j)) & 1)
            for v in range(head + 8 * whole, lines):
                step[v] = np.float32((source[first + whole] >> (7 - (bit + v) % 8)) & 1)
            step[lines:] = np.float32(1.0)


@njit(**OPTIONS)
def widen(counts, rows, places, lines, out):
    """Copy recordings of counts [N, T I] to float32, as ``unpack`` does."""
    for k in range(len(rows)):
        source = counts[rows[k]]
        for t in range(out.shape[1]):
            step = out[places[k], t]
            for v in range(lines):
                step[v] = np.float32(source[t * lines + v])
            step[lines:] = np.float32(1.0)
