"""Convolutional SRM networks on simulated devices: every position is the same faulty neuron with the same synapses."""

from __future__ import annotations

import itertools

import nets
import pytest
import torch

from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.networks import Convolution, Network
from spikebench.neurons import SRMParameters

ONE = torch.tensor([0])
LAYERS = (Convolution(3, 3, 2), Convolution(4, 1, 1), Convolution(2, 3, 1))
NETWORK = Network(41, (), 3, nets.SRM, convolutions=LAYERS, picture=(2, 4, 5))
#: Of whole neurons: after exact sums, all that follows is the same arithmetic for each of them.
NEURONS = FaultSpec(1.0, threshold=0.5, time_constant=0.5, offset=0.3, compression=0.7, dead=0.2, saturated=0.2)
SYNAPSES = FaultSpec(1.0, gain_mismatch=0.3, stuck_at=0.3, flip=0.3, drift=0.02, quantisation=0.5)
EVENTS = FaultSpec(1.0, drop=0.3, jitter=0.3, threshold=0.5)


def shown(network: Network, samples: int = 5, splits: int = 1) -> torch.Tensor:
    """Random spikes [R, N, T, I]."""
    generator = nets.generator(4)
    return (torch.rand((splits, samples, nets.SRM_STEPS, network.inputs), generator=generator) < 0.3).float()


