"""Rows of other machines, or of partial sweeps, into the shards of this checkout; a contradiction is named."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikebench import rows as row_file
from spikebench.errors import UserError
from spikebench.foreign import Key, Rows, Source, differing, shard_file
from spikebench.naming import display_name
from spikebench.paths import Results, replacing
from spikebench.sweep import Plan, Planned

#: Statuses that say what training came to. The others say that a machine could not do it, which another could.
_RESULTS = ("ok", "diverged")
#: Conflicts that are shown; all of them are listed in a file of ``results/<preset>/``.
_NAMED = 5
_CONFLICTS = "conflicts.txt"


@dataclass
class _Settled:
    """What came of the rows of one shard or of many: chosen rows by cell, and what a person is told.

    Conflicts are those that nobody decided; those that ``prefer`` decided are beside them.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    conflicts: list[str] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)


def merge(plan: Plan, sources: Sequence[Path], prefer: Path | None = None) -> str:
    """Add to this checkout's shards what the sources know of the plan's cells, all of it or, at a conflict, nothing.

    A source's row counts if its digest is the plan's: the same code, settings and data. A result (``ok`` or
    ``diverged``) wins over a failure, a time-out or ``unavailable``, which are no result; of equal rows, and of rows
    without a result, the one that is here stays, else the first source's. Own rows that are stale or not planned stay.

    Shards are written one by one, so a merge that was killed goes on when it is started again, and one that is repeated
    writes nothing. No manifest is written for a job that has none, since Snakemake, which did not see it run, would not
    notice when it becomes stale: the next ``snakemake`` starts the jobs, which find their rows fresh, train what is
    still missing, and end in seconds.

    All conflicts, else those that ``prefer`` decided, are listed in ``results/<preset>/conflicts.txt``; a merge without
    any removes it.

    Args:
        plan: of this checkout; no workflow may be at work in it (``snakefile.hold_the_project``).
        sources: folders ``results/<preset>`` of other checkouts, or archives of ``bundle.write_archive``.
        prefer: the source (or this checkout's own folder) whose row wins where results differ; None: nobody's.

    Returns:
        A sentence that says what was taken, from where, what was not, and why.

    Raises:
        UserError: a source is missing, damaged, empty or of another preset; a shard that is here cannot be read;
            ``prefer`` is none of them; or results differ, which names cells, columns, values and places. Nothing has
            been written then but the list of conflicts.
    """
    results = Results(plan.config.name, plan.config.root)
    with ExitStack() as stack:
        opened = [Source.opened(path, results.preset, stack) for path in sources]
        names = [f"results/{results.preset}", *(source.name for source in opened)]
        preferred = _preferred(prefer, [results.folder, *sources], names)

        def settle(key: Key, planned: Sequence[Planned]) -> _Settled:
            found = [source.rows(key) for source in opened]
            return _settle(planned, [_own(results, key), *found], names, preferred)

        total, changed = _Settled(), []
        for source in opened:
            for key in sorted(source.shards - plan.shards.keys()):
                total.counts["unplanned"] += len(source.rows(key))
        for key, planned in plan.shards.items():
            settled = settle(key, planned)
            total.counts.update(settled.counts)
            total.conflicts.extend(settled.conflicts)
            total.decided.extend(settled.decided)
            if settled.rows:
                changed.append((key, planned))
        _write_list(total.conflicts or total.decided, results.folder / _CONFLICTS)
        if total.conflicts:
            raise UserError(_contradiction(total.conflicts, f"{names[0]}/{_CONFLICTS}"))
        jobs = {
            (cells[0].cell.experiment, s): job.name for job in plan.jobs.values() for s, cells in job.shards.items()
        }
        # Rows are read once more rather than kept: those of a large preset would take much memory.
        for key, planned in changed:
            settled = settle(key, planned)
            if settled.conflicts or not settled.rows:
                raise UserError(
                    f"{shard_file(key)}: a source changed while it was read: merge again when it is at rest"
                )
            own = {row["cell"]: row for row in _own(results, key)}
            _run_again(results.job(jobs[key]))
            row_file.write({**own, **settled.rows}.values(), results.shard(*key))
    return _said(total, len(plan.planned), names, preferred)


def _own(results: Results, key: Key) -> Rows:
    """This checkout's rows of a shard; none where it has none, or a damaged one, whose cells would run again.

    Raises:
        UserError: there is one that cannot be opened; whole rows, taken for absent, would be written over.
    """
    try:
        content = results.shard(*key).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        place = f"results/{results.preset}/{shard_file(key)}"
        raise UserError(f"{place}: cannot be read ({error.strerror}): make it readable, or delete it") from None
    return row_file.read(io.BytesIO(content))


def _write_list(conflicts: Sequence[str], file: Path) -> None:
    """One a line; no file where there are none, so that none is left of an earlier merge."""
    if not conflicts:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in conflicts), encoding="utf-8")


def _run_again(manifest: Path) -> None:
    """Have the next workflow run a job that has run: its retry token, a parameter of its rule, becomes another.

    It would not do to remove the manifest: Snakemake makes nothing anew that only finished files depend on.
    """
    try:
        document = json.loads(manifest.read_text())
    except (FileNotFoundError, ValueError):
        manifest.unlink(missing_ok=True)
        return
    with replacing(manifest) as temporary:
        temporary.write_text(json.dumps({**document, "retry": f"merged, {time.time_ns()}"}, indent=1) + "\n")


