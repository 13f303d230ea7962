"""Layered networks of LIF neurons on the chip: kernel, session, and a plain loop over steps that knows neither."""

from __future__ import annotations

import feedback_truth as truth
import nets
import pytest
import snntorch
import torch
from torch.nn import functional

from spikebench.architectures import feedback_network
from spikebench.chip import feedback_kernel
from spikebench.chip.faults import Device, FaultSpec, draw_device
from spikebench.chip.feedback_session import FeedbackSession, rates_by_steps
from spikebench.chip.protocol import Rates
from spikebench.chip.simulated import SimulatedChip
from spikebench.layered_networks import LayeredNetwork
from spikebench.networks import Network
from spikebench.neurons import (
    CoupleParameters,
    LIFParameters,
    LIFState,
    SoftResetParameters,
    lif_step,
    soft_reset_step,
)

ONE, BOTH = torch.tensor([0]), torch.tensor([1, 0])
NEURONS = {"threshold": 0.3, "time_constant": 0.3, "offset": 0.2, "compression": 0.4, "dead": 0.1, "saturated": 0.1}
STATIC = {
    "threshold": {"threshold": 0.3},
    "time constant": {"time_constant": 0.5},
    "offset": {"offset": 0.3},
    "compression": {"compression": 0.6},
    "fates": {"dead": 0.2, "saturated": 0.2},
    "synapses": {"gain_mismatch": 0.3, "flip": 0.1, "stuck_at": 0.1},
    "all": NEURONS | {"gain_mismatch": 0.3},
}
EVENTS = {"drop": {"drop": 0.4}, "jitter": {"jitter": 0.4}, "all": NEURONS | {"drop": 0.3, "jitter": 0.3}}
#: Without feedback and shortcuts: what the kernel runs.
COMPILED = ["no feedback", "pool first", *truth.GATES]
#: One [N, T, neurons] a layer.
Trains = list[torch.Tensor]


def both_ways(chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor) -> tuple[Rates, Rates]:
    """Of the chip, which is compiled where there are no shortcuts, and step by step."""
    return chip.rates(parameters, inputs, BOTH), rates_by_steps(chip, parameters, inputs, BOTH)


def watch(chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor, b: int) -> tuple[Trains, Trains]:
    """What arrives of the spikes on the b-th device, and potentials, of inputs [B, N, T, I]."""
    session = FeedbackSession(chip, parameters, inputs.shape[1])
    seen = [session.advance(inputs[:, :, t]) for t in range(inputs.shape[2])]
    return by_layer([[x[b] for x in o.spikes] for o in seen]), by_layer([[x[b] for x in o.potentials] for o in seen])


def by_layer(steps: list[list[torch.Tensor]]) -> Trains:
    """Of values [N, ...] of each step and layer."""
    return [torch.stack(layer, dim=1).flatten(2).float() for layer in zip(*steps, strict=True)]


