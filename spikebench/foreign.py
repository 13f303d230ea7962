"""Results that were made elsewhere, read strictly: a damaged or altered file is named, where our own is trained again.

An archive is read without being unpacked, and nothing comes out of it but what its manifest vouches for.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from spikebench import rows as row_file
from spikebench.errors import UserError
from spikebench.seeds import digest
from spikebench.sweep import Cell

Rows = list[dict[str, Any]]
#: Experiment and shard.
Key = tuple[str, str]

MANIFEST = "manifest.json"
#: What makes a row's result. A cell's sweeps and its experiment's paper may change although its numbers are fresh.
IDENTITY = tuple(column for column in row_file.RESULT if column not in ("sweeps", "paper"))
#: What a cell's id is the hash of.
_AXES = tuple(axis.name for axis in fields(Cell))
#: Bytes that no member of ours comes near: a bound on the memory that an archive made by others may cost.
_LARGEST = 1 << 30
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Archive:
    """What ``bundle.write_archive`` wrote; a context, which closes the file.

    Attributes:
        name: what messages call it.
        manifest: the document as it was written.
        preset: whose results it holds.
        members: sha256 and bytes by name, without the top folder's.
        counts: gathered rows by status.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        """Read list and manifest.

        Raises:
            UserError: there is no such file, it is no sound zip file, or a member would leave the folder, is a link,
                is there twice, is missing or is not in the manifest; the message names archive and member.
        """
        self.name = name or str(path)
        if not path.is_file():
            raise UserError(f"{self.name}: found no such file, expected one that `spikebench archive` wrote")
        try:
            self._zip = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            raise UserError(f"{self.name}: cannot be read as a zip file ({error}); copy or make it again") from None
        try:
            # As names stand in the archive: zipfile cuts them at a NUL.
            names = [info.orig_filename for info in self._zip.infolist()]
            self._check_names(names)
            self._check_links()
            self._top = next((name.split("/")[0] for name in names if name.endswith(f"/{MANIFEST}")), "")
            self._read_manifest()
            self._check_list(names)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _check_names(self, names: list[str]) -> None:
        for name, times in Counter(names).items():
            parts = name.split("/")
            if any(part in ("", ".", "..") for part in parts) or len(parts) < 2 or any(c in name for c in "\\\0:"):
                raise UserError(f"{self.name}: {name!r} is no file in the archive's folder; do not unpack it")
            if times > 1:
                raise UserError(f"{self.name}: {name!r} is there {times} times, expected once; do not unpack it")

    def _check_links(self) -> None:
        # We read a link's text as any content; who unpacks it would get whatever it points to.
        for info in self._zip.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(f"{self.name}: {info.orig_filename!r} is a link; do not unpack it")

    def _read_manifest(self) -> None:
        try:
            self.manifest: dict[str, Any] = json.loads(self._content(MANIFEST, None))
            self.preset = str(self.manifest["preset"])
            self.members = {str(n): (str(m["sha256"]), int(m["size"])) for n, m in self.manifest["members"].items()}
            self.counts = {str(status): int(n) for status, n in self.manifest["rows"]["by_status"].items()}
            problem = "" if self._top == f"spikebench-{self.preset}" else f"preset {self.preset!r} in {self._top!r}"
            if self.manifest["rows"]["total"] != sum(self.counts.values()):
                problem = "numbers of rows that do not add up"
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            problem = f"{type(error).__name__} {error}"
        if problem:
            raise UserError(f"{self.name}: {MANIFEST}: found {problem}, expected what `spikebench archive` writes")

    def _check_list(self, names: list[str]) -> None:
        expected = {f"{self._top}/{member}" for member in (*self.members, MANIFEST)}
        for name in sorted(expected.symmetric_difference(names)):
            told = "is in its manifest and not in it" if name in expected else "is in it and not in its manifest"
            raise UserError(f"{self.name}: {name!r} {told}: it was changed after it was made; copy or make it again")

    def read(self, member: str) -> bytes:
        """The content of a member.

        Raises:
            UserError: it is not what the manifest says.
        """
        expected, size = self.members.get(member, ("", None))
        content = self._content(member, size)
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            told = f"found the sha256 {found}, expected {expected} by its manifest"
            raise UserError(f"{self.name}: {member}: {told}: it was changed after it was made; copy or make it again")
        return content

    def _content(self, member: str, size: int | None) -> bytes:
        place = f"{self.name}: {member}"
        try:
            info = self._zip.getinfo(f"{self._top}/{member}")
        except KeyError:
            raise UserError(f"{place}: is missing; expected what `spikebench archive` writes") from None
        if info.file_size > _LARGEST or size not in (None, info.file_size):
            most = f"at most {_LARGEST}" if size in (None, info.file_size) else f"{size} by its manifest"
            raise UserError(f"{place}: found {info.file_size} bytes, expected {most}; copy or make it again")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{place}: found the compression {info.compress_type}, expected deflated as we write it")
        try:
            # By blocks zipfile ends at the declared size, which was checked, whatever the stream goes on to give.
            with self._zip.open(info) as packed:
                return b"".join(iter(lambda: packed.read(1 << 20), b""))
        except _UNREADABLE as error:
            raise UserError(f"{place}: cannot be read ({error}): it is damaged; copy or make it again") from None


