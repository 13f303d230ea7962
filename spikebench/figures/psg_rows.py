"""What the figures of PSG and PDA share: candidates out of the rows' settings, layers out of diagnostics and traces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.arms import Line, Style
from spikebench.figures.tables import NothingToDraw, at, in_sweep, summary
from spikebench.figures.text import spread

#: In the small print and the caption of every figure.
NOTE = "a reconstruction: the paper's text was not read"
#: What settings say where a row's name none.
USUAL: Mapping[str, Any] = {
    **{"sharpness": 1.0, "psg": "p1", "sharpness_rate": 1.0, "family": "rectangular"},
    **{"pda": "a-gauss", "ratio": 0.01},
}
#: The divergences that PDA may mean, and their looks.
DIVERGENCES = {
    "a-gauss": Style("A-gauss", "#de8f05", "D", "-"),
    "a-bern": Style("A-bern", "#332288", "o", "--"),
    "b": Style("B, fixed reference", "#44aa99", "^", "-."),
    "c": Style("C, two paths", "#882255", "s", ":"),
}
#: The candidates of PSG that were begun at several values, in the order of panels; others follow.
CANDIDATES = ("P1, rate 1×", "P1, rate 10×", "P1, rate 100×", "P2", "P3")
_LAYERS = ("#332288", "#44aa99", "#cc6677", "#999933", "#882255", "#88ccee")
_LINES: tuple[Line, ...] = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "p")


def in_sweeps(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows of several sweeps, each once."""
    return pd.concat([in_sweep(rows, name) for name in names]).drop_duplicates("cell")


def settings(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each row, with the usual values of what it does not name."""
    return [{**USUAL, **json.loads(text)} for text in rows["settings"]]


def with_settings(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """A copy with a column for each of some settings."""
    found = settings(rows)
    columns: dict[str, Any] = {name: [one.get(name) for one in found] for name in names}
    return rows.assign(**columns)


def with_candidates(rows: pd.DataFrame) -> pd.DataFrame:
    """PSG's rows with the columns ``candidate`` and ``sharpness``, the one at the start."""
    rows = with_settings(rows[rows["variant"].str.contains("psg")], "sharpness")
    return rows.assign(candidate=[_candidate(one) for one in settings(rows)])


def _candidate(one: Mapping[str, Any]) -> str:
    name = str(one["psg"]).upper()
    name += f", rate {one['sharpness_rate']:g}×" if name == "P1" else ""
    changed = {"shared_sharpness": ", one k", "decayed_sharpness": ", weight decay", "retrain": ", retrained"}
    return name + "".join(words for setting, words in changed.items() if one.get(setting))


def of_layers(rows: pd.DataFrame, diagnostic: str, columns: Sequence[str]) -> pd.DataFrame:
    """A row a cell and layer, which counts from 1: some columns of the table and the diagnostic's ``value``."""
    parts = [
        {**{name: row[name] for name in columns}, "layer": layer, "value": value}
        for row in records(rows)
        for layer, value in enumerate(json.loads(row["diagnostics"]).get(diagnostic, []), start=1)
    ]
    return pd.DataFrame(parts, columns=[*columns, "layer", "value"])


def means(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """The mean of a column over the rows that agree on others."""
    found: pd.DataFrame = table.groupby(list(by))[column].mean().reset_index()
    return found


def traced(rows: pd.DataFrame, traces: pd.DataFrame, names: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Traces of these cells with some of their columns; ``layer`` counts from 1. What was not measured is left out."""
    if traces.empty:
        return pd.DataFrame(columns=["name", "step", "value", "layer", *columns])
    found = traces[traces["name"].isin(list(names))].merge(rows[["cell", *columns]], on="cell")
    return found.assign(layer=found["chain"] + 1).drop(columns=["cell", "chain"]).dropna(subset="value")


def needed(table: pd.DataFrame, words: str) -> pd.DataFrame:
    """The table, which may not be empty.

    Raises:
        NothingToDraw: it is; the words say of what.
    """
    if table.empty:
        raise NothingToDraw(f"no finished cells {words}")
    return table


def layer_styles(layers: Sequence[int]) -> dict[int, Style]:
    """A look for each layer."""
    return {
        layer: Style(f"layer {layer}", _LAYERS[n % 6], _MARKERS[n % 6], _LINES[n % 4])
        for n, layer in enumerate(sorted(set(layers)))
    }


def log2_axis(panel: Axes, which: str) -> None:
    """An axis of logarithms to base 2 whose ticks say the numbers themselves, as powers where they are many digits."""
    axis = panel.xaxis if which == "x" else panel.yaxis

    def words(value: float, _: object) -> str:
        return f"{2**value:g}" if min(axis.get_view_interval()) > -4 else f"$2^{{{value:g}}}$"

    axis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter(FuncFormatter(words))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A dictionary a row."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def one(table: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Mean, interval and n of a column, as one point of a summary; NaN and 0 of none."""
    points = records(summary(table.assign(all=0), ["all"], metric))
    return points[0] if points else {**dict.fromkeys(("mean", "low", "high"), np.nan), "n": 0}


def in_powers(point: Mapping[Any, Any]) -> str:
    """Mean and interval of logarithms to base 2, said as the numbers themselves."""
    mean, low, high = (2.0 ** np.clip(point[name], -99, 99) for name in ("mean", "low", "high"))
    return f"{mean:.2g} " + (f"[{low:.2g}, {high:.2g}]" if np.isfinite(low) else spread(low, high))


def in_points(point: Mapping[Any, Any]) -> str:
    """Mean and interval of a difference of shares, in points."""
    return f"{100 * point['mean']:+.1f} {spread(point['low'], point['high'])}"


def pairs(rows: pd.DataFrame, arm: str, reference: str, metric: str) -> pd.DataFrame:
    """An arm's metric less another's, ``difference``, by ``repetition``; ``rows`` have the column ``arm``."""
    first, second = (at(rows, arm=name)[["repetition", metric]] for name in (arm, reference))
    both = first.merge(second, on="repetition", suffixes=("", "_reference"))
    return both.assign(difference=both[metric] - both[f"{metric}_reference"])[["repetition", "difference"]]


def with_treatments(rows: pd.DataFrame) -> pd.DataFrame:
    """A copy whose column ``arm`` says what is done to potentials: ``none``, a divergence, a control, or a choice."""

    def treatment(variant: str, found: Mapping[str, Any]) -> str:
        if "pda" not in variant:
            return "none"
        changed = [name for name in ("rate_matched", "by_layer", "through_spikes") if found.get(name)]
        changed += [f"ratio {found['ratio']:g}"] * (found["ratio"] != USUAL["ratio"])
        return ", ".join(changed) or str(found["pda"])

    return rows.assign(arm=[treatment(*pair) for pair in zip(rows["variant"], settings(rows), strict=True)])
