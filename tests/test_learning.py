"""Variants of one training, passes over the examples, one search for all, values and maps: a method of one number.

The toy moves its number towards the mean of the targets. ``once`` answers with it and ``twice`` with its double, so
that the two choose different rates of the same training; ``other`` is a training of its own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from project import Project

from spikebench import plugins, rows, training
from spikebench.errors import Unavailable
from spikebench.fitting import gradient_steps, rounds
from spikebench.gather import collect
from spikebench.method import Prediction
from spikebench.supervisor import run_job
from spikebench.sweep import Cell
from spikebench.training import Work

METHOD = """
from dataclasses import dataclass
from typing import NamedTuple

import torch

from spikebench.method import Info, Prediction
from spikebench.networks import Network

MODES = ("off-chip", "in-the-loop")
TASKS = ("classification", "regression")
VARIANTS = {"once": "shared", "twice": "shared", "other": "other"}
BATCHED = True
SECONDS_PER_CELL = 0.01
CALLS = []  # function, variant, mode, cells


@dataclass(frozen=True)
class Settings:
    epochs: int = 2
    batch_size: int | None = 5
    rates: tuple = (0.1, 1.0)
    tune_once: bool = False
    broken: float = 0.0  # what is answered above this severity is no number

    @property
    def SEARCH(self):
        return {"rate": tuple(self.rates)}

    def updates(self, steps):
        return steps - 1


class State(NamedTuple):
    value: torch.Tensor  # [B, 1]
    start: torch.Tensor  # [B, P]


def called(name, task, cells):
    CALLS.append((name, task.variant, task.mode, cells))


def network(info, layers, training):
    return Network(info.inputs, tuple(layers["hidden"]), {"shared": 2, "other": 3}[training])


def init(task, batch, chip, streams):
    called("init", task, len(batch.index))
    start = streams.normal((task.network.parameters,), "start")
    return State(torch.zeros(len(start), 1), 2 * start + 0.4)


def step(task, state, batch, chip, streams):
    called("step", task, len(batch.index))
    counts = chip.evaluate(state.start[:, None], batch.inputs, batch.index)
    mean = batch.targets[batch.index].double().flatten(1).mean(dim=1, keepdim=True).float()
    value = state.value + task.choice["rate"][:, None] * (mean - state.value)
    return State(value, state.start), Info({"value": value[:, 0], "counts": counts.sum(dim=(1, 2, 3))})


def predict(task, state, inputs, index, chip):
    called("predict", task, len(index))
    counts = chip.evaluate(state.start[:, None], inputs, index)
    if task.variant == "twice":
        counts = chip.evaluate(state.start[:, None], inputs, index)
    value = state.value * (2 if task.variant == "twice" else 1)
    wild = chip.knowledge.layers[0].threshold.max(dim=1).values > 1.0 + task.settings.broken
    value = torch.where(wild[:, None] & (task.settings.broken > 0), torch.nan, value)
    if task.info.task == "classification":
        p = value.clamp(0, 1)[:, None, None].expand(-1, 1, inputs.shape[1], 1)
        return Prediction(torch.cat([1 - p, p], dim=-1))
    # Two samples, half a spike of the first output to either side of the value.
    offset = 0.5 * torch.cat([-counts[..., :1], counts[..., :1]], dim=1)
    return Prediction(outputs=value[:, None, None] + offset)


def estimates(task, state, inputs, index, chip):
    if task.info.task == "classification":
        return {}
    return {"constant": torch.full((len(index), 1, inputs.shape[1], 1), 0.25)}
"""
DATA = """
from dataclasses import dataclass

import torch

from spikebench.data import DataSettings, Probe, Provenance, SpikeData, Split

KINDS = ("synthetic",)


@dataclass(frozen=True)
class Settings(DataSettings):
    task: str = "regression"


