"""The rules of K compartments: against enumeration of a tiny network, by hand, and the compiled form against the steps.

The tiny network has two hidden neurons, one output and three time steps, so that its hidden neurons have 64 paths. Its
probabilities, and by automatic differentiation their gradients, come from a model that is written out anew here.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import nets
import numpy as np
import pytest
import torch

from spikebench import compartments, number_kernels
from spikebench.compartments import BASELINES, Memory, Rule, communication, depth, online_step, present
from spikebench.networks import Network
from spikebench.neurons import GLMParameters, glm_spikes

STEPS, HIDDEN = 3, 2
#: All paths of the hidden neurons, [64, T, H].
PATHS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=STEPS * HIDDEN)), dtype=torch.float64).view(-1, 3, 2)


def cosine(network: Network, m: int, d: int) -> float:
    """a_m(d), as it is kept in single precision."""
    phase = math.pi * network.neuron.spacing * math.log(d + 1) - m * math.pi / 2
    return float(np.float32(0.5 + 0.5 * math.cos(max(-math.pi, min(math.pi, phase)))))


def log_probabilities(
    network: Network, weights: torch.Tensor, inputs: torch.Tensor, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """ln p(h||x) and ln p(x|h), [N] each, of hidden paths [N, T, H] and outputs [T, O]: one synapse after the other."""
    first, (width,), (kinds, taps, _, feedback) = network.inputs - 1, network.hidden, network.neuron
    paths, steps = hidden.shape[:2]
    shared = torch.cat([inputs[:, :-1], targets], dim=1).double().expand(paths, -1, -1)
    signals = torch.cat([shared[..., :first], hidden, shared[..., first:]], dim=2)
    found, place = [torch.zeros(paths, dtype=torch.float64) for _ in range(2)], 0
    for i in range(width + network.outputs):
        heard = first + width + (network.outputs if i >= width else 0)
        own = weights[place : place + heard * kinds + 1]
        place += heard * kinds + 1
        for t in range(steps):
            u = own[-1]
            for j, m, d in itertools.product(range(heard), range(kinds), range(min(t, taps))):
                deaf = (j == first + i and m > 0) or (j >= first + width and not feedback)
                u = u + 0 if deaf else u + own[j * kinds + m] * cosine(network, m, d) * signals[:, t - 1 - d, j]
            spike = signals[:, t, first + i]
            found[i >= width] = found[i >= width] + torch.where(spike > 0, u, -u).sigmoid().log()
    assert place == network.parameters
    return found[0], found[1]


class Toy:
    """The tiny network with weights, an input and a target; everything in double precision."""

    def __init__(self, output_feedback: bool = True) -> None:
        generator = nets.generator(4)
        self.network = Network(3, (HIDDEN,), 1, GLMParameters(filters=2, taps=2, output_feedback=output_feedback))
        drawn = torch.randn(self.network.parameters, generator=generator, dtype=torch.float64)
        self.weights = 1.5 * drawn * self.network.connected
        self.inputs = torch.tensor([[1.0, 0.5, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
        self.targets = torch.tensor([[1.0], [0.0], [1.0]])
        self.leaf = self.weights.clone().requires_grad_()
        arguments = (self.network, self.leaf, self.inputs, PATHS, self.targets)
        self.of_paths, self.of_targets = log_probabilities(*arguments)
        self.probability = self.of_paths.detach().exp()
        assert float(self.probability.sum()) == pytest.approx(1.0, abs=1e-12)
        self.cut = math.prod(self.network.shapes[0])

    @property
    def evidence(self) -> torch.Tensor:
        """ln p(x)."""
        return torch.logsumexp(self.of_paths + self.of_targets, dim=0)

    def bound(self, number: int) -> torch.Tensor:
        """E ln 1/K sum_k p(x|h^k) over all K-tuples of paths; with K = 1 it is the ELBO."""
        tuples = self.tuples(number)
        inside = torch.logsumexp(self.of_targets[tuples], dim=1) - math.log(number)
        return (self.of_paths[tuples].sum(dim=1).exp() * inside).sum()

    def gradient(self, of: torch.Tensor) -> torch.Tensor:
        """In the weights, [P]."""
        return torch.autograd.grad(of, self.leaf, retain_graph=True)[0]

    def tuples(self, number: int) -> torch.Tensor:
        """All K-tuples of paths, [64^K, K]."""
        return torch.tensor(list(itertools.product(range(len(PATHS)), repeat=number)))

    def last_step(self, rule: Rule, paths: torch.Tensor) -> tuple[torch.Tensor, Memory]:
        """The step [B, P] at the end of the sequence, of hidden neurons that took ``paths`` [B, K], and the memory."""
        memory, weights = Memory.rest(self.network, rule, len(paths)), self.weights.expand(len(paths), -1)
        shown, clamps = (x.double().expand(len(paths), -1, -1) for x in (self.inputs, self.targets))
        for t in range(STEPS):
            memory, step, _ = online_step(
                self.network, rule, memory, weights, shown[:, t], clamps[:, t], PATHS[paths, t]
            )
        return step, memory

    def expected_step(self, rule: Rule) -> torch.Tensor:
        """The mean of ``last_step`` over all K-tuples of paths, [P]."""
        tuples = self.tuples(rule.compartments)
        step, _ = self.last_step(rule, tuples)
        return self.probability[tuples].prod(dim=1) @ step


TOYS = {feedback: Toy(feedback) for feedback in (True, False)}


def whole(name: str, number: int, baseline: str = "none") -> Rule:
    """A rule that forgets nothing, so that one update at the end follows a gradient."""
    return Rule(name, number, 1.0, baseline)


@pytest.mark.parametrize("feedback", TOYS)
class TestGradients:
    @pytest.mark.parametrize(("name", "number"), [("single-sample", 1), ("mb", 1), ("mb", 2)])
    def test_mb_follows_the_gradient_of_the_elbo(self, name: str, number: int, feedback: bool) -> None:
        toy = TOYS[feedback]
        exact = toy.gradient(toy.bound(1))
        torch.testing.assert_close(toy.expected_step(whole(name, number)), exact, atol=1e-9, rtol=0)
        assert exact[: toy.cut].norm() > 0.1

    @pytest.mark.parametrize("number", [1, 2])
    def test_iw_follows_the_gradient_of_the_bound_by_so_many_samples(self, number: int, feedback: bool) -> None:
        toy = TOYS[feedback]
        exact = toy.gradient(toy.bound(number))
        torch.testing.assert_close(toy.expected_step(whole("iw", number)), exact, atol=1e-9, rtol=0)
        assert number == 1 or (exact - toy.gradient(toy.bound(1)))[: toy.cut].norm() > 0.01

    def test_gem_with_one_compartment_moves_hidden_neurons_nowhere_on_average(self, feedback: bool) -> None:
        toy = TOYS[feedback]
        mean = toy.expected_step(whole("gem", 1))
        assert mean[: toy.cut].abs().max() < 1e-12
        exact = toy.gradient(toy.bound(1))[toy.cut :]
        torch.testing.assert_close(mean[toy.cut :], exact, atol=1e-9, rtol=0)
        assert exact.norm() > 0.1
        single, _ = toy.last_step(whole("gem", 1), toy.tuples(1))
        assert single[:, : toy.cut].norm(dim=1).min() > 0.1, "each step alone is not 0"

    def test_gem_nears_the_gradient_of_the_likelihood_as_compartments_grow(self, feedback: bool) -> None:
        """It falls short by about 1/K: a self-normalised average is biased towards the plain one, which is 0 here."""
        toy = TOYS[feedback]
        exact = toy.gradient(toy.evidence)
        ratio = []
        for number, draws in ((2, 30_000), (5, 12_000), (20, 6000), (100, 3000)):
            drawn = torch.multinomial(toy.probability, draws * number, True, generator=nets.generator(number))
            step = toy.last_step(whole("gem", number), drawn.view(draws, number))[0].mean(dim=0)
            ratio.append(float(step[: toy.cut].norm() / exact[: toy.cut].norm()))
        assert ratio[0] < ratio[1] - 0.1 < ratio[2] - 0.15 < ratio[3] - 0.15
        assert ratio[3] == pytest.approx(1.0, abs=0.03)
        for part in (slice(toy.cut), slice(toy.cut, None)):
            assert torch.cosine_similarity(step[part], exact[part], dim=0) > 0.99
        torch.testing.assert_close(step[toy.cut :], exact[toy.cut :], atol=0.03 * float(exact.norm()), rtol=0)

    def test_the_importance_bound_grows_with_compartments_and_stays_below_the_likelihood(self, feedback: bool) -> None:
        toy = TOYS[feedback]
        _, memory = toy.last_step(whole("iw", 1), toy.tuples(1))
        signal = memory.signal[:, 0]
        torch.testing.assert_close(signal, toy.of_targets.detach(), atol=1e-12, rtol=0)
        bounds = []
        for number in (1, 2, 3):
            tuples = toy.tuples(number)
            inside = torch.logsumexp(signal[tuples], dim=1) - math.log(number)
            bounds.append(float(toy.probability[tuples].prod(dim=1) @ inside))
            assert bounds[-1] == pytest.approx(toy.bound(number).item(), abs=1e-12)
        assert bounds[0] < bounds[1] < bounds[2] < toy.evidence.item()


def test_mb_is_the_mean_of_single_samples() -> None:
    """With all that each has of its own: signals, traces and control variates."""
    toy = TOYS[True]
    paths = torch.tensor([[3, 17, 17, 60], [0, 63, 21, 42]])
    for baseline in BASELINES:
        together, memory = toy.last_step(Rule("mb", 4, 0.5, baseline), paths)
        alone, own = toy.last_step(Rule("single-sample", 1, 0.5, baseline), paths.view(8, 1))
        torch.testing.assert_close(together, alone.view(2, 4, -1).mean(dim=1), atol=1e-12, rtol=0)
        torch.testing.assert_close(memory.signal, own.signal.view(2, 4), atol=1e-12, rtol=0)
        assert together.abs().max() > 0.01


@pytest.mark.parametrize("baseline", BASELINES)
def test_with_one_compartment_mb_and_iw_are_the_single_sample(baseline: str) -> None:
    toy = TOYS[True]
    single, mb, iw = (
        toy.last_step(Rule(name, 1, 0.5, baseline), toy.tuples(1))[0] for name in ("single-sample", "mb", "iw")
    )
    assert torch.equal(single, mb)
    torch.testing.assert_close(single, iw, atol=1e-12, rtol=0)


class TestByHand:
    """One line, one hidden neuron, one output; all weights 0, so that each neuron spikes with probability 1/2.

    The hidden neuron spikes, then does not; the target is 1 twice; kappa = 1/2. So v = -ln 2, then -1.5 ln 2, and the
    trace of the hidden neuron's bias is 1/2, then 1/4 - 1/2 = -1/4. That of its synapse on itself is 0, then -1/2.
    """

    NETWORK = Network(2, (1,), 1, GLMParameters(filters=1, taps=1))
    #: The hidden neuron hears the line, itself and its bias, the output the line, the hidden neuron, itself, its bias.
    ITSELF, BIAS, OUTPUT_BIAS = 1, 2, 6

    def steps(self, baseline: str) -> torch.Tensor:
        """Of the two time steps, [2, P]."""
        rule = Rule("single-sample", 1, 0.5, baseline)
        memory, weights, found = Memory.rest(self.NETWORK, rule, 1), torch.zeros(1, 7), []
        for hidden in (1.0, 0.0):
            arguments = (weights, torch.ones(1, 2), torch.ones(1, 1), torch.full((1, 1, 1), hidden))
            memory, step, likelihood = online_step(self.NETWORK, rule, memory, *arguments)
            assert float(likelihood) == pytest.approx(-math.log(2), abs=1e-15)
            found.append(step[0])
        return torch.stack(found)

    def test_without_a_control_variate(self) -> None:
        first, second = self.steps("none")
        assert first.tolist() == pytest.approx([0, 0, -math.log(2) / 2, 0, 0, 0, 0.5], abs=1e-12)
        # The line's trace: the line was on at the first step.
        hidden = [1.5 * math.log(2) * e for e in (1 / 2, 1 / 2, 1 / 4)]
        assert second.tolist() == pytest.approx([*hidden, 0.5, 0.5, 0.5, 0.75], abs=1e-12)

    def test_the_control_variate_of_each_weight(self) -> None:
        """Of the bias N / D is -ln 2 (1/2 1/4 + 1.5/16) / (1/2 1/4 + 1/16); a first trace is its own mean."""
        first, second = self.steps("weight")
        tiny = 1e-7
        start = -math.log(2) * (1 - 0.25 / (0.25 + tiny)) / 2
        assert first[self.BIAS].item() == pytest.approx(start, rel=1e-6)
        beta = -math.log(2) * (0.125 + 1.5 / 16) / (0.1875 + tiny)
        assert second[self.BIAS].item() == pytest.approx((-1.5 * math.log(2) - beta) * -0.25, abs=1e-14)
        again = 1.5 * math.log(2) * (1 - 0.25 / (0.25 + tiny)) / 2
        assert second[self.ITSELF].item() == pytest.approx(again, rel=1e-6)
        assert second[self.OUTPUT_BIAS].item() == pytest.approx(0.75, abs=1e-14)

    def test_the_common_control_variate_is_the_discounted_mean_of_the_signal(self) -> None:
        """Of -ln 2 and -1.5 ln 2, weighted 1/2 and 1: -4/3 ln 2."""
        first, second = self.steps("scalar")
        assert first[:3].tolist() == [0, 0, 0]
        assert second[self.BIAS].item() == pytest.approx(math.log(2) / 24, abs=1e-14)
        assert second[self.ITSELF].item() == pytest.approx(math.log(2) / 12, abs=1e-14)

    def test_importance_and_signals_of_two_compartments(self) -> None:
        """The hidden neuron drives the output with ln 3: after a spike p(x) is 3/4, else 1/2: shares of 3/5 and 2/5."""
        weights = torch.zeros(1, 7, dtype=torch.float64)
        weights[0, 4] = math.log(3)
        moved = {}
        for name in ("iw", "gem"):
            rule = Rule(name, 2, 0.0, "none")
            memory = Memory.rest(self.NETWORK, rule, 1)
            for hidden in ([1.0, 0.0], [1.0, 1.0]):
                spikes = torch.tensor(hidden).view(1, 2, 1)
                memory, step, _ = online_step(
                    self.NETWORK, rule, memory, weights, torch.zeros(1, 2), torch.ones(1, 1), spikes
                )
            moved[name] = step[0].tolist()
        # Errors are 1/2 in both of the hidden neuron; of the output 1/4 and 1/2.
        visible = [0, 3 / 5 / 4, 3 / 5 / 4 + 2 / 5 / 2, 3 / 5 / 4 + 2 / 5 / 2]
        assert moved["gem"] == pytest.approx([0, 3 / 5 / 2, 1 / 2, *visible], abs=1e-12)
        common = math.log((3 / 4 + 1 / 2) / 2)
        assert moved["iw"] == pytest.approx([0, common / 2, common, *visible], abs=1e-12)


def test_the_authors_control_variate_leaves_little_of_the_hidden_step() -> None:
    """At kappa = 0.05 it is nearly the signal itself: about 2 % of the hidden step is left (docs/papers.md)."""
    generator = nets.generator(0)
    network = Network(21, (8,), 4, GLMParameters())
    inputs, targets = (torch.rand((1, 100, n), generator=generator).lt(0.25).float() for n in (21, 4))
    weights = 0.1 * torch.randn((1, network.parameters), generator=generator) * network.connected
    cut, size = math.prod(network.shapes[0]), {}
    for baseline in ("none", "weight"):
        rule, draws = Rule("mb", 5, baseline=baseline), nets.generator(1)
        memory, size[baseline] = Memory.rest(network, rule, 1), 0.0
        for t in range(100):
            u, _, _ = compartments.potentials(network, weights, memory.history)
            hidden = glm_spikes(u, torch.rand(u.shape, generator=draws, dtype=torch.float64))
            memory, step, _ = online_step(network, rule, memory, weights, inputs[:, t], targets[:, t], hidden)
            size[baseline] += float(step[:, :cut].square().sum())
    assert 0.005 < (size["weight"] / size["none"]) ** 0.5 < 0.05


# Compiled


class Slow(NamedTuple):
    """What ``step_by_step`` finds: weights [P], the numbers of ``Shown``, and how close a spike was to no spike."""

    weights: torch.Tensor
    shown: dict[str, float]
    margin: float


def step_by_step(
    network: Network,
    rule: Rule,
    weights: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    rate: float,
    key: int,
) -> Slow:
    """What ``present`` compiles, in double precision, with explicit traces and the same random numbers."""
    (hidden,), number, steps = network.hidden, rule.compartments, len(inputs)
    weights, memory = weights.double()[None], Memory.rest(network, rule, 1)
    total, margin = torch.zeros(number, dtype=torch.float64), math.inf
    sums = dict.fromkeys(("bound", "effective_samples", "hidden_rate", "bit_error"), 0.0)
    for t in range(steps):
        u, of_outputs, _ = compartments.potentials(network, weights, memory.history)
        drawn = np.empty(number * hidden, np.float32)
        number_kernels.uniforms(key, t, drawn)
        uniform = torch.from_numpy(drawn).double().view(1, number, hidden)
        margin = min(margin, float((u - uniform.logit()).abs().min()))
        spikes = glm_spikes(u, uniform)
        memory, step, likelihood = online_step(
            network, rule, memory, weights, inputs[None, t], targets[None, t], spikes
        )
        weights, total = weights + rate * step, total + likelihood[0]
        share = memory.signal[0].softmax(dim=0)
        sums["bound"] += float(memory.signal[0].logsumexp(dim=0)) - math.log(number)
        sums["effective_samples"] += float(1 / share.square().sum()) / steps
        sums["hidden_rate"] += float(spikes.mean()) / steps
        sums["bit_error"] += float((targets[t] - of_outputs.sigmoid()).abs().mean()) / steps
    shown = {"log_likelihood": float(total.logsumexp(dim=0)) - math.log(number)}
    return Slow(weights[0], shown | sums, margin)


def problem(kind: str, steps: int, feedback: bool = True) -> tuple[Network, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A network, weights [P], inputs [T, I] that are spikes or currents, and targets [T, O]."""
    network, generator = nets.glm(output_feedback=feedback), nets.generator(steps)
    inputs = torch.rand((steps, network.inputs), generator=generator)
    if kind == "spikes":
        inputs = (inputs < 0.3).float()
    if kind == "constant":
        inputs = inputs[:1].expand(steps, -1)
    targets = (torch.rand((steps, network.outputs), generator=generator) < 0.5).float()
    return network, nets.weights(network, generator) * network.connected, inputs, targets


