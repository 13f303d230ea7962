"""AEDAT 2.0, the file format of the original MNIST-DVS and CIFAR10-DVS recordings, for 128 x 128 pixels (DVS128).

A file is a header of ASCII lines that start with ``#``, then records of 8 bytes: a big-endian uint32 address and a
big-endian uint32 time in microseconds. The bits of an address:

| 31 | 30-16 | 15 | 14-8 | 7-1 | 0 |
| --- | --- | --- | --- | --- | --- |
| special event | always 0 | special event | y | x | polarity: 0 is ON (brighter), 1 is OFF |

Source: the AEDAT 2.0 page of iniVation's manual; for the bits, the class ``DVS128`` of jAER.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from spikebench.errors import UserError
from spikebench.events import EVENT
from spikebench.paths import replacing

#: How pixels are numbered. ``upright``: the picture as it stood before the camera, rows counted downwards,
#: x = 127 - y_raw and y = 127 - x_raw. ``jaer``: as jAER does, x = 127 - x_raw and y = y_raw, upwards.
#: ``raw``: as the address does.
Orientation = Literal["upright", "jaer", "raw"]

SIDE = 128
_RECORD = 8  # bytes
_PIXEL = 0x7FFF  # the highest address of a pixel
_SPECIAL = 0x8000_8000

# A record may begin with a '#' too, but it is no header line if a control character comes before the next line feed, or
# if the header has said that it ends.
_LINE = re.compile(rb"#[^\x00-\x08\x0a-\x1f]*\r*\n")
_LAST = re.compile(rb"#(?:(?i: ?end of ascii header)|!END-HEADER)\r*\n")
_VERSION = re.compile(rb"#!AER-DAT(\d+\.\d+)")


class AedatError(UserError):
    """A file that is not AEDAT 2.0 of a DVS128, or cannot be read.

    Attributes:
        offset: of the byte where that shows.
    """

    def __init__(self, name: str, offset: int, problem: str):
        super().__init__(f"{name}, byte {offset}: {problem}")
        self.offset = offset


class Recording(NamedTuple):
    """What a file holds, and what had to be mended or left out.

    Attributes:
        events: [N] of ``EVENT``, ordered by time; those of equal time as in the file.
        special: special events (synchronisation, external input) that were dropped.
        truncated: bytes of an unfinished last record that were dropped.
        disordered: events that came after a later one; all were sorted.
        wraps: overflows of the 32-bit clock that were undone.
    """

    events: np.ndarray
    special: int
    truncated: int
    disordered: int
    wraps: int


def read(path: str | Path, orientation: Orientation = "upright", rezero: bool = True) -> Recording:
    """The recording in a file; see ``decode``."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise AedatError(Path(path).name, 0, f"the file cannot be read ({error.strerror})") from error
    return decode(content, Path(path).name, orientation, rezero)


def decode(
    content: bytes | memoryview, name: str = "recording", orientation: Orientation = "upright", rezero: bool = True
) -> Recording:
    """The recording in the bytes of a file.

    The clock is taken to move by less than 2^31 us (36 minutes) between events: a longer leap back is an overflow, a
    shorter one is disorder.

    Args:
        content: the whole file.
        name: of the file, for messages.
        orientation: how pixels are numbered.
        rezero: count t from the earliest event; otherwise it is the camera's clock.

    Raises:
        AedatError: the file is empty, of another version of the format or of another camera.
        UserError: an unknown orientation.
    """
    version = _VERSION.match(content)
    if version and version[1] != b"2.0":
        raise AedatError(name, 0, f"found AEDAT {version[1].decode()}, expected AEDAT 2.0")
    start = _header_end(content)
    count, truncated = divmod(len(content) - start, _RECORD)
    if not version and (truncated or not content):
        # A file without this line is AEDAT 1.0, says the manual; or a script left it out. The records will tell.
        found = f"found {len(content) - start} bytes of data and no version"
        raise AedatError(name, start, f"{found}, expected #!AER-DAT2.0 or whole records of 8 bytes (AEDAT 1.0 has 6)")
    records = np.frombuffer(content, ">u4", 2 * count, start).reshape(count, 2)
    address, time = records[:, 0].astype(np.uint32), records[:, 1].astype(np.uint32)
    if (address > _PIXEL).any():
        special = (address & _SPECIAL) != 0
        foreign = np.flatnonzero(~special & (address > _PIXEL))
        if foreign.size:
            found = f"found the address 0x{address[foreign[0]]:08x}, expected at most 0x{_PIXEL:08x} for a DVS128"
            cause = "a damaged file" if version else "AEDAT 1.0"
            raise AedatError(name, start + _RECORD * int(foreign[0]), f"{found}: another camera or {cause}")
        address, time = address[~special], time[~special]

    events = np.zeros(len(address), EVENT)  # zeros, so that equal recordings are equal bytes, padding included
    if not len(events):
        return Recording(events, count, truncated, 0, 0)
    clock, disordered = _unwrap(time)
    if disordered:
        order = np.argsort(clock, kind="stable")
        clock, address = clock[order], address[order]
    pixel = address.astype(np.int16)
    events["t"] = clock - clock[0] if rezero else clock
    events["x"], events["y"] = _turn((pixel >> 1) & 127, pixel >> 8, orientation)
    events["p"] = ~pixel & 1
    return Recording(events, count - len(events), truncated, disordered, int(clock[-1] >> 32))


