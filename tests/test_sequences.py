"""Sequences, the likelihood of targets and data that is memorised: a method whose scores are written in its settings.

The toy's state is the chosen rate, whatever it is shown. An example's score is its mean target less the rate's distance
from the best one, to which each run adds a number of its own.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from spikebench import evaluation, plugins, training
from spikebench.errors import Unavailable
from spikebench.sweep import Cell
from spikebench.training import Work

METHOD = """
from dataclasses import dataclass
from typing import NamedTuple

import torch

from spikebench.method import Info, Prediction

MODES = ("off-chip", "in-the-loop")
TASKS = ("classification", "regression", "sequence")
BATCHED = True
SECONDS_PER_CELL = 0.01
SHOWN = []  # to score: inputs, targets, index, stage of the devices, spikes metered before
TRAINED = []  # examples of a round


@dataclass(frozen=True)
class Settings:
    epochs: int = 1
    batch_size: int | None = None
    rates: tuple = (1.0,)
    runs: tuple = (0.0,)
    best: float = 0.0
    broken: float = 0.0  # the rate whose score is no number

    @property
    def SEARCH(self):
        return {"rate": tuple(self.rates)}

    def updates(self, steps):
        return steps


class State(NamedTuple):
    rate: torch.Tensor  # [B]


def init(task, batch, chip, streams):
    return State(task.choice["rate"].clone())


def step(task, state, batch, chip, streams):
    TRAINED.append(batch.size)
    return state, Info({})


def predict(task, state, inputs, index, chip):
    shape = (len(index), len(task.settings.runs), inputs.shape[1])
    if task.info.task == "classification":
        return Prediction(torch.full((*shape, task.info.outputs), 1 / task.info.outputs))
    if task.info.task == "regression":
        return Prediction(outputs=torch.zeros(*shape, 1))
    # The first run fires at every step, the others never.
    spikes = torch.zeros(*shape, task.info.steps, task.info.outputs)
    spikes[:, 0] = 1
    return Prediction(outputs=spikes)


def estimates(task, state, inputs, index, chip):
    if task.info.task != "sequence":
        return {}
    return {"mean": predict(task, state, inputs, index, chip).outputs.mean(dim=1, keepdim=True)}


def score(task, state, inputs, targets, index, chip):
    SHOWN.append((inputs, targets, index, chip.stage, float(chip.meter.presentations.sum())))
    chip.meter.presentations += inputs.shape[1]
    of_example = targets.reshape(*targets.shape[:2], -1).double().mean(dim=2)[index]  # [B, N]
    near = -(state.rate.double() - task.settings.best).abs()[:, None] + of_example
    near = torch.where(state.rate[:, None] == task.settings.broken, torch.nan, near)
    return near[:, None] + torch.tensor(task.settings.runs, dtype=torch.float64)[:, None]
"""
DATA = """
from dataclasses import dataclass

import torch

from spikebench.data import DataSettings, Provenance, SpikeData, Split

KINDS = ("synthetic",)
STEPS, OUTPUTS = 5, 4


@dataclass(frozen=True)
class Settings(DataSettings):
    task: str = "sequence"
    test: int = 10
    memorised: bool = False

    @property
    def fewest(self):
        return 1 if self.memorised else super().fewest


