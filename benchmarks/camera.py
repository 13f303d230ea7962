"""Speed of the event camera against the same model in NumPy, on one recording as in CIFAR10-DVS.

The peer (``tests/events/reference_camera.py``) handles all pixels of a step at once. Both make the same recording from
the same random numbers. The peer computes in double and the kernel in single precision, so a contrast that only just
touches a threshold may differ, and times of slow crossings by some microseconds: 1 pixel in 1000 may count otherwise.

    python benchmarks/camera.py
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from spikebench.events import camera
from spikebench.events.motion import rcls

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "events"))
import reference_camera

DURATION_US = 1_298_000
ROUNDS = 7
PIXELS = 128 * 128


def picture() -> np.ndarray:
    """[32, 32] random values in [0, 255] with amplitudes that fall as 1/frequency, as those of photographs do."""
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32))
    noise = np.fft.rfft2(np.random.default_rng(0).normal(size=(32, 32)))
    values = np.fft.irfft2(noise / np.maximum(frequency, 1 / 32))
    return np.clip(128 + 37 * (values - values.mean()) / values.std(), 0, 255)


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    """Time both in turn, compare their events, print the ratio; exit status 1 if they differ or it is too slow."""
    image = picture()

    def make(module: object = camera) -> np.ndarray:
        function = module.record  # type: ignore[attr-defined]
        return np.asarray(function(image, rcls(), camera.CIFAR10_DVS, 1, duration_us=DURATION_US, magnification=4.0))

    ours, theirs = make(), make(reference_camera)
    times = [(timed(make), timed(lambda: make(reference_camera))) for _ in range(ROUNDS)]
    kernel, numpy = (min(column) for column in zip(*times, strict=True))
    print(f"one recording of {DURATION_US / 1e6} s, one thread, best of {ROUNDS}:")
    print(f"  spikebench {1e3 * kernel:.1f} ms, {len(ours)} events")
    print(f"  NumPy      {1e3 * numpy:.1f} ms, {len(theirs)} events")
    print(f"  ratio      {numpy / kernel:.1f}")

    for threads in (1, len(os.sched_getaffinity(0))):
        with ThreadPoolExecutor(threads) as pool:
            together = timed(lambda pool=pool: list(pool.map(lambda _: make(), range(40))))
        print(f"{40 / together:.0f} recordings a second with {threads} thread{'s' * (threads > 1)}")

    counts = [np.bincount(e["y"].astype(int) * 128 + e["x"], minlength=PIXELS) for e in (ours, theirs)]
    differ = int((counts[0] != counts[1]).sum())
    print(f"pixels with another number of events: {differ} of {PIXELS}")
    if differ == 0:
        a, b = (e[np.lexsort((e["t"], e["x"], e["y"]))] for e in (ours, theirs))
        print(f"polarities that are the same: {(a['p'] == b['p']).mean():.4%}")
        print(f"times within 1 microsecond: {(np.abs(a['t'] - b['t']) <= 1).mean():.2%}")
    sys.exit(int(differ > PIXELS / 1000 or numpy / kernel < 8 or kernel > 0.05))


if __name__ == "__main__":
    main()
