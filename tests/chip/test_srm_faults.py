"""What each fault does to SRM neurons: distributions, scope and direction."""

from __future__ import annotations

import math
from collections.abc import Callable

import nets
import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.chip.faults import FaultSpec, LayerDevice, draw_device
from spikebench.chip.simulated import SimulatedChip
from spikebench.networks import Network
from spikebench.neurons import LIFParameters, SRMParameters

ONE = torch.tensor([0])
#: 20,000 neurons, then 200.
WIDE = Network(2, (20_000, 200), 2, SRMParameters())
#: 100 x 200 and 100 x 100 synapses.
DENSE = Network(201, (100, 100), 2, SRMParameters())
#: 400 neurons with one line each.
NEURONS = Network(2, (400,), 2, SRMParameters(threshold=0.5))
STEPS = 30
TAUS = {"decay": 10.0, "synapse_decay": 6.0, "refractory_decay": 2.0}


def draw(network: Network, chip: int = 0, severity: float = 1.0, **strengths: float) -> tuple[LayerDevice, ...]:
    """The layers of one device, without the leading axis."""
    device = draw_device(network, [FaultSpec(severity, **strengths)], [chip])
    return tuple(LayerDevice(*(tensor[0] for tensor in layer)) for layer in device.layers)


def normal(values: torch.Tensor) -> float:
    """p-value of a Kolmogorov-Smirnov test against N(0, 1)."""
    return float(stats.kstest(values.double().flatten().numpy(), "norm").pvalue)


def tau(decay: torch.Tensor) -> torch.Tensor:
    return -1 / decay.double().log()


# What is drawn


def test_a_nominal_device_has_the_nominal_constants_bit_for_bit() -> None:
    neuron = SRMParameters(0.9, 0.8, 0.5, 0.25)
    for layer in draw(Network(3, (4, 5), 2, neuron)):
        for name, value in zip(("decay", "synapse_decay", "refractory_decay", "threshold"), neuron, strict=True):
            assert getattr(layer, name).eq(torch.tensor(value)).all()


@pytest.mark.parametrize("nominal", [0.0, 0.75])
def test_thresholds_are_shifted_not_scaled(nominal: float) -> None:
    network = WIDE if nominal == 0 else Network(2, (20_000, 200), 2, SRMParameters(threshold=nominal))
    for layer in draw(network, severity=0.5, threshold=0.4):
        assert normal((layer.threshold - nominal) / 0.2) > 1e-3


def test_each_of_three_time_constants_has_a_deviation_of_its_own() -> None:
    for layer in draw(WIDE, severity=0.5, time_constant=0.2):
        factors = [(tau(getattr(layer, name)) / nominal - 1) / 0.1 for name, nominal in TAUS.items()]
        assert all(normal(f) > 1e-3 for f in factors)
        correlation = np.corrcoef(torch.stack(factors).numpy()) - np.eye(3)
        assert np.abs(correlation).max() < 4.5 / math.sqrt(len(layer.decay))


@pytest.mark.parametrize(("name", "nominal"), TAUS.items())
def test_no_time_constant_is_below_one_step(name: str, nominal: float) -> None:
    decay = getattr(draw(WIDE, time_constant=1.0)[0], name)
    assert decay.min().item() == pytest.approx(math.exp(-1), rel=1e-6)
    assert decay.max() < 1
    share = stats.norm.cdf(1 / nominal - 1)  # P(tau (1 + eps) < 1)
    assert stats.binomtest(int((decay == decay.min()).sum()), len(decay), share).pvalue > 1e-3


def test_a_filter_that_forgets_nothing_keeps_an_infinite_time_constant() -> None:
    network = Network(2, (50,), 2, SRMParameters(membrane_decay=1.0))
    assert draw(network, time_constant=1.0)[0].decay.eq(1).all()


def test_a_higher_severity_is_the_same_chip_with_larger_deviations() -> None:
    strengths = {"threshold": 0.2, "time_constant": 0.1, "offset": 0.2}
    for weak, strong in zip(draw(DENSE, 3, 0.25, **strengths), draw(DENSE, 3, 1.0, **strengths), strict=True):
        torch.testing.assert_close(weak.threshold, 0.25 * strong.threshold)
        torch.testing.assert_close(weak.offset, 0.25 * strong.offset)
        for name, nominal in TAUS.items():
            a, b = (tau(getattr(layer, name)) / nominal - 1 for layer in (weak, strong))
            torch.testing.assert_close(a, 0.25 * b, atol=1e-4, rtol=0)


