"""GLM networks on simulated devices: the compiled kernel, the session, and the equations that both are held to."""

from __future__ import annotations

import itertools

import glm_truth as truth
import nets
import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.chip.faults import FaultSpec
from spikebench.chip.protocol import Observation
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import is_constant
from spikebench.networks import Network
from spikebench.neurons import GLMParameters

ONE = torch.tensor([0])
SAMPLES, STEPS = 30, 12
FAMILIES = {
    "static": FaultSpec(1.0, gain_mismatch=0.3, threshold=0.3, offset=0.3, compression=0.5, dead=0.1, saturated=0.1),
    "programming noise": FaultSpec(1.0, programming_noise=0.2),
    "events": FaultSpec(0.5, gain_mismatch=0.2, drop=0.2, jitter=0.2),
}


def shown(network: Network, kind: str, samples: int = SAMPLES, splits: int = 2, steps: int = STEPS) -> torch.Tensor:
    """Inputs [R, N, T, I] of a kind."""
    inputs = nets.inputs(network, nets.generator(9), splits * samples, steps, kind == "constant")
    if kind == "spikes":
        inputs = (inputs > 0.6).float()
    return inputs.unflatten(0, (splits, samples))


def present(
    chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor, clamp: torch.Tensor | None = None
) -> list[Observation]:
    """A session of inputs [N, T, I] and clamped outputs [N, T, O], on every device."""
    session, shape = chip.session(parameters, len(inputs)), (chip.devices, -1, -1)
    return [
        session.advance(inputs[:, t].expand(*shape), None if clamp is None else clamp[:, t].expand(*shape))
        for t in range(inputs.shape[1])
    ]


def trains(seen: list[Observation], what: str = "spikes") -> torch.Tensor:
    """Spikes or potentials of all neurons, [B, N, T, H + O]."""
    return torch.stack([torch.cat(getattr(o, what), dim=-1) for o in seen], dim=2)


def same(found: torch.Tensor, expected: np.ndarray, sure: np.ndarray) -> bool:
    """Whether spikes are equal in the samples [N] that rounding cannot decide, which are nearly all."""
    assert sure.mean() > 0.85
    return bool(np.array_equal(found.double().numpy()[sure], expected[sure]))


# What runs is the equations


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("kind", ["constant", "currents", "spikes"])
def test_the_ideal_chip_is_the_equations_spike_for_spike(kind: str, feedback: bool) -> None:
    network = nets.glm(output_feedback=feedback)
    inputs, index = shown(network, kind), torch.tensor([1, 0, 1])
    assert is_constant(inputs) == (kind == "constant")
    parameters = 2 * nets.weights(network, nets.generator(1), 3)
    chip = SimulatedChip(network, [FaultSpec()] * 3, [4, 5, 6])
    spikes = chip.run(parameters, inputs, index)
    session = chip.session(parameters, SAMPLES)
    seen = [session.advance(inputs[index, :, t]) for t in range(STEPS)]
    assert [layer.shape for layer in spikes] == [(3, SAMPLES, STEPS, n) for n in (3, 2)]
    for b, device in enumerate((4, 5, 6)):
        for use, found in ((1, torch.cat(spikes, dim=-1)), (2, trains(seen))):
            drawn = truth.numbers(device, use, (SAMPLES, STEPS, 5))
            expected, u = truth.run(network, parameters[b], inputs[index[b]], drawn)
            sure = truth.clear(u, drawn)
            assert same(found[b], expected, sure)
        np.testing.assert_allclose(trains(seen, "potentials")[b].numpy()[sure], u[sure], atol=1e-5)
    for layer in spikes:
        assert layer.dtype == torch.bool
        assert 0.2 < layer.float().mean() < 0.8


