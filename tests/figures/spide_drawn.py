"""What the tests of SPIDE's figures share."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from spikebench.figures.arms import styles, with_arms
from spikebench.figures.drawing import Context, Drawing
from spikebench.naming import named

#: Half an interval of three values with standard deviation 1 (see test_figure_numbers).
HALF = 4.302652729911275 / 3**0.5
#: The data sets in their order.
SETS = ["mnist", "mnist-dvs-sim", "cifar10-subset-4000", "cifar10-dvs-sim from cifar10-subset-4000"]


def point(document: dict[str, Any], table: str = "points", **where: object) -> dict[str, Any]:
    found = [p for p in document["numbers"][table] if all(p[k] == v for k, v in where.items())]
    assert len(found) == 1, found
    return found[0]


def drawn(rows: pd.DataFrame, module: Any) -> Drawing:
    """As ``draw_figure`` has it done; the styles are those of the whole table."""
    table = with_arms(module.select(named(rows[rows["experiment"] == module.EXPERIMENT])))
    table = table[table["status"] == "ok"]
    drawing: Drawing = module.draw(table, Context(styles(rows), pd.DataFrame(), None, None))
    return drawing


def of_spide(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["experiment"] == "spide"]


def marks(panel: Axes) -> list[list[float]]:
    """Heights of each errorbar's marks, in the order of drawing."""
    return [
        list(container[0].get_ydata(orig=False)) for container in panel.containers if hasattr(container, "has_yerr")
    ]
