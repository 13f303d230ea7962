"""Are the data sets learnable? Test accuracy of the reference on each of them, beside chance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import GREY, bars, canvas, key, percent_axis, shifts
from spikebench.figures.tables import summary
from spikebench.figures.text import measured, repetitions

EXPERIMENT = "data_baselines"
TITLE = "The data sets' baselines"
SEVERAL_DATASETS = True


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """All cells of the experiment."""
    return rows


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One place a data set, one mark an arm."""
    points = summary(rows, ["arm", "dataset", "training_size"], "accuracy")
    order = sorted(set(points["dataset"]), key=lambda name: -points.loc[points["dataset"] == name, "mean"].max())
    styles = context.present(points)
    figure, panels = canvas(1, 1, TITLE, [key(style, joined=False) for style in styles.values()], height=2.6)
    panel = panels[0, 0]
    for (label, style), shift in zip(styles.items(), shifts(len(styles), 0.12, 0.8), strict=True):
        mine = points[points["arm"] == label].set_index("dataset").reindex(order).reset_index()
        at = np.arange(len(order)) + shift
        panel.errorbar(at, mine["mean"], yerr=bars(mine), color=style.colour, marker=style.marker, linestyle="none")
    sizes = points.groupby("dataset")["training_size"].max()
    panel.set_xticks(
        range(len(order)), [f"{name.replace(' from ', chr(10) + 'from ')}\n{sizes[name]:,} examples" for name in order]
    )
    panel.set_xlim(-0.5, len(order) - 0.5)
    panel.set_ylabel("test accuracy (%)")
    percent_axis(panels, 0.0)
    panel.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")
    panel.text(-0.48, 0.11, "chance, ten classes", size=6.5, color=GREY, va="bottom")
    said = [f"{point['dataset']} {measured(point)}" for point in points.sort_values("mean").to_dict("records")[::-1]]
    caption = (
        "Test accuracy of surrogate-gradient backpropagation on the ideal model, a plain dense network a data set, "
        f"mean and 95% interval: {'; '.join(said)}. {repetitions(points['n'])}."
    )
    note = f"Mean and 95% Student-t interval, {repetitions(points['n'])}; learning rate chosen on validation data."
    alt = f"Accuracy with interval for {len(order)} data sets, the best on the left, with a line at chance."
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points})
