"""What each fixed fault does to spikes, on neurons small enough to say so by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.chip import kernels
from spikebench.chip.faults import FaultSpec, compress
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, Split
from spikebench.metropolis import Chains, Target, log_likelihood, run_block
from spikebench.networks import Network
from spikebench.neurons import LIFParameters

#: 400 neurons driven by one line each, seen directly.
NEURONS = Network(1, (), 400)
#: 400 hidden neurons, whose spikes are seen in the first layer of ``run``.
HIDDEN = Network(1, (400,), 1)
STEPS = 20


def counts(network: Network, spec: FaultSpec, weight: float, chip: int = 0) -> tuple[torch.Tensor, SimulatedChip]:
    """Spike counts of the 400 neurons, all of one weight, at a constant input of 1."""
    device = SimulatedChip(network, [spec], [chip])
    shown = torch.ones(1, 1, 1, 1).expand(-1, -1, STEPS, -1)
    spikes = device.run(torch.full((1, network.parameters), weight), shown, torch.tensor([0]))
    return spikes[0][0, 0].sum(dim=0), device


def falls(x: torch.Tensor, y: torch.Tensor) -> None:
    """``y`` never rises with ``x``, and falls somewhere."""
    ordered = y[x.argsort()]
    assert (ordered.diff() <= 0).all()
    assert ordered[0] > ordered[-1]


def test_a_higher_threshold_spikes_less() -> None:
    spikes, chip = counts(NEURONS, FaultSpec(1.0, threshold=0.4), weight=0.3)
    falls(chip.device.layers[0].threshold[0], spikes)


def test_a_longer_time_constant_spikes_more() -> None:
    spikes, chip = counts(NEURONS, FaultSpec(1.0, time_constant=0.5), weight=0.25)
    falls(-chip.device.layers[0].decay[0], spikes)


def test_a_higher_gain_of_a_positive_weight_spikes_more() -> None:
    spikes, chip = counts(NEURONS, FaultSpec(1.0, gain_mismatch=0.4), weight=0.3)
    falls(-chip.device.layers[0].gain[0, :, 0], spikes)


def test_a_positive_offset_spikes_more_and_a_negative_one_less() -> None:
    spikes, chip = counts(HIDDEN, FaultSpec(1.0, offset=0.2), weight=0.3)
    offset = chip.device.layers[0].offset[0]
    nominal, _ = counts(HIDDEN, FaultSpec(), weight=0.3)
    falls(-offset, spikes)
    assert (spikes[offset > 0] >= nominal[0]).all()
    assert (spikes[offset < 0] <= nominal[0]).all()


def test_an_offset_drives_a_neuron_without_input() -> None:
    # V[t] = 0.9 V[t-1] + 0.3 passes 1 at the fourth step, and every fourth from there.
    spikes, chip = counts(HIDDEN, FaultSpec(1.0, offset=0.3), weight=0.0)
    closest = (chip.device.layers[0].offset[0] - 0.3).abs().argmin()
    assert spikes[closest].item() == STEPS // 4


def test_an_inverted_sign_is_that_of_the_opposite_weight() -> None:
    for weight in (0.3, -0.3):
        spikes, chip = counts(NEURONS, FaultSpec(1.0, flip=0.5), weight)
        inverted = chip.device.layers[0].gain[0, :, 0] < 0
        for there, acting in ((inverted, -weight), (~inverted, weight)):
            assert torch.equal(spikes[there], counts(NEURONS, FaultSpec(), acting)[0][there])
        assert inverted.any() and not inverted.all()


def test_at_probability_one_half_a_sign_says_nothing() -> None:
    gain = SimulatedChip(Network(99, (), 400), [FaultSpec(1.0, flip=0.5)], [0]).device.layers[0].gain
    assert stats.binomtest(int((gain < 0).sum()), gain.numel(), 0.5).pvalue > 1e-3


def test_a_compiled_metropolis_block_measures_inverted_weights_as_the_chip_does() -> None:
    network, spec = Network(3, (4,), 2), FaultSpec(1.0, flip=0.5, gain_mismatch=0.3)
    chip = SimulatedChip(network, [spec], [0])
    generator = torch.Generator().manual_seed(0)
    split = Split(torch.rand((40, 6, 3), generator=generator), torch.randint(0, 2, (40,), generator=generator))
    batch, weights = Batch.stack([split], [0]), torch.randn((1, 2, network.parameters), generator=generator)
    step, keys = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([[1, 2]])
    chains = Chains(weights, log_likelihood(chip, weights, batch), step, torch.zeros_like(keys))
    after = run_block(chip, batch, chains, keys, 0, 60, Target(1.0, 1.0, 0.5))
    assert (after.accepted > 5).all()
    torch.testing.assert_close(after.log_likelihood, log_likelihood(chip, after.weights, batch))


def test_drift_lets_a_weight_fade() -> None:
    fresh, _ = counts(NEURONS, FaultSpec(0.0, drift=0.1), weight=0.6)
    faded, chip = counts(NEURONS, FaultSpec(1.0, drift=0.1), weight=0.6)
    assert (chip.device.layers[0].gain <= 1).all()
    assert (faded <= fresh).all()
    # 10^(-4 nu) with nu = 0.1 on average leaves about 40 %.
    assert 0.35 < chip.device.layers[0].gain.median() < 0.45


def test_dead_neurons_never_and_saturated_ones_always_spike_even_against_their_input() -> None:
    for weight in (5.0, -5.0):
        spikes, chip = counts(NEURONS, FaultSpec(1.0, dead=0.3, saturated=0.3), weight)
        layer = chip.device.layers[0]
        sound = ~(layer.silent | layer.saturated)[0]
        assert (spikes[layer.silent[0]] == 0).all()
        assert (spikes[layer.saturated[0]] == STEPS).all()
        assert (spikes[sound] == (STEPS if weight > 0 else 0)).all()
        assert sound.any() and layer.silent.any() and layer.saturated.any()


def test_stuck_synapses_ignore_what_is_programmed() -> None:
    spikes, chip = counts(NEURONS, FaultSpec(1.0, stuck_at=0.5), weight=0.15)  # 1 - 0.9^t passes 2/3 at step 11
    layer = chip.device.layers[0]
    stuck, value = layer.stuck[0, :, 0], layer.stuck_value[0, :, 0]
    assert (spikes[stuck & (value > 0)] == STEPS).all()
    assert (spikes[stuck & (value <= 0)] == 0).all()
    assert (spikes[~stuck] == 1).all()


def test_quantisation_at_one_bit_leaves_the_sign() -> None:
    for weight in (0.01, 3.0):
        assert (counts(NEURONS, FaultSpec(1.0, quantisation=1.0), weight)[0] == STEPS).all()  # both act as 2
        assert (counts(NEURONS, FaultSpec(1.0, quantisation=1.0), -weight)[0] == 0).all()


def test_compression_bounds_currents_by_one_over_kappa_and_keeps_their_sign() -> None:
    # tanh(2 I) / 2 < 1/2: a strong current needs several steps to the threshold, as one of about 1/2 does.
    strong, _ = counts(HIDDEN, FaultSpec(1.0, compression=2.0), weight=50.0)
    half, _ = counts(HIDDEN, FaultSpec(), weight=0.5)
    ideal, _ = counts(HIDDEN, FaultSpec(), weight=50.0)
    assert torch.equal(strong, half)
    assert (ideal == STEPS).all()
    assert (counts(HIDDEN, FaultSpec(1.0, compression=2.0), weight=-50.0)[0] == 0).all()


def test_compression_formula_and_its_limit() -> None:
    current = torch.linspace(-3, 3, 61, dtype=torch.float64)
    expected = np.tanh(2 * current.numpy()) / 2
    np.testing.assert_allclose(compress(current, torch.tensor(2.0, dtype=torch.float64)).numpy(), expected, rtol=1e-12)
    assert torch.equal(compress(current, torch.tensor(0.0)), current)
    torch.testing.assert_close(compress(current, torch.tensor(1e-4, dtype=torch.float64)), current, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kappa", [0.2, 1.0, 2.0])
def test_the_compiled_compression_is_tanh_within_1e_5(kappa: float) -> None:
    currents = np.linspace(-30, 30, 20_001).astype(np.float32)
    compiled = np.array([kernels.compress(c, np.float32(kappa)) for c in currents])
    error = np.abs(kappa * compiled - np.tanh(np.float64(np.float32(kappa)) * currents))
    assert error.max() < 1e-5


def test_offset_and_compression_spare_the_outputs() -> None:
    network = Network(1, (3,), 400, LIFParameters(0.5, 1.0))
    spec = FaultSpec(1.0, offset=0.5, compression=2.0)
    chip, ideal = SimulatedChip(network, [spec], [0]), SimulatedChip(network, [FaultSpec()], [0])
    parameters = torch.zeros(1, network.parameters)
    parameters[0, 3:] = 0.75
    session, other = chip.session(parameters, 1), ideal.session(parameters, 1)
    fired, quiet = session.advance(torch.zeros(1, 1, 1)), other.advance(torch.zeros(1, 1, 1))
    assert not torch.equal(fired.potentials[0], quiet.potentials[0])
    # The outputs' currents are 0.75 (1 + hidden spikes), neither squeezed below 1/2 nor shifted.
    hidden = fired.spikes[0].sum()
    assert fired.potentials[1].eq(0.75 * (1 + hidden)).all()