def test_no_layer_is_spared_offset_and_compression() -> None:
    for layer in draw(WIDE, severity=0.5, offset=0.6, compression=1.0):
        assert normal(layer.offset / 0.3) > 1e-3
        assert layer.compression.item() == 0.5


@pytest.mark.parametrize(("bits", "full_scale"), [(0, 4.0), (1, 1.0)])
def test_stuck_synapses_are_at_zero_or_at_full_scale(bits: int, full_scale: float) -> None:
    network = Network(201, (100, 100), 2, SRMParameters(), weight_bits=bits)
    for layer in draw(network, severity=0.5, stuck_at=0.6):
        assert stats.binomtest(int(layer.stuck.sum()), layer.stuck.numel(), 0.3).pvalue > 1e-3
        values = layer.stuck_value[layer.stuck]
        seen = [int((values == v).sum()) for v in (0.0, full_scale, -full_scale)]
        assert sum(seen) == len(values)
        assert stats.chisquare(seen, [len(values) / 2, len(values) / 4, len(values) / 4]).pvalue > 1e-3


def test_a_lif_device_has_no_further_filters() -> None:
    for layer in draw(Network(3, (4,), 2, LIFParameters()), time_constant=1.0):
        assert not layer.synapse_decay.any() and not layer.refractory_decay.any()


# What becomes of weights


def test_quantisation_does_nothing_to_one_bit_weights() -> None:
    asked = torch.randn((1, 1, DENSE.parameters), generator=nets.generator())
    spec = FaultSpec(1.0, quantisation=1.0)
    one_bit = SimulatedChip(Network(201, (100, 100), 2, SRMParameters(), weight_bits=1), [spec], [0]).program(asked)
    assert torch.equal(one_bit, asked.sign())
    assert torch.equal(SimulatedChip(DENSE, [spec], [0]).program(asked), 2 * asked.sign())


def test_the_order_at_a_one_bit_synapse() -> None:
    network = Network(41, (50,), 2, SRMParameters(), weight_bits=1)
    spec = FaultSpec(1.0, stuck_at=0.4, flip=0.5, gain_mismatch=0.3, programming_noise=0.25)
    chip = SimulatedChip(network, [spec], [1])
    layer = chip.device.layers[0]
    up, down = (chip_.program(torch.full((1, 1, 2000), w)) for chip_, w in
                ((chip, 0.3), (SimulatedChip(network, [spec], [1]), -0.3)))  # fmt: skip
    up, down, gain, stuck = (x.reshape(50, 40) for x in (up, down, layer.gain, layer.stuck))
    # Noise of the first use is the same on both chips: W' = (+-1 + noise) gain
    torch.testing.assert_close((up - down)[~stuck], 2 * gain[~stuck])
    assert normal(((up + down) / (2 * gain))[~stuck] / 0.25) > 1e-3
    assert torch.equal(up[stuck], (layer.stuck_value.reshape(50, 40) * gain)[stuck])
    assert (gain[stuck] > 0).all()
    assert stats.binomtest(int((gain[~stuck] < 0).sum()), int((~stuck).sum()), 0.5).pvalue > 1e-3


# Directions. Constant input 1 of one line, so that x = w.


def counts(spec: FaultSpec, weight: float = 0.05, chip: int = 0) -> tuple[torch.Tensor, LayerDevice]:
    """Spike counts of the 400 neurons."""
    device = SimulatedChip(NEURONS, [spec], [chip])
    inputs = torch.ones(1, 1, 1, 2).expand(-1, -1, STEPS, -1)
    (spikes,) = device.run(torch.full((1, 400), weight), inputs, ONE)
    return spikes[0, 0].sum(dim=0), LayerDevice(*(tensor[0] for tensor in device.device.layers[0]))


@pytest.mark.parametrize(
    ("strengths", "deviation"),
    [
        ({"threshold": 0.3}, lambda layer: -layer.threshold),
        ({"offset": 0.3}, lambda layer: layer.offset),
        ({"gain_mismatch": 0.4}, lambda layer: layer.gain[:, 0]),
        ({"flip": 0.5}, lambda layer: layer.gain[:, 0]),
        ({"drift": 0.1}, lambda layer: layer.gain[:, 0]),
    ],
    ids=["threshold", "offset", "gain", "flip", "drift"],
)
def test_what_makes_a_neuron_spike_more(
    strengths: dict[str, float], deviation: Callable[[LayerDevice], torch.Tensor]
) -> None:
    """A lower threshold, a higher offset, a larger gain of a positive weight, the right sign."""
    spikes, layer = counts(FaultSpec(1.0, **strengths))
    order = deviation(layer).argsort(stable=True)
    ordered = spikes[order].float()
    assert ordered[-1] > ordered[0] + 2
    # A neuron's count may fall by one where its first spike moves; the trend is what is meant.
    assert (ordered.cummax(dim=0).values - ordered).max() <= 1