def load(settings):
    generator = torch.Generator().manual_seed(settings.split_seed)
    # Every value that is learnt is 1/2; test values, and classes, are 0 and 1 in turns.
    n, test = settings.training_size, 10
    values = torch.full((n + test,), 0.5) if settings.task == "regression" else (torch.arange(n + test) % 2)
    values[n:] = torch.arange(test) % 2
    x = (torch.rand((n + test, 6, 4), generator=generator) < 0.5).float()
    x[..., -1] = 1.0
    regression = settings.task == "regression"
    targets = values[:, None].float() if regression else values.long()
    cut = n - n // 5
    probe = Probe(x[:6], ((0.0, 1.0, 2), (0.0, 2.0, 3)), torch.tensor([[0.12345, 1.5]]), torch.arange(6) / 4)
    return SpikeData(
        "regression" if regression else "classification", Split(x[:cut], targets[:cut]),
        Split(x[cut:n], targets[cut:n]), Split(x[n:], targets[n:]), () if regression else ("a", "b"), True,
        Provenance("toy", "synthetic", "a test", "0" * 64, "MIT", "none"), str(settings.split_seed), probe=probe,
    )
"""
MADE = [column for column in rows.RESULT if column not in (*rows.AXES, "digest")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for kind, text in (("methods", METHOD), ("datasets", DATA)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "toy.py").write_text(text)
    return tmp_path


@pytest.fixture
def method(root: Path) -> ModuleType:
    return plugins.load("methods", "toy", root)


def cell(variant: str, **axes: Any) -> Cell:
    common = {"experiment": "toy", "dataset": "toy", "data_kind": "synthetic", "data_settings": "{}", "method": "toy"}
    common |= {"network": '{"hidden":[4]}', "settings": "{}", "fault": "some", "preset": "test", "training_size": 25}
    return Cell(**{**common, "mode": "in-the-loop", "variant": variant, "severity": 0.0, "repetition": 0, **axes})


def train(
    root: Path, cells: list[Cell], fault: dict[str, float] | None = None, **settings: Any
) -> list[dict[str, Any]]:
    return training.train(Work(cells, settings, {"some": {"threshold": 0.5} if fault is None else fault}, root))


def texts(made: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Equal where all bits of a row's results are."""
    return [{c: json.dumps(row.get(c)) for c in MADE} for row in made]


def said(method: ModuleType, name: str) -> list[tuple[str, str, int]]:
    """Variant, mode and cells of all calls of a function."""
    return [call[1:] for call in method.CALLS if call[0] == name]


