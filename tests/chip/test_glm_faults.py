"""What each fault does to GLM neurons: distributions, scope and direction, in the kernel and in the session."""

from __future__ import annotations

import glm_truth as truth
import nets
import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.chip.faults import FaultSpec, LayerDevice, draw_device
from spikebench.chip.simulated import SimulatedChip
from spikebench.networks import Network
from spikebench.neurons import GLMParameters

ONE = torch.tensor([0])
SHORT = GLMParameters(filters=1, taps=1)
#: 40 hidden neurons and 30 outputs, two lines.
NEURONS = Network(3, (40,), 30, SHORT)
SYNAPSE = {
    "gain": {"gain_mismatch": 0.5},
    "programming noise": {"programming_noise": 0.5},
    "quantisation": {"quantisation": 0.6},
    "stuck": {"stuck_at": 0.8},
    "flip": {"flip": 0.5},
    "drift": {"drift": 0.1},
}
STATIC = FaultSpec(
    severity=1.0, gain_mismatch=0.3, quantisation=0.3, stuck_at=0.05, flip=0.2, drift=0.02, threshold=0.3,
    time_constant=0.3, offset=0.3, compression=0.5, dead=0.1, saturated=0.1,
)  # fmt: skip
EVENTS = FaultSpec(0.5, drop=0.6, jitter=0.6)


def draw(severity: float = 1.0, **strengths: float) -> tuple[LayerDevice, ...]:
    """The layers of a hundred devices."""
    return draw_device(NEURONS, [FaultSpec(severity, **strengths)] * 100, range(100)).layers


def normal(values: torch.Tensor) -> float:
    """p-value of a Kolmogorov-Smirnov test against N(0, 1)."""
    return float(stats.kstest(values.double().flatten().numpy(), "norm").pvalue)


def drive(network: Network, weight: float, bias: float) -> torch.Tensor:
    """Parameters [1, P] of neurons that the first line drives with ``weight``, and nothing else."""
    parameters = torch.zeros(1, network.parameters)
    for layer in network.unpack(parameters):
        layer[..., 0], layer[..., -1] = weight, bias
    return parameters


def rates(spec: FaultSpec, weight: float, bias: float, samples: int = 1000) -> tuple[np.ndarray, SimulatedChip]:
    """Spikes [n] of all neurons of ``NEURONS`` over four steps of all samples, the input at 1 in the steps before."""
    chip = SimulatedChip(NEURONS, [spec], [0])
    inputs = torch.ones(1, samples, 5, 3)
    spikes = torch.cat(chip.run(drive(NEURONS, weight, bias), inputs, ONE), dim=-1)
    return spikes[0, :, 1:].sum(dim=(0, 1)).numpy(), chip


def follows(spikes: np.ndarray, potential: torch.Tensor, samples: int = 1000) -> None:
    """Each neuron's share of spikes is sigma(u)."""
    p = torch.sigmoid(potential.double()).numpy()
    deviations = (spikes - 4 * samples * p) / np.sqrt(4 * samples * p * (1 - p))
    assert np.abs(deviations).max() < 4.5
    assert p.std() > 0.02


def both(chip: SimulatedChip, name: str) -> torch.Tensor:
    """A quantity of the first device's neurons, [n]."""
    return torch.cat([getattr(layer, name)[0] for layer in chip.device.layers])


# What is drawn


def test_thresholds_are_shifted_and_nothing_else_deviates() -> None:
    for layer in draw(0.5, threshold=0.4, time_constant=1.0):
        assert normal(layer.threshold / 0.2) > 1e-3
        assert not (layer.decay.any() or layer.synapse_decay.any() or layer.refractory_decay.any())
    assert not any(layer.threshold.any() for layer in draw())


def test_only_hidden_neurons_have_offsets_and_compression() -> None:
    hidden, outputs = draw(0.5, offset=0.6, compression=1.0)
    assert normal(hidden.offset / 0.3) > 1e-3
    assert hidden.compression.eq(0.5).all()
    assert not outputs.offset.any() and not outputs.compression.any()


def test_a_higher_severity_is_the_same_chip_with_larger_deviations() -> None:
    strengths = {"threshold": 0.2, "offset": 0.2}
    for weak, strong in zip(draw(0.25, **strengths), draw(1.0, **strengths), strict=True):
        torch.testing.assert_close(weak.threshold, 0.25 * strong.threshold)
        torch.testing.assert_close(weak.offset, 0.25 * strong.offset)


