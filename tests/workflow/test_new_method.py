"""An author's whole way: scaffold ``methods/mine.py``, fill it in, check it, run it, find it in every leaderboard.

The steps of one story, in a checkout of two other methods, whose one experiment compares every method there is.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from project import CHECKOUT, PARTS, Done, Project

from spikebench import config, sweep
from spikebench.errors import UserError
from spikebench.figures.arms import Arm, label
from spikebench.scaffold import new_method

pytestmark = pytest.mark.xdist_group("workflow")

MINE = "methods/mine.py"
TABLE, PAGE = "results/tiny/rows.parquet", "results/tiny/report/index.html"
ARMS = [Arm("mine", "in-the-loop"), Arm("mine", "off-chip")]
#: What the author writes: random search, which keeps the weights that the chip likes best.
CITATION = "Rastrigin: The convergence of the random search method. Automation and Remote Control, 1963."
INIT = """    return State(streams.normal((task.network.parameters,), "start"), torch.zeros((), dtype=torch.int64))"""
STEP = """    noise = streams.normal((task.network.parameters,), "step", int(state.round))
    tried = torch.stack([state.weights, state.weights + 0.3 * noise], dim=1)  # [B, 2, P]
    score = log_likelihood(chip, tried, batch)
    better = score[:, 1] > score[:, 0]
    weights = torch.where(better[:, None], tried[:, 1], tried[:, 0])
    return State(weights, state.round + 1), Info({"score": score[:, 0]})"""
PREDICT = """    counts = chip.evaluate(state.weights[:, None], inputs, index)
    return Prediction(log_probabilities(counts, task.network.count_gain).exp())"""
IMPORTS = """from spikebench.method import Info, Prediction, Task
from spikebench.metropolis import log_likelihood
from spikebench.networks import log_probabilities
"""


def fill_in(project: Project) -> None:
    """What the scaffold asks for, by replacing the lines that ask."""
    text = (project.root / MINE).read_text()
    for function, body in (("init", INIT), ("step", STEP), ("predict", PREDICT)):
        asking = re.findall(rf"    raise NotImplementedError\(\"{MINE}: {function} .*\)", text)
        assert len(asking) == 1
        text = text.replace(asking[0], body)
    for old, new in (
        (r'CITATION = ".*"', f'CITATION = "{CITATION}"'),
        (r"rounds: int = \d+", "rounds: int = 300"),
        (r"from spikebench.method import .*\n", IMPORTS),
    ):
        text, found = re.subn(old, new, text)
        assert found == 1, old
    (project.root / MINE).write_text(text)


def boards(page: str) -> list[str]:
    """The tables of the page's leaderboards."""
    sections = re.findall(r'<section id="leaderboards?".*?</section>', page, re.DOTALL)
    return [table for section in sections for table in re.findall(r"<table.*?</table>", section, re.DOTALL)]


@dataclass(frozen=True)
class Seen:
    """Rows, files' times and what the command said, after a step of the story."""

    done: Done
    table: pd.DataFrame
    times: dict[str, int]
    boards: list[str]

    @classmethod
    def of(cls, project: Project, *targets: str) -> Seen:
        """Run the workflow, or what of it leads to these files."""
        done = project.snakemake(*targets)
        assert done.status == 0, done.said + project.explain()
        times = {**project.times("shards"), **project.times("jobs")}
        return cls(done, project.table(), times, boards(project.results.report.read_text()))

    def changed_since(self, before: Seen) -> set[str]:
        """The files that are new or were written again."""
        return {name for name, time in self.times.items() if time != before.times.get(name)}

    @property
    def mine(self) -> pd.DataFrame:
        return self.table[self.table["method"] == "mine"]

    @property
    def others(self) -> pd.DataFrame:
        return self.table[self.table["method"] != "mine"]

    @property
    def files_of_mine(self) -> set[str]:
        return {"grand_comparison.mine.00.json", *(f"{shard}.parquet" for shard in self.mine["shard"])}


