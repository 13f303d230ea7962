"""The check of README numbers must fail when one is wrong: each test breaks something and asks for the complaint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spikebench import rows as row_files
from spikebench.errors import UserError
from spikebench.publishing import checking, copying, pages, tables
from spikebench.publishing.checking import Prose
from spikebench.publishing.published import Published
from spikebench.publishing.values import Quantity, count, decimals, marked, percent, short, span

ROOT = Path(__file__).parents[1]
AXES: dict[str, Any] = {
    "dataset": "iris", "data_kind": "real", "data_source": "", "data_settings": "{}", "network": "{}", "method": "a",
    "mode": "off-chip", "variant": "", "settings": '{"k":1}', "fault": "threshold", "severity": 0.0,
    "training_size": 10, "sweeps": "one;two", "experiment": "trial", "status": "ok", "diagnostics": '{"rate":0.5}',
    "reliability": "{}", "preset": "full",
}  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which README, template and published rows may be broken."""
    for name in ("config", "datasets", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "docs" / "published").mkdir(parents=True)
    for file in (*(ROOT / "docs").glob("*.*"), *(ROOT / "docs" / "published").glob("*.*")):
        shutil.copy(file, tmp_path / file.relative_to(ROOT))
    (tmp_path / "docs" / "published" / "figures").symlink_to(ROOT / "docs" / "published" / "figures")
    return tmp_path


def little(tmp_path: Path, template: str = "", **columns: list[Any]) -> Published:
    """A published table of a few rows, and a template beside it."""
    (tmp_path / "docs").mkdir(exist_ok=True)
    (tmp_path / pages.TEMPLATE).write_text(template)
    length = len(next(iter(columns.values()), [0]))
    frame = pd.DataFrame({**{name: [value] * length for name, value in AXES.items()}, **columns})
    return Published(frame, tmp_path, [])


def complaints(text: str, names: tuple[str, ...] = (), entries: tuple[dict[str, str], ...] = ()) -> list[str]:
    return list(checking.numbers(Prose.of(text), {"names": list(names), "numbers": list(entries)}, ROOT))


def test_a_digit_changed_in_the_readme_is_found(checkout: Path) -> None:
    readme = checkout / "README.md"
    lines = readme.read_text().split("\n")
    place = next(i for i, line in enumerate(lines) if line.startswith("| B1 |"))
    was = lines[place].split("+")[1].split(" ")[0]
    lines[place] = lines[place].replace(f"+{was} ", "+9.9 ")
    readme.write_text("\n".join(lines))
    (found,) = checking.verify(checkout)
    assert found.startswith(f"README.md:{place + 1}: '9.9' is there, the rows say '{was}': ")
    assert "publish.py --render" in found


def test_a_changed_row_is_found_in_every_file_that_quotes_it(checkout: Path) -> None:
    file = checkout / "docs" / "published" / "rows.parquet"
    frame = pd.read_parquet(file)
    where = (frame["experiment"] == "bisnn") & (frame["variant"] == "full-precision") & (frame["repetition"] == 0)
    frame.loc[where, "accuracy"] -= 0.2
    frame.to_parquet(file)
    found = checking.verify(checkout)
    assert any(line.startswith("docs/published/claims.json: estimate of B1 is ") for line in found)
    assert any(line.startswith("README.md:") and "the rows say" in line for line in found)
    assert any(line.startswith("docs/published/results.md:") for line in found)


def test_a_number_typed_into_the_template_is_found_though_the_readme_agrees(checkout: Path) -> None:
    template = checkout / pages.TEMPLATE
    template.write_text(
        template.read_text().replace("### Limits, said plainly\n", "### Limits\nWe gain 27.3 points.\n")
    )
    pages.write(checkout)
    (found,) = checking.verify(checkout)
    line = 1 + (checkout / "README.md").read_text().split("\n").index("We gain 27.3 points.")
    assert found.startswith(f"README.md:{line}: '27.3' was typed by hand: ")


@pytest.mark.parametrize(
    ("prose", "number"),
    [
        ("It gains 3.05 points.", "3.05"), ("It gains +3.05.", "3.05"), ("n=20 runs", "20"), ("(1,234)", "1,234"),
        ("about .5 of it", ".5"), ("3x faster", "3"), ("T = 2", "2"), ("in `99.9` of it", "99.9"), ("½ of it", "½"),
        ("half of it", "half"), ("It Halves the error", "Halves"), ("twice as fast", "twice"), ("a third", "third"),
        ("millions of them", "millions"), ("ten times as many", "ten times"), ("five points better", "five points"),
        ("tenfold", "tenfold"), ("[99.9](docs/data.md)", "99.9"), ("![90 %](picture.png)", "90"),
        (f"1{marked(Quantity(0.5))}", "10.500"),
    ],
)  # fmt: skip
def test_numbers_in_prose_are_seen_in_any_form(prose: str, number: str) -> None:
    (found,) = complaints(prose)
    assert found.startswith(f"README.md:1: {number!r} was typed by hand")