def test_dead_and_saturated_neurons_are_drawn_with_their_probabilities() -> None:
    for layer in draw(0.5, dead=0.4, saturated=0.2):
        for fate, p in ((layer.silent, 0.2), (layer.saturated, 0.1)):
            assert stats.binomtest(int(fate.sum()), fate.numel(), p).pvalue > 1e-3
        assert not (layer.silent & layer.saturated).any()


# Synapses


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("name", SYNAPSE)
def test_no_fault_makes_a_synapse_that_is_not_there(name: str, feedback: bool) -> None:
    network = nets.glm(6, 5, feedback)
    parameters = torch.randn((1, 2, network.parameters), generator=nets.generator())
    weights = SimulatedChip(network, [FaultSpec(1.0, **SYNAPSE[name])], [0]).program(parameters)
    assert not weights[..., ~network.connected].any()
    changed = (weights != parameters)[..., network.connected].float().mean()
    assert changed > (0.3 if name == "flip" else 0.6)
    assert (~network.connected).sum() == (6 + 5) * 2 + (not feedback) * (5 * 5 * 3 - 5 * 2)


@pytest.mark.parametrize("spec", [FaultSpec(), STATIC], ids=["ideal", "static"])
def test_what_is_programmed_where_no_synapse_is_has_no_effect(spec: FaultSpec) -> None:
    network = nets.glm(6, 5, output_feedback=False)
    inputs = (torch.rand((1, 50, 8, 5), generator=nets.generator()) < 0.5).float()
    parameters = torch.randn((1, network.parameters), generator=nets.generator())
    other = torch.where(network.connected, parameters, 100.0)
    for way in ("run", "session"):
        spikes = []
        for asked in (parameters, other):
            chip = SimulatedChip(network, [spec], [0])
            if way == "run":
                spikes.append(torch.cat(chip.run(asked, inputs, ONE), dim=-1))
            else:
                session = chip.session(asked, 50)
                spikes.append(torch.stack([torch.cat(session.advance(inputs[:, :, t]).spikes, -1) for t in range(8)]))
        assert torch.equal(*spikes)


@pytest.mark.parametrize(
    "spec",
    [FaultSpec(1.0, gain_mismatch=0.4), FaultSpec(1.0, flip=0.5), FaultSpec(1.0, drift=0.1)],
    ids=["gain", "flip", "drift"],
)
def test_gains_act_on_synapses_and_on_biases(spec: FaultSpec) -> None:
    """A higher gain of a positive weight spikes more, an inverted one less, a faded one nearer to one half."""
    spikes, chip = rates(spec, weight=1.0, bias=0.0)
    follows(spikes, torch.cat([layer.gain[0, :, 0] for layer in chip.device.layers]))
    spikes, chip = rates(spec, weight=0.0, bias=-0.75)
    follows(spikes, -0.75 * torch.cat([layer.gain[0, :, -1] for layer in chip.device.layers]))


def test_a_stuck_bias_ignores_what_is_programmed() -> None:
    chip = SimulatedChip(NEURONS, [FaultSpec(1.0, stuck_at=0.6)], [0])
    first = chip.session(drive(NEURONS, 0.0, 0.5), 1).advance(torch.zeros(1, 1, 3))  # nothing is remembered yet
    for u, layer in zip(first.potentials, chip.device.layers, strict=True):
        stuck, value = layer.stuck[0, :, -1], layer.stuck_value[0, :, -1]
        assert torch.equal(u[0, 0], torch.where(stuck, value, 0.5))
        assert set(value[stuck].tolist()) == {-4.0, 0.0, 4.0} and not stuck.all()


def test_programming_noise_is_new_for_each_candidate_and_use() -> None:
    network = nets.glm(1, 1)
    parameters = torch.zeros(1, 50, network.parameters)
    inputs = torch.zeros(1, 100, 20, 5)
    expanded = parameters[:, :1].expand(-1, 50, -1)
    chip, twin, exact = (
        SimulatedChip(network, [FaultSpec(1.0, programming_noise=noise)], [0]) for noise in (2.0, 2.0, 0.0)
    )
    counts = chip.evaluate(parameters, inputs, ONE)
    assert torch.equal(counts, twin.evaluate(expanded, inputs, ONE))  # however they are stored
    assert not torch.equal(counts, chip.evaluate(parameters, inputs, ONE))
    # Candidates have biases of their own: their means differ by far more than those of as many runs.
    means, ideal = counts.mean(dim=2)[0, :, 0], exact.evaluate(expanded, inputs, ONE).mean(dim=2)[0, :, 0]
    assert means.std() > 10 * ideal.std()


