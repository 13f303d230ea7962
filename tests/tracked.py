"""Rows, a database made of them, and the client that reads it back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from spikebench.claims import Claim
from spikebench.tracking import Summary, synchronise

REPORTED = ["nll", "brier", "ece_width_15", "spikes", "energy_pj", "bit_error", "log_likelihood"]


def make_row(cell: str, **columns: Any) -> dict[str, Any]:
    """One finished MH cell; keywords change its columns."""
    axes = {
        "cell": cell,
        "shard": "s" * 16,
        "experiment": "chip_in_the_loop",
        "sweeps": "severity",
        "paper": "2402.06284",
        "preset": "default",
        "dataset": "breast_cancer",
        "data_kind": "real",
        "data_source": "",
        "data_settings": "{}",
        "network": '{"hidden":[8]}',
        "method": "metropolis_hastings",
        "mode": "in-the-loop",
        "variant": "",
        "settings": "{}",
        "fault": "threshold+tau+gain",
        "severity": 0.0,
        "training_size": 398,
        "repetition": 0,
    }
    outcome = {
        "status": "ok",
        "error": "",
        "accuracy": 0.9,
        **dict.fromkeys(REPORTED, 0.25),
        "gradient_steps": math.nan,
    }
    texts = {"choice": "{}", "diagnostics": "{}", "estimates": "{}", "reliability": "{}"}
    measured = {"seconds": 1.5, "shared": True, "host": "chip", "versions": "{}", "commit": "c0ffee", "digest": "d"}
    return axes | outcome | texts | measured | columns


def make_rows(preset: str = "default") -> pd.DataFrame:
    """Two arms at severities 0, 0.5, 1 with two repetitions, one of them failed; and one cell in a second experiment.

    The accuracy is 0.9 - 0.4 severity + 0.02 repetition, minus 0.1 for backprop.
    """
    rows = []
    for method, mode, loss in (("metropolis_hastings", "in-the-loop", 0.0), ("backprop", "off-chip", 0.1)):
        for severity in (0.0, 0.5, 1.0):
            for repetition in (0, 1):
                cell = f"{method[:2]}-{severity}-{repetition}"
                axes = {"method": method, "mode": mode, "severity": severity, "repetition": repetition}
                accuracy = 0.9 - 0.4 * severity + 0.02 * repetition - loss
                rows.append(make_row(cell, preset=preset, accuracy=accuracy, **axes))
    nothing = {"accuracy": math.nan, **dict.fromkeys(REPORTED, math.nan), "seconds": math.nan}
    rows[1] |= nothing | {"status": "failed", "error": "ValueError: no spikes", "choice": None}
    rows.append(make_row("other", preset=preset, experiment="grand_comparison"))
    return pd.DataFrame(rows)


def make_traces() -> pd.DataFrame:
    """Two chains of three points for one cell."""
    points = [("me-0.0-0", "log_posterior", c, s, -10.0 * (c + 1) + s) for c in (0, 1) for s in (20, 0, 10)]
    return pd.DataFrame(points, columns=["cell", "name", "chain", "step", "value"])


@dataclass
class Place:
    """A database with its artifacts and figures, and the client that reads it."""

    folder: Path
    rows: pd.DataFrame = field(default_factory=make_rows)
    traces: pd.DataFrame = field(default_factory=make_traces)
    figures: Path | None = None
    claims: Sequence[Claim] = ()

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def synchronise(self, rows: pd.DataFrame | None = None, preset: str = "default") -> Summary:
        rows = self.rows if rows is None else rows
        artifacts = self.folder / "artifacts"
        return synchronise(rows, self.traces, self.figures, self.database, artifacts, preset, self.claims)

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.database}")

    def experiments(self) -> dict[str, Any]:
        return {e.name: e for e in self.client.search_experiments() if e.name != "Default"}

    def runs(self, experiment: str = "chip_in_the_loop [default]") -> dict[str, Any]:
        """Runs by cell id (children) or name (others)."""
        found = self.client.search_runs([self.experiments()[experiment].experiment_id], max_results=1000)
        runs = {run.data.tags.get("cell", run.info.run_name): run for run in found}
        assert len(runs) == len(found)
        return runs

    def history(self, run: Any, metric: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, metric)]

    def dump(self) -> dict[str, Any]:
        """All that all runs hold but ids; parents by name."""
        return {experiment: self._dump(self.runs(experiment)) for experiment in self.experiments()}

    def _dump(self, runs: dict[str, Any]) -> dict[str, Any]:
        names = {run.info.run_id: name for name, run in runs.items()}
        result = {}
        for name, run in runs.items():
            parent = names.get(run.data.tags.get("mlflow.parentRunId", ""))
            stepped = [metric for metric in run.data.metrics if ".chain" in metric or "/" in metric]
            result[name] = {
                "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
                "params": run.data.params,
                "tags": run.data.tags | {"mlflow.parentRunId": parent},
                "metrics": run.data.metrics,
                "stepped": {metric: self.history(run, metric) for metric in stepped},
                "artifacts": [(a.path, a.file_size) for a in self.client.list_artifacts(run.info.run_id)],
            }
        return result


def add_figures(place: Place, *names: str) -> None:
    place.figures = place.folder / "figures"
    place.figures.mkdir(exist_ok=True)
    for name in names:
        place.figures.joinpath(f"{name}.png").write_bytes(b"\x89PNG " + name.encode())
        place.figures.joinpath(f"{name}.pdf").write_bytes(b"%PDF " + name.encode())
        place.figures.joinpath(f"{name}.json").write_text(json.dumps({"name": name, "experiment": "chip_in_the_loop"}))
