"""Figures as the report shows them: inside the index page, and as files beside the other pages."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikebench.figures import NAMES


@dataclass(frozen=True)
class Figure:
    """A figure as a page shows it.

    Attributes:
        document: what ``figures.draw`` wrote: name, title, caption, alt, numbers.
        file: the PNG.
    """

    document: Mapping[str, Any]
    file: Path

    @property
    def image(self) -> str:
        """The PNG as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.file.read_bytes()).decode('ascii')}"

    def beside(self, folder: Path) -> str:
        """The PNG's address on a page in ``folder``; the two can be moved together."""
        return Path(os.path.relpath(self.file, folder)).as_posix()

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The tables among its numbers, by name, for those who want to read instead of look."""
        return {k: v for k, v in self.document["numbers"].items() if isinstance(v, list) and v}


def gallery(folder: Path) -> list[Figure]:
    """What was drawn, in the order of ``figures.NAMES``; others follow by name."""
    order = {name: place for place, name in enumerate(NAMES)}
    files = sorted(folder.glob("*.json"), key=lambda file: (order.get(file.stem, len(order)), file.stem))
    return [figure(file) for file in files]


def figure(file: Path) -> Figure:
    """What lies in a JSON file and the PNG beside it."""
    return Figure(json.loads(file.read_text(encoding="utf-8")), file.with_suffix(".png"))