@pytest.mark.parametrize("steps", [3, 30])
def test_filters_longer_and_shorter_than_a_presentation(steps: int) -> None:
    """The paper's eight filters of ten steps."""
    network = Network(21, (4,), 3, GLMParameters())
    inputs = (torch.rand((40, steps, 21), generator=nets.generator(2)) < 0.1).float()
    parameters = torch.randn(network.parameters, generator=nets.generator(3)) / 2
    drawn = truth.numbers(7, 1, (40, steps, 7))
    expected, u = truth.run(network, parameters, inputs, drawn)
    for shape in (inputs, inputs[:, :1].expand(-1, steps, -1)):
        if shape is not inputs:
            expected, u = truth.run(network, parameters, shape, drawn)
        found = SimulatedChip(network, [FaultSpec()], [7]).run(parameters[None], shape[None], ONE)
        assert same(torch.cat(found, dim=-1)[0], expected, truth.clear(u, drawn))


@pytest.mark.parametrize("stored", ["expanded", "one by one", "different"])
def test_counts_are_those_of_as_many_independent_runs(stored: str) -> None:
    network, inputs = nets.glm(), shown(nets.glm(), "spikes")[:1]
    parameters = nets.weights(network, nets.generator(1), 4)
    if stored != "different":
        parameters = parameters[:1].expand(4, -1)
    if stored == "one by one":
        parameters = parameters.contiguous()
    counts = SimulatedChip(network, [FaultSpec()], [3]).evaluate(parameters[None], inputs, ONE)
    assert counts.shape == (1, 4, SAMPLES, 2)
    for c in range(4):
        drawn = truth.numbers(3, 1, (SAMPLES, STEPS, 5), first=c)
        expected, u = truth.run(network, parameters[c], inputs[0], drawn)
        assert same(counts[0, c], expected[..., 3:].sum(axis=1), truth.clear(u, drawn))
    assert not torch.equal(counts[0, 0], counts[0, 1])


def test_a_neuron_spikes_with_the_probability_of_its_potential() -> None:
    network = nets.glm()
    parameters = 2 * nets.weights(network, nets.generator(2), 1)
    inputs = shown(network, "spikes", samples=3000, splits=1)
    seen = present(SimulatedChip(network, [FaultSpec()], [0]), parameters, inputs[0])
    u, spikes = trains(seen, "potentials")[0].double(), trains(seen)[0].double()
    p, bins = torch.sigmoid(u), torch.linspace(-4, 4, 9)
    for i in range(5):
        for low, high in itertools.pairwise(bins):
            chosen = (u[..., i] >= low) & (u[..., i] < high)
            spread = (p * (1 - p))[..., i][chosen].sum().sqrt()
            assert abs((spikes - p)[..., i][chosen].sum()) <= 4.5 * spread
    assert (u.std() > 1) and (u.abs().max() > 3)


@pytest.mark.parametrize("bias", [-4.0, 0.5, 3.0])
def test_biases_alone_give_coins_that_do_not_depend_on_each_other(bias: float) -> None:
    network = nets.glm(1, 1)
    parameters = torch.zeros(1, network.parameters)
    for layer in network.unpack(parameters):
        layer[..., -1] = bias
    spikes = SimulatedChip(network, [FaultSpec()], [0]).run(parameters, torch.zeros(1, 5000, 4, 5), ONE)
    coins = torch.cat(spikes, dim=-1)[0].flatten(1).double()
    assert stats.binomtest(int(coins.sum()), coins.numel(), 1 / (1 + np.exp(-bias))).pvalue > 1e-3
    correlation = np.corrcoef(coins.T.numpy()) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / len(coins) ** 0.5


def test_a_neuron_remembers_its_own_spike_for_one_step() -> None:
    network = nets.glm(1, 1)
    parameters = torch.zeros(1, network.parameters)
    hidden, outputs = network.unpack(parameters)
    own = 12  # past four lines of three filters
    hidden[0, 0, own : own + 3] = torch.tensor([-2.0, 5.0, 5.0])
    outputs[0, 0, own + 3 : own + 6] = torch.tensor([3.0, 5.0, 5.0])
    seen = present(SimulatedChip(network, [FaultSpec()], [0]), parameters, torch.zeros(200, STEPS, 5))
    u, spikes = trains(seen, "potentials")[0], trains(seen)[0]
    assert torch.equal(u[:, 1:], torch.tensor([-2.0, 3.0]) * spikes[:, :-1])
    assert not u[:, 0].any()
    assert 0.2 < spikes.mean() < 0.8


