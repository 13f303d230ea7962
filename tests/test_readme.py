"""What the README shows must run, and the numbers it quotes must be those of the published run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from spikebench import config, plugins, training
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
    rows = training.train(training.Work(cells, {}, plan.config.faults[cells[0].fault], checkout))
    assert [row["status"] for row in rows] == ["ok"] * 6
    means = pd.DataFrame(rows).groupby([cell.severity for cell in cells])["accuracy"].mean()
    assert means.min() > 0.45  # it learns (chance is 0.33), on sound chips and on worn-out ones


def test_published_numbers_are_those_of_the_published_run() -> None:
    sys.path.insert(0, str(ROOT / "docs" / "published"))
    import publish

    rows = pd.read_parquet(ROOT / "docs" / "published" / "rows.parquet")
    claims = json.loads((ROOT / "docs" / "published" / "claims.json").read_text())
    assert publish.results(rows, claims) in README
    assert (ROOT / "docs" / "published" / "rows.parquet").stat().st_size < 2_000_000


def test_every_plugin_is_cited_in_the_ledger_or_names_its_source() -> None:
    for kind in ("methods", "datasets"):
        for name in plugins.names(kind, ROOT):
            assert plugins.constant(kind, name, "CITATION", root=ROOT), f"{kind}/{name}.py has no CITATION"


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing
