"""What a training example costs with SPIDE, IDE and backpropagation through time: energy, operations, firing rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from spikebench.evaluation import ADDITION_PJ, MULTIPLY_ACCUMULATE_PJ
from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.spide_rows import (
    BACKWARD_STEPS,
    MICRO,
    data_sets,
    microjoules,
    of_data_sets,
    said,
    short,
    with_diagnostics,
)
from spikebench.figures.style import GREY, bars, canvas, shifts
from spikebench.figures.tables import NothingToDraw, at, summary
from spikebench.figures.text import big, percent, repetitions

TITLE = "SPIDE, IDE and BPTT: cost of a training example"
EXPERIMENT = "spide"
SEVERAL_DATASETS = True


class Part(NamedTuple):
    """A part of the energy: its words, its look, and picojoules by the operations that it is made of."""

    words: str
    colour: str
    marker: str
    operations: Mapping[str, float]


#: From the bottom of the stacks to their top; of seaborn's ``colorblind`` palette.
PARTS = {
    "forward": Part("forward spikes", "#0173b2", "o", {"forward_additions": ADDITION_PJ}),
    "backward": Part(
        "backward", "#d55e00", "s",
        {"backward_additions": ADDITION_PJ, "backward_macs": MULTIPLY_ACCUMULATE_PJ},
    ),
    "inputs": Part("real-valued inputs", "#56b4e9", "^", {"input_macs": MULTIPLY_ACCUMULATE_PJ}),
    "gradient": Part("weights' gradient", "#de8f05", "D", {"gradient_macs": MULTIPLY_ACCUMULATE_PJ}),
    "solver": Part("solver's vectors", "#cc78bc", "v", {"solver_macs": MULTIPLY_ACCUMULATE_PJ}),
}  # fmt: skip
#: The parts that the way there and back is made of, without real-valued inputs and what is done besides.
BOTH_WAYS = ("forward", "backward")
#: Operations in the order of their marks, additions full and multiply-accumulates open; then what has no energy here.
OPERATIONS = {name: part for part in PARTS.values() for name in part.operations}
_UNCOUNTED = "neuron_updates"
_COUNTS = (*OPERATIONS, _UNCOUNTED, "forward_spikes", "backward_spikes", "products")
#: How many times as long as all others a bar must be to be cut off.
_DWARFS = 2.5
#: Firing rates to their words.
RATES = {"forward_rate": "forward", "backward_rate": "backward"}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The trainings on each data set, with all its examples."""
    return of_data_sets(rows)


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A column a data set: stacks of energy, operations on a logarithmic axis, firing rates."""
    rows, arms = short(with_diagnostics(rows, *_COUNTS, *RATES), context)
    sets, by = data_sets(rows), ["dataset", "training_size", "arm"]
    energies = pd.concat(
        [summary(rows.assign(pj=pj), by, "pj").assign(part=part) for part, pj in _energies(rows).items()]
    )
    counts = pd.concat([summary(rows, by, name).assign(operations=name) for name in _COUNTS])
    rates = pd.concat([summary(rows, by, name).assign(rate=name) for name in RATES])
    if energies.empty:
        raise NothingToDraw("no counts of operations in the finished cells for this figure")
    plain: dict[str, Any] = {"color": GREY, "linestyle": "none"}
    keys: list[Artist] = [Patch(color=part.colour, label=part.words) for part in PARTS.values()]
    keys += [
        Line2D([], [], **plain, marker="s", label="additions"),
        Line2D([], [], **plain, marker="s", markerfacecolor="white", label="multiply-accumulates"),
        Line2D([], [], **plain, marker="x", label="updates of neurons"),
        Line2D([], [], **plain, marker="o", label="forward rate"),
        Line2D([], [], **plain, marker="o", markerfacecolor="white", label="backward rate"),
    ]
    figure, axes = canvas(
        3, len(sets), TITLE, keys, height=1.35, left=0.75, gap=0.15, wspace=0.12 + 0.09 * len(sets), sharex=True
    )
    for (top, middle, bottom), (name, size) in zip(axes.T, sets.items(), strict=True):
        _stacks(top, at(energies, dataset=name), arms)
        _operations(middle, at(counts, dataset=name), arms)
        _rates(bottom, at(rates, dataset=name), arms)
        top.set_title(f"{size:,} examples", size=7)
        bottom.set_xlabel(name.replace(" from ", " from\n"), weight="bold", size=7)
        bottom.set_xticks(range(len(arms)), labels=list(arms))
        bottom.set_xlim(-0.5, len(arms) - 0.5)
    for panel in axes.flat:
        panel.tick_params(left=True, bottom=False)
    labels = ("energy (µJ an example)", "operations an example", "spikes (% of neurons\nand steps)")
    for panel, words in zip(axes[:, 0], labels, strict=True):
        panel.set_ylabel(words)

    n = repetitions(energies["n"])
    words = " ".join(
        f"{name}{_backward_steps(at(rows, dataset=name))}: "
        f"{_in_words(at(energies, dataset=name), at(counts, dataset=name), at(rates, dataset=name), arms)}."
        for name in sets
    )
    constants = f"{ADDITION_PJ:g} pJ an addition, {MULTIPLY_ACCUMULATE_PJ:g} pJ a multiply-accumulate"
    caption = (
        f"Energy a training example, estimated from what was counted over training: {constants} (32-bit numbers in 45 "
        "nm CMOS), an addition being a spike at a synapse; without memory and without the read-out. Below, the raw "
        "counts of both (logarithmic axis), with the updates of neurons, to which no energy is given; and the share of "
        "steps in which neurons (forward) and couples (backward, of either sign) spike. Totals stand above the bars; a "
        f"white line means that a bar is cut off. Means and 95% Student-t intervals over {n} repetitions. {words}"
    )
    alt = (
        f"Stacked bars of energy, dots of operations on a logarithmic axis and dots of firing rates, a column each for "
        f"{', '.join(sets)}, a bar each for {', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions; {constants}; axes differ"
    tables = {"energies": energies, "operations": counts, "rates": rates}
    return Drawing(figure, note, caption, alt, int(energies["n"].max()), tables)


def _backward_steps(rows: pd.DataFrame) -> str:
    """T_B of SPIDE's rows on one data set, in brackets."""
    found = sorted(set(said(at(rows, method="spide"), "settings", "backward_steps", BACKWARD_STEPS)))
    return f" (T_B = {', '.join(f'{steps:g}' for steps in found)})" if found else ""