def test_outputs_do_not_drive_hidden_neurons() -> None:
    network, generator = nets.glm(), nets.generator(4)
    inputs, parameters = shown(network, "spikes"), nets.weights(network, generator, 1)
    other = parameters.clone()
    network.unpack(other)[1][..., -1] += 3.0  # the outputs' biases
    ways = [SimulatedChip(network, [FaultSpec()], [0]).run(p, inputs, ONE) for p in (parameters, other)]
    assert torch.equal(ways[0][0], ways[1][0]) and not torch.equal(ways[0][1], ways[1][1])
    targets = torch.randint(0, 2, (SAMPLES, STEPS, 2), generator=generator).float()
    chips = [SimulatedChip(network, [FaultSpec()], [0]) for _ in range(2)]
    free, clamped = (present(c, parameters, inputs[0], y) for c, y in zip(chips, (None, targets), strict=True))
    for a, b in zip(free, clamped, strict=True):
        assert torch.equal(a.spikes[0], b.spikes[0]) and torch.equal(a.potentials[0], b.potentials[0])


@pytest.mark.parametrize("feedback", [True, False])
def test_outputs_hear_each_other_where_they_are_to(feedback: bool) -> None:
    network = nets.glm(output_feedback=feedback)
    parameters = nets.weights(network, nets.generator(1), 1)
    zeros = torch.zeros(SAMPLES, STEPS, 2)
    inputs = shown(network, "spikes")[0]
    chips = [SimulatedChip(network, [FaultSpec()], [0]) for _ in range(2)]
    silent, loud = (present(c, parameters, inputs, y) for c, y in zip(chips, (zeros, zeros + 1), strict=True))
    assert torch.equal(trains(silent, "potentials"), trains(loud, "potentials")) != feedback


def test_the_datas_constant_line_is_not_connected() -> None:
    network = nets.glm()
    inputs, parameters = shown(network, "currents"), nets.weights(network, nets.generator(), 1)
    other = inputs.clone()
    other[..., -1] = 7.0
    chips = [SimulatedChip(network, [FaultSpec()], [0]) for _ in range(2)]
    for a, b in zip(*(c.run(parameters, x, ONE) for c, x in zip(chips, (inputs, other), strict=True)), strict=True):
        assert torch.equal(a, b)
    seen = [present(c, parameters, x[0]) for c, x in zip(chips, (inputs, other), strict=True)]
    assert torch.equal(trains(seen[0], "potentials"), trains(seen[1], "potentials"))
    assert chips[1].meter.input_operations.item() == 2 * 5 * 3 * (inputs[0, ..., :-1] != 0).sum().item()


# Clamped outputs and their likelihood


def test_clamped_outputs_are_what_is_remembered() -> None:
    network, generator = nets.glm(), nets.generator(6)
    parameters, inputs = 2 * nets.weights(network, generator, 1), shown(network, "currents")[0]
    targets = torch.randint(0, 2, (SAMPLES, STEPS, 2), generator=generator).float()
    chip = SimulatedChip(network, [FaultSpec()], [2])
    seen = present(chip, parameters, inputs, targets)
    drawn = truth.numbers(2, 1, (SAMPLES, STEPS, 5))
    expected, u = truth.run(network, parameters[0], inputs, drawn, targets.numpy())
    sure = truth.clear(u[..., :3], drawn[..., :3])
    assert same(trains(seen)[0], expected, sure)
    np.testing.assert_allclose(trains(seen, "potentials")[0].numpy()[sure], u[sure], atol=1e-5)
    assert torch.equal(trains(seen)[0, ..., 3:], targets)
    assert chip.meter.spikes.item() == trains(seen).sum().item()


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("kind", ["constant", "spikes"])
def test_the_likelihood_is_that_of_the_outputs_potentials_in_each_run(kind: str, feedback: bool) -> None:
    network, generator = nets.glm(output_feedback=feedback), nets.generator(7)
    parameters, inputs = 2 * nets.weights(network, generator, 2), shown(network, kind)
    targets = torch.randint(0, 2, (2, SAMPLES, STEPS, 2), generator=generator).float()
    chip, index = SimulatedChip(network, [FaultSpec()] * 2, [2, 3]), torch.tensor([1, 0])
    found = chip.likelihood(parameters, inputs, index, targets, runs=3)
    assert found.shape == (2, 3, SAMPLES) and found.dtype == torch.float64
    for b, c in itertools.product(range(2), range(3)):
        drawn, clamp = truth.numbers(2 + b, 1, (SAMPLES, STEPS, 5), first=c), targets[index[b]].numpy()
        _, u = truth.run(network, parameters[b], inputs[index[b]], drawn, clamp)
        sure = truth.clear(u[..., :3], drawn[..., :3])
        assert sure.mean() > 0.85
        expected = truth.log_likelihood(u[..., 3:], clamp)
        np.testing.assert_allclose(found[b, c].numpy()[sure], expected[sure], atol=1e-4)
    assert not torch.equal(found[0, 0], found[0, 1])


