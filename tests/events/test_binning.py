from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spikebench.errors import UserError
from spikebench.events import EVENT
from spikebench.events.binning import (
    BISNN_T80,
    BISNN_T400,
    CIFAR48_T10,
    CIFAR48_T10_COUNT,
    SENSOR,
    Binning,
    bin_events,
    kept_share,
)

SMALL = (4, 3, 2)  # width, height, polarities


def recording(*events: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(events), dtype=EVENT)


def at(*times: int) -> np.ndarray:
    """Events at these times, all at x = 0, y = 0, p = 0."""
    return recording(*((t, 0, 0, 0) for t in times))


def random(count: int, sensor: tuple[int, int, int] = SENSOR, last_us: int = 1_000_000) -> np.ndarray:
    generator = np.random.default_rng(count)
    events = np.zeros(count, EVENT)
    events["t"] = np.sort(generator.integers(0, last_us, count))
    for name, end in zip("xyp", sensor, strict=True):
        events[name] = generator.integers(0, end, count)
    return events


def per_bin(events: np.ndarray, binning: Binning) -> list[int]:
    counts: list[int] = bin_events(events, binning, SMALL).sum(axis=(1, 2, 3)).tolist()
    return counts


class TestTime:
    def test_a_bin_holds_its_first_microsecond_and_not_its_last(self) -> None:
        binning = Binning(bins=3, span_us=30, binary=False)
        assert per_bin(at(0, 9, 10, 19, 20, 29), binning) == [2, 2, 2]

    def test_events_at_the_span_or_later_and_before_the_offset_are_left_out(self) -> None:
        events = at(4, 5, 34, 35, 99)
        binning = Binning(bins=3, span_us=30, offset_us=5, binary=False)
        assert per_bin(events, binning) == [1, 0, 1]
        assert kept_share(events, binning) == 2 / 5

    def test_a_short_recording_ends_in_empty_frames(self) -> None:
        assert per_bin(at(0, 12), Binning(bins=4, span_us=40, binary=False)) == [1, 1, 0, 0]

    def test_a_span_need_not_be_a_multiple_of_the_bins(self) -> None:
        """Bins of 10/3 us: 0-3, 4-6, 7-9."""
        assert per_bin(at(*range(12)), Binning(bins=3, span_us=10, binary=False)) == [4, 3, 3]

    @pytest.mark.parametrize(
        ("times", "expected"),
        [
            ((0, 9, 10, 25), [2, 1]),  # the third window, from 20 on, is not whole
            ((0, 10, 20), [1, 1]),  # two whole windows end at 20, where the last event is
            ((3, 4), [2]),  # shorter than a window
            ((), [0]),
        ],
    )
    def test_windows_are_as_many_as_fit(self, times: tuple[int, ...], expected: list[int]) -> None:
        events = at(*times)
        binning = Binning(window_us=10, binary=False)
        assert per_bin(events, binning) == expected
        assert kept_share(events, binning) == (sum(expected) / len(events) if times else 1.0)

    def test_bins_by_count_hold_equally_many_events_and_drop_the_rest(self) -> None:
        events = at(*range(11))
        binning = Binning(bins=3, binary=False)
        assert per_bin(events, binning) == [3, 3, 3]
        assert kept_share(events, binning) == 9 / 11
        assert per_bin(events, Binning(bins=3, binary=False, offset_us=5)) == [2, 2, 2]
        assert per_bin(at(1, 2), binning) == [0, 0, 0]

    def test_bins_by_count_count_the_events_inside_the_crop(self) -> None:
        events = recording((0, 3, 0, 0), (1, 3, 0, 0), (2, 0, 0, 0), (3, 3, 0, 0), (4, 1, 0, 0))
        binning = Binning(bins=2, binary=False, crop=(0, 0, 2, 2))
        assert per_bin(events, binning) == [1, 1]
        assert kept_share(events, binning) == 2 / 5

    @pytest.mark.parametrize("binning", [BISNN_T80, BISNN_T400, CIFAR48_T10, CIFAR48_T10_COUNT])
    def test_an_empty_recording_gives_empty_frames(self, binning: Binning) -> None:
        frames = bin_events(at(), binning)
        assert frames.shape == (binning.bins, *binning.frame_shape())
        assert not frames.any()
        assert kept_share(at(), binning) == 1.0


