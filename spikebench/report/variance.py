"""The page that says where the spread of a result comes from."""

from __future__ import annotations

import json
import math

import pandas as pd

from spikebench.comparison import EXPERIMENT, PARTS, variance_shares
from spikebench.figures.arms import styles
from spikebench.figures.tables import at
from spikebench.figures.text import spread
from spikebench.report.tables import DASH, Table, share, word

#: What each part means.
MEANINGS = {
    "split": "which examples are for training and which for the test",
    "seed": "the training's own draws: first weights, order of the examples, samples",
    "chip": "which device, with its own deviations",
    "read": "what one and the same device draws anew in each test",
    "interactions": "what several of them do together and none alone: a split may suit one chip and not another",
}


def levels(rows: pd.DataFrame) -> dict[str, int]:
    """How many draws of each factor were crossed; empty where none were."""
    crossed = at(rows, experiment=EXPERIMENT)["crossed"]
    found: dict[str, int] = json.loads(max(set(crossed), key=len, default="{}"))
    return found


def table(rows: pd.DataFrame) -> Table:
    """A line an arm and data set: total standard deviation of accuracy, then the shares with their intervals."""
    lines, order = [], list(styles(rows))
    found = variance_shares(rows).sort_values("arm", key=lambda arms: arms.map(order.index), kind="stable")
    for (dataset, arm), here in found.groupby(["dataset", "arm"], sort=False):
        parts = here.set_index("part").to_dict("index")
        shares = [
            DASH if math.isnan(p["share"]) else share(p["share"], spread(p["low"], p["high"]))
            for p in (parts[name] for name in PARTS)
        ]
        lines.append([word(str(arm)), word(str(dataset)), share(here["sd"].iloc[0]), *shares])
    heads = ["Arm", "data", "standard deviation, points", *(f"{name}, % of the variance" for name in PARTS)]
    return Table("Shares of the variance of test accuracy, with 95% intervals", heads, lines, words=2)
