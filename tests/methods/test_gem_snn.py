"""What the method presents, programs and decides; that its rules are right: test_compartments."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from spikebench import compartments, fitting, plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.compartments import Rule
from spikebench.data import Batch, DataInfo, Split
from spikebench.method import Task
from spikebench.networks import Network
from spikebench.neurons import GLMParameters, raised_cosines
from spikebench.seeds import Streams

GEM: ModuleType = plugins.load("methods", "gem_snn")
STEPS, CELLS = 20, 3
STREAMS = Streams((31, 32, 33))


def course(
    variant: str, mode: str = "off-chip", rate: float = 0.03, lines: int = 6, hidden: int = 4, steps: int = STEPS,
    task: str = "classification", output_feedback: bool = False, cells: int = CELLS, **settings: Any,
) -> Task:  # fmt: skip
    info = DataInfo(task, lines + 1, 2, steps, True)  # type: ignore[arg-type]
    layers = {"hidden": [hidden], "filters": 2, "output_feedback": output_feedback}
    network = GEM.network(info, layers, variant)
    chosen = GEM.Settings(**{"epochs": 1} | settings)
    return Task(network, info, chosen, mode, {"learning_rate": torch.full((cells,), rate)}, variant)


def chip_of(task: Task, **fault: float) -> SimulatedChip:
    """As many devices as the task has cells."""
    cells = len(task.choice["learning_rate"])
    return SimulatedChip(task.network, [FaultSpec(1.0, **fault)] * cells, range(5, 5 + cells), binary_inputs=True)


def separable(samples: int, seed: int = 0) -> Split:
    """Three of six lines spike often, the others seldom; the class says which three."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    often = torch.tensor([[0.6, 0.6, 0.6, 0.1, 0.1, 0.1, 1], [0.1, 0.1, 0.1, 0.6, 0.6, 0.6, 1]])[targets]
    return Split((torch.rand((samples, STEPS, 7), generator=generator) < often[:, None]).float(), targets)


def exclusive(samples: int) -> Split:
    """Two bits, each on one of two lines; the class is whether they differ, which no sum of the lines can tell."""
    a, b = torch.arange(samples) // 2 % 2, torch.arange(samples) % 2
    lines = torch.stack([a, 1 - a, b, 1 - b, torch.ones_like(a)], dim=1).float()
    return Split(lines[:, None].expand(-1, STEPS, -1).contiguous(), a ^ b)


def fitted(task: Task, split: Split, chip: SimulatedChip) -> tuple[Any, dict[str, torch.Tensor]]:
    """The state and traces after the settings' epochs."""
    batch, cells = Batch.stack([split], [0] * chip.devices), chip.devices
    found = fitting.fit(GEM, task, batch, chip, Streams(tuple(range(31, 31 + cells))), lambda share: None)
    return found.state, found.traces


def accuracy(task: Task, state: Any, split: Split, chip: SimulatedChip) -> torch.Tensor:
    """Of each cell, [B]."""
    test = Batch.stack([split], [0] * chip.devices)
    probabilities = GEM.predict(task, state, test.inputs, test.index, chip).probabilities.mean(dim=1)
    return (probabilities.argmax(dim=2) == split.targets).float().mean(dim=1)


# What is learnt


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("mode", GEM.MODES)
@pytest.mark.parametrize("variant", GEM.VARIANTS)
def test_every_variant_learns_what_is_easily_separated(variant: str, mode: str, feedback: bool) -> None:
    task = course(variant, mode, output_feedback=feedback, compartments=3)
    chip = chip_of(task)
    start = GEM.init(task, Batch.stack([separable(2)], [0] * CELLS), chip, STREAMS)
    assert accuracy(task, start, separable(60, seed=1), chip).mean() < 0.75
    state, traces = fitted(task, separable(40), chip)
    assert accuracy(task, state, separable(60, seed=1), chip).min() > 0.9
    assert traces["log_likelihood"].shape == (40, CELLS)
    first, last = (traces["log_likelihood"][part].mean() for part in (slice(5), slice(-5, None)))
    assert last > 0.7 * first, "targets surprise it less"


@pytest.mark.parametrize(
    ("variant", "rate", "settings"),
    [
        ("single-sample", 0.03, {"baseline": "scalar"}),
        ("mb", 0.03, {"baseline": "scalar"}),
        ("iw", 0.01, {"baseline": "scalar"}),
        ("gem", 0.05, {}),
    ],
)
def test_hidden_neurons_learn_what_outputs_alone_cannot(variant: str, rate: float, settings: dict[str, Any]) -> None:
    common = {"decay": 0.5, "compartments": 10, "initial": 1.0, "epochs": 100}
    task = course(variant, rate=rate, lines=4, hidden=6, **common, **settings)
    chip = chip_of(task)
    state, _ = fitted(task, exclusive(16), chip)
    assert accuracy(task, state, exclusive(40), chip).min() > 0.9


