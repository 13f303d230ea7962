"""A feedback network's equilibrium and adjoint by explicit matrices between all neurons, one sample at a time."""

from __future__ import annotations

from typing import Any

import feedback_truth as truth
import nets
import numpy as np
import torch

from spikebench import adjoint
from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec
from spikebench.chip.protocol import Rates
from spikebench.chip.simulated import SimulatedChip
from spikebench.layered_networks import LayeredNetwork

#: Convolutions with strides and feedback to twice the side, dense layers, pools, one layer, and none that feeds back.
SMALL = {
    "convolutions": ("4C3s-3C3s (F4C3u)", (2, 8, 8)),
    "dense": ("6-5 (F6)", (2, 2, 2)),
    "dense last": ("3C3s-5 (F3)", (2, 5, 5)),
    "pool": ("4C3-P2-3C3 (F4C3u)", (1, 6, 6)),
    "one layer": ("3C3 (F3C3)", (2, 4, 4)),
    "no feedback": ("3C3-P2-4C3-5", (1, 6, 6)),
}
#: Synapses of tied weight.
TIED = {"mean": ("3C3s-A5 (F3)", (2, 6, 6))}
WITH_FEEDBACK = [name for name, (words, _) in SMALL.items() if "F" in words]


def network(name: str, neuron: Any = truth.IF) -> LayeredNetwork:
    """One of ``SMALL`` and ``TIED``."""
    architecture, picture = (SMALL | TIED)[name]
    return feedback_network(architecture, 1 + int(np.prod(picture)), picture, 3, neuron)


def second_stage(net: LayeredNetwork, weights: torch.Tensor, *arguments: Any) -> Rates:
    """What ``Chip.differentiate`` gives on ideal devices."""
    return SimulatedChip(net, [FaultSpec()] * len(weights), [0] * len(weights)).differentiate(weights, *arguments)


def drawn(net: LayeredNetwork, devices: int = 1, feedback: float = 1.0, seed: int = 1) -> torch.Tensor:
    """Random parameters [B, P] of the size that training starts from, with small biases."""
    made = []
    for draws in torch.randn((devices, net.parameters), generator=nets.generator(seed)):
        weights, biases = net.split(draws)
        scaled = [w * (2 / (link.fine[0] * link.kernel**2)) ** 0.5 for link, w in zip(net.links, weights, strict=True)]
        scaled[-1] = scaled[-1] * (feedback if net.feedback else 1.0)
        made.append(net.join(scaled, [0.3 * bias for bias in biases]))
    return torch.stack(made)


def shown(net: LayeredNetwork, samples: int = 4, devices: int = 1, seed: int = 3) -> torch.Tensor:
    """Mean inputs [B, N, I - 1]."""
    return 2 * torch.rand((devices, samples, net.inputs - 1), generator=nets.generator(seed))


def masks(net: LayeredNetwork, samples: int = 4, devices: int = 1, smooth: bool = False) -> torch.Tensor:
    """Dropout of everything, the two of the first layer apart: [B, N, M + H].

    With ``smooth`` no neuron is left with its feedback alone: where that is 0, too, it would lie at the clip's corner.
    """
    neurons, share = sum(net.widths), 0.3
    drawn = torch.rand((devices, samples, neurons + net.widths[0]), generator=nets.generator(5)) >= share
    if smooth:
        drawn[..., neurons:] &= drawn[..., : net.widths[0]]
    return drawn.float() / (1 - share)


def slopes(net: LayeredNetwork, samples: int = 4, devices: int = 1, scale: float = 0.3) -> torch.Tensor:
    """A loss's slope in the last layer's rates, [B, N, n]."""
    return scale * torch.randn((devices, samples, net.widths[-1]), generator=nets.generator(6))


