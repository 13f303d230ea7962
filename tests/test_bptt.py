"""The gradient that backpropagation descends, against finite differences of networks that are smooth.

Two smooth networks stand behind it. With the surrogate's primitive P in place of every spike the gradient is exact.
With a device's spikes S* given, S = S* + P(V - theta) - P(V* - theta) has the device's values at the weights W* and
the surrogate's derivatives there: what "the chip forward, the model backward" means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import nets
import pytest
import torch

from spikebench import bptt
from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec, draw_device
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch
from spikebench.errors import Unavailable
from spikebench.networks import Network, log_probabilities
from spikebench.neurons import LIFParameters
from spikebench.surrogates import SURROGATES

DEVIATIONS = {"gain_mismatch": 0.3, "threshold": 0.3, "time_constant": 0.3, "offset": 0.2, "compression": 0.8}
FAULTS = {"ideal": FaultSpec(), "known faults": FaultSpec(1.0, **DEVIATIONS), "stuck": FaultSpec(1.0, stuck_at=0.3)}
DEPTHS = [(), (4,), (4, 3)]


def model_of(network: Network, spec: FaultSpec, cells: int) -> bptt.Model:
    return bptt.Model.of(draw_device(network, [spec] * cells, range(cells)))


def double(model: bptt.Model) -> bptt.Model:
    return bptt.Model(*(tensor.double() for tensor in model))


def random_inputs(cells: int, samples: int, steps: int, lines: int, constant: bool) -> torch.Tensor:
    values = torch.rand((cells, samples, 1 if constant else steps, lines), generator=nets.generator(3))
    return values.expand(-1, -1, steps, -1)


def random_spikes(samples: int, steps: int, widths: tuple[int, ...]) -> list[torch.Tensor]:
    """Of two cells, laid out in memory as ``run`` gives them, for which the kernel is compiled already."""
    together = torch.randint(0, 2, (2, samples, steps, sum(widths)), generator=nets.generator(5)).float()
    return list(together.split(list(widths), dim=-1))


def differences(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, h: float = 1e-6) -> torch.Tensor:
    """Central differences of a number a cell [B] in the cell's own parameters [B, P]."""
    columns = []
    for p in range(at.shape[1]):
        change = torch.zeros_like(at)
        change[:, p] = h
        columns.append((function(at + change) - function(at - change)) / (2 * h))
    return torch.stack(columns, dim=1)


def cross_entropy(counts: torch.Tensor, targets: torch.Tensor, gain: float) -> torch.Tensor:
    """Mean over the examples, [B]."""
    return -log_probabilities(counts, gain).gather(2, targets[..., None]).mean(dim=(1, 2))


