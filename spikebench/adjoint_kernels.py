"""Compiled: the implicit differentiation of a feedback network's equilibrium, sample by sample, and its gradient.

Links, layers and the order of neurons are those of ``chip.feedback_kernel``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from spikebench.chip.link_kernels import send_back
from spikebench.compiled import OPTIONS


@njit(inline="always", **OPTIONS)
def sweep(links, layers, up, down, factors, adjoint, back):
    """From the last layer's adjoint down to the first layer's, and back through the feedback, of one sample.

    Args:
        links: [K, 14], their weights those of one device.
        layers: [L, 2].
        up: [W].
        down: [W].
        factors: [M + neurons of the first layer]: what a neuron sends to the layer below is multiplied by, and last
            what the first layer sends back through the feedback.
        adjoint: [M]; that of the last layer is given, the others are overwritten.
        back: [neurons of the last layer], overwritten: J^T of the last layer's; 0 where there is no feedback.
    """
    neurons, last = len(adjoint), layers.shape[0] - 1
    adjoint[: layers[last, 0]] = 0.0
    for layer in range(last, 0, -1):
        below = adjoint[layers[layer - 1, 0] : layers[layer - 1, 1]]
        for m in range(layers[layer, 0], layers[layer, 1]):
            value = adjoint[m] * factors[m]
            if value != 0:
                send_back(value, m - layers[layer, 0], links[layer], up, down, below)
    back[:] = 0.0
    if links.shape[0] > layers.shape[0]:
        for m in range(layers[0, 1]):
            value = adjoint[m] * factors[neurons + m]
            if value != 0:
                send_back(value, m, links[last + 1], up, down, back)


@njit(parallel=True, **OPTIONS)
def solve(links, layers, up, down, current, factors, iterations, memory, tolerance, adjoint, residuals, products):
    """The adjoint beta = J^T beta + g by Broyden's first ("good") method from 0, without line search.

    Args:
        links: see ``sweep``.
        layers: likewise.
        up: [B, W].
        down: [B, W].
        current: [B, N, neurons of the last layer], g.
        factors: [B, N, M + neurons of the first layer].
        iterations: at most.
        memory: rank-one updates that are kept; the oldest give way.
        tolerance: it ends where the residual's norm is below tolerance * sqrt(neurons).
        adjoint: [B, N, M], overwritten: of the iterate of the lowest residual.
        residuals: [B, N], overwritten: its norm.
        products: [B], overwritten: how often J^T was applied.
    """
    devices, samples, width = current.shape
    first = layers[layers.shape[0] - 1, 0]
    limit = tolerance * np.sqrt(width)
    for d in prange(devices):
        back, best = np.empty(width, current.dtype), np.empty(width, current.dtype)
        x, step, change = np.empty(width, current.dtype), np.empty(width, current.dtype), np.empty(width, current.dtype)
        residual, turned = np.empty(width, current.dtype), np.empty(width, current.dtype)
        left, right = np.empty((memory, width), current.dtype), np.empty((memory, width), current.dtype)
        products[d] = 0
        for n in range(samples):
            x[:] = 0.0
            best[:] = 0.0
            residual[:] = current[d, n]  # F(x) = g + J^T x - x
            lowest = np.sqrt(np.sum(residual * residual))
            for ranks in range(iterations):
                if lowest < limit:
                    break
                # The inverse of F's Jacobian is -1 + sum_k left_k right_k^T; the step is minus that times F.
                step[:] = residual
                for k in range(min(ranks, memory)):
                    step -= left[k] * np.sum(right[k] * residual)
                x += step
                adjoint[d, n, first:] = x
                sweep(links, layers, up[d], down[d], factors[d, n], adjoint[d, n], back)
                products[d] += 1
                change[:] = current[d, n] + back - x - residual
                residual += change
                norm = np.sqrt(np.sum(residual * residual))
                if norm < lowest:
                    lowest = norm
                    best[:] = x
                turned[:] = -step
                for k in range(min(ranks, memory)):
                    turned += right[k] * np.sum(left[k] * step)
                scale = np.sum(turned * change)
                if scale == 0:
                    break
                back[:] = step + change
                for k in range(min(ranks, memory)):
                    back -= left[k] * np.sum(right[k] * change)
                left[ranks % memory] = back / scale
                right[ranks % memory] = turned
            residuals[d, n] = lowest
            adjoint[d, n, first:] = best
            sweep(links, layers, up[d], down[d], factors[d, n], adjoint[d, n], back)


@njit(parallel=True, **OPTIONS)
def weight_gradient(link, signals, errors, gradient):
    """Sums over samples of error times signal, for the weights of one link.

    Args:
        link: [14], the link's row.
        signals: [B, N, neurons of the source].
        errors: [B, N, neurons of the target].
        gradient: [B, coarse, kernel, kernel, fine], overwritten.
    """
    fine, height, width, coarse, height_c, width_c = link[3], link[4], link[5], link[6], link[7], link[8]
    kernel, stride, padding = link[9], link[10], link[11]
    for d in prange(len(gradient)):
        gradient[d] = 0.0
        flat = gradient[d].reshape(-1)
        for n in range(signals.shape[1]):
            low, high = (errors[d, n], signals[d, n]) if link[2] else (signals[d, n], errors[d, n])
            for row in range(height_c):
                for column in range(width_c):
                    y, x = row * stride - padding, column * stride - padding
                    left, right = max(0, -x), min(kernel, width - x)
                    for c in range(coarse):
                        value = low[(row * width_c + column) * coarse + c]
                        if value == 0:
                            continue
                        for ky in range(max(0, -y), min(kernel, height - y)):
                            to = ((c * kernel + ky) * kernel + left) * fine
                            first = ((y + ky) * width + x + left) * fine
                            for f in range((right - left) * fine):
                                flat[to + f] += value * high[first + f]
