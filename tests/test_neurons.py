from __future__ import annotations

import math

import pytest
import snntorch
import torch

from spikebench.networks import Network, binary, log_probabilities
from spikebench.neurons import (
    GLMParameters,
    LIFParameters,
    LIFState,
    SRMParameters,
    SRMState,
    filtered,
    glm_spikes,
    lif_step,
    raised_cosines,
    srm_step,
)


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


def srm(currents: list[float], parameters: SRMParameters, *, first: float = 0.0, scale: float = 1.0) -> list[SRMState]:
    """The states of one neuron that spiked (``first`` = 1) or not before the first current."""
    zero = torch.zeros(1, dtype=torch.float64)
    states = [SRMState(zero, zero, zero, zero, zero + first)]
    for current in currents:
        states.append(srm_step(zero + current, states[-1], parameters, scale))
    return states[1:]


#: A neuron that never spikes.
QUIET = SRMParameters(threshold=math.inf)


def test_an_input_acts_by_the_difference_of_two_exponentials() -> None:
    """The closed form of the recursions: (alpha^k - beta^k) / (alpha - beta), of mass 68.5, highest after 8 steps."""
    alpha, beta = math.exp(-1 / 10), math.exp(-1 / 6)
    response = [state.potential.item() for state in srm([1.0] + [0.0] * 400, QUIET)]
    assert response[0] == 0
    assert response == pytest.approx([(alpha**k - beta**k) / (alpha - beta) for k in range(401)], rel=1e-10)
    assert max(response) == response[8] == pytest.approx(3.18, abs=0.005)
    assert sum(response) == pytest.approx(1 / ((1 - alpha) * (1 - beta))) == pytest.approx(68.5, abs=0.05)


def test_a_spike_is_followed_by_refractoriness() -> None:
    response = [state.potential.item() for state in srm([0.0] * 60, QUIET, first=1.0)]
    assert response == pytest.approx([-math.exp(-k / 2) for k in range(60)], rel=1e-10)
    assert -sum(response) == pytest.approx(1 / (1 - math.exp(-1 / 2))) == pytest.approx(2.54, abs=0.005)


def test_srm_trace_by_hand() -> None:
    # alpha = 3/4, beta = 1/2, alpha_r = 1/4, c = 1/2; at rest u = 0 reaches the threshold of 0.
    states = srm([-1.0, 4.0, 0.0, 0.0, 0.0], SRMParameters(0.75, 0.5, 0.25), scale=0.5)
    assert [s.synapse.item() for s in states] == [-1, 3.5, 1.75, 0.875, 0.4375]
    assert [s.membrane.item() for s in states] == [0, -1, 2.75, 3.8125, 3.734375]
    assert [s.refractory.item() for s in states] == [0, 1, 0.25, 1.0625, 1.265625]
    assert [s.potential.item() for s in states] == [0, -1.5, 1.125, 0.84375, 0.6015625]
    assert [s.spikes.item() for s in states] == [1, 0, 1, 1, 1]


def test_an_srm_neuron_spikes_at_its_threshold() -> None:
    assert [s.spikes.item() for s in srm([1.0, 0.0], QUIET._replace(threshold=1.0))] == [0, 1]
    assert [s.spikes.item() for s in srm([1.0, 0.0], QUIET._replace(threshold=1.0 + 2**-52))] == [0, 0]


def test_filtering_the_sum_is_filtering_the_lines() -> None:
    generator = torch.Generator().manual_seed(0)
    lines = torch.randint(0, 2, (12, 5), generator=generator).double()
    weights = torch.randn(5, dtype=torch.float64, generator=generator)
    together = [state.potential.item() for state in srm((lines @ weights).tolist(), QUIET)]
    each = [[state.potential.item() for state in srm(line.tolist(), QUIET)] for line in lines.T]
    assert together == pytest.approx((weights @ torch.tensor(each, dtype=torch.float64)).tolist(), rel=1e-10)


def test_distortion_is_of_the_scaled_filtered_input_alone() -> None:
    one = torch.ones(1)
    state = srm_step(one, SRMState(one, 3 * one, 2 * one, one, one), SRMParameters(0.5, 0.5, 0.5), 0.5, lambda x: x * x)
    # p = 1.5 + 1, R = 1 + 1, u = (0.5 * 2.5)^2 - 2
    assert state.potential.item() == 1.5625 - 2


def test_srm_constants_may_differ_between_neurons_and_no_state_changes_in_place() -> None:
    two = torch.tensor([[1.0, 1.0]])
    parameters = SRMParameters(*(torch.tensor(x) for x in ([0.5, 1.0], [0.0, 0.25], [0.5, 0.0], [9.0, -9.0])))
    state = SRMState(two, two, two, two, two)
    new = srm_step(two, state, parameters)
    assert [part.tolist() for part in new] == [[[1, 1.25]], [[1.5, 2]], [[1.5, 1]], [[0, 1]], [[0, 1]]]
    assert all(part.tolist() == [[1, 1]] for part in state)


