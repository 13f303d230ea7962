"""The three ways of training a feedback network: they learn, alone and in company, and go on where they were saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import feedback_course as course
import pytest
import torch
from safetensors.torch import load_file, save_file

from spikebench import adjoint, feedback_training, unrolled
from spikebench.data import Batch, is_constant
from spikebench.method import Task

#: All that is drawn while training, and what the shape of sums may depend on.
BUSY = {"dropout": 0.2, "crop": 1, "flip": True, "weight_decay": 0.01, "warm_up": 2, "drops": (0.5,)}
methods = pytest.mark.parametrize("name", course.METHODS)
ARCHITECTURES = {"convolutions": "4C3s-3C3s (F4C3u)", "dense": "30-20 (F30)", "pools": "6C3-P2-30"}


def busy(name: str, architecture: str = "4C3s-3C3s (F4C3u)", cells: int = 2, **settings: Any) -> Task:
    return course.course(course.METHODS[name], architecture, (1, 8, 8), cells=cells, **{**BUSY, **settings})


def accuracy(name: str, task: Task, state: Any, samples: int = 60) -> torch.Tensor:
    """Of each cell, on fresh pictures."""
    split = course.separable(task, samples, seed=1)
    test = Batch.stack([split], [0] * len(state.weights))
    found = course.METHODS[name].predict(task, state, test.inputs, test.index, course.chip_of(task))
    assert found.probabilities.shape == (len(state.weights), 1, samples, task.info.outputs)
    torch.testing.assert_close(found.probabilities.sum(dim=3), torch.ones(len(state.weights), 1, samples))
    return (found.probabilities[:, 0].argmax(dim=2) == split.targets).float().mean(dim=1)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@methods
def test_every_method_learns_what_is_easily_separated(name: str, architecture: str) -> None:
    method = course.METHODS[name]
    task = course.course(
        method, architecture, (1, 8, 8), epochs=10, minibatch=10, loss_scale=50.0, rate=0.5, drops=(0.75,)
    )
    chip = course.chip_of(task)
    start = course.begin(method, task, Batch.stack([course.separable(task, 2)], [0, 0]), chip)
    assert accuracy(name, task, start).mean() < 0.75
    state, traces = course.fitted(method, task, course.separable(task, 60), chip)
    losses = traces["train_loss"]
    assert losses.shape == (60, 2)
    assert losses[-6:].mean() < 0.3 * losses[:6].mean()
    assert accuracy(name, task, state).min() > 0.9


def test_the_solvers_learn_the_same_at_first() -> None:
    """Many backward steps and a large loss: the gradient by spikes is the exact one, nearly."""
    found = []
    for method, settings in ((course.SPIDE, {"backward_steps": 4000}), (course.IDE, {"iterations": 60, "memory": 60})):
        task = course.course(method, rate=0.5, loss_scale=4.0, rounds=10, initial_feedback=1.0, **settings)
        batch, chip = course.shown(task), course.chip_of(task)
        found.append(
            course.train(method, task, batch, chip, 1).weights - course.begin(method, task, batch, chip).weights
        )
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 0.02
    assert found[1].norm() > 0.01


def test_through_time_the_gradient_is_that_of_the_unrolled_network() -> None:
    task = busy(
        "feedback_bptt", momentum=0.0, drops=(), warm_up=0, weight_decay=0.0, surrogate="arctan", crop=0, flip=False
    )
    batch, chip = course.shown(task, constant=False), course.chip_of(task)
    state = course.begin(course.UNROLLED, task, batch, chip)
    after, _ = course.UNROLLED.step(task, state, batch, chip, course.streams(task))
    shown = feedback_training.show(task, state, batch, chip, course.streams(task))
    arguments = (batch.inputs[..., :-1], shown.masks, shown.slope, "arctan")
    expected = unrolled.gradient(task.network, shown.weights, *arguments) / 10.0
    torch.testing.assert_close(after.weights, shown.weights - 0.1 * expected)
    assert expected.abs().max() > 0.001


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
def test_through_time_a_constant_current_stays_one(constant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine sees that and weighs it once (docs/contracts.md)."""
    asked, own, task = [], unrolled.gradient, course.course(course.UNROLLED)

    def gradient(net: Any, weights: torch.Tensor, inputs: torch.Tensor, *others: Any) -> torch.Tensor:
        asked.append(is_constant(inputs))
        return own(net, weights, inputs, *others)

    monkeypatch.setattr(unrolled, "gradient", gradient)
    course.train(course.UNROLLED, task, course.shown(task, constant=constant), course.chip_of(task), 1)
    assert asked == [constant]


