"""What is trained of a network of LIF layers, as one vector: layout, start, and what a chip is programmed with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from spikebench.layered_networks import LayeredNetwork, Link
from spikebench.multistep import neurons, trained
from spikebench.multistep_torch import EPSILON
from spikebench.neurons import LIFParameters

#: A threshold that is learnt falls no lower.
LOWEST = 0.05


class Parts(NamedTuple):
    """A vector's parts.

    Attributes:
        weights: a tensor a trained link, see ``multistep.Parameters``.
        gains: of batch norm, likewise.
        biases: likewise.
        read_out: [outputs, n + 1] of the last layer's n rates and a constant.
        log_sharpness: [L].
        thresholds: [L], w of V = tanh(w), at least ``LOWEST``.
    """

    weights: list[torch.Tensor]
    gains: list[torch.Tensor]
    biases: list[torch.Tensor]
    read_out: torch.Tensor
    log_sharpness: torch.Tensor
    thresholds: torch.Tensor

    @property
    def learnt_thresholds(self) -> torch.Tensor:
        """V of each layer, [L]."""
        return self.thresholds.tanh().clamp(min=LOWEST)


class Layout:
    """Where the parts of the vector lie.

    Attributes:
        links: that are trained.
        layers: number L of layers of neurons.
        size: Q, of the vector.
        channels: S, of all trained links together: batch norm has so many means and variances.
    """

    def __init__(self, network: LayeredNetwork) -> None:
        self.network = network
        self.links = trained(network)
        self.layers = len(neurons(network))
        channels = [shape[0] for shape in map(self._shape, self.links)]
        self.channels = sum(channels)
        self._shapes: list[tuple[int, ...]] = [
            *map(self._shape, self.links), *[(c,) for c in channels * 2],
            (network.outputs, network.widths[-1] + 1), (self.layers,), (self.layers,),
        ]  # fmt: skip
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self.size = sum(self._sizes)

    def _shape(self, link: Link) -> tuple[int, ...]:
        coarse, fine, side, _ = link.weights
        tied = self.network.layers[link.target].mean and link.source == link.target - 1
        return (coarse, fine, 1, 1) if tied else (coarse, fine, side, side)

    def split(self, vector: torch.Tensor) -> Parts:
        """The parts of a vector [Q]."""
        pieces = zip(vector.split(self._sizes), self._shapes, strict=True)
        parts = [piece.view(shape) for piece, shape in pieces]
        k = len(self.links)
        return Parts(parts[:k], parts[k : 2 * k], parts[2 * k : 3 * k], *parts[3 * k :])

    def join(self, parts: Parts) -> torch.Tensor:
        """The inverse of ``split``, [Q]."""
        pieces = [*parts.weights, *parts.gains, *parts.biases, *parts[3:]]
        return torch.cat([piece.flatten() for piece in pieces])

    def start(self, normal: torch.Tensor, sharpness: float, threshold: float) -> torch.Tensor:
        """A vector [Q] made of normal draws [Q]: weights by their fan-in, batch norm that does nothing.

        Args:
            normal: draws.
            sharpness: k of all layers.
            threshold: V of all layers.
        """
        drawn = self.split(normal)
        return self.join(
            Parts(
                [w * (2 / w[0].numel()) ** 0.5 for w in drawn.weights],
                [torch.ones_like(g) for g in drawn.gains],
                [torch.zeros_like(b) for b in drawn.biases],
                functional.pad(drawn.read_out[:, :-1] / self.network.widths[-1] ** 0.5, (0, 1)),
                torch.full_like(drawn.log_sharpness, math.log(sharpness)),
                torch.full_like(drawn.thresholds, math.atanh(threshold)),
            )
        )

    def frozen(self, parts: Parts, running: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Gains and biases a link that do what batch norm does with the running means and variances [2, S]."""
        statistics = running.split([len(gain) for gain in parts.gains], dim=1)
        gains = [g / (s[1] + EPSILON).sqrt() for g, s in zip(parts.gains, statistics, strict=True)]
        shifted = zip(parts.biases, statistics, gains, strict=True)
        return gains, [b - s[0] * gain for b, s, gain in shifted]

    def programmed(self, vector: torch.Tensor, running: torch.Tensor, learnt: bool) -> torch.Tensor:
        """What a chip is programmed with, [P] of the network.

        Batch norm goes into weights and biases; of thresholds that are learnt, which a chip does not have, so does
        their ratio to the nominal one.

        Args:
            vector: [Q].
            running: [2, S].
            learnt: whether thresholds are those of the vector.
        """
        parts, network = self.split(vector), self.network
        assert isinstance(network.neuron, LIFParameters)
        gains, biases = self.frozen(parts, running)
        places = {number: place for place, number in enumerate(neurons(network))}
        ratio = network.neuron.threshold / parts.learnt_thresholds if learnt else torch.ones(self.layers)
        of_link = [ratio[places[link.target]] for link in self.links]
        weights = [
            w * (gain * r)[:, None, None, None] for w, gain, r in zip(parts.weights, gains, of_link, strict=True)
        ]
        summed = [torch.zeros(channels) for channels, _ in network.shapes]
        for link, bias, r in zip(self.links, biases, of_link, strict=True):
            summed[link.target] = summed[link.target] + bias * r
        return network.join(self._whole(weights), summed)

    def _whole(self, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Weights of all links as ``LayeredNetwork.split`` gives them; those of pools are 0 and not looked at."""
        found, whole = iter(weights), []
        for link in self.network.links:
            coarse, fine, side, _ = link.weights
            own = torch.zeros(coarse, fine, 1, 1) if link.pool else next(found)
            whole.append(own.expand(coarse, fine, side, side) / (side**2 if own.shape[2] < side else 1))
        return whole
