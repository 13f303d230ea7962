"""Population coding: a number becomes the spikes of neurons that each prefer another value.

As in BiSNN (arXiv 2012.08300, authors' code): neuron k of n fires with probability 1/2 + 1/2 cos(pi (100 x - c_k) / W),
the argument limited to one half wave, with c_k = 100 k / (n - 1).
"""

from __future__ import annotations

import torch


def rates(x: torch.Tensor, neurons: int, width: float) -> torch.Tensor:
    """Firing probabilities [..., neurons] of numbers x [...] in [0, 1].

    Args:
        x: the numbers.
        neurons: n.
        width: W in units of the distance between two centres: 1 for two moons, 4 for the regression task.
    """
    spacing = 100 / (neurons - 1)
    centres = spacing * torch.arange(neurons)
    phase = torch.pi * (100 * x[..., None] - centres) / (width * spacing)
    return 0.5 + 0.5 * phase.clamp(-torch.pi, torch.pi).cos()
