"""What is done to weights, currents and pictures before each step of training a feedback network."""

from __future__ import annotations

import itertools

import feedback_course as course
import feedback_truth as truth
import nets
import numpy as np
import pytest
import torch

from spikebench import feedback_training
from spikebench.data import Batch, is_constant
from spikebench.feedback_training import Shown
from spikebench.method import Task

SPIDE = course.SPIDE


def show(task: Task, batch: Batch, number: int = 0) -> Shown:
    """What a minibatch does in the round of this number."""
    chip = course.chip_of(task)
    state = course.begin(SPIDE, task, batch, chip)._replace(round=torch.tensor(number))
    return feedback_training.show(task, state, batch, chip, course.streams(task))


# The feedback's norm


@pytest.mark.parametrize("architecture", ["4C3s-3C3s (F4C3u)", "3C3s-5 (F3)", "6-5 (F6)", "3C3 (F3C3)"])
def test_the_feedback_is_shrunk_to_a_norm_and_nothing_else(architecture: str) -> None:
    """The norm of the matrix between all neurons of the two layers."""
    task = course.course(SPIDE, architecture, (1, 8, 8))
    net = task.network
    weights = torch.randn((3, net.parameters), generator=nets.generator(1)) * torch.tensor([[1.0], [0.01], [3.0]])
    found = feedback_training.restricted(net, weights, 2.0)
    norms = [np.linalg.norm(truth.matrix(net.links[-1], net.split(own)[0][-1])) for own in found]
    before = [np.linalg.norm(truth.matrix(net.links[-1], net.split(own)[0][-1])) for own in weights]
    assert before[0] > 2 and before[1] < 2 and before[2] > 2
    assert norms == pytest.approx([2.0, before[1], 2.0], rel=1e-6)
    assert torch.equal(found[1], weights[1]), "what is small is left, bit for bit"
    for own, old, norm in zip(found, weights, before, strict=True):
        (new, biases), (parts, offsets) = net.split(own), net.split(old)
        assert all(torch.equal(a, b) for a, b in zip([*new[:-1], *biases], [*parts[:-1], *offsets], strict=True))
        torch.testing.assert_close(new[-1], parts[-1] * min(1.0, 2 / norm))


def test_0_leaves_the_feedback_and_so_does_none() -> None:
    for architecture, largest in (("6-5 (F6)", 0.0), ("6-5", 2.0)):
        net = course.course(SPIDE, architecture, (2, 2, 2)).network
        weights = 5 * torch.randn((1, net.parameters), generator=nets.generator(1))
        assert torch.equal(feedback_training.restricted(net, weights, largest), weights)
    net = course.course(SPIDE, "6-5 (F6)", (2, 2, 2)).network
    assert torch.equal(
        feedback_training.restricted(net, torch.zeros(1, net.parameters), 2.0), torch.zeros(1, net.parameters)
    )


def test_steps_and_predictions_begin_from_the_shrunk_feedback() -> None:
    task = course.course(SPIDE, "6-5 (F6)", (2, 2, 2), feedback_norm=0.7, momentum=0.0)
    batch, chip = course.shown(task), course.chip_of(task)
    state = course.begin(SPIDE, task, batch, chip)
    weights = 3 * torch.randn(state.weights.shape, generator=nets.generator(1))
    small = feedback_training.restricted(task.network, weights, 0.7)
    large, shrunk = state._replace(weights=weights), state._replace(weights=small)
    shown = feedback_training.show(task, large, batch, chip, course.streams(task))
    assert torch.equal(shown.weights, small)
    assert torch.equal(shown.rates.mean, chip.rates(small, batch.inputs, batch.index).mean)
    after = feedback_training.update(task, large, shown, torch.zeros_like(weights), {})
    assert torch.equal(after.weights, small)
    found = [SPIDE.predict(task, own, batch.inputs, batch.index, chip).probabilities for own in (large, shrunk)]
    assert torch.equal(*found)
    assert not torch.equal(
        chip.rates(small, batch.inputs, batch.index).mean, chip.rates(weights, batch.inputs, batch.index).mean
    )


# Dropout


def masks_of(architecture: str = "8C3-P2-40 (F8)", number: int = 0, **settings: object) -> torch.Tensor:
    task = course.course(SPIDE, architecture, (1, 8, 8), **settings)
    masks = show(task, course.shown(task, samples=20), number).masks
    assert masks is not None
    assert masks.shape == (2, 20, sum(task.network.widths) + task.network.widths[0])
    return masks