def _energies(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Each part's picojoules an example, row by row, the sum of ``BOTH_WAYS`` and the ``total``."""
    found = {
        name: sum(
            (pj * rows[counted] for counted, pj in part.operations.items()), start=0.0 * rows["forward_additions"]
        )
        for name, part in PARTS.items()
    }
    nothing = 0.0 * rows["forward_additions"]
    both = sum((found[name] for name in BOTH_WAYS), start=nothing)
    return {**found, "both ways": both, "total": sum(found.values(), start=nothing)}


def _stacks(panel: Axes, points: pd.DataFrame, arms: Mapping[str, Style]) -> None:
    """A bar an arm, with the total written above and its interval; one that would dwarf all others is cut off."""
    totals = at(points, part="total").sort_values("mean")
    end = MICRO * _top(totals)
    if len(totals) > 2 and totals["mean"].iloc[-1] > _DWARFS * totals["mean"].iloc[-2]:
        end = MICRO * 1.4 * _top(totals.iloc[:-1])
    for place, arm in enumerate(arms):
        here, base = at(points, arm=arm), 0.0
        for name, part in PARTS.items():
            for mean in at(here, part=name)["mean"]:
                panel.bar(place, min(MICRO * mean, end - base), 0.6, base, color=part.colour, linewidth=0)
                base = min(base + MICRO * mean, end)
        for total in at(totals, arm=arm).to_dict("records"):
            mean = MICRO * total["mean"]
            if mean > end:
                panel.plot([place - 0.4, place + 0.4], [0.8 * end, 0.88 * end], color="white", linewidth=3, marker="")
            else:
                error = MICRO * bars(pd.DataFrame([total]))
                panel.errorbar(place, mean, yerr=error, color="black", linestyle="none", elinewidth=0.9)
            look: dict[str, Any] = {"ha": "center", "va": "top", "size": 7}
            words = panel.text(place, 1.0, _three_digits(mean), transform=panel.get_xaxis_transform(), **look)
            words.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})
    panel.set_ylim(0, 1.2 * end)
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _operations(panel: Axes, points: pd.DataFrame, arms: Mapping[str, Style]) -> None:
    """Marks beside each other, one an operation that there is."""
    panel.set_yscale("log")
    names = [*OPERATIONS, _UNCOUNTED]
    for place, arm in enumerate(arms):
        for name, shift in zip(names, shifts(len(names), 0.11, 0.8), strict=True):
            dot = at(points, arm=arm, operations=name)
            dot, part = dot[dot["mean"] > 0], OPERATIONS.get(name)
            look: dict[str, Any] = {"color": GREY, "marker": "x"}
            if part:
                inside = part.colour if name.endswith("additions") else "white"
                look = {"color": part.colour, "marker": part.marker, "markerfacecolor": inside}
            panel.errorbar([place + shift] * len(dot), dot["mean"], yerr=bars(dot), linestyle="none", **look)
    shown = points[points["operations"].isin(names) & (points["mean"] > 0)]
    panel.set_ylim(0.4 * shown["mean"].min(), 2.5 * shown["mean"].max())
    panel.yaxis.set_major_locator(LogLocator(numticks=6))
    panel.minorticks_off()