def test_with_one_compartment_gem_teaches_hidden_neurons_nothing() -> None:
    common = {"decay": 0.5, "initial": 1.0, "epochs": 100}
    task = course("gem", rate=0.05, lines=4, hidden=6, cells=8, compartments=1, **common)
    chip = chip_of(task)
    state, _ = fitted(task, exclusive(16), chip)
    assert accuracy(task, state, exclusive(40), chip).mean() < 0.7


@pytest.mark.parametrize("variant", GEM.VARIANTS)
def test_in_the_loop_of_an_ideal_chip_training_is_statistically_that_of_the_model(variant: str) -> None:
    """Weights and traces of many cells that begin alike and are shown the same."""
    cells, rounds = 150, 6
    found = []
    for mode in GEM.MODES:
        task = course(variant, mode, rate=0.2, cells=cells, compartments=3)
        chip, split = chip_of(task), separable(rounds)
        start = torch.randn(task.network.parameters, generator=torch.Generator().manual_seed(1))
        start = start * task.network.connected
        state = GEM.State(start.repeat(cells, 1), torch.zeros((), dtype=torch.int64))
        streams = Streams(tuple(range(cells)))
        for n in range(rounds):
            one = Batch.stack([split[torch.tensor([n])]], [0] * cells)
            state, info = GEM.step(task, state, one, chip, streams)
        seen = torch.stack([info.traces["log_likelihood"], info.traces["hidden_rate"]], dim=1)
        found.append(torch.cat([(state.weights - start)[:, task.network.connected], seen], dim=1))
    model, loop = found
    spread = (model.var(dim=0) / cells + loop.var(dim=0) / cells).sqrt()
    z = (model - loop).mean(dim=0) / spread
    assert z.abs().max() < 4
    assert z.square().mean().sqrt() < 1.3
    assert (model.std(dim=0) / loop.std(dim=0)).log().abs().max() < 0.35
    moved = model.mean(dim=0).abs() > 10 * spread
    assert moved.float().mean() > 0.2, "there was something to tell apart"


def test_sequences_are_learnt_too() -> None:
    """Four phases, each with a line of its own; the outputs' pattern is given a step later."""
    phase = torch.arange(STEPS) // 2 % 4
    lines = torch.nn.functional.one_hot(phase, 4).float()
    inputs = torch.cat([lines, torch.ones(STEPS, 1)], dim=1)
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])[phase].roll(1, dims=0)
    task = course("gem", rate=0.3, lines=4, task="sequence", epochs=80, inference=9)
    chip, split = chip_of(task), Split(inputs[None], targets[None])
    state, traces = fitted(task, split, chip)
    assert traces["log_likelihood"][0].mean() < -20
    assert traces["log_likelihood"][-5:].mean() > -10
    batch = Batch.stack([split], [0] * CELLS)
    outputs = GEM.predict(task, state, batch.inputs, batch.index, chip.repeat(1)).outputs
    assert outputs.shape == (CELLS, 9, 1, STEPS, 2)
    assert outputs.dtype == torch.float32 and outputs.unique().tolist() == [0, 1]
    assert (outputs - targets).abs().mean() < 0.2
    assert not torch.equal(outputs[:, 0], outputs[:, 1]), "runs differ"
    others = GEM.estimates(task, state, batch.inputs, batch.index, chip.repeat(1))
    assert torch.equal(others["mean"], outputs.mean(dim=1, keepdim=True))
    assert torch.equal(others["majority"], (outputs.sum(dim=1, keepdim=True) >= 5).float())
    assert (others["majority"] - targets).abs().mean() < (outputs - targets).abs().mean()


# What a presentation is


