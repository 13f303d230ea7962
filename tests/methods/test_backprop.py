"""The optimiser, the training modes and the search; that the gradient is right: test_bptt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from spikebench import bptt, plugins, training
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo, Split
from spikebench.method import Task
from spikebench.networks import Network, log_probabilities
from spikebench.neurons import LIFParameters
from spikebench.seeds import Streams
from spikebench.sweep import Cell

BACKPROP: ModuleType = plugins.load("methods", "backprop")
CHECKOUT = Path(__file__).parents[2]
NETWORK = Network(3, (6,), 2, LIFParameters(0.5, 1.0))
STREAMS = Streams((31, 32))


def separable(samples: int, seed: int = 0, steps: int = 6) -> Split:
    """Two lines, one of which is stronger, and the constant line; the class is which one."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    weak, strong = torch.rand((2, samples), generator=generator) * 0.4
    lines = torch.stack([torch.where(targets == 0, strong + 0.6, weak), torch.where(targets == 0, weak, strong + 0.6)])
    x = torch.cat([lines.T, torch.ones(samples, 1)], dim=1)
    return Split(x[:, None].expand(-1, steps, -1), targets)


def course(mode: str, chip: SimulatedChip, rates: list[float], **settings: Any) -> Task:
    choice = {"learning_rate": torch.tensor(rates)}
    return Task(chip.network, DataInfo("classification", 3, 2, 6, False), BACKPROP.Settings(**settings), mode, choice)


def faulty(severity: float = 1.0) -> SimulatedChip:
    spec = FaultSpec(severity, threshold=0.4, gain_mismatch=0.4, time_constant=0.4, offset=0.1)
    return SimulatedChip(NETWORK, [spec] * 2, [5, 6])


def test_weights_start_from_their_own_draws_and_the_chip_is_not_touched() -> None:
    chip = faulty()
    task = course("in-the-loop", chip, [0.01, 0.01], initial_sd=0.3)
    state = BACKPROP.init(task, Batch.stack([separable(8)], [0, 0]), chip, STREAMS)
    assert torch.equal(state.weights, 0.3 * STREAMS.normal((NETWORK.parameters,), "start"))
    assert chip.meter.presentations.tolist() == [0, 0]


class TestWideLayers:
    """A first layer of 400 lines: its weights and steps are smaller by 2 / 0.3 / sqrt(400) = 1/3.

    The second one, of 42, is left as it is: 2 / 0.3 / sqrt(42) is above 1.
    """

    NETWORK = Network(400, (41,), 2, LIFParameters(0.5, 1.0))
    FIRST = 400 * 41

    def begin(self, **settings: Any) -> tuple[Task, SimulatedChip, Batch]:
        chip = SimulatedChip(self.NETWORK, [FaultSpec()] * 2, [5, 6])
        info = DataInfo("classification", 400, 2, 6, True)
        choice = {"learning_rate": torch.tensor([0.01, 0.002])}
        task = Task(self.NETWORK, info, BACKPROP.Settings(**settings), "in-the-loop", choice)
        generator = torch.Generator().manual_seed(0)
        spikes = (torch.rand((20, 6, 400), generator=generator) < 0.2).float()
        return task, chip, Batch.stack([Split(spikes, torch.arange(20) % 2)], [0, 0])

    def test_weights_start_smaller(self) -> None:
        task, chip, batch = self.begin()
        weights = BACKPROP.init(task, batch, chip, STREAMS).weights
        drawn = STREAMS.normal((self.NETWORK.parameters,), "start")
        torch.testing.assert_close(weights[:, : self.FIRST], 0.1 * drawn[:, : self.FIRST])
        torch.testing.assert_close(weights[:, self.FIRST :], 0.3 * drawn[:, self.FIRST :])

    def test_and_make_smaller_steps(self) -> None:
        """The first step of Adam has the size of the learning rate and the sign of the gradient."""
        task, chip, batch = self.begin()
        state = BACKPROP.init(task, batch, chip, STREAMS)
        after, _ = BACKPROP.step(task, state, batch, chip, STREAMS)
        clear = after.mean.abs() > 1e-5
        assert clear[:, : self.FIRST].any() and clear[:, self.FIRST :].any()
        steps = (state.weights - after.weights).abs() / torch.tensor([[0.01], [0.002]])
        first = clear.clone()
        first[:, self.FIRST :] = False
        torch.testing.assert_close(steps[first], torch.full_like(steps[first], 1 / 3), rtol=0.01, atol=0)
        torch.testing.assert_close(steps[clear & ~first], torch.ones_like(steps[clear & ~first]), rtol=0.01, atol=0)

    def test_the_gain_is_a_setting(self) -> None:
        for gain, expected in ((4.0, 0.2), (6.0, 0.3), (60.0, 0.3)):
            task, chip, batch = self.begin(initial_gain=gain)
            weights = BACKPROP.init(task, batch, chip, STREAMS).weights
            drawn = STREAMS.normal((self.NETWORK.parameters,), "start")
            torch.testing.assert_close(weights[:, : self.FIRST], expected * drawn[:, : self.FIRST])


