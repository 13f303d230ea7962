from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from project import BACKPROP, MH, OFF_CHIP, Done, Project, wait_until

ARMS = [MH, BACKPROP, OFF_CHIP]
FIGURES = ["accuracy-vs-severity", "mh-traces"]


def make(root: Path) -> Project:
    """Two methods, three arms, twelve cells, two figures."""
    project = Project.create(root)
    project.experiment(arms=ARMS, figures=FIGURES)
    return project


@dataclass(frozen=True)
class Base:
    """A project that ran to its end, what that run said, and what a second workflow said that came in between."""

    project: Project
    done: Done
    second: Done


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The one whole run that the tests share; they change copies of it."""
    project = make(tmp_path_factory.mktemp("base") / "project")
    running = project.start("snakemake")
    lock = project.root / "results" / ".lock"
    wait_until(lambda: lock.exists() and lock.read_text())
    second = project.snakemake()
    return Base(project, running.wait(), second)


@pytest.fixture
def finished(base: Base, tmp_path: Path) -> Project:
    """A copy of the project that ran to its end."""
    return base.project.copy(tmp_path / "project")
