"""Sentences with numbers in them: captions are build products, made from the same tables that are plotted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.1f}%"


def spread(low: float, high: float, scale: float = 100.0, digits: int = 1) -> str:
    """An interval in brackets, or that there is none."""
    if math.isnan(low) or math.isnan(high):
        return "(one value, no interval)"
    return f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def measured(point: Mapping[Any, Any]) -> str:
    """Mean and interval of one point of a summary, in per cent."""
    return f"{percent(point['mean'])} {spread(point['low'], point['high'])}"


def number(point: Mapping[Any, Any], digits: int = 2) -> str:
    """Mean and interval of one point of a summary, as plain numbers."""
    return f"{point['mean']:.{digits}f} {spread(point['low'], point['high'], 1, digits)}"


def by_arm(points: pd.DataFrame, order: Iterable[str], say: Callable[[Mapping[Any, Any]], str] = measured) -> str:
    """``MH in the loop 93.6% [91.2, 96.0], Backprop ...`` for a summary with one point an arm."""
    found = {point["arm"]: point for point in points.to_dict("records")}
    return ", ".join(f"{arm} {say(found[arm])}" for arm in order if arm in found)


def repetitions(n: Iterable[int]) -> str:
    """``n = 10``, or ``n = 8 to 10`` where points differ."""
    sizes = sorted(set(n))
    return f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}"


def shortfall(statuses: Mapping[str, int]) -> str:
    """What became of the cells that did not finish, as a sentence; empty if all did."""
    total, missing = sum(statuses.values()), {k: n for k, n in statuses.items() if k != "ok" and n}
    if not missing:
        return ""
    return f" {sum(missing.values())} of {total} cells did not finish ({listed(missing)})."


def listed(counts: Mapping[str, int]) -> str:
    """``2 failed, 1 timed-out``."""
    return ", ".join(f"{n} {status}" for status, n in counts.items())


def big(value: float) -> str:
    """A count in a form that is short at any size: 850, 12,800, 2.0 million, 3.2 thousand million."""
    for size, name in ((1e9, "thousand million"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:,.0f}"