@pytest.mark.parametrize("mode", ["in-the-loop", "oracle"])
def test_steps_are_those_of_torchs_adam_on_the_same_gradients(mode: str) -> None:
    """The chip's spikes forward; backward the data sheet's model in the loop, and the true one for the oracle."""
    chip = faulty()
    task = course(mode, chip, [0.01, 0.002], beta1=0.8, beta2=0.95)
    batch = Batch.stack([separable(20, s) for s in (0, 1)], [0, 1])
    state = BACKPROP.init(task, batch, chip, STREAMS)
    rows = [state.weights[b].clone().requires_grad_() for b in range(2)]
    optimisers = [torch.optim.Adam([rows[b]], lr=(0.01, 0.002)[b], betas=(0.8, 0.95), eps=1e-8) for b in range(2)]
    model = bptt.Model.of(chip.knowledge if mode == "oracle" else chip.nominal)
    for number in range(6):
        spikes = chip.repeat(1).run(state.weights, batch.inputs, batch.index)
        losses, gradient = bptt.loss_gradient(NETWORK, state.weights, batch, model, "gaussian", spikes)
        for b, optimiser in enumerate(optimisers):
            rows[b].data.copy_(state.weights[b])
            rows[b].grad = gradient[b]
            optimiser.step()
        state, info = BACKPROP.step(task, state, batch, chip, STREAMS)
        torch.testing.assert_close(state.weights, torch.stack([row.detach() for row in rows]), atol=1e-6, rtol=1e-5)
        assert torch.equal(info.traces["train_loss"], losses)
        assert int(state.round) == number + 1
    assert chip.meter.presentations.tolist() == [6 * 20] * 2


def test_the_oracle_and_the_data_sheet_disagree_on_a_faulty_chip_and_agree_on_an_ideal_one() -> None:
    batch = Batch.stack([separable(20, s) for s in (0, 1)], [0, 1])

    def stepped(mode: str, chip: SimulatedChip) -> torch.Tensor:
        task = course(mode, chip, [0.01, 0.01])
        state = BACKPROP.init(task, batch, chip, STREAMS)
        for _ in range(3):
            state, _ = BACKPROP.step(task, state, batch, chip, STREAMS)
        return state.weights

    assert not torch.equal(stepped("in-the-loop", faulty()), stepped("oracle", faulty()))
    assert torch.equal(stepped("in-the-loop", faulty(0.0)), stepped("oracle", faulty(0.0)))
    # Off-chip training is the same computation, on the chip that the harness hands over: the ideal model.
    assert torch.equal(stepped("in-the-loop", faulty(0.0)), stepped("off-chip", faulty().ideal(2)))


def test_a_step_on_the_ideal_chip_is_a_step_of_the_model_alone() -> None:
    """Weights are multiples of 1/8, so that chip and model spike alike to the last one."""
    chip = faulty(0.0)
    task = course("in-the-loop", chip, [0.01, 0.01])
    batch = Batch.stack([separable(20, s) for s in (0, 1)], [0, 1])
    batch = batch._replace(inputs=(batch.inputs * 4).round() / 4)
    state = BACKPROP.init(task, batch, chip, STREAMS)
    state = state._replace(weights=(state.weights * 16).round() / 8)
    leaf = state.weights.clone().requires_grad_()
    counts = bptt.forward(NETWORK, leaf, batch.inputs, bptt.Model.of(chip.nominal), "gaussian")
    losses = -log_probabilities(counts, 1.0).gather(2, batch.targets[..., None]).mean(dim=(1, 2))
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    after, info = BACKPROP.step(task, state, batch, chip, STREAMS)
    torch.testing.assert_close(info.traces["train_loss"].float(), losses.detach())
    # The first step of Adam has the size of the learning rate and the sign of the gradient.
    torch.testing.assert_close(after.mean, 0.1 * gradient, atol=1e-6, rtol=1e-4)
    clear = gradient.abs() > 1e-5
    assert clear.double().mean() > 0.5
    torch.testing.assert_close((state.weights - after.weights)[clear], 0.01 * gradient.sign()[clear], atol=2e-5, rtol=0)


