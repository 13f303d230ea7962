"""Backpropagation through time for LIF networks, a gradient a cell, with the spikes given or computed.

With a chip in the loop the device supplies the forward values and a model of it the derivatives: potentials are the
model's, driven and reset by the device's own spikes. For dense networks ``forward`` is differentiated automatically,
and ``loss_gradient`` is the same gradient, compiled for all cells; layers on maps go through ``multistep``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from spikebench import bptt_kernels, multistep
from spikebench.chip.faults import Device, compress
from spikebench.chip.protocol import Chip
from spikebench.chip.simulated import tile, tile_labels
from spikebench.data import Batch
from spikebench.errors import Unavailable
from spikebench.layered_networks import LayeredNetwork
from spikebench.networks import Network
from spikebench.neurons import LIFParameters, LIFState, lif_step
from spikebench.surrogates import AS_SURROGATE, SURROGATES


class Model(NamedTuple):
    """The network model that the backward pass believes in; neurons layer after layer.

    Attributes:
        gain: [B, P], programmed to effective weight; 0 for a synapse known to be stuck.
        threshold: [B, M].
        decay: [B, M].
        offset: [B, M].
        compression: [B, L].
    """

    gain: torch.Tensor
    threshold: torch.Tensor
    decay: torch.Tensor
    offset: torch.Tensor
    compression: torch.Tensor

    @classmethod
    @lru_cache(maxsize=4)  # every step of a training asks for the same device
    def of(cls, device: Device) -> Model:
        """What a device looks like to somebody who knows it."""
        layers = device.layers
        return cls(
            gain=torch.cat([layer.gain.masked_fill(layer.stuck, 0.0).flatten(1) for layer in layers], dim=1),
            threshold=torch.cat([layer.threshold for layer in layers], dim=1),
            decay=torch.cat([layer.decay for layer in layers], dim=1),
            offset=torch.cat([layer.offset for layer in layers], dim=1),
            compression=torch.stack([layer.compression for layer in layers], dim=1),
        )


def forward(
    network: Network,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    model: Model,
    surrogate: str,
    device_spikes: list[torch.Tensor] | None = None,
    smooth: bool = False,
) -> torch.Tensor:
    """Output counts [B, N, O], differentiable in the parameters.

    Args:
        network: what is run.
        parameters: [B, P].
        inputs: [B, N, T, I], each cell its own.
        model: what runs it.
        surrogate: a name of ``surrogates.SURROGATES``.
        device_spikes: [B, N, T, neurons] a layer, of the device in the loop, in place of the model's own.
        smooth: replace the spike by the surrogate's primitive; the gradient is then exact (for checks).
    """
    family = SURROGATES[surrogate]
    spike = family.primitive if smooth else family.spike
    widths = [neurons for neurons, _ in network.shapes]
    threshold, decay, offset = (x.split(widths, dim=1) for x in (model.threshold, model.decay, model.offset))
    signal = inputs
    for layer, weights in enumerate(network.unpack(parameters * model.gain)):
        if layer > 0:
            signal = torch.cat([signal, torch.ones_like(signal[..., :1])], dim=-1)
        currents = compress(signal @ weights.mT[:, None], model.compression[:, layer, None, None, None])
        currents = currents + offset[layer][:, None, None]
        constants = LIFParameters(decay[layer][:, None], threshold[layer][:, None])
        state = LIFState(torch.zeros_like(currents[:, :, 0]), torch.zeros_like(currents[:, :, 0]))
        spikes = []
        for t in range(currents.shape[2]):
            potential = lif_step(currents[:, :, t], state, constants).potential
            spiked = spike(potential - constants.threshold)
            if device_spikes is not None:
                # The device's value forward, the surrogate's derivative backward.
                spiked = device_spikes[layer][:, :, t] + (spiked - spiked.detach())
            state = LIFState(potential, spiked)
            spikes.append(spiked)
        signal = torch.stack(spikes, dim=2)
    return signal.sum(dim=2)


def loss_gradient(
    network: Network,
    parameters: torch.Tensor,
    batch: Batch,
    model: Model,
    surrogate: str,
    device_spikes: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy [B] of each cell, and its gradient [B, P], for the device's spikes.

    Args:
        network: what was run.
        parameters: [B, P].
        batch: the examples that were shown.
        model: what the backward pass believes in.
        surrogate: a name of ``surrogates.SURROGATES``.
        device_spikes: [B, N, T, neurons] a layer.
    """
    gradient, losses = torch.empty_like(parameters), torch.empty(len(parameters), dtype=torch.float64)
    bptt_kernels.gradient(
        (parameters * model.gain).numpy(), batch.index.numpy(), tile(batch.inputs), tile_labels(batch.targets),
        batch.size, tuple(s.numpy() for s in device_spikes), np.array(network.shapes),
        model.threshold.numpy(), model.decay.numpy(), model.offset.numpy(), model.compression.numpy(),
        network.count_gain, bptt_kernels.FAMILIES.index(surrogate), gradient.numpy(), losses.numpy(),
    )  # fmt: skip
    return losses, gradient * model.gain


