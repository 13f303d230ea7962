"""What data sets are called where people read them."""

from __future__ import annotations

import pandas as pd


def display_name(dataset: str, kind: str, source: str) -> str:
    """Simulated recordings never carry the real name, nor a part of an archive the name of the whole.

    Args:
        dataset: file name of the plug-in.
        kind: real, simulated or synthetic.
        source: the archive it is made from, or empty.
    """
    if kind == "simulated":
        part = f" from {source}" if "subset" in source else ""
        return f"{dataset.replace('_', '-')}-sim{part}"
    return source if "subset" in source else dataset


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose column ``dataset`` holds the names that people read."""
    columns = zip(rows["dataset"], rows["data_kind"], rows["data_source"], strict=True)
    return rows.assign(dataset=[display_name(*names) for names in columns])
