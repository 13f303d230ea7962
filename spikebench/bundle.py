"""A preset's results as one zip file: what is in it, how it is vouched for, and how it is checked."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from spikebench import rows as row_file
from spikebench.config import Config
from spikebench.errors import UserError
from spikebench.foreign import MANIFEST, Archive, differing, rows_of, shard_file
from spikebench.paths import Results, replacing

#: Of ``results/<preset>/`` and of the checkout. What is not named here (data, logs, databases) never gets in.
_RESULTS = (
    *("rows.parquet", "traces.parquet", "coverage.csv", "claims.json"),
    *("shards/**/*.parquet", "jobs/*.json", "times/*.json"),
    *("figures/*.png", "figures/*.pdf", "figures/*.json", "report/**/*"),
)
_CHECKOUT = ("config/**/*", "constraints.txt", "methods/*.py", "datasets/*.py")
_ROWS = "rows.parquet"
#: Without which nobody could say what the results are and how they are made again; and the preset's own file.
_REQUIRED = ("constraints.txt", "config/config.yaml", _ROWS, "claims.json")


def write_archive(config: Config, results: Results, destination: Path) -> str:
    """Write rows, configuration, pinned versions, plug-ins, figures, report and a manifest with all hashes as one zip.

    Equal contents give equal bytes but for the time of making in the manifest. The file is checked as a receiver would
    check it before it takes its name. A sentence says what is in it.

    Raises:
        UserError: there is no gathered table, it does not say what the shards say, something else is missing, a file
            names a folder of this machine, or the destination is a folder.
    """
    if not results.rows.exists():
        raise UserError(f"results/{results.preset}/rows.parquet does not exist: run `make report` or `snakemake` first")
    if destination.is_dir():
        raise UserError(f"{destination}: found a folder, expected the name of the file to write, as results/all.zip")
    files = {**_files(config.root, _CHECKOUT), **_files(results.folder, _RESULTS)}
    _check_complete(config, results, files)
    counts = Counter(row["status"] for row in rows_of(results.rows.read_bytes(), f"results/{results.preset}/{_ROWS}"))
    surroundings = row_file.surroundings(config.root)
    top, members = f"spikebench-{results.preset}", {}
    with replacing(destination) as temporary:
        with zipfile.ZipFile(temporary, "w") as zipped:
            for name, path in sorted(files.items()):
                content = path.read_bytes()
                _check_private(name, content)
                members[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
                _add(zipped, f"{top}/{name}", content)
            manifest = {
                "preset": results.preset,
                "rows": {"total": counts.total(), "by_status": dict(sorted(counts.items()))},
                "commit": surroundings["commit"],
                "versions": {"python": platform.python_version(), **json.loads(surroundings["versions"])},
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "members": members,
            }
            _add(zipped, f"{top}/{MANIFEST}", (json.dumps(manifest, indent=1) + "\n").encode())
        inside = destination.is_relative_to(config.root)
        return verify_archive(temporary, str(destination.relative_to(config.root) if inside else destination))


def _files(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    """Files by their names relative to ``folder``, without hidden ones (half-written ones among them) and caches."""
    found = {p.relative_to(folder).as_posix(): p for pattern in patterns for p in folder.glob(pattern) if p.is_file()}
    return {n: p for n, p in found.items() if not any(part[0] == "." or part == "__pycache__" for part in n.split("/"))}


def _check_complete(config: Config, results: Results, files: Collection[str]) -> None:
    missing = _missing(results.preset, files)
    drawn = any(name.startswith("figures/") and name.endswith(".png") for name in files)
    if not drawn and any(experiment["figures"] for experiment in config.experiments):
        missing.append("figures/*.png")
    if missing:
        raise UserError(
            f"found no {', '.join(missing)}, which belong in an archive: `make report` makes what lies in "
            f"results/{results.preset}, `git checkout -- FILE` brings back a file of the checkout"
        )


def _missing(preset: str, members: Collection[str]) -> list[str]:
    return [name for name in (*_REQUIRED, f"config/presets/{preset}.yaml") if name not in members]


def _check_private(name: str, content: bytes) -> None:
    """Of what users write: an archive is for others, whom a path of this machine does not help."""
    home = os.path.expanduser("~").rstrip("/")
    if name.endswith((".yaml", ".py", ".txt")) and home and f"{home}/".encode() in content:
        line = content[: content.index(f"{home}/".encode())].count(b"\n") + 1
        raise UserError(f"{name} line {line}: found a path in your home folder: write it as ~/…, then archive again")


def _add(zipped: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name)  # of 1980: when a file was written is no part of what it says
    info.create_system, info.external_attr = 3, 0o644 << 16
    zipped.writestr(info, content, zipfile.ZIP_DEFLATED)


def verify_archive(path: Path, name: str = "") -> str:
    """Check an archive without unpacking it: it is whole, members are as the manifest says, and rows as shards say.

    Args:
        path: of the zip file.
        name: what messages call it; its path where none is given.

    Returns:
        A sentence that says what is in it.

    Raises:
        UserError: anything else; the message names archive, member, what was found and what was expected.
    """
    with Archive(path, name) as archive:
        if missing := _missing(archive.preset, archive.members):
            raise UserError(f"{archive.name}: found no {', '.join(missing)}, expected what `spikebench archive` writes")
        for member in archive.members:
            archive.read(member)
        rows = rows_of(archive.read(_ROWS), f"{archive.name}: {_ROWS}")
        found = Counter(row["status"] for row in rows)
        if found != Counter(archive.counts) or {row["preset"] for row in rows} != {archive.preset}:
            told = (
                f"found {_said(found)}, expected {_said(archive.counts)} of the preset {archive.preset} by {MANIFEST}"
            )
            raise UserError(f"{archive.name}: {_ROWS}: {told}")
        for member, of_shard in groupby(sorted(rows, key=_shard), key=_shard):
            _compare(archive, list(of_shard), member)
        files = f"{len(archive.members)} files, each as its manifest of {archive.manifest.get('created')} says"
        return f"{archive.name}: preset {archive.preset}, {len(rows)} rows ({_said(archive.counts)}), {files}"


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[status]} {status}" for status in sorted(counts))


def _shard(row: Mapping[str, Any]) -> str:
    """The member that a gathered row was read from."""
    return shard_file((row["experiment"], row["shard"]))


def _compare(archive: Archive, gathered: list[dict[str, Any]], member: str) -> None:
    """Gathered rows of one shard against its file."""
    place = f"{archive.name}: {member}"
    rows = rows_of(archive.read(member), place) if member in archive.members else []
    trained = {row["cell"]: row for row in rows}
    for row in gathered:
        stored = trained.get(row["cell"])
        if row["status"] == "missing":  # gathered so because there is no row, or one that is stale
            wrong = ["status"] if stored and stored["digest"] == row["digest"] else []
        else:
            # Traces are gathered into a table of their own.
            wrong = [c for c in differing(row, stored) if c != "traces"] if stored else ["status"]
        if wrong:
            found = repr(stored[wrong[0]]) if stored else "no row"
            raise UserError(
                f"{place}: cell {row['cell']}: found {found}, expected the {wrong[0]} {row[wrong[0]]!r} of {_ROWS}:"
                " the table was not gathered from these shards; run `make report`, then `spikebench archive` again"
            )