@pytest.mark.parametrize("settings", [{}, {"iterations": 3}, {"memory": 1}, {"tolerance": 0.05}], ids=str)
def test_implicitly_the_gradient_is_broydens_at_the_shown_rates(settings: dict[str, float]) -> None:
    architecture = {"architecture": "6-5 (F6)", "initial_feedback": 1.0, "crop": 0, "flip": False}
    task = busy("ide", momentum=0.0, drops=(), warm_up=0, weight_decay=0.0, **architecture, **settings)
    batch, chip = course.shown(task), course.chip_of(task)
    state = course.begin(course.IDE, task, batch, chip)
    after, info = course.IDE.step(task, state, batch, chip, course.streams(task))
    shown = feedback_training.show(task, state, batch, chip, course.streams(task))
    factors = adjoint.transmission(task.network, shown.rates.mean, shown.masks)
    asked = {"iterations": 30, "memory": 27, "tolerance": 2e-10} | settings
    solved = adjoint.broyden(task.network, shown.weights, shown.slope, factors, **asked)
    expected = feedback_training.weight_gradient(task, shown, solved.adjoint)
    torch.testing.assert_close(after.weights, shown.weights - 0.1 * expected)
    assert torch.equal(info.traces["solver_residual"], solved.residual.mean(dim=1))
    assert torch.equal(info.traces["solver_products"], solved.products.double() / shown.slope.shape[1])
    assert expected.abs().max() > 0.001


