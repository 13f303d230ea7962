"""The method's schedule, estimators and budget; that its engine samples the right thing: test_metropolis_truth."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from spikebench import plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.convergence import effective_sample_size
from spikebench.data import Batch, DataInfo, Split
from spikebench.method import Task
from spikebench.metropolis import Chains, log_likelihood, run_block
from spikebench.networks import Network
from spikebench.neurons import LIFParameters
from spikebench.seeds import Streams

MH: ModuleType = plugins.load("methods", "metropolis_hastings")
DATA: ModuleType = plugins.load("datasets", "breast_cancer")
CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
NETWORK = Network(4, (3,), 2, LIFParameters(0.5, 1.0))
#: Eight blocks of ten proposals, the first four of burn-in.
SMALL = MH.Settings(iterations=80, samples=4, chains=3, proposal_sd=0.4, share=0.3)
STREAMS = Streams((21, 22))


class Course:
    """Two cells trained round by round, with everything that was seen on the way."""

    def __init__(self, settings: Any = SMALL, **faults: float) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randint(0, 5, (2, 12, 1, 4), generator=generator) / 4
        splits = [Split(x.expand(-1, 6, -1), torch.randint(0, 2, (12,), generator=generator)) for x in inputs]
        self.batch = Batch.stack(splits, [0, 1])
        self.chip = SimulatedChip(NETWORK, [FaultSpec(1.0, **faults)] * 2, [1, 2])
        self.task = Task(NETWORK, DataInfo("classification", 4, 2, 6, False), settings, "in-the-loop", {})
        self.states = [MH.init(self.task, self.batch, self.chip, STREAMS)]
        self.traces: list[dict[str, torch.Tensor]] = []
        for _ in range(settings.rounds):
            before = self.states[-1]
            copy = type(before)(*(tensor.clone() for tensor in before))  # a step may overwrite what it is given
            state, info = MH.step(self.task, copy, self.batch, self.chip, STREAMS)
            self.states.append(state)
            self.traces.append(dict(info.traces))

    @property
    def final(self) -> Any:
        return self.states[-1]

    def posterior(self, weights: torch.Tensor) -> torch.Tensor:
        """log-posterior [B, C] by the definition, measured on the chip."""
        settings = self.task.settings
        prior = torch.distributions.Normal(0.0, torch.tensor(settings.prior_sd, dtype=torch.float64))
        constant = prior.log_prob(torch.zeros((), dtype=torch.float64)) * weights.shape[-1]
        likelihood = log_likelihood(self.chip.repeat(1), weights, self.batch) / settings.temperature
        return likelihood + prior.log_prob(weights.double()).sum(dim=-1) - constant

    def probabilities(self, weights: torch.Tensor) -> torch.Tensor:
        """softmax of the counts [B, S, N, 2] of weights [B, S, P]."""
        counts = self.chip.repeat(1).evaluate(weights.contiguous(), self.batch.inputs, self.batch.index)
        return torch.log_softmax(counts, dim=-1).exp()


def test_settings_divide_the_iterations_evenly() -> None:
    settings = MH.Settings()
    assert (settings.iterations, settings.samples, settings.chains) == (10_000, 100, 2)
    assert (settings.block, settings.rounds) == (50, 200)
    assert settings.gradient_steps == 0
    assert settings.batch_size is None  # the likelihood is that of all examples
    assert not settings.SEARCH
    with pytest.raises(ValueError, match="iterations: found 1000, expected a multiple of twice the samples \\(600\\)"):
        MH.Settings(iterations=1000, samples=300)


def test_chains_start_from_their_own_draws_and_are_measured_once() -> None:
    start = Course(MH.Settings(iterations=2, samples=1, chains=3, initial_sd=0.5)).states[0]
    assert torch.equal(start.weights, 0.5 * STREAMS.normal((3, NETWORK.parameters), "start"))
    course = Course()
    measured = log_likelihood(course.chip.repeat(1), course.states[0].weights, course.batch)
    assert torch.equal(course.states[0].log_likelihood, measured)
    assert course.states[0].step.eq(0.4).all()


def test_the_step_size_follows_the_acceptance_rate_in_burn_in_and_then_stays() -> None:
    course = Course()
    for number in range(8):
        before, after = course.states[number].step, course.states[number + 1].step
        if number < 4:
            rate = course.states[number + 1].accepted / 10
            expected = before * torch.exp((rate - 0.25) / (1 + number / 10))
            torch.testing.assert_close(after, expected)
            assert (after != before).any()
        else:
            assert torch.equal(after, before)
    assert len(course.final.step.unique()) == 6  # every chain has its own


def test_samples_are_the_weights_at_the_end_of_each_block_after_burn_in() -> None:
    course = Course(threshold=0.3)
    for kept in range(4):
        state = course.states[5 + kept]
        assert torch.equal(course.final.samples[:, :, kept], state.weights)
        torch.testing.assert_close(course.final.log_posterior[:, :, kept], course.posterior(state.weights))
    assert not course.states[4].samples.any()
    assert torch.equal(course.final.acceptance, sum(state.accepted for state in course.states[5:]))
    assert not course.states[4].acceptance.any()


def test_temperature_and_prior_enter_the_log_posterior() -> None:
    settings = MH.Settings(iterations=80, samples=4, chains=2, temperature=3.0, prior_sd=0.7)
    course = Course(settings)
    torch.testing.assert_close(course.final.log_posterior[:, :, -1], course.posterior(course.final.weights))


def test_traces_are_those_of_every_round_and_chain() -> None:
    course = Course()
    for trace, state in zip(course.traces, course.states[1:], strict=True):
        assert set(trace) == {"log_posterior", "acceptance_rate", "proposal_sd"}
        torch.testing.assert_close(trace["log_posterior"], course.posterior(state.weights))
        torch.testing.assert_close(trace["acceptance_rate"].double(), state.accepted / 10.0, check_dtype=False)
        assert torch.equal(trace["proposal_sd"], state.step)


def test_the_sampling_phase_is_one_unbroken_chain() -> None:
    """No proposal is used twice: all blocks after burn-in are one run of the engine, exactly where sums are exact."""
    course = Course(quantisation=0.5)
    middle = course.states[4]
    keys = torch.stack([STREAMS.keys("chain", c) for c in range(3)], dim=1)
    chains = Chains(middle.weights, middle.log_likelihood, middle.step, middle.accepted)
    whole = run_block(course.chip, course.batch, chains, keys, 40, 40, SMALL.target)
    assert torch.equal(whole.weights, course.final.weights)
    assert torch.equal(whole.accepted, course.final.acceptance)


def test_every_chain_and_the_first_measurement_are_paid_for() -> None:
    assert Course().chip.meter.presentations.tolist() == [3 * 12 * (80 + 1)] * 2
    twice = Course(MH.Settings(iterations=80, samples=4, chains=3, reread=True))
    assert twice.chip.meter.presentations.tolist() == [3 * 12 * (2 * 80 + 1)] * 2


def test_the_chain_with_the_highest_mean_log_posterior_predicts_with_its_mean_weights() -> None:
    course = Course(threshold=0.3)
    posterior = torch.tensor([[-9.0, -2.0, -5.0], [-1.0, -7.0, -8.0]])
    state = course.final._replace(log_posterior=posterior[..., None].expand(-1, -1, 4))
    prediction = MH.predict(course.task, state, course.batch.inputs, course.batch.index, course.chip)
    chosen = torch.stack([state.samples[0, 1], state.samples[1, 0]])
    assert torch.equal(prediction.probabilities, course.probabilities(chosen.mean(dim=1, keepdim=True)))
    other = course.probabilities(state.samples[:, 2].mean(dim=1, keepdim=True))
    assert not torch.equal(prediction.probabilities, other)
    assert prediction.diagnostics["log_posterior"].tolist() == [-2.0, -1.0]
    expected = torch.stack([state.acceptance[0, 1], state.acceptance[1, 0]]) / 40
    torch.testing.assert_close(prediction.diagnostics["acceptance_rate"], expected, check_dtype=False)
    assert torch.equal(prediction.diagnostics["proposal_sd"], torch.stack([state.step[0, 1], state.step[1, 0]]))


def test_the_other_estimators_by_hand() -> None:
    course = Course(gain_mismatch=0.2)
    posterior = torch.tensor([[-1.0, -5.0, -4.0, -3.0], [-6.0, -2.0, -9.0, -3.0]])  # best samples: 0 and 1
    state = course.final._replace(log_posterior=torch.stack([posterior - 10, posterior, posterior - 1], dim=1))
    made = MH.estimates(course.task, state, course.batch.inputs, course.batch.index, course.chip)
    samples = state.samples[:, 1]
    assert set(made) == {"best-sample", "last-sample", "averaged-predictions"}
    best = torch.stack([samples[0, 0], samples[1, 1]])[:, None]
    assert torch.equal(made["best-sample"], course.probabilities(best))
    assert torch.equal(made["last-sample"], course.probabilities(samples[:, 3:]))
    assert torch.equal(made["averaged-predictions"], course.probabilities(samples))
    assert made["averaged-predictions"].shape == (2, 4, 12, 2)


def test_effective_sample_size_is_that_of_the_kept_log_posterior() -> None:
    course = Course(MH.Settings(iterations=800, samples=40, chains=2))
    prediction = MH.predict(course.task, course.final, course.batch.inputs, course.batch.index, course.chip)
    best = course.final.log_posterior.mean(dim=2).argmax(dim=1)
    for b in range(2):
        expected = effective_sample_size(course.final.log_posterior[b, best[b]][None].numpy())
        assert prediction.diagnostics["effective_sample_size"][b].item() == pytest.approx(expected)
        assert 1 < expected <= 40 * 2


def test_predictions_cost_no_training_presentations_but_are_metered() -> None:
    course = Course()
    chip = course.chip.repeat(1)
    MH.predict(course.task, course.final, course.batch.inputs, course.batch.index, chip)
    assert chip.meter.presentations.tolist() == [12, 12]


def test_on_the_real_data_chains_learn_and_are_accepted_as_often_as_is_wanted() -> None:
    faults = yaml.safe_load(CONFIG.read_text())["faults"]["paper-full"]
    data = [DATA.load(DATA.Settings(split_seed=s)) for s in range(3)]
    settings = MH.Settings(iterations=2000, samples=50)
    network = Network(31, (8,), 2)
    chip = SimulatedChip(network, [FaultSpec(0.5, **faults)] * 3, range(3))
    batch = Batch.stack([d.labelled for d in data], [0, 1, 2])
    task = Task(network, DataInfo("classification", 31, 2, 10, False), settings, "in-the-loop", {})
    streams = Streams((0, 1, 2))
    state = MH.init(task, batch, chip, streams)
    first = state.log_likelihood
    for _ in range(settings.rounds):
        state, _ = MH.step(task, state, batch, chip, streams)
    rates = state.acceptance / (settings.samples * settings.block)
    # A chain's rate moves on a little after burn-in, when the step size no longer follows.
    assert 0.15 < rates.mean() < 0.35
    assert rates.min() > 0.05 and rates.max() < 0.45
    assert (state.log_likelihood > first + 50).all()
    test = Batch.stack([d.test for d in data], [0, 1, 2])
    averaged = MH.estimates(task, state, test.inputs, test.index, chip)["averaged-predictions"].mean(dim=1)
    right = averaged.argmax(dim=-1) == test.targets
    assert (right.double().mean(dim=1) > 0.85).all()
