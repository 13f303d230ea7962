"""Event data sets made ready for training: recordings are binned once, kept packed on disk, and read in minibatches.

A data set's plug-in says which recordings there are and how one is had (read from its archive, or filmed by the camera
model); this does the rest. A class of recordings is one file, written whole: a run that was cut off goes on with the
next class. The folder's name covers data, settings and code, so that what lies there is never stale.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from spikebench.data import DataSettings, Provenance, SpikeData, Split, Stored, hash_split, stratified_order
from spikebench.errors import Unavailable, UserError
from spikebench.events.binning import Binning, bin_events, kept_share
from spikebench.events.frames import Frames, write_part
from spikebench.paths import Store, project_root, replacing
from spikebench.plugins import fingerprint_of
from spikebench.preparation import engine_fingerprint
from spikebench.seeds import digest
from spikebench.store import identity
from spikebench.unpacking import alone

Say = Callable[[str], None]

#: Bins of the rate over time that is kept of each class.
RATE_BINS = 50


class Item(NamedTuple):
    """One recording: its class, and its number within the class as the archive counts."""

    label: int
    number: int


@dataclass(frozen=True)
class Recordings:
    """The recordings that a data set consists of.

    Attributes:
        name: of the plug-in.
        training: what learners may see.
        test: what they may not.
        record: the events of one recording; called from several threads.
        binning: how they become frames.
        duration_us: of the rate over time.
        scale: what a count is multiplied with to become a current.
        provenance: where they come from; its sha256 is that of the frames, filled in when they are made.
        classes: names.
    """

    name: str
    training: Sequence[Item]
    test: Sequence[Item]
    record: Callable[[Item], np.ndarray]
    binning: Binning
    duration_us: int
    provenance: Provenance
    classes: tuple[str, ...]
    scale: float = 1.0


def prepare(recordings: Recordings, folder: Path, workers: int = 1, say: Say = lambda sentence: None) -> dict[str, Any]:
    """Bin all recordings into ``folder``, a part a class; what is there already, unchanged, is left as it is.

    Args:
        recordings: what to bin.
        folder: of this data set, these settings and this code.
        workers: threads; reading, filming and binning run without the interpreter's lock.
        say: hears a sentence a class.

    Returns:
        The manifest: frame shape, parts with their hash and statistics, and a hash of all.
    """
    with alone(folder, lambda: say(f"{recordings.name}: another process is at it")):
        return _prepare(recordings, folder, workers, say)


def _prepare(recordings: Recordings, folder: Path, workers: int, say: Say) -> dict[str, Any]:
    shape: list[int] = []
    parts = []
    for label, name in enumerate(recordings.classes):
        items = [item for item in (*recordings.training, *recordings.test) if item.label == label]
        described = folder / f"class-{label:02d}.json"
        part = _read(described)
        if part is None or _stamp(folder / f"class-{label:02d}.npy") != part["stamp"]:
            started = time.perf_counter()
            part = _write_class(recordings, items, folder / f"class-{label:02d}.npy", workers)
            part["stamp"] = _stamp(folder / f"class-{label:02d}.npy")
            with replacing(described) as temporary:
                temporary.write_text(json.dumps(part) + "\n")
            say(f"{name}: {len(items)} recordings, {np.mean(part['events']):,.0f} events each, "
                f"{time.perf_counter() - started:.1f} s")  # fmt: skip
        parts.append(part)
        shape = part["shape"]
    hashes = "".join(part["sha256"] for part in parts)
    return {"shape": shape, "sha256": hashlib.sha256(hashes.encode()).hexdigest(), "parts": parts}


def _read(described: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(described.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found


def _stamp(part: Path) -> list[int]:
    """Size and time of a part: who changes it, changes them; nothing where there is none."""
    try:
        stat = part.stat()
    except FileNotFoundError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _write_class(recordings: Recordings, items: Sequence[Item], path: Path, workers: int) -> dict[str, Any]:
    """Frames of one class into a part; its hash, shape and statistics."""
    numbers: dict[str, list[float]] = {"events": [], "on_share": [], "kept": []}
    rate = np.zeros(RATE_BINS)
    shape: tuple[int, ...] = ()

    def one(item: Item) -> tuple[np.ndarray, dict[str, float], np.ndarray]:
        events = recordings.record(item)
        on = float(events["p"].mean()) if len(events) else math.nan
        kept = kept_share(events, recordings.binning)
        histogram = np.bincount(
            np.minimum(events["t"] * RATE_BINS // recordings.duration_us, RATE_BINS), minlength=RATE_BINS + 1
        )[:RATE_BINS]
        return bin_events(events, recordings.binning), {"events": len(events), "on_share": on, "kept": kept}, histogram

    def frames(done: Iterable[tuple[np.ndarray, dict[str, float], np.ndarray]]) -> Iterable[np.ndarray]:
        nonlocal rate, shape
        for binned, statistics, histogram in done:
            for name, value in statistics.items():
                numbers[name].append(value)
            rate += histogram
            shape = binned.shape
            yield binned

    with ThreadPoolExecutor(workers, "prepare") as pool:
        # In handfuls: all at once would pile up frames where filming is faster than writing.
        handfuls = (pool.map(one, items[i : i + 8 * workers]) for i in range(0, len(items), 8 * workers))
        digest = write_part(path, frames(itertools.chain.from_iterable(handfuls)))
    seconds = recordings.duration_us / 1e6 / RATE_BINS
    rounded = {name: [None if math.isnan(v) else round(v, 5) for v in values] for name, values in numbers.items()}
    return {
        "sha256": digest,
        "shape": list(shape),
        "numbers": [item.number for item in items],
        **rounded,
        "rate": [round(float(r) / len(items) / seconds, 1) for r in rate],
    }


class Lines:
    """Frames as input lines, with the constant line that the first layer expects (a ``data.Pool``)."""

    def __init__(self, frames: Frames, scale: float) -> None:
        self._frames, self._scale = frames, scale
        steps, *rest = frames.shape
        self.shape = (len(frames), steps, math.prod(rest) + 1)

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """The recordings at ``rows`` [...], float32 [..., T, I]."""
        lines = self._frames.read(rows)
        if self._scale != 1:
            lines[..., :-1] *= self._scale
        return lines


def load(recordings: Recordings, folder: Path, split_seed: int, training_size: int | None) -> SpikeData:
    """The data set from what ``prepare`` made.

    The learner's examples are drawn from the training recordings, a fifth of them for validation; the test recordings
    are always the same.

    Args:
        recordings: as they were prepared.
        folder: as it was prepared.
        split_seed: which training recordings.
        training_size: how many; None takes all.

    Raises:
        Unavailable: more are asked for than there are.
    """
    manifest = prepare(recordings, folder)
    parts = [folder / f"class-{label:02d}.npy" for label in range(len(recordings.classes))]
    steps, channels, height, width = manifest["shape"]
    pool = Lines(
        Frames(parts, (steps, channels, height, width), recordings.binning.binary, constant=True), recordings.scale
    )
    place = {
        Item(label, number): row
        for row, (label, number) in enumerate(
            (label, number) for label, part in enumerate(manifest["parts"]) for number in part["numbers"]
        )
    }
    labels = np.array([item.label for item in recordings.training])
    available = len(labels)
    size = available if training_size is None else training_size
    if size > available:
        raise Unavailable(f"{recordings.name} has {available} training examples, {size} were asked for")
    learner = stratified_order(labels, split_seed)[:size]
    cut = size - max(2, round(0.2 * size))
    test = stratified_order(np.array([item.label for item in recordings.test]), 0)

    def part(items: Sequence[Item], chosen: np.ndarray) -> Split:
        rows = torch.tensor([place[items[i]] for i in chosen])
        return Split(Stored(pool, rows), torch.tensor([items[i].label for i in chosen]))

    return SpikeData(
        task="classification",
        train=part(recordings.training, learner[:cut]),
        validation=part(recordings.training, learner[cut:]),
        test=part(recordings.test, test),
        classes=recordings.classes,
        binary_inputs=recordings.binning.binary,
        provenance=_with_hash(recordings.provenance, manifest["sha256"]),
        split_sha256=_split_hash(recordings, learner, cut, test),
        layout=(channels, height, width),
    )


def _with_hash(provenance: Provenance, sha256: str) -> Provenance:
    return Provenance(**{**vars(provenance), "sha256": sha256})


def _split_hash(recordings: Recordings, learner: np.ndarray, cut: int, test: np.ndarray) -> str:
    """Of the recordings' own numbers, so that the hash does not depend on how many others were prepared."""

    def numbers(items: Sequence[Item], chosen: np.ndarray) -> np.ndarray:
        return np.array([items[i].label * 10_000 + items[i].number for i in chosen])

    training = numbers(recordings.training, learner)
    return hash_split(train=training[:cut], validation=training[cut:], test=numbers(recordings.test, test))


