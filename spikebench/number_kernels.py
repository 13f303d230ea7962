"""What several kernels share: counter-based random numbers, and exponential and logarithm that vectorise.

A random number is a function of (key, time step, index) alone, so a cell has the same bits whatever is beside it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spikebench.compiled import OPTIONS

single = _f = np.float32
_u = np.uint32
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(inline="always", **OPTIONS)
def exponential(x):
    """e^x for x <= 0 to 3e-7 of its value, 0 being e^-87: a polynomial that vectorises, as the library's does not."""
    x = x if x > _f(-87.0) else _f(-87.0)
    n = np.floor(x * _f(1.44269504) + _f(0.5))
    r = (x - n * _f(0.693359375)) + n * _f(2.12194440e-4)
    y = _f(1 / 24) + r * (_f(1 / 120) + r * _f(1 / 720))
    y = _f(1.0) + r * (_f(1.0) + r * (_f(0.5) + r * (_f(1 / 6) + r * y)))
    return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always", **OPTIONS)
def logarithm(x):
    """The natural logarithm of normal x > 0, to 6e-7: the exponent's bits and the series of artanh for the rest."""
    bits = _f(x).view(np.int32)
    power = _f((bits >> np.int32(23)) - np.int32(127))
    m = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
    large = m > _f(1.41421356)
    m = m * _f(0.5) if large else m
    power = power + _f(1.0) if large else power
    s = (m - _f(1.0)) / (m + _f(1.0))
    q = s * s
    series = _f(1.0) + q * (_f(1 / 3) + q * (_f(0.2) + q * (_f(1 / 7) + q * _f(1 / 9))))
    return power * _f(0.69314718) + _f(2.0) * s * series


@njit(inline="always", **OPTIONS)
def _mix(x):
    """A bijection of 32 bits in which each bit of the result depends on each of ``x`` (multiply, xor, shift)."""
    x = _u(x ^ (x >> _u(16)))
    x = _u(x * _u(0x7FEB352D))
    x = _u(x ^ (x >> _u(15)))
    x = _u(x * _u(0x846CA68B))
    return _u(x ^ (x >> _u(16)))


@njit(inline="always", **OPTIONS)
def step_keys(key, step):
    """Two 32-bit keys of a time step, from the cell's key (SplitMix64)."""
    z = np.uint64(key) + (np.uint64(step) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return _u(z & np.uint64(0xFFFFFFFF)), _u(z >> np.uint64(32))


@njit(inline="always", **OPTIONS)
def uniform(first, second, index):
    """The number in (0, 1), of 23 bits, of an index at the time step with these keys."""
    bits = _mix(_u(_mix(_u(_u(index) + first)) ^ second))
    return (_f(bits >> _u(9)) + _f(0.5)) * _f(2.0**-23)


@njit(**OPTIONS)
def uniforms(key, step, out):
    """The numbers of a whole array, for those who need them outside of a kernel."""
    first, second = step_keys(key, step)
    for i in range(len(out)):
        out[i] = uniform(first, second, i)
