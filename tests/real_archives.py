"""Archives laid out like those of MNIST-DVS and CIFAR10-DVS: 10,000 tiny AEDAT files each, which say who they are.

Recording n of class c has an ON event for each bit b that is set in n, in column b of row c, at b tenths of its span;
and an OFF event at time 0 in column 11. ``crop`` and ``shrunk`` say where on the sensor the frames' pixels are.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
import torch

from spikebench.data import Stored
from spikebench.events import EVENT, aedat, files
from spikebench.events.prepared import Item

BITS = 10
Place = Callable[[int], int]


def recording(item: Item, place: Place, span_us: int) -> np.ndarray:
    """The events, [1 + bits] of ``EVENT``."""
    bits = [b for b in range(BITS) if item.number >> b & 1]
    events = np.zeros(1 + len(bits), EVENT)
    events["y"] = place(item.label)
    events["x"][0] = place(11)
    events["x"][1:] = [place(b) for b in bits]
    events["t"][1:] = [b * span_us // 10 for b in bits]
    events["p"][1:] = 1
    return events


def who(inputs: Stored, layout: tuple[int, ...]) -> list[Item]:
    """Which recordings these frames are of, where ``place`` is that of the frames' own columns and rows."""
    frames = inputs.load()[..., :-1]
    shown = frames.reshape(*frames.shape[:2], *layout).amax(dim=1)
    assert shown[:, 0, :, 11].sum(dim=1).eq(1).all(), "one OFF event, in the row of the class"
    items = []
    for off, on in zip(shown[:, 0], shown[:, 1], strict=True):
        label = int(off[:, 11].argmax())
        assert set(on.nonzero()[:, 0].tolist()) <= {label}, "number 0 has no bits"
        items.append(Item(label, int(on[label, :BITS].int() @ 2 ** torch.arange(BITS, dtype=torch.int32))))
    return items


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def crop(index: int) -> int:
    """Columns and rows of the sensor that lie in MNIST-DVS' crop."""
    return 48 + index


def shrunk(index: int) -> int:
    """Columns and rows of the sensor that are column ``index`` of 48."""
    return -(-index * 128 // 48)


def mnist_dvs() -> dict[str, bytes]:
    """``grabbed_data0.zip`` to ``grabbed_data9.zip``; of the scales 8 and 16 one file each."""
    archives = {}
    for label in range(10):
        members = {}
        for number in range(1, 1001):
            content = aedat.encode(recording(Item(label, number), crop, 2_000_000))
            members[f"grabbed_data{label}/scale4/mnist_{label}_scale04_{number:04d}.aedat"] = content
        for scale in (8, 16):
            members[f"grabbed_data{label}/scale{scale}/mnist_{label}_scale{scale:02d}_0001.aedat"] = b"not read"
        archives[f"grabbed_data{label}.zip"] = zipped(members)
    return archives


def cifar10_dvs() -> dict[str, bytes]:
    """``airplane.zip`` to ``truck.zip``."""
    return {
        f"{name}.zip": zipped(
            {
                f"{name}/cifar10_{name}_{number}.aedat": aedat.encode(recording(Item(label, number), shrunk, 1_300_000))
                for number in range(1000)
            }
        )
        for label, name in enumerate(files.OBJECTS)
    }
