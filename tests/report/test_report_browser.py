"""The report in a browser, from files alone: opened, clicked through, sorted; nothing goes wrong, nobody is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import browser
import grand
import pandas as pd
import pytest
import synthetic
from browser import Watched
from scoreboard import CLAIMS, DEFINITIONS, PROVENANCE

from spikebench import comparison, report
from spikebench.figures.arms import styles
from spikebench.paths import Results

BOARD = "#board-breast_cancer table"
NAMES = ["MH in the loop", "Bayes (ensemble)", "SPIDE", "Backprop off-chip", grand.MINE]


@pytest.fixture(scope="module")
def results(rows: pd.DataFrame, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A preset's folder with report, figures and a contact sheet, moved after it was built."""
    first = Results("default", tmp_path_factory.mktemp("built"))
    shutil.copytree(drawn, first.figures)
    sheet = first.sheet("mnist_dvs-0123")
    sheet.parent.mkdir()
    shutil.copy(drawn / "ablations.png", sheet.with_suffix(".png"))
    words = {"title": "Sheet", "kind": "simulated", "caption": "One of each.", "alt": "Pictures.", "numbers": {}}
    sheet.write_text(json.dumps({"name": sheet.stem, **words}))
    others = rows[(rows["experiment"] != "grand_comparison") | (rows["crossed"] != "{}")]
    table = pd.concat([others, grand.rows()], ignore_index=True)
    table.to_parquet(first.rows)
    for left in ("methods", "data"):
        (first.report.parent / left).mkdir(parents=True)
        (first.report.parent / left / "gone.html").write_text("of an earlier run")
    coverage, provenance = synthetic.coverage(table), report.Provenance(**PROVENANCE)
    given = (table, synthetic.traces(rows), CLAIMS, first.figures, coverage, provenance, "default", first.report)
    report.build(*given, DEFINITIONS, [sheet])
    moved = Results("default", tmp_path_factory.mktemp("moved"))
    moved.folder.parent.mkdir()
    shutil.move(first.folder, moved.folder)
    return moved


@pytest.fixture(scope="module")
def window() -> Iterator[Watched]:
    """One browser for all tests of this file."""
    with browser.opened() as window:
        window.view.emulate_media(reduced_motion="reduce")  # links jump, and nothing is to be waited for
        yield window


@pytest.fixture
def page(window: Watched, results: Results) -> Iterator[Watched]:
    """The index, opened; whatever the test does, nothing goes wrong and nobody is asked."""
    window.view.set_viewport_size({"width": 1280, "height": 900})
    window.open(results.report.as_uri())
    yield window
    assert window.errors == []
    assert {address.split(":")[0] for address in window.requests} <= {"file", "data"}
    assert window.away == []


def arms(page: Watched, table: str = BOARD) -> list[str]:
    return page.view.locator(f"{table} tbody th").all_inner_texts()


def head(page: Watched, name: str, table: str = BOARD) -> str:
    """A selector of a column's head."""
    return f"{table} thead tr:last-child th:has-text('{name}')"


def pictures(page: Watched) -> int:
    """How many there are; all of them loaded, and with words for those who cannot see them."""
    found = page.view.evaluate("[...document.images].map(one => [one.naturalWidth, one.alt, one.src.slice(0, 60)])")
    for width, alt, source in found:
        assert width > 0, source
        assert len(alt) > 8, source
    return len(found)


def test_every_link_of_the_navigation_leads_to_its_section(page: Watched) -> None:
    links = page.view.locator("nav a[href^='#']")
    assert links.count() == 10
    for link in links.all():
        link.click()
        section = page.view.locator(page.view.evaluate("location.hash"))
        assert section.locator("h2").first.inner_text()
        near = "part => Math.abs(document.querySelector(part).getBoundingClientRect().top) < innerHeight"
        page.view.wait_for_function(near, arg=page.view.evaluate("location.hash"))


