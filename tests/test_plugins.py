from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikebench import plugins
from spikebench.data import DataSettings
from spikebench.errors import UserError

PLUGIN = '''"""What it does."""

from dataclasses import dataclass

MODES = ("in-the-loop", "off-chip")
SECONDS_PER_CELL: float = 0.25
COMPUTED = len(MODES)


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters."""

    SEARCH = {}
    steps: int = 5
    rate: float = 0.1

    @property
    def rounds(self) -> int:
        """How many."""
        return self.steps


def step(x):
    """One step."""
    return x + 1
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "methods").mkdir()
    write(tmp_path, PLUGIN)
    (tmp_path / "methods" / "_private.py").write_text("")
    (tmp_path / "methods" / "another.py").write_text("VALUE = 1\n")
    return tmp_path


def write(root: Path, text: str) -> None:
    path = root / "methods" / "toy.py"
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))  # a clock too coarse must not hide the change


def test_plug_ins_are_the_files_of_the_folder(root: Path) -> None:
    assert plugins.names("methods", root) == ["another", "toy"]
    assert plugins.source("methods", "toy", root) == root / "methods" / "toy.py"


def test_the_suites_own_plug_ins_are_found() -> None:
    assert {"backprop", "metropolis_hastings"} <= set(plugins.names("methods"))
    assert "breast_cancer" in plugins.names("datasets")


def test_an_unknown_plug_in_is_named_with_those_that_exist(root: Path) -> None:
    with pytest.raises(UserError, match=r"methods/tyo\.py does not exist; known methods: another, toy"):
        plugins.load("methods", "tyo", root)


def test_a_plug_in_is_loaded_once_under_a_private_name(root: Path) -> None:
    module = plugins.load("methods", "toy", root)
    assert module.step(1) == 2
    assert module.Settings(steps=3).rounds == 3
    assert plugins.load("methods", "toy", root) is module
    assert module.__name__.startswith("_spikebench_methods_toy_")
    assert "toy" not in sys.modules


def test_plug_ins_of_one_name_in_two_folders_do_not_mix(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "methods").mkdir()
    write(other, PLUGIN.replace("x + 1", "x + 2"))
    assert plugins.load("methods", "toy", root).step(1) == 2
    assert plugins.load("methods", "toy", other).step(1) == 3


def test_a_plug_in_that_fails_to_import_leaves_nothing_behind(root: Path) -> None:
    write(root, "raise RuntimeError('broken')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            plugins.load("methods", "toy", root)


@pytest.mark.parametrize(
    "same",
    [
        PLUGIN.replace("What it does.", "Something else."),
        PLUGIN.replace('"""What it does."""\n', ""),
        PLUGIN.replace('        """How many."""\n', ""),
        PLUGIN.replace('    """One step."""\n', "    # one step\n\n"),
        PLUGIN.replace('("in-the-loop", "off-chip")', "(\n    'in-the-loop',\n    'off-chip',\n)"),
        PLUGIN.replace("x + 1", "(x + 1)  # more"),
    ],
)
def test_the_fingerprint_ignores_comments_docstrings_and_formatting(root: Path, same: str) -> None:
    before = plugins.fingerprint("methods", "toy", root)
    assert same != PLUGIN
    write(root, same)
    assert plugins.fingerprint("methods", "toy", root) == before


@pytest.mark.parametrize(
    "changed",
    [
        PLUGIN.replace("x + 1", "x + 2"),
        PLUGIN.replace("steps: int = 5", "steps: int = 6"),
        PLUGIN.replace("steps: int = 5", "rounds: int = 5"),
        PLUGIN.replace('"off-chip"', '"oracle"'),
        PLUGIN + "\nEXTRA = 1\n",
        PLUGIN.replace("    return x + 1", '    "a string that is no docstring" + ""\n    return x + 1'),
    ],
)
def test_the_fingerprint_sees_every_change_of_code(root: Path, changed: str) -> None:
    before = plugins.fingerprint("methods", "toy", root)
    assert changed != PLUGIN
    write(root, changed)
    assert plugins.fingerprint("methods", "toy", root) != before


def test_a_function_of_a_docstring_alone_is_one_that_passes(root: Path) -> None:
    write(root, 'def f():\n    """Nothing."""\n')
    before = plugins.fingerprint("methods", "toy", root)
    write(root, "def f():\n    pass\n")
    assert plugins.fingerprint("methods", "toy", root) == before


def test_settings_and_constants_are_read_without_importing(root: Path) -> None:
    write(root, PLUGIN.replace("from dataclasses", "raise RuntimeError('imported')\nfrom dataclasses"))
    assert plugins.settings_names("methods", "toy", root) == ["steps", "rate"]
    assert plugins.constant("methods", "toy", "MODES", root=root) == ("in-the-loop", "off-chip")
    assert plugins.constant("methods", "toy", "SECONDS_PER_CELL", root=root) == 0.25
    assert plugins.constant("methods", "toy", "ABSENT", "default", root) == "default"


def test_settings_inherit_the_fields_of_the_engines_classes_but_not_the_harness_own() -> None:
    for method in ("spide", "ide", "feedback_bptt"):
        fields = [field.name for field in dataclasses.fields(plugins.load("methods", method).Settings)]
        assert plugins.settings_names("methods", method) == fields
    known = {"training", "test", "steps", "normalised"}
    assert set(plugins.settings_names("datasets", "mnist")) == known
    assert not known & {field.name for field in dataclasses.fields(DataSettings)}


def test_a_plug_in_without_settings_is_told_what_is_missing(root: Path) -> None:
    with pytest.raises(UserError, match=r"methods/another\.py has no `class Settings`"):
        plugins.settings_names("methods", "another", root)


def test_a_syntax_error_names_file_and_line(root: Path) -> None:
    write(root, "x = 1\ny = (\n")
    with pytest.raises(UserError, match=r"methods/toy\.py line 2"):
        plugins.fingerprint("methods", "toy", root)


def test_reading_plug_ins_imports_neither_torch_nor_numba() -> None:
    code = (
        "import sys; from spikebench import plugins\n"
        "for kind in ('methods', 'datasets'):\n"
        "    for name in plugins.names(kind): plugins.fingerprint(kind, name), plugins.constant(kind, name, 'MODES')\n"
        "sys.exit(bool({'torch', 'numba', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
