"""Accuracy, cost and time steps of SPIDE, IDE and BPTT: expected values are those of ``synthetic_spide`` by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose
from spide_drawn import HALF, SETS, drawn, marks, point

from spikebench.figures import (
    spide_accuracy,
    spide_cost,
    spide_steps,
)

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]


def test_accuracy_of_the_last_epoch_beside_the_best_on_the_test_set(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["spide-accuracy"]
    last, best = (point(document, dataset="mnist", arm="SPIDE", epoch=epoch) for epoch in ("last", "best"))
    assert (last["mean"], best["mean"], last["training_size"]) == (pytest.approx(0.94), pytest.approx(0.95), 1000)
    assert last["high"] == pytest.approx(0.94 + 0.01 * HALF)
    assert (
        "mnist, 1,000 examples: SPIDE 94.0% [91.5, 96.5] (best epoch 95.0%), IDE 95.0% [92.5, 97.5] (best epoch 96.0%)"
        ", BPTT 93.0% [90.5, 95.5] (best epoch 94.0%); chance 10.0%."
    ) in document["caption"]
    places = [document["caption"].index(f"{name}, ") for name in SETS]
    assert places == sorted(places)
    assert {p["arm"] for p in document["numbers"]["points"]} == {"SPIDE", "IDE", "BPTT"}

    panels = drawn(rows, spide_accuracy).figure.axes
    assert [panel.get_title() for panel in panels] == [
        *("mnist, 1,000 examples", "mnist-dvs-sim, 500 examples"),
        *(f"{name}, 2,200 examples" for name in SETS[2:]),
    ]
    for panel, mean in zip(panels, (0.95, 0.8, 0.4, 0.3), strict=True):
        assert [label.get_text() for label in panel.get_xticklabels()] == ["SPIDE", "IDE", "BPTT"]
        assert_allclose(np.ravel(marks(panel)), [mean - 0.01, mean, mean - 0.02])
        single, hollow = panel.lines[1], panel.lines[3]
        assert_allclose(sorted(single.get_ydata()), [mean - 0.02, mean - 0.01, mean])
        assert_allclose(hollow.get_ydata(), [mean])
        assert hollow.get_markerfacecolor() == "white"
        said = [text.get_text() for text in panel.texts]
        assert said[:3] == [f"{100 * m:.1f}" for m in (mean - 0.01, mean, mean - 0.02)]
        # Chance is a line where the axis reaches it.
        assert (panel.get_ylim()[0] < 0.1) == (mean < 0.5) == ("chance, 10%, lies below" not in said)
        assert list(panel.lines[0].get_ydata()) == [0.1, 0.1]


def test_data_sets_without_rows_are_left_out(rows: pd.DataFrame) -> None:
    """As in the preset ``default``."""
    table = rows[~rows["sweeps"].str.startswith("cifar10")]
    for module in (spide_accuracy, spide_cost):
        drawing = drawn(table, module)
        assert len(drawing.figure.axes) == {spide_accuracy: 2, spide_cost: 6}[module]
        assert "cifar10" not in drawing.caption + drawing.alt
    three = drawn(rows[rows["sweeps"] != "cifar10-dvs"], spide_accuracy).figure.axes
    assert [panel.get_visible() for panel in three] == [True, True, True, False]


def test_without_best_epochs_the_last_ones_stand_alone(draw: Draw, rows: pd.DataFrame) -> None:
    document = draw("spide-accuracy", rows.assign(best_accuracy=np.nan))
    assert {p["epoch"] for p in document["numbers"]["points"]} == {"last"}
    assert "(best epoch" not in document["caption"]


def test_chance_is_that_of_the_classes_that_are_chosen(draw: Draw, rows: pd.DataFrame) -> None:
    table = rows[rows["sweeps"] == "mnist"].assign(data_settings='{"classes":[1,4,7]}')
    assert "chance 33.3%" in draw("spide-accuracy", table)["caption"]


def test_energy_is_counted_operations_times_constants(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["spide-cost"]
    # In picojoules: 0.9 an addition, 4.6 a multiply-accumulate.
    expected = {
        "SPIDE": {"forward": 0.9e6, "inputs": 0.92e6, "backward": 3.6e6, "gradient": 1.38e6, "solver": 0.0},
        "IDE": {"forward": 0.99e6, "inputs": 0.92e6, "backward": 27.6e6, "gradient": 1.38e6, "solver": 0.46e6},
        "BPTT": {"forward": 1.08e6, "inputs": 0.92e6, "backward": 138e6, "gradient": 41.4e6, "solver": 0.0},
    }
    for arm, parts in expected.items():
        where = {"dataset": "mnist", "arm": arm}
        for part, energy in parts.items():
            assert point(document, "energies", part=part, **where)["mean"] == pytest.approx(energy), (arm, part)
        total = point(document, "energies", part="total", **where)
        assert total["mean"] == pytest.approx(sum(parts.values()))
        assert total["high"] - total["mean"] == pytest.approx(0.1 * HALF * sum(parts.values()))
        both = point(document, "energies", part="both ways", **where)
        assert both["mean"] == pytest.approx(parts["forward"] + parts["backward"])
    for operations, count in (("backward_additions", 4e6), ("backward_macs", 0), ("neuron_updates", 4e5)):
        where = {"dataset": "mnist", "arm": "SPIDE", "operations": operations}
        assert point(document, "operations", **where)["mean"] == pytest.approx(count)
    assert point(document, "operations", dataset="mnist", arm="IDE", operations="products")["mean"] == 12
    caption = document["caption"]
    assert "0.9 pJ an addition, 4.6 pJ a multiply-accumulate" in caption
    assert "mnist (T_B = 100): SPIDE 6.80 µJ [5.11, 8.49], both ways 4.50 µJ [3.38, 5.62], of which backward" in caption
    assert "(4.0 million additions), forward rate 10.0%, backward rate 8.0%; IDE 31.3 µJ" in caption
    assert f"{SETS[1]} (T_B = 250): SPIDE" in caption
    assert {p["arm"] for p in document["numbers"]["rates"] if p["rate"] == "backward_rate"} == {"SPIDE"}

    panels = drawn(rows, spide_cost).figure.axes
    top = panels[0]
    bars = [bar for container in top.containers for bar in getattr(container, "patches", [])]
    assert len(bars) == 3 * 5
    assert_allclose([bar.get_height() for bar in bars[:5]], [0.9, 3.6, 0.92, 1.38, 0.0])
    assert_allclose([bar.get_y() for bar in bars[:5]], [0.0, 0.9, 4.5, 5.42, 6.8])
    assert [text.get_text() for text in top.texts] == ["6.80", "31.3", "181"]
    # The longest bar is cut off: it would dwarf the others.
    assert bars[10].get_height() + bars[11].get_height() < 139
    assert len([line for line in top.lines if to_hex(line.get_color()) == "#ffffff"]) == 1
    assert [panel.get_xlabel() for panel in panels[8:]] == [name.replace(" from ", " from\n") for name in SETS]


def test_marks_of_operations_tell_additions_from_products(rows: pd.DataFrame) -> None:
    panel = drawn(rows, spide_cost).figure.axes[4]
    marks = [container[0] for container in panel.containers]
    shown = {
        (float(mark.get_ydata()[0]), mark.get_markerfacecolor() == "white") for mark in marks if len(mark.get_xdata())
    }
    assert shown >= {(1e6, False), (4e6, False), (6e6, True), (3e7, True), (9e6, True), (1e5, True), (4e5, False)}
    assert not [y for y, _ in shown if y <= 0]


def test_comparable_bars_are_not_cut(rows: pd.DataFrame) -> None:
    top = drawn(rows[rows["method"] != "feedback_bptt"], spide_cost).figure.axes[0]
    assert top.get_ylim()[1] > 31.35
    assert not [line for line in top.lines if to_hex(line.get_color()) == "#ffffff"]


def test_time_steps(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["spide-steps"]
    assert point(document, arm="IDE", steps=10)["mean"] == pytest.approx(0.85)
    assert point(document, arm="BPTT", steps=5)["high"] == pytest.approx(0.78 + 0.01 * HALF)
    # 0.9 pJ x 1e6 x 10 / 30
    energy = point(document, "energies", arm="SPIDE", steps=10)
    assert (energy["mean"], energy["high"]) == (pytest.approx(3e5), pytest.approx(3e5 * (1 + 0.1 * HALF)))
    assert "At T_F = 5: SPIDE 79.0% [76.5, 81.5] for 0.150 µJ [0.113, 0.187], IDE" in document["caption"]
    assert "at T_F = 30: SPIDE 87.3% [84.8, 89.8] for 0.900 µJ" in document["caption"]
    panels = drawn(rows, spide_steps).figure.axes
    assert [len(panel.containers) for panel in panels] == [3, 3], "one curve an arm"
    assert_allclose(marks(panels[1])[0], [0.15, 0.3, 0.9])
    assert [panel.get_yscale() for panel in panels] == ["linear", "log"]


@pytest.mark.parametrize("method", ["spide", "ide", "feedback_bptt"])
@pytest.mark.parametrize("module", [spide_accuracy, spide_cost, spide_steps])
def test_one_method_is_drawn_alone(rows: pd.DataFrame, module: ModuleType, method: str) -> None:
    drawing = drawn(rows[rows["method"] == method], module)
    assert drawing.n == 3
    told = drawing.numbers["energies" if module is spide_cost else "points"]
    assert set(told["arm"]) == {{"spide": "SPIDE", "ide": "IDE", "feedback_bptt": "BPTT"}[method]}