class Matrices:
    """One cell's network, its weights [P] between all neurons: ``links`` [target, source], and biases a neuron."""

    def __init__(self, net: LayeredNetwork, parameters: torch.Tensor) -> None:
        weights, biases = net.split(parameters.double())
        self.net, self.kappa = net, float(net.nominal.threshold) - float(net.nominal.rest)
        self.links = [truth.matrix(*pair) for pair in zip(net.links, weights, strict=True)]
        self.biases = [b.numpy().repeat(places) for b, places in zip(biases, net.positions, strict=True)]
        self.cuts = np.cumsum(net.widths)

    def parts(self, factors: torch.Tensor | np.ndarray | None) -> list[np.ndarray]:
        """Of [M + H] those of each layer, and of the feedback."""
        whole = np.ones(self.cuts[-1] + self.net.widths[0]) if factors is None else np.asarray(factors, float)
        return np.split(whole, self.cuts)

    def around(self, shown: np.ndarray, last: np.ndarray, masks: Any = None) -> list[np.ndarray]:
        """Rates of each layer where the last one's were ``last``, of one sample."""
        scale, signal, rates = self.parts(masks), shown, []
        for number in range(len(self.net.layers)):
            z = scale[number] * (self.links[number] @ signal + self.biases[number])
            if number == 0 and self.net.feedback:
                z = z + scale[-1] * (self.links[-1] @ last)
            signal = np.clip(z / self.kappa, 0, 1)
            rates.append(signal)
        return rates

    def settled(self, shown: np.ndarray, masks: Any = None) -> list[np.ndarray]:
        """The rates of each layer that give themselves."""
        last = np.zeros(self.net.widths[-1])
        for _ in range(2000):
            last = 0.5 * (last + self.around(shown, last, masks)[-1])
        return self.around(shown, last, masks)

    def factors(self, rates: list[np.ndarray], masks: Any = None) -> list[np.ndarray]:
        """[0 < a < 1] times the masks over kappa, of each layer and of the feedback."""
        slope = [((a > 0) & (a < 1)) / self.kappa for a in rates]
        return [m * s for m, s in zip(self.parts(masks), [*slope, slope[0]], strict=True)]

    def jacobian(self, factors: list[np.ndarray]) -> np.ndarray:
        """J: what the last layer's rates become, once around, [n, n]."""
        if not self.net.feedback:
            return np.zeros((self.net.widths[-1],) * 2)
        product = factors[-1][:, None] * self.links[-1]
        for number in range(1, len(self.net.layers)):
            product = factors[number][:, None] * (self.links[number] @ product)
        return product

    def down(self, factors: list[np.ndarray], last: np.ndarray, bound: float = np.inf) -> list[np.ndarray]:
        """The adjoint of each layer from the last one's."""
        found = [last]
        for number in range(len(self.net.layers) - 1, 0, -1):
            found.insert(0, np.clip(self.links[number].T @ (factors[number] * found[0]), -bound, bound))
        return found

    def adjoint(self, factors: list[np.ndarray], slope: np.ndarray) -> np.ndarray:
        """[M], by a dense linear system."""
        joined = self.jacobian(factors)
        return np.concatenate(self.down(factors, np.linalg.solve(np.eye(len(slope)) - joined.T, slope)))


class Point:
    """A network at its equilibrium with a loss's slope, of B cells and N samples, and the same by matrices."""

    def __init__(
        self, name: str, masked: bool = False, devices: int = 1, neuron: Any = truth.IF, smooth: bool = False
    ) -> None:
        self.net = net = network(name, neuron)
        self.weights, self.shown = drawn(net, devices), shown(net, devices=devices)
        self.masks = masks(net, devices=devices, smooth=smooth) if masked else None
        self.slope = slopes(net, devices=devices)
        self.rates = adjoint.equilibrium(net, self.weights, self.shown, self.masks)
        self.factors = adjoint.transmission(net, self.rates, self.masks)
        self.matrices = [Matrices(net, own) for own in self.weights]

    def by_matrices(self) -> np.ndarray:
        """Exact adjoints [B, N, M]."""
        return np.array(
            [
                [m.adjoint(m.parts(f), g.double().numpy()) for f, g in zip(self.factors[b], self.slope[b], strict=True)]
                for b, m in enumerate(self.matrices)
            ]
        )
