"""The temporary project; and this file lets the tests of every folder import the helper modules beside it."""

from __future__ import annotations

import os
from pathlib import Path

# As a worker has it: one thread. With two processes of tests on two cores, spinning threads would cost ten times more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numba
import pytest
from project import Project

numba.set_num_threads(1)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A temporary project with seconds' worth of cells."""
    return Project.create(tmp_path / "project")
