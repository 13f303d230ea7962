from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from spikebench.data import (
    Batch,
    Provenance,
    SpikeData,
    Split,
    Stored,
    StoredBatch,
    dense,
    hash_split,
    is_constant,
    stack,
    stratified_order,
)


def split(seed: int, examples: int = 5, constant: bool = False) -> Split:
    generator = torch.Generator().manual_seed(seed)
    steps = 1 if constant else 4
    inputs = torch.rand((examples, steps, 3), generator=generator)
    targets = torch.randint(0, 2, (examples,), generator=generator)
    return Split(inputs.expand(-1, 4, -1) if constant else inputs, targets)


def spike_data(train: Split, validation: Split) -> SpikeData:
    source = Provenance("toy", "simulated", "this test", "", "MIT", "none")
    return SpikeData("classification", train, validation, split(9), ("a", "b"), False, source, "")


def test_constancy_is_decided_by_the_stride() -> None:
    assert is_constant(torch.ones(2, 1, 3).expand(-1, 4, -1))
    assert is_constant(torch.ones(2, 1, 3))
    assert not is_constant(torch.ones(2, 4, 3))  # equal values, but stored at every step


def test_a_split_is_indexed_by_example() -> None:
    whole = split(0)
    part = whole[torch.tensor([3, 1])]
    assert torch.equal(part.inputs, whole.inputs[[3, 1]])
    assert torch.equal(part.targets, whole.targets[[3, 1]])


@pytest.mark.parametrize("constant", [False, True])
def test_a_batch_holds_each_split_once_and_says_which_cell_sees_which(constant: bool) -> None:
    splits = [split(0, constant=constant), split(1, constant=constant)]
    batch = Batch.stack(splits, [1, 0, 1])
    assert batch.inputs.shape == (2, 5, 4, 3)
    assert batch.size == 5
    assert is_constant(batch.inputs) == constant
    for cell, which in enumerate([1, 0, 1]):
        assert torch.equal(batch.inputs[batch.index[cell]], splits[which].inputs)
        assert torch.equal(batch.targets[batch.index[cell]], splits[which].targets)


@pytest.mark.parametrize("constant", [False, True])
def test_a_minibatch_gives_each_cell_its_own_rows(constant: bool) -> None:
    splits = [split(0, constant=constant), split(1, constant=constant)]
    rows = torch.tensor([[4, 0], [2, 2], [1, 3]])
    part = Batch.stack(splits, [1, 0, 1]).minibatch(rows)
    assert part.inputs.shape == (3, 2, 4, 3)
    assert is_constant(part.inputs) == constant
    for cell, which in enumerate([1, 0, 1]):
        assert torch.equal(part.inputs[part.index[cell]], splits[which].inputs[rows[cell]])
        assert torch.equal(part.targets[part.index[cell]], splits[which].targets[rows[cell]])


@pytest.mark.parametrize("constant", [False, True])
def test_some_examples_of_every_split(constant: bool) -> None:
    splits = [split(0, constant=constant), split(1, constant=constant)]
    part = Batch.stack(splits, [1, 0, 1]).at(torch.tensor([3, 0]))
    assert part.inputs.shape == (2, 2, 4, 3)
    assert is_constant(part.inputs) == constant
    assert part.index.tolist() == [1, 0, 1]
    for which, whole in enumerate(splits):
        assert torch.equal(part.inputs[which], whole.inputs[[3, 0]])
        assert torch.equal(part.targets[which], whole.targets[[3, 0]])


def test_repeat_is_cell_major_and_copies_no_data() -> None:
    batch = Batch.stack([split(0), split(1)], [1, 0])
    repeated = batch.repeat(3)
    assert repeated.index.tolist() == [1, 1, 1, 0, 0, 0]
    assert repeated.inputs is batch.inputs


