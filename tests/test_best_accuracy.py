"""The best test accuracy over the epochs: reported where it is asked for, and nothing else changes by it.

The toy counts its rounds, and answers so many of ten test examples rightly as a table says of that number; its devices
add to it what they draw anew at each use.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from spikebench import plugins, rows, training
from spikebench.data import Batch, DataInfo
from spikebench.evaluation import accuracy
from spikebench.fitting import fit
from spikebench.method import Task
from spikebench.networks import Network
from spikebench.seeds import Streams
from spikebench.sweep import Cell, Planned
from spikebench.training import Work

METHOD = """
from dataclasses import dataclass
from typing import NamedTuple

import torch

from spikebench.method import Info, Prediction

MODES = ("off-chip", "in-the-loop")
VARIANTS = {"one": "shared", "two": "shared"}
BATCHED = True
SECONDS_PER_CELL = 0.01
SEEN = []  # task.rounds by function
SAID = []  # rounds done, and how many of the test examples are answered rightly, by cell


@dataclass(frozen=True)
class Settings:
    epochs: int = 3
    batch_size: int = 5
    report_best: bool = False
    right: tuple = (2, 8, 5)  # after 5, 10 and 15 rounds
    rates: tuple = (0.0, 1.0)

    @property
    def SEARCH(self):
        return {"rate": tuple(self.rates)}

    def updates(self, steps):
        return 1


class State(NamedTuple):
    count: torch.Tensor  # [B, 1], overwritten by every step
    rate: torch.Tensor  # [B, 1]
    round: torch.Tensor  # []


def init(task, batch, chip, streams):
    SEEN.append(("init", task.rounds))
    rate = task.choice["rate"][:, None]
    return State(torch.zeros_like(rate), rate.clone(), torch.tensor(0))


def step(task, state, batch, chip, streams):
    SEEN.append(("step", task.rounds))
    state.count.add_(1.0)
    state.round.add_(1)
    return state, Info({"count": state.count[:, 0].clone()})


def predict(task, state, inputs, index, chip):
    SEEN.append(("predict", task.rounds))
    table = {5 * (n + 1): right for n, right in enumerate(task.settings.right)}
    drawn = [key % 2 if task.variant == "two" else 0 for key in chip.keys("toy")]
    right = [table.get(int(c), 0) + more for (c,), more in zip(state.count.tolist(), drawn, strict=True)]
    labels = torch.arange(inputs.shape[1]) % 2
    answers = torch.stack([torch.where(torch.arange(len(labels)) < r, labels, 1 - labels) for r in right])
    if inputs.shape[1] == 10:
        SAID.append((state.count[:, 0].tolist(), right))
    else:  # validation: the variants choose different rates
        better = (state.rate[:, 0] > 0.5) == (task.variant == "one")
        answers = torch.where(better[:, None], labels, 1 - labels)
    return Prediction(torch.nn.functional.one_hot(answers, 2).float()[:, None])
"""
DATA = """
from dataclasses import dataclass

import torch

from spikebench.data import DataSettings, Provenance, SpikeData, Split

KINDS = ("synthetic",)


@dataclass(frozen=True)
class Settings(DataSettings):
    turned: bool = False


def load(settings):
    n = settings.training_size
    x = torch.rand((n + 10, 4, 3), generator=torch.Generator().manual_seed(settings.split_seed))
    x[..., -1] = 1.0
    targets = torch.arange(n + 10) % 2
    targets[n:] = (torch.arange(10) + settings.turned) % 2
    cut = n - n // 5
    return SpikeData(
        "classification", Split(x[:cut], targets[:cut]), Split(x[cut:n], targets[cut:n]), Split(x[n:], targets[n:]),
        ("a", "b"), False, Provenance("toy", "synthetic", "a test", "0" * 64, "MIT", "none"), str(settings.split_seed),
    )
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for kind, text in (("methods", METHOD), ("datasets", DATA)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "toy.py").write_text(text)
    return tmp_path


@pytest.fixture
def method(root: Path) -> ModuleType:
    return plugins.load("methods", "toy", root)


def cell(variant: str = "one", **axes: Any) -> Cell:
    common = {"experiment": "toy", "dataset": "toy", "data_kind": "synthetic", "data_settings": "{}", "method": "toy"}
    common |= {"network": '{"hidden":[4]}', "settings": "{}", "fault": "some", "preset": "test", "training_size": 25}
    return Cell(**{**common, "mode": "in-the-loop", "variant": variant, "severity": 0.0, "repetition": 0, **axes})


def train(root: Path, cells: list[Cell], **settings: Any) -> list[dict[str, Any]]:
    return training.train(Work(cells, {"report_best": True, **settings}, {cells[0].fault: {"threshold": 0.5}}, root))


def test_it_is_the_best_of_all_epochs_of_the_last_training(root: Path, method: ModuleType) -> None:
    """Not of the search, whose rounds are others."""
    (row,) = train(root, [cell()])
    assert (row["best_accuracy"], row["accuracy"]) == (0.8, 0.5)
    assert [counts for counts, _ in method.SAID] == [[15.0], [5.0], [10.0], [15.0]], "the state of each epoch"