def _preferred(prefer: Path | None, places: Sequence[Path], names: Sequence[str]) -> int | None:
    """Which place wins where results differ."""
    resolved = [place.resolve() for place in places]
    if prefer is not None and prefer.resolve() not in resolved:
        raise UserError(f"--prefer: found {str(prefer)!r}, allowed: {', '.join(names)}")
    return None if prefer is None else resolved.index(prefer.resolve())


def _settle(planned: Sequence[Planned], found: Sequence[Rows], names: Sequence[str], preferred: int | None) -> _Settled:
    """Choose a row for each cell of a shard from those of all places, of which the first is here."""
    settled = _Settled()
    places = [{row["cell"]: row for row in rows} for rows in found]
    digests = {p.cell.id: p.digest for p in planned}
    for rows in places[1:]:
        settled.counts["unplanned"] += len(rows.keys() - digests.keys())
        settled.counts["stale"] += sum(rows[cell]["digest"] != digests[cell] for cell in rows.keys() & digests.keys())
    for p in planned:
        rows_here = [(place, rows[p.cell.id]) for place, rows in enumerate(places) if p.cell.id in rows]
        fresh = [(place, row) for place, row in rows_here if row["digest"] == p.digest]
        # Where nobody has a result, the first row that says why.
        candidates = [(place, row) for place, row in fresh if row["status"] in _RESULTS] or fresh[:1]
        if not candidates:
            continue
        place, row = candidates[0]
        other = next((c for c in candidates if differing(row, c[1])), None)
        if other is not None:
            wanted = dict(candidates).get(-1 if preferred is None else preferred)
            told = settled.conflicts if wanted is None else settled.decided
            told.append(_conflict(p, names[place], row, names[other[0]], other[1]))
            if wanted is None:
                continue
            # The first of those that are equal to it: what is here already stays.
            place, row = next(c for c in candidates if not differing(c[1], wanted))
        settled.counts["instead"] += row["status"] in _RESULTS and len(candidates) < len(fresh)
        settled.counts["fresh"] += 1
        if place:
            settled.rows[p.cell.id] = {**row, "sweeps": p.sweeps, "paper": p.paper}
            settled.counts[f"from {place}"] += 1
    return settled


def _conflict(p: Planned, name: str, row: Mapping[str, Any], other_name: str, other: Mapping[str, Any]) -> str:
    """One line: the cell, the columns, and the first one's values with where they were measured."""
    cell, columns = p.cell, differing(row, other)

    def value(name: str, row: Mapping[str, Any]) -> str:
        text, versions = repr(row[columns[0]]), str(row["versions"]).strip("{}").replace('"', "")
        made = "; ".join(filter(None, (row["host"], versions, row["commit"] and f"commit {row['commit']}")))
        return f"{text if len(text) < 80 else text[:80] + '…'} in {name} ({made})"

    arm = " ".join(filter(None, (cell.method, cell.mode, cell.variant)))
    dataset = display_name(cell.dataset, cell.data_kind, cell.data_source)
    return (
        f"{shard_file((cell.experiment, p.shard))}: {arm} on {dataset} ({cell.training_size} examples), fault "
        f"{cell.fault}, severity {cell.severity:g}, repetition {cell.repetition}: different {', '.join(columns)}; "
        f"{columns[0]} is {value(name, row)} and {value(other_name, other)}"
    )


def _contradiction(conflicts: Sequence[str], listed: str) -> str:
    more = [f"and {len(conflicts) - _NAMED} more"] if len(conflicts) > _NAMED else []
    return "\n  ".join(
        (
            f"nothing was merged, for results differ between places (cells: {len(conflicts)}):",
            *conflicts[:_NAMED],
            *more,
            f"{listed} lists all of them: say whose rows count with `--prefer SOURCE`, or delete these shards in one "
            "place and merge again; deleted in all places, and the manifests in jobs/ with them, `snakemake` trains "
            "them anew on one machine",
        )
    )


def _said(total: _Settled, planned: int, names: Sequence[str], preferred: int | None) -> str:
    counts, decided = total.counts, len(total.decided)
    taken = [f"{counts[f'from {place}']} from {name}" for place, name in enumerate(names) if place]
    told = [f"rows taken: {', '.join(taken)}", f"{counts['fresh']} of {planned} cells of {names[0]} have a row"]
    if counts["instead"]:
        told.append(f"{counts['instead']} have a result in one place and a failure in another, where the result counts")
    if preferred is not None:
        listed = f", and are listed in {names[0]}/{_CONFLICTS}" if decided else ""
        told.append(f"{decided} conflicts were decided by --prefer for {names[preferred]}{listed}")
    if counts["stale"]:
        told.append(f"{counts['stale']} rows were not taken as they are stale: of other code, settings or data")
    if counts["unplanned"]:
        told.append(f"{counts['unplanned']} rows were not taken as their cells are not in the plan")
    return "; ".join(
        (*told, "`snakemake` trains what is missing and gathers anew, `make report` gathers what there is")
    )