# Neurons


def test_a_higher_threshold_is_a_lower_bias() -> None:
    for spec in (FaultSpec(1.0, threshold=0.5), FaultSpec(0.5, threshold=1.0)):
        spikes, chip = rates(spec, weight=0.0, bias=0.5)
        follows(spikes, 0.5 - both(chip, "threshold"))


def test_an_offset_shifts_hidden_neurons_alone() -> None:
    spikes, chip = rates(FaultSpec(1.0, offset=0.5), weight=0.0, bias=0.5)
    follows(spikes, 0.5 + both(chip, "offset"))
    ideal, _ = rates(FaultSpec(), weight=0.0, bias=0.5)
    assert np.array_equal(spikes[40:], ideal[40:])


def test_compression_bounds_the_synapses_sum_but_not_the_bias() -> None:
    spikes, _ = rates(FaultSpec(1.0, compression=2.0), weight=50.0, bias=-0.5)
    p = spikes / 4000
    assert np.abs(p[:40] - 0.5).max() < 0.04  # tanh(2 * 50) / 2 - 0.5 = 0
    assert (p[40:] == 1).all()
    spikes, _ = rates(FaultSpec(1.0, compression=2.0), weight=0.0, bias=3.0)
    assert np.abs(spikes / 4000 - 1 / (1 + np.exp(-3.0))).max() < 0.02


def test_time_constants_are_not_applicable() -> None:
    faulty, ideal = (rates(spec, 1.0, -0.5)[0] for spec in (FaultSpec(1.0, time_constant=1.0), FaultSpec()))
    assert np.array_equal(faulty, ideal)


def test_dead_and_saturated_neurons_are_forced_whatever_their_probability() -> None:
    for weight in (20.0, -20.0):
        spikes, chip = rates(FaultSpec(1.0, dead=0.3, saturated=0.3), weight, 0.0)
        silent, saturated = both(chip, "silent"), both(chip, "saturated")
        sound = ~(silent | saturated)
        assert (spikes[silent] == 0).all() and (spikes[saturated] == 4000).all()
        assert (spikes[sound] == (4000 if weight > 0 else 0)).all()
        assert all(x[:40].any() and x[40:].any() for x in (silent, saturated, sound))


def test_the_order_in_a_neuron_and_that_its_own_synapse_is_compressed_too() -> None:
    """tanh(kappa sum) / kappa + offset + bias, of what saturated neurons send to each other and themselves."""
    network = nets.glm(4, 3)
    spec = FaultSpec(1.0, compression=0.5, offset=0.5, threshold=0.5, saturated=1.0)
    chip, parameters = SimulatedChip(network, [spec], [0]), torch.randn(1, network.parameters)
    inputs = nets.inputs(network, nets.generator(), 5, 7, False)
    session = chip.session(parameters, 5)
    seen = [session.advance(inputs[None, :, t]) for t in range(7)]
    assert all(spikes.eq(1).all() for o in seen for spikes in o.spikes)
    lines = np.concatenate([inputs[..., :-1].double().numpy(), np.ones((5, 7, 7))], axis=2)
    total, biases = truth.sums(network, parameters[0], lines)
    offset = chip.device.layers[0].offset[0].numpy()
    expected = np.tanh(0.5 * total[..., :4]) / 0.5 + offset + biases[:4]
    found = [torch.stack([o.potentials[layer][0] for o in seen], dim=1).numpy() for layer in (0, 1)]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    np.testing.assert_allclose(found[1], total[..., 4:] + biases[4:], atol=1e-5)


