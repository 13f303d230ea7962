"""The gradient by spikes on a small network: its error is the one that was measured with the authors' code.

On arXiv 2302.00232's MNIST network with 16 channels, Gaussian inputs of 16 x 16, feedback of norm 2, T_F = 30, a batch
of 16 and two seeds. With other random numbers what was measured is met within a third.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import equilibrium_truth as truth
import feedback_course as course
import nets
import numpy as np
import pytest
import torch

from spikebench import adjoint, feedback_training, gradient_probe
from spikebench.data import Batch
from spikebench.feedback_training import Shown
from spikebench.method import Task
from spikebench.neurons import CoupleParameters

SAMPLES, STEPS, CELLS = 16, 30, 2
TO_REST, TO_0 = CoupleParameters(), CoupleParameters(1.0, 0.0)
#: Of each scale S / B of the loss, by the steps T_B: relative error and cosine of both resets.
MEASURED = {
    (1.0, 25): ((0.69, 0.76), (0.84, 0.55)),
    (1.0, 100): ((0.24, 0.97), (0.41, 0.92)),
    (1.0, 250): ((0.12, 0.993), (0.21, 0.98)),
    (6.25, 25): ((0.18, 0.984), (0.31, 0.96)),
    (6.25, 100): ((0.05, 0.999), (0.10, 0.996)),
    (6.25, 250): ((0.02, 1.0), (0.04, 0.999)),
}


class Probed(NamedTuple):
    """A minibatch and the exact gradient at its rates."""

    task: Task
    shown: Shown
    exact: torch.Tensor


def pictures() -> Batch:
    generator = nets.generator(7)
    values = torch.randn((CELLS, SAMPLES, 1, 257), generator=generator)
    values[..., -1] = 1.0
    targets = torch.randint(0, 10, (CELLS, SAMPLES), generator=generator)
    return Batch(values.expand(-1, -1, STEPS, -1), targets, torch.arange(CELLS))


def task_of(scale: float, **settings: float) -> Task:
    """Scale is S / B."""
    return course.course(
        course.SPIDE, "16C5s-16C5s-16C5 (F16C3u)", (1, 16, 16), 10, STEPS, loss_scale=SAMPLES * scale, **settings
    )


@lru_cache
def probed(scale: float, rest: float = -1.0) -> Probed:
    task = task_of(scale, rest=rest)
    chip, batch = course.chip_of(task), pictures()
    shown = feedback_training.show(
        task, course.begin(course.SPIDE, task, batch, chip), batch, chip, course.streams(task)
    )
    factors = adjoint.transmission(feedback_training.built(task), shown.rates.mean, None)
    solved = adjoint.broyden(feedback_training.built(task), shown.weights, shown.slope, factors, 60, 60, 1e-12)
    assert solved.residual.max() < 1e-10
    return Probed(task, shown, feedback_training.weight_gradient(task, shown, solved.adjoint))


@lru_cache
def told(scale: float, couple: CoupleParameters, steps: int) -> tuple[float, float, float]:
    """Relative error and cosine of the gradient by spikes, and spikes a couple and step, mean over both cells."""
    task, shown, exact = probed(scale)
    net = feedback_training.built(task)
    factors = adjoint.transmission(net, shown.rates.mean, None)
    stage = truth.second_stage(net, shown.weights, shown.slope, factors, couple, steps)
    error, cosine = gradient_probe.compare(feedback_training.weight_gradient(task, shown, stage.mean), exact)
    rate = stage.spikes.sum(dim=1) / (SAMPLES * steps * sum(net.widths))
    return float(error.mean()), float(cosine.mean()), float(rate.mean())


@pytest.mark.parametrize(("scale", "steps"), MEASURED, ids=str)
def test_the_error_of_the_gradient_by_spikes_is_the_measured_one(scale: float, steps: int) -> None:
    for couple, (error, cosine) in zip((TO_REST, TO_0), MEASURED[scale, steps], strict=True):
        found = told(scale, couple, steps)
        assert found[0] == pytest.approx(error, rel=1 / 3)
        assert 1 - found[1] == pytest.approx(1 - cosine, rel=1 / 2, abs=0.001)


def test_a_loss_that_is_too_large_saturates_the_couples_and_one_that_is_too_small_makes_no_spike() -> None:
    for couple in (TO_REST, TO_0):
        error, cosine, _ = told(25.0, couple, 100)
        assert error == pytest.approx(0.26, rel=1 / 3) and cosine == pytest.approx(0.97, abs=0.02)
        assert told(0.06, couple, 100) == (1.0, 0.0, 0.0)


def test_the_modified_reset_halves_the_error_and_takes_more_spikes() -> None:
    """Where the loss is scaled enough; at T_B = 250 0.080 against 0.045 spikes a couple and step."""
    for steps in (25, 100, 250):
        one, other = (told(6.25, couple, steps) for couple in (TO_REST, TO_0))
        assert 0.4 * other[0] < one[0] < 0.7 * other[0]
        assert one[2] > 1.5 * other[2]
    assert one[2] == pytest.approx(0.080, rel=0.1) and other[2] == pytest.approx(0.045, rel=0.1)


@pytest.mark.parametrize(
    ("rest", "error", "bias"), [(-1.0, (0.003, 0.005), (-0.001, 0.001)), (0.0, (0.006, 0.011), (-0.011, -0.006))]
)
def test_average_rates_are_as_far_from_the_equilibrium_as_was_measured(
    rest: float, error: tuple[float, float], bias: tuple[float, float]
) -> None:
    """.004 and hardly a bias with the modified reset, .007 to .010 and as much too low with a rest of 0."""
    task, shown, _ = probed(6.25, rest)
    difference = shown.rates.mean - adjoint.equilibrium(feedback_training.built(task), shown.weights, shown.inputs)
    for own in difference:
        assert error[0] < float(own.abs().mean()) < error[1]
        assert bias[0] < float(own.mean()) < bias[1]


# What a probe keeps of a training


def test_a_probe_measures_each_step() -> None:
    task = task_of(6.25, probe=True, backward_steps=100)
    _, shown, _ = probed(6.25)
    net = feedback_training.built(task)
    factors = adjoint.transmission(net, shown.rates.mean, None)
    stage = truth.second_stage(net, shown.weights, shown.slope, factors, TO_REST, 100)
    found = gradient_probe.measure(task, shown, feedback_training.weight_gradient(task, shown, stage.mean))
    assert all(values.shape == (CELLS,) and values.dtype == torch.float64 for values in found.values())
    assert float(found["gradient_error"].mean()) == pytest.approx(told(6.25, TO_REST, 100)[0], rel=1e-4)
    assert float(found["gradient_cosine"].mean()) == pytest.approx(told(6.25, TO_REST, 100)[1], rel=1e-4)
    rates = adjoint.equilibrium(net, shown.weights, shown.inputs)
    torch.testing.assert_close(found["rate_error"], (shown.rates.mean - rates).abs().mean(dim=(1, 2)))
    chip, batch = course.chip_of(task), pictures()
    state = course.train(course.SPIDE, task, batch, chip, 1)
    kept = course.SPIDE.predict(task, state, batch.inputs, batch.index, chip).diagnostics
    for name, values in found.items():
        torch.testing.assert_close(kept[name], values)


def test_a_probe_sees_dropout_as_the_stages_do() -> None:
    """Exact and clipped adjoint and the equilibrium by explicit matrices with the masks."""
    task = course.course(course.SPIDE, "6-5 (F6)", (2, 2, 2), dropout=0.3, initial_feedback=1.0, loss_scale=20.0)
    batch, chip = course.shown(task), course.chip_of(task)
    shown = feedback_training.show(
        task, course.begin(course.SPIDE, task, batch, chip), batch, chip, course.streams(task)
    )
    found = gradient_probe.measure(task, shown, torch.ones_like(shown.weights))
    factors = adjoint.transmission(feedback_training.built(task), shown.rates.mean, shown.masks)
    for b, cell in enumerate(truth.Matrices(task.network, own) for own in shown.weights):
        exact, clipped, distances = torch.zeros(2, 6, 11), torch.zeros(2, 6, 11), []
        for n in range(6):
            parts, g = cell.parts(factors[b, n]), shown.slope[b, n].double().numpy()
            exact[b, n] = torch.from_numpy(cell.adjoint(parts, g))
            beta = np.zeros(5)
            for _ in range(500):
                back = cell.links[-1].T @ (parts[-1] * cell.down(parts, beta, 1.0)[0])
                beta = (beta + np.clip(g + back, -1, 1)) / 2
            clipped[b, n] = torch.from_numpy(np.concatenate(cell.down(parts, beta, 1.0)))
            settled = np.concatenate(cell.settled(shown.inputs[b, n].double().numpy(), shown.masks[b, n]))
            distances.append(np.abs(shown.rates.mean[b, n].numpy() - settled).mean())
        for name, own in (("gradient_error", exact), ("clipped_error", clipped)):
            expected = feedback_training.weight_gradient(task, shown, own)[b]
            error = float((1 - expected).norm() / expected.norm())
            assert found[name][b].item() == pytest.approx(error, rel=1e-4)
        assert found["rate_error"][b].item() == pytest.approx(np.mean(distances), rel=1e-4)
        assert (exact[b] - clipped[b]).abs().max() > 0.01


def test_saturated_couples_tell_the_clipped_adjoint() -> None:
    task, shown, _ = probed(25.0)
    net = feedback_training.built(task)
    factors = adjoint.transmission(net, shown.rates.mean, None)
    stage = truth.second_stage(net, shown.weights, shown.slope, factors, TO_REST, 250)
    found = gradient_probe.measure(task, shown, feedback_training.weight_gradient(task, shown, stage.mean))
    assert found["clipped_error"].max() < 0.01 < 0.15 < found["gradient_error"].min()


def test_error_and_cosine_by_hand() -> None:
    exact = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    error, cosine = gradient_probe.compare(torch.tensor([[3.0, 0.0], [0.0, 0.0], [-2.0, 0.0]]), exact)
    np.testing.assert_allclose(error.numpy(), [4 / 5, 1.0, 2.0])
    np.testing.assert_allclose(cosine.numpy(), [9 / 15, 0.0, -1.0])