class TestVariants:
    @pytest.mark.parametrize("tune_once", [False, True])
    @pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
    @pytest.mark.parametrize("fault", [{"threshold": 0.5}, {"read_noise": 1.0}, {"drop": 0.3}], ids=str)
    def test_a_cell_is_the_same_alone_in_company_and_beside_other_variants(
        self, fault: dict[str, float], mode: str, tune_once: bool, root: Path
    ) -> None:
        cells = [
            cell(v, mode=mode, severity=s, repetition=r) for v in ("once", "twice") for s in (0.0, 1.0) for r in (0, 1)
        ]
        together = texts(train(root, cells, fault, tune_once=tune_once))
        assert [row["status"] for row in together] == ['"ok"'] * 8
        assert texts(train(root, cells[::-1], fault, tune_once=tune_once))[::-1] == together
        assert texts(train(root, cells[4:], fault, tune_once=tune_once)) == together[4:]
        uneven = [cells[0], cells[3], cells[6]]
        assert texts(train(root, uneven, fault, tune_once=tune_once)) == [together[0], together[3], together[6]]
        for number, one in enumerate(cells):
            assert texts(train(root, [one], fault, tune_once=tune_once)) == [together[number]]
        assert len({json.dumps(row) for row in together}) > 4, "faults matter beside variants and repetitions"

    def test_each_chooses_for_itself_and_equal_choices_are_one_training(self, root: Path, method: ModuleType) -> None:
        """Of 25 examples 20 are searched with, in 2 x 4 rounds, in which the rate 1/8 comes to 0.33 of 0.5."""
        cells = [cell(v, repetition=r) for v in ("once", "twice") for r in (0, 1)]
        made = train(root, cells, fault={}, rates=(0.125, 1.0))
        assert [row["choice"] for row in made] == ['{"rate": 1.0}'] * 2 + ['{"rate": 0.125}'] * 2
        made = train(root, cells, fault={}, rates=(1 / 128, 1 / 64))
        assert [row["choice"] for row in made] == ['{"rate": 0.015625}'] * 4, "both want all they can get"
        # Two units with two rates are searched; then each unit is trained with two rates, or with one.
        assert [call[2] for call in said(method, "init")] == [4, 4, 4, 2]
        assert [call[2] for call in said(method, "step")] == ([4] * 8 + [4] * 10) + ([4] * 8 + [2] * 10)
        assert {call[:2] for call in said(method, "step")} == {("shared", "in-the-loop")}

    def test_off_chip_one_training_serves_all_devices_and_variants(self, root: Path, method: ModuleType) -> None:
        cells = [cell(v, mode="off-chip", severity=s) for v in ("once", "twice") for s in (0.0, 0.5, 1.0)]
        train(root, cells, rates=(0.02,))
        assert said(method, "step") == [("shared", "off-chip", 1)] * 10
        predicted = [call for call in said(method, "predict") if call[2] == 3]
        assert {call[0] for call in predicted} == {"once", "twice"}

    def test_a_task_says_which_training_it_is_and_then_which_variant(self, root: Path, method: ModuleType) -> None:
        train(root, [cell("twice"), cell("once")])
        train(root, [cell("other")])
        assert {call[1] for call in method.CALLS if call[0] in ("init", "step")} == {"shared", "other"}
        assert {call[1] for call in method.CALLS if call[0] == "predict"} == {"once", "twice", "other"}

    def test_trainings_have_seeds_and_networks_of_their_own(self, root: Path) -> None:
        """P is 4 x 4 + 2 x 5 = 26 weights of 32 bits, or 4 x 4 + 3 x 5 = 31."""
        made = {v: train(root, [cell(v)])[0] for v in ("once", "twice", "other")}
        assert {v: row["memory_bits"] for v, row in made.items()} == {"once": 832, "twice": 832, "other": 992}
        assert made["once"]["spikes"] * 2 == made["twice"]["spikes"], "the same weights, shown twice"
        assert made["other"]["spikes"] != made["once"]["spikes"]

    def test_a_method_that_cannot_batch_gets_one_unit_at_a_time(self, root: Path) -> None:
        cells = [cell(v, repetition=r) for r in (0, 1) for v in ("twice", "once")]
        together = texts(train(root, cells, rates=(0.02,)))
        path = root / "methods" / "slow.py"
        path.write_text(METHOD.replace("BATCHED = True", "BATCHED = False"))
        module = plugins.load("methods", "slow", root)
        shares: list[float] = []
        work = Work([replace(c, method="slow") for c in cells], {"rates": (0.02,)}, {"some": {}}, root)
        made = training.train(work, shares.append)
        assert {call[2] for call in said(module, "step")} == {1}
        assert [row["choice"] for row in texts(made)] == [row["choice"] for row in together]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


