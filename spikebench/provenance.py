"""What a reader needs to trust a report: data, methods, versions, commit, machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import pandas as pd

from spikebench import plugins
from spikebench.config import Config


def describe(config: Config, rows: pd.DataFrame) -> dict[str, Any]:
    """Of the finished rows: data sets with hash, licence and citation; methods with citation; versions and commits."""
    finished = rows[rows["status"] == "ok"]
    datasets = []
    for name, kind in sorted(set(zip(finished["dataset"], finished["data_kind"], strict=True))):
        module = plugins.load("datasets", name, config.root)
        datasets.append(asdict(module.load(module.Settings(kind=kind)).provenance))
    methods = [
        {"name": name, "citation": plugins.load("methods", name, config.root).CITATION}
        for name in sorted(set(finished["method"]))
    ]
    return {
        "datasets": datasets,
        "methods": methods,
        "versions": _latest(finished["versions"]),
        "commits": sorted({commit for commit in finished["commit"] if commit}),
        "hosts": sorted(set(finished["host"])),
        "cpus": os.cpu_count(),
        "preset": {key: config.preset[key] for key in ("name", "description", "repetitions")},
    }


def _latest(versions: pd.Series) -> dict[str, str]:
    return dict(json.loads(versions.max())) if len(versions) else {}
