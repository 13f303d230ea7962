"""Spikes of feedback networks that are lost or late, forwards and backwards: both then go step by step."""

from __future__ import annotations

import feedback_truth as truth
import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.architectures import feedback_network
from spikebench.chip import feedback_kernel
from spikebench.chip.faults import Device, FaultSpec, draw_device
from spikebench.chip.feedback_session import FeedbackSession
from spikebench.chip.session import transmit
from spikebench.chip.simulated import SimulatedChip
from spikebench.layered_networks import LayeredNetwork
from spikebench.neurons import CoupleParameters, SoftResetParameters

ONE = torch.tensor([0])
FAMILIES = {
    "drop": {"drop": 0.4},
    "jitter": {"jitter": 0.4},
    "both, of faulty neurons": {
        "drop": 0.3,
        "jitter": 0.3,
        "threshold": 0.3,
        "offset": 0.2,
        "dead": 0.1,
        "saturated": 0.1,
    },
}


def device(**strengths: float) -> Device:
    """Of a chip of severity 1."""
    return draw_device(truth.network("dense"), [FaultSpec(1.0, **strengths)], [0])


def wide(neuron: SoftResetParameters = truth.IF) -> tuple[LayeredNetwork, torch.Tensor, torch.Tensor]:
    """400 neurons without feedback, their weights [1, P] and currents [1, N, T, I]."""
    network = feedback_network("400", 5, (), 2, neuron)
    return network, truth.drawn(network, 1), truth.shown(network, False, steps=16)[:1]