def test_every_link_to_a_file_or_a_part_leads_somewhere(page: Watched, results: Results) -> None:
    pages = [results.report, results.variance_page, *results.report.parent.glob("*/*.html")]
    assert len(pages) > 1 + 8 + 8
    for file in pages:
        page.open(file.as_uri())
        assert pictures(page) or file.parent.name == "data"
        for address in set(page.view.evaluate("[...document.links].map(one => one.href)")):
            if address.startswith("https://arxiv.org/abs/"):
                continue
            target, _, part = address.removeprefix("file://").partition("#")
            assert Path(target).is_file(), (file.name, address)
            assert not part or f'id="{part}"' in Path(target).read_text(), (file.name, address)
        assert page.errors == []


def test_a_click_sorts_and_another_turns_the_order(page: Watched) -> None:
    assert arms(page) == NAMES
    assert page.view.get_attribute(head(page, "rank"), "aria-sort") == "ascending"
    page.view.click(head(page, "mean area") + " >> button")
    assert arms(page) == NAMES[::-1]
    assert page.view.get_attribute(head(page, "mean area"), "aria-sort") == "ascending"
    assert page.view.get_attribute(head(page, "rank"), "aria-sort") is None
    page.view.click(head(page, "mean area") + " >> button")
    assert arms(page) == NAMES
    assert page.view.get_attribute(head(page, "mean area"), "aria-sort") == "descending"
    arrow = "getComputedStyle(document.querySelector('[aria-sort=descending] button'), '::after').content"
    assert "▼" in page.view.evaluate(arrow)
    other = "#board-mnist-dvs-sim table"
    assert page.view.get_attribute(head(page, "rank", other), "aria-sort") == "ascending", "each table for itself"


def test_numbers_are_sorted_as_numbers_and_words_as_words(page: Watched) -> None:
    page.view.click(head(page, "chip presentations") + " >> button")
    shown = page.view.locator(f"{BOARD} tbody tr td:nth-child(8)").all_inner_texts()
    assert shown == ["900", "2,900", "4,900", "6,900", "10,900"]
    page.view.click(head(page, "Arm") + " >> button")
    assert arms(page) == sorted(NAMES)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts_too(page: Watched, key: str) -> None:
    page.view.focus(head(page, "mean area") + " >> button")
    page.view.keyboard.press(key)
    assert arms(page) == NAMES[::-1]
    page.view.keyboard.press(key)
    assert arms(page) == NAMES


def test_what_has_no_value_stays_last_whichever_way(page: Watched, tmp_path: Path, results: Results) -> None:
    text = results.report.read_text()
    cell = f'data-value="{0.9 - 0.1 / 2}'
    assert text.count(cell) > 0
    (tmp_path / "index.html").write_text(text.replace(cell, 'data-value="" title="'))
    page.open((tmp_path / "index.html").as_uri())
    orders = []
    for _ in range(2):
        page.view.click(head(page, "mean area") + " >> button")
        orders.append(arms(page))
    assert orders == [[*NAMES[:0:-1], NAMES[0]], [*NAMES[1:], NAMES[0]]]


def test_without_scripts_the_tables_stand_as_they_were_built(window: Watched, results: Results) -> None:
    assert window.view.context.browser
    context = window.view.context.browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(results.report.as_uri())
    assert view.locator(f"{BOARD} tbody th").all_inner_texts() == NAMES
    assert view.locator("button").count() == 0
    context.close()


def test_no_other_script_may_run(page: Watched) -> None:
    page.view.evaluate("document.body.insertAdjacentHTML('beforeend', '<button id=evil onclick=\"window.ran = 1\">')")
    page.view.evaluate("document.querySelector('#evil').click()")
    assert page.view.evaluate("window.ran") is None
    assert any("Content Security Policy" in error for error in page.errors)
    page.errors.clear()


def test_break_points_have_the_margin_of_the_figures(page: Watched) -> None:
    """That of another experiment's claim, 3 points, is none of theirs."""
    assert "stays within 2 points" in page.view.inner_text("#leaderboard")


