"""The deviations a device is made with: their distribution, their scope, how they grow, and what they depend on."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from spikebench.chip.faults import FLOOR, FULL_SCALE, Device, FaultSpec, LayerDevice, draw_device, effective_weights
from spikebench.chip.simulated import SimulatedChip
from spikebench.networks import Network
from spikebench.neurons import LIFParameters

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
FAMILIES: dict[str, dict[str, float]] = yaml.safe_load(CONFIG.read_text())["faults"]
EFFECTS = [field.name for field in fields(FaultSpec) if field.name != "severity"]
#: 100 x 200 hidden synapses, 100 x 101 output synapses.
DENSE = Network(200, (100,), 100)
#: 20,000 neurons in the hidden layer and 200 outputs.
WIDE = Network(1, (20_000,), 200)


def draw(network: Network, chip: int = 0, severity: float = 1.0, **strengths: float) -> tuple[LayerDevice, ...]:
    """The layers of one device, without the leading axis."""
    device = draw_device(network, [FaultSpec(severity, **strengths)], [chip])
    return tuple(LayerDevice(*(tensor[0] for tensor in layer)) for layer in device.layers)


def same(a: Any, b: Any) -> bool:
    """Whether two devices (or their parts) are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return all(same(x, y) for x, y in zip(a, b, strict=True))


def normal(values: torch.Tensor) -> float:
    """p-value of a Kolmogorov-Smirnov test against N(0, 1)."""
    return float(stats.kstest(values.double().flatten().numpy(), "norm").pvalue)


# Distributions. Severity 0.5 with twice the strength: it is their product that is in force.


def test_gain_mismatch_is_normal_around_one_in_every_layer() -> None:
    layers = draw(DENSE, severity=0.5, gain_mismatch=0.4)
    for layer in layers:
        assert normal((layer.gain - 1) / 0.2) > 1e-3


def test_thresholds_and_time_constants_are_normal_around_their_nominal_values() -> None:
    network = Network(1, (20_000,), 200, LIFParameters(0.75, 2.0))  # tau = 4 steps
    for layer in draw(network, severity=0.5, threshold=0.4, time_constant=0.2):
        assert normal((layer.threshold / 2 - 1) / 0.2) > 1e-3
        tau = 1 / (1 - layer.decay.double())
        assert normal((tau / 4 - 1) / 0.1) > 1e-3


@pytest.mark.parametrize("effect", ["gain_mismatch", "threshold"])
def test_no_factor_falls_below_the_floor(effect: str) -> None:
    network, name = (DENSE, "gain") if effect == "gain_mismatch" else (WIDE, "threshold")
    values = getattr(draw(network, **{effect: 1.0})[0], name).flatten()
    assert values.min().item() == torch.tensor(FLOOR).item() == torch.tensor(0.05).item()
    # P(1 + eps < 0.05)
    floored = int((values == values.min()).sum())
    assert stats.binomtest(floored, len(values), stats.norm.cdf(-0.95)).pvalue > 1e-3


def test_a_time_constant_is_at_least_one_step() -> None:
    decay = draw(WIDE, time_constant=1.0)[0].decay
    assert decay.min().item() == 0  # tau = 1: nothing is kept
    assert decay.max().item() < 1
    # P(10 (1 + eps) < 1)
    assert stats.binomtest(int((decay == 0).sum()), len(decay), stats.norm.cdf(-0.9)).pvalue > 1e-3


def test_an_integrate_and_fire_neuron_has_no_time_constant_to_deviate() -> None:
    network = Network(1, (50,), 2, LIFParameters(decay=1.0))
    assert all(layer.decay.eq(1).all() for layer in draw(network, time_constant=1.0))


def test_offsets_are_normal_currents_of_hidden_neurons_only() -> None:
    hidden, output = draw(WIDE, severity=0.5, offset=0.6)
    assert normal(hidden.offset / 0.3) > 1e-3
    assert not output.offset.any()
    assert not draw(Network(5, (), 3), offset=0.6)[0].offset.any()


def test_compression_is_one_number_of_the_hidden_layers_only() -> None:
    first, second, output = draw(Network(3, (4, 5), 2), severity=0.25, compression=2.0)
    assert first.compression.item() == second.compression.item() == 0.5
    assert output.compression.item() == 0


