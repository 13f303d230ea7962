"""Layered networks on simulated devices, compiled: average rates, and the second stage that differentiates them.

Tensors have a map's neurons as [channels x height x width]; the kernels have channels last, and ``Flat`` translates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from spikebench.chip import feedback_kernel, srm
from spikebench.chip.faults import Device, LayerDevice
from spikebench.chip.link_kernels import columns
from spikebench.chip.protocol import Rates
from spikebench.layered_networks import LayeredNetwork
from spikebench.neurons import CoupleParameters, LIFParameters, SoftResetParameters


class Weights(NamedTuple):
    """The weights that act, as the kernels take them.

    Attributes:
        up: [B, W], of each link [fine, kernel, kernel, coarse].
        down: [B, W], of each link [coarse, kernel, kernel, fine].
        bias: [B, M].
    """

    up: np.ndarray
    down: np.ndarray
    bias: np.ndarray


class Layout:
    """A feedback network as the kernels see it.

    Attributes:
        links: [K, 14], see ``feedback_kernel``.
        layers: [L, 2], first neuron and one past the last.
        order: [M], where each neuron in the kernels' order is among those of all layers.
        place: its inverse.
        inputs: [I - 1], where each input line in the kernels' order is among those of the data.
        last: [neurons], the same of the last layer alone.
    """

    def __init__(self, network: LayeredNetwork) -> None:
        self.network = network
        rows, first = [], 0
        for link in network.links:
            square = (link.kernel, link.stride, link.padding)
            rows.append((link.source, link.target, link.upwards, *link.fine, *link.coarse, *square, first, link.pool))
            first += 0 if link.pool else int(np.prod(link.weights))
        self.links = np.array(rows, np.int64)
        ends = np.cumsum((0, *network.widths))
        self.layers = np.stack([ends[:-1], ends[1:]], axis=1)
        orders = [torch.arange(math.prod(shown)).view(shown).permute(1, 2, 0).flatten() for shown in network.maps]
        self.inputs, self.last = orders[0], orders[-1]
        self.order = torch.cat([low + order for low, order in zip(ends[:-1].tolist(), orders[1:], strict=True)])
        self.place = self.order.argsort()

    def weights(self, parameters: torch.Tensor, kind: torch.dtype = torch.float32) -> Weights:
        """Of parameters [B, P] that act."""
        up, down, bias = [], [], []
        for own in parameters:
            weights, biases = self.network.split(own.to(kind))
            trained = [(w, link) for w, link in zip(weights, self.network.links, strict=True) if not link.pool]
            reached = [w[..., columns(link.kernel, link.stride)] for w, link in trained]
            up.append(torch.cat([w.permute(1, 2, 3, 0).flatten() for w in reached]))
            down.append(torch.cat([w.permute(0, 2, 3, 1).flatten() for w, _ in trained]))
            spread = zip(biases, self.network.positions, strict=True)
            bias.append(torch.cat([b.repeat(positions) for b, positions in spread]))
        return Weights(*(torch.stack(parts).numpy() for parts in (up, down, bias)))

    def arranged(self, values: torch.Tensor, first: bool = False) -> torch.Tensor:
        """[..., M] in the kernels' order; with ``first`` the first layer's neurons follow once more."""
        order = self.order
        if first:
            order = torch.cat([order, len(order) + order[: self.network.widths[0]]])
        return values[..., order].contiguous()


class Flat(Layout):
    """Devices as the kernels take them: one array a quantity over all neurons."""

    def __init__(self, network: LayeredNetwork, device: Device) -> None:
        super().__init__(network)
        self.device = device
        self.kappa = torch.stack([layer.compression for layer in device.layers], dim=1).numpy()
        self.hard = isinstance(network.neuron, LIFParameters)
        self.constants = self._constants(
            [above(layer) if self.hard else soft_reset(network, layer) for layer in device.layers]
        )

    def couples(self, couple: CoupleParameters) -> np.ndarray:
        """The constants of the second stage's neurons."""
        return self._constants([couples(self.network, layer, couple) for layer in self.device.layers])

    def _constants(self, layers: Sequence[SoftResetParameters | CoupleParameters]) -> np.ndarray:
        """[4, B, M]: threshold, what a spike takes off, leak, offset; neither dead nor saturated ones look at sums."""
        found = []
        for layer, own, positions in zip(self.device.layers, layers, self.network.positions, strict=True):
            threshold, rest, leak = (torch.as_tensor(x).expand_as(layer.threshold) for x in own)
            bound = torch.where(layer.silent, torch.inf, torch.where(layer.saturated, -torch.inf, threshold))
            values = torch.stack([bound, threshold - rest, leak, layer.offset])
            found.append(values.repeat(1, 1, positions))
        return torch.cat(found, dim=2).contiguous().numpy()


