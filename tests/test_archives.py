"""The registry: every file can be recognised, and what was read elsewhere about it is what stands there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from spikebench.archives import SOURCES, Archive, Source

FILES = [(source, file) for source in SOURCES.values() for file in source.files]


@pytest.mark.parametrize(("source", "file"), FILES, ids=lambda item: item.name)
def test_a_file_has_a_size_a_hash_and_a_place_in_one_folder(source: Source, file: Archive) -> None:
    assert file.size > 0
    assert re.fullmatch("[0-9a-f]{64}" if file.algorithm == "sha256" else "[0-9a-f]{32}", file.digest)
    assert not file.md5 or re.fullmatch("[0-9a-f]{32}", file.md5)
    assert re.fullmatch(r"[\w.-]+", file.name)


@pytest.mark.parametrize(("source", "file"), FILES, ids=lambda item: item.name)
def test_addresses_are_https_but_where_the_host_has_none(source: Source, file: Archive) -> None:
    scheme = "http" if source.name == "mnist-dvs" else "https"
    assert all(url.startswith(f"{scheme}://") for url in file.urls)
    assert bool(file.urls) == (source.name != "cifar10-subset-4000")


def test_names_and_hashes_are_unique() -> None:
    assert all(source.name == name for name, source in SOURCES.items())
    for source in SOURCES.values():
        assert len({file.name for file in source.files}) == len(source.files)
    assert len({file.digest for _, file in FILES}) == len(FILES)
    assert len({url for _, file in FILES for url in file.urls}) == sum(len(file.urls) for _, file in FILES)


def test_the_sizes_add_up_to_those_published() -> None:
    assert SOURCES["mnist-dvs"].size == 6_205_980_609
    assert SOURCES["cifar10-dvs"].size == 8_384_751_365
    # IDX: a header of 16 (images) or 8 (labels) bytes, then a byte a pixel or label.
    assert [file.size for file in SOURCES["mnist"].files] == [
        16 + 60000 * 784,
        8 + 60000,
        16 + 10000 * 784,
        8 + 10000,
    ]


def test_the_md5_is_compared_only_where_there_is_no_sha256() -> None:
    assert (Archive("a", 1, md5="m").algorithm, Archive("a", 1, md5="m").digest) == ("md5", "m")
    assert (Archive("a", 1, "s", "m").algorithm, Archive("a", 1, "s", "m").digest) == ("sha256", "s")


def test_the_plan_pays_little_for_it() -> None:
    code = (
        "import sys, spikebench.fetch; print([m for m in ('torch', 'numpy', 'requests', 'tqdm') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
