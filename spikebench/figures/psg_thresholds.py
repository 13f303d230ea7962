"""Is PSG more than a threshold that is learnt? Both, each alone, and neither."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_criteria import beyond_thresholds
from spikebench.figures.psg_rows import NOTE, in_points, pairs
from spikebench.figures.spide_rows import limits
from spikebench.figures.style import GREY, bars, canvas
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import by_arm, repetitions

TITLE = "PSG (reconstructed): learnt thresholds"
EXPERIMENT = "psg_pda"

#: Pairs, what is added and to what.
PAIRS = (("psg", "fixed"), ("ltmd", "fixed"), ("ltmd+psg", "fixed"), ("ltmd+psg", "ltmd"))
_FAINT: dict[str, Any] = {"markersize": 2.5, "alpha": 0.5, "linestyle": "none", "markeredgewidth": 0}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweep over thresholds."""
    return in_sweep(rows, "thresholds")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """On the left a line an arm, on the right a line a pair."""
    arms, points = context.present(rows), summary(rows, ["arm"], "accuracy")
    names = dict(zip(rows["variant"], rows["arm"], strict=True))
    by_variant = rows.assign(arm=rows["variant"])
    shown = [pair for pair in PAIRS if set(pair) <= set(names)]
    single = [pairs(by_variant, *pair, "accuracy").assign(added=pair[0], to=pair[1]) for pair in shown]
    columns = ["repetition", "difference", "added", "to"]
    apart = pd.concat(single) if single else pd.DataFrame(columns=columns)
    differences = summary(apart, ["added", "to"], "difference")
    mark: dict[str, Any] = {"color": GREY, "marker": "o"}
    keys = [
        Line2D([], [], **mark, linestyle="none", label="mean"),
        Line2D([], [], **mark | _FAINT, label="single repetitions"),
    ]
    figure, axes = canvas(1, 2, TITLE, keys, height=1.7, left=1.45, wspace=0.95)
    left, right = axes[0]
    for place, (arm, style) in enumerate(arms.items()):
        _line(left, place, at(rows, arm=arm)["accuracy"], at(points, arm=arm), style.colour, style.marker)
    _axis(left, list(arms), limits(list(rows["accuracy"]), points))
    left.set_xlabel("test accuracy (%)")
    right.axvline(0, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
    for place, (added, to) in enumerate(shown):
        style = arms[names[added]]
        own = at(apart, added=added, to=to)["difference"]
        _line(right, place, own, at(differences, added=added, to=to), style.colour, style.marker)
    _axis(
        right,
        [f"{names[a]}\nless {names[b][0].lower() + names[b][1:]}" for a, b in shown],
        limits([*apart["difference"], 0.0], differences),
    )
    right.set_xlabel("difference (points)")

    n, told = repetitions(points["n"]), []
    for added, to in shown:
        told += [
            f"{names[added]} less {names[to]} {in_points(p)}"
            for p in at(differences, added=added, to=to).to_dict("records")
        ]
    words = f"{by_arm(points, arms)}. Points of difference: {'; '.join(told) or 'no pairs'}."
    result = beyond_thresholds(rows)
    words += f" PSG beside a learnt threshold: {result.verdict}."
    caption = (
        "Test accuracy with a fixed surrogate and threshold, with PSG (P1), with a threshold that each layer learns "
        "(as in the authors' earlier LTMD), and with both, and paired differences: mean and 95% Student-t interval "
        f"over {n} repetitions, and single repetitions. A sharpness rescales what a threshold rescales, too; PSG "
        f"passes if it adds to a learnt threshold. {NOTE.capitalize()}. {words}"
    )
    alt = f"Dot plots with intervals of test accuracy of {', '.join(arms)}, and of paired differences. {words}"
    note = f"mean and 95% Student-t interval, {n} repetitions; {NOTE}"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "differences": differences})


def _line(panel: Axes, place: int, single: pd.Series, point: pd.DataFrame, colour: str, marker: str) -> None:
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none"}
    panel.plot(single, [place + 0.22] * len(single), **look | _FAINT)
    panel.errorbar(point["mean"], [place] * len(point), xerr=bars(point), elinewidth=0.9, **look)


def _axis(panel: Axes, labels: list[str], ends: tuple[float, float]) -> None:
    panel.set_xlim(*ends)
    panel.set_yticks(range(len(labels)), labels=labels)
    panel.set_ylim(len(labels) - 0.4, -0.6)
    panel.tick_params(left=False)
    panel.grid(visible=True, axis="x")
    panel.grid(visible=False, axis="y")
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}".replace("-", "−")))
