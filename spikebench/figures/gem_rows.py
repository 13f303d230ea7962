"""What the figures of GEM-SNN share: K and line of a cell, its scores by the runs of inference, axes for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context
from spikebench.figures.tables import NothingToDraw, at, summary
from spikebench.figures.text import measured, number

#: The rule that has one compartment, whatever its settings say.
SINGLE = "single-sample"
#: K where settings name none; the usual runs that decide and that a likelihood is averaged over.
COMPARTMENTS, DECIDING, SCORED = 5, 20, 100
#: Column of the rows to the words of its axis and the factor that brings it there.
SCORES = {
    "log_likelihood": ("log-likelihood (nats)", 1),
    "accuracy": ("accuracy (%)", 100),
    "ece_width_15": ("ECE (%)", 100),
}
#: What perfectly calibrated predictions with the same confidences would show.
BAND = ["ece_null_low", "ece_null_high"]
GREY_BAND = "#d9d9d9"
#: The estimates ``votes-R`` and ``likelihood-R`` of R runs, and what is read from each.
_ESTIMATES = {"likelihood": ["log_likelihood"], "votes": ["accuracy", "ece_width_15", *BAND]}
_RUNS_IN_WORDS = {"accuracy": "{} runs vote", "log_likelihood": "likelihood of {} runs"}


def compartments(rows: pd.DataFrame) -> list[int]:
    """K of each row."""
    return [
        1 if variant == SINGLE else int(json.loads(settings).get("compartments", COMPARTMENTS))
        for variant, settings in zip(rows["variant"], rows["settings"], strict=True)
    ]


def with_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """A copy with the columns ``compartments``, which is K, and ``line``, the rule with its K as people read it."""
    numbers = compartments(rows)
    names = [
        arm if variant == SINGLE else f"{arm} (K = {number})"
        for arm, variant, number in zip(rows["arm"], rows["variant"], numbers, strict=True)
    ]
    return rows.assign(compartments=numbers, line=names)


def looks(rows: pd.DataFrame, context: Context) -> dict[str, Style]:
    """The style of each line, by rule and K: the colour of its rule, the paler the smaller K is.

    GEM with K = 1 is dotted: its hidden weights get no signal.
    """
    found = {}
    for arm, style in context.present(rows).items():
        lines = at(rows, arm=arm).drop_duplicates("line").sort_values("compartments")
        shades = seaborn.light_palette(style.colour, len(lines) + 2)[2:]
        for (name, variant, k), shade in zip(
            lines[["line", "variant", "compartments"]].to_numpy(), shades, strict=True
        ):
            found[name] = Style(name, to_hex(shade), style.marker, ":" if (variant, k) == ("gem", 1) else style.line)
    return found


def largest(rows: pd.DataFrame, lines: Iterable[str]) -> list[str]:
    """Of each rule the line of most compartments: those that are told in words."""
    most = rows[rows["compartments"] == rows.groupby("arm")["compartments"].transform("max")]
    return [line for line in lines if line in set(most["line"])]


def by_runs(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The scores of each cell by the number of runs in inference, long form: ``by``, ``score``, ``runs`` and ``value``.

    Raises:
        NothingToDraw: no cell has any.
    """
    lines = []
    for row in rows.to_dict("records"):
        for name, found in json.loads(row["estimates"]).items():
            kind, _, runs = name.partition("-")
            lines += [
                {**{axis: row[axis] for axis in by}, "score": score, "runs": int(runs), "value": found[score]}
                for score in _ESTIMATES.get(kind, ())
                if score in found
            ]
    if not lines:
        raise NothingToDraw("no estimates by several runs in the finished cells for this figure")
    return pd.DataFrame(lines)


class Usual(NamedTuple):
    """The scores at the usual numbers of runs.

    Attributes:
        points: a summary of each score, with the columns ``score`` and ``runs``.
        bands: mean ends of the null band.
        words: how many runs these are, as in ``20 runs vote, likelihood of 100 runs``.
    """

    points: pd.DataFrame
    bands: pd.DataFrame
    words: str


def at_usual_runs(rows: pd.DataFrame, by: Sequence[str]) -> Usual:
    """The scores by ``by`` at the usual numbers of runs, or at the largest below them that there is.

    Estimates, not the rows' own columns, since these do not tell the numbers of runs that a preset chose.
    """
    found = by_runs(rows, by)
    usual = {score: SCORED if score == "log_likelihood" else DECIDING for score in set(found["score"])}
    found = found[found["runs"] <= found["score"].map(usual)]
    found = found[found["runs"] == found.groupby("score")["runs"].transform("max")]
    points = summary(found, [*by, "score", "runs"], "value")
    ends = points[points["score"].isin(BAND)].pivot(index=list(by), columns="score", values="mean")
    points = points[points["score"].isin(list(SCORES))]
    runs = dict(zip(points["score"], points["runs"], strict=True))
    said = (words.format(runs[score]) for score, words in _RUNS_IN_WORDS.items() if score in runs)
    return Usual(points, ends.reindex(columns=BAND).dropna().reset_index(), ", ".join(said))


def band_key() -> Patch:
    """The legend's entry of the null band."""
    return Patch(color=GREY_BAND, label="ECE of perfectly calibrated predictions (95% of draws)")


def show(panel: Axes, score: str, points: pd.DataFrame, *, axis: str = "y", top: float = 0.0) -> None:
    """Let an axis show a score as large as possible, in the unit of ``SCORES``.

    Intervals reach no further beyond the means than these lie apart: those of two repetitions would flatten the rest.

    Args:
        panel: where it is plotted.
        score: of ``SCORES``, or another share.
        points: a summary; of an empty one nothing is shown.
        axis: x or y.
        top: what the axis shows besides, at least.
    """
    if points.empty:
        return
    means = points["mean"]
    apart = means.max() - means.min()
    low, high = points["low"].fillna(means).min(), points["high"].fillna(means).max()
    if apart > 0:
        low, high = max(low, means.min() - apart), min(high, means.max() + apart)
    if score != "log_likelihood":
        low, high = 0.0 if score != "accuracy" else max(low, 0.0), max(min(high, 1.0), top)
    room = 0.06 * (high - low) or 0.01 * abs(low) or 0.01
    ends = (low if low == 0 else low - room, high + room)
    (panel.set_xlim if axis == "x" else panel.set_ylim)(*ends)
    ticks = panel.xaxis if axis == "x" else panel.yaxis
    ticks.set_major_locator(MaxNLocator(3 if axis == "x" else 6, steps=[1, 2, 5, 10]))
    if score != "log_likelihood":
        ticks.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))


def told(point: Mapping[Any, Any]) -> str:
    """Mean and interval of one point with the column ``score``, with the unit."""
    return f"{number(point, 1)} nats" if point["score"] == "log_likelihood" else measured(point)


def in_words(points: pd.DataFrame, order: Iterable[str]) -> str:
    """``GEM (K = 5): log-likelihood ..., accuracy ..., ECE ...; ...`` for a summary with the columns line and score."""
    said = []
    for line in order:
        scores_of_line = {point["score"]: told(point) for point in at(points, line=line).to_dict("records")}
        found = [
            f"{words.split(' (')[0]} {scores_of_line[s]}" for s, (words, _) in SCORES.items() if s in scores_of_line
        ]
        if found:
            said.append(f"{line}: {', '.join(found)}")
    return "; ".join(said)
