"""Archives are unpacked safely: nothing outside the folder, nothing larger than expected, and whole or not at all."""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spikebench.errors import UserError

_BLOCK = 1 << 20


@contextmanager
def alone(folder: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the kernel's lock on ``.<folder>.lock``, which ends with the process however that ends.

    Args:
        folder: what is worked on.
        wait: is called before another process is waited for.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        lock(file, wait)
        yield


def lock(file: IO[Any], wait: Callable[[], object]) -> None:
    """Hold the kernel's lock on an open file until it is closed; on a file system without locks, say so and go on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wait()
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        print(f"{file.name}: no locks here ({error.strerror}); going on without", file=sys.stderr)


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool], limit_bytes: int) -> None:
    """Unpack a zip archive's wanted members into a folder that is not there yet; one that is, is whole, and is left.

    Everything is checked before anything is written. Of two processes one waits for the other; what a killed one left
    is removed by the next.

    Args:
        archive: a zip file.
        folder: appears when all members are in it.
        wanted: tells by its name whether a member is unpacked.
        limit_bytes: bound on the unpacked size of all wanted members together.

    Raises:
        UserError: not a sound zip archive, a member that would leave the folder, is a link or is there twice, or more
            bytes than the bound; the message names archive and member.
    """
    with alone(folder):
        if folder.exists():
            return
        temporary = folder.with_name(f".{folder.name}.unpacking")
        shutil.rmtree(temporary, ignore_errors=True)
        at = "its list of members"
        try:
            with zipfile.ZipFile(archive) as zipped:
                for member in _checked(zipped, archive.name, wanted, limit_bytes):
                    at = member.filename
                    target = temporary / at
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # zipfile ends at the declared size, which was checked, whatever the stream goes on to give.
                    with zipped.open(member) as packed, target.open("xb") as file:
                        shutil.copyfileobj(packed, file, _BLOCK)
        except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(f"{archive.name}: {at}: cannot be unpacked ({error})") from None
        os.replace(temporary, folder)


def gunzip(archive: Path, target: Path, limit_bytes: int) -> None:
    """Unpack a gzip file, but little more than ``limit_bytes`` of it, and of an unsound one what can be read.

    Whoever compares size and hash will notice.
    """
    with gzip.open(archive) as packed, target.open("wb") as file, suppress(gzip.BadGzipFile, EOFError, zlib.error):
        while file.tell() <= limit_bytes and (block := packed.read(_BLOCK)):
            file.write(block)


def _checked(zipped: zipfile.ZipFile, archive: str, wanted: Callable[[str], bool], limit: int) -> list[zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for member in zipped.infolist():
        # As it stands in the archive: zipfile cuts names at a NUL.
        name = member.orig_filename
        problem = _problem(name, member.external_attr >> 16)
        if name in members:
            problem = "is there twice"
        members[name] = member
        if wanted(name) and not member.is_dir():
            total += member.file_size
            if total > limit:
                problem = f"takes the unpacked size to {total} bytes, more than the {limit} that can be right"
        if problem:
            raise UserError(f"{archive}: {name!r} {problem}; nothing was unpacked")
    chosen = [member for name, member in members.items() if wanted(name) and not member.is_dir()]
    if not chosen:
        raise UserError(f"{archive}: none of its {len(members)} members is one of those expected")
    return chosen


def _problem(name: str, mode: int) -> str:
    if re.match(r"[/\\]|[A-Za-z]:", name):
        return "is an absolute path"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "leads out of the folder"
    if "\\" in name or "\0" in name:
        return "has a backslash or a zero in its name"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return ""
