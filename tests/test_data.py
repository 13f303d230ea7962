from __future__ import annotations

import numpy as np
import pytest
import torch

from spikebench.data import Batch, Provenance, SpikeData, Split, hash_split, is_constant, stratified_order


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