def test_improbable_targets_have_a_finite_likelihood() -> None:
    network = nets.glm(1, 2)
    parameters = torch.zeros(1, network.parameters)
    network.unpack(parameters)[1][..., -1] = torch.tensor([60.0, -300.0])
    targets = torch.tensor([0.0, 1.0]).expand(1, 1, 4, 2)
    found = SimulatedChip(network, [FaultSpec()], [0]).likelihood(parameters, torch.zeros(1, 1, 4, 5), ONE, targets, 1)
    assert found.item() == pytest.approx(-4 * 360)
    likely = SimulatedChip(network, [FaultSpec()], [0])
    assert likely.likelihood(parameters, torch.zeros(1, 1, 4, 5), ONE, 1 - targets, 1).item() == pytest.approx(0)


#: Two hidden neurons, one output, three steps: nine spikes, which can all be enumerated.
TOY = nets.glm(2, 1)


def enumerated(parameters: torch.Tensor, inputs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All output sequences [8, 3] and their exact probabilities [8], for inputs [3, I]."""
    everything = np.array(list(itertools.product((0.0, 1.0), repeat=9))).reshape(512, 3, 3)
    u = truth.potentials(TOY, parameters, inputs.expand(512, -1, -1), everything)
    joint = np.exp(truth.log_likelihood(u, everything))
    assert joint.sum() == pytest.approx(1)
    sequences = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    return sequences, np.array([joint[(everything[..., 2] == y).all(axis=1)].sum() for y in sequences])


def test_mean_likelihoods_and_free_runs_are_the_exact_probabilities() -> None:
    parameters = 3 * nets.weights(TOY, nets.generator(8), 1)
    inputs = shown(TOY, "spikes", samples=1, splits=1, steps=3)
    sequences, exact = enumerated(parameters[0], inputs[0, 0])
    chip, runs = SimulatedChip(TOY, [FaultSpec()], [1]), 20_000
    targets = torch.from_numpy(sequences).float()[None, :, :, None]
    p = chip.likelihood(parameters, inputs.expand(-1, 8, -1, -1), ONE, targets, runs)[0].exp()
    deviations = (p.mean(dim=0).numpy() - exact) / (p.std(dim=0).numpy() / runs**0.5)
    assert np.abs(deviations).max() < 4
    assert p.mean(dim=0).sum().item() == pytest.approx(1, abs=0.01)
    assert (p.std(dim=0) > 0.1 * p.mean(dim=0)).any()  # hidden neurons matter
    free = chip.run(parameters, inputs.expand(-1, runs, -1, -1), ONE)[1][0, :, :, 0].numpy()
    seen = [(free == y).all(axis=1).sum() for y in sequences]
    assert stats.chisquare(seen, exact * runs).pvalue > 1e-3


@pytest.mark.parametrize("network", [Network(5, (3,), 2), nets.srm()], ids=["LIF", "SRM"])
def test_only_stochastic_spikes_have_a_likelihood(network: Network) -> None:
    chip, inputs = SimulatedChip(network, [FaultSpec()], [0]), torch.zeros(1, 2, 3, 5)
    with pytest.raises(TypeError, match="likelihood"):
        chip.likelihood(torch.zeros(1, network.parameters), inputs, ONE, torch.zeros(1, 2, 3, 2), 1)


# Randomness


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("beside", ["its own kind", "every kind"])
def test_a_device_does_not_depend_on_what_is_beside_it(name: str, beside: str) -> None:
    """Bit for bit, over several uses, in all that a chip does."""
    network = Network(38, (6,), 3, GLMParameters())
    others = [FAMILIES[name]] * 3 if beside == "its own kind" else [*FAMILIES.values(), FaultSpec()]
    devices = len(others) + 1
    chip = SimulatedChip(network, [*others, FAMILIES[name]], range(devices))
    alone = SimulatedChip(network, [FAMILIES[name]], [devices - 1])
    index, generator = torch.arange(devices) % 2, nets.generator(6)
    for _ in range(2):
        parameters = torch.randn((devices, network.parameters), generator=generator) / 2
        inputs = (torch.rand((2, 50, 6, 38), generator=generator) < 0.2).float()
        targets = (torch.rand((2, 50, 6, 3), generator=generator) < 0.5).float()
        runs = parameters[:, None].expand(-1, 3, -1)
        pairs = [
            (chip.evaluate(runs, inputs, index), alone.evaluate(runs[-1:], inputs, index[-1:])),
            (
                chip.likelihood(parameters, inputs, index, targets, 2),
                alone.likelihood(parameters[-1:], inputs, index[-1:], targets, 2),
            ),
            *zip(chip.run(parameters, inputs, index), alone.run(parameters[-1:], inputs, index[-1:]), strict=True),
        ]
        together, single = chip.session(parameters, 50), alone.session(parameters[-1:], 50)
        for t in range(6):
            seen, lone = together.advance(inputs[index, :, t]), single.advance(inputs[index[-1:], :, t])
            pairs += zip((*seen.spikes, *seen.potentials), (*lone.spikes, *lone.potentials), strict=True)
        for a, b in pairs:
            assert torch.equal(a[-1:], b)


def test_each_use_device_and_stage_has_numbers_of_its_own() -> None:
    network, inputs = nets.glm(), torch.zeros(1, 300, STEPS, 5)
    parameters = torch.zeros(1, network.parameters)

    def drawn(chip: SimulatedChip) -> torch.Tensor:
        return torch.cat(chip.run(parameters, inputs, ONE), dim=-1).flatten()

    chip, later = (SimulatedChip(network, [FaultSpec()], [0]) for _ in range(2))
    later.stage = "test"
    trials = [drawn(chip), drawn(chip), drawn(later), drawn(SimulatedChip(network, [FaultSpec()], [1]))]
    correlation = np.corrcoef(torch.stack(trials).double().numpy()) - np.eye(4)
    assert np.abs(correlation).max() < 4.5 / len(trials[0]) ** 0.5
    assert torch.equal(drawn(SimulatedChip(network, [FaultSpec()], [0])), trials[0])


def test_the_same_weights_do_not_give_the_same_spikes() -> None:
    assert not SimulatedChip(nets.glm(), [FaultSpec()], [0]).deterministic
    assert SimulatedChip(nets.srm(), [FaultSpec()], [0]).deterministic


# The meter


#: Two lines and the constant one, one hidden neuron that always spikes, one output that does so where it is clamped.
TINY = Network(3, (1,), 1, GLMParameters(filters=2, taps=3))
WEIGHTS = torch.tensor([[0.0] * 6 + [50.0] + [0.0] * 8 + [-50.0]])
SHOWN = torch.tensor([[[[1.0, 0.5, 1.0]], [[0.0, 1.0, 1.0]]]])


@pytest.mark.parametrize("binary_inputs", [False, True])
@pytest.mark.parametrize("stored_once", [True, False])
@pytest.mark.parametrize("way", ["run", "session", "evaluate", "likelihood"])
def test_the_meter_by_hand(way: str, stored_once: bool, binary_inputs: bool) -> None:
    inputs = SHOWN.expand(-1, -1, 3, -1)
    inputs = inputs if stored_once else inputs.contiguous()
    chip = SimulatedChip(TINY, [FaultSpec()] * 2, [0, 1], binary_inputs)
    weights, index, runs, clamped = WEIGHTS.expand(2, -1), torch.zeros(2, dtype=torch.long), 1, 0
    if way == "run":
        chip.run(weights, inputs, index)
    elif way == "session":
        present(chip, weights, inputs[0])
    elif way == "evaluate":
        runs = 4
        chip.evaluate(weights[:, None].expand(-1, runs, -1), inputs, index)
    else:
        runs, targets = 5, torch.tensor([[[[0.0], [1.0], [1.0]], [[0.0], [0.0], [1.0]]]])
        clamped = 3
        chip.likelihood(weights, inputs, index, targets, runs)
    assert chip.meter.presentations.tolist() == [2 * runs] * 2
    # The hidden neuron spikes at three steps of two samples.
    assert chip.meter.spikes.tolist() == [runs * (6 + clamped)] * 2
    # A hidden spike goes through two filters to the output and through one back; an output's through one back. There
    # are two biases. Three inputs are not 0, each goes to two neurons through two filters; the constant line to none.
    weighed = 3 * 3 * 4
    operations = 6 * 3 + clamped * 1 + 6 * 2 + (weighed if binary_inputs else 0)
    assert chip.meter.synaptic_operations.tolist() == [runs * operations] * 2
    assert chip.meter.input_operations.tolist() == [0 if binary_inputs else runs * weighed] * 2


def test_training_may_leave_activity_unmetered() -> None:
    chip = SimulatedChip(TINY, [FaultSpec()], [0])
    chip.count_activity = False
    chip.run(WEIGHTS, SHOWN.expand(-1, -1, 3, -1), ONE)
    present(chip, WEIGHTS, SHOWN[0].expand(-1, 3, -1))
    assert (chip.meter.presentations.item(), chip.meter.spikes.item()) == (4, 0)


# What a session lets a method do


def test_new_weights_act_from_the_next_step_on_all_that_is_remembered() -> None:
    network = nets.glm(1, 1)
    session = SimulatedChip(network, [FaultSpec()], [0]).session(torch.zeros(1, network.parameters), 1)
    line = torch.tensor([[[2.0, 0, 0, 0, 0]]])
    assert [session.advance(x).potentials[0].item() for x in (line, 0 * line)] == [0, 0]
    parameters = torch.zeros(1, network.parameters)
    network.unpack(parameters)[0][0, 0, :3] = torch.tensor([1.0, 0.5, 0.25])
    session.program(parameters)
    # Two steps after the input of 2 the second row of the filters acts.
    expected = 2 * float(truth.cosines(network)[1] @ [1.0, 0.5, 0.25])
    assert session.advance(0 * line).potentials[0].item() == pytest.approx(expected)


def test_sessions_do_not_share_what_they_remember() -> None:
    network = nets.glm(1, 1)
    chip, parameters = SimulatedChip(network, [FaultSpec()], [0]), torch.zeros(1, network.parameters)
    network.unpack(parameters)[0][0, 0, 0] = 1.0
    first, second = chip.session(parameters, 1), chip.session(parameters, 1)
    one = torch.ones(1, 1, 5)
    assert [first.advance(one).potentials[0].item() for _ in range(2)] == [0, 1]
    assert second.advance(one).potentials[0].item() == 0


def test_repeat_and_the_ideal_model_keep_the_network() -> None:
    network = nets.glm()
    chip = SimulatedChip(network, [FAMILIES["static"], FaultSpec()], [7, 8], binary_inputs=True)
    parameters, inputs = nets.weights(network, nets.generator(), 2), shown(network, "spikes")
    index = torch.zeros(2, dtype=torch.long)
    spikes = chip.run(parameters, inputs, index)
    again = chip.repeat(2).run(parameters.repeat_interleave(2, dim=0), inputs, index.repeat(2))
    for a, b in zip(again, spikes, strict=True):
        assert torch.equal(a, b.repeat_interleave(2, dim=0))
    drawn = truth.numbers(0, 1, (SAMPLES, STEPS, 5))
    expected, u = truth.run(network, parameters[0], inputs[0], drawn)
    ideal = torch.cat(chip.ideal(2).run(parameters, inputs, index), dim=-1)
    assert same(ideal[0], expected, truth.clear(u, drawn))
