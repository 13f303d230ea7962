"""What every method promises, asked of every file in ``methods/``: bits, isolation, secrecy of test labels, state.

The settings are those of the preset ``smoke``; of ``default`` where a method must have learnt something.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from project import CHECKOUT, Project
from safetensors.torch import load_file, save_file

from spikebench import config, plugins, rows, training, worker
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch
from spikebench.errors import Unavailable
from spikebench.method import Prediction, Task
from spikebench.networks import Network
from spikebench.seeds import Streams
from spikebench.sweep import Cell
from spikebench.training import Work

METHODS = plugins.names("methods", CHECKOUT)
SMOKE = config.load(CHECKOUT, {"preset": "smoke"})
DEFAULT = config.load(CHECKOUT, {"preset": "default"})
ARMS = [(name, mode) for name in METHODS for mode in plugins.constant("methods", name, "MODES", root=CHECKOUT)]
#: All that a row holds of a cell's training: these must be equal, bit for bit.
MADE = [c for c in rows.RESULT if c not in (*rows.AXES, "digest")]


def cell(method: str, mode: str, **axes: Any) -> Cell:
    common = {"experiment": "chip_in_the_loop", "dataset": "breast_cancer", "data_kind": "real", "data_settings": "{}"}
    common |= {"network": '{"hidden":[8]}', "variant": "", "settings": "{}", "fault": "paper-full", "preset": "smoke"}
    point = {"severity": 1.0, "training_size": 20, "repetition": 0}
    return Cell(**{**common, **point, "method": method, "mode": mode, **axes})


def work(cells: list[Cell], root: Path = CHECKOUT, preset: config.Config = SMOKE) -> Work:
    return Work(cells, preset.method_settings(cells[0].method, {}), preset.faults[cells[0].fault], root)


def train(cells: list[Cell], root: Path = CHECKOUT, preset: config.Config = SMOKE) -> list[dict[str, str]]:
    """What each cell's training made, as texts in which equal bits are equal."""
    return [{c: json.dumps(row.get(c)) for c in MADE} for row in training.train(work(cells, root, preset))]


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    return [column for column in a if a[column] != b[column]]


def shard(method: str, mode: str, **axes: Any) -> list[Cell]:
    return [cell(method, mode, severity=s, repetition=r, **axes) for s in (0.0, 1.0) for r in (0, 1)]


class TestBits:
    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_the_same_cells_give_the_same_bits(self, method: str, mode: str) -> None:
        cells = shard(method, mode)
        first, second = train(cells), train(cells)
        assert [row["status"] for row in first] == ['"ok"'] * len(cells)
        assert first == second

    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_a_cell_does_not_depend_on_its_company(self, method: str, mode: str) -> None:
        """Alone, in the whole shard, or in another order: so a shard that timed out may be run again cell by cell."""
        cells = shard(method, mode)
        together = train(cells)
        backwards = train(cells[::-1])[::-1]
        for number, one in enumerate(cells):
            assert differences(together[number], backwards[number]) == [], one
            assert differences(together[number], train([one])[0]) == [], one

    @pytest.mark.parametrize("fault", ["read-noise", "dropped-spikes", "programming-noise"])
    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_nor_where_faults_are_drawn_anew_at_each_use(self, method: str, mode: str, fault: str) -> None:
        cells = [cell(method, mode, fault=fault, severity=s) for s in (0.0, 1.0)]
        together = train(cells)
        for number, one in enumerate(cells):
            assert differences(together[number], train([one])[0]) == [], one

    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_repetitions_severities_and_faults_are_not_copies(self, method: str, mode: str) -> None:
        """The tests above would pass if everything came out the same."""
        points = [{}, {"repetition": 1}, {"severity": 0.0}, {"fault": "threshold"}, {"training_size": 40}]
        made = [train([cell(method, mode, **point)])[0] for point in points]
        for number, other in enumerate(made[1:], start=1):
            assert differences(made[0], other), points[number]

    @pytest.mark.parametrize("method", METHODS)
    def test_severity_0_is_the_same_chip_whatever_the_fault(self, method: str) -> None:
        mode = plugins.constant("methods", method, "MODES", root=CHECKOUT)[0]
        made = [train([cell(method, mode, severity=0.0, fault=f)])[0] for f in ("threshold", "paper-full")]
        assert set(differences(*made)) <= {"ece_null_low", "ece_null_high"}, "only the null band has a seed of its own"