@pytest.mark.parametrize(
    "text",
    [
        "M1 and log2 of CIFAR10, T_B", "```sh\nhead -n 20\n```", "[a page](https://host/2020/x1)", "<!-- 3.05 -->",
        "<!-- bench: begin speed -->\n```\n3.05 s\n```\n<!-- bench: end -->", "Two moons in two dimensions",
        f"It gains {marked(decimals(Quantity(3.05), 1))} points.", "see https://host/1.2/x",
    ],
)  # fmt: skip
def test_what_is_no_measured_number_in_prose_passes(text: str) -> None:
    assert complaints(text) == []


def test_results_quoted_as_code_outside_a_block_of_benchmarks_are_found() -> None:
    (found,) = complaints("Ours:\n\n```\naccuracy 99.9\n```\n")
    assert found.startswith("README.md:3: a block of code without a language")


def test_a_sign_typed_before_a_rendered_number_is_found() -> None:
    (found,) = complaints(f"a change of -{marked(decimals(Quantity(3.0), 1))} points")
    assert "its sign typed by hand" in found


def test_an_allowed_number_must_stand_in_its_source_and_be_used() -> None:
    allowed = {"text": "Python 3.11", "source": "pyproject.toml"}
    assert complaints("Needs Python\n3.11.", entries=(allowed,)) == []
    (wrong,) = complaints("\nNeeds Python 3.99.", entries=({"text": "Python 3.99", "source": "pyproject.toml"},))
    assert wrong.startswith("README.md:2: 3.99 of 'Python 3.99' is not in pyproject.toml")
    assert "is not in README.md: remove" in complaints("", entries=(allowed,))[0]
    (alone,) = complaints("3.11", entries=({"text": "3.11", "source": "pyproject.toml"},))
    assert "a number alone" in alone
    (elsewhere,) = complaints("Python 3.11 gains 3.11 points", entries=(allowed,))
    assert "'3.11' was typed by hand" in elsewhere


def test_a_number_of_a_benchmark_is_looked_up_in_its_block() -> None:
    block = "<!-- bench: begin speed (x) -->\n```\nengine 7.7 us\n```\n<!-- bench: end -->\n<!-- bench: begin b -->"
    quoted = {"text": "takes 7.7 us", "source": "bench speed"}
    assert complaints(f"It takes 7.7 us.\n{block}", entries=(quoted,)) == []
    (found,) = complaints(f"It takes 7.8 us.\n{block}", entries=({**quoted, "text": "takes 7.8 us"},))
    assert "7.8 of 'takes 7.8 us' is not in bench speed" in found


def test_an_expression_that_repeats_a_typed_number_counts_as_typed(tmp_path: Path) -> None:
    published = little(tmp_path, "{{ 3.05 }} {{ '3.06' }} {{ 3 + 0.07 }}")
    assert [line.split("'")[1] for line in complaints(pages.render(tmp_path, published))] == ["3.05", "3.06", "3.07"]
    with pytest.raises(UserError, match=r"README.md.in:1: 3.05 is no measured number"):
        pages.render(tmp_path, little(tmp_path, "{{ 3.05 | decimals(1) }}"))


def test_a_sentence_that_the_rows_do_not_bear_out_is_refused(tmp_path: Path) -> None:
    published = little(
        tmp_path, '\n{{ holds("is ahead", mean("accuracy").low > 0.5) }}', accuracy=[0.8, 0.9], repetition=[0, 1]
    )
    with pytest.raises(UserError, match=r"README.md.in:2: the rows no longer say 'is ahead'; rewrite it"):
        pages.render(tmp_path, published)
    (tmp_path / pages.TEMPLATE).write_text('{{ holds("halves", mean("accuracy").mean > 0.8) }}')
    assert complaints(pages.render(tmp_path, published)) == []
    (tmp_path / pages.TEMPLATE).write_text('{{ holds("gains 3 points", true) }}')
    with pytest.raises(UserError, match="a number needs an expression of its own"):
        pages.render(tmp_path, published)


def test_an_error_names_the_line_of_the_template(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"docs/README.md.in:2: claim M9 was not tested"):
        pages.render(tmp_path, little(tmp_path, 'a\n{{ claim("M9").estimate }}'))
    with pytest.raises(UserError, match=r"docs/README.md.in:3: "):
        pages.render(tmp_path, little(tmp_path, "\n\n{{ undefined_name }}"))


