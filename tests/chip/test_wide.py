"""Many input lines: the first layer's currents and gradients are matrix products, and the tiles they take are kept."""

from __future__ import annotations

import gc
import weakref

import nets
import numpy as np
import pytest
import torch

from spikebench import bptt, bptt_kernels
from spikebench.chip import kernels, simulated
from spikebench.chip.faults import FaultSpec
from spikebench.chip.kernels import WIDE
from spikebench.chip.simulated import SimulatedChip, tile
from spikebench.data import Batch
from spikebench.networks import Network, log_probabilities
from spikebench.neurons import LIFParameters

STATIC = FaultSpec(1.0, gain_mismatch=0.3, threshold=0.3, time_constant=0.3, offset=0.1, compression=0.5)
#: Static faults after which every sum of dyadic numbers is still exact.
EXACT = FaultSpec(severity=1.0, quantisation=0.5, stuck_at=0.1, threshold=0.3, dead=0.1, saturated=0.1)


def currents(weights: torch.Tensor, inputs: torch.Tensor) -> np.ndarray:
    """Of the first layer: weights [O, I], inputs [T, I, W]."""
    found = np.full((len(inputs), len(weights), inputs.shape[2]), np.nan, np.float32)
    kernels.first_currents(weights.flatten().numpy(), inputs.numpy(), found)
    return found


