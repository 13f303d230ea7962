"""Learning one recording by heart: how fast, beside the one run of the authors that could be read, and how well."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.gem_rows import looks, show, with_lines
from spikebench.figures.style import Panels, bars, canvas, key, shifts, size_axis
from spikebench.figures.tables import NothingToDraw, at, in_sweep, summary
from spikebench.figures.text import measured, number, repetitions

TITLE = "GEM-SNN: learning one recording by heart"
EXPERIMENT = "gem_snn"

#: Time steps of a recording whose settings name none.
STEPS = 80
#: Of the authors' notebook, rule IW with K = 5, after ``PUBLISHED_STEPS``: the bound in nats, the share of wrong bits.
PUBLISHED_STEPS = (80, 160, 240, 320, 400)
PUBLISHED = {"bound": (-3995.0, -1700.0, -924.0, -567.0, -438.0), "bit_error": (0.113, 0.051, 0.034, 0.022, 0.017)}
#: Sweep to the heading of its panels.
_SWEEPS = {
    "notebook": "The sizes and the learning rate of the authors' notebook",
    "memorisation": "Learning rates chosen on the recording",
}
#: Name of a trace to the words of its axis; the first two axes are logarithmic, so that the bound changes its sign.
_TRACES = {"bound": "minus bound (nats)", "bit_error": "bit error (%)", "hidden_rate": "hidden firing rate (%)"}
#: Of the trained network: name to the words of its axis.
_FINAL = {
    "log_likelihood": "log-likelihood (nats)",
    "bit_error": "bit error, free run (%)",
    "majority": "bit error, majority (%)",
}
_INK = "black"
#: Where bands end that would reach 0.
_LEAST = 1e-9


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of both sweeps."""
    return pd.concat([in_sweep(rows, name) for name in _SWEEPS]).drop_duplicates("cell")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A row of panels a sweep: three traces over time; below, what the trained networks do by K."""
    rows = _with_sweeps(with_lines(rows))
    traces = _over_time(rows, context.traces)
    if traces.empty:
        raise NothingToDraw("no traces of finished cells for this figure")
    points = summary(traces, ["sweep", "name", "line", "steps"], "value")
    final = pd.concat([summary(rows, ["sweep", "line", "arm", "compartments"], s).assign(score=s) for s in _FINAL])
    lines = looks(rows, context)
    sweeps = [sweep for sweep in _SWEEPS if sweep in set(points["sweep"])]
    keys: list[Any] = [key(style) for style in lines.values()]
    if "notebook" in sweeps:
        keys.append(_published(label="authors' notebook, IW (K = 5)"))
    figure, axes = canvas(len(sweeps) + 1, 3, TITLE, keys, height=1.3, left=0.85, gap=0.66, wspace=0.45)
    for row, sweep in zip(axes, sweeps, strict=False):
        _traces(row, at(points, sweep=sweep), lines)
        if sweep == "notebook":
            for panel, name in zip(row, PUBLISHED, strict=False):
                panel.add_line(_published(name))
                panel.set_xlim(right=max(panel.get_xlim()[1], 1.05 * PUBLISHED_STEPS[-1]))
        _heading(row, _SWEEPS[sweep])
    _by_compartments(axes[-1], final, lines)
    _heading(axes[-1], "Trained networks" + (" (open: those of the notebook's sizes)" if len(sweeps) > 1 else ""))

    n, words = repetitions(points["n"]), _in_words(points, final, sweeps, lines)
    caption = (
        "One recording, shown again and again; the lower half of the picture is to follow from the upper one. While "
        "weights change: minus the training bound (its discounting inflates it by 1 / (1 - κ), about 5%), the "
        "probability that the next output bit is wrong, and how often a hidden neuron fires. Of the trained network by "
        "K: log-likelihood of the target spikes, and wrong bits where outputs run free, in one run and in the majority "
        f"of runs. Mean and 95% Student-t interval over {n} repetitions. {words}"
    )
    alt = (
        f"Line charts over time steps of the training bound, the bit error and the hidden rate, a line each for "
        f"{', '.join(lines)}, and dot plots by K of log-likelihood and bit errors. {words}"
    )
    note = (
        f"mean and 95% Student-t interval (bands, bars), {n} repetitions; bound and bit error over time: logarithmic "
        "axes"
    )
    published = [
        {"name": name, "steps": steps, "value": value}
        for name, values in PUBLISHED.items()
        for steps, value in zip(PUBLISHED_STEPS, values, strict=True)
    ]
    numbers = {"points": points, "final": final, "published": published if "notebook" in sweeps else []}
    return Drawing(figure, note, caption, alt, int(points["n"].max()), numbers)


def _with_sweeps(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows once a sweep, with the columns ``sweep``, ``duration`` (time steps) and ``majority`` (bit error)."""
    rows = pd.concat([in_sweep(rows, name).assign(sweep=name) for name in _SWEEPS])
    estimates = [json.loads(text) for text in rows["estimates"]]
    return rows.assign(
        duration=[int(json.loads(text).get("bins", STEPS)) for text in rows["data_settings"]],
        majority=[float(found.get("majority", {}).get("bit_error", "nan")) for found in estimates],
    )


