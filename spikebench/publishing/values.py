"""Numbers that were measured, and how they are printed: what makes an expression's text count as rendered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from spikebench.errors import UserError
from spikebench.figures.text import big
from spikebench.statistics import mean_interval

#: Begin and end of rendered text, while it is checked: characters of Unicode's private use.
OPEN, CLOSE = "\ue000", "\ue001"


class Quantity(float):
    """A number that came out of rows, claims or figures; what comes of arithmetic with it is one too."""

    def __add__(self, other: float) -> Quantity:
        """Sum."""
        return Quantity(float(self) + other)

    def __sub__(self, other: float) -> Quantity:
        """Difference."""
        return Quantity(float(self) - other)

    def __mul__(self, other: float) -> Quantity:
        """Product."""
        return Quantity(float(self) * other)

    def __truediv__(self, other: float) -> Quantity:
        """Quotient."""
        return Quantity(float(self) / other)

    def __neg__(self) -> Quantity:
        """Opposite."""
        return Quantity(-float(self))

    def __abs__(self) -> Quantity:
        """Size."""
        return Quantity(abs(float(self)))


class Printed(str):
    """Text that was made from quantities."""


@dataclass(frozen=True)
class Estimate:
    """A mean with the ends of its 95 % interval, over ``n`` repetitions."""

    mean: Quantity
    low: Quantity
    high: Quantity
    n: Quantity

    @classmethod
    def of(cls, values: pd.Series[float]) -> Estimate:
        """Mean and Student-t interval."""
        found = mean_interval(values.to_numpy(dtype=float))
        return cls(*map(Quantity, (found.mean, found.low, found.high, found.n)))


def decimals(value: Quantity, digits: int = 0, scale: float = 1, sign: bool = False) -> Printed:
    """``value`` times ``scale`` with so many digits after the point (``1,234.5``); ``sign``: with a plus, too."""
    return Printed(f"{_measured(value) * scale:{'+' if sign else ''},.{digits}f}")


def percent(value: Quantity, digits: int = 0) -> Printed:
    """A share in per cent, without the word."""
    return decimals(value, digits, 100)


def count(value: Quantity) -> Printed:
    """A number of things: 850, 12,800, 2.0 million."""
    return Printed(big(_measured(value)))


def span(value: Estimate | Mapping[str, Any], digits: int = 1, scale: float = 1) -> Printed:
    """The 95 % interval of an estimate, a claim or a point of a figure: ``[0.1, 2.0]``."""
    low, high = (value.low, value.high) if isinstance(value, Estimate) else (value["low"], value["high"])
    ends = [_end(_measured(end) * scale, f",.{digits}f") for end in (low, high)]
    return Printed(f"[{', '.join(ends)}]")


def short(value: Quantity, sign: bool = False) -> Printed:
    """Three significant digits, never a power of ten: ``0.0202``, ``11.3``, ``1,230``."""
    number = float(f"{_measured(value):.3g}")
    digits = max(0, 2 - math.floor(math.log10(abs(number)))) if number else 0
    return Printed(f"{number:{'+' if sign else ''},.{digits}f}")


def marked(value: object) -> str:
    """What stands in the page for the value of an expression; rendered text is marked."""
    if isinstance(value, Quantity):
        value = short(value) if value % 1 else decimals(value)
    return f"{OPEN}{value}{CLOSE}" if isinstance(value, Printed) else str(value)


def quantities(value: Any) -> Any:
    """A JSON document whose numbers are quantities and whose texts are printed ones."""
    if isinstance(value, Mapping):
        return {name: quantities(part) for name, part in value.items()}
    if isinstance(value, list):
        return [quantities(part) for part in value]
    if isinstance(value, str):
        return Printed(value)
    return Quantity(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _measured(value: Any) -> float:
    if not isinstance(value, Quantity):
        raise UserError(f"{value!r} is no measured number; take it from mean(), gain(), claim() or figure()")
    return float(value)


def _end(value: float, form: str) -> str:
    """One end of an interval, which may be without bound."""
    return f"{value:{form}}" if math.isfinite(value) else "no bound"
