"""Steps of training: torch's optimiser on the same gradients, and what each variant and setting learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import multistep_truth as truth
import nets
import pytest
import torch
from torch.nn import functional

from spikebench import potential_shift, sharpness
from spikebench import surrogate_training as training
from spikebench.errors import Unavailable
from spikebench.method import Task
from spikebench.multistep import How
from spikebench.multistep_parameters import Parts
from spikebench.surrogate_training import Net, Shown

PSG = truth.PSG
SMALL = {"architecture": "3C3-M2-4C3", "picture": (1, 4, 4)}


def small(variant: str = "fixed", **settings: Any) -> Task:
    return truth.task(variant, **{**SMALL, "family": "arctan", **settings})


def begin(task: Task, seed: int = 1) -> Net:
    """A network before training."""
    arranged = training.layout(task)
    vector = arranged.start(torch.randn(arranged.size, generator=nets.generator(seed)), 1.0, 0.5)
    running = torch.stack([torch.zeros(arranged.channels), torch.ones(arranged.channels)])
    none = torch.zeros_like(vector)
    return Net(vector, none, running, torch.zeros(2), torch.zeros(arranged.layers, arranged.size))


def minibatch(task: Task, number: int = 0, samples: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = truth.shown(task.network, task.info.steps, samples=samples, seed=number)  # type: ignore[arg-type]
    return inputs, torch.arange(samples) % task.info.outputs


def train(task: Task, net: Net, steps: int, rate: float = 0.1) -> list[Net]:
    """The network after each of some steps, and at the start."""
    found = [net]
    for number in range(steps):
        found.append(training.descend(task, found[-1], *minibatch(task, number), rate, number)[0])
    return found


def parts(task: Task, vector: torch.Tensor) -> Parts:
    return training.layout(task).split(vector)


def gradients(task: Task, net: Net, number: int = 0) -> tuple[torch.Tensor, torch.Tensor, Shown]:
    """Of the loss and of the divergence, and what was shown."""
    leaf = net.vector.clone().requires_grad_()
    shown = training.show(task, leaf, *minibatch(task, number))
    (loss,) = torch.autograd.grad(shown.loss, leaf, retain_graph=True)
    (other,) = torch.autograd.grad(shown.shift, leaf) if shown.shift.requires_grad else (torch.zeros_like(leaf),)
    return loss, other, shown


# The loss


def test_the_loss_is_the_cross_entropy_of_average_rates() -> None:
    task = small()
    net, (inputs, targets) = begin(task), minibatch(task)
    own = parts(task, net.vector)
    used = training.parameters(task, own)
    exact = truth.present(task.network, truth.doubled(used), inputs, How("arctan", True))
    read_out = own.read_out.double()
    logits = functional.linear(exact.sent.mean(dim=0).flatten(1), read_out[:, :-1], read_out[:, -1])
    shown = training.show(task, net.vector, inputs, targets)
    assert shown.loss.item() == pytest.approx(functional.cross_entropy(logits, targets).item(), rel=1e-5)
    assert not shown.shift.item() and not shown.shift.requires_grad


@pytest.mark.parametrize("pda", potential_shift.SHIFTS)
def test_the_divergence_is_the_mean_over_layers_of_the_one_that_is_asked_for(pda: str) -> None:
    for settings in ({}, {"by_layer": True}):
        task = small("psg+pda", pda=pda, **settings)
        net, (inputs, targets) = begin(task), minibatch(task)
        shown = training.show(task, net.vector, inputs, targets)
        own, by_layer = training.parameters(task, parts(task, net.vector)), bool(settings)
        how = How("arctan", True, edge=potential_shift.EDGE, paths=True)
        exact = truth.present(task.network, truth.doubled(own), inputs, how)
        if pda == "c":
            (pair,) = zip(exact.moments[1:], exact.unquantised, strict=True)
            expected = [potential_shift.between_paths(*pair, by_layer)]
        else:
            thresholds = own.thresholds.double()
            expected = [
                potential_shift.shift(pda, m, v, by_layer=by_layer)
                for m, v in zip(exact.moments, thresholds, strict=True)
            ]
        assert shown.shift.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-3)
        assert not training.show(small("psg", pda=pda), net.vector, inputs, targets).shift.requires_grad


@pytest.mark.parametrize("through", [False, True])
def test_spikes_within_the_divergence_are_given_unless_they_are_asked_for(through: bool) -> None:
    task, net = small("pda", through_spikes=through), begin(small())
    leaf = net.vector.clone().requires_grad_()
    moments, slopes = training.show(task, leaf, *minibatch(task)).course.moments, []
    for detach in (not through, through):
        total = torch.stack([potential_shift.shift("a-gauss", m, torch.tensor(0.5), detach) for m in moments]).mean()
        slopes += torch.autograd.grad(total, leaf, retain_graph=True)
    torch.testing.assert_close(gradients(task, net)[1], slopes[0], atol=1e-6, rtol=1e-4)
    assert (slopes[0] - slopes[1]).norm() > 0.05 * slopes[0].norm()


# The optimiser


@pytest.mark.parametrize("variant", ["fixed", "psg", "ltmd", "ltmd+psg"])
def test_it_is_torchs_stochastic_gradient_descent(variant: str) -> None:
    """Sharpness at a rate of its own and without decay; what a variant does not learn has neither."""
    task = small(variant, weight_decay=0.05, momentum=0.8, sharpness_rate=5.0)
    net, arranged = begin(task), training.layout(task)
    theirs = [tensor.clone().requires_grad_() for tensor in parts(task, net.vector)[-3:]]
    rest = net.vector[: -sum(map(torch.numel, theirs))].clone().requires_grad_()
    read_out, log_sharpness, thresholds = theirs
    groups: list[dict[str, Any]] = [{"params": [rest, read_out], "factor": 1.0}]
    if "psg" in variant:
        groups.append({"params": [log_sharpness], "factor": 5.0, "weight_decay": 0.0})
    if "ltmd" in variant:
        groups.append({"params": [thresholds], "factor": 1.0})
    optimiser = torch.optim.SGD(groups, lr=1.0, momentum=0.8, weight_decay=0.05)
    for number, rate in enumerate((0.1, 0.1, 0.05, 0.2)):
        gradient = gradients(task, net, number)[0]
        net, _ = training.descend(task, net, *minibatch(task, number), rate, number)
        for own, slope in zip(theirs, parts(task, gradient)[-3:], strict=True):
            own.grad = slope
        rest.grad = gradient[: len(rest)]
        for group in optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        optimiser.step()
        flat = torch.cat([rest, *(own.flatten() for own in theirs)]).detach()
        torch.testing.assert_close(net.vector, flat, atol=1e-6, rtol=1e-4)
    assert (parts(task, net.vector).log_sharpness != 0).any() == ("psg" in variant)
    assert arranged.size == len(flat)


@pytest.mark.parametrize("variant", PSG.VARIANTS)
def test_what_a_variant_moves(variant: str) -> None:
    task = small(variant, weight_decay=0.1)
    first, *_, last = train(task, begin(task), 3)
    moved = [
        bool((a != b).any()) for a, b in zip(parts(task, first.vector)[-2:], parts(task, last.vector)[-2:], strict=True)
    ]
    assert moved == ["psg" in variant, "ltmd" in variant]
    for a, b in zip(parts(task, first.vector).weights, parts(task, last.vector).weights, strict=True):
        assert (a != b).float().mean() > 0.9


def test_a_decayed_sharpness_goes_to_1() -> None:
    """Weight decay draws log k to 0, where it is asked for, and then as any other parameter's."""
    found = []
    for decayed in (False, True):
        task = small("psg", weight_decay=0.5, decayed_sharpness=decayed, sharpness_rate=2.0, momentum=0.0)
        net = begin(task)
        start = training.layout(task).join(parts(task, net.vector)._replace(log_sharpness=torch.tensor([1.0, -2.0])))
        found.append(parts(task, train(task, net._replace(vector=start), 1)[-1].vector).log_sharpness)
    torch.testing.assert_close(found[0] - found[1], 0.1 * 2.0 * 0.5 * torch.tensor([1.0, -2.0]), atol=1e-6, rtol=1e-5)


