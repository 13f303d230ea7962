"""What lies in the store of data: verified archives, and what was unpacked of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spikebench import fetch
from spikebench.archives import SOURCES, Source
from spikebench.errors import UserError
from spikebench.paths import Store, project_root
from spikebench.seeds import digest

#: No zip file of recordings holds more than a tenth of this when unpacked.
UNPACKED_BYTES = 20 * 10**9


def files_of(source: str) -> list[Path]:
    """The verified files of a source.

    Raises:
        Unavailable: it is not on this machine; the message says what was tried.
    """
    return fetch.paths_of(_known(source), Store.of(project_root()).folder)


def identity(source: str) -> str:
    """A sha256 of a source's files, from their published hashes."""
    return digest([(file.name, file.sha256 or file.md5) for file in _known(source).files], length=64)


def _known(source: str) -> Source:
    if source not in SOURCES:
        raise UserError(f"source: found {source!r}, allowed: {', '.join(SOURCES)} (see NEEDS of the data set)")
    return SOURCES[source]


def unpacked(source: str, name: str, wanted: Callable[[str], bool]) -> Path:
    """The folder with the wanted members of a source's zip files, unpacked when they are first asked for.

    Args:
        source: of recordings.
        name: of this selection, a folder below the name of its tonic-style class (``events.recordings``).
        wanted: whether a member belongs to it.

    Raises:
        Unavailable: the source is not on this machine.
        UserError: an archive that is not safe to unpack.
    """
    place = Store.of(project_root()).folder / "unpacked" / name
    for file in files_of(source):
        if not (place / file.stem).exists():
            fetch.unpack(file, place / file.stem, wanted, limit_bytes=UNPACKED_BYTES)
    return place
