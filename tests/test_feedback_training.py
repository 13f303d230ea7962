"""What all ways of training a feedback network share: start, loss, read-out and optimiser, against torch's own."""

from __future__ import annotations

from dataclasses import replace

import equilibrium_truth as truth
import feedback_course as course
import nets
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spikebench import adjoint, feedback_training
from spikebench.feedback_settings import FeedbackSettings
from spikebench.feedback_training import Shown, State
from spikebench.method import Task

SPIDE = course.SPIDE


def begun(task: Task, constant: bool = True) -> tuple[State, Shown]:
    """A first state, and what a minibatch does."""
    batch, chip = course.shown(task, constant=constant), course.chip_of(task)
    state = course.begin(SPIDE, task, batch, chip)
    return state, feedback_training.show(task, state, batch, chip, course.streams(task))


# The start


def fan_in(module: nn.Module) -> int:
    return nn.init._calculate_fan_in_and_fan_out(module.weight)[0]


def test_kaiming_weights_are_scaled_by_torchs_fan_in() -> None:
    """Of a transposed convolution torch looks at the channels that it drives."""
    task = course.course(SPIDE, "20C5s-30C3s-40C3 (F20C3u)", (2, 16, 16), 100, initial_feedback=0.1)
    state = course.begin(SPIDE, task, course.shown(task), course.chip_of(task))
    modules = [nn.Conv2d(2, 20, 5), nn.Conv2d(20, 30, 3), nn.Conv2d(30, 40, 3), nn.ConvTranspose2d(40, 20, 3)]
    for own in state.weights:
        weights, biases = task.network.split(own)
        for module, values, factor in zip(modules, weights, (1, 1, 1, 0.1), strict=True):
            assert values.shape == module.weight.shape
            expected = factor * (2 / fan_in(module)) ** 0.5
            assert float(values.std()) == pytest.approx(expected, rel=5 / (2 * values.numel()) ** 0.5)
            assert abs(float(values.mean())) < 5 * expected / values.numel() ** 0.5
        assert not any(bias.any() for bias in biases)
    assert not torch.equal(*state.weights)
    assert not (state.momentum.any() or state.read_out_momentum.any() or state.work.any() or state.round)


def test_unit_weights_are_uniform_and_every_filter_has_norm_1() -> None:
    task = course.course(SPIDE, "20C5s-30C3s-40C3 (F20C3u)", (2, 16, 16), initial="unit", initial_feedback=0.2)
    state = course.begin(SPIDE, task, course.shown(task), course.chip_of(task))
    weights, biases = task.network.split(state.weights[0])
    for own, factor in zip(weights, (1, 1, 1, 0.2), strict=True):
        torch.testing.assert_close(own.flatten(1).norm(dim=1), torch.full((len(own),), float(factor)))
    assert not any(bias.any() for bias in biases)
    scaled = weights[2].flatten(1) / weights[2].flatten(1).abs().amax(dim=1, keepdim=True)
    assert float((scaled.abs() < 0.5).float().mean()) == pytest.approx(0.5, abs=0.02), "uniform, not normal"


