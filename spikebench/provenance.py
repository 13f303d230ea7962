"""What a reader needs to trust a report: data, methods, versions, commit, machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime

import pandas as pd

from spikebench import plugins
from spikebench.config import Config
from spikebench.report import Provenance


def describe(config: Config, rows: pd.DataFrame) -> Provenance:
    """Of the finished rows: data sets with hash, licence and citation; methods with citation; versions and commits."""
    finished = rows[rows["status"] == "ok"]
    data = []
    for name, kind, source in sorted(set(finished[["dataset", "data_kind", "data_source"]].itertuples(index=False))):
        module = plugins.load("datasets", name, config.root)
        settings = module.Settings(kind=kind, source=source, **config.data_settings(name, {}))
        data.append(asdict(module.load(settings).provenance))
    commits = sorted({commit for commit in finished["commit"] if commit})
    return {
        "data": data,
        "methods": {m: plugins.load("methods", m, config.root).CITATION for m in sorted(set(finished["method"]))},
        "versions": dict(json.loads(finished["versions"].max())) if len(finished) else {},
        "commit": ", ".join(commits) or "not in a git repository",
        "cpus": os.cpu_count() or 1,
        "created": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    }
