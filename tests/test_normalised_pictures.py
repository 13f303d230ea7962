"""Pictures with each colour's mean taken off and divided by its standard deviation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spikebench.data import Provenance, SpikeData, is_constant
from spikebench.images import Images
from spikebench.static_images import PictureSettings, as_currents

SOURCE = Provenance("toy", "real", "a test", "0", "none", "nobody")
LABELS = np.arange(40) % 2


def pictures(colours: int) -> Images:
    """Grey or coloured pictures; colours, and the training and the test part, have different means."""
    rng = np.random.default_rng(3)
    shape = (3, 4) if colours == 1 else (3, 4, colours)
    train = rng.integers(0, 100 + 50 * np.arange(colours), (40, *shape))
    test = rng.integers(100, 256, (10, *shape))
    return Images(train.astype(np.uint8), LABELS, test.astype(np.uint8), LABELS[:10])


def load(images: Images, normalised: bool = True, **settings: int) -> SpikeData:
    given = {"training": 20, "test": 6, "steps": 4, "split_seed": 1, "training_size": None}
    return as_currents(images, ("a", "b"), SOURCE, SimpleNamespace(**{**given, **settings}, normalised=normalised))


def planes(part: torch.Tensor, colours: int) -> np.ndarray:
    """[N, colours, 12] of inputs [N, T, I]."""
    return part[:, 0, :-1].unflatten(1, (colours, 12)).numpy()


@pytest.mark.parametrize("colours", [1, 3])
def test_mean_and_deviation_are_those_of_all_training_pictures_of_the_archive(colours: int) -> None:
    """Of every colour apart; the test pictures, and which examples the learner has, do not matter."""
    images = pictures(colours)
    whole = images.train.astype(float).reshape(-1, colours)
    mean, sd = whole.mean(axis=0), whole.std(axis=0)
    assert colours == 1 or np.ptp(mean) > 10
    for size in (6, 20):
        plain, found = load(images, normalised=False, training_size=size), load(images, training_size=size)
        for name in ("train", "validation", "test"):
            own, raw = (planes(getattr(data, name).inputs, colours) for data in (found, plain))
            expected = (255 * raw.astype(float) - mean[:, None]) / sd[:, None]
            np.testing.assert_allclose(own, expected, atol=1e-5)
            assert torch.equal(getattr(found, name).targets, getattr(plain, name).targets)
        assert found.split_sha256 == plain.split_sha256


def test_with_all_pictures_it_has_mean_0_and_deviation_1() -> None:
    values = planes(load(pictures(3), training=40).labelled.inputs, 3)
    np.testing.assert_allclose(values.mean(axis=(0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(values.std(axis=(0, 2)), 1, atol=1e-6)


def test_the_constant_line_and_the_constant_current_stay() -> None:
    data = load(pictures(3))
    for part in (data.train, data.validation, data.test, data.labelled):
        assert is_constant(part.inputs) and part.inputs.dtype == torch.float32
        assert part.inputs[..., -1].eq(1).all() and part.inputs.shape[1:] == (4, 37)


def test_it_is_not_done_unless_it_is_asked_for() -> None:
    """And brightness from 0 to 1 keeps its bits."""
    assert PictureSettings().normalised is False
    images = pictures(1)
    values = planes(load(images, normalised=False, training=40).labelled.inputs, 1)
    whole = {x.tobytes() for x in images.train.astype(np.float32).reshape(40, -1) / np.float32(255)}
    assert {x.tobytes() for x in values[:, 0]} == whole
