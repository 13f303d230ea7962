"""A layer of the multi-step engine in plain torch: what ``multistep_kernels`` do, where tensors are not on the CPU.

The same values and gradients but for rounding. As there, a layer keeps its currents and nothing else for the backward
pass, which runs it once more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from spikebench.multistep_kernels import GRADED, SMOOTH
from spikebench.surrogates import FAMILIES

#: Added to variances in batch norm.
EPSILON = 1e-5


class Plan(NamedTuple):
    """How a layer is run: T, and what ``multistep_kernels.forward`` calls by the same names.

    Attributes:
        steps: T.
        decay: what a step leaves of a potential.
        family: of the surrogate, by its name.
        mode: what is sent.
        pool: side of the squares that send their largest value.
        edge: of the Bernoulli divergence; 0 does not compute it.
        normalise: whether currents have batch norm.
    """

    steps: int
    decay: float
    family: str
    mode: int
    pool: int
    edge: float
    normalise: bool


def spikes(*layer: Any) -> tuple[torch.Tensor, ...]:
    """``run_layer`` with its arguments, of which the backward pass keeps nothing else."""
    found: tuple[torch.Tensor, ...] = checkpoint(run_layer, *layer, use_reentrant=False, preserve_rng_state=False)
    return found


def run_layer(
    currents: torch.Tensor,
    gain: torch.Tensor,
    bias: torch.Tensor,
    log_sharpness: torch.Tensor,
    threshold: torch.Tensor,
    given: torch.Tensor | None,
    plan: Plan,
) -> tuple[torch.Tensor, ...]:
    """From what a link sums to what its neurons send, with batch norm between them.

    Backward it runs once more, in a thread that knows of no default device.

    Args:
        currents: [T or 1, N, H, W, C]; one step where they are constant.
        gain: [C], of batch norm, or what currents are multiplied with.
        bias: [C].
        log_sharpness: [T], log k of the surrogate.
        threshold: V, [].
        given: [T, N, H, W, C], what the neurons send instead of their own spikes.
        plan: how.

    Returns:
        What is sent [T, N, H / pool, W / pool, C], moments [MOMENTS, T, C], mean [C] and variance [C].
    """
    mean, variance = torch.zeros_like(bias), torch.ones_like(gain)
    scale, shift = gain, bias
    if plan.normalise:
        variance, mean = torch.var_mean(currents, dim=(0, 1, 2, 3), correction=0)
        scale = gain / (variance + EPSILON).sqrt()
        shift = bias - mean * scale
    drives, k = (_in_squares(currents, plan.pool) * scale + shift).unbind(), log_sharpness.exp()
    own = None if given is None else _in_squares(given, plan.pool)
    kept, potentials, sent = torch.zeros_like(drives[0]), [], []
    for t in range(plan.steps):
        u = plan.decay * kept + drives[t % len(drives)]
        o = _sent(u - threshold, k[t], plan.family, plan.mode == SMOOTH, None if own is None else own[t])
        kept = u * (1 - o)
        potentials.append(u)
        sent.append(o)
    u, o = torch.stack(potentials), torch.stack(sent)
    leaving = functional.hardtanh(u / threshold.detach(), 0.0, 1.0) if plan.mode == GRADED else o
    return _largest(leaving, plan.pool), _moments(u, o, k, threshold, plan), mean.detach(), variance.detach()


def _moments(u: torch.Tensor, o: torch.Tensor, k: torch.Tensor, threshold: torch.Tensor, plan: Plan) -> torch.Tensor:
    """[MOMENTS, T, C] of potentials and spikes [T, N, H, W, C]; the divergence is a function of u alone."""
    means = [values.mean(dim=(1, 2, 3)) for values in (u, u.square(), o, u * o.detach())]
    divergence = torch.zeros_like(means[0])
    if plan.edge:
        sharpness = k.detach()[:, None, None, None, None]
        p = _sent(u - threshold.detach(), sharpness, plan.family, True)
        p, q = (functional.hardtanh(share, plan.edge, 1 - plan.edge) for share in (p, o.detach()))
        divergence = (0.5 * (p - q) * (p.logit() - q.logit())).mean(dim=(1, 2, 3))
    return torch.stack([*means, divergence])


def _in_squares(values: torch.Tensor, side: int) -> torch.Tensor:
    """Values [T, N, H, W, C] without the rows and columns that no square of the pool holds."""
    high, wide = (length // side * side for length in values.shape[2:4])
    return values[:, :, :high, :wide]


def _largest(values: torch.Tensor, side: int) -> torch.Tensor:
    """[T, N, H / side, W / side, C]: of each square the largest value, the first of equal ones, which has the slope."""
    if side == 1:
        return values
    squares = values.unflatten(3, (-1, side)).unflatten(2, (-1, side)).movedim(3, 4).flatten(4, 5)
    places = torch.arange(side**2, device=values.device)[:, None]
    return torch.where(places == squares.argmax(dim=4, keepdim=True), squares, 0).sum(dim=4)


def _sent(
    x: torch.Tensor, k: torch.Tensor, family: str, smooth: bool, given: torch.Tensor | None = None
) -> torch.Tensor:
    found: torch.Tensor = _Sent.apply(x, k, family, smooth, given)  # type: ignore[no-untyped-call]
    return found


class _Sent(torch.autograd.Function):
    """A step of x = u - V, the primitive g(x; k), or what is given; backward always the primitive's slope."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, k: torch.Tensor, family: str, smooth: bool, given: torch.Tensor | None
    ) -> torch.Tensor:
        """[...], as ``x``."""
        ctx.save_for_backward(x, k)
        ctx.family = family
        if given is not None:
            return given.clone()
        return FAMILIES[family].primitive(k * x) if smooth else (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Slopes in x and in k [], where it is a variable."""
        x, k = ctx.saved_tensors
        through = slope * FAMILIES[ctx.family].slope(k * x)
        return through * k, (through * x).sum() if ctx.needs_input_grad[1] else None, None, None, None
