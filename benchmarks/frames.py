"""Speed of reading binned recordings from disk (in the page cache), and what reading ahead gains on two cores.

Recordings are MNIST-DVS's as BiSNN bins them, minibatches 64 of them in random order, as float32. The peers are
``numpy.unpackbits`` on the same mapped file, and tonic's ``DiskCachedDataset`` with its frames of int16 in HDF5.

    python benchmarks/frames.py
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from timing import best_of
from tonic import DiskCachedDataset

from spikebench.events.binning import BISNN_T80, BISNN_T400
from spikebench.events.frames import Frames, prefetch, write_part

RECORDINGS, BATCH, ACTIVE, HIDDEN, STEPS = 256, 64, 0.03, 32, 10


def compare(shape: tuple[int, int, int, int], folder: Path) -> None:
    """Print the times of one shape of recordings."""
    generator = np.random.default_rng(0)
    recordings = [generator.random(shape) < ACTIVE for _ in range(RECORDINGS)]
    write_part(folder / "part.npy", recordings)
    frames = Frames([folder / "part.npy"], shape, binary=True)
    mapped = np.load(folder / "part.npy", mmap_mode="r")
    cached = DiskCachedDataset([(r.astype(np.int16), 0) for r in recordings], cache_path=str(folder / "tonic"))
    rows = torch.from_numpy(generator.permutation(RECORDINGS)[:BATCH])
    values = math.prod(shape)

    def numpy_read() -> np.ndarray:
        return np.unpackbits(mapped[rows], axis=1, count=values).astype(np.float32)

    def tonic_read() -> np.ndarray:
        return np.stack([cached[int(row)][0] for row in rows]).astype(np.float32)

    ours = frames.read(rows).numpy().reshape(BATCH, -1)
    assert np.array_equal(ours, numpy_read()) and np.array_equal(ours, tonic_read().reshape(BATCH, -1))
    fast = best_of(lambda: frames.read(rows))
    print(f"T = {shape[0]}, {values} values a recording, {len(mapped[0]) / 1e3:.1f} kB on disk")
    for name, seconds in (("Frames.read", fast), ("numpy", best_of(numpy_read)), ("tonic", best_of(tonic_read))):
        rate = f"{BATCH / seconds:10.0f} recordings/s {BATCH * values * 4e-9 / seconds:6.2f} GB/s"
        print(f"  {name:<12}{rate}{seconds / fast:8.1f}x the time")

    weights = torch.zeros(math.prod(shape[1:]), HIDDEN)
    batches = [torch.from_numpy(generator.permutation(RECORDINGS)[:BATCH]) for _ in range(STEPS)]

    def train(minibatches: Iterable[torch.Tensor]) -> None:
        for minibatch in minibatches:
            torch.relu(minibatch @ weights).sum()

    present = frames.read(rows)
    step = best_of(lambda: train([present] * STEPS))
    in_turn = best_of(lambda: train(map(frames.read, batches)))
    ahead = best_of(lambda: train(prefetch(batches, frames.read)))
    print(
        f"  {STEPS} minibatches through a layer of {HIDDEN} neurons on one thread: in turn {in_turn * 1e3:.0f} ms, "
        f"read ahead {ahead * 1e3:.0f} ms -> {in_turn / ahead:.2f}x; without reading {step * 1e3:.0f} ms"
    )


def main() -> None:
    """Compare at both of BiSNN's bin widths."""
    torch.set_num_threads(1)
    for binning in (BISNN_T80, BISNN_T400):
        assert binning.bins is not None
        with tempfile.TemporaryDirectory() as folder:
            compare((binning.bins, *binning.frame_shape()), Path(folder))


if __name__ == "__main__":
    main()
