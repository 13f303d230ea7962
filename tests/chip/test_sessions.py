"""What a session lets a method do (clamping, reprogramming), and what the meter counts."""

from __future__ import annotations

import nets
import pytest
import torch

from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.networks import Network
from spikebench.neurons import LIFParameters

ONE = torch.tensor([0])
#: Two lines, one hidden neuron, two outputs of which the second is unconnected.
TINY = Network(2, (1,), 2, LIFParameters(0.5, 1.0))
#: hidden (x1, x2), output 1 (hidden, always on), output 2 (hidden, always on)
WEIGHTS = torch.tensor([[1.0, 0.5, 1.5, -0.25, 0.0, 0.0]])
#: Two samples: a current of 1, which makes the hidden neuron spike at the second of three steps, and one of 0.5.
SHOWN = torch.tensor([[[[0.5, 1.0]], [[0.0, 1.0]]]])


def show(chip: SimulatedChip, way: str, shown: torch.Tensor) -> list[torch.Tensor]:
    """Present once, by the way that is named; spikes [B, N, T, neurons] a layer, or counts."""
    index = torch.zeros(chip.devices, dtype=torch.long)
    parameters = WEIGHTS.expand(chip.devices, -1)
    if way == "evaluate":
        return [chip.evaluate(parameters[:, None], shown, index)[:, 0]]
    if way == "run":
        return [layer.sum(dim=2) for layer in chip.run(parameters, shown, index)]
    session = chip.session(parameters, shown.shape[1])
    steps = [session.advance(shown[index, :, t]).spikes for t in range(shown.shape[2])]
    return [torch.stack(layer, dim=2).sum(dim=2) for layer in zip(*steps, strict=True)]


@pytest.mark.parametrize("stored_once", [True, False])
@pytest.mark.parametrize("way", ["evaluate", "run", "session"])
def test_the_meter_by_hand(way: str, stored_once: bool) -> None:
    shown = SHOWN.expand(-1, -1, 3, -1)
    shown = shown if stored_once else shown.contiguous()
    analogue = SimulatedChip(TINY, [FaultSpec()], [0])
    counts = show(analogue, way, shown)
    # Hidden potentials of sample 1: 1, 1.5 (spike), 1; of sample 2: .5, .75, .875. Output 1: -.25, 1.125 (spike), -.25.
    assert counts[-1].tolist() == [[[1, 0], [0, 0]]]
    assert analogue.meter.presentations.tolist() == [2]
    assert analogue.meter.spikes.tolist() == [2]
    # One hidden spike to two outputs, and the always-on line of two outputs over two samples and three steps.
    assert analogue.meter.synaptic_operations.tolist() == [2 + 12]
    # Non-zero inputs to one hidden neuron: two lines and one line, three steps each.
    assert analogue.meter.input_operations.tolist() == [9]

    spiking = SimulatedChip(TINY, [FaultSpec()], [0], binary_inputs=True)
    show(spiking, way, shown)
    assert spiking.meter.synaptic_operations.tolist() == [2 + 12 + 9]
    assert spiking.meter.input_operations.tolist() == [0]


def test_every_candidate_and_every_use_is_metered() -> None:
    chip = SimulatedChip(TINY, [FaultSpec()] * 2, [0, 1])
    shown = SHOWN.expand(-1, -1, 3, -1)
    chip.evaluate(WEIGHTS.expand(2, 3, -1), shown, torch.zeros(2, dtype=torch.long))
    show(chip, "run", shown)
    show(chip, "session", shown)
    for name, once in (("presentations", 2), ("spikes", 2), ("synaptic_operations", 14), ("input_operations", 9)):
        assert getattr(chip.meter, name).tolist() == [5 * once] * 2, name


@pytest.mark.parametrize("samples", [1, 63, 65])
def test_the_samples_that_fill_up_a_tile_are_not_metered(samples: int) -> None:
    chip = SimulatedChip(TINY, [FaultSpec(1.0, saturated=1.0)], [0])
    chip.evaluate(WEIGHTS[None], SHOWN[:, :1].expand(-1, samples, 5, -1), ONE)
    assert chip.meter.spikes.tolist() == [3 * 5 * samples]


def test_a_clamped_output_replaces_the_spike_and_resets_like_one() -> None:
    network = Network(1, (), 1, LIFParameters(0.5, 1.0))
    chip = SimulatedChip(network, [FaultSpec()], [0])
    one = torch.ones(1, 1, 1)
    free = chip.session(torch.tensor([[0.75]]), 1)
    assert [free.advance(one).spikes[0].item() for _ in range(4)] == [0, 1, 0, 1]
    clamped = chip.session(torch.tensor([[0.75]]), 1)
    seen = [clamped.advance(one, clamp=torch.full((1, 1, 1), target)) for target in (1.0, 0.0, 0.0, 1.0)]
    assert [o.spikes[0].item() for o in seen] == [1, 0, 0, 1]
    # Reset by the clamped spike, then none although the potential passes the threshold.
    assert [o.potentials[0].item() for o in seen] == [0.75, 0.75, 1.125, 1.3125]
    assert chip.meter.spikes.item() == 2 + 2


def test_only_the_outputs_are_clamped_and_the_hidden_layer_does_not_see_it() -> None:
    network = Network(3, (4,), 2, LIFParameters(0.5, 1.0))
    generator = nets.generator()
    chip = SimulatedChip(network, [FaultSpec()], [0])
    parameters, shown = nets.weights(network, generator, 1), nets.inputs(network, generator, 20, 6, False)
    free, clamped = chip.session(parameters, 20), chip.session(parameters, 20)
    for t in range(6):
        target = torch.randint(0, 2, (1, 20, 2), generator=generator).float()
        a, b = free.advance(shown[None, :, t]), clamped.advance(shown[None, :, t], clamp=target)
        assert torch.equal(a.spikes[0], b.spikes[0])
        assert torch.equal(b.spikes[1], target)


def test_new_weights_act_from_the_next_step_and_the_states_stay() -> None:
    network = Network(1, (), 1, LIFParameters(0.5, 1.0))
    chip = SimulatedChip(network, [FaultSpec(1.0, quantisation=1.0)], [0])  # one bit: weights are -2 or 2
    session = chip.session(torch.tensor([[-0.5]]), 1)
    half = torch.full((1, 1, 1), 0.5)
    assert session.advance(half).potentials[0].item() == -1.0
    session.program(torch.tensor([[0.25]]))
    assert session.advance(half).potentials[0].item() == -0.5 + 1.0


def test_sessions_do_not_share_states() -> None:
    chip = SimulatedChip(TINY, [FaultSpec()], [0])
    first, second = chip.session(WEIGHTS, 1), chip.session(WEIGHTS, 1)
    x = torch.tensor([[[0.5, 0.0]]])
    assert first.advance(x).potentials[0].item() == 0.5
    assert first.advance(x).potentials[0].item() == 0.75
    assert second.advance(x).potentials[0].item() == 0.5


def test_a_session_takes_devices_with_inputs_of_their_own() -> None:
    chip = SimulatedChip(TINY, [FaultSpec()] * 2, [0, 1])
    session = chip.session(WEIGHTS.expand(2, -1), 1)
    seen = session.advance(torch.tensor([[[0.5, 0.0]], [[0.25, 0.5]]]))
    assert seen.potentials[0].flatten().tolist() == [0.5, 0.5]
    seen = session.advance(torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]))
    assert seen.potentials[0].flatten().tolist() == [1.25, 0.25]
    assert seen.spikes[0].flatten().tolist() == [1, 0]
