"""CIFAR-100: 32 by 32 colour photographs of a hundred classes, shown as constant currents (paper preset)."""

from __future__ import annotations

from dataclasses import dataclass

from spikebench import images
from spikebench.data import Provenance, SpikeData
from spikebench.static_images import PictureSettings, as_currents
from spikebench.store import files_of, identity

CITATION = "Krizhevsky: Learning Multiple Layers of Features from Tiny Images. University of Toronto (2009)."
LICENCE = "none stated by its authors; its pictures are never part of this project"
KINDS = ("real",)
NEEDS = {"real": ("cifar100",)}
LOAD = 60.0


@dataclass(frozen=True)
class Settings(PictureSettings):
    """See ``static_images.PictureSettings``."""

    training: int = 50_000
    test: int = 10_000
    steps: int = 10


def load(settings: Settings) -> SpikeData:
    """Currents [N, T, 3072 + 1]; see ``static_images.as_currents``.

    Raises:
        Unavailable: the archive is not on this machine.
    """
    return as_currents(
        images.cifar(files_of("cifar100")[0], label_bytes=2),
        # The names lie in another file of the archive, in alphabetical order; the fine labels' numbers do here.
        tuple(f"class {label}" for label in range(100)),
        Provenance(
            name="CIFAR-100",
            kind="real",
            source="the binary archive",
            sha256=identity("cifar100"),
            licence=LICENCE,
            citation=CITATION,
        ),
        settings,
    )
