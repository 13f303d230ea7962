"""E3: which of our choices matter: encoding, hidden width, temperature, and the estimator made of the chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import bars, canvas, key, lower_end, shifts
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import measured, repetitions

TITLE = "What our own choices change"
EXPERIMENT = "chip_in_the_loop"

#: The estimator of the main columns; the others stand in the column ``estimates``.
PRIMARY = "mean-of-weights"

#: Name of the sweep to the words for a reader, the column that it changes, and that column's level. Rows hold only
#: what differs from the defaults, which are named here.
FACTORS: Mapping[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
    "encoding": ("Encoding", "data_settings", lambda settings: settings.get("encoding", "constant")),
    "width": ("Hidden neurons", "network", lambda network: "-".join(map(str, network.get("hidden", []))) or "none"),
    "temperature": ("Temperature", "settings", lambda settings: f"{settings.get('temperature', 1.0):g}"),
}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the ablations, and those of the main sweep from which each departs in one thing."""
    ablated = pd.concat([in_sweep(rows, name) for name in FACTORS])
    base = in_sweep(rows, "severity")
    for axis in ("fault", "severity", "training_size", "method", "mode"):
        base = base[base[axis].isin(ablated[axis])]
    return pd.concat([base, ablated]).drop_duplicates("cell")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel a severity; in each, a line for every level of a factor, with one dot an arm."""
    table = pd.concat([*(_levels(rows, name) for name in FACTORS), _estimators(rows)])
    points = summary(table, ["severity", "factor", "level", "arm"], "accuracy")
    severities, lines, arms = sorted(set(points["severity"])), _lines(table), context.present(points)
    keys = [key(style, joined=False) for style in arms.values()]
    figure, axes = canvas(1, len(severities), TITLE, keys, height=0.19 * len(lines), left=1.35, sharey=True)
    places_of = _places(points, lines, arms)
    for panel, severity in zip(axes[0], severities, strict=True):
        for arm, style in arms.items():
            dots = at(points, severity=severity, arm=arm)
            places = [places_of[line][arm] for line in zip(dots["factor"], dots["level"], strict=True)]
            look = {"color": style.colour, "marker": style.marker, "linestyle": "none", "elinewidth": 0.9}
            panel.errorbar(100 * dots["mean"], places, xerr=100 * bars(dots), **look)
        panel.set(title=f"severity {severity:g}", xlabel="test accuracy (%)")
        panel.set_xlim(max(10 * np.floor(10 * lower_end(points)), 0), 101)
        panel.grid(visible=True, axis="x")
        panel.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(range(len(lines)), labels=[level or factor for factor, level in lines])
    axes[0, 0].set_ylim(len(lines) - 0.4, -0.6)
    axes[0, 0].tick_params(left=False)
    for tick, (_, level) in zip(axes[0, 0].get_yticklabels(), lines, strict=True):
        tick.set_weight("normal" if level else "bold")

    n, fault, worst, first = repetitions(points["n"]), rows["fault"].iloc[0], severities[-1], next(iter(arms))
    words = f"{first} at severity {worst:g}{_in_words(at(points, severity=worst, arm=first), lines)}."
    caption = (
        f"Test accuracy when one choice is changed at a time; the first of each group is the choice of the main "
        f"results. {fault}, all training data, mean and 95% Student-t interval over {n} repetitions. {words}"
    )
    alt = (
        f"Dot plots of test accuracy, a panel each for severity {', '.join(f'{s:g}' for s in severities)}, a dot each "
        f"for {', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; fault: {fault}; first of a group: main results"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})


def _levels(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The cells of one ablation below their base, with the columns ``factor`` and ``level``."""
    factor, column, level = FACTORS[name]
    ablated, base = in_sweep(rows, name), in_sweep(rows, "severity")
    table = pd.concat([base[base["arm"].isin(ablated["arm"])], ablated])
    return table.assign(factor=factor, level=[level(json.loads(text)) for text in table[column]])


def _estimators(rows: pd.DataFrame) -> pd.DataFrame:
    """The base cells once for each estimator of their chain, with the columns ``factor`` and ``level``."""
    base = in_sweep(rows, "severity")
    estimates = [json.loads(text) for text in base["estimates"]]
    parts = [base[np.array([bool(found) for found in estimates], dtype=bool)].assign(level=PRIMARY)]
    for name in sorted({name for found in estimates for name in found}):
        accuracy = [found.get(name, {}).get("accuracy", np.nan) for found in estimates]
        parts.append(base.assign(level=name, accuracy=accuracy))
    return pd.concat(parts).assign(factor="Estimator")


def _lines(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(factor, level) from top to bottom: a factor's title (an empty level), then its levels, the base first."""
    grouped: dict[str, list[str]] = {}
    for factor, level in table[["factor", "level"]].drop_duplicates().itertuples(index=False, name=None):
        grouped.setdefault(factor, [""]).append(level)
    return [(factor, level) for factor, levels in grouped.items() for level in levels]


def _places(
    points: pd.DataFrame, lines: list[tuple[str, str]], arms: Iterable[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Where an arm's dot lies: on its line, beside those of the other arms on it."""
    places = {}
    for number, (factor, level) in enumerate(lines):
        found = set(at(points, factor=factor, level=level)["arm"])
        here = [arm for arm in arms if arm in found]
        places[factor, level] = {a: number + shift for a, shift in zip(here, shifts(len(here), 0.3, 0.8), strict=True)}
    return places


def _in_words(points: pd.DataFrame, lines: list[tuple[str, str]]) -> str:
    found = {(point["factor"], point["level"]): point for point in points.to_dict("records")}
    words = ""
    for factor, level in lines:
        if not level:
            words += f"; {factor.lower()}"
        elif (factor, level) in found:
            words += f", {level}: {measured(found[factor, level])}"
    return words
