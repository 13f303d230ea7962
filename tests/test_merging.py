"""Rows of several checkouts become one table, or nothing changes and the contradiction is named."""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import BACKPROP, MH, OFF_CHIP, Project, results_of

from spikebench import rows as row_file
from spikebench import supervisor
from spikebench.bundle import write_archive
from spikebench.errors import UserError
from spikebench.gather import collect, gather
from spikebench.merging import merge
from spikebench.seeds import digest
from spikebench.snakefile import retry_token
from spikebench.sweep import Cell, Planned

Outcome = Callable[[Planned], dict[str, Any] | None]
HERE = {"host": "here", "versions": '{"torch": "2.1"}', "commit": "abc"}
THERE = {"host": "there", "versions": '{"torch": "2.2"}', "commit": "def+changes"}
BAD = ("failed", "timed-out", "unavailable")


def ok(p: Planned) -> dict[str, Any]:
    """A row whose accuracy tells the cell."""
    return {"status": "ok", "error": "", "accuracy": int(p.cell.id, 16) / 16**16, "seconds": 0.5}


def bad(status: str) -> Outcome:
    return lambda p: {"status": status, "error": f"{status} for a reason"}


def half(repetition: int) -> Outcome:
    return lambda p: ok(p) if p.cell.repetition == repetition else None


def train(project: Project, outcome: Outcome, surroundings: dict[str, str] = HERE) -> None:
    """Write shards and manifests as jobs do: ``outcome`` of each cell, None where it was never trained."""
    plan = project.plan()
    for (experiment, shard), planned in plan.shards.items():
        made = [(p, outcome(p)) for p in planned]
        if rows := [row_file.complete(p, o, surroundings) for p, o in made if o is not None]:
            row_file.write(rows, project.results.shard(experiment, shard))
    for job in plan.jobs:
        project.results.job(job).parent.mkdir(exist_ok=True)
        project.results.job(job).write_text(json.dumps({"job": job, "retry": "none", "statuses": {}, "shards": {}}))


def files(project: Project) -> dict[str, tuple[int, bytes]]:
    """All that lies below results/, with times and contents, but the list of conflicts."""
    found = sorted(p for p in (project.root / "results").rglob("*") if p.is_file() and p.name != "conflicts.txt")
    return {p.relative_to(project.root).as_posix(): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


def conflicts(project: Project) -> list[str]:
    """The lines of the list of conflicts."""
    return (project.results.folder / "conflicts.txt").read_text(encoding="utf-8").splitlines()


def refused(project: Project, *sources: Path, prefer: Path | None = None) -> str:
    """What is said, and nothing changed."""
    before = files(project)
    with pytest.raises(UserError) as error:
        merge(project.plan(), sources, prefer)
    assert files(project) == before, "nothing is written"
    return str(error.value)


@pytest.fixture
def here(project: Project) -> Project:
    """3 arms, 2 severities, 2 repetitions: 12 cells in 3 shards of 2 jobs."""
    project.experiment(arms=[MH, BACKPROP, OFF_CHIP])
    assert (len(project.plan().planned), len(project.plan().shards), len(project.plan().jobs)) == (12, 3, 2)
    return project


@pytest.fixture
def there(here: Project, tmp_path: Path) -> Project:
    """Another checkout."""
    return here.copy(tmp_path / "there")


def source(project: Project) -> Path:
    return project.results.folder


def test_two_halves_merge_to_the_whole(here: Project, there: Project, tmp_path: Path) -> None:
    whole = here.copy(tmp_path / "whole")
    train(whole, ok)
    train(here, half(0))
    train(there, half(1))
    said = merge(here.plan(), [source(there)])
    assert said.startswith(
        f"rows taken: 6 from {source(there)}; 12 of 12 cells of results/tiny have a row; `snakemake`"
    )
    assert results_of(here.shard_rows()) == results_of(whole.shard_rows())
    assert here.times("shards").keys() == whole.times("shards").keys()
    assert gather(here.plan()) == "12 cells expected: 12 ok"
    assert results_of(collect(here.plan())[0]) == results_of(collect(whole.plan())[0])


def test_several_sources_are_one_merge_and_their_rows_keep_where_they_were_made(
    here: Project, there: Project, tmp_path: Path
) -> None:
    third = here.copy(tmp_path / "third")
    train(there, half(1), THERE)
    train(third, ok, {**HERE, "host": "third"})
    said = merge(here.plan(), [source(there), source(third)])
    assert said.startswith(f"rows taken: 6 from {source(there)}, 6 from {source(third)}; 12 of 12 cells")
    table = collect(here.plan())[0]
    assert table.groupby("repetition")["host"].unique().map(list).to_dict() == {0: ["third"], 1: ["there"]}
    assert set(table["commit"]) == {"abc", "def+changes"}


def test_merging_again_writes_nothing(here: Project, there: Project) -> None:
    train(here, half(0))
    train(there, ok, THERE)
    merge(here.plan(), [source(there)])
    before = files(here)
    said = merge(here.plan(), [source(there), source(here)])
    assert said.startswith(f"rows taken: 0 from {source(there)}, 0 from {source(here)}; 12 of 12 cells")
    assert files(here) == before


def test_what_is_equal_but_for_its_measurements_stays(here: Project, there: Project) -> None:
    """NaN is equal to NaN, and the host, the seconds and a cell's sweeps are no results."""
    train(here, lambda p: {**ok(p), "nll": math.nan, "sweeps": "of old"})
    train(there, lambda p: {**ok(p), "nll": math.nan, "seconds": 9.0}, THERE)
    before = files(here)
    merge(here.plan(), [source(there)])
    assert files(here) == before


class TestConflicts:
    def test_cell_columns_values_and_places_are_named_and_nothing_is_written(
        self, here: Project, there: Project
    ) -> None:
        """One cell of the last shard differs; the first shards, which could have been taken, are not."""
        guilty = here.plan().planned[-1]
        train(here, lambda p: ok(p) if p.shard == guilty.shard else None)
        train(there, lambda p: ok(p) | ({"accuracy": 2.0, "nll": 0.5} if p == guilty else {}), THERE)
        said = refused(here, source(there)).splitlines()
        assert said[0] == "nothing was merged, for results differ between places (cells: 1):"
        accuracy = ok(guilty)["accuracy"]
        assert said[1] == (
            f"  shards/chip_in_the_loop/{guilty.shard}.parquet: backprop off-chip on breast_cancer (20 examples), "
            f"fault paper-full, severity 1, repetition 1: different accuracy, nll; accuracy is {accuracy!r} in "
            f"results/tiny (here; torch: 2.1; commit abc) and 2.0 in {source(there)} (there; torch: 2.2; "
            "commit def+changes)"
        )
        assert "--prefer SOURCE" in said[2]
        assert "delete these shards" in said[2]

    def test_of_many_the_first_are_shown_and_all_are_counted(self, here: Project, there: Project) -> None:
        train(here, ok)
        train(there, lambda p: {**ok(p), "accuracy": 2.0})
        said = refused(here, source(there)).splitlines()
        assert said[0].endswith("(cells: 12):")
        assert [line.startswith("  shards/") for line in said] == [False, *[True] * 5, False, False]
        assert said[6] == "  and 7 more"

    def test_all_are_listed_in_a_file_until_a_merge_has_none(self, here: Project, there: Project) -> None:
        train(here, ok)
        train(there, lambda p: {**ok(p), "accuracy": 2.0})
        said = refused(here, source(there)).splitlines()
        assert said[-1].startswith("  results/tiny/conflicts.txt lists all of them: ")
        assert len(conflicts(here)) == 12
        assert [f"  {line}" for line in conflicts(here)[:5]] == said[1:6]
        assert all(": different accuracy; accuracy is " in line for line in conflicts(here))
        train(there, ok)
        merge(here.plan(), [source(there)])
        assert not (here.results.folder / "conflicts.txt").exists()

    def test_two_sources_may_contradict_each_other(self, here: Project, there: Project, tmp_path: Path) -> None:
        third = here.copy(tmp_path / "third")
        train(there, ok)
        train(third, lambda p: {**ok(p), "spikes": 1.0})
        said = refused(here, source(there), source(third))
        assert f"different spikes; spikes is nan in {source(there)} " in said
        assert f"and 1.0 in {source(third)} " in said

    def test_a_diverged_training_contradicts_one_that_did_not(self, here: Project, there: Project) -> None:
        train(here, ok)
        train(there, lambda p: {"status": "diverged", "error": "left the finite numbers"})
        assert "different status, error, accuracy; status is 'ok' in results/tiny " in refused(here, source(there))

    @pytest.mark.parametrize("theirs", [math.nextafter(0.5, 1), math.nan, -0.5])
    def test_one_bit_is_a_contradiction(self, here: Project, there: Project, theirs: float) -> None:
        train(here, lambda p: {**ok(p), "nll": 0.5})
        train(there, lambda p: {**ok(p), "nll": theirs})
        assert f"different nll; nll is 0.5 in results/tiny (here; torch: 2.1; commit abc) and {theirs!r} in" in refused(
            here, source(there)
        )

    def test_a_long_value_is_cut(self, here: Project, there: Project) -> None:
        train(here, lambda p: {**ok(p), "diagnostics": "x" * 10_000})
        train(there, ok)
        assert len(refused(here, source(there))) < 5000


class TestPrefer:
    def test_the_sources_row_counts_where_results_differ(self, here: Project, there: Project) -> None:
        train(here, lambda p: {**ok(p), "accuracy": 2.0} if p.cell.severity else ok(p))
        train(there, ok, THERE)
        said = merge(here.plan(), [source(there)], prefer=source(there))
        listed = "results/tiny/conflicts.txt"
        assert f"; 6 conflicts were decided by --prefer for {source(there)}, and are listed in {listed}; " in said
        assert [", severity 1, " in line for line in conflicts(here)] == [True] * 6
        table = collect(here.plan())[0]
        assert set(table.loc[table["severity"] == 1.0, "host"]) == {"there"}
        assert set(table.loc[table["severity"] == 0.0, "host"]) == {"here"}, "these did not differ"
        assert (table["accuracy"] < 1).all()
        before = files(here)
        said = merge(here.plan(), [source(there)], prefer=source(there))
        assert f"; 0 conflicts were decided by --prefer for {source(there)}; " in said
        assert files(here) == before

    def test_what_is_here_may_be_preferred(self, here: Project, there: Project) -> None:
        train(here, half(0))
        train(there, lambda p: {**ok(p), "accuracy": 2.0})
        said = merge(here.plan(), [source(there)], prefer=source(here))
        assert said.startswith(f"rows taken: 6 from {source(there)}; ")
        assert "; 6 conflicts were decided by --prefer for results/tiny, and are listed in" in said
        assert collect(here.plan())[0].groupby("repetition")["accuracy"].max().gt(1).to_dict() == {0: False, 1: True}

    def test_a_conflict_without_the_preferred_one_is_still_one(
        self, here: Project, there: Project, tmp_path: Path
    ) -> None:
        third = here.copy(tmp_path / "third")
        train(here, half(0))
        train(there, lambda p: {**ok(p), "accuracy": 2.0})
        train(third, half(1))
        said = refused(here, source(there), source(third), prefer=source(third))
        assert "(cells: 6):" in said
        assert "repetition 1" not in said, "of these the third's row would have counted"
        assert len(conflicts(here)) == 6

    def test_it_must_be_one_of_them(self, here: Project, there: Project) -> None:
        train(there, ok)
        said = refused(here, source(there), prefer=Path("elsewhere"))
        assert said == f"--prefer: found 'elsewhere', allowed: results/tiny, {source(there)}"


class TestFailures:
    @pytest.mark.parametrize("status", BAD)
    def test_a_result_counts_wherever_it_is(self, here: Project, there: Project, status: str) -> None:
        """Half the cells failed here, the other half there."""
        train(here, lambda p: ok(p) if p.cell.repetition else bad(status)(p))
        train(there, lambda p: bad(status)(p) if p.cell.repetition else ok(p), THERE)
        said = merge(here.plan(), [source(there)])
        assert said.startswith(f"rows taken: 6 from {source(there)}; ")
        assert "; 12 have a result in one place and a failure in another, where the result counts; " in said
        table = collect(here.plan())[0]
        assert set(table["status"]) == {"ok"}
        assert table.groupby("repetition")["host"].unique().map(list).to_dict() == {0: ["there"], 1: ["here"]}

    def test_of_two_failures_the_one_that_is_here_stays(self, here: Project, there: Project) -> None:
        train(here, bad("timed-out"))
        train(there, bad("failed"))
        before = files(here)
        merge(here.plan(), [source(there)])
        assert files(here) == before

    def test_a_failure_is_taken_where_there_is_no_row(self, here: Project, there: Project) -> None:
        train(there, bad("failed"))
        merge(here.plan(), [source(there)])
        assert set(collect(here.plan())[0]["error"]) == {"failed for a reason"}


class TestWhatIsNotTaken:
    def test_stale_rows_are_counted(self, here: Project, there: Project) -> None:
        train(there, ok)
        for path in (source(there) / "shards").rglob("*.parquet"):
            old = [{**row, "digest": "old"} if row["repetition"] else row for row in row_file.read(path)]
            row_file.write(old, path)
        said = merge(here.plan(), [source(there)])
        assert said.startswith(f"rows taken: 6 from {source(there)}; 6 of 12 cells of results/tiny have a row; ")
        assert "; 6 rows were not taken as they are stale: of other code, settings or data; " in said
        assert set(here.shard_rows()["repetition"]) == {0}

    def test_a_source_with_another_methods_code_is_stale(self, here: Project, there: Project) -> None:
        train(there, ok)
        here.append("methods/backprop.py", "\nSOMETHING = 1\n")
        assert "; 8 rows were not taken as they are stale" in merge(here.plan(), [source(there)])

    def test_cells_that_are_not_planned_are_counted(self, here: Project, there: Project) -> None:
        """There are 3 repetitions instead of 2 (6 cells more), and a sweep of another size (3 shards of 6 cells)."""
        there.change("config/presets/tiny.yaml", repetitions=3)
        more = {"name": "more", "axes": {"training_size": [30]}}
        there.experiment(arms=[MH, BACKPROP, OFF_CHIP], sweeps=[{"name": "severity"}, more])
        train(there, ok)
        said = merge(here.plan(), [source(there)])
        assert said.startswith(f"rows taken: 12 from {source(there)}; 12 of 12 cells")
        assert "; 24 rows were not taken as their cells are not in the plan; " in said
        assert len(here.shard_rows()) == 12

    def test_own_rows_that_are_stale_or_not_planned_stay(self, here: Project, there: Project) -> None:
        """A forecast learns from them, and a change of the configuration that is taken back finds them again."""
        here.change("config/presets/tiny.yaml", repetitions=3)
        train(here, lambda p: ok(p) if p.cell.repetition else None)
        here.change("config/presets/tiny.yaml", repetitions=2)
        for path in (source(here) / "shards").rglob("*.parquet"):
            old = [{**row, "digest": "old"} if row["repetition"] == 1 else row for row in row_file.read(path)]
            row_file.write(old, path)
        train(there, half(0))
        merge(here.plan(), [source(there)])
        assert here.shard_rows().groupby("repetition")["digest"].agg(lambda d: (d == "old").sum()).to_dict() == {
            **{0: 0, 1: 6, 2: 0}
        }


class TestSources:
    @pytest.mark.parametrize("content", [b"", b"PAR1 half of it", b"half", b"foreign", b"twice"])
    def test_a_damaged_shard_is_named(self, here: Project, there: Project, content: bytes) -> None:
        train(here, half(0))
        train(there, ok)
        experiment, shard = list(here.plan().shards)[-1]
        path = there.results.shard(experiment, shard)
        if content == b"foreign":
            pd.DataFrame({"x": [1]}).to_parquet(path)
        elif content == b"twice":
            row_file.write(row_file.read(path) * 2, path)
        else:
            path.write_bytes(path.read_bytes()[:-2000] if content == b"half" else content)
        said = refused(here, source(there))
        found = "two rows of one cell" if content == b"twice" else "no rows that can be read"
        assert said.startswith(f"{source(there)}: shards/{experiment}/{shard}.parquet: found {found}, expected one of")

    def test_a_damaged_shard_of_cells_that_are_not_planned_is_named_too(self, here: Project, there: Project) -> None:
        train(there, ok)
        there.results.shard("chip_in_the_loop", "f" * 16).write_bytes(b"somebody else's")
        assert "f" * 16 in refused(here, source(there))

    def test_a_damaged_shard_here_is_a_gap_that_a_source_fills(self, here: Project, there: Project) -> None:
        train(here, ok)
        train(there, ok)
        next((source(here) / "shards").rglob("*.parquet")).write_bytes(b"half")
        assert merge(here.plan(), [source(there)]).startswith(f"rows taken: 4 from {source(there)}; 12 of 12")
        assert set(collect(here.plan())[0]["status"]) == {"ok"}

    def test_a_shard_here_that_cannot_be_opened_is_no_gap(self, here: Project, there: Project) -> None:
        """It may hold rows that count, and would be written over."""
        train(there, ok)
        experiment, shard = list(here.plan().shards)[-1]
        here.results.shard(experiment, shard).mkdir(parents=True)
        assert refused(here, source(there)) == (
            f"results/tiny/shards/{experiment}/{shard}.parquet: cannot be read (Is a directory): make it readable, or "
            "delete it"
        )

    @pytest.mark.parametrize(
        ("axis", "value"), [("severity", 0.25), ("training_size", 21), ("variant", "x"), ("crossed", None)]
    )
    def test_a_row_whose_axes_are_another_cells_is_named(
        self, here: Project, there: Project, axis: str, value: Any
    ) -> None:
        train(there, ok)
        experiment, shard = list(here.plan().shards)[-1]
        path = there.results.shard(experiment, shard)
        first, *others = row_file.read(path)
        row_file.write([{**first, axis: value}, *others], path)
        said = refused(here, source(there))
        place = f"{source(there)}: shards/{experiment}/{shard}.parquet: cell {first['cell']}"
        assert said.startswith(f"{place}: found the axes of the cell ")
        assert ", expected its own: " in said

    def test_rows_from_before_an_axis_are_of_cells_that_are_not_planned(self, here: Project, there: Project) -> None:
        train(there, ok)
        axes = [axis.name for axis in fields(Cell) if axis.name != "crossed"]
        for path in (source(there) / "shards").rglob("*.parquet"):
            rows = [
                {**row, "crossed": None, "cell": digest({axis: row[axis] for axis in axes})}
                for row in row_file.read(path)
            ]
            row_file.write(rows, path)
        said = merge(here.plan(), [source(there)])
        assert said.startswith(
            f"rows taken: 0 from {source(there)}; 0 of 12 cells of results/tiny have a row; 12 rows "
        )
        assert "; 12 rows were not taken as their cells are not in the plan; " in said

    def test_what_is_not_there_or_empty_is_named(self, here: Project, there: Project, tmp_path: Path) -> None:
        assert refused(here, tmp_path / "nowhere") == (
            f"{tmp_path / 'nowhere'}: found nothing there, expected a folder results/tiny or an archive of one"
        )
        said = refused(here, there.root)
        assert said.startswith(
            f"{there.root}: found no shards/<experiment>/<shard>.parquet, expected those of a folder"
        )
        (tmp_path / "notes.txt").write_text("no archive")
        assert refused(here, tmp_path / "notes.txt").startswith(f"{tmp_path / 'notes.txt'}: cannot be read as a zip")

    def test_another_preset_is_named(self, here: Project, there: Project) -> None:
        (there.root / "config/presets/tiny.yaml").rename(there.root / "config/presets/large.yaml")
        there.change("config/presets/large.yaml", name="large")
        there.change("config/config.yaml", preset="large")
        train(there, ok)  # into the folder results/tiny
        said = refused(here, source(there))
        assert "found the preset 'large', expected 'tiny': merge it with `--preset large`" in said


class TestAfterwards:
    def test_the_next_jobs_find_everything_and_train_nothing(
        self, here: Project, there: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train(here, lambda p: ok(p) if p.cell.method == "backprop" else bad("failed")(p))
        train(there, ok)
        jobs, results = here.plan().jobs, here.results
        merge(here.plan(), [source(there)])
        tokens = {name.split(".")[1]: retry_token(results, name, "") for name in jobs}
        assert tokens["backprop"] == "none", "it stays as it is"
        assert tokens["metropolis_hastings"].startswith("merged, "), "this parameter of the rule has it run again"
        monkeypatch.setattr(supervisor._Worker, "ask", lambda *_: pytest.fail("something was trained"))
        before = here.times("shards")
        for job in jobs.values():
            supervisor.run_job(job, here.config())
        assert here.times("shards") == before
        assert {status for n in jobs for status in json.loads(results.job(n).read_text())["statuses"]} == {"ok"}

    @pytest.mark.parametrize("manifest", [None, "half"])
    def test_a_job_without_a_sound_manifest_is_left_without_one(
        self, here: Project, there: Project, manifest: str | None
    ) -> None:
        """Snakemake, which did not see it run, would never find it stale."""
        train(there, ok)
        path = here.results.job("chip_in_the_loop.backprop.00")
        if manifest:
            path.parent.mkdir(parents=True)
            path.write_text(manifest)
        merge(here.plan(), [source(there)])
        assert not path.exists()

    def test_sweeps_and_paper_are_those_of_the_plan(self, here: Project, there: Project) -> None:
        train(there, ok)
        here.experiment(arms=[MH, BACKPROP, OFF_CHIP], sweeps=[{"name": "one"}], paper="1234.5678")
        merge(here.plan(), [source(there)])
        assert set(here.shard_rows()["sweeps"]) == {"one"}
        assert set(here.shard_rows()["paper"]) == {"1234.5678"}

    def test_a_merge_that_was_killed_is_finished_by_the_next(
        self, here: Project, there: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train(here, half(0))
        train(there, ok)
        write, written = row_file.write, []

        def killed(rows: Any, path: Path) -> None:
            if written:
                raise KeyboardInterrupt
            written.append(path)
            write(rows, path)

        with monkeypatch.context() as patch:
            patch.setattr(row_file, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                merge(here.plan(), [source(there)])
        assert len(here.shard_rows()) == 8, "one shard of four cells is whole, of the others there are halves"
        assert merge(here.plan(), [source(there)]).startswith(f"rows taken: 4 from {source(there)}; 12 of 12")
        assert results_of(here.shard_rows()) == results_of(there.shard_rows())


class TestArchives:
    def archive(self, project: Project) -> Path:
        gather(project.plan())
        (project.root / "constraints.txt").touch()
        project.results.claims.touch()
        path = project.root.with_suffix(".zip")
        write_archive(project.config(), project.results, path)
        return path

    def test_an_archive_is_a_source(self, here: Project, there: Project) -> None:
        train(here, half(0))
        train(there, ok, THERE)
        archive = self.archive(there)
        shutil.rmtree(there.root)
        assert merge(here.plan(), [archive]).startswith(f"rows taken: 6 from {archive}; 12 of 12 cells")
        assert list(here.root.parent.iterdir()) in ([here.root, archive], [archive, here.root]), "nothing is unpacked"
        assert set(collect(here.plan())[0]["status"]) == {"ok"}

    def test_its_rows_may_contradict_and_be_preferred(self, here: Project, there: Project) -> None:
        train(here, ok)
        train(there, lambda p: {**ok(p), "accuracy": 2.0}, THERE)
        archive = self.archive(there)
        assert f"2.0 in {archive} (there; torch: 2.2; commit def+changes)" in refused(here, archive)
        merge(here.plan(), [archive], prefer=archive)
        assert set(collect(here.plan())[0]["accuracy"]) == {2.0}

    def test_a_damaged_one_and_one_of_another_preset_are_named(self, here: Project, there: Project) -> None:
        train(there, ok)
        archive = self.archive(there)
        plan = here.plan()
        whole = archive.read_bytes()
        archive.write_bytes(whole[:-100])
        with pytest.raises(UserError, match=r"there\.zip: cannot be read as a zip file"):
            merge(plan, [archive])
        archive.write_bytes(whole)
        with zipfile.ZipFile(archive) as zipped:
            at = next(info.header_offset for info in zipped.infolist() if "/shards/" in info.filename) + 500
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match=r"there\.zip: shards/chip_in_the_loop/.*: cannot be read"):
            merge(plan, [archive])
        archive.write_bytes(whole)
        (here.root / "config/presets/tiny.yaml").rename(here.root / "config/presets/large.yaml")
        here.change("config/presets/large.yaml", name="large")
        with pytest.raises(UserError, match=r"found the preset 'tiny', expected 'large': merge it with"):
            merge(here.plan(preset="large"), [archive])


def test_by_the_command_line(here: Project, there: Project) -> None:
    train(here, half(0))
    train(there, ok)
    done = here.run("spikebench", "merge", "../there/results/tiny")
    assert (done.status, done.said.split(";")[0]) == (0, "rows taken: 6 from ../there/results/tiny")
    assert results_of(here.shard_rows()) == results_of(there.shard_rows())

    train(there, lambda p: {**ok(p), "accuracy": 2.0})
    before = files(here)
    done = here.run("spikebench", "merge", "../there/results/tiny")
    assert done.status == 1
    assert done.sentences == [
        "spikebench: nothing was merged, for results differ between places (cells: 12):",
    ]
    with (here.root / "results" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = here.run("spikebench", "merge", "../there/results/tiny", "--prefer", "../there/results/tiny")
    assert done.status == 1
    assert "is at work in this folder: wait for it or end it" in done.sentences[0]
    assert {k: v for k, v in files(here).items() if ".lock" not in k} == {
        k: v for k, v in before.items() if ".lock" not in k
    }