def first_of_each(numbers: Sequence[Sequence[int]], total: int) -> list[Item]:
    """The first recordings of each class, ``total`` over all classes.

    Args:
        numbers: the numbers that each class has, in order.
        total: divided among the classes; the first ones get one more where it does not come out even.

    Raises:
        Unavailable: there are not that many.
        UserError: they are fewer than the classes.
    """
    if total < len(numbers):
        raise UserError(f"found {total} recordings, allowed: at least one of each of {len(numbers)} classes")
    each, more = divmod(total, len(numbers))
    items = []
    for label, known in enumerate(numbers):
        wanted = each + (label < more)
        if wanted > len(known):
            raise Unavailable(f"class {label} has {len(known)} recordings, {wanted} were asked for")
        items += [Item(label, number) for number in known[:wanted]]
    return items


def folder(plugin: str, settings: DataSettings) -> Path:
    """Where a data set's frames lie: a name for what they are made of, code included.

    Args:
        plugin: the plug-in's ``__file__``.
        settings: its settings; which examples a learner gets does not matter here.
    """
    made = {k: v for k, v in asdict(settings).items() if k not in ("split_seed", "training_size")}
    code = [fingerprint_of(Path(plugin)), engine_fingerprint(recordings=True)]
    name = f"{Path(plugin).stem}-{settings.kind}-{digest([made, code, identity(settings.source)], 12)}"
    return Store.of(project_root()).prepared(name)


def statistics(manifest: Mapping[str, Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One line a class of what the recordings are like."""
    return [
        {
            "class": name,
            "recordings": len(part["events"]),
            "events a recording": float(np.mean(part["events"])),
            "ON share": float(np.nanmean(np.array(part["on_share"], dtype=float))),
            "kept share": float(np.mean(part["kept"])),
        }
        for name, part in zip(classes, manifest["parts"], strict=True)
    ]
