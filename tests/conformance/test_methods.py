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
from typing import Any, NamedTuple

import pytest
import torch
from project import CHECKOUT, Project

from spikebench import config, fitting, plugins, rows, training, worker
from spikebench.checkpoints import Checkpoints
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch
from spikebench.errors import Unavailable
from spikebench.method import Prediction, Task
from spikebench.seeds import Streams
from spikebench.sweep import Cell
from spikebench.training import Work

METHODS = plugins.names("methods", CHECKOUT)
SMOKE = config.load(CHECKOUT, {"preset": "smoke"})
DEFAULT = config.load(CHECKOUT, {"preset": "default"})


class Arm(NamedTuple):
    """A method in a mode; where it has variants, in one of them."""

    method: str
    mode: str
    variant: str

    @property
    def module(self) -> ModuleType:
        return plugins.load("methods", self.method, CHECKOUT)

    @property
    def training(self) -> str:
        return plugins.training_of(self.method, self.variant, CHECKOUT)


def constant(method: str, name: str, default: Any = None) -> Any:
    return plugins.constant("methods", method, name, default, CHECKOUT)


def variants(method: str) -> list[str]:
    """One of each training: most promises are those of the training."""
    found: dict[str, str] = {}
    for variant, trained in constant(method, "VARIANTS", {}).items():
        found.setdefault(trained, variant)
    return list(found.values()) or [""]


def name_of(arm: Arm) -> str:
    return "-".join(part for part in arm if part)


ARMS = [Arm(name, mode, variant) for name in METHODS for variant in variants(name) for mode in constant(name, "MODES")]
#: An arm of each method, for what does not depend on mode and variant.
FIRST = {arm.method: arm for arm in reversed(ARMS)}
#: All that a row holds of a cell's training: these must be equal, bit for bit.
MADE = [c for c in rows.RESULT if c not in (*rows.AXES, "digest")]


def cell(arm: Arm, **axes: Any) -> Cell:
    common = {"experiment": "chip_in_the_loop", "dataset": "breast_cancer", "data_kind": "real", "data_settings": "{}"}
    common |= {"network": '{"hidden":[8]}', "settings": "{}", "fault": "paper-full", "preset": "smoke"}
    point = {"severity": 1.0, "training_size": 20, "repetition": 0}
    return Cell(**{**common, **point, **arm._asdict(), **axes})


def work(cells: list[Cell], root: Path = CHECKOUT, preset: config.Config = SMOKE) -> Work:
    return Work(cells, preset.method_settings(cells[0].method, {}), preset.faults, root)


def train(cells: list[Cell], root: Path = CHECKOUT, preset: config.Config = SMOKE) -> list[dict[str, str]]:
    """What each cell's training made, as texts in which equal bits are equal."""
    return [{c: json.dumps(row.get(c)) for c in MADE} for row in training.train(work(cells, root, preset))]


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    return [column for column in a if a[column] != b[column]]


def shard(arm: Arm, **axes: Any) -> list[Cell]:
    return [cell(arm, severity=s, repetition=r, **axes) for s in (0.0, 1.0) for r in (0, 1)]


each = pytest.mark.parametrize("arm", ARMS, ids=name_of)


