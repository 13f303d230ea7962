"""How far potentials are from what their spikes say: the divergences that PDA may minimise, and their controls.

Which distributions and which symmetric divergence arXiv 2304.13289 means is unknown; these are candidates, and each is
a function of a layer's moments, so that to measure one costs nothing and to train on it a few numbers a channel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

#: Added to variances, so that silent layers have a finite divergence.
SILENT = 1e-4
#: Probabilities of the Bernoulli divergence keep so far away from 0 and 1.
EDGE = 0.01
#: The divergences and the controls, by name.
SHIFTS = ("a-gauss", "a-bern", "b", "c", "quantisation", "rate")


class Normal(NamedTuple):
    """Means and variances of a distribution a channel and step, [T, C] each."""

    mean: torch.Tensor
    variance: torch.Tensor


def divergence(p: Normal, q: Normal) -> torch.Tensor:
    """Half the sum of the two Kullback-Leibler divergences of normal distributions, [T, C].

    D = ((s_p^2 + d^2) / s_q^2 + (s_q^2 + d^2) / s_p^2) / 4 - 1/2 with d = mu_p - mu_q.
    """
    apart = (p.mean - q.mean).square()
    first, second = p.variance + SILENT, q.variance + SILENT
    return ((first + apart) / second + (second + apart) / first) / 4 - 0.5


def potentials(moments: torch.Tensor) -> Normal:
    """Of potentials before the reset, of moments [5, T, C] (``multistep_kernels.MOMENTS``)."""
    return Normal(moments[0], (moments[1] - moments[0].square()).clamp(min=0))


def quantised(moments: torch.Tensor, threshold: torch.Tensor, detach: bool) -> Normal:
    """Of V o, what spikes make of them."""
    rate = moments[2].detach() if detach else moments[2]
    return Normal(threshold * rate, threshold.square() * (rate - rate.square()).clamp(min=0))


def shift(
    name: str, moments: torch.Tensor, threshold: torch.Tensor, detach: bool = True, by_layer: bool = False
) -> torch.Tensor:
    """The shift [] of one layer, the mean over its channels and steps; of candidate C see ``between_paths``.

    Args:
        name: ``a-gauss``, potentials against their quantised values; ``a-bern``, the surrogate's primitive against the
            spikes; ``b``, potentials against a normal distribution of mean 0 and variance V^2; ``quantisation``,
            E[(u - V o)^2]; ``rate``, spikes a step.
        moments: [5, T, C].
        threshold: V, [].
        detach: take spikes as given, as ``quantisation`` always does and ``rate`` never.
        by_layer: pool a layer's channels before they are compared.

    Raises:
        ValueError: another name.
    """
    if by_layer:
        moments = moments.mean(dim=2, keepdim=True)
    if name == "a-gauss":
        return divergence(potentials(moments), quantised(moments, threshold, detach)).mean()
    if name == "a-bern":
        return moments[4].mean()
    if name == "b":
        fixed = Normal(torch.zeros_like(moments[0]), torch.ones_like(moments[0]) * threshold.square())
        return divergence(potentials(moments), fixed).mean()
    if name == "quantisation":
        return (moments[1] - 2 * threshold * moments[3] + threshold.square() * moments[2].detach()).mean()
    if name == "rate":
        return moments[2].mean()
    raise ValueError(f"shift: found {name!r}, allowed: {', '.join(SHIFTS)}")


def between_paths(moments: torch.Tensor, unquantised: torch.Tensor, by_layer: bool = False) -> torch.Tensor:
    """Candidate C of one layer []: potentials that spikes drive, against those that clip(u, 0, V) / V drives.

    Args:
        moments: [5, T, C] of the network.
        unquantised: likewise, of the second path.
        by_layer: as in ``shift``.
    """
    if by_layer:
        moments, unquantised = (m.mean(dim=2, keepdim=True) for m in (moments, unquantised))
    return divergence(potentials(moments), potentials(unquantised)).mean()