# A data set that is like breast_cancer but for its test labels; it has the same name, so seeds are the same.
WRAPPER = """
from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from spikebench import plugins

_original = plugins.load("datasets", "_original", Path(__file__).parents[1])
CITATION, LICENCE, KINDS, Settings = _original.CITATION, _original.LICENCE, ("real",), _original.Settings


def load(settings):
    data = _original.load(settings)
    labels = data.test.targets
    changed = {change}
    return dataclasses.replace(data, test=data.test._replace(targets=changed))
"""


@pytest.fixture
def with_test_labels(tmp_path: Path) -> Callable[[str], Project]:
    """A project whose breast cancer data has other test labels, an expression of ``labels``."""

    def make(change: str) -> Project:
        project = Project.create(tmp_path / f"project-{len(list(tmp_path.iterdir()))}")
        path = project.root / "datasets/breast_cancer.py"
        path.rename(path.with_name("_original.py"))
        path.write_text(WRAPPER.format(change=change))
        return project

    return make


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], list[Prediction]]:
    """Make a project's method remember what it predicts."""

    def spy(method: str, root: Path) -> list[Prediction]:
        module = plugins.load("methods", method, root)
        made: list[Prediction] = []

        def predict(*arguments: Any) -> Prediction:
            made.append(original(*arguments))
            return made[-1]

        original = module.predict
        monkeypatch.setattr(module, "predict", predict)
        return made

    return spy


class TestSecrecy:
    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_test_labels_change_no_prediction(
        self,
        method: str,
        mode: str,
        with_test_labels: Callable[[str], Project],
        predictions: Callable[[str, Path], list[Prediction]],
    ) -> None:
        roots = [with_test_labels(change).root for change in ("labels", "1 - labels")]
        made = [predictions(method, root) for root in roots]
        ours, permuted = (train([cell(method, mode, severity=s) for s in (0.0, 1.0)], root) for root in roots)
        assert len(made[0]) == len(made[1]) >= 1
        for a, b in zip(*made, strict=True):
            assert a.probabilities is not None
            assert b.probabilities is not None
            assert torch.equal(a.probabilities, b.probabilities)
        measured = {"accuracy", "nll", "brier"}
        for a_row, b_row in zip(ours, permuted, strict=True):
            assert measured <= set(differences(a_row, b_row)), "the metrics do see the test labels"
            assert set(differences(a_row, b_row)) <= measured | {
                *(c for c in rows.METRICS if c.startswith("ece")), "reliability", "estimates",
            }  # fmt: skip

    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_the_accuracy_is_that_of_the_test_split(
        self, method: str, mode: str, with_test_labels: Callable[[str], Project]
    ) -> None:
        """The canary: with every test label turned round, right becomes wrong, and only on the test split."""
        one = cell(method, mode, severity=0.0, training_size=80)
        roots = [with_test_labels(change).root for change in ("labels", "1 - labels")]
        right, wrong = (training.train(work([one], root, DEFAULT))[0] for root in roots)
        assert right["accuracy"] + wrong["accuracy"] == pytest.approx(1.0, abs=1e-12)
        assert right["accuracy"] > 0.8, "it does learn, from labels that were not turned"
        assert right["test_size"] == wrong["test_size"] == 171

    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_no_test_example_is_trained_on(self, method: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every example that reaches ``init`` or ``step`` is one of the learner's, in search and in training."""
        module = plugins.load("methods", method, CHECKOUT)
        seen: set[bytes] = set()

        def watch(name: str) -> None:
            original = getattr(module, name)

            def watched(*arguments: Any) -> Any:
                batch = next(a for a in arguments if isinstance(a, Batch))
                seen.update(example.tobytes() for example in batch.inputs[:, :, 0].flatten(0, 1).numpy())
                return original(*arguments)

            monkeypatch.setattr(module, name, watched)

        watch("init")
        watch("step")
        one = cell(method, mode, training_size=40)
        train([one])
        data = training._load(CHECKOUT, one.dataset, one.data_settings, 0, 40)
        learner, test = ({x.tobytes() for x in part.inputs[:, 0].numpy()} for part in (data.labelled, data.test))
        assert len(learner) == 40
        assert seen == learner
        assert not learner & test


class TestSettings:
    @pytest.mark.parametrize("method", METHODS)
    def test_they_survive_a_round_trip_through_json(self, method: str) -> None:
        module = plugins.load("methods", method, CHECKOUT)
        for settings in (module.Settings(), module.Settings(**DEFAULT.method_settings(method, {}))):
            again = module.Settings(**json.loads(json.dumps(dataclasses.asdict(settings))))
            assert again == settings
            assert hash(again) == hash(settings)

    @pytest.mark.parametrize("method", METHODS)
    def test_they_are_frozen_and_closed(self, method: str) -> None:
        module = plugins.load("methods", method, CHECKOUT)
        settings = module.Settings()
        name = dataclasses.fields(settings)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, name, getattr(settings, name))
        with pytest.raises(TypeError, match="unheard_of"):
            module.Settings(unheard_of=1)

    @pytest.mark.parametrize("method", METHODS)
    def test_what_the_plan_reads_is_what_the_module_says(self, method: str) -> None:
        """The plan reads names and constants from the syntax tree, since it must not import torch."""
        module = plugins.load("methods", method, CHECKOUT)
        fields = [field.name for field in dataclasses.fields(module.Settings)]
        assert plugins.settings_names("methods", method, CHECKOUT) == fields
        for constant in ("MODES", "BATCHED", "SECONDS_PER_CELL", "CITATION"):
            assert plugins.constant("methods", method, constant, root=CHECKOUT) == getattr(module, constant)
        assert 0 < module.SECONDS_PER_CELL < 3600
        assert set(module.MODES) <= {"off-chip", "in-the-loop", "oracle"}
        assert module.MODES

    @pytest.mark.parametrize("method", METHODS)
    def test_the_search_space_is_no_setting_and_the_budget_is_published(self, method: str) -> None:
        settings = plugins.load("methods", method, CHECKOUT).Settings()
        assert not set(settings.SEARCH) & {field.name for field in dataclasses.fields(settings)}
        assert all(len(values) > 1 and len(set(values)) == len(values) for values in settings.SEARCH.values())
        assert isinstance(settings.rounds, int)
        assert settings.rounds > 0
        assert isinstance(settings.gradient_steps, int)
        assert settings.gradient_steps >= 0
        assert settings.batch_size is None or settings.batch_size > 0

    @pytest.mark.parametrize("method", METHODS)
    def test_the_paper_is_cited(self, method: str) -> None:
        citation = plugins.load("methods", method, CHECKOUT).CITATION
        assert len(citation) > 20
        assert any(char.isdigit() for char in citation), "a year or a number to find it by"


