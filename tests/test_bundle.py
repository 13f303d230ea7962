"""An archive holds what belongs in it and nothing else, and whatever is done to it afterwards is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import PRESET, Project

from spikebench import rows as row_file
from spikebench.bundle import verify_archive, write_archive
from spikebench.errors import UserError
from spikebench.gather import gather
from spikebench.sweep import Planned

SURROUNDINGS = {"host": "h", "versions": "{}", "commit": "c"}
TOP = f"spikebench-{PRESET}"
TRACES = [{"name": "log_posterior", "chain": 1, "step": 20, "value": -3.5}]


def outcome(p: Planned) -> dict[str, Any] | None:
    """Of each arm's 4 cells one was never trained, and one failed."""
    if p.cell.repetition and p.cell.severity:
        return None
    if p.cell.repetition:
        return {"status": "failed", "error": "why"}
    accuracy = int(p.cell.id, 16) / 16**16
    return {"status": "ok", "error": "", "accuracy": accuracy, "traces": json.dumps(TRACES), "seconds": 0.5}


def train(project: Project, outcome: Callable[[Planned], dict[str, Any] | None] = outcome) -> None:
    """Leave all that an archive cannot do without."""
    plan = project.plan()
    for (experiment, shard), planned in plan.shards.items():
        made = [(p, outcome(p)) for p in planned]
        rows = [row_file.complete(p, o, SURROUNDINGS) for p, o in made if o is not None]
        row_file.write(rows, project.results.shard(experiment, shard))
    gather(plan)
    project.results.claims.write_text("[]")
    (project.root / "constraints.txt").write_text("torch==2.13.0\n")


