"""Proposals, acceptance and bookkeeping of the sampler; that it samples the right thing: test_metropolis_truth."""

from __future__ import annotations

import math
from typing import Any

import nets
import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec
from spikebench.chip.metropolis_kernel import propose_all, uniform
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, Split
from spikebench.metropolis import Chains, Target, log_likelihood, log_prior, run_block
from spikebench.networks import Network
from spikebench.neurons import LIFParameters
from spikebench.seeds import Streams

NETWORK = Network(3, (4,), 2, LIFParameters(0.5, 1.0))
TARGET = Target(prior_sd=1.0, temperature=1.0, share=0.3)
STATIC = {
    "ideal": {},
    "threshold": {"threshold": 0.5},
    "gain and drift": {"gain_mismatch": 0.3, "drift": 0.05},
    "time constant": {"time_constant": 0.5},
    "offset and compression": {"offset": 0.2, "compression": 0.5},
    "quantisation": {"quantisation": 0.5},
    "stuck": {"stuck_at": 0.3},
    "dead and saturated": {"dead": 0.2, "saturated": 0.2},
}


class Opaque:
    """A device that offers the protocol alone, so that the sampler has to measure it."""

    def __init__(self, chip: SimulatedChip) -> None:
        self._chip = chip

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chip, name)


def data(samples: int = 20, steps: int = 5, constant: bool = True) -> Batch:
    """Two splits for three cells."""
    generator = nets.generator(1)
    parts = []
    for _ in range(2):
        targets = torch.randint(0, 2, (samples,), generator=generator)
        parts.append(Split(nets.inputs(NETWORK, generator, samples, steps, constant), targets))
    return Batch.stack(parts, [1, 0, 1])


def chip_of(**faults: float) -> SimulatedChip:
    return SimulatedChip(NETWORK, [FaultSpec(1.0, **faults)] * 3, [0, 1, 2])


def begin(chip: SimulatedChip, batch: Batch, chains: int = 2, step: float = 0.5) -> tuple[Chains, torch.Tensor]:
    streams = Streams((7, 8, 9))
    weights = streams.normal((chains, NETWORK.parameters), "start")
    keys = torch.stack([streams.keys("chain", c) for c in range(chains)], dim=1)
    steps = torch.full(keys.shape, step, dtype=torch.float64)
    return Chains(weights, log_likelihood(chip, weights, batch), steps, torch.zeros_like(keys)), keys


def same(a: Chains, b: Chains) -> None:
    assert torch.equal(a.weights, b.weights)
    assert torch.equal(a.accepted, b.accepted)
    torch.testing.assert_close(a.log_likelihood, b.log_likelihood, atol=1e-9, rtol=0)


# Random numbers


def test_uniform_numbers_are_splitmix64() -> None:
    # The first outputs of the published generator (java.util.SplittableRandom, xoroshiro's seeder) from seed 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    for counter, value in enumerate(published):
        assert uniform(1234567, counter) == ((value >> 11) + 0.5) / 2**53


def test_uniform_numbers_are_uniform_and_independent_between_counters_and_keys() -> None:
    keys = [*Streams((1,)).keys("chain", 0).tolist(), 0, 1, 2]  # keys that are neighbours too
    draws = np.array([[uniform(key, counter) for counter in range(20_000)] for key in keys])
    assert draws.min() > 0 and draws.max() < 1
    for row in draws:
        assert stats.kstest(row, "uniform").pvalue > 1e-3
        assert stats.chisquare(np.bincount((row * 2**20).astype(int) % 16)).pvalue > 1e-3  # inner bits
    correlation = np.corrcoef(np.concatenate([draws[:, :-1], draws[:, 1:]])) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(20_000)


def proposals(weights: torch.Tensor, keys: torch.Tensor, iteration: int, step: float, share: float):
    candidates, log_u = torch.empty_like(weights), torch.empty(keys.shape, dtype=torch.float64)
    steps = torch.full(keys.shape, step, dtype=torch.float64)
    propose_all(weights.numpy(), keys.numpy(), iteration, steps.numpy(), share, candidates.numpy(), log_u.numpy())
    return candidates, log_u