def test_longer_filters_let_more_through_and_longer_refractoriness_less() -> None:
    spikes, layer = counts(FaultSpec(1.0, time_constant=0.3))
    log_tau = torch.stack([tau(getattr(layer, name)).log() for name in TAUS]).numpy()
    design = np.vstack([log_tau, np.ones(400)]).T
    slopes = np.linalg.lstsq(design, spikes.double().numpy(), rcond=None)[0]
    assert slopes[0] > 3 and slopes[1] > 3 and slopes[2] < -3


def test_faults_at_zero_deviation_are_the_nominal_neuron() -> None:
    (nominal, _), (spread, layer) = counts(FaultSpec()), counts(FaultSpec(1.0, threshold=0.3))
    closest = (layer.threshold - 0.5).abs().argmin()
    assert spread[closest] == nominal[0]
    assert 3 < nominal[0] < STEPS - 3


def test_dead_and_saturated_neurons_ignore_their_input() -> None:
    for weight in (5.0, -5.0):
        spikes, layer = counts(FaultSpec(1.0, dead=0.3, saturated=0.3), weight)
        assert (spikes[layer.silent] == 0).all()
        assert (spikes[layer.saturated] == STEPS).all()
        sound = ~(layer.silent | layer.saturated)
        assert (spikes[sound] == (STEPS - 1 if weight > 0 else 0)).all()  # at the first step u = 0 < theta
        assert sound.any() and layer.silent.any() and layer.saturated.any()


def test_a_saturated_neuron_is_refractory_from_its_own_spikes() -> None:
    chip = SimulatedChip(Network(2, (1,), 1, nets.SRM), [FaultSpec(1.0, saturated=1.0)], [0])
    session = chip.session(torch.zeros(1, 1), 1)
    seen = [session.advance(torch.zeros(1, 1, 2)).potentials[0].item() for _ in range(3)]
    assert seen == [0, -1, -1.25]


def test_compression_is_of_the_scaled_filtered_input_and_offset_comes_after() -> None:
    network = Network(5, (40,), 2, nets.SRM)
    spec = FaultSpec(1.0, compression=2.0, offset=0.3)
    chip, ideal = (SimulatedChip(network, [s], [0]) for s in (spec, FaultSpec()))
    layer = chip.device.layers[0]
    weights, x = nets.weights(network, nets.generator(), 1), torch.ones(1, 1, 5)
    session, plain = chip.session(weights, 1), ideal.session(weights, 1)
    own, others = torch.zeros(1, 1, 40), torch.zeros(1, 1, 40)  # refractoriness
    for _ in range(4):
        seen, reference = session.advance(x), plain.advance(x)
        drive = reference.potentials[0] + others  # c p, which is the same on both
        torch.testing.assert_close(seen.potentials[0], torch.tanh(2 * drive) / 2 + layer.offset - own)
        own, others = 0.25 * own + seen.spikes[0], 0.25 * others + reference.spikes[0]
    assert drive.abs().max() > 1


# What is drawn anew at each use


def relay(spec: FaultSpec, samples: int = 4000) -> tuple[torch.Tensor, SimulatedChip]:
    """Arrivals [N, T] of a spike train that a neuron of two sends at every step, seen at its read-out."""
    neuron = SRMParameters(0.5, 0.5, 0.0, -1.0)  # u = -1 after a spike reaches this threshold: it always spikes
    chip = SimulatedChip(Network(2, (1, 1), 1, neuron), [spec], [3])
    arrivals = chip.run(torch.tensor([[0.0, 0.0]]), torch.zeros(1, samples, nets.SRM_STEPS, 2), ONE)
    assert chip.meter.spikes.item() == 2 * samples * nets.SRM_STEPS  # what is sent
    return torch.stack([layer[0, :, :, 0] for layer in arrivals]), chip


def test_each_spike_of_every_layer_is_lost_with_its_probability() -> None:
    arrivals, _ = relay(FaultSpec(0.5, drop=0.6))
    for layer in arrivals:
        assert layer.dtype == torch.bool
        assert stats.binomtest(int(layer.sum()), layer.numel(), 0.7).pvalue > 1e-3
    correlation = np.corrcoef(arrivals.flatten(1).double().numpy())[0, 1]
    assert abs(correlation) < 4.5 / arrivals[0].numel() ** 0.5


