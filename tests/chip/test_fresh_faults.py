"""Faults that are drawn anew at each use: programming noise, lost and late spikes, read noise."""

from __future__ import annotations

import nets
import pytest
import torch
from scipy import stats

from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.networks import Network
from spikebench.neurons import LIFParameters, LIFState, lif_step

ONE = torch.tensor([0])
#: A hidden neuron that spikes at every step, and an output that spikes whenever such a spike arrives, else never.
RELAY = Network(1, (1,), 1)
RELAY_WEIGHTS = torch.tensor([[2.0, 2.0, 0.0]])


def relay(spec: FaultSpec, samples: int = 4000, steps: int = 6, chip: SimulatedChip | None = None) -> torch.Tensor:
    """Arrivals [N, T] of a spike train that is sent at every step."""
    chip = chip or SimulatedChip(RELAY, [spec], [3])
    sent, arrived = chip.run(RELAY_WEIGHTS, torch.ones(1, samples, steps, 1), ONE)
    assert sent.eq(1).all()
    return arrived[0, :, :, 0]


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return not torch.equal(a, b)


# Programming noise


def test_programming_noise_is_added_anew_to_each_weight_at_each_programming() -> None:
    network = Network(50, (40,), 10)
    chip = SimulatedChip(network, [FaultSpec(0.5, programming_noise=0.4)], [1])
    asked = torch.randn((1, 3, network.parameters), generator=nets.generator())
    errors = torch.stack([chip.program(asked) - asked for _ in range(2)])[:, 0] / 0.2  # [use, candidate, P]
    assert stats.kstest(errors.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = errors.flatten(0, 1).corrcoef() - torch.eye(6)
    assert correlation.abs().max() < 4.5 / network.parameters**0.5


def test_programming_noise_does_not_depend_on_the_weight() -> None:
    network = Network(50, (40,), 10)
    spec = FaultSpec(1.0, programming_noise=0.3)
    asked = torch.zeros(1, 1, network.parameters)
    small, large = (SimulatedChip(network, [spec], [1]).program(asked + weight) for weight in (0.0, 3.0))
    torch.testing.assert_close(large - 3, small, atol=1e-5, rtol=0)


def test_programming_noise_of_several_devices_scales_with_their_severity() -> None:
    network = Network(50, (40,), 10)
    chip = SimulatedChip(network, [FaultSpec(s, programming_noise=0.4) for s in (0.0, 0.5, 1.0)], [1, 1, 1])
    none, half, full = chip.program(torch.zeros(3, 1, network.parameters))[:, 0]
    assert not none.any()
    torch.testing.assert_close(2 * half, full)


def test_programming_noise_stays_for_a_presentation_and_changes_with_the_next() -> None:
    network = Network(1, (), 1, LIFParameters(0.5, 100.0))  # never spikes: the potential shows the weight
    chip = SimulatedChip(network, [FaultSpec(1.0, programming_noise=0.5)], [0])
    one, weight = torch.ones(1, 1, 1), torch.tensor([[1.0]])
    session = chip.session(weight, 1)
    first = session.advance(one).potentials[0].item()
    assert session.advance(one).potentials[0].item() == pytest.approx(1.5 * first, rel=1e-6)
    session.program(weight)
    assert session.advance(torch.zeros(1, 1, 1)).potentials[0].item() == pytest.approx(0.75 * first, rel=1e-6)
    again = chip.session(weight, 1).advance(one).potentials[0].item()
    assert abs(again - first) > 1e-3


# Lost spikes


def test_each_spike_is_lost_with_its_probability() -> None:
    arrivals = relay(FaultSpec(0.5, drop=0.6))
    assert stats.binomtest(int(arrivals.sum()), arrivals.numel(), 0.7).pvalue > 1e-3
    # Independent over steps and samples: the counts of six steps are binomial.
    seen = torch.bincount(arrivals.sum(dim=1).long(), minlength=7).numpy()
    assert stats.chisquare(seen, len(arrivals) * stats.binom.pmf(range(7), 6, 0.7)).pvalue > 1e-3


def test_at_probability_one_the_next_layer_hears_the_always_on_line_alone() -> None:
    network = Network(4, (5,), 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(1)
    parameters, shown = nets.weights(network, generator, 1), nets.inputs(network, generator, 30, 8, False)
    network.unpack(parameters)[1][0, :, -1] = 0.75  # alone it drives the potential beyond 1
    lossy = SimulatedChip(network, [FaultSpec(1.0, drop=1.0)], [0]).run(parameters, shown[None], ONE)
    sound = SimulatedChip(network, [FaultSpec()], [0]).run(parameters, shown[None], ONE)
    assert torch.equal(lossy[0], sound[0])  # the hidden layer itself is untouched
    state = LIFState(torch.zeros(3), torch.zeros(3))
    for t in range(8):
        state = lif_step(network.unpack(parameters[0])[1][:, -1], state, network.neuron)
        assert lossy[1][0, :, t].eq(state.spikes).all()
    assert lossy[1].any() and differ(lossy[1], sound[1])


def test_spikes_of_inputs_and_outputs_are_not_lost() -> None:
    network = Network(1, (), 1)
    chip = SimulatedChip(network, [FaultSpec(1.0, drop=1.0, jitter=1.0)], [0])
    assert chip.run(torch.tensor([[2.0]]), torch.ones(1, 3, 5, 1), ONE)[0].eq(1).all()


# Late spikes


def test_each_spike_is_late_with_its_probability() -> None:
    arrivals = relay(FaultSpec(0.5, jitter=0.6))
    # Something arrives if this step's spike is in time, or the last step's was late; two at once count as one.
    for t, p in enumerate([0.7] + [1 - 0.3 * 0.7] * 5):
        assert stats.binomtest(int(arrivals[:, t].sum()), len(arrivals), p).pvalue > 1e-3, t


def test_at_probability_one_every_spike_arrives_one_step_late() -> None:
    network = Network(4, (5,), 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(2)
    parameters, shown = nets.weights(network, generator, 1), nets.inputs(network, generator, 30, 8, False)
    parameters[:, 20:] *= 2
    hidden, output = SimulatedChip(network, [FaultSpec(1.0, jitter=1.0)], [0]).run(parameters, shown[None], ONE)
    late = torch.cat([torch.zeros_like(hidden[:, :, :1]), hidden[:, :, :-1]], dim=2)
    weights = network.unpack(parameters[0])[1]
    state = LIFState(torch.zeros(30, 3), torch.zeros(30, 3))
    for t in range(8):
        state = lif_step(late[0, :, t] @ weights[:, :-1].T + weights[:, -1], state, network.neuron)
        assert torch.equal(output[0, :, t], state.spikes)
    assert differ(output, SimulatedChip(network, [FaultSpec()], [0]).run(parameters, shown[None], ONE)[1])


def test_a_lost_spike_does_not_come_late() -> None:
    assert not relay(FaultSpec(1.0, drop=1.0, jitter=0.5)).any()


def test_events_are_drawn_anew_for_each_presentation_device_and_layer() -> None:
    spec = FaultSpec(1.0, drop=0.5)
    chip = SimulatedChip(RELAY, [spec], [3])
    first, second = relay(spec, chip=chip), relay(spec, chip=chip)
    assert differ(first, second)
    assert torch.equal(relay(spec), first)  # the same device from its first use on: the same bits
    assert differ(relay(spec, chip=SimulatedChip(RELAY, [spec], [4])), first)
    deep = Network(1, (1, 1), 1)
    weights = torch.tensor([[2.0, 0.0, 2.0, 2.0, 0.0]])  # the second hidden neuron spikes by its always-on line
    spikes = SimulatedChip(deep, [spec], [3]).run(weights, torch.ones(1, 4000, 6, 1), ONE)
    assert spikes[1].eq(1).all()
    assert stats.binomtest(int(spikes[2].sum()), 24_000, 0.5).pvalue > 1e-3


# Read noise


def test_read_noise_is_added_to_each_count_at_each_reading() -> None:
    network = Network(3, (4,), 2)
    spec = FaultSpec(0.25, read_noise=2.0)
    chip, ideal = (SimulatedChip(network, [s], [0]) for s in (spec, FaultSpec()))
    candidates = torch.randn((1, 3, network.parameters), generator=nets.generator())
    shown = torch.rand((1, 500, 6, 3), generator=nets.generator(1))
    true = ideal.evaluate(candidates, shown, ONE)
    errors = torch.stack([chip.evaluate(candidates, shown, ONE) - true for _ in range(2)])[:, 0] / 0.5
    assert stats.kstest(errors.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = errors.permute(0, 1, 3, 2).flatten(0, 2).corrcoef() - torch.eye(12)  # use, candidate, output
    assert correlation.abs().max() < 4.5 / 500**0.5


def test_read_noise_leaves_the_spikes_themselves_alone() -> None:
    network = Network(3, (4,), 2)
    chip, ideal = (SimulatedChip(network, [s], [0]) for s in (FaultSpec(1.0, read_noise=2.0), FaultSpec()))
    parameters = torch.randn((1, network.parameters), generator=nets.generator())
    shown = torch.rand((1, 50, 6, 3), generator=nets.generator(1))
    for a, b in zip(chip.run(parameters, shown, ONE), ideal.run(parameters, shown, ONE), strict=True):
        assert torch.equal(a, b)
