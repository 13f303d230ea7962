"""What lies on disk, how arms look, and what becomes of incomplete tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import seaborn
import synthetic
from matplotlib.figure import Figure
from matplotlib.image import imread

from spikebench import figures
from spikebench.errors import UserError
from spikebench.figures import tables
from spikebench.figures.arms import LEAD, Arm, label, styles
from spikebench.figures.style import canvas, house_style, key

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_figure_is_a_png_a_pdf_and_a_json(gallery: Gallery, name: str) -> None:
    folder, document = gallery[0], gallery[1][name]
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.{s}" for n in figures.NAMES for s in ("png", "pdf", "json")
    }
    assert json.loads((folder / f"{name}.json").read_text()) == document
    assert set(document) == {"name", "title", "experiment", "preset", "caption", "alt", "n", "numbers"}
    crossed = name == "variance-shares"  # its points are of 2 x 2 x 2 x 2 cells
    assert (document["name"], document["preset"], document["n"]) == (name, "default", 16 if crossed else 3)
    assert len(document["alt"]) > 80
    image = imread(folder / f"{name}.png")
    height, width, _ = image.shape
    assert width == pytest.approx(17 / 2.54 * 150, abs=1)
    assert 380 < height < 1200
    assert 0.01 < (image[..., :3].min(axis=2) < 0.9).mean() < 0.5  # ink: something is drawn, and not everywhere
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    "name",
    [
        *("accuracy-vs-severity", "ablations", "bisnn-maps", "bisnn-bands"),
        *("gem-grid", "gem-memorisation", "gem-raster", "gem-ablations"),
        *("spide-gradient", "spide-accuracy", "spide-cost", "spide-ablations"),
        *("psg-tests", "psg-starts", "pda-divergences", "pda-potentials"),
        *("severity-curves", "fault-families", "comparison-verdicts", "comparison-budgets", "variance-shares"),
    ],
)
def test_the_same_rows_in_any_order_give_the_same_bytes(
    gallery: Gallery, draw: Draw, rows: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    draw(name, rows.sample(frac=1, random_state=0))
    for suffix in ("png", "pdf", "json"):
        assert (tmp_path / f"{name}.{suffix}").read_bytes() == (gallery[0] / f"{name}.{suffix}").read_bytes()


def test_an_unknown_figure_is_told_the_known_ones(draw: Draw) -> None:
    with pytest.raises(UserError, match="no figure 'accuracy'; known: accuracy-vs-severity"):
        draw("accuracy")


@pytest.mark.parametrize("name", figures.NAMES)
def test_without_a_finished_cell_the_figure_says_so(draw: Draw, rows: pd.DataFrame, name: str) -> None:
    document = draw(name, synthetic.fail(rows, pd.Series(True, index=rows.index), "timed-out"))
    assert "no finished cells for this figure" in document["caption"]
    counts = {k: n for k, n in document["numbers"]["statuses"].items() if n}
    assert list(counts) == ["timed-out"]
    assert f"{counts['timed-out']} timed-out" in document["alt"]
    assert document["n"] == 0


@pytest.mark.parametrize("name", figures.NAMES)
def test_no_rows_at_all(draw: Draw, rows: pd.DataFrame, name: str) -> None:
    assert "none expected or run" in draw(name, rows.iloc[:0])["caption"]


@pytest.mark.parametrize("name", figures.NAMES)
def test_one_repetition_has_points_and_no_interval(draw: Draw, name: str) -> None:
    document = draw(name, synthetic.rows(repetitions=1), "smoke")
    if name == "variance-shares":
        assert "two levels of every factor, so that there is nothing to tell apart" in document["caption"]
        return
    assert document["n"] == 1
    if name != "mh-traces":
        assert "(one value, no interval)" in document["caption"]


@pytest.mark.parametrize("name", ["accuracy-vs-training-size", "paired-difference", "ablations", "faults-and-data"])
def test_a_table_of_holes_is_drawn_as_far_as_it_goes(draw: Draw, rows: pd.DataFrame, name: str) -> None:
    holes = (rows["repetition"] == 1) & (rows["severity"] == 1.0) | (rows["mode"] == "oracle")
    document = draw(name, synthetic.fail(rows, holes, "diverged"))
    assert "cells did not finish" in document["caption"]
    assert "diverged" in document["caption"]
    assert "Backprop oracle" not in json.dumps(document["numbers"])


def test_data_sets_are_not_averaged(draw: Draw, rows: pd.DataFrame) -> None:
    document = draw("accuracy-vs-severity", pd.concat([rows, rows.iloc[:1].assign(dataset="digits")]))
    assert "cells of several data sets (breast_cancer, digits)" in document["caption"]


def test_no_reference_arm_means_no_pairs(draw: Draw, rows: pd.DataFrame) -> None:
    document = draw("paired-difference", rows[rows["method"] == "backprop"])
    assert "no finished cells for this figure that pair MH in the loop with another arm" in document["caption"]


def test_lead_arms_keep_their_colours_whatever_else_is_there(rows: pd.DataFrame) -> None:
    whole = styles(rows)
    for table in (rows[rows["mode"] == "oracle"], rows[rows["experiment"] == "grand_comparison"]):
        assert all(whole[label] == style for label, style in styles(table).items())
    assert list(whole) == [
        *("MH in the loop", "Backprop in the loop", "Backprop off-chip", "Backprop oracle"),
        *("Full precision", "Straight-through", "Bayes (mode)", "Bayes (ensemble)"),
        *("Single sample", "MB", "IW", "GEM"),
        *("SPIDE", "SPIDE in the loop", "IDE", "BPTT (feedback net)"),
        *("Fixed surrogate", "PSG", "PDA", "PSG+PDA", "Learnt threshold", "Learnt threshold+PSG"),
    ]


def test_bisnn_in_the_loop_says_so(rows: pd.DataFrame) -> None:
    arms = [Arm("bisnn", "in-the-loop", variant) for variant in synthetic.VARIANTS]
    assert [label(arm) for arm in arms[1:3]] == ["Straight-through in the loop", "Bayes (mode) in the loop"]
    assert {LEAD[arm].line for arm in arms} == {"--"}
    assert [LEAD[arm].colour for arm in arms] == [LEAD[arm._replace(mode="off-chip")].colour for arm in arms]


def test_looks_differ_and_colours_are_safe(rows: pd.DataFrame) -> None:
    tol = {"#332288", "#882255", "#117733", "#999933", "#000000"}  # Tol's muted indigo, wine, green, olive; black
    safe = {colour.lower() for colour in seaborn.color_palette("colorblind").as_hex()} | tol
    many = [rows.iloc[:1].assign(method=f"method_{i:02d}", mode="oracle") for i in range(14)]
    looks = styles(pd.concat([rows, *many]))
    assert {style.colour for style in looks.values()} <= safe
    assert len({(s.colour, s.marker) for s in looks.values()}) == len(looks) == 36
    assert len({(s.colour, s.marker) for s in LEAD.values()}) == len(LEAD)
    first = {arm: style.colour for arm, style in LEAD.items() if arm.method in ("metropolis_hastings", "backprop")}
    others = {style.colour for name, style in looks.items() if name not in {label(arm) for arm in first}}
    assert set(first.values()).isdisjoint(others)


@pytest.mark.parametrize("name", figures.NAMES)
def test_no_words_run_off_the_page(draw: Draw, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("spikebench.figures.drawing.save", lambda figure, *_: drawn.append(figure))
    draw(name)
    inches, (width, height) = drawn[0].get_tightbbox(), drawn[0].get_size_inches()
    assert 0 <= inches.x0 < inches.x1 <= width
    assert 0 <= inches.y0 < inches.y1 <= height


def test_a_new_method_is_drawn_under_a_readable_name(draw: Draw, rows: pd.DataFrame) -> None:
    new = rows[rows["mode"] == "oracle"].assign(method="bayes_bisnn", mode="in-the-loop", variant="ensemble")
    table = pd.concat([rows, new.assign(cell="n" + new["cell"])])
    for name in ("accuracy-vs-severity", "paired-difference"):
        document = draw(name, table)
        assert "Bayes bisnn in the loop (ensemble)" in document["caption"]
        assert "MH in the loop" in document["caption"]
    assert Arm("bayes_bisnn", "in-the-loop", "ensemble") not in LEAD


def test_legends_of_many_arms_fit_the_page(rows: pd.DataFrame) -> None:
    many = [rows.iloc[:1].assign(method=f"a_rather_long_name_{i}", mode="in-the-loop", variant="x") for i in range(9)]
    with house_style():
        figure, _ = canvas(1, 3, "title", [key(style) for style in styles(pd.concat([rows, *many])).values()])
        figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().width < figure.bbox.width
    assert legend.get_window_extent().y0 > figure.axes[0].get_window_extent().y1


def test_panels_come_in_order_of_strength(rows: pd.DataFrame) -> None:
    rows = rows[~rows["sweeps"].str.contains("families|variance|backward-on-chip")]
    table = pd.concat([rows, rows.iloc[:1].assign(fault="jitter")])
    assert tables.faults(table) == ["threshold", "threshold+tau+gain", "gain-mismatch", "jitter", "paper-full"]


def test_severities_to_show_are_those_that_were_run() -> None:
    assert tables.pick(pd.Series([0.0, 0.1, 0.5, 1.0])) == [0.0, 0.5, 1.0]
    assert tables.pick(pd.Series([0.0, 0.5])) == [0.0, 0.5]
    assert tables.pick(pd.Series([0.2, 0.3, 0.4, 0.7])) == [0.2, 0.4, 0.7]


def test_naming_the_figures_imports_nothing_heavy() -> None:
    code = "import sys, spikebench.figures; print([m for m in ('matplotlib', 'seaborn', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
