from __future__ import annotations

import contextlib
import struct
import time
from typing import get_args

import numpy as np
import pytest

from spikebench.errors import UserError
from spikebench.events import EVENT, aedat
from spikebench.events.aedat import AedatError, Recording

VERSION = b"#!AER-DAT2.0\r\n"
# As jAER writes it, with a byte outside ASCII.
JAER = (
    VERSION
    + b"# This is a raw AE data file - do not edit\r\n# Timestamps tick is 1 us\r\n# created M\xe4rz\r\n"
    + b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n#End Of ASCII Header\r\n"
)
ORIENTATIONS = get_args(aedat.Orientation)


def records(*pairs: tuple[int, int]) -> bytes:
    """Of (address, time)."""
    return b"".join(struct.pack(">II", *pair) for pair in pairs)


def rows(recording: Recording) -> list[tuple[int, int, int, int]]:
    return [tuple(event) for event in recording.events.tolist()]


def times(recording: Recording) -> list[int]:
    return recording.events["t"].tolist()


def random_events(rng: np.random.Generator, longest: int = 300) -> np.ndarray:
    """In order from t = 0, with equal times and, seldom, gaps so long that the clock of the file overflows."""
    count = int(rng.integers(1, longest))
    gaps = rng.integers(0, 50, count)
    gaps[rng.random(count) < 0.03] = (1 << 31) - 1
    events = np.zeros(count, EVENT)
    events["t"] = np.cumsum(gaps) - gaps[0]
    events["x"], events["y"] = rng.integers(0, 128, (2, count))
    events["p"] = rng.integers(0, 2, count)
    return events


@pytest.mark.parametrize(
    ("orientation", "pixel"),
    [
        ("raw", lambda x, y: (x, y)),
        ("jaer", lambda x, y: (127 - x, y)),
        ("upright", lambda x, y: (127 - y, 127 - x)),
    ],
)
def test_each_bit_of_an_address(orientation, pixel):
    for bit in range(15):
        x = 1 << (bit - 1) if 1 <= bit <= 7 else 0
        y = 1 << (bit - 8) if 8 <= bit <= 14 else 0
        polarity = 0 if bit == 0 else 1
        content = VERSION + records((1 << bit, 5))
        assert rows(aedat.decode(content, orientation=orientation)) == [(0, *pixel(x, y), polarity)], bit


def test_bytes_written_out_by_hand():
    # y_raw 0x12 = 18, x_raw 0x35 >> 1 = 26, bit 0 set: OFF; one second and 2 us.
    content = VERSION + bytes.fromhex("00001235 000f4242") + bytes.fromhex("00001234 000f4244")
    assert rows(aedat.decode(content)) == [(0, 109, 101, 0), (2, 109, 101, 1)]
    assert rows(aedat.decode(content, orientation="jaer", rezero=False)) == [
        (1000002, 101, 18, 0),
        (1000004, 101, 18, 1),
    ]
    assert aedat.encode(aedat.decode(content, rezero=False).events).endswith(content[len(VERSION) :])


@pytest.mark.parametrize("bit", [15, 31])
def test_special_events_are_dropped_and_counted(bit):
    # One of them is sign-extended, as from a 16-bit address; none of the bits below means a pixel.
    content = JAER + records((1 << bit | 0x7F, 7), (2, 10), (0xFFFF_8000, 11), (4, 12))
    recording = aedat.decode(content, orientation="raw")
    assert rows(recording) == [(0, 1, 0, 1), (2, 2, 0, 1)]
    assert recording[1:] == (2, 0, 0, 0)
    assert aedat.decode(JAER + records((1 << bit, 7))).special == 1


@pytest.mark.parametrize("bit", range(16, 31))
def test_bits_that_no_dvs128_sets_name_file_and_byte(bit):
    with pytest.raises(
        AedatError, match=rf"^a\.aedat, byte {len(JAER) + 16}: found the address 0x{1 << bit:08x}"
    ) as error:
        aedat.decode(JAER + records((0, 0), (1 << 15, 1), (1 << bit, 2)), "a.aedat")
    assert error.value.offset == len(JAER) + 16
    assert isinstance(error.value, UserError)


