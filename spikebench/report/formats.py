"""How the page writes numbers: the filters of its templates."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup, escape

from spikebench.figures.text import percent, spread


def number(value: Any) -> str:
    """A number with four digits that matter, a word or truth value as it is, and a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def p_value(p: float) -> str:
    """A p-value with the digits that matter, or that there is none."""
    if math.isnan(p):
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def bounds(claim: Mapping[str, Any]) -> str:
    """A claim's interval; an end that was not found is one without bound."""
    low, high = claim["low"], claim["high"]
    if low is None and high is None:
        return "no interval"
    ends = ["no bound" if end is None else f"{end:.3g}" for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


def prose(text: str) -> Markup:
    """A paragraph of a docstring, with ``code`` set as such."""
    return Markup(re.sub(r"``(.+?)``", r"<code>\1</code>", str(escape(" ".join(text.split())))))


def slug(text: str) -> str:
    """A name as the id of a part of a page."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)


FILTERS: Mapping[str, Callable[[Any], str]] = {
    "number": number,
    "duration": duration,
    "p_value": p_value,
    "bounds": bounds,
    "prose": prose,
    "slug": slug,
    "interval": lambda point: spread(point["low"], point["high"]),
    "percent": percent,
}
