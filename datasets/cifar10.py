"""CIFAR-10: 32 by 32 colour photographs of ten classes, shown as constant currents."""

from __future__ import annotations

from dataclasses import dataclass

from spikebench import images
from spikebench.data import Provenance, SpikeData
from spikebench.static_images import PictureSettings, as_currents
from spikebench.store import files_of, identity

CITATION = "Krizhevsky: Learning Multiple Layers of Features from Tiny Images. University of Toronto (2009)."
LICENCE = "none stated by its authors; its pictures are never part of this project"
KINDS = ("real",)
NEEDS = {"real": ("cifar10", "cifar10-subset-4000")}
LOAD = 60.0


@dataclass(frozen=True)
class Settings(PictureSettings):
    """See ``static_images.PictureSettings``."""

    training: int = 600
    test: int = 250
    steps: int = 10


def load(settings: Settings) -> SpikeData:
    """Currents [N, T, 3072 + 1]; see ``static_images.as_currents``.

    Raises:
        Unavailable: the archive is not on this machine, or has fewer pictures than are asked for.
    """
    whole = settings.source == "cifar10"
    return as_currents(
        images.cifar10(settings.source, files_of(settings.source)),
        images.CIFAR10_CLASSES,
        Provenance(
            name="CIFAR-10" if whole else settings.source,
            kind="real",
            source="the binary archive" if whole else "the first 4,000 training and 1,000 test pictures of CIFAR-10",
            sha256=identity(settings.source),
            licence=LICENCE,
            citation=CITATION,
        ),
        settings,
    )
