"""Where the spread of a result comes from: split, seed, chip, what each reading draws, and all of them together."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from spikebench import comparison
from spikebench.figures.comparison_rows import data_sets, in_lines, room_for
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import canvas
from spikebench.figures.tables import NothingToDraw, at
from spikebench.figures.text import percent, spread
from spikebench.sweep import FACTORS

TITLE = "Where the spread of accuracy comes from"
EXPERIMENT = comparison.EXPERIMENT
SEVERAL_DATASETS = True
#: Colour of each part (seaborn's ``colorblind`` palette) and what it is called.
PARTS = {
    "split": ("#0173b2", "split of the data"),
    "seed": ("#de8f05", "seed of the training"),
    "chip": ("#029e73", "chip"),
    "read": ("#cc78bc", "reading of the chip"),
    "interactions": ("#949494", "interactions"),
}
_LINE = 0.2


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the crossing."""
    return rows[rows["crossed"] != "{}"]


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A bar an arm, a panel a data set."""
    found = comparison.variance_shares(rows)
    if found.empty:
        raise NothingToDraw("no whole crossing with two levels of every factor, so that there is nothing to tell apart")
    arms, sets = list(context.present(found)), data_sets(found)
    keys = [Patch(facecolor=colour, label=words) for colour, words in PARTS.values()]
    lines = max(at(found, dataset=name)["arm"].nunique() for name in sets)
    figure, axes = canvas(
        len(sets), 1, TITLE, keys, height=max(1.3, _LINE * lines), left=room_for(arms), right=0.85, gap=0.35,
        sharex=True,
    )  # fmt: skip
    for panel, name in zip(axes[:, 0], sets, strict=True):
        _bars(panel, at(found, dataset=name), [arm for arm in arms if arm in set(at(found, dataset=name)["arm"])])
        panel.set_title(in_lines(name), pad=3, loc="left", weight="bold")
    axes[-1, 0].set_xlabel("share of the variance (%)")

    levels = _levels(rows)
    wide = (found["high"] - found["low"]).dropna()
    told = []
    for name in sets:
        here = [_in_words(at(found, dataset=name, arm=arm)) for arm in arms if len(at(found, dataset=name, arm=arm))]
        told.append(f"{name}: {'; '.join(here)}.")
    words = " ".join(told)
    fault, severity = rows["fault"].iloc[0], rows["severity"].iloc[0]
    n = int(rows.groupby(["dataset", "arm"]).size().max())
    width = f"their 95% intervals are {100 * wide.mean():.0f} points wide on average" if len(wide) else "nothing varies"
    caption = (
        f"Shares of the variance of test accuracy, fault {fault}, severity {severity:g}, where {levels} are crossed, "
        f"n = {n} cells an arm: unbiased components of variance of the four factors, those below 0 taken as 0, and of "
        "all their interactions together; beside the bars the standard deviation of all of it, in points of accuracy. "
        f"With so few levels the shares are rough: {width} (drawn from normal distributions with the components found; "
        f"in the numbers). The largest share of each arm: {words}"
    )
    alt = (
        f"Stacked bars of shares of variance: {', '.join(words for _, words in PARTS.values())}; an arm a bar, a panel "
        f"each for {', '.join(sets)}. {words}"
    )
    note = f"components of variance, {levels} crossed, n = {n} cells an arm; right: total standard deviation"
    return Drawing(figure, note, caption, alt, n, {"shares": found})


def _levels(rows: pd.DataFrame) -> str:
    """``3 splits, 3 seeds, 3 chips and 3 reads``, of the largest crossing."""
    sizes: dict[str, Any] = json.loads(max(sorted(set(rows["crossed"])), key=len))
    said = [f"{sizes[factor]} {factor}{'s' * (sizes[factor] != 1)}" for factor in FACTORS]
    return f"{', '.join(said[:-1])} and {said[-1]}"


def _bars(panel: Axes, found: pd.DataFrame, arms: list[str]) -> None:
    """A stack an arm, the first above; its standard deviation beside it."""
    for line, arm in enumerate(arms):
        base, here = 0.0, at(found, arm=arm)
        for part, (colour, _) in PARTS.items():
            for share in at(here, part=part)["share"].dropna():
                panel.barh(line, share, 0.72, base, color=colour, edgecolor="white", linewidth=0.5)
                base += share
        panel.text(1.015, line, f"{100 * here['sd'].iloc[0]:.2f} points", size=7, va="center")
    panel.set(xlim=(0, 1), ylim=(len(arms) - 0.5, -0.5))
    panel.set_yticks(range(len(arms)), labels=arms)
    panel.tick_params(left=False, bottom=True)
    panel.grid(visible=False)
    panel.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))


def _in_words(found: pd.DataFrame) -> str:
    """One arm's standard deviation and the part that is most of it."""
    arm, sd = found["arm"].iloc[0], f"{100 * found['sd'].iloc[0]:.2f} points"
    if found["share"].isna().all():
        return f"{arm} {sd}, nothing varies"
    most = found.nlargest(1, "share").to_dict("records")[0]
    return f"{arm} {sd}, {most['part']} {percent(most['share'])} {spread(most['low'], most['high'])}"
