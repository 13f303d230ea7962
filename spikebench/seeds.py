"""Randomness from names: every seed is a hash of the axes it may depend on, and every draw has a label.

A draw depends on (seed, label) alone, never on what was drawn before it. So a repetition cannot leak into the next,
a batched program gives each cell the bits it would get alone, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(value: object, length: int = 16) -> str:
    """The first ``length`` hex digits of the sha256 of ``canonical(value)``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def seed(**axes: object) -> int:
    """A 63-bit seed, the sha256 of the named axes."""
    return int(digest(axes), 16) >> 1


@dataclass(frozen=True)
class Streams:
    """One stateless source of randomness a cell; every method takes labels that name the draw.

    ``seeds`` has one entry for each of the B cells that are trained together.
    """

    seeds: tuple[int, ...]

    def keys(self, *label: object) -> torch.Tensor:
        """Counter keys for kernels that make their own bits, [B] int64."""
        import torch

        return torch.tensor([seed(seed=s, label=label) for s in self.seeds], dtype=torch.int64)

    def generators(self, *label: object) -> list[torch.Generator]:
        """One fresh generator a cell."""
        import torch

        return [torch.Generator().manual_seed(seed(seed=s, label=label)) for s in self.seeds]

    def normal(self, shape: Sequence[int], *label: object) -> torch.Tensor:
        """Standard normal draws, [B, *shape]."""
        import torch

        return torch.stack([torch.randn(tuple(shape), generator=g) for g in self.generators(*label)])

    def permutation(self, length: int, *label: object) -> torch.Tensor:
        """A random order of ``range(length)`` for each cell, [B, length]."""
        import torch

        return torch.stack([torch.randperm(length, generator=g) for g in self.generators(*label)])

    def repeat(self, times: int) -> Streams:
        """The same streams ``times`` over, cell-major: [a, b] becomes [a, a, b, b]."""
        return Streams(tuple(s for s in self.seeds for _ in range(times)))
