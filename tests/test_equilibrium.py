"""Average rates tend to an equilibrium: its equations by explicit matrices, and devices that come to it."""

from __future__ import annotations

import equilibrium_truth as truth
import numpy as np
import pytest
import torch

from spikebench import adjoint
from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.layered_networks import LayeredNetwork
from spikebench.neurons import SoftResetParameters

ROUNDING, TRUNCATING = SoftResetParameters(), SoftResetParameters(2.0, 0.0)


def average(
    net: LayeredNetwork, weights: torch.Tensor, shown: torch.Tensor, steps: int, masks: torch.Tensor | None = None
) -> torch.Tensor:
    """Rates [B, N, M] of ideal devices, of mean inputs [B, N, I - 1] as constant currents."""
    inputs = torch.cat([shown, torch.ones_like(shown[..., :1])], dim=2)[:, :, None].expand(-1, -1, steps, -1)
    chip = SimulatedChip(net, [FaultSpec()] * len(weights), range(len(weights)))
    return chip.rates(weights, inputs, torch.arange(len(weights)), masks).mean


# The equations


@pytest.mark.parametrize("neuron", [ROUNDING, TRUNCATING, SoftResetParameters(1.0, -0.5)], ids=["-V", "0", "kappa 1.5"])
@pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
@pytest.mark.parametrize("name", truth.SMALL)
def test_the_equilibrium_solves_its_equations(name: str, masked: bool, neuron: SoftResetParameters) -> None:
    net = truth.network(name, neuron)
    weights, shown = truth.drawn(net, 2), truth.shown(net, devices=2)
    masks = truth.masks(net, devices=2) if masked else None
    found = adjoint.equilibrium(net, weights, shown, masks)
    assert found.shape == (2, 4, sum(net.widths)) and found.dtype == torch.float64
    for b, n in np.ndindex(2, 4):
        by_matrices = truth.Matrices(net, weights[b])
        own = np.split(found[b, n].numpy(), by_matrices.cuts[:-1])
        again = by_matrices.around(shown[b, n].double().numpy(), own[-1], None if masks is None else masks[b, n])
        np.testing.assert_allclose(np.concatenate(own), np.concatenate(again), atol=1e-11)
    is_open = ((found > 0) & (found < 1)).double().mean()
    assert 0.1 < is_open < 0.9, "some are silent, some are not"


def test_an_equilibrium_that_is_not_found_is_said() -> None:
    """One neuron that shuts itself off and, once it is off, switches itself on: the fixed point between repels."""
    net = feedback_network("1 (F1)", 2, (), 2, ROUNDING)
    with pytest.raises(ArithmeticError, match=r"no equilibrium after 50 iterations: rates still move by 0\.\d+"):
        adjoint.equilibrium(net, torch.tensor([[1.0, -20.0, 0.0]]), torch.ones(1, 1, 1), iterations=50)


def test_only_rates_between_0_and_1_are_open() -> None:
    """A leaky average of nothing but spikes is 1, if for rounding."""
    steps, full = 30, torch.tensor(0.0)
    total = sum(0.95**t for t in range(steps))
    for _ in range(steps):
        full = 0.95 * full + 1.0
    rates = torch.stack([torch.tensor(0.0), torch.tensor(1e-6), torch.tensor(0.5), full / total, torch.tensor(1.0)])
    assert adjoint.is_open(rates).tolist() == [0, 1, 1, 0, 0]
    assert adjoint.is_open(torch.tensor([1 - 1 / 10_000])).tolist() == [1], "one spike less in many steps"


@pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
def test_what_is_transmitted_is_the_slope_of_the_clip_times_the_masks(masked: bool) -> None:
    net = truth.network("convolutions", SoftResetParameters(1.0, -0.5))
    weights, shown = truth.drawn(net), truth.shown(net)
    masks = truth.masks(net) if masked else None
    rates = adjoint.equilibrium(net, weights, shown, masks)
    found, by_matrices = adjoint.transmission(net, rates, masks), truth.Matrices(net, weights[0])
    assert by_matrices.kappa == 1.5
    for n in range(4):
        own = by_matrices.parts(rates[0, n])[:2]
        expected = by_matrices.factors(own, None if masks is None else masks[0, n])
        np.testing.assert_allclose(found[0, n].numpy(), np.concatenate(expected), rtol=1e-6)
        assert found[0, n].any() and not found[0, n].all()


