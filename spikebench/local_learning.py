"""Local online learning of SRM networks: every layer has a read-out, a loss and an update of its own at each time step.

The scheme of BiSNN (arXiv 2012.08300; equations from its authors' code, docs/papers.md) and of DECOLLE, on which it
stands: read-outs are fixed random matrices of +-1, r_t = B s_t / sqrt(n), and no gradient crosses a layer or a time
step. So the gradient of the loss is the product of three factors, an error, the neuron's sensitivity and what came in:

    dL/dw_ij = mean over the batch of  (B^T dL/dr)_i / sqrt(n)  sigma'(u_i - theta)  c p_j.

In a convolution that is summed over the positions, and of each square of the pool only the neuron of the largest u is
learnt from. ``online_step`` is one time step, for a device in the loop and for convolutions; ``present`` is a whole
presentation to a dense network, compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from spikebench import local_kernels
from spikebench.bernoulli import Posterior
from spikebench.convolutions import pool, split, weigh
from spikebench.networks import Network
from spikebench.neurons import SRMParameters

RULES = ("real", "straight-through", "bernoulli")
SURROGATES = ("boxcar", "sigmoid")
LOSSES = ("softmax", "logistic", "smooth-l1")


class Traces(NamedTuple):
    """What an SRM network remembers within a presentation, one tensor a layer.

    Attributes:
        synapse: q, [B, N, lines].
        membrane: p, [B, N, lines].
        refractory: R, [B, N x positions, neurons].
        spikes: of the last step, likewise.
    """

    synapse: tuple[torch.Tensor, ...]
    membrane: tuple[torch.Tensor, ...]
    refractory: tuple[torch.Tensor, ...]
    spikes: tuple[torch.Tensor, ...]

    @classmethod
    def rest(cls, network: Network, cells: int, samples: int, kind: torch.dtype = torch.float32) -> Traces:
        """Before the first step."""
        lines = tuple(torch.zeros(cells, samples, i, dtype=kind) for i in (network.inputs - 1, *network.widths[:-1]))
        counts = zip(network.shapes, network.positions, strict=True)
        neurons = tuple(torch.zeros(cells, samples * positions, o, dtype=kind) for (o, _), positions in counts)
        return cls(lines, lines, neurons, neurons)


class Step(NamedTuple):
    """What one time step gives: traces, potentials u as those traces are, loss [B], gradient [B, P]."""

    traces: Traces
    potentials: list[torch.Tensor]
    loss: torch.Tensor
    gradient: torch.Tensor


@dataclass(frozen=True)
class Learning:
    """What is minimised, and how.

    Attributes:
        loss: of ``LOSSES``: cross-entropy after a softmax over classes, of the logistic function of one read-out for
            two classes, or the smooth L1 distance to a value.
        surrogate: sigma', of ``SURROGATES``: 1 in (-1/2, 1/2], or the derivative of the logistic function.
        burn_in: steps of a presentation without learning.
        rule: of ``RULES``.
        posterior: of the rule ``bernoulli``.
    """

    loss: str
    surrogate: str
    burn_in: int
    rule: str
    posterior: Posterior = field(default_factory=Posterior)


def targets_of(labels: torch.Tensor, loss: str, classes: int) -> torch.Tensor:
    """Labels [..., N] or values [..., N, 1] as a loss takes them, [..., N, O]."""
    if loss == "softmax":
        return functional.one_hot(labels, classes).float()
    return labels.float()[..., None] if loss == "logistic" else labels


def losses(readout: torch.Tensor, targets: torch.Tensor, loss: str) -> torch.Tensor:
    """Each example's loss [..., N] of read-outs and targets [..., N, O]."""
    if loss == "softmax":
        return -(targets * torch.log_softmax(readout, dim=-1)).sum(dim=-1)
    if loss == "logistic":
        return functional.binary_cross_entropy_with_logits(readout, targets, reduction="none").sum(dim=-1)
    return functional.smooth_l1_loss(readout, targets, reduction="none").sum(dim=-1)


def derivative(potential: torch.Tensor, surrogate: str) -> torch.Tensor:
    """sigma'(u - theta)."""
    if surrogate == "boxcar":
        return ((potential > -0.5) & (potential <= 0.5)).to(potential.dtype)
    s = torch.sigmoid(potential)
    return s * (1 - s)