def test_a_step_presents_the_cells_first_example_with_its_class_as_spikes() -> None:
    """And with the learning rate, divided by 10 after every 2 presentations, and random numbers of its own."""
    task = course("iw", compartments=3, rate_drop=10.0, drop_every=2)
    first, second = separable(4), separable(4, seed=5)
    batch = Batch.stack([first, Split(second.inputs, 1 - second.targets)], [1, 0, 1])
    state = GEM.init(task, batch, chip_of(task), STREAMS)
    learnt = state.weights.clone()
    for done in range(5):
        state, info = GEM.step(task, state, batch, chip_of(task), STREAMS)
        inputs, of_class = torch.stack([second.inputs[0], first.inputs[0], second.inputs[0]]), torch.tensor([1, 0, 1])
        targets = torch.zeros(CELLS, STEPS, 2)
        targets[torch.arange(CELLS), :, of_class] = 1
        rates = torch.full((CELLS,), (0.03, 0.03, 0.003, 0.003, 0.0003)[done])
        keys = STREAMS.keys("hidden", done)
        shown = compartments.present(task.network, Rule("iw", 3), learnt, inputs, targets, rates, keys)
        torch.testing.assert_close(state.weights, learnt, atol=1e-7, rtol=1e-6)
        assert int(state.round) == done + 1
        assert set(info.traces) == set(shown._fields)
        for name, values in shown._asdict().items():
            torch.testing.assert_close(info.traces[name], values)
    before = learnt.clone()
    GEM.step(task, state, batch, chip_of(task), STREAMS)
    assert torch.equal(learnt, before)


def test_weights_begin_uniform_and_the_chip_is_not_touched() -> None:
    task = course("gem", hidden=40, initial=0.3)
    chip = chip_of(task)
    weights = GEM.init(task, Batch.stack([separable(2)], [0] * CELLS), chip, STREAMS).weights
    assert not weights[:, ~task.network.connected].any()
    drawn = weights[:, task.network.connected].double().flatten() / 0.3
    assert drawn.abs().max() <= 1
    counts = torch.histc(drawn, 10, -1, 1)
    expected = len(drawn) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 28  # 9 degrees of freedom, once in a thousand
    assert not torch.equal(weights[0], weights[1])
    assert chip.meter.presentations.tolist() == [0] * CELLS


@pytest.mark.parametrize("variant", GEM.VARIANTS)
def test_in_the_loop_the_chip_is_shown_each_compartment_and_programmed_at_every_step(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = course(variant, "in-the-loop", compartments=3)
    chip, shown = chip_of(task), []
    effective = chip.program
    monkeypatch.setattr(chip, "program", lambda weights: shown.append(weights[:, 0].clone()) or effective(weights))
    batch = Batch.stack([separable(2)], [0] * CELLS)
    start = GEM.init(task, batch, chip, STREAMS)
    state, info = GEM.step(task, start, batch, chip, STREAMS)
    assert len(shown) == 1 + STEPS
    assert torch.equal(shown[0], start.weights)
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(shown))
    assert torch.equal(shown[-1], state.weights)
    number = 1 if variant == "single-sample" else 3
    assert chip.meter.presentations.tolist() == [number] * CELLS
    assert info.traces["hidden_rate"].shape == (CELLS,)


def test_off_chip_the_chip_is_not_touched() -> None:
    task = course("gem")
    chip = chip_of(task)
    fitted(task, separable(4), chip)
    assert chip.meter.presentations.tolist() == [0] * CELLS


def test_in_the_loop_hidden_spikes_are_the_devices() -> None:
    task = course("mb", "in-the-loop", compartments=3)
    for fault, rate in (("saturated", 1.0), ("dead", 0.0)):
        _, traces = fitted(task, separable(2), chip_of(task, **{fault: 1.0}))
        assert traces["hidden_rate"].unique().tolist() == [rate]


# What is decided

#: Output spikes of four runs, which say 0, 0, 1 and 1; 0, 0, 0 and 2; 0 or 1, 0, 1 and 1; and nothing at all.
COUNTS = torch.tensor(
    [
        [[5, 1, 0], [6, 0, 0], [0, 9, 0], [1, 8, 2]],
        [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 20]],
        [[4, 4, 1], [4, 1, 0], [0, 3, 0], [1, 3, 1]],
        [[0, 0, 0]] * 4,
    ]
).float()  # [N, S, C]


def test_each_run_has_a_vote_which_it_shares_among_the_tied() -> None:
    found = GEM._vote(COUNTS.transpose(0, 1)[None])
    votes = torch.tensor([[2, 2, 0], [3, 0, 1], [1.5, 2.5, 0], [4 / 3] * 3]) / 4
    spikes = torch.tensor([[12 / 32, 18 / 32, 2 / 32], [3 / 23, 0, 20 / 23], [9 / 22, 11 / 22, 2 / 22], [1 / 3] * 3])
    assert found.shape == (1, 1, 4, 3)
    torch.testing.assert_close(found[0, 0], (1 - GEM.TIES) * votes + GEM.TIES * spikes)
    assert found[0, 0, :3].argmax(dim=1).tolist() == [1, 0, 1], (
        "total spikes decide where votes are equal, and only there"
    )
    torch.testing.assert_close(found[0, 0, 3], torch.full((3,), 1 / 3))


