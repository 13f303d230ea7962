from __future__ import annotations

import nets
import pytest
import snntorch
import torch

from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import is_constant
from spikebench.networks import Network
from spikebench.neurons import LIFParameters

DEPTHS = [(), (6,), (5, 4)]
STATIC = FaultSpec(
    severity=1.0, gain_mismatch=0.3, quantisation=0.5, stuck_at=0.1, drift=0.02, threshold=0.3, time_constant=0.3,
    offset=0.1, compression=0.5, dead=0.1, saturated=0.1,
)  # fmt: skip
#: Static faults after which every sum of dyadic numbers is still exact.
EXACT = FaultSpec(severity=1.0, quantisation=0.5, stuck_at=0.1, threshold=0.3, dead=0.1, saturated=0.1)


def snntorch_spikes(network: Network, parameters: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
    """All spikes, one [N, T, neurons] a layer, of a stack of snnTorch layers in double precision.

    The reset is delayed and to zero: the step after a spike begins from 0 and takes its whole input. This is what
    ``Leaky`` of snnTorch 1.0 does; it was different before (snntorch#341), and a change is proposed (snntorch#426).
    """
    spikes = []
    signal = inputs.double()
    for layer, weights in enumerate(network.unpack(parameters.double())):
        if layer > 0:
            signal = torch.cat([signal, torch.ones_like(signal[..., :1])], dim=-1)
        neuron = snntorch.Leaky(
            beta=network.neuron.decay, threshold=network.neuron.threshold, reset_mechanism="zero", reset_delay=True
        )
        membrane = torch.zeros(len(inputs), len(weights), dtype=torch.float64)
        train = []
        for t in range(inputs.shape[1]):
            spike, membrane = neuron(signal[:, t] @ weights.T, membrane)
            train.append(spike)
        signal = torch.stack(train, dim=1).double()
        spikes.append(signal)
    return [train.float() for train in spikes]


def ideal(network: Network, devices: int) -> SimulatedChip:
    return SimulatedChip(network, [FaultSpec()] * devices, range(devices))


def step_by_step(chip: SimulatedChip, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor):
    """Spikes and potentials of a session, one [B, N, T, neurons] a layer each."""
    session = chip.session(parameters, inputs.shape[1])
    seen = [session.advance(inputs[index, :, t]) for t in range(inputs.shape[2])]
    spikes = [torch.stack(layer, dim=2) for layer in zip(*(o.spikes for o in seen), strict=True)]
    potentials = [torch.stack(layer, dim=2) for layer in zip(*(o.potentials for o in seen), strict=True)]
    return spikes, potentials


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize(("decay", "steps"), [(0.5, 8), (0.75, 6), (1.0, 8)])
@pytest.mark.parametrize("hidden", DEPTHS, ids=str)
def test_the_ideal_chip_is_snntorch_spike_for_spike(
    hidden: tuple[int, ...], decay: float, steps: int, constant: bool
) -> None:
    network = Network(7, hidden, 3, LIFParameters(decay, 1.0))
    generator = nets.generator(1)
    parameters = nets.weights(network, generator, 2)
    chip, index = ideal(network, 2), torch.tensor([1, 0])
    for samples in (1, 48, 131):  # with and without padding
        shown = nets.inputs(network, generator, 2 * samples, steps, constant).unflatten(0, (2, samples))
        assert is_constant(shown) == constant
        spikes = chip.run(parameters, shown, index)
        counts = chip.evaluate(parameters[:, None], shown, index)[:, 0]
        stepped, _ = step_by_step(chip, parameters, shown, index)
        for b in range(2):
            expected = snntorch_spikes(network, parameters[b], shown[index[b]])
            assert len(expected) == len(spikes) == len(hidden) + 1
            for own, session, reference in zip(spikes, stepped, expected, strict=True):
                assert torch.equal(own[b], reference)
                assert torch.equal(session[b], reference)
            assert torch.equal(counts[b], expected[-1].sum(dim=1))
    rates = [layer.mean() for layer in spikes]
    assert all(0.02 < rate < 0.9 for rate in rates), rates  # a silent net would agree with anything


def test_many_samples_take_several_tiles() -> None:
    network = Network(7, (6,), 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(8)
    parameters, shown = nets.weights(network, generator), nets.inputs(network, generator, 1500, 8, True)
    spikes = ideal(network, 1).run(parameters[None], shown[None], torch.tensor([0]))
    for own, reference in zip(spikes, snntorch_spikes(network, parameters, shown), strict=True):
        assert torch.equal(own[0], reference)


def test_the_equivalence_tells_other_resets_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(7, (6,), 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(2)
    parameters, shown = nets.weights(network, generator), nets.inputs(network, generator, 50, 8, True)
    own = ideal(network, 1).run(parameters[None], shown[None], torch.tensor([0]))
    leaky = snntorch.Leaky
    for mechanism in ("subtract", "none"):
        monkeypatch.setattr(snntorch, "Leaky", lambda m=mechanism, **k: leaky(**k | {"reset_mechanism": m}))
        other = snntorch_spikes(network, parameters, shown)
        assert not torch.equal(own[1][0], other[1])


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("hidden", DEPTHS, ids=str)
def test_the_compiled_kernel_equals_the_session_exactly(hidden: tuple[int, ...], constant: bool) -> None:
    network = Network(7, hidden, 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(3)
    chip = SimulatedChip(network, [EXACT] * 5, range(5))
    parameters = 2 * nets.weights(network, generator, 5)
    shown = nets.inputs(network, generator, 70, 8, constant)[None]
    index = torch.zeros(5, dtype=torch.long)
    compiled = chip.run(parameters, shown, index)
    stepped, _ = step_by_step(chip, parameters, shown, index)
    for a, b in zip(compiled, stepped, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("hidden", DEPTHS, ids=str)
def test_the_compiled_kernel_equals_the_session_with_every_static_fault(hidden: tuple[int, ...]) -> None:
    """Sums are rounded in another order here, so a sample counts where no potential comes close to its threshold."""
    network = Network(7, hidden, 3)
    generator = nets.generator(4)
    chip = SimulatedChip(network, [STATIC] * 8, range(8))
    parameters = torch.randn((8, network.parameters), generator=generator)
    shown, index = torch.rand((1, 90, 8, 7), generator=generator), torch.zeros(8, dtype=torch.long)
    compiled = chip.run(parameters, shown, index)
    stepped, potentials = step_by_step(chip, parameters, shown, index)
    clear = torch.ones(8, 90, dtype=torch.bool)
    for v, layer in zip(potentials, chip.device.layers, strict=True):
        margin = (v - layer.threshold[:, None, None]).abs().amin(dim=2)
        fixed = (layer.silent | layer.saturated)[:, None]
        clear &= margin.masked_fill(fixed, 1.0).amin(dim=2) > 1e-4
    assert clear.float().mean() > 0.9
    for a, b in zip(compiled, stepped, strict=True):
        assert torch.equal(a[clear], b[clear])


@pytest.mark.parametrize("spec", [FaultSpec(), STATIC], ids=["ideal", "static"])
def test_evaluating_candidates_together_equals_running_them_one_by_one(spec: FaultSpec) -> None:
    network = Network(7, (6,), 3)
    generator = nets.generator(5)
    together, single = (SimulatedChip(network, [spec] * 3, [4, 5, 6]) for _ in range(2))
    candidates = torch.randn((3, 5, network.parameters), generator=generator)
    shown, index = torch.rand((2, 70, 8, 7), generator=generator), torch.tensor([1, 0, 1])
    counts = together.evaluate(candidates, shown, index)
    assert counts.shape == (3, 5, 70, 3)
    for c in range(5):
        assert torch.equal(counts[:, c], single.run(candidates[:, c], shown, index)[-1].sum(dim=2))
    for a, b in zip(vars(together.meter).values(), vars(single.meter).values(), strict=True):
        assert torch.equal(a, b)
    assert together.meter.presentations.tolist() == [5 * 70] * 3


FAMILIES = {
    "static": STATIC,
    "programming noise": FaultSpec(1.0, programming_noise=0.2),
    "read noise": FaultSpec(1.0, threshold=0.2, read_noise=1.0),
    "events": FaultSpec(1.0, gain_mismatch=0.2, drop=0.2, jitter=0.2),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("beside", ["its own kind", "every kind"])
def test_a_device_does_not_depend_on_what_is_beside_it(name: str, beside: str) -> None:
    """Bit for bit, over several uses, by both ways of presenting."""
    network = Network(7, (6,), 2)
    generator = nets.generator(6)
    others = [FAMILIES[name]] * 3 if beside == "its own kind" else list(FAMILIES.values())
    if beside == "every kind" and name != "events":
        others.remove(FAMILIES["events"])  # lost spikes bring the step-by-step path, whose rounding is its own
    devices = len(others) + 1
    chip = SimulatedChip(network, [*others, FAMILIES[name]], range(devices))
    alone = SimulatedChip(network, [FAMILIES[name]], [devices - 1])
    index = torch.arange(devices) % 2
    for _ in range(2):
        candidates = torch.randn((devices, 3, network.parameters), generator=generator)
        shown = torch.rand((2, 70, 6, 7), generator=generator)
        counts = chip.evaluate(candidates, shown, index)
        assert torch.equal(counts[-1:], alone.evaluate(candidates[-1:], shown, index[-1:]))
        spikes = chip.run(candidates[:, 0], shown, index)
        for a, b in zip(spikes, alone.run(candidates[-1:, 0], shown, index[-1:]), strict=True):
            assert torch.equal(a[-1:], b)


@pytest.mark.parametrize(("inputs", "samples"), [(7, 70), (31, 33), (31, 7), (17, 7)])
def test_a_session_does_not_depend_on_what_is_beside_it(inputs: int, samples: int) -> None:
    """To the last bit of the potentials, at sizes at which batched matrix products sum in another order too."""
    network = Network(inputs, (16,), 2)
    generator = nets.generator(7)
    spec = FAMILIES["events"]
    parameters = torch.randn((4, network.parameters), generator=generator)
    together = SimulatedChip(network, [spec] * 4, range(4)).session(parameters, samples)
    alone = [SimulatedChip(network, [spec], [b]).session(parameters[b : b + 1], samples) for b in range(4)]
    for _ in range(4):
        x = torch.rand((4, samples, inputs), generator=generator)
        seen = together.advance(x)
        for b in range(4):
            own = alone[b].advance(x[b : b + 1])
            for layer in range(2):
                assert torch.equal(seen.potentials[layer][b], own.potentials[layer][0])
                assert torch.equal(seen.spikes[layer][b], own.spikes[layer][0])


def test_repeat_gives_the_same_devices_cell_major_with_a_new_meter() -> None:
    network = Network(4, (3,), 2)
    chip = SimulatedChip(network, [STATIC, FaultSpec()], [7, 8], binary_inputs=True)
    shown, index = torch.rand((1, 5, 4, 4), generator=nets.generator()), torch.zeros(2, dtype=torch.long)
    parameters = torch.randn((2, network.parameters), generator=nets.generator())
    counts = chip.evaluate(parameters[:, None], shown, index)
    again = chip.repeat(2)
    assert again.chip_seeds == (7, 7, 8, 8)
    assert again.specs == (STATIC, STATIC, FaultSpec(), FaultSpec())
    assert again.binary_inputs
    assert again.meter.presentations.tolist() == [0] * 4
    repeated = again.evaluate(parameters.repeat_interleave(2, dim=0)[:, None], shown, torch.zeros(4, dtype=torch.long))
    assert torch.equal(repeated, counts.repeat_interleave(2, dim=0))
    assert chip.meter.presentations.tolist() == [5, 5]


def test_the_data_sheet_is_the_ideal_device_and_the_oracle_sees_the_real_one() -> None:
    network = Network(4, (3,), 2)
    chip = SimulatedChip(network, [STATIC], [7])
    for layer in chip.nominal.layers:
        assert layer.gain.eq(1).all() and layer.threshold.eq(1).all() and layer.decay.eq(torch.tensor(0.9)).all()
        assert not layer.offset.any() and not layer.compression.any()
        assert not layer.stuck.any() and not layer.silent.any() and not layer.saturated.any()
    assert chip.nominal.levels.tolist() == [0]
    assert chip.knowledge is chip.device
    assert chip.ideal(3).devices == 3
    assert chip.ideal(3).specs == (FaultSpec(),) * 3


@pytest.mark.parametrize("effect", ["programming_noise", "drop", "jitter", "read_noise"])
def test_a_chip_is_deterministic_unless_something_is_drawn_at_each_use(effect: str) -> None:
    network = Network(4, (3,), 2)
    sound, noisy = STATIC, FaultSpec(1.0, **{effect: 0.5})
    assert SimulatedChip(network, [sound, sound], [0, 1]).deterministic
    assert not SimulatedChip(network, [sound, noisy], [0, 1]).deterministic
    # At severity 0 too: a cell must take the same path alone and beside cells of other severities.
    assert not SimulatedChip(network, [FaultSpec(0.0, **{effect: 0.5})], [0]).deterministic
