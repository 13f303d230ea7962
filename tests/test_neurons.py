from __future__ import annotations

import pytest
import snntorch
import torch

from spikebench.networks import Network, log_probabilities
from spikebench.neurons import LIFParameters, LIFState, lif_step


def run(currents: list[float], parameters: LIFParameters) -> tuple[list[float], list[float]]:
    """Potentials and spikes of one neuron."""
    state = LIFState(torch.zeros(1), torch.zeros(1))
    potentials, spikes = [], []
    for current in currents:
        state = lif_step(torch.tensor([current]), state, parameters)
        potentials.append(state.potential.item())
        spikes.append(state.spikes.item())
    return potentials, spikes


def test_lif_trace_by_hand() -> None:
    # a = 1/2, theta = 1; the third potential passes the threshold; the reset takes the old potential, not the new input
    potentials, spikes = run([0.75, 0.5, 1.0, 0.25, -1.0, 0.0], LIFParameters(0.5, 1.0))
    assert potentials == [0.75, 0.875, 1.4375, 0.25, -0.875, -0.4375]
    assert spikes == [0, 0, 1, 0, 0, 0]


def test_a_potential_at_the_threshold_does_not_spike() -> None:
    assert run([1.0], LIFParameters(0.5, 1.0))[1] == [0]
    assert run([1.0 + 2**-23], LIFParameters(0.5, 1.0))[1] == [1]


def test_a_strong_current_spikes_at_every_step() -> None:
    potentials, spikes = run([1.5] * 4, LIFParameters(0.5, 1.0))
    assert potentials == [1.5] * 4
    assert spikes == [1] * 4


def test_a_decay_of_one_integrates() -> None:
    potentials, spikes = run([0.25] * 6, LIFParameters(1.0, 1.0))
    assert potentials == [0.25, 0.5, 0.75, 1.0, 1.25, 0.25]
    assert spikes == [0, 0, 0, 0, 1, 0]


def test_constants_may_differ_between_neurons() -> None:
    parameters = LIFParameters(torch.tensor([0.5, 1.0]), torch.tensor([0.125, 4.0]))
    state = LIFState(torch.tensor([[0.5, 2.0], [1.0, 3.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    new = lif_step(torch.zeros(2, 2), state, parameters)
    assert new.potential.tolist() == [[0.25, 2.0], [0.0, 3.0]]
    assert new.spikes.tolist() == [[1, 0], [0, 0]]


def test_a_step_changes_no_state_in_place() -> None:
    state = LIFState(torch.tensor([2.0]), torch.tensor([1.0]))
    lif_step(torch.tensor([1.0]), state, LIFParameters())
    assert state.potential.item() == 2.0
    assert state.spikes.item() == 1.0


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_the_step_is_snntorchs_leaky_with_delayed_reset_to_zero(decay: float) -> None:
    """Potentials too: snnTorch clears the old potential, not the new input (as of 1.0; see snntorch#341 and #426)."""
    reference = snntorch.Leaky(beta=decay, threshold=1.0, reset_mechanism="zero", reset_delay=True)
    generator = torch.Generator().manual_seed(0)
    currents = torch.randint(-4, 9, (10, 20, 3), generator=generator) / 8
    state = LIFState(torch.zeros(20, 3), torch.zeros(20, 3))
    membrane, fired = torch.zeros(20, 3), 0
    for current in currents:
        state = lif_step(current, state, LIFParameters(decay, 1.0))
        spikes, membrane = reference(current, membrane)
        assert torch.equal(state.spikes, spikes)
        assert torch.equal(state.potential, membrane)
        fired += int(spikes.sum())
    assert fired > 20


def test_other_reset_semantics_of_snntorch_are_other_neurons() -> None:
    """The equivalence is to one of three resets, and this input tells them apart."""
    currents = torch.tensor([1.5, 0.75, 0.75, 0.75, 0.75, 0.75])
    _, own = run(currents.tolist(), LIFParameters(0.5, 1.0))
    trains: dict[str, list[float]] = {"zero": [], "subtract": [], "none": []}
    for mechanism, train in trains.items():
        neuron, membrane = snntorch.Leaky(beta=0.5, reset_mechanism=mechanism, reset_delay=True), torch.zeros(1)
        for current in currents:
            spike, membrane = neuron(current[None], membrane)
            train.append(spike.item())
    assert trains["zero"] == own == [1, 0, 1, 0, 1, 0]
    assert trains["subtract"] != own
    assert trains["none"] != own


@pytest.mark.parametrize(
    ("hidden", "shapes"),
    [((), [(2, 5)]), ((3,), [(3, 5), (2, 4)]), ((3, 4), [(3, 5), (4, 4), (2, 5)])],
)
def test_later_layers_have_an_always_on_line(hidden: tuple[int, ...], shapes: list[tuple[int, int]]) -> None:
    network = Network(5, hidden, 2)
    assert list(network.shapes) == shapes
    assert network.parameters == sum(o * i for o, i in shapes)


def test_the_papers_network_has_266_weights() -> None:
    assert Network(31, (8,), 2).parameters == 266


def test_parameters_are_laid_out_layer_by_layer_and_neuron_by_neuron() -> None:
    first, second = Network(3, (2,), 1).unpack(torch.arange(18.0).reshape(2, 9))
    assert first.tolist() == [[[0, 1, 2], [3, 4, 5]], [[9, 10, 11], [12, 13, 14]]]
    assert second.tolist() == [[[6, 7, 8]], [[15, 16, 17]]]


def test_log_probabilities_are_the_softmax_of_scaled_counts() -> None:
    counts = torch.tensor([[3.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    p = log_probabilities(counts, 0.5).exp()
    e = torch.tensor(1.0, dtype=torch.float64).exp()
    torch.testing.assert_close(p[0], torch.stack([e / (1 + e), 1 / (1 + e)]))
    assert p[1].tolist() == [0.5, 0.5]
