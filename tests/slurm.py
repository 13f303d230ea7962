"""A real Slurm of one node on 127.0.0.1, for tests: no systemd, no control groups, no accounting, one folder.

It needs root and Debian's packages, which it installs where it may. It measures memory by asking the processes, and
ends jobs that take more than they asked for, as control groups do on a real cluster.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
#: Where commands are looked for; daemons lie where not every PATH leads.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")

CONFIGURATION = """
ClusterName=spikebench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/ended.txt
MinJobAge=86400
EnforcePartLimits=ALL
JobRequeue=0
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,bf_interval=2,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
KillWait=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=local Nodes={host} Default=YES MaxTime=INFINITE DefMemPerCPU=500 State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """The node and its folder."""

    folder: Path
    host: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell has."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{self.folder}{os.pathsep}{PATH}"}

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands says."""
        whole = {**os.environ, **self.environment}
        return subprocess.run(command, env=whole, capture_output=True, text=True, check=True, timeout=60).stdout

    def jobs(self, state: str = "all") -> list[dict[str, str]]:
        """Number, state and comment of all jobs that were ever sent, or of those in a state; the last one first."""
        said = self.ask("squeue", "--noheader", f"--states={state}", "--sort=-i", "--format=%i|%T|%k")
        return [dict(zip(("id", "state", "comment"), line.split("|"), strict=True)) for line in said.splitlines()]

    def table(self) -> str:
        """All jobs, what they asked for and what became of them, as people read it."""
        return self.ask("squeue", "--states=all", "--sort=i", "--format=%.5i %.60k %.12T %.4C %.8m %.10l %.10M")


def _why_not() -> str:
    """A reason for which no Slurm can run here, or nothing."""
    if os.getuid() != 0:
        return "Slurm's own node of these tests needs root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            subprocess.run(["apt-get", "-qq", *command], env=quiet, capture_output=True, check=False, timeout=600)
        missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"Slurm is not installed, and could not be: {', '.join(missing)}" if missing else ""


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster that runs until the block ends; a skipped test where it cannot, a failed one where CI is set."""
    reason = _why_not()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    started: list[subprocess.Popen[bytes]] = []
    cluster = Cluster(folder, socket.gethostname().split(".")[0])
    _write(cluster)

    def start(*command: str) -> None:
        with (folder / f"{command[0]}.out").open("wb") as out:
            whole = {**os.environ, **cluster.environment}
            started.append(subprocess.Popen(command, env=whole, stdout=out, stderr=subprocess.STDOUT))

    try:
        socket_name = str(folder / "munge.socket")
        key = ["--key-file", str(folder / "munge.key"), "--socket", socket_name]
        files = [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")]
        start("munged", "--foreground", "--force", *key, *files)
        _wait(cluster, "munge", "-n", "-S", socket_name)
        start("slurmctld", "-D", "-i", "-f", str(folder / "slurm.conf"))
        _wait(cluster, "scontrol", "ping")
        start("slurmd", "-D", "-N", cluster.host, "-f", str(folder / "slurm.conf"))
        _wait(cluster, "sinfo", "--noheader", "--states=idle", "--format=%T", says="idle")
        yield cluster
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _write(cluster: Cluster) -> None:
    """The configuration, a key, the node's device, and a way around what a plug-in leaves out."""
    folder = cluster.folder
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munge trusts no folder that others may write into
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "device").touch()
    (folder / "gres.conf").write_text(f"NodeName={cluster.host} Name=gpu File={folder}/device\n")
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    ports = [_free_port() for _ in range(2)]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=cluster.host,
            folder=folder,
            controller_port=ports[0],
            node_port=ports[1],
            cpus=os.cpu_count(),
            memory=int(0.8 * megabytes),
        )
    )
    # Inside of a job, Snakemake's plug-in calls srun without SLURM_CONF; a real cluster's lies where srun looks.
    srun = folder / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n')
    srun.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(cluster: Cluster, *command: str, says: str = "") -> None:
    deadline = time.monotonic() + 30
    whole = {**os.environ, **cluster.environment}
    while True:
        done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
        if done.returncode == 0 and says in done.stdout:
            return
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(cluster.folder.glob("*.log"))
            )
            raise AssertionError(f"{command[0]} was not ready after 30 s: {done.stdout}{done.stderr}\n{logs}")
        time.sleep(0.2)
