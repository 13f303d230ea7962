"""The explorer: what `make ui` serves, seen in a browser, and the documented search, as a reader runs it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from browser import Watched, find
from playwright.sync_api import expect
from tracked import Place, make_row

from spikebench.mlflow_ui import HOST

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "mlflow.md").read_text()
ARMS = [
    ("metropolis_hastings", "in-the-loop", ""),
    ("backprop", "off-chip", ""),
    ("bisnn", "off-chip", "bayes-ensemble"),
    ("bisnn", "off-chip", "straight-through"),
]
#: What an accuracy may be: each cell has its own, so that a cell too many or too few changes a mean.
ACCURACIES = np.random.default_rng(0).permutation(1000) / 1000
ARM_RUNS = [
    f"{arm}, {dataset}"
    for arm in ("metropolis_hastings in-the-loop", "backprop off-chip", "bisnn off-chip")
    for dataset in ("breast_cancer", "two_moons")
]
[FILTER] = re.findall(r"```\n(tags\..*)\n```", DOCUMENT)
#: MLflow's page asks for these whether or not its server has them, and complains of its own layout.
KNOWN = ("/ajax-api/2.0/mlflow/users/current", "ResizeObserver loop completed")


def make_rows() -> pd.DataFrame:
    """All arms with two repetitions at 2 data sets, 2 faults, 3 severities and 2 training sizes; one cell failed."""
    points = product(
        ARMS, ("breast_cancer", "two_moons"), ("paper-full", "threshold"), (0.0, 0.5, 1.0), (20, 398), (0, 1)
    )
    rows = []
    for number, ((method, mode, variant), dataset, fault, severity, size, repetition) in enumerate(points):
        arm = {"method": method, "mode": mode, "variant": variant}
        place = {"dataset": dataset, "fault": fault, "severity": severity, "training_size": size}
        told = {"accuracy": ACCURACIES[number], "experiment": "grand_comparison", "paper": "comparison"}
        rows.append(make_row(f"cell{number}", **arm, **place, **told, repetition=repetition))
    table = pd.DataFrame(rows)
    asked = asked_for(table)
    table.loc[asked.index[asked["method"] == "backprop"][0], "status"] = "timed-out"
    return table


def asked_for(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that the question of the document is about."""
    where = {"status": "ok", "dataset": "breast_cancer", "fault": "paper-full", "severity": 0.5, "training_size": 398}
    for axis, value in where.items():
        rows = rows[rows[axis] == value]
    return rows