def driven(network: LayeredNetwork, number: int, own: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """The currents into a layer of weights [channels, inputs], of the maps of the inputs and of all layers before."""
    layer, heard, weights, bias = network.layers[number], maps[-1], own[:, :-1], own[:, -1:].flatten()
    if layer.kind == "pool":
        return functional.avg_pool2d(heard, layer.kernel)
    if layer.kind == "dense":
        lines = heard.mean(dim=(2, 3)) if layer.mean else heard.flatten(1)
        return functional.linear(lines, weights, bias)[..., None, None]
    size = heard.shape[1] * layer.kernel**2
    kernel, rest = weights[:, :size].unflatten(1, (-1, layer.kernel, layer.kernel)), weights[:, size:, None, None]
    sums = functional.conv2d(heard, kernel, bias, layer.stride, layer.kernel // 2)
    if layer.shortcut and not rest.shape[1]:
        return sums + maps[-2]
    if layer.shortcut:
        return sums + functional.conv2d(maps[-2], rest, stride=1 if maps[-2].shape[2] == sums.shape[2] else 2)
    return sums


def plain(
    network: LayeredNetwork,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    device: Device,
    b: int,
    arriving: Trains | None = None,
) -> tuple[Trains, Trains]:
    """Spikes that are sent, and potentials, of parameters [P] that act and inputs [N, T, I].

    Where ``arriving`` is given, it is what neurons hear.
    """
    own, states = (
        network.unpack(parameters.double()),
        [LIFState(torch.zeros(()), torch.zeros(()))] * len(network.layers),
    )
    sent, seen = [], []
    for t, shown in enumerate(inputs.double().unbind(1)):
        maps, fired, potentials = [shown[:, :-1].unflatten(1, network.maps[0])], [], []
        for number, (layer, faults) in enumerate(zip(network.layers, device.layers, strict=True)):
            if layer.kind == "largest":
                potentials.append(functional.avg_pool2d(maps[-1], layer.kernel))
                spikes = functional.max_pool2d(maps[-1], layer.kernel)
            else:
                threshold, decay, offset, silent, saturated = (
                    x[b].double()[:, None, None]
                    for x in (faults.threshold, faults.decay, faults.offset, faults.silent, faults.saturated)
                )
                current, kappa = driven(network, number, own[number], maps), faults.compression[b].double()
                current = (torch.tanh(kappa * current) / kappa if kappa else current) + offset
                kept, last = states[number]
                if isinstance(network.neuron, LIFParameters):
                    state = lif_step(current, states[number], LIFParameters(decay, threshold))
                else:
                    taken = threshold - network.neuron.rest  # type: ignore[union-attr]
                    soft = soft_reset_step(current, decay * (kept - taken * last), SoftResetParameters(threshold))
                    state = LIFState(soft.potential, soft.spikes)
                spikes = torch.where(silent > 0, 0.0, torch.where(saturated > 0, 1.0, state.spikes))
                states[number] = state._replace(spikes=spikes)
                potentials.append(state.potential)
            fired.append(spikes)
            maps.append(spikes if arriving is None else arriving[number][:, t].double().view_as(spikes))
        sent.append(fired)
        seen.append(potentials)
    return by_layer(sent), by_layer(seen)


def means(trains: Trains) -> torch.Tensor:
    """[N, M]."""
    return torch.cat(trains, dim=2).mean(dim=1)


def totals(trains: Trains) -> list[float]:
    """Spikes of each layer."""
    return [train.sum().item() for train in trains]


# Ideal devices


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
@pytest.mark.parametrize(
    ("name", "neuron"),
    [(name, truth.HARD) for name in [*COMPILED, *truth.SHORTCUTS]] + [(name, truth.LIF) for name in truth.GATES],
)
def test_rates_and_sessions_are_the_plain_loop_spike_for_spike(
    name: str, neuron: LIFParameters | SoftResetParameters, constant: bool
) -> None:
    network = truth.network(name, neuron)
    chip, parameters = SimulatedChip(network, [FaultSpec()] * 2, [0, 1]), truth.drawn(network)
    inputs = truth.shown(network, constant)
    found = both_ways(chip, parameters, inputs)
    for b in range(2):
        sent, seen = plain(network, parameters[b], inputs[BOTH[b]], chip.device, b)
        spikes, potentials = watch(chip, parameters, inputs[BOTH], b)
        assert all(map(torch.equal, spikes, sent))
        assert all(map(torch.equal, potentials, seen))
        for own in found:
            assert own.spikes[b].tolist() == totals(sent)
            if isinstance(neuron, LIFParameters):
                assert torch.equal(own.mean[b], means(sent)), "of hard resets, the plain mean"
        assert torch.equal(found[0].mean[b], found[1].mean[b])
        rates = [train.mean().item() for train, gate in zip(sent, network.gates, strict=True) if not gate]
        assert min(rates) > 0.02 and max(rates) < 0.98


@pytest.mark.parametrize("side", [2, 3, 5])
def test_gates_that_hear_the_inputs_spikes(side: int) -> None:
    """One spike in a square is enough, whatever its side."""
    network = feedback_network(f"M{side}-4", 2 * 15**2 + 1, (2, 15, 15), 2, truth.HARD)
    inputs = (torch.rand((1, 4, 8, network.inputs), generator=nets.generator()) < 0.3 / side**2).float()
    chip, parameters = SimulatedChip(network, [FaultSpec()], [0]), truth.drawn(network, 1)
    expected = functional.max_pool2d(inputs[0, ..., :-1].unflatten(2, (2, 15, 15)).flatten(0, 1), side)
    assert torch.equal(chip.run(parameters, inputs, ONE)[0][0].flatten().float(), expected.flatten())
    gates = chip.rates(parameters, inputs, ONE).mean[0, :, : network.widths[0]]
    assert torch.equal(gates, expected.flatten(1).unflatten(0, (4, 8)).mean(dim=1)) and 0.1 < gates.mean() < 0.5


@pytest.mark.parametrize("name", truth.GATES)
def test_masks_act_the_same_on_both_ways(name: str) -> None:
    network = truth.network(name, truth.HARD)
    chip, parameters, inputs = (
        SimulatedChip(network, [FaultSpec()] * 2, [0, 1]),
        truth.drawn(network),
        truth.shown(network, False),
    )
    masks = truth.scales(network)
    found, by_steps = chip.rates(parameters, inputs, BOTH, masks), rates_by_steps(chip, parameters, inputs, BOTH, masks)
    assert torch.equal(found.mean, by_steps.mean) and found.mean.any()


def test_operations_are_additions_of_gates_and_means_too() -> None:
    network = truth.network("mean", truth.HARD)
    chip, parameters, inputs = (
        SimulatedChip(network, [FaultSpec()] * 2, [0, 1]),
        truth.drawn(network),
        truth.shown(network, False),
    )
    found = chip.rates(parameters, inputs, BOTH)
    fan_outs = [torch.from_numpy(truth.synapses(link).sum(axis=0)).double() for link in network.links[1:]]
    sent = found.mean.double().split(network.widths, dim=2)[:-1]
    expected = sum((rates @ driven).sum(dim=1) for rates, driven in zip(sent, fan_outs, strict=True))
    assert torch.equal(found.operations, truth.STEPS * expected)


def test_a_neuron_at_its_threshold_is_silent_and_reset_to_zero() -> None:
    """Of a threshold of 1: a current of 1 decays by half a step, and what is above 1 is lost, not carried on."""
    inputs = torch.tensor([1.0, 0.25, 0.75, 0.0, 3.0, 0.75, 0.75]).view(1, 1, 7, 1) * torch.tensor([1.0, 0.0])
    network, parameters = feedback_network("1", 2, (), 2, truth.HARD), torch.tensor([[1.0, 0.0]])
    chip = SimulatedChip(network, [FaultSpec()], [0])
    spikes, potentials = watch(chip, parameters, inputs, 0)
    assert potentials[0].flatten().tolist() == [1.0, 0.75, 1.125, 0.0, 3.0, 0.75, 1.125]
    assert spikes[0].flatten().tolist() == [0, 0, 1, 0, 1, 0, 1]
    assert chip.rates(parameters, inputs, ONE).spikes.item() == 3
    gap = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    for current, number in ((torch.tensor(1.0), 0), (gap, 1)):
        assert chip.rates(parameters, inputs[:, :, :1].sign() * current, ONE).spikes.item() == number


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_a_neuron_is_snntorchs_leaky_with_delayed_reset_to_zero(decay: float) -> None:
    network = feedback_network("1", 2, (), 2, LIFParameters(decay, 1.0))
    currents = torch.randint(-4, 9, (20, 30), generator=nets.generator()) / 8
    inputs = torch.stack([currents, torch.ones_like(currents)], dim=2)[None]
    chip, parameters = SimulatedChip(network, [FaultSpec()], [0]), torch.tensor([[1.0, 0.0]])
    reference = snntorch.Leaky(beta=decay, threshold=1.0, reset_mechanism="zero", reset_delay=True)
    membrane, trains = torch.zeros(20), []
    for current in currents.unbind(1):
        spikes, membrane = reference(current, membrane)
        trains.append(spikes)
    found = chip.run(parameters, inputs, ONE)[0][0, :, :, 0].float()
    assert torch.equal(found, torch.stack(trains, dim=1)) and found.sum() > 50
    assert torch.equal(chip.rates(parameters, inputs, ONE).mean[0, :, 0], found.sum(dim=1) / 30)


def test_networks_without_shortcuts_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(feedback_kernel, "present")
    for name in ("gates", "wire"):
        network = truth.network(name, truth.HARD)
        chip = SimulatedChip(network, [FaultSpec()] * 2, [0, 1])
        if network.shortcuts:
            assert chip.rates(truth.drawn(network), truth.shown(network, True), BOTH).mean.any()
            continue
        with pytest.raises(AttributeError):
            chip.rates(truth.drawn(network), truth.shown(network, True), BOTH)


@pytest.mark.parametrize("name", ["gates", "residual"])
@pytest.mark.parametrize("faults", [STATIC["all"], EVENTS["all"]], ids=["static", "events"])
def test_a_device_has_the_same_bits_alone_and_in_company(name: str, faults: dict[str, float]) -> None:
    network = truth.network(name, truth.HARD)
    parameters, inputs = torch.randn((2, network.parameters), generator=nets.generator(3)), truth.shown(network, False)
    together = SimulatedChip(network, [FaultSpec(1.0, **faults)] * 2, [7, 8]).rates(parameters, inputs, BOTH)
    for b in range(2):
        alone = SimulatedChip(network, [FaultSpec(1.0, **faults)], [7 + b])
        found = alone.rates(parameters[b : b + 1], inputs, BOTH[b : b + 1])
        assert all(torch.equal(x[b : b + 1], y) for x, y in zip(together, found, strict=True))


# Faults


@pytest.mark.parametrize("fault", STATIC)
@pytest.mark.parametrize("name", ["gates", "gates and pools", "mean", "more channels", "residual"])
def test_faulty_neurons_follow_the_plain_loop_spike_for_spike(name: str, fault: str) -> None:
    network = truth.network(name, truth.HARD)
    chip = SimulatedChip(network, [FaultSpec(), FaultSpec(1.0, **STATIC[fault])], [1, 2])
    parameters, inputs = truth.drawn(network), truth.shown(network, False)
    acting = chip.program(parameters[:, None])[1, 0]
    sent, seen = plain(network, acting, inputs[0], chip.device, 1)
    spikes, potentials = watch(chip, parameters, inputs[BOTH], 1)
    assert all(map(torch.equal, spikes, sent))
    torch.testing.assert_close(potentials, seen, atol=1e-5, rtol=0)
    for found in both_ways(chip, parameters, inputs):
        assert torch.equal(found.mean[1], means(sent))
    ideal, _ = plain(network, parameters[1], inputs[0], chip.nominal, 1)
    assert not torch.equal(means(ideal), means(sent))


@pytest.mark.parametrize("family", EVENTS)
@pytest.mark.parametrize("name", ["gates", "more channels", "residual"])
def test_neurons_hear_what_arrives_and_gates_lose_nothing(name: str, family: str) -> None:
    network = truth.network(name, truth.HARD)
    chip = SimulatedChip(network, [FaultSpec(1.0, **EVENTS[family])], [2])
    parameters, inputs = truth.drawn(network, 1), truth.shown(network, False)[:1]
    arriving, potentials = watch(chip, parameters, inputs, 0)
    sent, seen = plain(network, parameters[0], inputs[0], chip.device, 0, arriving)
    torch.testing.assert_close(potentials, seen, atol=1e-5, rtol=0)
    for number, gate in enumerate(network.gates):
        assert torch.equal(arriving[number], sent[number]) == bool(gate)
    counted = [total for total, gate in zip(totals(sent), network.gates, strict=True) if not gate]
    assert chip.meter.spikes.item() == sum(counted), "spikes are counted where they are sent, and of neurons alone"


def test_gates_are_ideal_whatever_the_fault() -> None:
    everything = {
        "drift": 0.1,
        "programming_noise": 0.2,
        "quantisation": 0.5,
        "drop": 0.2,
        "jitter": 0.2,
        "read_noise": 1.0,
    }
    network, spec = truth.network("gates", truth.HARD), FaultSpec(1.0, **STATIC["all"], **everything)
    faulty, ideal = (draw_device(network, [own], [3]).layers for own in (spec, FaultSpec()))
    for number, gate in enumerate(network.gates):
        same = [torch.equal(x, y) for x, y in zip(faulty[number], ideal[number], strict=True)]
        assert all(same) == bool(gate)
        if gate:
            assert faulty[number].threshold.unique().item() == gate == 0.125
            assert not faulty[number].decay.any() and faulty[number].gain.shape == (1, network.shapes[number][0], 0)


def test_all_layers_are_hidden_ones() -> None:
    spec = FaultSpec(1.0, offset=0.3, compression=0.5)
    network, read_out = truth.network("gates", truth.HARD), Network(4, (3,), 2, truth.HARD)
    layers, other = (draw_device(own, [spec], [0]).layers for own in (network, read_out))
    assert [bool(own.offset.any() and own.compression.any()) for own in layers] == [not gate for gate in network.gates]
    assert [bool(own.offset.any()) for own in other] == [True, False]
    assert network.read_out_off_chip and not read_out.read_out_off_chip


def test_synapses_of_tied_weight_share_their_fault() -> None:
    network = truth.network("mean", truth.HARD)
    chip = SimulatedChip(network, [FaultSpec(1.0, gain_mismatch=0.1)], [0])
    own = network.split(chip.program(torch.ones(1, 1, network.parameters))[0, 0])[0][3]
    assert own.shape == (6, 5, 4, 4)
    assert all(len(weight.unique()) == 1 for weight in own.flatten(0, 1)) and len(own.unique()) == 30


# What is counted, and what cannot be


def test_the_meter_by_hand() -> None:
    """Two of four neurons spike, so their gate does, which drives one neuron that spikes."""
    network = feedback_network("1C1-M2-1", 5, (1, 2, 2), 2, truth.HARD)
    parameters = torch.tensor([[2.0, 0.0, 2.0, 0.0]])
    inputs = torch.tensor([[[[1.0, 0.0, 0.0, 1.0, 1.0]]]])
    chip = SimulatedChip(network, [FaultSpec()], [0])
    found = chip.rates(parameters, inputs, ONE)
    assert found.spikes.tolist() == [[2, 1, 1]]
    assert found.operations.item() == 2 + 1
    assert chip.meter.spikes.item() == 3, "a gate is no neuron"
    assert chip.meter.synaptic_operations.item() == 2 + 1 + (4 + 1), "and has no bias"
    assert chip.meter.input_operations.item() == 2
    session = SimulatedChip(network, [FaultSpec()], [0])
    session.run(parameters, inputs, ONE)
    assert session.meter == chip.meter


def test_wires_are_counted_as_a_synapse_each() -> None:
    network = feedback_network("1C1-1C1-1C1+", 5, (1, 2, 2), 2, truth.HARD)
    chip, parameters = SimulatedChip(network, [FaultSpec()], [0]), torch.tensor([[2.0, 0.0, 0.0, 0.0, 0.0, 0.5]])
    found = chip.rates(parameters, torch.tensor([[[[1.0, 0.0, 0.0, 1.0, 1.0]]]]), ONE)
    assert found.spikes.tolist() == [[2, 0, 2]], "a wire's 1 and a bias of 1/2 are above the threshold"
    assert found.operations.item() == 2 * 2
    assert chip.meter.synaptic_operations.item() == 2 * 2 + 3 * 4


@pytest.mark.parametrize(("name", "neuron"), [("no feedback", truth.HARD), ("wire", truth.HARD), ("gates", truth.IF)])
def test_there_is_no_second_stage_of_hard_resets_and_gates(
    name: str, neuron: LIFParameters | SoftResetParameters
) -> None:
    network = truth.network(name, neuron)
    chip, own = SimulatedChip(network, [FaultSpec()] * 2, [0, 1]), truth.second_stage(network)
    with pytest.raises(TypeError, match="only networks of neurons with reset by subtraction alone have a second stage"):
        chip.differentiate(truth.drawn(network), *own, CoupleParameters(), truth.STEPS)
    with pytest.raises(TypeError, match="no output counts"):
        chip.evaluate(truth.drawn(network)[:, None], truth.shown(network, True), BOTH)