def test_each_spike_of_every_layer_is_late_with_its_probability() -> None:
    for layer in relay(FaultSpec(0.5, jitter=0.6))[0]:
        for t, p in enumerate([0.7] + [1 - 0.3 * 0.7] * (nets.SRM_STEPS - 1)):
            assert stats.binomtest(int(layer[:, t].sum()), len(layer), p).pvalue > 1e-3, t


def by_arrivals(network: Network, parameters: torch.Tensor, arriving: torch.Tensor) -> list[torch.Tensor]:
    """Potentials of the second layer [N, n] a step, from what arrives of the first's spikes [N, T, n]."""
    weights, scale = network.unpack(parameters)[1], network.scales[1]
    q = p = refractory = torch.zeros(len(arriving), len(weights))
    potentials, sent = [], torch.zeros_like(q)
    for t in range(arriving.shape[1]):
        p, q = 0.75 * p + q, 0.5 * q + arriving[:, t] @ weights.T
        refractory = 0.25 * refractory + sent
        potentials.append(scale * p - refractory)
        sent = (potentials[-1] >= 0).float()
    return potentials


@pytest.mark.parametrize("effect", ["drop", "jitter"])
def test_the_next_layer_and_the_read_out_hear_the_same_arrivals(effect: str) -> None:
    """And a neuron is refractory from what it sent, whatever arrives of it."""
    network = nets.srm((16, 4))
    generator = nets.generator(1)
    parameters = nets.weights(network, generator, 1)
    inputs = nets.inputs(network, generator, 30, nets.SRM_STEPS, False)[None]
    chip = SimulatedChip(network, [FaultSpec(1.0, **{effect: 0.5})], [0])
    session = chip.session(parameters, 30)
    seen = [session.advance(inputs[:, :, t]) for t in range(nets.SRM_STEPS)]
    arriving = torch.stack([o.spikes[0][0] for o in seen], dim=1)
    for own, expected in zip(seen, by_arrivals(network, parameters[0], arriving), strict=True):
        assert torch.equal(own.potentials[1][0], expected)
    sent = SimulatedChip(network, [FaultSpec()], [0]).run(parameters, inputs, ONE)[0][0].float()
    assert not torch.equal(arriving, sent)
    assert arriving.sum() < sent.sum()


def test_at_probability_one_nothing_arrives_or_all_one_step_late() -> None:
    network = nets.srm((16, 4))
    generator = nets.generator(2)
    parameters = nets.weights(network, generator, 1)
    inputs = nets.inputs(network, generator, 30, nets.SRM_STEPS, False)[None]
    lost = SimulatedChip(network, [FaultSpec(1.0, drop=1.0, jitter=0.5)], [0]).run(parameters, inputs, ONE)
    assert not any(layer.any() for layer in lost)
    sent = SimulatedChip(network, [FaultSpec()], [0]).run(parameters, inputs, ONE)
    late = SimulatedChip(network, [FaultSpec(1.0, jitter=1.0)], [0]).run(parameters, inputs, ONE)
    assert torch.equal(late[0][:, :, 1:], sent[0][:, :, :-1]) and not late[0][:, :, 0].any()


def test_what_is_read_gets_fresh_noise_of_its_own() -> None:
    network = nets.srm()
    specs = [FaultSpec(0.25, read_noise=2.0), FaultSpec(), FaultSpec(1.0, read_noise=2.0)]
    chip = SimulatedChip(network, specs, [4, 5, 4])
    values = torch.randn((3, 20, 50, 3), generator=nets.generator())
    first, second = chip.read(values) - values, chip.read(values) - values
    assert first.shape == values.shape
    assert not first[1].any()
    for errors in (first, second):
        assert stats.kstest((errors[0] / 0.5).flatten().numpy(), "norm").pvalue > 1e-3
        torch.testing.assert_close(4 * errors[0], errors[2], atol=1e-5, rtol=0)  # the same chip, more severe
    assert abs(np.corrcoef(first[0].flatten(), second[0].flatten())[0, 1]) < 4.5 / 3000**0.5
    alone = SimulatedChip(network, specs[:1], [4])
    assert torch.equal(alone.read(values[:1]), (values + first)[:1])
    assert alone.read(values[:1, 0, 0]).shape == (1, 3)


def test_without_the_fault_values_are_read_as_they_are() -> None:
    values = torch.randn(1, 5, 2)
    assert SimulatedChip(nets.srm(), [FaultSpec(1.0, threshold=1.0)], [0]).read(values) is values
