"""Feedback networks from their equations: explicit matrices, loops over layers and steps, double precision."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import nets
import numpy as np
import torch

from spikebench.architectures import feedback_network
from spikebench.chip.faults import Device
from spikebench.chip.protocol import Rates
from spikebench.layered_networks import LayeredNetwork, Link
from spikebench.neurons import CoupleParameters, LIFParameters, SoftResetParameters

#: Steps are a power of two, by which means are exact.
SAMPLES, STEPS = 4, 8
IF = SoftResetParameters()
LIF = SoftResetParameters(leak=0.5)
#: LIF neurons whose reset is to 0.
HARD = LIFParameters(0.5, 1.0)
#: What is connected how: strides, borders and sides that differ, one layer and many, all kinds of layers.
ARCHITECTURES = {
    "twice the side": ("4C3s-3C3s (F4C3u)", (2, 10, 10)),
    "the paper's": ("3C5s-4C5s-2C5 (F3C3u)", (1, 11, 11)),
    "no feedback": ("3C5-P2-4C3-6", (2, 7, 7)),
    "pool first": ("P2-4C3-5", (3, 7, 7)),
    "pool last": ("5C3-P2 (F5C3u)", (1, 6, 6)),
    "dense": ("5-4 (F5)", (2, 2, 2)),
    "one dense layer": ("5 (F5)", (2, 2, 2)),
    "dense last": ("4C5s-3C3s-6 (F4)", (2, 7, 7)),
    "one layer": ("4C3 (F4C3)", (2, 5, 5)),
}
#: With gates, of which borders are left over, and with means.
GATES = {
    "gates": ("4C3-M2-6C3-M2-5", (2, 9, 9)),
    "gates last": ("4C3s-6C3-M2", (2, 7, 7)),
    "gates and pools": ("4C5-P2-5C3-M2-6", (1, 12, 12)),
    "mean": ("4C3-M2-5C3-A6", (2, 9, 9)),
    "mean of a pixel": ("4C3s-M2-A6-3", (2, 4, 4)),
}
#: With shortcuts: wires, to more channels, with a stride before or at their end, from gates, and one upon the other.
SHORTCUTS = {
    "wire": ("3C3-3C3-3C3+", (2, 5, 5)),
    "more channels": ("3C3-4C3-5C3+-6", (2, 5, 5)),
    "stride at the end": ("3C3-4C3-4C3s+-A3", (2, 7, 7)),
    "residual": ("3C3-3C3-3C3+-5C3s-5C3+-M2-5C3-5C3+-4C3-5C3+-A4", (2, 8, 8)),
}
#: Some of them.
POOLS = ["no feedback", "pool first", "pool last"]


def network(name: str, neuron: SoftResetParameters | LIFParameters = IF) -> LayeredNetwork:
    """One of ``ARCHITECTURES``, ``GATES`` and ``SHORTCUTS``."""
    architecture, picture = (ARCHITECTURES | GATES | SHORTCUTS)[name]
    return feedback_network(architecture, 1 + int(np.prod(picture)), picture, 3, neuron)


def shown(net: LayeredNetwork, constant: bool, steps: int = STEPS) -> torch.Tensor:
    """Dyadic inputs of two splits, [2, N, T, I]."""
    return nets.inputs(net, nets.generator(9), 2 * SAMPLES, steps, constant).unflatten(0, (2, SAMPLES))


def drawn(net: LayeredNetwork, devices: int = 2) -> torch.Tensor:
    """Dyadic parameters [B, P] with biases by which every layer spikes."""
    parameters = 2 * nets.weights(net, nets.generator(1), devices)
    for layer, (_, inputs) in zip(net.unpack(parameters), net.shapes, strict=True):
        if inputs:
            layer[..., -1] = 0.5
    return parameters


def scales(net: LayeredNetwork, devices: int = 2, seed: int = 5) -> torch.Tensor:
    """Masks or factors [B, N, M + H] of 0, 1 and 2."""
    shape = (devices, SAMPLES, sum(net.widths) + net.widths[0])
    return torch.randint(0, 3, shape, generator=nets.generator(seed)).float()


def second_stage(net: LayeredNetwork, devices: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """A dyadic current into the last layer, and factors."""
    current = nets.dyadic((devices, SAMPLES, net.widths[-1]), nets.generator(6), 1 / 16)
    return current, scales(net, devices, seed=7)


def matrix(link: Link, weights: torch.Tensor | np.ndarray) -> np.ndarray:
    """[neurons of the target, neurons of the source], weight by weight as ``Link`` says where they are."""
    weights, (coarse, height_c, width_c), (fine, height, width) = np.asarray(weights, float), link.coarse, link.fine
    joined = np.zeros((coarse, height_c, width_c, fine, height, width))
    for y, x, i, j in itertools.product(*map(range, (height_c, width_c, link.kernel, link.kernel))):
        row, column = link.stride * y - link.padding + i, link.stride * x - link.padding + j
        if 0 <= row < height and 0 <= column < width:
            joined[:, y, x, :, row, column] = weights[:, :, i, j]
    flat = joined.reshape(coarse * height_c * width_c, -1)
    return flat if link.upwards else flat.T


def synapses(link: Link) -> np.ndarray:
    """As ``matrix``, 1 where there is one: a pool has none between channels."""
    there = np.eye(link.fine[0])[..., None, None] if link.pool else 1.0
    return matrix(link, np.ones(link.weights) * there)


class Neurons(NamedTuple):
    """Of one layer, a value a neuron: threshold, what a spike takes off, leak, offset, compression, and fates."""

    threshold: np.ndarray
    taken: np.ndarray
    leak: np.ndarray
    offset: np.ndarray
    kappa: float
    dead: np.ndarray
    saturated: np.ndarray

    def distorted(self, current: np.ndarray) -> np.ndarray:
        """I -> tanh(kappa I) / kappa, then the offset."""
        return (np.tanh(self.kappa * current) / self.kappa if self.kappa else current) + self.offset


def neurons(
    net: LayeredNetwork, device: Device | None = None, couple: CoupleParameters | None = None, b: int = 0
) -> list[Neurons]:
    """Each layer's neurons, or their couples, on the b-th of these devices, or without deviations."""
    threshold, rest, leak = couple or net.neuron
    layers = []
    for number, (width, places) in enumerate(zip(net.widths, net.positions, strict=True)):
        one, none = np.ones(width), np.zeros(width)
        if device is None:
            layers.append(Neurons(one * threshold, one * (threshold - rest), one * leak, none, 0.0, none, none))
            continue
        own = device.layers[number]
        bounds, decay, offset, dead, saturated = (
            x[b].numpy().astype(float).repeat(places)
            for x in (own.threshold, own.decay, own.offset, own.silent, own.saturated)
        )
        bounds = bounds / net.neuron.threshold * threshold
        decay = decay if leak < 1 else one
        layers.append(Neurons(bounds, bounds - rest, decay, offset, own.compression[b].item(), dead, saturated))
    return layers