def test_a_wrap_is_told_from_disorder():
    top = 1 << 32
    wrap = aedat.decode(VERSION + records((2, top - 3), (4, top - 1), (6, 2), (8, 5)), rezero=False)
    assert times(wrap) == [top - 3, top - 1, top + 2, top + 5]
    assert wrap[1:] == (0, 0, 0, 1)
    disorder = aedat.decode(VERSION + records((2, 50), (4, 40), (6, 60), (8, 40)), orientation="raw")
    assert rows(disorder) == [(0, 2, 0, 1), (0, 4, 0, 1), (10, 1, 0, 1), (20, 3, 0, 1)]  # stable, from the earliest
    assert disorder[1:] == (0, 0, 2, 0)
    both = aedat.decode(VERSION + records((2, 3), (4, top - 2), (6, 4)), orientation="raw", rezero=False)
    assert rows(both) == [(top - 2, 2, 0, 1), (top + 3, 1, 0, 1), (top + 4, 3, 0, 1)]
    assert both[1:] == (0, 0, 1, 1)
    # A leap forwards by less than half a turn is time that passes; three of them overflow the clock.
    half = (1 << 31) - 1
    leaps = aedat.decode(VERSION + records(*((0, (9 + k * half) % top) for k in range(4))))
    assert times(leaps) == [0, half, 2 * half, 3 * half]


@pytest.mark.parametrize("extra", range(1, 8))
def test_an_unfinished_record_is_dropped_and_counted(extra):
    whole = JAER + records((2, 10), (4, 12))
    recording = aedat.decode(whole + b"\0" * extra)
    assert recording.truncated == extra
    assert rows(recording) == rows(aedat.decode(whole))


@pytest.mark.parametrize(
    "header",
    [
        VERSION,
        VERSION.replace(b"\r\n", b"\n"),
        JAER,
        JAER.replace(b"\r\n", b"\n"),
        JAER.replace(b"\r\n", b"\r\r\n"),
        VERSION + b"#\r\n#\ttab\r\n# End of ASCII Header\r\n",
        VERSION + b"#!END-HEADER\r\n",
        b"",
        b"# no version line\r\n",
    ],
)
def test_headers(header):
    content = header + records((0x0A23, 0x230A), (4, 0x230D))
    assert rows(aedat.decode(content, orientation="raw")) == [(0, 17, 10, 0), (3, 2, 0, 1)]
    assert rows(aedat.decode(memoryview(content), orientation="raw"))[0] == (0, 17, 10, 0)


def test_a_record_that_begins_like_a_header_line_is_a_record():
    # Special events: '#', then control characters before the line feed; or printable, after the header's last line.
    assert aedat.decode(VERSION + records((0x2300_800A, 1), (2, 2)))[1:] == (1, 0, 0, 0)
    printable = b"#a\xe4b" + b"abc\n"
    assert aedat.decode(JAER + printable + records((2, 2))).special == 1
    assert aedat.decode(VERSION + printable + records((2, 2))).special == 0  # without one they look the same


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: found 0 bytes of data and no version"),
        (b"#!AER-DAT1.0\r\n" + bytes(12), "byte 0: found AEDAT 1.0, expected AEDAT 2.0"),
        (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "byte 0: found AEDAT 3.1, expected AEDAT 2.0"),
        (b"#!AER-DAT4.0\r\n\x10\0", "byte 0: found AEDAT 4.0, expected AEDAT 2.0"),
        (
            b"# AEDAT 1.0, two records\r\n" + bytes(12),
            "byte 26: found 12 bytes of data and no version, expected #!AER-DAT2.0",
        ),
        (struct.pack(">HIHIHIHI", 2, 5, 4, 6, 6, 7, 8, 8), "byte 0: found the address 0x00020000.* or AEDAT 1.0"),
        (VERSION + b"# cut short", "byte 14: found the address 0x23206375"),
    ],
)
def test_other_files_are_refused_with_a_reason(content, message):
    with pytest.raises(AedatError, match=r"^a\.aedat, " + message):
        aedat.decode(content, "a.aedat")


def test_a_recording_without_events_is_empty():
    assert aedat.decode(JAER).events.tolist() == []
    assert aedat.decode(aedat.encode(np.zeros(0, EVENT)))[1:] == (0, 0, 0, 0)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_round_trip(orientation, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "new" / "a.aedat"
    for _ in range(200):
        events = random_events(rng)
        start = int(rng.integers(0, 1 << 32))
        shifted = events.copy()
        shifted["t"] += start
        content = aedat.encode(shifted, orientation)
        recording = aedat.decode(content, orientation=orientation)
        assert recording.events.tolist() == events.tolist()
        assert recording[1:] == (0, 0, 0, shifted["t"][-1] >> 32)
        clock = aedat.decode(content, orientation=orientation, rezero=False)
        assert clock.events.tolist() == shifted.tolist()
    aedat.write(path, events, orientation, header=["made by a test"])
    assert aedat.read(path, orientation).events.tolist() == events.tolist()
    assert path.read_bytes().startswith(VERSION + b"#made by a test\r\n")
    assert [file.name for file in path.parent.iterdir()] == ["a.aedat"]


@pytest.mark.parametrize(
    "change",
    [{"x": 128}, {"y": -1}, {"p": 2}, {"p": -1}, {"t": -1}, {"t": 1 << 31}],
)
def test_what_the_format_cannot_hold_is_not_written(change, tmp_path):
    events = np.zeros(3, EVENT)
    for name, value in change.items():
        events[name][1] = value
    with pytest.raises(ValueError, match="event 1 is"):
        aedat.write(tmp_path / "a.aedat", events)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["two\nlines", "a\0b", "umlaut ü"])
