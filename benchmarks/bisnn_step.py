"""Speed of local online learning against the same steps in PyTorch: ms an update of all weights, and ratios.

Ours is ``local_learning.present``, the function that training calls: SRM traces, local losses, relaxed samples of all
weights and their update at every time step. The peer is a plain batched PyTorch loop over the same equations, without
autograd, as fast as its operations allow: all cells at once, one matrix product a layer and factor. One thread each.

    python benchmarks/bisnn_step.py
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import math
from functools import partial

import torch
from timing import best_of

from spikebench import bernoulli
from spikebench.bernoulli import Posterior
from spikebench.local_learning import Learning, present
from spikebench.networks import Network
from spikebench.neurons import SRMParameters

STEPS = 20
ALPHA, BETA, ALPHA_R = math.exp(-1 / 10), math.exp(-1 / 6), math.exp(-1 / 2)


def peer(
    network: Network, rule: str, natural: torch.Tensor, readouts: list[torch.Tensor], inputs: torch.Tensor,
    targets: torch.Tensor, rate: float,
) -> None:  # fmt: skip
    """One presentation of logistic losses with the boxcar, in place."""
    cells, samples = inputs.shape[:2]
    layers = network.unpack(natural)
    q = [torch.zeros(cells, samples, i) for _, i in network.shapes]
    p = [torch.zeros_like(x) for x in q]
    r = [torch.zeros(cells, samples, o) for o, _ in network.shapes]
    s = [torch.zeros_like(x) for x in r]
    for t in range(STEPS):
        source = inputs[:, :, t, :-1]
        for layer, shadow in enumerate(layers):
            if rule == "bernoulli":
                noise = torch.rand_like(shadow).clamp(1e-7, 1 - 1e-7)
                w = torch.tanh(shadow + 0.5 * (noise.log() - (1 - noise).log()))
            else:
                w = torch.where(shadow >= 0, 1.0, -1.0)
            p[layer].mul_(ALPHA).add_(q[layer])
            q[layer].mul_(BETA).add_(source)
            r[layer].mul_(ALPHA_R).add_(s[layer])
            u = p[layer] @ w.mT * network.scales[layer] - r[layer]
            s[layer] = source = (u >= 0).float()
            b = readouts[layer]
            logit = source @ b.mT / b.shape[-1] ** 0.5
            error = (torch.sigmoid(logit) - targets) / samples
            credit = (error @ b / b.shape[-1] ** 0.5) * ((u > -0.5) & (u <= 0.5)) * network.scales[layer]
            gradient = credit.mT @ p[layer]
            if rule == "bernoulli":
                gradient = gradient * (1 - w.square() + 1e-10) / (1 - shadow.tanh().square() + 1e-10)
            shadow.sub_(rate * gradient)


def compare(name: str, cells: int, lines: int, hidden: tuple[int, ...], samples: int) -> None:
    """Print one line for each rule."""
    network = Network(lines + 1, hidden, 1, SRMParameters(), weight_bits=1)
    inputs = (torch.rand(cells, samples, STEPS, lines + 1) < 0.1).float()
    targets = torch.randint(0, 2, (cells, samples, 1)).float()
    readouts = [bernoulli.sign(torch.randn(cells, 1, width)) for width in hidden]
    index, keys, rates = torch.arange(cells), torch.arange(cells), torch.full((cells,), 0.1)
    for rule in ("straight-through", "bernoulli"):
        natural = bernoulli.sign(torch.randn(cells, network.parameters))
        learning = Learning("logistic", "boxcar", 0, rule, Posterior())
        copy = natural.clone()
        ours = best_of(partial(present, network, learning, natural, readouts, inputs, index, targets, rates, keys))
        theirs = best_of(partial(peer, network, rule, copy, readouts, inputs, targets, 0.1))
        each = 1e3 / STEPS
        print(
            f"{name}, {cells} cells, {rule}: {ours * each:.3f} ms a step, PyTorch {theirs * each:.3f} ms, "
            f"{theirs / ours:.1f} times faster"
        )


def main() -> None:
    """Two sizes: that of two moons for ten seeds, and that of MNIST-DVS for one."""
    torch.set_num_threads(1)
    compare("20-64-64, batch 32", 10, 20, (64, 64), 32)
    compare("20-256-256, batch 32", 10, 20, (256, 256), 32)
    compare("1352-256-256, batch 32", 1, 1352, (256, 256), 32)


if __name__ == "__main__":
    main()
