"""Surrogates of a sharpness, and how it may be found, against differences, integrals and sums by hand."""

from __future__ import annotations

import itertools
import math

import multistep_truth as truth
import nets
import pytest
import torch
from scipy import integrate
from torch.nn import functional

from spikebench import sharpness, surrogate_training
from spikebench.method import Task
from spikebench.multistep import How, present
from spikebench.surrogates import AS_SURROGATE, FAMILIES, SURROGATES, derivative

families = pytest.mark.parametrize("family", FAMILIES)
#: Away from the edges of all families at the sharpnesses below.
X = torch.linspace(-3, 3, 401, dtype=torch.float64) + 0.00137
KS = (0.5, 1.0, 3.0)
H = 1e-6


# The families


@pytest.mark.parametrize("k", KS)
@families
def test_the_slope_is_the_derivative_of_the_primitive(family: str, k: float) -> None:
    own = FAMILIES[family]
    differences = (own.primitive(k * (X + H)) - own.primitive(k * (X - H))) / (2 * H)
    torch.testing.assert_close(k * own.slope(k * X), differences, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(derivative(own.primitive, X), own.slope(X), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("k", KS)
@families
def test_in_the_sharpness_it_is_x_by_k_of_that(family: str, k: float) -> None:
    own = FAMILIES[family]
    differences = (own.primitive((k + H) * X) - own.primitive((k - H) * X)) / (2 * H)
    torch.testing.assert_close(X / k * k * own.slope(k * X), differences, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("k", KS)
@families
def test_areas(family: str, k: float) -> None:
    """1, but half of it under the Gaussian, as in ``SURROGATES``."""
    edges = [0.0, *(sign * edge / k for sign in (-1, 1) for edge in (0.5, 1.0))]
    parts = [-math.inf, *sorted(edges), math.inf]
    found = sum(
        integrate.quad(lambda x: k * float(FAMILIES[family].slope(torch.tensor(k * x, dtype=torch.float64))), a, b)[0]
        for a, b in itertools.pairwise(parts)
    )
    area = 0.5 if family == "gaussian" else 1.0
    assert found == pytest.approx(area, abs=1e-6)
    ends = FAMILIES[family].primitive(torch.tensor([-1e9, 0.0, 1e9], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, area / 2, area]).double(), atol=1e-7, rtol=0)


def test_shapes_by_their_formulas() -> None:
    """Those of the papers, k left out: its width is 1 / k where there is one."""
    formulas = {
        "rectangular": lambda x, k: k * (abs(x) < 1 / (2 * k)),
        "triangular": lambda x, k: k * max(0.0, 1 - k * abs(x)),
        "arctan": lambda x, k: k / (2 * (1 + (math.pi * k * x / 2) ** 2)),
        "sigmoid": lambda x, k: k * math.exp(-k * x) / (1 + math.exp(-k * x)) ** 2,
    }
    for family, formula in formulas.items():
        for k in KS:
            expected = torch.tensor([float(formula(x, k)) for x in X.tolist()], dtype=torch.float64)
            torch.testing.assert_close(k * FAMILIES[family].slope(k * X), expected)


@pytest.mark.parametrize("name", SURROGATES)
def test_the_other_surrogates_are_families_at_one_sharpness(name: str) -> None:
    k, own = AS_SURROGATE[name], FAMILIES[name]
    torch.testing.assert_close(k * own.slope(k * X), derivative(SURROGATES[name].spike, X))
    torch.testing.assert_close(own.primitive(k * X), SURROGATES[name].primitive(X))


# P1


@families
def test_p1_is_the_sum_of_slopes_weighted_by_the_potential_by_hand(family: str) -> None:
    """One layer and step: sum of dL/do (x / k) dg/dx over examples and neurons, times k as it is in log k."""
    net = truth.build("6", (1, 2, 2))
    own, inputs = truth.leaf(truth.drawn(net, 1)), truth.shown(net, 1)
    slopes = torch.randn((6, 6), generator=nets.generator(2))
    sent = present(net, own, inputs, How(family)).sent[0, :, 0, 0]
    (found,) = torch.autograd.grad((sent * slopes).sum(), own.log_sharpness)
    sums = functional.linear(inputs[:, 0], own.weights[0].flatten(1))
    x = (sums * own.gains[0] + own.biases[0] - own.thresholds[0]).detach()
    k = own.log_sharpness.detach().exp().item()
    expected = (slopes * x * k * FAMILIES[family].slope(k * x)).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4) and abs(found.item()) > 0.01


# P2


def training(**settings: float | str) -> tuple[Task, torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A task, its parameters and two minibatches."""
    task = truth.task("psg", "3C3-M2-5", (1, 4, 4), family="arctan", **settings)
    arranged = surrogate_training.layout(task)
    vector = arranged.start(torch.randn(arranged.size, generator=nets.generator(1)), 1.0, 0.5)
    batches = [
        (truth.shown(task.network, 3, samples=24, seed=seed), torch.arange(24) % task.info.outputs) for seed in (5, 6)
    ]
    return task, vector, batches


def test_p2_is_the_slope_of_the_next_loss_through_the_step() -> None:
    """By differences of a loss that has a gradient: that of the smooth network, on another minibatch."""
    task, vector, (now, later) = training()
    arranged, rate = surrogate_training.layout(task), 3.0

    def loss(weights: torch.Tensor) -> torch.Tensor:
        parts = arranged.split(weights)
        used = surrogate_training.parameters(task, parts)
        sent = present(task.network, used, later[0], How("arctan", normalise=True, smooth=True)).sent
        logits = surrogate_training.logits(parts.read_out, sent.mean(dim=0).permute(0, 3, 1, 2).flatten(1))
        return functional.cross_entropy(logits, later[1])

    def gradient(offset: torch.Tensor) -> torch.Tensor:
        return surrogate_training.weights_gradient(task, vector, *now, offset)

    leaf = (vector - rate * gradient(torch.zeros(2))).requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf), leaf)
    found = sharpness.look_ahead(slope, sharpness.sensitivity(gradient, 2), rate)
    h = 0.05
    expected = [
        float(loss(vector - rate * gradient(h * offset)) - loss(vector - rate * gradient(-h * offset))) / (2 * h)
        for offset in torch.eye(2)
    ]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-5, rtol=0.03)
    assert min(map(abs, expected)) > 5e-4
    reference = sharpness.difference(lambda offset: loss(vector - rate * gradient(offset)).detach(), 2)
    torch.testing.assert_close(found, reference, atol=2e-5, rtol=0.06)


def test_differences_of_a_parabola_are_its_slopes() -> None:
    slopes = torch.tensor([2.0, -5.0])
    quadratic = sharpness.difference(lambda offset: 7 + slopes @ offset + 3 * offset.square().sum(), 2)
    torch.testing.assert_close(quadratic, slopes, atol=1e-4, rtol=1e-5)
    jacobian = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, 4.0]])
    linear = sharpness.sensitivity(lambda offset: offset @ jacobian, 2)
    torch.testing.assert_close(linear, jacobian, atol=1e-5, rtol=1e-5)
    found = sharpness.look_ahead(torch.tensor([1.0, 2.0, -4.0]), jacobian, 0.1)
    torch.testing.assert_close(found, torch.tensor([0.5, 1.3]))


# P3


def test_p3_widths_by_hand() -> None:
    """2 gamma V at the first of three steps, sqrt(1 + 1/16) times that at the others."""
    gains = [torch.tensor([0.5, 1.5]), torch.tensor([2.0, 4.0, 3.0]), torch.tensor([-1.0, 0.5])]
    found = sharpness.from_statistics(gains, torch.tensor([0.5, 0.25, 0.5]), 0.25, 3)
    growth = math.sqrt(17) / 4
    widths = [[1.0, growth, growth], [1.5, 1.5 * growth, 1.5 * growth], [0.05, 0.05 * growth, 0.05 * growth]]
    torch.testing.assert_close((-found).exp(), torch.tensor(widths))


def test_p3_is_what_psg_trains_with_where_it_is_asked_for() -> None:
    for variant, psg, tied in (("psg", "p3", True), ("fixed", "p3", False), ("psg", "p1", False)):
        task = truth.task(variant, "3C3-M2-5", (1, 4, 4), psg=psg)
        arranged = surrogate_training.layout(task)
        vector = arranged.start(torch.randn(arranged.size, generator=nets.generator(1)), 4.0, 0.5).requires_grad_()
        used = surrogate_training.parameters(task, arranged.split(vector))
        growth = math.log(math.sqrt(17) / 4)
        expected = [0.0, -growth, -growth] if tied else [math.log(4.0)] * 3
        torch.testing.assert_close(used.log_sharpness.detach(), torch.tensor([expected] * 2))
        assert used.log_sharpness.requires_grad != tied
