"""What a data set hands over: inputs, targets, splits and where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch

Task = Literal["classification", "regression", "sequence"]


@dataclass(frozen=True)
class DataSettings:
    """The settings that every data set has; a plug-in's ``Settings`` extends them.

    Attributes:
        split_seed: seed of the division into training and test part; one a repetition, the same for all methods.
        training_size: labelled examples the learner gets (training and validation together); None takes all.
        kind: ``real``, ``simulated`` or ``synthetic``.
        source: the archive it is made from (``spikebench.archives``); empty where it needs none.
    """

    split_seed: int = 0
    training_size: int | None = None
    kind: str = "real"
    source: str = ""

    @property
    def fewest(self) -> int:
        """Examples that a learner needs at least: two to learn from, two for validation."""
        return 4


@dataclass(frozen=True)
class Provenance:
    """Where data comes from.

    Attributes:
        name: as a person reads it; simulated recordings never carry the real name.
        kind: ``real``, ``simulated`` (recordings of a camera model) or ``synthetic`` (drawn from a formula).
        source: where the bytes were read.
        sha256: of those bytes.
        licence: of the data.
        citation: of the data.
    """

    name: str
    kind: Literal["real", "simulated", "synthetic"]
    source: str
    sha256: str
    licence: str
    citation: str


class Pool(Protocol):
    """Examples that stay on disk, packed, until they are asked for (``events.frames.Frames``)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(examples, steps, lines)."""
        ...

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """The examples at ``rows`` [...], float32 [..., T, I]."""
        ...


@dataclass(frozen=True, eq=False)
class Stored:
    """Inputs that are not in memory: some rows [N] or [R, N] of a pool. ``load`` gives the tensor."""

    pool: Pool
    rows: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """As the tensor's would be: [..., T, I]."""
        return (*self.rows.shape, *self.pool.shape[1:])

    def __getitem__(self, index: object) -> Stored:
        """The inputs at ``index`` of the leading axes."""
        return Stored(self.pool, self.rows[index])  # type: ignore[index]

    def load(self) -> torch.Tensor:
        """All of it, float32."""
        return self.pool.read(self.rows)


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        inputs: [N, T, I] float32. A constant current is stored once and expanded over T (its stride there is 0).
        targets: class labels [N] int64, real values [N, T_out] or target spikes [N, T, O].
    """

    inputs: torch.Tensor | Stored
    targets: torch.Tensor

    def __getitem__(self, index: torch.Tensor) -> Split:  # type: ignore[override]
        """The examples at ``index``."""
        return Split(self.inputs[index], self.targets[index])


class Batch(NamedTuple):
    """The examples that the B cells of a shard are trained on; cells may share a split.

    Attributes:
        inputs: [R, N, T, I], one entry for each distinct split.
        targets: [R, N, ...].
        index: [B] int64, the split of each cell.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]  # shadows tuple.index, of which a batch has no use

    @staticmethod
    def stack(splits: list[Split], index: list[int]) -> Batch:
        """Put the splits of one shard (all of one size) side by side, in memory."""
        tensors = [dense(s.inputs) for s in splits]
        constant = all(is_constant(x) for x in tensors)
        inputs = torch.stack([x[:, :1] for x in tensors] if constant else tensors)
        inputs = inputs.expand(-1, -1, tensors[0].shape[1], -1) if constant else inputs
        return Batch(inputs, torch.stack([s.targets for s in splits]), torch.tensor(index))

    def loaded(self) -> Batch:
        """The batch itself: it is in memory."""
        return self

    def minibatch(self, rows: torch.Tensor) -> Batch:
        """For each cell its own examples ``rows`` [B, n]; the result has one split a cell."""
        split = self.index[:, None]
        if is_constant(self.inputs):
            inputs = self.inputs[:, :, 0][split, rows].unsqueeze(2).expand(-1, -1, self.inputs.shape[2], -1)
        else:
            inputs = self.inputs[split, rows]
        return Batch(inputs, self.targets[split, rows], torch.arange(len(rows)))

    def at(self, rows: torch.Tensor) -> Batch:
        """Examples ``rows`` [n] of every split."""
        if is_constant(self.inputs):
            inputs = self.inputs[:, rows, :1].expand(-1, -1, self.inputs.shape[2], -1)
        else:
            inputs = self.inputs[:, rows]
        return Batch(inputs, self.targets[:, rows], self.index)

    @property
    def own_inputs(self) -> torch.Tensor:
        """What each cell sees, [B, N, T, I]; a constant current stays expanded."""
        if is_constant(self.inputs):
            return self.inputs[self.index, :, :1].expand(-1, -1, self.inputs.shape[2], -1)
        return self.inputs[self.index]

    def repeat(self, times: int) -> Batch:
        """The same data for ``times`` as many cells, cell-major: [a, b] becomes [a, a, b, b]."""
        return self._replace(index=self.index.repeat_interleave(times))

    @property
    def size(self) -> int:
        """Examples a split."""
        return self.inputs.shape[1]


