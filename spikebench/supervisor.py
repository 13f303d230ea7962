"""Runs one job: sends its shards to a worker, kills on time, and always leaves a complete Parquet a shard.

The supervisor imports no torch. A failure is a row, never an absence: an exception, a crash, a time-out and a
divergence each end as a status. It ends with 0 whenever every cell has a row.
"""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from spikebench import rows as row_file
from spikebench.config import Config
from spikebench.paths import Results, replacing
from spikebench.progress import Progress
from spikebench.resources import device
from spikebench.seeds import digest
from spikebench.sweep import Job, Planned
from spikebench.unpacking import lock

Rows = list[dict[str, Any]]

#: Seconds a worker may take to import torch before it is given up; the cells' own limits begin afterwards.
START_SECONDS = 300.0


class _TimedOut(Exception):
    """The worker did not answer in time; it has been killed."""


class _Failed(Exception):
    """The worker answered with an error, or died."""


class _Machine(_Failed):
    """It is the machine's failure, not the method's: the worker was killed, could not start, or lacked memory."""


class GaveUp(Exception):
    """Another try of the job, elsewhere, with more memory or time, is better than rows that say what went wrong."""


#: Signals that a machine sends, most often for memory or time: a bug of a method's ends with others.
_SENT = {signal.SIGKILL, signal.SIGTERM, signal.SIGBUS, signal.SIGXCPU, signal.SIGILL}
#: Seconds before a cluster ends the job in which rows can still be written.
MARGIN = 30.0


@dataclass(frozen=True)
class Tries:
    """How often a job is tried, where a cluster may end it.

    Attributes:
        last: whether this is the last try: what goes wrong now becomes rows.
        until: when the cluster will end it, in seconds since the epoch.
    """

    last: bool = True
    until: float = math.inf

    @classmethod
    def of(cls, attempt: int, minutes: float = math.inf) -> Tries:
        """Of try 1, 2, ... of as many as the workflow said (``snakefile.announce_tries``).

        Args:
            attempt: its number.
            minutes: that the job asked for; only a cluster makes it keep to them.
        """
        last = attempt >= int(os.environ.get("SPIKEBENCH_TRIES", "1"))
        ends = last and "SLURM_JOB_ID" in os.environ
        return cls(last, time.time() + 60 * minutes - MARGIN if ends else math.inf)


