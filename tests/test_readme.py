"""What the README shows must run, and the numbers it quotes must be those of the published run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from spikebench import config, figures, plugins, training
from spikebench.publishing import checking
from spikebench.publishing.copying import LIMIT
from spikebench.sweep import make_plan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", README, re.DOTALL))
FAULT = re.search(r"<!-- fault -->\n```yaml\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose reader has followed the README: new method, new data set, new fault, one small experiment."""
    for name in ("config", "methods", "datasets"):
        (tmp_path / name).mkdir()
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    assert FAULT is not None
    main = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    main |= {"preset": "trial", "experiments": ["trial"]}
    main["faults"] |= yaml.safe_load(FAULT[1])
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(main))
    shutil.copy(ROOT / "config" / "claims.yaml", tmp_path / "config")
    (tmp_path / "config" / "presets").mkdir()
    preset = {"name": "trial", "description": "", "repetitions": 3, "cost": 1.0}
    (tmp_path / "config" / "presets" / "trial.yaml").write_text(yaml.safe_dump(preset))
    (tmp_path / "config" / "experiments").mkdir()
    experiment = {
        "name": "trial",
        "paper": "none",
        "title": "A trial",
        "axes": {
            "dataset": ["iris"],
            "fault": list(yaml.safe_load(FAULT[1])),
            "severity": [0.0, 1.0],
            "training_size": [100],
        },
        "arms": [{"method": "random_search", "mode": "in-the-loop"}],
        "sweeps": [{"name": "trial"}],
        "figures": [],
    }
    (tmp_path / "config" / "experiments" / "trial.yaml").write_text(yaml.safe_dump(experiment))
    return tmp_path


def test_the_method_data_set_and_fault_of_the_readme_run(checkout: Path) -> None:
    assert set(FILES) == {"methods/random_search.py", "datasets/iris.py"}
    assert max(len(code.strip().splitlines()) for code in FILES.values()) <= 45
    plan = make_plan(config.load(checkout))
    (planned,) = plan.shards.values()
    assert len(planned) == 6
    cells = [p.cell for p in planned]
    rows = training.train(training.Work(cells, {}, plan.config.faults, checkout))
    assert [row["status"] for row in rows] == ["ok"] * 6
    means = pd.DataFrame(rows).groupby([cell.severity for cell in cells])["accuracy"].mean()
    assert means.min() > 0.45  # it learns (chance is 0.33), on sound chips and on worn-out ones


def test_every_number_of_the_readme_is_what_the_published_rows_say() -> None:
    assert checking.verify(ROOT) == []


def test_the_published_table_is_small() -> None:
    assert (ROOT / "docs" / "published" / "rows.parquet").stat().st_size < LIMIT == 2_000_000


def test_no_contact_sheet_is_published() -> None:
    """Sheets of CIFAR-10, and of recordings made of it, show its pictures, which are not ours to hand on."""
    folder = ROOT / "docs" / "published" / "figures"
    assert {file.suffix for file in folder.iterdir()} == {".png", ".json"}
    for picture in folder.glob("*.png"):
        assert picture.stem in figures.NAMES
        assert "cifar" not in picture.stem
        document = json.loads(picture.with_suffix(".json").read_text())
        assert document["name"] == picture.stem
        # What only the JSON of a contact sheet holds, and what its caption says of the pictures in it.
        assert not {"kind", "source"} & set(document)
        said = f"{document['title']} {document['caption']} {document['alt']}".lower()
        assert not any(words in said for words in ("training pictures of each", "one recording of each class"))
    published = {file.name for file in ROOT.joinpath("docs").rglob("*") if file.suffix in (".png", ".pdf", ".jpg")}
    assert published == {f"{file.stem}.png" for file in folder.glob("*.png")}


def test_every_plugin_is_cited_in_the_ledger_or_names_its_source() -> None:
    for kind in ("methods", "datasets"):
        for name in plugins.names(kind, ROOT):
            assert plugins.constant(kind, name, "CITATION", root=ROOT), f"{kind}/{name}.py has no CITATION"


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/published/results.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))],
)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing
