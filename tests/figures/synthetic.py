"""Rows of the gathered table's shape with known means, for the tests of figures and report.

The accuracy of a cell is ``mean_accuracy`` of its axes plus 0.01 x (repetition - middle) x the arm's spread, so that
with three repetitions an arm of spread 1 has the sample standard deviation 0.01.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

SEVERITIES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ARMS = (
    ("metropolis_hastings", "in-the-loop"),
    ("backprop", "in-the-loop"),
    ("backprop", "off-chip"),
    ("backprop", "oracle"),
)
#: Per arm: accuracy lost at severity 1, spread, chip presentations.
LOSS = {ARMS[0]: 0.02, ARMS[1]: 0.22, ARMS[2]: 0.30, ARMS[3]: 0.05}
SPREAD = {ARMS[0]: 1.0, ARMS[1]: 2.0, ARMS[2]: 3.0, ARMS[3]: 0.5}
PRESENTATIONS = {ARMS[0]: 3_980_000, ARMS[1]: 12_800, ARMS[2]: 0, ARMS[3]: 0}
FAULT_WEIGHT = {"threshold": 0.4, "gain-mismatch": 0.6, "threshold+tau+gain": 0.8, "paper-full": 1.0}
#: Of the third experiment: data set, kind and source; mean accuracy and size.
BASELINES = {
    ("mnist", "real", "mnist"): (0.95, 1250),
    ("mnist_dvs", "simulated", "mnist"): (0.84, 1250),
    ("cifar10", "real", "cifar10-subset-4000"): (0.3, 600),
    ("cifar10_dvs", "simulated", "cifar10-subset-4000"): (0.25, 600),
    ("two_moons", "synthetic", ""): (0.97, 200),
}
METRICS = (
    "accuracy", "nll", "brier", "ece_width_15", "ece_width_20", "ece_mass_15", "ece_null_low", "ece_null_high",
    "spikes", "synaptic_operations", "energy_pj", "chip_presentations", "gradient_steps", "test_size",
)  # fmt: skip


def mean_accuracy(arm: tuple[str, str], fault: str, severity: float, size: int) -> float:
    """What the repetitions of a point average to."""
    return 0.95 - LOSS.get(arm, 0.1) * severity * FAULT_WEIGHT.get(fault, 0.5) - 0.4 / size**0.5


def rows(repetitions: int = 3, preset: str = "default") -> pd.DataFrame:
    """The experiments as ``config/experiments`` lays them out, all cells finished."""
    made = [_row(*cell, repetitions, preset) for cell in _cells(repetitions)]
    for (data, (mean, size)), repetition in itertools.product(BASELINES.items(), range(repetitions)):
        base: tuple[Any, ...] = ("threshold", 0.0, size, {}, {"hidden": [64]}, {}, repetition, repetitions, preset)
        row = _row("data_baselines", "baselines", ARMS[2], *base, data)
        row["accuracy"] += mean - mean_accuracy(ARMS[2], "threshold", 0.0, size)
        made.append(row)
    table = pd.DataFrame(made)
    axes = [c for c in table.columns if c not in ("sweeps", *METRICS)]
    sweeps = table.groupby("cell")["sweeps"].agg(";".join)
    return table.drop_duplicates("cell")[axes + list(METRICS)].merge(sweeps.reset_index(), on="cell")


def _cells(repetitions: int) -> Iterator[tuple[Any, ...]]:
    """(experiment, sweep, arm, fault, severity, size, data settings, network, settings, repetition)."""
    base: tuple[dict[str, Any], ...] = ({}, {"hidden": [8]}, {})
    sizes, three = (10, 20, 40, 80, 160, 398), (0.0, 0.5, 1.0)
    papers = ("threshold", "threshold+tau+gain", "paper-full")
    grids: list[tuple[str, str, Any, Any, Any, Any, Any]] = [
        ("chip_in_the_loop", "severity", ARMS, papers, SEVERITIES, (398,), [base]),
        ("chip_in_the_loop", "training-size", ARMS, ("paper-full",), three, sizes, [base]),
        ("chip_in_the_loop", "encoding", ARMS[:2], ("paper-full",), three, (398,),
         [({"encoding": code}, *base[1:]) for code in ("latency", "rate")]),
        ("chip_in_the_loop", "width", ARMS[:2], ("paper-full",), three, (398,), [({}, {"hidden": [16]}, {})]),
        ("chip_in_the_loop", "temperature", ARMS[:1], ("paper-full",), three, (398,),
         [(*base[:2], {"temperature": t}) for t in (0.1, 10.0)]),
        ("faults_and_data", "faults-and-data", ARMS, ("threshold", "gain-mismatch", "paper-full"), SEVERITIES,
         (20, 80, 398), [base]),
    ]  # fmt: skip
    for experiment, sweep, arms, faults, severities, of_size, settings in grids:
        for arm, fault, severity, size, changed, repetition in itertools.product(
            arms, faults, severities, of_size, settings, range(repetitions)
        ):
            yield experiment, sweep, arm, fault, severity, size, *changed, repetition


def _row(
    experiment: str, sweep: str, arm: tuple[str, str], fault: str, severity: float, size: int,
    data_settings: dict[str, Any], network: dict[str, Any], settings: dict[str, Any], repetition: int,
    repetitions: int, preset: str, data: tuple[str, str, str] = ("breast_cancer", "real", ""),
) -> dict[str, Any]:  # fmt: skip
    axes = {
        "experiment": experiment,
        "paper": "2402.06284",
        "preset": preset,
        "dataset": data[0],
        "data_kind": data[1],
        "data_source": data[2],
        "data_settings": _canonical(data_settings),
        "network": _canonical(network),
        "method": arm[0],
        "mode": arm[1],
        "variant": "",
        "settings": _canonical(settings),
        "fault": fault,
        "severity": severity,
        "training_size": size,
        "repetition": repetition,
    }
    accuracy = mean_accuracy(arm, fault, severity, size) + 0.01 * (repetition - (repetitions - 1) / 2) * SPREAD[arm]
    estimates = {
        name: {"accuracy": accuracy - 0.01 * k}
        for k, name in enumerate(("averaged-predictions", "best-sample", "last-sample"))
    }
    return {
        **axes,
        "cell": hashlib.sha256(_canonical(axes).encode()).hexdigest()[:16],
        "shard": "0" * 16,
        "sweeps": sweep,
        "status": "ok",
        "error": "",
        "accuracy": accuracy,
        "nll": 2 * (1 - accuracy),
        "brier": 1 - accuracy,
        **dict.fromkeys(("ece_width_15", "ece_width_20", "ece_mass_15"), 0.5 * (1 - accuracy)),
        "ece_null_low": 0.02,
        "ece_null_high": 0.05,
        "spikes": 20.0,
        "synaptic_operations": 300.0,
        "energy_pj": 270.0,
        "chip_presentations": PRESENTATIONS[arm] * size / 398,
        "gradient_steps": 0 if arm == ARMS[0] else 400,
        "test_size": 171,
        "choice": "{}",
        "diagnostics": '{"acceptance_rate":0.25,"effective_sample_size":30.0}' if arm == ARMS[0] else "{}",
        "estimates": _canonical(estimates) if arm == ARMS[0] else "{}",
        "reliability": "{}",
        "seconds": 0.5,
        "shared": arm == ARMS[0],
        "peak_memory_mb": 400.0,
        "host": "host",
        "versions": "{}",
        "commit": "0" * 40,
        "data_sha256": "a" * 64,
        "split_sha256": "b" * 64,
        "digest": "c" * 16,
    }


def traces(table: pd.DataFrame, points: int = 40, chains: int = 2) -> pd.DataFrame:
    """Log-posterior and acceptance traces for the sampler's cells of the main sweep."""
    chosen = table[(table["method"] == "metropolis_hastings") & table["sweeps"].str.contains("severity")]
    chosen = chosen[chosen["fault"] == "paper-full"]
    steps = np.linspace(1, 100, points).astype(int)
    parts = []
    for cell, chain in itertools.product(chosen["cell"], range(chains)):
        climb = -60 - 220 * np.exp(-steps / 12) - 5 * chain
        settle = 0.25 + 0.3 * np.exp(-steps / 6)
        for name, values in (("log_posterior", climb), ("acceptance_rate", settle)):
            parts.append(pd.DataFrame({"cell": cell, "name": name, "chain": chain, "step": steps, "value": values}))
    return pd.concat(parts, ignore_index=True)


def fail(table: pd.DataFrame, where: pd.Series, status: str = "failed", error: str = "it broke") -> pd.DataFrame:
    """The table with some cells failed, as gathering would report them: the axes stay, the metrics are NaN."""
    table = table.copy()
    table.loc[where, ["status", "error"]] = [status, error]
    table[list(METRICS)] = table[list(METRICS)].astype(float)
    table.loc[where, list(METRICS)] = np.nan
    return table


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """The coverage table that goes with the rows."""
    by = ["experiment", "method", "mode", "dataset", "fault"]
    counts = table.groupby(by)["status"].value_counts().unstack(fill_value=0)
    statuses = ["ok", "failed", "timed-out", "diverged", "unavailable", "missing"]
    counts = counts.reindex(columns=statuses, fill_value=0)
    counts.insert(0, "expected", counts.sum(axis=1))
    return counts.reset_index()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
