"""What the sampler did: log-posterior and acceptance rate over the blocks of proposals, for a few cells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.lines import Line2D

from spikebench.figures.arms import LEAD, LINES, REFERENCE
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import canvas
from spikebench.figures.tables import NothingToDraw, at, hardest, in_sweep, pick

TITLE = "How the Metropolis-Hastings chains ran"
EXPERIMENT = "chip_in_the_loop"

#: Repetitions shown: enough to see whether chains agree, few enough to tell their lines apart.
SHOWN = 3
#: Name of a trace to its y label and the factor that brings it there.
_TRACES = {"log_posterior": ("log-posterior", 1), "acceptance_rate": ("acceptance (%)", 100)}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The sampler's cells with the strongest fault set and all training data, of the sweep over severities."""
    return hardest(at(in_sweep(rows, "severity"), method=REFERENCE.method, mode=REFERENCE.mode))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Two rows of panels (log-posterior, acceptance), a column a severity, a line a chain."""
    rows = rows[rows["severity"].isin(pick(rows["severity"]))]
    shown = sorted(set(rows["repetition"]))[:SHOWN]
    cells = rows.loc[rows["repetition"].isin(shown), ["cell", "severity", "repetition"]]
    traces = context.traces[context.traces["name"].isin(list(_TRACES))].merge(cells, on="cell")
    if traces.empty:
        raise NothingToDraw("no traces of finished cells for this figure")
    severities, chains = sorted(set(traces["severity"])), sorted(set(traces["chain"]))
    shades = seaborn.blend_palette(["#02263f", LEAD[REFERENCE].colour, "#8ccdf5"], SHOWN)
    colours = dict(zip(shown, shades, strict=False))
    lines = {chain: LINES[i % len(LINES)] for i, chain in enumerate(chains)}
    keys = [Line2D([], [], color=colours[r], label=f"repetition {r}") for r in shown]
    keys += [Line2D([], [], color="black", linestyle=lines[c], label=f"chain {c}") for c in chains]
    figure, axes = canvas(2, len(severities), TITLE, keys, height=1.35, left=0.75, sharex=True, sharey="row")
    for column, severity in zip(axes.T, severities, strict=True):
        for panel, (name, (_, scale)) in zip(column, _TRACES.items(), strict=True):
            for (repetition, chain), trace in at(traces, severity=severity, name=name).groupby(["repetition", "chain"]):
                trace = trace.sort_values("step")
                look = {"color": colours[repetition], "linestyle": lines[chain]}
                panel.plot(trace["step"], trace["value"] * scale, linewidth=1, **look)
        column[0].set_title(f"severity {severity:g}")
        column[1].set_xlabel("block of proposals")
    for panel, (words, _) in zip(axes[:, 0], _TRACES.values(), strict=True):
        panel.set_ylabel(words)
    axes[1, 0].set_ylim(bottom=0)
    climbed = at(traces, name="log_posterior")["value"]
    low, high = climbed.quantile(0.1), climbed.max()  # the first blocks start so low that the rest would look flat
    axes[0, 0].set_ylim(low - 0.1 * (high - low) - 1, high + 0.1 * (high - low) + 1)

    measured = _diagnostics(rows)
    fault, size = rows["fault"].iloc[0], rows["training_size"].iloc[0]
    found = "; ".join(_in_words(record) for record in measured.to_dict("records"))
    caption = (
        f"Log-posterior and acceptance rate over the blocks of proposals, {len(chains)} chains in each of {len(shown)} "
        f"repetitions; {fault}, {size} training samples. Over all repetitions: {found}."
    )
    alt = (
        f"Line charts over the blocks of proposals, a column each for severity "
        f"{', '.join(f'{s:g}' for s in severities)}: above the log-posterior, below the acceptance rate of each chain. "
        f"Over all repetitions: {found}."
    )
    note = (
        f"{len(shown)} of n = {rows['repetition'].nunique()} repetitions; fault: {fault}, {size} training samples; the "
        "first blocks may lie below the panel"
    )
    return Drawing(figure, note, caption, alt, int(measured["n"].max()), {"diagnostics": measured})


def _diagnostics(rows: pd.DataFrame) -> pd.DataFrame:
    """By severity, over the repetitions: mean, least and greatest effective sample size, and mean acceptance rate."""
    parsed = [json.loads(text) for text in rows["diagnostics"]]
    values = {
        name: [float(p.get(name, np.nan)) for p in parsed] for name in ("effective_sample_size", "acceptance_rate")
    }
    grouped = pd.DataFrame(values).assign(severity=rows["severity"].to_numpy()).groupby("severity")
    return grouped.agg(
        ess=("effective_sample_size", "mean"),
        ess_least=("effective_sample_size", "min"),
        ess_greatest=("effective_sample_size", "max"),
        acceptance_rate=("acceptance_rate", "mean"),
        n=("acceptance_rate", "size"),
    ).reset_index()


def _in_words(found: Mapping[Any, Any]) -> str:
    where = f"severity {found['severity']:g} (n = {found['n']})"
    if np.isnan(found["ess"]):
        return f"{where}: no effective sample size recorded"
    return (
        f"{where}: effective sample size {found['ess']:.1f} ({found['ess_least']:.1f} to {found['ess_greatest']:.1f}), "
        f"acceptance {100 * found['acceptance_rate']:.1f}%"
    )
