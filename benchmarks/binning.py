"""Speed of binning against tonic's ``ToFrame``: one recording of a million events, 128 x 128 pixels, two polarities.

Both make the same frames, one recording at a time, on one thread. tonic's own event type has four 64-bit fields, twice
the memory of ours; both types are timed.

    python benchmarks/binning.py
"""

from __future__ import annotations

import sys
from timeit import repeat

import numpy as np
from tonic.transforms import ToFrame

from spikebench.events import EVENT
from spikebench.events.binning import SENSOR, Binning, bin_events

EVENTS, DURATION_US = 1_000_000, 1_000_000
#: What is claimed, at least.
LEAST = 5.0


def main() -> None:
    """Time both, compare their frames, print the ratios; exit status 1 if frames differ or it is too slow."""
    generator = np.random.default_rng(0)
    ours = np.zeros(EVENTS, EVENT)
    ours["t"] = np.sort(generator.integers(0, DURATION_US, EVENTS))
    for name, end in zip("xyp", SENSOR, strict=True):
        ours[name] = generator.integers(0, end, EVENTS)
    first, last = int(ours["t"][0]), int(ours["t"][-1])
    span = (last - first) // 20 * 20  # tonic's: the recording's, rounded down to whole microseconds a bin
    cases = (
        ({"n_time_bins": 20}, Binning(bins=20, span_us=span, offset_us=first, binary=False)),
        ({"time_window": 10_000}, Binning(window_us=10_000, offset_us=first, binary=False)),
        ({"n_event_bins": 20}, Binning(bins=20, binary=False)),
    )
    same, slowest = True, np.inf
    for kind, events in (("ours", ours), ("tonic's", ours.astype([(name, np.int64) for name in "txyp"]))):
        for options, binning in cases:
            peer = ToFrame(sensor_size=SENSOR, **options)
            same &= np.array_equal(peer(events), bin_events(events, binning))
            slow = min(repeat(lambda: peer(events), number=1, repeat=10))  # noqa: B023 (called at once)
            fast = min(repeat(lambda: bin_events(events, binning), number=1, repeat=10))  # noqa: B023
            slowest = min(slowest, slow / fast)
            name = "{}={}".format(*next(iter(options.items())))
            print(
                f"events of {kind} type, {name}: tonic {slow * 1e3:.1f} ms, spikebench {fast * 1e3:.1f} ms "
                f"-> {slow / fast:.1f}x"
            )
    print(f"frames identical to tonic's: {same}")
    sys.exit(not same or slowest < LEAST)


if __name__ == "__main__":
    main()
