"""The figures of the grand comparison: expected values are those of ``synthetic`` and ``synthetic_comparison``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.axes import Axes
from matplotlib.text import Text
from spide_drawn import HALF, point

from spikebench import figures
from spikebench.figures import (
    comparison_budgets,
    comparison_ranks,
    comparison_verdicts,
    fault_families,
    severity_curves,
    variance_shares,
)
from spikebench.figures.arms import styles, with_arms
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.style import house_style
from spikebench.naming import named
from spikebench.statistics import mean_interval

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]
MH, LOOP, OFF, ORACLE = "MH in the loop", "Backprop in the loop", "Backprop off-chip", "Backprop oracle"
SLOW = "SPIDE in the loop"
CANCER, DVS = "breast_cancer", "mnist-dvs-sim"
#: Accuracy on a sound chip.
SOUND = 0.95 - 0.4 / 398**0.5


def _drawn(rows: pd.DataFrame, module: Any, margin: float | None = None) -> Drawing:
    """As ``figures.draw`` does, with the figure itself."""
    selected = with_arms(module.select(named(rows[rows["experiment"] == module.EXPERIMENT])))
    with house_style():
        drawing: Drawing = module.draw(selected, Context(styles(rows), pd.DataFrame(), margin, None))
        drawing.figure.draw_without_rendering()
    return drawing


def _many(arms: int = 25, families: int = 10) -> pd.DataFrame:
    """As many arms, families and data sets as the full preset has, and a long name."""
    own = [synthetic._row("grand_comparison", "families", synthetic.ARMS[3], "threshold", severity, 398, {}, {}, {},
                          r, 2, "full") for severity in (0.0, 0.75, 1.0) for r in range(2)]  # fmt: skip
    base = pd.DataFrame(own).drop(columns="method")
    names = ["feedback_bptt", *(f"method_{arm:02d}" for arm in range(arms - 1))]
    archives = {"mnist_dvs": ("simulated", "mnist"), "cifar10_dvs": ("simulated", "cifar10-subset-4000")}
    sets = [{"dataset": name, "data_kind": kind, "data_source": source}
            for name, (kind, source) in {**archives, "breast_cancer": ("real", "")}.items()]  # fmt: skip
    parts = [
        base.assign(
            **{**data, "method": name, "mode": "in-the-loop", "fault": f"fault-number-{fault}"},
            accuracy=base["accuracy"] - 0.001 * place - 0.01 * fault * base["severity"],
        )
        for data in sets
        for place, name in enumerate(names)
        for fault in range(families)
    ]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(cell=[f"{number:016x}" for number in range(len(table))])


def _in_cells(panel: Axes) -> dict[tuple[int, int], Text]:
    """What is written in the middle of the cells of a matrix, by line and column."""
    places = ((text, *text.get_position()) for text in panel.texts)
    return {(int(y), int(x)): text for text, x, y in places if x % 1 == y % 1 == 0.5 and y > 0}


def _words(panel: Axes) -> dict[tuple[int, int], str]:
    return {place: text.get_text() for place, text in _in_cells(panel).items()}


def test_every_family_has_its_curves(gallery: Gallery) -> None:
    document = gallery[1]["severity-curves"]
    points = pd.DataFrame(document["numbers"]["points"])
    assert points.groupby("fault")["arm"].nunique().to_dict() == {
        "threshold": 4, "gain-mismatch": 4, "paper-full": 5, "stuck-at": 3, "sign-flips": 3, "dropped-spikes": 1,
    }  # fmt: skip
    slow = point(document, "points", arm=SLOW, severity=0.5)
    assert (slow["fault"], slow["mean"]) == ("paper-full", pytest.approx(SOUND - 0.05))
    assert slow["high"] == pytest.approx(SOUND - 0.05 + 0.01 * HALF)
    assert "noisy" not in set(points["fault"]), "that is of the crossing"


def test_arms_break_where_their_means_leave_the_margin(gallery: Gallery) -> None:
    document = gallery[1]["severity-curves"]
    assert document["numbers"]["margin"] == 0.02
    found = {(p["arm"], p["fault"]): p for p in document["numbers"]["break_points"]}
    # Losses at severity 1 times the weights 1 of paper-full and 0.4 of threshold: MH 0.02 and 0.008, which never
    # leaves; the oracle 0.05, over 0.02 from 0.5 on; backprop off-chip 0.12, over 0.02 from 0.25 on
    where = [(MH, "paper-full"), (MH, "threshold"), (ORACLE, "paper-full"), (OFF, "threshold"), (OFF, "stuck-at")]
    assert [found[place]["break_point"] for place in where] == [1.0, 1.0, 0.25, 0.1, 0.0]
    assert [found[place]["censored"] for place in where] == [True, True, False, False, False]
    assert f"{MH} 91.0% [88.5, 93.5] (never breaks)" in document["caption"]
    assert f"{ORACLE} 88.0% [86.8, 89.2] (breaks after 0.25)" in document["caption"]


def test_a_ring_lies_around_the_mean_at_the_break_point(rows: pd.DataFrame) -> None:
    drawing = _drawn(rows, severity_curves)
    panels = {panel.get_title(): panel for panel in drawing.figure.axes if panel.get_visible()}
    rings = [line for line in panels["paper-full"].lines if line.get_markersize() == 7.5]
    assert len(rings) == 4, "all arms but MH, which never breaks"
    heights = sorted(round(float(ring.get_ydata()[0]), 6) for ring in rings)
    assert heights == [round(y, 6) for y in sorted([SOUND] * 3 + [SOUND - 0.05 * 0.25])]


def test_the_margin_is_that_of_the_claims(rows: pd.DataFrame) -> None:
    found = {p["arm"]: p for p in _drawn(rows, severity_curves, 0.15).numbers["break_points"].to_dict("records")
             if p["fault"] == "paper-full"}  # fmt: skip
    assert (found[LOOP]["break_point"], found[OFF]["break_point"]) == (0.5, 0.5)
    for module in (severity_curves, fault_families, comparison_verdicts):
        drawing = _drawn(rows, module, 0.15)
        assert drawing.numbers["margin"] == 0.15
        assert "15 points" in drawing.caption
        assert "15 points" in drawing.note


def test_a_heat_map_has_areas_in_colour_and_break_points_in_words(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["fault-families"]
    cell = point(document, "cells", dataset=CANCER, fault="stuck-at", arm=OFF)
    # On a straight line the area is the value at 0.5: 0.3 x 0.5 x 0.5 is lost
    assert (cell["mean"], cell["n"]) == (pytest.approx(SOUND - 0.075), 3)
    assert point(document, "cells", dataset=DVS, fault="gain-mismatch", arm=MH)["mean"] == pytest.approx(
        0.95 - 0.1 - 0.02 * 0.6 * 0.5 - 0.4 / 300**0.5
    )
    assert len(document["numbers"]["cells"]) == 20 + 6
    drawing = _drawn(rows, fault_families)
    cancer, dvs = drawing.figure.axes[:2]
    assert [tick.get_text() for tick in cancer.get_yticklabels()] == [MH, LOOP, OFF, ORACLE, SLOW]
    # Columns: threshold, gain-mismatch, dropped-spikes, sign-flips, stuck-at, paper-full
    words = _words(cancer)
    assert len(words) == 30
    assert [words[0, column] for column in range(6)] == ["≥1", "≥1", "–", "≥1", "≥1", "≥1"]
    assert [words[3, column] for column in range(6)] == ["≥1", "0.5", "–", "–", "–", "0.25"]
    assert [words[4, column] for column in range(6)] == ["–"] * 5 + ["0"]
    shown = cancer.collections[0].get_array()
    assert np.ma.getmaskarray(shown)[4].tolist() == [True] * 5 + [False]
    assert shown[2, 4] == pytest.approx(100 * (SOUND - 0.075))
    assert len(_words(dvs)) == 5 * 2


def test_too_few_repetitions_decide_nothing_and_the_figure_says_why(gallery: Gallery) -> None:
    document = gallery[1]["comparison-verdicts"]
    assert {pair["verdict"] for pair in document["numbers"]["verdicts"]} == {"undecided"}
    assert "10 tests, n = 3; the smallest sign-flip p at n = 3 is 0.25, which passes Holm at no" in document["caption"]
    assert "area over paper-full: 0 better or worse, 0 equivalent, 10 undecided" in document["caption"]
    assert document["numbers"]["tests"][1] == {
        "dataset": DVS, "families": "gain-mismatch, paper-full", "tests": 3, "n": [3], "attainable": 0.25,
        "passes_among": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def eight() -> pd.DataFrame:
    """Eight repetitions; the oracle is 0.001 above MH, whatever the fault."""
    rows = synthetic.rows(repetitions=8)
    rows = rows[(rows["experiment"] == "grand_comparison") & (rows["crossed"] == "{}")]
    places = ["dataset", "fault", "severity", "training_size", "repetition"]
    of_mh = rows[rows["method"] == "metropolis_hastings"].set_index(places)["accuracy"] + 0.001
    is_oracle = rows["mode"] == "oracle"
    like = of_mh.reindex(pd.MultiIndex.from_frame(rows.loc[is_oracle, places])).to_numpy()
    return rows.assign(accuracy=rows["accuracy"].mask(is_oracle, pd.Series(like, rows.index[is_oracle])))


def test_verdicts_stand_in_the_order_of_ranks(eight: pd.DataFrame) -> None:
    drawing = _drawn(eight, comparison_verdicts)
    cancer, dvs = drawing.figure.axes
    names = [tick.get_text().split("  ") for tick in cancer.get_yticklabels()]
    assert names == [[ORACLE, "1"], [MH, "2"], [SLOW, "3"], [LOOP, "4"], [OFF, "5"]]
    words = _words(cancer)
    assert len(words) == 20, "none on the diagonal"
    assert words[0, 1] == words[1, 0] == "="
    assert (words[0, 4], words[4, 0]) == ("+", "−")
    assert (words[1, 2], words[2, 1]) == ("+", "−")
    faces = {(int(patch.get_y()), int(patch.get_x())): patch.get_facecolor()[:3] for patch in cancer.patches}
    looks = comparison_verdicts.LOOKS
    for place, verdict in (((0, 1), "equivalent"), ((0, 4), "better"), ((4, 0), "worse")):
        assert "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in faces[place])) == looks[verdict][0]
    assert len(_words(dvs)) == 6
    counts = drawing.numbers["verdicts"].query("dataset == @CANCER")["verdict"].value_counts()
    assert f"{counts['better']} better or worse, 1 equivalent" in drawing.caption
    assert counts["better"] == counts["worse"]
    assert counts.sum() == 20
    # 2 / 2^8 = 0.0078, of which Holm lets six pass
    assert "10 tests, n = 8; the smallest sign-flip p at n = 8 is 0.0078, which passes Holm among 6" in drawing.caption


def test_ranks_and_their_means(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["comparison-ranks"]
    order = [(p["arm"], p["rank"]) for p in document["numbers"]["ranks"] if p["dataset"] == CANCER]
    assert order == [(MH, 1.0), (ORACLE, 2.0), (SLOW, 3.0), (LOOP, 4.0), (OFF, 5.0)]
    first = point(document, "ranks", dataset=CANCER, arm=MH)
    assert first["area"] == pytest.approx(SOUND - 0.01)
    assert first["high"] == pytest.approx(SOUND - 0.01 + 0.01 * HALF)
    # LOOP is fourth of five and second of three: among the three that both data sets know, second of both
    means = [(p["arm"], p["mean"], p["low"], p["n"]) for p in document["numbers"]["mean_ranks"]]
    assert means == [(MH, 1.0, 1.0, 2), (LOOP, 2.0, 2.0, 2), (OFF, 3.0, 3.0, 2)]
    assert "With 2 data sets, fewer than about 8, a critical-difference diagram says nothing" in document["caption"]
    panels = [panel for panel in _drawn(rows, comparison_ranks).figure.axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == [CANCER, DVS, "mean rank over data sets"]
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == [MH, ORACLE, SLOW, LOOP, OFF]
    dots = [float(container[0].get_xdata()[0]) for container in panels[0].containers]
    assert dots == sorted(dots, reverse=True)


def test_what_was_planned_counts_and_not_what_has_finished(draw: Draw, rows: pd.DataFrame) -> None:
    late = (rows["mode"] == "oracle") & (rows["severity"] >= 0.5)
    document = draw("comparison-ranks", synthetic.fail(rows, late, "timed-out"))
    areas = {p["arm"]: p["area"] for p in document["numbers"]["ranks"] if p["dataset"] == CANCER}
    assert areas[MH] == pytest.approx(SOUND - 0.01)
    assert list(areas) == [MH, SLOW, LOOP, OFF]
    assert "did not finish" in document["caption"]


def test_each_budget_has_its_front(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["comparison-budgets"]
    fronts = document["numbers"]["fronts"][CANCER]
    # MH is the best, takes no gradient step and all seconds are alike; the oracle is the best that meets no chip
    assert fronts == {"gradient_steps": [MH], "chip_presentations": [MH, ORACLE], "seconds": [MH]}
    spent = point(document, "points", dataset=DVS, arm=LOOP)
    assert spent["chip_presentations"] == pytest.approx(12_800 * 300 / 398)
    assert (spent["seconds"], spent["gradient_steps"], spent["shared"]) == (0.5, 400, 0)
    # Of MH alone, nine cells of the 45 of one data set and 18 of the 54 of the other
    assert "27.3% of those here" in document["caption"]
    drawing = _drawn(rows, comparison_budgets)
    for panel, lowest, free in zip(drawing.figure.axes[:3], drawing.figure.axes[3:], (1, 3, 0), strict=True):
        assert ("none" in [tick.get_text() for tick in lowest.get_xticklabels()]) == (free > 0)
        left = panel.get_xticks()[0] * 10**0.5 if free else 0.0
        assert (
            sum(float(dots[0].get_xdata()[0]) < left for dots in panel.containers if len(dots[0].get_xdata())) == free
        )


def test_shares_of_variance_of_the_crossing(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["variance-shares"]
    mine = [p for p in document["numbers"]["shares"] if p["arm"] == MH]
    # Two levels 0.04 apart have the variance 0.0008; 0.02 gives 0.0002 and 0.01 gives 0.00005; in all 0.00125
    assert [p["share"] for p in mine] == pytest.approx([0.64, 0.16, 0.16, 0.04, 0.0], abs=1e-9)
    assert mine[0]["sd"] == pytest.approx(0.00125**0.5)
    assert "MH in the loop 3.54 points, split 64.0% [" in document["caption"]
    width = np.mean([p["high"] - p["low"] for p in document["numbers"]["shares"]])
    assert f"their 95% intervals are {100 * width:.0f} points wide on average" in document["caption"]
    (panel,) = _drawn(rows[rows["crossed"] != "{}"], variance_shares).figure.axes
    ends = {round(float(bar.get_x() + bar.get_width()), 6) for bar in panel.patches}
    assert ends == {0.64, 0.8, 0.96, 1.0}
    assert {text.get_text() for text in panel.texts} == {"3.54 points"}


def test_as_many_arms_and_families_as_there_are_stay_legible() -> None:
    rows = _many()
    for module in (severity_curves, fault_families, comparison_verdicts, comparison_ranks, comparison_budgets):
        figure = _drawn(rows, module).figure
        inches, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert 0 <= inches.x0 < inches.x1 <= width, module.TITLE
        assert 0 <= inches.y0 < inches.y1 <= height, module.TITLE
        for panel in figure.axes:
            for (line, column), text in _in_cells(panel).items():
                (left, low), (right, high) = panel.transData.transform([(column, line), (column + 1, line + 1)])
                box = text.get_window_extent()
                assert left <= box.x0 < box.x1 <= right, (module.TITLE, text.get_text())
                assert box.height < abs(high - low), (module.TITLE, text.get_text())
                assert text.get_fontsize() >= 5.8


def test_intervals_of_the_areas_are_students(eight: pd.DataFrame) -> None:
    cells = _drawn(eight, fault_families).numbers["cells"]
    (cell,) = cells.query("dataset == @DVS and arm == @OFF and fault == 'paper-full'").to_dict("records")
    values = [0.95 - 0.1 - 0.15 - 0.4 / 300**0.5 + 0.03 * (r - 3.5) for r in range(8)]
    expected = mean_interval(values)
    assert (cell["mean"], cell["low"], cell["high"]) == pytest.approx((expected.mean, expected.low, expected.high))


def test_the_experiment_names_its_figures() -> None:
    listed = (Path(__file__).parents[2] / "config/experiments/grand_comparison.yaml").read_text().split("figures:")[1]
    names = [line.removeprefix("  - ") for line in listed.strip("\n").splitlines()]
    first = figures.NAMES.index("lost-spikes") + 1
    assert list(figures.NAMES[first : first + 6]) == names[-6:]
    assert json.dumps(names[-6:]).count("comparison-") == 3
