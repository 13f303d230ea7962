"""Feedback networks on ideal devices: the compiled kernels, the session, and the equations that both are held to."""

from __future__ import annotations

import feedback_truth as truth
import nets
import numpy as np
import pytest
import torch

from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec
from spikebench.chip.feedback_session import FeedbackSession, rates_by_steps
from spikebench.chip.protocol import Rates
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import is_constant
from spikebench.layered_networks import LayeredNetwork
from spikebench.networks import Network
from spikebench.neurons import CoupleParameters, SoftResetParameters

ONE, BOTH = torch.tensor([0]), torch.tensor([1, 0])
NEURONS = {"IF": truth.IF, "plain reset": SoftResetParameters(2.0, 0.0), "LIF": truth.LIF}
EVENTS = FaultSpec(0.5, gain_mismatch=0.3, programming_noise=0.1, drop=0.3, jitter=0.3)
STATIC = FaultSpec(1.0, gain_mismatch=0.3, threshold=0.3, offset=0.2, compression=0.5, dead=0.1, saturated=0.1)


def chip_of(network: LayeredNetwork, devices: int = 2) -> SimulatedChip:
    return SimulatedChip(network, [FaultSpec()] * devices, range(devices))


def by_session(
    chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor, masks: torch.Tensor | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Spikes and potentials [B, N, T, neurons] of each layer, of inputs [B, N, T, I]."""
    session = FeedbackSession(chip, parameters, inputs.shape[1], masks)
    seen = [session.advance(inputs[:, :, t]) for t in range(inputs.shape[2])]
    return tuple(
        [torch.stack(layer, dim=2).numpy() for layer in zip(*(getattr(o, what) for o in seen), strict=True)]
        for what in ("spikes", "potentials")
    )  # type: ignore[return-value]


# Average rates


@pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("name", truth.ARCHITECTURES)
def test_rates_and_sessions_are_the_equations_spike_for_spike(
    name: str, neuron: str, constant: bool, masked: bool
) -> None:
    network = truth.network(name, NEURONS[neuron])
    chip, inputs, parameters = chip_of(network), truth.shown(network, constant), truth.drawn(network)
    masks, leak = truth.scales(network) if masked else None, network.nominal.leak
    assert is_constant(inputs) == constant
    found = chip.rates(parameters, inputs, BOTH, masks)
    by_steps = rates_by_steps(chip, parameters, inputs, BOTH, masks)
    spikes, potentials = by_session(chip, parameters, inputs[BOTH], masks)
    for b in range(2):
        expected = truth.present(network, parameters[b], inputs[BOTH[b]], None if masks is None else masks[b])
        assert truth.same(found, expected, b, leak) and truth.same(by_steps, expected, b, leak)
        for layer, own in enumerate(expected.spikes):
            assert np.array_equal(spikes[layer][b], own)
            assert np.array_equal(potentials[layer][b], expected.potentials[layer])
            assert 0.02 < own.mean() < 0.98
        if name not in truth.POOLS:
            assert found.operations[b] == expected.operations > 0
            assert found.input_operations[b] == expected.input_operations > 0


@pytest.mark.parametrize("name", truth.POOLS)
def test_a_spike_to_a_pool_is_one_operation(name: str) -> None:
    network = truth.network(name)
    inputs, parameters = truth.shown(network, True), truth.drawn(network)
    found = chip_of(network).rates(parameters, inputs, BOTH)
    for b in range(2):
        expected = truth.present(network, parameters[b], inputs[BOTH[b]])
        assert found.operations[b] == expected.operations
        assert found.input_operations[b] == expected.input_operations


def test_feedback_arrives_one_step_late_and_layers_in_the_same_step() -> None:
    """A neuron of the first layer with a bias of 1/2 reaches the threshold in the second step."""
    network = feedback_network("2-1 (F2)", 2, (), 2, truth.IF)
    # Of the first layer: from the input, from the feedback, bias.
    parameters = torch.tensor([[0.0, 0.0, 0.5, 0.0, 0.25, 0.0, 2.0, 0.0, 0.0]])
    spikes, potentials = by_session(chip_of(network, 1), parameters, torch.zeros(1, 1, 6, 2))
    assert spikes[0][0, 0].T.tolist() == [[0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]]
    assert spikes[1][0, 0].T.tolist() == [[0, 1, 0, 0, 0, 1]]
    assert potentials[0][0, 0, :, 1].tolist() == [0, 0, 0.25, 0.25, 0.25, 0.25]
    found = chip_of(network, 1).rates(parameters, torch.zeros(1, 1, 6, 2), ONE)
    assert found.mean[0, 0].tolist() == pytest.approx([1 / 3, 0, 1 / 3])
    assert found.spikes.tolist() == [[2, 2]]
    # The last spike's feedback would come after the end.
    assert found.operations.tolist() == [2 * 1 + 1 * 2]


def test_rates_weigh_late_spikes_more_as_a_membrane_does() -> None:
    """A single spike in the second of four steps: lambda^2 / (1 + lambda + lambda^2 + lambda^3)."""
    network = feedback_network("1", 2, (), 2, truth.LIF)
    inputs = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(1, 1, 4, 1) * torch.tensor([1.0, 0.0])
    chip, parameters = chip_of(network, 1), torch.tensor([[1.0, 0.0]])
    for found in (chip.rates(parameters, inputs, ONE), rates_by_steps(chip, parameters, inputs, ONE, None)):
        assert found.mean.item() == pytest.approx(0.25 / 1.875, rel=1e-6)


def test_rates_come_to_the_equilibrium_of_the_paper() -> None:
    """a^1 = sigma((W_fb a^N + F x + b) / kappa), a^l = sigma((W^l a^(l-1) + b^l) / kappa)."""
    network = truth.network("twice the side")
    parameters, inputs = truth.drawn(network, 1) / 4, truth.shown(network, True, steps=4000)
    own, biases = network.split(parameters[0])
    first, second, back = (truth.matrix(*pair) for pair in zip(network.links, own, strict=True))
    base, top = (b.numpy().repeat(n) for b, n in zip(biases, network.positions, strict=True))
    x, a = inputs[0, :, 0, :-1].numpy(), np.zeros((truth.SAMPLES, network.widths[1]))
    for _ in range(200):
        lower = ((a @ back.T + x @ first.T + base) / 2).clip(0, 1)
        a = ((lower @ second.T + top) / 2).clip(0, 1)
    found = chip_of(network, 1).rates(parameters, inputs[:1], ONE).mean[0].numpy()
    np.testing.assert_allclose(found, np.concatenate([lower, a], axis=1), atol=0.005)
    assert (a.std() > 0.1) and (lower.std() > 0.1) and (np.abs(a @ back.T).mean() > 0.1)


def test_the_datas_constant_line_is_not_connected() -> None:
    network = truth.network("one layer")
    inputs, parameters = truth.shown(network, False), truth.drawn(network)
    other = inputs.clone()
    other[..., -1] = 7.0
    first, second = (chip_of(network).rates(parameters, x, BOTH) for x in (inputs, other))
    assert all(map(torch.equal, first, second))


def test_weights_are_programmed_between_steps() -> None:
    network = truth.network("twice the side")
    parameters, inputs = truth.drawn(network), truth.shown(network, False)[BOTH]
    session = chip_of(network).session(parameters, truth.SAMPLES)
    before, _ = by_session(chip_of(network), parameters, inputs)
    for t in range(4):
        assert torch.equal(
            torch.cat(session.advance(inputs[:, :, t]).spikes, -1),
            torch.from_numpy(np.concatenate(before, -1)[:, :, t]),
        )
    session.program(torch.zeros_like(parameters))
    seen = [session.advance(inputs[:, :, t]).potentials[1] for t in range(4, 8)]
    assert torch.equal(seen[1], seen[0] - 2 * (seen[0] >= 1)), "no current, the old potential"
    assert seen[0].any()


# Beside others, what is not there, and what is counted


@pytest.mark.parametrize("spec", [STATIC, EVENTS], ids=["static", "events"])
@pytest.mark.parametrize("name", ["the paper's", "no feedback", "dense last", "one layer"])
def test_a_device_has_the_same_bits_alone_and_in_company(name: str, spec: FaultSpec) -> None:
    network = truth.network(name, SoftResetParameters(leak=0.9))
    parameters = torch.randn((3, network.parameters), generator=nets.generator(3)) / 2
    inputs = torch.randn((2, truth.SAMPLES, truth.STEPS, network.inputs), generator=nets.generator(4))
    masks, (current, factors), index = truth.scales(network, 3), truth.second_stage(network, 3), torch.tensor([1, 0, 1])
    specs = [spec, STATIC if spec.drop == 0 else EVENTS, spec]

    def both(chosen: slice) -> list[Rates]:
        chip, some = SimulatedChip(network, specs[chosen], [7, 8, 9][chosen]), parameters[chosen]
        return [
            chip.rates(some, inputs, index[chosen], masks[chosen]),
            chip.differentiate(some, current[chosen], factors[chosen], CoupleParameters(leak=0.9), truth.STEPS),
        ]

    together = both(slice(3))
    for b in range(3):
        for whole, alone in zip(together, both(slice(b, b + 1)), strict=True):
            assert all(torch.equal(x[b : b + 1], y) for x, y in zip(whole, alone, strict=True))
            assert whole.mean[b].std() > 0.1


def test_a_run_gives_the_spikes_of_a_session() -> None:
    network = truth.network("dense last")
    parameters, inputs = truth.drawn(network), truth.shown(network, False)
    expected, _ = by_session(chip_of(network), parameters, inputs[BOTH])
    for own, layer in zip(chip_of(network).run(parameters, inputs, BOTH), expected, strict=True):
        assert own.dtype == torch.bool and np.array_equal(own.numpy(), layer)


def test_what_a_feedback_network_cannot_do() -> None:
    network = truth.network("dense")
    chip, parameters, inputs = chip_of(network), truth.drawn(network), truth.shown(network, True)
    with pytest.raises(TypeError, match="this layered network has no output counts"):
        chip.evaluate(parameters[:, None], inputs, BOTH)
    with pytest.raises(TypeError, match="cannot be clamped"):
        chip.session(parameters, truth.SAMPLES).advance(inputs[:, :, 0], torch.zeros(2, truth.SAMPLES, 3))
    with pytest.raises(TypeError, match="GLM"):
        chip.likelihood(parameters, inputs, BOTH, torch.zeros(2, truth.SAMPLES, truth.STEPS, 3), 1)


def test_only_layered_networks_have_rates() -> None:
    network = Network(3, (2,), 2)
    chip, parameters = SimulatedChip(network, [FaultSpec()], [0]), torch.zeros(1, network.parameters)
    with pytest.raises(TypeError, match="only a LayeredNetwork has average rates"):
        chip.rates(parameters, torch.zeros(1, 1, 2, 3), ONE)
    with pytest.raises(TypeError, match="only a LayeredNetwork has average rates"):
        chip.differentiate(parameters, torch.zeros(1, 1, 2), torch.zeros(1, 1, 6), CoupleParameters(), 2)


@pytest.mark.parametrize("binary", [True, False])
def test_the_meter_by_hand(binary: bool) -> None:
    """A picture of 2 x 2, all of which every kernel of 3 x 3 sees, and one dense neuron that drives all four."""
    network = feedback_network("1C3-1 (F1)", 5, (1, 2, 2), 2, truth.IF)
    parameters = torch.zeros(1, network.parameters)
    first, second = network.unpack(parameters)
    first[0, 0, 4], second[0, 0, -1] = 1.0, 0.5  # the kernel's middle; the second neuron spikes in its second step
    inputs = torch.tensor([[[1.0, 0.0, 0.5, 0.0, 1.0], [0.5, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0]]])[None]
    chip = SimulatedChip(network, [FaultSpec()], [0], binary_inputs=binary)
    found = chip.rates(parameters, inputs, ONE)
    assert found.spikes.tolist() == [[1, 1]]
    assert (found.operations.item(), found.input_operations.item()) == (1 * 1 + 1 * 4, 3 * 4)
    assert chip.meter.presentations.item() == 1
    assert chip.meter.spikes.item() == 2
    biases = 3 * 5
    assert chip.meter.synaptic_operations.item() == 5 + biases + (12 if binary else 0)
    assert chip.meter.input_operations.item() == (0 if binary else 12)
    session = SimulatedChip(network, [FaultSpec()], [0], binary_inputs=binary)
    session.run(parameters, inputs, ONE)
    assert session.meter == chip.meter


def test_only_presentations_are_counted_where_activity_is_not() -> None:
    network = truth.network("dense")
    for lossless in (True, False):
        chip = chip_of(network)
        chip.count_activity, chip.lossless = False, lossless
        chip.rates(truth.drawn(network), truth.shown(network, True), BOTH)
        chip.run(truth.drawn(network), truth.shown(network, True), BOTH)
        assert chip.meter.presentations.tolist() == [2 * truth.SAMPLES] * 2
        assert not (
            chip.meter.spikes.any() or chip.meter.synaptic_operations.any() or chip.meter.input_operations.any()
        )