def compare(rule: Rule, kind: str, steps: int, feedback: bool = True, rate: float | None = None) -> None:
    network, weights, inputs, targets = problem(kind, steps, feedback)
    rate = RATES[rule.decay] if rate is None else rate
    arguments = (network, rule, weights, inputs, targets, rate)
    # Where u is within rounding of the noise a spike may flip, and then all that follows: such keys are passed over.
    key, slow = next(found for key in range(5, 15) if (found := (key, step_by_step(*arguments, key)))[1].margin > 3e-5)
    learnt = weights[None].clone()
    fast = present(network, rule, learnt, inputs[None], targets[None], torch.tensor([rate]), torch.tensor([key]))
    parts = (network.unpack(w) for w in (learnt[0].double(), slow.weights, weights.double()))
    for found, expected, start in zip(*parts, strict=True):
        moved = float((expected - start).abs().max())
        # Weights of size 1 lose 6e-8 whenever they are changed.
        assert float((found - expected).abs().max()) < 1e-7 * steps + 1e-4 * moved
    assert (slow.weights - weights).abs().max() > 0.01
    for name, values in fast._asdict().items():
        assert float(values) == pytest.approx(slow.shown[name], rel=1e-5), name


#: By kappa. Signals are below 0 and push hidden neurons away from what they did, which amplifies every difference: at
#: larger rates rounding errors double from step to step.
RATES = {0.0: 0.05, 0.05: 0.05, 0.2: 0.05, 0.5: 0.01, 0.9: 0.002, 1.0: 0.0005}
CASES = [("single-sample", 1), ("mb", 1), ("mb", 4), ("iw", 1), ("iw", 4), ("gem", 1), ("gem", 4)]


