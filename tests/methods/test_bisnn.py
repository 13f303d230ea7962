"""The variants, what they show the chip, and what they predict; that the rules are right: test_local_learning."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from spikebench import bernoulli, local_learning, plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo, Split
from spikebench.errors import Unavailable
from spikebench.method import Task
from spikebench.seeds import Streams

BISNN: ModuleType = plugins.load("methods", "bisnn")
STEPS, STREAMS = 20, Streams((31, 32))
TRAININGS = sorted(set(BISNN.VARIANTS.values()))


def course(training: str, mode: str = "off-chip", task: str = "classification", **settings: Any) -> Task:
    info = DataInfo(task, 7, 0 if task == "regression" else 2, STEPS, True)  # type: ignore[arg-type]
    network = BISNN.network(info, {"hidden": [8]}, training)
    choice = {"learning_rate": torch.tensor([1.0, 0.3])}
    return Task(network, info, BISNN.Settings(**settings), mode, choice, training)


def separable(samples: int, seed: int = 0) -> Split:
    """Three of six lines spike often, the others seldom; the class says which three."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    often = torch.tensor([[0.6, 0.6, 0.6, 0.1, 0.1, 0.1, 1], [0.1, 0.1, 0.1, 0.6, 0.6, 0.6, 1]])[targets]
    return Split((torch.rand((samples, STEPS, 7), generator=generator) < often[:, None]).float(), targets)


def chip_of(task: Task, **fault: float) -> SimulatedChip:
    return SimulatedChip(task.network, [FaultSpec(severity=1.0, **fault)] * 2, [5, 6], binary_inputs=True)


def trained(task: Task, chip: SimulatedChip, rounds: int = 15) -> Any:
    batch = Batch.stack([separable(40)], [0, 0])
    state = BISNN.init(task, batch, chip, STREAMS)
    for _ in range(rounds):
        state, _ = BISNN.step(task, state, batch, chip, STREAMS)
    return state


def predicted(task: Task, state: Any, chip: SimulatedChip, variant: str) -> torch.Tensor:
    """Probabilities [B, N, C] of new examples, averaged over the samples."""
    test = Batch.stack([separable(60, seed=1)], [0, 0])
    prediction = BISNN.predict(replace(task, variant=variant), state, test.inputs, test.index, chip)
    return prediction.probabilities.mean(dim=1)


@pytest.mark.parametrize("mode", BISNN.MODES)
@pytest.mark.parametrize("variant", BISNN.VARIANTS)
def test_every_variant_learns_what_is_easily_separated(variant: str, mode: str) -> None:
    task = course(BISNN.VARIANTS[variant], mode)
    chip = chip_of(task)
    untrained = trained(task, chip, rounds=0)
    state = trained(task, chip)
    right = predicted(task, state, chip, variant).argmax(dim=2) == separable(60, seed=1).targets
    assert right.float().mean() > 0.85
    assert right.float().mean(dim=1).min() > 0.75
    before = predicted(task, untrained, chip, variant).argmax(dim=2) == separable(60, seed=1).targets
    assert before.float().mean() < 0.75


@pytest.mark.parametrize("training", TRAININGS)
def test_it_begins_from_its_own_draws_and_the_chip_is_not_touched(training: str) -> None:
    task = course(training, initial=2.0)
    chip = chip_of(task)
    state = BISNN.init(task, Batch.stack([separable(4)], [0, 0]), chip, STREAMS)
    magnitudes = state.natural.abs().unique()
    if training == "full-precision":
        assert 0 < magnitudes.min() < 0.2 and 1.8 < magnitudes.max() <= 2
    else:
        assert magnitudes.tolist() == [2.0]
    assert state.readouts.abs().unique().tolist() == [1.0]
    assert not torch.equal(state.natural[0], state.natural[1])
    assert chip.meter.presentations.tolist() == [0, 0]


def test_binary_weights_take_a_bit_each_and_real_ones_32() -> None:
    sizes = {training: course(training).network.memory_bits for training in TRAININGS}
    assert sizes == {"bayes": 48, "straight-through": 48, "full-precision": 48 * 32}


