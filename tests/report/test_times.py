"""Times add up: every number below can be done by hand, and a job's own record is that of what it did."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import Project

from spikebench import report
from spikebench.report.times import Step, Times, records, times
from spikebench.supervisor import run_job, times_file

COLUMNS = ["experiment", "shard", "started", "seconds", "shared", "peak_memory_mb", "status"]
NAN = math.nan
#: Two cells that were trained together from 1000 to 1010; one from 1008 to 1012 in another process; a pause; one that
#: timed out, from 1100 to 1120; one that was unavailable at 1050; one that never ran.
ROWS = pd.DataFrame(
    [
        ("long", "a", 1000.0, 5.0, True, 512.0, "ok"),
        ("long", "a", 1000.0, 5.0, True, 512.0, "diverged"),
        ("short", "b", 1008.0, 4.0, False, 2048.0, "ok"),
        ("long", "c", 1100.0, 20.0, False, NAN, "timed-out"),
        ("short", "d", 1050.0, NAN, False, NAN, "unavailable"),
        ("late", "e", NAN, NAN, False, NAN, "missing"),
    ],
    columns=COLUMNS,
)


def run(started: float, **changed: Any) -> dict[str, Any]:
    """30 seconds of a job, 2 of them of imports, before which 1 was spent on the plan, and 20 of training."""
    taken = {"before": 1.0, "wall": 30.0, "start_up": 2.0, "training": 20.0, "first_row": 6.0, "cells": 3}
    return {"started": started, **taken, **changed}


#: From 999 to 1030, from 1009 to 1050 and from 1099 to 1130: 51 and 31 seconds in which something ran.
JOBS = [
    {"job": "long.toy.00", "runs": [run(1000.0), run(1100.0, first_row=None, training=0.0)]},
    {"job": "short.toy.00", "runs": [run(1010.0, wall=40.0, first_row=8.0)]},
    {"job": "forgotten.toy.00", "runs": [run(0.0)]},
]


@pytest.fixture(scope="module")
def found() -> Times:
    return times(ROWS, JOBS, 2)


class TestTraining:
    def test_an_experiments_seconds_are_the_sum_of_its_cells(self, found: Times) -> None:
        assert [(part.experiment, part.cells, part.seconds) for part in found.parts] == [
            ("long", 3, 30.0),
            ("short", 2, 4.0),
        ]
        assert [part.share for part in found.parts] == pytest.approx([30 / 34, 4 / 34])
        assert (found.cells, found.seconds) == (5, 34.0)

    def test_a_batched_program_lasts_as_long_as_its_cells_together(self, found: Times) -> None:
        """From 1000 to 1120; from 1008 to the unavailable cell at 1050. At work: 1000 to 1012 and 1100 to 1120."""
        assert [part.wall for part in found.parts] == [120.0, 42.0]
        assert found.wall == 120.0
        assert found.at_work == 12.0 + 20.0

    def test_memory_is_the_largest_peak(self, found: Times) -> None:
        assert [part.peak_gib for part in found.parts] == [0.5, 2.0]
        assert found.peak_gib == 2.0

    def test_neither_the_order_of_rows_nor_strange_indices_matter(self, found: Times) -> None:
        turned = ROWS.iloc[::-1].set_index(pd.Index([7] * len(ROWS)))
        assert times(turned.reset_index(drop=True), JOBS, 2) == found
        assert times(ROWS.iloc[[4, 2, 0, 5, 1, 3]], JOBS, 2) == found

    @pytest.mark.parametrize("rows", [ROWS[ROWS["status"] == "missing"], ROWS.drop(columns=["started", "shard"])])
    def test_without_any_training_there_is_nothing(self, rows: pd.DataFrame) -> None:
        nothing = times(rows, [], 2)
        assert (nothing.parts, nothing.cells, nothing.seconds, nothing.wall, nothing.at_work) == ([], 0, 0.0, 0.0, 0.0)
        assert math.isnan(nothing.peak_gib)
        assert nothing.steps == []


class TestSteps:
    def test_they_are_all_that_the_cores_had(self, found: Times) -> None:
        """82 seconds on two cores are 164; the runs took 3 of plan and 100 beyond it, 40 of them training."""
        assert (found.runs, found.running, found.cores, found.first_row) == (3, 82.0, 2, 7.0)
        assert [step.seconds for step in found.steps] == [40.0, 6.0, 3.0, 100.0 - 40.0 - 6.0, 164.0 - 103.0]
        assert [step.share for step in found.steps] == pytest.approx([s / 164 for s in (40, 6, 3, 54, 61)])
        assert found.steps[0] == Step("training", 40.0, pytest.approx(40 / 164))

    def test_more_cores_at_work_than_here_leave_none_idle(self) -> None:
        """Two runs at the same time, told of one core only: shares are of what they took."""
        jobs = [{"job": f"long.toy.{n:02d}", "runs": [run(1000.0)]} for n in (0, 1)]
        steps = times(ROWS, jobs, 1).steps
        assert [step.seconds for step in steps] == [40.0, 4.0, 2.0, 16.0, 0.0]
        assert sum(step.share for step in steps) == pytest.approx(1.0)

    def test_a_run_beside_a_longer_one_adds_nothing_to_the_clock(self) -> None:
        """From 999 to 1100, and within it from 1009 to 1019 and from 1049 to 1059."""
        jobs = [{"job": "long.toy.00", "runs": [run(1000.0, wall=100.0)]}]
        jobs += [{"job": "short.toy.00", "runs": [run(start, wall=9.0) for start in (1010.0, 1050.0)]}]
        assert times(ROWS, jobs, 2).running == 101.0

    def test_no_records_are_no_steps(self) -> None:
        nothing = times(ROWS, JOBS[2:], 2)
        assert (nothing.steps, nothing.runs, nothing.running) == ([], 0, 0.0)
        assert math.isnan(nothing.first_row)


class TestThePage:
    def text(self, found: Times) -> str:
        page = report._environment().get_template("times.html.j2").render(times=found)
        assert page.count("<section") == page.count("</section>") == 1
        assert page.count("<table") == page.count("</table>")
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))

    def test_it_says_all_of_it(self, found: Times) -> None:
        text = self.text(found)
        assert "5 cells took 34.0 seconds of one core in training." in text
        assert "2.0 minutes went by, in 32.0 seconds of which something was trained." in text
        assert "No worker held more than 2.00 GiB" in text
        assert "long 3 30.0 seconds 88.2% 2.0 minutes 0.5 " in text
        assert "short 2 4.0 seconds 11.8% 42.0 seconds 2 " in text
        assert "At least one of 3 runs of jobs ran in 82.0 seconds, with 2 cores to run on; half" in text
        assert "first rows within 7.0 seconds." in text
        assert "training 40.0 seconds 24.4% " in text
        assert "other rules, idle cores) 61.0 seconds 37.2%" in text

    def test_without_records_it_says_nothing_of_steps(self) -> None:
        text = self.text(times(ROWS, [], 2))
        assert "5 cells took" in text
        assert "core to run on" not in text
        assert "Beside training" not in text
        assert "Loading" not in text

    def test_without_training_it_says_so(self) -> None:
        text = self.text(times(ROWS[5:], [], 1))
        assert "Nothing has been trained." in text
        assert "nan" not in text


def test_records_are_those_of_the_jobs_that_left_one(tmp_path: Path) -> None:
    assert records(tmp_path) == []
    (tmp_path / "times").mkdir()
    for name, text in (("a", json.dumps(JOBS[0])), ("b", json.dumps(JOBS[1])), ("c", '{"job": "c"'), ("d", "[]")):
        (tmp_path / "times" / f"{name}.json").write_text(text)
    assert records(tmp_path) == JOBS[:2]


class TestAJobsOwnRecord:
    """Of a job that sleeps for half a second in each training, run, run again and run with more to do."""

    @pytest.fixture(scope="class")
    def project(self, compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
        project = Project.create(tmp_path_factory.mktemp("times") / "project")
        project.toy(step="time.sleep(0.5)")
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
        return project

    def run(self, project: Project) -> list[dict[str, Any]]:
        plan = project.plan()
        (job,) = plan.jobs.values()
        run_job(job, plan.config, log=project.root / "job.log")
        document = json.loads(times_file(project.results, job.name).read_text())
        assert document["job"] == job.name
        runs: list[dict[str, Any]] = document["runs"]
        return runs

    def test_every_run_leaves_what_it_took(self, project: Project) -> None:
        began = time.time()
        (first,) = self.run(project)
        ended = time.time()
        rows = project.shard_rows()
        assert began <= first["started"] < first["started"] + first["wall"] <= ended
        assert first["cells"] == len(rows) == 4
        assert first["training"] == pytest.approx(rows["seconds"].sum(), abs=0.002)
        assert first["training"] > 0.5
        assert first["start_up"] > 0.5, "importing torch takes longer"
        assert first["start_up"] + 0.5 < first["first_row"] <= first["wall"]
        assert first["before"] > 0
        assert (rows["started"] > first["started"] + first["start_up"]).all(), "training comes after the imports"

        *known, second = self.run(project)
        assert known == [first]
        assert (second["cells"], second["training"], second["start_up"], second["first_row"]) == (0, 0.0, 0.0, None)

        project.experiment(
            arms=[{"method": "toy", "mode": "in-the-loop"}], sweeps=[{"name": "more", "axes": {"severity": [0.5]}}]
        )
        *known, third = self.run(project)
        assert known == [first, second]
        assert third["cells"] == 2

        found = times(project.shard_rows().assign(experiment="chip_in_the_loop"), records(project.results.folder), 2)
        assert found.runs == 3
        assert found.steps[0].seconds == pytest.approx(first["training"] + third["training"])
        assert found.steps[1].seconds == pytest.approx(first["start_up"] + third["start_up"])