@pytest.mark.parametrize("constant", [False, True])
def test_labelled_examples_are_those_of_training_then_validation(constant: bool) -> None:
    train, validation = split(0, constant=constant), split(1, 2, constant)
    data = spike_data(train, validation)
    assert torch.equal(data.labelled.inputs, torch.cat([train.inputs, validation.inputs]))
    assert torch.equal(data.labelled.targets, torch.cat([train.targets, validation.targets]))
    assert is_constant(data.labelled.inputs) == constant


def test_what_is_memorised_is_given_once() -> None:
    whole = split(0)
    data = replace(spike_data(whole, whole), test=whole, memorised=True)
    assert data.labelled is data.train


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.37, 0.63), (0.05, 0.15, 0.8)])
def test_every_prefix_of_a_stratified_order_has_the_class_shares_of_the_whole(shares: tuple[float, ...]) -> None:
    counts = [round(569 * s) for s in shares]
    labels = np.repeat(np.arange(len(shares)), counts)
    order = stratified_order(labels, seed=7)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for label, count in enumerate(counts):
        seen = (labels[order] == label).cumsum()
        expected = np.arange(1, len(labels) + 1) * count / len(labels)
        assert np.abs(seen - expected).max() <= len(shares) / 2 + 0.5


def test_a_stratified_order_is_random_within_the_classes_and_given_by_its_seed() -> None:
    labels = np.repeat([0, 1], [40, 60])
    orders = [stratified_order(labels, seed) for seed in range(200)]
    assert (orders[3] == stratified_order(labels, 3)).all()
    # The first member of class 0 is any of its 40 with equal probability.
    first = [order[labels[order] == 0][0] for order in orders]
    assert len(set(first)) > 30
    assert np.bincount(first).max() < 20
    # The label sequence differs too, or every small training set would have the same class counts.
    assert len({tuple(labels[order][:9]) for order in orders}) > 1


def test_split_hashes_tell_splits_apart() -> None:
    parts = {"train": np.array([1, 2]), "test": np.array([3])}
    assert hash_split(**parts) == hash_split(test=np.array([3], dtype=np.int32), train=np.array([1, 2]))
    assert hash_split(**parts) != hash_split(train=np.array([2, 1]), test=np.array([3]))
    assert hash_split(**parts) != hash_split(train=np.array([1]), test=np.array([2, 3]))
    assert hash_split(**parts) != hash_split(train=np.array([3]), test=np.array([1, 2]))


class Pool:
    """Twenty examples [4, 3] that remember what was asked for."""

    def __init__(self) -> None:
        self.examples = torch.rand((20, 4, 3), generator=torch.Generator().manual_seed(7))
        self.asked: list[list[int]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.examples.shape)

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        self.asked.append(rows.flatten().tolist())
        return self.examples[rows]