def test_means_and_gains_of_selected_rows(tmp_path: Path) -> None:
    published = little(
        tmp_path,
        accuracy=[0.5, 0.7, 0.9, 0.4, 0.5, 0.8, 0.0],
        repetition=[0, 1, 2, 2, 1, 0, 3],
        settings=['{"k":1}'] * 3 + ['{"k":2}'] * 4,
        status=["ok"] * 6 + ["failed"],
    )
    found = published.mean("accuracy", experiment="trial", sweep="two", settings={"k": 1})
    assert (found.n, found.mean) == (3, pytest.approx(0.7))
    assert found.high - found.mean == pytest.approx(4.302653 * 0.2 / 3**0.5)  # t of two degrees of freedom
    gain = published.gain("accuracy", {"settings": {"k": 2}}, settings={"k": 1})
    assert gain.mean == pytest.approx((-0.3 + 0.2 + 0.5) / 3)  # paired by repetition, not by place
    assert published.mean("diagnostics.rate", settings={"k": 2}).n == 3  # the failed row is not there
    assert published.mean("accuracy", settings={"k": 1, "other": None}).n == 3
    with pytest.raises(UserError, match="differ in settings"):
        published.mean("accuracy")
    with pytest.raises(UserError, match="no finished row has accuracy at sweep three"):
        published.mean("accuracy", sweep="three")


def test_overconfidence_is_confidence_less_accuracy(tmp_path: Path) -> None:
    bins = json.dumps({"count": [0, 3, 1], "confidence": [None, 0.6, 0.9], "accuracy": [None, 0.5, 1.0]})
    assert little(tmp_path, reliability=[bins], repetition=[0]).mean("overconfidence").mean == pytest.approx(0.05)


def test_a_point_of_a_figure_must_be_the_only_one(tmp_path: Path) -> None:
    points = [{"arm": "a", "mean": 0.25, "words": "3 of 4"}, {"arm": "b", "mean": 0.5}]
    (tmp_path / "some-figure.json").write_text(json.dumps({"numbers": {"points": points}}))
    published = little(tmp_path)
    assert percent(published.figure("some-figure", "points", arm="a")["mean"]) == "25"
    assert complaints(marked(published.figure("some-figure", "points", arm="a")["words"])) == []
    with pytest.raises(UserError, match="2 points of points"):
        published.figure("some-figure", "points")


def test_numbers_are_printed_as_people_write_them() -> None:
    q = Quantity
    assert decimals(q(1234.56), 1) == "1,234.6"
    assert decimals(q(0.034), 1, 100, True) == "+3.4"
    assert percent(q(0.689)) == "69"
    assert count(q(7_960_796)) == "8.0 million"
    assert span({"low": q(-0.5), "high": q("inf")}, 1) == "[-0.5, no bound]"
    assert [short(q(x)) for x in (0.020228, 11.345, 1234.5, 0.0)] == ["0.0202", "11.3", "1,230", "0"]
    assert isinstance(-abs(q(1) - 2) * 3 / q(4) + 1, Quantity)


def test_a_frame_becomes_a_table() -> None:
    frame = pd.DataFrame({"arm": ["a|b", "c"], "area": [tables.with_interval(pd.Series([0.5, 0.7])), "1.0"]})
    assert tables.markdown(frame) == "| arm | area |\n| --- | --- |\n| a\\|b | 60.0 ± 127.1 |\n| c | 1.0 |"


@pytest.mark.parametrize("experiment", copying.BULKY)
def test_rows_are_copied_without_what_no_figure_uses(
    tmp_path: Path, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_schema = {field.name: _example(field.type) for field in row_files.SCHEMA}
    both = [
        {**of_schema, "experiment": name, "diagnostics": '{"rate":1}', "accuracy": 0.123456789}
        for name in (experiment, "spide")
    ]
    pq.write_table(pa.Table.from_pylist(both, schema=row_files.SCHEMA), tmp_path / "rows.parquet")
    copying.copy_rows(tmp_path / "rows.parquet", tmp_path / "small.parquet")
    found = pd.read_parquet(tmp_path / "small.parquet").set_index("experiment")
    assert found["diagnostics"].to_dict() == {experiment: "{}", "spide": '{"rate":1}'}
    assert found["accuracy"].to_list() == [pytest.approx(0.123456789, rel=1e-5)] * 2
    assert "cell" not in found
    monkeypatch.setattr(copying, "LIMIT", 100)
    with pytest.raises(UserError, match="leave columns out"):
        copying.copy_rows(tmp_path / "rows.parquet", tmp_path / "large.parquet")
    assert not (tmp_path / "large.parquet").exists()


def test_only_figures_are_copied_and_old_ones_go(tmp_path: Path) -> None:
    (source := tmp_path / "source").mkdir()
    (target := tmp_path / "target").mkdir()
    for name in ("bisnn-scores", "cifar10-15eb73d8a11c"):
        for ending in ("png", "json", "pdf"):
            (source / f"{name}.{ending}").touch()
    (target / "no-longer-drawn.png").touch()
    copying.copy_figures(source, target)
    assert {file.name for file in target.iterdir()} == {"bisnn-scores.png", "bisnn-scores.json"}


def _example(kind: pa.DataType) -> Any:
    return {"string": "", "double": 0.5, "int64": 1, "bool": False}[str(kind)]
