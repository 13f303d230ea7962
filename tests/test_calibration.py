"""A few steps of each kind of training: what they say of the whole, and that every kind is tried."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from project import BACKPROP, MH, OFF_CHIP, Project

from spikebench import calibration, resources
from spikebench.calibration import calibrate, measure
from spikebench.errors import UserError
from spikebench.sweep import Planned


@pytest.fixture
def planned(project: Project) -> dict[str, tuple[Planned, ...]]:
    """A shard of four cells, two devices of two repetitions, by method and mode."""
    return {f"{cells[0].cell.method} {cells[0].cell.mode}": cells for cells in project.plan().shards.values()}


class TestWhole:
    """Backprop: four steps a training, each of which shows two of the twenty examples and is taken as long as ten."""

    @pytest.fixture(autouse=True)
    def a_second_a_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        took = calibration._Took(step=1.0, shown=calibration.EXAMPLES, prediction=0.0)
        monkeypatch.setattr(calibration, "_try", lambda one, method, device: took)

    def seconds(self, project: Project, cells: tuple[Planned, ...]) -> float:
        outcome = measure(cells, project.config(), "cpu")
        assert (outcome.status, outcome.reason, outcome.cells) == ("ok", "", len(cells))
        return outcome.shard_seconds

    def test_in_the_loop_each_device_is_searched_and_trained(
        self, project: Project, planned: dict[str, tuple[Planned, ...]]
    ) -> None:
        candidates = len(self.settings(project).learning_rates)
        assert self.seconds(project, planned["backprop in-the-loop"]) == 10 * 4 * 4 * (candidates + 1)

    def test_off_chip_one_training_serves_all_devices_of_a_repetition(
        self, project: Project, planned: dict[str, tuple[Planned, ...]]
    ) -> None:
        candidates = len(self.settings(project).learning_rates)
        assert self.seconds(project, planned["backprop off-chip"]) == 10 * 2 * 4 * (candidates + 1)

    def test_hyper_parameters_that_are_chosen_once_are_searched_once(self, project: Project) -> None:
        arm = {"method": "bisnn", "mode": "off-chip", "variant": "straight-through"}
        arm["settings"] = {"tune_once": True, "epochs": 3, "minibatch": 4, "learning_rates": [0.1, 0.3]}
        project.experiment(arms=[arm])
        (cells,) = project.plan().shards.values()
        # 20 examples: five rounds an epoch in the training, four of 16 in the search; shown are two instead of four.
        assert self.seconds(project, cells) == (2 * 3 * 5 + 2 * 3 * 4) * 4 / calibration.EXAMPLES

    def settings(self, project: Project) -> Any:
        from spikebench import plugins

        return plugins.load("methods", "backprop", project.root).Settings()


def test_steps_are_timed_and_a_prediction_is_made(project: Project, planned: dict[str, tuple[Planned, ...]]) -> None:
    for cells in planned.values():
        outcome = measure(cells, project.config(), "cpu")
        assert outcome.status == "ok", outcome.reason
        assert 0 < outcome.shard_seconds < 100
        assert 50 < outcome.peak_memory_mb < 20_000


def test_a_test_of_one_example_is_enough(project: Project) -> None:
    """As where what is learnt is one recording, by heart."""
    axes = {"dataset": ["gaussian_pictures"], "network": [{"hidden": [4]}], "fault": ["threshold"], "severity": [0.0]}
    axes |= {"data_settings": [{"side": 6, "steps": 2, "training": 20, "test": 1}], "training_size": [20]}
    project.experiment(arms=[OFF_CHIP], axes=axes)
    (cells,) = project.plan().shards.values()
    outcome = measure(cells, project.config(), "cpu")
    assert outcome.status == "ok", outcome.reason


def test_what_does_not_start_is_named_and_the_check_fails(project: Project) -> None:
    project.toy(step="raise ValueError('no such layer')")
    project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}, MH])
    (cells,) = (cells for cells in project.plan().shards.values() if cells[0].cell.method == "toy")
    outcome = measure(cells, project.config(), "cpu")
    assert (outcome.status, outcome.reason) == ("failed", "ValueError: no such layer")
    with pytest.raises(
        UserError, match=r"2 kinds of training: 1 failed, 1 ok; .* not start: ValueError: no such layer"
    ):
        calibrate(project.plan(), lambda sentence: None)


def test_so_is_what_cannot_predict(project: Project) -> None:
    project.toy()
    project.edit("methods/toy.py", "def predict(task, state, inputs, index, chip):", BROKEN)
    project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
    (cells,) = project.plan().shards.values()
    assert measure(cells, project.config(), "cpu").reason == "ValueError: no read-out"


def test_predictions_count(
    project: Project, planned: dict[str, tuple[Planned, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell is tested once; of breast cancer the plan does not say how many examples, so it is taken as one."""
    took = calibration._Took(step=0.0, shown=20, prediction=2.0)
    monkeypatch.setattr(calibration, "_try", lambda one, method, device: took)
    cells = planned["backprop off-chip"]
    assert measure(cells, project.config(), "cpu").shard_seconds == 2.0 * len(cells)


