"""Which of the choices in GEM-SNN's rules matter: memory, control variate, step size, outputs that see their past."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.gem_rows import (
    BAND,
    GREY_BAND,
    SCORES,
    at_usual_runs,
    band_key,
    compartments,
    in_words,
    looks,
    show,
    with_lines,
)
from spikebench.figures.style import GREY, bars, canvas
from spikebench.figures.tables import PAIR, NothingToDraw, at, in_sweep
from spikebench.figures.text import repetitions

TITLE = "GEM-SNN: what single choices change"
EXPERIMENT = "gem_snn"

#: Setting of an arm to the words for what it is changed to, in the order of the lines.
CHANGES = {"decay": "κ = {}", "baseline": "{}", "divided": "hidden step / K"}
#: Control variates in words.
BASELINES = {"none": "no control variate", "scalar": "one control variate"}
#: What is changed in the network.
NO_FEEDBACK = "no output feedback"
#: The sweep in which all arms have one learning rate, and how that is said.
EQUAL_RATES, ONE_RATE = "equal-rates", "one learning rate"
#: The sweeps in which something is changed, and the one from which.
_CHANGED, _BASE = ("ablations", EQUAL_RATES, "no-output-feedback"), "classification"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The ablations, and those cells of the classification from which one of them departs in its change alone."""
    changed = pd.concat([in_sweep(rows, name) for name in _CHANGED]).drop_duplicates("cell")
    base, known = in_sweep(rows, _BASE), set(_otherwise(changed))
    counterparts = base[np.array([found in known for found in _otherwise(base)], dtype=bool)]
    return pd.concat([counterparts, changed]).drop_duplicates("cell")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Three panels, a score each; a line a change: the changed rule as a full mark, its counterpart as an open one.

    Lines of other data have panels of their own.
    """
    rows = with_lines(rows)
    rows = rows.assign(**{word: [say(row) for row in rows.to_dict("records")] for word, say in _WORDS.items()})
    looked = looks(rows, context)
    order = {line: place for place, line in enumerate(looked)}
    changed = rows[rows["change"] != ""].drop_duplicates(["data", "line", "change"]).to_dict("records")
    if not changed:
        raise NothingToDraw("no finished cells of an ablation for this figure")
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in sorted(changed, key=lambda row: (_rank(row), order[row["line"]])):
        groups.setdefault(row["data"], []).append((row["line"], row["change"]))
    points, band, made = at_usual_runs(rows, ["data", "line", "change"])
    paired = not at(points, change="").empty
    marks = {"with the change": GREY} | ({"the same rule and K without it": "none"} if paired else {})
    keys = [
        Line2D([], [], color=GREY, marker="o", linestyle="none", markerfacecolor=inside, label=said)
        for said, inside in marks.items()
    ]
    counts = [len(lines) for lines in groups.values()]
    figure, axes = canvas(
        len(groups), 3, TITLE, [*keys, band_key()], height=0.23 * sum(counts) / len(counts) + 0.1, left=2.1, gap=0.5,
        sharey="row", gridspec_kw={"height_ratios": counts},
    )  # fmt: skip
    for row, (data, lines) in zip(axes, groups.items(), strict=True):
        for panel, (score, (words, _)) in zip(row, SCORES.items(), strict=True):
            here = at(points, data=data, score=score)
            for place, (line, change) in enumerate(lines):
                for what, inside in (("", "none"), (change, looked[line].colour)):
                    dot = at(here, line=line, change=what)
                    aside = (0.15 if what else -0.15) * (not at(here, line=line, change="").empty)
                    panel.errorbar(
                        dot["mean"], [place + aside] * len(dot), xerr=bars(dot), color=looked[line].colour,
                        marker=looked[line].marker, markerfacecolor=inside, linestyle="none", elinewidth=0.9,
                    )  # fmt: skip
            _look(panel, words if panel in axes[0] else "")
            show(panel, score, here, axis="x", top=_bands(panel, at(band, data=data), lines, score))
        row[0].set_yticks(range(len(lines)), labels=[_name(*line) for line in lines])
        row[0].set_ylim(len(lines) - 0.4, -0.6)
        heading = {"ha": "right", "weight": "bold", "size": 7.5}
        row[0].annotate(data, (0, 1), (-6, 6), "axes fraction", textcoords="offset points", **heading)

    n, told = repetitions(points["n"]), []
    named = points.assign(line=[_name(*pair) for pair in zip(points["line"], points["change"], strict=True)])
    for data, lines in groups.items():
        here = at(named, data=data)
        told.append(f"{data}: {in_words(here, [_name(*line) for line in lines])}.")
        if without := in_words(here, looked):
            told.append(f"Without changes: {without}.")
    words = " ".join(told)
    open_marks = "open marks: the same rule and K, trained in the same way on the same data, without it"
    if not paired:
        open_marks = "no classification without it had the same data and settings"
    caption = (
        "Test log-likelihood, accuracy and expected calibration error (15 bins of equal width) when one choice is "
        f"changed at a time ({open_marks}); {made}; mean and 95% Student-t interval over {n} repetitions. Usual are "
        "κ = 0.05, a control variate for each weight, a hidden step of IW that grows with K, outputs that see their "
        f"past, and a learning rate for each rule and K. Grey: the null band of the changed rule. {words}"
    )
    alt = (
        f"Dot plots with intervals of log-likelihood, accuracy and calibration error, a line each for "
        f"{', '.join(_name(*line) for lines in groups.values() for line in lines)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; {made}"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "bands": band})


def _look(panel: Axes, heading: str) -> None:
    panel.set_title(heading)
    panel.tick_params(left=False, bottom=True)
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")


def _bands(panel: Axes, bands: pd.DataFrame, lines: list[tuple[str, str]], score: str) -> float:
    """Draw each line's null band where the score has one; the end of the highest."""
    top = 0.0
    for place, (line, change) in enumerate(lines if score == "ece_width_15" else []):
        for low, high in at(bands, line=line, change=change)[BAND].itertuples(index=False, name=None):
            panel.barh(place, high - low, 0.8, low, color=GREY_BAND, zorder=0)
            top = max(top, high)
    return top


