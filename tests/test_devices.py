"""Where a training runs, and that it is the same training there."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import feedback_course as course
import multistep_truth as truth
import pytest
import torch

from spikebench import devices, fitting, learning, multistep, multistep_torch, plugins, training, worker
from spikebench import surrogate_training as surrogates
from spikebench.data import Batch, is_constant
from spikebench.draws import uniform
from spikebench.errors import UserError
from spikebench.feedback_regularisation import augmented
from spikebench.method import Task
from spikebench.seeds import Streams
from spikebench.sweep import Cell
from spikebench.training import Work

PSG = truth.PSG
ROOT = Path(__file__).parents[1]
#: The processor under another name: tensors are made, moved and brought back as those of a GPU are.
ELSEWHERE = "cpu:0"
ABLE = SimpleNamespace(DEVICES=("cpu", "cuda"))
CELL = Cell(
    experiment="devices", dataset="gaussian_pictures", data_kind="synthetic", data_settings="{}",
    network='{"architecture":"3C3-M2-4"}', method="psg_pda", mode="off-chip", variant="psg+pda", settings="{}",
    fault="none", severity=0.0, training_size=20, repetition=0, preset="devices",
)  # fmt: skip


def gpu(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


# Which


@pytest.mark.parametrize(
    ("asked", "there", "expected"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, asked: str, there: bool, expected: str
) -> None:
    gpu(monkeypatch, there)
    assert devices.choose(asked) == expected


def test_a_gpu_that_is_insisted_on_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, False)
    with pytest.raises(UserError, match=r"PyTorch finds no GPU here: install its CUDA build, or say `device: cpu`"):
        devices.choose("cuda")


def test_a_job_that_was_given_one_does_not_hold_it_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    gpu(monkeypatch, False)
    with pytest.raises(UserError, match="PyTorch finds no GPU here"):
        devices.choose("auto")
    assert devices.choose("cpu") == "cpu"
    gpu(monkeypatch, True)
    assert devices.choose("auto") == "cuda"


def test_of_the_suites_methods_one_says_that_it_can() -> None:
    said = {name: plugins.constant("methods", name, "DEVICES", ("cpu",)) for name in plugins.names("methods")}
    assert said.pop("psg_pda") == ("cpu", "cuda") == PSG.DEVICES
    assert set(said.values()) == {("cpu",)}


def test_to_say_so_makes_no_row_stale(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    path, text = tmp_path / "methods" / "psg_pda.py", plugins.source("methods", "psg_pda").read_text()
    line = 'DEVICES = ("cpu", "cuda")\n'
    found = []
    for number, own in enumerate([line, "", 'DEVICES: tuple[str, ...] = ("cpu",)\n', "SPEED = 1\n"]):
        path.write_text(text.replace(line, own))
        os.utime(path, ns=(number, number))
        found.append(plugins.fingerprint("methods", "psg_pda", tmp_path))
    assert found[0] == found[1] == found[2] == plugins.fingerprint("methods", "psg_pda") != found[3]


@pytest.mark.parametrize(("asked", "there", "expected"), [("auto", True, "cuda"), ("auto", False, "cpu")])
def test_it_reaches_the_search_and_the_training(
    monkeypatch: pytest.MonkeyPatch, asked: str, there: bool, expected: str
) -> None:
    gpu(monkeypatch, there)
    told: list[str] = []

    def fit(*arguments: Any, **named: Any) -> fitting.Fitted:
        bound = inspect.signature(fitting.fit).bind(*arguments, **named)
        told.append(bound.arguments.pop("device"))
        return fitting.fit(*bound.args, **bound.kwargs)

    monkeypatch.setattr(learning, "fit", fit)
    data = {"side": 6, "steps": 2, "training": 20, "test": 10}
    work = Work([CELL], {"epochs": 1, "minibatch": 8}, {"none": {}}, ROOT, data, device=asked)
    (row,) = training.train(work)
    assert told == [expected, expected] and row["status"] == "ok"


def test_a_worker_hands_on_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    works: list[Work] = []
    monkeypatch.setattr(training, "train", lambda work, report: works.append(work) or [])
    request = {"cells": [], "settings": {}, "data": {}, "faults": {}, "root": "."}
    request |= {"checkpoints": str(tmp_path), "checkpoint_seconds": 1.0}
    for more in ({}, {"device": "auto"}):
        worker._answer({**request, **more}, io.StringIO())
    assert [work.device for work in works] == ["cpu", "auto"]


# How


@pytest.fixture
def switches() -> Iterator[list[tuple[Any, str]]]:
    """What lets a GPU choose its algorithms by time, or round to fewer bits; as they were when the test is over."""
    found = [(torch.backends.cudnn, "benchmark"), (torch.backends.cudnn, "allow_tf32")]
    found.append((torch.backends.cuda.matmul, "allow_tf32"))  # type: ignore[arg-type]
    before = [getattr(*switch) for switch in found]
    yield found
    for switch, value in zip(found, before, strict=True):
        setattr(*switch, value)


def test_a_gpu_is_to_give_the_same_bits_each_time(monkeypatch: pytest.MonkeyPatch, switches: Any) -> None:
    for switch in switches:
        setattr(*switch, True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    devices.prepare("cpu")
    assert all(getattr(*switch) for switch in switches) and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    devices.prepare("cuda")
    assert not any(getattr(*switch) for switch in switches)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    devices.prepare("cuda")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8", "a choice of the user's"


def test_within_a_context_tensors_are_made_on_the_device() -> None:
    with pytest.raises(ZeroDivisionError), devices.context("meta"):
        assert torch.zeros(2).is_meta and torch.are_deterministic_algorithms_enabled()
        raise ZeroDivisionError
    assert torch.zeros(2).is_cpu and not torch.are_deterministic_algorithms_enabled()
    with devices.context("cpu"):
        assert torch.zeros(2).is_cpu and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
def test_a_constant_current_stays_one(constant: bool) -> None:
    batch = course.shown(truth.task(), constant=constant)
    assert all(own is other for own, other in zip(devices.moved(batch, "cpu"), batch, strict=True))
    for place in ("meta", ELSEWHERE):
        moved = devices.moved(batch, place)
        assert isinstance(moved, Batch) and {tensor.device for tensor in moved} == {torch.empty(0, device=place).device}
        assert [tensor.shape for tensor in moved] == [tensor.shape for tensor in batch]
        assert is_constant(moved.inputs) == is_constant(moved.own_inputs) == constant
    assert torch.equal(moved.inputs, batch.inputs) and torch.equal(moved.targets, batch.targets)


def test_draws_are_the_processors_wherever_they_are_used() -> None:
    streams = devices.streams_for(Streams((1, 2)), "meta")
    draws = {
        "normal": lambda: streams.normal((3, 4), "a"),
        "permutation": lambda: streams.permutation(9, "b"),
        "uniform": lambda: uniform(streams, (5,), "c"),
    }
    for draw in draws.values():
        with torch.device("meta"):
            assert draw().is_meta and draw().shape == draw().shape
        with devices.context(ELSEWHERE):
            elsewhere = draw()
        assert torch.equal(elsewhere, draw())


def test_pictures_are_moved_alike_everywhere() -> None:
    task = truth.task("psg", crop=2, flip=True, cells=2)
    batch, streams = course.shown(task), course.streams(task)
    shown = augmented(task, batch, streams, 3)
    with devices.context("meta"):
        there = augmented(task, devices.moved(batch, "meta"), streams, 3)
    assert all(tensor.is_meta for tensor in there) and [t.shape for t in there] == [t.shape for t in shown]
    with devices.context(ELSEWHERE):
        there = augmented(task, batch, streams, 3)
    assert all(map(torch.equal, there, shown)) and not torch.equal(shown.own_inputs, batch.own_inputs)


# Training

#: All that a state may hold: two networks, a look-ahead's sensitivity, histograms, and random pictures.
BUSY = {
    "plain": ("psg+pda", {"crop": 1, "flip": True}),
    "look-ahead": ("psg", {"psg": "p2", "family": "arctan", "sharpness_rate": 100.0}),
    "tied": ("psg+pda", {"psg": "p3", "pda": "a-bern"}),
    "rate-matched": ("pda", {"rate_matched": True, "pda": "c"}),
    "probe": ("ltmd+psg", {"probe": True}),
    "retrained": ("psg", {"retrain": True, "shared_sharpness": True}),
}
busy = pytest.mark.parametrize("name", BUSY)


def prepared(name: str, architecture: str = "3C3-M2-4C3-4C3") -> Task:
    variant, settings = BUSY[name]
    return truth.task(variant, architecture, (1, 6, 6), cells=2, epochs=2, minibatch=8, **settings)


def fitted(task: Task, device: str, samples: int = 24) -> fitting.Fitted:
    batch = Batch.stack([course.separable(task, samples)], [0, 0])
    return fitting.fit(
        PSG,
        task,
        batch,
        course.chip_of(task),
        course.streams(task),
        lambda share: None,
        keep_epochs=True,
        device=device,
    )


@busy
def test_a_training_elsewhere_is_the_same_and_ends_here(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    task, step, used = prepared(name), PSG.step, []
    here = fitted(task, "cpu")
    monkeypatch.setattr(PSG, "step", lambda *given: used.append(torch.get_default_device()) or step(*given))
    there = fitted(task, ELSEWHERE)
    assert set(used) == {torch.device(ELSEWHERE)} and torch.get_default_device() == torch.device("cpu")
    assert course.names([here.state, there.state]) == [] and len(here.epochs) == len(there.epochs) == 2
    assert all(course.names(pair) == [] for pair in zip(here.epochs, there.epochs, strict=True))
    assert all(torch.equal(here.traces[key].nan_to_num(), there.traces[key].nan_to_num()) for key in here.traces)


@busy
def test_a_training_in_plain_torch_learns_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    task = prepared(name)
    kernels = fitted(task, "cpu")
    monkeypatch.setattr(multistep, "_spikes", multistep_torch.spikes)
    plain = fitted(task, ELSEWHERE)
    torch.testing.assert_close(plain.state.vector, kernels.state.vector, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(plain.state.running, kernels.state.running, atol=1e-4, rtol=1e-3)
    for key, values in kernels.traces.items():
        torch.testing.assert_close(plain.traces[key], values, atol=1e-3, rtol=1e-3, equal_nan=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@busy
def test_a_gpu_learns_the_same_and_twice_to_the_same_bits(name: str) -> None:
    task = prepared(name)
    here, there, again = (fitted(task, device) for device in ("cpu", "cuda", "cuda"))
    assert course.names([there.state, again.state]) == []
    torch.testing.assert_close(there.state.vector, here.state.vector, atol=1e-3, rtol=1e-2)


def test_what_plain_torch_has_learnt_answers_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    task = truth.task("psg+pda", "6C3-M2-6C3", (1, 6, 6), 2, cells=2, epochs=6, minibatch=10)
    test, found = course.separable(task, 60, seed=1), []
    for run in (multistep._spikes, multistep_torch.spikes):
        with monkeypatch.context() as patch:
            patch.setattr(multistep, "_spikes", run)
            state = fitted(task, "cpu", 60).state
        shown = Batch.stack([test], [0, 0])
        said = PSG.predict(task, state, shown.inputs, shown.index, course.chip_of(task)).probabilities
        found.append((said[:, 0].argmax(dim=2) == test.targets).float().mean(dim=1))
    assert torch.equal(*found) and found[0].min() > 0.8


@pytest.mark.parametrize("architecture", ["3C3-M2-A4", "4C3-4C3-4C3+"])
@busy
def test_all_that_a_step_makes_is_where_its_inputs_are(name: str, architecture: str) -> None:
    """Tensors without values, which go together with no others, while the processor is the default device."""
    task = prepared(name, architecture)
    if task.network.shortcuts and name in ("probe", "rate-matched"):  # type: ignore[attr-defined]
        pytest.skip("networks with shortcuts have no second paths and no learnt thresholds")
    arranged, steps, meta = surrogates.layout(task), task.info.steps, torch.device("meta")
    vector = torch.zeros(arranged.size, device=meta)
    running, norms = torch.zeros(2, arranged.channels, device=meta), torch.zeros(2, device=meta)
    net = surrogates.Net(vector, vector, running, norms, torch.zeros(arranged.layers, arranged.size, device=meta))
    inputs, labels = torch.zeros(6, steps, 36, device=meta), torch.zeros(6, dtype=torch.int64, device=meta)
    after, shown = surrogates.descend(task, net, inputs, labels, 0.1, 3)
    matched, again = surrogates.descend(task, net, inputs, labels, 0.1, 3, shown)
    agreed = surrogates.agreement(task, net, inputs, labels, 0.1)
    made = [arranged.start(vector, 1.0, 0.5), agreed, *after, *matched]
    for own in (shown, again):
        made += [own.loss, own.shift, own.course.sent, *own.course.moments, *own.course.unquantised]
        made += [values for of_link in own.course.statistics.values() for values in of_link]
    assert all(tensor.is_meta for tensor in made)
    assert [tensor.shape for tensor in after] == [tensor.shape for tensor in net]
