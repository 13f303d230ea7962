"""A page in a real browser, for tests of what people see.

The fixture ``page`` gives a ``Watched``, a page of a browser without a window that notes what it asks for and what goes
wrong in it::

    def test_the_report_opens_without_a_network(page: Watched, report: Path) -> None:
        page.open(report.as_uri())
        expect(page.view.get_by_role("heading", name="Claims")).to_be_visible()
        assert page.errors == []
        assert page.away == []

``page.view`` is playwright's own page, ``playwright.sync_api.expect`` waits for what is asserted. Names are resolved
for nobody, so no test reaches the network: what was asked of another machine is in ``away``, and the failure in
``errors``. Without a browser the test is skipped, and where ``CI`` is set it fails.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # a process of tests that opens no page need not load it
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
#: Addresses that do not leave this machine.
HERE = re.compile(r"(file|data|blob|about):|(http|ws)://127\.0\.0\.1[:/]")
#: The longest that any one thing may take, in ms.
PATIENCE = 30_000


@dataclass
class Watched:
    """A page, the address of all that it asked for, and its errors: of the console, and those that no script caught."""

    view: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        """Go to an address, and wait until the page and what it names are loaded; forget what was before."""
        self.view.goto("about:blank")  # an address that differs behind its # alone would load nothing
        self.requests.clear()
        self.errors.clear()
        self.view.goto(address, wait_until="load")

    @property
    def away(self) -> list[str]:
        """The requests that left this machine, or would have."""
        return [address for address in self.requests if not HERE.match(address)]


def find() -> str:
    """The browser on PATH; without one the test is skipped, or fails where ``CI`` is set."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    reason = f"needs a browser, and none of {', '.join(NAMES)} is on PATH"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def opened() -> Iterator[Watched]:
    """A browser with one empty page, ended with the block."""
    program = find()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=PATIENCE)
        try:
            context = browser.new_context(viewport={"width": 1400, "height": 900}, service_workers="block")
            context.set_default_timeout(PATIENCE)
            page = Watched(context.new_page())
            context.on("request", lambda request: page.requests.append(request.url))
            page.view.on("websocket", lambda socket: page.requests.append(socket.url))
            context.on("console", lambda said: page.errors.append(_told(said)) if said.type == "error" else None)
            context.on("weberror", lambda thrown: page.errors.append(str(thrown.error)))
            yield page
        finally:
            browser.close()


def _told(said: Any) -> str:
    return f"{said.text} ({said.location['url']})"
