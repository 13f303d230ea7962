"""Learning rules of probabilistic spiking networks with K compartments (GEM-SNN, arXiv 2102.03280 and 2007.11894).

Compartments are K independent runs of the hidden neurons of a GLM network, which share weights and inputs; outputs are
clamped to the targets x. Only the authors' code could be read, so these are its rules (docs/papers.md): with

    delta = s - sigma(u),  g = delta phi,  e_t = kappa e_{t-1} + g_t,  v_t = kappa v_{t-1} + log p(x_t | u_t),
    w^k = softmax_k v^k,  L = log 1/K sum_k exp v^k,

all weights are changed at every time step by

    rule            outputs              hidden neurons
    single-sample   e                    (v - beta) e, and K = 1
    mb              1/K sum_k e^k        1/K sum_k (v^k - beta^k) e^k
    iw              sum_k w^k e^k        (L - beta) sum_k e^k
    gem             sum_k w^k e^k        sum_k w^k e^k

where beta = N / D is a control variate of each weight: N and D are traces of e^2 v and e^2. ``online_step`` is one time
step, for a device in the loop; ``present`` is a whole presentation, compiled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from spikebench import compartment_kernels, eligibility_kernels
from spikebench.networks import Network
from spikebench.neurons import GLMParameters, filtered, raised_cosines

RULES = ("single-sample", "mb", "iw", "gem")
BASELINES = ("none", "scalar", "weight")
#: A trace below this share of what it was is forgotten by the compiled rules.
FORGOTTEN = 1e-6


@dataclass(frozen=True)
class Rule:
    """How weights are changed.

    Attributes:
        name: of ``RULES``.
        compartments: K.
        decay: kappa, of eligibility traces, signals and control variates.
        baseline: of ``BASELINES``: none, the signal's own discounted mean, or a control variate for each weight.
        divided: whether the hidden step of ``iw`` is divided by K, with which it grows otherwise.

    Raises:
        ValueError: an unknown name or baseline, a decay outside [0, 1], or a number of compartments that does not fit.
    """

    name: str
    compartments: int = 1
    decay: float = 0.05
    baseline: str = "weight"
    divided: bool = False

    def __post_init__(self) -> None:
        for field, allowed in (("name", RULES), ("baseline", BASELINES)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"Rule.{field}: found {getattr(self, field)!r}, allowed: {', '.join(allowed)}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"Rule.decay: found {self.decay}, expected a number from 0 to 1")
        if self.compartments < 1 or (self.name == "single-sample" and self.compartments > 1):
            raise ValueError(f"Rule.compartments: found {self.compartments} for the rule {self.name}")

    @property
    def share(self) -> float:
        """What the hidden step of ``iw`` is multiplied with."""
        return 1 / self.compartments if self.divided else 1.0


class Memory(NamedTuple):
    """What a network and a rule remember within a presentation, double precision.

    Attributes:
        history: [B, K, taps, lines], signals of the last steps, the newest first; lines are inputs, hidden, outputs.
        eligibility: e, [B, K, P].
        signal: v, [B, K].
        upper: N, [B, K or 1, P]; of the outputs' weights it is not used.
        lower: D, likewise.
    """

    history: torch.Tensor
    eligibility: torch.Tensor
    signal: torch.Tensor
    upper: torch.Tensor
    lower: torch.Tensor

    @classmethod
    def rest(cls, network: Network, rule: Rule, cells: int) -> Memory:
        """Before the first step."""
        assert isinstance(network.neuron, GLMParameters)
        lines = network.inputs - 1 + sum(network.widths)
        k, parts = rule.compartments, 1 if rule.name == "iw" else rule.compartments

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(cells, *shape, dtype=torch.float64)

        history, variate = zeros(k, network.neuron.taps, lines), zeros(parts, network.parameters)
        return cls(history, zeros(k, network.parameters), zeros(k), variate, variate)


class Shown(NamedTuple):
    """What one presentation was like, [B] each.

    Attributes:
        log_likelihood: log 1/K sum_k p_k of the targets, in nats, while weights changed.
        bound: sum over time of L_t; its discounting counts each step 1 / (1 - kappa) times.
        effective_samples: 1 / sum_k (w^k)^2, mean over time.
        hidden_rate: spikes a hidden neuron and step.
        bit_error: probability that an output's next bit, drawn, would be wrong; mean over outputs and time.
    """

    log_likelihood: torch.Tensor
    bound: torch.Tensor
    effective_samples: torch.Tensor
    hidden_rate: torch.Tensor
    bit_error: torch.Tensor


def potentials(
    network: Network, weights: torch.Tensor, history: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Potentials of hidden neurons [B, K, H] and outputs [B, K, O], and the traces [B, K, lines x M] that drive them.

    Args:
        network: of GLM neurons.
        weights: [B, P].
        history: [B, K, taps, lines].
    """
    assert isinstance(network.neuron, GLMParameters)
    phi = filtered(history, raised_cosines(network.neuron)).flatten(2)
    hidden, outputs = network.unpack(weights.to(phi.dtype))
    own = phi[..., : hidden.shape[2] - 1]
    u_hidden = own @ hidden[..., :-1].mT + hidden[:, None, :, -1]
    u_outputs = phi @ outputs[..., :-1].mT + outputs[:, None, :, -1]
    return u_hidden, u_outputs, phi


