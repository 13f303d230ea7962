"""The figures of SPIDE: every expected value is worked out from ``synthetic_spide``'s formulas by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose
from spide_drawn import HALF, drawn, marks, of_spide, point

from spikebench.figures import (
    spide_ablations,
    spide_accuracy,
    spide_chip,
    spide_cost,
    spide_equilibrium,
    spide_gradient,
    spide_steps,
)
from spikebench.figures.arms import LEAD, Arm

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]

ALL = [
    *(spide_gradient, spide_equilibrium, spide_accuracy, spide_cost, spide_steps, spide_ablations, spide_chip),
]


def test_gradients_by_steps_slope_and_reset(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["spide-gradient"]
    # 30 / (6.25 x 100), and twice that
    where = {"steps": 100, "slope": 6.25, "metric": "gradient_error"}
    modified, plain = (point(document, modified=reset, **where) for reset in (True, False))
    assert (modified["mean"], plain["mean"]) == (pytest.approx(0.048), pytest.approx(0.096))
    assert modified["high"] - modified["mean"] == pytest.approx(0.0048 * HALF)
    assert len(document["numbers"]["points"]) == 4 * 3 * 4 * 2
    rate = "{} [{}, {}] backward spikes a couple and step"
    assert (
        "At T_B = 100 and a slope of 6.25: reset to −V_b, error 0.048 [0.036, 0.060], cosine 0.896 [0.673, 1.118], "
        f"{rate.format(*('0.050', '0.038', '0.062'))}; reset to 0, error 0.096 [0.072, 0.120]"
    ) in document["caption"]
    assert "At T_B = 250 and that slope: reset to −V_b, error 0.019 [0.014, 0.024]; reset to 0" in document["caption"]
    # Repetition by repetition: -0.048 x (0.9, 1, 1.1)
    apart = point(document, "differences", steps=100, slope=6.25)
    assert (apart["mean"], apart["low"]) == (pytest.approx(-0.048), pytest.approx(-0.048 - 0.0048 * HALF))
    assert "paired difference of the errors -0.048 [-0.060, -0.036]" in document["caption"]
    assert "At T_B = 100 and a slope of 25: reset to −V_b, error 0.250 [" in document["caption"]
    assert "to the clipped solution's 0.012 [0.009, 0.015]" in document["caption"]

    panels = drawn(rows, spide_gradient).figure.axes
    assert [panel.get_ylabel().split("\n")[0] for panel in panels] == [
        *("relative error", "cosine", "relative error (to the", "backward spikes"),
    ]
    assert [panel.get_yscale() for panel in panels] == ["log", "function", "log", "linear"]
    for panel in panels:
        lines = [container[0] for container in panel.containers]
        assert [line.get_linestyle() for line in lines] == ["-", "--"] * 4, "a curve a slope and reset"
        assert [line.get_markerfacecolor() == "white" for line in lines] == [False, True] * 4
        assert len({(to_hex(line.get_color()), line.get_marker()) for line in lines}) == 4
        low, high = panel.get_ylim()
        assert all(low < y < high for marks in marks(panel) for y in marks)
    assert_allclose(marks(panels[0])[4], [0.192, 0.048, 0.0192])
    assert_allclose(marks(panels[0])[6], [0.25] * 3)
    assert_allclose(marks(panels[2])[6], [0.048, 0.012, 0.0048])


def test_only_gradients_that_were_compared_are_shown(draw: Draw, rows: pd.DataFrame) -> None:
    table = of_spide(rows).copy()
    some = table["sweeps"] == "gradient-100"
    table.loc[some, "settings"] = table.loc[some, "settings"].str.replace('"probe":true', '"probe":false')
    assert {p["steps"] for p in draw("spide-gradient", table)["numbers"]["points"]} == {25, 250}
    none = table.assign(settings=table["settings"].str.replace('"probe":true', '"probe":false'))
    assert "no finished cells whose gradients were compared" in draw("spide-gradient", none)["caption"]


def test_what_is_told_is_the_nearest_that_was_run(draw: Draw, rows: pd.DataFrame) -> None:
    """As in the preset ``smoke``."""
    caption = draw("spide-gradient", rows[~rows["sweeps"].isin(["gradient-100", "gradient-250"])])["caption"]
    assert "At T_B = 25 and a slope of 6.25: reset to −V_b, error 0.192" in caption
    assert "T_B = 250" not in caption


def test_rates_approach_the_equilibrium(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["spide-equilibrium"]
    assert point(document, rest=-1, steps=30)["mean"] == pytest.approx(0.004)
    assert point(document, rest=0, steps=30)["high"] == pytest.approx(0.008 + 0.0008 * HALF)
    assert "T_F = 30: rest −V_th 0.0040 [0.0030, 0.0050], rest 0 0.0080 [0.0060, 0.0100]" in document["caption"]
    assert "T_F = 100: rest −V_th 0.0012" in document["caption"]
    (panel,) = drawn(rows, spide_equilibrium).figure.axes
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert [container[0].get_linestyle() for container in panel.containers] == ["-", "--"]
    guide = panel.lines[0]
    assert_allclose(np.array(guide.get_xdata()) * np.array(guide.get_ydata()), (0.12 * 0.24) ** 0.5)


def test_ablations_are_paired_with_spide_as_it_is(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["spide-ablations"]
    # Changed: 0.02 x (-1, 0, 1) off the mean; unchanged: 0.01 x (-1, 0, 1). Unpaired, the interval would be wider.
    reset = point(document, words="couples reset to 0")
    assert (reset["mean"], reset["high"]) == (pytest.approx(-0.02), pytest.approx(-0.02 + 0.01 * HALF))
    assert document["numbers"]["base"]["mean"] == pytest.approx(0.9)
    pairs = [p["difference"] for p in document["numbers"]["pairs"] if p["change"] == reset["change"]]
    assert_allclose(sorted(pairs), [-0.03, -0.02, -0.01])
    assert "couples reset to 0 -2.0 [-4.5, 0.5]; T_B = 25 -1.0 [-3.5, 1.5]; S = 32 -5.0" in document["caption"]
    (panel,) = drawn(rows, spide_ablations).figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        *("couples reset to 0", "T_B = 25", "S = 32", "weight decay not divided by S", "dropout of 20%"),
        *("dropout of 20%, gradient sees the masks", "feedback's norm not restricted"),
    ]
    assert panel.yaxis_inverted()
    assert panel.get_xlim()[0] < -0.075 < 0.03 < panel.get_xlim()[1]


def test_a_pair_needs_both_repetitions(rows: pd.DataFrame) -> None:
    table = of_spide(rows)
    base = (table["sweeps"] == "ablations") & (table["settings"] == '{"epochs":5,"learning_rates":[0.1]}')
    assert base.sum() == 3
    drawing = drawn(synthetic.fail(table, base & (table["repetition"] == 0)), spide_ablations)
    assert set(drawing.numbers["points"]["n"]) == {2}
    with pytest.raises(Exception, match="no finished cells that pair a changed setting with SPIDE as it is"):
        drawn(synthetic.fail(table, base), spide_ablations)


def test_what_presets_set_for_all_is_no_change(rows: pd.DataFrame) -> None:
    """As in the preset ``paper``, which has dropout and another S: the arm of that dropout changes nothing."""
    table = of_spide(rows)[of_spide(rows)["sweeps"] == "ablations"].copy()
    settings = [{"dropout": 0.2, "loss_scale": 100, **json.loads(text)} for text in table["settings"]]
    table["settings"] = [json.dumps(one, sort_keys=True) for one in settings]
    table = table.drop_duplicates(["settings", "repetition"])
    words = set(drawn(table, spide_ablations).numbers["points"]["words"])
    assert words == {
        *("couples reset to 0", "T_B = 25", "S = 32", "weight decay not divided by S", "gradient sees the masks"),
        "feedback's norm not restricted",
    }


def test_settings_without_words_are_told_by_name(rows: pd.DataFrame) -> None:
    table = of_spide(rows)[of_spide(rows)["sweeps"] == "ablations"]
    table = table.assign(settings=table["settings"].str.replace('"loss_scale":32', '"warm_up":10'))
    assert "warm up = 10" in list(drawn(table, spide_ablations).numbers["points"]["words"])


def test_second_stage_on_the_chip(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["spide-chip"]
    both = "SPIDE in the loop, backward too"
    worst = point(document, fault="stuck-at", arm=both, severity=1.0)
    assert (worst["mean"], worst["high"]) == (pytest.approx(0.7), pytest.approx(0.7 + 0.02 * HALF))
    apart = point(document, "differences", fault="stuck-at", severity=1.0, arm="SPIDE in the loop")
    assert (apart["mean"], apart["high"]) == (pytest.approx(-0.1), pytest.approx(-0.1 + 0.01 * HALF))
    assert (
        f"{both} 70.0% [65.0, 75.0], backward on the chip less ideal -10.0 points [-12.5, -7.5]" in document["caption"]
    )
    panels = drawn(rows, spide_chip).figure.axes
    assert [panel.get_title() for panel in panels] == ["threshold", "gain-mismatch", "stuck-at"]
    for panel in panels:
        looks = [(to_hex(c[0].get_color()), c[0].get_marker(), c[0].get_linestyle()) for c in panel.containers]
        assert len(set(looks)) == 3


def test_feedback_networks_have_looks_of_their_own() -> None:
    arms = [
        Arm("spide", "off-chip"),
        Arm("spide", "in-the-loop"),
        Arm("ide", "off-chip"),
        Arm("feedback_bptt", "off-chip"),
    ]
    assert len({LEAD[arm].marker for arm in arms}) == 4
    assert len({LEAD[arm].colour for arm in arms}) == 3
    others = {style.colour for arm, style in LEAD.items() if arm.method not in {a.method for a in arms}}
    assert not {LEAD[arm].colour for arm in arms} & others


@pytest.mark.parametrize("module", ALL)
def test_two_repetitions_with_holes_are_drawn(module: ModuleType) -> None:
    """As in the preset ``smoke``: intervals of two repetitions, some of one, reach far beyond all axes."""
    table = synthetic.rows(repetitions=2)
    holes = (table["experiment"] == "spide") & (table["repetition"] == 1) & (np.arange(len(table)) % 3 == 0)
    drawing = drawn(synthetic.fail(table, holes), module)
    assert drawing.n == 2
    for panel in drawing.figure.axes:
        assert np.isfinite([*panel.get_xlim(), *panel.get_ylim()]).all()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (spide_cost, "no counts of operations"),
        (spide_equilibrium, "no finished cells whose rates were compared"),
    ],
)
def test_rows_without_what_is_to_be_drawn_say_so(rows: pd.DataFrame, module: ModuleType, words: str) -> None:
    with pytest.raises(Exception, match=words):
        drawn(rows.assign(diagnostics="{}"), module)
