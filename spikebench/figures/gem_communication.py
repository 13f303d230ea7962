"""What each rule's neurons tell a centre and hear from it at every time step, and what that buys."""

from __future__ import annotations

import json

import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.gem_rows import SCORES, at_usual_runs, in_words, largest, looks, show, with_lines
from spikebench.figures.style import bars, canvas
from spikebench.figures.tables import NothingToDraw, at, in_sweep, with_all_data
from spikebench.figures.text import repetitions

TITLE = "GEM-SNN: numbers told a time step"
EXPERIMENT = "gem_snn"

#: Variant to what its neurons tell the centre and hear from it, for |X| outputs and |H| hidden neurons.
FORMULAS = {
    "single-sample": ("|X|", "|H|"),
    "mb": ("K|X|", "K|H|"),
    "iw": ("K|X|", "K|X| + |H|"),
    "gem": ("K|X|", "K(|X| + |H|)"),
}
#: The scores beside the table, the heading of each column of the table and its right or left end in the panel.
_BESIDE = ("log_likelihood", "accuracy")
_COLUMNS = (("to the centre", 0.02, 0.44), ("back to the neurons", 0.5, 0.98))


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All arms of the classification."""
    return with_all_data(in_sweep(rows, "classification"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A line a rule and K: on the left a table of formulas and numbers, on the right likelihood and accuracy."""
    rows = with_lines(rows)
    load = _load(rows)
    if load.empty:
        raise NothingToDraw("no numbers of communication in the finished cells for this figure")
    lines = {line: style for line, style in looks(rows, context).items() if line in set(load["line"])}
    points, _, made = at_usual_runs(rows, ["line"])
    points = points[points["score"].isin(_BESIDE)]
    ratios = {"width_ratios": [2.0, 1.0, 1.0]}
    height = 0.22 * len(lines) + 0.1
    figure, axes = canvas(1, 3, TITLE, [], height=height, left=0.9, wspace=0.08, sharey=True, gridspec_kw=ratios)
    table = axes[0, 0]
    for words, left, right in _COLUMNS:
        middle = (left + right) / 2, 1.0
        table.annotate(words, middle, (0, 6), "axes fraction", textcoords="offset points", ha="center", size=8)
    for place, line in enumerate(lines):
        told = at(load, line=line).to_dict("records")[0]
        for (_, left, right), way in zip(_COLUMNS, ("to_centre", "from_centre"), strict=True):
            formula = FORMULAS[told["variant"]][way == "from_centre"]
            table.text(left, place, formula, ha="left", va="center", size=7.5)
            table.text(right, place, f"{told[way]:,.0f}", ha="right", va="center", size=7.5, weight="bold")
    table.set(xlim=(0, 1), xticks=[])
    table.grid(False)
    for spine in table.spines.values():
        spine.set_visible(False)
    for panel, score in zip(axes[0, 1:], _BESIDE, strict=True):
        here = at(points, score=score)
        for place, (line, style) in enumerate(lines.items()):
            dot = at(here, line=line)
            look = {"color": style.colour, "marker": style.marker, "linestyle": "none", "elinewidth": 0.9}
            panel.errorbar(dot["mean"], [place] * len(dot), xerr=bars(dot), **look)
        panel.set_title(SCORES[score][0])
        panel.grid(visible=True, axis="x")
        panel.grid(visible=False, axis="y")
        show(panel, score, here, axis="x")
    for panel in axes[0]:
        panel.tick_params(left=False)
    table.set_yticks(range(len(lines)), labels=list(lines))
    table.set_ylim(len(lines) - 0.5, -0.5)

    n = repetitions(points["n"])
    places = {line: at(load, line=line).to_dict("records")[0] for line in lines}
    told_words = "; ".join(f"{k} {v['to_centre']:,.0f} and {v['from_centre']:,.0f}" for k, v in places.items())
    words = f"To the centre and back: {told_words}. In testing ({made}): {in_words(points, largest(rows, lines))}."
    caption = (
        "Numbers that the neurons tell a centre and hear from it at every time step of learning, one delivery a "
        "receiver, for |X| outputs, |H| hidden neurons and K compartments (implied by the rules: the paper's own table "
        f"could not be read), beside test log-likelihood and accuracy: mean and 95% Student-t interval over {n} "
        f"repetitions. {words}"
    )
    alt = (
        f"A table of formulas and numbers with dot plots of log-likelihood and accuracy beside it, a line each for "
        f"{', '.join(lines)}. {words}"
    )
    note = f"numbers a time step, one delivery a receiver; mean and 95% Student-t interval, {n} repetitions; {made}"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"load": load, "points": points})


def _load(rows: pd.DataFrame) -> pd.DataFrame:
    """What each line tells and hears, as its cells recorded it."""
    told = [json.loads(text) for text in rows["diagnostics"]]
    columns = {way: [float(found.get(way, "nan")) for found in told] for way in ("to_centre", "from_centre")}
    return rows.assign(**columns).groupby(["line", "variant"])[list(columns)].mean().dropna().reset_index()
