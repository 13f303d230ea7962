"""Implicit differentiation by Broyden's method, against dense linear systems, other solvers and finite differences."""

from __future__ import annotations

import itertools

import equilibrium_truth as truth
import numpy as np
import pytest
import torch
from equilibrium_truth import Point
from scipy import optimize
from scipy.sparse.linalg import LinearOperator, gmres

from spikebench import adjoint
from spikebench.neurons import SoftResetParameters

EXACT = {"iterations": 300, "memory": 300, "tolerance": 1e-13}
points = pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
names = pytest.mark.parametrize("name", truth.SMALL)


def solve(point: Point, **settings: float) -> adjoint.Solved:
    return adjoint.broyden(point.net, point.weights, point.slope, point.factors, **{**EXACT, **settings})


def jacobians(point: Point) -> list[np.ndarray]:
    """J of each sample of the first cell."""
    own = point.matrices[0]
    return [own.jacobian(own.parts(factors)) for factors in point.factors[0]]


def slopes(point: Point) -> list[np.ndarray]:
    """g of each sample of the first cell."""
    return [g.double().numpy() for g in point.slope[0]]


# The linear equation


@points
@names
def test_the_matrix_is_the_derivative_of_one_round_trip(name: str, masked: bool) -> None:
    """J by automatic differentiation of ``around`` and by central differences of the explicit equations."""
    point = Point(name, masked, smooth=True)
    own, h, largest = point.matrices[0], 1e-7, 0.0
    for n, joined in enumerate(jacobians(point)):
        last, masks = point.rates[0, n, -point.net.widths[-1] :], None if point.masks is None else point.masks[:, n]
        shown = point.shown[0, n].double()

        def trip(a: torch.Tensor, masks: torch.Tensor | None = masks, shown: torch.Tensor = shown) -> torch.Tensor:
            inside = None if masks is None else masks[:, None].double()
            z = adjoint.around(point.net, point.weights.double(), shown[None, None], a[None, None], inside)
            return z[-1].clamp(0, 1)[0, 0]

        automatic = torch.autograd.functional.jacobian(trip, last).numpy()
        np.testing.assert_allclose(automatic, joined, rtol=1e-6, atol=1e-12)
        differences = [
            own.around(shown.numpy(), last.numpy() + h * e, None if masks is None else masks[0])[-1]
            - own.around(shown.numpy(), last.numpy() - h * e, None if masks is None else masks[0])[-1]
            for e in np.eye(len(last))
        ]
        np.testing.assert_allclose(np.transpose(differences) / (2 * h), joined, atol=1e-6)
        largest = max(largest, np.abs(joined).max())
    assert largest > (0.02 if point.net.feedback else -1)


@points
@names
def test_broyden_solves_the_dense_system(name: str, masked: bool) -> None:
    point = Point(name, masked, devices=2)
    found = solve(point)
    assert found.adjoint.shape == (2, 4, sum(point.net.widths)) and found.adjoint.dtype == torch.float64
    np.testing.assert_allclose(found.adjoint.numpy(), point.by_matrices(), atol=1e-8, rtol=0)
    assert found.residual.max() < 1e-12 * point.net.widths[-1] ** 0.5
    assert found.adjoint.abs().max() > 0.3


