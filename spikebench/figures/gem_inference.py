"""What more runs in inference bring, for each number of compartments in training."""

from __future__ import annotations

import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.gem_rows import (
    BAND,
    GREY_BAND,
    SCORES,
    band_key,
    by_runs,
    in_words,
    largest,
    looks,
    show,
    with_lines,
)
from spikebench.figures.style import canvas, curve, key, shifts, size_axis
from spikebench.figures.tables import at, in_sweep, summary, with_all_data
from spikebench.figures.text import repetitions

TITLE = "GEM-SNN: runs in inference"
EXPERIMENT = "gem_snn"


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All arms of the classification."""
    return with_all_data(in_sweep(rows, "classification"))


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """Three panels, likelihood, accuracy and calibration error; one curve a rule and K."""
    rows = with_lines(rows)
    points = summary(by_runs(rows, ["line"]), ["line", "score", "runs"], "value")
    lines = {line: style for line, style in looks(rows, context).items() if line in set(points["line"])}
    keys = [*(key(style) for style in lines.values()), band_key()]
    figure, axes = canvas(1, 3, TITLE, keys, height=2.3, left=0.7, wspace=0.34)
    # The widest band over the lines: a point above it lies above its own line's band as well.
    ends = [at(points, score=score).groupby("runs")["mean"] for score in BAND]
    band = pd.DataFrame({"low": ends[0].min(), "high": ends[1].max()})
    for panel, (score, (words, _)) in zip(axes[0], SCORES.items(), strict=True):
        here = at(points, score=score)
        size_axis(panel, here["runs"])
        for (line, style), shift in zip(lines.items(), shifts(len(lines), 0.03, 0.2), strict=True):
            curve(panel, at(here, line=line), "runs", style, shift)
        panel.set(xlabel="runs in inference", ylabel=words)
        panel.tick_params(left=True)
        if score == "ece_width_15" and len(band):
            panel.fill_between(band.index, band["low"], band["high"], color=GREY_BAND, linewidth=0, zorder=0)
        show(panel, score, here, top=band["high"].max() if score == "ece_width_15" else 0.0)

    n, told = repetitions(points["n"]), points[points["score"].isin(list(SCORES))]
    most = told.groupby("score")["runs"].max()
    shown, all_runs = largest(rows, lines), told[told["runs"] == told["score"].map(most)]
    said = ", ".join(f"{most[score]} ({words.split(' (')[0]})" for score, (words, _) in SCORES.items() if score in most)
    words = f"Most runs, {said}: {in_words(all_runs, shown)}."
    caption = (
        "Test log-likelihood of the target spikes (log of the mean likelihood over so many runs of the hidden neurons),"
        " accuracy and expected calibration error (15 bins of equal width) of so many runs that vote, by rule and "
        f"number K of compartments in training (logarithmic axis): mean and 95% Student-t interval over {n} "
        "repetitions. "
        "Grey: the widest null band over the lines. The vote of one run is always certain, so that its calibration "
        f"error is its error rate: compare lines at equal numbers of runs. {words}"
    )
    alt = (
        f"Line charts of log-likelihood, accuracy and calibration error against {points['runs'].min()} to "
        f"{points['runs'].max()} runs in inference, a line each for {', '.join(lines)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; logarithmic x axis; lines set slightly apart"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "band": band.reset_index()})