@pytest.mark.parametrize("training", TRAININGS)
def test_the_chip_is_shown_signs_alone_but_at_full_precision(training: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = course(training, "in-the-loop")
    chip, shown = chip_of(task), []
    effective = chip.program
    monkeypatch.setattr(chip, "program", lambda weights: shown.append(effective(weights)) or shown[-1])
    trained(task, chip, rounds=2)
    assert len(shown) == 2 * (1 + STEPS - task.settings.silent(STEPS))  # the first weights, and after every update
    binary = all(bool((weights.abs() == 1).all()) for weights in shown)
    assert binary == (training != "full-precision")


def test_variants_read_the_same_state_as_their_names_say() -> None:
    task = course("bayes", ensemble=5)
    chip = chip_of(task)
    state = trained(task, chip, rounds=3)
    uncertain = state._replace(natural=0.2 * state.natural)
    asked = replace(task, variant="bayes-ensemble")
    test = Batch.stack([separable(60, seed=1)], [0, 0])
    others = BISNN.estimates(asked, uncertain, test.inputs, test.index, chip)
    assert torch.equal(others["mode"].mean(dim=1), predicted(task, uncertain, chip, "bayes-mode"))
    assert torch.equal(others["ensemble-5"].mean(dim=1), predicted(task, uncertain, chip, "bayes-ensemble"))
    assert others["ensemble-20"].shape == (2, 20, 60, 2)
    assert torch.equal(others["ensemble-20"][:, :2], others["ensemble-2"])
    assert not torch.equal(others["mode"], others["ensemble-1"])


def test_a_certain_posterior_is_its_mode() -> None:
    task = course("bayes", ensemble=5)
    chip = chip_of(task)
    state = trained(task, chip, rounds=1)
    certain = state._replace(natural=50 * bernoulli.sign(state.natural))
    mode = predicted(task, certain, chip, "bayes-mode")
    torch.testing.assert_close(predicted(task, certain, chip, "bayes-ensemble"), mode)


def test_probabilities_are_averaged_over_the_steps_after_burn_in() -> None:
    """Against the chip's own spikes, the read-out matrix and the logistic function, one example at a time."""
    task = course("straight-through", burn_in=0.25)
    chip = chip_of(task)
    state = trained(task, chip, rounds=2)
    test = Batch.stack([separable(60, seed=1)], [0, 0])
    [spikes] = chip.run(bernoulli.sign(state.natural), test.inputs, test.index)
    found = predicted(task, state, chip, "straight-through")
    for b in range(2):
        for n in (0, 7, 59):
            values = [float(state.readouts[b] @ spikes[b, n, t].float()) / 8**0.5 for t in range(5, STEPS)]
            mean = torch.tensor(values).sigmoid().mean()
            torch.testing.assert_close(found[b, n], torch.stack([1 - mean, mean]))


def test_read_noise_reaches_the_prediction() -> None:
    task = course("straight-through")
    state = trained(task, chip_of(task), rounds=2)
    quiet, noisy = (predicted(task, state, chip_of(task, read_noise=s), "straight-through") for s in (0.0, 1.0))
    assert (quiet - noisy).abs().mean() > 0.01


@pytest.mark.parametrize("variant", BISNN.VARIANTS)
def test_values_are_learnt_too(variant: str) -> None:
    task = course(BISNN.VARIANTS[variant], task="regression")
    chip, split = chip_of(task), separable(40)
    batch = Batch.stack([Split(split.inputs, 0.3 + 0.6 * split.targets[:, None].float())], [0, 0])
    state = BISNN.init(task, batch, chip, STREAMS)
    for _ in range(30):
        state, info = BISNN.step(task, state, batch, chip, STREAMS)
    asked = replace(task, variant=variant)
    outputs = BISNN.predict(asked, state, batch.inputs, batch.index, chip).outputs.mean(dim=1)
    assert (outputs - batch.targets).square().mean().sqrt() < 0.25  # 0.3 is the best that a constant can do
    assert 0 < info.traces["boxcar_share"].min() < 0.5


def test_convolutions_need_pictures() -> None:
    with pytest.raises(Unavailable, match="convolutions look at pictures"):
        BISNN.network(DataInfo("classification", 7, 2, STEPS, True), {"convolutions": [[4, 3, 1]]}, "bayes")


def test_the_loss_is_that_of_the_task() -> None:
    kinds = {
        BISNN._learning(course("bayes")).loss,
        BISNN._learning(course("bayes", task="regression")).loss,
        BISNN._learning(replace(course("bayes"), network=replace(course("bayes").network, outputs=3))).loss,
    }
    assert kinds == set(local_learning.LOSSES)
