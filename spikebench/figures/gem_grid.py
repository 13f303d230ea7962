"""Compartments in training times runs in inference: GEM's scores as a grid, the single-sample rule beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.patches import Patch

from spikebench.figures.arms import LEAD, Arm
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.gem_rows import SCORES, SINGLE, by_runs, in_words, looks, with_lines
from spikebench.figures.style import canvas
from spikebench.figures.tables import at, in_sweep, summary, with_all_data
from spikebench.figures.text import repetitions

TITLE = "GEM-SNN: compartments and runs"
EXPERIMENT = "gem_snn"

#: Between the single-sample rule, which is no GEM with K = 1, and the grid, in cells.
GAP = 0.45
#: The colour map's share above which numbers are white.
_DARK = 0.6


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """GEM and the single-sample rule in the classification."""
    rows = in_sweep(rows, "classification")
    return with_all_data(rows[rows["variant"].isin([SINGLE, "gem"])])


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """A panel a score; a row a line, a column a number of runs."""
    rows = with_lines(rows)
    points = summary(by_runs(rows, ["line"]), ["line", "score", "runs"], "value")
    points = points[points["score"].isin(list(SCORES))]
    lines = [line for line in looks(rows, context) if line in set(points["line"])]
    baseline = set(at(rows, variant=SINGLE)["line"])
    places = {line: place + (0.0 if line in baseline else GAP) for place, line in enumerate(lines)}
    colours = seaborn.light_palette(LEAD[Arm("gem_snn", "off-chip", "gem")].colour, as_cmap=True)
    keys = [Patch(color=colours(1.0), label="best mean of a panel"), Patch(color=colours(0.0), label="worst")]
    widths = {"width_ratios": [max(at(points, score=score)["runs"].nunique(), 1) for score in SCORES]}
    height = 0.25 * (len(lines) + GAP)
    figure, axes = canvas(
        1, 3, TITLE, keys, height=height, left=0.9, right=0.1, wspace=0.06, sharey=True, gridspec_kw=widths
    )
    for panel, (score, (words, scale)) in zip(axes[0], SCORES.items(), strict=True):
        _grid(panel, at(points, score=score), places, scale, colours)
        panel.set(title=words, xlabel="runs in inference")
        panel.tick_params(left=False, bottom=False)
        panel.grid(False)
        seaborn.despine(ax=panel, left=True, bottom=True)
    axes[0, 0].set_yticks(list(places.values()), labels=list(places))
    axes[0, 0].set_ylim(max(places.values()) + 0.5, -0.5)

    n, most = repetitions(points["n"]), points.groupby("score")["runs"].max()
    ends = [line for line in lines if line in baseline] + [line for line in lines if line not in baseline][-1:]
    words = in_words(points[points["runs"] == points["score"].map(most)], ends)
    caption = (
        "Test log-likelihood (nats), accuracy and expected calibration error (per cent, 15 bins of equal width) by "
        "GEM's number K of compartments in training (rows) and by the number of runs in inference, of which the "
        f"likelihood is averaged or which vote (columns): means over {n} repetitions, the darker the better. The "
        "single-sample rule is a row of its own at the top: GEM with K = 1 does not train its hidden neurons. With "
        f"most runs: {words}."
    )
    alt = (
        f"Heat maps of log-likelihood, accuracy and calibration error with a number in every cell, rows "
        f"{', '.join(lines)}, columns {points['runs'].min()} to {points['runs'].max()} runs in inference. With most "
        f"runs: {words}."
    )
    note = (
        f"means over {n} repetitions; GEM with K = 1 does not train its hidden neurons: the baseline is the row above"
    )
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})


def _grid(panel: Axes, points: pd.DataFrame, places: dict[str, float], scale: int, colours: Colormap) -> None:
    """One score: a strip of cells a line, coloured from the worst to the best mean, the number in each cell."""
    runs = sorted(set(points["runs"]))
    worst, best = points["mean"].min(), points["mean"].max()
    if set(points["score"]) == {"ece_width_15"}:
        worst, best = best, worst
    for line, place in places.items():
        means = at(points, line=line).set_index("runs")["mean"].reindex(runs).to_numpy(dtype=np.float64)
        merit = (means - worst) / (best - worst or 1.0)
        edges = np.arange(len(runs) + 1) - 0.5, [place - 0.5, place + 0.5]
        panel.pcolormesh(*edges, merit[None], cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
        for x, (value, share) in enumerate(zip(scale * means, merit, strict=True)):
            if np.isfinite(value):
                ink = "white" if share > _DARK else "black"
                panel.text(x, place, _short(value), size=5.5, ha="center", va="center", color=ink)
    panel.set_xticks(range(len(runs)), labels=[str(number) for number in runs])


def _short(value: float) -> str:
    """As many digits as a cell has room for."""
    return (f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}").replace("-", "−")
