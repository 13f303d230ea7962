"""Sampling against posteriors that are known.

Quantised weights make the likelihood depend on each weight's level alone. So the posterior over the finitely many
combinations of levels is the likelihood, simulated here neuron by neuron, times the prior's mass in each level's cell.
Every chain gives one sample, its last weights, so that samples are independent and a chi-square test is exact.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.chip.faults import FULL_SCALE, FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, Split
from spikebench.metropolis import Chains, Target, log_likelihood, run_block
from spikebench.networks import Network
from spikebench.neurons import LIFParameters
from spikebench.seeds import Streams

CHAINS = 3000
NEURON = LIFParameters(0.5, 1.0)
TARGET = Target(prior_sd=2.0, temperature=1.0, share=0.5)
STEPS = 4
#: One measurement and the constant line; labels that overlap, so that no combination is certain.
INPUTS = torch.tensor([[0.0, 1.0], [0.25, 1.0], [0.5, 1.0], [0.75, 1.0], [1.0, 1.0]])
LABELS = torch.tensor([0, 1, 0, 1, 1])


@dataclass(frozen=True)
class Case:
    """A network that can be enumerated."""

    hidden: tuple[int, ...]
    bits: int

    @property
    def network(self) -> Network:
        return Network(2, self.hidden, 2, NEURON)

    @property
    def levels(self) -> np.ndarray:
        return -FULL_SCALE + (np.arange(2**self.bits) + 0.5) * 2 * FULL_SCALE / 2**self.bits

    def chip(self, read_noise: float = 0.0) -> SimulatedChip:
        strength = {1: 1.0, 2: 6 / 7}[self.bits]
        return SimulatedChip(self.network, [FaultSpec(1.0, quantisation=strength, read_noise=read_noise)], [0])

    def states(self) -> list[tuple[int, ...]]:
        """All combinations of level numbers."""
        return list(itertools.product(range(2**self.bits), repeat=self.network.parameters))


CASES = {"2 bits, no hidden layer": Case((), 2), "1 bit, one hidden neuron": Case((1,), 1)}


def spike_counts(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Output counts of one sample: each neuron's equation, in Python numbers (all are exact)."""
    trains = [x] * STEPS
    for layer, matrix in enumerate(weights):
        potential, spiked = np.zeros(len(matrix)), np.zeros(len(matrix))
        following = []
        for signal in trains:
            arriving = signal if layer == 0 else np.append(signal, 1.0)
            potential = NEURON.decay * potential * (1 - spiked) + matrix @ arriving
            spiked = (potential > NEURON.threshold).astype(float)
            following.append(spiked)
        trains = following
    return np.sum(trains, axis=0)


def differences(case: Case, state: tuple[int, ...]) -> np.ndarray:
    """For each sample the count of the right class minus that of the other."""
    matrices, first = [], 0
    for neurons, lines in case.network.shapes:
        matrices.append(case.levels[list(state[first : first + neurons * lines])].reshape(neurons, lines))
        first += neurons * lines
    counts = np.array([spike_counts(matrices, x) for x in INPUTS.double().numpy()])
    own = counts[np.arange(len(LABELS)), LABELS]
    return own - counts[np.arange(len(LABELS)), 1 - LABELS.numpy()]


def posterior(case: Case, target: Target, read_noise: float = 0.0) -> np.ndarray:
    """Probability of each state.

    With read noise: of chains that keep a measured likelihood, which sample its expectation (Andrieu and Roberts 2009).
    """
    edges = np.concatenate([[-np.inf], (case.levels[1:] + case.levels[:-1]) / 2, [np.inf]])  # outer levels clip
    mass = np.diff(stats.norm.cdf(edges, scale=target.prior_sd))
    nodes, share = np.polynomial.hermite_e.hermegauss(80)
    noise = nodes * math.sqrt(2) * read_noise  # of the difference of two counts
    values = []
    for state in case.states():
        right = 1 / (1 + np.exp(-(differences(case, state)[:, None] + noise))) ** (1 / target.temperature)
        likelihood = np.prod(right @ share / share.sum())
        values.append(likelihood * np.prod(mass[list(state)]))
    return np.array(values) / np.sum(values)