def draw(folder: Path) -> None:
    """One figure as `spikebench figures` leaves it: PNG, PDF and JSON."""
    folder.mkdir()
    figure, axes = plt.subplots(figsize=(3, 2), dpi=100)
    axes.plot([0, 0.5, 1], [0.9, 0.7, 0.5])
    for kind in ("png", "pdf"):
        figure.savefig(folder / f"severity.{kind}")
    plt.close(figure)
    (folder / "severity.json").write_text(json.dumps({"name": "severity", "experiment": "grand_comparison"}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder whose ``results`` are those of ``make_rows``."""
    folder = tmp_path_factory.mktemp("explorer") / "results"
    points = [("cell9", "log_posterior", chain, step, -1.0 * step) for chain in (0, 1) for step in (0, 10, 20)]
    traces = pd.DataFrame(points, columns=["cell", "name", "chain", "step", "value"])
    place = Place(folder, make_rows(), traces, folder / "figures")
    folder.mkdir()
    draw(folder / "figures")
    assert place.synchronise().created == 96 * 2 + 6 + 1
    return place


@dataclass
class Explorer:
    """What `make ui` serves, by the address that it prints."""

    start: str

    def runs(self, more: str = "") -> str:
        """The address of the experiment's runs."""
        return re.sub(r"&compareRunsMode=CHART$", more, self.start)


@pytest.fixture(scope="module")
def explorer(place: Place) -> Iterator[Explorer]:
    find()
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    script = f"""
from pathlib import Path
from spikebench.mlflow_ui import serve
serve(Path({str(place.database)!r}), {port}, browser=False)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = re.fullmatch(r"MLflow: (\S+) \(Ctrl-C ends it\)\n", server.stdout.readline())
            assert said
            yield Explorer(said[1])
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def assert_quiet(page: Watched) -> None:
    """Nothing went wrong in the page, and nobody but the server was asked."""
    assert page.away == []
    assert [error for error in page.errors if not any(known in error for known in KNOWN)] == []
    assert len(page.requests) > 10


def test_the_documented_search_answers_which_method_is_best(place: Place) -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    script = f"{snippet}\nbest.to_csv('best.csv')\n"
    folder = place.folder.parent  # the root of a checkout with these results
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    index = ["tags.arm", "params.variant"]
    answer = pd.read_csv(folder / "best.csv", keep_default_na=False).set_index(index)
    asked = asked_for(place.rows)
    truth = asked.assign(arm=asked["method"] + "/" + asked["mode"]).groupby(["arm", "variant"])["accuracy"]
    truth = truth.agg(["mean", "count"]).rename_axis(index=index)
    pd.testing.assert_frame_equal(answer, truth)
    assert truth["count"].to_list() == [1, 2, 2, 2]  # one of the first arm failed
    _, _, first, *others = done.stdout.splitlines()  # below two lines of names
    arm, variant = truth["mean"].idxmax()
    assert first.split()[:-2] == [part for part in (arm, variant) if part]
    assert len(others) == len(truth) - 1


def test_the_page_and_the_snippet_search_for_the_same() -> None:
    [text] = re.findall(r"filter_string=(.*?),\n\)", DOCUMENT, re.DOTALL)
    assert "".join(re.findall(r'"(.*?)"', text)) == FILTER


def test_the_training_view_shows_arms_and_a_chart(page: Watched, explorer: Explorer) -> None:
    page.open(explorer.start)
    for name in ARM_RUNS:
        expect(page.view.get_by_role("link", name=name)).to_be_visible()
    expect(page.view.get_by_role("link", name="figures")).to_be_visible()
    chart = page.view.locator(".js-plotly-plot").first
    expect(chart.locator(".scatterlayer .trace")).not_to_have_count(0)
    drawn = chart.locator(".scatterlayer .point").evaluate_all("points => points.map(p => p.getBoundingClientRect().y)")
    assert len(set(drawn)) > 3  # means at different heights, not a line at nothing
    assert_quiet(page)


def test_the_documented_filter_shows_the_cells_best_first(page: Watched, place: Place, explorer: Explorer) -> None:
    page.open(explorer.runs(f"&orderByKey={quote('metrics.`accuracy`')}&orderByAsc=false"))
    # An answer to the first search that comes after that to the second would be shown in its place: MLflow 3.17.
    expect(page.view.get_by_text("100 matching runs")).to_be_visible()
    field = page.view.get_by_placeholder("metrics.rmse")
    field.fill(FILTER)
    field.press("Enter")
    asked = asked_for(place.rows).sort_values("accuracy", ascending=False)
    expect(page.view.get_by_text(f"{len(asked)} matching runs")).to_be_visible()
    expect(page.view.get_by_role("link", name="paper-full 0.5, n=398")).to_have_count(len(asked))
    names = (
        asked["method"] + " " + asked["mode"] + ": paper-full 0.5, n=398, repetition " + asked["repetition"].map(str)
    )
    for place_in_table, name in enumerate(names):  # the lines may still be on their way: places change before heights
        expect(page.view.locator(f"[row-index='{place_in_table}']").get_by_role("link", name=name)).to_be_visible()
    assert_quiet(page)


def test_a_figure_is_seen_among_the_artifacts(page: Watched, explorer: Explorer) -> None:
    page.open(explorer.runs())
    page.view.get_by_role("link", name="figures").click()
    page.view.get_by_role("tab", name="Artifacts").click()
    expect(page.view.get_by_text("severity.pdf")).to_be_visible()
    page.view.get_by_text("severity.png").first.click()
    picture = page.view.get_by_role("img", name="severity.png")
    expect(picture).to_be_visible()
    size = picture.evaluate("async i => { await i.decode(); return [i.naturalWidth, i.naturalHeight] }")
    assert size == [300, 200]
    assert_quiet(page)