def test_a_single_vote_weighs_more_than_all_spikes() -> None:
    """26 of 51 runs say 0 by one spike, the others 1 by a thousand."""
    counts = torch.zeros(1, 51, 1, 2)
    counts[:, :26, :, 0], counts[:, 26:, :, 1] = 1, 1000
    assert GEM._vote(counts).argmax() == 0
    assert GEM._rates(counts).argmax() == 1


def test_rates_are_shares_of_all_spikes_and_noise_below_0_is_none() -> None:
    found = GEM._rates(torch.tensor([[[[3.0, -1.0]], [[3.0, 2.0]]], [[[-1.0, -2.0]], [[-0.5, -3.0]]]]))
    assert found.flatten(1).tolist() == [[0.75, 0.25], [0.5, 0.5]]


def test_predictions_are_votes_of_the_chips_runs_and_estimates_those_of_others() -> None:
    task = course("gem", inference=7)
    chip = chip_of(task)
    state, _ = fitted(task, separable(10), chip)
    test = Batch.stack([separable(15, seed=1)], [0] * CELLS)

    def counts(runs: int) -> torch.Tensor:
        fresh = chip.repeat(1)
        counted: torch.Tensor = fresh.evaluate(state.weights[:, None].expand(-1, runs, -1), test.inputs, test.index)
        assert fresh.meter.presentations.tolist() == [15 * runs] * CELLS
        return counted

    asked = chip.repeat(1)
    found = GEM.predict(task, state, test.inputs, test.index, asked).probabilities
    assert asked.meter.presentations.tolist() == [15 * 7] * CELLS
    assert torch.equal(found, GEM._vote(counts(7)))
    torch.testing.assert_close(found.sum(dim=3), torch.ones(CELLS, 1, 15))
    others = GEM.estimates(task, state, test.inputs, test.index, chip.repeat(1))
    fifty = counts(50)
    for runs in (1, 2, 5, 10, 20, 50):
        assert torch.equal(others.pop(f"votes-{runs}"), GEM._vote(fifty[:, :runs]))
        assert torch.equal(others.pop(f"rates-{runs}"), GEM._rates(fifty[:, :runs]))
    assert not others