def many(chains: int = 20_000, size: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of 0 on one device, and unrelated keys."""
    keys = torch.randint(0, 2**62, (1, chains), generator=nets.generator(2))
    return torch.zeros(1, chains, size), keys


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_each_weight_is_changed_with_the_share_as_its_probability(share: float) -> None:
    weights, keys = many()
    changed = proposals(weights, keys, 5, 0.1, share)[0][0] != 0
    if share == 1.0:
        assert changed.all()
        return
    for position in range(25):
        assert stats.binomtest(int(changed[:, position].sum()), 20_000, share).pvalue > 1e-4
    # ... independently: how many are changed is binomial.
    expected = 20_000 * stats.binom.pmf(np.arange(26), 25, share)
    seen = np.bincount(changed.sum(dim=1).numpy(), minlength=26)
    usual = expected > 5
    seen, expected = np.append(seen[usual], seen[~usual].sum()), np.append(expected[usual], expected[~usual].sum())
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_changes_are_normal_and_symmetric_whatever_the_weight() -> None:
    weights, keys = many(4000)
    for value in (3.0, -0.5):
        candidates, _ = proposals(torch.full_like(weights, value), keys, 9, 0.25, 0.4)
        change = (candidates.double() - value)[candidates != value] / 0.25
        assert stats.kstest(change.numpy(), "norm").pvalue > 1e-3
    # Chosen neighbours get independent changes.
    pairs = (candidates[0].double() + 0.5)[(candidates[0, :, :2] != -0.5).all(dim=1)][:, :2]
    assert abs(pairs.T.corrcoef()[0, 1]) < 4.5 / math.sqrt(len(pairs))


def test_the_acceptance_threshold_is_the_logarithm_of_a_uniform_number_of_its_own() -> None:
    weights, keys = many()
    candidates, log_u = proposals(weights, keys, 3, 1.0, 1.0)
    u = log_u[0].exp()
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    together = torch.cat([u[:, None], candidates[0].double()], dim=1)
    assert (together.T.corrcoef() - torch.eye(26)).abs().max() < 4.5 / math.sqrt(len(u))


def test_proposals_of_successive_iterations_and_other_chains_are_unrelated() -> None:
    weights, keys = many(5000, 4)
    rounds = [proposals(weights, keys, i, 1.0, 1.0)[0][0] for i in (0, 1, 2)]
    rounds.append(rounds[0].roll(1, dims=0))  # the chain beside it
    table = torch.cat(rounds, dim=1).double()
    assert (table.T.corrcoef() - torch.eye(16)).abs().max() < 4.5 / math.sqrt(5000)


def test_a_chains_proposals_do_not_depend_on_the_chains_beside_it() -> None:
    weights, keys = many(6, 10)
    candidates, log_u = proposals(weights, keys, 4, 0.5, 0.3)
    alone, own_log_u = proposals(weights[:, 2:3].contiguous(), keys[:, 2:3].contiguous(), 4, 0.5, 0.3)
    assert torch.equal(alone[0, 0], candidates[0, 2])
    assert own_log_u[0, 0] == log_u[0, 2]


# Likelihood and prior


def test_log_likelihood_is_the_sum_over_the_cells_own_examples() -> None:
    batch, chip = data(), chip_of(threshold=0.3)
    chains, _ = begin(chip, batch)
    for b in range(3):
        split = int(batch.index[b])
        for c in range(2):
            own = SimulatedChip(NETWORK, [chip.specs[b]], [b])
            counts = own.run(chains.weights[b, c][None], batch.inputs[split][None], torch.tensor([0]))[-1][0].sum(dim=1)
            expected = 0.0
            for count, label in zip(counts.tolist(), batch.targets[split].tolist(), strict=True):
                expected += count[label] - math.log(sum(math.exp(k) for k in count))
            assert chains.log_likelihood[b, c].item() == pytest.approx(expected, rel=1e-12)


def test_log_prior_is_normal_up_to_a_constant() -> None:
    a, b = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.0, 0.25, 0.0])
    target = TARGET._replace(prior_sd=1.5)
    expected = stats.norm.logpdf(a, scale=1.5).sum() - stats.norm.logpdf(b, scale=1.5).sum()
    assert (log_prior(a, target) - log_prior(b, target)).item() == pytest.approx(expected)


def test_many_samples_and_classes_do_not_overflow_the_normaliser() -> None:
    network = Network(1, (), 10)
    chip = SimulatedChip(network, [FaultSpec()], [0])
    batch = Batch.stack([Split(torch.zeros(2000, 1, 1).expand(-1, 5, -1), torch.zeros(2000, dtype=torch.long))], [0])
    zero = torch.zeros(1, 1, dtype=torch.float64)
    chains = Chains(torch.zeros(1, 1, 10), zero - math.inf, zero + 0.1, torch.zeros(1, 1, dtype=torch.int64))
    after = run_block(chip, batch, chains, torch.tensor([[5]]), 0, 1, TARGET)  # from -inf anything is accepted
    assert after.accepted.item() == 1
    assert after.log_likelihood.item() == pytest.approx(-2000 * math.log(10))


# The compiled program and the measured one


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("faults", STATIC)
def test_the_compiled_block_equals_the_measured_one(faults: str, constant: bool) -> None:
    batch = data(constant=constant)
    chip, measured = chip_of(**STATIC[faults]), chip_of(**STATIC[faults])
    chains, keys = begin(chip, batch)
    compiled = run_block(chip, batch, chains, keys, 30, 40, TARGET)
    same(compiled, run_block(Opaque(measured), batch, chains, keys, 30, 40, TARGET))  # type: ignore[arg-type]
    assert 0 < compiled.accepted.sum() < 3 * 2 * 40
    torch.testing.assert_close(compiled.log_likelihood, log_likelihood(chip, compiled.weights, batch))


def test_a_network_of_maps_is_measured() -> None:
    """The compiled program knows dense layers alone."""
    net = feedback_network("2C3-M2-2", 17, (1, 4, 4), 2, LIFParameters(0.5, 1.0))
    generator = nets.generator(3)
    split = Split((torch.rand((12, 4, 17), generator=generator) < 0.5).float(), torch.arange(12) % 2)
    batch, chip = Batch.stack([split], [0]), SimulatedChip(net, [FaultSpec(1.0, threshold=0.3)], [0])
    streams = Streams((7,))
    weights, keys = streams.normal((1, net.parameters), "start"), streams.keys("chain", 0)[:, None]
    step, none = torch.full(keys.shape, 0.5, dtype=torch.float64), torch.zeros_like(keys)
    chains = Chains(weights, log_likelihood(chip, weights, batch), step, none)
    after = run_block(chip, batch, chains, keys, 0, 40, TARGET)
    assert 0 < after.accepted < 40
    torch.testing.assert_close(after.log_likelihood, log_likelihood(chip, after.weights, batch))
    same(after, run_block(Opaque(chip), batch, chains, keys, 0, 40, TARGET))  # type: ignore[arg-type]


def test_a_block_leaves_the_chains_it_was_given_alone() -> None:
    batch, chip = data(), chip_of()
    chains, keys = begin(chip, batch)
    before = Chains(*(tensor.clone() for tensor in chains))
    run_block(chip, batch, chains, keys, 0, 40, TARGET)
    same(chains, before)


@pytest.mark.parametrize("opaque", [False, True], ids=["compiled", "measured"])
def test_block_boundaries_do_not_matter(opaque: bool) -> None:
    """Exactly where the currents are (multiples of 1/16 of quantised weights); else to the rounding within a block."""
    batch, chip = data(), chip_of(quantisation=0.5)
    device: Any = Opaque(chip) if opaque else chip
    chains, keys = begin(chip, batch)
    whole = run_block(device, batch, chains, keys, 0, 100, TARGET)
    first = run_block(device, batch, chains, keys, 0, 50, TARGET)
    second = run_block(device, batch, first, keys, 50, 50, TARGET)
    same(second._replace(accepted=first.accepted + second.accepted), whole)
    assert not torch.equal(run_block(device, batch, first, keys, 0, 50, TARGET).weights, whole.weights)


def test_the_rounding_gathered_in_a_long_block_is_small() -> None:
    """After 20,000 changed synapses the likelihood kept by the chain is still that of a fresh measurement."""
    batch = data(samples=60)
    chip = chip_of(gain_mismatch=0.3)
    chains, keys = begin(chip, batch, chains=10, step=0.1)
    after = run_block(chip, batch, chains, keys, 0, 4000, TARGET)
    difference = (after.log_likelihood - log_likelihood(chip, after.weights, batch)).abs()
    assert (difference < 1e-9).double().mean() > 0.8  # a spike may fall on the other side of its threshold
    assert difference.max() < 3


def test_a_chain_does_not_depend_on_the_devices_and_chains_beside_it() -> None:
    batch = data()
    chip = chip_of(threshold=0.5, gain_mismatch=0.3)
    chains, keys = begin(chip, batch, chains=3)
    after = run_block(chip, batch, chains, keys, 0, 60, TARGET)
    own = Chains(*(tensor[1:2, 2:3].contiguous() for tensor in chains))
    alone = SimulatedChip(NETWORK, chip.specs[1:2], [1])
    single = run_block(alone, batch._replace(index=batch.index[1:2]), own, keys[1:2, 2:3].contiguous(), 0, 60, TARGET)
    assert torch.equal(single.weights, after.weights[1:2, 2:3])
    assert torch.equal(single.log_likelihood, after.log_likelihood[1:2, 2:3])


# Without data


@pytest.mark.parametrize("how", ["no examples", "infinite temperature"])
def test_without_data_the_prior_is_sampled(how: str) -> None:
    batch = data(samples=0) if how == "no examples" else data()
    target = Target(prior_sd=1.5, temperature=1.0 if how == "no examples" else 1e12, share=0.3)
    chip = chip_of(threshold=0.3)
    chains, keys = begin(chip, batch, chains=100, step=2.0)
    kept = []
    for block in range(12):  # 20 weights, 6 changed a proposal: 60 proposals between samples suffice
        chains = run_block(chip, batch, chains, keys, block * 60, 60, target)
        kept.append(chains.weights)
    draws = torch.stack(kept[2:]).double()  # [10, 3, 100, P]
    count = draws.numel()
    assert abs(draws.mean().item()) < 4.5 * 1.5 / math.sqrt(count)
    assert abs(draws.var().item() / 1.5**2 - 1) < 4.5 * math.sqrt(2 / count)
    assert stats.kstest(draws.flatten().numpy(), "norm", args=(0, 1.5)).pvalue > 1e-3
    correlation = draws.flatten(0, 2).T.corrcoef() - torch.eye(NETWORK.parameters)
    assert correlation.abs().max() < 4.5 / math.sqrt(count / NETWORK.parameters)


# What it costs


@pytest.mark.parametrize("opaque", [False, True], ids=["compiled", "measured"])
@pytest.mark.parametrize("reread", [False, True], ids=["kept", "read again"])
def test_every_chain_and_every_reading_is_paid_for(opaque: bool, reread: bool) -> None:
    batch, chip = data(samples=20), chip_of()
    chains, keys = begin(chip, batch, chains=3)
    assert chip.meter.presentations.tolist() == [3 * 20] * 3  # the first measurement
    device: Any = Opaque(chip) if opaque else chip
    run_block(device, batch, chains, keys, 0, 10, TARGET._replace(reread=reread))
    assert chip.meter.presentations.tolist() == [3 * 20 * (1 + 10 * (1 + reread))] * 3


def test_reading_again_changes_nothing_on_a_device_without_noise() -> None:
    batch, chip = data(), chip_of(threshold=0.3)
    chains, keys = begin(chip, batch)
    kept = run_block(chip, batch, chains, keys, 0, 40, TARGET)
    same(run_block(chip, batch, chains, keys, 0, 40, TARGET._replace(reread=True)), kept)
    same(run_block(Opaque(chip), batch, chains, keys, 0, 40, TARGET._replace(reread=True)), kept)  # type: ignore[arg-type]