def test_the_read_out_begins_as_torchs_linear_layer_and_is_of_each_cell() -> None:
    task = course.course(SPIDE, "3C3s-50 (F3)", (1, 4, 4), 200)
    state = course.begin(SPIDE, task, course.shown(task), course.chip_of(task))
    assert state.read_out.shape == (2, 200, 51)
    bound = 1 / 50**0.5
    assert 0.99 * bound < state.read_out.max() <= bound and -bound <= state.read_out.min() < -0.99 * bound
    assert float(state.read_out.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not torch.equal(*state.read_out)
    part = course.alone(task, 0)
    one = course.begin(SPIDE, part, course.shown(part), course.chip_of(part))
    assert torch.equal(one.weights[0], state.weights[0]) and torch.equal(one.read_out[0], state.read_out[0])


# The forward stage


@pytest.mark.parametrize("scale", [10.0, 300.0])
def test_loss_slope_and_the_read_outs_gradient_are_torchs(scale: float) -> None:
    task = course.course(SPIDE, loss_scale=scale)
    state, shown = begun(task)
    for b in range(2):
        rates = shown.rates.mean[b, :, -4:].double().requires_grad_()
        read_out = state.read_out[b].double().requires_grad_()
        logits = functional.linear(rates, read_out[:, :-1], read_out[:, -1])
        loss = functional.cross_entropy(logits, shown.batch.targets[b])
        (scale * loss).backward()
        assert float(shown.loss[b]) == pytest.approx(loss.item(), rel=1e-6)
        torch.testing.assert_close(shown.slope[b].double(), rates.grad, atol=1e-7 * scale, rtol=1e-4)
        torch.testing.assert_close(scale * shown.read_out[b].double(), read_out.grad, atol=1e-6 * scale, rtol=1e-4)
    assert shown.rates.mean[..., -4:].std() > 0.01


def test_each_cell_is_shown_its_own_split() -> None:
    task = course.course(SPIDE)
    batch, chip = course.shown(task), course.chip_of(task)
    state, turned = course.begin(SPIDE, task, batch, chip), batch._replace(index=torch.tensor([1, 0]))
    found = [feedback_training.show(task, state, b, chip, course.streams(task)) for b in (batch, turned)]
    assert torch.equal(found[1].inputs, found[0].inputs.flip(0))
    expected = chip.rates(state.weights, batch.inputs, turned.index).mean
    assert torch.equal(found[1].rates.mean, expected)
    rates = expected[..., -4:].double()
    logits = torch.einsum("bni,bci->bnc", rates, state.read_out[..., :-1].double()) + state.read_out[:, None, :, -1]
    losses = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flip(0).flatten(), reduction="none")
    torch.testing.assert_close(found[1].loss, losses.view(2, -1).mean(dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("leak", [1.0, 0.75])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
def test_inputs_are_averaged_as_the_neurons_weigh_them(constant: bool, leak: float) -> None:
    task = course.course(SPIDE, leak=leak)
    _, shown = begun(task, constant)
    inputs = course.shown(task, constant=constant).inputs[..., :-1].double().numpy()
    weights = leak ** np.arange(task.info.steps)[::-1]
    expected = np.einsum("bnti,t->bni", inputs, weights / weights.sum())
    np.testing.assert_allclose(shown.inputs.numpy(), expected, atol=1e-6)


# The weights' gradient


@pytest.mark.parametrize("masked_gradient", [False, True])
def test_the_gradient_sees_the_dropout_masks_where_it_is_told_to(masked_gradient: bool) -> None:
    """By products of dense layers; the feedback's mask counts for the feedback's weights. The loss is divided by S."""
    task = course.course(SPIDE, "6-5 (F6)", (2, 2, 2), dropout=0.4, masked_gradient=masked_gradient)
    _, shown = begun(task)
    found = torch.randn((2, 6, 11), generator=nets.generator(8))
    gradient = feedback_training.weight_gradient(task, shown, found)
    for b in range(2):
        one, two, back = shown.masks[b].split((6, 5, 6), dim=1)
        if not masked_gradient:
            one, two, back = torch.ones_like(one), torch.ones_like(two), torch.ones_like(back)
        lower, upper = shown.rates.mean[b].split((6, 5), dim=1)
        inside = [((a > 0) & (a < 1)).float() for a in (lower, upper)]
        beta = found[b].split((6, 5), dim=1)
        first, second = one * inside[0] * beta[0] / 2, two * inside[1] * beta[1] / 2
        fed_back = back * inside[0] * beta[0] / 2
        parts = [first.T @ shown.inputs[b], fed_back.T @ upper, first.sum(dim=0)[:, None]]
        expected = [torch.cat(parts, dim=1), torch.cat([second.T @ lower, second.sum(dim=0)[:, None]], dim=1)]
        flat = torch.cat([own.flatten() for own in expected]) / 10.0
        torch.testing.assert_close(gradient[b], flat, atol=1e-6, rtol=1e-4)
    assert gradient.dtype == torch.float32 and gradient.std() > 0.001


@pytest.mark.parametrize("name", ["convolutions", "dense last", "no feedback"])
def test_with_the_masks_it_is_the_gradient_at_the_equilibrium(name: str) -> None:
    architecture, picture = truth.SMALL[name]
    task = course.course(SPIDE, architecture, picture, dropout=0.3, masked_gradient=True, initial_feedback=1.0)
    _, shown = begun(task)
    net, masks = task.network, shown.masks.double()
    masks[..., sum(net.widths) :] *= masks[..., : net.widths[0]] > 0  # none at the clip's corner
    rates = adjoint.equilibrium(net, shown.weights, shown.inputs, masks)
    shown = shown._replace(rates=shown.rates._replace(mean=rates), masks=masks.float())
    factors = adjoint.transmission(net, rates, masks)
    found = adjoint.broyden(net, shown.weights, shown.slope, factors, 200, 200, 1e-13).adjoint
    leaf = shown.weights.double().requires_grad_()
    last = adjoint.around(net, leaf, shown.inputs.double(), rates[..., -net.widths[-1] :], masks)[-1].clamp(0, 1)
    (expected,) = torch.autograd.grad(last, leaf, found[..., -net.widths[-1] :])
    gradient = feedback_training.weight_gradient(task, shown, found)
    torch.testing.assert_close(gradient.double(), expected / 10.0, atol=1e-6, rtol=1e-4)
    assert expected.abs().max() > 0.01


# The optimiser


@pytest.mark.parametrize("undivided", [False, True], ids=["divided", "undivided"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_is_torchs_stochastic_gradient_descent(momentum: float, undivided: bool) -> None:
    """Ten rounds with warm-up and two drops, one learning rate a cell; weight decay is that of S times the loss."""
    settings = {"momentum": momentum, "weight_decay": 0.2, "undivided_decay": undivided, "loss_scale": 4.0}
    task = course.course(SPIDE, rounds=10, drops=(0.5, 0.8), warm_up=3, feedback_norm=0.0, **settings)
    task = replace(task, choice={"learning_rate": torch.tensor([0.3, 0.1])})
    batch, chip = course.shown(task), course.chip_of(task)
    state = course.begin(SPIDE, task, batch, chip)
    theirs = [[own[b].clone().requires_grad_() for own in (state.weights, state.read_out)] for b in range(2)]
    decay = 0.2 if undivided else 0.2 / 4.0
    optimisers = [torch.optim.SGD(own, lr=1.0, momentum=momentum, weight_decay=decay) for own in theirs]
    factors = [1 / 3, 2 / 3, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]
    for number, factor in enumerate(factors):
        shown = feedback_training.show(task, state, batch, chip, course.streams(task))
        gradient = torch.randn(state.weights.shape, generator=nets.generator(number))
        state = feedback_training.update(task, state, shown, gradient, {})
        for b, optimiser in enumerate(optimisers):
            optimiser.param_groups[0]["lr"] = factor * (0.3, 0.1)[b]
            theirs[b][0].grad, theirs[b][1].grad = gradient[b], shown.read_out[b]
            optimiser.step()
            torch.testing.assert_close(state.weights[b], theirs[b][0].detach(), atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(state.read_out[b], theirs[b][1].detach(), atol=1e-6, rtol=1e-5)
    assert int(state.round) == 10


def test_s_scales_neither_the_step_nor_the_read_outs() -> None:
    """A larger loss at a learning rate as much smaller: the exact gradient's step does not see S."""
    states = []
    for scale in (1.0, 50.0):
        task = course.course(course.IDE, loss_scale=scale, tolerance=1e-12, iterations=60, memory=60)
        states.append(course.train(course.IDE, task, course.shown(task), course.chip_of(task), 3))
    torch.testing.assert_close(states[0].weights, states[1].weights, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states[0].read_out, states[1].read_out, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("rounds", [1, 7, 40])
def test_the_learning_rate_drops_at_the_shares_of_all_rounds(rounds: int) -> None:
    """The step from 0 momentum by a gradient of 1 is the learning rate."""
    task = course.course(SPIDE, rate=0.5, rounds=rounds, drops=(0.3, 0.6, 0.9), momentum=0.0, feedback_norm=0.0)
    state, shown = begun(task)
    for done in range(rounds):
        moved = feedback_training.update(
            task, state._replace(round=torch.tensor(done)), shown, torch.ones_like(state.weights), {}
        )
        drops = sum(done >= share * rounds for share in (0.3, 0.6, 0.9))
        torch.testing.assert_close(state.weights - moved.weights, torch.full_like(state.weights, 0.5 / 10**drops))
        assert torch.equal(moved.round, torch.tensor(done + 1))


# Settings


def test_what_is_not_allowed_is_said() -> None:
    with pytest.raises(ValueError, match="initial: found 'orthogonal', allowed: kaiming, unit"):
        FeedbackSettings(initial="orthogonal")
    with pytest.raises(ValueError, match="dropout_of: found 'none', allowed: all, dense"):
        FeedbackSettings(dropout_of="none")


def test_settings_are_what_the_harness_reads() -> None:
    settings = FeedbackSettings(learning_rates=[0.1, 0.2], drops=[0.5], minibatch=7)  # type: ignore[arg-type]
    assert settings.SEARCH == {"learning_rate": (0.1, 0.2)} and settings.drops == (0.5,)
    assert (settings.batch_size, settings.updates(30)) == (7, 1)
    assert hash(settings) == hash(FeedbackSettings(learning_rates=(0.1, 0.2), drops=(0.5,), minibatch=7))
