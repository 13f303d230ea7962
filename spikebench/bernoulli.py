"""Binary weights with independent Bernoulli posteriors, and the natural-gradient step of BiSNN (arXiv 2012.08300).

A weight is +1 with probability sigmoid(2 w^r); w^r is its natural parameter, mu = tanh(w^r) its mean. The objective is
E_q[L] + rho KL(q || q_0). A relaxed sample (Gumbel-softmax, also called concrete, distribution) of temperature tau is

    w = tanh((w^r + delta) / tau),  delta = 1/2 ln(e / (1 - e)),  e uniform in (0, 1),

through which the gradient in mu, which is the natural gradient in w^r, is dL/dw (1 - w^2) / (tau (1 - mu^2)).
Equations from the authors' code; the reading of rho and the stable form of the scale are explained in docs/papers.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from spikebench import local_kernels, number_kernels
from spikebench.networks import binary


@dataclass(frozen=True)
class Posterior:
    """Constants of the rule.

    Attributes:
        temperature: tau.
        kl_weight: rho.
        prior_probability: p_0, of +1 in the prior.
        cap: the scale (1 - w^2) / (tau (1 - mu^2)) is cut at this: one sample may not throw a weight far.
        literal: the scale as the published code computes it, 1e-10 added above and below and nothing cut; in single
            precision it is wrong by orders of magnitude far from w^r = 0.
    """

    temperature: float = 1.0
    kl_weight: float = 0.0
    prior_probability: float = 0.5
    cap: float = 1e3
    literal: bool = False

    @property
    def prior(self) -> float:
        """w^r_0, the prior's natural parameter."""
        return 0.5 * math.log(self.prior_probability / (1 - self.prior_probability))


def relax(
    natural: torch.Tensor, posterior: Posterior, keys: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Relaxed samples w and 1 - w^2 [B, P] of natural parameters [B, P]; ``keys`` [B] and ``step`` name the draw."""
    weights, slope = torch.empty_like(natural), torch.empty_like(natural)
    temperature = number_kernels.single(posterior.temperature)
    for b in range(len(natural)):
        local_kernels.relax(natural[b].numpy(), temperature, int(keys[b]), step, weights[b].numpy(), slope[b].numpy())
    return weights, slope


def natural_step(
    natural: torch.Tensor,
    gradient: torch.Tensor,
    weights: torch.Tensor,
    slope: torch.Tensor,
    rates: torch.Tensor,
    posterior: Posterior,
) -> None:
    """w^r <- (1 - eta rho) w^r - eta (dL/dw (1 - w^2) / (tau (1 - mu^2)) - rho w^r_0), in place.

    Args:
        natural: [B, P] w^r, overwritten.
        gradient: [B, P] dL/dw at the relaxed weights.
        weights: [B, P] w.
        slope: [B, P] 1 - w^2.
        rates: [B], eta.
        posterior: tau, rho and w^r_0.
    """
    constants = [number_kernels.single(getattr(posterior, n)) for n in ("temperature", "kl_weight", "prior", "cap")]
    for b in range(len(natural)):
        arrays = [x[b].numpy() for x in (natural, gradient, weights, slope)]
        local_kernels.natural_step(*arrays, number_kernels.single(rates[b]), *constants, posterior.literal)


def sign(natural: torch.Tensor) -> torch.Tensor:
    """The most probable weights, -1 or 1; of 0 it is 1."""
    return binary(natural)


def probability(natural: torch.Tensor) -> torch.Tensor:
    """P(w = +1)."""
    return torch.sigmoid(2 * natural)


def draw(natural: torch.Tensor, number: int, seeds: torch.Tensor) -> torch.Tensor:
    """Independent weights +-1 [B, S, P] of natural parameters [B, P]; ``seeds`` [B] name the draw.

    The first s of S weights are those that a call for s gives.
    """
    uniforms = [torch.rand((number, natural.shape[1]), generator=torch.Generator().manual_seed(int(s))) for s in seeds]
    return torch.where(torch.stack(uniforms) < probability(natural)[:, None], 1.0, -1.0)
