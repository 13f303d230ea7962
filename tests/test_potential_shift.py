"""Divergences of potentials against integrals and sums by hand, and what they see of a shift."""

from __future__ import annotations

import math

import multistep_truth as truth
import nets
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from spikebench.multistep import How, Parameters, present
from spikebench.potential_shift import SHIFTS, SILENT, Normal, between_paths, divergence, quantised, shift
from spikebench.potential_shift import potentials as of_potentials
from spikebench.surrogates import FAMILIES

#: Steps.
T = 3


def normal(mean: float, variance: float) -> Normal:
    return Normal(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[variance]], dtype=torch.float64))


# The divergence of normal distributions


@pytest.mark.parametrize(
    ("p", "q"),
    [((0.3, 0.2), (0.1, 0.05)), ((-1.0, 2.0), (0.5, 0.3)), ((0.0, 1.0), (0.0, 4.0)), ((2.0, 0.5), (0.0, 0.5))],
)
def test_it_is_half_of_both_divergences_by_integration(p: tuple[float, float], q: tuple[float, float]) -> None:
    one, other = (stats.norm(mean, math.sqrt(variance + SILENT)) for mean, variance in (p, q))

    def symmetric(x: float) -> float:
        return 0.5 * (one.pdf(x) - other.pdf(x)) * (one.logpdf(x) - other.logpdf(x))

    expected = integrate.quad(symmetric, -25, 25, limit=500, points=[p[0], q[0]])[0]
    found = divergence(normal(*p), normal(*q))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert found.item() == divergence(normal(*q), normal(*p)).item(), "symmetric"


def test_it_is_zero_for_equal_ones_alone() -> None:
    grid = [(mean, variance) for mean in (-0.5, 0.0, 0.25) for variance in (0.0, 0.25, 1.0)]
    for p in grid:
        for q in grid:
            found = divergence(normal(*p), normal(*q)).item()
            assert found == pytest.approx(0.0, abs=1e-12) if p == q else found > 1e-3


# Moments and shifts of one layer, from its potentials