@pytest.mark.parametrize(("severity", "bits"), [(0.0, 0), (0.01, 8), (0.1, 7), (0.25, 6), (0.5, 4), (0.75, 3), (1, 1)])
def test_bits_fall_from_eight_to_one(severity: float, bits: int) -> None:
    assert FaultSpec(severity, quantisation=1.0).bits == bits
    device = draw_device(DENSE, [FaultSpec(severity, quantisation=1.0)], [0])
    assert device.levels.tolist() == [2**bits if bits else 0]


def test_stuck_synapses_are_at_zero_or_at_full_scale() -> None:
    for layer in draw(DENSE, severity=0.5, stuck_at=0.6):
        count = layer.stuck.numel()
        assert stats.binomtest(int(layer.stuck.sum()), count, 0.3).pvalue > 1e-3
        values = layer.stuck_value[layer.stuck]
        seen = [int((values == v).sum()) for v in (0.0, FULL_SCALE, -FULL_SCALE)]
        assert sum(seen) == len(values)
        assert stats.chisquare(seen, [len(values) / 2, len(values) / 4, len(values) / 4]).pvalue > 1e-3


def test_signs_are_inverted_with_their_probability_but_not_those_of_stuck_synapses() -> None:
    for layer in draw(DENSE, severity=0.5, flip=0.6):
        assert stats.binomtest(int((layer.gain == -1).sum()), layer.gain.numel(), 0.3).pvalue > 1e-3
        assert layer.gain.abs().eq(1).all()
    for layer in draw(DENSE, flip=1.0, stuck_at=0.5):
        assert torch.equal(layer.gain > 0, layer.stuck)


def test_drift_exponents_are_normal_and_never_negative() -> None:
    # (t / t0)^-nu over four decades; nu ~ N(s, (0.3 s)^2), cut at 0 (3.3 standard deviations away)
    for layer in draw(DENSE, severity=0.5, drift=0.1):
        nu = -torch.log10(layer.gain.double()) / 4
        assert nu.min() >= 0
        assert stats.kstest(nu.flatten().numpy(), "norm", args=(0.05, 0.015)).pvalue > 1e-3


def test_dead_and_saturated_neurons_occur_with_their_probabilities_and_never_together() -> None:
    hidden, output = draw(WIDE, severity=0.5, dead=0.6, saturated=0.4)
    for layer in (hidden, output):
        count = len(layer.silent)
        assert stats.binomtest(int(layer.silent.sum()), count, 0.3).pvalue > 1e-3
        assert stats.binomtest(int(layer.saturated.sum()), count, 0.2).pvalue > 1e-3
        assert not (layer.silent & layer.saturated).any()


# What a severity means: the same chip with larger deviations.


@pytest.mark.parametrize("severity", [0.1, 0.25, 0.5, 0.75])
def test_a_higher_severity_is_the_same_chip_with_larger_deviations(severity: float) -> None:
    strengths = {"gain_mismatch": 0.2, "threshold": 0.2, "time_constant": 0.2, "offset": 0.2, "compression": 2.0}
    for weak, strong in zip(draw(DENSE, 3, severity, **strengths), draw(DENSE, 3, 1.0, **strengths), strict=True):
        torch.testing.assert_close(weak.gain - 1, severity * (strong.gain - 1), atol=1e-6, rtol=0)
        torch.testing.assert_close(weak.threshold - 1, severity * (strong.threshold - 1), atol=1e-6, rtol=0)
        tau, extreme = 1 / (1 - weak.decay.double()), 1 / (1 - strong.decay.double())
        torch.testing.assert_close(tau / 10 - 1, severity * (extreme / 10 - 1), atol=1e-4, rtol=0)
        torch.testing.assert_close(weak.offset, severity * strong.offset)
        torch.testing.assert_close(weak.compression, severity * strong.compression)
    for weak, strong in zip(draw(DENSE, 3, severity, drift=0.1), draw(DENSE, 3, 1.0, drift=0.1), strict=True):
        torch.testing.assert_close(weak.gain.log(), severity * strong.gain.log(), atol=1e-5, rtol=1e-4)


