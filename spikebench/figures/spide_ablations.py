"""Which of SPIDE's choices matter: each changed setting against SPIDE as it is, repetition by repetition."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.spide_rows import limits
from spikebench.figures.style import GREY, bars, canvas
from spikebench.figures.tables import NothingToDraw, at, differences, in_sweep, summary, with_all_data
from spikebench.figures.text import measured, repetitions, spread

TITLE = "SPIDE: what single choices change"
EXPERIMENT = "spide"

#: Setting to the words for what it is changed to, in the order of the lines.
CHANGES = {
    "modified_reset": "couples reset to 0",
    "backward_steps": "T_B = {:g}",
    "loss_scale": "S = {:g}",
    "undivided_decay": "weight decay not divided by S",
    "dropout": "dropout of {:.0%}",
    "masked_gradient": "gradient sees the masks",
    "feedback_norm": "feedback's norm at most {:g}",
    "leaky_backward": "couples without leak",
}
#: What a value of 0 says.
NONE = {
    "feedback_norm": "feedback's norm not restricted",
    "dropout": "no dropout",
    "modified_reset": "couples reset to 0",
}
#: SPIDE without a change.
_BASE = "{}"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweep of ablations, with the column ``change``: in what settings differ from SPIDE's usual ones."""
    table = with_all_data(in_sweep(rows, "ablations"))
    documents = {text: json.loads(text) for text in sorted(set(table["settings"]))}
    usual = _usual(list(documents.values()))
    changes = {
        text: {name: settings[name] for name in _in_order(settings) if settings[name] != usual.get(name)}
        for text, settings in documents.items()
    }
    return table.assign(change=[json.dumps(changes[text]) for text in table["settings"]])


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A line a change: differences of single repetitions, their mean and interval."""
    style = next(iter(context.present(rows).values()))
    pairs = differences(rows.assign(arm=rows["change"]), _BASE, "accuracy")
    pairs = pairs.assign(change=pairs["arm"], difference=-pairs["difference"])
    points = summary(pairs, ["change", "arm"], "difference").drop(columns="arm")
    if points.empty:
        raise NothingToDraw("no finished cells that pair a changed setting with SPIDE as it is")
    lines = {change: _in_words(json.loads(change)) for change in sorted(set(points["change"]), key=_rank)}
    mark: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
    faint = {**mark, "markersize": 3, "alpha": 0.45, "markeredgewidth": 0}
    keys = [Line2D([], [], **mark, label="mean"), Line2D([], [], **faint, label="single repetitions")]
    keys += [Line2D([], [], color=GREY, linestyle="--", label="SPIDE as it is")]
    room = 0.3 + 0.056 * max(map(len, lines.values()))
    figure, axes = canvas(1, 1, TITLE, keys, height=max(1.3, 0.24 * len(lines) + 0.1), left=room)
    panel = axes[0, 0]
    panel.axvline(0, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
    for place, change in enumerate(lines):
        single, dot = at(pairs, change=change)["difference"], at(points, change=change)
        panel.plot(single, [place + 0.22] * len(single), **faint)
        panel.errorbar(dot["mean"], [place] * len(dot), xerr=bars(dot), **mark, elinewidth=0.9)
    panel.set_xlim(*limits([*pairs["difference"], 0.0], points))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: _signed(100 * share)))
    panel.set_xlabel("difference in test accuracy (points)")
    panel.set_yticks(range(len(lines)), labels=list(lines.values()))
    panel.set_ylim(len(lines) - 0.4, -0.6)
    panel.tick_params(left=False)
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")

    n, size = repetitions(points["n"]), rows["training_size"].iloc[0]
    found = {point["change"]: point for point in points.to_dict("records")}
    told = [
        f"{words} {100 * found[change]['mean']:+.1f} {spread(found[change]['low'], found[change]['high'])}"
        for change, words in lines.items()
    ]
    base = summary(at(rows, change=_BASE), ["change"], "accuracy").to_dict("records")[0]
    words = f"SPIDE as it is: {measured(base)}. Points of difference: {'; '.join(told)}."
    caption = (
        f"Test accuracy of SPIDE with one choice changed, less that of SPIDE as it is, in the same repetition "
        f"({size:,} training examples; exploratory): mean and 95% Student-t interval over {n} pairs, and single pairs. "
        f"{words}"
    )
    alt = f"A dot plot of differences in accuracy with intervals, a line each for {', '.join(lines.values())}. {words}"
    note = f"mean and 95% Student-t interval of paired differences, {n}; {size:,} training examples"
    pairs = pairs[["change", "repetition", "difference"]]
    numbers = {"points": points.assign(words=points["change"].map(lines)), "pairs": pairs, "base": base}
    return Drawing(figure, note, caption, alt, int(points["n"].max()), numbers)


def _signed(points: float) -> str:
    """With its sign, but for 0."""
    return f"{points:+g}".replace("-", "−") if abs(points) > 1e-9 else "0"


def _usual(documents: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The settings from which the others depart: of those with the fewest entries the ones most like all others."""

    def unlike(one: Mapping[str, Any]) -> int:
        return sum(one.get(name) != other.get(name) for other in documents for name in {**one, **other})

    return min(documents, key=lambda one: (len(one), unlike(one)), default={})


def _in_order(names: Mapping[str, Any]) -> list[str]:
    """Names in the order of ``CHANGES``, others after them."""
    places = list(CHANGES)
    return sorted(names, key=lambda name: (places.index(name) if name in places else len(places), name))


def _in_words(change: Mapping[str, Any]) -> str:
    """Every changed setting as people read it."""
    said = []
    for name, value in change.items():
        words = NONE[name] if name in NONE and not value else CHANGES.get(name, f"{name.replace('_', ' ')} = {value}")
        said.append(words.format(value))
    return ", ".join(said)


def _rank(change: str) -> tuple[Any, ...]:
    """Where a change stands among the lines: by its first setting, the fewer settings the earlier."""
    settings, places = json.loads(change), list(CHANGES)
    first = next(iter(settings))
    return (places.index(first) if first in places else len(places), first, len(settings), change)