class _Worker:
    """One worker process, started when first needed and started anew after it was killed."""

    def __init__(self, log: TextIO) -> None:
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        #: Seconds that all starts of a process have taken.
        self.starting = 0.0

    def ask(self, request: Mapping[str, Any], seconds: float, report: Callable[[float], None]) -> Rows:
        """The rows of a request, within so many seconds; ``report`` hears of the share that is done.

        Raises:
            _TimedOut: it took longer; the worker has been killed.
            _Machine: its machine was to blame.
            _Failed: the worker said so, or died.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        deadline = time.monotonic() + seconds
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead: the queue's end below says how
        while True:
            message = self._receive(process, deadline)
            if "share" in message:
                report(message["share"])
            elif message.get("machine"):
                self.stop()  # a GPU's error would be met again by all that this process is asked
                raise _Machine(message["error"])
            elif "error" in message:
                raise _Failed(message["error"])
            else:
                rows: Rows = message["rows"]
                return rows

    def _receive(self, process: subprocess.Popen[str], deadline: float) -> dict[str, Any]:
        try:
            answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            self.stop()
            raise _TimedOut from None
        if answer is None:
            code = process.wait()
            self._process = None
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            kind = _Machine if -code in _SENT else _Failed
            raise kind(f"the worker process died ({cause}); out of memory is a common cause")
        try:
            message: dict[str, Any] = json.loads(answer)
        except ValueError:
            self.stop()
            raise _Failed("the worker's answer could not be read: something else wrote into it") from None
        return message

    def _start(self) -> subprocess.Popen[str]:
        """A new process that has imported what training needs."""
        clock = time.monotonic()
        command = [sys.executable, "-m", "spikebench.worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True)
        answers: queue.Queue[str | None] = queue.Queue()

        def pump() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.endswith("\n"):  # else it died in the middle of an answer
                    answers.put(line)
            answers.put(None)

        threading.Thread(target=pump, daemon=True).start()
        self._process, self._answers = process, answers
        try:
            self._receive(process, time.monotonic() + START_SECONDS)
        except _TimedOut:
            raise _Machine(f"the worker process was not ready after {START_SECONDS:.0f} s") from None
        except _Failed as died:  # before any method ran
            raise _Machine(str(died)) from None
        finally:
            self.starting += time.monotonic() - clock
        return process

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def die_with_parent(parent: int | None = None) -> None:
    """End this process soon after the one that started it: an orphan must not go on writing.

    Args:
        parent: the process that started it, where somebody knows: it may be gone before this is called.
    """
    parent = parent or os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)  # the worker notices by the end of its standard input

    threading.Thread(target=watch, daemon=True).start()


def run_job(job: Job, config: Config, retry: str = "none", log: Path | None = None, tries: Tries = Tries()) -> None:
    """Train what is stale or missing of a job's shards, then write its manifest.

    Finished shards are skipped, so a job that was killed goes on where it was. Of two processes with the same job, as
    a cluster may have after its Snakemake was killed, one waits for the other.

    Args:
        job: from the plan.
        config: of the plan.
        retry: the token that made it run (``snakefile.retry_token``), recorded in the manifest.
        log: gets what the job and its worker say; None leaves it to standard error.
        tries: which of how many this is.

    Raises:
        GaveUp: there will be another try for what went wrong.
    """
    if log is None:
        _run_job(job, config, retry, sys.stderr, tries)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1) as stream:
        lock(stream, lambda: print(f"[{job.name}] another process is at it: waiting", file=stream))
        _run_job(job, config, retry, stream, tries)


def _run_job(job: Job, config: Config, retry: str, stream: TextIO, tries: Tries) -> None:
    run = _Run(job.name)
    results = Results(config.name, config.root)
    retried = {status for status in config.main["retry"].split(",") if status}
    worker = _Worker(stream)
    progress = Progress(job.name, sum(map(len, job.shards.values())), stream)
    hashes: dict[str, str] = {}
    statuses: Counter[str] = Counter()
    try:
        for shard, planned in job.shards.items():
            path = results.shard(planned[0].cell.experiment, shard)
            known = {row["cell"]: row for row in row_file.read(path)}
            fresh = {
                p.cell.id: known[p.cell.id]
                for p in planned
                if p.cell.id in known
                and known[p.cell.id]["digest"] == p.digest
                and known[p.cell.id]["status"] not in retried
            }
            progress.skip(len(fresh))
            missing = [p for p in planned if p.cell.id not in fresh]
            made = list(_train(missing, config, worker, progress, tries)) if missing else []
            run.trained(made)
            # The axes that are not part of a cell's identity may have changed although its numbers are fresh.
            kept = [{**fresh[p.cell.id], "sweeps": p.sweeps, "paper": p.paper} for p in planned if p.cell.id in fresh]
            rows = [*kept, *made]
            if made or len(known) != len(rows) or kept != list(fresh.values()):
                row_file.write(rows, path)
            _forget(results.checkpoints(planned[0].cell.experiment, shard), planned, rows)
            hashes[shard] = row_file.content_hash(rows)
            statuses.update(row["status"] for row in rows)
    finally:
        worker.stop()
        progress.close()
    run.write(times_file(results, job.name), worker.starting)
    manifest = {"job": job.name, "digest": job.digest, "retry": retry, "statuses": statuses, "shards": hashes}
    with replacing(results.job(job.name)) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")


def times_file(results: Results, job: str) -> Path:
    """The times of all runs of a job that came to an end: no part of its manifest, which equal results leave equal.

    ``{"runs": [...]}``, a run with ``started`` (seconds since the epoch), ``cells`` trained in it, and in seconds:
    ``before`` (of a core: imports and plan of the supervisor), ``wall`` (from then on), ``start_up`` (of its worker
    processes, until they can train), ``training`` (as its rows have it) and ``first_row`` (until a shard was trained;
    null where none was).
    """
    return results.folder / "times" / f"{job}.json"


class _Run:
    """The stop-watch of a job."""

    def __init__(self, job: str) -> None:
        self._job = job
        # Measured of the processor, since nobody knows here when this process began.
        self._before = time.process_time()
        self._started, self._clock = time.time(), time.monotonic()
        self._cells, self._training = 0, 0.0
        self._first: float | None = None

    def trained(self, rows: Rows) -> None:
        """Count rows as they come."""
        if rows and self._first is None:
            self._first = time.monotonic() - self._clock
        self._cells += len(rows)
        self._training += sum(row["seconds"] for row in rows if math.isfinite(row["seconds"]))

    def write(self, path: Path, start_up: float) -> None:
        """Add this run to those that the file has."""
        try:
            runs = json.loads(path.read_text())["runs"]
        except (FileNotFoundError, ValueError, KeyError):
            runs = []
        seconds = {"before": self._before, "wall": time.monotonic() - self._clock, "start_up": start_up}
        seconds |= {"training": self._training} | ({} if self._first is None else {"first_row": self._first})
        run = {"started": self._started, "cells": self._cells, "first_row": None}
        run |= {name: round(value, 3) for name, value in seconds.items()}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"job": self._job, "runs": [*runs, run]}, indent=1) + "\n")


def _checkpoints(folder: Path, group: Sequence[Planned]) -> Path:
    """Of cells that are trained together, as they are now: others, or changed ones, start anew."""
    return folder / digest([[p.cell.id, p.digest] for p in group], 12)


def _forget(folder: Path, planned: Sequence[Planned], rows: Rows) -> None:
    """Remove a shard's checkpoints, but those of cells that ran out of time: a longer limit lets them go on."""
    statuses = {row["cell"]: row["status"] for row in rows}
    late = [p for p in planned if statuses[p.cell.id] == "timed-out"]
    kept = {_checkpoints(folder, group) for group in (late, *([p] for p in late)) if group}
    for path in folder.glob("*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)


def _train(
    planned: Sequence[Planned], config: Config, worker: _Worker, progress: Progress, tries: Tries
) -> Iterator[dict[str, Any]]:
    """Rows of these cells of one shard: all at once, where that fails one by one, so that the guilty stand alone."""
    limits = {name: seconds * config.scale for name, seconds in config.main["limits"].items()}
    surroundings = row_file.surroundings(config.root)
    folder = Results(config.name, config.root).checkpoints(planned[0].cell.experiment, planned[0].shard)

    def ask(group: Sequence[Planned], seconds: float) -> Rows:
        cell = group[0].cell
        request = {
            "cells": [asdict(p.cell) for p in group],
            "data": json.loads(group[0].data.settings),
            "settings": config.method_settings(cell.method, json.loads(cell.settings)),
            "faults": {p.cell.fault: config.faults[p.cell.fault] for p in group},
            "root": str(config.root),
            "checkpoints": str(_checkpoints(folder, group)),
            "checkpoint_seconds": config.main["checkpoints"]["seconds"],
            "device": device(cell, config),
        }
        left, learns = tries.until - time.time(), False

        def report(share: float) -> None:
            nonlocal learns
            learns = True
            progress.show(share * len(group))

        try:
            if left <= 0:
                raise _TimedOut
            return worker.ask(request, min(seconds, left), report)
        except _Machine as failure:
            if tries.last:
                raise
            raise GaveUp(f"{failure}: to be tried again with more") from None
        except _TimedOut:
            if learns and left < seconds:
                raise GaveUp("the job's time is over; the next call of snakemake goes on from its checkpoint") from None
            raise

    def singly(p: Planned) -> dict[str, Any]:
        started, clock = time.time(), time.monotonic()
        try:
            return ask([p], limits["cell_seconds"])[0]
        except _TimedOut:
            error = f"killed after {limits['cell_seconds']:g} s (limits.cell_seconds of config/config.yaml)"
            if tries.until < time.time():
                error = "learnt nothing until the cluster ended the job (job_hours of config/config.yaml)"
            outcome = {"status": "timed-out", "error": error}
        except _Failed as failure:
            outcome = {"status": "failed", "error": str(failure)}
        return {**outcome, "started": started, "seconds": time.monotonic() - clock}

    try:
        # A shard of one cell has no gentler way: it is asked for under its own limit at once.
        outcomes = ask(planned, limits["shard_seconds"]) if len(planned) > 1 else None
    except (_TimedOut, _Failed) as reason:
        kind = "took too long" if isinstance(reason, _TimedOut) else f"failed ({reason})"
        progress.say(f"shard {planned[0].shard} {kind}; its {len(planned)} cells run again singly")
        outcomes = None
    for number, p in enumerate(planned):
        outcome = outcomes[number] if outcomes else singly(p)
        progress.done(outcome["status"])
        yield row_file.complete(p, outcome, surroundings)