def _over_time(rows: pd.DataFrame, traces: pd.DataFrame) -> pd.DataFrame:
    """The traces shown, with ``steps``, the time steps of so many presentations."""
    shown = traces[traces["name"].isin(list(_TRACES))].merge(rows[["cell", "sweep", "line", "duration"]], on="cell")
    return shown.assign(steps=shown["step"] * shown["duration"])


def _traces(row: Panels, points: pd.DataFrame, lines: dict[str, Style]) -> None:
    """One sweep's panels."""
    for place, (panel, (name, words)) in enumerate(zip(row, _TRACES.items(), strict=True)):
        sign = -1 if name == "bound" else 1
        for line, style in lines.items():
            mine = at(points, name=name, line=line).sort_values("steps")
            if mine.empty:
                continue
            look = {"color": style.colour, "linestyle": style.line, "marker": style.marker}
            panel.plot(mine["steps"], sign * mine["mean"], markersize=3, markevery=max(len(mine) // 10, 1), **look)
            ends = ((sign * mine[end]).clip(lower=_LEAST) for end in ("low", "high"))  # a logarithm has no 0
            panel.fill_between(mine["steps"], *ends, color=style.colour, alpha=0.15, linewidth=0)
        panel.set(ylabel=words, xlabel="time steps", xlim=(0, None))
        panel.tick_params(left=True, bottom=True)
        means = sign * at(points, name=name)["mean"]
        if place < 2 and (means > 0).all() and len(means):
            known = [sign * value for value in PUBLISHED[name]] if set(points["sweep"]) == {"notebook"} else []
            panel.set(yscale="log", ylim=(min([means.min(), *known]) / 1.3, max([means.max(), *known]) * 1.3))
            panel.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        else:
            panel.set_ylim(0, 1.15 * means.max() if means.max() > 0 else 1)
        panel.yaxis.set_major_formatter(FuncFormatter(_plain if name == "bound" else _percent))


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}"


def _percent(share: float, _: int | None = None) -> str:
    return f"{100 * share:g}"


def _published(name: str = "bound", label: str | None = None) -> Line2D:
    """The authors' values of a trace as open marks."""
    values = [-value if name == "bound" else value for value in PUBLISHED[name]]
    look: dict[str, Any] = {"color": _INK, "markerfacecolor": "none", "marker": "o", "linestyle": "none"}
    return Line2D(PUBLISHED_STEPS, values, markersize=5.5, markeredgewidth=0.9, label=label, zorder=5, **look)


def _by_compartments(row: Panels, final: pd.DataFrame, lines: dict[str, Style]) -> None:
    """Dots of the trained networks by K."""
    several = final["sweep"].nunique() > 1
    for panel, (score, words) in zip(row, _FINAL.items(), strict=True):
        here = at(final, score=score)
        size_axis(panel, final["compartments"])
        panel.set(ylabel=words, xlabel="compartments in training, K")
        panel.tick_params(left=True, bottom=True)
        groups = [group for _, group in here.groupby(["sweep", "arm"])]
        for group, shift in zip(groups, shifts(len(groups), 0.06, 0.3), strict=True):
            inside = {"markerfacecolor": "none"} if several and set(group["sweep"]) == {"notebook"} else {}
            for line, dots in group.groupby("line"):
                style = lines[str(line)]
                look = {"color": style.colour, "marker": style.marker, "linestyle": "none", "elinewidth": 0.9}
                panel.errorbar(dots["compartments"] * (1 + shift), dots["mean"], yerr=bars(dots), **look, **inside)
        panel.set_xlim(0.7 * final["compartments"].min(), 1.4 * final["compartments"].max())
        show(panel, score, here)


def _heading(row: Panels, words: str) -> None:
    row[0].set_title(words, loc="left", weight="bold")


def _in_words(points: pd.DataFrame, final: pd.DataFrame, sweeps: list[str], lines: dict[str, Style]) -> str:
    """Our numbers beside the published ones, and those of the trained networks."""
    said = []
    ours = at(points, sweep="notebook", line="IW (K = 5)", steps=PUBLISHED_STEPS[-1])
    found = {point["name"]: point for point in ours.to_dict("records")}
    if {"bound", "bit_error"} <= set(found):
        said.append(
            f"IW (K = 5) after {PUBLISHED_STEPS[-1]} steps at the notebook's sizes: bound "
            f"{number(found['bound'], 0)} nats (published, one run: {PUBLISHED['bound'][-1]:.0f}), bit error "
            f"{measured(found['bit_error'])} (published: {100 * PUBLISHED['bit_error'][-1]:.1f}%)."
        )
    for sweep in sweeps:
        scores = {(p["line"], p["score"]): p for p in at(final, sweep=sweep).to_dict("records")}
        told = [
            f"{line} {number(scores[line, 'log_likelihood'], 0)} nats, {measured(scores[line, 'bit_error'])} wrong"
            for line in lines
            if {(line, "log_likelihood"), (line, "bit_error")} <= set(scores)
        ]
        if told:
            said.append(f"{_SWEEPS[sweep]}, trained: {'; '.join(told)}.")
    return " ".join(said)