def test_data_that_is_not_here_is_no_failure(project: Project, monkeypatch: pytest.MonkeyPatch, own_store: Any) -> None:
    monkeypatch.delenv("SPIKEBENCH_MIRROR", raising=False)
    axes = {"dataset": ["cifar100"], "network": [{"hidden": [4]}], "fault": ["threshold"]}
    project.experiment(arms=[OFF_CHIP], axes={**axes, "severity": [0.0], "training_size": [200]})
    data = yaml_of(project)["data"]
    project.change("config/config.yaml", data={**data, "download": False})
    (cells,) = project.plan().shards.values()
    outcome = measure(cells, project.config(), "cpu")
    assert outcome.status == "unavailable" and "downloads are switched off" in outcome.reason
    assert math.isnan(outcome.shard_seconds)


BROKEN = """def predict(task, state, inputs, index, chip):
    raise ValueError("no read-out")
"""


def yaml_of(project: Project) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((project.root / "config" / "config.yaml").read_text())
    return found


class TestCalibrate:
    def test_every_kind_is_tried_once_and_kept(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        told = calibrate(project.plan(), said.append)
        assert told == "preset tiny: 3 kinds of training: 3 ok"
        assert len(said) == 3
        kinds = json.loads(project.results.calibration.read_text())["kinds"]
        assert kinds.keys() == resources.kinds(project.plan()).keys()
        monkeypatch.setattr(calibration, "measure", None)
        assert calibrate(project.plan(), said.append) == told and len(said) == 3

    def test_what_changed_is_tried_again(self, project: Project) -> None:
        said: list[str] = []
        calibrate(project.plan(), said.append)
        settings = project.config().preset["settings"]
        project.change("config/presets/tiny.yaml", settings={**settings, "backprop": {"steps": 5}})
        calibrate(project.plan(), said.append)
        assert len(said) == 5, "backprop's two"

    def test_a_run_that_was_cut_off_goes_on(self, project: Project) -> None:
        class Cut(Exception):
            pass

        def cut(sentence: str) -> None:
            said.append(sentence)
            if len(said) == 2:
                raise Cut

        said: list[str] = []
        with pytest.raises(Cut):
            calibrate(project.plan(), cut)
        assert len(json.loads(project.results.calibration.read_text())["kinds"]) == 1
        calibrate(project.plan(), said.append)
        assert len(said) == 4

    def test_shards_that_differ_in_what_costs_nothing_are_one_kind(self, project: Project) -> None:
        axes = {"dataset": ["breast_cancer"], "network": [{"hidden": [4]}], "training_size": [20]}
        project.experiment(arms=[MH, BACKPROP], axes={**axes, "fault": ["threshold", "drift"], "severity": [0.0, 1.0]})
        assert (len(project.plan().shards), len(resources.kinds(project.plan()))) == (4, 2)
