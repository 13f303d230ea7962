"""Whether confidence means anything on a bad chip: calibration error beside its null band, and log-loss."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import canvas, curve, key, shifts
from spikebench.figures.tables import at, faults, in_groups, in_sweep, summary
from spikebench.figures.text import measured, repetitions, spread

TITLE = "Calibration error and log-loss by fault and severity"
EXPERIMENT = "grand_comparison"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the same families with all training data."""
    chosen = in_sweep(rows, "families")
    return chosen[chosen["fault"].isin(in_sweep(rows, "training-sizes")["fault"])]


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Above the calibration error (ECE, 15 bins of equal width), below the log-loss; a column a fault set.

    Of arms that are too many for a panel, each group has its own rows of panels.
    """
    by = ["fault", "arm", "severity"]
    bands = rows.groupby(by)[["ece_null_low", "ece_null_high"]].mean().reset_index()
    ece, nll = summary(rows, by, "ece_width_15").merge(bands, on=by), summary(rows, by, "nll")
    arms, columns = context.present(ece), faults(ece)
    keys = [key(style) for style in arms.values()]
    groups = in_groups(rows, arms)
    figure, axes = canvas(2 * len(groups), len(columns), TITLE, keys, height=1.6, sharex=True, sharey="row")
    aboves, belows = axes[: len(groups)], axes[len(groups) :]
    for upper, lower, group in zip(aboves, belows, groups, strict=True):
        for above, below, fault in zip(upper, lower, columns, strict=True):
            for arm, shift in zip(group, shifts(len(group), 0.012, 0.06), strict=True):
                for panel, points in ((above, ece), (below, nll)):
                    curve(panel, at(points, fault=fault, arm=arm), "severity", arms[arm], shift)
            # The widest band over the arms: a point above it lies above its own arm's band as well.
            mine = at(ece[ece["arm"].isin(group)], fault=fault)
            widest = mine.groupby("severity").agg({"ece_null_low": "min", "ece_null_high": "max"})
            ends = widest["ece_null_low"], widest["ece_null_high"]
            above.fill_between(widest.index, *ends, color="#d9d9d9", linewidth=0, zorder=0)
    for highest, lowest, fault in zip(axes[0], axes[-1], columns, strict=True):
        highest.set_title(fault)
        lowest.set_xlabel("severity")
    top = min(max(panel.get_ylim()[1] for panel in aboves[:, 0]), ece["mean"].max() + 0.1)
    for panel in aboves[:, 0]:
        panel.set(ylabel="ECE (%)", ylim=(0, top))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    for panel in belows[:, 0]:
        panel.set(ylabel="log-loss (nats)", yscale="log", ylim=(nll["mean"].min() / 1.5, nll["mean"].max() * 1.5))
        panel.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    n, worst, fault = repetitions(ece["n"]), ece["severity"].max(), columns[-1]
    size = rows["training_size"].iloc[0]
    told = (
        _in_words(at(ece, fault=fault, severity=worst, arm=a), at(nll, fault=fault, severity=worst, arm=a))
        for a in arms
    )
    words = f"{fault}, severity {worst:g}: {'; '.join(filter(None, told))}."
    caption = (
        f"Expected calibration error (15 bins of equal width) and log-loss (logarithmic axis) on the test data, {size} "
        f"training samples: mean and 95% Student-t interval over {n} repetitions. Grey: what perfectly calibrated "
        f"predictions with the same confidences would show in 95% of draws, the widest over the arms. {words}"
    )
    alt = (
        f"Line charts against severity, columns {', '.join(columns)}: above the expected calibration error with the "
        f"grey band of perfect calibration, below the log-loss, a line each for {', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; {size} training samples; grey: calibrated"
    return Drawing(figure, note, caption, alt, int(ece["n"].max()), {"ece": ece, "nll": nll})


def _in_words(ece: pd.DataFrame, nll: pd.DataFrame) -> str:
    """One arm's numbers at one point; empty where it has none."""
    if ece.empty or nll.empty:
        return ""
    (error,), (loss,) = ece.to_dict("records"), nll.to_dict("records")
    return (
        f"{error['arm']} ECE {measured(error)}, own band {spread(error['ece_null_low'], error['ece_null_high'])}, "
        f"log-loss {loss['mean']:.2f} {spread(loss['low'], loss['high'], scale=1, digits=2)}"
    )
