"""Networks whose last layer drives the first one (arXiv 2302.00232, 2109.14247); ``architectures`` reads names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch.nn import functional

from spikebench.networks import Network
from spikebench.neurons import SoftResetParameters

#: (channels, height, width) of what a layer's neurons form; a dense layer is a picture of one pixel.
Map = tuple[int, int, int]


class Layer(NamedTuple):
    """One layer as an architecture writes it.

    Attributes:
        kind: ``convolution``, ``pool`` (the mean of each square) or ``dense``.
        channels: neurons at each position; of a pool, those of the layer before, and 0 here.
        kernel: side of what a neuron sees; 0 of a dense layer, which sees all.
        stride: pixels between the fields of neighbours.
    """

    kind: str
    channels: int
    kernel: int
    stride: int


class Link(NamedTuple):
    """The synapses between two maps: the coarse neuron (y, x) and the fine one (stride y - padding + k_y, ...).

    A convolution goes from fine to coarse, a transposed one from coarse to fine, and dense layers are both.

    Attributes:
        source: the layer that sends, -1 for the inputs.
        target: the layer that is driven.
        upwards: whether the fine map sends.
        fine: its channels, height and width.
        coarse: likewise.
        kernel: side of the square of weights.
        stride: of the coarse map's neurons on the fine map.
        padding: by which the first field overlaps the fine map's border.
        pool: whether each weight is 1 / kernel^2 from a channel to itself, which is no parameter.
    """

    source: int
    target: int
    upwards: bool
    fine: Map
    coarse: Map
    kernel: int
    stride: int
    padding: int
    pool: bool

    @property
    def weights(self) -> tuple[int, int, int, int]:
        """[coarse channels, fine channels, kernel, kernel]."""
        return self.coarse[0], self.fine[0], self.kernel, self.kernel

    def pairs(self) -> torch.Tensor:
        """[kernel], how many rows (or columns) of both maps each row of the weights joins."""
        return torch.tensor(
            [
                sum(0 <= self.stride * y - self.padding + k < self.fine[1] for y in range(self.coarse[1]))
                for k in range(self.kernel)
            ]
        )

    @property
    def operations(self) -> int:
        """Multiply-accumulates of one pass of real values over a whole map, borders left out."""
        places = int(self.pairs().sum()) ** 2
        return places * (self.fine[0] if self.pool else self.fine[0] * self.coarse[0])

    def down(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sums [N, *coarse] of values [N, *fine]."""
        if self.fine[1] == self.kernel == 1:  # dense: many times as fast as a convolution of one pixel
            return (values.flatten(1) @ weights[:, :, 0, 0].mT)[..., None, None]
        return functional.conv2d(values, weights, stride=self.stride, padding=self.padding)

    def up(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sums [N, *fine] of values [N, *coarse], the adjoint of ``down``."""
        if self.fine[1] == self.kernel == 1:
            return (values.flatten(1) @ weights[:, :, 0, 0])[..., None, None]
        left = self.fine[1] - ((self.coarse[1] - 1) * self.stride - 2 * self.padding + self.kernel)
        return functional.conv_transpose2d(
            values, weights, stride=self.stride, padding=self.padding, output_padding=left
        )

    def send(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """What the target's neurons sum, [N, *target], of values [N, *source]."""
        return self.down(values, weights) if self.upwards else self.up(values, weights)

    def send_back(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``send``: sums [N, *source] of values [N, *target]."""
        return self.up(values, weights) if self.upwards else self.down(values, weights)


@dataclass(frozen=True)
class FeedbackNetwork(Network):
    """Layers of IF or LIF neurons with reset by subtraction, the last of which also drives the first.

    The read-out is a linear one of the last layer's average rates, off the chip; it belongs to the method. A neuron's
    inputs are, in the order of its weights, the layer before, for the first layer the feedback, and a bias; convolved
    neurons share them channel by channel. The data's constant line is not connected.

    Attributes:
        layers: at least one.
        feedback: kernel side of the feedback; 0 is none. Between dense layers it is 1, from a dense to a convolutional
            layer the first layer's whole map.
        enlarge: how many times larger the feedback makes the last layer's map.

    Raises:
        ValueError: no layer, pictures that are not square, maps that do not fit.
    """

    layers: tuple[Layer, ...] = ()
    feedback: int = 0
    enlarge: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not isinstance(self.neuron, SoftResetParameters):
            raise ValueError("FeedbackNetwork: expected at least one layer, of neurons with reset by subtraction")
        if self.layers[0].kind == "pool" and self.feedback:
            raise ValueError("FeedbackNetwork: feedback must go to a layer of trained weights, found a pool")
        if any(height != width for _, height, width in self.maps):
            raise ValueError(f"FeedbackNetwork: found maps {self.maps}, expected square ones")
        if min(side for shown in self.maps for side in shown) < 1:
            raise ValueError(f"FeedbackNetwork: the architecture leaves nothing of a picture of {self.picture}")
        if not self.feedback:
            return
        link = self.links[-1]
        left = link.fine[1] - ((link.coarse[1] - 1) * link.stride - 2 * link.padding + link.kernel)
        if not 0 <= left < link.stride:
            raise ValueError(
                f"FeedbackNetwork: a feedback of kernel {self.feedback} cannot take the last layer's map "
                f"{self.maps[-1]} to the first one's, {self.maps[1]}, with stride {link.stride}"
            )

    @cached_property
    def maps(self) -> tuple[Map, ...]:
        """Of the inputs and of each layer."""
        dense = self.layers[0].kind == "dense"
        channels, height, width = self.picture if self.picture and not dense else (self.inputs - 1, 1, 1)
        maps: list[Map] = [(channels, height, width)]
        for layer in self.layers:
            channels, height, width = maps[-1]
            if layer.kind == "dense":
                maps.append((layer.channels, 1, 1))
                continue
            padding = layer.kernel // 2 if layer.kind == "convolution" else 0
            sides = [(side + 2 * padding - layer.kernel) // layer.stride + 1 for side in (height, width)]
            maps.append((layer.channels or channels, sides[0], sides[1]))
        return tuple(maps)

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """From the inputs to the first layer, from each layer to the next, and last the feedback."""
        links = []
        for target, layer in enumerate(self.layers):
            fine, coarse = self.maps[target : target + 2]
            dense = layer.kind == "dense"
            kernel, stride = (fine[1], 1) if dense else (layer.kernel, layer.stride)
            padding = layer.kernel // 2 if layer.kind == "convolution" else 0
            pool = layer.kind == "pool"
            links.append(Link(target - 1, target, True, fine, coarse, kernel, stride, padding, pool))
        if self.feedback:
            first, last, top = self.maps[1], self.maps[-1], len(self.layers) - 1
            padding = 0 if self.layers[-1].kind == "dense" else self.feedback // 2
            links.append(Link(top, 0, False, first, last, self.feedback, self.enlarge, padding, False))
        return tuple(links)

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(channels, weights of a neuron) of each layer; a pool's neurons have none."""
        shapes = []
        for number, layer in enumerate(self.layers):
            link = self.links[number]
            heard = 0 if layer.kind == "pool" else link.fine[0] * link.kernel**2 + 1
            fed_back = self.maps[-1][0] * self.feedback**2 if number == 0 else 0
            shapes.append((self.maps[number + 1][0], heard + fed_back))
        return tuple(shapes)

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """How often each layer's channels are there."""
        return tuple(height * width for _, height, width in self.maps[1:])

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Neurons of each layer."""
        return tuple(channels * height * width for channels, height, width in self.maps[1:])

    @cached_property
    def fan_outs(self) -> tuple[int, ...]:
        """Synapses that a line drives, on average over its map: one of the inputs, then of each layer."""
        driven = [0.0] * (len(self.layers) + 1)
        for link in self.links:
            sender = link.fine if link.upwards else link.coarse
            driven[link.source + 1] += link.operations / (sender[0] * sender[1] * sender[2])
        return tuple(round(mean) for mean in driven)

    @cached_property
    def always_on(self) -> int:
        """Biases, which act at every step."""
        return sum(width for width, layer in zip(self.widths, self.layers, strict=True) if layer.kind != "pool")

    @cached_property
    def operations(self) -> int:
        """Multiply-accumulates of one step if all neurons of all layers, without the inputs, sent a value."""
        return sum(link.operations for link in self.links[1:])

    def split(self, parameters: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Parameters [P] as weights of each link, [coarse, fine, kernel, kernel], and biases of each layer."""
        weights, biases = [], []
        layers = self.unpack(parameters)
        for link, own in zip(self.links, layers, strict=False):
            coarse, fine, side, _ = link.weights
            if link.pool:
                weights.append(torch.eye(coarse, dtype=own.dtype)[..., None, None].expand(-1, -1, side, side) / side**2)
                biases.append(own.new_zeros(coarse))
                continue
            weights.append(own[:, : fine * side**2].reshape(coarse, fine, side, side))
            biases.append(own[:, -1])
        if self.feedback:
            coarse, fine, side, _ = self.links[-1].weights
            heard = layers[0][:, -1 - coarse * side**2 : -1]
            weights.append(heard.reshape(fine, coarse, side, side).transpose(0, 1))
        return weights, biases

    def join(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of ``split``: [P] of what belongs to each link and each layer; a pool's is left out."""
        parts = []
        for number, layer in enumerate(self.layers):
            if layer.kind == "pool":
                continue
            own = [weights[number].flatten(1)]
            if number == 0 and self.feedback:
                own.append(weights[-1].transpose(0, 1).flatten(1))
            parts.append(torch.cat([*own, biases[number][:, None]], dim=1).flatten())
        return torch.cat(parts)

    def feedback_norm(self, parameters: torch.Tensor) -> torch.Tensor:
        """Frobenius norm of the feedback as a matrix between the two layers' neurons, [] of parameters [P]."""
        link, weights = self.links[-1], self.split(parameters)[0][-1]
        pairs = link.pairs().to(weights.dtype)
        return (weights.square() * pairs[:, None] * pairs).sum().sqrt()

    @property
    def nominal(self) -> SoftResetParameters:
        """The neuron's constants."""
        assert isinstance(self.neuron, SoftResetParameters)
        return self.neuron
