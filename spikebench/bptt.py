"""Backpropagation through time for dense LIF networks, batched over cells, with the spikes given or computed.

With a chip in the loop the device supplies the forward values and a model of it the derivatives: potentials are the
model's, driven and reset by the device's own spikes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from spikebench import bptt_kernels
from spikebench.chip.faults import LayerDevice, compress
from spikebench.networks import Network
from spikebench.surrogates import Function, Surrogate, derivative


class Model(NamedTuple):
    """The neuron model that the backward pass believes in, [B, ...] like ``faults.LayerDevice``.

    Attributes:
        gain: [B, O, I].
        threshold: [B, O].
        decay: [B, O].
        offset: [B, O].
        compression: [B].
    """

    gain: torch.Tensor
    threshold: torch.Tensor
    decay: torch.Tensor
    offset: torch.Tensor
    compression: torch.Tensor

    @classmethod
    def of(cls, layer: LayerDevice) -> Model:
        """What a device's layer looks like to somebody who knows it; a stuck synapse has no gain to train through."""
        gain = layer.gain.masked_fill(layer.stuck, 0.0)
        return cls(gain, layer.threshold, layer.decay, layer.offset, layer.compression)


class _LIFLayer(torch.autograd.Function):
    """All time steps of one layer; the backward pass is the adjoint recursion written out.

    V[t] = a V[t-1] (1 - S[t-1]) + I[t],  S[t] = Theta(V[t] - theta), with s'[t] the surrogate derivative:
    dL/dV[t] = s'[t] (dL/dS[t] - a V[t] dL/dV[t+1]) + a (1 - S[t]) dL/dV[t+1],  dL/dI[t] = dL/dV[t].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        currents: torch.Tensor,
        decay: torch.Tensor,
        threshold: torch.Tensor,
        spike: Function,
        device_spikes: torch.Tensor | None,
        steps: int,
    ) -> torch.Tensor:
        spikes = _spikes(currents, decay, threshold, spike, steps) if device_spikes is None else device_spikes
        potentials = torch.empty_like(spikes, memory_format=torch.contiguous_format)
        bptt_kernels.potentials(currents.detach().numpy(), decay.numpy(), spikes.numpy(), potentials.numpy())
        slope = derivative(spike, potentials - threshold[:, None, None])
        ctx.save_for_backward(potentials, spikes, slope, decay)
        ctx.constant = currents.shape[2] == 1
        return spikes.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None, None]:
        potentials, spikes, slope, decay = ctx.saved_tensors
        result = torch.empty_like(potentials)
        gradient = gradients[0].contiguous()
        bptt_kernels.adjoint(
            gradient.numpy(), decay.numpy(), spikes.numpy(), potentials.numpy(), slope.numpy(), result.numpy()
        )
        return (result.sum(dim=2, keepdim=True) if ctx.constant else result), None, None, None, None, None


def _spikes(
    currents: torch.Tensor, decay: torch.Tensor, threshold: torch.Tensor, spike: Function, steps: int
) -> torch.Tensor:
    """The model's own spikes (or the smooth values that ``spike`` gives in their place), [B, N, T, O]."""
    carried, spikes = torch.zeros_like(currents[:, :, 0]), []
    for t in range(steps):
        potential = decay[:, None] * carried + currents[:, :, 0 if currents.shape[2] == 1 else t]
        spikes.append(spike(potential - threshold[:, None]))
        carried = potential * (1 - spikes[-1])
    return torch.stack(spikes, dim=2)


def lif_layer(
    currents: torch.Tensor, model: Model, spike: Function, steps: int, device_spikes: torch.Tensor | None = None
) -> torch.Tensor:
    """Spikes of one layer over time, differentiable in the currents.

    Args:
        currents: [B, N, T, O], or [B, N, 1, O] for one current at every step.
        model: of the layer.
        spike: forward the spike of V - theta, backward its (surrogate) derivative.
        steps: T.
        device_spikes: [B, N, T, O] that replace the model's own, or None.

    Returns:
        [B, N, T, O].
    """
    result: torch.Tensor = _LIFLayer.apply(  # type: ignore[no-untyped-call]
        currents, model.decay, model.threshold, spike, device_spikes, steps
    )
    return result


def forward(
    network: Network,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    models: tuple[Model, ...],
    surrogate: Surrogate,
    device_spikes: list[torch.Tensor] | None = None,
    smooth: bool = False,
) -> torch.Tensor:
    """Output counts [B, N, O], differentiable in the parameters.

    Args:
        network: what is run.
        parameters: [B, P].
        inputs: [B, N, T, I], each cell its own.
        models: one a layer.
        surrogate: of every layer.
        device_spikes: [B, N, T, neurons] a layer, of the device in the loop; None runs the model itself.
        smooth: replace the spike by the surrogate's primitive; the gradient is then exact (for checks).
    """
    spike = surrogate.primitive if smooth else surrogate.spike
    signal = inputs
    for layer, (weights, model) in enumerate(zip(network.unpack(parameters), models, strict=True)):
        if layer > 0:
            signal = torch.cat([signal, torch.ones_like(signal[..., :1])], dim=-1)
        acting = (weights * model.gain).mT
        if signal.stride(2) == 0:  # a constant current is weighed once
            currents = torch.bmm(signal[:, :, 0], acting).unsqueeze(2)
        else:
            currents = torch.bmm(signal.flatten(1, 2), acting).unflatten(1, signal.shape[1:3])
        if bool(model.compression.any()) or bool(model.offset.any()):
            currents = compress(currents, model.compression[:, None, None, None]) + model.offset[:, None, None]
        signal = lif_layer(currents, model, spike, inputs.shape[2], device_spikes[layer] if device_spikes else None)
    return signal.sum(dim=2)
