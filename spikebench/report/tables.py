"""What the report's sortable tables are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spikebench.figures.text import percent
from spikebench.report.formats import number


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        text: as it is read.
        value: as it is sorted, a number or words; None comes last whichever way.
        note: small, below the text.
        href: where the text leads, if anywhere.
        mark: a class of the style sheet.
    """

    text: str
    value: float | str | None
    note: str = ""
    href: str = ""
    mark: str = ""


#: Where there is no value.
DASH = Entry("–", None)


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted.

    Attributes:
        title: its caption.
        columns: headings.
        lines: as many entries each as there are columns.
        words: how many of the first columns hold words; the first of all names its line.
        groups: headings above the headings, with the number of columns below each; together all but the first.
        sorted_by: the column that ascends as the table stands; None for none.
        anchor: its id on the page, or empty.
        href: where its title leads, or empty.
    """

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Entry]]
    words: int = 1
    groups: Sequence[tuple[str, int]] = ()
    sorted_by: int | None = None
    anchor: str = ""
    href: str = ""


def word(text: str, href: str = "") -> Entry:
    """Words, sorted as they stand."""
    return Entry(text, text, href=href)


def share(value: Any, note: str = "") -> Entry:
    """A share in per cent; a dash for None and NaN."""
    return DASH if _absent(value) else Entry(percent(value), float(value), note)


def amount(value: Any) -> Entry:
    """A number with the digits that matter; a dash for None and NaN."""
    return DASH if _absent(value) else Entry(number(float(value)), float(value))


def _absent(value: Any) -> bool:
    return value is None or math.isnan(value)
