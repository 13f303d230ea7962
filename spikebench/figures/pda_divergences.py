"""What training on each divergence does to accuracy, potentials and spikes, beside controls that are no divergences."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.pda_criteria import beside_control, causality, effects
from spikebench.figures.psg_rows import DIVERGENCES, NOTE, in_points, one, with_treatments
from spikebench.figures.spide_rows import limits, with_diagnostics
from spikebench.figures.style import GREY, bars, canvas
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import measured, number, repetitions, spread

TITLE = "PDA (reconstructed): candidates and controls"
EXPERIMENT = "psg_pda"

#: What is trained on to its words, in the order of lines; choices are of A-gauss.
ARMS = {
    "none": "no PDA",
    **{name: style.label for name, style in DIVERGENCES.items()},
    "ratio 0.1": "A-gauss, ratio 0.1",
    "ratio 1": "A-gauss, ratio 1",
    "by_layer": "A-gauss, by layer",
    "through_spikes": "A-gauss, through spikes",
    "rate_matched": "control: A-gauss's rates",
    "quantisation": "control: squared error",
    "rate": "control: firing rate",
}
METRICS = {
    "accuracy": "test accuracy (%)",
    "shift_decades": "A-gauss shift (log10)",
    "quantisation": "E[(u − V o)²]",
    "rate": "firing rate",
}
#: Marks of choices and of controls.
CHOICE, CONTROL = ("#b87504", "d"), ("#000000", "v")


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweep over divergences."""
    return in_sweep(rows, "divergences")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Four panels with a line an arm."""
    table = with_treatments(with_diagnostics(rows, *list(METRICS)[1:], "shift_b"))
    found = set(table["arm"])
    arms = {**{a: w for a, w in ARMS.items() if a in found}, **{a: a for a in sorted(found - set(ARMS))}}
    points = pd.concat([summary(table, ["arm"], metric).assign(metric=metric) for metric in METRICS])
    looks = {"choices of A-gauss": CHOICE, "controls": CONTROL}
    keys = [Line2D([], [], color=c, marker=m, linestyle="none", label=words) for words, (c, m) in looks.items()]
    keys += [Line2D([], [], color=GREY, linestyle="--", linewidth=0.9, label="no PDA")]
    figure, axes = canvas(1, 4, TITLE, keys, height=0.22 * len(arms) + 0.2, left=1.75, wspace=0.12, sharey=True)
    for panel, (metric, label) in zip(axes[0], METRICS.items(), strict=True):
        own = at(points, metric=metric)
        base = at(own, arm="none")["mean"]
        if len(base):
            panel.axvline(base.iloc[0], color=GREY, linestyle="--", linewidth=0.9, zorder=0)
        for place, (arm, words) in enumerate(arms.items()):
            dot = at(own, arm=arm)
            colour, marker = _look(words)
            look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none"}
            panel.errorbar(dot["mean"], [place] * len(dot), xerr=bars(dot), elinewidth=0.9, **look)
        panel.set_xlabel(label)
        panel.grid(visible=True, axis="x")
        panel.grid(visible=False, axis="y")
        panel.tick_params(left=False)
        panel.set_xlim(*limits(list(table[metric].dropna()), own))
        panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes[0, 0].xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    axes[0, 0].set_yticks(range(len(arms)), labels=list(arms.values()))
    axes[0, 0].set_ylim(len(arms) - 0.4, -0.6)

    n, words = repetitions(points["n"]), _in_words(table, points, arms)
    caption = (
        "Networks trained with PDA on each candidate of its divergence, on choices within the usual one (A-gauss) and "
        "on controls: accuracy, and on test examples log10 of the A-gauss divergence between potentials u and what "
        "spikes make of them, V o, the squared error of that quantisation, and the firing rate, means over layers. One "
        "control is drawn to the firing rates of a network with A-gauss, without a divergence. Mean and 95% Student-t "
        f"interval over {n} repetitions; dashed: without PDA. {NOTE.capitalize()}. {words}"
    )
    alt = (
        "Dot plots with intervals of accuracy, A-gauss shift, squared quantisation error and firing rate, a line each "
        f"for {', '.join(arms.values())}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions; dashed: no PDA; {NOTE}"
    return Drawing(
        figure, note, caption, alt, int(points["n"].max()), {"points": points.assign(words=points["arm"].map(arms))}
    )


def _look(words: str) -> tuple[str, str]:
    """Colour and marker: of divergences as in the other figures."""
    of_divergences = {style.label: (style.colour, style.marker) for style in DIVERGENCES.values()}
    if words in of_divergences:
        return of_divergences[words]
    return CONTROL if words.startswith("control") else CHOICE if words.startswith("A-gauss") else (GREY, "o")


def _in_words(table: pd.DataFrame, points: pd.DataFrame, arms: dict[str, str]) -> str:
    """The usual divergence in numbers; then, of each, whether it does what PDA is to do."""
    changed = effects(table)
    base = {p["metric"]: p for p in at(points, arm="none").to_dict("records")}
    words = f"Without PDA: accuracy {measured(base['accuracy'])}." if "accuracy" in base else ""
    for arm in (name for name in DIVERGENCES if name in arms):
        found = {m: one(at(changed, arm=arm, metric=m), "difference") for m in ("accuracy", *list(METRICS)[1:])}
        if not found["accuracy"]["n"]:
            continue
        words += f" {arms[arm]}, paired differences to none: accuracy {in_points(found['accuracy'])} points, "
        words += f"A-gauss shift {number(found['shift_decades'])} decades, "
        words += f"squared error {number(found['quantisation'], 4)}, "
        words += f"firing rate {number(found['rate'], 4)}"
        control = one(beside_control(table, arm), "difference")
        words += f"; accuracy less that of the rate-matched control {in_points(control)} points" if control["n"] else ""
        words += f" (test of causality: {causality(table, arm).verdict})."
    return words.strip() or f"No pairs {spread(float('nan'), float('nan'))}."