def layer(by_layer: bool = False, family: str = "arctan") -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Moments and threshold of a convolution; its potentials and spikes [T, C, values], or one channel of them all."""
    net = truth.build("4C3", (2, 5, 5))
    values, inputs = truth.drawn(net, T), truth.shown(net, T, samples=8)
    moments = present(net, values, inputs, How(family, True, edge=0.01)).moments[0]
    exact = truth.present(net, truth.doubled(values), inputs, How(family, True))
    u, o = (x[0].detach().transpose(1, 2).flatten(2).numpy() for x in (exact.potentials, exact.spikes))
    if by_layer:
        u, o = u.reshape(T, 1, -1), o.reshape(T, 1, -1)
    return moments, values.thresholds[0], u, o


def gauss(u: np.ndarray, v: np.ndarray) -> float:
    """Mean over the first two axes of the divergence of the normal distributions with the moments of each."""
    p, q = u.var(axis=2) + SILENT, v.var(axis=2) + SILENT
    apart = (u.mean(axis=2) - v.mean(axis=2)) ** 2
    return float((((p + apart) / q + (q + apart) / p) / 4 - 0.5).mean())


@pytest.mark.parametrize("by_layer", [False, True], ids=["by channel", "by layer"])
def test_shifts_are_those_of_the_potentials(by_layer: bool) -> None:
    moments, threshold, u, o = layer(by_layer)
    v = threshold.item()
    found = {
        name: shift(name, moments, threshold, by_layer=by_layer).item()
        for name in ("a-gauss", "quantisation", "rate", "b")
    }
    assert found["a-gauss"] == pytest.approx(gauss(u, v * o), rel=1e-3)
    assert found["quantisation"] == pytest.approx(((u - v * o) ** 2).mean(), rel=1e-4)
    assert found["rate"] == pytest.approx(o.mean(), rel=1e-5)
    p, fixed = u.var(axis=2) + SILENT, v**2 + SILENT
    apart = u.mean(axis=2) ** 2
    assert found["b"] == pytest.approx(float((((p + apart) / fixed + (fixed + apart) / p) / 4 - 0.5).mean()), rel=1e-3)


def test_channels_and_their_pool_differ() -> None:
    moments, threshold, _, _ = layer()
    for name in ("a-gauss", "b"):
        assert abs(shift(name, moments, threshold) - shift(name, moments, threshold, by_layer=True)) > 0.01


@pytest.mark.parametrize("family", ["arctan", "rectangular", "sigmoid"])
def test_the_bernoulli_divergence_by_hand(family: str) -> None:
    moments, threshold, u, o = layer(family=family)
    values = truth.drawn(truth.build("4C3", (2, 5, 5)), T)
    k = values.log_sharpness[0].exp().numpy()[:, None, None]
    p = FAMILIES[family].primitive(torch.from_numpy(k * (u - threshold.item()))).numpy().clip(0.01, 0.99)
    q = o.clip(0.01, 0.99)
    expected = 0.5 * (p - q) * (np.log(p / (1 - p)) - np.log(q / (1 - q)))
    assert shift("a-bern", moments, threshold).item() == pytest.approx(float(expected.mean()), rel=1e-4)
    np.testing.assert_allclose(moments[4].numpy(), expected.mean(axis=2), rtol=1e-4)


def test_without_an_edge_the_bernoulli_divergence_is_left_out() -> None:
    net = truth.build("4C3", (2, 5, 5))
    assert not present(net, truth.drawn(net, T), truth.shown(net, T), How("arctan")).moments[0][4].any()


def test_paths_are_compared_by_their_potentials() -> None:
    net = truth.build("4C3-3C3", (2, 5, 5))
    values, inputs, how = truth.drawn(net, T), truth.shown(net, T), How("arctan", True, paths=True)
    course, exact = present(net, values, inputs, how), truth.present(net, truth.doubled(values), inputs, how)
    assert between_paths(course.moments[1], course.moments[1]).item() == 0.0
    p, q = (Normal(m[0], m[1] - m[0] ** 2) for m in (exact.moments[1].detach(), exact.unquantised[0].detach()))
    found = between_paths(course.moments[1], course.unquantised[0])
    assert found.item() == pytest.approx(divergence(p, q).mean().item(), rel=1e-3) and found > 0.001
    u = [m.detach().mean(dim=2, keepdim=True) for m in (exact.moments[1], exact.unquantised[0])]
    pooled = divergence(*(Normal(m[0], m[1] - m[0] ** 2) for m in u)).mean()
    assert between_paths(course.moments[1], course.unquantised[0], by_layer=True).item() == pytest.approx(
        pooled.item(), rel=1e-3
    )


# What a gradient sees


def test_spikes_are_taken_as_given_unless_they_are_not() -> None:
    moments, threshold, _, _ = layer()
    rows = {}
    for name, detach in (
        ("a-gauss", True),
        ("a-gauss", False),
        ("quantisation", True),
        ("rate", True),
        ("a-bern", True),
    ):
        leaf = moments.clone().requires_grad_()
        shift(name, leaf, threshold, detach).backward()
        rows[name, detach] = [bool(row.any()) for row in leaf.grad]
    assert rows == {
        ("a-gauss", True): [True, True, False, False, False],
        ("a-gauss", False): [True, True, True, False, False],
        ("quantisation", True): [False, True, False, True, False],
        ("rate", True): [False, False, True, False, False],
        ("a-bern", True): [False, False, False, False, True],
    }


def test_the_quantisation_errors_slope_is_that_of_the_square() -> None:
    """2 (u - V o) du: of one layer and step, with the spikes held."""
    net = truth.build("6", (1, 2, 2))
    own, inputs = truth.leaf(truth.drawn(net, 1)), truth.shown(net, 1)
    course = present(net, own, inputs, How("arctan"), keep=True)
    (found,) = torch.autograd.grad(shift("quantisation", course.moments[0], own.thresholds[0].detach()), own.biases[0])
    u = course.currents[0][0, :, 0, 0].detach()
    expected = 2 * (u - own.thresholds[0].detach() * (u > own.thresholds[0])).mean(dim=0) / 6
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_a_silent_layer_has_a_finite_divergence() -> None:
    moments = torch.zeros(5, T, 2)
    moments[1] = 0.01
    found = shift("a-gauss", moments, torch.tensor(0.5))
    assert found.item() == pytest.approx(0.25 * (0.0101 / SILENT + SILENT / 0.0101) - 0.5, rel=1e-4)
    moments[1] = -1e-9  # rounded
    assert shift("a-gauss", moments, torch.tensor(0.5)).item() == pytest.approx(0.0, abs=1e-6)
    assert not of_potentials(moments).variance.any()


def test_what_spikes_make_of_potentials_has_their_moments() -> None:
    moments = torch.zeros(5, 1, 1)
    moments[2] = 0.3
    found = quantised(moments, torch.tensor(0.5), detach=True)
    assert found.mean.item() == pytest.approx(0.15) and found.variance.item() == pytest.approx(0.25 * 0.3 * 0.7)


def test_other_names_are_not_allowed() -> None:
    with pytest.raises(ValueError, match="shift: found 'kl', allowed: a-gauss, a-bern, b, c, quantisation, rate"):
        shift("kl", torch.zeros(5, 1, 1), torch.tensor(0.5))
    assert SHIFTS == ("a-gauss", "a-bern", "b", "c", "quantisation", "rate")


# Shifts that are put in (docs/papers.md)


def moved(scale: float, offset: float) -> dict[str, float]:
    """Of a layer of one step with potentials u = scale x z + offset, z nearly normal with mean 0 and variance V^2."""
    net = truth.build("1", (1, 1, 1))
    z = torch.special.ndtri((torch.arange(2000) + 0.5) / 2000).float() * 0.5
    ones = torch.ones(1)
    values = Parameters(
        [torch.ones(1, 1, 1, 1)], [scale * ones], [offset * ones], torch.full((1, 1), math.log(4.0)), 0.5 * ones
    )
    moments = present(net, values, z[:, None, None], How("arctan", edge=0.01)).moments[0]
    return {name: shift(name, moments, torch.tensor(0.5)).item() for name in ("a-gauss", "a-bern", "b", "quantisation")}


def test_a_shift_that_is_put_in_is_seen() -> None:
    none = moved(1.0, 0.0)
    assert none["b"] == pytest.approx(0.0, abs=1e-4)
    for offset in (-1.0, -0.5, 1.0, 2.0):
        assert moved(1.0, offset)["b"] > none["b"] + 0.1
    for scale in (0.25, 0.5, 2.0, 4.0):
        assert moved(scale, 0.0)["b"] > none["b"] + 0.1
    for offset in (-1.0, -0.5, 1.0, 2.0):
        assert moved(1.0, offset)["a-gauss"] > none["a-gauss"] + 0.1
    for scale in (0.25, 2.0, 4.0):
        assert moved(scale, 0.0)["a-gauss"] > none["a-gauss"] + 0.1


def test_two_of_the_divergences_are_not_least_without_a_shift() -> None:
    """Potentials of mean 0 are below what their spikes say; and a surrogate is unsure at the threshold."""
    none, to_threshold = moved(1.0, 0.0), moved(1.0, 0.5)
    assert to_threshold["a-gauss"] < none["a-gauss"] - 0.1
    assert to_threshold["a-bern"] > none["a-bern"] + 0.05
    assert all(moved(1.0, offset)["a-bern"] < none["a-bern"] - 0.05 for offset in (-1.0, -0.5, 2.0))
    assert all(moved(scale, 0.0)["a-bern"] < none["a-bern"] - 0.03 for scale in (0.25, 0.5, 2.0, 4.0))


def test_a_softmax_over_features_does_not_see_an_offset() -> None:
    """Why A-softmax of the candidates is not among them."""
    u = torch.randn((50, 20), generator=nets.generator(3), dtype=torch.float64)
    o = (u > 0.5).double() * 0.5

    def symmetric(a: torch.Tensor, b: torch.Tensor) -> float:
        p, q = a.softmax(dim=1), b.softmax(dim=1)
        return float(0.5 * ((p - q) * (p.log() - q.log())).sum(dim=1).mean())

    assert symmetric(u + 1.0, o) == pytest.approx(symmetric(u, o), rel=1e-12)
    one, other = (
        divergence(*(Normal(x.mean(dim=0)[None], x.var(dim=0)[None]) for x in (v, o))).mean() for v in (u, u + 1.0)
    )
    assert other > one + 0.5