@methods
def test_the_read_out_sees_counts_that_are_read_off_the_chip(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a noise of its own; here one that doubles them."""
    method, task = course.METHODS[name], course.course(course.METHODS[name], "6-5 (F6)", steps=10)
    batch, chip, read = course.shown(task), course.chip_of(task), []
    state = course.begin(method, task, batch, chip)
    monkeypatch.setattr(chip, "read", lambda values: read.append(values) or 2 * values)
    probabilities = method.predict(task, state, batch.inputs, batch.index, chip).probabilities
    loss = feedback_training.show(task, state, batch, chip, course.streams(task)).loss
    rates = chip.rates(state.weights, batch.inputs, batch.index).mean[..., -5:]
    assert len(read) == 2 and all(torch.equal(values, 10 * rates) for values in read)
    logits = torch.einsum("bni,bci->bnc", 2 * rates, state.read_out[..., :-1]) + state.read_out[:, None, :, -1]
    torch.testing.assert_close(probabilities[:, 0], logits.softmax(dim=2), atol=1e-6, rtol=0)
    of_targets = probabilities[:, 0].gather(2, batch.targets[..., None])
    torch.testing.assert_close(loss.float(), -of_targets.log().mean(dim=(1, 2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
@pytest.mark.parametrize("name", ["spide", "ide"])
def test_in_the_loop_of_an_ideal_chip_training_has_the_bits_of_the_model(name: str, mode: str) -> None:
    states = []
    for own, severity in (("off-chip", 1.0), (mode, 0.0)):
        task = busy(name, mode=own)
        fault = {} if own == "off-chip" else {"gain_mismatch": 0.3, "threshold": 0.3}
        states.append(
            course.train(course.METHODS[name], task, course.shown(task), course.chip_of(task, severity, **fault), 4)
        )
    assert course.names(states) == []


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@methods
def test_a_cell_has_the_same_bits_alone_and_in_company(name: str, architecture: str, constant: bool) -> None:
    method, task = course.METHODS[name], busy(name, architecture, cells=3, rounds=4)
    batch, fault = course.shown(task, constant=constant), {"gain_mismatch": 0.2}
    seen: list[list[Any]] = []
    for cell in (None, 0, 2):
        part = task if cell is None else course.alone(task, cell)
        chosen = slice(None) if cell is None else slice(cell, cell + 1)
        own = Batch(batch.inputs, batch.targets, torch.arange(3)[chosen])
        chip = course.chip_of(part, seed=5 + (cell or 0), **fault)
        drawn = course.streams(task) if cell is None else replace(course.streams(task), seeds=(31 + cell,))
        state, infos = method.init(part, own, chip, drawn), []
        for _ in range(4):
            state, info = method.step(part, state, own, chip, drawn)
            infos += info.traces.values()
        found = method.predict(part, state, own.inputs, own.index, chip)
        seen.append([*state, *infos, found.probabilities, *found.diagnostics.values()])
    for cell, values in zip((0, 2), seen[1:], strict=True):
        for whole, one in zip(seen[0], values, strict=True):
            assert torch.equal(whole[cell : cell + 1], one) if one.dim() else torch.equal(whole, one)


def test_a_probed_cell_has_the_same_bits_alone_and_in_company() -> None:
    task = busy("spide", cells=3, probe=True)
    batch = course.shown(task)
    together = course.train(course.SPIDE, task, batch, course.chip_of(task), 2)
    part = course.alone(task, 0)
    own = Batch(batch.inputs, batch.targets, torch.arange(1))
    alone = course.train(course.SPIDE, part, own, course.chip_of(part), 2)
    assert torch.equal(together.work[:1], alone.work)


@pytest.mark.parametrize("cells", [2, 3, 8])
def test_predictions_have_the_same_bits_alone_and_in_company(cells: int) -> None:
    """Rates are tenths, so that sums of few of them lie halfway between two numbers of single precision."""
    task = course.course(course.SPIDE, "20-20 (F20)", (1, 8, 8), 10, steps=10, cells=cells)
    batch, chip = course.shown(task, samples=171), course.chip_of(task)
    state = course.begin(course.SPIDE, task, batch, chip)
    together = course.SPIDE.predict(task, state, batch.inputs, batch.index, chip).probabilities
    for cell in range(cells):
        part = course.alone(task, cell)
        own = type(state)(*(tensor[cell : cell + 1] if tensor.dim() else tensor for tensor in state))
        index = torch.tensor([cell])
        alone = course.SPIDE.predict(part, own, batch.inputs, index, course.chip_of(part, seed=5 + cell)).probabilities
        assert torch.equal(together[cell : cell + 1], alone)


@pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
@methods
def test_a_training_that_was_saved_in_the_middle_ends_with_the_same_bits(name: str, mode: str, tmp_path: Path) -> None:
    method, task = course.METHODS[name], busy(name, mode=mode, rounds=6)
    if mode not in method.MODES:
        pytest.skip("off-chip alone")
    batch, chip = course.shown(task), course.chip_of(task, threshold=0.2)
    whole = course.train(method, task, batch, chip, 6)
    half = course.train(method, task, batch, chip, 3)
    assert all(isinstance(tensor, torch.Tensor) for tensor in half)
    save_file({key: tensor.contiguous() for key, tensor in half._asdict().items()}, tmp_path / "state.safetensors")
    again, chip = type(half)(**load_file(tmp_path / "state.safetensors")), course.chip_of(task, threshold=0.2)
    for _ in range(3):
        again, _ = method.step(task, again, batch, chip, course.streams(task))
    assert course.names([whole, again]) == []
    assert int(whole.round) == 6 and "weights" in course.names([whole, half])


@methods
def test_every_tensor_has_the_cells_first(name: str) -> None:
    task = busy(name, cells=3)
    state = course.train(course.METHODS[name], task, course.shown(task), course.chip_of(task), 1)
    assert all(tensor.dim() == 0 or len(tensor) == 3 for tensor in state)