@pytest.mark.parametrize("neuron", [SoftResetParameters(2.0, 0.0), SoftResetParameters(1.0, 0.0)], ids=str)
def test_kappa_is_the_thresholds_distance_from_the_rest(neuron: SoftResetParameters) -> None:
    point = Point("convolutions", neuron=neuron)
    np.testing.assert_allclose(solve(point).adjoint.numpy(), point.by_matrices(), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", truth.WITH_FEEDBACK)
def test_other_solvers_find_the_same(name: str) -> None:
    point = Point(name, masked=True)
    found = solve(point).adjoint[0, :, -point.net.widths[-1] :].numpy()
    for own, joined, g in zip(found, jacobians(point), slopes(point), strict=True):
        identity = np.eye(len(g))
        root = optimize.broyden1(lambda x, j=joined, g=g: g + j.T @ x - x, np.zeros_like(g), alpha=1.0, f_tol=1e-11)
        np.testing.assert_allclose(own, root, atol=1e-8)
        operator = LinearOperator(identity.shape, matvec=lambda x, j=joined: x - j.T @ x)
        by_krylov, failed = gmres(operator, g, rtol=1e-13, atol=0, restart=len(g))
        assert not failed
        np.testing.assert_allclose(own, by_krylov, atol=1e-8)


def textbook(joined: np.ndarray, g: np.ndarray, iterations: int, memory: int = 99) -> tuple[float, np.ndarray]:
    """The lowest residual and where it was: Broyden's updates of the inverse Jacobian, the last few of which count."""
    x, residual, kept = np.zeros_like(g), g, list[np.ndarray]()
    tried = [(float(np.linalg.norm(g)), x)]
    for _ in range(iterations):
        if np.linalg.norm(residual) < 1e-14:
            break  # a small system is solved
        inverse = sum(kept, -np.eye(len(g)))
        step = -inverse @ residual
        x = x + step
        change = (g + joined.T @ x - x) - residual
        residual = residual + change
        kept.append(np.outer(step - inverse @ change, step @ inverse) / (step @ inverse @ change))
        kept = kept[-memory:]
        tried.append((float(np.linalg.norm(residual)), x))
    return min(tried, key=lambda pair: pair[0])


@pytest.mark.parametrize("name", truth.WITH_FEEDBACK)
def test_the_residual_is_that_of_the_equation_and_its_iterates_are_broydens(name: str) -> None:
    """Few products, from x_1 = g on; below the last layer the adjoint is that iterate's."""
    point = Point(name, masked=True)
    for iterations in (1, 2, 4):
        found = solve(point, iterations=iterations, tolerance=0.0)
        for n, (joined, g) in enumerate(zip(jacobians(point), slopes(point), strict=True)):
            lowest, best = textbook(joined, g, iterations)
            last = found.adjoint[0, n, -len(g) :].numpy()
            np.testing.assert_allclose(last, best, atol=1e-9)
            assert found.residual[0, n].item() == pytest.approx(lowest, rel=1e-6, abs=1e-12)
            np.testing.assert_allclose(np.linalg.norm(g + joined.T @ last - last), lowest, atol=1e-12)
            own = point.matrices[0]
            lower = np.concatenate(own.down(own.parts(point.factors[0, n]), last))
            np.testing.assert_allclose(found.adjoint[0, n].numpy(), lower, atol=1e-9)
        if name == "convolutions":
            assert found.products.tolist() == [4 * iterations], "of all four samples"


def test_it_ends_as_soon_as_the_tolerance_is_met() -> None:
    """Never a product more than is needed; the tolerance is times the square root of the number of neurons."""
    point, counted = Point("convolutions", devices=2), []
    limited = [solve(point, iterations=k).residual for k in range(30)]
    for tolerance in (1e-1, 1e-3, 1e-6):
        found, limit = solve(point, tolerance=tolerance), tolerance * point.net.widths[-1] ** 0.5
        needed = torch.zeros(2, 4, dtype=torch.int64)
        for b, n in np.ndindex(2, 4):
            needed[b, n] = next(k for k, residual in enumerate(limited) if residual[b, n] < limit)
            assert found.residual[b, n] == limited[needed[b, n]][b, n]
        assert torch.equal(found.products, needed.sum(dim=1))
        counted.append(found.products.tolist())
    assert all(a < b < c for a, b, c in zip(*counted, strict=True))
    assert solve(point, tolerance=1e9).products.tolist() == [0, 0]


def test_the_defaults_are_those_of_the_authors() -> None:
    point = Point("convolutions")
    default = adjoint.broyden(point.net, point.weights, point.slope, point.factors)
    named = solve(point, iterations=30, memory=27, tolerance=2e-10)
    assert all(torch.equal(a, b) for a, b in zip(default, named, strict=True))


def stiff() -> Point:
    """A strong feedback, which takes more updates than a small memory keeps."""
    point = Point("dense")
    weights, biases = point.net.split(point.weights[0])
    point.weights = point.net.join([*weights[:-1], 6 * weights[-1]], biases)[None]
    point.matrices = [truth.Matrices(point.net, point.weights[0])]
    point.factors = torch.full_like(point.factors, 0.5)
    return point


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_with_too_small_a_memory_the_oldest_update_gives_way_and_the_lowest_residual_is_kept(memory: int) -> None:
    point, lowest = stiff(), []
    for iterations in range(1, 13):
        found = solve(point, iterations=iterations, memory=memory)
        lowest.append(found.residual[0].tolist())
        for n, (joined, g) in enumerate(zip(jacobians(point), slopes(point), strict=True)):
            x = found.adjoint[0, n, -len(g) :].numpy()
            residual, best = textbook(joined, g, iterations, memory)
            np.testing.assert_allclose(x, best, atol=1e-8)
            assert lowest[-1][n] == pytest.approx(residual, rel=1e-6)
            assert np.linalg.norm(g + joined.T @ x - x) == pytest.approx(residual, rel=1e-6)
    assert all(b <= a for one, two in itertools.pairwise(lowest) for a, b in zip(one, two, strict=True))
    assert max(lowest[-1]) > 1e-6, "the memory is too small"
    assert any(b == a for one, two in itertools.pairwise(lowest) for a, b in zip(one, two, strict=True))
    np.testing.assert_allclose(solve(point).adjoint.numpy(), point.by_matrices(), atol=1e-8)


def test_no_slope_no_products() -> None:
    point = Point("convolutions")
    point.slope[0, 1:] = 0.0
    found = solve(point)
    assert not found.adjoint[0, 1:].any() and not found.residual[0, 1:].any()
    point.slope[0, 0] = 0.0
    assert found.products.item() > 0 and solve(point).products.item() == 0


def test_without_feedback_one_product_says_so() -> None:
    point = Point("no feedback")
    found = solve(point)
    assert found.products.tolist() == [4] and found.residual.max() < 1e-15
    torch.testing.assert_close(found.adjoint[..., -5:].float(), point.slope, atol=0, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_authors_other_iteration_has_a_wrong_fixed_point(scale: float) -> None:
    """x <- (J^T x + g) / 2 ends at half of what (x + J^T x + g) / 2 ends at where J is 0: at (2 - J^T)^-1 g."""
    point = Point("convolutions", masked=True)
    for joined, g, exact in zip(jacobians(point), slopes(point), solve(point).adjoint[0], strict=True):
        last = exact[-len(g) :].numpy()
        wrong, right = np.zeros_like(g), np.zeros_like(g)
        for _ in range(200):
            wrong = (joined.T @ wrong + scale * g) / 2
            right = (right + joined.T @ right + scale * g) / 2
        np.testing.assert_allclose(right, scale * last, atol=1e-10)
        np.testing.assert_allclose(wrong, np.linalg.solve(2 * np.eye(len(g)) - joined.T, scale * g), atol=1e-10)
        assert np.linalg.norm(wrong - right) > 0.4 * np.linalg.norm(right)


# Alone and beside others


@pytest.mark.parametrize("name", ["convolutions", "pool", "one layer"])
def test_a_cell_has_the_same_bits_alone_and_beside_others(name: str) -> None:
    point = Point(name, masked=True, devices=3)
    together = solve(point)
    errors = point.factors[..., : sum(point.net.widths)] * together.adjoint
    fed_back = point.factors[..., sum(point.net.widths) :] * together.adjoint[..., : point.net.widths[0]]
    both = [(e, e.float()) for e in (errors, point.rates, fed_back)]
    for kind in range(2):
        error, rates, back = (pair[kind] for pair in both)
        whole = adjoint.gradient(point.net, error, rates, point.shown, back)
        for b in range(3):
            part = slice(b, b + 1)
            own = adjoint.broyden(point.net, point.weights[part], point.slope[part], point.factors[part], **EXACT)
            assert all(torch.equal(x[part], y) for x, y in zip(together, own, strict=True))
            alone = adjoint.gradient(point.net, error[part], rates[part], point.shown[part], back[part])
            assert torch.equal(whole[part], alone) and alone.dtype == error.dtype
            assert alone.std() > 0