def test_a_shared_sharpness_is_one_for_all_layers() -> None:
    task = small("psg", shared_sharpness=True)
    net = train(task, begin(task), 3)[-1]
    used = training.parameters(task, parts(task, net.vector)).log_sharpness
    assert used.shape == (2, 3) and len(used.unique()) == 1 and used[0, 0] != 0


def test_thresholds_are_the_tanh_of_what_is_learnt_and_else_one_half() -> None:
    for variant, expected in (("ltmd", math.tanh(0.3)), ("ltmd+psg", math.tanh(0.3)), ("psg", 0.5), ("pda", 0.5)):
        task = small(variant)
        own = parts(task, begin(task).vector)._replace(thresholds=torch.full((2,), 0.3))
        torch.testing.assert_close(training.parameters(task, own).thresholds, torch.full((2,), expected))


def test_batch_norm_keeps_a_tenth_of_each_minibatch() -> None:
    task, net = small(), begin(small())
    _, _, shown = gradients(task, net)
    after, _ = training.descend(task, net, *minibatch(task), 0.1, 0)
    means, variances = (torch.cat([shown.course.statistics[k][n] for k in range(2)]) for n in (0, 1))
    torch.testing.assert_close(after.running, torch.stack([0.1 * means, 0.9 + 0.1 * variances]))


