"""The shape of a network and the layout of its parameters; dynamics are in ``neurons``, faults in ``chip``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch

from spikebench.neurons import LIFParameters

NOMINAL = LIFParameters()


@dataclass(frozen=True)
class Network:
    """A dense feed-forward network of LIF neurons, read out by its output spike counts.

    Every layer after the first has one more input, an always-on line (the first layer's constant line comes with the
    data). Without hidden layers the inputs drive the outputs.

    Attributes:
        inputs: input lines, the data's constant line included.
        hidden: widths of the hidden layers.
        outputs: output neurons.
        neuron: nominal neuron parameters.
        count_gain: b in p(y = k) = softmax(b * counts)_k.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    neuron: LIFParameters = NOMINAL
    count_gain: float = 1.0

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(neurons, inputs) of each layer's weights, the always-on line as last input of the later layers."""
        widths = (self.inputs, *self.hidden, self.outputs)
        return tuple((o, i if layer == 0 else i + 1) for layer, (i, o) in enumerate(pairwise(widths)))

    @cached_property
    def parameters(self) -> int:
        """Number of weights P."""
        return sum(o * i for o, i in self.shapes)

    def unpack(self, parameters: torch.Tensor) -> list[torch.Tensor]:
        """Flat parameters [..., P] to one view [..., neurons, inputs] a layer."""
        parts = torch.split(parameters, [o * i for o, i in self.shapes], dim=-1)
        return [p.unflatten(-1, shape) for p, shape in zip(parts, self.shapes, strict=True)]


def log_probabilities(counts: torch.Tensor, count_gain: float) -> torch.Tensor:
    """The logarithm of p(y = k | counts) = softmax(b * counts)_k, over the last axis (our choice, docs/papers.md)."""
    return torch.log_softmax(count_gain * counts, dim=-1)