def test_a_bits_majority_is_more_than_half_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four runs: none, one, two, three or all have the bit."""
    bits = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]]).float()
    monkeypatch.setattr(GEM, "_generated", lambda *arguments: bits[None, :, None, None])
    task = course("gem", task="sequence")
    found = GEM.estimates(task, None, torch.zeros(1), torch.zeros(1), chip_of(task))
    assert found["mean"].shape == found["majority"].shape == (1, 1, 1, 1, 5)
    assert found["mean"].flatten().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found["majority"].flatten().tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("variant", GEM.VARIANTS)
def test_diagnostics_say_what_was_told_a_step(variant: str) -> None:
    """To where signals are formed, and back, of 4 hidden neurons and 2 outputs."""
    task = course(variant, inference=1, compartments=3)
    chip = chip_of(task)
    state, _ = fitted(task, separable(2), chip)
    test = Batch.stack([separable(2)], [0] * CELLS)
    found = GEM.predict(task, state, test.inputs, test.index, chip).diagnostics
    expected = {"single-sample": (2, 4, 1), "mb": (6, 12, 3), "iw": (6, 6 + 4, 3), "gem": (6, 6 + 12, 3)}[variant]
    names = ("to_centre", "from_centre", "compartments")
    assert {name: values.tolist() for name, values in found.items()} == {
        name: [number] * CELLS for name, number in zip(names, expected, strict=True)
    }


# What is likely


def exact(network: Network, weights: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """p(h||x) and ln p(x|h) of all paths of the hidden neurons, [2, paths], for inputs [T, I] and targets [T, O]."""
    (hidden,), steps = network.hidden, len(inputs)
    paths = np.array(list(itertools.product((0.0, 1.0), repeat=steps * hidden))).reshape(-1, steps, hidden)
    shared = np.broadcast_to(
        torch.cat([inputs[:, :-1], targets], dim=1).double(), (len(paths), steps, network.inputs + 1)
    )
    signals = np.concatenate([shared[..., : network.inputs - 1], paths, shared[..., network.inputs - 1 :]], axis=2)
    filters, layers = raised_cosines(network.neuron).double().numpy(), network.unpack(weights.double())
    found = np.zeros((2, len(paths)))
    for t in range(steps):
        phi = np.zeros((*signals[:, t].shape, filters.shape[1]))
        for d in range(min(t, len(filters))):
            phi += signals[:, t - 1 - d, :, None] * filters[d]
        for part, (layer, spikes) in enumerate(
            zip(layers, (paths[:, t], shared[:, t, network.inputs - 1 :]), strict=True)
        ):
            w = layer.numpy()
            u = phi.reshape(len(paths), -1)[:, : w.shape[1] - 1] @ w[:, :-1].T + w[:, -1]
            found[part] -= np.logaddexp(0, np.where(spikes > 0, -u, u)).sum(axis=1)
    assert np.exp(found[0]).sum() == pytest.approx(1.0, abs=1e-12)
    return np.stack([np.exp(found[0]), found[1]])


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("kind", ["classification", "sequence"])
def test_scores_are_the_enumerated_likelihood_of_the_target_spikes(kind: str, feedback: bool) -> None:
    """Each run's is that of one of 64 paths of two hidden neurons; the mean probability nears p(x)."""
    runs, generator = 4000, torch.Generator().manual_seed(2)
    task = course("gem", lines=2, hidden=2, steps=3, task=kind, output_feedback=feedback, cells=2, scored=runs)
    weights = 1.5 * torch.randn(2, task.network.parameters, generator=generator) * task.network.connected
    inputs = (torch.rand(2, 3, 3, 3, generator=generator) < 0.5).float()
    labels = torch.tensor([[0, 1, 1], [1, 0, 1]])
    sequence = (torch.rand(2, 3, 3, 2, generator=generator) < 0.5).float()
    spikes = torch.eye(2)[labels][:, :, None].expand(-1, -1, 3, -1) if kind == "classification" else sequence
    index, state = torch.tensor([1, 0]), GEM.State(weights, torch.zeros((), dtype=torch.int64))
    chip = chip_of(task)
    given = labels if kind == "classification" else sequence
    found = GEM.score(task, state, inputs, given, index, chip).numpy()
    assert found.shape == (2, runs, 3)
    assert found.dtype == np.float64
    for b, n in itertools.product(range(2), range(3)):
        probability, values = exact(task.network, weights[b], inputs[index[b], n], spikes[index[b], n])
        scores = found[b, :, n]
        assert np.abs(scores[:, None] - values).min(axis=1).max() < 1e-5
        for estimate, mean in ((scores, probability @ values), (np.exp(scores), probability @ np.exp(values))):
            assert abs(estimate.mean() - mean) < 4.5 * estimate.std() / runs**0.5
    assert chip.meter.presentations.tolist() == [3 * runs] * 2


# What it is told


def test_the_rule_of_a_variant_is_that_of_the_settings_but_a_single_sample_has_one_compartment() -> None:
    settings = GEM.Settings(compartments=7, decay=0.2, baseline="scalar", divided=True)
    assert settings.rule("single-sample") == Rule("single-sample", 1, 0.2, "scalar", True)
    for name in ("mb", "iw", "gem"):
        assert settings.rule(name) == Rule(name, 7, 0.2, "scalar", True)
    assert {GEM.VARIANTS[name] for name in GEM.VARIANTS} == set(compartments.RULES)


def test_there_is_an_update_at_every_step_of_every_example() -> None:
    settings = GEM.Settings(epochs=3)
    assert fitting.rounds(settings, 40) == 120
    assert fitting.gradient_steps(settings, 40, 80) == 120 * 80
    assert GEM.Settings(learning_rates=[0.1, 0.2]).SEARCH == {"learning_rate": (0.1, 0.2)}


def test_the_sweep_may_set_the_filters_and_whether_outputs_hear_themselves() -> None:
    info = DataInfo("classification", 7, 2, STEPS, True)
    assert GEM.network(info, {"hidden": [5]}, "gem") == Network(7, (5,), 2, GLMParameters())
    layers = {"hidden": [5], "filters": 3, "output_feedback": False}
    expected = Network(7, (5,), 2, GLMParameters(filters=3, output_feedback=False))
    assert GEM.network(info, layers, "gem") == expected
    with pytest.raises(ValueError, match="expected one layer of GLM neurons"):
        GEM.network(info, {}, "gem")


def test_the_numbers_of_runs_in_testing_change_no_training() -> None:
    made = []
    for settings in ({}, {"inference": 3, "scored": 2}):
        task = course("mb", **settings)
        made.append(fitted(task, separable(6), chip_of(task))[0].weights)
    assert torch.equal(*made)
    other = fitted(replace(course("mb"), variant="iw"), separable(6), chip_of(course("iw")))[0].weights
    assert not torch.equal(made[0], other)