def test_header_lines_that_would_not_read_back_are_not_written(line):
    with pytest.raises(ValueError):
        aedat.encode(np.zeros(0, EVENT), header=[line])


def test_wrong_paths_and_orientations_are_the_users(tmp_path):
    with pytest.raises(AedatError, match=r"none\.aedat, byte 0: the file cannot be read \(No such file"):
        aedat.read(tmp_path / "none.aedat")
    with pytest.raises(AedatError, match="cannot be read"):
        aedat.read(tmp_path)
    with pytest.raises(UserError, match="orientation: found 'upside-down', allowed: upright, jaer, raw"):
        aedat.decode(VERSION + records((0, 0)), orientation="upside-down")  # type: ignore[arg-type]


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    """With up to eight changes: bits flipped, bytes replaced, taken out, put in or repeated, the end cut off."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(0, len(changed) + 1))
        size = int(rng.integers(1, 20))
        piece = rng.choice([rng.bytes(size), b"#", b"\r\n", VERSION, b"\0" * size, b"\xff" * size])
        match int(rng.integers(0, 6)):
            case 0 if at < len(changed):
                changed[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                changed[at : at + len(piece)] = piece
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = piece
            case 4:
                changed[at:at] = changed[at : at + size]
            case 5:
                del changed[at:]
    return bytes(changed)


def fuzz(seed: int, files: int) -> None:
    rng = np.random.default_rng(seed)
    whole = [
        header + aedat.encode(random_events(rng, 40))[len(aedat.encode(np.zeros(0, EVENT))) :]
        for header in (VERSION, JAER, JAER.replace(b"\r\n", b"\n"), b"")
    ]
    read = refused = 0
    began = time.monotonic()
    for number in range(files):
        content = mutated(rng, whole[number % len(whole)])
        try:
            recording = aedat.decode(content, "a.aedat", ORIENTATIONS[number % 3])
        except AedatError as error:
            refused += 1
            assert str(error).startswith(f"a.aedat, byte {error.offset}: ")
            assert 0 <= error.offset <= len(content)
            continue
        read += 1
        events = recording.events
        rest = len(content) - 8 * (len(events) + recording.special) - recording.truncated
        assert rest >= 0 and content[:rest].startswith(b"#" if rest else b"")  # what is left is the header
        assert 0 <= recording.truncated < 8 and recording.wraps >= 0 and recording.disordered >= 0
        if len(events):
            assert events["t"][0] == 0 and (np.diff(events["t"]) >= 0).all()
            assert 0 <= min(events["x"].min(), events["y"].min()) <= max(events["x"].max(), events["y"].max()) < 128
            assert set(events["p"].tolist()) <= {0, 1}
    assert min(read, refused) > files / 10  # both ends are met
    assert time.monotonic() - began < 10 + files / 1000


def test_mutated_files_give_events_or_the_error():
    fuzz(seed=0, files=2000)


@pytest.mark.slow
def test_a_hundred_thousand_mutated_files_give_events_or_the_error():
    fuzz(seed=1, files=100_000)


def test_a_long_header_takes_no_long_time():
    began = time.monotonic()
    for content in (VERSION + b"#\n" * 500_000, b"#" * 1_000_000 + b"\0" * 8, VERSION + b"#End" * 250_000):
        with contextlib.suppress(AedatError):
            aedat.decode(content)
    assert time.monotonic() - began < 5


def test_equal_recordings_are_equal_bytes_in_memory_too():
    content = VERSION + records((2, 10), (4, 5))
    assert aedat.decode(content).events.tobytes() == aedat.decode(content).events.tobytes()
    assert np.frombuffer(aedat.decode(content).events.tobytes(), np.uint8).reshape(-1, 16)[:, 13:].max() == 0