def test_defects_of_a_lower_severity_are_among_those_of_a_higher_one() -> None:
    strengths = {"stuck_at": 0.5, "dead": 0.4, "saturated": 0.4}
    flips = [draw(DENSE, 4, severity, flip=0.5) for severity in (0.25, 0.5, 1.0)]
    for weak, strong in itertools.pairwise(flips):
        for a, b in zip(weak, strong, strict=True):
            assert ((a.gain < 0) <= (b.gain < 0)).all()
            assert 0 < (a.gain < 0).sum() < (b.gain < 0).sum()
    levels = [draw(DENSE, 4, severity, **strengths) for severity in (0.25, 0.5, 1.0)]
    for weak, strong in itertools.pairwise(levels):
        for a, b in zip(weak, strong, strict=True):
            for name in ("stuck", "silent", "saturated"):
                assert (getattr(a, name) <= getattr(b, name)).all()
                assert getattr(a, name).sum() < getattr(b, name).sum()
            assert torch.equal(a.stuck_value[a.stuck], b.stuck_value[a.stuck])


@pytest.mark.parametrize("family", FAMILIES)
def test_severity_zero_is_the_ideal_chip_bit_for_bit(family: str) -> None:
    """Sums are exact here: families with lost or late spikes are simulated step by step, at severity 0 too."""
    network = Network(7, (6, 5), 3, LIFParameters(0.5, 1.0))
    spec = FaultSpec(0.0, **FAMILIES[family])
    assert same(draw_device(network, [spec], [5]), draw_device(network, [FaultSpec()], [5]))
    assert spec.bits == 0
    generator = nets.generator()
    parameters = nets.weights(network, generator, 1, 2)
    shown = nets.inputs(network, generator, 40, 8, False)[None]
    zero = SimulatedChip(network, [spec], [5])
    ideal = SimulatedChip(network, [FaultSpec()], [0])
    full = SimulatedChip(network, [FaultSpec(1.0, **FAMILIES[family])], [5])
    counts = [chip.evaluate(parameters, shown, torch.tensor([0])) for chip in (zero, ideal, full)]
    assert torch.equal(counts[0], counts[1])
    assert not torch.equal(counts[2], counts[1])  # ... and severity 1 is not: no family is without effect


def test_every_effect_is_in_a_family_of_the_configuration() -> None:
    assert {effect for family in FAMILIES.values() for effect in family} == set(EFFECTS)


def test_the_manual_explains_every_effect_and_every_family() -> None:
    effects, families = (CONFIG.parents[1] / "docs" / "faults.md").read_text().split("## What severity means")
    for effect in EFFECTS:
        assert f"\n| `{effect}` | " in effects, effect
    for family, coefficients in FAMILIES.items():
        assert f"\n| `{family}` | " in families, family
        for effect, coefficient in coefficients.items():
            assert f"`{effect}` {coefficient:g} | " in families, f"{family}: {effect}"


# What a device depends on.


def test_equal_seeds_are_one_device_and_other_seeds_are_others() -> None:
    spec = FaultSpec(1.0, **dict.fromkeys(EFFECTS, 0.4))
    torch.manual_seed(1)
    first = draw_device(DENSE, [spec, spec, spec], [8, 9, 8])
    torch.manual_seed(2)  # a method's own randomness does not reach the device
    torch.rand(10)
    again = draw_device(DENSE, [spec], [8])
    for layer, own in zip(first.layers, again.layers, strict=True):
        for tensor, alone in zip(layer, own, strict=True):
            assert torch.equal(tensor[0], alone[0])
            assert torch.equal(tensor[0], tensor[2])
        for name in ("gain", "stuck", "stuck_value", "threshold", "decay", "silent", "saturated"):
            assert not torch.equal(getattr(layer, name)[0], getattr(layer, name)[1]), name


def test_an_effect_is_drawn_independently_of_the_others() -> None:
    alone = {effect: draw(DENSE, 2, **{effect: 0.4}) for effect in EFFECTS}
    drawn_by = {
        "threshold": "threshold", "decay": "time_constant", "offset": "offset",
        "stuck": "stuck_at", "stuck_value": "stuck_at", "silent": "dead", "saturated": "saturated",
    }  # fmt: skip
    together = draw(DENSE, 2, **dict.fromkeys(EFFECTS, 0.4))
    for layer, everything in enumerate(together):
        for name, effect in drawn_by.items():
            assert torch.equal(getattr(everything, name), getattr(alone[effect][layer], name)), name
        product = alone["gain_mismatch"][layer].gain * alone["drift"][layer].gain
        torch.testing.assert_close(everything.gain.abs(), product)
        inverted = alone["flip"][layer].gain < 0
        assert torch.equal(everything.gain < 0, inverted & ~everything.stuck)


