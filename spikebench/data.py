"""What a data set hands over: inputs, targets, splits and where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

Task = Literal["classification", "regression", "sequence"]


@dataclass(frozen=True)
class DataSettings:
    """The settings that every data set has; a plug-in's ``Settings`` extends them.

    Attributes:
        split_seed: seed of the division into training and test part; one a repetition, the same for all methods.
        training_size: labelled examples the learner gets (training and validation together); None takes all.
        kind: ``real`` or ``simulated``.
    """

    split_seed: int = 0
    training_size: int | None = None
    kind: str = "real"


@dataclass(frozen=True)
class Provenance:
    """Where data comes from.

    Attributes:
        name: as a person reads it; simulated recordings never carry the real name.
        kind: ``real`` or ``simulated``.
        source: where the bytes were read.
        sha256: of those bytes.
        licence: of the data.
        citation: of the data.
    """

    name: str
    kind: Literal["real", "simulated"]
    source: str
    sha256: str
    licence: str
    citation: str


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        inputs: [N, T, I] float32. A constant current is stored once and expanded over T (its stride there is 0).
        targets: class labels [N] int64, real values [N, T_out] or target spikes [N, T, O].
    """

    inputs: torch.Tensor
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
        """Put the splits of one shard (all of one size) side by side."""
        inputs = torch.stack([s.inputs[:, :1] if is_constant(s.inputs) else s.inputs for s in splits])
        if all(is_constant(s.inputs) for s in splits):
            inputs = inputs.expand(-1, -1, splits[0].inputs.shape[1], -1)
        return Batch(inputs, torch.stack([s.targets for s in splits]), torch.tensor(index))

    def minibatch(self, rows: torch.Tensor) -> Batch:
        """For each cell its own examples ``rows`` [B, n]; the result has one split a cell."""
        split = self.index[:, None]
        if is_constant(self.inputs):
            inputs = self.inputs[:, :, 0][split, rows].unsqueeze(2).expand(-1, -1, self.inputs.shape[2], -1)
        else:
            inputs = self.inputs[split, rows]
        return Batch(inputs, self.targets[split, rows], torch.arange(len(rows)))

    def repeat(self, times: int) -> Batch:
        """The same data for ``times`` as many cells, cell-major: [a, b] becomes [a, a, b, b]."""
        return self._replace(index=self.index.repeat_interleave(times))

    @property
    def size(self) -> int:
        """Examples a split."""
        return self.inputs.shape[1]


@dataclass(frozen=True)
class SpikeData:
    """A data set, split. The test targets are read by the evaluation step alone."""

    task: Task
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    binary_inputs: bool
    provenance: Provenance
    split_sha256: str

    @property
    def labelled(self) -> Split:
        """Training and validation examples together: all that the learner was given."""
        inputs = [self.train.inputs, self.validation.inputs]
        constant = all(is_constant(x) for x in inputs)
        joined = torch.cat([x[:, :1] for x in inputs] if constant else inputs)
        joined = joined.expand(-1, self.train.inputs.shape[1], -1) if constant else joined
        return Split(joined, torch.cat([self.train.targets, self.validation.targets]))


class DataInfo(NamedTuple):
    """What a method may know of the data before it trains.

    Attributes:
        task: classification, regression or sequence.
        inputs: input lines I.
        outputs: outputs O.
        steps: time steps T.
        binary_inputs: True where inputs are spikes, False where they are real-valued currents.
    """

    task: Task
    inputs: int
    outputs: int
    steps: int
    binary_inputs: bool


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
