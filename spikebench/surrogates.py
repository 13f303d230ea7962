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


def derivative(function: Function, x: torch.Tensor) -> torch.Tensor:
    """The derivative that ``function`` hands back, element by element, same shape as ``x``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return gradient