def online_step(
    network: Network,
    rule: Rule,
    memory: Memory,
    weights: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    hidden: torch.Tensor,
) -> tuple[Memory, torch.Tensor, torch.Tensor]:
    """One time step of K compartments.

    Args:
        network: of GLM neurons.
        rule: of learning.
        memory: of the steps before.
        weights: [B, P].
        inputs: [B, I] with the constant line, which is left out.
        targets: [B, O], to which the outputs are clamped.
        hidden: [B, K, H] spikes, drawn by ``potentials`` or by a device in the loop.

    Returns:
        The memory, the step [B, P] in the weights for a learning rate of 1, and log p(x_t) of each compartment [B, K].
    """
    u_hidden, u_outputs, phi = potentials(network, weights, memory.history)
    x = targets.to(phi.dtype)[:, None].expand_as(u_outputs)
    likelihood = -functional.binary_cross_entropy_with_logits(u_outputs, x, reduction="none").sum(dim=2)
    trace = torch.cat([phi, torch.ones_like(phi[..., :1])], dim=2)
    seen = [torch.cat([phi[..., : network.shapes[0][1] - 1], trace[..., -1:]], dim=2), trace]
    delta = [hidden - torch.sigmoid(u_hidden), x - torch.sigmoid(u_outputs)]
    gradient = torch.cat([torch.einsum("bki,bkj->bkij", d, s).flatten(2) for d, s in zip(delta, seen, strict=True)], 2)
    eligibility = rule.decay * memory.eligibility + gradient * network.connected
    signal = rule.decay * memory.signal + likelihood
    importance = torch.softmax(signal, dim=1)[..., None]

    visible = (eligibility * (importance if rule.name in ("iw", "gem") else 1 / rule.compartments)).sum(dim=1)
    upper, lower = memory.upper, memory.lower
    if rule.name == "gem":
        inner = visible
    else:
        common = torch.logsumexp(signal, dim=1, keepdim=True) - math.log(rule.compartments)
        told = (common if rule.name == "iw" else signal)[..., None]
        moved = eligibility.sum(dim=1, keepdim=True) if rule.name == "iw" else eligibility
        share = rule.share if rule.name == "iw" else 1 / rule.compartments
        heed = torch.ones_like(moved) if rule.baseline == "scalar" else moved.square()
        upper, lower = rule.decay * upper + heed * told, rule.decay * lower + heed
        tiny = 0.0 if rule.baseline == "scalar" else float(eligibility_kernels.TINY)
        baseline = 0.0 if rule.baseline == "none" else upper / (lower + tiny)
        inner = share * ((told - baseline) * moved).sum(dim=1)
    cut = math.prod(network.shapes[0])
    step = torch.cat([inner[:, :cut], visible[:, cut:]], dim=1)

    outputs = x if network.neuron.output_feedback else torch.zeros_like(x)  # type: ignore[union-attr]
    shown = inputs[:, None, :-1].expand(-1, rule.compartments, -1).to(phi.dtype)
    now = torch.cat([shown, hidden.to(phi.dtype), outputs], dim=2)
    history = torch.cat([now[:, :, None], memory.history[:, :, :-1]], dim=2)
    return Memory(history, eligibility, signal, upper, lower), step, likelihood


def present(
    network: Network,
    rule: Rule,
    weights: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    rates: torch.Tensor,
    keys: torch.Tensor,
) -> Shown:
    """Show each cell one example and learn at every time step; ``weights`` are overwritten.

    Args:
        network: of GLM neurons.
        rule: of learning.
        weights: [B, P].
        inputs: [B, T, I] with the constant line, which is left out.
        targets: [B, T, O], to which the outputs are clamped.
        rates: [B], eta.
        keys: [B] int64, of each cell and this presentation.
    """
    neuron = network.neuron
    assert isinstance(neuron, GLMParameters)
    filters = raised_cosines(neuron).numpy()
    told = [
        compartment_kernels.present(
            weights[b].numpy(), inputs[b].contiguous().numpy(), targets[b].float().contiguous().numpy(), filters,
            network.hidden[0], rule.compartments, RULES.index(rule.name), BASELINES.index(rule.baseline),
            np.float32(rule.decay), np.float32(rule.share), depth(rule.decay, inputs.shape[1]), neuron.output_feedback,
            np.float32(rates[b]), int(keys[b]),
        )
        for b in range(len(weights))
    ]  # fmt: skip
    return Shown(*torch.tensor(told, dtype=torch.float64).T)


def depth(decay: float, steps: int) -> int:
    """Steps after which a trace is forgotten, at most T."""
    if decay == 0:
        return 1
    return steps if decay == 1 else min(steps, math.ceil(math.log(FORGOTTEN) / math.log(decay)))


def communication(rule: Rule, hidden: int, outputs: int) -> tuple[int, int]:
    """Numbers a time step from the neurons to where signals are formed, and back, one delivery a receiver.

    Outputs tell log p(x), and hidden neurons hear v^k; ``iw`` tells outputs w^k and hidden neurons L; ``gem`` tells all
    of them w^k (implied by the rules; the paper's own table could not be read).
    """
    up = rule.compartments * outputs
    down = {"iw": rule.compartments * outputs + hidden, "gem": rule.compartments * (outputs + hidden)}
    return up, down.get(rule.name, rule.compartments * hidden)