class TestCompiled:
    @pytest.mark.parametrize("decay", [0.0, 0.05, 0.5, 0.9, 1.0])
    @pytest.mark.parametrize("baseline", BASELINES)
    @pytest.mark.parametrize(("name", "number"), CASES)
    def test_a_presentation_is_the_steps_one_after_the_other(
        self, name: str, number: int, baseline: str, decay: float
    ) -> None:
        compare(Rule(name, number, decay, baseline), "spikes", 30)

    @pytest.mark.parametrize("feedback", [True, False])
    @pytest.mark.parametrize("kind", ["spikes", "currents", "constant"])
    @pytest.mark.parametrize(("name", "number"), CASES)
    def test_whatever_is_shown_and_outputs_hear(self, name: str, number: int, kind: str, feedback: bool) -> None:
        compare(Rule(name, number, 0.2), kind, 30, feedback)

    @pytest.mark.parametrize(("baseline", "rate"), [("none", 3e-5), ("scalar", 5e-4), ("weight", 5e-4)])
    @pytest.mark.parametrize("name", ["mb", "iw", "gem"])
    def test_traces_longer_than_what_is_kept_of_them(self, name: str, baseline: str, rate: float) -> None:
        assert depth(0.9, 160) == 132
        compare(Rule(name, 2, 0.9, baseline), "spikes", 160, rate=rate)

    @pytest.mark.parametrize("steps", [1, 2, 4])
    @pytest.mark.parametrize(("name", "number"), CASES)
    def test_sequences_shorter_than_what_is_kept(self, name: str, number: int, steps: int) -> None:
        compare(Rule(name, number, 0.5, "none"), "spikes", steps, rate=0.1)

    def test_the_divided_step(self) -> None:
        for baseline in BASELINES:
            compare(Rule("iw", 3, 0.2, baseline, divided=True), "spikes", 30)

    def test_what_is_kept(self) -> None:
        """0.05^4 = 6e-6 matters, 0.05^5 = 3e-7 does not."""
        assert [depth(decay, 80) for decay in (0.0, 0.05, 0.2, 0.5, 0.9, 1.0)] == [1, 5, 9, 20, 80, 80]
        assert depth(0.05, 3) == 3

    def test_it_draws_hidden_neurons_with_their_probability(self) -> None:
        """Without learning, means over many presentations are the enumerated bounds of the tiny network."""
        toy, draws = TOYS[True], 20_000
        elbo, evidence = toy.bound(1).item(), toy.evidence.item()
        rates = float(toy.probability @ PATHS.mean(dim=(1, 2)))
        for number in (1, 2):
            weights = toy.weights.float().repeat(draws, 1)
            shown = present(
                toy.network, Rule("gem", number), weights, toy.inputs.expand(draws, -1, -1),
                toy.targets.expand(draws, -1, -1), torch.zeros(draws), torch.arange(draws),
            )  # fmt: skip
            expected = {"log_likelihood": toy.bound(number).item(), "hidden_rate": rates}
            for name, exact in expected.items():
                values = getattr(shown, name)
                assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / draws**0.5, name
        assert evidence - elbo > 0.05
        likelihood = shown.log_likelihood.exp()
        assert abs(float(likelihood.mean()) - math.exp(evidence)) < 4 * float(likelihood.std()) / draws**0.5


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(("name", "number"), [("mb", 3), ("iw", 3), ("gem", 3)])
def test_synapses_that_are_not_there_stay_at_0(name: str, number: int, baseline: str, feedback: bool) -> None:
    network, weights, inputs, targets = problem("spikes", 30, feedback)
    learnt, rates, keys = weights[None].clone(), torch.tensor([0.1]), torch.tensor([3])
    rule = Rule(name, number, 0.5, baseline)
    present(network, rule, learnt, inputs[None], targets[None], rates, keys)
    assert torch.equal(learnt[0, ~network.connected], torch.zeros(int((~network.connected).sum())))
    assert (learnt[0, network.connected] != weights[network.connected]).float().mean() > 0.9
    memory, spikes = Memory.rest(network, rule, 1), torch.ones(1, number, 3)
    for t in range(6):
        memory, step, _ = online_step(network, rule, memory, weights[None], inputs[None, t], targets[None, t], spikes)
        assert not step[0, ~network.connected].any()


