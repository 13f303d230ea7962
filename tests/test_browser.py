"""The watched page: it notes what goes wrong and who is asked, and a missing browser is never a silent pass in CI."""

from __future__ import annotations

from pathlib import Path

import browser
import pytest
from browser import Watched


def write(folder: Path, body: str) -> str:
    file = folder / "page.html"
    file.write_text(f"<!DOCTYPE html><title>page</title><link rel=icon href=data:,><body>{body}</body>")
    return file.as_uri()


def test_a_quiet_page_asks_nobody(page: Watched, tmp_path: Path) -> None:
    address = write(tmp_path, "<img src=data:,x><script>console.warn('only a warning')</script><p>quiet")
    page.open(address)
    assert page.view.inner_text("p") == "quiet"
    assert (page.errors, page.away) == ([], [])
    assert page.requests[0] == address


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("<script>console.error('said')</script>", "said"),
        ("<script>throw new Error('thrown')</script>", "thrown"),
        ("<img src=missing.png>", "ERR_FILE_NOT_FOUND"),
    ],
)
def test_errors_are_noted_until_another_page_is_opened(page: Watched, tmp_path: Path, body: str, error: str) -> None:
    page.open(write(tmp_path, body))
    assert len(page.errors) == 1
    assert error in page.errors[0]
    page.open(write(tmp_path, ""))
    assert page.errors == []


@pytest.mark.parametrize(
    "address",
    [
        *("https://example.org/a.png", "http://127.0.0.1.example.org/a.png", "http://localhost:8080/a.png"),
        *("http://192.0.2.1/a.png", "https://127.0.0.1.example.org/a.png"),
    ],
)
def test_what_is_asked_of_others_is_noted_and_fails(page: Watched, tmp_path: Path, address: str) -> None:
    page.open(write(tmp_path, f"<img src={address}>"))
    assert page.away == [address]
    assert "ERR_NAME_NOT_RESOLVED" in page.errors[0]


def test_sockets_are_noted(page: Watched, tmp_path: Path) -> None:
    page.open(write(tmp_path, "<script>new WebSocket('ws://example.org/')</script>"))
    page.view.wait_for_timeout(100)
    assert page.away == ["ws://example.org/"]


def test_without_a_browser_tests_are_skipped_but_not_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="none of chromium, chromium-browser, google-chrome is on PATH"):
        browser.find()
    monkeypatch.setenv("CI", "true")
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="none of chromium") as ended:
        browser.find()
    assert ended.type is pytest.fail.Exception  # a skip that pytest.raises lets through would skip this test
    other = tmp_path / "google-chrome"
    other.touch(0o755)
    assert browser.find() == str(other)
