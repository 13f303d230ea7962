"""Boards by data set and by fault family, from rows whose areas can be told by heart, and the map of coverage."""

from __future__ import annotations

import grand
import pandas as pd
import pytest
import synthetic

from spikebench.comparison import areas
from spikebench.naming import named
from spikebench.report.coverage import maps
from spikebench.report.leaderboard import by_dataset, by_fault
from spikebench.report.tables import Table

MH, BACKPROP, BAYES, SPIDE = "MH in the loop", "Backprop off-chip", "Bayes (ensemble)", "SPIDE"
ORDER = [MH, BAYES, SPIDE, BACKPROP, grand.MINE]  # of losses 0.1, 0.2, 0.3, 0.4, 0.6


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return grand.rows()


def of_sets(rows: pd.DataFrame) -> list[Table]:
    rows = named(rows)
    return by_dataset(rows, areas(rows))


def of_faults(rows: pd.DataFrame, margin: float = 0.03) -> dict[str, Table]:
    rows = named(rows)
    return {table.title: table for table in by_fault(rows, areas(rows), margin)}


def texts(table: Table, arm: str) -> list[str]:
    (line,) = [line for line in table.lines if line[0].text == arm]
    assert len(line) == len(table.columns)
    return [entry.text for entry in line]


def lost(rows: pd.DataFrame, **axes: object) -> pd.DataFrame:
    where = pd.Series(True, index=rows.index)
    for name, value in axes.items():
        where &= rows[name] == value
    assert where.any()
    return synthetic.fail(rows, where)


def test_a_table_a_data_set_with_every_arm_in_order_of_the_mean_area(rows: pd.DataFrame) -> None:
    tables = of_sets(rows)
    assert [table.title.split(":")[0] for table in tables] == ["breast_cancer", "mnist-dvs-sim"]
    for table in tables:
        assert [line[0].text for line in table.lines] == ORDER
        assert table.columns[:3] == ["Arm", "rank", "mean area"]
        assert table.columns[3:7] == ["threshold", "gain-mismatch", "paper-full", "sound chips"]
        # area 0.9 - 0.4 / 2, 0.9 on a sound chip, and as many presentations as the row says
        found = [*["70.0%"] * 4, "90.0%", "6,900", "400", "0.5", "400"]
        assert texts(table, BACKPROP) == [BACKPROP, "4", *found]
        assert table.lines[3][2].note == "[69.8, 70.2], n = 3"
        assert sum(columns for _, columns in table.groups) == len(table.columns) - 1


def test_an_arm_leads_to_its_methods_page(rows: pd.DataFrame) -> None:
    for table in [*of_sets(rows), *of_faults(rows).values()]:
        assert {line[0].text: line[0].href for line in table.lines}[BAYES] == "methods/bisnn.html"


def test_a_table_a_family_with_every_arm_and_data_set(rows: pd.DataFrame) -> None:
    tables = of_faults(rows)
    assert list(tables) == ["threshold", "gain-mismatch", "paper-full"]
    for table in tables.values():
        assert {line[0].text for line in table.lines} == set(ORDER)
        assert table.groups == [("breast_cancer", 5), ("mnist-dvs-sim", 5)]
        assert table.columns[1:6] == ["at 0", "at 0.5", "at 1", "area", "break point"]
        assert texts(table, SPIDE)[1:6] == ["90.0%", "75.0%", "60.0%", "75.0%", "0"]


def test_an_arm_that_never_leaves_the_margin_is_above_one_that_broke_late(rows: pd.DataFrame) -> None:
    found = of_faults(rows, margin=0.1501)["threshold"]
    assert [texts(found, arm)[5] for arm in (MH, SPIDE, BACKPROP)] == ["≥ 1", "0.5", "0"]
    values = {line[0].text: line[5].value for line in found.lines}
    assert values[MH] > 1 > values[SPIDE] > values[BACKPROP]


def test_an_arm_without_a_finished_cell_keeps_its_line(rows: pd.DataFrame) -> None:
    mine = lost(rows, method="mine", fault="threshold", dataset="breast_cancer")
    line = texts(of_faults(mine)["threshold"], grand.MINE)
    assert line[1:6] == ["–"] * 5
    assert "–" not in line[6:]
    first, second = of_sets(mine)
    assert texts(first, grand.MINE)[1:5] == ["–", "–", "–", "60.0%"]
    assert first.lines[-1][0].text == grand.MINE
    assert texts(second, grand.MINE)[1] == "5"
    gone = lost(rows, method="mine")
    for table in [*of_sets(gone), *of_faults(gone).values()]:
        assert set(texts(table, grand.MINE)[1:]) == {"–"}


def test_a_family_that_was_not_planned_for_an_arm_shows_a_dash(rows: pd.DataFrame) -> None:
    fewer = rows[(rows["method"] != "mine") | (rows["fault"] == "threshold")]
    assert set(texts(of_faults(fewer)["paper-full"], grand.MINE)[1:]) == {"–"}
    table = of_sets(fewer)[0]
    assert table.title == "breast_cancer: mean over threshold"
    assert texts(table, grand.MINE)[1:6] == ["5", "60.0%", "60.0%", "–", "–"]


def test_what_crosses_the_random_factors_takes_no_part(rows: pd.DataFrame) -> None:
    crossed = rows[rows["fault"] == "threshold"].assign(fault="noisy", crossed='{"chip":3}')
    more = pd.concat([rows, crossed.assign(cell=crossed["cell"] + "x")])
    assert of_sets(more) == of_sets(rows)
    assert list(of_faults(more)) == list(of_faults(rows))


def test_without_the_comparison_there_is_no_board() -> None:
    none = synthetic.rows(1).query("experiment == 'bisnn'")
    assert of_sets(none) == []
    assert of_faults(none) == {}


def test_the_map_counts_what_finished(rows: pd.DataFrame) -> None:
    part = lost(lost(rows, method="mine", severity=1.0, fault="threshold"), method="spide", fault="paper-full")
    (table,) = maps(synthetic.coverage(part[(part["method"] != "backprop") | (part["dataset"] == "mnist_dvs")]))
    assert table.columns == ["Arm", *sorted(grand.FAULTS), *sorted(grand.FAULTS)]
    assert table.groups == [("breast_cancer", 3), ("mnist_dvs", 3)]
    assert texts(table, grand.MINE)[1:4] == ["9", "9", "6 of 9"]
    assert texts(table, SPIDE)[1:4] == ["9", "0 of 9", "9"]
    assert texts(table, BACKPROP)[1:] == ["–", "–", "–", "9", "9", "9"]
    marks = {line[0].text: [entry.mark for entry in line[1:4]] for line in table.lines}
    assert (marks[grand.MINE], marks[SPIDE]) == (["whole", "whole", "part"], ["whole", "none", "whole"])