def archived(project: Project) -> Path:
    path = project.root.parent / "all.zip"
    write_archive(project.config(), project.results, path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """12 cells: 6 ok, 3 failed, 3 missing; and files of all kinds that a run leaves. It is not to be changed."""
    project = Project.create(tmp_path_factory.mktemp("finished") / "project")
    train(project)
    for name in (
        *("claims.json", "tracking.json", "jobs/a.json", "times/a.json", "data/sheet.png", "logs/a.log"),
        *("figures/f.png", "figures/f.pdf", "figures/f.json", "figures/.f.png.1x.99", "report/index.html"),
        *("report/methods/backprop.html", "checkpoints/e/s/0.safetensors", ".hidden"),
        *("../data/archives/mnist.json", "../mlflow.db", "../../methods/__pycache__/backprop.pyc"),
        *("../../config/presets/.tiny.yaml.swp", "../../.snakemake/metadata/x", "../../datasets/notes.md"),
    ):
        path = project.results.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the content of {name}")
    return project


@pytest.fixture(scope="module")
def sound(finished: Project) -> Path:
    return archived(finished)


@pytest.fixture
def archive(sound: Path, tmp_path: Path) -> Path:
    """A copy to alter."""
    return shutil.copy(sound, tmp_path / "all.zip")


def content(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def pack(archive: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)


def seal(archive: Path, members: dict[str, bytes], **keys: Any) -> None:
    """Pack with a manifest that vouches for what is there: all but its author's honesty is right."""
    manifest = json.loads(members.pop(f"{TOP}/manifest.json")) | keys
    manifest["members"] = {
        name.removeprefix(f"{TOP}/"): {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in members.items()
    }
    pack(archive, {**members, f"{TOP}/manifest.json": json.dumps(manifest).encode()})


def refused(archive: Path) -> str:
    with pytest.raises(UserError) as error:
        verify_archive(archive)
    said = str(error.value)
    assert said.startswith(f"{archive}: ")
    return said.removeprefix(f"{archive}: ")


class TestWriting:
    def test_it_holds_all_that_belongs_to_the_results_and_nothing_else(self, finished: Project, sound: Path) -> None:
        members = content(sound)
        found = {name.removeprefix(f"{TOP}/") for name in members}
        checkout = {name for name in found if name.split("/")[0] in ("config", "methods", "datasets")}
        expected = {
            *("rows.parquet", "traces.parquet", "coverage.csv", "claims.json", "jobs/a.json", "times/a.json"),
            *("figures/f.png", "figures/f.pdf", "figures/f.json", "report/index.html", "report/methods/backprop.html"),
            *(f"shards/{experiment}/{shard}.parquet" for experiment, shard in finished.plan().shards),
            *("constraints.txt", "manifest.json"),
        }
        assert found - checkout == expected
        root = finished.root
        assert checkout == {
            *(p.relative_to(root).as_posix() for p in root.glob("config/**/*.*") if p.suffix in (".yaml", ".md")),
            *(p.relative_to(root).as_posix() for kind in ("methods", "datasets") for p in root.glob(f"{kind}/*.py")),
        }
        assert {"config/config.yaml", "config/presets/tiny.yaml", "methods/backprop.py"} < checkout
        assert members[f"{TOP}/constraints.txt"] == b"torch==2.13.0\n"
        assert members[f"{TOP}/rows.parquet"] == finished.results.rows.read_bytes()
        assert str(finished.root).encode() not in b"".join(members.values())

    def test_the_manifest_says_what_and_from_where(self, sound: Path) -> None:
        members = content(sound)
        manifest = json.loads(members.pop(f"{TOP}/manifest.json"))
        assert manifest["preset"] == PRESET
        assert manifest["rows"] == {"total": 12, "by_status": {"failed": 3, "missing": 3, "ok": 6}}
        assert {"python", "torch", "spikebench"} <= manifest["versions"].keys()
        assert manifest["commit"] == "", "the project is no git repository"
        assert pd.Timestamp(manifest["created"]).tzname() == "UTC"
        assert manifest["members"] == {
            name.removeprefix(f"{TOP}/"): {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in members.items()
        }

    def test_equal_contents_give_equal_archives(self, finished: Project, sound: Path, tmp_path: Path) -> None:
        """But for the manifest's time; file times, and when it is made, do not matter."""
        os.utime(finished.results.rows)
        write_archive(finished.config(), finished.results, tmp_path / "again.zip")
        with zipfile.ZipFile(sound) as one, zipfile.ZipFile(tmp_path / "again.zip") as two:
            for first, second in zip(one.infolist(), two.infolist(), strict=True):
                assert (first.filename, first.date_time, first.external_attr, first.header_offset) == (
                    *(second.filename, second.date_time, second.external_attr, second.header_offset),
                )
                if not first.filename.endswith("manifest.json"):
                    assert (first.CRC, first.compress_size) == (second.CRC, second.compress_size)
        names = list(content(sound))
        assert names[:-1] == sorted(names[:-1])

    def test_without_a_gathered_table_there_is_none(self, project: Project, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"results/tiny/rows.parquet does not exist: run `make report` or"):
            write_archive(project.config(), project.results, tmp_path / "all.zip")
        assert not (tmp_path / "all.zip").exists()

    def test_a_table_from_before_the_last_training_is_refused(self, project: Project, tmp_path: Path) -> None:
        """And the archive that was there stays."""
        train(project)
        path = archived(project)
        before = path.read_bytes()
        for shard in (project.results.folder / "shards").rglob("*.parquet"):
            row_file.write([{**row, "status": "ok", "error": ""} for row in row_file.read(shard)], shard)
        with pytest.raises(UserError, match=r"not gathered from these shards; run `make report`, then `spikebench arc"):
            archived(project)
        assert path.read_bytes() == before
        gather(project.plan())
        assert "12 rows (3 missing, 9 ok)" in verify_archive(archived(project))

    def test_stale_and_unplanned_rows_may_lie_in_the_shards(self, project: Project) -> None:
        train(project)
        project.append("methods/backprop.py", "\nSOMETHING = 1\n")
        project.results.shard("chip_in_the_loop", "f" * 16).write_bytes(
            next((project.results.folder / "shards").rglob("*.parquet")).read_bytes()
        )
        gather(project.plan())
        assert "12 rows (1 failed, 9 missing, 2 ok)" in verify_archive(archived(project))

    def test_a_path_in_the_home_folder_is_refused(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "me"))
        train(project)
        project.append("config/config.yaml", f"# {tmp_path}/me/data\n")
        with pytest.raises(UserError, match=r"config/config\.yaml line \d+: found a path in your home folder"):
            archived(project)

    @pytest.mark.parametrize("name", ["constraints.txt", "claims.json"])
    def test_what_makes_it_whole_must_be_there(self, project: Project, name: str) -> None:
        train(project)
        (project.results.claims if name == "claims.json" else project.root / name).unlink()
        with pytest.raises(UserError, match=f"found no {name}, which belong in an archive: `make report` makes what"):
            archived(project)
        assert not (project.root.parent / "all.zip").exists()

    def test_figures_must_be_there_where_an_experiment_has_some(self, project: Project) -> None:
        project.experiment(figures=["accuracy-vs-severity"])
        train(project)
        with pytest.raises(UserError, match=r"found no figures/\*\.png, which belong in an archive"):
            archived(project)
        project.results.figures.mkdir()
        (project.results.figures / "accuracy-vs-severity.png").touch()
        assert "preset tiny" in verify_archive(archived(project))

    def test_a_folder_is_no_destination(self, finished: Project, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="found a folder, expected the name of the file to write"):
            write_archive(finished.config(), finished.results, tmp_path)


class TestVerifying:
    def test_a_sound_archive_is_described(self, sound: Path) -> None:
        said = verify_archive(sound)
        assert said.startswith(f"{sound}: preset tiny, 12 rows (3 failed, 3 missing, 6 ok), ")
        assert f" {len(content(sound)) - 1} files, each as its manifest of 20" in said

    def test_any_altered_byte_is_noticed_or_alters_nothing(self, sound: Path, archive: Path) -> None:
        """Over the whole file. Dates and such, which say nothing, may change."""
        whole, members = sound.read_bytes(), content(sound)
        noticed = 0
        for at in range(11, len(whole), len(whole) // 40):
            archive.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            try:
                verify_archive(archive)
            except UserError as error:
                assert str(error).startswith(f"{archive}: ")
                noticed += 1
            else:
                assert content(archive) == members
        assert noticed >= 35

    def test_the_altered_member_is_named(self, sound: Path, archive: Path) -> None:
        with zipfile.ZipFile(sound) as zipped:
            info = zipped.getinfo(f"{TOP}/methods/backprop.py")
        whole, at = sound.read_bytes(), info.header_offset + 500
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert refused(archive).startswith("methods/backprop.py: cannot be read (")

    def test_altered_contents_are_told_by_hash_or_size(self, archive: Path) -> None:
        """Packed anew, so that the zip file itself is sound."""
        members = content(archive)
        name, text = f"{TOP}/constraints.txt", b"torch==2.12.0\n"
        pack(archive, {**members, name: text})
        found, expected = (hashlib.sha256(t).hexdigest() for t in (text, members[name]))
        assert refused(archive).startswith(f"constraints.txt: found the sha256 {found}, expected {expected} by its man")
        pack(archive, {**members, name: text + b"\n"})
        assert refused(archive).startswith("constraints.txt: found 15 bytes, expected 14 by its manifest")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
    def test_a_truncated_one_is_told(self, archive: Path, share: float) -> None:
        whole = archive.read_bytes()
        archive.write_bytes(whole[: int(share * len(whole))])
        assert refused(archive).startswith("cannot be read as a zip file (")

    def test_what_is_no_file_is_told(self, tmp_path: Path) -> None:
        assert refused(tmp_path / "none.zip") == "found no such file, expected one that `spikebench archive` wrote"

    def test_missing_and_additional_members_are_named(self, archive: Path) -> None:
        members = content(archive)
        pack(archive, {n: d for n, d in members.items() if not n.endswith("backprop.py")})
        assert refused(archive).startswith(f"'{TOP}/methods/backprop.py' is in its manifest and not in it: ")
        pack(archive, {**members, f"{TOP}/methods/evil.py": b"1"})
        assert refused(archive).startswith(f"'{TOP}/methods/evil.py' is in it and not in its manifest: ")
        pack(archive, {n: d for n, d in members.items() if not n.endswith("manifest.json")})
        assert refused(archive).startswith("manifest.json: is missing")

    @pytest.mark.parametrize(
        "member",
        ["constraints.txt", "config/config.yaml", f"config/presets/{PRESET}.yaml", "rows.parquet", "claims.json"],
    )
    def test_what_makes_it_whole_must_be_there(self, archive: Path, member: str) -> None:
        """Even if the manifest does not miss it."""
        members = content(archive)
        del members[f"{TOP}/{member}"]
        seal(archive, members)
        assert refused(archive) == f"found no {member}, expected what `spikebench archive` writes"

    def test_a_link_is_refused(self, archive: Path) -> None:
        """Even if the manifest vouches for it."""
        link = f"{TOP}/jobs/link.json"
        seal(archive, {**content(archive), link: b"/etc/passwd"})
        whole = bytearray(archive.read_bytes())
        entry = whole.rindex(link.encode()) - 46
        assert whole[entry : entry + 4] == b"PK\x01\x02"
        whole[entry + 38 : entry + 42] = struct.pack("<I", (stat.S_IFLNK | 0o777) << 16)
        archive.write_bytes(whole)
        assert refused(archive) == f"{link!r} is a link; do not unpack it"

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "/etc/passwd",
                f"{TOP}/../../evil",
                f"{TOP}/./x",
                f"{TOP}//x",
                "../evil",
                "C:/evil",
                "alone",
                f"{TOP}/f/",
            ),
            f"{TOP}\\..\\evil",
        ],
    )
    def test_a_member_that_would_leave_the_folder_is_refused(self, archive: Path, name: str) -> None:
        """Even if the manifest vouches for it."""
        seal(archive, {**content(archive), name: b"x"})
        assert refused(archive) == f"{name!r} is no file in the archive's folder; do not unpack it"

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_member_that_is_there_twice_is_refused(self, archive: Path) -> None:
        with zipfile.ZipFile(archive, "a") as zipped:
            zipped.writestr(f"{TOP}/rows.parquet", b"another")
        assert refused(archive) == f"'{TOP}/rows.parquet' is there 2 times, expected once; do not unpack it"

    def test_a_member_that_unpacks_to_more_than_it_says_costs_no_memory(self, archive: Path) -> None:
        """64 MiB of zeros that are declared as 10 bytes."""
        members = content(archive)
        seal(archive, {**members, f"{TOP}/jobs/bomb.json": bytes(10)})
        manifest = content(archive)[f"{TOP}/manifest.json"]
        pack(archive, {**members, f"{TOP}/manifest.json": manifest, f"{TOP}/jobs/bomb.json": bytes(1 << 26)})
        whole = bytearray(archive.read_bytes())
        entry = whole.rindex(f"{TOP}/jobs/bomb.json".encode()) - 46
        assert whole[entry : entry + 4] == b"PK\x01\x02"
        whole[entry + 24 : entry + 28] = struct.pack("<I", 10)
        archive.write_bytes(whole)
        tracemalloc.start()
        try:
            assert refused(archive).startswith("jobs/bomb.json: cannot be read (")
            assert tracemalloc.get_traced_memory()[1] < 1 << 25
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "manifest",
        [
            *("", "[]", "{}", "null", '{"preset": "tiny", "members": []}', "[" * 100_000),
            '{"preset": "tiny", "members": {"a": {"sha256": "", "size": 1e999}}, "rows": {}}',
            '{"preset": "other", "members": {}, "rows": {"total": 0, "by_status": {}}}',
            '{"preset": "tiny", "members": {}, "rows": {"total": 1, "by_status": {}}}',
        ],
    )
    def test_a_wrong_manifest_is_told(self, archive: Path, manifest: str) -> None:
        pack(archive, {**content(archive), f"{TOP}/manifest.json": manifest.encode()})
        said = refused(archive)
        assert said.startswith("manifest.json: found ")
        assert said.endswith(", expected what `spikebench archive` writes")