class TestCurrents:
    """The same currents with one silent line more, which makes them a matrix product."""

    @pytest.mark.parametrize(("steps", "width"), [(1, 16), (5, 48), (2, 512)])
    def test_exactly_where_sums_are_exact(self, steps: int, width: int) -> None:
        generator = nets.generator()
        weights, inputs = nets.dyadic((7, WIDE), generator), nets.dyadic((steps, WIDE, width), generator, grain=0.25)
        inputs[:, -1] = 0.0
        narrow = currents(weights[:, :-1].contiguous(), inputs[:, :-1].contiguous())
        assert np.array_equal(currents(weights, inputs), narrow)
        assert np.array_equal(narrow, torch.einsum("oi,tin->ton", weights, inputs).numpy())

    def test_within_rounding_elsewhere(self) -> None:
        generator = nets.generator()
        weights, inputs = torch.randn((7, WIDE), generator=generator), torch.rand((3, WIDE, 32), generator=generator)
        inputs[:, -1] = 0.0
        narrow = currents(weights[:, :-1].contiguous(), inputs[:, :-1].contiguous())
        np.testing.assert_allclose(currents(weights, inputs), narrow, atol=1e-4, rtol=0)

    def test_further_weights_are_those_of_later_layers(self) -> None:
        generator = nets.generator()
        weights, inputs = nets.dyadic((4, WIDE), generator), nets.dyadic((1, WIDE, 16), generator)
        found = np.empty((1, 3, 16), np.float32)
        kernels.first_currents(weights.flatten().numpy(), inputs.numpy(), found)
        assert np.array_equal(found, currents(weights[:3].contiguous(), inputs))


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("lines", [WIDE - 1, WIDE, WIDE + 41])
def test_the_compiled_kernel_equals_the_session_exactly(lines: int, constant: bool) -> None:
    network = Network(lines, (5,), 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(3)
    chip = SimulatedChip(network, [EXACT] * 3, range(3))
    parameters = nets.weights(network, generator, 3)
    shown, index = nets.inputs(network, generator, 70, 5, constant)[None], torch.zeros(3, dtype=torch.long)
    compiled = chip.run(parameters, shown, index)
    session = chip.session(parameters, 70)
    seen = [session.advance(shown[index, :, t]).spikes for t in range(5)]
    for layer, spikes in enumerate(compiled):
        assert torch.equal(spikes, torch.stack([step[layer] for step in seen], dim=2))
        assert 0.02 < spikes.mean() < 0.98


def test_the_models_own_spikes_are_those_of_the_ideal_chip() -> None:
    network = Network(WIDE + 3, (4,), 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(2)
    parameters = nets.weights(network, generator, 2)
    shown = nets.inputs(network, generator, 40, 5, False).expand(2, -1, -1, -1)
    chip = SimulatedChip(network, [FaultSpec()] * 2, [0, 1])
    counts = chip.evaluate(parameters[:, None], shown, torch.arange(2))[:, 0]
    assert torch.equal(bptt.forward(network, parameters, shown, bptt.Model.of(chip.nominal), "gaussian"), counts)
    assert counts.any()


@pytest.mark.parametrize("spec", [FaultSpec(), STATIC], ids=["ideal", "static"])
def test_a_device_does_not_depend_on_what_is_beside_it(spec: FaultSpec) -> None:
    """Bit for bit, candidates and devices: each matrix product has the shape of one cell, step and tile."""
    network = Network(WIDE + 50, (9,), 3)
    generator = nets.generator(6)
    chip, alone = SimulatedChip(network, [spec] * 4, range(4)), SimulatedChip(network, [spec], [3])
    candidates = torch.randn((4, 3, network.parameters), generator=generator)
    candidates[..., : 9 * network.inputs] /= 8
    shown = torch.rand((2, 70, 6, network.inputs), generator=generator)
    index = torch.tensor([0, 1, 1, 0])
    counts = chip.evaluate(candidates, shown, index)
    assert torch.equal(counts[3:], alone.evaluate(candidates[3:], shown, index[3:]))
    for c in range(3):
        assert torch.equal(counts[:, c], chip.run(candidates[:, c], shown, index)[-1].sum(dim=2))
    assert counts.unique().numel() > 3


def inputs_of(splits: int, samples: int, steps: int, lines: int, constant: bool) -> torch.Tensor:
    values = torch.rand((splits, samples, 1 if constant else steps, lines), generator=nets.generator(3))
    return values.expand(-1, -1, steps, -1)


class TestGradient:
    def test_the_product_is_added_exactly_where_sums_are_exact(self) -> None:
        generator = nets.generator(1)
        delta, inputs = nets.dyadic((6, 5, 48), generator), nets.dyadic((5, WIDE, 48), generator, grain=0.25)
        before = nets.dyadic((4, WIDE), generator)
        found = before.clone().numpy()
        bptt_kernels.add_outer(delta.numpy(), inputs.numpy(), found)  # of the first four of six neurons
        expected = before + torch.einsum("otn,tin->oi", delta[:4], inputs)
        assert np.array_equal(found, expected.numpy())

    @pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
    @pytest.mark.parametrize(("lines", "samples"), [(WIDE - 1, 37), (WIDE, 37), (WIDE + 44, 600), (WIDE + 44, 1)])
    def test_it_is_that_of_automatic_differentiation(self, lines: int, samples: int, constant: bool) -> None:
        network = Network(lines, (5,), 3)
        chip = SimulatedChip(network, [STATIC] * 3, range(3))
        model = bptt.Model.of(chip.nominal)
        shown = inputs_of(2, samples, 4, lines, constant)
        targets = torch.randint(0, 3, (2, samples), generator=nets.generator(2))
        batch = Batch(shown, targets, torch.tensor([1, 0, 1]))
        parameters = torch.randn((3, network.parameters), generator=nets.generator(1)) / lines**0.5
        spikes = chip.run(parameters, batch.inputs, batch.index)
        losses, gradient = bptt.loss_gradient(network, parameters, batch, model, "gaussian", spikes)
        leaf = parameters.clone().requires_grad_()
        counts = bptt.forward(network, leaf, shown[batch.index], model, "gaussian", spikes)
        expected = -log_probabilities(counts, 1.0).gather(2, targets[batch.index][..., None]).mean(dim=(1, 2))
        (automatic,) = torch.autograd.grad(expected.sum(), leaf)
        torch.testing.assert_close(losses.float(), expected.detach())
        torch.testing.assert_close(gradient, automatic, atol=2e-5, rtol=2e-4)
        assert automatic[:, : 5 * lines].abs().max() > 1e-3

    def test_a_cells_gradient_does_not_depend_on_what_is_beside_it(self) -> None:
        network = Network(WIDE + 7, (8,), 2)
        parameters = torch.randn((4, network.parameters), generator=nets.generator(1)) / 16
        shown = inputs_of(4, 33, 5, network.inputs, False)
        targets = torch.randint(0, 2, (4, 33), generator=nets.generator(2))

        def gradient(cells: list[int]) -> torch.Tensor:
            chip = SimulatedChip(network, [STATIC] * len(cells), cells)
            batch = Batch(shown[cells], targets[cells], torch.arange(len(cells)))
            spikes = chip.run(parameters[cells], batch.inputs, batch.index)
            return bptt.loss_gradient(
                network, parameters[cells], batch, bptt.Model.of(chip.nominal), "gaussian", spikes
            )[1]

        assert torch.equal(gradient([0, 1, 2, 3])[2], gradient([2])[0])


class TestKeptTiles:
    """The backward pass takes the tiles that the forward pass made; nothing else may be taken for them."""

    @pytest.fixture(autouse=True)
    def nothing_kept(self) -> None:
        simulated.tile.forget()

    @pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
    @pytest.mark.parametrize("samples", [16, 17, 512, 700])
    def test_tiles_hold_every_sample_in_its_place_and_silence_behind(self, samples: int, constant: bool) -> None:
        shown = inputs_of(2, samples, 3, 4, constant)
        tiles = tile(shown)
        splits, count, steps, lines, width = tiles.shape
        assert (splits, steps, lines) == (2, 1 if constant else 3, 4)
        assert tiles.flags.c_contiguous
        together = tiles.transpose(0, 1, 4, 2, 3).reshape(2, count * width, steps, lines)
        assert np.array_equal(together[:, :samples], shown[:, :, :steps].numpy())
        assert not together[:, samples:].any()

    def test_the_same_inputs_are_tiled_once(self) -> None:
        shown = inputs_of(1, 20, 3, 4, False)
        assert tile(shown) is tile(shown)

    def test_a_change_in_place_is_noticed(self) -> None:
        shown = inputs_of(1, 16, 3, 4, False).contiguous()
        before = tile(shown).copy()
        shown[0, 5, 1, 2] = 9.0
        after = tile(shown)
        assert after[0, 0, 1, 2, 5] == 9.0
        assert (after != before).sum() == 1
        shown.mul_(2.0)
        assert np.array_equal(tile(shown), 2 * after)

    def test_a_change_through_a_view_or_of_the_whole_is_noticed(self) -> None:
        whole = torch.ones(2, 16, 3, 4)
        shown = whole[:1]
        tile(shown)
        whole[0, 0, 0, 0] = 5.0
        assert tile(shown)[0, 0, 0, 0, 0] == 5.0
        shown[0, 1].fill_(7.0)
        assert (tile(shown)[0, 0, :, :, 1] == 7.0).all()

    def test_equal_shapes_are_not_equal_inputs(self) -> None:
        first, second = torch.ones(1, 16, 3, 4), torch.zeros(1, 16, 3, 4)
        assert tile(first).all()
        assert not tile(second).any()
        assert tile(first).all()

    def test_inputs_that_are_gone_are_not_taken_for_new_ones_in_their_place(self) -> None:
        for value in range(50):
            assert (tile(torch.full((1, 16, 3, 4), float(value))) == value).all()

    def test_inputs_are_not_kept_alive(self) -> None:
        shown = torch.ones(1, 16, 3, 4)
        tile(shown)
        gone = weakref.ref(shown)
        del shown
        gc.collect()
        assert gone() is None
