"""Layered networks that are read out off the chip; ``architectures`` reads their names.

Their last layer may drive the first one (arXiv 2302.00232, 2109.14247), or layers of LIF neurons have shortcuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch.nn import functional

from spikebench.networks import Network
from spikebench.neurons import LIFParameters, SoftResetParameters

#: (channels, height, width) of what a layer's neurons form; a dense layer is a picture of one pixel.
Map = tuple[int, int, int]


class Layer(NamedTuple):
    """One layer as an architecture writes it.

    Attributes:
        kind: ``convolution``, ``pool`` (the mean of each square), ``largest`` (a square sends a spike where any of its
            neurons does) or ``dense``.
        channels: neurons at each position; of a pool of either kind, those of the layer before, and 0 here.
        kernel: side of what a neuron sees; 0 of a dense layer, which sees all.
        stride: pixels between the fields of neighbours.
        mean: whether a dense layer hears the mean of each channel of the map.
        shortcut: whether a convolution also hears the layer two before it.
    """

    kind: str
    channels: int
    kernel: int
    stride: int
    mean: bool = False
    shortcut: bool = False

    @property
    def trained(self) -> bool:
        """Whether it has weights and biases."""
        return self.kind in ("convolution", "dense")


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
        pool: whether each weight is 1 / kernel^2 from a channel to itself, which is no parameter; of kernel 1, a wire.
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
class LayeredNetwork(Network):
    """Layers of IF or LIF neurons with reset by subtraction, the last of which may drive the first; or of LIF neurons.

    The read-out is a linear one of the last layer's average rates, off the chip; it belongs to the method. A neuron's
    inputs are, in the order of its weights, the layer before, for the first layer the feedback, a shortcut, and a bias;
    convolved neurons share them channel by channel. The data's constant line is not connected.

    A shortcut between equal maps is wires of weight 1, which are no parameters, else a trained convolution of kernel 1.
    A dense layer that hears means has one weight a channel, w / positions at each of them: on a chip these synapses
    share their faults. Layers of largest values are gates, not neurons: no fault touches them, nor what they send.

    Attributes:
        layers: at least one.
        feedback: kernel side of the feedback; 0 is none, as in all networks of LIF neurons (``LIFParameters``). Between
            dense layers it is 1, from a dense to a convolutional layer the first layer's whole map.
        enlarge: how many times larger the feedback makes the last layer's map.

    Raises:
        ValueError: no layer, pictures that are not square, maps that do not fit, feedback of LIF neurons, shortcuts of
            others, or from nowhere.
    """

    layers: tuple[Layer, ...] = ()
    feedback: int = 0
    enlarge: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not isinstance(self.neuron, SoftResetParameters | LIFParameters):
            raise ValueError(
                "LayeredNetwork: expected at least one layer, of neurons with reset by subtraction or of LIF neurons"
            )
        if self.feedback and isinstance(self.neuron, LIFParameters):
            raise ValueError("LayeredNetwork: feedback is for neurons with reset by subtraction, found LIF neurons")
        if self.feedback and not self.layers[0].trained:
            raise ValueError("LayeredNetwork: feedback must go to a layer of trained weights, found a pool")
        if self.shortcuts and isinstance(self.neuron, SoftResetParameters):
            raise ValueError("LayeredNetwork: shortcuts are for LIF neurons, found reset by subtraction")
        for number in self.shortcuts:
            if number < 2 or self.layers[number].kind != "convolution":
                raise ValueError(
                    f"LayeredNetwork: found a shortcut to layer {number}, expected a convolution behind two layers"
                )
        if any(height != width for _, height, width in self.maps):
            raise ValueError(f"LayeredNetwork: found maps {self.maps}, expected square ones")
        if min(side for shown in self.maps for side in shown) < 1:
            raise ValueError(f"LayeredNetwork: the architecture leaves nothing of a picture of {self.picture}")
        for link in (self.links[number] for number in self.shortcuts.values()):
            if link.stride > 2 or (link.fine[1] - 1) // link.stride + 1 != link.coarse[1]:
                raise ValueError(
                    f"LayeredNetwork: a shortcut cannot take the map {link.fine} to {link.coarse} with stride 1 or 2"
                )
        if not self.feedback:
            return
        link = self.links[-1]
        left = link.fine[1] - ((link.coarse[1] - 1) * link.stride - 2 * link.padding + link.kernel)
        if not 0 <= left < link.stride:
            raise ValueError(
                f"LayeredNetwork: a feedback of kernel {self.feedback} cannot take the last layer's map "
                f"{self.maps[-1]} to the first one's, {self.maps[1]}, with stride {link.stride}"
            )

    @cached_property
    def maps(self) -> tuple[Map, ...]:
        """Of the inputs and of each layer."""
        flat = self.layers[0].kind == "dense" and not self.layers[0].mean
        channels, height, width = self.picture if self.picture and not flat else (self.inputs - 1, 1, 1)
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
    def shortcuts(self) -> dict[int, int]:
        """The layers with a shortcut, and which of the links each is."""
        targets = [number for number, layer in enumerate(self.layers) if layer.shortcut]
        return {target: len(self.layers) + place for place, target in enumerate(targets)}

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """From the inputs to the first layer, from each layer to the next, shortcuts, and last the feedback."""
        links = []
        for target, layer in enumerate(self.layers):
            fine, coarse = self.maps[target : target + 2]
            dense = layer.kind == "dense"
            kernel, stride = (fine[1], 1) if dense else (layer.kernel, layer.stride)
            padding = layer.kernel // 2 if layer.kind == "convolution" else 0
            links.append(Link(target - 1, target, True, fine, coarse, kernel, stride, padding, not layer.trained))
        for target in self.shortcuts:
            fine, coarse = self.maps[target - 1], self.maps[target + 1]
            stride = -(-fine[1] // coarse[1])
            links.append(Link(target - 2, target, True, fine, coarse, 1, stride, 0, fine == coarse))
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
            heard = link.fine[0] * (1 if layer.mean else link.kernel**2) + 1 if layer.trained else 0
            fed_back = self.maps[-1][0] * self.feedback**2 if number == 0 else 0
            if number in self.shortcuts:
                shortcut = self.links[self.shortcuts[number]]
                heard += 0 if shortcut.pool else shortcut.fine[0]
            shapes.append((self.maps[number + 1][0], heard + fed_back))
        return tuple(shapes)

    @property
    def read_out_off_chip(self) -> bool:
        """It is, whatever the neurons."""
        return True

    @cached_property
    def gates(self) -> tuple[float, ...]:
        """Of each layer of largest values, half of what one spike brings; 0 where there are neurons."""
        return tuple(0.5 / layer.kernel**2 if layer.kind == "largest" else 0.0 for layer in self.layers)

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
        return sum(width for width, layer in zip(self.widths, self.layers, strict=True) if layer.trained)

    @cached_property
    def operations(self) -> int:
        """Multiply-accumulates of one step if all neurons of all layers, without the inputs, sent a value."""
        return sum(link.operations for link in self.links[1:])

    def split(self, parameters: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Parameters [P] as weights of each link, [coarse, fine, kernel, kernel], and biases of each layer."""
        weights, biases = [], []
        layers = self.unpack(parameters)
        for number, (link, own) in enumerate(zip(self.links, layers, strict=False)):
            coarse, fine, side, _ = link.weights
            if link.pool:
                weights.append(_unit(link, own))
                biases.append(own.new_zeros(coarse))
                continue
            if self.layers[number].mean:
                weights.append((own[:, :fine, None, None] / side**2).expand(-1, -1, side, side))
            else:
                weights.append(own[:, : fine * side**2].reshape(coarse, fine, side, side))
            biases.append(own[:, -1])
        for target, number in self.shortcuts.items():
            link, own = self.links[number], layers[target]
            weights.append(_unit(link, own) if link.pool else own[:, -1 - link.fine[0] : -1, None, None])
        if self.feedback:
            coarse, fine, side, _ = self.links[-1].weights
            heard = layers[0][:, -1 - coarse * side**2 : -1]
            weights.append(heard.reshape(fine, coarse, side, side).transpose(0, 1))
        return weights, biases

    def join(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of ``split``: [P] of what belongs to each link and each layer; a pool's is left out."""
        parts = []
        for number, layer in enumerate(self.layers):
            if not layer.trained:
                continue
            own = [weights[number].sum(dim=(2, 3)) if layer.mean else weights[number].flatten(1)]
            if number == 0 and self.feedback:
                own.append(weights[-1].transpose(0, 1).flatten(1))
            if number in self.shortcuts and not self.links[self.shortcuts[number]].pool:
                own.append(weights[self.shortcuts[number]].flatten(1))
            parts.append(torch.cat([*own, biases[number][:, None]], dim=1).flatten())
        return torch.cat(parts)

    def feedback_norm(self, parameters: torch.Tensor) -> torch.Tensor:
        """Frobenius norm of the feedback as a matrix between the two layers' neurons, [] of parameters [P]."""
        link, weights = self.links[-1], self.split(parameters)[0][-1]
        pairs = link.pairs().to(weights.dtype)
        return (weights.square() * pairs[:, None] * pairs).sum().sqrt()

    @property
    def nominal(self) -> SoftResetParameters:
        """The constants of neurons with reset by subtraction."""
        assert isinstance(self.neuron, SoftResetParameters)
        return self.neuron

    @property
    def averaging(self) -> float:
        """What a step leaves of a spike's weight in average rates: lambda, and 1 of LIF neurons."""
        return float(self.nominal.leak) if isinstance(self.neuron, SoftResetParameters) else 1.0


def _unit(link: Link, like: torch.Tensor) -> torch.Tensor:
    """The weights of a pool."""
    channels, _, side, _ = link.weights
    return torch.eye(channels, dtype=like.dtype)[..., None, None].expand(-1, -1, side, side) / side**2
