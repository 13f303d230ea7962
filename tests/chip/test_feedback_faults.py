"""What each fault does to feedback networks: formulas and directions, in the kernels, step by step, and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable

import feedback_truth as truth
import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec, LayerDevice, draw_device
from spikebench.chip.feedback_session import FeedbackSession, differentiate_by_steps, rates_by_steps
from spikebench.chip.simulated import SimulatedChip
from spikebench.layered_networks import LayeredNetwork
from spikebench.neurons import CoupleParameters, SoftResetParameters

ONE = torch.tensor([0])
STEPS = 20
#: 40 and 30 neurons of which the last drive the first, and 4 lines; and 400 neurons that one line drives each.
WIDE = feedback_network("40-30 (F40)", 5, (), 2, truth.IF)
NEURONS, LEAKY = (feedback_network("400", 2, (), 2, neuron) for neuron in (truth.IF, truth.LIF))
PLAIN = CoupleParameters(1.0, 0.0)
SYNAPSES = {
    "gain": {"gain_mismatch": 0.2},
    "programming noise": {"programming_noise": 0.2},
    "quantisation": {"quantisation": 0.5},
    "stuck": {"stuck_at": 0.4},
    "flip": {"flip": 0.4},
    "drift": {"drift": 0.05},
}
STATIC = {
    "threshold": {"threshold": 0.3},
    "time constant": {"time_constant": 0.5},
    "offset": {"offset": 0.3},
    "compression": {"compression": 0.6},
    "fates": {"dead": 0.2, "saturated": 0.2},
    "all": {"threshold": 0.3, "time_constant": 0.3, "offset": 0.2, "compression": 0.4, "dead": 0.1, "saturated": 0.1},
}


def draw(severity: float = 1.0, network: LayeredNetwork = WIDE, **strengths: float) -> tuple[LayerDevice, ...]:
    """The layers of a hundred devices."""
    return draw_device(network, [FaultSpec(severity, **strengths)] * 100, range(100)).layers


def normal(values: torch.Tensor) -> bool:
    """Whether a Kolmogorov-Smirnov test against N(0, 1) passes."""
    return float(stats.kstest(values.double().flatten().numpy(), "norm").pvalue) > 1e-3


def share(found: torch.Tensor, p: float) -> bool:
    """Whether so many are true as with probability p."""
    return stats.binomtest(int(found.sum()), found.numel(), p).pvalue > 1e-3


def programmed(weight: float, **strengths: float) -> torch.Tensor:
    """What acts of a weight that is programmed everywhere, [P], at severity 1/2."""
    parameters = torch.full((1, 1, WIDE.parameters), weight)
    return SimulatedChip(WIDE, [FaultSpec(0.5, **strengths)], [3]).program(parameters)[0, 0]


# What is drawn


def test_thresholds_and_time_constants_are_multiplied() -> None:
    for network, decay in ((WIDE, 1.0), (feedback_network("40-30", 5, (), 2, SoftResetParameters(0.5, 0.0, 0.9)), 0.9)):
        layers = draw(0.5, network, threshold=0.4, time_constant=0.4)
        for layer in layers:
            assert normal((layer.threshold / network.nominal.threshold - 1) / 0.2)
            if decay == 1:
                assert layer.decay.eq(1).all(), "an infinite time constant stays so"
            else:
                assert normal(((1 - decay) / (1 - layer.decay) - 1) / 0.2)
    floored = torch.cat([layer.threshold for layer in draw(threshold=1.0)], dim=1)
    assert floored.min() == 0.05 and share(floored == 0.05, stats.norm.cdf(-0.95))
    assert all(layer.decay.eq(0.5).all() for layer in draw(network=LEAKY, threshold=0.4))


def test_all_layers_are_hidden() -> None:
    for layer in draw(0.5, offset=0.6, compression=1.0, dead=0.4, saturated=0.2):
        assert normal(layer.offset / 0.3)
        assert layer.compression.eq(0.5).all()
        assert share(layer.silent, 0.2) and share(layer.saturated, 0.1)
        assert not (layer.silent & layer.saturated).any()


def test_neurons_of_a_channel_share_their_deviations_and_pools_have_their_own() -> None:
    network = truth.network("no feedback")
    for layer, channels in zip(draw(network=network, threshold=0.3, offset=0.3), (3, 3, 4, 6), strict=True):
        assert layer.threshold.shape == layer.offset.shape == (100, channels)
    first, second, _, _ = draw(network=network, threshold=0.3)
    assert first.gain.shape == (100, 3, 51) and second.gain.shape == (100, 3, 0)
    assert not torch.equal(first.threshold, second.threshold)


# Synapses, those of the feedback and biases included


def test_gains_multiply() -> None:
    assert normal((programmed(2.0, gain_mismatch=0.4) / 2 - 1) / 0.2)


def test_programming_noise_adds_and_is_new_each_time() -> None:
    assert normal((programmed(2.0, programming_noise=0.4) - 2) / 0.2)
    chip = SimulatedChip(WIDE, [FaultSpec(0.5, programming_noise=0.4)], [3])
    zeros = torch.zeros(1, 1, WIDE.parameters)
    first, second = chip.program(zeros), chip.program(zeros)
    assert normal((first - second) / 0.2 / 2**0.5)


def test_weights_take_the_nearest_level() -> None:
    """round(8 - 7 / 2) = 4 bits have steps of 1/2, and none at 0."""
    for weight, level in ((2.1, 2.25), (-0.1, -0.25), (9.0, 3.75)):
        assert programmed(weight, quantisation=1.0).unique().tolist() == [level]


def test_stuck_synapses_ignore_what_is_programmed() -> None:
    acting = programmed(2.0, stuck_at=0.8)
    assert acting.unique().tolist() == [-4, 0, 2, 4]
    for value, p in ((2, 0.6), (0, 0.2), (4, 0.1), (-4, 0.1)):
        assert share(acting == value, p)


def test_signs_are_inverted() -> None:
    acting = programmed(2.0, flip=0.8)
    assert acting.unique().tolist() == [-2, 2] and share(acting < 0, 0.4)


def test_drift_takes_four_decades() -> None:
    assert normal(((programmed(2.0, drift=0.1) / 2).log10() / -4 / 0.05 - 1) / 0.3)


@pytest.mark.parametrize("fault", SYNAPSES)
@pytest.mark.parametrize("name", ["the paper's", "no feedback", "dense last"])
def test_what_is_programmed_is_what_acts_forwards_and_backwards(name: str, fault: str) -> None:
    network, spec = truth.network(name), FaultSpec(1.0, **SYNAPSES[fault])
    parameters, inputs, second = truth.drawn(network, 1), truth.shown(network, True), truth.second_stage(network, 1)
    chip, other = (SimulatedChip(network, [spec], [5]) for _ in range(2))
    acting = [chip.program(parameters[:, None])[0, 0] for _ in range(2)]
    assert torch.equal(*acting) == (fault != "programming noise")
    found = other.rates(parameters, inputs, ONE)
    backwards = other.differentiate(parameters, *second, PLAIN, truth.STEPS)
    assert truth.same(found, truth.present(network, acting[0], inputs[0]), 0)
    own = second[0][0], second[1][0], PLAIN, truth.STEPS
    assert truth.same(backwards, truth.differentiate(network, acting[1], *own), 0)
    assert not truth.same(found, truth.present(network, parameters[0], inputs[0]), 0)
    assert not truth.same(backwards, truth.differentiate(network, parameters[0], *own), 0)


# Neurons, by the number of spikes of a constant current


def counts(current: float, network: LayeredNetwork = NEURONS, **strengths: float) -> tuple[torch.Tensor, LayerDevice]:
    """Spikes [400] in 20 steps."""
    chip = SimulatedChip(network, [FaultSpec(1.0, **strengths)], [0])
    inputs, parameters = torch.zeros(1, 1, 1, 2).expand(-1, -1, STEPS, -1), torch.zeros(1, network.parameters)
    network.unpack(parameters)[0][..., -1] = current
    found = chip.rates(parameters, inputs, ONE)
    by_steps = rates_by_steps(chip, parameters, inputs, ONE, None)
    assert torch.allclose(found.mean, by_steps.mean, atol=1e-6) and found.spikes.equal(by_steps.spikes)
    if network is NEURONS:
        assert (found.mean * STEPS).sum().item() == pytest.approx(found.spikes.item())
    return (found.mean[0, 0] * STEPS).double(), chip.device.layers[0]


def couples(current: float, couple: CoupleParameters, **strengths: float) -> tuple[torch.Tensor, LayerDevice]:
    """Mean spikes [400] of the second stage."""
    chip, factors = SimulatedChip(NEURONS, [FaultSpec(1.0, **strengths)], [0]), torch.zeros(1, 1, 800)
    own = torch.zeros(1, NEURONS.parameters), torch.full((1, 1, 400), current), factors, couple, STEPS
    found, by_steps = chip.differentiate(*own), differentiate_by_steps(chip, *own)
    assert torch.allclose(found.mean, by_steps.mean, atol=1e-6) and found.spikes.equal(by_steps.spikes)
    return found.mean[0, 0].double(), chip.device.layers[0]


def test_a_threshold_moves_what_a_spike_subtracts() -> None:
    """V_th f and V_th f - rest: the n-th spike of an IF neuron comes where T I >= V_th f + (n - 1) (V_th f - rest)."""
    found, layer = counts(0.7, threshold=0.3)
    f = layer.threshold[0].double()
    assert torch.allclose(found, ((STEPS * 0.7 - f) / (f + 1)).floor() + 1)
    assert (f < 0.6).any() and (f > 1.5).any()
    means, _ = couples(-0.3, PLAIN, threshold=0.2)
    amplitude = draw_device(NEURONS, [FaultSpec(1.0, threshold=0.2)], [0]).layers[0].threshold[0].double()
    assert torch.allclose(means, -(STEPS * 0.3 / amplitude).floor() * amplitude / STEPS, atol=1e-6)
    assert len((means / amplitude).mul(STEPS).round().unique()) > 5


@pytest.mark.parametrize(
    ("strengths", "acts"),
    [
        ({"offset": 0.2}, lambda current, layer: current + layer.offset[0].double()),
        ({"compression": 2.0}, lambda current, layer: torch.full((400,), math.tanh(2 * current) / 2).double()),
        (
            {"compression": 1.0, "offset": 0.1},
            lambda current, layer: math.tanh(current) + layer.offset[0].double(),
        ),
    ],
    ids=["offset", "compression", "both"],
)
def test_currents_are_compressed_and_then_offset(strengths: dict[str, float], acts: Callable) -> None:
    found, layer = counts(0.7, **strengths)
    expected = ((STEPS * acts(0.7, layer) - 1) / 2).floor() + 1
    assert torch.allclose(found, expected.clamp(min=0))
    means, layer = couples(-0.7, PLAIN, **strengths)
    assert torch.allclose(means * STEPS, (STEPS * acts(-0.7, layer).clamp(-1, 1)).trunc(), atol=1e-5)


def test_a_longer_time_constant_spikes_more_where_there_is_one() -> None:
    found, layer = counts(0.7, LEAKY, time_constant=0.5)
    ordered = found[layer.decay[0].argsort()]
    assert layer.decay.unique().numel() > 100
    assert stats.spearmanr(layer.decay[0].numpy(), found.numpy()).statistic > 0.8 and ordered[-1] > ordered[0]
    assert torch.equal(counts(0.7, time_constant=0.5)[0], counts(0.7)[0])


def test_dead_and_saturated_neurons_look_at_nothing() -> None:
    for current in (-0.7, 0.7):
        found, layer = counts(current, dead=0.2, saturated=0.3)
        means, _ = couples(current, PLAIN, dead=0.2, saturated=0.3)
        assert found[layer.silent[0]].eq(0).all() and means[layer.silent[0]].eq(0).all()
        assert found[layer.saturated[0]].eq(STEPS).all()
        assert means[layer.saturated[0]].eq(1).all(), "the positive neuron of a couple alone spikes"
        healthy = ~(layer.silent | layer.saturated)[0]
        assert torch.equal(found[healthy], counts(current)[0][healthy])
        assert torch.equal(means[healthy], couples(current, PLAIN)[0][healthy])


@pytest.mark.parametrize("neuron", [truth.IF, truth.LIF], ids=["IF", "LIF"])
@pytest.mark.parametrize("fault", STATIC)
@pytest.mark.parametrize("name", ["the paper's", "no feedback", "dense last", "one layer"])
def test_faulty_neurons_follow_the_equations_spike_for_spike(
    name: str, fault: str, neuron: SoftResetParameters
) -> None:
    network, couple = truth.network(name, neuron), CoupleParameters(leak=neuron.leak)
    chip = SimulatedChip(network, [FaultSpec(), FaultSpec(1.0, **STATIC[fault])], [1, 2])
    parameters, inputs, second = truth.drawn(network), truth.shown(network, False), truth.second_stage(network)
    masks, index = truth.scales(network), torch.tensor([1, 0])
    ways = chip.rates(parameters, inputs, index, masks), rates_by_steps(chip, parameters, inputs, index, masks)
    own = *second, couple, truth.STEPS
    backwards = chip.differentiate(parameters, *own), differentiate_by_steps(chip, parameters, *own)
    expected = truth.present(network, parameters[1], inputs[0], masks[1], chip.device, 1)
    adjoint = truth.differentiate(network, parameters[1], second[0][1], second[1][1], *own[2:], chip.device, 1)
    session = FeedbackSession(chip, parameters, truth.SAMPLES, masks)
    for t in range(truth.STEPS):
        seen = session.advance(inputs[index, :, t])
        for layer, potentials in enumerate(expected.potentials):
            np.testing.assert_allclose(seen.potentials[layer][1].numpy(), potentials[:, t], atol=1e-5)
    for found in ways:
        assert found.spikes[1].tolist() == expected.totals
        np.testing.assert_allclose(found.mean[1].numpy(), expected.mean(neuron.leak), rtol=1e-6)
    for found in backwards:
        assert found.spikes[1].tolist() == adjoint.totals
        np.testing.assert_allclose(found.mean[1].numpy(), adjoint.mean(neuron.leak), atol=1e-6)
