"""SRM networks on simulated devices: the compiled kernel, the session, and what both are held to."""

from __future__ import annotations

import nets
import pytest
import torch

from spikebench.chip import srm
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import is_constant
from spikebench.networks import Network, binary
from spikebench.neurons import SRMParameters

ONE = torch.tensor([0])
STATIC = FaultSpec(
    severity=1.0, gain_mismatch=0.3, quantisation=0.5, stuck_at=0.1, flip=0.2, drift=0.02, threshold=0.3,
    time_constant=0.3, offset=0.1, compression=0.5, dead=0.1, saturated=0.1,
)  # fmt: skip
#: Static faults after which every sum of dyadic numbers is still exact.
EXACT = FaultSpec(
    severity=1.0, quantisation=0.5, stuck_at=0.1, flip=0.2, threshold=0.3, dead=0.1, saturated=0.1
)  # fmt: skip
FAMILIES = {
    "static": STATIC,
    "programming noise": FaultSpec(1.0, programming_noise=0.2),
    "events": FaultSpec(1.0, gain_mismatch=0.2, drop=0.2, jitter=0.2),
}


def by_traces(network: Network, parameters: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
    """All spikes [N, T, neurons] a layer of one ideal device: a dense loop that filters lines, in double precision."""
    alpha, beta, alpha_r, theta = network.neuron
    signal, spikes = inputs[..., :-1].double(), []
    for weights in network.unpack(parameters.double()):
        q = p = torch.zeros_like(signal[:, 0])
        refractory, train = torch.zeros(len(inputs), len(weights), dtype=torch.float64), []
        for t in range(inputs.shape[1]):
            p, q = alpha * p + q, beta * q + signal[:, t]
            refractory = alpha_r * refractory + (train[-1] if train else 0.0)
            train.append((p @ weights.T / weights.shape[1] ** 0.5 - refractory >= theta).double())
        signal = torch.stack(train, dim=1)
        spikes.append(signal)
    return spikes


def step_by_step(chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor):
    """Spikes and potentials of a session, one [B, N, T, neurons] a layer each."""
    session = chip.session(parameters, inputs.shape[1])
    seen = [session.advance(inputs[index, :, t]) for t in range(inputs.shape[2])]
    spikes = [torch.stack(layer, dim=2) for layer in zip(*(o.spikes for o in seen), strict=True)]
    potentials = [torch.stack(layer, dim=2) for layer in zip(*(o.potentials for o in seen), strict=True)]
    return spikes, potentials


def shown(network: Network, kind: str, samples: int = 40, splits: int = 2) -> torch.Tensor:
    """Dyadic inputs [R, N, T, I] of a kind."""
    inputs = nets.inputs(network, nets.generator(9), splits * samples, nets.SRM_STEPS, kind == "constant")
    if kind == "spikes":
        inputs = (inputs > 0.6).float()
    return inputs.unflatten(0, (splits, samples))


@pytest.mark.parametrize("kind", ["constant", "currents", "spikes"])
@pytest.mark.parametrize("hidden", [(3,), (16, 3), (4, 16, 5)], ids=str)
def test_the_ideal_chip_is_the_dense_loop_spike_for_spike(hidden: tuple[int, ...], kind: str) -> None:
    network = nets.srm(hidden)
    inputs, index = shown(network, kind), torch.tensor([1, 0, 1])
    assert is_constant(inputs) == (kind == "constant")
    parameters = nets.weights(network, nets.generator(1), 3)
    chip = SimulatedChip(network, [FaultSpec()] * 3, range(3))
    spikes = chip.run(parameters, inputs, index)
    stepped, _ = step_by_step(chip, parameters, inputs, index)
    assert [layer.shape for layer in spikes] == [(3, 40, nets.SRM_STEPS, n) for n in hidden]
    for b in range(3):
        expected = by_traces(network, parameters[b], inputs[index[b]])
        for own, session, reference in zip(spikes, stepped, expected, strict=True):
            assert torch.equal(own[b].double(), reference)
            assert torch.equal(session[b].double(), reference)
    for layer in spikes:
        assert layer.dtype == torch.bool
        assert 0.1 < layer[:, :, 1:].float().mean() < 0.9  # a silent net would agree with anything


@pytest.mark.parametrize("weight_bits", [0, 1])
@pytest.mark.parametrize("kind", ["constant", "currents", "spikes"])
def test_the_compiled_kernel_equals_the_session_exactly(kind: str, weight_bits: int) -> None:
    network = nets.srm((4, 16, 5), weight_bits)
    inputs, index = shown(network, kind), torch.arange(5) % 2
    chip = SimulatedChip(network, [EXACT] * 5, range(5))
    parameters = 2 * nets.weights(network, nets.generator(3), 5)
    compiled = chip.run(parameters, inputs, index)
    stepped, _ = step_by_step(chip, parameters, inputs, index)
    for a, b in zip(compiled, stepped, strict=True):
        assert torch.equal(a.float(), b)


@pytest.mark.parametrize("weight_bits", [0, 1])
def test_the_compiled_kernel_equals_the_session_with_every_static_fault(weight_bits: int) -> None:
    """Sums are rounded in another order here, so a sample counts where no potential comes close to its threshold."""
    network = Network(38, (21, 6), 2, SRMParameters(), weight_bits=weight_bits)
    chip = SimulatedChip(network, [STATIC] * 8, range(8))
    generator = nets.generator(4)
    parameters = torch.randn((8, network.parameters), generator=generator)
    inputs, index = torch.rand((1, 90, 12, 38), generator=generator), torch.zeros(8, dtype=torch.long)
    compiled = chip.run(parameters, inputs, index)
    stepped, potentials = step_by_step(chip, parameters, inputs, index)
    clear = torch.ones(8, 90, dtype=torch.bool)
    for u, layer in zip(potentials, chip.device.layers, strict=True):
        margin = (u - layer.threshold[:, None, None]).abs().amin(dim=2)
        clear &= margin.masked_fill((layer.silent | layer.saturated)[:, None], 1.0).amin(dim=2) > 1e-4
    assert clear.float().mean() > 0.8
    for a, b in zip(compiled, stepped, strict=True):
        assert torch.equal(a[clear].float(), b[clear])


def test_many_lines_of_few_events() -> None:
    """More events than the kernel first makes room for, rows without any, and sums that it takes four lines a pass."""
    network = Network(257, (16, 4), 2, nets.SRM, weight_bits=1)
    generator = nets.generator(5)
    density = torch.linspace(0, 1, 30)[:, None, None]
    inputs = (torch.rand((30, nets.SRM_STEPS, 257), generator=generator) < density).float()
    parameters = binary(torch.randn(network.parameters, generator=generator))
    spikes = SimulatedChip(network, [FaultSpec()], [0]).run(parameters[None], inputs[None], ONE)
    for own, reference in zip(spikes, by_traces(network, parameters, inputs), strict=True):
        assert torch.equal(own[0].double(), reference)


def test_the_datas_constant_line_is_not_connected() -> None:
    network = nets.srm()
    inputs, parameters = shown(network, "currents"), nets.weights(network, nets.generator(), 1)
    other = inputs.clone()
    other[..., -1] = 7.0
    chip = SimulatedChip(network, [FaultSpec()], [0])
    for way in (chip.run, lambda *a: step_by_step(chip, *a)[0]):
        for a, b in zip(way(parameters, inputs, ONE), way(parameters, other, ONE), strict=True):
            assert torch.equal(a, b)
    assert chip.meter.input_operations.item() == 2 * 2 * 16 * (inputs[0, ..., :-1] != 0).sum().item()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("beside", ["its own kind", "every kind"])
def test_a_device_does_not_depend_on_what_is_beside_it(name: str, beside: str) -> None:
    """Bit for bit, over several uses, by both ways of presenting."""
    network = Network(38, (20, 6), 2, SRMParameters())
    others = [FAMILIES[name]] * 3 if beside == "its own kind" else list(FAMILIES.values())
    if beside == "every kind" and name != "events":
        others.remove(FAMILIES["events"])  # lost spikes bring the step-by-step path, whose rounding is its own
    devices = len(others) + 1
    chip = SimulatedChip(network, [*others, FAMILIES[name]], range(devices))
    alone = SimulatedChip(network, [FAMILIES[name]], [devices - 1])
    index, generator = torch.arange(devices) % 2, nets.generator(6)
    for _ in range(2):
        parameters = torch.randn((devices, network.parameters), generator=generator)
        inputs = torch.rand((2, 50, 6, 38), generator=generator)
        spikes = chip.run(parameters, inputs, index)
        for a, b in zip(spikes, alone.run(parameters[-1:], inputs, index[-1:]), strict=True):
            assert torch.equal(a[-1:], b)
        together, single = chip.session(parameters, 50), alone.session(parameters[-1:], 50)
        for t in range(6):
            seen, lone = together.advance(inputs[index, :, t]), single.advance(inputs[index[-1:], :, t])
            for a, b in zip((*seen.spikes, *seen.potentials), (*lone.spikes, *lone.potentials), strict=True):
                assert torch.equal(a[-1:], b)


def test_a_sample_does_not_depend_on_the_samples_beside_it() -> None:
    network = Network(38, (20, 6), 2, SRMParameters())
    chip, generator = SimulatedChip(network, [STATIC], [0]), nets.generator(6)
    parameters = torch.randn((1, network.parameters), generator=generator)
    inputs = torch.rand((1, 50, 6, 38), generator=generator)
    for a, b in zip(chip.run(parameters, inputs, ONE), chip.run(parameters, inputs[:, 20:27], ONE), strict=True):
        assert torch.equal(a[:, 20:27], b)


def test_events_of_the_same_inputs_are_collected_once_and_changes_are_noticed() -> None:
    network = nets.srm()
    chip, parameters = SimulatedChip(network, [FaultSpec()], [0]), nets.weights(network, nets.generator(), 1)
    inputs = shown(network, "spikes")[:1]
    before = chip.run(parameters, inputs, ONE)
    assert srm.events(inputs) is srm.events(inputs)
    inputs[0, 0, 0] = 1 - inputs[0, 0, 0]
    after = chip.run(parameters, inputs, ONE)
    assert torch.equal(after[0][0].double(), by_traces(network, parameters[0], inputs[0])[0])
    assert not torch.equal(after[0], before[0])


# The meter


#: Two lines and the constant one, one hidden neuron, then two; thresholds are reached by weights of 1 alone.
TINY = Network(3, (1, 2), 4, SRMParameters(0.5, 0.5, 0.0, 0.25))
SHOWN = torch.tensor([[[[1.0, 0.5, 1.0]], [[0.0, 0.0, 1.0]]]])


@pytest.mark.parametrize("binary_inputs", [False, True])
@pytest.mark.parametrize("stored_once", [True, False])
@pytest.mark.parametrize("way", ["run", "session"])
def test_the_meter_by_hand(way: str, stored_once: bool, binary_inputs: bool) -> None:
    inputs = SHOWN.expand(-1, -1, 3, -1)
    inputs = inputs if stored_once else inputs.contiguous()
    chip = SimulatedChip(TINY, [FaultSpec()] * 2, [0, 1], binary_inputs)
    index = torch.zeros(2, dtype=torch.long)
    # The first neuron: x = 1.5 at each step, p = 0, 1.5, 3, u = 0, 1.06, 1.12: spikes at steps 2 and 3.
    # Of the second layer's, one has a weight of 1 to it: p = 0, 0, 1, u = 1: one spike at step 3; the other's is 0.
    parameters = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(2, -1)
    spikes = chip.run(parameters, inputs, index) if way == "run" else step_by_step(chip, parameters, inputs, index)[0]
    assert spikes[0][0, :, :, 0].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert spikes[1][0].sum(dim=1).tolist() == [[1, 0], [0, 0]]
    assert chip.meter.presentations.tolist() == [2, 2]
    assert chip.meter.spikes.tolist() == [3, 3]
    # Two spikes to two neurons; the last layer's read-out is not on the chip. Two lines are not 0 in three steps of one
    # sample, each to one neuron; the constant line is not connected.
    inputs_weighed = 6
    assert chip.meter.synaptic_operations.tolist() == [4 + (inputs_weighed if binary_inputs else 0)] * 2
    assert chip.meter.input_operations.tolist() == [0 if binary_inputs else inputs_weighed] * 2


def test_training_may_leave_activity_unmetered() -> None:
    chip = SimulatedChip(TINY, [FaultSpec()], [0])
    chip.count_activity = False
    chip.run(torch.ones(1, 4), SHOWN.expand(-1, -1, 3, -1), ONE)
    assert (chip.meter.presentations.item(), chip.meter.spikes.item()) == (2, 0)


# What a session lets a method do, and what an SRM chip refuses


def test_new_weights_act_from_the_next_step_and_the_states_stay() -> None:
    session = SimulatedChip(Network(2, (1,), 1, nets.SRM), [FaultSpec()], [0]).session(torch.tensor([[1.0]]), 1)
    one = torch.ones(1, 1, 2)
    potentials = [session.advance(one).potentials[0].item()]
    session.program(torch.tensor([[-1.0]]))
    potentials += [session.advance(one).potentials[0].item() for _ in range(2)]
    # x = 1, -1: q = 1, -0.5; p = 0, 1, 0.25; spikes at steps 1 and 2 (u = 0, 0): R = 0, 1, 1.25
    assert potentials == [0, 0, 0.25 - 1.25]


def test_sessions_do_not_share_states() -> None:
    chip = SimulatedChip(Network(2, (1,), 1, nets.SRM), [FaultSpec()], [0])
    weights, one = torch.tensor([[3.0]]), torch.ones(1, 1, 2)
    first, second = chip.session(weights, 1), chip.session(weights, 1)
    assert [first.advance(one).potentials[0].item() for _ in range(2)] == [0, 2]
    assert second.advance(one).potentials[0].item() == 0


@pytest.mark.parametrize("way", ["run", "session"])
def test_whatever_is_programmed_on_a_device_of_one_bit_weights_is_a_sign(way: str) -> None:
    network = nets.srm(weight_bits=1)
    chip, inputs = SimulatedChip(network, [FaultSpec()], [0]), shown(network, "currents")
    parameters = nets.weights(network, nets.generator(2), 1)
    parameters[0, ::5] = 0.0
    show = chip.run if way == "run" else lambda *a: step_by_step(chip, *a)[0]
    for a, b in zip(show(parameters, inputs, ONE), by_traces(network, binary(parameters[0]), inputs[0]), strict=True):
        assert torch.equal(a[0].double(), b)
    assert chip.program(parameters[:, None])[0, 0, ::5].eq(1).all()


def test_read_outs_belong_to_the_method() -> None:
    network = nets.srm()
    chip, parameters = SimulatedChip(network, [FaultSpec()], [0]), nets.weights(network, nets.generator(), 1)
    with pytest.raises(TypeError, match="no output counts"):
        chip.evaluate(parameters[:, None], shown(network, "currents"), ONE)
    with pytest.raises(TypeError, match="cannot be clamped"):
        chip.session(parameters, 1).advance(torch.zeros(1, 1, 5), clamp=torch.zeros(1, 1, 3))


def test_repeat_and_the_ideal_model_keep_the_network() -> None:
    network = nets.srm()
    chip = SimulatedChip(network, [STATIC, FaultSpec()], [7, 8], binary_inputs=True)
    parameters, inputs = nets.weights(network, nets.generator(), 2), shown(network, "spikes")
    index = torch.zeros(2, dtype=torch.long)
    spikes = chip.run(parameters, inputs, index)
    again = chip.repeat(2).run(parameters.repeat_interleave(2, dim=0), inputs, index.repeat(2))
    for a, b in zip(again, spikes, strict=True):
        assert torch.equal(a, b.repeat_interleave(2, dim=0))
    ideal = chip.ideal(2).run(parameters, inputs, index)
    for own, reference in zip(ideal, by_traces(network, parameters[0], inputs[0]), strict=True):
        assert torch.equal(own[0].double(), reference)
