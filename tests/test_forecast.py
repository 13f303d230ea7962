"""What is left takes as long as cells like it took: every sum below can be done by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from project import BACKPROP, MH, OFF_CHIP, Project

from spikebench import rows as row_file
from spikebench.errors import UserError
from spikebench.forecast import START, Line, Past, forecast, lines
from spikebench.paths import Results
from spikebench.sweep import Plan, Planned

SURROUNDINGS = {"host": "h", "versions": "{}", "commit": "c"}
LOOP, MH_CELLS, PER_CELL = "chip_in_the_loop", 4, 0.13


def train(plan: Plan, outcome: Callable[[Planned], dict[str, Any] | None]) -> None:
    """Write the plan's shard files: ``outcome`` of each cell, None where it was never trained."""
    results = Results(plan.config.name, plan.config.root)
    for (experiment, shard), planned in plan.shards.items():
        made = [(p, outcome(p)) for p in planned]
        rows = [row_file.complete(p, o, SURROUNDINGS) for p, o in made if o is not None]
        if rows:
            row_file.write(rows, results.shard(experiment, shard))


def took(seconds: float) -> dict[str, Any]:
    return {"status": "ok", "error": "", "seconds": seconds}


def by_method(plan: Plan) -> dict[str, Line]:
    return {line.method: line for line in lines(plan, Past.read(plan.config))[0]}


@pytest.fixture
def plan(project: Project) -> Plan:
    """Of MH and of backprop in two modes: 2 severities, 2 repetitions, a shard an arm, a job a method."""
    project.experiment(arms=[MH, BACKPROP, OFF_CHIP])
    plan = project.plan()
    assert [len(cells) for cells in plan.shards.values()] == [MH_CELLS] * 3
    assert list(plan.jobs) == [f"{LOOP}.metropolis_hastings.00", f"{LOOP}.backprop.00"]
    return plan


def other(project: Project, preset: str, cost: float) -> Plan:
    """The same cells in another preset."""
    project.change("config/presets/tiny.yaml", cost=cost, name=preset)
    (project.root / "config/presets/tiny.yaml").rename(project.root / f"config/presets/{preset}.yaml")
    made = project.plan(preset=preset)
    project.change(f"config/presets/{preset}.yaml", name="tiny", cost=1.0)
    (project.root / f"config/presets/{preset}.yaml").rename(project.root / "config/presets/tiny.yaml")
    project.write(f"config/presets/{preset}.yaml", {"name": preset, "cost": cost})
    return made


def test_without_any_row_it_is_the_plans_own_forecast(plan: Plan) -> None:
    line = by_method(plan)["metropolis_hastings"]
    assert (line.experiment, line.done, line.expected, line.basis) == (LOOP, 0, 4, "SECONDS_PER_CELL")
    assert line.seconds == pytest.approx(4 * PER_CELL + START)


def test_a_preset_that_costs_more_takes_longer(project: Project, plan: Plan) -> None:
    project.change("config/presets/tiny.yaml", cost=5.0)
    assert by_method(project.plan())["metropolis_hastings"].seconds == pytest.approx(5 * 4 * PER_CELL + START)


def test_past_rows_of_the_same_cells_are_preferred(plan: Plan) -> None:
    """One of four was trained, in 10 seconds: the other three will take 30."""
    train(
        plan, lambda p: took(10.0) if p.cell.method != "backprop" and p.cell.severity + p.cell.repetition == 0 else None
    )
    assert by_method(plan)["metropolis_hastings"] == Line(
        LOOP, "metropolis_hastings", 1, 4, pytest.approx(30.0 + START), "past rows"
    )
    assert by_method(plan)["backprop"].basis == "SECONDS_PER_CELL"


def test_modes_are_not_mixed(plan: Plan) -> None:
    """Backprop off-chip is stale and took 1, 1, 1 and 5 seconds; in the loop 100, and half of that is fresh."""

    def outcome(p: Planned) -> dict[str, Any]:
        if p.cell.mode == "off-chip":
            return {**took(5.0 if p.cell.severity * p.cell.repetition else 1.0), "digest": "old"}
        return took(100.0)

    train(plan, outcome)
    for (experiment, shard), planned in plan.shards.items():  # ``complete`` sets the digest last
        path = Results("tiny", plan.config.root).shard(experiment, shard)
        old = [p.cell.id for p in planned if p.cell.mode == "off-chip" or p.cell.repetition == 1]
        row_file.write([{**r, "digest": "old"} if r["cell"] in old else r for r in row_file.read(path)], path)
    line = by_method(plan)["backprop"]
    assert (line.done, line.expected, line.basis) == (2, 8, "past rows")
    assert line.seconds == pytest.approx(4 * 2.0 + 2 * 100.0 + START)


def test_what_is_done_costs_nothing_and_no_start(plan: Plan) -> None:
    train(plan, lambda p: took(10.0))
    assert {(line.done, line.seconds, line.basis) for line in by_method(plan).values()} == {(4, 0.0, ""), (8, 0.0, "")}
    assert forecast(plan, 2).endswith("preset tiny: nothing is left to train; 12 of 12 cells are done")