def soft_reset(network: LayeredNetwork, layer: LayerDevice) -> SoftResetParameters:
    """A layer's neurons, [B, channels] each; the deviation of a threshold moves what a spike subtracts, too."""
    return SoftResetParameters(layer.threshold, torch.tensor(float(network.nominal.rest)), layer.decay)


def above(layer: LayerDevice) -> SoftResetParameters:
    """A layer's LIF neurons, [B, channels] each, for a kernel whose neurons spike at their threshold, too."""
    threshold = torch.nextafter(layer.threshold, torch.tensor(torch.inf))
    return SoftResetParameters(threshold, torch.tensor(0.0), layer.decay)


def couples(network: LayeredNetwork, layer: LayerDevice, couple: CoupleParameters) -> CoupleParameters:
    """A layer's couples on the devices: their thresholds deviate by the same factors as those of its neurons.

    Their time constants do, too, where they leak as these do.
    """
    factor = layer.threshold / float(network.nominal.threshold)
    same = float(couple.leak) == float(network.nominal.leak)
    leak = layer.decay if same else torch.full_like(layer.decay, float(couple.leak))
    return CoupleParameters(factor * couple.threshold, torch.tensor(float(couple.rest)), leak)


def run(
    flat: Flat, weights: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, masks: torch.Tensor | None = None
) -> Rates:
    """Average rates of devices that lose no spikes; see ``protocol.Chip.rates``."""
    network = flat.network
    samples, steps = inputs.shape[1:3]
    events, neurons = srm.events(inputs), sum(network.widths)
    rates = np.empty((len(weights), samples, neurons), np.float32)
    spikes, operations = np.empty((len(weights), len(network.layers))), np.empty((len(weights), 2))
    scales = torch.empty(0, 0, 0) if masks is None else flat.arranged(masks, first=True)
    feedback_kernel.present(
        flat.links, flat.layers, *flat.weights(weights), flat.constants, flat.kappa, scales.numpy(),
        network.averaging, flat.hard, events.starts, events.lines, events.values,
        (index * samples * (1 if events.constant else steps)).numpy(), events.constant, steps,
        rates, spikes, operations,
    )  # fmt: skip
    if events.constant:
        operations[:, 1] *= steps
    ordered = torch.from_numpy(rates)[..., flat.place]
    return Rates(ordered, torch.from_numpy(spikes), *torch.from_numpy(operations).unbind(dim=1))


def differentiate(
    flat: Flat,
    weights: torch.Tensor,
    current: torch.Tensor,
    factors: torch.Tensor,
    couple: CoupleParameters,
    steps: int,
) -> Rates:
    """Average rates of the couples of devices that lose no spikes; see ``protocol.Chip.differentiate``."""
    network = flat.network
    devices, samples = current.shape[:2]
    rates = np.empty((devices, samples, sum(network.widths)), np.float32)
    spikes, operations = np.empty((devices, len(network.layers))), np.empty(devices)
    arranged = flat.weights(weights)
    feedback_kernel.differentiate(
        flat.links, flat.layers, arranged.up, arranged.down, current[..., flat.last].contiguous().numpy(),
        flat.arranged(factors, first=True).numpy(), flat.couples(couple), flat.kappa, float(couple.leak), steps,
        rates, spikes, operations,
    )  # fmt: skip
    done = torch.from_numpy(operations)
    return Rates(torch.from_numpy(rates)[..., flat.place], torch.from_numpy(spikes), done, torch.zeros_like(done))
