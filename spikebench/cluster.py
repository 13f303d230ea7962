"""What is to be known of a Slurm cluster before jobs are sent to it."""

from __future__ import annotations

import math
import re
import subprocess
from typing import Any

from spikebench.errors import UserError

#: Of a queue that forgets sooner the executor, which waits up to three minutes, would not learn what became of a job.
SHORTEST = 240.0


def settle(executor: Any) -> str:
    """Choose how Slurm is asked what became of jobs: by its accounting, or where it keeps none by its queue.

    The executor takes ``sacct`` wherever the command exists; with accounting switched off it would wait for ever.

    Args:
        executor: the settings of Snakemake's executor; changed in place. Of one that is not Slurm's nothing is done.

    Returns:
        What was chosen, ``sacct`` or ``squeue``; empty where there was nothing to choose.

    Raises:
        UserError: Slurm forgets ended jobs before anybody could ask.
    """
    if not hasattr(executor, "status_command"):
        return ""
    if _answers("sacct", "--noheader", "--allocations", "--starttime", "now") is not None:
        executor.status_command = "sacct"
        return "sacct"
    age = _job_age()
    if age < SHORTEST:
        raise UserError(
            f"Slurm keeps no accounts (sacct) and forgets ended jobs after {age:g} s (MinJobAge of slurm.conf): what "
            f"became of a job cannot be known; expected accounting or {SHORTEST:g} s and more"
        )
    executor.status_command = "squeue"
    return "squeue"


def _job_age() -> float:
    """Seconds that an ended job stays visible in the queue; of a Slurm that tells nothing, none."""
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", _answers("scontrol", "show", "config") or "", re.MULTILINE)
    if found is None:
        return 0.0
    return float(found[1]) or math.inf  # 0: it never forgets


def _answers(*command: str) -> str | None:
    """What a command of Slurm says; None where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