@pytest.mark.parametrize("right", [(9, 1, 3), (1, 9, 3), (1, 3, 9), (4, 4, 4), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
def test_it_is_at_least_the_last_epochs(root: Path, mode: str, right: tuple[int, ...]) -> None:
    (row,) = train(root, [cell(mode=mode)], right=right)
    assert (row["best_accuracy"], row["accuracy"]) == (max(right) / 10, right[-1] / 10)


def test_each_epoch_is_tested_on_devices_that_were_not_used_as_the_last_one_is(root: Path, method: ModuleType) -> None:
    """So what is drawn anew at each use is the same in every epoch, and the last one's accuracy is the row's."""
    cells = [cell("two", repetition=r) for r in range(6)]
    made = train(root, cells)
    deployed, *epochs = [right for _, right in method.SAID]
    assert deployed == epochs[-1] and len(epochs) == 3
    draws = [last - 5 for last in deployed]
    assert epochs == [[first + d for d in draws] for first in (2, 8, 5)] and set(draws) == {0, 1}
    assert [row["best_accuracy"] for row in made] == [(8 + d) / 10 for d in draws]
    assert [row["accuracy"] for row in made] == [(5 + d) / 10 for d in draws]


@pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
def test_a_cell_has_its_own_best_alone_in_company_and_beside_another_variant(root: Path, mode: str) -> None:
    """The two variants choose different rates, and so are two trainings of each unit."""
    cells = [cell(v, mode=mode, severity=s, repetition=r) for v in ("one", "two") for s in (0.0, 1.0) for r in range(3)]
    together = train(root, cells)
    assert {row["choice"] for row in together[:6]} == {'{"rate": 1.0}'}
    assert {row["choice"] for row in together[6:]} == {'{"rate": 0.0}'}
    assert [train(root, [one])[0]["best_accuracy"] for one in cells] == [row["best_accuracy"] for row in together]
    assert len({row["best_accuracy"] for row in together}) == 2


@pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
def test_nothing_else_changes_by_asking_for_it(root: Path, mode: str) -> None:
    cells = [cell(mode=mode, severity=s) for s in (0.0, 1.0)]
    asked, plain = train(root, cells), train(root, cells, report_best=False)
    for one, other in zip(asked, plain, strict=True):
        assert one.keys() - other.keys() == {"best_accuracy"}
        assert all(json.dumps(one[c]) == json.dumps(other[c]) for c in rows.RESULT if c in other)


def test_without_it_the_row_has_no_number(root: Path, tmp_path: Path) -> None:
    one = cell()
    (outcome,) = train(root, [one], report_best=False)
    assert "best_accuracy" in rows.METRICS and "best_accuracy" not in outcome
    planned = Planned(one, **{f: "" for f in Planned.__dataclass_fields__ if f != "cell"})
    row = rows.complete(planned, outcome, {"host": "", "versions": "", "commit": ""})
    rows.write([row], tmp_path / "rows.parquet")
    assert math.isnan(rows.read(tmp_path / "rows.parquet")[0]["best_accuracy"])


def test_test_targets_change_the_number_and_no_training(root: Path, method: ModuleType) -> None:
    right = train(root, [cell()])[0]
    said = list(method.SAID)
    turned = train(root, [cell(data_settings='{"turned":true}')])[0]
    assert method.SAID[len(said) :] == said
    assert (turned["best_accuracy"], turned["accuracy"]) == (1 - 0.2, 0.5), "the worst of before is the best"
    assert (right["traces"], right["choice"]) == (turned["traces"], turned["choice"])


def test_a_method_is_told_how_many_rounds_there_are_while_it_trains(root: Path, method: ModuleType) -> None:
    """Four an epoch in the search, of 20 examples, and five in the training; none when it predicts."""
    train(root, [cell()])
    seen = list(dict.fromkeys(method.SEEN))
    assert seen == [("init", 12), ("step", 12), ("predict", 0), ("init", 15), ("step", 15)]


@pytest.mark.parametrize(
    ("epochs", "size", "expected"), [(3, 5, [4, 8, 12]), (1, 20, [1]), (2, 7, [2, 4]), (2, 50, [1, 2])]
)
def test_after_each_pass_over_the_examples(method: ModuleType, epochs: int, size: int, expected: list[int]) -> None:
    info, settings = DataInfo("classification", 3, 2, 4, False), method.Settings(epochs=epochs, batch_size=size)
    task = Task(Network(3, (4,), 2), info, settings, "off-chip", {"rate": torch.ones(1)})
    batch = Batch(torch.ones(1, 20, 4, 3), torch.zeros(1, 20, dtype=torch.int64), torch.tensor([0]))
    chip = type("Chip", (), {"count_activity": True})()
    fitted = fit(method, task, batch, chip, Streams((1,)), lambda _: None, keep_epochs=True)
    assert [int(state.round) for state in fitted.epochs] == expected and int(fitted.state.round) == expected[-1]


def test_the_accuracy_is_the_rows(root: Path) -> None:
    """Of the samples' mean, a tie to the commonest class of the learner's examples."""
    settings = json.dumps({"kind": "synthetic", "source": ""}, sort_keys=True)
    data = training._load(root, "toy", settings, 0, 25)
    labels = data.test.targets
    one_hot = torch.nn.functional.one_hot(labels, 2).float()
    halves = torch.stack([one_hot, 1 - one_hot])
    assert accuracy(one_hot[None], data) == 1.0 and accuracy(1 - one_hot[None], data) == 0.0
    commonest = int(data.labelled.targets.bincount().argmax())
    assert commonest == 0 and accuracy(halves, data) == float((labels == commonest).float().mean())