def test_a_failure_that_is_retried_is_left_and_an_unavailable_cell_takes_no_time(project: Project, plan: Plan) -> None:
    """Two failed after 7 seconds, two are unavailable: 4 cells of 3.5 seconds on average, of which two are retried."""
    bad = {"status": "failed", "error": "", "seconds": 7.0}
    never = {"status": "unavailable", "error": "", "seconds": math.nan}
    train(plan, lambda p: bad if p.cell.severity else never)
    assert by_method(plan)["metropolis_hastings"].done == 4
    line = by_method(project.plan(retry="failed"))["metropolis_hastings"]
    assert (line.done, line.seconds) == (2, pytest.approx(2 * 3.5 + START))


class TestOtherPresets:
    def test_their_rows_are_scaled_by_what_they_cost(self, project: Project, plan: Plan) -> None:
        """8 seconds at a cost of 4 are 2 here."""
        train(other(project, "large", 4.0), lambda p: took(8.0))
        line = by_method(plan)["metropolis_hastings"]
        assert (line.done, line.basis) == (0, "rows of large")
        assert line.seconds == pytest.approx(4 * 2.0 + START)

    def test_the_one_that_costs_most_nearly_the_same_wins(self, project: Project, plan: Plan) -> None:
        """Half as dear is nearer than three times."""
        train(other(project, "large", 3.0), lambda p: took(9.0))
        train(other(project, "small", 0.5), lambda p: took(8.0))
        line = by_method(plan)["metropolis_hastings"]
        assert (line.basis, line.seconds) == ("rows of small", pytest.approx(4 * 16.0 + START))

    def test_those_that_cost_ten_times_less_say_nothing(self, project: Project, plan: Plan) -> None:
        train(other(project, "toy", 0.09), lambda p: took(1.0))
        assert by_method(plan)["metropolis_hastings"].basis == "SECONDS_PER_CELL"

    def test_another_experiment_says_nothing(self, project: Project, plan: Plan) -> None:
        project.experiment("spide", arms=[MH])
        project.change("config/config.yaml", experiments=["spide"])
        train(project.plan(), lambda p: took(0.25))
        assert by_method(plan)["metropolis_hastings"].basis == "SECONDS_PER_CELL"

    def test_own_rows_come_before_all(self, project: Project, plan: Plan) -> None:
        train(other(project, "large", 1.0), lambda p: took(9.0))
        train(plan, lambda p: None if p.cell.severity else took(0.5))
        assert by_method(plan)["metropolis_hastings"].seconds == pytest.approx(2 * 0.5 + START)

    def test_a_preset_that_is_no_more_is_left_out(self, project: Project, plan: Plan) -> None:
        train(other(project, "gone", 1.0), lambda p: took(9.0))
        (project.root / "config/presets/gone.yaml").unlink()
        assert by_method(plan)["metropolis_hastings"].basis == "SECONDS_PER_CELL"


def test_damaged_files_are_as_good_as_none(plan: Plan) -> None:
    train(plan, lambda p: took(10.0))
    files = sorted(plan.config.root.glob("results/tiny/shards/*/*.parquet"))
    files[0].write_bytes(files[0].read_bytes()[:200])
    files[1].write_bytes(b"")
    assert sum(line.done for line in by_method(plan).values()) == 4


class TestTheSentence:
    @pytest.mark.parametrize(
        ("cores", "wall"), [(1, "about 64 minutes on 1 core;"), (2, "about 43 minutes on 2 cores;")]
    )
    def test_cores_share_the_jobs_but_none_is_split(self, plan: Plan, cores: int, wall: str) -> None:
        """MH has 2 cells of 640 s left, which is 21 min; backprop 4 of 640 s, 43 min: two cores wait for backprop."""
        train(plan, lambda p: None if p.cell.severity else took(640.0))
        said = forecast(plan, cores).splitlines()
        assert said[-1] == f"preset tiny: {wall} 6 of 12 cells are done"
        assert said[1].split() == f"{LOOP} metropolis_hastings 2 of 4 21 minutes past rows".split()
        assert said[2].split() == f"{LOOP} backprop 4 of 8 43 minutes past rows".split()
        assert len(said) == 4

    def test_no_cores_are_refused(self, plan: Plan) -> None:
        with pytest.raises(UserError, match="--cores: found 0, allowed: 1 or more"):
            forecast(plan, 0)

    def test_the_command_says_it_for_the_preset(self, project: Project, plan: Plan) -> None:
        done = project.run("spikebench", "forecast", "--preset", "tiny", "--cores", "2")
        assert done.status == 0, done.said
        assert done.said.splitlines()[-1] == "preset tiny: about 4 s on 2 cores; 0 of 12 cells are done"


def test_it_imports_no_torch() -> None:
    code = "import sys, spikebench.forecast; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
