"""Backpropagation through time of feedback networks: smoothed, it is exact; forward, it is the chip."""

from __future__ import annotations

import equilibrium_truth as small
import feedback_truth as truth
import nets
import pytest
import torch

from spikebench import unrolled
from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.neurons import SoftResetParameters, soft_reset_step
from spikebench.surrogates import SURROGATES

#: Thresholds a little low, so that dyadic potentials are never at them.
LOW = 2.0**-20
NEURONS = {
    "IF": SoftResetParameters(1.0 - LOW, -1.0 - LOW),
    "plain reset": SoftResetParameters(2.0 - LOW, -LOW),
    "LIF": SoftResetParameters(1.0 - LOW, -1.0 - LOW, 0.5),
}
neurons = pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
constants = pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
points = pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
BOTH = torch.arange(2)


@points
@constants
@neurons
@pytest.mark.parametrize("name", truth.ARCHITECTURES)
def test_the_models_average_rates_are_those_of_an_ideal_chip(
    name: str, neuron: SoftResetParameters, constant: bool, masked: bool
) -> None:
    net = truth.network(name, neuron)
    weights, inputs = truth.drawn(net), truth.shown(net, constant)
    masks = truth.scales(net) if masked else None
    found = unrolled.average_rates(net, weights, inputs[..., :-1], masks, "gaussian")
    chip = SimulatedChip(net, [FaultSpec()] * 2, range(2))
    expected = chip.rates(weights, inputs, BOTH, masks).mean[..., -net.widths[-1] :]
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)
    assert found.std() > 0.05


@points
@constants
@neurons
@pytest.mark.parametrize("name", ["3C3s-2C3s (F3C3u)", "3-2 (F3)", "2C3-P2", "2C3 (F2C3)", "2C3s-3 (F2)"])
def test_smoothed_spikes_have_the_gradient_of_differences(
    name: str, neuron: SoftResetParameters, constant: bool, masked: bool
) -> None:
    net = feedback_network(name, 37, (1, 6, 6), 2, neuron)
    generator = nets.generator(3)
    weights = torch.randn((1, net.parameters), generator=generator, dtype=torch.float64).requires_grad_()
    inputs = torch.rand((1, 2, 1 if constant else 4, 36), generator=generator, dtype=torch.float64).expand(
        -1, -1, 4, -1
    )
    masks = small.masks(net, samples=2).double() if masked else None
    assert torch.autograd.gradcheck(
        lambda p: unrolled.average_rates(net, p, inputs, masks, "gaussian", smooth=True), weights, fast_mode=True
    )


@pytest.mark.parametrize("surrogate", SURROGATES)
@points
def test_the_gradient_is_that_of_the_equations_step_by_step(surrogate: str, masked: bool) -> None:
    """Two dense layers, written out with torch; the spike's derivative is the surrogate's, through the reset, too."""
    net = feedback_network("4-3 (F4)", 6, (), 2, SoftResetParameters(leak=0.75))
    generator = nets.generator(4)
    weights = 0.5 * torch.randn((1, net.parameters), generator=generator) + 0.2
    inputs = torch.rand((1, 5, 6, 5), generator=generator)
    masks = small.masks(net, samples=5) if masked else torch.ones(1, 5, 11)
    slope = torch.randn((1, 5, 3), generator=generator)
    leaf = weights.clone().requires_grad_()
    first, second = (own[0] for own in net.unpack(leaf))
    one, two, back = masks[0].split((4, 3, 4), dim=1)
    kept, sent = [torch.zeros(5, 4), torch.zeros(5, 3)], torch.zeros(5, 3)
    total, weight = torch.zeros(5, 3), 0.0
    for t in range(6):
        potential = kept[0] + one * (inputs[0, :, t] @ first[:, :5].T + first[:, -1]) + back * (sent @ first[:, 5:8].T)
        spikes = SURROGATES[surrogate].spike(potential - 1.0)
        kept[0] = 0.75 * (potential - 2.0 * spikes)
        potential = kept[1] + two * (spikes @ second[:, :4].T + second[:, -1])
        sent = SURROGATES[surrogate].spike(potential - 1.0)
        kept[1] = 0.75 * (potential - 2.0 * sent)
        total, weight = 0.75 * total + sent, 0.75 * weight + 1.0
    (expected,) = torch.autograd.grad(total / weight, leaf, slope[0])
    found = unrolled.gradient(net, weights, inputs, masks if masked else None, slope, surrogate)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert expected.abs().max() > 0.1 and not weights.requires_grad


def test_a_spike_is_sent_where_the_potential_is_at_the_threshold() -> None:
    """And its value is 0 or 1, whatever the surrogate."""
    net = feedback_network("1", 2, (), 1, SoftResetParameters())
    for surrogate in SURROGATES:
        for weight, rate in ((1.0, 4 / 7), (0.5, 2 / 7), (2.0, 1.0)):
            found = unrolled.average_rates(
                net, torch.tensor([[weight, 0.0]]), torch.ones(1, 1, 7, 1), None, surrogate
            ).item()
            kept, spikes = torch.zeros(1), 0.0
            for _ in range(7):
                state = soft_reset_step(torch.tensor([weight]), kept, net.nominal)
                kept, spikes = state.kept, spikes + state.spikes.item()
            assert found == pytest.approx(spikes / 7) == rate


@constants
def test_cells_are_apart(constant: bool) -> None:
    net = truth.network("twice the side")
    weights, inputs = truth.drawn(net, 3), truth.shown(net, constant)[[0, 1, 0]]
    masks, slope = truth.scales(net, 3), nets.dyadic((3, truth.SAMPLES, net.widths[-1]), nets.generator(6))
    whole = unrolled.gradient(net, weights, inputs[..., :-1], masks, slope, "gaussian")
    for b in range(3):
        part = slice(b, b + 1)
        own = unrolled.gradient(net, weights[part], inputs[part][..., :-1], masks[part], slope[part], "gaussian")
        assert torch.equal(whole[part], own)
        assert own.std() > 0