def test_a_clamp_overrides_dead_and_saturated_outputs_and_their_likelihood_is_the_comparisons() -> None:
    """The threshold's deviation counts, the override does not."""
    network, spec = nets.glm(2, 6), FaultSpec(1.0, dead=0.4, saturated=0.4, threshold=0.5)
    chip, generator = SimulatedChip(network, [spec], [0]), nets.generator(1)
    parameters = torch.randn((1, network.parameters), generator=generator)
    inputs = nets.inputs(network, generator, 20, 6, False)
    targets = (torch.rand((20, 6, 6), generator=generator) < 0.5).float()
    assert both(chip, "silent")[2:].any() and both(chip, "saturated")[2:].any()
    found = chip.likelihood(parameters, inputs[None], ONE, targets[None], 1)[0, 0]
    session = SimulatedChip(network, [spec], [0]).session(parameters, 20)
    seen = [session.advance(inputs[None, :, t], clamp=targets[None, :, t]) for t in range(6)]
    assert torch.equal(torch.stack([o.spikes[1][0] for o in seen], dim=1), targets)
    u = torch.stack([o.potentials[1][0] for o in seen], dim=1).double() - chip.device.layers[1].threshold[0]
    np.testing.assert_allclose(found.numpy(), truth.log_likelihood(u.numpy(), targets.numpy()), atol=1e-4)


def test_counts_are_read_with_noise_and_likelihoods_and_spikes_without() -> None:
    network, generator = nets.glm(), nets.generator(2)
    inputs = nets.inputs(network, generator, 2000, 6, False)[None]
    parameters, targets = nets.weights(network, generator, 1), torch.ones(1, 2000, 6, 2)
    noisy, exact = (SimulatedChip(network, [FaultSpec(0.25, read_noise=noise)], [0]) for noise in (2.0, 0.0))
    counts = [chip.evaluate(parameters[None], inputs, ONE) for chip in (noisy, exact)]
    assert normal((counts[0] - counts[1]) / 0.5) > 1e-3
    assert torch.equal(*(chip.likelihood(parameters, inputs, ONE, targets, 1) for chip in (noisy, exact)))
    assert torch.equal(*(chip.run(parameters, inputs, ONE)[1] for chip in (noisy, exact)))


# Lost and late spikes


def relay(spec: FaultSpec, way: str, samples: int = 4000, steps: int = 6) -> tuple[torch.Tensor, SimulatedChip]:
    """Arrivals [3, N, T - 1] at the neuron itself, another hidden one and an output, of spikes sent at every step.

    Weights of 100 are seen through biases of -50: the receiver spikes where a spike arrived. The sender's own synapse
    is of 100 too, but its bias makes it spike always.
    """
    network = Network(1, (2,), 1, SHORT)
    parameters = torch.zeros(1, network.parameters)
    hidden, outputs = (layer[0] for layer in network.unpack(parameters))
    hidden[:, 0], hidden[:, -1] = 100.0, torch.tensor([50.0, -50.0])
    outputs[0, 0], outputs[0, -1] = 100.0, -50.0
    chip = SimulatedChip(network, [spec], [3])
    inputs = torch.zeros(1, samples, steps, 1)
    if way == "run":
        spikes = torch.cat(chip.run(parameters, inputs, ONE), dim=-1)[0].float()
        itself = spikes[..., 1]
    else:
        session = chip.session(parameters, samples)
        seen = [session.advance(inputs[:, :, t]) for t in range(steps)]
        spikes = torch.stack([torch.cat(o.spikes, dim=-1)[0] for o in seen], dim=1)
        itself = torch.stack([(o.potentials[0][0, :, 0] - 50) / 100 for o in seen], dim=1)
    assert spikes[..., 0].all()  # what is sent
    return torch.stack([itself[:, 1:], spikes[:, 1:, 1], spikes[:, 1:, 2]]), chip


@pytest.mark.parametrize("way", ["run", "session"])
def test_each_hidden_spike_is_lost_with_its_probability_to_all_that_hear_it(way: str) -> None:
    arrivals, chip = relay(FaultSpec(0.5, drop=0.6), way)
    assert torch.equal(arrivals[0], arrivals[1]) and torch.equal(arrivals[1], arrivals[2])
    assert stats.binomtest(int(arrivals[0].sum()), arrivals[0].numel(), 0.7).pvalue > 1e-3
    correlation = np.corrcoef(arrivals[0].T.double().numpy()) - np.eye(5)
    assert np.abs(correlation).max() < 4.5 / 4000**0.5
    # What is metered is sent: the sender's at each of six steps, the other two's as they heard it one step before.
    assert chip.meter.spikes.item() == 6 * 4000 + arrivals[1:].sum().item()


