"""What the Snakefile needs of Python: the plan, the lock of the project, and the retry token of a job."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from spikebench import cluster
from spikebench import config as configuration
from spikebench.errors import UserError
from spikebench.paths import Results
from spikebench.sweep import Plan, make_plan

_held: list[IO[str]] = []


def plan_or_exit(root: Path, overrides: Mapping[str, Any]) -> Plan:
    """The plan; a wrong configuration is one sentence on standard error and exit status 1.

    The configuration as ``--config`` left it goes to the jobs by their environment, so that they make the same plan.
    It is no rule parameter: what of it matters to a rule is in the digests, so a changed time limit reruns nothing.
    """
    os.environ["SPIKEBENCH_CONFIG"] = json.dumps(dict(overrides), sort_keys=True)
    try:
        return make_plan(configuration.load(root, overrides))
    except UserError as error:
        _exit(str(error))


def readable_or_exit(root: Path) -> None:
    """Check that ``config/config.yaml`` can be read, before Snakemake's ``configfile:``, which names no line."""
    try:
        configuration.read_main(root)
    except UserError as error:
        _exit(str(error))


def settle_or_exit(executor: Any) -> None:
    """Choose how a cluster is asked what became of jobs (``cluster.settle``), or say why that cannot be known."""
    try:
        cluster.settle(executor)
    except UserError as error:
        _exit(str(error))


def announce_tries(retries: int) -> None:
    """Let jobs know how often each is tried: only what goes wrong in the last try becomes rows (supervisor.Tries)."""
    os.environ["SPIKEBENCH_TRIES"] = str(1 + retries)


def _exit(sentence: str) -> NoReturn:
    print(f"spikebench: {sentence}", file=sys.stderr, flush=True)
    # Snakemake would wrap an exception in a traceback of its own.
    os._exit(1)


def hold_the_project(root: Path) -> None:
    """Hold the kernel's lock on ``results/.lock`` until this process ends, however it ends.

    Snakemake's own lock is a folder that outlives a killed process, so the profile switches it off.
    """
    path = root / "results" / ".lock"
    path.parent.mkdir(exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        _exit(f"another workflow (process {owner}) is at work in this folder: wait for it or end it")
    except OSError as error:  # some file systems of clusters
        print(f"spikebench: {path}: no locks here ({error.strerror}): start one workflow at a time", file=sys.stderr)
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    _held.append(file)


def retry_token(results: Results, job: str, statuses: str) -> str:
    """Changes when a job is to try cells again: a rule parameter, recorded in the job's manifest.

    Without anything to try again it is what the manifest recorded, so that nothing runs twice.
    """
    try:
        path = results.job(job)
        manifest = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return "none"
    wanted = sum(manifest["statuses"].get(status, 0) for status in statuses.split(",") if status)
    return f"{wanted} cells, {path.stat().st_mtime_ns}" if wanted else str(manifest["retry"])
