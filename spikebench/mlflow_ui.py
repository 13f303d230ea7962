"""MLflow's web page over the database of the runs, on this machine only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from spikebench.errors import UserError

#: No telemetry, no chatter, and no job runner, which would outlive a killed server.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


def serve(database: Path, port: int = 5000, browser: bool = True) -> None:
    """Serve the database on 127.0.0.1 until Ctrl-C or SIGTERM; print the address and open it where there is a display.

    Raises:
        UserError: if the database does not exist, the port is taken or the server does not start.
    """
    if not database.exists():
        raise UserError(f"{database} does not exist: run `make` first")
    _check_free(port)
    with _server(database.resolve(), port) as server:
        _wait(server, port)
        address = _training_view(port)
        print(f"MLflow: {address} (Ctrl-C ends it)", flush=True)
        if browser and _has_display():
            webbrowser.open(address)
        server.wait()
    raise UserError(f"MLflow's server ended by itself with status {server.returncode}; its messages stand above")


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST} cannot be used ({error.strerror}): end what listens there or choose another"
            ) from error


@contextmanager
def _server(database: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The server and its workers in a session of their own, all ended when the block ends, by a signal too."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--uvicorn-opts", "--log-level=warning"]

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    server = subprocess.Popen(  # its messages go to stderr (2): stdout is for the address alone
        command, env=os.environ | ENVIRONMENT, stdout=2, start_new_session=True
    )
    try:
        yield server
    finally:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the ending
        _end(server)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the whole session: politely, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise UserError(
        f"MLflow's server did not answer on port {port} within {START_SECONDS:g} s "
        f"(status {server.returncode}); its messages stand above"
    )


def _training_view(port: int) -> str:
    """The charts of the newest experiment that is no smoke test (MLflow's front page is made for other work)."""
    search = urllib.request.Request(
        f"http://{HOST}:{port}/api/2.0/mlflow/experiments/search",
        json.dumps({"max_results": 1000}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(search, timeout=30) as answer:
        experiments = json.load(answer)["experiments"]
    best = max(experiments, key=lambda e: (not e["name"].endswith("[smoke]"), int(e["experiment_id"])))
    view = "workflowType=machine_learning"
    return f"http://{HOST}:{port}/?{view}#/experiments/{best['experiment_id']}/runs?{view}&compareRunsMode=CHART"


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
