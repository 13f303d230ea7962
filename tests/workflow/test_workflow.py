"""Snakemake itself, in a project of twelve cells: what runs, what does not run again, and what never stops it."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from conftest import ARMS, FIGURES, Base, make
from project import Project, results_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("workflow")

TABLE = "results/tiny/rows.parquet"
NOTHING = "Nothing to be done"
#: Counts its runs, raises until a file called `mended` is there, and sleeps for ever, each as its settings say.
STEP = """
with Path("calls").open("a") as calls:
    calls.write(f"{behaviour}\\n")
if behaviour == "raise" and not Path("mended").exists():
    raise RuntimeError("not mended")
if behaviour == "sleep":
    time.sleep(3600)
"""


def toy(behaviour: str) -> dict[str, object]:
    return {"method": "toy", "mode": "in-the-loop", "settings": {"behaviour": behaviour}}


def of(table: pd.DataFrame, method: str) -> pd.DataFrame:
    return table[table["method"] == method]


class TestARun:
    def test_it_ends_well_with_every_target(self, base: Base) -> None:
        assert base.done.status == 0, base.done.said + base.project.explain()
        results = base.project.results
        files = [results.rows, results.traces, results.coverage, results.claims, results.report, results.tracking]
        files += [results.figures / f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf", "json")]
        files += [results.database]
        assert [file for file in files if not file.exists() or not file.stat().st_size] == []
        assert (base.done.count("train"), base.done.count("gather"), base.done.count("total")) == (2, 1, 8)

    def test_every_cell_was_trained_in_a_job_of_its_method(self, base: Base) -> None:
        table, plan = base.project.table(), base.project.plan()
        assert table["status"].to_dict() == {p.cell.id: "ok" for p in plan.planned}
        assert len(table) == 12
        for name, job in plan.jobs.items():
            manifest = json.loads(base.project.results.job(name).read_text())
            assert manifest["digest"] == job.digest
            assert sum(manifest["statuses"].values()) == sum(map(len, job.shards.values()))
        for log in (f"{name}.log" for name in plan.jobs):
            assert "cells/s" in (base.project.results.folder / "logs" / log).read_text()

    def test_the_page_and_the_database_hold_it(self, base: Base) -> None:
        page = base.project.results.report.read_text()
        assert "tiny" in page
        assert "backprop" in page
        with sqlite3.connect(base.project.results.database) as database:
            cells = {value for (value,) in database.execute("select value from tags where key = 'cell'")}
        assert set(base.project.table().index) <= cells

    def test_nothing_of_it_lies_outside_results(self, base: Base) -> None:
        root = base.project.root
        made = {path.name for path in root.iterdir()} - {path.name for path in (root / "said").parent.glob("said-*")}
        assert made == {"Snakefile", "workflow", "profiles", "config", "methods", "datasets", "results", ".snakemake"}
        hidden = [p for p in (root / "results").rglob(".*") if p.name != ".lock"]
        assert hidden == [], "no temporary file is left"

    def test_a_second_workflow_at_the_same_time_ends_at_once_in_one_sentence(self, base: Base) -> None:
        assert base.second.status == 1
        assert len(base.second.sentences) == 1
        pattern = r"spikebench: another workflow \(process \d+\) is at work in this folder: wait for it or end it"
        assert re.fullmatch(pattern, base.second.sentences[0])
        assert "Traceback" not in base.second.said
        assert "LockException" not in base.second.said
        assert "rule train" not in base.second.said

    def test_a_second_run_does_nothing(self, finished: Project) -> None:
        before = finished.times("")
        done = finished.snakemake()
        assert done.status == 0
        assert NOTHING in done.said
        assert finished.times("") == before


class TestPlans:
    def test_a_dry_run_lists_the_jobs_and_makes_nothing(self, tmp_path: Path) -> None:
        project = make(tmp_path / "project")
        project.change("config/config.yaml", experiments=["chip_in_the_loop", "grand_comparison"])
        done = project.snakemake("-n", "--config", "preset=smoke")
        assert done.status == 0
        jobs = project.plan(preset="smoke").jobs
        assert done.count("train") == len(jobs)
        assert done.count("figures_chip_in_the_loop") == done.count("figures_grand_comparison") == 1
        for target in (*(f"jobs/{name}.json" for name in jobs), "report/index.html", "tracking.json"):
            assert f"results/smoke/{target}" in done.said
        assert not (project.root / "results").exists()

    def test_snakemakes_own_lint_is_clean(self, finished: Project) -> None:
        done = finished.snakemake("--lint")
        assert done.status == 0, done.said
        assert "Congratulations, your workflow is in a good condition!" in done.said

    def test_comments_and_limits_rerun_nothing(self, finished: Project) -> None:
        for file in ("methods/backprop.py", "datasets/breast_cancer.py", "workflow/rules/train.smk"):
            path = finished.root / file
            path.write_text(f"# Another comment.\n{path.read_text()}")
        finished.change("config/config.yaml", limits={"cell_seconds": 7, "shard_seconds": 70})
        done = finished.snakemake("-n")
        assert done.status == 0
        assert NOTHING in done.said

    def test_a_report_of_what_there_is_does_not_hide_what_is_missing(self, finished: Project) -> None:
        """`make report` makes all that is wanted in the end, of fewer rows."""
        job = next(iter(finished.plan().jobs))
        finished.results.job(job).unlink()
        assert finished.run("spikebench", "all-from-rows").status == 0
        assert finished.snakemake("-n").count("train") == 1

    def test_another_margin_judges_anew_and_trains_nothing(self, finished: Project) -> None:
        margin = "    margin: 0.0{}\n    floor:\n      arm: *backprop\n"
        finished.edit("config/claims.yaml", margin.format(2), margin.format(3))
        done = finished.snakemake("-n")
        assert (done.count("claims"), done.count("report"), done.count("train"), done.count("gather")) == (1, 1, 0, 0)

    def test_another_sweep_name_gathers_anew_and_trains_nothing(self, finished: Project) -> None:
        finished.experiment(arms=ARMS, figures=FIGURES, sweeps=[{"name": "renamed"}])
        done = finished.snakemake("-n")
        assert (done.count("gather"), done.count("report"), done.count("train")) == (1, 1, 0)


class TestChanges:
    def test_editing_a_method_reruns_its_cells_and_no_others(self, base: Base, finished: Project) -> None:
        before, times = base.project.table(), base.project.times("shards")
        finished.append("methods/backprop.py", "ADDED = 1\n")
        done = finished.snakemake(TABLE)
        assert done.status == 0, done.said + finished.explain()
        assert (done.count("train"), done.count("gather")) == (1, 1)
        after = finished.table()
        pd.testing.assert_frame_equal(of(after, "metropolis_hastings"), of(before, "metropolis_hastings"))
        ours, theirs = of(after, "backprop"), of(before, "backprop")
        assert (ours["seconds"] != theirs["seconds"]).all(), "they were trained again"
        assert (ours["digest"] != theirs["digest"]).all()
        assert results_of(ours.drop(columns="digest")) == results_of(theirs.drop(columns="digest"))
        kept = {f"{shard}.parquet" for shard in of(before, "metropolis_hastings")["shard"]}
        now = finished.times("shards")
        assert {name for name in now if now[name] == times[name]} == kept

    def test_a_new_file_in_methods_runs_the_new_cells_alone(self, base: Base, finished: Project) -> None:
        before, times = base.project.table(), {**base.project.times("shards"), **base.project.times("jobs")}
        finished.toy(step=STEP)
        finished.experiment(arms=[toy(""), *ARMS], figures=FIGURES)
        done = finished.snakemake(TABLE)
        assert done.status == 0, done.said + finished.explain()
        assert done.count("train") == 1
        after = finished.table()
        pd.testing.assert_frame_equal(after[after["method"] != "toy"], before)
        assert of(after, "toy")["status"].to_list() == ["ok"] * 4
        assert (finished.root / "calls").read_text() == "\n", "one batched program"
        now = {**finished.times("shards"), **finished.times("jobs")}
        assert {name for name in now if now[name] != times.get(name)} == {
            "chip_in_the_loop.toy.00.json",
            f"{of(after, 'toy')['shard'].iloc[0]}.parquet",
        }

    def test_one_figure_by_its_path(self, base: Base, finished: Project) -> None:
        wanted = finished.results.figures / "accuracy-vs-severity.pdf"
        wanted.unlink()
        done = finished.snakemake("results/tiny/figures/accuracy-vs-severity.pdf")
        assert done.status == 0, done.said + finished.explain()
        assert wanted.read_bytes().startswith(b"%PDF")
        assert (done.count("figures_chip_in_the_loop"), done.count("total")) == (1, 1)
        numbers = [p.results.figures / "accuracy-vs-severity.json" for p in (base.project, finished)]
        assert numbers[0].read_text() == numbers[1].read_text()


class TestFailures:
    """Cells that raise and cells that sleep for ever, among those that are well; the tests are steps of one story."""

    @pytest.fixture(scope="class")
    def project(self, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Project:
        project = base.project.copy(tmp_path_factory.mktemp("failures") / "project")
        project.toy(step=STEP)
        project.experiment(
            arms=ARMS,
            sweeps=[
                {"name": "severity"},
                {"name": "toys", "axes": {"severity": [1.0]}, "arms": [toy("raise"), toy("sleep"), toy("well")]},
            ],
            figures=FIGURES,
        )
        project.change("config/config.yaml", limits={"cell_seconds": 2, "shard_seconds": 2})
        return project

    @pytest.fixture(scope="class")
    def done(self, project: Project) -> str:
        done = project.snakemake("results/tiny/report/index.html")
        assert done.status == 0, done.said + project.explain()
        return done.said

    def calls(self, project: Project) -> list[str]:
        """What was trained since the last look."""
        file = project.root / "calls"
        calls = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return calls

    def toys(self, project: Project) -> dict[str, str]:
        """Behaviour to status."""
        rows = of(project.table(), "toy")
        statuses = {
            json.loads(s)["behaviour"]: set(rows.loc[rows["settings"] == s, "status"]) for s in rows["settings"]
        }
        return {behaviour: " ".join(found) for behaviour, found in statuses.items()}

    def test_failed_and_late_cells_do_not_stop_the_report(self, project: Project, done: str) -> None:
        assert self.toys(project) == {"raise": "failed", "sleep": "timed-out", "well": "ok"}
        table = project.table()
        assert (table.loc[table["method"] != "toy", "status"] == "ok").all()
        page = project.results.report.read_text()
        assert "RuntimeError: not mended" in page
        assert "killed after 2 s" in page
        coverage = pd.read_csv(project.results.coverage)
        row = coverage[coverage["method"] == "toy"].iloc[0]
        assert (row["expected"], row["ok"], row["failed"], row["timed-out"], row["missing"]) == (6, 2, 2, 2, 0)
        assert self.calls(project) == ["raise"] * 3 + ["sleep"] * 3 + ["well"], "together, then one by one"

    def test_a_plain_second_run_tries_nothing_again(self, project: Project, done: str) -> None:
        assert NOTHING in project.snakemake("-n", "results/tiny/report/index.html").said

    def test_retry_tries_those_cells_again_and_no_others(self, project: Project, done: str) -> None:
        (project.root / "mended").touch()
        before, times = project.table(), project.times("shards")
        again = project.snakemake("--config", "retry=failed", "--", TABLE)
        assert again.status == 0, again.said + project.explain()
        assert again.count("train") == 1, "only the job that has failed cells"
        assert self.calls(project) == ["raise"]
        assert self.toys(project) == {"raise": "ok", "sleep": "timed-out", "well": "ok"}
        others = before["settings"] != '{"behaviour":"raise"}'
        pd.testing.assert_frame_equal(project.table()[others], before[others])
        assert sum(project.times("shards")[name] != times[name] for name in times) == 1

    def test_and_then_nothing_is_left_to_do(self, project: Project, done: str) -> None:
        said = project.snakemake("-n", TABLE).said
        assert NOTHING in said, said
