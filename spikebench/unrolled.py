"""Backpropagation through time of feedback networks, which keeps the graph of all time steps.

The baseline that arXiv 2302.00232 and 2109.14247 save memory against; each spike has a surrogate derivative.
"""

from __future__ import annotations

import torch

from spikebench.chip.feedback_session import weigh
from spikebench.data import is_constant
from spikebench.layered_networks import LayeredNetwork
from spikebench.surrogates import SURROGATES


def average_rates(
    network: LayeredNetwork,
    weights: torch.Tensor,
    inputs: torch.Tensor,
    masks: torch.Tensor | None,
    surrogate: str,
    smooth: bool = False,
) -> torch.Tensor:
    """The last layer's average rates [B, N, n] on ideal devices, differentiable in the weights.

    Args:
        network: with P parameters.
        weights: [B, P].
        inputs: [B, N, T, I - 1]; stride 0 over T where they are constant.
        masks: [B, N, M + H], as of ``chip.protocol.Chip.rates``.
        surrogate: a name of ``surrogates.SURROGATES``.
        smooth: replace the spike by the surrogate's primitive; the gradient is then exact (for checks).
    """
    family = SURROGATES[surrogate]
    spike = family.primitive if smooth else family.spike
    threshold, rest, leak = map(float, network.nominal)
    parts = [network.split(own) for own in weights]
    links = [[own[number] for own, _ in parts] for number in range(len(network.links))]
    biases = [
        torch.stack([own[number] for _, own in parts]).repeat_interleave(positions, dim=1)[:, None]
        for number, positions in enumerate(network.positions)
    ]
    scale = None if masks is None else masks.split((*network.widths, network.widths[0]), dim=2)
    kept: list[torch.Tensor | float] = [0.0] * len(network.layers)
    # What the inputs bring, of all time steps in one call.
    shown = inputs[:, :, :1] if is_constant(inputs) else inputs
    brought = weigh(network.links[0], links[0], shown.flatten(1, 2)).unflatten(1, shown.shape[1:3])
    sent, total, weight = None, 0.0, 0.0
    for t in range(inputs.shape[2]):
        signal = brought[:, :, t % shown.shape[2]]
        for number in range(len(network.layers)):
            current = (signal if number == 0 else weigh(network.links[number], links[number], signal)) + biases[number]
            current = current if scale is None else current * scale[number]
            if number == 0 and network.feedback and sent is not None:
                back = weigh(network.links[-1], links[-1], sent)
                current = current + (back if scale is None else back * scale[-1])
            potential = kept[number] + current
            signal = spike(potential - threshold)
            if not smooth:  # the surrogate's derivative, and a spike at the threshold, too
                signal = (potential >= threshold).to(signal.dtype) + (signal - signal.detach())
            kept[number] = leak * (potential - (threshold - rest) * signal)
        sent = signal
        total, weight = leak * total + sent, leak * weight + 1.0
    assert isinstance(total, torch.Tensor)
    return total / weight


def gradient(
    network: LayeredNetwork,
    weights: torch.Tensor,
    inputs: torch.Tensor,
    masks: torch.Tensor | None,
    slope: torch.Tensor,
    surrogate: str,
) -> torch.Tensor:
    """Gradient [B, P] of a loss with this slope [B, N, n] in the last layer's average rates; the rest as above."""
    weights = weights.detach().requires_grad_()
    rates = average_rates(network, weights, inputs, masks, surrogate)
    (found,) = torch.autograd.grad(rates, weights, slope)
    return found
