"""Pictures of Gaussian noise with random labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from spikebench import plugins
from spikebench.data import SpikeData, is_constant
from spikebench.errors import Unavailable

GAUSSIAN = plugins.load("datasets", "gaussian_pictures")


def load(**settings: int) -> SpikeData:
    data: SpikeData = GAUSSIAN.load(GAUSSIAN.Settings(kind="synthetic", **settings))
    return data


def pixels(data: SpikeData) -> torch.Tensor:
    """All pictures, [N, side x side]."""
    return torch.cat([part.inputs[:, 0, :-1] for part in (data.train, data.validation, data.test)])


def test_pixels_are_independent_standard_normal_numbers() -> None:
    values = pixels(load(training=100, test=100)).numpy()
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    apart = [
        np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel()),
        np.corrcoef(values[:-1].ravel(), values[1:].ravel()),
    ]
    assert all(abs(r[0, 1]) < 5 / values.size**0.5 for r in apart)


def test_ten_classes_are_equally_many_and_tell_nothing() -> None:
    data = load(training=500, test=500)
    targets = torch.cat([data.labelled.targets, data.test.targets])
    assert stats.chisquare(targets.bincount(minlength=10)).pvalue > 1e-3
    assert len(set(data.test.targets.tolist())) == 10
    assert len(data.classes) == 10
    mean = torch.stack([pixels(data)[targets == label].mean(dim=0) for label in range(10)])
    expected = (1 / targets.bincount().double()).sqrt().mean()
    assert float(mean.std()) == pytest.approx(float(expected), rel=0.1), "no class has a mean of its own"


def test_shapes_parts_and_constant_currents() -> None:
    data = load(training=16, test=16)
    assert (len(data.train.targets), len(data.validation.targets), len(data.test.targets)) == (13, 3, 16)
    assert data.train.inputs.shape == (13, 30, 257) and data.layout == (1, 16, 16)
    assert (data.task, data.binary_inputs) == ("classification", False)
    for part in (data.train, data.validation, data.test):
        assert is_constant(part.inputs) and part.inputs[..., -1].eq(1).all()
    small = load(training=5, test=7, side=4, steps=3)
    assert small.test.inputs.shape == (7, 3, 17) and small.layout == (1, 4, 4)
    assert (len(small.train.targets), len(small.validation.targets)) == (3, 2)


def test_all_examples_differ_and_every_seed_draws_its_own() -> None:
    one, again, other = (load(training=16, test=16, split_seed=seed) for seed in (3, 3, 4))
    assert torch.equal(pixels(one), pixels(again)) and torch.equal(one.labelled.targets, again.labelled.targets)
    assert (one.split_sha256, one.provenance) == (again.split_sha256, again.provenance)
    assert len(pixels(one).unique(dim=0)) == 32
    together = torch.cat([pixels(one), pixels(other)])
    assert len(together.unique(dim=0)) == 64
    assert one.split_sha256 != other.split_sha256 and one.provenance.sha256 != other.provenance.sha256


def test_a_smaller_learner_is_part_of_a_larger_one_and_the_test_part_is_the_same() -> None:
    """docs/contracts.md: training sizes are nested, and the test split does not depend on them."""
    sets = [load(training=16, training_size=size) for size in (4, 10, 16)]
    learners = [{(x.numpy().tobytes(), int(y)) for x, y in zip(*data.labelled, strict=True)} for data in sets]
    assert [len(own) for own in learners] == [4, 10, 16]
    assert learners[0] < learners[1] < learners[2]
    for data in sets:
        assert torch.equal(data.test.inputs, sets[0].test.inputs)
        assert torch.equal(data.test.targets, sets[0].test.targets)
    assert len({data.split_sha256 for data in sets}) == 3


def test_more_than_there_are_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="gaussian_pictures has 16 training examples, 17 were asked for"):
        load(training=16, training_size=17)