class TestSpace:
    def test_frames_are_time_polarity_row_column(self) -> None:
        frames = bin_events(recording((0, 3, 1, 1), (1, 3, 1, 1)), Binning(bins=1, span_us=2, binary=False), SMALL)
        assert frames.shape == (1, 2, 3, 4)
        assert frames.dtype == np.uint16
        assert frames[0, 1, 1, 3] == 2
        assert frames.sum() == 2

    def test_binary_frames_are_where_counts_are_not_zero(self) -> None:
        events = random(300, SMALL)
        counts = bin_events(events, Binning(bins=4, span_us=1_000_000, binary=False), SMALL)
        frames = bin_events(events, Binning(bins=4, span_us=1_000_000), SMALL)
        assert counts.max() > 1
        assert frames.dtype == bool
        assert np.array_equal(frames, counts > 0)

    def test_without_polarity_both_go_to_one_channel(self) -> None:
        events = recording((0, 1, 2, 0), (1, 1, 2, 1), (1, 0, 0, 1))
        frames = bin_events(events, Binning(bins=1, span_us=2, polarity=False, binary=False), SMALL)
        assert frames.tolist() == [[[[1, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]]]]

    def test_a_crop_is_rebased_and_keeps_its_edges(self) -> None:
        events = recording((0, 0, 1, 0), (0, 1, 1, 0), (0, 2, 2, 0), (0, 3, 2, 0), (0, 1, 0, 0))
        binning = Binning(bins=1, span_us=1, crop=(1, 1, 2, 2))
        assert bin_events(events, binning, SMALL)[0, 0].tolist() == [[True, False], [False, True]]
        assert kept_share(events, binning) == 2 / 5

    def test_the_crop_of_bisnn_holds_columns_and_rows_48_to_73(self) -> None:
        events = recording((0, 48, 48, 0), (0, 73, 73, 1), (5000, 47, 60, 0), (5000, 60, 74, 0), (1_999_999, 50, 60, 0))
        frames = bin_events(events, BISNN_T400)
        assert frames.shape == (400, 2, 26, 26)
        assert list(zip(*frames.nonzero(), strict=True)) == [(0, 0, 0, 0), (0, 1, 25, 25), (399, 0, 12, 2)]

    def test_shrinking_takes_the_whole_part_of_the_scaled_coordinate(self) -> None:
        """Columns 0-2, 3-5, 6-7 of each eight go to three."""
        every = recording(*((0, x, y, p) for x in range(128) for y in range(128) for p in range(2)))
        frames = bin_events(every, Binning(bins=1, span_us=1, size=(48, 48), binary=False))
        columns = np.bincount([x * 48 // 128 for x in range(128)])
        assert columns[:4].tolist() == [3, 3, 2, 3]
        assert np.array_equal(frames, np.broadcast_to(np.outer(columns, columns), (1, 2, 48, 48)))

    def test_shrinking_acts_on_the_crop_and_rows_are_not_columns(self) -> None:
        events = recording((0, 1, 0, 0), (0, 2, 1, 0), (0, 3, 2, 1))
        frames = bin_events(events, Binning(bins=1, span_us=1, crop=(1, 0, 3, 3), size=(3, 1), binary=False), SMALL)
        assert frames[0].tolist() == [[[1], [1], [0]], [[0], [0], [1]]]

    def test_counts_are_exact_up_to_65535_and_never_wrap(self) -> None:
        binning = Binning(bins=1, span_us=1, binary=False)
        for count in (255, 256, 65535):
            assert bin_events(at(*[0] * count), binning, SMALL)[0, 0, 0, 0] == count
        with pytest.raises(UserError, match=r"t 0, x 0, y 0, p 0\) is its cell's 65536th"):
            bin_events(at(*[0] * 65536), binning, SMALL)
        assert bin_events(at(*[0] * 65536), Binning(bins=1, span_us=1), SMALL).sum() == 1


class TestTonic:
    """tonic's bins begin at the first event; n_time_bins end before the last: the same span gives the same frames."""

    @pytest.mark.parametrize("count", [7, 3000])
    @pytest.mark.parametrize("dtype", ["ours", "int64", "mixed"])
    def test_frames_are_tonics(self, count: int, dtype: str) -> None:
        from tonic.transforms import ToFrame

        sensor = (34, 20, 2)
        events = random(count, sensor)
        types: dict[str, Any] = {
            "ours": EVENT,
            "int64": [(name, int) for name in "txyp"],
            "mixed": [("x", "u1"), ("y", ">u2"), ("t", "u8"), ("p", "?")],
        }
        if dtype == "mixed":
            events = events[["x", "y", "t", "p"]]
        events = events.astype(types[dtype])
        first, last = int(events["t"][0]), int(events["t"][-1])
        span = (last - first) // 20 * 20
        pairs = [
            ({"time_window": 10_000}, Binning(window_us=10_000, offset_us=first, binary=False)),
            ({"time_window": 10_000, "start_time": 0}, Binning(window_us=10_000, binary=False)),
            ({"n_event_bins": 20}, Binning(bins=20, binary=False)),
            ({"n_time_bins": 20}, Binning(bins=20, span_us=span, offset_us=first, binary=False)),
        ]
        for options, binning in pairs:
            expected = ToFrame(sensor_size=sensor, **options)(events)
            assert np.array_equal(bin_events(events, binning, sensor), expected)

    def test_titled_fields_of_tonics_cifar10_dvs_are_read(self) -> None:
        titled = np.dtype([(("timestamp", "t"), "<u8"), ("x", "<u2"), ("y", "<u2"), (("on", "p"), "?")])
        events = np.zeros(2, titled)
        events["x"] = [1, 3]
        assert bin_events(events, Binning(bins=1, span_us=1), SMALL)[0, 0, 0].tolist() == [False, True, False, True]


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({}, "binning: found none, allowed: bins and span_us, bins alone, window_us alone"),
            ({"span_us": 10}, "binning: found span_us, allowed: bins and"),
            ({"bins": 2, "window_us": 10}, "binning: found bins and window_us, allowed"),
            ({"bins": 0}, "bins: found 0, allowed: a whole number from 1 on"),
            ({"bins": True}, "bins: found True, allowed"),
            ({"bins": 2.0}, "bins: found 2.0, allowed"),
            ({"bins": 2, "span_us": -1}, "span_us: found -1, allowed"),
            ({"window_us": 0}, "window_us: found 0, allowed"),
            ({"bins": 2, "binary": "yes"}, "binary: found yes, allowed: true or false"),
            ({"bins": 2, "polarity": 2}, "polarity: found 2, allowed: true or false"),
            ({"bins": 2, "crop": (0, 0, 0, 4)}, r"crop: found \(0, 0, 0, 4\), allowed: \(x0, y0, width, height\)"),
            ({"bins": 2, "crop": (0, 0, 4)}, r"crop: found \(0, 0, 4\), allowed"),
            ({"bins": 2, "size": (48, 0)}, r"size: found \(48, 0\), allowed: \(height, width\)"),
            ({"bins": 2, "offset_us": 0.5}, "offset_us: found 0.5, allowed: a whole number"),
        ],
    )
    def test_a_wrong_setting_is_named(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Binning(**settings)

    def test_crop_and_size_must_fit_the_sensor(self) -> None:
        with pytest.raises(UserError, match=r"crop: found \(48, 48, 26, 26\), allowed: a part of the sensor, 4 wide"):
            bin_events(at(), BISNN_T80, SMALL)
        with pytest.raises(UserError, match=r"size: found \(48, 48\), allowed: at most .* \(3, 4\)"):
            bin_events(at(), CIFAR48_T10, SMALL)

    @pytest.mark.parametrize(
        "event", [(0, 4, 0, 0), (0, -1, 0, 0), (0, 0, 3, 0), (0, 0, -1, 0), (0, 0, 0, 2), (0, 0, 0, -1)]
    )
    def test_an_event_outside_the_sensor_is_named(self, event: tuple[int, int, int, int]) -> None:
        t, x, y, p = event
        message = rf"the event \(t {t}, x {x}, y {y}, p {p}\) lies outside the sensor, .* \(4, 3, 2\)"
        with pytest.raises(UserError, match=message):
            bin_events(recording((0, 0, 0, 0), event), Binning(bins=1, span_us=1), SMALL)

    def test_events_out_of_order_are_refused_rather_than_sorted(self) -> None:
        """Sorting would hide a reader's fault, and among equal times the order is not ours to choose."""
        with pytest.raises(UserError, match="event 2, at 3 us, follows one at 5 us; sort events by time first"):
            bin_events(at(1, 5, 3), Binning(bins=1, span_us=10))
        assert bin_events(at(1, 5, 5), Binning(bins=1, span_us=10, binary=False)).sum() == 3

    def test_fields_must_be_there_and_whole_numbers(self) -> None:
        with pytest.raises(UserError, match=r"events: found .*, allowed: integer fields t, x, y, p"):
            bin_events(np.zeros(3, [("t", int), ("x", int), ("y", int)]), BISNN_T80)
        with pytest.raises(UserError, match="events: found float64, allowed: integer fields"):
            bin_events(np.zeros((3, 4)), BISNN_T80)
        with pytest.raises(UserError, match="events: field t: found float64, allowed: integers"):
            bin_events(np.zeros(3, [("t", float), ("x", int), ("y", int), ("p", int)]), BISNN_T80)
