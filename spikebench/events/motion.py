"""How a picture moves before the camera: a line with corners, known exactly at any time.

The constants are those of the published recordings: MNIST-DVS (Serrano-Gotarredona and Linares-Barranco 2015, doi
10.3389/fnins.2015.00481) as its ``process_mnist.m`` undoes the motion, and CIFAR10-DVS (Li et al. 2017, doi
10.3389/fnins.2017.00309), whose closed loop of 10 screen pixels a side is 2.5 sensor pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: MNIST-DVS: 5 sensor pixels, which is x in half a way and y in a whole one, take so many microseconds.
ZIGZAG_US = 298_200
ZIGZAG_PX = 5.0
#: CIFAR10-DVS: one side of the loop.
RCLS_US = 50_000
RCLS_PX = 2.5
RCLS_LOOPS = 6


@dataclass(frozen=True, eq=False)
class Motion:
    """Straight moves between knots; the picture rests before the first and after the last.

    Attributes:
        t_us: [K] times of the knots in microseconds, increasing.
        x: [K] displacement to the right at the knots, sensor pixels.
        y: [K] displacement downwards.

    Raises:
        ValueError: the three differ in length, are empty or not finite, or the times do not increase.
    """

    t_us: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        shapes = [np.shape(values) for values in (self.t_us, self.x, self.y)]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0][0] == 0:
            raise ValueError(f"Motion: t_us, x and y have shapes {shapes}, expected [K] each, with one knot or more")
        if not all(np.isfinite(values).all() for values in (self.t_us, self.x, self.y)):
            raise ValueError("Motion: a knot is not finite")
        if not (np.diff(self.t_us) > 0).all():
            raise ValueError("Motion.t_us: found times that do not increase")

    def position(self, t_us: np.ndarray) -> np.ndarray:
        """Displacement (x, y) in sensor pixels at times [N] (microseconds): [N, 2]."""
        return np.stack([np.interp(t_us, self.t_us, axis) for axis in (self.x, self.y)], axis=-1)


def mnist_dvs_zigzag(duration_us: int) -> Motion:
    """Triangle waves around the origin: x over 10 px in 0.5964 s each way, y over 5 px in 0.2982 s each way.

    It begins at the upper left, goes on for ``duration_us`` or a little longer, and is the same for all scales.
    """
    k = np.arange(-(-duration_us // ZIGZAG_US) + 1)
    x = np.array([-1.0, 0.0, 1.0, 0.0])[k % 4] * ZIGZAG_PX
    y = np.array([-0.5, 0.5])[k % 2] * ZIGZAG_PX
    return Motion(k * float(ZIGZAG_US), x, y)


def rcls(side: float = RCLS_PX, loops: int = RCLS_LOOPS) -> Motion:
    """The repeated closed loop: a diamond (0,0), (s,-s), (2s,0), (s,s), moved to lie around the origin; then rest.

    Args:
        side: s in sensor pixels, run through in 50 ms.
        loops: how often; the published recordings have 6, which takes 1.2 s.
    """
    k = np.arange(4 * loops + 1)
    x = np.array([-1.0, 0.0, 1.0, 0.0])[k % 4] * side
    y = np.array([0.0, -1.0, 0.0, 1.0])[k % 4] * side
    return Motion(k * float(RCLS_US), x, y)
