"""Implicit differentiation of a feedback network's equilibrium (arXiv 2109.14247 and 2302.00232).

With kappa = V_th - u_rest, sigma the clip to [0, 1], D the dropout masks and x the inputs' mean, average rates tend to

    a^1 = sigma((D (W a_x + b) + D_fb W_fb a^L) / kappa),   a^l = sigma(D (W^l a^(l-1) + b^l) / kappa).

A loss of a^L with slope g has the adjoint beta^L = J^T beta^L + g, where J takes a^L once around, and beta^l =
W^(l+1)^T (m D beta)^(l+1) / kappa, with m = [0 < a < 1]; dL/dW^l = (m beta)^l a^(l-1) / kappa.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from spikebench import adjoint_kernels
from spikebench.chip import feedback
from spikebench.chip.faults import FaultSpec, draw_device
from spikebench.chip.feedback import Layout
from spikebench.chip.feedback_session import weigh
from spikebench.chip.protocol import Rates
from spikebench.layered_networks import LayeredNetwork
from spikebench.neurons import CoupleParameters

#: A rate so near to 1 counts as 1: a leaky average of nothing but spikes misses it by rounding.
FULL = 1.0 - 1e-6

layout = lru_cache(maxsize=8)(Layout)


class Solved(NamedTuple):
    """An adjoint and what it took.

    Attributes:
        adjoint: [B, N, M] of all layers.
        residual: [B, N], norm of g + J^T beta - beta of the last layer.
        products: [B], how often J^T was applied.
    """

    adjoint: torch.Tensor
    residual: torch.Tensor
    products: torch.Tensor


def is_open(rates: torch.Tensor) -> torch.Tensor:
    """Where the clip of average rates has a slope, m = [0 < a < 1], float."""
    return ((rates > 0) & (rates < FULL)).float()


def transmission(network: LayeredNetwork, rates: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """[B, N, M + H], m D / kappa of each layer's link from below, and m D_fb / kappa of the first one's feedback.

    Args:
        network: whose H neurons the first layer has.
        rates: [B, N, M].
        masks: [B, N, M + H], D and D_fb; None is 1.
    """
    threshold, rest, _ = network.nominal
    slope = is_open(rates) / (float(threshold) - float(rest))
    slope = torch.cat([slope, slope[..., : network.widths[0]]], dim=2)
    return slope if masks is None else slope * masks


def broyden(
    network: LayeredNetwork,
    weights: torch.Tensor,
    current: torch.Tensor,
    factors: torch.Tensor,
    iterations: int = 30,
    memory: int = 27,
    tolerance: float = 2e-10,
) -> Solved:
    """The adjoint by Broyden's method, in double precision, each sample for itself (arXiv 2109.14247, authors' code).

    Args:
        network: with P parameters.
        weights: [B, P] that act.
        current: [B, N, neurons of the last layer], g.
        factors: of ``transmission``.
        iterations: at most.
        memory: rank-one updates that are kept.
        tolerance: of the residual's norm, times the square root of the number of neurons.
    """
    plan = layout(network)
    devices, samples = current.shape[:2]
    acting = plan.weights(weights, torch.float64)
    adjoint = np.empty((devices, samples, sum(network.widths)))
    residual, products = np.empty((devices, samples)), np.empty(devices, np.int64)
    adjoint_kernels.solve(
        plan.links, plan.layers, acting.up, acting.down, current.double()[..., plan.last].contiguous().numpy(),
        plan.arranged(factors.double(), first=True).numpy(), iterations, memory, tolerance, adjoint, residual, products,
    )  # fmt: skip
    ordered = torch.from_numpy(adjoint)[..., plan.place]
    return Solved(ordered, torch.from_numpy(residual), torch.from_numpy(products))


def differentiate(
    network: LayeredNetwork,
    weights: torch.Tensor,
    current: torch.Tensor,
    factors: torch.Tensor,
    couple: CoupleParameters,
    steps: int,
) -> Rates:
    """The second stage on ideal devices; see ``chip.protocol.Chip.differentiate``."""
    return feedback.differentiate(_ideal(network, len(weights)), weights, current, factors, couple, steps)


@lru_cache(maxsize=8)
def _ideal(network: LayeredNetwork, devices: int) -> feedback.Flat:
    return feedback.Flat(network, draw_device(network, [FaultSpec()] * devices, [0] * devices))


def gradient(
    network: LayeredNetwork, errors: torch.Tensor, rates: torch.Tensor, shown: torch.Tensor, fed_back: torch.Tensor
) -> torch.Tensor:
    """Gradient [B, P] of a loss, summed over samples.

    Args:
        network: with P parameters.
        errors: [B, N, M], (m beta) / kappa of each layer's neurons.
        rates: [B, N, M].
        shown: [B, N, I - 1], mean inputs.
        fed_back: [B, N, H], errors of the first layer as the feedback's weights see them.
    """
    plan, kind = layout(network), errors.dtype
    shown = shown.to(kind)[..., plan.inputs].contiguous()
    errors, rates = plan.arranged(errors), plan.arranged(rates.to(kind))
    first = fed_back.to(kind)[..., plan.order[: network.widths[0]]].contiguous()
    of_links = []
    for link, row in zip(network.links, plan.links, strict=True):
        signals = shown if link.source < 0 else rates[..., slice(*plan.layers[link.source])].contiguous()
        own = errors[..., slice(*plan.layers[link.target])].contiguous() if link.upwards else first
        coarse, fine, side, _ = link.weights
        made = np.zeros((len(errors), coarse, side, side, fine), signals.numpy().dtype)
        if not link.pool:
            adjoint_kernels.weight_gradient(row, signals.numpy(), own.numpy(), made)
        if link.upwards and network.layers[link.target].mean:
            made /= side**2
        of_links.append(torch.from_numpy(made).permute(0, 1, 4, 2, 3))
    cells = []
    for b, own in enumerate(errors):  # one call a cell, which beside others keeps its bits
        layers = zip(plan.layers, network.maps[1:], strict=True)
        biases = [
            own[:, slice(*ends)].unflatten(1, (-1, channels)).sum(dim=(0, 1)) for ends, (channels, _, _) in layers
        ]
        cells.append(network.join([weights[b] for weights in of_links], biases))
    return torch.stack(cells)


def around(
    network: LayeredNetwork,
    weights: torch.Tensor,
    shown: torch.Tensor,
    last: torch.Tensor,
    masks: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """One evaluation of the rates' equations, layer by layer, before the clip: z^l, [B, N, neurons] each.

    Args:
        network: with P parameters.
        weights: [B, P], in the precision to be used; differentiable.
        shown: [B, N, I - 1], mean inputs.
        last: [B, N, neurons of the last layer], the rates that the feedback sends.
        masks: [B, N, M + H]; None is 1.
    """
    threshold, rest, _ = network.nominal
    kappa, parts = float(threshold) - float(rest), [network.split(own) for own in weights]
    scale = None if masks is None else masks.split((*network.widths, network.widths[0]), dim=2)
    signal, found = shown, []
    for number, link in enumerate(network.links[: len(network.layers)]):
        bias = torch.stack([biases[number] for _, biases in parts]).repeat_interleave(network.positions[number], dim=1)
        z = weigh(link, [own[number] for own, _ in parts], signal) + bias[:, None]
        z = z if scale is None else z * scale[number]
        if number == 0 and network.feedback:
            back = weigh(network.links[-1], [own[-1] for own, _ in parts], last)
            z = z + (back if scale is None else back * scale[-1])
        found.append(z / kappa)
        signal = found[-1].clamp(0, 1)
    return found


def equilibrium(
    network: LayeredNetwork,
    weights: torch.Tensor,
    shown: torch.Tensor,
    masks: torch.Tensor | None = None,
    iterations: int = 1000,
    tolerance: float = 1e-12,
) -> torch.Tensor:
    """The rates [B, N, M] that solve their equations, by damped iteration in double precision.

    Args:
        network: with P parameters.
        weights: [B, P].
        shown: [B, N, I - 1], mean inputs.
        masks: [B, N, M + H]; None is 1.
        iterations: at most.
        tolerance: of the largest change.

    Raises:
        ArithmeticError: no equilibrium was found; the feedback may be too strong.
    """
    weights, shown = weights.double(), shown.double()
    masks = None if masks is None else masks.double()
    last = shown.new_zeros(*shown.shape[:2], network.widths[-1])
    for _ in range(iterations):
        rates = [z.clamp(0, 1) for z in around(network, weights, shown, last, masks)]
        moved = (rates[-1] - last).abs().max()
        if moved < tolerance:
            return torch.cat(rates, dim=2)
        last = last + 0.5 * (rates[-1] - last)
    raise ArithmeticError(f"no equilibrium after {iterations} iterations: rates still move by {float(moved):.2g}")


def clipped(
    network: LayeredNetwork,
    weights: torch.Tensor,
    current: torch.Tensor,
    factors: torch.Tensor,
    amplitude: float = 1.0,
    iterations: int = 1000,
    tolerance: float = 1e-12,
) -> torch.Tensor:
    """The adjoint [B, N, M] that ternary spikes can tell: each step of the equations is clipped to +-amplitude.

    Args:
        network: with P parameters.
        weights: [B, P].
        current: [B, N, neurons of the last layer], g.
        factors: of ``transmission``.
        amplitude: A.
        iterations: at most.
        tolerance: of the largest change.

    Raises:
        ArithmeticError: no solution was found.
    """
    parts = [network.split(own.double())[0] for own in weights]
    scale, current = factors.double().split((*network.widths, network.widths[0]), dim=2), current.double()
    beta = torch.zeros_like(current)
    for _ in range(iterations):
        found = [beta]
        for number in range(len(network.layers) - 1, 0, -1):
            sent = weigh(network.links[number], [own[number] for own in parts], found[0] * scale[number], back=True)
            found.insert(0, sent.clamp(-amplitude, amplitude))
        total = current
        if network.feedback:
            total = total + weigh(network.links[-1], [own[-1] for own in parts], found[0] * scale[-1], back=True)
        moved = total.clamp(-amplitude, amplitude) - beta
        if moved.abs().max() < tolerance:
            return torch.cat(found, dim=2)
        beta = beta + 0.5 * moved
    raise ArithmeticError(f"no adjoint after {iterations} iterations: it still moves by {float(moved.abs().max()):.2g}")
