"""What BiSNN's variants say where no data was seen: predictions of one-dimensional regression with their spread."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, canvas
from spikebench.figures.tables import NothingToDraw, at, in_sweep, summary, with_all_data
from spikebench.figures.text import by_arm, number, repetitions

TITLE = "BiSNN: regression with gaps in the data"
EXPERIMENT = "bisnn"

#: A stretch without data that is wider than this share of the axis is a gap.
GAP = 0.1
#: Of an answer of several samples, the mean standard deviation in the gaps, elsewhere, and their ratio.
_SPREADS = ("in_gaps", "at_data", "ratio")
#: How opaque the bands are: over the samples, and between repetitions.
_WITHIN, _BETWEEN = 0.45, 0.18


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep with all training data."""
    return with_all_data(in_sweep(rows, "regression"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel an arm: its prediction, averaged over repetitions, with two bands."""
    rows = rows[rows["outputs"] != "{}"]
    if rows.empty:
        raise NothingToDraw("no predictions on a grid in the finished cells for this figure")
    answers = pd.Series([json.loads(text) for text in rows["outputs"]], index=rows.index)
    rows = rows.assign(**pd.DataFrame([_spread(answer) for answer in answers], index=rows.index))
    first, arms = answers.iloc[int(rows["repetition"].argmin())], context.present(rows)
    curves = pd.concat([_curve(arm, list(answers[rows["arm"] == arm])) for arm in arms])
    figure, axes = canvas(-(-len(arms) // 2), 2, TITLE, _keys(), height=1.7, sharex=True, sharey=True)
    for panel, (arm, style) in zip(axes.flat, arms.items(), strict=False):
        _panel(panel, at(curves, arm=arm), first, style.colour)
        panel.set_title(arm)
    for panel in axes.flat[len(arms) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("x")
    for panel in axes[:, 0]:
        panel.set_ylabel("f(x) (share of its range)")
    low, high = axes[0, 0].get_ylim()  # a prediction far off may not flatten all the rest
    axes[0, 0].set_ylim(max(low, -0.5), min(high, 1.5))

    count = rows.groupby("arm").size()
    n, size = repetitions(count), rows["training_size"].iloc[0]
    rmse = summary(rows, ["arm"], "rmse")
    spreads = pd.concat([summary(rows, ["arm"], column).assign(sd=column) for column in _SPREADS])
    told = "; ".join(filter(None, (_in_words(at(spreads, arm=arm)) for arm in arms)))
    words = f"RMSE against the true function: {by_arm(rmse, arms, lambda point: number(point, 3))}."
    words += f" Mean standard deviation over samples: {told}." if told else ""
    caption = (
        f"Predictions of BiSNN's variants after {size:,} noisy training examples (dots: repetition "
        f"{rows['repetition'].min()}), none of them in the hatched gaps: mean over {n} repetitions. Dark band: "
        "one standard deviation over the samples of a prediction (root mean square over repetitions); pale band: one "
        "of the prediction between repetitions. f(x) is a share of its range; numbers are means with 95% Student-t "
        f"intervals. {words}"
    )
    alt = (
        f"Line charts of the true function, the training examples and the prediction with two bands, one each for "
        f"{', '.join(arms)}; the stretches without data are hatched. {words}"
    )
    note = f"mean over {n} repetitions; bands: ± one standard deviation"
    seen = pd.DataFrame(first["seen"], columns=["x", "y"])
    numbers = {"rmse": rmse, "spreads": spreads, "curves": curves, "seen": seen}
    return Drawing(figure, note, caption, alt, int(count.max()), numbers)


def _grid(answer: dict[str, Any]) -> NDArray[np.float64]:
    """The points x [G] of the one axis."""
    ((low, high, points),) = answer["axes"]
    return np.linspace(low, high, points)


def _gaps(answer: dict[str, Any]) -> list[tuple[float, float]]:
    """The stretches without data, from one example (or end of the axis) to the next, that are wide enough."""
    ((low, high, _),) = answer["axes"]
    ends = sorted([low, high, *(point[0] for point in answer["seen"])])
    return [(a, b) for a, b in pairwise(ends) if b - a > GAP * (high - low)]


def _spread(answer: dict[str, Any]) -> dict[str, float]:
    """The values of ``_SPREADS``; NaN where there is but one sample, or no gap."""
    x, sd = _grid(answer), np.array(answer["sd"], dtype=np.float64)
    unseen = np.zeros(len(x), dtype=bool)
    step = (x[1] - x[0]) / 2  # an example on the grid is not in the gap that it ends, however it was rounded
    for a, b in _gaps(answer):
        unseen |= (a + step < x) & (x < b - step)
    if not unseen.any() or not sd[~unseen].any():
        return dict.fromkeys(_SPREADS, np.nan)
    inside, outside = float(sd[unseen].mean()), float(sd[~unseen].mean())
    return dict(zip(_SPREADS, (inside, outside, inside / outside), strict=True))


def _in_words(points: pd.DataFrame) -> str:
    """One arm's spread; empty where it has none."""
    found = {point["sd"]: point for point in points.to_dict("records")}
    if not found:
        return ""
    inside, outside = (number(found[name], 3) for name in ("in_gaps", "at_data"))
    return f"{points['arm'].iloc[0]} {inside} in the gaps, {outside} elsewhere, ratio {number(found['ratio'])}"


def _curve(arm: str, answers: list[dict[str, Any]]) -> pd.DataFrame:
    """An arm's prediction at each x over its repetitions: mean, spread over samples and between repetitions."""
    means, sds = (pd.DataFrame([answer[name] for answer in answers], dtype=float) for name in ("mean", "sd"))
    return pd.DataFrame(
        {
            "arm": arm,
            "x": _grid(answers[0]),
            "true": answers[0].get("targets", np.nan),
            "mean": means.mean(),
            "sd_over_samples": (sds**2).mean() ** 0.5,
            "sd_between_repetitions": means.std(),  # NaN for one repetition
        }
    )


def _panel(panel: Axes, curve: pd.DataFrame, first: dict[str, Any], colour: str) -> None:
    """One arm's curve with its bands, over the gaps and points of the first repetition."""
    for gap in _gaps(first):
        panel.axvspan(*gap, facecolor="none", edgecolor="#d8d8d8", hatch="////", linewidth=0, zorder=0)
        panel.text(
            sum(gap) / 2, 0.03, "no data", transform=panel.get_xaxis_transform(), size=6.5, color=GREY, ha="center"
        )
    for column, alpha in (("sd_between_repetitions", _BETWEEN), ("sd_over_samples", _WITHIN)):
        ends = curve["mean"] - curve[column], curve["mean"] + curve[column]
        panel.fill_between(curve["x"], *ends, color=colour, alpha=alpha, linewidth=0)
    panel.plot(curve["x"], curve["mean"], color=colour)
    panel.plot(*np.transpose(first["seen"]), ".", color="black", markersize=3, markeredgewidth=0)
    panel.plot(curve["x"], curve["true"], color="black", linestyle=":", linewidth=1)


def _keys() -> list[Line2D | Patch]:
    """The legend: what is alike in all panels, in grey and black."""
    return [
        Line2D([], [], color="black", linestyle=":", linewidth=1, label="true function"),
        Line2D([], [], color="black", marker=".", linestyle="none", markersize=4, label="examples"),
        Line2D([], [], color=GREY, label="prediction"),
        Patch(color=GREY, alpha=_WITHIN, linewidth=0, label="sd over samples"),
        Patch(color=GREY, alpha=_BETWEEN, linewidth=0, label="sd between repetitions"),
    ]
