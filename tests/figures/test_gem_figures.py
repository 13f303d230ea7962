"""The figures of GEM-SNN: every expected value is worked out from ``synthetic``'s formulas by hand."""

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
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox
from numpy.testing import assert_allclose

from spikebench.figures import (
    gem_ablations,
    gem_communication,
    gem_grid,
    gem_inference,
    gem_memorisation,
    gem_raster,
    gem_training,
)
from spikebench.figures.arms import styles, with_arms
from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.gem_rows import GREY_BAND, SCORES, looks, show, with_lines
from spikebench.figures.style import canvas
from spikebench.naming import named

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]

#: Half an interval of three values with standard deviation 1 (see test_figure_numbers).
HALF = 4.302652729911275 / 3**0.5
#: The figures of scores by runs in inference.
SCORED = ("gem-training", "gem-inference", "gem-grid", "gem-communication", "gem-ablations")
ALL = ["Single sample", "MB (K = 5)", "IW (K = 5)", *(f"GEM (K = {k})" for k in (1, 2, 5, 10, 20))]


def _point(document: dict[str, Any], table: str = "points", **where: object) -> dict[str, Any]:
    found = [p for p in document["numbers"][table] if all(p[k] == v for k, v in where.items())]
    assert len(found) == 1, found
    return found[0]


def _selected(rows: pd.DataFrame, module: Any) -> tuple[pd.DataFrame, Context]:
    table = with_arms(module.select(named(rows[rows["experiment"] == module.EXPERIMENT])))
    return table, Context(styles(rows), synthetic.traces(rows), None, None)


def _drawn(rows: pd.DataFrame, module: Any) -> Drawing:
    drawing: Drawing = module.draw(*_selected(rows, module))
    return drawing


def _band(panel: Axes) -> Bbox:
    """Where the null band lies."""
    (band,) = [c for c in panel.collections if isinstance(c, PolyCollection)]
    assert to_hex(band.get_facecolor()[0]) == GREY_BAND
    return band.get_paths()[0].get_extents()


def _gem(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["experiment"] == "gem_snn"]