# The schedule


def test_the_schedule_is_a_cosine_and_with_a_new_start_two() -> None:
    task = small(rounds=8)
    expected = [0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8)]
    assert [training.schedule(task, n) for n in range(8)] == pytest.approx(expected)
    assert (training.schedule(task, 0), training.schedule(task, 4)) == (1.0, pytest.approx(0.5))
    again = small("psg", rounds=9, retrain=True)
    expected = [0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(4)]
    expected += [0.5 * (1 + math.cos(math.pi * n / 5)) for n in range(5)]
    assert [training.schedule(again, n) for n in range(9)] == pytest.approx(expected)


# The weight of the divergence


@pytest.mark.parametrize("pda", ["a-gauss", "b", "quantisation"])
def test_the_divergence_weighs_a_share_of_the_loss_over_the_first_epoch(pda: str) -> None:
    """Of four steps: what is added has at most ``ratio`` of the mean norm so far, later of the epoch's."""
    task = small("pda", pda=pda, ratio=0.2, momentum=0.0, weight_decay=0.0, rounds=8, epochs=2)
    net, sums, weights = begin(task), [0.0, 0.0], []
    for number in range(8):
        loss, other, _ = gradients(task, net, number)
        if number < 4:
            sums = [sums[0] + float(loss.norm()), sums[1] + float(other.norm())]
        weight = 0.2 * sums[0] / sums[1]
        cap = 0.2 * sums[0] / min(number + 1, 4) / float(other.norm())
        weights.append(min(weight, cap) == weight)
        after, _ = training.descend(task, net, *minibatch(task, number), 0.1, number)
        added = parts(task, (net.vector - after.vector) / 0.1 - loss)
        expected = parts(task, min(weight, cap) * other)
        for mine, theirs in zip([*added.weights, *added.biases], [*expected.weights, *expected.biases], strict=True):
            torch.testing.assert_close(mine, theirs, atol=2e-5 * float(loss.norm()) + 2e-6, rtol=1e-3)
        torch.testing.assert_close(after.norms, torch.tensor(sums), rtol=1e-4, atol=0)
        net = after
    assert any(weights) and not all(weights), "now and then it is capped"


def test_the_sharpness_follows_the_loss_alone() -> None:
    moved = []
    for variant in ("psg", "psg+pda"):
        task = small(variant, through_spikes=True, ratio=1.0, weight_decay=0.0)
        moved.append(parts(task, train(task, begin(task), 1)[-1].vector))
    assert torch.equal(moved[0].log_sharpness, moved[1].log_sharpness) and moved[0].log_sharpness.any()
    assert not torch.equal(moved[0].weights[0], moved[1].weights[0])


# P2, P3 and a new start


def test_p2_looks_ahead_from_the_step_before() -> None:
    """The first one has nothing to look back at."""
    task = small("psg", psg="p2", momentum=0.0, sharpness_rate=100.0)
    net, rate = begin(task), 0.4
    first, second = train(task, net, 2, rate)[1:]
    assert torch.equal(parts(task, first.vector).log_sharpness, torch.zeros(2))

    def gradient(offset: torch.Tensor) -> torch.Tensor:
        return training.weights_gradient(task, net.vector, *minibatch(task, 0), offset)

    assert torch.equal(first.sensitivity, sharpness.sensitivity(gradient, 2)) and first.sensitivity.norm() > 0
    assert not any(tensor.any() for tensor in parts(task, first.sensitivity[0])[-2:])
    made_with = rate * training.schedule(task, 0) / training.schedule(task, 1)  # if the second is made with rate
    slope = sharpness.look_ahead(gradients(task, first, 1)[0], first.sensitivity, made_with)
    assert made_with > rate
    torch.testing.assert_close(parts(task, second.vector).log_sharpness, -rate * 100.0 * slope)
    assert slope.all() and not torch.equal(second.sensitivity, first.sensitivity)


def test_the_step_that_is_looked_through_is_of_neither_sharpness_nor_thresholds() -> None:
    task = small("ltmd+psg", psg="p2")
    loss, found = (
        parts(task, gradient)
        for gradient in (
            gradients(task, begin(task))[0],
            training.weights_gradient(task, begin(task).vector, *minibatch(task), torch.zeros(2)),
        )
    )
    assert loss.log_sharpness.all() and loss.thresholds.all()
    assert not found.log_sharpness.any() and not found.thresholds.any()
    assert all(map(torch.equal, loss.weights, found.weights)) and torch.equal(loss.read_out, found.read_out)


