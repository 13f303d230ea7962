"""Blocks of Metropolis-Hastings proposals on chips: the compiled program where it fits, the chip's own evaluation
for every other device (read noise, lost spikes, programming noise, real hardware).

Both draw the same proposals from the same keys. Source: arXiv 2402.06284 (its acceptance rule and proposal are not
known; the choices are those of docs/papers.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from spikebench.chip.metropolis_kernel import propose_all, sample
from spikebench.chip.protocol import Chip
from spikebench.chip.simulated import SimulatedChip, tile, tile_labels
from spikebench.data import Batch
from spikebench.networks import log_probabilities


class Target(NamedTuple):
    """What is sampled and how it is proposed.

    Attributes:
        prior_sd: s_p of the prior W ~ N(0, s_p^2 I).
        temperature: the likelihood's; 1 gives the posterior.
        share: probability that a proposal changes a given weight.
        reread: measure the current weights' likelihood anew for every test, instead of keeping the value that was
            measured when they were accepted. On a device with read noise the two sample different distributions.
    """

    prior_sd: float
    temperature: float
    share: float
    reread: bool = False


class Chains(NamedTuple):
    """C chains on each of B devices.

    Attributes:
        weights: [B, C, P] float32.
        log_likelihood: [B, C] float64, of the training data under ``weights``.
        step: [B, C] float64, the proposal's standard deviation.
        accepted: [B, C] int64, of the last block.
    """

    weights: torch.Tensor
    log_likelihood: torch.Tensor
    step: torch.Tensor
    accepted: torch.Tensor


def log_likelihood(chip: Chip, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
    """sum_n log p(y_n | x_n, W), [B, C], measured on the chip."""
    counts = chip.evaluate(weights, batch.inputs, batch.index).double()
    labels = batch.targets[batch.index][:, None, :, None].expand(*counts.shape[:3], 1)
    return log_probabilities(counts, chip.network.count_gain).gather(3, labels).sum(dim=(2, 3))


def log_prior(weights: torch.Tensor, target: Target) -> torch.Tensor:
    """Log N(W; 0, s_p^2 I) up to a constant, [B, C]."""
    return -weights.double().square().sum(dim=-1) / (2 * target.prior_sd**2)


def run_block(
    chip: Chip, batch: Batch, chains: Chains, keys: torch.Tensor, first: int, proposals: int, target: Target
) -> Chains:
    """``proposals`` steps of every chain, from number ``first`` on; ``keys`` [B, C] name the chains' streams."""
    if isinstance(chip, SimulatedChip) and chip.deterministic and not chip.feedback:
        return _fused(chip, batch, chains, keys, first, proposals, target)
    return _measured(chip, batch, chains, keys, first, proposals, target)


def _fused(
    chip: SimulatedChip, batch: Batch, chains: Chains, keys: torch.Tensor, first: int, proposals: int, target: Target
) -> Chains:
    weights, likelihood = chains.weights.clone(), chains.log_likelihood.clone()
    accepted = torch.zeros_like(chains.accepted)
    samples, steps = batch.inputs.shape[1:3]
    sample(
        weights.numpy(), likelihood.numpy(), accepted.numpy(), keys.numpy(), first, proposals, chains.step.numpy(),
        target.share, target.prior_sd, target.temperature, chip.network.count_gain,
        batch.index.numpy(), tile(batch.inputs), tile_labels(batch.targets), samples, steps,
        *chip.flat.arrays, *chip.flat.synapses,
    )  # fmt: skip
    # Each test shows the data once for the candidate, and once more for the current weights where they are read again.
    chip.meter.presentations += weights.shape[1] * proposals * samples * (2 if target.reread else 1)
    return Chains(weights, likelihood, chains.step, accepted)


def _measured(
    chip: Chip, batch: Batch, chains: Chains, keys: torch.Tensor, first: int, proposals: int, target: Target
) -> Chains:
    weights, likelihood = chains.weights.clone(), chains.log_likelihood
    accepted = torch.zeros_like(chains.accepted)
    candidates, log_u = torch.empty_like(weights), torch.empty_like(likelihood)
    for iteration in range(first, first + proposals):
        propose_all(
            weights.numpy(),
            keys.numpy(),
            iteration,
            chains.step.numpy(),
            target.share,
            candidates.numpy(),
            log_u.numpy(),
        )
        if target.reread:
            likelihood = log_likelihood(chip, weights, batch)
        proposed = log_likelihood(chip, candidates, batch)
        prior = log_prior(candidates, target) - log_prior(weights, target)
        accept = log_u < (proposed - likelihood) / target.temperature + prior
        weights = torch.where(accept[..., None], candidates, weights)
        likelihood = torch.where(accept, proposed, likelihood)
        accepted += accept
    return Chains(weights, likelihood, chains.step, accepted)