def _name(line: str, change: str) -> str:
    return f"{line}: {change}" if change else line


def _change(row: Mapping[Any, Any]) -> str:
    """What a cell changes, in words; empty for those of the classification."""
    if _BASE in row["sweeps"].split(";"):
        return ""
    settings, network = json.loads(row["settings"]), json.loads(row["network"])
    said = [
        words.format(BASELINES.get(settings[name], settings[name]))
        for name, words in CHANGES.items()
        if name in settings
    ]
    said += [ONE_RATE] * (EQUAL_RATES in row["sweeps"].split(";"))
    return ", ".join(said + [NO_FEEDBACK] * (not network.get("output_feedback", True)))


def _data(row: Mapping[Any, Any]) -> str:
    """What a cell was trained on, in words."""
    classes = json.loads(row["data_settings"]).get("classes")
    which = f"classes {' and '.join(map(str, classes))}" if classes else "all classes"
    return f"{which}, {row['training_size']:,} examples"


#: Column to what says its words.
_WORDS: Mapping[str, Callable[[Mapping[Any, Any]], str]] = {"change": _change, "data": _data}


def _rank(row: Mapping[Any, Any]) -> tuple[int, str]:
    """Where a change stands among the lines."""
    settings = json.loads(row["settings"])
    first = next((place for place, name in enumerate(CHANGES) if name in settings), len(CHANGES))
    return first, row["change"]


def _otherwise(rows: pd.DataFrame) -> list[Hashable]:
    """All that counterparts have in common: data, rule and K, and settings and network but for what is changed."""
    places = rows[[axis for axis in PAIR if axis not in ("network", "repetition")] + ["variant"]]
    return [
        (
            *place,
            k,
            _without(settings, {"compartments", *CHANGES, "learning_rates", "tune_once"}),
            _without(network, {"output_feedback"}),
        )
        for place, k, settings, network in zip(
            places.itertuples(index=False, name=None),
            compartments(rows),
            rows["settings"],
            rows["network"],
            strict=True,
        )
    ]


def _without(document: str, names: set[str]) -> str:
    return json.dumps({name: value for name, value in json.loads(document).items() if name not in names})
