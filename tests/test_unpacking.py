"""An archive is unpacked whole and inside its folder, or not at all."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spikebench.errors import UserError
from spikebench.unpacking import gunzip, unpack


def recording(events: int) -> bytes:
    """AEDAT 2.0: a header, then big-endian records of address and time."""
    records = b"".join(struct.pack(">II", (i % 128) << 8, 10 * i) for i in range(events))
    return b"#!AER-DAT2.0\r\n# made by a test\r\n" + records


def real_archive() -> bytes:
    """Laid out as MNIST-DVS is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for scale in (4, 8, 16):
            zipped.mkdir(f"grabbed_data0/scale{scale}")
            for number in (1, 2):
                name = f"grabbed_data0/scale{scale}/mnist_0_scale{scale:02d}_{number:04d}.aedat"
                zipped.writestr(name, recording(scale * number))
    return buffer.getvalue()


def archive_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        zipped.writestr("fine", b"fine")
        for member, content in members:
            zipped.writestr(member, content)
    return path


def refused(archive: Path, limit: int = 1000) -> str:
    folder = archive.parent / "folder"
    with pytest.raises(UserError) as error:
        unpack(archive, folder, lambda _: True, limit)
    left = {path.name for path in archive.parent.rglob("*")} - {".folder.lock"}
    assert left == {archive.name}, "nothing is left, in the folder or outside"
    return str(error.value)


def test_the_wanted_members_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "grabbed_data0.zip").write_bytes(real_archive())
    unpack(tmp_path / "grabbed_data0.zip", tmp_path / "out", lambda name: "/scale4/" in name, 1000)
    found = {path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*.aedat")}
    assert found == {f"grabbed_data0/scale4/mnist_0_scale04_000{i}.aedat" for i in (1, 2)}
    assert (tmp_path / "out/grabbed_data0/scale4/mnist_0_scale04_0002.aedat").read_bytes() == recording(8)


def test_the_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".folder.unpacking").mkdir()
    (tmp_path / ".folder.unpacking" / "half").touch()
    unpack(archive_of(tmp_path / "a.zip"), tmp_path / "folder", lambda _: True, 1000)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".folder.lock", "a.zip", "fine", "folder"]


def test_of_two_at_once_one_waits_and_finds_it_done(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip")
    begun, go_on = threading.Event(), threading.Event()

    def wanted(_: str) -> bool:
        begun.set()
        return go_on.wait(30)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(unpack, archive, tmp_path / "deep" / "folder", wanted, 1000)
        assert begun.wait(30)
        second = pool.submit(unpack, archive, tmp_path / "deep" / "folder", lambda _: 1 / 0 > 0, 1000)
        time.sleep(0.1)
        assert not second.done()
        go_on.set()
        assert first.result(30) is None is second.result(30)
    assert (tmp_path / "deep" / "folder" / "fine").read_bytes() == b"fine"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../evil", "leads out of the folder"),
        ("a/../../evil", "leads out of the folder"),
        ("a/./fine", "leads out of the folder"),
        ("a//evil", "leads out of the folder"),
        ("/etc/evil", "is an absolute path"),
        ("C:evil", "is an absolute path"),
        ("\\\\host\\evil", "is an absolute path"),
        ("a\\..\\evil", "has a backslash"),
        ("fine", "is there twice"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, problem: str) -> None:
    said = refused(archive_of(tmp_path / "bad.zip", (name, b"evil")))
    assert said.startswith(f"bad.zip: {name!r} {problem}")


def test_a_name_with_a_zero_is_not_shortened_but_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "bad.zip", ("evil?.aedat", b"evil"))
    archive.write_bytes(archive.read_bytes().replace(b"evil?", b"evil\0"))
    assert "bad.zip: 'evil\\x00.aedat' has a backslash or a zero in its name" in refused(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    member = zipfile.ZipInfo("link")
    member.external_attr = (kind | 0o777) << 16
    assert "bad.zip: 'link' is a link or a device" in refused(
        archive_of(tmp_path / "bad.zip", (member, b"/etc/passwd"))
    )


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    bomb = archive_of(tmp_path / "bad.zip", ("bomb", bytes(10_000_000)))
    assert bomb.stat().st_size < 20_000
    assert "bad.zip: 'bomb' takes the unpacked size to 10000004 bytes, more than the 1000" in refused(bomb)
    unpack(bomb, tmp_path / "folder", lambda name: name == "fine", 1000)  # unless it is not asked for
    assert (tmp_path / "folder" / "fine").read_bytes() == b"fine"


def test_a_zip_bomb_that_lies_about_its_size_is_cut_off_and_refused(tmp_path: Path) -> None:
    bomb = archive_of(tmp_path / "bad.zip", ("bomb", bytes(10_000_000)))
    honest, lie = struct.pack("<I", 10_000_000), struct.pack("<I", 100)
    assert bomb.read_bytes().count(honest) == 2, "in the member's own header and in the list of members"
    bomb.write_bytes(bomb.read_bytes().replace(honest, lie))
    assert "bad.zip: bomb: cannot be unpacked" in refused(bomb)


def test_damage_is_noticed_by_the_check_sum(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as zipped:
        zipped.writestr("stored", b"0123456789")
    whole = (tmp_path / "bad.zip").read_bytes()
    (tmp_path / "bad.zip").write_bytes(whole.replace(b"0123456789", b"0123456780"))
    assert "bad.zip: stored: cannot be unpacked" in refused(tmp_path / "bad.zip")


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", real_archive()[:-200]], ids=["empty", "page", "cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.zip").write_bytes(content)
    assert "bad.zip: its list of members: cannot be unpacked" in refused(tmp_path / "bad.zip")


def test_an_archive_of_other_things_is_refused(tmp_path: Path) -> None:
    archive_of(tmp_path / "bad.zip")
    with pytest.raises(UserError, match=r"bad\.zip: none of its 1 members"):
        unpack(tmp_path / "bad.zip", tmp_path / "folder", lambda name: name.endswith(".aedat"), 1000)


def test_a_gzip_file_is_unpacked_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a" * 100))
    gunzip(tmp_path / "a.gz", tmp_path / "a", 100)
    assert (tmp_path / "a").read_bytes() == b"a" * 100
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    gunzip(tmp_path / "a.gz", tmp_path / "a", 100)
    assert 100 < (tmp_path / "a").stat().st_size < 2_000_000
    (tmp_path / "a.gz").write_bytes(gzip.compress(os.urandom(1000))[:500])
    gunzip(tmp_path / "a.gz", tmp_path / "a", 1000)
    assert (tmp_path / "a").stat().st_size < 1000