def by_traces(parameters: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Pooled spikes [N, T, O x squares] a layer of the ideal device: filtered lines, loops over positions, double."""
    alpha, beta, alpha_r, theta = NETWORK.neuron
    samples, signal, spikes = len(inputs), inputs[..., :-1].double(), []
    for layer, weights in enumerate(NETWORK.unpack(parameters.double())):
        (channels, k, side), shape = LAYERS[layer], NETWORK.maps[layer]
        _, height, width = shape
        kernels, biases = weights[:, :-1].reshape(channels, -1, k, k), weights[:, -1]
        q = p = torch.zeros(samples, *shape, dtype=torch.float64)
        r = s = torch.zeros(samples, channels, height, width, dtype=torch.float64)
        train = []
        for t in range(inputs.shape[1]):
            p, q = alpha * p + q, beta * q + signal[:, t].view(samples, *shape)
            r, s = alpha_r * r + s, torch.zeros_like(s)
            for y, x in itertools.product(range(height), range(width)):
                total = biases.repeat(samples, 1)
                for i, j in itertools.product(range(k), range(k)):
                    v, h = y + i - k // 2, x + j - k // 2
                    if 0 <= v < height and 0 <= h < width:
                        total = total + p[:, :, v, h] @ kernels[:, :, i, j].T
                s[:, :, y, x] = (total / (k * k * shape[0]) ** 0.5 - r[:, :, y, x] >= theta).double()
            sent = torch.zeros(samples, *NETWORK.maps[layer + 1])
            for y, x in itertools.product(range(height // side), range(width // side)):
                sent[:, :, y, x] = s[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side].amax(dim=(2, 3))
            train.append(sent.flatten(1))
        signal = torch.stack(train, dim=1).double()
        spikes.append(signal)
    return spikes


def step_by_step(chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
    session = chip.session(parameters, inputs.shape[1])
    steps = [session.advance(inputs[[0] * chip.devices, :, t]).spikes for t in range(inputs.shape[2])]
    return [torch.stack(layer, dim=2) for layer in zip(*steps, strict=True)]


def test_the_ideal_chip_is_the_loop_over_positions_spike_for_spike() -> None:
    inputs, index = shown(NETWORK, splits=2), torch.tensor([1, 0])
    parameters = nets.weights(NETWORK, nets.generator(1), 2)
    chip = SimulatedChip(NETWORK, [FaultSpec()] * 2, [0, 1])
    spikes = chip.run(parameters, inputs, index)
    assert [tuple(layer.shape) for layer in spikes] == [(2, 5, nets.SRM_STEPS, n) for n in (12, 16, 8)]
    for b in range(2):
        for own, expected in zip(spikes, by_traces(parameters[b], inputs[index[b]]), strict=True):
            assert own.dtype == torch.bool
            assert torch.equal(own[b].double(), expected)
            assert 0.1 < own[b].float().mean() < 0.9


@pytest.mark.parametrize("faults", [NEURONS, EVENTS, FaultSpec()], ids=["neurons", "events", "none"])
def test_one_pixel_without_biases_is_a_dense_chip(faults: FaultSpec) -> None:
    dense = nets.srm((16, 3))
    layers = (Convolution(16, 1, 1), Convolution(3, 1, 1))
    own = Network(5, (), 2, nets.SRM, convolutions=layers, picture=(4, 1, 1))
    parameters, inputs = nets.weights(dense, nets.generator(2), 2), shown(dense, 30)
    wide = torch.cat([torch.nn.functional.pad(w, (0, 1)).flatten(1) for w in dense.unpack(parameters)], dim=1)
    chips = [SimulatedChip(network, [faults] * 2, [3, 4], binary_inputs=True) for network in (dense, own)]
    a, b = (step_by_step(chip, p, inputs) for chip, p in zip(chips, (parameters, wide), strict=True))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)
        assert 0.05 < x.mean() < 0.95
    assert torch.equal(chips[0].meter.spikes, chips[1].meter.spikes)


def test_neurons_of_a_channel_share_their_deviations_and_their_biases() -> None:
    """Kernels of one pixel before a picture are those before each pixel alone."""
    layers = (Convolution(16, 1, 1), Convolution(5, 1, 1))
    whole = Network(25, (), 2, nets.SRM, convolutions=layers, picture=(4, 2, 3))
    pixel = Network(5, (), 2, nets.SRM, convolutions=layers, picture=(4, 1, 1))
    parameters, inputs = nets.weights(whole, nets.generator(2), 2), shown(whole)
    pixels = inputs[..., :-1].unflatten(3, (4, 6)).permute(0, 1, 4, 2, 3).flatten(1, 2)
    alone = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    a = SimulatedChip(whole, [NEURONS] * 2, [3, 4]).run(parameters, inputs, torch.zeros(2, dtype=torch.long))
    b = SimulatedChip(pixel, [NEURONS] * 2, [3, 4]).run(parameters, alone, torch.zeros(2, dtype=torch.long))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.unflatten(3, (-1, 6)).permute(0, 1, 4, 2, 3).flatten(1, 2), y)


def test_a_fault_of_a_synapse_is_one_of_a_kernels_weight() -> None:
    chip = SimulatedChip(NETWORK, [SYNAPSES], [5])
    for layer, shape in zip(chip.device.layers, NETWORK.shapes, strict=True):
        assert layer.gain.shape == layer.stuck.shape == (1, *shape)
    parameters, inputs = nets.weights(NETWORK, nets.generator(6), 1), shown(NETWORK)
    acting = chip.program(parameters[:, None])[:, 0]
    assert not torch.equal(acting, parameters)
    faulty, ideal = chip.run(parameters, inputs, ONE), chip.ideal(1).run(acting, inputs, ONE)
    for a, b, healthy in zip(faulty, ideal, chip.ideal(1).run(parameters, inputs, ONE), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, healthy)


def test_what_is_lost_are_the_spikes_of_squares() -> None:
    chip = SimulatedChip(NETWORK, [FaultSpec(1.0, drop=1.0)], [0])
    parameters, inputs = nets.weights(NETWORK, nets.generator(1), 1), shown(NETWORK)
    assert not any(layer.any() for layer in chip.run(parameters, inputs, ONE))
    assert chip.meter.spikes.item() > 0, "they are sent"


@pytest.mark.parametrize("faults", [NEURONS, SYNAPSES, EVENTS, FaultSpec(1.0, programming_noise=0.3)])
def test_a_device_does_not_depend_on_what_is_beside_it(faults: FaultSpec) -> None:
    network = Network(41, (), 3, SRMParameters(), convolutions=LAYERS, picture=(2, 4, 5))
    parameters, inputs = torch.randn((3, network.parameters), generator=nets.generator(7)), shown(network)
    together = SimulatedChip(network, [NEURONS, EVENTS, faults], [1, 2, 3])
    alone = SimulatedChip(network, [faults], [3])
    for _ in range(2):
        spikes = together.run(parameters, inputs, torch.zeros(3, dtype=torch.long))
        for a, b in zip(spikes, alone.run(parameters[2:], inputs, ONE), strict=True):
            assert torch.equal(a[2:], b)


def test_the_meter_by_hand() -> None:
    """A picture of 2 x 2; one channel that looks 3 x 3 around itself, pooled to one line; then two channels."""
    layers = (Convolution(1, 3, 2), Convolution(2, 1, 1))
    network = Network(5, (), 2, SRMParameters(0.5, 0.5, 0.0), convolutions=layers, picture=(1, 2, 2))
    inputs = torch.tensor([[[[0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0]]]])
    # The middle of the kernel is 1, its bias -1: a neuron spikes in the third step where there was a spike in the
    # second, u = (1 - 1) / 3. Biases of -1 and 1 of the second layer: one neuron is silent, the other spikes at each
    # step, for with alpha_r = 0 its u is 1 - 1 after a spike.
    kernel = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0])
    parameters = torch.cat([kernel, torch.tensor([0.0, -1.0, 0.0, 1.0])])[None]
    chip = SimulatedChip(network, [FaultSpec()], [0], binary_inputs=True)
    first, second = chip.run(parameters, inputs, ONE)
    assert first[0, 0].tolist() == [[False], [False], [True]]
    assert second[0, 0].tolist() == [[False, True]] * 3
    assert chip.meter.presentations.item() == 1
    assert chip.meter.spikes.item() == 2 + 3  # both neurons of the square count
    # Two inputs to nine weights each, the borders ignored; the square's one spike to two neurons; in three steps the
    # biases of 4 + 2 neurons.
    assert chip.meter.synaptic_operations.item() == 2 * 9 + 1 * 2 + 3 * 6
