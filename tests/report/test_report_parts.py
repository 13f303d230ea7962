"""Pages of methods and data sets, and the rows behind a claim."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import grand
import pandas as pd
import pytest
import yaml
from project import CHECKOUT
from scoreboard import CLAIMS, PROVENANCE

from spikebench import plugins
from spikebench.comparison import areas
from spikebench.naming import named
from spikebench.report.evidence import evidence
from spikebench.report.gallery import figure, gallery
from spikebench.report.pages import DataPage, MethodPage, data_pages, method_pages


@pytest.fixture(scope="module")
def both(rows: pd.DataFrame) -> pd.DataFrame:
    """The papers' experiments, with the comparison on two data sets."""
    return pd.concat([rows[rows["experiment"] != "grand_comparison"], grand.rows()], ignore_index=True)


@pytest.fixture(scope="module")
def methods(both: pd.DataFrame, drawn: Path) -> dict[str, MethodPage]:
    table = named(both)
    return {page.name: page for page in method_pages(table, areas(table), CLAIMS, gallery(drawn), CHECKOUT)}


def pages_of_data(rows: pd.DataFrame, *sheets: Path) -> dict[str, DataPage]:
    found = [{**PROVENANCE["data"][0], "name": "breast_cancer"}]
    return {page.name: page for page in data_pages(rows, found, [figure(sheet) for sheet in sheets], CHECKOUT)}


def test_a_page_for_each_method_of_the_rows(both: pd.DataFrame, methods: dict[str, MethodPage]) -> None:
    assert set(methods) == set(both["method"])
    spide = methods["spide"]
    assert spide.title == "SPIDE: feedback networks trained at their equilibrium by ternary spikes (arXiv 2302.00232)."
    assert spide.paragraphs[0].startswith("The adjoint of the equilibrium")
    assert "Xiao" in spide.citation
    assert spide.modes == ("off-chip", "in-the-loop")
    assert methods["gem_snn"].variants["gem"] == "gem"
    assert methods["bisnn"].variants["bayes-ensemble"] == "bayes"


def test_a_method_without_a_file_has_a_page_too(methods: dict[str, MethodPage]) -> None:
    mine = methods["mine"]
    assert (mine.title, mine.paragraphs, mine.citation, mine.arms) == ("mine", [], "", [grand.MINE])
    assert mine.costs.lines


def test_claims_and_figures_are_those_of_its_experiments(methods: dict[str, MethodPage]) -> None:
    assert [claim["id"] for claim in methods["metropolis_hastings"].claims] == ["M1", "M2"]
    assert methods["spide"].claims == []
    names = [figure.document["name"] for figure in methods["spide"].figures]
    assert "spide-cost" in names
    assert {name.split("-")[0] for name in names} & {"gem", "psg", "bisnn", "paired"} == set()


def test_areas_and_costs_of_its_arms(methods: dict[str, MethodPage]) -> None:
    page = methods["metropolis_hastings"]
    assert list(page.areas.columns) == ["Arm", "data set", "threshold", "gain-mismatch", "paper-full"]
    found = [[entry.text for entry in line] for line in page.areas.lines]
    assert found == [["MH in the loop", data, *["85.0%"] * 3] for data in ("breast_cancer", "mnist-dvs-sim")]
    costs = {tuple(entry.text for entry in line[1:3]): line for line in page.costs.lines}
    line = costs["grand_comparison", "mnist-dvs-sim"]
    assert [entry.text for entry in line[3:]] == ["27", "900", "0", "0.5", "4,096", "270", "400"]
    assert ("chip_in_the_loop", "breast_cancer") in costs


