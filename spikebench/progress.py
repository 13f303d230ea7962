"""Cells done, rate and time left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TextIO

from tqdm import tqdm

#: Seconds between lines of a log file.
INTERVAL = 10.0


class Progress:
    """The progress of one job: lines go to ``log``, the bar to the terminal if there is one."""

    def __init__(self, name: str, total: int, log: TextIO) -> None:
        self._name, self._total, self._log = name, total, log
        self._done = 0
        self._skipped = 0
        self._statuses: Counter[str] = Counter()
        self._began = self._said = time.monotonic()
        self._bar = tqdm(total=total, desc=name, unit="cell", leave=False) if sys.stderr.isatty() else None

    def skip(self, cells: int) -> None:
        """Count cells that were finished before."""
        self._skipped += cells
        if self._bar is not None:
            self._bar.update(cells)

    def done(self, status: str) -> None:
        """Count a cell that was finished now."""
        self._done += 1
        self._statuses[status] += 1
        self.show(0.0)

    def show(self, partly: float) -> None:
        """Show what is done, with ``partly`` cells' worth of the running shard."""
        done = self._done + partly
        if self._bar is not None:
            self._bar.n = round(self._skipped + done, 1)
            self._bar.set_postfix(dict(self._statuses), refresh=False)
            self._bar.refresh()
        if time.monotonic() - self._said > INTERVAL:
            self._said = time.monotonic()
            self.say(self._line(done))

    def say(self, text: str) -> None:
        """A message of its own."""
        tqdm.write(f"[{self._name}] {text}", file=self._log)

    def close(self) -> None:
        """The last line."""
        if self._bar is not None:
            self._bar.close()
        self.say(self._line(self._done))

    def _line(self, done: float) -> str:
        seconds = time.monotonic() - self._began
        rate = done / seconds if seconds > 0 else 0.0
        left = (self._total - self._skipped - done) / rate if rate > 0 else float("nan")
        statuses = ", ".join(f"{n} {status}" for status, n in sorted(self._statuses.items())) or "none trained yet"
        return (
            f"{self._skipped + done:.0f} of {self._total} cells ({self._skipped} from before; {statuses}), "
            f"{rate:.1f} cells/s, {left:.0f} s left"
        )
