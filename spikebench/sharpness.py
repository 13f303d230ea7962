"""How the sharpness of a surrogate may be found while training: candidates for what PSG of arXiv 2304.13289 does.

The forward pass ignores the surrogate, so that no loss has a gradient in its sharpness. P1 takes the gradient of the
network in which each spike were the surrogate's primitive, which ``multistep`` hands back beside the others. P2 and P3
are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

#: Of a central difference in log k.
STEP = 0.1
#: A scale of batch norm below this one makes no narrower surrogate.
NARROWEST = 0.05

Gradient = Callable[[torch.Tensor], torch.Tensor]


def sensitivity(gradient: Gradient, layers: int, device: torch.device | None = None) -> torch.Tensor:
    """How the weights' surrogate gradient depends on each layer's log k, [L, Q], by central differences.

    Of surrogates with edges, as the rectangular one, only a difference sees that a potential falls in or out.

    Args:
        gradient: [Q], as a function of what is added to the log k of the layers, [L].
        layers: L.
        device: of what is added; None is the default device.
    """
    offsets = STEP * torch.eye(layers, device=device)
    return torch.stack([(gradient(offset) - gradient(-offset)) / (2 * STEP) for offset in offsets])


def look_ahead(gradient: torch.Tensor, sensitivity: torch.Tensor, rate: float) -> torch.Tensor:
    """P2: slope of the next minibatch's loss in log k, [L], through the step w' = w - rate g(w; k).

    dL(w')/d log k = - rate grad L(w') . dg/d log k.

    Args:
        gradient: [Q], grad L(w') on the next minibatch.
        sensitivity: [L, Q], of the step's gradient.
        rate: learning rate of the step.
    """
    return -rate * (sensitivity @ gradient)


def difference(loss: Gradient, layers: int, device: torch.device | None = None) -> torch.Tensor:
    """Slopes [L] of a loss in the layers' log k by central differences: what a look-ahead gradient is held to.

    Args:
        loss: [], as a function of what is added to the log k of the layers, [L].
        layers: L.
        device: of what is added; None is the default device.
    """
    offsets = 2 * STEP * torch.eye(layers, device=device)
    return torch.stack([(loss(offset) - loss(-offset)) / (4 * STEP) for offset in offsets])


def from_statistics(gains: Sequence[torch.Tensor], thresholds: torch.Tensor, decay: float, steps: int) -> torch.Tensor:
    """P3: log k [L, T] of widths that follow the spread of potentials, as in MPD-AGL's code.

    The width 1 / k is 2 gamma V at the first step and 2 sqrt(1 + decay^2) gamma V at all others, gamma being the mean
    scale of the layer's batch norm.

    Args:
        gains: of each layer, [channels].
        thresholds: V, [L].
        decay: of the potential.
        steps: T.
    """
    gamma = torch.stack([gain.mean() for gain in gains]).clamp(min=NARROWEST)
    growth = torch.full((steps,), math.sqrt(1 + decay**2), device=thresholds.device)
    growth[0] = 1.0
    return -(2 * (gamma * thresholds)[:, None] * growth).log()