def anchored_counts(
    network: Network,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    model: bptt.Model,
    surrogate: str,
    device_spikes: list[torch.Tensor],
    anchors: list[torch.Tensor] | None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Counts [B, N, O] of S = S* + P(V - theta) - P(V* - theta), written step by step, and the V.

    ``anchors`` are V*; None takes the V themselves, so that S = S*.
    """
    primitive = SURROGATES[surrogate].primitive
    signal, first, potentials = inputs, 0, []
    for layer, weights in enumerate(network.unpack(parameters * model.gain)):
        neurons = slice(first, first + weights.shape[1])
        theta, decay, offset = (x[:, None, neurons] for x in (model.threshold, model.decay, model.offset))
        kappa = model.compression[:, layer, None, None]
        if layer > 0:
            signal = torch.cat([signal, torch.ones_like(signal[..., :1])], dim=-1)
        trace, spikes = [], []
        for t in range(inputs.shape[2]):
            current = torch.einsum("bni,boi->bno", signal[:, :, t], weights)
            if kappa.any():
                current = torch.tanh(kappa * current) / kappa
            current = current + offset
            potential = current if t == 0 else decay * trace[-1] * (1 - spikes[-1]) + current
            anchor = potential if anchors is None else anchors[layer][:, :, t]
            shift = primitive(potential - theta) - primitive(anchor - theta)
            trace.append(potential)
            spikes.append(device_spikes[layer][:, :, t] + shift)
        signal = torch.stack(spikes, dim=2)
        potentials.append(torch.stack(trace, dim=2))
        first = neurons.stop
    return signal.sum(dim=2), potentials


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("surrogate", list(SURROGATES))
@pytest.mark.parametrize("faults", FAULTS)
def test_the_smoothed_network_has_the_gradient_of_differences(faults: str, surrogate: str, constant: bool) -> None:
    network = Network(3, (4,), 2)
    model = double(model_of(network, FAULTS[faults], 2))
    inputs = random_inputs(2, 3, 5, 3, constant).double()
    parameters = torch.randn((2, network.parameters), generator=nets.generator(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p: bptt.forward(network, p, inputs, model, surrogate, smooth=True), parameters.requires_grad_()
    )


@pytest.mark.parametrize("hidden", DEPTHS, ids=str)
def test_the_models_own_spikes_are_those_of_the_ideal_chip(hidden: tuple[int, ...]) -> None:
    network = Network(5, hidden, 3, LIFParameters(0.5, 1.0))
    generator = nets.generator(2)
    parameters = nets.weights(network, generator, 2)
    inputs = nets.inputs(network, generator, 40, 8, False).expand(2, -1, -1, -1)
    counts = SimulatedChip(network, [FaultSpec()] * 2, [0, 1]).evaluate(parameters[:, None], inputs, torch.arange(2))
    model = model_of(network, FaultSpec(), 2)
    assert torch.equal(bptt.forward(network, parameters, inputs, model, "gaussian"), counts[:, 0])
    assert counts.any()


def test_the_models_own_spikes_are_those_of_a_faulty_chip_that_is_known() -> None:
    network = Network(5, (6,), 3)
    spec = FAULTS["known faults"]
    parameters = torch.randn((2, network.parameters), generator=nets.generator(4))
    inputs = random_inputs(2, 200, 8, 5, True)
    chip = SimulatedChip(network, [spec] * 2, [0, 1])
    own = bptt.forward(network, parameters, inputs, bptt.Model.of(chip.knowledge), "gaussian")
    real = chip.evaluate(parameters[:, None], inputs, torch.arange(2))[:, 0]
    assert (own == real).all(dim=2).float().mean() > 0.99  # all but those that come close to a threshold
    ideal = bptt.forward(network, parameters, inputs, bptt.Model.of(chip.nominal), "gaussian")
    assert (ideal == real).all(dim=2).float().mean() < 0.8


def test_with_a_device_in_the_loop_the_forward_values_are_the_devices() -> None:
    network = Network(3, (4,), 2)
    model = model_of(network, FaultSpec(), 2)
    inputs = random_inputs(2, 6, 5, 3, False)
    spikes = random_spikes(6, 5, (4, 2))
    parameters = torch.randn((2, network.parameters), generator=nets.generator(1))
    batch = Batch(inputs, torch.zeros(2, 6, dtype=torch.long), torch.arange(2))
    assert torch.equal(bptt.forward(network, parameters, inputs, model, "arctan", spikes), spikes[1].sum(dim=2))
    losses, _ = bptt.loss_gradient(network, parameters, batch, model, "arctan", spikes)
    expected = cross_entropy(spikes[1].sum(dim=2).double(), batch.targets, network.count_gain)
    torch.testing.assert_close(losses.double(), expected)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("surrogate", list(SURROGATES))
@pytest.mark.parametrize("faults", ["ideal", "known faults"])
@pytest.mark.parametrize("hidden", DEPTHS, ids=str)
def test_the_gradient_through_a_device_is_that_of_the_model_around_its_spikes(
    hidden: tuple[int, ...], faults: str, surrogate: str, constant: bool
) -> None:
    """The device's spikes are random: nothing but their values may enter, and the model's own spikes must not."""
    network = Network(3, hidden, 2, count_gain=0.7)
    model = model_of(network, FAULTS[faults], 2)
    inputs = random_inputs(2, 5, 6, 3, constant)
    spikes = random_spikes(5, 6, (*hidden, 2))
    parameters = torch.randn((2, network.parameters), generator=nets.generator(1))
    targets = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]])

    args = (inputs.double(), double(model), surrogate, [s.double() for s in spikes])
    _, anchors = anchored_counts(network, parameters.double(), *args, None)
    expected = differences(
        lambda p: cross_entropy(anchored_counts(network, p, *args, anchors)[0], targets, 0.7), parameters.double()
    )
    batch = Batch(inputs, targets, torch.arange(2))
    _, compiled = bptt.loss_gradient(network, parameters, batch, model, surrogate, spikes)
    torch.testing.assert_close(compiled.double(), expected, atol=2e-5, rtol=2e-4)
    assert expected.abs().max() > 0.02

    leaf = parameters.double().requires_grad_()
    counts = bptt.forward(network, leaf, *args)
    (automatic,) = torch.autograd.grad(cross_entropy(counts, targets, 0.7).sum(), leaf)
    torch.testing.assert_close(automatic, expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "varying"])
@pytest.mark.parametrize("samples", [1, 16, 37, 600])
def test_the_compiled_gradient_does_not_depend_on_how_samples_are_tiled(samples: int, constant: bool) -> None:
    """And takes the split that ``index`` names."""
    network = Network(6, (5,), 3)
    chip = SimulatedChip(network, [FAULTS["known faults"]] * 3, range(3))
    model = bptt.Model.of(chip.nominal)
    shown = random_inputs(2, samples, 6, 6, constant)
    targets = torch.randint(0, 3, (2, samples), generator=nets.generator(2))
    batch = Batch(shown, targets, torch.tensor([1, 0, 1]))
    parameters = torch.randn((3, network.parameters), generator=nets.generator(1))
    spikes = chip.run(parameters, batch.inputs, batch.index)
    losses, gradient = bptt.loss_gradient(network, parameters, batch, model, "gaussian", spikes)
    leaf = parameters.clone().requires_grad_()
    counts = bptt.forward(network, leaf, shown[batch.index], model, "gaussian", spikes)
    expected = cross_entropy(counts, targets[batch.index], 1.0)
    (automatic,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(losses.float(), expected.detach())
    torch.testing.assert_close(gradient, automatic, atol=2e-5, rtol=2e-4)


def test_a_cells_gradient_does_not_depend_on_what_is_beside_it() -> None:
    network = Network(31, (8,), 2)
    parameters = torch.randn((4, network.parameters), generator=nets.generator(1))
    shown, targets = random_inputs(4, 33, 10, 31, True), torch.randint(0, 2, (4, 33), generator=nets.generator(2))
    spec = FAULTS["known faults"]

    def gradient(cells: list[int]) -> torch.Tensor:
        chip = SimulatedChip(network, [spec] * len(cells), cells)
        batch = Batch(shown[cells], targets[cells], torch.arange(len(cells)))
        spikes = chip.run(parameters[cells], batch.inputs, batch.index)
        model = bptt.Model.of(chip.nominal)
        return bptt.loss_gradient(network, parameters[cells], batch, model, "gaussian", spikes)[1]

    assert torch.equal(gradient([0, 1, 2, 3])[2], gradient([2])[0])


def test_nothing_is_learnt_through_a_synapse_that_is_known_to_be_stuck() -> None:
    network = Network(6, (5,), 3)
    chip = SimulatedChip(network, [FAULTS["stuck"]], [1])
    parameters = torch.randn((1, network.parameters), generator=nets.generator(1))
    batch = Batch(random_inputs(1, 20, 6, 6, True), torch.zeros(1, 20, dtype=torch.long), torch.tensor([0]))
    spikes = chip.run(parameters, batch.inputs, batch.index)
    model = bptt.Model.of(chip.knowledge)
    _, gradient = bptt.loss_gradient(network, parameters, batch, model, "gaussian", spikes)
    stuck = torch.cat([layer.stuck.flatten(1) for layer in chip.device.layers], dim=1)
    assert not gradient[stuck].any()
    assert gradient[~stuck].any()


class TestMaps:
    """Layers on maps, whose last one are the outputs: the same rule through the multi-step engine."""

    network = replace(
        feedback_network("3C3-M2-3C3-2", 2 * 6 * 6 + 1, (2, 6, 6), 2, LIFParameters(0.75, 0.5)), count_gain=0.5
    )

    def parameters(self) -> torch.Tensor:
        return 0.5 * torch.randn(self.network.parameters, generator=nets.generator(1))

    def inputs(self) -> torch.Tensor:
        return random_inputs(1, 5, 4, 2 * 6 * 6, constant=False)[0]

    def test_gradient_of_the_smooth_network_is_that_of_finite_differences(self) -> None:
        at, labels = self.parameters(), torch.tensor([0, 1, 1, 0, 1])

        def loss(parameters: torch.Tensor) -> torch.Tensor:
            return bptt.map_loss(self.network, parameters, self.inputs(), labels, "gaussian", smooth=True)

        leaf = at.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        h, some = 1e-2, torch.randperm(len(at), generator=nets.generator(2))[:25]
        for p in some.tolist():
            change = torch.zeros_like(at)
            change[p] = h
            difference = (loss(at + change) - loss(at - change)) / (2 * h)
            assert gradient[p] == pytest.approx(
                float(difference), abs=0.03 * float(gradient.abs().max())
            )  # pools have kinks

    def test_device_spikes_are_what_counts(self) -> None:
        labels = torch.tensor([0, 1, 1, 0, 1])
        spikes = random_spikes(5, 4, self.network.widths)
        mine = [layer[0] for layer in spikes]
        loss = bptt.map_loss(self.network, self.parameters(), self.inputs(), labels, "gaussian", mine)
        expected = cross_entropy(mine[-1].sum(dim=1)[None], labels[None], self.network.count_gain)
        torch.testing.assert_close(loss, expected[0])

    def test_a_chip_without_faults_in_the_loop_changes_nothing(self) -> None:
        chip = SimulatedChip(self.network, [FaultSpec()], [0])
        weights = torch.round(self.parameters() * 8)[None] / 8  # dyadic: sums are exact on both sides
        lines = torch.round(random_inputs(1, 5, 4, 73, constant=False) * 4) / 4
        batch = Batch(lines, torch.tensor([[0, 1, 1, 0, 1]]), torch.tensor([0]))
        off, on = (
            bptt.step_gradient(self.network, weights, batch, chip, mode, "arctan")
            for mode in ("off-chip", "in-the-loop")
        )
        torch.testing.assert_close(off[0], on[0])
        torch.testing.assert_close(off[1], on[1])

    def test_counts_of_the_chip_are_those_of_the_loss(self) -> None:
        chip = SimulatedChip(self.network, [FaultSpec()], [0])
        weights = torch.round(self.parameters() * 8)[None] / 8
        lines, labels = torch.round(random_inputs(1, 5, 4, 73, constant=False) * 4) / 4, torch.tensor([0, 1, 1, 0, 1])
        counts = chip.evaluate(weights[:, None], lines, torch.tensor([0]))[:, 0]
        loss = bptt.map_loss(self.network, weights[0], lines[0, ..., :-1], labels, "gaussian")
        torch.testing.assert_close(loss, cross_entropy(counts, labels[None], self.network.count_gain)[0])

    def test_nobody_knows_the_chip_of_maps(self) -> None:
        chip = SimulatedChip(self.network, [FaultSpec()], [0])
        batch = Batch(torch.zeros(1, 2, 3, 73), torch.zeros(1, 2, dtype=torch.int64), torch.tensor([0]))
        with pytest.raises(Unavailable, match="their modes: off-chip, in-the-loop"):
            bptt.step_gradient(self.network, self.parameters()[None], batch, chip, "oracle", "gaussian")
