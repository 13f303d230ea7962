"""How many sampled networks an ensemble needs to beat one network, in accuracy and in calibration."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from spikebench.figures.arms import LEAD, Arm, Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import bars, canvas, key, zoomed_percent_axis
from spikebench.figures.tables import NothingToDraw, at, in_sweep, summary, with_all_data
from spikebench.figures.text import measured, repetitions

TITLE = "BiSNN: size of the ensemble"
EXPERIMENT = "bisnn"
SEVERAL_DATASETS = True

_ENSEMBLE, _MODE, *_OTHERS = (
    LEAD[Arm("bisnn", "off-chip", variant)]
    for variant in ("bayes-ensemble", "bayes-mode", "straight-through", "full-precision")
)
_SCORES = {"accuracy": "test accuracy (%)", "ece_width_15": "ECE (%)"}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The off-chip cells of the classification data sets with all training data."""
    rows = pd.concat([in_sweep(rows, name) for name in ("recordings", "two-moons")])
    return with_all_data(at(rows, mode="off-chip"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A row of panels a data set, accuracy and calibration error; the variants of one network are lines across."""
    estimates = _estimates(rows)
    if not (estimates["members"] > 0).any():
        raise NothingToDraw("no estimates by ensembles in the finished cells for this figure")
    by = ["dataset", "training_size", "arm", "members"]
    points = pd.concat([summary(estimates, by, score).assign(score=score) for score in _SCORES])
    sets, sizes = sorted(set(points["dataset"])), sorted(set(points["members"]) - {0})
    lines = [style for style in (_MODE, *_OTHERS) if style.label in set(points["arm"])]
    keys = [key(style) for style in (_ENSEMBLE, *lines)]
    figure, axes = canvas(len(sets), 2, TITLE, keys, height=1.7, wspace=0.25, sharex=True)
    for line, dataset in zip(axes, sets, strict=True):
        for panel, (score, words) in zip(line, _SCORES.items(), strict=True):
            here = at(points, dataset=dataset, score=score)
            _panel(panel, here, sizes, lines)
            zoomed_percent_axis(np.array([panel]), here, zero=score != "accuracy")
            panel.set(title=f"{dataset}, {here['training_size'].max():,} training examples", ylabel=words)
            panel.tick_params(left=True)
    for panel in axes[-1]:
        panel.set_xticks(range(len(sizes)), labels=[str(size) for size in sizes])
        panel.set_xlabel("networks in the ensemble")

    n = repetitions(points["n"])
    words = " ".join(_in_words(at(points, dataset=dataset), sizes, lines) for dataset in sets)
    caption = (
        f"Test accuracy and expected calibration error (ECE, 15 bins of equal width) of {_ENSEMBLE.label} against the "
        "number of networks that are sampled and averaged, beside the variants that are one network (lines across, "
        f"their intervals on the right): mean and 95% Student-t interval over {n} repetitions. {words}"
    )
    alt = (
        f"Line charts of test accuracy and calibration error for ensembles of {sizes[0]} to {sizes[-1]} networks, a "
        f"row each for {', '.join(sets)}, with lines across for {', '.join(style.label for style in lines)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; on the right: intervals of the lines across"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})


def _estimates(rows: pd.DataFrame) -> pd.DataFrame:
    """The scores of each cell: of its one network (0 members), or of its mode and of each ensemble read from it."""
    others, lines = {style.label for style in _OTHERS}, []
    for row in rows.to_dict("records"):
        place = {axis: row[axis] for axis in ("dataset", "training_size", "arm")}
        if row["arm"] in others:
            lines.append({**place, "members": 0, **{score: row[score] for score in _SCORES}})
        elif row["arm"] == _ENSEMBLE.label:
            for name, found in json.loads(row["estimates"]).items():
                scores = {score: found.get(score, np.nan) for score in _SCORES}
                if name == "mode":
                    lines.append({**place, "arm": _MODE.label, "members": 0, **scores})
                elif name.startswith("ensemble-"):
                    lines.append({**place, "members": int(name.removeprefix("ensemble-")), **scores})
    return pd.DataFrame(lines, columns=["dataset", "training_size", "arm", "members", *_SCORES])


def _panel(panel: Axes, points: pd.DataFrame, sizes: list[int], lines: list[Style]) -> None:
    """The ensembles, one place a size, and a line across for each single network."""
    ensembles = points[points["members"] > 0].sort_values("members")
    places = [sizes.index(members) for members in ensembles["members"]]
    look = _ENSEMBLE.marker + _ENSEMBLE.line
    panel.errorbar(places, ensembles["mean"], yerr=bars(ensembles), fmt=look, color=_ENSEMBLE.colour, elinewidth=0.9)
    for place, style in enumerate(lines):
        single, x = at(points, arm=style.label), len(sizes) - 0.4 + 0.3 * place
        for mean in single["mean"]:
            panel.axhline(mean, color=style.colour, linewidth=1, zorder=1)
            panel.errorbar([x], [mean], yerr=bars(single), fmt=style.marker, color=style.colour, elinewidth=0.9)
    panel.set_xlim(-0.4, len(sizes) - 0.4 + 0.3 * len(lines))


def _in_words(points: pd.DataFrame, sizes: list[int], lines: list[Style]) -> str:
    """The scores on one data set: of the smallest and the largest ensemble, and of the single networks."""
    places: list[tuple[str, dict[str, object]]] = [(f"{m} sampled", {"members": m}) for m in (sizes[0], sizes[-1])]
    places += [(style.label, {"arm": style.label}) for style in lines]
    said = []
    for name, where in dict(places).items():
        found = {point["score"]: measured(point) for point in at(points, **where).to_dict("records")}
        if len(found) == len(_SCORES):
            said.append(f"{name} accuracy {found['accuracy']}, ECE {found['ece_width_15']}")
    return f"{points['dataset'].iloc[0]}: {'; '.join(said)}."
