"""Real numbers in [0, 1] to input lines over time; every code here gives the same result each time it is called."""

from __future__ import annotations

import torch

ENCODINGS = ("constant", "latency", "rate")


def constant_current(x: torch.Tensor, steps: int) -> torch.Tensor:
    """The value itself as a current at every step: [N, I] to [N, T, I], stored once and expanded."""
    return x[:, None, :].expand(-1, steps, -1)


def latency(x: torch.Tensor, steps: int) -> torch.Tensor:
    """One spike at step round((1 - x) T): large values early, and a value that rounds to T never spikes."""
    times = torch.round((1 - x) * steps).long()
    return (torch.arange(steps)[None, :, None] == times[:, None, :]).to(x.dtype)


def rate(x: torch.Tensor, steps: int, generator: torch.Generator) -> torch.Tensor:
    """Bernoulli spikes with probability x at each step, drawn once: the caller freezes them by the generator's seed."""
    return (torch.rand((len(x), steps, x.shape[1]), generator=generator) < x[:, None, :]).to(x.dtype)


def with_constant_line(inputs: torch.Tensor) -> torch.Tensor:
    """Add a last input line that is 1 at every step: [N, T, I] to [N, T, I + 1]; an expanded T stays expanded."""
    steps = inputs.shape[1]
    if inputs.stride(1) == 0:
        line = torch.ones_like(inputs[:, :1, :1])
        return torch.cat([inputs[:, :1], line], dim=2).expand(-1, steps, -1)
    return torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=2)