class TestBudget:
    @pytest.mark.parametrize(
        ("epochs", "batch_size", "examples", "expected"),
        [(3, 8, 25, 9), (3, 8, 8, 3), (3, 8, 5, 3), (3, None, 25, 3), (1, 1, 25, 25)],
    )
    def test_rounds_are_passes_over_the_examples(
        self, epochs: int, batch_size: int | None, examples: int, expected: int, method: ModuleType
    ) -> None:
        settings = method.Settings(epochs=epochs, batch_size=batch_size)
        assert rounds(settings, examples) == expected
        assert gradient_steps(settings, examples, steps=6) == 5 * expected

    def test_or_what_the_settings_say(self) -> None:
        class Plain:
            rounds = 7
            gradient_steps = 14
            batch_size = 3

        assert (rounds(Plain, 100), gradient_steps(Plain, 100, 6)) == (7, 14)

    @pytest.mark.parametrize(
        ("mode", "tune_once"), [("in-the-loop", False), ("in-the-loop", True), ("off-chip", False)]
    )
    def test_a_row_pays_for_its_own_search_and_training(self, mode: str, tune_once: bool, root: Path) -> None:
        """20 examples in 8 rounds for each of 2 rates, 5 held-out ones, then 25 in 10 rounds; all rounds show 5."""
        for cells in ([cell("once", mode=mode), cell("twice", mode=mode)], [cell("twice", mode=mode)]):
            made = dict(zip(cells, train(root, cells, tune_once=tune_once), strict=True))
            for one, row in made.items():
                assert row["gradient_steps"] == (8 + 8 + 10) * 5
                search = 0 if tune_once else 2 * (8 * 5 + 5 * (2 if one.variant == "twice" else 1))
                assert row["chip_presentations"] == (0 if mode == "off-chip" else search + 10 * 5)

    def test_nothing_to_choose_is_one_training(self, root: Path, method: ModuleType) -> None:
        for tune_once in (False, True):
            row = train(root, [cell("once")], rates=(0.5,), tune_once=tune_once)[0]
            assert (row["gradient_steps"], row["chip_presentations"]) == (50, 50)
            assert row["choice"] == '{"rate": 0.5}'
        assert len([call for call in method.CALLS if call[0] == "init"]) == 2


