"""The grand comparison's rows for ``synthetic``, beyond its sweeps of families: a slow arm, recordings, a crossing."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from synthetic_spide import LOOP

#: Of the crossing, each factor's second level adds this to the accuracy, whatever the other levels.
CROSSED = {"split": 0.04, "seed": 0.02, "chip": 0.02, "read": 0.01}


def comparison(
    row: Callable[..., dict[str, Any]], arms: Sequence[tuple[str, str]], repetitions: int, preset: str
) -> Iterator[dict[str, Any]]:
    """The slow arm meets one family at three severities; three arms meet two families of recordings, 0.1 lower.

    One repetition crosses one split alone, as the smallest preset does with reads.
    """
    small: tuple[Any, ...] = ({}, {"hidden": [8]}, {})
    for severity, r in itertools.product((0.0, 0.5, 1.0), range(repetitions)):
        slow = ("slow-in-the-loop", LOOP, "paper-full", severity, 398, *small, r, repetitions, preset)
        yield row("grand_comparison", *slow)
        for arm, fault in itertools.product(arms[:3], ("gain-mismatch", "paper-full")):
            wide = ("recordings", arm, fault, severity, 300, {}, {"hidden": [64]}, {}, r, repetitions, preset)
            made = row("grand_comparison", *wide, ("mnist_dvs", "simulated", "mnist"))
            yield made | {"accuracy": made["accuracy"] - 0.1}
    sizes = {"chip": 2, "read": 2, "seed": 2, "split": 2 if repetitions > 1 else 1}
    crossed = json.dumps(sizes, sort_keys=True, separators=(",", ":"))
    for arm in arms:
        # The first factor's level changes fastest (``sweep.levels``).
        places = itertools.product(*(range(sizes[factor]) for factor in reversed(CROSSED)))
        for r, place in enumerate(places):
            made = row("grand_comparison", "variance", arm, "noisy", 0.5, 398, *small, r, repetitions, preset)
            accuracy = 0.8 + sum(level * CROSSED[f] for level, f in zip(place, reversed(CROSSED), strict=True))
            cell = hashlib.sha256(f"{made['cell']} {crossed}".encode()).hexdigest()[:16]
            yield made | {"accuracy": accuracy, "crossed": crossed, "cell": cell}
