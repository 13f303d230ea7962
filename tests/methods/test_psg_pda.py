"""PSG and PDA as a method: they learn, alone and in company, and go on where they were saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import feedback_course as course
import multistep_truth as truth
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from spikebench import multistep, potentials, surrogate_training
from spikebench.data import Batch, DataInfo
from spikebench.errors import Unavailable
from spikebench.feedback_regularisation import augmented
from spikebench.method import Task
from spikebench.multistep import How
from spikebench.surrogate_training import Net

PSG = truth.PSG
INFO = DataInfo("classification", 65, 3, 4, False, (1, 8, 8))
#: All that a state may hold: two networks, a look-ahead's sensitivity, histograms, and random pictures.
BUSY = {
    "plain": ("psg+pda", {"crop": 1, "flip": True}),
    "look-ahead": ("psg", {"psg": "p2", "family": "arctan", "sharpness_rate": 100.0}),
    "rate-matched": ("pda", {"rate_matched": True, "pda": "c"}),
    "probe": ("ltmd+psg", {"probe": True}),
    "retrained": ("psg", {"retrain": True}),
}
busy = pytest.mark.parametrize("name", BUSY)


def prepared(name: str, cells: int = 3, **settings: Any) -> Task:
    variant, own = BUSY[name]
    return truth.task(variant, "3C3-M2-4C3-4C3", (1, 6, 6), cells=cells, rounds=4, **own, **settings)


def fitted(task: Task, samples: int = 60) -> tuple[Any, dict[str, torch.Tensor]]:
    return course.fitted(PSG, task, course.separable(task, samples), course.chip_of(task))


# Settings


def test_settings_that_are_not_allowed_are_said() -> None:
    with pytest.raises(ValueError, match="psg: found 'p4', allowed: p1, p2, p3"):
        PSG.Settings(psg="p4")
    with pytest.raises(ValueError, match="pda: found 'a-softmax', allowed: a-gauss, a-bern, b, c, quantisation, rate"):
        PSG.Settings(pda="a-softmax")
    with pytest.raises(ValueError, match="family: found 'box', allowed: rectangular, triangular, arctan, sigmoid"):
        PSG.Settings(family="box")


def test_settings_are_what_the_harness_reads() -> None:
    settings = PSG.Settings(learning_rates=[0.1, 0.2], minibatch=7)
    assert settings.SEARCH == {"learning_rate": (0.1, 0.2)}
    assert (settings.batch_size, settings.updates(10)) == (7, 1)
    assert hash(settings) == hash(PSG.Settings(learning_rates=(0.1, 0.2), minibatch=7))
    assert PSG.MODES == ("off-chip",) and set(PSG.VARIANTS) == {"fixed", "psg", "pda", "psg+pda", "ltmd", "ltmd+psg"}


# Networks


def test_networks_are_of_ltmds_neurons() -> None:
    net = PSG.network(INFO, {"architecture": "4C3-M2-A5"}, "")
    assert tuple(net.neuron) == (0.25, 0.5) and net.outputs == 3
    assert PSG.network(INFO, {"hidden": [8, 5]}, "").widths == (8, 5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, r"networks of LIF layers need an architecture or hidden layers; found \{\}"),
        ({"hidden": []}, "need an architecture or hidden layers"),
        ({"hidden": [5], "rest": 0.0}, "need an architecture or hidden layers; found .*rest"),
        ({"architecture": "4C3", "hidden": [5]}, "need an architecture or hidden layers"),
        ({"convolutions": [[4, 3, 2]], "hidden": [5]}, "need an architecture or hidden layers; found .*convol"),
        ({"architecture": "4C3-P2-5"}, r"pools of their largest value \(M2\); found a mean \(P2\)"),
        ({"architecture": "4C3s-4C3 (F4C3u)"}, "feedback is for neurons with reset by subtraction"),
        ({"architecture": "4X3"}, "found the layer '4X3'"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_unavailable(layers: dict[str, Any], message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        PSG.network(INFO, layers, "")


# It learns


@pytest.mark.parametrize("variant", PSG.VARIANTS)
def test_every_variant_learns_what_is_easily_separated(variant: str) -> None:
    task = truth.task(variant, "8C3-M2-6C3", (1, 6, 6), 2, cells=2, epochs=10, minibatch=10)
    state, traces = fitted(task)
    assert traces["train_loss"].shape == (60, 2) and traces["rate"].shape == (60, 2, 2)
    assert traces["train_loss"][-6:].mean() < 0.3 * traces["train_loss"][:6].mean()
    split = course.separable(task, 60, seed=1)
    test = Batch.stack([split], [0, 0])
    found = PSG.predict(task, state, test.inputs, test.index, course.chip_of(task))
    assert found.probabilities.shape == (2, 1, 60, 2)
    assert (found.probabilities[:, 0].argmax(dim=2) == split.targets).float().mean(dim=1).min() > 0.9
    moved = state.vector.isfinite().all(), (traces["sharpness"] != 0).any()
    assert moved == (True, "psg" in variant)


def test_dense_layers_learn_too() -> None:
    task = truth.task("psg+pda", "20-10", (1, 6, 6), 2, epochs=10, minibatch=10)
    _, traces = fitted(task)
    assert traces["train_loss"][-6:].mean() < 0.3 * traces["train_loss"][:6].mean()


# The start, and a new one


def test_twins_start_alike_and_thresholds_where_they_are() -> None:
    for variant, threshold in (("pda", 0.5), ("ltmd", torch.tensor(0.5).tanh().item())):
        task = replace(truth.task(variant, cells=2, rate_matched=True, sharpness=2.0), network=truth.network("pools"))
        state = course.begin(PSG, task, course.shown(task), course.chip_of(task))
        assert state.vector.shape[:2] == (2, 2) and torch.equal(state.vector[:, 0], state.vector[:, 1])
        assert not torch.equal(*state.vector[:, 0])
        parts = surrogate_training.layout(task).split(state.vector[0, 0])
        torch.testing.assert_close(parts.thresholds.tanh(), torch.full_like(parts.thresholds, threshold))
        torch.testing.assert_close(parts.log_sharpness.exp(), torch.full_like(parts.thresholds, 2.0))
        assert not state.running[:, :, 0].any() and bool((state.running[:, :, 1] == 1).all())


def test_after_half_of_the_rounds_it_starts_once_more_with_the_sharpness_found() -> None:
    task = prepared("retrained", cells=2)
    batch, chip, streams = course.shown(task), course.chip_of(task), course.streams(task)
    half = course.train(PSG, task, batch, chip, 2)
    arranged = surrogate_training.layout(task)
    found = [arranged.split(vector[0]).log_sharpness.clone() for vector in half.vector]
    after, _ = PSG.step(task, half, batch, chip, streams)
    first = course.begin(PSG, task, batch, chip)
    inputs, targets = batch.own_inputs[..., :-1], batch.targets
    for b in range(2):
        start = arranged.join(arranged.split(first.vector[b, 0])._replace(log_sharpness=found[b]))
        fresh = Net(start, *(values[b, 0] for values in first[1:5]))
        net, _ = surrogate_training.descend(task, fresh, inputs[b], targets[b], 0.1, 2)
        assert torch.equal(net.vector, after.vector[b, 0]) and torch.equal(net.running, after.running[b, 0])
        assert torch.equal(arranged.split(after.vector[b, 0]).log_sharpness, found[b]) and found[b].any()
    last, _ = PSG.step(task, after, batch, chip, streams)
    assert torch.equal(arranged.split(last.vector[0, 0]).log_sharpness, found[0]) and int(last.round) == 4


def test_a_new_start_keeps_the_weight_of_the_divergence() -> None:
    """It was found in the first epoch, which does not come again."""
    task = truth.task("psg+pda", "3C3-M2-4C3", (1, 6, 6), rounds=6, epochs=3, retrain=True)
    batch, chip = course.shown(task), course.chip_of(task)
    half, after = (course.train(PSG, task, batch, chip, rounds) for rounds in (3, 4))
    assert torch.equal(half.norms, after.norms) and bool((half.norms > 0).all())


# Steps and predictions


def test_a_step_is_a_descent_of_each_network_at_the_rate_of_the_schedule() -> None:
    task = prepared("rate-matched", cells=2)
    task = replace(task, choice={"learning_rate": torch.tensor([0.1, 0.3])})
    batch, chip = course.shown(task), course.chip_of(task)
    state = course.train(PSG, task, batch, chip, 3)
    expected = []
    for b, rate in enumerate((0.1, 0.3)):
        nets, shown, scale = [Net(*(v[b, w].clone() for v in state[:5])) for w in (0, 1)], None, (1 - 0.5**0.5) / 2
        inputs, targets = batch.own_inputs[b, ..., :-1], batch.targets[b]
        for w in (0, 1):
            nets[w], shown = surrogate_training.descend(task, nets[w], inputs, targets, scale * rate, 3, shown)
        expected.append(torch.stack([net.vector for net in nets]))
    after, _ = PSG.step(task, state, batch, chip, course.streams(task))
    torch.testing.assert_close(after.vector, torch.stack(expected), atol=1e-7, rtol=1e-5)


def test_each_step_shifts_and_mirrors_its_pictures_anew() -> None:
    task, still = prepared("plain"), prepared("plain")
    still = replace(still, settings=replace(still.settings, crop=0, flip=False))
    batch, chip, streams = course.shown(task), course.chip_of(task), course.streams(task)
    for number in (0, 2):
        state = course.train(PSG, task, batch, chip, number)
        moved = augmented(task, batch, streams, number)
        expected, _ = PSG.step(still, state, moved, chip, streams)
        found, _ = PSG.step(task, state, batch, chip, streams)
        assert torch.equal(found.vector, expected.vector)
        assert not torch.equal(moved.own_inputs, batch.own_inputs)


@pytest.mark.parametrize("variant", ["psg", "ltmd"])
def test_without_faults_the_chip_predicts_what_the_model_does(variant: str) -> None:
    task = truth.task(variant, "4C3-M2-5C3-A6", (1, 6, 6), cells=2, epochs=3, minibatch=10, steps=4)
    state, _ = fitted(task)
    batch, arranged = course.shown(task, samples=20), surrogate_training.layout(task)
    found = PSG.predict(task, state, batch.inputs, batch.index, course.chip_of(task)).probabilities
    for b in range(2):
        parts = arranged.split(state.vector[b, 0])
        gains, biases = arranged.frozen(parts, state.running[b, 0])
        used = surrogate_training.parameters(task, parts)._replace(gains=gains, biases=biases)
        sent = multistep.present(task.network, used, batch.inputs[b, ..., :-1], How("arctan")).sent
        logits = functional.linear(sent.mean(dim=0)[:, 0, 0], parts.read_out[:, :-1], parts.read_out[:, -1])
        torch.testing.assert_close(found[b, 0], logits.softmax(dim=1), atol=1e-5, rtol=0)
    assert found.std(dim=2).min() > 0.001


def test_the_read_out_sees_counts_that_are_read_off_the_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    task = truth.task("psg", "3C3-M2-4C3", (1, 6, 6), cells=2)
    batch, chip, read = course.shown(task), course.chip_of(task), []
    state = course.begin(PSG, task, batch, chip)
    monkeypatch.setattr(chip, "read", lambda values: read.append(values) or 0 * values)
    found = PSG.predict(task, state, batch.inputs, batch.index, chip).probabilities
    assert torch.equal(read[0], read[0].round()) and read[0].max() > 1 and read[0].max() <= 3
    torch.testing.assert_close(found, torch.full_like(found, 1 / 3))  # of zeros, and no constant yet


def test_the_matched_network_answers() -> None:
    task = prepared("rate-matched")
    batch = course.shown(task, samples=20)
    state = course.train(PSG, task, batch, course.chip_of(task), 3)

    def answers(**changed: torch.Tensor) -> torch.Tensor:
        own = state._replace(**changed)
        return PSG.predict(task, own, batch.inputs, batch.index, course.chip_of(task)).probabilities

    found = answers()
    for name in ("vector", "running"):
        first, last = getattr(state, name).clone(), getattr(state, name).clone()
        first[:, 0] += 0.5
        last[:, 1] += 0.5
        assert torch.equal(answers(**{name: first}), found) and not torch.equal(answers(**{name: last}), found)


def test_potentials_before_training_are_those_of_the_first_minibatch() -> None:
    task = prepared("probe")
    batch, chip = course.shown(task), course.chip_of(task)
    start, *later = (course.train(PSG, task, batch, chip, rounds) for rounds in (0, 1, 3))
    expected = [
        potentials.at_the_start(task, vector[0], inputs)
        for vector, inputs in zip(start.vector, batch.own_inputs[..., :-1], strict=True)
    ]
    assert not start.before.any()
    assert all(torch.equal(state.before, torch.stack(expected)) for state in later)


def test_faults_are_of_the_chip_alone() -> None:
    states = []
    for severity in (0.0, 1.0):
        task = prepared("plain")
        chip = course.chip_of(task, severity, threshold=0.5, gain_mismatch=0.5)
        states.append(course.train(PSG, task, course.shown(task), chip, 2))
    assert course.names(states) == []
    batch = course.shown(task, samples=20)
    one, other = (
        PSG.predict(task, states[0], batch.inputs, batch.index, course.chip_of(task, severity, gain_mismatch=0.5))
        for severity in (0.0, 1.0)
    )
    assert not torch.equal(one.probabilities, other.probabilities)
    assert torch.equal(one.diagnostics["shift"], other.diagnostics["shift"]), "they are the model's"


@busy
def test_diagnostics_and_traces_have_the_cells_first(name: str) -> None:
    task = prepared(name)
    batch, chip, probe = course.shown(task), course.chip_of(task), name == "probe"
    state = course.begin(PSG, task, batch, chip)
    state, info = PSG.step(task, state, batch, chip, course.streams(task))
    assert all(tensor.dim() == 0 or len(tensor) == 3 for tensor in state)
    shapes = {key: tuple(value.shape) for key, value in info.traces.items()}
    expected = {"train_loss": (3,)} | dict.fromkeys(("sharpness", "rate", "shift", "quantisation"), (3, 3))
    if probe:
        names = ("look_ahead", *(f"shift-{name}" for name in potentials.MEASURED))
        expected |= dict.fromkeys(names, (3, 3))
    assert shapes == expected
    found = PSG.predict(task, state, batch.inputs, batch.index, chip).diagnostics
    means = ("shift", "shift_decades", "shift_b", "quantisation", "rate", "log2_sharpness")
    shapes = dict.fromkeys(means, (3,)) | {"log2_sharpness_of_layers": (3, 3)}
    if probe:
        shapes |= {"potentials": (3, 3, 40), "potentials_before": (3, 3, 40), "offset": (3, 4, 7), "scaled": (3, 4, 7)}
        sums = found["potentials_before"].sum(dim=2)
        torch.testing.assert_close(sums, torch.ones_like(sums))
    assert {key: tuple(value.shape) for key, value in found.items()} == shapes


# The same bits


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
@busy
def test_a_cell_has_the_same_bits_alone_and_in_company(name: str, constant: bool) -> None:
    task = prepared(name)
    batch = course.shown(task, constant=constant)
    seen: list[list[Any]] = []
    for cell in (None, 0, 2):
        part = task if cell is None else course.alone(task, cell)
        chosen = slice(None) if cell is None else slice(cell, cell + 1)
        own = Batch(batch.inputs, batch.targets, torch.arange(3)[chosen])
        chip = course.chip_of(part, seed=5 + (cell or 0), threshold=0.2)
        drawn = course.streams(task) if cell is None else replace(course.streams(task), seeds=(31 + cell,))
        state, infos = PSG.init(part, own, chip, drawn), []
        for _ in range(4):
            state, info = PSG.step(part, state, own, chip, drawn)
            infos += info.traces.values()
        found = PSG.predict(part, state, own.inputs, own.index, chip)
        seen.append([*state, *infos, found.probabilities, *found.diagnostics.values()])
    for cell, values in zip((0, 2), seen[1:], strict=True):
        for whole, one in zip(seen[0], values, strict=True):
            mine = whole[cell : cell + 1] if one.dim() else whole
            assert torch.equal(mine.nan_to_num(), one.nan_to_num())


@busy
def test_a_training_that_was_saved_in_the_middle_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    task = prepared(name)
    batch, chip = course.shown(task), course.chip_of(task)
    whole = course.train(PSG, task, batch, chip, 4)
    for done in (1, 3):
        half = course.train(PSG, task, batch, chip, done)
        assert all(isinstance(tensor, torch.Tensor) for tensor in half)
        save_file({key: tensor.contiguous() for key, tensor in half._asdict().items()}, tmp_path / f"{done}")
        again = type(half)(**load_file(tmp_path / f"{done}"))
        for _ in range(4 - done):
            again, _ = PSG.step(task, again, batch, chip, course.streams(task))
        assert course.names([whole, again]) == []
