"""The multi-step engine's layers in plain torch: the same values and gradients as the compiled kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import multistep_truth as truth
import nets
import pytest
import torch

from spikebench import multistep, multistep_torch
from spikebench.multistep import How, present
from spikebench.multistep_kernels import GRADED, MOMENTS, SMOOTH, SPIKES
from spikebench.multistep_torch import Plan
from spikebench.surrogates import FAMILIES

families = pytest.mark.parametrize("family", FAMILIES)
modes = pytest.mark.parametrize("mode", [SPIKES, SMOOTH, GRADED], ids=["spikes", "smooth", "graded"])
constant = pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
normalise = pytest.mark.parametrize("normalise", [True, False], ids=["batch norm", "gains"])
#: Steps, examples, side and channels; a row and a column are left over by pools of 2.
T, N, SIDE, C = 4, 5, 5, 3

Tensors = list[torch.Tensor]


def plan(family: str = "arctan", mode: int = SPIKES, pool: int = 1, edge: float = 0.0, normal: bool = False) -> Plan:
    return Plan(T, 0.25, family, mode, pool, edge, normal)


def arguments(constant: bool = False, seed: int = 3) -> Tensors:
    """Currents, gain, bias, log k and threshold, all different."""
    g = nets.generator(seed)
    return [
        torch.randn(1 if constant else T, N, SIDE, SIDE, C, generator=g),
        torch.rand(C, generator=g) + 0.5,
        torch.randn(C, generator=g) * 0.3,
        torch.randn(T, generator=g) * 0.3,
        torch.tensor(0.55),
    ]


def device_spikes() -> torch.Tensor:
    return torch.randint(0, 2, (T, N, SIDE, SIDE, C), generator=nets.generator(4)).float()


def scalar(*parts: torch.Tensor) -> torch.Tensor:
    """Some number that depends on all of it."""
    weights = [torch.randn(part.shape, generator=nets.generator(5 + n)).to(part) for n, part in enumerate(parts)]
    return torch.stack([(part * weight).sum() for part, weight in zip(parts, weights, strict=True)]).sum()


def values(run: Callable[..., Any], given: Tensors, device: torch.Tensor | None, how: Plan) -> Tensors:
    """What a layer hands back, and its gradients."""
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    found = run(*leaves, device, how)
    return [*found, *torch.autograd.grad(scalar(*found[:2]), leaves, allow_unused=True, materialize_grads=True)]


def close(found: Tensors, expected: Tensors, share: float = 1e-5) -> None:
    """Each within a share of its largest value."""
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == other.shape and one.dtype == other.dtype, number
        away = (one - other).detach().abs().max()
        assert away <= share * other.detach().abs().max() + 1e-7, (number, float(away))


def compare(given: Tensors, how: Plan, device: torch.Tensor | None = None) -> Tensors:
    found, expected = (values(run, given, device, how) for run in (multistep_torch.spikes, multistep._Spikes.apply))
    close(found, expected)
    assert all(slope.abs().max() > 1e-3 for slope in expected[4:7])
    return found


# A layer against the kernels


@pytest.mark.parametrize("pool", [1, 2, 5])
@modes
@families
def test_values_and_gradients_are_the_kernels(family: str, mode: int, pool: int) -> None:
    for normal, edge in itertools.product((False, True), (0.0, 0.05)):
        found = compare(arguments(), plan(family, mode, pool, edge, normal))
        assert found[0].shape == (T, N, SIDE // pool, SIDE // pool, C) and found[1].shape == (MOMENTS, T, C)
        assert bool((found[1][4] > 1e-3).any()) == (edge > 0 and mode != SMOOTH)  # what is smooth sends p itself
        assert bool((found[3] != 1).all()) == normal


@modes
@families
def test_constant_currents_are_there_at_all_steps(family: str, mode: int) -> None:
    for normal in (False, True):
        compare(arguments(constant=True), plan(family, mode, 2, 0.02, normal))


@pytest.mark.parametrize("pool", [1, 2])
@modes
def test_what_is_given_takes_the_place_of_spikes(mode: int, pool: int) -> None:
    spikes = device_spikes()
    found = compare(arguments(), plan("gaussian", mode, pool, 0.1, True), spikes)
    heard = spikes[:, :, : SIDE // pool * pool, : SIDE // pool * pool]
    torch.testing.assert_close(found[1][2], heard.mean(dim=(1, 2, 3)))
    if mode != GRADED and pool == 1:
        assert torch.equal(found[0], spikes)


@constant
@pytest.mark.parametrize("pool", [1, 2])
def test_where_nothing_is_rounded_spikes_are_the_kernels_to_the_bit(constant: bool, pool: int) -> None:
    """Dyadic currents, gains and biases and a decay of 1/4; many potentials are exactly at the threshold."""
    currents = nets.dyadic((1 if constant else T, 50, SIDE, SIDE, C), nets.generator(6))
    numbers = [torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.25, 0.0, -0.25]), torch.zeros(T), torch.tensor(0.5)]
    own, theirs = (
        run(currents, *numbers, None, plan(pool=pool)) for run in (multistep_torch.spikes, multistep._spikes)
    )
    assert torch.equal(own[0], theirs[0]) and 0.1 < own[0].mean() < 0.9
    assert bool((currents[0, ..., 1] * 2 == 0.5).any())


def test_a_layer_may_be_differentiated_more_than_once() -> None:
    """As by the loss and by the divergence; each time it is run again."""
    found = []
    for together in (True, False):
        leaves = [tensor.requires_grad_() for tensor in arguments()]
        sent, moments, *_ = multistep_torch.spikes(*leaves, None, plan(pool=2, normal=True))
        totals = [scalar(sent) + scalar(moments)] if together else [scalar(sent), scalar(moments)]
        slopes = [torch.autograd.grad(total, leaves, retain_graph=True) for total in totals]
        found.append([torch.stack(own).sum(dim=0) for own in zip(*slopes, strict=True)])
    close(*found)


def test_currents_are_all_that_a_layer_keeps() -> None:
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    leaves = [tensor.requires_grad_() for tensor in arguments()]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        multistep_torch.spikes(*leaves, None, plan(pool=2, edge=0.1, normal=True))
    assert sum(kept) <= leaves[0].numel() + 100


# Against differences


@normalise
@families
def test_the_smooth_layer_has_the_gradient_of_its_own_differences(family: str, normalise: bool) -> None:
    """In double precision; of u o, o is taken as given."""
    how = plan(family, SMOOTH, 2, 0.0, normalise)
    g = nets.generator(7)
    currents = torch.randn(T, 2, 2, 3, 2, generator=g, dtype=torch.float64)
    numbers = [tensor[:2].double() if tensor.dim() else tensor.double() for tensor in arguments()[1:]]
    numbers[2] = torch.randn(T, generator=g, dtype=torch.float64) * 0.3
    leaves = [tensor.requires_grad_() for tensor in (currents, *numbers)]

    def sent_and_moments(*leaves: torch.Tensor) -> Tensors:
        sent, moments, *_ = multistep_torch.spikes(*leaves, None, how)
        return [sent, moments[:3]]

    assert torch.autograd.gradcheck(sent_and_moments, leaves)


# Networks


def both(
    monkeypatch: pytest.MonkeyPatch, name: str, how: How, constant: bool = False, given: Any = None
) -> list[tuple[multistep.Course, Tensors]]:
    """What a network does and its gradients, by the kernels and by torch."""
    net, found = truth.network(name), []
    inputs = truth.shown(net, T, constant)
    for run in (multistep._spikes, multistep_torch.spikes):
        own = truth.leaf(truth.drawn(net, T))
        with monkeypatch.context() as patch:
            patch.setattr(multistep, "_spikes", run)
            course = present(net, own, inputs, how, given, keep=True)
            total = scalar(course.sent, *course.moments, *course.unquantised)
            found.append((course, list(torch.autograd.grad(total, truth.leaves(own)))))
    return found


def alike(found: list[tuple[multistep.Course, Tensors]]) -> None:
    (kernels, expected), (course, slopes) = found
    assert course.statistics.keys() == kernels.statistics.keys()
    for k, of_link in course.statistics.items():
        close(list(of_link), list(kernels.statistics[k]))
        assert not of_link[0].requires_grad and not of_link[1].requires_grad
    close(
        course.moments + course.unquantised + course.currents, kernels.moments + kernels.unquantised + kernels.currents
    )
    close(slopes, expected, 1e-4)


@normalise
@constant
@pytest.mark.parametrize("name", truth.NETWORKS)
def test_networks_do_the_same(monkeypatch: pytest.MonkeyPatch, name: str, constant: bool, normalise: bool) -> None:
    shortcuts = bool(truth.network(name).shortcuts)
    found = both(monkeypatch, name, How("triangular", normalise, edge=0.05, paths=not shortcuts), constant)
    alike(found)
    assert torch.equal(found[0][0].sent, found[1][0].sent) and bool(found[0][0].unquantised) != shortcuts


@families
def test_smooth_networks_do_the_same(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    alike(both(monkeypatch, "pools", How(family, True, smooth=True)))


def test_networks_with_a_device_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, places, given = truth.network("pools"), nets.generator(3), {}
    for number in multistep.neurons(net):
        channels, height, width = net.maps[number + 1]
        given[number] = torch.randint(0, 2, (T, 6, height, width, channels), generator=places).float()
    found = both(monkeypatch, "pools", How("gaussian", edge=0.1), given=given)
    alike(found)
    assert torch.equal(found[0][0].sent, found[1][0].sent)


def test_what_the_kernels_cannot_reach_goes_to_torch() -> None:
    """Tensors without values stand for those of another device."""
    net = truth.network("pools")
    own = truth.leaf(truth.drawn(net, T))
    own = own._replace(**{name: [x.to("meta") for x in getattr(own, name)] for name in ("weights", "gains", "biases")})
    own = own._replace(log_sharpness=own.log_sharpness.to("meta"), thresholds=own.thresholds.to("meta"))
    course = present(net, own, truth.shown(net, T).to("meta"), How("arctan", True, edge=0.1, paths=True), keep=True)
    made = [course.sent, *course.moments, *course.unquantised, *course.currents]
    assert all(tensor.is_meta for tensor in made)
    assert course.sent.shape == (T, 6, 1, 1, 6)
    slopes = torch.autograd.grad(course.sent.sum(), truth.leaves(own))
    assert [slope.shape for slope in slopes] == [leaf.shape for leaf in truth.leaves(own)]
