"""Local online learning against automatic differentiation, the closed forms of its parts, and its compiled form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from spikebench import bernoulli, local_kernels, local_learning, number_kernels
from spikebench.bernoulli import Posterior
from spikebench.local_learning import Learning, Traces
from spikebench.networks import Network
from spikebench.neurons import SRMParameters

NETWORK = Network(5, (6, 4), 3, SRMParameters())
CELLS, SAMPLES, STEPS = 2, 7, 30
KEYS = torch.tensor([11, 12])


def problem(loss: str, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Weights [B, P], read-outs, inputs [B, N, T, I] and targets [B, N, O]."""
    torch.manual_seed(seed)
    outputs = 3 if loss == "softmax" else 1
    weights = torch.randn(CELLS, NETWORK.parameters)
    readouts = [bernoulli.sign(torch.randn(CELLS, outputs, width)) for width in NETWORK.hidden]
    inputs = (torch.rand(CELLS, SAMPLES, STEPS, 5) < 0.3).float()
    if loss == "softmax":
        targets = local_learning.targets_of(torch.randint(0, 3, (CELLS, SAMPLES)), loss, 3)
    elif loss == "logistic":
        targets = local_learning.targets_of(torch.randint(0, 2, (CELLS, SAMPLES)), loss, 1)
    else:
        targets = torch.rand(CELLS, SAMPLES, 1)
    return weights, readouts, inputs, targets


class Spike(torch.autograd.Function):
    """[u >= 0] with the boxcar, or the logistic function's derivative, as its own."""

    @staticmethod
    def forward(ctx, u, surrogate):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0).float()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (u,) = ctx.saved_tensors
        s = torch.sigmoid(u)
        inside = (u > -0.5) & (u <= 0.5)
        return gradient * (inside.float() if ctx.surrogate == "boxcar" else s * (1 - s)), None


def by_autograd(
    weights: torch.Tensor, readouts: list[torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor, loss: str,
    surrogate: str,
) -> list[torch.Tensor]:  # fmt: skip
    """The gradient [B, P] of the sum of all layers' losses at each time step, one step and layer at a time.

    The SRM equations of the paper's code, written out anew with loops over examples' traces.
    """
    alpha, beta, alpha_r = np.exp(-1 / 10), np.exp(-1 / 6), np.exp(-1 / 2)
    weights = weights.clone().requires_grad_()
    layers = [w for w in NETWORK.unpack(weights)]
    q = [torch.zeros(CELLS, SAMPLES, i) for _, i in NETWORK.shapes]
    p = [torch.zeros(CELLS, SAMPLES, i) for _, i in NETWORK.shapes]
    r = [torch.zeros(CELLS, SAMPLES, o) for o, _ in NETWORK.shapes]
    s = [torch.zeros(CELLS, SAMPLES, o) for o, _ in NETWORK.shapes]
    gradients = []
    for t in range(STEPS):
        source, total = inputs[:, :, t, :-1], torch.zeros(())
        for layer, w in enumerate(layers):
            p[layer] = alpha * p[layer] + q[layer]
            q[layer] = beta * q[layer] + source
            r[layer] = alpha_r * r[layer] + s[layer]
            u = torch.einsum("bni,boi->bno", p[layer], w) / w.shape[-1] ** 0.5 - r[layer]
            spikes = Spike.apply(u, surrogate)
            logits = torch.einsum("bno,bko->bnk", spikes, readouts[layer]) / spikes.shape[-1] ** 0.5
            if loss == "softmax":
                each = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), targets.argmax(-1).flatten(), reduction="sum"
                )
            elif loss == "logistic":
                each = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
            else:
                each = torch.nn.functional.smooth_l1_loss(logits, targets, reduction="sum")
            total = total + each / SAMPLES
            source = s[layer] = spikes.detach()
        gradients.append(torch.autograd.grad(total, weights)[0])
    return gradients


@pytest.mark.parametrize("surrogate", local_learning.SURROGATES)
@pytest.mark.parametrize("loss", local_learning.LOSSES)
def test_three_factors_are_the_gradient_that_autograd_finds(loss: str, surrogate: str) -> None:
    weights, readouts, inputs, targets = problem(loss)
    learning, traces = Learning(loss, surrogate, 0, "real"), Traces.rest(NETWORK, CELLS, SAMPLES)
    expected = by_autograd(weights, readouts, inputs, targets, loss, surrogate)
    for t in range(STEPS):
        done = local_learning.online_step(NETWORK, learning, traces, weights, readouts, inputs[:, :, t], targets)
        traces = done.traces
        torch.testing.assert_close(done.gradient, expected[t], atol=1e-6, rtol=1e-4)
    assert sum(g.abs().sum() for g in expected) > 0.1, "not all silent"