@pytest.mark.parametrize(("name", "number"), CASES)
def test_cells_do_not_influence_one_another(name: str, number: int) -> None:
    network, weights, inputs, targets = problem("spikes", 30)
    start = torch.stack([weights, weights, -weights])
    shown, clamps = torch.stack([inputs, inputs.flip(0), inputs]), torch.stack([targets, targets, 1 - targets])
    rates, keys = torch.tensor([0.05, 0.1, 0.02]), torch.tensor([1, 2, 1 << 62])
    together, rule = start.clone(), Rule(name, number)
    told = present(network, rule, together, shown, clamps, rates, keys)
    for b in range(3):
        alone, one = start[b : b + 1].clone(), slice(b, b + 1)
        own = present(network, rule, alone, shown[one], clamps[one], rates[one], keys[one])
        assert torch.equal(alone[0], together[b])
        assert all(torch.equal(a[0], c[b]) for a, c in zip(own, told, strict=True))
    assert not torch.equal(together[0], together[1])


def test_keys_and_rates_matter() -> None:
    network, weights, inputs, targets = problem("spikes", 30)
    shown, clamps = inputs.expand(3, -1, -1), targets.expand(3, -1, -1)
    learnt, rates = weights.repeat(3, 1), torch.tensor([0.05, 0.05, 0.0])
    told = present(network, Rule("gem", 4), learnt, shown, clamps, rates, torch.tensor([1, 2, 2]))
    assert not torch.equal(learnt[0], learnt[1])
    assert torch.equal(learnt[2], weights)
    assert told.hidden_rate[0] != told.hidden_rate[1]


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_dividing_the_hidden_step_of_iw_leaves_that_of_outputs(number: int, baseline: str) -> None:
    toy = TOYS[True]
    paths = torch.randint(0, 64, (20, number), generator=nets.generator())
    rule = Rule("iw", number, 0.5, baseline)
    plain, divided = (toy.last_step(r, paths)[0] for r in (rule, replace(rule, divided=True)))
    assert torch.equal(divided[:, : toy.cut], plain[:, : toy.cut] * (1 / number))
    assert torch.equal(divided[:, toy.cut :], plain[:, toy.cut :])
    assert plain[:, : toy.cut].abs().max() > 0.01


