"""How many forward time steps SPIDE, IDE and backpropagation through time need, and what these cost."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator

from spikebench.evaluation import ADDITION_PJ
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.spide_rows import MICRO, STEPS, log_limits, microjoules, said, short, with_diagnostics
from spikebench.figures.style import canvas, curve, key, shifts, size_axis, zoomed_percent_axis
from spikebench.figures.tables import at, in_sweep, summary, with_all_data
from spikebench.figures.text import measured, repetitions

TITLE = "SPIDE, IDE and BPTT: forward time steps"
EXPERIMENT = "spide"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweep over T_F."""
    return with_all_data(in_sweep(rows, "time-steps"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Two panels against T_F, accuracy and the energy of forward spikes; one curve an arm."""
    rows, arms = short(with_diagnostics(rows, "forward_additions"), context)
    rows = rows.assign(
        steps=said(rows, "data_settings", "steps", STEPS), forward=ADDITION_PJ * rows["forward_additions"]
    )
    points = summary(rows, ["arm", "steps"], "accuracy")
    energies = summary(rows, ["arm", "steps"], "forward")
    keys = [key(style) for style in arms.values()]
    figure, axes = canvas(1, 2, TITLE, keys, height=2.2, wspace=0.28)
    for panel, table, scale in zip(axes[0], (points, energies), (1.0, MICRO), strict=True):
        size_axis(panel, points["steps"])
        panel.tick_params(left=True)
        panel.set_xlabel("forward time steps, T_F")
        scaled = table.assign(**{name: scale * table[name] for name in ("mean", "low", "high")})
        if scale == MICRO and len(scaled):
            panel.set(yscale="log", ylim=log_limits(scaled))
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.03, 0.1), strict=True):
            curve(panel, at(scaled, arm=arm), "steps", style, shift)
    accuracy, energy = axes[0]
    accuracy.set_ylabel("test accuracy (%)")
    zoomed_percent_axis(axes[:, :1], points)
    energy.set_ylabel("energy of forward spikes\n(µJ a training example)")
    energy.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    energy.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    energy.minorticks_off()

    n, size = repetitions(points["n"]), rows["training_size"].iloc[0]
    told = []
    for steps in sorted({points["steps"].min(), points["steps"].max()}):
        here, spent = ({p["arm"]: p for p in at(table, steps=steps).to_dict("records")} for table in (points, energies))
        of_arms = [
            f"{arm} {measured(here[arm])}" + (f" for {microjoules(spent[arm])}" if arm in spent else "")
            for arm in arms
            if arm in here
        ]
        told.append(f"T_F = {steps:g}: {', '.join(of_arms)}")
    words = f"At {'; at '.join(told)}."
    caption = (
        "Test accuracy after the last epoch, and energy of the forward stage's spikes a training example "
        f"({ADDITION_PJ:g} pJ an addition at a synapse, real-valued inputs not included), by forward time steps T_F in "
        f"training and testing, {size:,} training examples; T_B does not change. Mean and 95% Student-t interval over "
        f"{n} repetitions; time steps and energy on logarithmic axes. {words}"
    )
    ticks = ", ".join(f"{steps:g}" for steps in sorted(set(points["steps"])))
    alt = (
        f"Line charts of test accuracy and of the energy of forward spikes against T_F = {ticks}, a line each for "
        f"{', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; {size:,} training examples; set slightly apart"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "energies": energies})