def shard_file(key: Key) -> str:
    """Where a shard lies below ``results/<preset>/`` and in an archive."""
    return f"shards/{key[0]}/{key[1]}.parquet"


@dataclass(frozen=True)
class Source:
    """A folder ``results/<preset>`` of another checkout, or an archive of one.

    Attributes:
        name: what messages call it: the path as the user gave it.
        preset: whose rows it must hold.
        shards: that it has.
        content: of a file, by its name relative to the folder.
    """

    name: str
    preset: str
    shards: frozenset[Key]
    content: Callable[[str], bytes]

    @classmethod
    def opened(cls, path: Path, preset: str, stack: ExitStack) -> Source:
        """List what is there; ``stack`` closes the archive.

        Raises:
            UserError: there is nothing, no shard or another preset; an archive is not sound.
        """

        def content(member: str) -> bytes:
            return archive.read(member) if archive else (path / member).read_bytes()

        archive = stack.enter_context(Archive(path)) if path.is_file() else None
        if archive is None and not path.is_dir():
            raise UserError(f"{path}: found nothing there, expected a folder results/{preset} or an archive of one")
        if archive and archive.preset != preset:
            raise UserError(_other_preset(str(path), archive.preset, preset))
        files: Iterable[str] = (file.relative_to(path).as_posix() for file in path.glob("shards/*/*"))
        matches = (
            re.fullmatch(r"shards/([^/]+)/([^/]+)\.parquet", name) for name in (archive.members if archive else files)
        )
        shards = frozenset((match[1], match[2]) for match in matches if match)
        if not shards:
            told = f"found no {shard_file(('<experiment>', '<shard>'))}, expected those of a folder results/{preset}"
            raise UserError(f"{path}: {told} in which something was trained")
        return cls(str(path), preset, shards, content)

    def rows(self, key: Key) -> Rows:
        """The rows of a shard; none where it has no such shard.

        Raises:
            UserError: it has, but it cannot be read, or holds rows of another preset or rows that ``rows_of`` refuses.
        """
        if key not in self.shards:
            return []
        place = f"{self.name}: {shard_file(key)}"
        try:
            content = self.content(shard_file(key))
        except OSError as error:
            raise UserError(f"{place}: cannot be read ({error.strerror}); copy it again") from None
        rows = rows_of(content, place)
        for row in rows:
            if row["preset"] != self.preset:
                raise UserError(_other_preset(place, row["preset"], self.preset))
        return rows


def _other_preset(place: str, found: str, expected: str) -> str:
    return f"{place}: found the preset {found!r}, expected {expected!r}: merge it with `--preset {found}`"


def rows_of(content: bytes, place: str) -> Rows:
    """The rows of a Parquet file in memory; ``place`` is what a message calls it.

    Raises:
        UserError: it cannot be read, holds no rows of cells, two of one cell, or one whose axes are another cell's.
    """
    try:
        # pyarrow takes a file in memory as it takes a path.
        rows = row_file.read(io.BytesIO(content))
    except pa.ArrowException:  # columns of other types
        rows = []
    cells = Counter(row["cell"] for row in rows)
    if not rows or None in cells or max(cells.values()) > 1:
        found = "two rows of one cell" if rows and None not in cells else "no rows that can be read"
        told = "it is damaged or another's: copy it or make it again"
        raise UserError(f"{place}: found {found}, expected one of each of its cells: {told}")
    for row in rows:
        _check_axes(row, place)
    return rows


def _check_axes(row: Mapping[str, Any], place: str) -> None:
    """A row is taken by its cell's id, which must be the hash of its own axes."""
    # Files from before an axis lack it, and their ids were made without it: these are cells that no plan has any more.
    found = digest({axis: row[axis] for axis in _AXES if row[axis] is not None})
    if found != row["cell"]:
        told = f"found the axes of the cell {found}, expected its own: it was changed; copy it or make it again"
        raise UserError(f"{place}: cell {row['cell']}: {told}")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The columns of ``IDENTITY`` in which two rows of a cell differ by a bit; NaN is equal to NaN."""

    def text(value: Any) -> str:
        return json.dumps(math.nan if value is None else value)

    return [column for column in IDENTITY if text(one[column]) != text(other[column])]
