"""From adjoints to gradients of the weights, and the adjoint that ternary spikes come to."""

from __future__ import annotations

import equilibrium_truth as truth
import numpy as np
import pytest
import torch
from equilibrium_truth import Point
from torch.nn import functional

from spikebench import adjoint
from spikebench.architectures import feedback_network
from spikebench.chip import feedback
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.neurons import CoupleParameters, SoftResetParameters

points = pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
names = pytest.mark.parametrize("name", truth.SMALL)
COUPLES = {"reset to -V": CoupleParameters(), "reset to 0": CoupleParameters(1.0, 0.0)}
couples = pytest.mark.parametrize("couple", COUPLES.values(), ids=COUPLES)


def exact(point: Point) -> torch.Tensor:
    """The adjoint [B, N, M]."""
    return adjoint.broyden(point.net, point.weights, point.slope, point.factors, 300, 300, 1e-13).adjoint


def gradient(point: Point, found: torch.Tensor) -> torch.Tensor:
    """Of the weights, [B, P], from an adjoint [B, N, M]."""
    of_layers, of_feedback = point.factors.split((found.shape[2], point.net.widths[0]), dim=2)
    errors, fed_back = of_layers * found, of_feedback * found[..., : point.net.widths[0]]
    return adjoint.gradient(point.net, errors, point.rates, point.shown, fed_back)


# The weights' gradient


@pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
def test_the_gradient_is_that_of_differences_of_the_equilibrium(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every parameter, of a loss g a^N + |a^N|^2 / 2 at the equilibrium of a small convolutional network."""
    monkeypatch.setitem(truth.SMALL, "tiny", ("3C3s-2C3s (F3C3u)", (1, 7, 7)))
    point, h = Point("tiny", masked, smooth=True), 1e-6
    net, width = point.net, point.net.widths[-1]
    changes = torch.cat([h * torch.eye(net.parameters), -h * torch.eye(net.parameters)]).double()
    cells = len(changes)
    inside = None if point.masks is None else point.masks.expand(cells, -1, -1)
    moved = adjoint.equilibrium(net, point.weights.double() + changes, point.shown.expand(cells, -1, -1), inside)
    last = moved[..., -width:]
    losses = (point.slope.double() * last + last.square() / 2).sum(dim=(1, 2)).view(2, -1)
    expected = (losses[0] - losses[1]) / (2 * h)
    point.slope = point.slope.double() + point.rates[..., -width:]
    found = gradient(point, exact(point))[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    feedback = net.split(found)[0][-1]
    assert feedback.abs().max() > 0.005 and (found != 0).double().mean() > 0.3


@points
@pytest.mark.parametrize("name", truth.SMALL | truth.TIED)
def test_the_gradient_is_backpropagation_of_the_adjoint_through_one_round(name: str, masked: bool) -> None:
    """dL/dtheta = beta^N df/dtheta by automatic differentiation, with the feedback's rates held."""
    point = Point(name, masked, devices=2, smooth=True)
    found, width = exact(point), point.net.widths[-1]
    leaf = point.weights.double().requires_grad_()
    inside = None if point.masks is None else point.masks.double()
    rounds = adjoint.around(point.net, leaf, point.shown.double(), point.rates[..., -width:], inside)
    (expected,) = torch.autograd.grad(rounds[-1].clamp(0, 1), leaf, found[..., -width:])
    torch.testing.assert_close(gradient(point, found), expected, atol=1e-9, rtol=1e-9)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(gradient(point, found.float()).double(), expected, atol=1e-4, rtol=1e-4)


@names
def test_once_around_is_the_equations(name: str) -> None:
    """z before the clip, layer by layer."""
    point = Point(name, masked=True)
    width = point.net.widths[-1]
    assert point.masks is not None
    last = torch.rand((1, 4, width), dtype=torch.float64)
    found = adjoint.around(point.net, point.weights.double(), point.shown.double(), last, point.masks.double())
    assert [z.shape[2] for z in found] == list(point.net.widths)
    for n in range(4):
        own = point.matrices[0].around(point.shown[0, n].double().numpy(), last[0, n].numpy(), point.masks[0, n])
        for z, rates in zip(found, own, strict=True):
            np.testing.assert_allclose(z[0, n].clamp(0, 1).numpy(), rates, atol=1e-12)
    assert min(z.min() for z in found) < -0.05, "not clipped"


def test_without_feedback_it_is_plain_backpropagation_through_the_rate_network() -> None:
    """3C3-P2-4C3-5, written with torch's own layers; pools spike, too, and so are halved."""
    point = Point("no feedback")
    layers = [own[0].double().requires_grad_() for own in point.net.unpack(point.weights) if own.numel()]
    signal = point.shown[0].double().view(4, 1, 6, 6)
    one, three, four = layers
    signal = (functional.conv2d(signal, one[:, :-1].view(3, 1, 3, 3), one[:, -1], padding=1) / 2).clamp(0, 1)
    signal = (functional.avg_pool2d(signal, 2) / 2).clamp(0, 1)
    signal = (functional.conv2d(signal, three[:, :-1].view(4, 3, 3, 3), three[:, -1], padding=1) / 2).clamp(0, 1)
    signal = (functional.linear(signal.flatten(1), four[:, :-1], four[:, -1]) / 2).clamp(0, 1)
    torch.testing.assert_close(point.rates[0, :, -5:], signal.detach(), atol=1e-12, rtol=0)
    (signal * point.slope[0]).sum().backward()
    expected = torch.cat([own.grad.flatten() for own in layers])  # type: ignore[union-attr]
    torch.testing.assert_close(gradient(point, exact(point))[0], expected, atol=1e-12, rtol=1e-9)


# The clipped adjoint


@points
@names
def test_where_nothing_is_clipped_the_clipped_adjoint_is_the_exact_one(name: str, masked: bool) -> None:
    point = Point(name, masked, devices=2)
    found = adjoint.clipped(point.net, point.weights, point.slope, point.factors, amplitude=50.0)
    assert found.abs().max() < 50
    torch.testing.assert_close(found, exact(point), atol=1e-10, rtol=0)


@pytest.mark.parametrize("amplitude", [1.0, 0.2])
@names
def test_the_clipped_adjoint_solves_the_clipped_equations(name: str, amplitude: float) -> None:
    """beta^N = phi(J^T-like sweep + g), beta^l = phi(W^T f beta^(l+1)), all at most the amplitude."""
    point = Point(name, masked=True)
    point.slope = 2 * point.slope
    found = adjoint.clipped(point.net, point.weights, point.slope, point.factors, amplitude)
    assert float(found.abs().max()) == pytest.approx(amplitude, abs=1e-11)
    own = point.matrices[0]
    for n in range(4):
        factors, parts = own.parts(point.factors[0, n]), np.split(found[0, n].numpy(), own.cuts[:-1])
        again = own.down(factors, parts[-1], amplitude)
        back = own.links[-1].T @ (factors[-1] * again[0]) if point.net.feedback else 0.0
        again[-1] = np.clip(back + point.slope[0, n].double().numpy(), -amplitude, amplitude)
        np.testing.assert_allclose(found[0, n].numpy(), np.concatenate(again), atol=1e-11)
    assert (found - exact(point)).abs().max() > 0.1


def test_an_adjoint_that_is_not_found_is_said() -> None:
    net = feedback_network("1 (F1)", 2, (), 2, SoftResetParameters())
    weights, factors = torch.tensor([[1.0, -20.0, 0.0]]), torch.full((1, 1, 2), 0.5)
    with pytest.raises(ArithmeticError, match=r"no adjoint after 50 iterations: it still moves by \d"):
        adjoint.clipped(net, weights, torch.tensor([[[0.3]]]), factors, iterations=50)


# The second stage


@couples
@pytest.mark.parametrize("scale", [1.0, 8.0], ids=["", "saturated"])
@points
@names
def test_ternary_spikes_come_to_the_clipped_adjoint_as_one_over_time(
    name: str, masked: bool, scale: float, couple: CoupleParameters
) -> None:
    point = Point(name, masked, devices=2)
    current = scale * point.slope
    limit = adjoint.clipped(point.net, point.weights, current, point.factors)
    found = [
        truth.second_stage(point.net, point.weights, current, point.factors, couple, steps).mean
        for steps in (100, 1600)
    ]
    few, many = ((rates - limit).abs().mean() for rates in found)
    assert many < few / 8
    assert 0 < few < 1.5 / 100, "about half a spike"
    assert max(rates.abs().max() for rates in found) <= 1.0
    assert scale == 1 or limit.abs().max() > 1 - 1e-9


@names
def test_couples_with_a_rest_of_0_truncate_and_with_the_modified_reset_round(name: str) -> None:
    """Sizes are told too small, or not; the latter takes more spikes."""
    point, steps = Point(name, devices=2), 100
    limit = adjoint.clipped(point.net, point.weights, 0.5 * point.slope, point.factors)
    told, spikes = [], []
    for couple in COUPLES.values():
        found = truth.second_stage(point.net, point.weights, 0.5 * point.slope, point.factors, couple, steps)
        last = slice(-point.net.widths[-1], None)
        told.append(float(steps * (found.mean.abs() - limit.abs())[..., last].mean()))
        spikes.append(float(found.spikes.sum()))
    assert abs(told[0]) < 0.25 and told[1] < -0.3
    assert spikes[0] > spikes[1]


@couples
@names
def test_a_slope_that_never_reaches_the_threshold_makes_no_spike_and_no_gradient(
    name: str, couple: CoupleParameters
) -> None:
    point, steps = Point(name, devices=2), 50
    largest = float(couple.threshold) / steps / point.slope.abs().max()
    for share, silent in ((0.98, True), (1.05, False)):
        current = share * largest * point.slope
        found = truth.second_stage(point.net, point.weights, current, point.factors, couple, steps)
        assert bool((found.mean == 0).all()) == (found.spikes.sum() == 0) == (
            found.operations.sum() == 0
        ) == silent or (not silent and found.spikes.sum() == 1)
        assert not silent or not gradient(point, found.mean).any()


@couples
@names
def test_the_second_stage_of_what_a_faulty_chip_should_be_is_that_of_an_ideal_chip(
    name: str, couple: CoupleParameters
) -> None:
    point = Point(name, masked=True, devices=3)
    faulty = [FaultSpec(severity=1.0, gain_mismatch=0.5, threshold=0.5, offset=0.2, dead=0.2)] * 3
    chip = SimulatedChip(point.net, faulty, [4, 5, 6])
    arguments = (point.weights, point.slope, point.factors, couple, 40)
    found = feedback.differentiate(feedback.Flat(point.net, chip.nominal), *arguments)
    for own, expected in zip(found, truth.second_stage(point.net, *arguments), strict=True):
        assert torch.equal(own, expected)
    assert not torch.equal(found.mean, chip.differentiate(*arguments).mean)
    alone = [each[1:2] if isinstance(each, torch.Tensor) else each for each in arguments]
    assert torch.equal(truth.second_stage(point.net, *alone).mean, found.mean[1:2])


def test_leaky_couples_are_averaged_as_their_membranes_weigh() -> None:
    """The same sums by hand: s = +-1 at +-1/2, v <- lambda (v + g - s), late spikes weigh more."""
    net = feedback_network("2", 2, (), 2, SoftResetParameters(leak=0.8))
    current, leak, steps = torch.tensor([[[0.35, -0.2]]]), 0.8, 12
    couple = CoupleParameters(leak=leak)
    found = truth.second_stage(net, torch.ones(1, net.parameters), current, torch.ones(1, 1, 4), couple, steps)
    for g, rate in zip(current[0, 0].tolist(), found.mean[0, 0].tolist(), strict=True):
        v, total, weight = 0.0, 0.0, 0.0
        for _ in range(steps):
            s = float(v + g >= 0.5) - float(v + g <= -0.5)
            v, total, weight = leak * (v + g - s), leak * total + s, leak * weight + 1
        assert rate == pytest.approx(total / weight, abs=1e-6) and rate * g > 0
