"""Neuron models: parameters, state and one pure step each, with the equation in the docstring.

The batched kernels and the training engine must agree with these steps spike for spike; tests hold them to it.
"""

from __future__ import annotations

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
