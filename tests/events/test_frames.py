from __future__ import annotations

import hashlib
import math
import os
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from spikebench.errors import UserError
from spikebench.events.frames import Frames, prefetch, write_part

Shape = tuple[int, int, int, int]


def binary(count: int, shape: Shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *shape)) < 0.4


class TestFrames:
    @pytest.mark.parametrize(
        "shape", [(1, 1, 1, 1), (3, 2, 2, 1), (1, 1, 2, 4), (4, 1, 1, 3), (5, 2, 3, 3), (2, 1, 7, 9)]
    )
    def test_packed_bits_come_back_as_numpy_unpacks_them(self, tmp_path: Path, shape: Shape) -> None:
        recordings = binary(6, shape)
        path = tmp_path / "part.npy"
        checksum = write_part(path, recordings)
        assert checksum == hashlib.sha256(path.read_bytes()).hexdigest()
        packed = np.load(path)
        assert packed.shape == (6, math.ceil(math.prod(shape) / 8))
        frames = Frames([path], shape, binary=True)
        assert frames.shape == shape
        assert len(frames) == 6
        rows = torch.tensor([[5, 0, 0], [2, 4, -1]])
        read = frames.read(rows)
        assert read.dtype == torch.float32
        assert read.shape == (2, 3, shape[0], math.prod(shape[1:]))
        unpacked = np.unpackbits(packed[rows.numpy()], axis=-1, count=math.prod(shape))
        assert np.array_equal(read.numpy(), unpacked.reshape(read.shape))
        assert np.array_equal(read.numpy(), recordings[rows.numpy()].reshape(read.shape))
        with_constant = Frames([path], shape, binary=True, constant=True).read(rows)
        assert torch.equal(with_constant, torch.cat([read, torch.ones_like(read[..., :1])], dim=-1))

    @pytest.mark.parametrize(("largest", "dtype"), [(1, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16")])
    def test_counts_take_the_smallest_integers_that_hold_them(self, tmp_path: Path, largest: int, dtype: str) -> None:
        counts = np.zeros((3, 2, 1, 2, 3), np.uint16)
        counts[1, 1, 0, 1, 2] = largest
        write_part(tmp_path / "part.npy", iter(counts))
        assert np.load(tmp_path / "part.npy").dtype == dtype
        for constant in (False, True):
            read = Frames([tmp_path / "part.npy"], (2, 1, 2, 3), False, constant).read([2, 1])
            assert np.array_equal(read[..., :6].numpy(), counts[[2, 1]].reshape(2, 2, 6))
            assert torch.equal(read[..., 6:], torch.ones(2, 2, int(constant)))

    def test_parts_are_one_array_and_selections_nest(self, tmp_path: Path) -> None:
        shape = (2, 2, 3, 3)
        recordings = binary(9, shape)
        paths = [tmp_path / f"{name}.npy" for name in "abc"]
        for path, part in zip(paths, np.split(recordings, [4, 5]), strict=True):
            write_part(path, part)
        frames = Frames(paths, shape, binary=True)
        expected = torch.from_numpy(recordings.reshape(9, 2, 18).astype(np.float32))
        order = [8, 0, 4, 3, 5, 4]
        assert torch.equal(frames.read(order), expected[order])
        chosen = frames.select(torch.tensor([8, 3, 4, 0])).select([1, 2])
        assert len(chosen) == 2
        assert torch.equal(chosen.read(torch.tensor([1, 0, 1])), expected[[4, 3, 4]])
        assert len(frames) == 9
        assert frames.read(torch.zeros((2, 0), dtype=torch.int64)).shape == (2, 0, 2, 18)

    @pytest.mark.parametrize("row", [3, -4])
    def test_a_row_that_is_not_there_is_refused(self, tmp_path: Path, row: int) -> None:
        write_part(tmp_path / "part.npy", binary(3, (1, 1, 2, 2)))
        frames = Frames([tmp_path / "part.npy"], (1, 1, 2, 2), binary=True)
        with pytest.raises(IndexError):
            frames.read([row])
        with pytest.raises(IndexError):
            frames.select([0, 1]).read([2])

    def test_threads_may_read_at_the_same_time(self, tmp_path: Path) -> None:
        shape = (20, 2, 10, 10)
        recordings = binary(8, shape)
        write_part(tmp_path / "part.npy", recordings)
        frames = Frames([tmp_path / "part.npy"], shape, binary=True)
        with ThreadPoolExecutor(4) as threads:
            for row, read in enumerate(threads.map(frames.read, list(range(8)) * 5)):
                assert np.array_equal(read.numpy(), recordings[row % 8].reshape(20, 200))

    def test_a_file_larger_than_memory_is_read_in_place(self, tmp_path: Path) -> None:
        """100 GB, of which nearly all is a hole."""
        shape = (400, 2, 26, 26)
        packed = np.lib.format.open_memmap(tmp_path / "part.npy", "w+", np.uint8, (1_500_000, math.prod(shape) // 8))
        packed[1_234_567, -1] = 1
        del packed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        frames = Frames([tmp_path / "part.npy"], shape, binary=True)
        read = frames.read([1_234_567, 7])
        assert read.sum() == 1
        assert read[0, -1, -1] == 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


class TestRefusals:
    shape = (3, 1, 3, 3)  # 27 bits, 4 bytes

    def refused(self, path: Path, message: str, binary: bool = True) -> None:
        with pytest.raises(UserError, match=message) as caught:
            Frames([path], self.shape, binary)
        assert str(path.parent) not in str(caught.value)

    def test_a_file_cut_short(self, tmp_path: Path) -> None:
        path = tmp_path / "part.npy"
        write_part(path, binary(9, self.shape))
        whole = path.stat().st_size
        for size in (whole - 1, 130, 20, 0):
            os.truncate(path, size)
            self.refused(path, r"part.npy: found no whole .npy file \(.+\), expected rows of 4 uint8, of 27 bits")

    def test_no_file_and_something_else(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "gone.npy", r"gone.npy: found no whole .npy file \(No such file or directory\)")
        (tmp_path / "text.npy").write_text("hello, this is no array at all")
        self.refused(tmp_path / "text.npy", "text.npy: found no whole .npy file")
        np.savez(tmp_path / "zip.npz", a=np.zeros(3))
        self.refused(tmp_path / "zip.npz", "zip.npz: found NpzFile, expected rows of 4 uint8")

    def test_pickles_are_never_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        self.refused(tmp_path / "objects.npy", "objects.npy: found no whole .npy file")

    @pytest.mark.parametrize(
        ("array", "is_binary", "found"),
        [
            (np.zeros((2, 5), np.uint8), True, r"uint8 \[2, 5\], expected rows of 4 uint8, of 27 bits"),
            (np.zeros((2, 4), np.int8), True, r"int8 \[2, 4\]"),
            (np.zeros(4, np.uint8), True, r"uint8 \[4\]"),
            (np.zeros((4, 2), np.uint8).T, True, None),
            (
                np.zeros((2, 27), np.float32),
                False,
                r"float32 \[2, 27\], expected rows of 27 uint8 or uint16, of 27 counts",
            ),
            (np.zeros((2, 4), np.uint8), False, r"uint8 \[2, 4\], expected rows of 27"),
        ],
    )
    def test_arrays_of_another_kind(
        self, tmp_path: Path, array: np.ndarray, is_binary: bool, found: str | None
    ) -> None:
        path = tmp_path / "part.npy"
        np.save(path, array)
        if found is None:  # only the order of its bytes is another
            assert Frames([path], self.shape, is_binary).read([1]).shape == (1, 3, 9)
        else:
            self.refused(path, f"part.npy: found {found}", is_binary)

    def test_recordings_of_several_shapes_or_kinds_or_none_make_no_part(self, tmp_path: Path) -> None:
        path = tmp_path / "part.npy"
        for recordings in (
            [np.zeros((2, 1, 1, 3), bool), np.zeros((2, 1, 1, 2), bool)],
            [np.zeros((1, 1, 1, 1), bool), np.zeros((1, 1, 1, 1), np.uint16)],
            [],
        ):
            with pytest.raises(UserError, match=r"part.npy: found recordings of \[.*\], allowed: one shape and kind"):
                write_part(path, recordings)
        assert os.listdir(tmp_path) == []


class TestPrefetch:
    @pytest.mark.parametrize("ahead", [1, 3, 50])
    def test_results_come_in_the_order_of_requests(self, ahead: int) -> None:
        def read(n: int) -> int:
            time.sleep(0.002 * (n % 3))
            return n * n

        assert list(prefetch(range(10), read, ahead)) == [n * n for n in range(10)]
        assert list(prefetch([], read, ahead)) == []

    def test_the_next_is_read_while_the_caller_works_and_no_more(self) -> None:
        started = [threading.Event() for _ in range(4)]

        def read(n: int) -> int:
            started[n].set()
            return n

        for n in prefetch(range(4), read):
            if n < 3:
                assert started[n + 1].wait(5)
            time.sleep(0.01)
            assert not any(event.is_set() for event in started[n + 2 :])

    def test_requests_are_taken_in_the_callers_thread(self) -> None:
        threads = set()

        def requests() -> Iterator[int]:
            for n in range(3):
                threads.add(threading.current_thread())
                yield n

        readers = set(prefetch(requests(), lambda n: threading.current_thread()))
        assert threads == {threading.current_thread()}
        assert len(readers) == 1 and not readers & threads

    def test_an_error_is_raised_where_its_result_would_have_come(self) -> None:
        def read(n: int) -> int:
            if n == 2:
                raise UserError("broken part")
            return n

        seen = []
        with pytest.raises(UserError, match="broken part"):
            for n in prefetch(range(5), read):
                seen.append(n)
        assert seen == [0, 1]
        assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]

    def test_closing_drops_what_waits_and_ends_the_thread(self) -> None:
        started = []

        def read(n: int) -> int:
            started.append(n)
            time.sleep(0.3 if n else 0)
            return n

        reading = prefetch(range(1000), read, ahead=5)
        assert next(reading) == 0
        reading.close()
        assert len(started) <= 2
        assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
        assert list(reading) == []
