"""Which method is better than which: every pair of arms on each data set, after Holm."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import blended_transform_factory

from spikebench import comparison
from spikebench.figures.comparison_rows import areas_over, data_sets, margin, matrix_panel, room_for
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, WIDTH, canvas
from spikebench.figures.tables import NothingToDraw, at
from spikebench.figures.text import measured, repetitions, spread

TITLE = "Which method is better than which"
EXPERIMENT = comparison.EXPERIMENT
SEVERAL_DATASETS = True
UNFINISHED_TOO = True
#: Verdict on the line against the column: colour and glyph.
LOOKS = {
    "better": ("#6fb3dc", "+"),
    "equivalent": ("#f5ea9c", "="),
    "worse": ("#ee9b4f", "−"),
    "undecided": ("#ececec", "·"),
}
#: Inches: a line, the words above; letters of these in a line.
_LINE, _HEAD, _LETTERS = 0.16, 0.72, 140


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All cells with all training data."""
    return comparison.planned(rows)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a data set, arms in the order of their ranks."""
    limit = margin(context)
    pairs, ranks = comparison.verdicts(rows, limit), comparison.ranks(rows)
    sets = data_sets(ranks)
    if ranks.groupby("dataset").size().max() < 2 or not sets:
        raise NothingToDraw("no finished cells for this figure of two arms under the same faults")
    keys = [
        Patch(facecolor=colour, edgecolor=GREY, linewidth=0.5, label=f"{glyph}  {verdict}")
        for verdict, (colour, glyph) in LOOKS.items()
    ]
    sizes = [_HEAD + _LINE * len(at(ranks, dataset=name)) for name in sets]
    figure, axes = canvas(
        len(sets), 1, TITLE, keys, height=sum(sizes) / len(sets), left=room_for(ranks["arm"]) + 0.25, right=0.1,
        gap=0.2, gridspec_kw={"height_ratios": sizes},
    )  # fmt: skip
    tests = []
    for panel, name in zip(axes[:, 0], sets, strict=True):
        here, of_set = at(pairs, dataset=name), at(ranks, dataset=name)
        tests.append({"dataset": name, "families": areas_over(rows, name), **_possible(here)})
        _matrix(panel, here, of_set)
        left: dict[str, Any] = {
            "transform": blended_transform_factory(figure.transFigure, panel.transData),
            "va": "top",
        }
        words = "\n".join(fill(sentence, _LETTERS) for sentence in _told(tests[-1]))
        panel.text(0.08 / WIDTH, -_HEAD / _LINE, name, size=8, weight="bold", **left)
        panel.text(0.08 / WIDTH, (0.18 - _HEAD) / _LINE, words, size=6.5, color=GREY, linespacing=1.2, **left)

    n, told = repetitions(ranks["n"]), []
    for test in tests:
        of_set = at(ranks, dataset=test["dataset"])
        first, counts = of_set.to_dict("records")[0], at(pairs, dataset=test["dataset"])["verdict"].value_counts()
        told.append(
            f"{test['dataset']}, {'; '.join(_told(test))}: {counts.get('better', 0)} better or worse, "
            f"{counts.get('equivalent', 0) // 2} equivalent, {counts.get('undecided', 0) // 2} undecided; the largest "
            f"area has {first['arm']}, {measured({**first, 'mean': first['area']})}."
        )
    alone = f" {spread(float('nan'), float('nan')).strip('()').capitalize()}: nothing can be decided."
    words = " ".join(told) + (alone if ranks["n"].max() == 1 else "")
    caption = (
        "Each arm against each other: whether the arm of the line is better (+) or worse (−) than that of the column, "
        "or both are equivalent (=), or it is undecided (·), by the paired differences between areas under severity "
        f"curves, as a mean over the fault families that all arms meet. Margin ±{100 * limit:g} points; paired t tests "
        "and TOST, each with Holm over all pairs of a data set at 5%; no verdict where the smallest p that a sign-flip "
        f"test can take at this n is not below 5% (n < 6). Arms in the order of their areas, {n} repetitions. {words}"
    )
    alt = (
        f"Matrices of verdicts, arms by arms, a panel each for {', '.join(sets)}, with + for better, − for worse, = "
        f"for equivalent and a dot for undecided. {words}"
    )
    note = f"line against column; margin ±{100 * limit:g} points; Holm over the pairs of a data set; {n} repetitions"
    numbers = {"verdicts": pairs, "ranks": ranks, "tests": tests, "margin": limit}
    return Drawing(figure, note, caption, alt, int(ranks["n"].max()), numbers)


def _possible(pairs: pd.DataFrame) -> dict[str, Any]:
    """Of one data set: how many tests, of what n, and what a sign-flip test at the largest n could have shown."""
    if pairs.empty:
        return {"tests": 0, "n": [], "attainable": None, "passes_among": 0}
    smallest = float(pairs["attainable"].min())
    return {
        "tests": len(pairs) // 2,
        "n": sorted({int(n) for n in pairs["n"]}),
        "attainable": smallest,
        "passes_among": comparison.most_tests(smallest),
    }


def _told(test: dict[str, Any]) -> tuple[str, str]:
    """How many tests, of what n, and what a sign-flip test could show; then the families."""
    over, among = f"area over {test['families']}", test["passes_among"]
    if not test["tests"]:
        return "no pairs to test", over
    passes = f"among {among} test{'s' * (among != 1)} at most" if among else "at no number of tests"
    smallest = (
        f"the smallest sign-flip p at n = {max(test['n'])} is {test['attainable']:.2g}, which passes Holm {passes}"
    )
    return f"{test['tests']} test{'s' * (test['tests'] != 1)}, {repetitions(test['n'])}; {smallest}", over


def _matrix(panel: Axes, pairs: pd.DataFrame, ranks: pd.DataFrame) -> None:
    """A glyph on a colour for every ordered pair; lines have names and places, columns places alone."""
    arms = list(ranks["arm"])
    found = {(pair["arm"], pair["reference"]): pair["verdict"] for pair in pairs.to_dict("records")}
    look: dict[str, Any] = {"ha": "center", "va": "center_baseline"}
    names = [f"{arm}  {place}" for place, arm in enumerate(arms, 1)]
    matrix_panel(panel, len(arms), len(arms), _HEAD / _LINE, names)
    for line, arm in enumerate(arms):
        panel.text(line + 0.5, -0.4, str(line + 1), size=6.5, color=GREY, **look)
        for column, reference in enumerate(arms):
            if arm == reference:
                continue
            colour, glyph = LOOKS[found.get((arm, reference), "undecided")]
            panel.add_patch(Rectangle((column, line), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
            ink = GREY if glyph == "·" else "black"
            panel.text(column + 0.5, line + 0.5, glyph, size=7.5, weight="bold", color=ink, **look)