def test_layers_and_effects_are_uncorrelated() -> None:
    network = Network(99, (100, 100), 100)  # three layers of 100 x 100, 100 x 101 and 100 x 101 synapses
    strengths = {"gain_mismatch": 0.2, "threshold": 0.2, "time_constant": 0.2, "offset": 0.2}
    layers = draw(network, 6, **strengths)
    drifts = draw(network, 6, drift=0.1)
    synapses = [layer.gain[:, :99].flatten() for layer in (*layers, *drifts)]
    assert np.abs(np.corrcoef(torch.stack(synapses).numpy()) - np.eye(6)).max() < 4.5 / math.sqrt(100 * 99)
    neurons = [x for layer in layers for x in (layer.threshold, 1 / (1 - layer.decay), layer.gain[:, 0])]
    neurons += [layer.offset for layer in layers[:2]]
    assert np.abs(np.corrcoef(torch.stack(neurons).numpy()) - np.eye(11)).max() < 4.5 / math.sqrt(100)


# What the effects do to weights, and specifications that are refused. What they do to spikes: test_fault_directions.


def weigh(device: Device, weights: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Effective weights [O, I] of a single-layer device."""
    return effective_weights(weights[None, None], device.layers[0], device.levels, noise)[0, 0]


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_a_quantised_weight_is_the_nearest_of_the_levels(bits: int) -> None:
    device = draw_device(Network(1001, (), 1), [FaultSpec(1.0, quantisation=(8 - bits) / 7 or 1e-9)], [0])
    assert device.levels.tolist() == [2**bits]
    weights = torch.linspace(-5.003, 5.001, 1001)[None]
    quantised = weigh(device, weights)
    levels = -FULL_SCALE + (torch.arange(2**bits) + 0.5) * 2 * FULL_SCALE / 2**bits
    assert torch.isin(quantised, levels).all()
    assert set(quantised.flatten().tolist()) == set(levels.tolist())
    nearest = (weights[..., None] - levels).abs().amin(dim=-1)
    torch.testing.assert_close((weights - quantised).abs(), nearest)


def test_weights_are_quantised_then_disturbed_then_stuck_then_scaled() -> None:
    spec = FaultSpec(1.0, quantisation=6 / 7, stuck_at=0.5, gain_mismatch=0.3)  # two bits: -3, -1, 1, 3
    device = draw_device(Network(40, (), 50), [spec], [1])
    layer = device.layers[0]
    weights, noise = torch.full((50, 40), 0.7), torch.full((1, 1, 50, 40), 0.25)
    expected = torch.where(layer.stuck[0], layer.stuck_value[0], torch.tensor(1.25)) * layer.gain[0]
    assert torch.equal(weigh(device, weights, noise), expected)
    assert 0 < layer.stuck.sum() < layer.stuck.numel()


def test_an_ideal_device_leaves_weights_alone_however_large() -> None:
    device = draw_device(Network(3, (), 1), [FaultSpec()], [0])
    assert weigh(device, torch.tensor([[-17.3, 0.0, 1e-9]])).tolist() == torch.tensor([[-17.3, 0.0, 1e-9]]).tolist()


@pytest.mark.parametrize("field", [field.name for field in fields(FaultSpec)])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_strength_that_is_no_strength_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"FaultSpec\.{field}: found {value}, expected a number of at least 0"):
        FaultSpec(**{field: value})


@pytest.mark.parametrize(
    "field", ["severity", "quantisation", "stuck_at", "flip", "dead", "saturated", "drop", "jitter"]
)
def test_a_probability_above_one_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=rf"FaultSpec\.{field}: found 1.5, expected a number of at most 1"):
        FaultSpec(**{field: 1.5})
    FaultSpec(**{field: 1.0})


def test_a_specification_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        FaultSpec().severity = 1.0  # type: ignore[misc]


def test_strength_is_severity_times_coefficient() -> None:
    assert FaultSpec(0.25, drift=0.5).strength("drift") == 0.125
