"""How far SPIDE's gradient by spikes is from the exact one: by time steps, by the loss's scale, and by the reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.spide_rows import BACKWARD_STEPS, hollow_curve, log_limits, nearest, said, with_diagnostics
from spikebench.figures.style import GREY, canvas, curve, key, size_axis
from spikebench.figures.tables import NothingToDraw, at, differences, summary
from spikebench.figures.text import number, repetitions

Floats = NDArray[np.float64]

TITLE = "SPIDE: the gradient by spikes"
EXPERIMENT = "spide"

#: Diagnostic to the label of its panel's axis, in the order of panels.
METRICS = {
    "gradient_error": "relative error\n(to the exact gradient)",
    "gradient_cosine": "cosine\n(with the exact gradient)",
    "clipped_error": "relative error (to the\nclipped solution's gradient)",
    "backward_rate": "backward spikes\n(a couple and step)",
}
#: Both of these have one logarithmic axis.
_ERRORS = ("gradient_error", "clipped_error")
#: What couples are reset to, by whether the reset is the modified one.
RESETS = {True: "reset to −V_b", False: "reset to 0"}
#: Told in words, where there are such cells: T_B, the slope that a picture gets, and a T_B of which the error is told.
_TOLD_STEPS, _TOLD_SLOPE, _MORE_STEPS = 100, 6.25, 250
#: Ticks of the cosine's axis, which is stretched towards 1, and the distance from 1 below which all are alike.
_COSINES, _SAME = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999), 1e-6
_MARKERS = ("o", "^", "s", "D", "v", "p")
#: Where settings name none.
_SCALE, _MINIBATCH = 200.0, 32


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells in which gradients are compared, whatever T_B."""
    compared = [any(name.startswith("gradient-") for name in names.split(";")) for names in rows["sweeps"]]
    return rows[np.array(compared, dtype=bool)]


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Four panels against T_B: two errors, cosine and firing rate; a curve a slope, the plain reset's dashed."""
    rows = rows[[bool(probe) for probe in said(rows, "settings", "probe", False)]]
    if rows.empty:
        raise NothingToDraw("no finished cells whose gradients were compared")
    rows = _with_axes(with_diagnostics(rows, *METRICS))
    by = ["slope", "scale", "modified", "steps"]
    points = pd.concat([summary(rows, by, metric).assign(metric=metric) for metric in METRICS])
    looks = _looks(points, context.present(rows))
    keys = [key(style) for style in looks.values()]
    for modified, words in RESETS.items():
        look: dict[str, Any] = {
            "linestyle": "-" if modified else "--",
            "markerfacecolor": GREY if modified else "white",
        }
        keys.append(Line2D([], [], color=GREY, marker="o", label=words, **look))
    figure, axes = canvas(2, 2, TITLE, keys, height=1.75, left=0.85, gap=0.2, wspace=0.32, sharex=True)
    for panel, (metric, words) in zip(axes.flat, METRICS.items(), strict=True):
        size_axis(panel, points["steps"])
        if metric in _ERRORS:
            _logarithmic(panel, points[points["metric"].isin(_ERRORS)])
        elif metric == "gradient_cosine":
            _stretched(panel, at(points, metric=metric))
        for slope, style in looks.items():
            here = at(points, metric=metric, slope=slope)
            curve(panel, at(here, modified=True), "steps", style, -0.02)
            hollow_curve(panel, at(here, modified=False), "steps", style, 0.02)
        panel.set_ylabel(words)
        panel.tick_params(left=True)
    rates = at(points, metric="backward_rate")
    if len(rates):
        axes[1, 1].set_ylim(-0.04 * rates["mean"].max(), 1.12 * rates["mean"].max() or 1.0)
    for panel in axes[1]:
        panel.set_xlabel("backward time steps, T_B")

    apart = summary(_apart(rows), ["steps", "slope"], "difference")
    n, words = repetitions(points["n"]), _in_words(points, apart)
    slopes = ", ".join(f"{slope:g}" for slope in looks)
    caption = (
        "SPIDE's gradient of the weights against that of the exact adjoint at the same average rates, |g − g*| / |g*| "
        "and cosine, on an untrained network shown Gaussian pictures, by backward time steps T_B, by the slope S/N of "
        "the loss that a picture gets (S the loss's scale, N pictures a minibatch) and by what the couples are reset "
        "to. Couples tell no more than ±1: the clipped solution is the adjoint with that bound, which they can reach "
        "where the exact one is out of reach. A gradient without a spike has error 1 and cosine 0. Logarithmic axes; "
        "that of the cosine is stretched towards 1, that of the spikes is linear. Mean and 95% "
        f"Student-t interval over {n} repetitions. {words}"
    )
    alt = (
        f"Four line charts against T_B: error, cosine, error to the clipped solution and backward firing rate, a line "
        f"each for slopes of {slopes}, solid for the reset to −V_b and dashed for the reset to 0. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; resets set slightly apart"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "differences": apart})