def test_lines_are_told_by_rule_and_compartments(rows: pd.DataFrame) -> None:
    table, context = _selected(rows, gem_inference)
    found = looks(with_lines(table), context)
    assert list(found) == ALL
    shades = [found[line].colour for line in ALL[3:]]
    assert len(set(shades)) == 5
    assert shades[-1] == context.styles["GEM"].colour
    lightness = [sum(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in shades]
    assert lightness == sorted(lightness, reverse=True), "the more compartments, the darker"
    assert [found[line].line for line in ALL] == ["-", "-", "-", ":", "-", "-", "-", "-"], "no hidden learning: dotted"


def test_an_arm_that_names_no_number_has_five_compartments(rows: pd.DataFrame) -> None:
    table = with_lines(with_arms(_gem(rows)))
    ablated = table[table["sweeps"] == "ablations"]
    assert set(ablated.loc[ablated["variant"] != "single-sample", "compartments"]) == {5}
    assert set(ablated.loc[ablated["variant"] == "single-sample", "line"]) == {"Single sample"}


def test_runs_in_inference(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["gem-inference"]
    best = {"line": "GEM (K = 20)", "runs": 50}
    accuracy = _point(document, score="accuracy", **best)
    mean = 0.83 + 0.01 * np.log2(20) + 0.01 * np.log2(2.5)
    assert (accuracy["mean"], accuracy["high"]) == (pytest.approx(mean), pytest.approx(mean + 0.01 * HALF))
    likelihood = _point(document, score="log_likelihood", line="IW (K = 5)", runs=100)
    assert likelihood["mean"] == pytest.approx(-40 + 2 + np.log2(5))
    assert likelihood["high"] - likelihood["mean"] == pytest.approx(0.5 * HALF)
    assert _point(document, "band", runs=20) == {
        "runs": 20,
        "low": pytest.approx(0.01 * np.log2(20)),
        "high": pytest.approx(0.01 * np.log2(20) + 0.01),
    }
    assert f"GEM (K = 20): log-likelihood {-36 + np.log2(20):.1f}" in document["caption"]

    panels = _drawn(rows, gem_inference).figure.axes
    assert [panel.get_ylabel() for panel in panels] == [words for words, _ in SCORES.values()]
    for panel, score in zip(panels, SCORES, strict=True):
        assert len(panel.containers) == len(ALL)
        drawn = panel.containers[ALL.index("MB (K = 5)")][0].get_ydata(orig=False)
        told = [p["mean"] for p in document["numbers"]["points"] if (p["line"], p["score"]) == ("MB (K = 5)", score)]
        assert_allclose(drawn, told)
    assert _band(panels[2]).y1 == pytest.approx(0.01 * np.log2(50) + 0.01)
    assert not [c for panel in panels[:2] for c in panel.collections if isinstance(c, PolyCollection)]


def test_the_single_sample_is_a_row_apart_from_the_grid(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["gem-grid"]
    panels = _drawn(rows, gem_grid).figure.axes
    lines = ["Single sample", *ALL[3:]]
    places = panels[0].get_yticks()
    assert [label.get_text() for label in panels[0].get_yticklabels()] == lines
    assert_allclose(np.diff(places), [1 + gem_grid.GAP, 1, 1, 1, 1])
    assert panels[0].yaxis_inverted()
    for panel, (score, (_, scale)), runs in zip(panels, SCORES.items(), (7, 6, 6), strict=True):
        strips = [c for c in panel.collections if isinstance(c, QuadMesh)]
        assert len(strips) == len(lines)
        merit = np.concatenate([np.asarray(strip.get_array()) for strip in strips])
        assert merit.shape == (6, runs)
        assert (merit.min(), merit.max(), merit[-1, -1]) == (0, 1, 1), "most compartments and runs are the best"
        assert merit[0, 0] == 0
        numbers = [float(text.get_text().replace("−", "-")) for text in panel.texts]
        told = {(p["line"], p["runs"]): p["mean"] for p in document["numbers"]["points"] if p["score"] == score}
        ordered = sorted({r for _, r in told})
        assert_allclose(numbers, [scale * told[line, r] for line in lines for r in ordered], atol=0.0501)
    assert "row of its own" in document["caption"]


def test_holes_of_the_grid_stay_white(rows: pd.DataFrame) -> None:
    table = _gem(rows)
    some = table["settings"].str.contains('"compartments":10')
    table = table.assign(estimates=table["estimates"].where(~some, '{"votes-1":{"accuracy":0.7}}'))
    accuracy = _drawn(table, gem_grid).figure.axes[1]
    strip = accuracy.collections[4]
    assert isinstance(strip, QuadMesh)
    assert np.ma.getmaskarray(np.ma.masked_invalid(strip.get_array())).tolist() == [[False] + [True] * 5]
    assert len(accuracy.texts) == 6 * 6 - 5


def test_compartments_in_training(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["gem-training"]
    assert len(document["numbers"]["points"]) == 3 * len(ALL)
    assert _point(document, line="GEM (K = 5)", score="accuracy")["mean"] == pytest.approx(0.83 + 0.01 * np.log2(5))
    single = _point(document, line="Single sample", score="log_likelihood")
    assert (single["compartments"], single["mean"]) == (1, pytest.approx(-40))
    # 1 + 0.1 (K - 1) (1 + 2 + 3 + 4 + 5) / 5
    assert _point(document, "effective", line="GEM (K = 20)")["mean"] == pytest.approx(6.7)
    assert _point(document, "effective", line="Single sample")["mean"] == 1
    assert "GEM (K = 20) 6.7 [6.7, 6.7]" in document["caption"]
    assert "20 runs vote, likelihood of 100 runs" in document["caption"]
    assert "GEM with K = 1 does not train its hidden neurons" in document["caption"]

    panels = _drawn(rows, gem_training).figure.axes
    assert [len(panel.containers) for panel in panels] == [4, 4, 4, 4]
    assert any(
        np.array_equal(line.get_xdata(), line.get_ydata()) and list(line.get_xdata()) == [1, 2, 5, 10, 20]
        for line in panels[3].lines
    )
    assert_allclose(_band(panels[2]).intervaly, [0.01 * np.log2(20), 0.01 * np.log2(20) + 0.01])


def test_learning_by_heart_stands_beside_the_published_run(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["gem-memorisation"]
    where = {"sweep": "notebook", "line": "IW (K = 5)", "steps": 400}
    # (-4000 + 20 x 5 + 10 r) / 5 in repetitions 0, 1 and 2
    bound = _point(document, name="bound", **where)
    assert (bound["mean"], bound["high"]) == (pytest.approx(-778), pytest.approx(-778 + 2 * HALF))
    assert _point(document, name="bit_error", **where)["mean"] == pytest.approx(0.024)
    assert "bound -778 [-783, -773] nats (published, one run: -438)" in document["caption"]
    assert "bit error 2.4% [2.4, 2.4] (published: 1.7%)" in document["caption"]
    final = _point(document, "final", sweep="memorisation", line="GEM (K = 20)", score="majority")
    assert final["mean"] == pytest.approx((0.037 - 0.002 * np.log2(20)) / 2)
    told = document["numbers"]["published"]
    assert [p["value"] for p in told if p["name"] == "bound"] == [-3995, -1700, -924, -567, -438]

    panels = _drawn(rows, gem_memorisation).figure.axes
    assert len(panels) == 9
    for panel, values in zip(panels, ([3995, 1700, 924, 567, 438], [0.113, 0.051, 0.034, 0.022, 0.017]), strict=False):
        (marks,) = [line for line in panel.lines if line.get_linestyle() == "None"]
        assert list(marks.get_xdata()) == [80, 160, 240, 320, 400]
        assert list(marks.get_ydata()) == values
        assert marks.get_markerfacecolor() == "none"
        (low, high), (left, right) = panel.get_ylim(), panel.get_xlim()
        assert low < min(values) < max(values) < high
        assert left <= 80 < 400 < right
    assert not [line for panel in panels[2:6] for line in panel.lines if line.get_linestyle() == "None"]
    ours = panels[0].lines[1]
    assert_allclose(ours.get_ydata(), 3890 / np.arange(1, 6))


def test_published_marks_need_the_notebooks_sweep(rows: pd.DataFrame) -> None:
    table = _gem(rows)
    drawing = _drawn(table[table["sweeps"] != "notebook"], gem_memorisation)
    assert len(drawing.figure.axes) == 6
    assert drawing.numbers["published"] == []
    assert "published" not in drawing.caption


def test_time_is_that_of_the_recordings_bins(rows: pd.DataFrame) -> None:
    table = _gem(rows).assign(data_settings='{"bins":400,"halves":true}')
    points = _drawn(table, gem_memorisation).numbers["points"]
    assert set(points["steps"]) == {400, 800, 1200, 1600, 2000}


def test_rasters_show_what_is_wrong(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["gem-raster"]
    steps, outputs = synthetic.SHAPE
    wrong = pytest.approx(2 / (steps * outputs))
    assert document["numbers"]["wrong"] == {"Single sample": wrong, "GEM (K = 20)": wrong}
    assert document["numbers"]["repetition"] == 0
    assert _point(document, "errors", line="Single sample")["mean"] == pytest.approx(0.04)
    panels = _drawn(rows, gem_raster).figure.axes
    pictures = [np.asarray(panel.images[0].get_array()) for panel in panels]
    target = 3 * (np.add.outer(np.arange(outputs), np.arange(steps)) % 5 == 0)
    assert np.array_equal(pictures[0], target)
    for picture in pictures[1:]:
        assert picture[0, 1] == 2, "a spike too many"
        assert picture[1, 4] == 1, "one is missing"
        assert (picture != target).sum() == 2


def test_the_repetition_of_the_rasters_is_the_first_that_both_rules_have(draw: Draw, rows: pd.DataFrame) -> None:
    lost = (rows["sweeps"] == "memorisation") & (rows["variant"] == "single-sample") & (rows["repetition"] == 0)
    assert draw("gem-raster", synthetic.fail(rows, lost))["numbers"]["repetition"] == 1


def test_communication_is_that_of_the_rows_beside_its_formula(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["gem-communication"]
    expected = {"Single sample": (2, 32), "MB (K = 5)": (10, 160), "IW (K = 5)": (10, 42), "GEM (K = 20)": (40, 680)}
    found = {p["line"]: (p["to_centre"], p["from_centre"]) for p in document["numbers"]["load"]}
    assert found.items() >= expected.items()
    assert list(found) == sorted(ALL)
    assert "IW (K = 5) 10 and 42; GEM (K = 1) 2 and 34" in document["caption"]
    table = _drawn(rows, gem_communication).figure.axes[0]
    said = [text.get_text() for text in table.texts]
    assert said[:2] == ["to the centre", "back to the neurons"]
    cells = [said[i : i + 4] for i in range(2, len(said), 4)]
    assert cells[0] == ["|X|", "2", "|H|", "32"]
    assert cells[2] == ["K|X|", "10", "K|X| + |H|", "42"]
    assert cells[-1] == ["K|X|", "40", "K(|X| + |H|)", "680"]


def test_ablations_stand_beside_the_same_rule_without_the_change(gallery: Gallery, rows: pd.DataFrame) -> None:
    document = gallery[1]["gem-ablations"]
    lines = {(p["line"], p["change"]) for p in document["numbers"]["points"]}
    assert lines == {
        *(("GEM (K = 5)", f"κ = {kappa}") for kappa in (0.2, 0.5, 0.9)),
        *((line, "one control variate") for line in ALL[:3]),
        ("IW (K = 5)", "hidden step / K"),
        *((line, "no output feedback") for line in ("Single sample", "GEM (K = 5)", "GEM (K = 20)")),
        *((line, "") for line in (*ALL[:3], "GEM (K = 5)", "GEM (K = 20)")),
    }
    for change, mean in (("", 0.83), ("κ = 0.5", 0.79)):
        found = _point(document, line="GEM (K = 5)", change=change, score="accuracy")
        assert found["mean"] == pytest.approx(mean + 0.01 * np.log2(5))
    labelled, panel, calibration = _drawn(rows, gem_ablations).figure.axes
    assert [label.get_text() for label in labelled.get_yticklabels()][:4] == [
        *(f"GEM (K = 5): κ = {kappa}" for kappa in (0.2, 0.5, 0.9)),
        "Single sample: one control variate",
    ]
    assert len(panel.containers) == 20
    hollow = [container[0].get_markerfacecolor() == "none" for container in panel.containers]
    assert hollow == [True, False] * 10
    assert [bar.get_x() for bar in calibration.patches] == pytest.approx([0.01 * np.log2(20)] * 10)
    assert [bar.get_width() for bar in calibration.patches] == pytest.approx([0.01] * 10)


def test_lines_of_other_data_have_panels_of_their_own(rows: pd.DataFrame) -> None:
    """As in the preset ``full``: classification and its outputs without feedback learn all classes."""
    table = _gem(rows).copy()
    ten = table["sweeps"].isin(["classification", "no-output-feedback"])
    table.loc[ten, ["data_settings", "training_size"]] = ['{"training":1000}', 500]
    figure = _drawn(table, gem_ablations).figure
    above, below = figure.axes[:3], figure.axes[3:]
    assert [panel.get_title() for panel in (*above, *below)] == [*(words for words, _ in SCORES.values()), "", "", ""]
    assert [axes[0].texts[0].get_text() for axes in (above, below)] == [
        "classes 1 and 7, 100 examples",
        "all classes, 500 examples",
    ]
    # Lines with a counterpart have two marks.
    marks = [[len(c[0].get_xdata()) for c in axes[1].containers] for axes in (above, below)]
    assert marks == [[0, 1] * 7, [1, 1] * 3]


def test_presets_of_fewer_runs_say_how_many(draw: Draw, rows: pd.DataFrame) -> None:
    few = rows["estimates"].map(
        lambda text: json.dumps(
            {n: v for n, v in json.loads(text).items() if not n.endswith(("-10", "20", "50", "100"))}
        )
    )
    assert "5 runs vote, likelihood of 5 runs" in draw("gem-training", rows.assign(estimates=few))["caption"]


@pytest.mark.parametrize(
    "changed",
    [{"data_settings": '{"training":2000}'}, {"training_size": 50}, {"network": '{"hidden":[128]}'}],
)
def test_ablations_of_other_data_or_networks_stand_alone(
    draw: Draw, rows: pd.DataFrame, changed: dict[str, object]
) -> None:
    table = rows.copy()
    for column, value in changed.items():
        table.loc[table["sweeps"] == "classification", column] = value
    document = draw("gem-ablations", table)
    assert "" not in {p["change"] for p in document["numbers"]["points"]}
    assert len(document["numbers"]["points"]) == 3 * 10
    assert "no classification without it had the same data and settings" in document["caption"]
    assert "Without changes" not in document["caption"]


def test_long_intervals_do_not_flatten_the_means() -> None:
    _, axes = canvas(1, 1, "title", [])
    points = pd.DataFrame({"mean": [-60.0, -50.0], "low": [-900.0, -51.0], "high": [800.0, -49.0]})
    show(axes[0, 0], "log_likelihood", points)
    assert axes[0, 0].get_ylim() == pytest.approx((-70 - 0.06 * 30, -40 + 0.06 * 30))
    shares = pd.DataFrame({"mean": [0.1], "low": [np.nan], "high": [np.nan]})
    show(axes[0, 0], "ece_width_15", shares, top=0.2)
    assert axes[0, 0].get_ylim() == pytest.approx((0, 0.2 * 1.06))


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        *((name, "estimates", "no estimates by several runs") for name in SCORED),
        ("gem-raster", "outputs", "no spikes of finished cells"),
        ("gem-communication", "diagnostics", "no numbers of communication"),
    ],
)
def test_rows_without_what_is_to_be_drawn_say_so(
    draw: Draw, rows: pd.DataFrame, name: str, column: str, words: str
) -> None:
    assert words in draw(name, rows.assign(**{column: "{}"}))["caption"]


@pytest.mark.parametrize("variant", ["single-sample", "mb", "iw", "gem"])
@pytest.mark.parametrize("module", [gem_training, gem_inference, gem_memorisation, gem_communication, gem_ablations])
def test_one_rule_is_drawn_alone(rows: pd.DataFrame, module: ModuleType, variant: str) -> None:
    drawing = _drawn(rows[rows["variant"] == variant], module)
    assert drawing.n == 3
    told = {line.split(" (")[0] for line in drawing.numbers["points"]["line"]}
    assert told == {{"single-sample": "Single sample", "gem": "GEM"}.get(variant, variant.upper())}