@pytest.mark.parametrize("mode", ["in-the-loop", "oracle"])
@pytest.mark.parametrize("severity", [0.0, 0.5])
def test_a_separable_problem_is_learnt(mode: str, severity: float) -> None:
    chip = faulty(severity)
    task = course(mode, chip, [0.01, 0.01], steps=200)
    batch = Batch.stack([separable(64, s) for s in (0, 1)], [0, 1])
    state, traces, _ = training.fit(BACKPROP, task, batch, chip, STREAMS, lambda share: None)
    prediction = BACKPROP.predict(task, state, batch.inputs, batch.index, chip)
    right = prediction.probabilities[:, 0].argmax(dim=-1) == batch.targets
    assert (right.double().mean(dim=1) > 0.95).all()
    assert (traces["train_loss"][-20:].mean(dim=0) < 0.3 * traces["train_loss"][:5].mean(dim=0)).all()


@pytest.mark.parametrize("samples", [5, 10, 32, 70, 398])
def test_the_number_of_steps_is_the_same_at_every_training_size(samples: int) -> None:
    chip = faulty()
    task = course("in-the-loop", chip, [0.01, 0.01], steps=12)
    batch = Batch.stack([separable(samples)], [0, 0])
    state, traces, _ = training.fit(BACKPROP, task, batch, chip, STREAMS, lambda share: None)
    assert int(state.round) == 12 == task.settings.gradient_steps
    assert traces["train_loss"].shape == (12, 2)
    assert chip.meter.presentations.tolist() == [12 * min(samples, 32)] * 2


def test_predictions_are_the_softmax_of_the_chips_counts() -> None:
    chip = faulty()
    task = course("in-the-loop", chip, [0.01, 0.01])
    split = separable(15)
    weights = torch.randn((2, NETWORK.parameters), generator=torch.Generator().manual_seed(0))
    state = BACKPROP.State(weights, weights, weights, torch.zeros((), dtype=torch.int64))
    prediction = BACKPROP.predict(task, state, split.inputs[None], torch.zeros(2, dtype=torch.long), chip)
    counts = chip.run(weights, split.inputs[None], torch.zeros(2, dtype=torch.long))[-1].sum(dim=2)
    torch.testing.assert_close(prediction.probabilities[:, 0], torch.softmax(counts, dim=-1))


TOY = """
from dataclasses import dataclass

import torch

from spikebench.data import DataSettings, Provenance, SpikeData, Split
from spikebench.encoding import constant_current, with_constant_line

KINDS = ("real",)


@dataclass(frozen=True)
class Settings(DataSettings):
    validation: str = "true"


def part(samples, labels):
    targets = torch.arange(samples) % 2
    x = torch.stack([0.2 + 0.7 * targets, 0.9 - 0.7 * targets], dim=1).float()
    x = x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(samples))
    return Split(with_constant_line(constant_current(x, 6)), {"true": targets, "turned": 1 - targets}[labels])


def load(settings):
    source = Provenance("toy", "simulated", "a test", "0", "MIT", "none")
    train, validation, test = part(40, "true"), part(10, settings.validation), part(30, "turned")
    return SpikeData("classification", train, validation, test, ("a", "b"), False, source, settings.validation)
"""


def test_the_learning_rate_is_chosen_on_validation_data_only(tmp_path: Path) -> None:
    """Turned validation labels turn the choice to the rate that learns least; turned test labels do not."""
    for folder in ("methods", "datasets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "datasets" / "toy.py").write_text(TOY)
    shutil.copy(CHECKOUT / "methods" / "backprop.py", tmp_path / "methods")
    method = plugins.load("methods", "backprop", tmp_path)
    rates = sorted(method.Settings().SEARCH["learning_rate"])
    chosen = {}
    for labels in ("true", "turned"):
        cell = Cell(
            experiment="toy", dataset="toy", data_kind="real", data_settings=json.dumps({"validation": labels}),
            network='{"hidden":[6]}', method="backprop", mode="in-the-loop", variant="", settings="{}", fault="none",
            severity=0.0, training_size=50, repetition=0, preset="test",
        )  # fmt: skip
        (row,) = training.train(training.Work([cell], {"steps": 60}, {cell.fault: {}}, tmp_path))
        assert row["status"] == "ok"
        chosen[labels] = json.loads(row["choice"])["learning_rate"]
        # One training a candidate and the last one, all paid for, as is the validation of each candidate.
        assert row["gradient_steps"] == 60 * (1 + len(rates))
        assert row["chip_presentations"] == 60 * 32 * (1 + len(rates)) + 10 * len(rates)
    assert chosen["turned"] == pytest.approx(rates[0])
    assert chosen["true"] > rates[0]