def test_only_p2_keeps_a_sensitivity_and_p3_learns_no_sharpness() -> None:
    for variant, psg in (("psg", "p1"), ("psg", "p3"), ("fixed", "p2"), ("ltmd", "p2")):
        task = small(variant, psg=psg, weight_decay=0.1)
        first, *_, last = train(task, begin(task), 2)
        assert last.sensitivity is first.sensitivity
        assert parts(task, last.vector).log_sharpness.any() == (psg == "p1")


def test_after_half_of_the_rounds_a_retrained_sharpness_stays() -> None:
    task = small("psg", retrain=True, rounds=4)
    nets_after = train(task, begin(task), 4)
    found = [parts(task, net.vector).log_sharpness for net in nets_after]
    assert not torch.equal(found[1], found[2])
    frozen = training.descend(task, begin(task), *minibatch(task), 0.1, 2)[0]
    assert not parts(task, frozen.vector).log_sharpness.any()
    assert parts(task, training.descend(task, begin(task), *minibatch(task), 0.1, 1)[0].vector).log_sharpness.any()


# The control, and whether P1 looks ahead


def test_the_rate_matched_network_follows_the_other_ones_rates() -> None:
    task = small("pda", pda="rate", ratio=1.0, matching=100.0, rounds=40, minibatch=12)
    twin = matched = begin(task)
    alone = begin(task)
    for number in range(40):
        batch = minibatch(task, number % 4)
        twin, shown = training.descend(task, twin, *batch, 0.05, number)
        matched, own = training.descend(task, matched, *batch, 0.05, number, shown)
        alone, other = training.descend(replace(task, variant="fixed"), alone, *batch, 0.05, number)
        if number == 0:
            assert own.shift.item() == 0.0 and torch.equal(own.loss, shown.loss)

    def distance(found: Shown) -> float:
        pairs = zip(found.course.moments, shown.course.moments, strict=True)
        return max(abs(float(a[2].detach().mean() - b[2].detach().mean())) for a, b in pairs)

    assert distance(own) < 0.3 * distance(other) and distance(other) > 0.01
    expected = [(a[2].mean() - b[2].mean()) ** 2 for a, b in zip(own.course.moments, shown.course.moments, strict=True)]
    assert own.shift.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_the_matched_gradient_has_the_weight_of_the_settings() -> None:
    task = small("pda", matching=7.0, momentum=0.0, weight_decay=0.0)
    net, other, batch = begin(task), begin(task, 2), minibatch(task)
    shown = training.show(task, other.vector, *batch)
    leaf = net.vector.clone().requires_grad_()
    own = training.show(task, leaf, *batch, matched=shown)
    (expected,) = torch.autograd.grad(own.loss + 7.0 * own.shift, leaf)
    after, _ = training.descend(task, net, *batch, 0.1, 0, shown)
    weights = [parts(task, x).weights for x in ((net.vector - after.vector) / 0.1, expected)]
    for mine, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_agreement_is_of_signs_with_the_real_loss_after_the_step() -> None:
    task = small("psg")
    seen = set()
    for seed in range(8):
        net, (inputs, targets), rate = begin(task, seed), minibatch(task, seed, 24), 2.0
        found = training.agreement(task, net, inputs, targets, rate)
        own = net.vector.clone().requires_grad_()
        loss = training.show(task, own, inputs[:12], targets[:12]).loss
        p1 = parts(task, torch.autograd.grad(loss, own)[0]).log_sharpness
        for k in range(2):
            offset, losses = torch.zeros(2), []
            for sign in (1, -1):
                offset[k] = sign * 2 * sharpness.STEP
                step = training.weights_gradient(task, net.vector, inputs[:12], targets[:12], offset)
                losses.append(training.show(task, net.vector - rate * step, inputs[12:], targets[12:]).loss.item())
            change = losses[0] - losses[1]
            assert found[k] == (0.5 if change == 0 else float((change > 0) == bool(p1[k] > 0)))
        seen |= set(found.tolist())
    assert seen >= {0.0, 1.0} and seen <= {0.0, 0.5, 1.0}
    still = training.agreement(task, begin(task), *minibatch(task), 0.0)
    assert still.tolist() == [0.5, 0.5], "without a step nothing can be said"


@pytest.mark.parametrize(("variant", "settings"), [("ltmd", {}), ("pda", {"pda": "c"}), ("fixed", {"probe": True})])
def test_shortcuts_know_neither_learnt_thresholds_nor_second_paths(variant: str, settings: dict[str, Any]) -> None:
    made = replace(small(variant, **settings), network=truth.network("wire"))
    with pytest.raises(Unavailable, match="networks with shortcuts"):
        training.layout(made)
    training.layout(replace(small("psg+pda"), network=truth.network("wire")))