def step_gradient(
    network: Network, parameters: torch.Tensor, batch: Batch, chip: Chip, mode: str, surrogate: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy [B] and its gradient [B, P] in a training mode; layers on maps know no ``oracle``.

    Raises:
        Unavailable: the gradient of layers on maps is to know the chip, or they are others than ``multistep`` knows.
    """
    if not isinstance(network, LayeredNetwork):
        model = Model.of(chip.knowledge if mode == "oracle" else chip.nominal)
        spikes = chip.run(parameters, batch.inputs, batch.index)
        return loss_gradient(network, parameters, batch, model, surrogate, spikes)
    try:
        multistep.neurons(network)
    except ValueError as error:
        raise Unavailable(str(error)) from error
    if mode == "oracle":
        raise Unavailable("the gradient of layers on maps is the ideal model's; their modes: off-chip, in-the-loop")
    sent = None if mode == "off-chip" else chip.run(parameters, batch.inputs, batch.index)
    found = []
    for b, own in enumerate(parameters):
        device = None if sent is None else [layer[b] for layer in sent]
        leaf = own.clone().requires_grad_()
        inputs = batch.own_inputs[b, ..., :-1]
        loss = map_loss(network, leaf, inputs, batch.targets[batch.index[b]], surrogate, device)
        found.append((loss.detach().double(), torch.autograd.grad(loss, leaf)[0]))
    losses, gradients = zip(*found, strict=True)
    return torch.stack(losses), torch.stack(gradients)


def map_loss(
    network: LayeredNetwork,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    surrogate: str,
    device_spikes: Sequence[torch.Tensor] | None = None,
    smooth: bool = False,
) -> torch.Tensor:
    """Mean cross-entropy [] of the spike counts of the last layer, which are the outputs.

    Args:
        network: of LIF layers.
        parameters: [P].
        inputs: [N, T, I - 1].
        labels: [N].
        surrogate: a name of ``surrogates.SURROGATES``.
        device_spikes: [N, T, neurons] a layer, in place of the model's own.
        smooth: as in ``forward``.
    """
    assert isinstance(network.neuron, LIFParameters)
    weights, biases = network.split(parameters)
    trained = [(w, link) for w, link in zip(weights, network.links, strict=True) if not link.pool]
    # A layer's biases come with its first link.
    of_links = [
        biases[x.target] if x.source == x.target - 1 else torch.zeros_like(biases[x.target]) for _, x in trained
    ]
    layers, steps = len(multistep.neurons(network)), inputs.shape[1]
    used = multistep.Parameters(
        [w for w, _ in trained],
        [torch.ones_like(bias) for bias in of_links],
        of_links,
        torch.full((layers, steps), AS_SURROGATE[surrogate]).log(),
        torch.full((layers,), float(network.neuron.threshold)),
    )
    given = None
    if device_spikes is not None:
        shown = zip(device_spikes, network.maps[1:], strict=True)
        given = {
            number: spikes.float().transpose(0, 1).unflatten(2, shape).permute(0, 1, 3, 4, 2).contiguous()
            for number, (spikes, shape) in enumerate(shown)
        }
    course = multistep.present(network, used, inputs, multistep.How(surrogate, smooth=smooth), given)
    return functional.cross_entropy(network.count_gain * course.sent.sum(dim=0).flatten(1), labels)