class TestRowsAgainstShards:
    """Archives whose manifest vouches for what is wrong in them."""

    def altered(self, archive: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> dict[str, bytes]:
        """The members, with another gathered table."""
        members = content(archive)
        path = archive.with_name("rows.parquet")
        path.write_bytes(members[f"{TOP}/rows.parquet"])
        change(pd.read_parquet(path)).to_parquet(path, index=False)
        return {**members, f"{TOP}/rows.parquet": path.read_bytes()}

    def test_unchanged_they_agree(self, archive: Path) -> None:
        seal(archive, self.altered(archive, lambda rows: rows))
        assert verify_archive(archive).startswith(f"{archive}: preset tiny, 12 rows")

    def test_another_number_is_named(self, archive: Path) -> None:
        cells: list[dict[str, Any]] = []

        def change(rows: pd.DataFrame) -> pd.DataFrame:
            at = rows.index[rows["status"] == "ok"][2]
            cells.append(rows.loc[[at]].to_dict("records")[0])
            return rows.assign(accuracy=rows["accuracy"].where(rows.index != at, 0.99))

        seal(archive, self.altered(archive, change))
        cell = cells[0]
        assert refused(archive) == (
            f"shards/{cell['experiment']}/{cell['shard']}.parquet: cell {cell['cell']}: found {cell['accuracy']!r}, "
            "expected the accuracy 0.99 of rows.parquet: the table was not gathered from these shards; "
            "run `make report`, then `spikebench archive` again"
        )

    def test_a_row_whose_axes_are_another_cells_is_named(self, archive: Path) -> None:
        seal(archive, self.altered(archive, lambda rows: rows.assign(severity=0.5)))
        said = refused(archive)
        assert said.startswith("rows.parquet: cell ")
        assert ": found the axes of the cell " in said

    def test_a_shard_that_is_not_there_is_named(self, archive: Path) -> None:
        members = content(archive)
        gone = next(name for name in members if "/shards/" in name)
        del members[gone]
        seal(archive, members)
        said = refused(archive)
        assert said.startswith(f"{gone.removeprefix(TOP + '/')}: cell ")
        assert ": found no row, expected the status " in said

    def test_a_row_that_was_left_out_is_noticed(self, archive: Path) -> None:
        """Called missing, and counted so, though its shard has it."""

        def change(rows: pd.DataFrame) -> pd.DataFrame:
            return rows.assign(status=rows["status"].replace("failed", "missing"))

        seal(archive, self.altered(archive, change), rows={"total": 12, "by_status": {"missing": 6, "ok": 6}})
        assert "found 'failed', expected the status 'missing' of rows.parquet" in refused(archive)

    def test_counts_must_be_those_of_the_table(self, archive: Path) -> None:
        seal(archive, self.altered(archive, lambda rows: rows.iloc[1:]))
        assert refused(archive).startswith("rows.parquet: found ")
        members = content(archive)
        seal(archive, members, rows={"total": 12, "by_status": {"ok": 12}})
        said = refused(archive)
        assert ", expected 12 ok of the preset tiny by manifest.json" in said

    @pytest.mark.parametrize("which", ["rows.parquet", "shards/"])
    def test_what_cannot_be_read_is_named(self, archive: Path, which: str) -> None:
        members = content(archive)
        name = next(name for name in members if which in name)
        seal(archive, {**members, name: b"PAR1 half of it"})
        member = name.removeprefix(f"{TOP}/")
        assert refused(archive).startswith(
            f"{member}: found no rows that can be read, expected one of each of its cells"
        )


def test_by_the_command_line(project: Project) -> None:
    done = project.run("spikebench", "archive")
    assert (done.status, len(done.sentences)) == (1, 1)
    assert "rows.parquet does not exist: run `make report`" in done.sentences[0]

    train(project)
    done = project.run("spikebench", "archive")
    assert (done.status, done.said.split(",")[0]) == (0, "results/spikebench-tiny.zip: preset tiny")
    archive = project.root / "results" / "spikebench-tiny.zip"
    done = project.run("spikebench", "verify-archive", "results/spikebench-tiny.zip")
    assert (done.status, done.said.split(",")[0]) == (0, "results/spikebench-tiny.zip: preset tiny")

    archive.write_bytes(archive.read_bytes()[:-1000])
    done = project.run("spikebench", "verify-archive", "results/spikebench-tiny.zip")
    assert done.status == 1
    assert done.said.startswith("spikebench: results/spikebench-tiny.zip: cannot be read as a zip file (")
    assert len(done.said.splitlines()) == 1
