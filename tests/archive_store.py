"""The archives that tests may use: images come into a store beside pytest's cache once, and stay there.

Where they cannot be had (no network, no mirror folder), what needs them is skipped with the reason.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from project import CHECKOUT

from spikebench import config, fetch, preparation
from spikebench.archives import SOURCES

FOLDER = CHECKOUT / ".pytest_cache" / "data"
#: Small enough to be fetched by a test.
IMAGES = ("mnist", "cifar10-subset-4000")
#: The store's archives lie as a mirror folder's do.
MIRROR = FOLDER / "archives"


@cache
def reason_against(source: str) -> str:
    """Why a source is not in the checkout's store, or nothing; small ones are fetched."""
    if not fetch.verified(SOURCES[source], FOLDER):
        if source not in IMAGES:
            return f"{source} is not on this machine"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPIKEBENCH_DATA", str(FOLDER))
            said = preparation.fetch_source(source, config.load(CHECKOUT), "tests")
        if not said.endswith(": verified"):
            return said
    return ""


def need(*sources: str) -> None:
    """Skip what needs these sources where they cannot be had."""
    for source in sources:
        if reason := reason_against(source):
            pytest.skip(reason)


def link(folder: Path, *sources: str) -> None:
    """A store of one's own with some of the archives and nothing made of them."""
    need(*sources)
    (folder / "archives").mkdir(parents=True)
    for source in sources:
        for name in (source, f"{source}.json"):
            (folder / "archives" / name).symlink_to(MIRROR / name)
