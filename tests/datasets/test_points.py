"""Two moons and the one-dimensional regression: points of known shapes, told by populations of neurons."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from spikebench import plugins
from spikebench.data import SpikeData
from spikebench.errors import Unavailable
from spikebench.population import rates

MOONS = plugins.load("datasets", "two_moons")
REGRESSION = plugins.load("datasets", "regression_1d")


def moons(**settings: object) -> SpikeData:
    return MOONS.load(MOONS.Settings(kind="synthetic", **settings))


def regression(**settings: object) -> SpikeData:
    return REGRESSION.load(REGRESSION.Settings(kind="synthetic", **settings))


class TestMoons:
    def test_points_lie_on_two_half_circles(self) -> None:
        points, labels = MOONS._moons(500, 0.0, np.random.default_rng(0))
        upper, lower = points[labels == 0], points[labels == 1]
        assert len(upper) == len(lower) == 250
        np.testing.assert_allclose(np.hypot(*upper.T), 1.0)
        assert upper[:, 1].min() >= 0
        np.testing.assert_allclose(np.hypot(*(lower - [1.0, 0.5]).T), 1.0)
        assert lower[:, 1].max() <= 0.5
        # Each reaches into the other: (1, 0.5), the middle of the lower one, is right of the upper one's middle.
        assert upper[:, 0].min() < -0.95 and lower[:, 0].max() > 1.95
        assert 0 < np.abs(np.diff(labels)).sum() < 499, "in random order"

    def test_the_noise_is_gaussian_in_both_coordinates(self) -> None:
        still, noisy = (MOONS._moons(20_000, s, np.random.default_rng(0))[0] for s in (0.0, 0.1))
        difference = noisy - still
        np.testing.assert_allclose(difference.std(axis=0), 0.1, rtol=0.03)
        np.testing.assert_allclose(difference.mean(axis=0), 0.0, atol=0.004)
        assert abs(np.corrcoef(difference.T)[0, 1]) < 0.03

    def test_sizes_and_shares(self) -> None:
        data = moons(split_seed=3)
        assert (len(data.train.targets), len(data.validation.targets), len(data.test.targets)) == (160, 40, 1000)
        assert data.labelled.targets.bincount().tolist() == [100, 100]
        assert data.test.targets.bincount().tolist() == [500, 500]
        assert data.train.inputs.shape == (160, 100, 21)
        with pytest.raises(Unavailable, match="two_moons has 200 training examples, 201 were asked for"):
            moons(training_size=201)

    def test_spikes_tell_the_scaled_coordinates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Four points in the corners: the first or the last neuron of each coordinate fires at every step."""
        corners = np.array([[-1.0, 2.0], [3.0, 2.0], [3.0, 5.0], [-1.0, 5.0]])

        def drawn(count: int, noise: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            return corners[np.arange(count) % 4], np.arange(count) % 2

        monkeypatch.setattr(MOONS, "_moons", drawn)
        for part in (moons().labelled, moons().test):
            patterns = {tuple(example.tolist()) for example in part.inputs.mean(dim=1)}
            one = [[1.0] + [0.0] * 9, [0.0] * 9 + [1.0]]
            assert patterns == {(*x, *y, 1.0) for x in one for y in one}

    def test_a_test_point_beyond_the_training_points_is_clipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def drawn(count: int, noise: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            points = np.tile([[0.0, 0.0], [1.0, 1.0]], (count // 2, 1))
            return points * (1 if count == 200 else 1.5), np.arange(count) % 2

        monkeypatch.setattr(MOONS, "_moons", drawn)
        rate = moons().test.inputs.mean(dim=1)
        assert rate[:, 9].unique().tolist() == [0.0, 1.0], "1.5 is told as 1 is"

    def test_rates_are_those_of_the_population(self) -> None:
        """Over 400 steps, with each number's own tolerance."""
        data = moons(split_seed=5, steps=400, training_size=20)
        generator = np.random.Generator(np.random.PCG64(5))
        points = [MOONS._moons(n, 0.1, generator)[0] for n in (200, 1000)]
        low, high = points[0].min(axis=0), points[0].max(axis=0)
        scaled = torch.from_numpy(np.clip((points[1] - low) / (high - low), 0, 1))
        expected = rates(scaled, 10, 1.0).flatten(1)
        found = data.test.inputs[..., :20].mean(dim=1)
        sd = (expected * (1 - expected) / 400).sqrt()
        assert ((found - expected).abs() <= 5 * sd + 4 / 400).all()
        assert not found[expected == 0].any()
        assert float((found - expected).mean()) == pytest.approx(0.0, abs=5 * float(sd.norm()) / expected.numel())

    def test_the_map_is_a_square_of_scaled_coordinates(self) -> None:
        """Its spikes have the rates of the grid's points, the second coordinate changing fastest."""
        data = moons(split_seed=5, steps=400, training_size=20, map=5)
        assert data.probe is not None
        assert data.probe.axes == ((0.0, 1.0, 5), (0.0, 1.0, 5))
        points = torch.tensor([(x / 4, y / 4) for x in range(5) for y in range(5)])
        expected = rates(points, 10, 1.0).flatten(1)
        found = data.probe.inputs[..., :20].mean(dim=1)
        assert (found - expected).abs().max() <= 5 * 0.5 / 20 + 1e-6
        assert not found[expected == 0].any()
        assert moons().probe.inputs.shape == (1600, 100, 21)  # type: ignore[union-attr]

    def test_what_was_seen_are_the_learners_points(self) -> None:
        data = moons(split_seed=5, steps=400, training_size=20)
        assert data.probe is not None
        expected = rates(data.probe.seen, 10, 1.0).flatten(1)
        found = data.labelled.inputs[..., :20].mean(dim=1)
        assert (found - expected).abs().max() <= 5 * 0.5 / 20 + 1e-6

    def test_the_map_leaves_the_examples_as_they_are(self) -> None:
        for part in ("train", "validation", "test"):
            small, large = (getattr(moons(split_seed=3, map=n), part) for n in (2, 30))
            assert torch.equal(small.inputs, large.inputs)

    def test_learners_are_nested_and_another_seed_draws_other_points(self) -> None:
        sets = [moons(split_seed=1, training_size=n) for n in (20, 80, 200)]
        learners = [{x.numpy().tobytes() for x in data.labelled.inputs} for data in sets]
        assert all(small < large for small, large in pairwise(learners))
        assert torch.equal(sets[0].test.inputs, sets[2].test.inputs)
        assert not torch.equal(moons(split_seed=2).test.inputs, sets[0].test.inputs)


class TestRegression:
    def test_the_function(self) -> None:
        # x - 0.1 x^2 + cos(pi x / 2) at -1, 0, 1, 2, 4.
        found = REGRESSION.function(np.array([-1.0, 0.0, 1.0, 2.0, 4.0]))
        np.testing.assert_allclose(found, [-1.1, 1.0, 0.9, 0.6, 3.4], atol=1e-12)

    def test_training_points_lie_in_three_intervals_with_gaps_between(self) -> None:
        data = regression(steps=2000)
        assert (len(data.train.targets), len(data.validation.targets), len(data.test.targets)) == (48, 12, 600)
        # The x whose rates come closest to those that were seen.
        grid = torch.linspace(0, 1, 1500)
        seen = data.labelled.inputs[..., :20].mean(dim=1)
        found = np.sort((grid[torch.cdist(seen, rates(grid, 20, 4.0)).argmin(dim=1)] * 5.99 - 1).numpy())
        expected = np.concatenate([a + 0.05 * np.arange(20) for a in (-1.0, 1.5, 4.0)])
        np.testing.assert_allclose(found, expected, atol=0.04)
        assert all(any(a <= x <= b for a, b in REGRESSION.INTERVALS) for x in expected)

    def test_targets_are_scaled_by_the_range_of_the_test_targets(self) -> None:
        data = regression(noise=0.0)
        grid = -1 + 0.01 * np.arange(600)
        values = REGRESSION.function(grid)
        assert data.test.targets.min() == 0.0 and data.test.targets.max() == 1.0
        expected = (values - values.min()) / (values.max() - values.min())
        np.testing.assert_allclose(data.test.targets[:, 0].numpy(), expected, atol=1e-6)
        # Without noise each training target is the one of the same place on the test grid, every fifth of it.
        places = np.concatenate([np.arange(20) * 5 + first for first in (0, 250, 500)])
        found = np.sort(data.labelled.targets[:, 0].numpy())
        np.testing.assert_allclose(found, np.sort(expected[places]), atol=1e-5)

    def test_the_noise_is_on_the_training_targets_alone(self) -> None:
        still, noisy = ([regression(noise=s, split_seed=n) for n in range(40)] for s in (0.0, 0.1))
        span = np.ptp(REGRESSION.function(-1 + 0.01 * np.arange(600)))
        difference = torch.cat([b.labelled.targets - a.labelled.targets for a, b in zip(still, noisy, strict=True)])
        assert float(difference.std()) * span == pytest.approx(0.1, rel=0.05)
        assert float(difference.mean()) * span == pytest.approx(0.0, abs=0.01)
        assert all(torch.equal(a.test.targets, b.test.targets) for a, b in zip(still, noisy, strict=True))

    def test_it_is_a_task_of_values(self) -> None:
        data = regression(split_seed=4, training_size=30)
        assert (data.task, data.classes, data.binary_inputs) == ("regression", (), True)
        assert data.train.targets.shape == (24, 1)
        assert data.train.inputs.shape == (24, 100, 21)
        with pytest.raises(Unavailable, match="regression_1d has 60 training examples, 61 were asked for"):
            regression(training_size=61)

    def test_learners_are_nested(self) -> None:
        learners = [
            {x.numpy().tobytes() for x in regression(split_seed=1, training_size=n).labelled.inputs}
            for n in (10, 30, 60)
        ]
        assert all(small < large for small, large in pairwise(learners))

    def test_the_probe_lies_where_training_points_lie_and_in_the_gaps_between(self) -> None:
        data = regression(steps=2000, split_seed=3, training_size=30)
        assert data.probe is not None
        ((low, high, points),) = data.probe.axes
        assert (low, high, points) == (-1.0, pytest.approx(4.95), 120)
        x = np.linspace(low, high, points)
        np.testing.assert_allclose(np.diff(x), 0.05)
        grid = REGRESSION.function(-1 + 0.01 * np.arange(600))
        expected = (REGRESSION.function(x) - grid.min()) / (grid.max() - grid.min())
        assert data.probe.targets is not None
        np.testing.assert_allclose(data.probe.targets.numpy(), expected, atol=1e-6)
        told = rates(torch.from_numpy((x + 1) / 5.99), 20, 4.0)
        assert (data.probe.inputs[..., :20].mean(dim=1) - told).abs().max() <= 5 * 0.5 / np.sqrt(2000)

    def test_what_was_seen_are_the_learners_places_and_values(self) -> None:
        data = regression(noise=0.0, split_seed=3, training_size=30)
        assert data.probe is not None
        x, y = data.probe.seen.double().numpy().T
        assert torch.equal(data.probe.seen[:, 1:], data.labelled.targets)
        grid = REGRESSION.function(-1 + 0.01 * np.arange(600))
        np.testing.assert_allclose((REGRESSION.function(x) - grid.min()) / (grid.max() - grid.min()), y, atol=1e-5)
