"""BiSNN's variants in numbers: accuracy, proper scores and calibration error on each data set."""

from __future__ import annotations

import pandas as pd
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import bars, canvas, lower_end, upper_end
from spikebench.figures.tables import at, in_sweep, summary, with_all_data
from spikebench.figures.text import measured, number, repetitions

TITLE = "BiSNN: scores"
EXPERIMENT = "bisnn"
SEVERAL_DATASETS = True

#: Column of the rows to the heading of its panels and the factor that brings it there.
_SCORES = {
    "accuracy": ("accuracy (%)", 100),
    "nll": ("log-loss (nats)", 1),
    "brier": ("Brier (0 to 2)", 1),
    "ece_width_20": ("20-bin ECE (%)", 100),
    "ece_width_15": ("15-bin ECE (%)", 100),
}
#: The one that rows have a null band for.
_BANDED = "ece_width_15"
_BAND = "#d0d0d0"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the classification data sets with all training data."""
    return with_all_data(pd.concat([in_sweep(rows, name) for name in ("recordings", "two-moons")]))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A row of panels a data set, a column a score, a line an arm."""
    by = ["dataset", "training_size", "arm"]
    points = pd.concat([summary(rows, by, score).assign(score=score) for score in _SCORES])
    bands = rows.groupby(by)[["ece_null_low", "ece_null_high"]].mean().reset_index()
    arms, sets = context.present(points), sorted(set(points["dataset"]))
    keys = [Patch(color=_BAND, label="ECE that perfectly calibrated predictions would show (95% of draws)")]
    height = 0.2 * len(arms) + 0.1
    figure, axes = canvas(len(sets), len(_SCORES), TITLE, keys, height=height, left=1.5, gap=0.45, sharey=True)
    place_of = {arm: place for place, arm in enumerate(arms)}
    for line, dataset in zip(axes, sets, strict=True):
        for panel, (score, (heading, scale)) in zip(line, _SCORES.items(), strict=True):
            here = at(points, dataset=dataset, score=score)
            if score == _BANDED:
                for band in at(bands, dataset=dataset).to_dict("records"):
                    low, high = scale * band["ece_null_low"], scale * band["ece_null_high"]
                    panel.barh(place_of[band["arm"]], high - low, 0.7, low, color=_BAND, zorder=0)
            for arm, style in arms.items():
                dot = at(here, arm=arm)
                look = {"color": style.colour, "marker": style.marker, "linestyle": "none", "elinewidth": 0.9}
                panel.errorbar(scale * dot["mean"], [place_of[arm]] * len(dot), xerr=scale * bars(dot), **look)
            if len(here):
                low, high = scale * lower_end(here), scale * upper_end(here)
                if "ECE" in heading:
                    low, high = 0.0, max(high, 100 * at(bands, dataset=dataset)["ece_null_high"].max())
                low, high = max(low, 0.0), min(high, 100.0)
                room = 0.1 * (high - low) + 1e-3
                panel.set_xlim(low - room, high + room)
            panel.set_title(heading if panel in axes[0] else "")
            panel.xaxis.set_major_locator(MaxNLocator(3))
            panel.tick_params(left=False, bottom=True)
            panel.grid(visible=True, axis="x")
            panel.grid(visible=False, axis="y")
        size = at(points, dataset=dataset)["training_size"].iloc[0]
        line[0].set_ylabel(f"{dataset}\n{size:,} examples", weight="bold")
    axes[0, 0].set_yticks(range(len(arms)), labels=list(arms))
    axes[0, 0].set_ylim(len(arms) - 0.4, -0.6)

    n = repetitions(points["n"])
    told = {name: [_in_words(at(points, dataset=name, arm=arm)) for arm in arms] for name in sets}
    words = " ".join(f"{name}: {'; '.join(filter(None, scores))}." for name, scores in told.items())
    caption = (
        "Test accuracy, log-loss, Brier score and expected calibration error (ECE, bins of equal width) of BiSNN's "
        f"variants, trained with all examples: mean and 95% Student-t interval over {n} repetitions. Grey: what "
        f"perfectly calibrated predictions with the same confidences would show in 95% of draws, for 15 bins. {words}"
    )
    alt = (
        f"Dot plots with intervals, a row each for {', '.join(sets)}, a column a score, a line each for "
        f"{', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions; the grey band is that of 15 bins"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "bands": bands})


def _in_words(points: pd.DataFrame) -> str:
    """One arm's scores on a data set; empty where it has none."""
    said = []
    for point in points.to_dict("records"):
        heading, scale = _SCORES[point["score"]]
        said.append(f"{heading.split(' (')[0]} {number(point) if scale == 1 else measured(point)}")
    return f"{points['arm'].iloc[0]} {', '.join(said)}" if said else ""