class TestBits:
    @each
    def test_the_same_cells_give_the_same_bits(self, arm: Arm) -> None:
        cells = shard(arm)
        first, second = train(cells), train(cells)
        assert [row["status"] for row in first] == ['"ok"'] * len(cells)
        assert first == second

    @each
    def test_a_cell_does_not_depend_on_its_company(self, arm: Arm) -> None:
        """Alone, in the whole shard, or in another order: so a shard that timed out may be run again cell by cell."""
        cells = shard(arm)
        together = train(cells)
        backwards = train(cells[::-1])[::-1]
        for number, one in enumerate(cells):
            assert differences(together[number], backwards[number]) == [], one
            assert differences(together[number], train([one])[0]) == [], one

    @pytest.mark.parametrize("fault", ["read-noise", "dropped-spikes", "programming-noise"])
    @each
    def test_nor_where_faults_are_drawn_anew_at_each_use(self, arm: Arm, fault: str) -> None:
        cells = [cell(arm, fault=fault, severity=s) for s in (0.0, 1.0)]
        together = train(cells)
        for number, one in enumerate(cells):
            assert differences(together[number], train([one])[0]) == [], one

    @each
    def test_repetitions_severities_and_faults_are_not_copies(self, arm: Arm) -> None:
        """The tests above would pass if everything came out the same."""
        points = [{}, {"repetition": 1}, {"severity": 0.0}, {"fault": "threshold"}, {"training_size": 40}]
        made = [train([cell(arm, **point)])[0] for point in points]
        for number, other in enumerate(made[1:], start=1):
            assert differences(made[0], other), points[number]

    @pytest.mark.parametrize("arm", FIRST.values(), ids=name_of)
    def test_severity_0_is_the_same_chip_whatever_the_fault(self, arm: Arm) -> None:
        made = [train([cell(arm, severity=0.0, fault=f)])[0] for f in ("threshold", "paper-full")]
        banded = {"ece_null_low", "ece_null_high", "estimates"}
        assert set(differences(*made)) <= banded, "only the null bands have seeds of their own"
        found = [json.loads(json.loads(row["estimates"])) for row in made]
        plain = [{n: {k: v for k, v in s.items() if k not in banded} for n, s in f.items()} for f in found]
        assert plain[0] == plain[1]


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
    @each
    def test_test_labels_change_no_prediction(
        self,
        arm: Arm,
        with_test_labels: Callable[[str], Project],
        predictions: Callable[[str, Path], list[Prediction]],
    ) -> None:
        roots = [with_test_labels(change).root for change in ("labels", "1 - labels")]
        made = [predictions(arm.method, root) for root in roots]
        ours, permuted = (train([cell(arm, severity=s) for s in (0.0, 1.0)], root) for root in roots)
        assert len(made[0]) == len(made[1]) >= 1
        for a, b in zip(*made, strict=True):
            assert a.probabilities is not None
            assert b.probabilities is not None
            assert torch.equal(a.probabilities, b.probabilities)
        measured = {"accuracy", "nll", "brier"} | ({"log_likelihood"} if hasattr(arm.module, "score") else set())
        for a_row, b_row in zip(ours, permuted, strict=True):
            assert measured <= set(differences(a_row, b_row)), "the metrics do see the test labels"
            assert set(differences(a_row, b_row)) <= measured | {
                *(c for c in rows.METRICS if c.startswith("ece")), "reliability", "estimates",
            }  # fmt: skip

    @each
    def test_the_accuracy_is_that_of_the_test_split(self, arm: Arm, with_test_labels: Callable[[str], Project]) -> None:
        """The canary: with every test label turned round, right becomes wrong, and only on the test split."""
        one = cell(arm, severity=0.0, training_size=200)
        roots = [with_test_labels(change).root for change in ("labels", "1 - labels")]
        right, wrong = (training.train(work([one], root, DEFAULT))[0] for root in roots)
        assert right["accuracy"] + wrong["accuracy"] == pytest.approx(1.0, abs=1e-12)
        assert right["accuracy"] > 0.8, "it does learn, from labels that were not turned"
        assert right["test_size"] == wrong["test_size"] == 171

    @each
    def test_no_test_example_is_trained_on(self, arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every example that reaches ``init`` or ``step`` is one of the learner's, in search and in training."""
        module, seen = arm.module, set[bytes]()

        def watch(name: str) -> None:
            original = getattr(module, name)

            def watched(*arguments: Any) -> Any:
                batch = next(a for a in arguments if isinstance(a, Batch))
                seen.update(example.tobytes() for example in batch.inputs[:, :, 0].flatten(0, 1).numpy())
                return original(*arguments)

            monkeypatch.setattr(module, name, watched)

        watch("init")
        watch("step")
        one = cell(arm, training_size=40)
        train([one])
        once = getattr(module.Settings(**SMOKE.method_settings(arm.method, {})), "tune_once", False)
        data = training._load(CHECKOUT, one.dataset, one.data_settings, 0, 40)
        others = training._load(CHECKOUT, one.dataset, one.data_settings, training.TUNING, 40)
        learner, test, tuning = (
            {x.tobytes() for x in part.inputs[:, 0].numpy()} for part in (data.labelled, data.test, others.train)
        )
        assert len(learner) == 40
        assert not learner & test
        shown = learner | tuning if once else learner
        assert seen <= shown
        assert len(seen) >= 0.8 * len(shown), "all but those that do not fill a minibatch of a short training"


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
        for name in ("MODES", "BATCHED", "SECONDS_PER_CELL", "CITATION"):
            assert constant(method, name) == getattr(module, name)
        assert constant(method, "VARIANTS", {}) == getattr(module, "VARIANTS", {})
        assert set(getattr(module, "TASKS", ("classification",))) <= {"classification", "regression", "sequence"}
        assert 0 < module.SECONDS_PER_CELL < 3600
        assert set(module.MODES) <= {"off-chip", "in-the-loop", "oracle"}
        assert module.MODES

    @pytest.mark.parametrize("method", METHODS)
    def test_the_search_space_is_no_setting_and_the_budget_is_published(self, method: str) -> None:
        settings = plugins.load("methods", method, CHECKOUT).Settings()
        assert not set(settings.SEARCH) & {field.name for field in dataclasses.fields(settings)}
        assert all(len(values) > 1 and len(set(values)) == len(values) for values in settings.SEARCH.values())
        assert settings.batch_size is None or settings.batch_size > 0
        if hasattr(settings, "epochs"):
            assert not hasattr(settings, "rounds"), "one of both"
            budget = [settings.epochs, settings.updates(100), settings.updates(1)]
        else:
            budget = [settings.rounds, settings.gradient_steps]
        assert all(isinstance(number, int) and number >= 0 for number in budget)
        assert budget[0] > 0

    @pytest.mark.parametrize("method", METHODS)
    def test_the_paper_is_cited(self, method: str) -> None:
        citation = plugins.load("methods", method, CHECKOUT).CITATION
        assert len(citation) > 20
        assert any(char.isdigit() for char in citation), "a year or a number to find it by"


class Course:
    """One method on two small chips with all it needs to be trained round by round."""

    def __init__(self, arm: Arm) -> None:
        self.module = arm.module
        settings = self.module.Settings(**SMOKE.method_settings(arm.method, {}))
        data = [training._load(CHECKOUT, "breast_cancer", "{}", r, 20) for r in (0, 1)]
        info = training.describe(data[0])
        network = training.network(self.module, info, {"hidden": [8]}, arm.training)
        choice = {name: torch.full((2,), values[0]) for name, values in settings.SEARCH.items()}
        self.task = Task(network, info, settings, arm.mode, choice, arm.training)
        self.rounds = fitting.rounds(settings, 20)
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
    @each
    def test_a_training_that_was_killed_goes_on_with_the_same_bits(
        self, arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once in the search and once in the training; only the round that was cut off is made again."""
        steps, step = [0], arm.module.step

        def counted(*arguments: Any) -> Any:
            steps[0] += 1
            return step(*arguments)

        monkeypatch.setattr(arm.module, "step", counted)
        asked = work([cell(arm, repetition=r) for r in (0, 1)])
        whole, made = training.train(asked), steps[0]
        for moment in (0.3, 0.8, 2.0):

            def kill(share: float, moment: float = moment) -> None:
                if share >= moment:
                    raise KeyboardInterrupt

            saving = dataclasses.replace(asked, checkpoints=Checkpoints(tmp_path / "saved", seconds=0))
            try:
                resumed = training.train(saving, kill)
            except KeyboardInterrupt:
                assert moment < 1
        assert steps[0] == 2 * made + 2
        for before, after in zip(whole, resumed, strict=True):
            assert {c: json.dumps(before.get(c)) for c in MADE} == {c: json.dumps(after.get(c)) for c in MADE}

    @pytest.mark.parametrize("arm", FIRST.values(), ids=name_of)
    def test_every_tensor_has_the_cells_first(self, arm: Arm) -> None:
        """The harness copies an off-chip training to the chips it is programmed into: [B, ...], or [] for all."""
        state = Course(arm).begin()
        assert all(tensor.dim() == 0 or tensor.shape[0] == 2 for tensor in state)

    @each
    def test_predictions_are_probabilities_and_repeatable(self, arm: Arm) -> None:
        course = Course(arm)
        state = course.go_on(course.begin(), course.rounds)

        task = dataclasses.replace(course.task, variant=arm.variant)

        def predict() -> Prediction:
            chip = course.chip.repeat(1)
            made: Prediction = course.module.predict(task, state, course.batch.inputs, course.batch.index, chip)
            return made

        first, second = predict(), predict()
        assert first.probabilities is not None
        assert second.probabilities is not None
        cells, _, examples, classes = first.probabilities.shape
        assert (cells, examples, classes) == (2, 20, 2)
        assert torch.equal(first.probabilities, second.probabilities)
        assert first.probabilities.min() >= 0
        torch.testing.assert_close(first.probabilities.sum(dim=-1), torch.ones(first.probabilities.shape[:-1]))
        assert all(len(values) == 2 for values in first.diagnostics.values())


class TestRows:
    @each
    def test_every_metric_is_a_number(self, arm: Arm) -> None:
        before = time.time()
        row = training.train(work([cell(arm)]))[0]
        assert before <= row["started"] <= time.time()
        others = {"rmse", "bit_error", "best_accuracy"} | (
            set() if hasattr(arm.module, "score") else {"log_likelihood"}
        )
        wanted = [m for m in rows.METRICS if m not in others]
        assert all(isinstance(row[m], float) and row[m] == row[m] for m in wanted), row
        assert 0 <= row["accuracy"] <= 1
        assert len(row["data_sha256"]) == len(row["split_sha256"]) == 64
        for column in rows.DETAILS:
            json.loads(row[column])
        assert row["chip_presentations"] == 0 or arm.mode != "off-chip", "off-chip training never touches the chip"
        assert row["chip_presentations"] > 0 or arm.mode == "off-chip"
        assert set(json.loads(row["choice"])) == set(arm.module.Settings().SEARCH)

    @pytest.mark.parametrize("arm", FIRST.values(), ids=name_of)
    def test_a_mode_that_is_not_offered_is_an_unavailable_row(self, arm: Arm) -> None:
        module = arm.module
        cells = [cell(arm._replace(mode="telepathy"), repetition=r) for r in (0, 1)]
        with pytest.raises(Unavailable, match=f"{arm.method} does not train telepathy; its modes: {module.MODES[0]}"):
            training.train(work(cells))
        request = {"cells": [dataclasses.asdict(c) for c in cells], "settings": {}, "data": {}, "faults": {}}
        request["root"] = str(CHECKOUT)
        before = time.time()
        answer = worker._answer(request, None)
        assert [row["status"] for row in answer["rows"]] == ["unavailable"] * 2
        assert all(before <= row["started"] <= time.time() for row in answer["rows"])

    @each
    def test_more_examples_than_there_are_is_an_unavailable_row(self, arm: Arm) -> None:
        with pytest.raises(Unavailable, match="398 training examples, 500 were asked for"):
            training.train(work([cell(arm, training_size=500)]))

    @each
    def test_weights_that_are_not_finite_are_a_diverged_row_of_that_cell_alone(
        self, arm: Arm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = arm.module
        cells = [cell(arm, repetition=r) for r in (0, 1)]
        expected = train(cells)
        original = module.step
        guilty = training._training_seed(cells[1], arm.training, 1)

        def step(task: Task, state: Any, batch: Batch, chip: Any, streams: Streams) -> Any:
            state, info = original(task, state, batch, chip, streams)
            name = next(n for n, t in state._asdict().items() if t.is_floating_point() and t.dim() > 1)
            broken = getattr(state, name).clone()
            broken[[seed == guilty for seed in streams.seeds]] = torch.nan
            return state._replace(**{name: broken}), info

        monkeypatch.setattr(module, "step", step)
        made = train(cells)
        assert [row["status"] for row in made] == ['"ok"', '"diverged"']
        assert differences(made[0], expected[0]) == []
        assert made[1]["accuracy"] == "null"
        assert "not finite" in made[1]["error"]


#: Where several variants are readings of one training, in the method's first mode.
READINGS = {
    (name, trained): [Arm(name, constant(name, "MODES")[0], v) for v, t in found.items() if t == trained]
    for name in METHODS
    for found in [constant(name, "VARIANTS", {})]
    for trained in set(found.values())
    if list(found.values()).count(trained) > 1
}


@pytest.mark.parametrize("arms", READINGS.values(), ids=["-".join(key) for key in READINGS])
def test_a_variant_does_not_depend_on_the_others_of_its_training(arms: list[Arm]) -> None:
    cells = [cell(arm, repetition=r) for arm in arms for r in (0, 1)]
    together = train(cells)
    for number, one in enumerate(cells):
        assert differences(together[number], train([one])[0]) == [], one
    assert differences(together[0], together[2]), "they are read in different ways"


#: One arm of each training of values.
OF_VALUES = [arm for arm in ARMS if "regression" in constant(arm.method, "TASKS", ())]


class TestValues:
    """Regression, of methods that learn it."""

    AXES: Mapping[str, Any] = {
        "dataset": "regression_1d", "data_kind": "synthetic", "data_settings": '{"steps":20}', "training_size": 20
    }  # fmt: skip

    @pytest.mark.parametrize("arm", OF_VALUES, ids=name_of)
    def test_a_cell_does_not_depend_on_its_company(self, arm: Arm) -> None:
        cells = shard(arm, **self.AXES)
        together = train(cells)
        assert [row["status"] for row in together] == ['"ok"'] * len(cells)
        assert differences(together[3], train([cells[3]])[0]) == []

    @pytest.mark.parametrize("arm", OF_VALUES, ids=name_of)
    def test_the_error_is_a_number_and_the_map_that_of_the_probe(self, arm: Arm) -> None:
        row = training.train(work([cell(arm, **self.AXES)]))[0]
        wanted = {"rmse", "test_size", "memory_bits", "spikes", "energy_pj", "chip_presentations", "gradient_steps"}
        assert all(row[m] == row[m] and row[m] >= 0 for m in wanted)
        assert "accuracy" not in row
        mapped = json.loads(row["outputs"])
        assert mapped["axes"] == [[-1.0, pytest.approx(4.95), 120]]
        assert len(mapped["mean"]) == len(mapped["sd"]) == len(mapped["targets"]) == 120
        assert len(mapped["seen"]) == 20
        assert min(mapped["sd"]) >= 0


@pytest.mark.parametrize("arm", [arm for arm in FIRST.values() if arm not in OF_VALUES], ids=name_of)
def test_values_are_an_unavailable_row_of_methods_that_do_not_learn_them(arm: Arm) -> None:
    with pytest.raises(Unavailable, match=f"{arm.method} does not train on a task of regression, which regression_1d"):
        training.train(work([cell(arm, **TestValues.AXES)]))
