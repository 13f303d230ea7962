"""Speed of the rules of K compartments against the same steps in PyTorch: ms a time step of training, and ratios.

Ours is ``compartments.present``, the function that training calls: one example is shown to a 676-32-2 network of GLM
neurons with 8 filters, whose weights are all changed at every time step. The peer is a plain loop over the equations of
``compartments`` in single precision and without autograd, as fast as its operations allow: traces phi are dense, and
the eligibility traces of all compartments are stored. A line spikes with probability 0.18 a step, as in simulated
recordings of MNIST-DVS. One thread each.

    python benchmarks/gem_snn_step.py
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import math
from functools import partial

import torch
from timing import best_of
from torch.nn import functional

from spikebench.compartments import Rule, present
from spikebench.eligibility_kernels import TINY
from spikebench.networks import Network
from spikebench.neurons import GLMParameters, raised_cosines

STEPS, RATE = 80, 1e-4


def traces(signals: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """The traces phi [T, lines * M] of signals [T, lines]."""
    before = torch.cat([torch.zeros(len(filters), signals.shape[1]), signals[:-1]])
    windows = before.unfold(0, len(filters), 1).flip(2)
    return torch.einsum("tjd,dm->tjm", windows, filters).flatten(1)


class Variate:
    """N / D of each weight, of compartments' traces [K, neurons, inputs] or of their sum."""

    def __init__(self, like: torch.Tensor) -> None:
        self.upper, self.lower = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, decay: float, eligibility: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """(v - beta) e summed over compartments, of signals [K, 1, 1]."""
        square = eligibility.square()
        self.lower.mul_(decay).add_(square)
        self.upper.mul_(decay).add_(square.mul_(signal))
        return torch.sum((signal - self.upper / (self.lower + float(TINY))) * eligibility, dim=0)


def peer(
    network: Network, rule: Rule, weights: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """One presentation of inputs [T, I] and targets [T, O], in place; v of the last step."""
    k, (width,) = rule.compartments, network.hidden
    filters = raised_cosines(network.neuron)
    hidden, outputs = network.unpack(weights)
    missing = [(~mask).flatten().nonzero()[:, 0] for mask in network.unpack(network.connected)]
    of_inputs, of_targets = traces(inputs[:, :-1], filters), traces(targets, filters)
    history, ones = torch.zeros(k, len(filters), width), torch.ones(k, 1)
    e_hidden, e_outputs = torch.zeros(k, *hidden.shape), torch.zeros(k, *outputs.shape)
    variate = Variate(e_hidden[:1] if rule.name == "iw" else e_hidden)
    v = torch.zeros(k)
    for t in range(STEPS):
        shown, clamped = of_inputs[t].expand(k, -1), of_targets[t].expand(k, -1)
        recurrent = torch.einsum("kdj,dm->kjm", history, filters).flatten(1)
        seen_hidden = torch.cat([shown, recurrent, ones], dim=1)
        seen_outputs = torch.cat([shown, recurrent, clamped, ones], dim=1)
        p, u = torch.sigmoid(seen_hidden @ hidden.mT), seen_outputs @ outputs.mT
        spikes, x = (torch.rand_like(p) < p).float(), targets[t].expand_as(u)
        v = rule.decay * v - functional.binary_cross_entropy_with_logits(u, x, reduction="none").sum(dim=1)
        # e <- kappa e + delta phi, in one pass.
        e_hidden.baddbmm_((spikes - p)[:, :, None], seen_hidden[:, None], beta=rule.decay)
        e_outputs.baddbmm_((x - torch.sigmoid(u))[:, :, None], seen_outputs[:, None], beta=rule.decay)
        share = v.softmax(dim=0) if rule.name in ("iw", "gem") else torch.full_like(v, 1 / k)
        outputs.view(-1).addmv_(e_outputs.view(k, -1).T, share, alpha=RATE)
        if rule.name == "gem":
            hidden.view(-1).addmv_(e_hidden.view(k, -1).T, share, alpha=RATE)
        elif rule.name == "iw":
            common = v.logsumexp(dim=0) - math.log(k)
            hidden.add_(variate.step(rule.decay, e_hidden.sum(dim=0, keepdim=True), common), alpha=RATE)
        else:
            hidden.add_(variate.step(rule.decay, e_hidden, v[:, None, None]), alpha=RATE / k)
        for layer, nothing in zip((hidden, outputs), missing, strict=True):
            layer.view(-1).index_fill_(0, nothing, 0.0)
        history = torch.cat([spikes[:, None], history[:, :-1]], dim=1)
    return v


def main() -> None:
    """The size of MNIST-DVS; one compartment and more."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network(677, (32,), 2, GLMParameters())
    inputs = (torch.rand(STEPS, 677) < 0.18).float()
    targets = torch.tensor([1.0, 0.0]).expand(STEPS, -1).contiguous()
    rates, keys = torch.tensor([RATE]), torch.tensor([1])
    rules = [*(Rule("gem", k) for k in (1, 5, 20)), Rule("single-sample"), Rule("mb", 5), Rule("iw", 5)]
    for rule in rules:
        weights = 0.2 * (torch.rand(1, network.parameters) - 0.5) * network.connected
        copy = weights[0].clone()
        ours = best_of(partial(present, network, rule, weights, inputs[None], targets[None], rates, keys))
        theirs = best_of(partial(peer, network, rule, copy, inputs, targets))
        each = 1e3 / STEPS
        print(
            f"676-32-2, {rule.name}, K = {rule.compartments}: {ours * each:.3f} ms a step, "
            f"PyTorch {theirs * each:.3f} ms, {theirs / ours:.1f} times faster"
        )


if __name__ == "__main__":
    main()