# Devices


@pytest.mark.parametrize("neuron", [ROUNDING, TRUNCATING], ids=["-V", "0"])
@pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
@pytest.mark.parametrize("name", truth.SMALL)
def test_average_rates_come_to_the_equilibrium_as_one_over_time(
    name: str, masked: bool, neuron: SoftResetParameters
) -> None:
    net = truth.network(name, neuron)
    weights, shown = truth.drawn(net), truth.shown(net, samples=16)
    masks = truth.masks(net, samples=16) if masked else None
    exact = adjoint.equilibrium(net, weights, shown, masks)
    few, many = ((average(net, weights, shown, t, masks) - exact).abs().mean() for t in (50, 400))
    assert many < 0.25 * few
    assert few < 1.0 / 50, "a spike more or less at most, on average"


@pytest.mark.parametrize("name", truth.SMALL)
def test_rates_are_low_with_a_rest_of_0_and_hardly_with_the_modified_reset(name: str) -> None:
    """The same kappa, and so the same equilibrium; truncation loses half a spike on average, rounding none."""
    found = {}
    for neuron in (ROUNDING, TRUNCATING):
        net = truth.network(name, neuron)
        weights, shown = truth.drawn(net), truth.shown(net, samples=16)
        exact = adjoint.equilibrium(net, weights, shown)
        is_open = adjoint.is_open(exact) > 0
        difference = (average(net, weights, shown, 50) - exact)[is_open]
        found[neuron] = 50 * float(difference.mean()), 50 * float(difference.abs().mean())
    assert -0.8 < found[TRUNCATING][0] < -0.3
    assert abs(found[ROUNDING][0]) < 0.35 * -found[TRUNCATING][0]
    assert found[ROUNDING][1] < 0.8 * found[TRUNCATING][1]


def test_leaky_neurons_come_near_to_the_same_equilibrium_with_their_own_average() -> None:
    """Late spikes weigh more; what is left is the membrane's last value over sum lambda^t, so about 1 - lambda."""
    errors = []
    for leak in (0.9, 0.99, 0.999):
        net = truth.network("convolutions", SoftResetParameters(leak=leak))
        weights, shown = truth.drawn(net), truth.shown(net, samples=8)
        exact = adjoint.equilibrium(net, weights, shown)
        errors.append(float((average(net, weights, shown, round(10 / (1 - leak))) - exact).abs().mean()))
    assert errors[1] < 0.25 * errors[0] and errors[2] < 0.25 * errors[1]


def test_a_leaky_average_is_told_by_what_the_membrane_keeps() -> None:
    """kappa a[T] = mean current - u[T] / (lambda sum lambda^t), exactly, both averages by the same weights."""
    leak, steps = 0.75, 20
    net = feedback_network("3", 3, (), 2, SoftResetParameters(leak=leak))
    weights = torch.tensor([[0.5, 1.0, 0.1, 1.0, 1.0, -0.3, 1.0, 0.5, 0.2]])  # of each neuron: two inputs, bias
    found = average(net, weights, torch.tensor([[[0.6, 0.7]]]), steps)[0, 0].tolist()
    total = sum(leak**t for t in range(steps))
    for own, rate in zip((1.1, 1.0, 1.15), found, strict=True):
        u = 0.0
        for _ in range(steps):
            u = leak * (u + own - 2.0 * (u + own >= 1.0))
        assert rate == pytest.approx((own - u / (leak * total)) / 2.0, abs=1e-5)
    assert len(set(found)) > 1 and 0 < min(found) < max(found) < 1


def test_a_cells_equilibrium_is_its_own() -> None:
    net = truth.network("convolutions")
    weights, shown = truth.drawn(net, 3), truth.shown(net, devices=3)
    together = adjoint.equilibrium(net, weights, shown)
    alone = adjoint.equilibrium(net, weights[1:2], shown[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-11, rtol=0)
    assert not torch.equal(together[0], together[1])
