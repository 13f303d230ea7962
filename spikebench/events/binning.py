"""Frames made of events: which events fall into which bin, and where in the frame.

Events are structured arrays with the integer fields t (microseconds), x, y and p, in order of time: those of
``spikebench.events.EVENT`` and those of tonic. Frames are [T, P, H, W]. Where tonic's ``ToFrame`` does the same, the
result is the same; benchmarks/binning.py compares the speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikebench.errors import UserError
from spikebench.events import EVENT
from spikebench.events.binning_kernels import OUTSIDE, accumulate

#: Width, height and polarities of the DVS128, in tonic's order.
SENSOR = (128, 128, 2)


def _require(name: str, found: object, good: bool, allowed: str) -> None:
    if not good:
        raise UserError(f"{name}: found {found}, allowed: {allowed}")


def _whole(values: tuple[object, ...], *least: int) -> bool:
    """Whether these are as many whole numbers, none smaller than its ``least``."""
    return len(values) == len(least) and all(type(v) is int and v >= low for v, low in zip(values, least, strict=True))


@dataclass(frozen=True)
class Binning:
    """How a recording becomes frames.

    The fields that are given say how time is cut:

    - ``bins`` and ``span_us``: bin i of T = ``bins`` holds the events with i span / T <= t - offset < (i + 1) span / T.
      Later events are left out; what a short recording lacks are empty frames.
    - ``bins`` alone: T = ``bins`` bins of equally many events, of those inside the crop. The last events, fewer than
      ``bins``, are left out.
    - ``window_us`` alone: T is the number of whole windows between the offset and the last event, and at least 1. What
      follows the last whole window is left out.

    Attributes:
        bins: T.
        span_us: how much time the bins cover together.
        window_us: how much time one bin covers.
        binary: a cell is True where at least one event fell (OR); otherwise it counts its events, up to 65535.
        polarity: both polarities are kept, as two channels (0 is OFF); otherwise all events go to one.
        crop: (x0, y0, width, height), the part of the sensor that is kept; x0, y0 becomes 0, 0.
        size: (height, width) to shrink the crop to, each polarity by itself: an event of column x goes to column
            floor(x width / crop width), likewise for rows. No interpolation: frames stay binary or counts. Where the
            ratio is not whole, some cells collect from more pixels than others (128 to 48: 2 or 3 columns a cell).
        offset_us: where the first bin begins. Events before it are left out.

    Raises:
        UserError: for a value that is not allowed, by its name.
    """

    bins: int | None = None
    span_us: int | None = None
    window_us: int | None = None
    binary: bool = True
    polarity: bool = True
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    offset_us: int = 0

    def __post_init__(self) -> None:
        cuts = {"bins": self.bins, "span_us": self.span_us, "window_us": self.window_us}
        given = {name: value for name, value in cuts.items() if value is not None}
        for name, value in given.items():
            _require(name, value, _whole((value,), 1), "a whole number from 1 on")
        ways = ("bins and span_us", "bins", "window_us")
        way = " and ".join(given)
        _require("binning", way or "none", way in ways, "bins and span_us, bins alone, window_us alone")
        for name, flag in (("binary", self.binary), ("polarity", self.polarity)):
            _require(name, flag, isinstance(flag, bool), "true or false")
        if self.crop is not None:
            good = _whole(self.crop, 0, 0, 1, 1)
            _require("crop", self.crop, good, "(x0, y0, width, height), whole numbers from 0, 0, 1, 1 on")
        if self.size is not None:
            _require("size", self.size, _whole(self.size, 1, 1), "(height, width), whole numbers from 1 on")
        _require("offset_us", self.offset_us, type(self.offset_us) is int, "a whole number")

    def frame_shape(self, sensor_size: tuple[int, int, int] = SENSOR) -> tuple[int, int, int]:
        """P, H, W of the frames of a sensor of (width, height, polarities).

        Raises:
            UserError: where crop or size do not fit the sensor.
        """
        sensor_width, sensor_height, polarities = sensor_size
        x0, y0, width, height = self.crop or (0, 0, sensor_width, sensor_height)
        fits = x0 + width <= sensor_width and y0 + height <= sensor_height
        _require("crop", self.crop, fits, f"a part of the sensor, {sensor_width} wide and {sensor_height} high")
        size = self.size or (height, width)
        fits = size[0] <= height and size[1] <= width
        _require("size", self.size, fits, f"at most (height, width) of what is shrunk, ({height}, {width})")
        return polarities if self.polarity else 1, *size


#: BiSNN on MNIST-DVS (arXiv 2012.08300, authors' code): columns and rows 48 to 73, two seconds; bins of 5 ms, and of
#: 25 ms in their older script.
BISNN_T400 = Binning(bins=400, span_us=2_000_000, crop=(48, 48, 26, 26))
BISNN_T80 = Binning(bins=80, span_us=2_000_000, crop=(48, 48, 26, 26))
#: CIFAR10-DVS, 48 by 48: ten bins of equal duration over the recordings' mean length of 1.3 s; and of equally many
#: events, as SPIDE (arXiv 2302.00232) cuts its 30. Both binary: so its frames nearly are (its conversion of counts to
#: pixels turns 1 into 255 and 2 into 254).
CIFAR48_T10 = Binning(bins=10, span_us=1_300_000, size=(48, 48))
CIFAR48_T10_COUNT = Binning(bins=10, size=(48, 48))


def bin_events(events: np.ndarray, binning: Binning, sensor_size: tuple[int, int, int] = SENSOR) -> np.ndarray:
    """The frames of one recording.

    Args:
        events: [E], in order of time.
        binning: how they are binned.
        sensor_size: (width, height, polarities), as tonic has it.

    Returns:
        [T, P, H, W], bool where ``binning.binary``, else uint16.

    Raises:
        UserError: where crop or size do not fit the sensor; where events lack a field, are out of order, or lie outside
            the sensor; where a cell would count more than 65535 events.
    """
    polarities, height, width = binning.frame_shape(sensor_size)
    events, bounds = _cut(events, binning)
    x0, y0, crop_width, crop_height = binning.crop or (0, 0, *sensor_size[:2])
    frames = np.zeros((len(bounds) - 1, polarities, height, width), bool if binning.binary else np.uint16)
    x, y, p = (_column(events, name) for name in "xyp")
    columns = _offsets(sensor_size[0], x0, crop_width, width)
    rows = width * _offsets(sensor_size[1], y0, crop_height, height)
    channels = height * width * np.minimum(np.arange(sensor_size[2]), polarities - 1)
    limit = np.iinfo(np.uint16).max
    stopped = accumulate(x, y, p, bounds, columns, rows, channels, limit, frames.reshape(len(frames), -1))
    if stopped >= 0:
        event = f"the event (t {events['t'][stopped]}, x {x[stopped]}, y {y[stopped]}, p {int(p[stopped])})"
        if all(0 <= v[stopped] < end for v, end in zip((x, y, p), sensor_size, strict=True)):
            raise UserError(
                f"{event} is its cell's {limit + 1}th, the counts' end is {limit}: take more bins, or binary"
            )
        raise UserError(f"{event} lies outside the sensor, which has (width, height, polarities) {sensor_size}")
    return frames


def kept_share(events: np.ndarray, binning: Binning) -> float:
    """The share of a recording's events that its frames hold: those inside crop and bins (1 where there are none).

    Raises:
        UserError: where events lack a field or are out of order.
    """
    cut, bounds = _cut(events, binning)
    kept = np.count_nonzero(_inside(cut[bounds[0] : bounds[-1]], binning))
    return kept / len(events) if len(events) else 1.0


def _cut(events: np.ndarray, binning: Binning) -> tuple[np.ndarray, np.ndarray]:
    """The events that are cut into bins, and the bins' bounds [T+1] among them."""
    if not {"t", "x", "y", "p"} <= set(events.dtype.names or ()):
        raise UserError(f"events: found {events.dtype}, allowed: integer fields t, x, y, p")
    by_count = binning.span_us is None and binning.window_us is None
    if by_count and binning.crop is not None:
        events = events[_inside(events, binning)]
    t = _column(events, "t")
    late = np.flatnonzero(t[1:] < t[:-1])
    if late.size:
        raise UserError(
            f"event {late[0] + 1}, at {t[late[0] + 1]} us, follows one at {t[late[0]]} us; sort events by time first"
        )
    bins, span = binning.bins or 1, binning.span_us or 0
    if by_count:
        first = np.searchsorted(t, binning.offset_us)
        return events, first + np.arange(bins + 1) * ((len(t) - first) // bins)
    if binning.window_us is not None:
        bins = max((int(t[-1]) - binning.offset_us) // binning.window_us, 1) if len(t) else 1
        span = bins * binning.window_us
    # The first whole microsecond of each bin: t >= i span / T is t >= ceil(i span / T).
    edges = binning.offset_us - (-np.arange(bins + 1) * span // bins)
    return events, np.searchsorted(t, edges)


def _inside(events: np.ndarray, binning: Binning) -> np.ndarray:
    """[E] whether an event is inside the crop."""
    if binning.crop is None:
        return np.ones(len(events), bool)
    x0, y0, width, height = binning.crop
    x, y = events["x"], events["y"]
    inside: np.ndarray = (x >= x0) & (x < x0 + width) & (y >= y0) & (y < y0 + height)
    return inside


def _column(events: np.ndarray, name: str) -> np.ndarray:
    """One field: as it is where it has the usual type, else as int64, so that few types of kernels are compiled."""
    column = events[name]
    if column.dtype.kind not in "iub":
        raise UserError(f"events: field {name}: found {column.dtype}, allowed: integers")
    return column if column.dtype in (EVENT[name], np.int64) else column.astype(np.int64)


def _offsets(sensor: int, start: int, length: int, size: int) -> np.ndarray:
    """[sensor] the frame's row or column of each of the sensor's."""
    offsets = np.full(sensor, OUTSIDE)
    offsets[start : start + length] = np.arange(length) * size // length
    return offsets