def _rates(panel: Axes, points: pd.DataFrame, arms: Mapping[str, Style]) -> None:
    """Both rates in per cent, side by side."""
    for place, (arm, style) in enumerate(arms.items()):
        for name, aside, inside in zip(RATES, (-0.1, 0.1), (style.colour, "white"), strict=True):
            dot = at(points, arm=arm, rate=name)
            panel.errorbar([place + aside] * len(dot), 100 * dot["mean"], yerr=100 * bars(dot), color=style.colour,
                           marker=style.marker, markerfacecolor=inside, linestyle="none", elinewidth=0.9)  # fmt: skip
    panel.set_ylim(0, 105 * _top(points))
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _top(points: pd.DataFrame) -> float:
    """What an axis needs to show of a summary: an interval of two repetitions may not flatten all the rest."""
    return float(min(points["high"].fillna(points["mean"]).max(), 1.3 * points["mean"].max()))


def _three_digits(value: float) -> str:
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(max(value, 1e-3)))))}f}"


def _in_words(energies: pd.DataFrame, counts: pd.DataFrame, rates: pd.DataFrame, arms: Mapping[str, Style]) -> str:
    """Of each arm on one data set: total, way there and back, operations of the way back, firing rates."""
    told = []
    for arm in arms:
        spent = {point["part"]: point for point in at(energies, arm=arm).to_dict("records")}
        if not spent:
            continue
        done = {point["operations"]: point["mean"] for point in at(counts, arm=arm).to_dict("records")}
        words = f"{arm} {microjoules(spent['total'])}, both ways {microjoules(spent['both ways'])}, of which backward "
        words += microjoules(spent["backward"])
        kinds = {"additions": done["backward_additions"], "multiply-accumulates": done["backward_macs"]}
        words += "".join(f" ({big(number)} {kind})" for kind, number in kinds.items() if number > 0)
        for point in at(rates, arm=arm).to_dict("records"):
            words += f", {RATES[point['rate']]} rate {percent(point['mean'])}"
        told.append(words)
    return "; ".join(told)
