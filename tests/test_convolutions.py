"""Convolutional SRM networks: their layout, their local gradients against loops over positions, their training."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import nets
import pytest
import torch
from project import CHECKOUT
from test_local_learning import Spike

from spikebench import bernoulli, local_learning, plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.convolutions import pool, split, weigh
from spikebench.data import Batch, DataInfo
from spikebench.errors import Unavailable
from spikebench.local_learning import Learning, Traces
from spikebench.method import Task
from spikebench.networks import Convolution, Network
from spikebench.neurons import SRMParameters
from spikebench.seeds import Streams

BISNN = plugins.load("methods", "bisnn", CHECKOUT)
PICTURE = (2, 4, 5)
#: 4 x 5 positions, pooled to 2 x 2 (a column is left over), then twice the same.
LAYERS = ((3, 3, 2), (4, 1, 1), (2, 3, 1))
#: With one-bit weights all sums are exact: neurons of a square that are equal are so whatever the order of a sum.
NEURON = SRMParameters(0.5, 0.5, 0.5)
NETWORK = Network(41, (), 3, NEURON, convolutions=tuple(Convolution(*x) for x in LAYERS), picture=PICTURE)
CELLS, SAMPLES, STEPS = 2, 3, 12


class TestLayout:
    PAPER = Network(
        1353, (), 10, SRMParameters(), weight_bits=1, picture=(2, 26, 26),
        convolutions=(Convolution(64, 7, 2), Convolution(128, 7, 1), Convolution(128, 7, 2)),
    )  # fmt: skip

    def test_the_papers_network_by_hand(self) -> None:
        assert self.PAPER.shapes == ((64, 2 * 49 + 1), (128, 64 * 49 + 1), (128, 128 * 49 + 1))
        assert self.PAPER.maps == ((2, 26, 26), (64, 13, 13), (128, 13, 13), (128, 6, 6))
        assert self.PAPER.positions == (676, 169, 169)
        assert self.PAPER.widths == (64 * 169, 128 * 169, 128 * 36)
        assert self.PAPER.memory_bits == 64 * 99 + 128 * 3137 + 128 * 6273
        assert self.PAPER.scales == pytest.approx([98**-0.5, 3136**-0.5, 6272**-0.5])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"neuron": Network(2, (), 2).neuron}, "convolutions: they are for SRM neurons"),
            ({"hidden": (3,)}, "in place of hidden layers"),
            ({"picture": ()}, r"picture: found \(\), expected one of 40 lines"),
            ({"picture": (2, 5, 5)}, r"found \(2, 5, 5\)"),
            ({"convolutions": (Convolution(3, 4, 2),)}, "expected odd kernels"),
        ],
    )
    def test_networks_that_do_not_exist(self, changes: dict[str, Any], message: str) -> None:
        given = {"hidden": (), "neuron": SRMParameters(), "convolutions": NETWORK.convolutions, "picture": PICTURE}
        with pytest.raises(ValueError, match=message):
            Network(41, outputs=3, **{**given, **changes})


def positions(layer: int) -> list[tuple[int, int]]:
    _, height, width = NETWORK.maps[layer]
    return list(itertools.product(range(height), range(width)))


def weighed(layer: int, shown: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """[N, O, positions] of one cell's pictures [N, C, H, W], position by position."""
    k = NETWORK.convolutions[layer].kernel
    kernels = weights[:, :-1].reshape(len(weights), shown.shape[1], k, k)
    wide = torch.zeros(*shown.shape[:2], shown.shape[2] + k - 1, shown.shape[3] + k - 1)
    wide[:, :, k // 2 : k // 2 + shown.shape[2], k // 2 : k // 2 + shown.shape[3]] = shown
    seen = [wide[:, :, y : y + k, x : x + k] for y, x in positions(layer)]
    return torch.stack([torch.einsum("nchw,ochw->no", patch, kernels) for patch in seen], dim=2)


def squares(layer: int, values: torch.Tensor) -> torch.Tensor:
    """The first largest of each square [N, O x squares] of values [N, O, positions]."""
    side, (_, height, width) = NETWORK.convolutions[layer].pool, NETWORK.maps[layer]
    found = []
    for top, left in itertools.product(range(height // side), range(width // side)):
        inside = [place for place, (y, x) in enumerate(positions(layer)) if (y // side, x // side) == (top, left)]
        found.append(values[:, :, inside].max(dim=2).values)
    return torch.stack(found, dim=2).flatten(1)


def test_a_layer_looks_at_one_position_after_the_other() -> None:
    generator = nets.generator()
    for layer, weights in enumerate(NETWORK.unpack(torch.randn((CELLS, NETWORK.parameters), generator=generator))):
        shown = torch.rand((CELLS, SAMPLES, *NETWORK.maps[layer]), generator=generator)
        sums = weigh(NETWORK, layer, shown.flatten(2), split(NETWORK, weights)[0])
        for b in range(CELLS):
            expected = weighed(layer, shown[b], weights[b])
            torch.testing.assert_close(sums[b].unflatten(0, (SAMPLES, -1)).mT, expected)
            assert torch.equal(pool(NETWORK, layer, expected.mT.flatten(0, 1)[None])[0], squares(layer, expected))


class Reference:
    """The equations of the paper's code for one cell, by loops over positions and automatic differentiation."""

    def __init__(self, surrogate: str = "boxcar") -> None:
        self.surrogate = surrogate
        self.q = [torch.zeros(SAMPLES, *NETWORK.maps[layer]) for layer in range(3)]
        self.p = [torch.zeros_like(q) for q in self.q]
        self.r = [torch.zeros(SAMPLES, o, n) for (o, _), n in zip(NETWORK.shapes, NETWORK.positions, strict=True)]
        self.s = [torch.zeros_like(r) for r in self.r]

    def step(
        self, weights: torch.Tensor, shown: torch.Tensor, readouts: list[torch.Tensor], targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradient [P] of all layers' cross-entropies, the last layer's, and its read-outs [N, O]."""
        alpha, beta, alpha_r, theta = NETWORK.neuron
        leaf = weights.clone().requires_grad_()
        source, total = shown[:, :-1], torch.zeros(())
        for layer, w in enumerate(NETWORK.unpack(leaf)):
            self.p[layer] = alpha * self.p[layer] + self.q[layer]
            self.q[layer] = beta * self.q[layer] + source.view(self.q[layer].shape)
            self.r[layer] = alpha_r * self.r[layer] + self.s[layer]
            fan_in = NETWORK.convolutions[layer].kernel ** 2 * NETWORK.maps[layer][0]
            u = (weighed(layer, self.p[layer], w) + w[:, -1:]) * fan_in**-0.5 - self.r[layer]
            self.s[layer] = (u >= theta).float()
            spikes = Spike.apply(squares(layer, u), self.surrogate)
            logits = spikes @ readouts[layer].T / spikes.shape[1] ** 0.5
            loss = torch.nn.functional.cross_entropy(logits, targets.argmax(dim=1))
            total, source = total + loss, spikes.detach()
        return torch.autograd.grad(total, leaf)[0], loss.detach(), logits.detach()


def problem(seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Weights [B, P], read-outs, inputs [B, N, T, I] and labels [B, N]."""
    torch.manual_seed(seed)
    readouts = [bernoulli.sign(torch.randn(CELLS, 3, width)) for width in NETWORK.widths]
    inputs = (torch.rand(CELLS, SAMPLES, STEPS, 41) < 0.2).float()
    return torch.randn(CELLS, NETWORK.parameters), readouts, inputs, torch.randint(0, 3, (CELLS, SAMPLES))


@pytest.mark.parametrize("surrogate", local_learning.SURROGATES)
def test_the_gradient_is_that_of_loops_over_positions(surrogate: str) -> None:
    weights, readouts, inputs, labels = problem()
    targets = local_learning.targets_of(labels, "softmax", 3)
    learning, traces = Learning("softmax", surrogate, 0, "real"), Traces.rest(NETWORK, CELLS, SAMPLES)
    cells = [Reference(surrogate) for _ in range(CELLS)]
    size = torch.zeros(NETWORK.parameters)
    for t in range(STEPS):
        done = local_learning.online_step(NETWORK, learning, traces, weights, readouts, inputs[:, :, t], targets)
        traces = done.traces
        for b, cell in enumerate(cells):
            gradient, loss, _ = cell.step(weights[b], inputs[b, :, t], [r[b] for r in readouts], targets[b])
            torch.testing.assert_close(done.gradient[b], gradient, atol=1e-6, rtol=1e-4)
            torch.testing.assert_close(done.loss[b], loss)
            size += gradient.abs()
    for layer in NETWORK.unpack(size):
        assert (layer.amax(dim=0) > 1e-3).float().mean() > 0.9, "neither kernels nor biases are all silent"


def one_pixel(widths: tuple[int, ...], **keys: Any) -> tuple[Network, Network]:
    """A dense network and the same as convolutions of one pixel."""
    layers = tuple(Convolution(width, 1, 1) for width in widths)
    own = Network(5, (), 3, convolutions=layers, picture=(4, 1, 1), **keys)
    return Network(5, widths, 3, **keys), own


def without_biases(dense: Network, parameters: torch.Tensor) -> torch.Tensor:
    """A dense network's parameters as those of ``one_pixel``, biases being 0."""
    return torch.cat([torch.nn.functional.pad(w, (0, 1)).flatten(1) for w in dense.unpack(parameters)], dim=1)


def test_one_pixel_without_biases_is_a_dense_network() -> None:
    dense, own = one_pixel((6, 3), neuron=SRMParameters())
    assert own.scales == dense.scales
    assert own.widths == dense.widths
    torch.manual_seed(1)
    weights, inputs = torch.randn(CELLS, dense.parameters), (torch.rand(CELLS, 7, STEPS, 5) < 0.3).float()
    readouts = [bernoulli.sign(torch.randn(CELLS, 1, width)) for width in (6, 3)]
    targets = local_learning.targets_of(torch.randint(0, 2, (CELLS, 7)), "logistic", 1)
    learning = Learning("logistic", "sigmoid", 0, "real")
    traces = [Traces.rest(network, CELLS, 7) for network in (dense, own)]
    for t in range(STEPS):
        shown = inputs[:, :, t]
        a = local_learning.online_step(dense, learning, traces[0], weights, readouts, shown, targets)
        wide = without_biases(dense, weights)
        b = local_learning.online_step(own, learning, traces[1], wide, readouts, shown, targets)
        traces = [a.traces, b.traces]
        torch.testing.assert_close(a.loss, b.loss)
        for x, y in zip(dense.unpack(a.gradient), own.unpack(b.gradient), strict=True):
            torch.testing.assert_close(x, y[..., :-1], atol=1e-6, rtol=1e-4)
            assert y[..., -1].any(), "biases are learnt"


# The method


def task(training: str, mode: str = "off-chip", **changes: Any) -> Task:
    info = DataInfo("classification", 41, 3, STEPS, True, PICTURE)
    settings = BISNN.Settings(burn_in=0.25, epochs=1, minibatch=SAMPLES, temperature=0.7, kl_weight=0.01, **changes)
    network = replace(BISNN.network(info, {"convolutions": [list(x) for x in LAYERS]}, training), neuron=NEURON)
    return Task(network, info, settings, mode, {"learning_rate": torch.tensor([0.02, 0.1])}, training)


def begin(asked: Task, seeds: tuple[int, ...] = (11, 12)) -> tuple[Any, Batch, SimulatedChip, Streams]:
    _, _, inputs, labels = problem(3)
    chip = SimulatedChip(asked.network, [FaultSpec()] * len(seeds), [0] * len(seeds), binary_inputs=True)
    batch, streams = Batch(inputs, labels, torch.arange(CELLS)[-len(seeds) :]), Streams(seeds)
    return BISNN.init(asked, batch, chip, streams), batch, chip, streams


def test_convolutions_look_at_pictures() -> None:
    info = DataInfo("classification", 41, 3, STEPS, True)
    with pytest.raises(Unavailable, match="look at pictures"):
        BISNN.network(info, {"convolutions": [[3, 3, 2]]}, "bayes")


@pytest.mark.parametrize("training", BISNN.RULES)
def test_one_presentation_is_learnt_from_step_by_step(training: str) -> None:
    asked = task(training, surrogate="sigmoid")
    state, batch, chip, streams = begin(asked)
    assert asked.network.shapes == NETWORK.shapes
    rule, posterior = BISNN.RULES[training], BISNN._learning(asked).posterior
    keys, readouts = streams.keys("weights", 0), BISNN._matrices(asked, state)
    targets = local_learning.targets_of(batch.targets, "softmax", 3)
    rates = asked.choice["learning_rate"] * asked.settings.rate(training)
    natural, cells, losses = state.natural.clone(), [Reference("sigmoid") for _ in range(CELLS)], []
    relaxed, slope = bernoulli.relax(natural, posterior, keys, 0)
    for t in range(STEPS):
        acting = {"real": natural, "straight-through": bernoulli.sign(natural), "bernoulli": relaxed}[rule]
        steps = [
            cell.step(acting[b], batch.inputs[b, :, t], [r[b] for r in readouts], targets[b])
            for b, cell in enumerate(cells)
        ]
        if t < 3:
            continue
        gradient = torch.stack([step[0] for step in steps])
        losses.append(torch.stack([step[1] for step in steps]))
        if rule == "bernoulli":
            bernoulli.natural_step(natural, gradient, relaxed, slope, rates, posterior)
            relaxed, slope = bernoulli.relax(natural, posterior, keys, t + 1)
        else:
            natural = natural - rates[:, None] * gradient
    before = state.natural.clone()
    state, info = BISNN.step(asked, state, batch, chip, streams)
    torch.testing.assert_close(state.natural, natural, atol=1e-4, rtol=1e-3)
    told = info.traces["train_loss"].float()
    torch.testing.assert_close(told, torch.stack(losses).mean(dim=0), atol=1e-5, rtol=1e-5)
    for moved in asked.network.unpack(state.natural - before):
        assert moved.abs().amax() > 1e-3
    assert not chip.meter.presentations.any(), "off-chip"


@pytest.mark.parametrize("training", BISNN.RULES)
def test_predictions_are_the_last_layers_read_outs_after_burn_in(training: str) -> None:
    asked = task(training)
    state, batch, chip, _ = begin(asked)
    variant = {"bayes": "bayes-mode"}.get(training, training)
    found = BISNN.predict(replace(asked, variant=variant), state, batch.inputs, batch.index, chip).probabilities
    weights = state.natural if training == "full-precision" else bernoulli.sign(state.natural)
    targets = local_learning.targets_of(batch.targets, "softmax", 3)
    readouts = BISNN._matrices(asked, state)
    for b in range(CELLS):
        cell, own = Reference(), [r[b] for r in readouts]
        steps = [cell.step(weights[b], batch.inputs[b, :, t], own, targets[b])[2] for t in range(STEPS)]
        torch.testing.assert_close(found[b, 0], torch.stack(steps[3:]).softmax(dim=2).mean(dim=0))
    assert found.std(dim=2).max() > 0.01


def test_the_ideal_chip_in_the_loop_is_the_model() -> None:
    learnt = []
    for mode in ("off-chip", "in-the-loop"):
        asked = task("straight-through", mode)
        state, batch, chip, streams = begin(asked)
        learnt.append(BISNN.step(asked, state, batch, chip, streams)[0].natural)
        assert chip.meter.presentations.tolist() == [SAMPLES * (mode == "in-the-loop")] * CELLS
    torch.testing.assert_close(*learnt, atol=1e-5, rtol=1e-4)  # single precision off-chip, double in the loop


@pytest.mark.parametrize("training", BISNN.RULES)
def test_a_cell_learns_the_same_bits_alone(training: str) -> None:
    asked = task(training)
    state, batch, chip, streams = begin(asked)
    together = BISNN.step(asked, state, batch, chip, streams)[0]
    asked = replace(asked, choice={"learning_rate": asked.choice["learning_rate"][1:]})
    state, batch, chip, streams = begin(asked, (12,))
    alone = BISNN.step(asked, state, batch, chip, streams)[0]
    assert torch.equal(together.natural[1:], alone.natural)
