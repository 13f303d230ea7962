"""Draws made of a stream's own (``seeds.Streams``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from spikebench.seeds import Streams


def uniform(streams: Streams, shape: Sequence[int], *label: object) -> torch.Tensor:
    """Uniform draws from (0, 1), [B, *shape]: what share of the normal distribution lies below ``streams.normal``."""
    shares: torch.Tensor = torch.special.ndtr(streams.normal(shape, *label))
    return shares