class TestTuneOnce:
    def test_one_ideal_cell_of_its_own_split_is_searched_for_all(
        self, root: Path, method: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches, original = [], method.init

        def init(task: Any, batch: Any, chip: Any, streams: Any) -> Any:
            thresholds = torch.cat([layer.threshold for layer in chip.knowledge.layers], dim=1)
            batches.append((task.mode, streams.seeds, bool((thresholds == 1).all())))
            return original(task, batch, chip, streams)

        monkeypatch.setattr(method, "init", init)
        cells = [cell(v, severity=1.0, repetition=r) for v in ("once", "twice") for r in (0, 1, 2)]
        made = train(root, cells, tune_once=True)
        (search_mode, seeds, ideal), (train_mode, _, faulty_is_ideal) = batches
        assert (search_mode, ideal) == ("off-chip", True)
        assert (train_mode, faulty_is_ideal) == ("in-the-loop", False)
        assert seeds == (training._training_seed(cells[0], "shared", "tuning"),) * 2
        assert len({row["choice"] for row in made[:3]}) == len({row["choice"] for row in made[3:]}) == 1

    def test_what_is_chosen_does_not_depend_on_fault_severity_or_repetition(self, root: Path) -> None:
        points = [(0.0, 0), (1.0, 0), (1.0, 5)]
        made = [train(root, [cell("twice", severity=s, repetition=r)], tune_once=True)[0] for s, r in points]
        assert len({row["choice"] for row in made}) == 1
        assert len({row["split_sha256"] for row in made}) == 2, "the row names the split that it was trained on"


class TestValues:
    def test_the_error_is_that_of_the_samples_mean_against_the_test_values(self, root: Path) -> None:
        """The two samples lie to either side of the value; test targets are 0 and 1 in turns, the value is 1/2."""
        row = train(root, [cell("once")], rates=(1.0,))[0]
        assert row["rmse"] == pytest.approx(0.5)
        assert row["test_size"] == 10
        # Learnt in 10 rounds at 0.1: 0.5 (1 - 0.9^10), doubled.
        value = 1 - 0.9**10
        row = train(root, [cell("twice")], rates=(0.1,))[0]
        assert row["rmse"] == pytest.approx(np.sqrt((value**2 + (1 - value) ** 2) / 2), rel=1e-6)
        assert json.loads(row["estimates"]) == {"constant": {"rmse": pytest.approx(np.sqrt((0.25**2 + 0.75**2) / 2))}}
        assert not {"accuracy", "nll", "ece_width_15", "reliability"} & set(row)

    def test_a_prediction_that_is_no_number_is_a_diverged_row_of_that_cell_alone(self, root: Path) -> None:
        cells = [cell("once", severity=s) for s in (0.0, 1.0)]
        made = train(root, cells, fault={"threshold": 3.0}, broken=1.0, rates=(1.0,))
        assert [row["status"] for row in made] == ["ok", "diverged"]
        assert "not finite" in made[1]["error"]
        assert "rmse" not in made[1]

    def test_classes_are_learnt_by_the_same_method(self, root: Path) -> None:
        one = cell("once", data_settings='{"task":"classification"}')
        row = train(root, [one])[0]
        assert row["status"] == "ok"
        assert "rmse" not in row
        assert 0 <= row["ece_debiased"] <= 1

    def test_a_task_that_a_method_does_not_learn_is_unavailable(self, root: Path) -> None:
        (root / "methods" / "classes.py").write_text(
            METHOD.replace('("classification", "regression")', '("regression",)')
        )
        one = cell("once", method="classes", data_settings='{"task":"classification"}')
        with pytest.raises(
            Unavailable, match="classes does not train on a task of classification, which toy is; its tasks: regression"
        ):
            train(root, [one])

    def test_a_prediction_of_the_wrong_kind_is_an_error(self, root: Path, method: ModuleType) -> None:
        method.predict = lambda task, state, inputs, index, chip: Prediction()
        with pytest.raises(TypeError, match="predict gave no outputs, which are what a regression is measured by"):
            train(root, [cell("once")])


class TestMaps:
    def test_the_samples_mean_and_spread_at_the_probe(self, root: Path) -> None:
        """The samples are half the first output's count below and above: their deviation is that half."""
        mapped = json.loads(train(root, [cell("once")], rates=(1.0,))[0]["outputs"])
        assert mapped["axes"] == [[0.0, 1.0, 2], [0.0, 2.0, 3]]
        assert mapped["mean"] == [0.5] * 6
        assert all(sd * 2 == int(sd * 2) for sd in mapped["sd"])
        assert any(mapped["sd"])
        assert mapped["seen"] == [[0.123, 1.5]], "three decimals"
        assert mapped["targets"] == [0, 0.25, 0.5, 0.75, 1.0, 1.25]

    def test_of_classes_it_is_the_probability_of_the_second(self, root: Path) -> None:
        one = cell("once", data_settings='{"task":"classification"}')
        row = train(root, [one], rates=(0.1,), batch_size=None, epochs=1)[0]
        mapped = json.loads(row["outputs"])
        share = 12 / 25  # of the second class among 25 labels in turns
        assert mapped["mean"] == [pytest.approx(0.1 * share, abs=5e-4)] * 6
        assert mapped["sd"] == [0] * 6

    def test_the_map_changes_nothing_else_of_the_row(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = texts(train(root, [cell("once")], fault={"read_noise": 1.0}))[0]
        original = training._load

        def without(*arguments: Any) -> Any:
            return replace(original(*arguments), probe=None)

        monkeypatch.setattr(training, "_load", without)
        after = texts(train(root, [cell("once")], fault={"read_noise": 1.0}))[0]
        assert after.pop("outputs") == '"{}"' != before.pop("outputs")
        assert before == after


def test_a_shard_of_several_variants_through_supervisor_worker_and_gathering(project: Project) -> None:
    """A job trains it; a new variant joins the file, and the rows that were there stay as they are."""
    project.toy()
    project.append("methods/toy.py", 'VARIANTS = {"mode": "bayes", "mean": "bayes"}\n')

    def run(*variants: str) -> dict[str, dict[str, Any]]:
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop", "variant": v} for v in variants])
        plan = project.plan()
        assert len(plan.shards) == 1
        for job in plan.jobs.values():
            run_job(job, plan.config, log=project.root / "job.log")
        table, _ = collect(plan)
        assert set(table["status"]) == {"ok"}
        assert set(table["shard"]) == {shard for _, shard in plan.shards}
        return {row["cell"]: row for row in table.fillna("").to_dict("records")}

    first = run("mode")
    both = run("mode", "mean")
    assert len(both) == 2 * len(first) == 8
    assert {cell: both[cell] for cell in first} == first
    by_point = {(r["variant"], r["severity"], r["repetition"]): r["nll"] for r in both.values()}
    assert all(by_point["mean", s, r] == nll for (v, s, r), nll in by_point.items() if v == "mode")