class Trains(NamedTuple):
    """What happens: spikes [N, T, neurons] and potentials before the reset of each layer, and what it costs."""

    spikes: list[np.ndarray]
    potentials: list[np.ndarray]
    operations: float
    input_operations: float

    def mean(self, leak: float = 1.0) -> np.ndarray:
        """[N, M], weighted by leak^(T - t), in single precision."""
        steps = self.spikes[0].shape[1]
        weights = leak ** np.arange(steps - 1, -1, -1.0)
        return (np.einsum("ntm,t->nm", np.concatenate(self.spikes, axis=2), weights) / weights.sum()).astype(np.float32)

    @property
    def totals(self) -> list[float]:
        """Spikes of each layer."""
        return [float((train != 0).sum()) for train in self.spikes]


def present(
    net: LayeredNetwork,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    masks: torch.Tensor | None = None,
    device: Device | None = None,
    b: int = 0,
) -> Trains:
    """The network itself: parameters [P], inputs [N, T, I], masks [N, M + H]."""
    samples, steps, last = *inputs.shape[:2], len(net.layers) - 1
    weights, biases = net.split(parameters)
    synaptic, layers = [matrix(*pair) for pair in zip(net.links, weights, strict=True)], neurons(net, device, b=b)
    fan_outs = [synapses(link).sum(axis=0) for link in net.links]
    ends = np.cumsum((*net.widths, net.widths[0]))[:-1]
    scales = np.split(np.ones((samples, 1)) if masks is None else masks.numpy(), [] if masks is None else ends, axis=1)
    scales = scales if masks is not None else scales * (last + 2)
    shown, cost = inputs[..., :-1].double().numpy(), 0.0
    kept = [np.zeros((samples, width)) for width in net.widths]
    sent = [np.zeros((samples, steps, width)) for width in net.widths]
    seen = [np.zeros((samples, steps, width)) for width in net.widths]
    for t in range(steps):
        for number, own in enumerate(layers):
            signal = shown[:, t] if number == 0 else sent[number - 1][:, t]
            bias = biases[number].double().numpy().repeat(net.positions[number])
            current = (signal @ synaptic[number].T + bias) * scales[number]
            if number > 0:
                cost += (signal @ fan_outs[number]).sum()
            if number == 0 and t > 0 and net.feedback:
                current += sent[last][:, t - 1] @ synaptic[-1].T * scales[-1]
                cost += (sent[last][:, t - 1] @ fan_outs[-1]).sum()
            v = kept[number] + own.distorted(current)
            spikes = np.where(own.dead, 0.0, np.where(own.saturated, 1.0, v >= own.threshold))
            kept[number] = own.leak * (v - own.taken * spikes)
            sent[number][:, t], seen[number][:, t] = spikes, v
    return Trains(sent, seen, cost, float(((shown != 0) @ fan_outs[0]).sum()))