def test_other_rules_are_not_divided() -> None:
    toy = TOYS[True]
    for name in ("mb", "gem"):
        rule = Rule(name, 2, 0.5)
        plain, divided = (toy.last_step(r, toy.tuples(2))[0] for r in (rule, replace(rule, divided=True)))
        assert torch.equal(plain, divided)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Rule("em"), "Rule.name: found 'em', allowed: single-sample, mb, iw, gem"),
        (lambda: Rule("iw", baseline="mean"), "Rule.baseline: found 'mean', allowed: none, scalar, weight"),
        (lambda: Rule("iw", decay=1.01), "Rule.decay: found 1.01, expected a number from 0 to 1"),
        (lambda: Rule("iw", decay=-0.1), "Rule.decay: found -0.1"),
        (lambda: Rule("iw", decay=math.nan), "Rule.decay: found nan"),
        (lambda: Rule("gem", 0), "Rule.compartments: found 0 for the rule gem"),
        (lambda: Rule("single-sample", 2), "Rule.compartments: found 2 for the rule single-sample"),
    ],
)
def test_rules_that_there_are_not(wrong: Callable[[], Rule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("single-sample"), (7, 30)),
        (Rule("mb", 5), (5 * 7, 5 * 30)),
        (Rule("iw", 5), (5 * 7, 5 * 7 + 30)),
        (Rule("gem", 5), (5 * 7, 5 * (7 + 30))),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_numbers_that_are_told_a_step(rule: Rule, expected: tuple[int, int]) -> None:
    assert communication(rule, hidden=30, outputs=7) == expected


MEMORY = """
import resource, sys
import torch
from spikebench.compartments import Rule, present
from spikebench.networks import Network
from spikebench.neurons import GLMParameters

network = Network({lines} + 1, (64,), 2, GLMParameters())
inputs = (torch.rand(1, {steps}, {lines} + 1) < 0.01).float()
weights, targets = torch.zeros(1, network.parameters), torch.ones(1, {steps}, 2)

def peak(name, number):
    present(network, Rule(name, number), weights, inputs, targets, torch.tensor([0.01]), torch.tensor([1]))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

few = max(peak(name, 1) for name in ("mb", "iw", "gem"))
print(max(peak(name, 50) for name in ("mb", "iw", "gem")) - few, 4 * network.parameters)
"""


def test_memory_does_not_grow_with_compartments_times_weights() -> None:
    """Traces of 50 compartments would take 50 times the weights' bytes; of hidden signals there are a few."""
    script = MEMORY.format(lines=4000, steps=6)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    grown, weights = map(int, done.stdout.split())
    assert weights > 8e6
    assert grown < 3 * weights
