"""Speed of the AEDAT 2.0 reader on one core.

It has no peer to be compared with: tonic's ``read_dvs_128`` fails on every file (1.7.0), and other packages read other
formats. Beside it stand

* plain numpy with the same arithmetic and no check, right only for a perfect file: an upper bound;
* expelliarmus, written in C, if it is installed: the same events as Prophesee DAT, which has records of 8 bytes too.

    python benchmarks/aedat.py [million events]
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
from timing import best_of

from spikebench.events import EVENT, aedat

TYPICAL = 205_071  # events of a CIFAR10-DVS recording, on average
REQUIRED = 20e6  # events a second


def random_events(count: int) -> np.ndarray:
    """In order, over 1.3 s for every typical recording's worth."""
    rng = np.random.default_rng(0)
    events = np.zeros(count, EVENT)
    events["t"] = np.sort(rng.integers(0, int(1.3e6 * count / TYPICAL) + 1, count))
    events["t"] -= events["t"][0]
    events["x"], events["y"] = rng.integers(0, aedat.SIDE, (2, count))
    events["p"] = rng.integers(0, 2, count)
    return events


def plain(path: Path, header: int) -> np.ndarray:
    """What numpy needs at least for the same array, if nothing can be wrong."""
    address, t = np.frombuffer(path.read_bytes(), ">u4", offset=header).reshape(-1, 2).astype(np.uint32).T
    events = np.empty(len(t), EVENT)
    events["t"] = t
    events["x"], events["y"], events["p"] = 127 - (address >> 8), 127 - (address >> 1 & 127), 1 - (address & 1)
    return events


def main() -> None:
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    slowest = np.inf
    with tempfile.TemporaryDirectory() as folder:
        for name, count in (("one recording", TYPICAL), ("a long file", int(millions * 1e6))):
            events = random_events(count)
            path = Path(folder) / "a.aedat"
            aedat.write(path, events)
            header = path.stat().st_size - 8 * count
            assert (aedat.read(path).events == events).all() and (plain(path, header) == events).all()
            tangled = Path(folder) / "tangled.aedat"  # the worst case: everything has to be sorted
            aedat.write(tangled, events[np.random.default_rng(1).permutation(count)])

            ours = count / best_of(lambda p=path: aedat.read(p))
            sorting = count / best_of(lambda p=tangled: aedat.read(p))
            bound = count / best_of(lambda p=path, h=header: plain(p, h))
            slowest = min(slowest, ours)
            print(f"{name}, {count / 1e6:.2f} million events, one core, from the disk's cache:")
            print(f"  aedat.read                    {ours / 1e6:6.1f} million events a second")
            print(f"  aedat.read, events in disorder {sorting / 1e6:5.1f}")
            print(f"  plain numpy, no checks        {bound / 1e6:6.1f} -> aedat.read is {ours / bound:.2f}x")
            if importlib.util.find_spec("expelliarmus") is None:
                print("  expelliarmus is not installed (pip install expelliarmus)")
                continue
            from expelliarmus import Wizard

            wizard, other = Wizard(encoding="dat"), Path(folder) / "a.dat"
            wizard.save(other, events.astype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")]))
            assert (wizard.read(other)["t"] == events["t"]).all()
            peer = count / best_of(lambda w=wizard, o=other: w.read(o))
            print(f"  expelliarmus, DAT             {peer / 1e6:6.1f} -> aedat.read is {ours / peer:.2f}x")
    print(f"required are {REQUIRED / 1e6:.0f} million events a second: {'met' if slowest >= REQUIRED else 'NOT met'}")
    sys.exit(slowest < REQUIRED)


if __name__ == "__main__":
    main()
