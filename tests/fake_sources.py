"""Archives of a test's own in place of the known ones: small, and verified like the real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from spikebench.archives import SOURCES, Archive


def replace_source(
    patch: pytest.MonkeyPatch, name: str, files: Mapping[str, bytes], url: str = "", wrong: str = ""
) -> None:
    """Let a source consist of these files.

    Args:
        patch: undoes it.
        name: of ``SOURCES``.
        files: name to content.
        url: of the folder they are served from; empty for none.
        wrong: the file whose hash is another one.
    """
    known = [
        Archive(
            file,
            len(content),
            hashlib.sha256(content + (b"?" if file == wrong else b"")).hexdigest(),
            urls=(f"{url}/{file}",) if url else (),
        )
        for file, content in files.items()
    ]
    patch.setitem(SOURCES, name, replace(SOURCES[name], files=tuple(known), npm=None))


def mirror_of(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A mirror folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
