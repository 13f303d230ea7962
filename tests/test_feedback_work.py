"""What training a feedback network takes, counted by hand on three neurons, and the energies made of it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import feedback_course as course
import pytest
import torch

from spikebench.data import Batch
from spikebench.feedback_training import State
from spikebench.method import Task

STEPS, BACKWARD = 3, 4
#: Neuron A gets 1 at every step and spikes in the first and the third; B gets nothing; the last spikes with A.
#: Of A: input, feedback, bias; of B; of the last: from A, from B, bias.
WEIGHTS = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.1, 0.0]])
#: By hand. A's two spikes reach one neuron, the last one's first spike two, its second comes too late; three biases act
#: in each of three steps. The input reaches two neurons. Weights: 2 + 2 + 2.
FORWARD = {
    "forward_spikes": 2 + 2,
    "forward_additions": 2 * 1 + 1 * 2 + 3 * STEPS,
    "input_macs": 2 * STEPS,
    "gradient_macs": 6,
    "neuron_updates": 3 * STEPS,
}
#: The slope is so large that the last couple spikes at every step, which reaches A and B; A spikes with it, and its
#: spikes but the last come back.
BACKWARD_OF = {
    "spide": {
        "backward_spikes": 2 * BACKWARD,
        "backward_additions": 2 * BACKWARD + BACKWARD - 1,
        "neuron_updates": 3 * (STEPS + BACKWARD),
    },
    # Without an effect of the feedback one product says that the adjoint is the slope; it takes two matrices of two.
    "ide": {"products": 1, "backward_macs": 4},
    # Each step goes back through both matrices, and makes a gradient of all three.
    "feedback_bptt": {"backward_macs": 4 * STEPS, "gradient_macs": 6 * STEPS},
}


def tiny(method: ModuleType, cells: int = 2, **settings: Any) -> tuple[Task, State, Batch]:
    """Three neurons, a read-out whose slope is large, and two examples alike."""
    given = {"backward_steps": BACKWARD} if method is course.SPIDE else {}
    task = course.course(
        method, "2-1 (F2)", (), 2, STEPS, cells=cells, rate=0.0, loss_scale=100.0, **{**given, **settings}
    )
    inputs = torch.ones(1, 2, 1, 2).expand(-1, -1, STEPS, -1)
    batch = Batch(inputs, torch.zeros((1, 2), dtype=torch.int64), torch.zeros(cells, dtype=torch.int64))
    state = course.begin(method, task, batch, course.chip_of(task))
    read_out = torch.tensor([[[-2.0, 0.0], [2.0, 0.0]]]).repeat(cells, 1, 1)
    return task, state._replace(weights=WEIGHTS.repeat(cells, 1), read_out=read_out), batch


def diagnostics(method: ModuleType, rounds: int = 1, **settings: Any) -> dict[str, list[float]]:
    """After rounds that change no weight."""
    task, state, batch = tiny(method, **settings)
    chip = course.chip_of(task)
    for _ in range(rounds):
        state, _ = method.step(task, state, batch, chip, course.streams(task))
    found = method.predict(task, state, batch.inputs, batch.index, chip).diagnostics
    return {name: values.tolist() for name, values in found.items()}


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("name", course.METHODS)
def test_work_an_example_by_hand(name: str, rounds: int) -> None:
    found = diagnostics(course.METHODS[name], rounds)
    counted = {**dict.fromkeys(("backward_spikes", "backward_additions", "backward_macs", "products"), 0)}
    counted |= FORWARD | BACKWARD_OF[name]
    assert {own: found[own] for own in counted} == {own: [number] * 2 for own, number in counted.items()}
    assert found["forward_rate"] == pytest.approx([4 / 9] * 2)
    assert (found["solver_macs"][0] > 0) == (name == "ide")
    if name == "spide":
        assert found["backward_rate"] == pytest.approx([8 / (3 * BACKWARD)] * 2)
    probed = ("gradient_error", "gradient_cosine", "clipped_error", "rate_error")
    assert all(found[own] == [0.0, 0.0] for own in probed), "not asked for"


@pytest.mark.parametrize("name", course.METHODS)
def test_energies_are_additions_and_multiply_accumulates(name: str) -> None:
    """0.9 and 4.6 pJ."""
    found = diagnostics(course.METHODS[name])
    backward = BACKWARD_OF[name]
    assert found["energy_forward_pj"] == pytest.approx([0.9 * 13] * 2)
    expected = 0.9 * backward.get("backward_additions", 0) + 4.6 * backward.get("backward_macs", 0)
    assert found["energy_backward_pj"] == pytest.approx([expected] * 2) and expected > 0


def test_the_state_counts_examples() -> None:
    task, state, batch = tiny(course.SPIDE)
    for number in (1, 2):
        state, _ = course.SPIDE.step(task, state, batch, course.chip_of(task), course.streams(task))
        assert state.work[:, 0].tolist() == [2.0 * number] * 2
        assert state.work[:, 1].tolist() == [2.0 * 4 * number] * 2
    assert state.work.dtype == torch.float64


def test_what_a_step_reports() -> None:
    """The loss, and spikes a neuron and step of both stages; of a solver its products and residual an example."""
    for name, method in course.METHODS.items():
        task, state, batch = tiny(method)
        _, info = method.step(task, state, batch, course.chip_of(task), course.streams(task))
        # The last neuron's rate is 2/3 and the logits -4/3 and 4/3.
        assert info.traces["train_loss"].tolist() == pytest.approx([torch.tensor(8 / 3).exp().log1p().item()] * 2)
        assert info.traces["forward_rate"].tolist() == pytest.approx([4 / 9] * 2)
        own = {"spide": {"backward_rate": 8 / 12}, "ide": {"solver_products": 1.0, "solver_residual": 0.0}}
        for trace, value in own.get(name, {}).items():
            assert info.traces[trace].tolist() == pytest.approx([value] * 2)


def test_pools_have_no_weights_to_learn_and_no_biases() -> None:
    """A convolution that sees all of a map of 2 x 2, a pool that averages it, and a neuron: 16 + 1 products."""
    task = course.course(course.SPIDE, "1C3-P2-1", (1, 2, 2), 2, STEPS, cells=1, minibatch=1)
    batch = course.shown(task, samples=1)
    state = course.train(course.SPIDE, task, batch, course.chip_of(task), 1)
    chip = course.chip_of(task)
    found = course.SPIDE.predict(task, state, batch.inputs, batch.index, chip).diagnostics
    assert found["gradient_macs"].item() == 16 + 1
    assert found["input_macs"].item() == 16 * STEPS
    start = course.begin(course.SPIDE, task, batch, chip)
    operations = chip.rates(start.weights, batch.inputs, batch.index).operations
    assert found["forward_additions"].item() == operations.item() + (4 + 1) * STEPS
    assert found["neuron_updates"].item() == 6 * (STEPS + 100)


def test_dropped_neurons_send_nothing_back() -> None:
    """A couple's spike is an addition only where its neuron's current was not cut off and its rate has a slope."""
    task, state, batch = tiny(course.SPIDE)
    for weight, spikes in ((2.0, 2 * BACKWARD), (9.0, BACKWARD)):
        changed = state.weights.clone()
        changed[:, 6] = weight  # so that the last neuron spikes at every step at most
        changed[:, 8] = 0.0 if weight == 2.0 else 9.0
        after, _ = course.SPIDE.step(
            task, state._replace(weights=changed), batch, course.chip_of(task), course.streams(task)
        )
        found = course.SPIDE.predict(task, after, batch.inputs, batch.index, course.chip_of(task)).diagnostics
        assert found["backward_spikes"].tolist() == [spikes] * 2
        assert (found["backward_additions"] > 0).tolist() == [weight == 2.0] * 2
