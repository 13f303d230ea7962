"""How far the gradient by spikes is from the exact one, and average rates from the equilibrium, on one minibatch."""

from __future__ import annotations

import torch

from spikebench import adjoint
from spikebench.feedback_training import Shown, built, weight_gradient
from spikebench.method import Task


def measure(task: Task, shown: Shown, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """Four numbers a cell, [B] float64.

    ``gradient_error`` and ``gradient_cosine``: of the weights' gradient, against that of the exact adjoint at the same
    average rates, as |g - g*| / |g*| and g g* / |g| |g*|. ``clipped_error``: the same against the adjoint that is
    clipped to +-1, which is what the couples can tell. ``rate_error``: the mean distance of the average rates from the
    equilibrium.

    Args:
        task: with the settings.
        shown: the minibatch, all at the same devices, which are ideal.
        gradient: [B, P], by spikes.
    """
    # Iterations end when all samples have converged: each cell for itself keeps its bits beside others.
    found = [_of_one(task, shown.cell(b), gradient[b : b + 1]) for b in range(len(gradient))]
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}


def _of_one(task: Task, shown: Shown, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """The numbers of one cell, [] each."""
    net = built(task)
    factors = adjoint.transmission(net, shown.rates.mean, shown.masks)
    exact = adjoint.broyden(net, shown.weights, shown.slope, factors, 300, 300, 1e-13).adjoint
    clipped = adjoint.clipped(net, shown.weights, shown.slope, factors)
    rates = adjoint.equilibrium(net, shown.weights, shown.inputs, shown.masks)
    error, cosine = compare(gradient[0], weight_gradient(task, shown, exact)[0])
    return {
        "gradient_error": error,
        "gradient_cosine": cosine,
        "clipped_error": compare(gradient[0], weight_gradient(task, shown, clipped)[0])[0],
        "rate_error": (shown.rates.mean - rates).abs().mean(),
    }


def compare(found: torch.Tensor, exact: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative error and cosine, [...] float64, of gradients [..., P]; 0 and 1 where both are 0."""
    found, exact = found.double(), exact.double()
    size, own = exact.norm(dim=-1), found.norm(dim=-1)
    cosine = (found * exact).sum(dim=-1) / (size * own).clamp(min=1e-300)
    error = (found - exact).norm(dim=-1) / size.clamp(min=1e-300)
    return error, torch.where((size == 0) & (own == 0), 1.0, cosine)
