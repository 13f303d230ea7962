"""What is saved of a training, when, and what becomes of files that cannot be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from project import Project

from spikebench import checkpoints, training
from spikebench.checkpoints import Checkpoints, Progress
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.networks import Network


class State(NamedTuple):
    weights: torch.Tensor
    round: torch.Tensor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed, to be set."""
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def chip() -> SimulatedChip:
    return SimulatedChip(Network(2, (2,), 2), [FaultSpec()], [0])


def progress(rounds: int, epochs: int = 0) -> Progress:
    state = State(torch.full((1, 3), rounds / 3), torch.tensor(rounds))
    values = {"b": lambda n: torch.tensor([float(n)]), "a": lambda n: torch.tensor([[n, n]])}
    traces = {name: [value(n) for n in range(rounds)] for name, value in values.items()}
    return Progress(rounds, state, traces, [state] * epochs)


def start() -> State:
    return State(torch.zeros(1, 3), torch.tensor(0))


def saved(folder: Path, chip: SimulatedChip, of: Progress) -> None:
    Checkpoints(folder, 0).stage().keep(of, chip, last=False)


class TestWhen:
    def test_what_takes_less_than_the_interval_writes_nothing(
        self, tmp_path: Path, clock: list[float], chip: SimulatedChip
    ) -> None:
        folder = tmp_path / "checkpoints"
        stage = Checkpoints(folder, 10).stage()
        for clock[0] in (3.0, 9.9):
            stage.keep(progress(1), chip, last=False)
        stage.keep(progress(2), chip, last=True)
        assert not folder.exists()

    def test_a_training_that_is_done_is_saved_with_the_next(
        self, tmp_path: Path, clock: list[float], chip: SimulatedChip
    ) -> None:
        made = Checkpoints(tmp_path, 10)
        made.stage().keep(progress(5), chip, last=True)
        second = made.stage()
        clock[0] = 9.0
        second.keep(progress(1), chip, last=False)
        assert not list(tmp_path.iterdir())
        clock[0] = 10.0
        second.keep(progress(2), chip, last=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["01.safetensors", "02.safetensors"]
        again = Checkpoints(tmp_path, 10)
        assert [again.stage().read(start(), chip).rounds for _ in range(2)] == [5, 2]

    def test_the_interval_begins_anew_with_each_saving(
        self, tmp_path: Path, clock: list[float], chip: SimulatedChip
    ) -> None:
        stage = Checkpoints(tmp_path, 10).stage()
        for clock[0], rounds in ((11.0, 1), (20.0, 2), (21.0, 3)):
            stage.keep(progress(rounds), chip, last=False)
            expected = {11.0: 1, 20.0: 1, 21.0: 3}[clock[0]]
            assert Checkpoints(tmp_path, 10).stage().read(start(), chip).rounds == expected


class TestWhat:
    def test_state_traces_epochs_and_counts_come_back(self, tmp_path: Path, chip: SimulatedChip) -> None:
        before = progress(4, epochs=2)
        chip.meter.presentations += 17
        chip._uses["read_noise"] = 3
        saved(tmp_path, chip, before)
        other = SimulatedChip(chip.network, [FaultSpec()], [0])
        found = Checkpoints(tmp_path, 0).stage().read(start(), other)
        assert found.rounds == 4 and list(found.traces) == ["b", "a"], "in their order"
        for own, told in zip((found.state, *found.epochs), (before.state, *before.epochs), strict=True):
            assert type(own) is State and all(map(torch.equal, own, told))
        for name, values in before.traces.items():
            assert all(map(torch.equal, found.traces[name], values))
        assert float(other.meter.presentations) == 17 and other._uses == {"read_noise": 3}

    def test_later_rounds_leave_it_alone(self, tmp_path: Path, chip: SimulatedChip) -> None:
        """Methods may overwrite the tensors of their state; a training that is done waits to be saved."""
        made, done = Checkpoints(tmp_path, 1e9), progress(5)
        made.stage().keep(done, chip, last=True)
        done.state.weights.zero_()
        made.seconds = 0
        made.stage().keep(progress(1), chip, last=False)
        found = Checkpoints(tmp_path, 0).stage().read(start(), chip)
        assert torch.equal(found.state.weights, progress(5).state.weights)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def of_others(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path, {"notes": "{}"})


class TestUnusable:
    @pytest.mark.parametrize("damage", [cut, emptied, of_others])
    def test_a_file_that_is_not_whole_is_named_and_the_training_begins_anew(
        self, tmp_path: Path, chip: SimulatedChip, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        saved(tmp_path, chip, progress(4))
        damage(tmp_path / "01.safetensors")
        chip.meter.presentations += 5
        assert Checkpoints(tmp_path, 0).stage().read(start(), chip) is None
        assert "checkpoint 01.safetensors cannot be used" in capsys.readouterr().err
        assert float(chip.meter.presentations) == 5

    @pytest.mark.parametrize(
        "other", [State(torch.zeros(1, 4), torch.tensor(0)), State(torch.zeros(1, 3).double(), torch.tensor(0))]
    )
    def test_so_is_a_state_of_another_shape_or_type(
        self, tmp_path: Path, chip: SimulatedChip, other: State, capsys: pytest.CaptureFixture[str]
    ) -> None:
        saved(tmp_path, chip, progress(4))
        assert Checkpoints(tmp_path, 0).stage().read(other, chip) is None
        assert "tensor 0 is torch.float32 [1, 3], not" in capsys.readouterr().err

    def test_so_is_what_another_kind_of_device_has_learnt(
        self, tmp_path: Path, chip: SimulatedChip, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It would go on to other bits, and the row would be of neither."""
        saved(tmp_path, chip, progress(4))
        elsewhere = State(*(tensor.to("meta") for tensor in start()))
        assert Checkpoints(tmp_path, 0).stage().read(elsewhere, chip) is None
        assert "of a training on cpu, and this one is on meta" in capsys.readouterr().err


def test_rows_are_those_of_a_training_that_saves_nothing(project: Project, tmp_path: Path) -> None:
    for job in project.plan().jobs.values():
        cells = [p.cell for members in job.shards.values() for p in members]
        settings = project.config().method_settings(cells[0].method, {})
        plain = training.Work(cells, settings, project.config().faults, project.root)
        saving = dataclasses.replace(plain, checkpoints=Checkpoints(tmp_path / job.name, 0))
        measured = ("started", "seconds", "peak_memory_mb")
        ours, theirs = (
            [{k: v for k, v in row.items() if k not in measured} for row in training.train(work)]
            for work in (saving, plain)
        )
        assert str(ours) == str(theirs)