class TestStored:
    ROWS = ([3, 1, 4, 15, 9, 2], [6, 5, 3, 15, 8, 9])

    @pytest.fixture
    def pool(self) -> Pool:
        return Pool()

    def splits(self, pool: Pool) -> tuple[list[Split], list[Split]]:
        """Two splits of six examples, on disk, and the same in memory."""
        targets = [torch.tensor(rows) % 2 for rows in self.ROWS]
        stored = [Split(Stored(pool, torch.tensor(r)), t) for r, t in zip(self.ROWS, targets, strict=True)]
        return stored, [Split(pool.examples[r], t) for r, t in zip(self.ROWS, targets, strict=True)]

    def test_it_has_the_shape_of_what_it_stands_for_and_reads_nothing(self, pool: Pool) -> None:
        inputs = Stored(pool, torch.tensor(self.ROWS))
        assert inputs.shape == (2, 6, 4, 3) == dense(inputs).shape
        pool.asked.clear()
        for index in (
            torch.tensor([1]),
            slice(1),
            (slice(None), slice(2, 5)),
            (torch.tensor([[1]]), torch.tensor([[0, 2]])),
        ):
            assert torch.equal(inputs[index].rows, torch.tensor(self.ROWS)[index])
            assert inputs[index].shape == (*inputs.rows[index].shape, 4, 3)
        assert not pool.asked

    def test_dense_reads_what_is_on_disk_and_leaves_the_rest(self, pool: Pool) -> None:
        assert torch.equal(dense(Stored(pool, torch.tensor([2, 2, 0]))), pool.examples[[2, 2, 0]])
        tensor = torch.ones(2, 4, 3)
        assert dense(tensor) is tensor

    def test_a_split_is_indexed_by_example(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        index = torch.tensor([5, 0])
        assert torch.equal(dense(stored[0][index].inputs), memory[0][index].inputs)
        assert torch.equal(stored[0][index].targets, memory[0][index].targets)
        assert pool.asked == [[2, 3]]

    def test_stacked_splits_stay_on_disk_and_are_those_in_memory(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        batch, expected = stack(stored, [1, 0, 1]), stack(memory, [1, 0, 1])
        assert isinstance(batch, StoredBatch) and isinstance(expected, Batch)
        assert not pool.asked
        assert batch.size == expected.size == 6
        for ours, theirs in zip(batch.loaded(), expected, strict=True):
            assert torch.equal(ours, theirs)
        assert expected.loaded() is expected

    def test_the_same_examples_are_read_once_whatever_the_cells(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        batch = stack([stored[0], Split(Stored(pool, torch.tensor(self.ROWS[0])), stored[0].targets)], [0, 1, 0])
        assert batch.inputs.shape == (1, 6, 4, 3)
        assert batch.index.tolist() == [0, 0, 0]
        assert torch.equal(batch.loaded().inputs[0], memory[0].inputs)
        assert pool.asked == [self.ROWS[0]]

    def test_minibatches_are_those_in_memory_and_nothing_else_is_read(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        rows = torch.tensor([[4, 0], [2, 2], [1, 3]])
        ours = stack(stored, [1, 0, 1]).minibatch(rows)
        for a, b in zip(ours, stack(memory, [1, 0, 1]).minibatch(rows), strict=True):
            assert torch.equal(a, b)
        assert pool.asked == [[8, 6, 4, 4, 5, 15]]

    def test_parts_are_slices_of_every_split(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        batch, whole = stack(stored, [1, 0]), stack(memory, [1, 0])
        parts = [batch.at(rows) for rows in torch.arange(6).split(4)]
        assert [part.size for part in parts] == [4, 2]
        assert torch.equal(torch.cat([part.inputs for part in parts], dim=1), whole.inputs)
        assert torch.equal(torch.cat([part.targets for part in parts], dim=1), whole.targets)
        assert all(part.index.tolist() == [1, 0] for part in parts)

    def test_some_examples_are_read_and_nothing_else(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        rows = torch.tensor([3, 0])
        for a, b in zip(stack(stored, [1, 0]).at(rows), stack(memory, [1, 0]).at(rows), strict=True):
            assert torch.equal(a, b)
        assert sum(len(asked) for asked in pool.asked) == 4

    def test_repeat_is_cell_major_and_reads_nothing(self, pool: Pool) -> None:
        batch = stack(self.splits(pool)[0], [1, 0])
        assert batch.repeat(3).index.tolist() == [1, 1, 1, 0, 0, 0]
        assert batch.repeat(3).inputs is batch.inputs
        assert not pool.asked

    def test_labelled_examples_are_rows_of_the_same_pool(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        labelled = spike_data(stored[0], stored[1]).labelled
        assert isinstance(labelled.inputs, Stored) and not pool.asked
        assert labelled.inputs.rows.tolist() == [*self.ROWS[0], *self.ROWS[1]]
        assert torch.equal(dense(labelled.inputs), torch.cat([part.inputs for part in memory]))
        assert torch.equal(labelled.targets, torch.cat([part.targets for part in memory]))

    def test_a_batch_in_memory_takes_splits_that_are_not(self, pool: Pool) -> None:
        stored, memory = self.splits(pool)
        for a, b in zip(Batch.stack(stored, [0, 1]), Batch.stack(memory, [0, 1]), strict=True):
            assert torch.equal(a, b)
