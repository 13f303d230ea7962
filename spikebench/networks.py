"""The shape of a network and the layout of its parameters; dynamics are in ``neurons``, faults in ``chip``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch

from spikebench.neurons import GLMParameters, LIFParameters, SoftResetParameters, SRMParameters

NOMINAL = LIFParameters()
#: Real-valued weights are programmed into [-FULL_SCALE, FULL_SCALE] when they are quantised or stuck.
FULL_SCALE = 4.0
#: Bits that a real-valued weight takes in memory.
REAL_BITS = 32


class Convolution(NamedTuple):
    """A layer that looks at every position of a picture with the same weights.

    Attributes:
        channels: neurons at each position.
        kernel: side of what each of them sees, odd; beyond the picture's border it sees silence.
        pool: side of the squares that send on their largest value, each channel for itself; what is left over at the
            right and at the bottom sends nothing.
    """

    channels: int
    kernel: int
    pool: int


@dataclass(frozen=True)
class Network:
    """A feed-forward network of spiking neurons, dense or, of SRM neurons, convolutional.

    LIF networks are read out by the spike counts of their last layer. Every layer after the first has one more input,
    an always-on line (the first layer's constant line comes with the data). Without hidden layers the inputs drive the
    outputs.

    SRM networks are their hidden layers alone: their read-outs are fixed matrices that belong to the method. They have
    no biases: no always-on lines, and the data's constant line, the last one, is not connected. Convolutions have one
    bias a channel, the last of its weights, which acts past the filters: u = c (sum w p + b) - R.

    GLM networks have one hidden layer. Inputs and hidden neurons drive all neurons, outputs drive outputs (or nothing,
    see ``GLMParameters``), each line through M filters and always from the next step on; a neuron drives itself through
    the first filter alone. Every neuron has a bias, the last of its weights, and the data's constant line is not
    connected. In a layer's weights lines come in the order inputs, hidden, outputs, a line's M weights side by side;
    ``connected`` says which of them there are.

    Attributes:
        inputs: input lines, the data's constant line included.
        hidden: widths of the hidden layers; none where there are convolutions.
        outputs: output neurons; values that each layer's read-out has, where the neurons are SRM neurons.
        neuron: nominal neuron parameters.
        count_gain: b in p(y = k) = softmax(b * counts)_k.
        weight_bits: 1 where weights are -1 or 1 (SRM networks alone), 0 where they are real-valued.
        convolutions: in place of hidden layers (SRM networks alone).
        picture: (channels, height, width) of the input lines but the last, where they are one.

    Raises:
        ValueError: other numbers of bits, one-bit weights or convolutions of LIF neurons, an SRM network without a
            layer, a GLM network of other than one, or convolutions beside hidden layers, of no picture, or with an even
            kernel.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    neuron: LIFParameters | SRMParameters | GLMParameters | SoftResetParameters = NOMINAL
    count_gain: float = 1.0
    weight_bits: int = 0
    convolutions: tuple[Convolution, ...] = ()
    picture: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        srm = isinstance(self.neuron, SRMParameters)
        if self.weight_bits not in ((0, 1) if srm else (0,)):
            raise ValueError(f"Network.weight_bits: found {self.weight_bits}; 1 is for SRM neurons, 0 for all")
        if srm and not self.hidden + self.convolutions:
            raise ValueError("Network.hidden: found no layer, and an SRM network is made of nothing else")
        if isinstance(self.neuron, GLMParameters) and len(self.hidden) != 1:
            raise ValueError(f"Network.hidden: found {self.hidden}, expected one layer of GLM neurons")
        if not self.convolutions:
            return
        if not srm or self.hidden:
            raise ValueError("Network.convolutions: they are for SRM neurons, and in place of hidden layers")
        if len(self.picture) != 3 or math.prod(self.picture) != self.inputs - 1:
            raise ValueError(f"Network.picture: found {self.picture}, expected one of {self.inputs - 1} lines")
        if not all(kernel % 2 for _, kernel, _ in self.convolutions):
            raise ValueError(f"Network.convolutions: found {self.convolutions}, expected odd kernels")

    @property
    def read_out_off_chip(self) -> bool:
        """Whether the read-out is not on the chip, so that no layer is spared what hidden layers suffer."""
        return isinstance(self.neuron, SRMParameters)

    @cached_property
    def gates(self) -> tuple[float, ...]:
        """Of each layer: 0 where it is one of neurons, else the threshold of ideal gates that keep nothing."""
        return (0.0,) * len(self.shapes)

    @cached_property
    def maps(self) -> tuple[tuple[int, ...], ...]:
        """(channels, height, width) of the inputs and of what each convolution sends."""
        maps = [self.picture]
        for channels, _, pool in self.convolutions:
            maps.append((channels, *(side // pool for side in maps[-1][1:])))
        return tuple(maps)

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(neurons, inputs) of each layer's weights; an always-on line or a bias is the last input."""
        if self.convolutions:
            pairs = zip(self.maps, self.convolutions, strict=False)
            return tuple((layer.channels, shown[0] * layer.kernel**2 + 1) for shown, layer in pairs)
        if isinstance(self.neuron, SRMParameters):
            return tuple((o, i) for i, o in pairwise((self.inputs - 1, *self.hidden)))
        if isinstance(self.neuron, GLMParameters):
            lines, filters = self.inputs - 1 + self.hidden[0], self.neuron.filters
            return (self.hidden[0], lines * filters + 1), (self.outputs, (lines + self.outputs) * filters + 1)
        widths = (self.inputs, *self.hidden, self.outputs)
        return tuple((o, i if layer == 0 else i + 1) for layer, (i, o) in enumerate(pairwise(widths)))

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Of each SRM layer: c = 1 / sqrt(fan-in), which multiplies its sum; a bias does not count."""
        return tuple(float((inputs - bool(self.convolutions)) ** -0.5) for _, inputs in self.shapes)

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """How often each layer's neurons are there: once, or at each position of what they see."""
        if self.convolutions:
            return tuple(math.prod(shown[1:]) for shown in self.maps[:-1])
        return (1,) * len(self.shapes)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Lines that leave each layer."""
        return tuple(map(math.prod, self.maps[1:])) if self.convolutions else tuple(o for o, _ in self.shapes)

    @cached_property
    def fan_outs(self) -> tuple[int, ...]:
        """Synapses that a line drives: one of the inputs, then of each layer, as if no picture had a border."""
        if isinstance(self.neuron, GLMParameters):
            (hidden, _), (outputs, _), filters = *self.shapes, self.neuron.filters
            among = (outputs - 1) * filters + 1 if self.neuron.output_feedback else 0
            return (hidden + outputs) * filters, (hidden - 1 + outputs) * filters + 1, among
        kernels = [layer.kernel for layer in self.convolutions] or [1] * len(self.shapes)
        return (*(o * kernel**2 for (o, _), kernel in zip(self.shapes, kernels, strict=True)), 0)

    @cached_property
    def always_on(self) -> int:
        """Synapses that act at every step: those of always-on lines but the data's, and biases."""
        driven = [o * n for (o, _), n in zip(self.shapes, self.positions, strict=True)]
        if self.convolutions or isinstance(self.neuron, GLMParameters):
            return sum(driven)
        return 0 if isinstance(self.neuron, SRMParameters) else sum(driven[1:])

    @cached_property
    def parameters(self) -> int:
        """Number of weights P."""
        return sum(o * i for o, i in self.shapes)

    @cached_property
    def connected(self) -> torch.Tensor:
        """[P] bool, which weights there are: all but some of GLM networks; the others are 0 and stay so."""
        mask = torch.ones(self.parameters, dtype=torch.bool)
        if not isinstance(self.neuron, GLMParameters):
            return mask
        filters, first = self.neuron.filters, self.inputs - 1
        hidden, outputs = self.unpack(mask)
        for layer, start in ((hidden, first), (outputs, first + self.hidden[0])):
            own = layer[:, :-1].unflatten(1, (-1, filters))[:, start : start + len(layer)]
            own[range(len(layer)), range(len(layer)), 1:] = False
        if not self.neuron.output_feedback:
            outputs[:, (first + self.hidden[0]) * filters : -1] = False
        return mask

    @property
    def memory_bits(self) -> int:
        """What storing the weights takes."""
        return int(self.connected.sum()) * (self.weight_bits or REAL_BITS)

    @property
    def full_scale(self) -> float:
        """The largest weight that can be programmed, where that is bounded."""
        return 1.0 if self.weight_bits == 1 else FULL_SCALE

    def unpack(self, parameters: torch.Tensor) -> list[torch.Tensor]:
        """Flat parameters [..., P] to one view [..., neurons, inputs] a layer."""
        parts = torch.split(parameters, [o * i for o, i in self.shapes], dim=-1)
        return [p.unflatten(-1, shape) for p, shape in zip(parts, self.shapes, strict=True)]


def log_probabilities(counts: torch.Tensor, count_gain: float) -> torch.Tensor:
    """The logarithm of p(y = k | counts) = softmax(b * counts)_k, over the last axis (our choice, docs/papers.md)."""
    return torch.log_softmax(count_gain * counts, dim=-1)


def binary(weights: torch.Tensor) -> torch.Tensor:
    """sign(w), with sign(0) = 1: what a device of one-bit weights makes of those that are programmed."""
    return (weights >= 0).to(weights.dtype).mul_(2).sub_(1)