def write(path: Path, events: np.ndarray, orientation: Orientation = "upright", header: Sequence[str] = ()) -> None:
    """Write a file that ``read`` reads back, whole or not at all; see ``encode``."""
    content = encode(events, orientation, header)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def encode(events: np.ndarray, orientation: Orientation = "upright", header: Sequence[str] = ()) -> bytes:
    """The bytes of a file.

    Args:
        events: [N] of ``EVENT``, in the order of the file. Of their times the low 32 bits are written.
        orientation: how their pixels are numbered.
        header: further lines, without the ``#``.

    Raises:
        ValueError: an event or a line that the format cannot hold.
        UserError: an unknown orientation.
    """
    x, y, p, t = (events[name].astype(np.int64) for name in ("x", "y", "p", "t"))
    leap = np.abs(np.diff(t, prepend=t[:1]))
    wrong = (x | y) & ~127 | p & ~1 | (t < 0) | (leap >= 1 << 31)
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"event {index} is {events[index]}, expected pixels 0 to {SIDE - 1}, polarity 0 or 1, t >= 0 and less than "
            "2^31 us between events"
        )
    lines = "".join(f"#{line}\r\n" for line in ("!AER-DAT2.0", *header, "End Of ASCII Header")).encode("ascii")
    if _header_end(lines) != len(lines):
        raise ValueError(f"header: found {header!r}, expected lines of printable characters")
    x_raw, y_raw = _turn(x, y, orientation)
    records = np.empty((len(events), 2), ">u4")
    records[:, 0] = y_raw << 8 | x_raw << 1 | 1 - p
    records[:, 1] = t & 0xFFFF_FFFF
    return lines + records.tobytes()


def _header_end(content: bytes | memoryview) -> int:
    """Where the records begin."""
    end = 0
    while line := _LINE.match(content, end):
        if last := _LAST.match(content, end):
            return last.end()
        end = line.end()
    return end


def _turn(x: np.ndarray, y: np.ndarray, orientation: Orientation) -> tuple[np.ndarray, np.ndarray]:
    """From the numbers in an address to those of an orientation, and back: each is its own inverse."""
    match orientation:
        case "upright":
            return SIDE - 1 - y, SIDE - 1 - x
        case "jaer":
            return SIDE - 1 - x, y
        case "raw":
            return x, y
    raise UserError(f"orientation: found {orientation!r}, allowed: {', '.join(get_args(Orientation))}")


def _unwrap(time: np.ndarray) -> tuple[np.ndarray, int]:
    """Clock without overflows, [N] int64 us with its earliest value below 2^32, and how often it goes back.

    Args:
        time: [N] uint32 us.
    """
    steps = np.diff(time).view(np.int32)  # modulo 2^32: the shorter way round
    disordered = int(np.count_nonzero(steps < 0))
    clock = np.empty(len(time), np.int64)
    clock[0] = time[0]
    np.cumsum(steps, dtype=np.int64, out=clock[1:])
    clock[1:] += clock[0]
    if disordered:
        clock -= clock.min() >> 32 << 32
    return clock, disordered
