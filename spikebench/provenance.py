"""What a reader needs to trust a report: data, methods, versions, commit, machine."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import pandas as pd

from spikebench import plugins
from spikebench.config import Config
from spikebench.naming import display_name
from spikebench.report import Provenance


def describe(config: Config, rows: pd.DataFrame) -> Provenance:
    """Of the finished rows: data sets with hash, licence and citation; methods with citation; versions and commits."""
    finished = rows[rows["status"] == "ok"]
    data = []
    for names, group in finished.groupby(["dataset", "data_kind", "data_source"]):
        name, kind, source = map(str, names)
        module = plugins.load("datasets", name, config.root)
        hashes = sorted(set(group["data_sha256"]))
        more = f" and {len(hashes) - 1} more, one a setting or draw" if len(hashes) > 1 else ""
        data.append(
            {
                "name": display_name(name, kind, source),
                "kind": kind,
                "source": source or str(module.__doc__).splitlines()[0],
                "sha256": hashes[0] + more,
                "licence": module.LICENCE,
                "citation": module.CITATION,
            }
        )
    commits = sorted({commit for commit in finished["commit"] if commit})
    return {
        "data": data,
        "methods": {m: plugins.load("methods", m, config.root).CITATION for m in sorted(set(finished["method"]))},
        "versions": dict(json.loads(finished["versions"].max())) if len(finished) else {},
        "commit": ", ".join(commits) or "not in a git repository",
        "cpus": os.cpu_count() or 1,
        "created": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    }
