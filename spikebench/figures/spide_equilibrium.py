"""How fast average rates reach the equilibrium, and what the neurons' rest has to do with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.spide_rows import STEPS, hollow_curve, log_limits, nearest, said, with_diagnostics
from spikebench.figures.style import GREY, canvas, curve, size_axis
from spikebench.figures.tables import NothingToDraw, at, in_sweep, summary
from spikebench.figures.text import number, repetitions

TITLE = "SPIDE: from average rates to the equilibrium"
EXPERIMENT = "spide"

#: The neurons' rest, in their own units, to its words; -1 where the network names none.
RESTS = {-1.0: "rest −V_th", 0.0: "rest 0"}
#: Told in words, where there are such cells.
_TOLD_STEPS = 30.0


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep over T_F and rest."""
    return in_sweep(rows, "equilibrium")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel: the distance of the rates from the equilibrium against T_F, a curve a rest."""
    rows = with_diagnostics(rows, "rate_error").assign(
        steps=said(rows, "data_settings", "steps", STEPS),
        rest=[float(rest) for rest in said(rows, "network", "rest", -1.0)],
    )
    points = summary(rows[rows["rate_error"] > 0], ["rest", "steps"], "rate_error")
    if points.empty:
        raise NothingToDraw("no finished cells whose rates were compared with the equilibrium")
    style = next(iter(context.present(rows).values()))
    rests = {rest: RESTS.get(rest, f"rest {rest:g}") for rest in sorted(set(points["rest"]))}
    keys = []
    for rest, words in rests.items():
        line, inside = ("-", style.colour) if rest else ("--", "white")
        look: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "linestyle": line,
            "markerfacecolor": inside,
        }
        keys.append(Line2D([], [], **look, label=words))
    keys += [Line2D([], [], color=GREY, linewidth=0.9, label="proportional to 1 / T_F")]
    figure, axes = canvas(1, 1, TITLE, keys, height=2.2, left=0.85)
    panel = axes[0, 0]
    size_axis(panel, points["steps"])
    panel.set(yscale="log", ylim=log_limits(points))
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{error:g}"))
    panel.minorticks_off()
    ticks = np.array(sorted(set(points["steps"])), dtype=np.float64)
    start = np.exp(np.log(at(points, steps=ticks[0])["mean"]).mean())
    panel.plot(ticks, start * ticks[0] / ticks, color=GREY, linewidth=0.9, zorder=0)
    for rest in rests:
        (curve if rest else hollow_curve)(panel, at(points, rest=rest), "steps", style, 0.0)
    panel.set(xlabel="forward time steps, T_F", ylabel="distance to the equilibrium\n(mean |a − a*|, spikes a step)")

    n, told = repetitions(points["n"]), []
    for steps in sorted({nearest(points["steps"], _TOLD_STEPS), float(ticks[-1])}):
        here = {point["rest"]: number(point, 4) for point in at(points, steps=steps).to_dict("records")}
        told.append(f"T_F = {steps:g}: {', '.join(f'{rests[rest]} {here[rest]}' for rest in rests if rest in here)}")
    words = f"At {'; at '.join(told)}."
    caption = (
        "Mean distance of the neurons' average rates from the equilibrium that they tend to, in an untrained feedback "
        "network shown Gaussian pictures, by forward time steps T_F (both axes logarithmic) and by the potential that "
        "neurons start from and are reset towards: thresholds differ by as much, so that V_th less the rest is 2. Mean "
        f"and 95% Student-t interval over {n} repetitions; grey: proportional to 1 / T_F. {words}"
    )
    alt = (
        f"A line chart of the distance between average rates and equilibrium against T_F = "
        f"{', '.join(f'{t:g}' for t in ticks)}, a line each for {', '.join(rests.values())}, and a guide that falls as "
        f"1 / T_F. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; both axes logarithmic"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})