def differentiate(
    net: LayeredNetwork,
    parameters: torch.Tensor,
    current: torch.Tensor,
    factors: torch.Tensor,
    couple: CoupleParameters,
    steps: int,
    device: Device | None = None,
    b: int = 0,
) -> Trains:
    """The second stage: current [N, neurons of the last layer], factors [N, M + H]."""
    samples, last = len(current), len(net.layers) - 1
    synaptic = [matrix(*pair) for pair in zip(net.links, net.split(parameters)[0], strict=True)]
    there, layers = [synapses(link).sum(axis=1) for link in net.links], neurons(net, device, couple, b)
    scales = np.split(factors.double().numpy(), np.cumsum(net.widths), axis=1)
    kept, cost = [np.zeros((samples, width)) for width in net.widths], 0.0
    sent = [np.zeros((samples, steps, width)) for width in net.widths]
    seen = [np.zeros((samples, steps, width)) for width in net.widths]
    for t in range(steps):
        for number in reversed(range(last + 1)):
            own, drive = layers[number], np.zeros((samples, net.widths[number]))
            if number < last:
                signal = sent[number + 1][:, t] * scales[number + 1]
                drive = signal @ synaptic[number + 1]
                cost += ((signal != 0) @ there[number + 1]).sum()
            else:
                drive = current.double().numpy().copy()
                if net.feedback and t > 0:
                    signal = sent[0][:, t - 1] * scales[-1]
                    drive += signal @ synaptic[-1]
                    cost += ((signal != 0) @ there[-1]).sum()
            v = kept[number] + own.distorted(drive)
            signs = (v >= own.threshold) * 1.0 - (v <= -own.threshold)
            spikes = own.taken * np.where(own.dead, 0.0, np.where(own.saturated, 1.0, signs))
            kept[number] = own.leak * (v - spikes)
            sent[number][:, t], seen[number][:, t] = spikes, v
    return Trains(sent, seen, cost, 0.0)


def same(found: Rates, expected: Trains, b: int, leak: float = 1.0) -> bool:
    """Whether rates and the number of spikes are equal, bit for bit."""
    assert found.mean.dtype == torch.float32 and found.spikes.dtype == torch.float64
    return bool((found.mean[b].numpy() == expected.mean(leak)).all()) and found.spikes[b].tolist() == expected.totals
