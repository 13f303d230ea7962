"""The temporary project; and this file lets the tests of every folder import the helper modules beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A temporary project with seconds' worth of cells."""
    return Project.create(tmp_path / "project")