class Course:
    """One method on two small chips with all it needs to be trained round by round."""

    def __init__(self, method: str, mode: str) -> None:
        self.module: ModuleType = plugins.load("methods", method, CHECKOUT)
        settings = self.module.Settings(**SMOKE.method_settings(method, {}))
        data = [training._load(CHECKOUT, "breast_cancer", "{}", r, 20) for r in (0, 1)]
        info = training.describe(data[0])
        network = Network(info.inputs, (8,), info.outputs)
        choice = {name: torch.full((2,), values[0]) for name, values in settings.SEARCH.items()}
        self.task = Task(network, info, settings, mode, choice)
        self.batch = Batch.stack([d.labelled for d in data], [0, 1])
        self.chip = SimulatedChip(network, [FaultSpec(severity=1.0, **DEFAULT.faults["paper-full"])] * 2, [1, 2])
        self.streams = Streams((11, 12))

    def begin(self) -> Any:
        return self.module.init(self.task, self.batch, self.chip, self.streams)

    def go_on(self, state: Any, rounds: int) -> Any:
        for _ in range(rounds):
            state, _ = self.module.step(self.task, state, self.batch, self.chip, self.streams)
        return state


class TestState:
    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_a_training_that_was_saved_in_the_middle_ends_with_the_same_bits(
        self, method: str, mode: str, tmp_path: Path
    ) -> None:
        course = Course(method, mode)
        rounds = course.task.settings.rounds
        whole = course.go_on(course.begin(), rounds)
        half = course.go_on(course.begin(), rounds // 2)
        assert all(isinstance(tensor, torch.Tensor) for tensor in half)
        save_file(
            {name: tensor.contiguous() for name, tensor in half._asdict().items()}, tmp_path / "state.safetensors"
        )
        course = Course(method, mode)  # as in a new process
        again = type(half)(**load_file(tmp_path / "state.safetensors"))
        resumed = course.go_on(again, rounds - rounds // 2)
        for name, tensor in whole._asdict().items():
            assert torch.equal(tensor, getattr(resumed, name)), name
            assert tensor.dtype == getattr(resumed, name).dtype
        assert any(not torch.equal(a, b) for a, b in zip(whole, course.begin(), strict=True)), "it was trained at all"

    @pytest.mark.parametrize("method", METHODS)
    def test_every_tensor_has_the_cells_first(self, method: str) -> None:
        """The harness copies an off-chip training to the chips it is programmed into: [B, ...], or [] for all."""
        state = Course(method, plugins.constant("methods", method, "MODES", root=CHECKOUT)[0]).begin()
        assert all(tensor.dim() == 0 or tensor.shape[0] == 2 for tensor in state)

    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_predictions_are_probabilities_and_repeatable(self, method: str, mode: str) -> None:
        course = Course(method, mode)
        state = course.go_on(course.begin(), course.task.settings.rounds)

        def predict() -> Prediction:
            chip = course.chip.repeat(1)
            made: Prediction = course.module.predict(course.task, state, course.batch.inputs, course.batch.index, chip)
            return made

        first, second = predict(), predict()
        assert first.probabilities is not None
        assert second.probabilities is not None
        cells, _, examples, classes = first.probabilities.shape
        assert (cells, examples, classes) == (2, 20, 2)
        assert torch.equal(first.probabilities, second.probabilities)
        assert first.probabilities.min() >= 0
        torch.testing.assert_close(first.probabilities.sum(dim=-1), torch.ones(first.probabilities.shape[:-1]))
        assert all(values.shape == (2,) for values in first.diagnostics.values())


class TestRows:
    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_every_metric_is_a_number(self, method: str, mode: str) -> None:
        before = time.time()
        row = training.train(work([cell(method, mode)]))[0]
        assert before <= row["started"] <= time.time()
        assert all(isinstance(row[m], float) and row[m] == row[m] for m in rows.METRICS), row
        assert 0 <= row["accuracy"] <= 1
        assert len(row["data_sha256"]) == len(row["split_sha256"]) == 64
        for column in rows.DETAILS:
            json.loads(row[column])
        assert row["chip_presentations"] == 0 or mode != "off-chip", "off-chip training never touches the chip"
        assert row["chip_presentations"] > 0 or mode == "off-chip"
        assert set(json.loads(row["choice"])) == set(plugins.load("methods", method, CHECKOUT).Settings().SEARCH)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_mode_that_is_not_offered_is_an_unavailable_row(self, method: str) -> None:
        module = plugins.load("methods", method, CHECKOUT)
        cells = [cell(method, "telepathy", repetition=r) for r in (0, 1)]
        with pytest.raises(Unavailable, match=f"{method} does not train telepathy; its modes: {module.MODES[0]}"):
            training.train(work(cells))
        request = {"cells": [dataclasses.asdict(c) for c in cells], "settings": {}, "data": {}, "fault": {}}
        request["root"] = str(CHECKOUT)
        before = time.time()
        answer = worker._answer(request, None)
        assert [row["status"] for row in answer["rows"]] == ["unavailable"] * 2
        assert all(before <= row["started"] <= time.time() for row in answer["rows"])

    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_more_examples_than_there_are_is_an_unavailable_row(self, method: str, mode: str) -> None:
        with pytest.raises(Unavailable, match="398 training examples, 500 were asked for"):
            training.train(work([cell(method, mode, training_size=500)]))

    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_weights_that_are_not_finite_are_a_diverged_row_of_that_cell_alone(
        self, method: str, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = plugins.load("methods", method, CHECKOUT)
        cells = [cell(method, mode, repetition=r) for r in (0, 1)]
        expected = train(cells)
        original = module.step

        def step(*arguments: Any) -> Any:
            state, info = original(*arguments)
            broken = next(t for t in state if t.is_floating_point() and t.dim() > 1).clone()
            broken[-1] = torch.nan
            name = next(n for n, t in state._asdict().items() if t.is_floating_point() and t.dim() > 1)
            return state._replace(**{name: broken}), info

        monkeypatch.setattr(module, "step", step)
        made = train(cells)
        assert [row["status"] for row in made] == ['"ok"', '"diverged"']
        assert differences(made[0], expected[0]) == []
        assert made[1]["accuracy"] == "null"
        assert "not finite" in made[1]["error"]