def load(settings):
    n, generator = settings.training_size, torch.Generator().manual_seed(1)
    x = (torch.rand((n + settings.test, STEPS, 4), generator=generator) < 0.5).float()
    x[..., -1] = 1.0
    # Of example i every output fires at i of five steps, in turns.
    number = torch.arange(n + settings.test)
    spikes = (torch.arange(STEPS) < (number % STEPS)[:, None]).float()[..., None].repeat(1, 1, OUTPUTS)
    targets = {"sequence": spikes, "classification": number % 2, "regression": number[:, None].float()}[settings.task]
    whole, cut = Split(x, targets), n - n // 5
    at = lambda first, last: whole[torch.arange(first, last)]
    parts = [at(0, n)] * 3 if settings.memorised else [at(0, cut), at(cut, n), at(n, n + settings.test)]
    return SpikeData(
        settings.task, *parts, ("a", "b") if settings.task == "classification" else (), True,
        Provenance("toy", "synthetic", "a test", "0" * 64, "MIT", "none"), str(settings.split_seed),
        memorised=settings.memorised,
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


def cell(**axes: Any) -> Cell:
    common = {"experiment": "toy", "dataset": "toy", "data_kind": "synthetic", "data_settings": "{}", "method": "toy"}
    common |= {"network": '{"hidden":[4]}', "settings": "{}", "fault": "some", "preset": "test", "training_size": 10}
    return Cell(**{**common, "mode": "in-the-loop", "variant": "", "severity": 0.0, "repetition": 0, **axes})


def train(root: Path, cells: list[Cell], settings: dict[str, Any] | None = None, **data: Any) -> list[dict[str, Any]]:
    return training.train(Work(cells, settings or {}, {cells[0].fault: {}}, root, data))


class TestSequences:
    def test_the_error_is_the_share_of_bits_over_all_runs(self, root: Path) -> None:
        """Test examples 10 to 19 fire in 0 to 4 of 5 steps, 40 % of the bits: silence errs in these, firing in 60 %."""
        row = train(root, [cell()], {"runs": (0.0, 0.0, 0.0)})[0]
        assert row["status"] == "ok"
        assert row["bit_error"] == pytest.approx((0.6 + 0.4 + 0.4) / 3)
        assert row["test_size"] == 10
        # Runs that are averaged say 1/3 everywhere, which errs by as much.
        assert json.loads(row["estimates"])["mean"] == {"bit_error": pytest.approx(0.4 * 2 / 3 + 0.6 / 3)}
        assert not {"accuracy", "nll", "rmse", "reliability"} & set(row)

    def test_as_many_outputs_as_the_targets_have(self, root: Path) -> None:
        data = plugins.load("datasets", "toy", root)
        info = training.describe(data.load(data.Settings(training_size=10)))
        assert info == ("sequence", 4, 4, 5, True, ())

    def test_a_method_that_does_not_learn_them_is_unavailable(self, root: Path) -> None:
        (root / "methods" / "classes.py").write_text(METHOD.replace(', "regression", "sequence"', ","))
        with pytest.raises(Unavailable, match="classes does not train on a task of sequence, which toy is"):
            train(root, [cell(method="classes")])


class TestLikelihood:
    @pytest.mark.parametrize("task", ["sequence", "classification"])
    def test_the_mean_likelihood_of_the_runs_and_of_fewer(self, task: str, root: Path) -> None:
        """At rate 1 an example's score is its mean target less 1; the runs add 0, 1, 2, 3 and 4."""
        row = train(root, [cell()], {"runs": (0.0, 1.0, 2.0, 3.0, 4.0)}, task=task)[0]
        example = (0.4 if task == "sequence" else 0.5) - 1.0

        def mean(*runs: float) -> float:
            return math.log(sum(math.exp(r) for r in runs) / len(runs))

        expected = {
            "likelihood-1": example + 2.0,
            "likelihood-2": example + (mean(0, 1) + mean(2, 3)) / 2,  # the fifth run has no partner
            "likelihood-5": example + mean(0, 1, 2, 3, 4),
        }
        found = {name: v for name, v in json.loads(row["estimates"]).items() if name.startswith("likelihood")}
        assert found == {name: {"log_likelihood": pytest.approx(value)} for name, value in expected.items()}
        assert row["log_likelihood"] == pytest.approx(expected["likelihood-5"])

    def test_scores_far_below_what_a_float_can_hold(self) -> None:
        scores = torch.tensor([[-20_000.0, -3.0], [-20_001.0, -4.0]], dtype=torch.float64)
        expected = (-20_003.0) / 2 + math.log((1 + math.exp(-1)) / 2)
        assert float(evaluation.log_likelihood(scores, 2)) == pytest.approx(expected)

    def test_more_runs_are_no_worse_on_average(self) -> None:
        scores = 5 * torch.randn((100, 40), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = [entry["log_likelihood"] for entry in evaluation.likelihoods(scores).values()]
        assert len(found) == len(evaluation.RUNS) == 7
        assert found == sorted(found)
        assert found[0] == pytest.approx(float(scores.mean()))

    def test_a_hundred_examples_spread_over_the_test_part_on_devices_of_their_own(
        self, root: Path, method: ModuleType
    ) -> None:
        cells = [cell(severity=s, repetition=r) for s in (0.0, 1.0) for r in (0, 1)]
        made = train(root, cells, test=250)
        inputs, targets, index, stage, metered = method.SHOWN[0]
        assert len(method.SHOWN) == 1
        assert (inputs.shape, targets.shape) == ((2, 100, 5, 4), (2, 100, 5, 4))
        assert index.tolist() == [0, 1, 0, 1]
        data = plugins.load("datasets", "toy", root)
        test = data.load(data.Settings(training_size=10, test=250)).test
        chosen = np.arange(100) * 250 // 100
        assert torch.equal(inputs[0], test.inputs[chosen])
        assert torch.equal(targets[0], test.targets[chosen])
        assert (stage, metered) == ("score", 0.0)
        assert {row["chip_presentations"] for row in made} == {0.0}, "it does not pay for what is no training"

    @pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
    def test_what_is_not_finite_is_a_diverged_row_of_that_cell_alone(self, mode: str, root: Path) -> None:
        cells = [cell(mode=mode, repetition=r) for r in (0, 1)]
        original = training.score

        def broken(*arguments: Any) -> torch.Tensor:
            scores = original(*arguments)
            scores[1, 0, 3] = -torch.inf
            return scores

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "score", broken)
            made = train(root, cells)
        assert [row["status"] for row in made] == ["ok", "diverged"]
        assert made[1]["error"] == "the likelihood is not finite"
        assert "log_likelihood" not in made[1] and "bit_error" not in made[1]

    def test_values_are_not_scored(self, root: Path, method: ModuleType) -> None:
        row = train(root, [cell()], task="regression")[0]
        assert not method.SHOWN
        assert "log_likelihood" not in row
        assert row["estimates"] == "{}"

    def test_a_method_without_score_has_none(self, root: Path, method: ModuleType) -> None:
        del method.score
        row = train(root, [cell()])[0]
        assert "log_likelihood" not in row
        assert row["bit_error"] == pytest.approx(0.6)


class TestSearch:
    @pytest.mark.parametrize("best", [1.0, 2.0, 4.0])
    def test_the_highest_likelihood_of_the_validation_examples_wins(
        self, best: float, root: Path, method: ModuleType
    ) -> None:
        row = train(root, [cell()], {"rates": (1.0, 2.0, 4.0), "best": best, "runs": (0.0, 1.0)})[0]
        assert json.loads(row["choice"]) == {"rate": best}
        searched, tested = method.SHOWN
        assert searched[1].shape[1] == 2, "a fifth of ten examples"
        assert tested[1].shape[1] == 10
        assert row["chip_presentations"] == 3 * 2, "validation is paid for"

    def test_what_is_not_finite_is_never_chosen(self, root: Path) -> None:
        row = train(root, [cell()], {"rates": (1.0, 2.0), "best": 1.0, "broken": 1.0})[0]
        assert json.loads(row["choice"]) == {"rate": 2.0}
        assert row["status"] == "ok"

    def test_without_score_there_is_nothing_to_choose_by(self, root: Path, method: ModuleType) -> None:
        del method.score
        with pytest.raises(TypeError, match="the method has no score, by which the hyper-parameters of a sequence"):
            train(root, [cell()], {"rates": (1.0, 2.0)})

    @pytest.mark.parametrize("scored", [True, False])
    def test_classes_are_chosen_by_the_score_where_there_is_one(
        self, scored: bool, root: Path, method: ModuleType
    ) -> None:
        """All rates say the same of classes, so that without it the first one stays."""
        if not scored:
            del method.score
        row = train(root, [cell()], {"rates": (1.0, 2.0), "best": 2.0}, task="classification")[0]
        assert json.loads(row["choice"]) == {"rate": 2.0 if scored else 1.0}


class TestMemorised:
    def test_all_is_trained_on_searched_with_and_tested_on(self, root: Path, method: ModuleType) -> None:
        row = train(root, [cell(training_size=3)], {"rates": (1.0, 2.0)}, memorised=True)[0]
        assert [shown[1].shape[1] for shown in method.SHOWN] == [3, 3]
        assert row["test_size"] == 3
        assert row["gradient_steps"] == (2 + 1) * 5, "two candidates and the last training, a round of five steps each"
        assert row["bit_error"] == pytest.approx(1 - (0 + 1 + 2) / 15)

    def test_every_round_shows_each_example_once(self, root: Path, method: ModuleType) -> None:
        train(root, [cell(training_size=3)], memorised=True)
        assert method.TRAINED == [3]

    def test_one_example_is_enough(self, root: Path) -> None:
        assert train(root, [cell(training_size=1)], memorised=True)[0]["status"] == "ok"


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("task", ["classification", "regression", "sequence"])
def test_what_is_divided_into_parts_needs_four_examples(task: str, size: int, root: Path) -> None:
    with pytest.raises(Unavailable, match=f"toy needs at least 4 training examples, {size} were asked for"):
        train(root, [cell(training_size=size)], task=task)
