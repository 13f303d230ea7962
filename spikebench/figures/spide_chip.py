"""What is left of SPIDE's accuracy where its second stage runs on the faulty chip, too."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from spikebench.figures.arms import Style
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.spide_rows import said
from spikebench.figures.style import canvas, curve, key, lower_end, percent_axis, shifts
from spikebench.figures.tables import at, differences, faults, in_sweep, summary
from spikebench.figures.text import by_arm, repetitions, spread

TITLE = "SPIDE: a second stage on the faulty chip"
EXPERIMENT = "spide"

#: The arm whose second stage is on the chip, and its look beside the other arms'.
BOTH = "SPIDE in the loop, backward too"
_LOOK = Style(BOTH, "#de8f05", "s", "-.")


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of the one sweep over faults."""
    return in_sweep(rows, "backward-on-chip")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """One panel a fault; accuracy against severity, a curve where forward and backward stage run."""
    looks = context.present(rows)
    on_chip = [backward == "chip" for backward in said(rows, "settings", "backward", "ideal")]
    rows = rows.assign(arm=[BOTH if both else arm for both, arm in zip(on_chip, rows["arm"], strict=True)])
    points = summary(rows, ["fault", "arm", "severity"], "accuracy")
    found = set(points["arm"])
    arms = {arm: replace(look, label=arm) for arm, look in {**looks, BOTH: _LOOK}.items() if arm in found}
    columns, keys = faults(points), [key(style) for style in arms.values()]
    figure, axes = canvas(1, len(columns), TITLE, keys, sharex=True, sharey=True)
    for panel, fault in zip(axes[0], columns, strict=True):
        for (arm, style), shift in zip(arms.items(), shifts(len(arms), 0.012, 0.06), strict=True):
            curve(panel, at(points, fault=fault, arm=arm), "severity", style, shift)
        panel.set(title=fault, xlabel="severity")
    axes[0, 0].set_ylabel("test accuracy (%)")
    percent_axis(axes, lower_end(points))

    n, worst, size = repetitions(points["n"]), points["severity"].max(), rows["training_size"].iloc[0]
    apart = summary(differences(rows, BOTH, "accuracy"), ["fault", "severity", "arm"], "difference")
    told = []
    for fault in columns:
        words = f"{fault}: {by_arm(at(points, fault=fault, severity=worst), arms)}"
        for pair in at(apart, fault=fault, severity=worst).to_dict("records"):
            if pair["arm"].endswith("in the loop"):
                words += f", backward on the chip less ideal {100 * pair['mean']:+.1f} points "
                words += spread(pair["low"], pair["high"])
        told.append(words)
    words = f"At severity {worst:g}: {'; '.join(told)}."
    caption = (
        "Test accuracy of SPIDE on a faulty chip by fault and severity: trained on the ideal model (off-chip), with "
        "the forward stage on the chip (in the loop), and with the second stage on the same devices (exploratory); "
        f"{size} training samples, mean and 95% Student-t interval over {n} repetitions, in which all meet the same "
        f"splits and chips. {words}"
    )
    alt = (
        f"Line charts of test accuracy against severity, a panel each for {', '.join(columns)}, a line each for "
        f"{', '.join(arms)}. {words}"
    )
    note = f"mean and 95% Student-t interval, {n} repetitions a point; {size} training samples; set slightly apart"
    return Drawing(figure, note, caption, alt, int(points["n"].max()), {"points": points, "differences": apart})
