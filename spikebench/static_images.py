"""Pictures that do not move, as constant currents: a pixel's current is its brightness, from 0 to 1, or normalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from spikebench import encoding
from spikebench.data import DataSettings, Provenance, SpikeData, Split, hash_split, stratified_order
from spikebench.errors import Unavailable
from spikebench.images import Images, by_class


@dataclass(frozen=True)
class PictureSettings(DataSettings):
    """Which pictures, and how long they are shown; a plug-in's ``Settings`` gives the sizes (the plan reads it).

    Attributes:
        training: pictures that learners may see, the first of each class in the training part.
        test: pictures for testing, the first of each class in the test part.
        steps: time steps T.
        normalised: take each colour's mean off and divide by its standard deviation, over all training pictures of the
            archive.
    """

    training: int = 1000
    test: int = 500
    steps: int = 10
    normalised: bool = False


def as_currents(
    images: Images, classes: tuple[str, ...], provenance: Provenance, settings: PictureSettings
) -> SpikeData:
    """A data set of pictures: currents [N, T, channels x height x width + 1], the last one constant.

    Args:
        images: of the archive, with its own division into training and test part.
        classes: names.
        provenance: where they come from.
        settings: which pictures, and how long they are shown.

    Raises:
        Unavailable: more are asked for than there are.
    """
    training, size = settings.training, settings.training_size
    pool = _first_of_each(images.train_labels, len(classes), training, provenance.name)
    tested = _first_of_each(images.test_labels, len(classes), settings.test, provenance.name)
    size = training if size is None else size
    if size > training:
        raise Unavailable(f"{provenance.name} has {training} training examples, {size} were asked for")
    learner = pool[stratified_order(images.train_labels[pool], settings.split_seed)[:size]]
    cut = size - max(2, round(0.2 * size))

    mean, sd = _moments(images.train) if settings.normalised else (np.float32(0.0), np.float32(255.0))

    def part(pictures: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> Split:
        pixels = (pictures[chosen].astype(np.float32) - mean) / sd
        pixels = pixels.transpose(0, 3, 1, 2) if pixels.ndim == 4 else pixels
        lines = encoding.constant_current(torch.from_numpy(pixels.reshape(len(chosen), -1).copy()), settings.steps)
        return Split(encoding.with_constant_line(lines), torch.from_numpy(labels[chosen]))

    height, width = images.train.shape[1:3]
    return SpikeData(
        task="classification",
        train=part(images.train, images.train_labels, learner[:cut]),
        validation=part(images.train, images.train_labels, learner[cut:]),
        test=part(images.test, images.test_labels, tested),
        classes=classes,
        binary_inputs=False,
        provenance=provenance,
        split_sha256=hash_split(train=learner[:cut], validation=learner[cut:], test=tested),
        layout=(3 if images.train.ndim == 4 else 1, height, width),
    )


def _moments(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each colour of pictures [N, H, W] or [N, H, W, 3] uint8, float32."""
    values = np.arange(256)
    colours = np.moveaxis(pictures, 3, 0) if pictures.ndim == 4 else pictures[None]
    shares = [np.bincount(colour.ravel(), minlength=256) / colour.size for colour in colours]
    mean = np.array([share @ values for share in shares])
    square = np.array([share @ values**2 for share in shares])
    return mean.astype(np.float32), np.sqrt(square - mean**2).astype(np.float32)


def _first_of_each(labels: np.ndarray, classes: int, total: int, name: str) -> np.ndarray:
    """Positions of the first pictures of each class, ``total`` over all classes."""
    each, more = divmod(total, classes)
    chosen = []
    for label, members in enumerate(by_class(labels, classes)):
        wanted = each + (label < more)
        if wanted > len(members):
            raise Unavailable(f"{name} has {len(members)} pictures of class {label}, {wanted} were asked for")
        chosen.append(members[:wanted])
    return np.concatenate(chosen)