def test_a_claim_leads_to_its_figure_and_opens_its_rows(page: Watched) -> None:
    page.view.click("#claim-M1 a[href='#figure-accuracy-vs-severity']")
    assert page.view.evaluate("location.hash") == "#figure-accuracy-vs-severity"
    table = page.view.locator("#rows-M1 table")
    assert not table.is_visible()
    page.view.click("#rows-M1 summary")
    assert table.is_visible()
    assert table.locator("tbody tr").count() == 6
    assert "fault == 'paper-full'" in page.view.inner_text("#rows-M1 code")


@pytest.mark.parametrize(
    ("link", "heading", "back"),
    [
        (f"{BOARD} a:has-text('SPIDE')", "spide", "leaderboard"),
        ("#methods a:has-text('metropolis_hastings')", "metropolis_hastings", "methods"),
        ("#data a:has-text('mnist-dvs-sim')", "mnist-dvs-sim", "data"),
    ],
)
def test_a_page_is_reached_and_left(page: Watched, link: str, heading: str, back: str) -> None:
    page.view.click(link)
    page.view.wait_for_load_state()
    assert page.view.inner_text("h1").split() == [heading, "preset", "default"]
    assert pictures(page)
    page.view.click(f"nav a[href='../index.html#{back}']")
    page.view.wait_for_load_state()
    assert page.view.locator("h1").inner_text().startswith("Spikebench report")
    assert page.view.evaluate("location.hash") == f"#{back}"


def test_the_sources_of_variance_have_a_page_of_their_own(page: Watched, results: Results) -> None:
    page.view.click("nav a:has-text('Variance')")
    page.view.wait_for_load_state()
    assert page.view.inner_text("h1").startswith("Where the spread of a result comes from")
    shares = comparison.variance_shares(pd.read_parquet(results.rows))
    ordered = [arm for arm in styles(pd.read_parquet(results.rows)) if arm in set(shares["arm"])]
    assert arms(page, "#shares table") == ordered != []
    parts = page.view.locator("#shares tbody tr").first.locator("td").all()
    found = [float(cell.get_attribute("data-value") or "nan") for cell in parts[2:]]
    expected = shares[shares["arm"] == ordered[0]]["share"].tolist()
    assert found == pytest.approx(expected) and sum(found) == pytest.approx(1)
    assert pictures(page) == 1
    page.view.click("nav a[href='index.html']")
    assert page.view.locator("h1").inner_text().startswith("Spikebench report")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("file", ["index", "variance", "methods/bisnn", "data/mnist_dvs"])
def test_nothing_is_wider_than_the_window(page: Watched, results: Results, file: str, width: int) -> None:
    page.view.set_viewport_size({"width": width, "height": 900})
    page.open((results.report.parent / f"{file}.html").as_uri())
    page.view.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.view.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_the_boards_fit_and_what_is_folded_is_left_out(page: Watched) -> None:
    page.view.emulate_media(media="print")
    # Half as wide as A4 lying: these boards have as many columns again where all ten families are met.
    page.view.set_viewport_size({"width": 600, "height": 700})
    fits = "[...document.querySelectorAll('#leaderboard > .wide')].map(one => one.scrollWidth <= one.clientWidth)"
    assert set(page.view.evaluate(fits)) == {True}
    assert not page.view.locator("nav").is_visible()
    assert not page.view.locator("#rows-M1").is_visible()
    page.view.emulate_media(media="screen")


def test_there_is_a_page_for_what_is_in_the_rows_and_for_nothing_else(results: Results) -> None:
    rows = pd.read_parquet(results.rows)
    for kind, column in (("methods", "method"), ("data", "dataset")):
        assert {file.stem for file in results.report.parent.glob(f"{kind}/*.html")} == set(rows[column])
    assert results.method_page("spide").is_file()
    assert results.data_page("mnist_dvs").is_file()
    assert not results.data_page("gone").exists()