def batch() -> Batch:
    return Batch.stack([Split(INPUTS[:, None].expand(-1, STEPS, -1), LABELS)], [0])


def start(case: Case, chip: SimulatedChip, chains: int, seed: int = 0) -> tuple[Chains, torch.Tensor]:
    """Chains from N(0, 1) and their keys."""
    streams = Streams((seed,))
    weights = streams.normal((chains, case.network.parameters), "start")
    keys = torch.stack([streams.keys("chain", c) for c in range(chains)], dim=1)
    step = torch.full((1, chains), 2.0, dtype=torch.float64)
    return Chains(weights, log_likelihood(chip, weights, batch()), step, torch.zeros_like(keys)), keys


def tally(case: Case, weights: torch.Tensor) -> np.ndarray:
    """How many of the weights [n, P] are in each state."""
    grain = 2 * FULL_SCALE / 2**case.bits
    levels = torch.floor((weights + FULL_SCALE) / grain).clamp(0, 2**case.bits - 1).long().tolist()
    number = {state: i for i, state in enumerate(case.states())}
    return np.bincount([number[tuple(row)] for row in levels], minlength=len(number))


def sampled(case: Case, target: Target, proposals: int = 300, read_noise: float = 0.0) -> np.ndarray:
    """How many of ``CHAINS`` chains end in each state."""
    chip = case.chip(read_noise)
    chip.count_activity = False
    chains, keys = start(case, chip, CHAINS)
    chains = run_block(chip, batch(), chains, keys, 0, proposals, target)
    assert 0.05 < chains.accepted.double().mean() / proposals < 0.9
    return tally(case, chains.weights[0])


def p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square test; states that are too rare for it (fewer than 5 expected) are taken together."""
    rare = expected * counts.sum() < 5
    seen, wanted = counts[~rare], expected[~rare] * counts.sum()
    if rare.any():
        seen, wanted = np.append(seen, counts[rare].sum()), np.append(wanted, expected[rare].sum() * counts.sum())
    assert len(seen) > 15
    return float(stats.chisquare(seen, wanted).pvalue)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_chains_sample_the_enumerated_posterior(name: str, temperature: float) -> None:
    target = TARGET._replace(temperature=temperature)
    assert p_value(sampled(CASES[name], target), posterior(CASES[name], target)) > 1e-3


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("2 bits, no hidden layer", {"temperature": 1.5}),
        ("2 bits, no hidden layer", {"prior_sd": 1.6}),
        ("1 bit, one hidden neuron", {"temperature": 2.0}),  # its two cells have equal mass under every prior
    ],
)
def test_the_test_notices_a_wrong_target(name: str, wrong: dict[str, float]) -> None:
    counts = sampled(CASES[name], TARGET)
    assert p_value(counts, posterior(CASES[name], TARGET)) > 1e-3
    assert p_value(counts, posterior(CASES[name], TARGET._replace(**wrong))) < 1e-6


def test_thinned_samples_of_a_few_chains_do_too() -> None:
    case = CASES["2 bits, no hidden layer"]
    chip = case.chip()
    chains, keys = start(case, chip, 60)
    kept, thinning = [], 150
    for block in range(52):
        chains = run_block(chip, batch(), chains, keys, block * thinning, thinning, TARGET)
        kept.append(chains.weights[0])
    counts = tally(case, torch.cat(kept[2:]))
    assert counts.sum() == 3000
    assert p_value(counts, posterior(case, TARGET)) > 1e-3


def test_with_read_noise_a_kept_likelihood_samples_the_expected_one_and_a_fresh_one_another() -> None:
    case, noise = CASES["1 bit, one hidden neuron"], 1.0
    truth = posterior(case, TARGET, noise)
    cached = sampled(case, TARGET, 250, noise)
    reread = sampled(case, TARGET._replace(reread=True), 80, noise)
    assert p_value(cached, truth) > 1e-3
    assert p_value(cached, posterior(case, TARGET)) < 1e-6  # the noise matters
    assert p_value(reread, truth) < 1e-6