class StoredBatch(NamedTuple):
    """A batch whose inputs are on disk; methods get the parts that are loaded of it.

    Attributes:
        inputs: [R, N, T, I].
        targets: [R, N, ...].
        index: [B] int64, the split of each cell.
    """

    inputs: Stored
    targets: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]

    def loaded(self) -> Batch:
        """All of it in memory."""
        return Batch(self.inputs.load(), self.targets, self.index)

    def minibatch(self, rows: torch.Tensor) -> Batch:
        """As that of ``Batch``."""
        split = self.index[:, None]
        return Batch(self.inputs[split, rows].load(), self.targets[split, rows], torch.arange(len(rows)))

    def at(self, rows: torch.Tensor) -> Batch:
        """As that of ``Batch``."""
        return StoredBatch(self.inputs[:, rows], self.targets[:, rows], self.index).loaded()

    def repeat(self, times: int) -> StoredBatch:
        """As that of ``Batch``."""
        return self._replace(index=self.index.repeat_interleave(times))

    @property
    def size(self) -> int:
        """Examples a split."""
        return self.inputs.shape[1]


def stack(splits: list[Split], index: list[int]) -> Batch | StoredBatch:
    """As ``Batch.stack``; what is on disk stays there, and splits of the same examples are read once."""
    first = splits[0].inputs
    if not isinstance(first, Stored):
        return Batch.stack(splits, index)
    rows = [s.inputs.rows for s in splits if isinstance(s.inputs, Stored)]
    if all(torch.equal(r, rows[0]) for r in rows):
        same = torch.zeros(len(index), dtype=torch.int64)
        return StoredBatch(Stored(first.pool, rows[0][None]), splits[0].targets[None], same)
    targets = torch.stack([s.targets for s in splits])
    return StoredBatch(Stored(first.pool, torch.stack(rows)), targets, torch.tensor(index))


class Probe(NamedTuple):
    """Points of a regular grid, at which a trained method's answer is kept: a map, not a test.

    Attributes:
        inputs: [G, T, I] float32.
        axes: of each coordinate (low, high, number of points), both ends included; G is the product of the numbers, the
            last axis changes fastest.
        seen: [n, d] the learner's own points, in the axes' units; of a regression with the value as last column.
        targets: [G] true values at the grid, where they are known.
    """

    inputs: torch.Tensor
    axes: tuple[tuple[float, float, int], ...]
    seen: torch.Tensor
    targets: torch.Tensor | None = None


@dataclass(frozen=True)
class SpikeData:
    """A data set, split. The test targets are read by the evaluation step alone.

    Attributes:
        task: classification, regression or sequence.
        train: what is learnt from.
        validation: what hyper-parameters are chosen on.
        test: opened once, by the evaluation.
        classes: their names; empty where the task is none of classification.
        binary_inputs: whether input lines carry spikes.
        provenance: where it comes from.
        split_sha256: of the three parts' examples.
        layout: (channels, height, width) of the input lines where they are a picture, the constant line not counted;
            empty where they are not.
        probe: where there is one, after the test it is predicted too; of data sets of two classes or of one value.
        memorised: all three parts are the same examples: what is measured is memory, not generalisation.
    """

    task: Task
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    binary_inputs: bool
    provenance: Provenance
    split_sha256: str
    layout: tuple[int, ...] = ()
    probe: Probe | None = None
    memorised: bool = False

    @property
    def labelled(self) -> Split:
        """Training and validation examples together: all that the learner was given."""
        if self.memorised:
            return self.train
        targets = torch.cat([self.train.targets, self.validation.targets])
        first, second = self.train.inputs, self.validation.inputs
        if isinstance(first, Stored) and isinstance(second, Stored):
            return Split(Stored(first.pool, torch.cat([first.rows, second.rows])), targets)
        inputs = [dense(first), dense(second)]
        constant = all(is_constant(x) for x in inputs)
        joined = torch.cat([x[:, :1] for x in inputs] if constant else inputs)
        return Split(joined.expand(-1, first.shape[1], -1) if constant else joined, targets)


class DataInfo(NamedTuple):
    """What a method may know of the data before it trains.

    Attributes:
        task: classification, regression or sequence.
        inputs: input lines I.
        outputs: outputs O.
        steps: time steps T.
        binary_inputs: True where inputs are spikes, False where they are real-valued currents.
        layout: (channels, height, width) of the input lines where they are a picture; a constant line follows them.
    """

    task: Task
    inputs: int
    outputs: int
    steps: int
    binary_inputs: bool
    layout: tuple[int, ...] = ()


def dense(inputs: torch.Tensor | Stored) -> torch.Tensor:
    """The tensor itself, read from disk where it is not in memory."""
    return inputs.load() if isinstance(inputs, Stored) else inputs


def is_constant(inputs: torch.Tensor) -> bool:
    """Whether inputs [..., T, I] are one current expanded over time (decided by the stride, not by comparing)."""
    return inputs.stride(-2) == 0 or inputs.shape[-2] == 1


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of the examples in which every prefix has nearly the class shares of the whole.

    So training sets of growing size are nested, and any cut of the order is stratified.

    Args:
        labels: [N] class labels.
        seed: of the order within each class.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[generator.permutation(members)] = (np.arange(len(members)) + generator.uniform(0.25, 0.75)) / len(members)
    return np.argsort(rank, kind="stable")


def hash_split(**parts: np.ndarray) -> str:
    """The sha256 of the indices of each part; equal splits have equal hashes."""
    hasher = hashlib.sha256()
    for name in sorted(parts):
        hasher.update(name.encode())
        hasher.update(np.ascontiguousarray(parts[name], dtype="<i8").tobytes())
    return hasher.hexdigest()
