"""GLM networks from the equations alone, in double precision, one neuron and one step after the other."""

from __future__ import annotations

import numpy as np
import torch

from spikebench import number_kernels
from spikebench.networks import Network
from spikebench.seeds import seed


def cosines(network: Network) -> np.ndarray:
    """a_m(d), [taps, M]."""
    count, taps, spacing, _ = network.neuron
    filters = np.zeros((taps, count))
    for d in range(taps):
        for m in range(count):
            phase = np.pi * spacing * np.log(d + 1) - m * np.pi / 2
            filters[d, m] = 0.5 + 0.5 * np.cos(np.clip(phase, -np.pi, np.pi))
    return filters


def sums(network: Network, parameters: torch.Tensor, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What reaches each neuron's synapses at each step, [N, T, n], and the biases [n].

    Args:
        network: of GLM neurons.
        parameters: [P].
        signals: [N, T, J] of all lines: inputs, hidden neurons, outputs. Only steps before t act at t.
    """
    (hidden,), outputs, count = network.hidden, network.outputs, network.neuron.filters
    first, filters, weights = network.inputs - 1, cosines(network), parameters.double().numpy()
    samples, steps, lines = signals.shape
    phi = np.zeros((samples, steps, lines, count))
    for t in range(steps):
        for d in range(min(t, len(filters))):
            phi[:, t] += signals[:, t - 1 - d, :, None] * filters[d]
    total, biases, place = np.zeros((samples, steps, hidden + outputs)), np.zeros(hidden + outputs), 0
    for i in range(hidden + outputs):
        heard = lines if i >= hidden else first + hidden
        for j in range(heard):
            for m in range(count):
                itself = j == first + i
                deaf = j >= first + hidden and not network.neuron.output_feedback
                if not deaf and not (itself and m > 0):
                    total[..., i] += weights[place + j * count + m] * phi[:, :, j, m]
        biases[i] = weights[place + heard * count]
        place += heard * count + 1
    assert place == network.parameters
    return total, biases


def potentials(network: Network, parameters: torch.Tensor, inputs: torch.Tensor, spikes: np.ndarray) -> np.ndarray:
    """u [N, T, n] after these inputs [N, T, I] and past spikes [N, T, n] of all neurons."""
    total, biases = sums(network, parameters, np.concatenate([inputs[..., :-1].double().numpy(), spikes], axis=2))
    return total + biases


def run(
    network: Network,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    numbers: np.ndarray,
    clamp: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and potentials [N, T, n] for the uniform numbers [N, T, n]; outputs clamped to [N, T, O]."""
    spikes, seen = np.zeros(numbers.shape), np.zeros(numbers.shape)
    for t in range(numbers.shape[1]):
        u = seen[:, t] = potentials(network, parameters, inputs[:, : t + 1], spikes[:, : t + 1])[:, t]
        spikes[:, t] = u > np.log(numbers[:, t] / (1 - numbers[:, t]))
        if clamp is not None:
            spikes[:, t, network.hidden[0] :] = clamp[:, t]
    return spikes, seen


def numbers(chip: int, use: int, shape: tuple[int, int, int], first: int = 0, stage: str = "training") -> np.ndarray:
    """U [N, T, n] of the run whose number is ``first`` at a device's use of its neurons."""
    samples, steps, neurons = shape
    key, drawn = seed(chip=chip, effect="neurons", use=use, stage=stage), np.empty((steps, samples, neurons))
    for t in range(steps):
        row = np.empty((first + 1) * samples * neurons, np.float32)
        number_kernels.uniforms(key, t, row)
        drawn[t] = row.reshape(-1, samples, neurons)[first]
    return drawn.swapaxes(0, 1)


def clear(potential: np.ndarray, drawn: np.ndarray, margin: float = 1e-4) -> np.ndarray:
    """Samples [N] in which no potential comes within rounding of its number."""
    return np.abs(potential - np.log(drawn / (1 - drawn))).min(axis=(1, 2)) > margin


def log_likelihood(potential: np.ndarray, spikes: np.ndarray) -> np.ndarray:
    """ln p of spikes [N, T, n], summed over steps and neurons, [N]."""
    return -np.logaddexp(0, np.where(spikes > 0, -potential, potential)).sum(axis=(1, 2))