def test_an_srm_network_is_its_hidden_layers_without_constant_lines() -> None:
    network = Network(1353, (256, 128), 10, SRMParameters())
    assert network.shapes == ((256, 1352), (128, 256))
    assert network.parameters == 1352 * 256 + 256 * 128
    assert network.scales == (pytest.approx(1352**-0.5), 1 / 16)
    first, second = Network(3, (2, 1), 4, SRMParameters()).unpack(torch.arange(6.0))
    assert first.tolist() == [[0, 1], [2, 3]]
    assert second.tolist() == [[4, 5]]


@pytest.mark.parametrize(("bits", "memory", "full_scale"), [(0, 32 * 14, 4.0), (1, 14, 1.0)])
def test_memory_by_hand(bits: int, memory: int, full_scale: float) -> None:
    network = Network(5, (2, 3), 2, SRMParameters(), weight_bits=bits)  # 2 x 4 and 3 x 2 weights
    assert network.memory_bits == memory
    assert network.full_scale == full_scale


def test_lif_weights_are_real() -> None:
    assert Network(31, (8,), 2).memory_bits == 266 * 32
    assert Network(31, (8,), 2).full_scale == 4.0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Network(3, (2,), 2, weight_bits=1), "weight_bits: found 1"),
        (lambda: Network(3, (2,), 2, SRMParameters(), weight_bits=2), "weight_bits: found 2"),
        (lambda: Network(3, (), 2, SRMParameters()), "hidden: found no layer"),
    ],
)
def test_networks_that_do_not_exist(network, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network()


def test_the_sign_of_zero_is_one() -> None:
    assert binary(torch.tensor([-2.0, -1e-30, -0.0, 0.0, 0.5])).tolist() == [-1, -1, 1, 1, 1]


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


def test_raised_cosines_by_their_formula() -> None:
    filters = raised_cosines(GLMParameters(filters=8, taps=10, spacing=1.5))
    assert filters.shape == (10, 8) and filters.dtype == torch.float32
    for d in range(10):
        for m in range(8):
            phase = min(max(math.pi * 1.5 * math.log(d + 1) - m * math.pi / 2, -math.pi), math.pi)
            assert filters[d, m].item() == pytest.approx(0.5 + 0.5 * math.cos(phase), abs=1e-7)


def test_raised_cosines_by_hand() -> None:
    # pi mu ln(d + 1) is 0, pi, ... where mu = 1 / ln 2: the phases of the first two steps are multiples of pi / 2.
    filters = raised_cosines(GLMParameters(filters=5, taps=2, spacing=1 / math.log(2)))
    assert filters[0].tolist() == pytest.approx([1, 0.5, 0, 0, 0], abs=1e-7)
    assert filters[1].tolist() == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-7)


@pytest.mark.parametrize(("spacing", "is_one_step"), [(1.5, True), (1.45, True), (1.4, False), (0.5, False)])
def test_the_first_filter_is_one_step_where_filters_are_spaced_enough(spacing: float, is_one_step: bool) -> None:
    first = raised_cosines(GLMParameters(spacing=spacing))[:, 0].tolist()
    assert (first == [1.0] + [0.0] * 9) == is_one_step


def test_filters_that_do_not_reach_a_step_are_exactly_zero_there() -> None:
    filters = raised_cosines(GLMParameters())
    phase = math.pi * 1.5 * torch.arange(1, 11).double().log()[:, None] - torch.arange(8) * (math.pi / 2)
    assert torch.equal(filters != 0, phase.abs() < math.pi)


def test_traces_are_what_each_filter_makes_of_each_line() -> None:
    history = torch.tensor([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0]])  # two lines, the newest step first
    filters = torch.tensor([[1.0, 0.5], [0.0, 0.25], [0.0, 4.0]])
    assert filtered(history, filters).tolist() == [[1, 0.625], [0, 4.5]]
    assert filtered(history.expand(7, 3, 2).double(), filters).shape == (7, 2, 2)


def test_a_glm_neuron_spikes_where_its_number_is_below_its_probability() -> None:
    u = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    for uniform in (0.001, 0.3, 0.5, 0.9):
        spikes = glm_spikes(u, torch.full_like(u, uniform))
        assert torch.equal(spikes == 1, torch.sigmoid(u) > uniform)
    assert glm_spikes(torch.tensor([0.0]), torch.tensor([0.5])).item() == 0