def step_by_step(
    learning: Learning, natural: torch.Tensor, readouts: list[torch.Tensor], inputs: torch.Tensor,
    targets: torch.Tensor, rates: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """What ``present`` compiles, in terms of ``online_step`` and of the rules' equations."""
    natural, traces, posterior = natural.clone(), Traces.rest(NETWORK, CELLS, SAMPLES), learning.posterior
    losses = []
    weights, slope = bernoulli.relax(natural, posterior, KEYS, 0)
    for t in range(STEPS):
        acting = {"real": natural, "straight-through": bernoulli.sign(natural), "bernoulli": weights}[learning.rule]
        done = local_learning.online_step(NETWORK, learning, traces, acting, readouts, inputs[:, :, t], targets)
        traces = done.traces
        if t < learning.burn_in:
            continue
        losses.append(done.loss)
        if learning.rule == "bernoulli":
            wide = natural.double()
            exact = slope.double() * wide.cosh().square() / posterior.temperature
            along = done.gradient * exact.clamp(max=posterior.cap) - posterior.kl_weight * posterior.prior
            keep = 1 - rates[:, None] * posterior.kl_weight
            natural = (keep * wide - rates[:, None] * along).float()
            weights, slope = bernoulli.relax(natural, posterior, KEYS, t + 1)
        else:
            natural = natural - rates[:, None] * done.gradient
    return natural, torch.stack(losses).mean(dim=0)


@pytest.mark.parametrize("rule", local_learning.RULES)
@pytest.mark.parametrize("loss", local_learning.LOSSES)
def test_the_compiled_presentation_is_the_steps_one_after_the_other(loss: str, rule: str) -> None:
    natural, readouts, inputs, targets = problem(loss, seed=1)
    posterior = Posterior(temperature=0.7, kl_weight=0.01, prior_probability=0.6)
    learning, rates = Learning(loss, "sigmoid", 4, rule, posterior), torch.tensor([0.05, 0.2])
    expected, loss_expected = step_by_step(learning, natural, readouts, inputs, targets, rates)
    learnt, index = natural.clone(), torch.arange(CELLS)
    told, _ = local_learning.present(NETWORK, learning, learnt, readouts, inputs, index, targets, rates, KEYS)
    torch.testing.assert_close(learnt, expected, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(told.float(), loss_expected, atol=1e-4, rtol=1e-4)
    assert (learnt - natural).abs().max() > 0.01


def test_a_current_that_is_stored_once_is_learnt_from_as_if_it_were_not() -> None:
    natural, readouts, _, targets = problem("softmax")
    current = torch.rand(1, SAMPLES, 1, 5).expand(-1, -1, STEPS, -1)
    learning, rates, index = Learning("softmax", "boxcar", 3, "real"), torch.tensor([0.1, 0.1]), torch.zeros(2).long()
    made = []
    for inputs in (current, current.contiguous()):
        made.append(natural.clone())
        local_learning.present(NETWORK, learning, made[-1], readouts, inputs, index, targets, rates, KEYS)
    assert torch.equal(*made)
    assert not torch.equal(made[0], natural)


class TestTheNaturalGradient:
    """A layer of one neuron with logistic 'spikes', whose loss is smooth: its posterior expectation is enumerated."""

    NET = Network(5, (1,), 1, SRMParameters())
    NATURAL = torch.tensor([[0.4, -0.7, 0.1, 1.2]])

    def loss_and_gradient(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of weights [B, 4], after traces that make all four matter; each example's loss and its gradient."""
        generator = torch.Generator().manual_seed(3)
        cells = len(weights)
        traces = Traces(
            synapse=(torch.zeros(cells, 3, 4),),
            membrane=(2 * torch.rand(3, 4, generator=generator).expand(cells, -1, -1),),
            refractory=(torch.zeros(cells, 3, 1),),
            spikes=(torch.zeros(cells, 3, 1),),
        )
        learning, targets = Learning("logistic", "sigmoid", 0, "real"), torch.tensor([[[1.0], [0.0], [1.0]]])
        matrix, silent = [torch.full((cells, 1, 1), 3.0)], torch.zeros(cells, 3, 5)
        membrane = self.NET.neuron.membrane_decay * traces.membrane[0]
        smooth = torch.sigmoid(self.NET.scales[0] * membrane @ weights[:, :, None])
        done = local_learning.online_step(
            self.NET, learning, traces, weights, matrix, silent, targets.expand(cells, -1, -1), [smooth]
        )
        return done.loss, done.gradient

    def enumerated(self) -> torch.Tensor:
        """dE_q[L]/dmu of all four weights, the natural gradient in w^r: sums over all 16 networks."""
        signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))
        loss, _ = self.loss_and_gradient(signs)
        plus = bernoulli.probability(self.NATURAL)
        q = torch.where(signs > 0, plus, 1 - plus)
        return torch.stack([(loss * signs[:, i] * q.prod(1) / q[:, i]).sum() / 2 for i in range(4)])

    def test_the_gradient_in_the_weights_is_that_of_the_loss(self) -> None:
        weights = torch.tensor([[0.3, -0.2, 0.9, -0.6]])
        _, gradient = self.loss_and_gradient(weights)
        for i in range(4):
            shift = 1e-2 * torch.eye(4)[i : i + 1]
            up, down = (self.loss_and_gradient(weights + sign * shift)[0] for sign in (1, -1))
            torch.testing.assert_close(gradient[0, i], (up - down)[0] / 2e-2, atol=2e-5, rtol=1e-3)

    def mean_step(self, posterior: Posterior, draws: int = 400_000) -> torch.Tensor:
        """The mean over relaxed samples of what a step of rate 1 subtracts from w^r, [4]."""
        natural = self.NATURAL.expand(draws, -1).contiguous()
        long = natural.reshape(1, -1)
        weights, slope = (x.reshape(draws, 4) for x in bernoulli.relax(long, posterior, torch.tensor([5]), 0))
        _, gradient = self.loss_and_gradient(weights)
        moved = long.clone()
        flat = (gradient.reshape(1, -1), weights.reshape(1, -1), slope.reshape(1, -1))
        bernoulli.natural_step(moved, *flat, torch.ones(1), posterior)
        return (natural - moved.reshape(draws, 4)).double().mean(dim=0).float()

    def test_it_is_what_the_step_follows_as_the_temperature_falls(self) -> None:
        exact = self.enumerated()
        wrong = [(self.mean_step(Posterior(temperature=t)) - exact).norm() / exact.norm() for t in (1.0, 0.3, 0.1)]
        assert wrong[0] > wrong[1] > wrong[2]
        assert wrong[2] < 0.03
        # At temperature 1, the paper's, relaxed weights are smaller than 1: another length, much the same direction.
        warm = self.mean_step(Posterior(temperature=1.0))
        assert torch.nn.functional.cosine_similarity(warm, exact, dim=0) > 0.9

    def test_at_any_temperature_it_is_the_derivative_of_the_relaxed_expectation(self) -> None:
        """The mean of L over relaxed samples, differentiated in mu_i by finite differences with common numbers."""
        posterior, draws, h = Posterior(temperature=1.0), 400_000, 2e-2
        step = self.mean_step(posterior, draws)
        for i in range(4):
            ends = []
            for sign in (1, -1):
                mean = self.NATURAL.tanh() + sign * h * torch.eye(4)[i]
                long = mean.atanh().expand(draws, -1).reshape(1, -1).contiguous()
                weights, _ = bernoulli.relax(long, posterior, torch.tensor([5]), 0)
                ends.append(self.loss_and_gradient(weights.reshape(draws, 4))[0].double().mean())
            torch.testing.assert_close(step[i].double(), (ends[0] - ends[1]) / (2 * h), atol=3e-4, rtol=1e-2)

    def test_the_prior_pulls_along_the_gradient_of_the_divergence(self) -> None:
        """dKL(q, q_0)/dmu by finite differences of sum q ln (q / q_0)."""
        posterior = Posterior(kl_weight=0.3, prior_probability=0.8)
        natural = torch.tensor([[0.4, -0.7, 1.1]], dtype=torch.float64)

        def divergence(mu: torch.Tensor) -> torch.Tensor:
            q = (1 + mu) / 2
            return q * (q / 0.8).log() + (1 - q) * ((1 - q) / 0.2).log()

        mu, h = natural.tanh(), 1e-6
        expected = (divergence(mu + h) - divergence(mu - h)) / (2 * h)
        moved, none = natural.float(), torch.zeros(1, 3)
        bernoulli.natural_step(moved, none, none, none, torch.tensor([0.1]), posterior)
        torch.testing.assert_close((natural - moved) / 0.1, 0.3 * expected, atol=1e-5, rtol=1e-4)


class TestRelaxedSamples:
    @pytest.mark.parametrize("temperature", [1.0, 0.3, 0.1])
    def test_the_scale_is_exact_far_from_zero_and_the_literal_one_is_not(self, temperature: float) -> None:
        """In double precision and closed form, against both forms in single precision (docs/papers.md)."""
        posterior = Posterior(temperature=temperature, cap=1e30)
        natural, keys = torch.linspace(-10, 10, 4001)[None], torch.tensor([3])
        weights, slope = bernoulli.relax(natural, posterior, keys, 7)
        u = np.empty(4001, np.float32)
        number_kernels.uniforms(3, 7, u)
        wide = natural[0].double()
        z = (wide + torch.from_numpy(0.5 * np.log(u.astype(float) / (1 - u.astype(float))))) / temperature
        torch.testing.assert_close(weights[0].double(), z.tanh(), atol=3e-6, rtol=0)
        log_cosh = [x.abs() + torch.log1p((-2 * x.abs()).exp()) - np.log(2) for x in (wide, z)]
        exact = (2 * (log_cosh[0] - log_cosh[1])).exp() / temperature
        steps = []
        for literal in (False, True):
            moved = natural.clone()
            bernoulli.natural_step(
                moved, torch.full_like(natural, 1e-3), weights, slope, torch.ones(1),
                Posterior(temperature=temperature, cap=1e30, literal=literal),
            )  # fmt: skip
            steps.append((natural - moved)[0].double() * 1e3)
        large = exact > 0.05  # smaller ones drown in the rounding of w^r itself
        assert large.sum() > 100
        error = (steps[0] / exact - 1).abs()[large]
        assert error.max() < 0.02
        assert ((steps[1] / exact - 1).abs()[wide.abs() > 9] > 1).float().mean() > 0.3

    def test_hard_samples_are_their_signs_and_come_with_the_posterior_s_probability(self) -> None:
        natural = torch.tensor([-1.0, -0.2, 0.0, 0.5]).repeat_interleave(100_000)[None]
        keys, expected = torch.tensor([9]), torch.sigmoid(2 * torch.tensor([-1.0, -0.2, 0.0, 0.5]))
        relaxed, _ = bernoulli.relax(natural, Posterior(), keys, 0)
        drawn = bernoulli.draw(natural, 1, keys)[:, 0]
        for signs in (relaxed > 0, drawn > 0):
            torch.testing.assert_close(signs.float().reshape(4, -1).mean(1), expected, atol=0.006, rtol=0)

    def test_a_larger_ensemble_begins_with_the_smaller_one(self) -> None:
        natural, seeds = torch.randn(2, 50), torch.tensor([1, 2])
        few, many = bernoulli.draw(natural, 3, seeds), bernoulli.draw(natural, 7, seeds)
        assert torch.equal(many[:, :3], few)
        assert not torch.equal(many[:, 3], many[:, 4])

    def test_numbers_are_uniform_and_do_not_repeat_between_steps_cells_and_weights(self) -> None:
        out = np.empty((40, 20_000), np.float32)
        for row in range(40):
            number_kernels.uniforms(1 + row % 2, row // 2, out[row])
        assert out.min() > 0
        assert out.max() < 1
        counts, _ = np.histogram(out, bins=100, range=(0, 1))
        chi_squared = ((counts - 8000) ** 2 / 8000).sum()
        assert 60 < chi_squared < 150  # 99 degrees of freedom, six standard deviations
        assert np.abs(np.corrcoef(out) - np.eye(40)).max() < 0.035
        assert abs(np.corrcoef(out[0, :-1], out[0, 1:])[0, 1]) < 0.035

    def test_the_fast_exponential_and_logarithm(self) -> None:
        @local_kernels.njit
        def both(x, e, n):  # type: ignore[no-untyped-def]
            for i in range(len(x)):
                e[i] = number_kernels.exponential(x[i])
                n[i] = number_kernels.logarithm(-x[i])

        x = -np.geomspace(1e-7, 86, 100_000).astype(np.float32)
        e, n = np.empty_like(x), np.empty_like(x)
        both(x, e, n)
        wide = x.astype(float)
        assert np.abs(e / np.exp(wide) - 1).max() < 1e-6
        assert (np.abs(n - np.log(-wide)) / np.maximum(1, np.abs(np.log(-wide)))).max() < 1e-6
