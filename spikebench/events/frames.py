"""Binned recordings on disk, and minibatches read from them while the present one is trained on.

A part is a ``.npy`` file [N, ...] with one recording a row: packed bits [N, ceil(T P H W / 8)] of binary frames
(``numpy.packbits``), or the smallest unsigned integers [N, T P H W] that hold the counts. Parts are mapped into memory
and decoded row by row, never loaded.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from spikebench.errors import UserError
from spikebench.events.binning_kernels import unpack, widen
from spikebench.paths import replacing

Request = TypeVar("Request")
Read = TypeVar("Read")


def write_part(path: Path, recordings: Iterable[np.ndarray]) -> str:
    """Write binned recordings as one part. They are packed as they come, so a generator needs little memory.

    Args:
        path: of the part.
        recordings: [T, P, H, W] each, all of one shape: bool, or unsigned counts.

    Returns:
        The sha256 of the file.

    Raises:
        UserError: if there are none, or they are not of one shape and kind.
    """
    packed, kinds = [], set()
    for frames in recordings:
        binary = frames.dtype == bool
        kinds.add((frames.shape, "bits" if binary else "counts"))
        smallest = np.min_scalar_type(frames.max(initial=0))
        packed.append(np.packbits(frames) if binary else frames.ravel().astype(smallest))
    if len(kinds) != 1:
        raise UserError(f"{path.name}: found recordings of {sorted(kinds)}, allowed: one shape and kind in a part")
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, np.stack(packed), allow_pickle=False)
        with temporary.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class Frames:
    """Recordings in parts on disk, as one array of N recordings.

    Attributes:
        shape: (T, P, H, W) of a recording.
    """

    def __init__(
        self, parts: Sequence[Path], shape: tuple[int, int, int, int], binary: bool, constant: bool = False
    ) -> None:
        """Map the parts.

        Args:
            parts: their paths, in the order of the rows.
            shape: (T, P, H, W) of each recording.
            binary: whether they are packed bits.
            constant: whether ``read`` adds a last line that is always 1 (here it costs nothing; joined to what was
                read, it would take longer than the reading).

        Raises:
            UserError: for a part that is missing, truncated or something else.
        """
        self.shape = shape
        self._lines, self._constant = math.prod(shape[1:]), constant
        self._parts = [_map(path, math.prod(shape), binary) for path in parts]
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self._rows = np.arange(self._starts[-1])
        self._decode = unpack if binary else widen

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: npt.ArrayLike | torch.Tensor) -> Frames:
        """Only the recordings ``rows`` [n], in that order; nothing is read."""
        chosen = copy.copy(self)
        chosen._rows = self._rows[np.asarray(rows)]
        return chosen

    def read(self, rows: npt.ArrayLike | torch.Tensor) -> torch.Tensor:
        """Decode recordings; other threads run meanwhile.

        Args:
            rows: of any shape.

        Returns:
            [*rows, T, P H W] float32; one line more where a constant one was asked for.

        Raises:
            IndexError: for a row that is not there.
        """
        wanted = self._rows[np.asarray(rows)]
        flat = wanted.ravel()
        # By numpy, which asks for huge pages: with torch.empty, a large minibatch takes seven times as long.
        out = np.empty((len(flat), self.shape[0], self._lines + self._constant), np.float32)
        which = np.searchsorted(self._starts, flat, side="right") - 1
        for part in np.unique(which):
            places = np.flatnonzero(which == part)
            self._decode(self._parts[part], flat[places] - self._starts[part], places, self._lines, out)
        return torch.from_numpy(out).reshape(*wanted.shape, *out.shape[1:])


def prefetch(
    requests: Iterable[Request], read: Callable[[Request], Read], ahead: int = 1
) -> Generator[Read, None, None]:
    """Read the next requests in a thread while the caller works on the present one.

    Requests are taken in the caller's thread, so they may draw random numbers. Results come in their order. What
    ``read`` raises is raised where its result would have come. Closing the generator drops what waits and ends the
    thread.

    Args:
        requests: what is read: rows of a minibatch, or whatever ``read`` takes.
        read: for example ``frames.read``.
        ahead: how many are read in advance; so many more results are held in memory.

    Yields:
        ``read(request)`` for each request.
    """
    waiting: deque[Future[Read]] = deque()
    thread = ThreadPoolExecutor(1, "prefetch")
    try:
        for request in requests:
            waiting.append(thread.submit(read, request))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def _map(path: Path, values: int, binary: bool) -> np.ndarray:
    width, types = ((values + 7) // 8, ["uint8"]) if binary else (values, ["uint8", "uint16"])
    expected = f"rows of {width} {' or '.join(types)}, of {values} {'bits' if binary else 'counts'}"
    try:
        part = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error  # without the path, which may be someone's home
        raise UserError(f"{path.name}: found no whole .npy file ({reason}), expected {expected}") from None
    if not isinstance(part, np.ndarray) or part.shape[1:] != (width,) or part.dtype not in types:
        found = f"{part.dtype} {list(part.shape)}" if isinstance(part, np.ndarray) else type(part).__name__
        raise UserError(f"{path.name}: found {found}, expected {expected}")
    return np.asarray(part)  # still mapped; numba recognises this type more quickly
