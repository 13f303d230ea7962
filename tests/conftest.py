"""The temporary project, and how tests are shared out; it also lets every folder import the modules beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archive_store
import browser
import numba
import pytest
import scipy.linalg.cython_blas  # noqa: F401  (what kernels take matrix products from)
import threadpoolctl
import torch
from project import Project

from spikebench import training

# One thread, as a worker has it: two processes of tests on two cores would lose most of their time to waiting threads.
threadpoolctl.threadpool_limits(1)
numba.set_num_threads(1)
torch.set_num_threads(1)  # last: numba starts threads that the two share, and torch would use them all


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A temporary project with seconds' worth of cells."""
    return Project.create(tmp_path / "project")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kernels are compiled and kept, which takes many seconds once: for tests that set limits of a few."""
    project = Project.create(tmp_path_factory.mktemp("compiled") / "project")
    project.toy()
    project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
    plan = project.plan()
    cells = [planned.cell for planned in plan.planned]
    for group in (cells, cells[:1]):
        training.train(training.Work(group, {}, plan.config.faults, project.root))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The checkout's data store, which survives; ``archive_store.need`` brings images into it."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(archive_store.FOLDER))
    training._load.cache_clear()
    yield archive_store.FOLDER
    training._load.cache_clear()


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data store of the test's own; ``archive_store.link`` gives it archives."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "store"))
    training._load.cache_clear()
    yield tmp_path / "store"
    training._load.cache_clear()


@pytest.fixture
def page() -> Iterator[browser.Watched]:
    """A page of a real browser; ``browser`` says how it is used."""
    with browser.opened() as page:
        yield page


def pytest_configure(config: pytest.Config) -> None:
    """Known also where pytest-xdist is switched off."""
    config.addinivalue_line("markers", "xdist_group(name): tests that are not to run beside each other")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process works on it alone at the end."""
    items.sort(key=lambda item: "workflow" not in item.path.parts)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of ``-n 2 --dist loadgroup``: a file's tests share a process, for the sake of its fixtures; so does a group.

    The groups must be told from the file names here: those of pytest-xdist 3.8 do not work with pytest 9.2.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "workflow" if nodeid.startswith("tests/workflow/") else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return ByFile(config, log)
