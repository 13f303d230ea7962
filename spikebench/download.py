"""Bytes from the network: http with resume and retries, and the npm client. What they are is for ``fetch`` to judge."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies, select_proxy
from tqdm import tqdm

from spikebench.progress import INTERVAL

#: Seconds until a host must have been found and connected, and until it must have sent something.
CONNECT = 5.0
READ = 20.0
#: Seconds between one try and the next; they begin anew whenever a try has brought STEADY bytes.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
STEADY = 1 << 20
#: Bytes handled at a time: what a broken connection may cost.
BLOCK = 1 << 16
#: Milliseconds until npm's registry must begin to answer, and seconds that npm may take in all.
NPM_ANSWER = 8000
NPM_LIMIT = 600.0

Say = Callable[[str], None]

_NO_FILE = "answered with {} (status {}); a browser may get the file, which then goes into the mirror folder"


class Refused(Exception):
    """A place does not give the file; the message goes on from the place's name."""


class _Lost(Refused):
    """Nothing more is to be asked of this host."""


class _Broken(Exception):
    """A try that failed and may do better when repeated."""


@contextmanager
def meter(name: str, total: int, done: int, say: Say) -> Iterator[Callable[[int], None]]:
    """Give a function that counts bytes, for a bar on a terminal or a line now and then in a log."""
    said = time.monotonic()
    off = not sys.stderr.isatty()
    with tqdm(total=total, initial=done, desc=name, unit="B", unit_scale=True, leave=False, disable=off) as bar:

        def add(count: int) -> None:
            nonlocal done, said
            done += count
            bar.update(count)
            if off and time.monotonic() - said > INTERVAL:
                said = time.monotonic()
                say(f"{name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        yield add


class Web:
    """The downloads of one fetch. A host that cannot be reached is asked once, not once for every file."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._session = requests.Session()
        # Encoded answers would be neither of the known length nor resumable.
        self._session.headers.update({"User-Agent": "spikebench", "Accept-Encoding": "identity"})
        self._answered: set[str] = set()
        self._lost: dict[str, str] = {}

    def get(self, url: str, part: Path, size: int, exact: bool) -> None:
        """Complete ``part``, from the byte at which an earlier try left it.

        Args:
            url: http or https.
            part: what there is of the file so far; it stays when this fails.
            size: bytes of the file; no more than that are taken.
            exact: whether the file has that size; otherwise it is a bound.

        Raises:
            Refused: the host is out of reach, does not have the file, or kept failing.
        """
        host = urlsplit(url).netloc
        if host in self._lost:
            raise Refused(self._lost[host])
        try:
            if host not in self._answered and not select_proxy(url, get_environ_proxies(url)):
                _reach(url)
            self._persist(url, host, part, size, exact)
        except _Lost as lost:
            self._lost[host] = str(lost)
            raise

    def _persist(self, url: str, host: str, part: Path, size: int, exact: bool) -> None:
        tries = 0
        while True:
            before = _size(part)
            try:
                return self._try(url, part, size, exact)
            except _Broken as error:
                tries = 0 if _size(part) - before >= STEADY else tries
                if tries == (len(WAITS) if host in self._answered else 2):
                    raise _Lost(f"{error}, also when asked again") from None
                self._say(f"{host} {error}; asking again in {WAITS[tries]:.0f} s, from byte {_size(part)} on")
                time.sleep(WAITS[tries])
                tries += 1

    def _try(self, url: str, part: Path, size: int, exact: bool) -> None:
        have = _size(part)
        if exact and have >= size:
            return
        try:
            with self._session.get(
                url, headers={"Range": f"bytes={have}-"} if have else {}, stream=True, timeout=(CONNECT, READ)
            ) as response:
                self._answered.add(urlsplit(url).netloc)
                start = _accept(response, part)
                length = response.headers.get("Content-Length")
                promised = start + int(length) if length else size * exact
                with part.open("ab" if start else "wb") as file, meter(part.name, size, start, self._say) as add:
                    for block in response.raw.stream(BLOCK, decode_content=False):
                        file.write(block)
                        add(len(block))
                        if file.tell() > size:  # not the file: the hash will say so
                            return
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _describe(error) from None
        if not _size(part):
            raise Refused(_NO_FILE.format("an empty page", response.status_code))
        if _size(part) < promised:
            raise _Broken(f"broke off after {_size(part)} of {promised} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reach(url: str) -> None:
    """Connect once, within CONNECT seconds whatever the name server does and however many addresses the host has."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection(address, CONNECT).close()
            outcome.append("")
        except socket.gaierror:
            outcome.append("is unknown to the name server")
        except OSError as error:
            outcome.append(f"cannot be connected ({error.strerror or 'no answer'})")

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT)
    problem = outcome[0] if outcome else f"cannot be connected (nothing within {CONNECT:.0f} s)"
    if problem:
        raise _Lost(problem)


def _accept(response: requests.Response, part: Path) -> int:
    """The byte at which the answer starts, if it is one to read on."""
    status, have = response.status_code, _size(part)
    if status == 416:  # what is there is not the beginning of that file
        part.unlink(missing_ok=True)
        raise _Broken("has no such range")
    if status == 429 or status >= 500:
        raise _Broken(f"answered with status {status}")
    if status >= 400:
        raise Refused(f"answered with status {status}")
    if status not in (200, 206) or response.headers.get("Content-Length") == "0":
        raise Refused(_NO_FILE.format("an empty page", status))
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise Refused(_NO_FILE.format("a web page", status))
    if status == 200:  # a server that does not know ranges sends all of it
        return 0
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        part.unlink(missing_ok=True)
        raise _Broken("sent another range than was asked for")
    return have


def _describe(error: Exception) -> Exception:
    match error:
        case requests.exceptions.SSLError():
            return _Lost("shows a certificate that does not hold")
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return _Broken("does not answer")
        case _:
            return _Broken("broke the connection")


def npm_pack(spec: str, folder: Path) -> Path:
    """Let the npm client put a package's ``.tgz`` into an empty folder; no script of the package is run.

    Raises:
        Refused: there is no npm, or it has no such package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise Refused("is not installed")
    options = ["--ignore-scripts", "--no-update-notifier", "--fetch-retries=0", f"--fetch-timeout={NPM_ANSWER}"]
    try:
        done = subprocess.run(
            [npm, "pack", spec, *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=NPM_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"took more than {NPM_LIMIT:.0f} s") from None
    packed = list(folder.glob("*.tgz"))
    if done.returncode or not packed:
        # The rest of what npm prints names folders and registries of this machine.
        code = re.search(r"code (\w+)", done.stderr)
        raise Refused(f"ended with {code[1] if code else f'status {done.returncode}'}")
    return packed[0]
