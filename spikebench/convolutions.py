"""Layers of SRM networks, dense or convolutional: what their neurons sum, and what of their values leaves the layer.

A convolution is a dense layer that looks at one position after the other. So its neurons' values are kept as those of
N x positions samples, [B, N x positions, channels], and all that is said of a neuron holds for it as it stands.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from spikebench.networks import Network


def split(network: Network, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
    """A layer's weights [B, neurons, inputs] without its biases, and these, [B, 1, neurons]; dense layers have none."""
    if not network.convolutions:
        return weights, 0.0
    kernels, biases = weights.split([weights.shape[2] - 1, 1], dim=2)
    return kernels.contiguous(), biases.mT


def weigh(network: Network, layer: int, signal: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sums [B, N x positions, neurons] of what comes in, [B, N, lines], with weights that are split from the biases."""
    if not network.convolutions:
        return signal @ weights.mT
    side = network.convolutions[layer].kernel
    pictures, kernels = signal.unflatten(2, network.maps[layer]), weights.unflatten(2, (-1, side, side))
    # One call a device: summed beside others, a device might have other bits.
    sums = [functional.conv2d(x, w, padding=side // 2) for x, w in zip(pictures, kernels, strict=True)]
    return torch.stack(sums).permute(0, 1, 3, 4, 2).flatten(1, 3)


def pool(network: Network, layer: int, values: torch.Tensor) -> torch.Tensor:
    """Each square's largest, [B, N, lines], of a layer's values [B, N x positions, neurons]; all of a dense layer's."""
    if not network.convolutions:
        return values
    pictures = values.unflatten(1, (-1, *network.maps[layer][1:])).permute(0, 1, 4, 2, 3)
    largest: torch.Tensor = functional.max_pool2d(pictures.flatten(0, 1), network.convolutions[layer].pool)
    return largest.reshape(*pictures.shape[:2], -1)
