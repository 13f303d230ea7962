"""The first sentence: what was run, how much of it finished, and what it cost."""

from __future__ import annotations

import pandas as pd

from spikebench.figures.arms import styles
from spikebench.figures.tables import finished
from spikebench.figures.text import big
from spikebench.report.formats import duration


def headline(rows: pd.DataFrame, coverage: pd.DataFrame, preset: str) -> str:
    """One sentence for the top of the page, from the gathered table and the coverage table."""
    ok, expected = int(coverage["ok"].sum()), int(coverage["expected"].sum())
    kinds = rows[["dataset", "data_kind"]].drop_duplicates().sort_values("dataset")
    data = ", ".join(f"{dataset} ({kind})" for dataset, kind in kinds.itertuples(index=False, name=None))
    done, plain = finished(rows), rows[rows["crossed"] == "{}"]  # elsewhere they count combinations
    return (
        f"{ok:,} of {expected:,} cells finished in preset {preset}: {_count(rows['method'].nunique(), 'method')} in "
        f"{_count(len(styles(rows)), 'arm')}, {_count(plain['repetition'].nunique(), 'repetition')}, "
        f"data {data or 'none'}; training took {duration(rows['seconds'].sum())} of computing and showed "
        f"{big(done['chip_presentations'].sum())} samples to simulated chips."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
