"""What is to be known of a Slurm cluster before jobs are sent to it."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from spikebench.errors import UserError


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
    if age < 3:
        raise UserError(
            f"Slurm keeps no accounts (sacct) and forgets ended jobs after {age} s (MinJobAge of slurm.conf): what "
            "became of a job cannot be known; found less than 3 s, expected accounting or 120 s and more"
        )
    executor.status_command = "squeue"
    # The executor goes back to sacct where three of its waits are longer than Slurm's memory.
    executor.init_seconds_before_status_checks = min(executor.init_seconds_before_status_checks, age // 3)
    return "squeue"


def _job_age() -> int:
    """Seconds that an ended job stays visible in the queue."""
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", _answers("scontrol", "show", "config") or "", re.MULTILINE)
    return int(found[1]) if found else 0


def _answers(*command: str) -> str | None:
    """What a command of Slurm says; None where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
