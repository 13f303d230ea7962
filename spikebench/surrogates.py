"""Surrogate gradients: what stands for the derivative of the spike in the backward pass.

The functions are snnTorch's (``snntorch.surrogate``); each comes with its primitive, whose true derivative it is, so
that a smoothed network exists on which gradients can be checked by finite differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from snntorch import surrogate

Function = Callable[[torch.Tensor], torch.Tensor]


class Surrogate(NamedTuple):
    """A spike function of x = V - theta.

    Attributes:
        spike: Heaviside step forward, surrogate derivative backward.
        primitive: the smooth function with that derivative.
    """

    spike: Function
    primitive: Function


def _gaussian_backward(x: torch.Tensor, gradient: torch.Tensor, spikes: torch.Tensor) -> torch.Tensor:
    """0.5 N(x; 0, 0.5^2), the choice of the adjacent radar-gesture code (papers' ledger, docs/papers.md)."""
    return gradient * (0.5 / (0.5 * math.sqrt(2 * math.pi))) * torch.exp(-2.0 * x * x)


SURROGATES: dict[str, Surrogate] = {
    "gaussian": Surrogate(
        spike=surrogate.custom_surrogate(_gaussian_backward),
        primitive=lambda x: 0.25 * (1 + torch.erf(x * math.sqrt(2.0))),
    ),
    "fast-sigmoid": Surrogate(
        spike=surrogate.fast_sigmoid(slope=2.0),
        primitive=lambda x: 0.5 + x / (1 + 2.0 * x.abs()),
    ),
    "arctan": Surrogate(
        spike=surrogate.atan(alpha=2.0),
        primitive=lambda x: 0.5 + torch.atan(math.pi * x) / math.pi,
    ),
}


class Family(NamedTuple):
    """A shape that a sharpness k > 0 scales: g(x; k) = G(k x), so dg/dx = k G'(k x) and dg/dk = (x/k) dg/dx.

    Attributes:
        slope: G'.
        primitive: G.
    """

    slope: Function
    primitive: Function


#: The first four have area 1; ``SURROGATES`` are the last two at k = 1, and arctan at 2.
FAMILIES: dict[str, Family] = {
    "rectangular": Family(lambda z: (z.abs() < 0.5).to(z.dtype), lambda z: (0.5 + z).clamp(0, 1)),
    "triangular": Family(
        lambda z: (1 - z.abs()).clamp(min=0),
        lambda z: 0.5 + z.clamp(-1, 1) - 0.5 * z.clamp(-1, 1) * z.abs().clamp(max=1),
    ),
    "arctan": Family(
        lambda z: 0.5 / (1 + (math.pi / 2 * z).square()), lambda z: torch.atan(math.pi / 2 * z) / math.pi + 0.5
    ),
    "sigmoid": Family(lambda z: torch.sigmoid(z) * torch.sigmoid(-z), torch.sigmoid),
    "gaussian": Family(
        lambda z: torch.exp(-2 * z.square()) / math.sqrt(2 * math.pi),
        lambda z: 0.25 * (1 + torch.erf(z * math.sqrt(2.0))),
    ),
    "fast-sigmoid": Family(lambda z: (1 + 2 * z.abs()).square().reciprocal(), lambda z: 0.5 + z / (1 + 2 * z.abs())),
}
#: The sharpness at which a family is the surrogate of the same name in ``SURROGATES``.
AS_SURROGATE = {"gaussian": 1.0, "fast-sigmoid": 1.0, "arctan": 2.0}


def derivative(function: Function, x: torch.Tensor) -> torch.Tensor:
    """The derivative that ``function`` hands back, element by element, same shape as ``x``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return gradient
