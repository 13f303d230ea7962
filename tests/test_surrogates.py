from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from snntorch import surrogate

from spikebench.surrogates import SURROGATES, derivative

X = torch.linspace(-4, 4, 401, dtype=torch.float64)
NAMES = list(SURROGATES)


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_the_heaviside_step_and_zero_does_not_spike(name: str) -> None:
    spike = SURROGATES[name].spike
    assert spike(torch.tensor([-1.0, -1e-30, 0.0, 1e-30, 1.0])).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("name", NAMES)
def test_the_surrogate_derivative_is_that_of_the_primitive(name: str) -> None:
    family, h = SURROGATES[name], 1e-6
    differences = (family.primitive(X + h) - family.primitive(X - h)) / (2 * h)
    torch.testing.assert_close(derivative(family.spike, X), differences, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(derivative(family.primitive, X), differences, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_primitives_rise_and_are_symmetric_about_the_threshold(name: str) -> None:
    primitive = SURROGATES[name].primitive
    assert (primitive(X).diff() > 0).all()
    centre = primitive(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(primitive(X) + primitive(-X), 2 * centre.expand_as(X))


def test_derivatives_by_their_formulas() -> None:
    gaussian = torch.from_numpy(0.5 * stats.norm.pdf(X.numpy(), scale=0.5))
    torch.testing.assert_close(derivative(SURROGATES["gaussian"].spike, X), gaussian)
    torch.testing.assert_close(derivative(SURROGATES["fast-sigmoid"].spike, X), (1 + 2 * X.abs()) ** -2)
    torch.testing.assert_close(derivative(SURROGATES["arctan"].spike, X), 1 / (1 + (math.pi * X) ** 2))


@pytest.mark.parametrize(
    ("name", "reference"), [("fast-sigmoid", surrogate.fast_sigmoid(slope=2)), ("arctan", surrogate.atan(alpha=2))]
)
def test_derivatives_are_snntorchs(name: str, reference: object) -> None:
    torch.testing.assert_close(derivative(SURROGATES[name].spike, X), derivative(reference, X))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_upstream_gradients_are_scaled(name: str) -> None:
    x = X.clone().requires_grad_()
    (3 * SURROGATES[name].spike(x)).sum().backward()
    torch.testing.assert_close(x.grad, 3 * derivative(SURROGATES[name].spike, X))


def test_derivative_works_where_gradients_are_off_and_leaves_its_argument_alone() -> None:
    with torch.no_grad():
        value = derivative(lambda x: x**3, X)
    torch.testing.assert_close(value, 3 * X**2)
    assert not X.requires_grad and X.grad is None