def test_a_page_for_each_data_set_of_the_rows(both: pd.DataFrame, drawn: Path, tmp_path: Path) -> None:
    sheets = [tmp_path / f"{name}-0123.json" for name in ("mnist", "mnist_dvs")]
    for sheet in sheets:
        shutil.copy(drawn / "ablations.png", sheet.with_suffix(".png"))
        sheet.write_text(json.dumps({"name": sheet.stem, "numbers": {}}))
    pages = pages_of_data(both, *sheets)
    assert set(pages) == set(both["dataset"])
    cancer, digits = pages["breast_cancer"], pages["mnist_dvs"]
    assert cancer.title.startswith("Wisconsin Diagnostic Breast Cancer (WDBC): 569 samples")
    assert [entry["sha256"] for entry in cancer.provenance] == ["ab" * 32]
    assert cancer.licence.startswith("CC BY 4.0")
    assert (cancer.names, digits.names) == (["breast_cancer"], ["mnist-dvs-sim"])
    for name in ("mnist", "mnist_dvs"):
        assert [sheet.document["name"] for sheet in pages[name].sheets] == [f"{name}-0123"]
    assert (cancer.sheets, digits.provenance) == ([], [])
    uses = {line[0].text: [entry.text for entry in line] for line in cancer.uses.lines}
    assert uses["grand_comparison"][2:] == ["the preset's", "398", "171", "1", "135", "135"]
    encodings = [line[2].text for line in cancer.uses.lines if line[0].text == "chip_in_the_loop"]
    assert encodings == ["encoding latency", "encoding rate", "the preset's"]


def test_baselines_are_those_of_their_experiment(both: pd.DataFrame) -> None:
    pages = pages_of_data(both)
    (line,) = pages["mnist"].baselines.lines
    # 0.95, give or take 0.01 x 3 of Backprop off-chip over three repetitions: t = 4.303, sd = 0.03
    assert [entry.text for entry in line] == ["mnist", "Backprop off-chip", "1,250", "95.0%", "87.5%", "102.5%", "3"]
    assert pages["breast_cancer"].baselines.lines == []


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_the_query_selects_the_rows_of_a_claim_and_no_others(rows: pd.DataFrame, claim: dict[str, Any]) -> None:
    found = evidence(claim, rows)
    assert found is not None
    cells = {line[-1].text for line in found.table.lines}
    assert set(rows.query(found.query)["cell"]) == cells
    assert len(cells) == {"M1": 2 * 3, "M2": 2 * 6 * 3}[claim["id"]], "arms, training sizes, repetitions"


def test_arms_that_differ_in_several_axes_are_named_one_by_one(rows: pd.DataFrame) -> None:
    test = CLAIMS[0]["test"]
    other = {"axes": {"method": "backprop", "mode": "off-chip"}, "label": "Backprop off-chip"}
    found = evidence({**CLAIMS[0], "test": {**test, "reference": other}}, rows)
    assert found is not None
    chosen = rows.query(found.query)
    assert set(zip(chosen["method"], chosen["mode"], strict=True)) == {
        ("backprop", "off-chip"),
        ("metropolis_hastings", "in-the-loop"),
    }
    assert len(chosen) == len(found.table.lines) == 6


def test_the_lines_of_a_claim_show_its_metric(rows: pd.DataFrame) -> None:
    tables = [found.table for claim in CLAIMS if (found := evidence(claim, rows))]
    assert tables[0].columns == ["Arm", "repetition", "accuracy", "status", "cell"]
    assert tables[1].columns[1:4] == ["training size", "repetition", "diagnostics.acceptance_rate"]
    by_arm = {line[0].text: line[3].text for line in tables[1].lines}
    assert by_arm == {"MH in the loop": "0.25", "Backprop in the loop": "–"}


def test_a_claim_without_rows_has_no_evidence(rows: pd.DataFrame) -> None:
    assert evidence(CLAIMS[0], rows[rows["experiment"] == "bisnn"]) is None


def test_each_claim_names_figures_of_its_experiment() -> None:
    for claim in yaml.safe_load((CHECKOUT / "config/claims.yaml").read_text())["claims"]:
        experiment = yaml.safe_load((CHECKOUT / f"config/experiments/{claim['test']['experiment']}.yaml").read_text())
        assert claim["figures"], claim["id"]
        assert set(claim["figures"]) <= set(experiment["figures"]), claim["id"]


def test_docstrings_are_read_without_importing(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "said.py").write_text('"""One.\n\n    Two.\n"""\nimport nothing_of_this_name\n')
    (tmp_path / "methods" / "silent.py").write_text("x = 1\n")
    assert plugins.docstring("methods", "said", tmp_path) == "One.\n\nTwo."
    assert plugins.docstring("methods", "silent", tmp_path) == ""