@pytest.mark.parametrize("way", ["run", "session"])
def test_each_hidden_spike_is_late_with_its_probability(way: str) -> None:
    arrivals, _ = relay(FaultSpec(0.5, jitter=0.6), way)
    assert torch.equal(arrivals[0], arrivals[1]) and torch.equal(arrivals[1], arrivals[2])
    for t, p in enumerate([0.7] + [1 - 0.3 * 0.7] * 4):  # two that arrive at once are one
        assert stats.binomtest(int(arrivals[0][:, t].sum()), 4000, p).pvalue > 1e-3, t


@pytest.mark.parametrize("way", ["run", "session"])
def test_at_probability_one_nothing_arrives_or_all_one_step_late(way: str) -> None:
    assert not relay(FaultSpec(1.0, drop=1.0, jitter=0.5), way, samples=20)[0].any()
    late, _ = relay(FaultSpec(1.0, jitter=1.0), way, samples=20)
    assert not late[..., 0].any() and late[..., 1:].all()


def test_outputs_spikes_are_spared() -> None:
    network = nets.glm(1, 3)
    parameters = torch.randn((1, network.parameters), generator=nets.generator())
    for layer, lines in zip(network.unpack(parameters), (slice(12, 15), slice(12, 15)), strict=True):
        layer[..., lines] = 0  # nothing comes from the hidden neuron
    spikes = [
        SimulatedChip(network, [spec], [0]).run(parameters, torch.zeros(1, 50, 20, 5), ONE)[1]
        for spec in (FaultSpec(1.0, drop=1.0), FaultSpec(1.0, jitter=1.0), FaultSpec())
    ]
    assert torch.equal(spikes[0], spikes[2]) and torch.equal(spikes[1], spikes[2])


# Kernel and session


@pytest.mark.parametrize(
    "spec",
    [STATIC, EVENTS, FaultSpec(1.0, gain_mismatch=0.3, offset=0.3, compression=0.5, drop=0.3, jitter=0.3)],
    ids=["static", "events", "both"],
)
@pytest.mark.parametrize("clamped", [False, True])
def test_the_kernel_equals_the_session_with_every_fault(spec: FaultSpec, clamped: bool) -> None:
    """A sample counts where no potential comes close to what its number demands."""
    network, devices = Network(21, (7,), 4, GLMParameters()), 6
    chips = [SimulatedChip(network, [spec] * devices, range(devices)) for _ in range(2)]
    generator, index = nets.generator(5), torch.arange(devices) % 2
    parameters = torch.randn((devices, network.parameters), generator=generator) / 2
    inputs = (torch.rand((2, 60, 15, 21), generator=generator) < 0.2).float()
    targets = (torch.rand((2, 60, 15, 4), generator=generator) < 0.3).float()
    session = chips[0].session(parameters, 60)
    seen = [session.advance(inputs[index, :, t], targets[index, :, t] if clamped else None) for t in range(15)]
    u = torch.stack([torch.cat(o.potentials, dim=-1) for o in seen], dim=2).double()
    spikes = torch.stack([torch.cat(o.spikes, dim=-1) for o in seen], dim=2)
    u -= torch.cat([layer.threshold for layer in chips[0].device.layers], dim=1)[:, None, None]
    drawn = np.stack([truth.numbers(chip, 1, (60, 15, 11)) for chip in range(devices)])
    near = np.abs(u.numpy() - np.log(drawn / (1 - drawn)))
    heard = slice(7 if clamped else 11)
    sure = torch.from_numpy(near[..., heard].min(axis=(2, 3)) > 1e-4)
    assert sure.float().mean() > 0.85
    if clamped:
        found = chips[1].likelihood(parameters, inputs, index, targets, 1)[:, 0]
        expected = np.stack([truth.log_likelihood(u[b, ..., 7:].numpy(), targets[index[b]].numpy()) for b in range(6)])
        np.testing.assert_allclose(found[sure].numpy(), expected[sure], atol=1e-3)
    else:
        found = torch.cat(chips[1].run(parameters, inputs, index), dim=-1)
        assert torch.equal(found[sure].float(), spikes[sure])
        assert 0.1 < spikes.mean() < 0.9