def read(spikes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Read-outs r = B s / sqrt(n) [B, ..., O] of spikes [B, ..., n] and matrices [B, O, n]."""
    flat = spikes.flatten(1, -2) if spikes.dim() > 3 else spikes
    values: torch.Tensor = flat.to(matrix.dtype) @ matrix.mT / float(matrix.shape[-1] ** 0.5)
    return values.reshape(*spikes.shape[:-1], matrix.shape[1])


def online_step(
    network: Network,
    learning: Learning,
    traces: Traces,
    weights: torch.Tensor,
    readouts: Sequence[torch.Tensor],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    spikes: Sequence[torch.Tensor] | None = None,
    learn: bool = True,
) -> Step:
    """One time step of all layers and the gradient of their losses.

    Args:
        network: of SRM neurons.
        learning: what is minimised.
        traces: of step t - 1.
        weights: [B, P] that act.
        readouts: fixed matrices [B, O, neurons] a layer.
        inputs: [B, N, I] with the constant line, which is left out.
        targets: [B, N, O].
        spikes: those of the device in the loop, [B, N, neurons] a layer; the model's own if None. Of convolutions they
            are pooled, so that the refractoriness of the neurons behind them is the model's own.
        learn: whether the gradient is wanted; without, it is empty.
    """
    neuron = network.neuron
    assert isinstance(neuron, SRMParameters)
    states, potentials, gradients = [], [], [torch.empty(len(weights), 0)]
    total = weights[:, 0]
    source = inputs[..., :-1]
    for layer, w in enumerate(network.unpack(weights)):
        membrane = neuron.membrane_decay * traces.membrane[layer] + traces.synapse[layer]
        synapse = neuron.synapse_decay * traces.synapse[layer] + source
        refractory = neuron.refractory_decay * traces.refractory[layer] + traces.spikes[layer]
        with torch.set_grad_enabled(learn):
            acting = w.detach().requires_grad_()
            kernels, biases = split(network, acting)
            potential = network.scales[layer] * (weigh(network, layer, membrane, kernels) + biases) - refractory
            largest = pool(network, layer, potential)
            excess = largest.detach() - neuron.threshold
            fired = (excess >= 0).to(source.dtype) if spikes is None else spikes[layer]
            # Of the spikes' value and of the surrogate's derivative.
            sent = fired + derivative(excess, learning.surrogate) * (largest - largest.detach())
            loss = losses(read(sent, readouts[layer]), targets, learning.loss).mean(dim=-1)
            if learn:
                gradients.append(torch.autograd.grad(loss.sum(), acting)[0].flatten(1))
        potentials.append(potential.detach())
        total, source = loss.detach(), fired
        if network.convolutions:
            fired = (potentials[-1] >= neuron.threshold).to(source.dtype)
        states.append((synapse, membrane, refractory, fired))
    return Step(Traces(*zip(*states, strict=True)), potentials, total, torch.cat(gradients, dim=1))


def present(
    network: Network,
    learning: Learning,
    natural: torch.Tensor,
    readouts: Sequence[torch.Tensor],
    inputs: torch.Tensor,
    index: torch.Tensor,
    targets: torch.Tensor,
    rates: torch.Tensor,
    keys: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Show each cell its minibatch and learn at every time step after burn-in; ``natural`` is overwritten.

    Args:
        network: dense, of SRM neurons.
        learning: what is minimised, and how.
        natural: [B, P], real weights, those behind binary ones, or natural parameters.
        readouts: [B, O, neurons] a layer.
        inputs: [R, N, T, I] with the constant line, which is left out.
        index: [B] int64, which of the R each cell sees.
        targets: [B, N, O].
        rates: [B], eta.
        keys: [B] int64, of each cell and this presentation.

    Returns:
        The last layer's mean loss [B], and the share of potentials in the boxcar [B].
    """
    neuron = network.neuron
    assert isinstance(neuron, SRMParameters)
    constant = inputs.stride(2) == 0
    shown = (inputs[:, :, :1] if constant else inputs).contiguous().numpy()
    matrices = torch.cat([matrix.flatten(1) for matrix in readouts], dim=1).contiguous().numpy()
    posterior = learning.posterior
    decays = tuple(np.float32(d) for d in (neuron.membrane_decay, neuron.synapse_decay, neuron.refractory_decay))
    work = np.empty((3, natural.shape[1]), np.float32)
    told = [
        local_kernels.present(
            natural[b].numpy(), shown[index[b]], inputs.shape[2], targets[b].contiguous().numpy(), matrices[b],
            np.array(network.shapes), decays, np.float32(neuron.threshold), LOSSES.index(learning.loss),
            SURROGATES.index(learning.surrogate), learning.burn_in, RULES.index(learning.rule), np.float32(rates[b]),
            np.float32(posterior.temperature), np.float32(posterior.kl_weight), np.float32(posterior.prior),
            np.float32(posterior.cap), posterior.literal, int(keys[b]), work,
        )
        for b in range(len(natural))
    ]  # fmt: skip
    loss, near = zip(*told, strict=True)
    return torch.tensor(loss, dtype=torch.float64), torch.tensor(near, dtype=torch.float64)