class TestNames:
    """What ``new-method`` refuses, and what it writes nothing of."""

    @pytest.mark.parametrize(
        "name", ["", "Mine", "my-method", "my method", "2nd", "_mine", "../mine", "lambda", "méthode"]
    )
    def test_a_name_that_is_none_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "methods").mkdir()
        with pytest.raises(UserError, match=re.escape(f"found {name!r}, allowed: small letters")):
            new_method(name, tmp_path)
        assert list(tmp_path.rglob("*.*")) == []

    def test_a_method_that_is_there_is_left_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "methods").mkdir()
        (tmp_path / MINE).write_text("mine = 1\n")
        with pytest.raises(UserError, match=r"^methods/mine\.py exists and is left as it is; taken names: mine$"):
            new_method("mine", tmp_path)
        assert (tmp_path / MINE).read_text() == "mine = 1\n"

    def test_the_plan_of_the_real_presets_takes_it_in_and_nothing_else_changes(self, tmp_path: Path) -> None:
        for part in ("config", "methods", "datasets"):
            shutil.copytree(CHECKOUT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        before = {p.cell: p.digest for p in sweep.make_plan(config.load(tmp_path, {"preset": "smoke"})).planned}
        new_method("mine", tmp_path)
        after = {p.cell: p.digest for p in sweep.make_plan(config.load(tmp_path, {"preset": "smoke"})).planned}
        added = after.keys() - before.keys()
        assert {cell: after[cell] for cell in before} == before
        assert {(cell.experiment, cell.method) for cell in added} == {("grand_comparison", "mine")}
        assert {cell.dataset for cell in added} >= {"breast_cancer", "mnist_dvs", "cifar10_dvs"}

    def test_it_is_short_and_in_the_projects_style(self, tmp_path: Path) -> None:
        (tmp_path / "methods").mkdir()
        new_method("mine", tmp_path)
        code = [line for line in (tmp_path / MINE).read_text().splitlines() if line.strip()]
        assert len(code) <= 40
        shutil.copy2(CHECKOUT / "pyproject.toml", tmp_path)
        (tmp_path / "spikebench").symlink_to(CHECKOUT / "spikebench")  # it is imported as the project's own
        for command in (["ruff", "check", MINE], ["ruff", "format", "--check", MINE]):
            done = Project(tmp_path).run(*command)
            assert done.status == 0, done.said


class TestTheStory:
    @pytest.fixture(scope="class")
    def project(self, tmp_path_factory: pytest.TempPathFactory) -> Project:
        project = Project.create(tmp_path_factory.mktemp("author") / "project")
        for path in (project.root / "methods").glob("*.py"):
            if path.stem not in ("backprop", "metropolis_hastings"):
                path.unlink()
        project.experiment("grand_comparison", arms="every")
        project.change("config/config.yaml", experiments=["grand_comparison"])
        return project

    @pytest.fixture(scope="class")
    def before(self, project: Project) -> Seen:
        return Seen.of(project, TABLE, PAGE)

    @pytest.fixture(scope="class")
    def scaffolded(self, project: Project, before: Seen) -> Done:
        return project.run("spikebench", "new-method", "mine")

    @pytest.fixture(scope="class")
    def unfilled(self, project: Project, scaffolded: Done) -> Seen:
        return Seen.of(project, TABLE)

    @pytest.fixture(scope="class")
    def conformance(self, project: Project, unfilled: Seen, tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
        """Of the scaffold and of what the author makes of it, in a checkout with all methods and presets."""
        checkout = Project(tmp_path_factory.mktemp("checkout"))
        for part in (*PARTS, "tests/conformance"):
            source = CHECKOUT / part
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, checkout.root / part)
        helpers = [path for path in (CHECKOUT / "tests").glob("*.py") if not path.name.startswith("test_")]
        for path in (*helpers, CHECKOUT / "pyproject.toml"):
            shutil.copy2(path, checkout.root / path.relative_to(CHECKOUT))

        def suite(*options: str) -> Done:
            shutil.copy2(project.root / MINE, checkout.root / MINE)
            return checkout.run("pytest", "-p", "no:cacheprovider", "tests/conformance", "-k", "mine", *options)

        found = [suite("-x")]
        fill_in(project)
        return [*found, suite()]

    @pytest.fixture(scope="class")
    def filled(self, project: Project, conformance: list[Done]) -> Seen:
        return Seen.of(project)

    def test_the_file_is_there_and_the_command_says_what_comes_next(self, project: Project, scaffolded: Done) -> None:
        assert scaffolded.status == 0, scaffolded.said
        assert (project.root / MINE).exists()
        for wanted in ("methods/mine.py", "pytest tests/conformance -k mine", "snakemake"):
            assert wanted in scaffolded.said
        again = project.run("spikebench", "new-method", "mine")
        assert again.status == 1
        assert "methods/mine.py exists and is left as it is" in again.sentences[0]

    def test_unfilled_its_rows_say_what_is_missing(self, before: Seen, unfilled: Seen) -> None:
        assert set(unfilled.mine["status"]) == {"failed"}
        wanted = "NotImplementedError: methods/mine.py: init returns the first State, its weights [B, P]"
        assert set(unfilled.mine["error"]) == {wanted}
        assert set(unfilled.mine["mode"]) == {arm.mode for arm in ARMS}
        assert unfilled.changed_since(before) == unfilled.files_of_mine

    def test_the_suite_refuses_the_scaffold_and_passes_the_method(self, conformance: list[Done]) -> None:
        refused, passed = conformance
        assert refused.status == 1
        assert "methods/mine.py: init returns" in refused.said
        assert passed.status == 0, passed.said
        assert int(re.findall(r"(\d+) passed", passed.said)[0]) > 30
        assert "failed" not in passed.said

    def test_only_its_own_cells_run(self, before: Seen, unfilled: Seen, filled: Seen) -> None:
        assert set(filled.mine["status"]) == {"ok"}, set(filled.mine["error"])
        assert len(filled.mine) == 2 * 2 * 2, "modes, severities, repetitions"
        assert filled.done.count("train") == 1
        pd.testing.assert_frame_equal(filled.others, before.table)
        assert filled.changed_since(unfilled) == filled.files_of_mine
        assert filled.changed_since(before) == filled.files_of_mine

    def test_it_ranks_in_every_leaderboard(self, before: Seen, filled: Seen) -> None:
        assert filled.boards
        assert len(filled.boards) == len(before.boards)
        for arm in ARMS:
            assert [label(arm) in board for board in filled.boards] == [True] * len(filled.boards)
            assert not any(label(arm) in board for board in before.boards)

    def test_nothing_else_of_the_checkout_was_edited(self, project: Project, filled: Seen) -> None:
        """Neither by the scaffold nor by the story above."""
        added = {path.name for path in (project.root / "methods").glob("*.py")}
        assert added == {"backprop.py", "metropolis_hastings.py", "mine.py"}
        for path in (p for part in ("Snakefile", "workflow", "datasets") for p in (CHECKOUT / part).rglob("*.*")):
            if path.is_file() and path.suffix != ".pyc":
                assert (project.root / path.relative_to(CHECKOUT)).read_bytes() == path.read_bytes()