def test_dropped_currents_are_0_and_the_others_as_much_larger() -> None:
    """Of each layer, and of the feedback apart; the share within five standard deviations."""
    masks = masks_of(dropout=0.3)
    first, pool, dense, back = masks.split((512, 128, 40, 512), dim=2)
    for part in (first, dense, back):
        assert set(part.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
        share = float((part == 0).float().mean())
        assert share == pytest.approx(0.3, abs=5 * (0.21 / part.numel()) ** 0.5)
    assert (pool == 1).all(), "pools are spared"
    assert not torch.equal(first, back)


def test_every_cell_sample_and_round_has_its_own_masks() -> None:
    masks = masks_of(dropout=0.3)
    patterns = {own.numpy().tobytes() for own in masks.flatten(0, 1)}
    assert len(patterns) == 40
    again, later = masks_of(dropout=0.3), masks_of(dropout=0.3, number=1)
    assert torch.equal(masks, again) and not torch.equal(masks, later)


@pytest.mark.parametrize(
    ("architecture", "dense"), [("4C3-P2-40 (F4)", [2]), ("30-20 (F30)", [0, 1, 2]), ("4C3-20", [1])]
)
def test_dropout_of_dense_layers_spares_the_others(architecture: str, dense: list[int]) -> None:
    masks = masks_of(architecture, dropout=0.5, dropout_of="dense")
    net = course.course(SPIDE, architecture, (1, 8, 8)).network
    parts = masks.split((*net.widths, net.widths[0]), dim=2)
    assert [number for number, part in enumerate(parts) if (part != 1).any()] == dense


def test_without_feedback_its_masks_are_1() -> None:
    masks = masks_of("6-5", dropout=0.5)
    assert (masks[..., 11:] == 1).all() and (masks[..., :11] == 0).any()


def test_the_same_currents_are_cut_off_at_every_step_and_none_in_a_test() -> None:
    task = course.course(SPIDE, dropout=0.5, initial_feedback=1.0)
    batch = course.shown(task)
    shown, chip = show(task, batch), course.chip_of(task)
    assert torch.equal(shown.rates.mean, chip.rates(shown.weights, batch.inputs, batch.index, shown.masks).mean)
    state = course.begin(SPIDE, task, batch, chip)
    plain = course.course(SPIDE)
    found = [SPIDE.predict(own, state, batch.inputs, batch.index, chip).probabilities for own in (task, plain)]
    assert torch.equal(*found)
    assert show(plain, batch).masks is None


# Augmentation


def copies(picture: np.ndarray, crop: int, flip: bool) -> dict[tuple[int, int, bool], np.ndarray]:
    """All that a picture [..., side, side] may become, with a border of 0."""
    side, spread = picture.shape[-1], [(0, 0)] * (picture.ndim - 2)
    padded = np.pad(picture, [*spread, (crop, crop), (crop, crop)])
    shifts = itertools.product(range(2 * crop + 1), repeat=2)
    found = {}
    for y, x in shifts:
        one = padded[..., y : y + side, x : x + side]
        found[y, x, False] = one
        if flip:
            found[y, x, True] = one[..., ::-1]
    return found


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
@pytest.mark.parametrize(("crop", "flip"), [(2, False), (0, True), (1, True)])
def test_each_picture_is_shifted_and_mirrored_at_random(crop: int, flip: bool, constant: bool) -> None:
    """Brute force: all time steps and colours of a picture are the same one of all its copies."""
    task = course.course(SPIDE, "2C3-3", (2, 5, 5), steps=4, crop=crop, flip=flip)
    batch = course.shown(task, samples=100, constant=constant)
    found = show(task, batch._replace(index=torch.tensor([1, 0]))).batch
    assert found.inputs.shape == batch.inputs.shape
    assert is_constant(found.inputs) == is_constant(batch.inputs) == constant
    assert torch.equal(found.targets[found.index], batch.targets[[1, 0]]), "labels stay with their pictures"
    assert found.inputs[..., -1].eq(1).all()
    shown, originals = (
        x[..., :-1].unflatten(3, (2, 5, 5)).numpy() for x in (found.inputs[found.index], batch.inputs[[1, 0]])
    )
    seen = []
    for b, n in np.ndindex(2, 100):
        possible = copies(originals[b, n], crop, flip)
        fitting = [how for how, copy in possible.items() if np.array_equal(copy, shown[b, n])]
        assert len(fitting) == 1
        seen.append(fitting[0])
    ways = (2 * crop + 1) ** 2 * (1 + flip)
    assert set(seen) == set(possible) and len(possible) == ways
    for axis, values in enumerate((2 * crop + 1, 2 * crop + 1, 1 + flip)):
        counts = np.bincount([int(how[axis]) for how in seen], minlength=values)
        assert np.abs(counts - 200 / values).max() < 5 * (200 / values) ** 0.5
    assert seen[:100] != seen[100:], "each cell has its own"


def test_every_round_has_its_own_copies_and_a_test_none() -> None:
    task, plain = (course.course(SPIDE, "2C3-3", (1, 5, 5), **own) for own in ({"crop": 2, "flip": True}, {}))
    batch, chip = course.shown(task), course.chip_of(task)
    found = [show(task, batch, number).batch.inputs for number in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert show(plain, batch).batch is batch
    state = course.begin(SPIDE, task, batch, chip)
    predicted = [SPIDE.predict(own, state, batch.inputs, batch.index, chip).probabilities for own in (task, plain)]
    assert torch.equal(*predicted)


def test_what_is_learnt_from_is_what_was_shown() -> None:
    """The mean inputs of the weights' gradient and the rates are those of the copies."""
    task = course.course(SPIDE, "2C3-3", (1, 5, 5), crop=2)
    batch = course.shown(task)
    shown = show(task, batch)
    assert torch.equal(shown.inputs, shown.batch.inputs[:, :, 0, :-1])
    chip = course.chip_of(task)
    assert torch.equal(shown.rates.mean, chip.rates(shown.weights, shown.batch.inputs, shown.batch.index).mean)
    assert not torch.equal(shown.inputs, batch.inputs[:, :, 0, :-1])