def _with_axes(rows: pd.DataFrame) -> pd.DataFrame:
    """A copy with the columns ``steps`` (T_B), ``scale`` (S), ``slope`` (S / N) and ``modified``."""
    scales = said(rows, "settings", "loss_scale", _SCALE)
    pictures = said(rows, "settings", "minibatch", _MINIBATCH)
    return rows.assign(
        steps=said(rows, "settings", "backward_steps", BACKWARD_STEPS),
        scale=[float(scale) for scale in scales],
        slope=[scale / n for scale, n in zip(scales, pictures, strict=True)],
        modified=said(rows, "settings", "modified_reset", True),
    )


def _apart(rows: pd.DataFrame) -> pd.DataFrame:
    """The modified reset's error less the plain one's, repetition by repetition."""
    rows = rows.assign(arm=rows["modified"].map(RESETS))
    places = rows[["steps", "slope"]].drop_duplicates().sort_values(["steps", "slope"])
    parts = [
        differences(at(rows, steps=steps, slope=slope), RESETS[True], "gradient_error").assign(steps=steps, slope=slope)
        for steps, slope in places.itertuples(index=False, name=None)
    ]
    return pd.concat(parts)


def _looks(points: pd.DataFrame, arms: Mapping[str, Style]) -> dict[float, Style]:
    """The style of each slope: SPIDE's colour, the paler the smaller it is, and a marker of its own."""
    slopes = points.drop_duplicates("slope").sort_values("slope")
    shades = seaborn.light_palette(next(iter(arms.values())).colour, len(slopes) + 1)[1:]
    return {
        slope: Style(f"slope {slope:g} (S = {scale:g})", to_hex(shade), _MARKERS[place % len(_MARKERS)], "-")
        for place, (slope, scale, shade) in enumerate(zip(slopes["slope"], slopes["scale"], shades, strict=True))
    }


def _logarithmic(panel: Axes, points: pd.DataFrame) -> None:
    panel.set(yscale="log", ylim=log_limits(points))
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{error:g}"))
    panel.minorticks_off()


def _stretched(panel: Axes, points: pd.DataFrame) -> None:
    """An axis for cosines, by the logarithm of their distance from 1."""

    def forwards(cosine: Floats) -> Floats:
        return -np.log10(np.clip(1 - cosine, _SAME, None))

    def backwards(place: Floats) -> Floats:
        return 1 - 10**-place

    panel.set_yscale("function", functions=(forwards, backwards))
    low, high = forwards(points["mean"].agg(["min", "max"]).to_numpy())
    panel.set_ylim(*backwards(np.array([low - 0.08, high + 0.15])))
    panel.set_yticks([tick for tick in _COSINES if low - 0.08 <= forwards(np.array(tick)) <= high + 0.15])
    panel.yaxis.set_major_formatter(FuncFormatter(lambda cosine, _: f"{cosine:g}"))


def _in_words(points: pd.DataFrame, apart: pd.DataFrame) -> str:
    """Both resets at the usual T_B and slope, and at more steps; then what the largest slope does."""
    steps, slope = nearest(points["steps"], _TOLD_STEPS), nearest(points["slope"], _TOLD_SLOPE)
    largest = points["slope"].max()

    def told(sayings: Mapping[str, str], **where: float) -> str:
        of_resets = []
        for modified, reset in RESETS.items():
            found = {point["metric"]: point for point in at(points, modified=modified, **where).to_dict("records")}
            parts = [words.format(number(found[metric], 3)) for metric, words in sayings.items() if metric in found]
            of_resets += [f"{reset}, {', '.join(parts)}"] * bool(parts)
        return "; ".join(of_resets)

    usual = {
        "gradient_error": "error {}",
        "gradient_cosine": "cosine {}",
        "backward_rate": "{} backward spikes a couple and step",
    }
    clipped = {"gradient_error": "error {}", "clipped_error": "to the clipped solution's {}"}
    words = f"At T_B = {steps:g} and a slope of {slope:g}: {told(usual, steps=steps, slope=slope)}."
    for pair in at(apart, steps=steps, slope=slope).to_dict("records"):
        words = f"{words[:-1]}; paired difference of the errors {number(pair, 3)}."
    if _MORE_STEPS in set(points["steps"]) - {steps}:
        error = {"gradient_error": "error {}"}
        words += f" At T_B = {_MORE_STEPS} and that slope: {told(error, steps=_MORE_STEPS, slope=slope)}."
    if largest > slope:
        words += f" At T_B = {steps:g} and a slope of {largest:g}: {told(clipped, steps=steps, slope=largest)}."
    return words
