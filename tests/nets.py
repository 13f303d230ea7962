"""Networks for tests whose arithmetic is exact: weights, inputs, thresholds and decays are small multiples of powers
of two, so that no sum is rounded in single precision, whatever its order and whether multiply-adds are fused.

Bits needed: inputs are multiples of 1/4, weights of 1/8 and a decay of 1/2 adds one bit a step (3/4 adds two), so that
eight steps need at most 5 + 16 bits after the point and potentials stay below 8.

SRM neurons with 4 or 16 inputs have c = 1/2 or 1/4. The decay of 3/4 of their membrane and that of 1/4 of their
refractoriness add two bits a step each and that of 1/2 of their synapse one, so that six steps need at most 5 + 10 + 2.
"""

from __future__ import annotations

import torch

from spikebench.networks import Network
from spikebench.neurons import GLMParameters, SRMParameters

SRM = SRMParameters(membrane_decay=0.75, synapse_decay=0.5, refractory_decay=0.25)
#: As many steps of SRM neurons are exact.
SRM_STEPS = 6


def dyadic(shape: tuple[int, ...], generator: torch.Generator, grain: float = 0.125) -> torch.Tensor:
    """Random multiples of ``grain`` in [-1, 1], float32."""
    steps = round(1 / grain)
    return torch.randint(-steps, steps + 1, shape, generator=generator).float() * grain


def weights(network: Network, generator: torch.Generator, *leading: int) -> torch.Tensor:
    """Random dyadic parameters [*leading, P]."""
    return dyadic((*leading, network.parameters), generator)


def inputs(network: Network, generator: torch.Generator, samples: int, steps: int, constant: bool) -> torch.Tensor:
    """Random dyadic inputs [N, T, I] in [0, 1]; a constant current is stored once and expanded."""
    values = dyadic((samples, 1 if constant else steps, network.inputs), generator, grain=0.25).abs()
    return values.expand(-1, steps, -1)


def srm(hidden: tuple[int, ...] = (16, 3), weight_bits: int = 0) -> Network:
    """An SRM network of four lines beside the constant one; all layers but the last should have 4 or 16 neurons."""
    return Network(5, hidden, 2, SRM, weight_bits=weight_bits)


def glm(hidden: int = 3, outputs: int = 2, output_feedback: bool = True, inputs: int = 5) -> Network:
    """A GLM network with few and short filters, of four lines beside the constant one."""
    return Network(inputs, (hidden,), outputs, GLMParameters(filters=3, taps=4, output_feedback=output_feedback))


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)