def watch(
    chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What arrives of each layer's spikes, and potentials, [N, T, neurons] of one device."""
    session, steps = FeedbackSession(chip, parameters, inputs.shape[1]), range(inputs.shape[2])
    seen = [session.advance(inputs[:, :, t]) for t in steps]
    spikes, potentials = (zip(*(getattr(o, what) for o in seen), strict=True) for what in ("spikes", "potentials"))
    return tuple([torch.stack(layer, dim=2)[0].double().numpy() for layer in each] for each in (spikes, potentials))  # type: ignore[return-value]


def test_a_late_spike_that_meets_another_counts_once_and_opposite_ones_cancel() -> None:
    spikes, never = torch.tensor([[[1.0, 0.0, -1.0, 1.0, -1.0]]]) * 0.5, torch.ones(1, 2, 1, 5)
    late = torch.tensor([[[1.0, 1.0, 1.0, 0.0, -1.0]]]) * 0.5
    arriving, delayed = transmit(device(), spikes, late, never, torch.full((1, 1, 5), 0.5))
    assert arriving.tolist() == [[[0.5, 0.5, 0, 0.5, -0.5]]] and not delayed.any()
    arriving, delayed = transmit(device(jitter=1.0), spikes, late, never / 2, 0.5)
    assert torch.equal(arriving, late) and torch.equal(delayed, spikes)
    arriving, delayed = transmit(device(drop=1.0), spikes, late, never / 2, 0.5)
    assert torch.equal(arriving, late) and not delayed.any()
    arriving, _ = transmit(device(), spikes.abs() * 2, late.abs() * 2, never)
    assert arriving.tolist() == [[[1, 1, 1, 1, 1]]]


@pytest.mark.parametrize("events", [{"drop": 0.5}, {"jitter": 0.5}], ids=["drop", "jitter"])
@pytest.mark.parametrize("name", ["the paper's", "no feedback", "one layer"])
def test_at_severity_0_they_are_the_ideal_rates_on_another_path(
    name: str, events: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = truth.network(name, truth.LIF)
    parameters, inputs, second = truth.drawn(network), truth.shown(network, True), truth.second_stage(network)
    index, own = torch.tensor([1, 0]), (*second, CoupleParameters(leak=0.5), truth.STEPS)
    ideal, chip = (SimulatedChip(network, [FaultSpec(0.0, **each)] * 2, [0, 1]) for each in ({}, events))
    masks = truth.scales(network)
    expected = ideal.rates(parameters, inputs, index, masks), ideal.differentiate(parameters, *own)
    monkeypatch.delattr(feedback_kernel, "present")
    monkeypatch.delattr(feedback_kernel, "differentiate")
    found = chip.rates(parameters, inputs, index, masks), chip.differentiate(parameters, *own)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.mean, other.mean) and torch.equal(one.spikes, other.spikes)
    for compiled in (lambda: ideal.rates(parameters, inputs, index), lambda: ideal.differentiate(parameters, *own)):
        with pytest.raises(AttributeError):
            compiled()


def test_operations_of_dense_layers_are_counted_alike_on_both_paths() -> None:
    """Where no spike is at a border, is not to be sent, or comes back only after the end."""
    network = feedback_network("5-4", 9, (), 2, truth.IF)
    parameters, inputs, (current, _) = truth.drawn(network), truth.shown(network, True), truth.second_stage(network)
    own = current, torch.ones(2, truth.SAMPLES, 14), CoupleParameters(), truth.STEPS
    chips = [SimulatedChip(network, [FaultSpec(0.0, drop=drop)] * 2, [0, 1]) for drop in (0.0, 1.0)]
    rates = [chip.rates(parameters, inputs, torch.tensor([1, 0])) for chip in chips]
    backwards = [chip.differentiate(parameters, *own) for chip in chips]
    for compiled, by_steps in (rates, backwards):
        assert torch.equal(compiled.operations, by_steps.operations) and compiled.operations.all()
        assert torch.equal(compiled.input_operations, by_steps.input_operations)
    assert chips[0].meter.synaptic_operations.equal(chips[1].meter.synaptic_operations)
    assert chips[0].meter.input_operations.equal(chips[1].meter.input_operations)


def test_rates_fall_by_the_share_that_is_lost() -> None:
    network, parameters, inputs = wide()
    sent = truth.present(network, parameters[0], inputs[0])
    found = SimulatedChip(network, [FaultSpec(0.5, drop=0.6)], [0]).rates(parameters, inputs, ONE)
    arrived = int((found.mean * 16).sum().round())
    assert stats.binomtest(arrived, int(sent.totals[0]), 0.7).pvalue > 1e-3
    assert (found.mean[0].numpy() <= sent.mean()).all()
    assert not SimulatedChip(network, [FaultSpec(1.0, drop=1.0)], [0]).rates(parameters, inputs, ONE).mean.any()


def test_late_spikes_come_one_step_later() -> None:
    network, parameters, inputs = wide()
    sent = truth.present(network, parameters[0], inputs[0]).spikes[0]
    chip = SimulatedChip(network, [FaultSpec(1.0, jitter=1.0)], [0])
    arriving, _ = watch(chip, parameters, inputs)
    assert not arriving[0][:, 0].any() and np.array_equal(arriving[0][:, 1:], sent[:, :-1])
    found = chip.rates(parameters, inputs, ONE).mean[0].numpy()
    assert np.array_equal(found, sent[:, :-1].sum(axis=1).astype(np.float32) / 16)
    half, _ = watch(SimulatedChip(network, [FaultSpec(1.0, jitter=0.5)], [0]), parameters, inputs)
    alone = (sent == 1) & (np.diff(sent, axis=1, prepend=0) == 1)  # no spike in the step before
    assert stats.binomtest(int(half[0][alone].sum()), int(alone.sum()), 0.5).pvalue > 1e-3
    assert half[0].sum() < sent.sum(), "two that arrive at once count as one"


@pytest.mark.parametrize("name", ["the paper's", "no feedback", "dense last", "one layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_hear_what_arrives_and_reset_by_what_they_send(name: str, family: str) -> None:
    network = truth.network(name, truth.LIF)
    parameters, inputs = truth.drawn(network, 1), truth.shown(network, False)[:1]
    chip = SimulatedChip(network, [FaultSpec(1.0, **FAMILIES[family])], [2])
    arriving, potentials = watch(chip, parameters, inputs)
    own, biases = network.split(parameters[0])
    synapses = [truth.matrix(*pair) for pair in zip(network.links, own, strict=True)]
    total = 0.0
    for number, layer in enumerate(truth.neurons(network, chip.device)):
        signal = inputs[0, ..., :-1].numpy() if number == 0 else arriving[number - 1]
        current = signal @ synapses[number].T + biases[number].numpy().repeat(network.positions[number])
        if number == 0 and network.feedback:
            current[:, 1:] += arriving[-1][:, :-1] @ synapses[-1].T
        sent = np.where(layer.dead, 0, np.where(layer.saturated, 1, potentials[number] >= layer.threshold))
        kept = layer.leak * (potentials[number] - layer.taken * sent)
        kept = np.concatenate([np.zeros_like(kept[:, :1]), kept[:, :-1]], axis=1)
        np.testing.assert_allclose(potentials[number], kept + layer.distorted(current), atol=1e-5)
        assert (arriving[number] != sent).any()
        total += sent.sum()
    assert chip.meter.spikes.item() == total, "spikes are counted where they are sent"


def test_what_rates_average_is_what_arrives() -> None:
    network = truth.network("twice the side", truth.LIF)
    parameters, inputs = truth.drawn(network, 1), truth.shown(network, True)[:1]
    chips = [SimulatedChip(network, [FaultSpec(0.5, drop=0.5, jitter=0.5)], [4]) for _ in range(2)]
    arriving, _ = watch(chips[0], parameters, inputs)
    found = chips[1].rates(parameters, inputs, ONE)
    assert np.array_equal(found.mean[0].numpy(), truth.Trains(arriving, [], 0.0, 0.0).mean(0.5))
    assert torch.equal(chips[0].meter.spikes, chips[1].meter.spikes)


def test_each_use_and_each_chip_loses_other_spikes() -> None:
    network, parameters, inputs = wide()
    parameters, second = parameters.expand(2, -1), (torch.full((2, 4, 400), 0.7), torch.zeros(2, 4, 800))

    def means(seeds: list[int]) -> list[torch.Tensor]:
        chip = SimulatedChip(network, [FaultSpec(0.5, drop=0.5)] * 2, seeds)
        uses = [chip.rates(parameters, inputs, torch.tensor([0, 0])) for _ in range(2)]
        return [
            own.mean for own in (*uses, *(chip.differentiate(parameters, *second, CoupleParameters(), 8) for _ in uses))
        ]

    for first, again in (means([0, 1])[:2], means([0, 1])[2:]):
        assert not torch.equal(first, again)
        assert not torch.equal(first[0], first[1])
    assert all(map(torch.equal, means([0, 1]), means([0, 1])))
    assert all(torch.equal(*own) for own in means([2, 2]))


def test_rates_count_the_spikes_that_are_sent() -> None:
    network = truth.network("twice the side")
    chip = SimulatedChip(network, [FaultSpec(0.5, drop=0.5, jitter=0.5)], [4])
    found = chip.rates(truth.drawn(network, 1), truth.shown(network, True), ONE)
    assert found.spikes.sum().item() == chip.meter.spikes.item() > 0


# The second stage


def test_couples_spikes_are_lost_and_late_as_any() -> None:
    network, parameters, _ = wide()
    current = torch.linspace(-1, 1, 400).expand(1, 4, -1)
    factors, couple = torch.zeros(1, 4, 800), CoupleParameters(1.0, -0.5)

    def found(steps: int, **strengths: float) -> tuple[torch.Tensor, float]:
        chip = SimulatedChip(network, [FaultSpec(1.0, **strengths)], [0])
        own = chip.differentiate(parameters, current, factors, couple, steps)
        return own.mean * steps / 1.5, own.spikes.item()

    sums, sent = found(16)
    assert sums.min() < -5 and sums.max() > 5
    lost, left = found(16, drop=0.25)
    assert left == sent, "they are sent"
    assert stats.binomtest(int(lost.abs().sum().round()), int(sums.abs().sum().round()), 0.75).pvalue > 1e-3
    assert (lost.abs() <= sums.abs() + 1e-5).all()
    assert not found(16, drop=1.0)[0].any()
    assert torch.allclose(found(16, jitter=1.0)[0], found(15)[0], atol=1e-5)


@pytest.mark.parametrize("name", ["dense", "one dense layer"])
def test_late_couples_delay_every_layer(name: str) -> None:
    """All late: what drove a layer in the same step does so in the next, and the feedback two steps later."""
    network = truth.network(name)
    parameters, (current, factors) = truth.drawn(network, 1), truth.second_stage(network, 1)
    chip = SimulatedChip(network, [FaultSpec(1.0, jitter=1.0)], [0])
    found = chip.differentiate(parameters, current, factors, CoupleParameters(), 8)
    links = [truth.matrix(*pair) for pair in zip(network.links, network.split(parameters[0])[0], strict=True)]
    scales, last = np.split(factors[0].double().numpy(), np.cumsum(network.widths), axis=1), len(network.layers) - 1
    sent = [np.zeros((10, truth.SAMPLES, width)) for width in network.widths]  # two steps of silence come first
    kept = [np.zeros((truth.SAMPLES, width)) for width in network.widths]
    for t in range(2, 10):
        for number in reversed(range(last + 1)):
            if number == last:
                v = kept[number] + current[0].numpy() + (sent[0][t - 2] * scales[-1]) @ links[-1]
            else:
                v = kept[number] + (sent[number + 1][t - 1] * scales[number + 1]) @ links[number + 1]
            sent[number][t] = (v >= 0.5) * 1.0 - (v <= -0.5)
            kept[number] = v - sent[number][t]
    assert np.array_equal(found.mean[0].numpy() * 8, np.concatenate([train[:-1].sum(axis=0) for train in sent], axis=1))
    assert found.spikes[0].tolist() == [np.abs(train).sum() for train in sent]
