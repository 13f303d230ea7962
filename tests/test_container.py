"""The Dockerfile says what the rest of the project says; no engine is needed to read it."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
from project import CHECKOUT, PARTS

from spikebench import rows

TEXT = (CHECKOUT / "Dockerfile").read_text().replace("\\\n", " ")
#: Instruction and what stands behind it, in order; comments are left out.
STEPS = [(line.split()[0], line.split(maxsplit=1)[1]) for line in TEXT.splitlines() if line and line[0] not in "# "]
DEFAULTS = dict(value.split("=", 1) for word, value in STEPS if word == "ARG" and "=" in value)
PINS = dict(line.split("==") for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if "==" in line)


def resolved(text: str) -> str:
    """With the defaults of the build's arguments."""
    return re.sub(r"\$\{(\w+)\}", lambda found: DEFAULTS[found[1]], text)


def copied() -> list[str]:
    """What is copied out of the checkout."""
    words = [value.split()[:-1] for word, value in STEPS if word == "COPY"]
    return [word for line in words for word in line if not word.startswith("--")]


def sent(path: str) -> bool:
    """Whether ``.dockerignore`` lets a file get to the builder: of the lines that fit it, the last one decides."""
    names = PurePosixPath(path).parts
    above = ["/".join(names[:end]) for end in range(1, len(names) + 1)]
    decided = True
    for line in (CHECKOUT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            fits = pattern.removeprefix("**/") in names if pattern.startswith("**/") else False
            if fits or any(fnmatch(part, pattern) for part in above):
                decided = line.startswith("!")
    return decided


def first(pattern: str) -> int:
    """The number of the first step that says this."""
    return next(number for number, (_, value) in enumerate(STEPS) if re.search(pattern, resolved(value)))


def test_versions_are_those_that_make_installs() -> None:
    named = dict(re.findall(r"([\w-]+)==([\w.]+)", resolved(TEXT)))
    assert named == {"torch": PINS["torch"]}
    assert f"TORCH := torch=={named['torch']}\n" in (CHECKOUT / "Makefile").read_text()
    installed = [value for word, value in STEPS if word == "RUN" and "pip install" in value]
    assert all(
        "-c constraints.txt" in value or "--no-deps" in value or value.endswith("torch==${TORCH}")
        for value in installed
    )


def test_python_is_the_one_that_the_versions_were_tried_with() -> None:
    version = re.search(r"Python (3\.\d+)", (CHECKOUT / "constraints.txt").read_text())
    assert version is not None
    (base,) = [resolved(value) for word, value in STEPS if word == "FROM"]
    assert base.startswith(f"python:{version[1]}-")
    needed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, version[1].split("."))) >= tuple(map(int, needed.removeprefix(">=").split(".")))


def test_it_does_not_run_as_root() -> None:
    users = [resolved(value) for word, value in STEPS if word == "USER"]
    assert users == ["1000"]
    assert f"useradd --create-home --no-log-init --uid {users[0]} " in resolved(TEXT)


def test_all_that_a_run_needs_is_copied_and_there() -> None:
    assert {*PARTS, "spikebench", "constraints.txt", "pyproject.toml"} <= set(copied())
    assert [path for path in copied() if not (CHECKOUT / path).exists()] == []
    assert [path for path in copied() if not sent(path)] == []
    assert sent("workflow/rules/train.smk")


def test_an_edited_source_installs_nothing_anew() -> None:
    source, method = first(r" spikebench \./spikebench$"), first(r" methods \./methods$")
    assert first("torch==") < first("-r /tmp/requirements.txt") < source < first("spikebench.compile") < method


@pytest.mark.parametrize(
    "path",
    [
        "results/mlflow.db", "results/README.md", ".git/HEAD", ".venv/bin/python", ".snakemake/log/a.log", "key.pem",
        "docs/data.md", "tests/project.py", "spikebench/chip/__pycache__/kernels.nbc", "methods/__pycache__/a.pyc",
    ],
)  # fmt: skip
def test_nothing_else_is_sent_to_the_builder(path: str) -> None:
    assert not sent(path)


def test_rows_of_a_container_name_the_commit_that_it_was_built_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ("ENV", "SPIKEBENCH_COMMIT=${COMMIT}") in STEPS
    monkeypatch.setenv("SPIKEBENCH_COMMIT", "abc")
    assert rows.surroundings(tmp_path)["commit"] == "abc"


def test_results_and_the_records_of_snakemake_outlive_the_container() -> None:
    (volumes,) = [value for word, value in STEPS if word == "VOLUME"]
    assert re.findall(r'"(.*?)"', volumes) == ["/spikebench/results", "/spikebench/.snakemake"]
