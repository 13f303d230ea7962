"""MLflow's page: it answers, names the training view and leaves no process behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from spikebench.errors import UserError
from spikebench.mlflow_ui import HOST, serve

ROOT = Path(__file__).parents[1]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def processes(word: str) -> list[str]:
    """The command lines, but that of this test, that hold a word."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(line.read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # ended meanwhile
            continue
    return [line for line in found if word in line]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts the processes of Linux")
def test_it_serves_until_sigterm_and_leaves_nothing(tmp_path: Path, port: int) -> None:
    database = tmp_path / "mlflow.db"
    script = f"""
from pathlib import Path
import pandas as pd
from spikebench.mlflow_ui import serve
from spikebench.mlflow_store import writing
database = Path({str(database)!r})
with writing(database, database.parent) as store:
    for name in ("chip [default]", "chip [smoke]"):
        store.experiment(name, "", database.parent)
serve(database, {port}, browser=False)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as launcher:
        try:
            assert launcher.stdout is not None
            line = launcher.stdout.readline()
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=10) as answer:
                assert answer.status == 200
            served = processes(str(database))
        finally:
            launcher.send_signal(signal.SIGTERM)
            status = launcher.wait(30)
    view = "workflowType=machine_learning"
    assert line == (
        f"MLflow: http://{HOST}:{port}/?{view}#/experiments/1/runs?{view}&compareRunsMode=CHART (Ctrl-C ends it)\n"
    )
    assert len(served) >= 2  # the launcher and at least one process of the server
    assert status == 0
    assert processes(str(database)) == []
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0


def test_a_missing_database_is_named(tmp_path: Path, port: int) -> None:
    with pytest.raises(UserError, match=r"mlflow.db does not exist: run `make` first"):
        serve(tmp_path / "mlflow.db", port)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} of 127.0.0.1 cannot be used \(Address already in use\)"):
            serve(tmp_path / "mlflow.db", port)
