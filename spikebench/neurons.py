"""Neuron models: parameters, state and one pure step each, with the equation in the docstring.

The batched kernels and the training engine must agree with these steps spike for spike; tests hold them to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch


class LIFParameters(NamedTuple):
    """Leaky integrate-and-fire constants; numbers for a nominal neuron, tensors for one value a neuron.

    Attributes:
        decay: a, membrane decay a step; a = 1 - 1/tau with tau in steps. 1 makes it an IF neuron.
        threshold: theta, in the units of the weights.
    """

    decay: float | torch.Tensor = 0.9
    threshold: float | torch.Tensor = 1.0


class LIFState(NamedTuple):
    """Membrane potential and spikes of the last step, both [..., neurons]."""

    potential: torch.Tensor
    spikes: torch.Tensor


def lif_step(current: torch.Tensor, state: LIFState, parameters: LIFParameters) -> LIFState:
    """One step of a LIF neuron with reset to zero.

    V[t] = a V[t-1] (1 - S[t-1]) + I[t],  S[t] = 1 if V[t] > theta else 0.

    The reset acts one step after the spike, before the leak, and does not touch the new input: snnTorch's
    ``Leaky(reset_mechanism="zero", reset_delay=True)`` (of release 1.0; the meaning changed before, snntorch#341).

    Args:
        current: I[t], [..., neurons].
        state: of step t - 1.
        parameters: broadcastable to ``current``.
    """
    potential = parameters.decay * state.potential * (1 - state.spikes) + current
    return LIFState(potential, (potential > parameters.threshold).to(current.dtype))


class SRMParameters(NamedTuple):
    """Spike response model constants; numbers for a nominal neuron, tensors for one value a neuron.

    The time constants of arXiv 2012.08300's code: membrane 10, synapse 6 and refractoriness 2 steps.

    Attributes:
        membrane_decay: alpha, a step; exp(-1/tau) with tau in steps.
        synapse_decay: beta.
        refractory_decay: alpha_r.
        threshold: theta, in the units of u.
    """

    membrane_decay: float | torch.Tensor = math.exp(-1 / 10)
    synapse_decay: float | torch.Tensor = math.exp(-1 / 6)
    refractory_decay: float | torch.Tensor = math.exp(-1 / 2)
    threshold: float | torch.Tensor = 0.0


class SRMState(NamedTuple):
    """Of the last step: filtered input q and p, refractoriness R, potential u and spikes, each [..., neurons]."""

    synapse: torch.Tensor
    membrane: torch.Tensor
    refractory: torch.Tensor
    potential: torch.Tensor
    spikes: torch.Tensor


def srm_step(
    current: torch.Tensor,
    state: SRMState,
    parameters: SRMParameters,
    scale: float = 1.0,
    distort: Callable[[torch.Tensor], torch.Tensor] = lambda sum: sum,
    bias: torch.Tensor | float = 0.0,
) -> SRMState:
    """One step of an SRM neuron, which filters the sum of its weighted inputs; nothing is reset.

    q[t] = beta q[t-1] + x[t],  p[t] = alpha p[t-1] + q[t-1],  R[t] = alpha_r R[t-1] + s[t-1],
    u[t] = c (p[t] + b) - R[t],  s[t] = 1 if u[t] >= theta else 0.

    So an input acts from the next step on, k steps later with (alpha^k - beta^k) / (alpha - beta), and a spike is
    followed by -alpha_r^(k-1). With fixed weights it is the same to filter every line's spikes and weigh the traces.

    Args:
        current: x[t] = sum_j w_j s_j[t], [..., neurons].
        state: of step t - 1; all zero before the first.
        parameters: broadcastable to ``current``.
        scale: c.
        distort: what the device makes of c (p[t] + b).
        bias: b.
    """
    synapse = parameters.synapse_decay * state.synapse + current
    membrane = parameters.membrane_decay * state.membrane + state.synapse
    refractory = parameters.refractory_decay * state.refractory + state.spikes
    potential = distort(scale * (membrane + bias)) - refractory
    spikes = (potential >= parameters.threshold).to(current.dtype)
    return SRMState(synapse, membrane, refractory, potential, spikes)


class GLMParameters(NamedTuple):
    """Generalised linear model: filters of the past, and whether outputs see their own.

    The constants of arXiv 2102.03280's authors' code.

    Attributes:
        filters: M, of each synapse.
        taps: tau, steps that a filter looks back.
        spacing: mu, of the filters' peaks on the logarithmic axis of time.
        output_feedback: whether outputs are driven by their own and each other's past spikes, which teacher forcing
            clamps to the targets.
    """

    filters: int = 8
    taps: int = 10
    spacing: float = 1.5
    output_feedback: bool = True


def raised_cosines(parameters: GLMParameters) -> torch.Tensor:
    """Filters [taps, M]; a_m(d) acts d + 1 steps after a spike (Pillow et al. 2008).

    a_m(d) = 1/2 + 1/2 cos(clip(pi mu ln(d + 1) - m pi/2, -pi, pi)); the first is [1, 0, 0, ...] from mu = 1.44 on.
    """
    delay = torch.arange(1, parameters.taps + 1, dtype=torch.float64)[:, None]
    peak = torch.arange(parameters.filters, dtype=torch.float64) * (math.pi / 2)
    phase = math.pi * parameters.spacing * delay.log() - peak
    values = 0.5 + 0.5 * phase.clamp(-math.pi, math.pi).cos()
    return values.masked_fill(phase.abs() >= math.pi, 0.0).float()


def filtered(history: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Traces phi [..., lines, M] of the last steps' signals [..., taps, lines], the newest first."""
    return torch.einsum("...dj,dm->...jm", history, filters.to(history.dtype))


def glm_spikes(potential: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Spikes of probability sigma(u), from numbers that are uniform in (0, 1): s = 1 if u > ln(U / (1 - U)).

    u_i[t] = b_i + sum_j sum_m w_ij,m phi_j,m[t], where phi looks at steps before t alone.
    """
    return (potential > torch.logit(uniform)).to(potential.dtype)


class SoftResetParameters(NamedTuple):
    """IF or LIF constants with reset by subtraction; numbers for a nominal neuron, tensors for one value a neuron.

    The constants of arXiv 2302.00232's authors' code: kappa = threshold - rest = 2, a spike takes u to rest where it
    was at the threshold. Rest at 0 is the reset of arXiv 2109.14247, whose threshold is then 2.

    Attributes:
        threshold: V_th.
        rest: u_rest.
        leak: lambda, what a step leaves of u; 1 makes it an IF neuron.
    """

    threshold: float | torch.Tensor = 1.0
    rest: float | torch.Tensor = -1.0
    leak: float | torch.Tensor = 1.0


class SoftResetState(NamedTuple):
    """Of one step: u after reset and leak, v before them, and spikes, each [..., neurons]."""

    kept: torch.Tensor
    potential: torch.Tensor
    spikes: torch.Tensor


def soft_reset_step(current: torch.Tensor, kept: torch.Tensor, parameters: SoftResetParameters) -> SoftResetState:
    """One step of an IF or LIF neuron with reset by subtraction (arXiv 2302.00232, authors' code).

    v[t] = u[t-1] + I[t],  S[t] = 1 if v[t] >= V_th else 0,  u[t] = lambda (v[t] - (V_th - u_rest) S[t]),  u[0] = 0.

    Args:
        current: I[t], [..., neurons].
        kept: u[t-1].
        parameters: broadcastable to ``current``.
    """
    threshold, rest, leak = parameters
    potential = kept + current
    spikes = (potential >= threshold).to(current.dtype)
    return SoftResetState(leak * (potential - (threshold - rest) * spikes), potential, spikes)


class CoupleParameters(NamedTuple):
    """A couple of neurons whose spikes differ in sign, with reset by subtraction (arXiv 2302.00232, authors' code).

    Attributes:
        threshold: V_b, of a positive spike, and of a negative one at -V_b.
        rest: u_rest,b; -V_b is the modified reset, which rounds where 0 truncates.
        leak: lambda.
    """

    threshold: float | torch.Tensor = 0.5
    rest: float | torch.Tensor = -0.5
    leak: float | torch.Tensor = 1.0

    @property
    def amplitude(self) -> float | torch.Tensor:
        """A = V_b - u_rest,b, which a spike takes off v and stands for."""
        return self.threshold - self.rest


def couple_step(current: torch.Tensor, kept: torch.Tensor, parameters: CoupleParameters) -> SoftResetState:
    """One step of a couple: twins of opposite sign, each reset by the other's spikes, are one signed variable.

    w = v[t-1] + I[t],  S[t] = A (w >= V_b) - A (w <= -V_b),  v[t] = lambda (w - S[t]),  v[0] = 0.

    Args:
        current: I[t], [..., neurons].
        kept: v[t-1].
        parameters: broadcastable to ``current``.
    """
    potential = kept + current
    positive, negative = potential >= parameters.threshold, potential <= -parameters.threshold
    spikes = parameters.amplitude * (positive.to(current.dtype) - negative.to(current.dtype))
    return SoftResetState(parameters.leak * (potential - spikes), potential, spikes)
