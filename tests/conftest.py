"""The temporary project; and this file lets the tests of every folder import the helper modules beside it."""

from __future__ import annotations

from pathlib import Path

import numba
import pytest
import torch
from project import Project

# One thread, as a worker has it: two processes of tests on two cores would lose most of their time to waiting threads.
numba.set_num_threads(1)
torch.set_num_threads(1)  # last: numba starts threads that the two share, and torch would use them all


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A temporary project with seconds' worth of cells."""
    return Project.create(tmp_path / "project")
