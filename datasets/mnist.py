"""MNIST: 28 by 28 pictures of handwritten digits, shown as constant currents."""

from __future__ import annotations

from dataclasses import dataclass

from spikebench import images
from spikebench.data import Provenance, SpikeData
from spikebench.static_images import PictureSettings, as_currents
from spikebench.store import files_of, identity

CITATION = "LeCun, Cortes, Burges: The MNIST database of handwritten digits (1998)."
LICENCE = "none stated by its authors"
KINDS = ("real",)
NEEDS = {"real": ("mnist",)}
LOAD = 20.0


@dataclass(frozen=True)
class Settings(PictureSettings):
    """See ``static_images.PictureSettings``."""

    training: int = 1250
    test: int = 500
    steps: int = 10


def load(settings: Settings) -> SpikeData:
    """Currents [N, T, 784 + 1]; see ``static_images.as_currents``.

    Raises:
        Unavailable: the archive is not on this machine, or has fewer pictures than are asked for.
    """
    return as_currents(
        images.mnist(files_of("mnist")),
        tuple("0123456789"),
        Provenance(
            name="MNIST",
            kind="real",
            source="the four original files",
            sha256=identity("mnist"),
            licence=LICENCE,
            citation=CITATION,
        ),
        settings,
    )
