"""The vector that is trained: its parts, its start, and the chip that has the spikes of its network."""

from __future__ import annotations

import math

import multistep_truth as truth
import nets
import pytest
import torch

from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.layered_networks import LayeredNetwork
from spikebench.multistep import EPSILON, How, Parameters, neurons, present, trained
from spikebench.multistep_parameters import Layout, Parts

networks = pytest.mark.parametrize("name", truth.NETWORKS)


def numbered(arranged: Layout) -> torch.Tensor:
    return torch.arange(arranged.size, dtype=torch.float32)


@networks
def test_splitting_and_joining_are_inverse(name: str) -> None:
    net = truth.network(name)
    arranged = Layout(net)
    parts = arranged.split(numbered(arranged))
    assert torch.equal(arranged.join(parts), numbered(arranged))
    expected = truth.drawn(net, 1)
    assert [w.shape for w in parts.weights] == [w.shape for w in expected.weights]
    assert [g.shape for g in parts.gains] == [b.shape for b in parts.biases] == [g.shape for g in expected.gains]
    assert parts.read_out.shape == (3, net.widths[-1] + 1)
    assert parts.log_sharpness.shape == parts.thresholds.shape == (len(neurons(net)),)
    assert arranged.size == sum(map(torch.numel, [*parts.weights, *parts.gains, *parts.biases, *parts[3:]]))
    assert arranged.channels == sum(map(len, parts.gains)) and arranged.layers == len(neurons(net))
    assert parts.weights[0].flatten()[0] == 0 and parts.thresholds[-1] == arranged.size - 1


def test_the_parts_of_a_residual_network_by_hand() -> None:
    """A 1x1 projection is a trained link with batch norm of its own, a wire is none; means have a weight a channel."""
    arranged = Layout(truth.network("projection"))
    shapes = [(3, 2, 3, 3), (4, 3, 3, 3), (5, 4, 3, 3), (3, 5, 3, 3), (5, 3, 3, 3), (4, 5, 1, 1), (5, 3, 1, 1)]
    assert [tuple(w.shape) for w in arranged.split(numbered(arranged)).weights] == shapes
    assert arranged.layers == 6 and arranged.channels == 3 + 4 + 5 + 3 + 5 + 4 + 5


# The start


@networks
def test_it_starts_with_weights_by_their_fan_in(name: str) -> None:
    net = truth.network(name)
    arranged = Layout(net)
    ones = arranged.split(arranged.start(torch.ones(arranged.size), 4.0, 0.25))
    for own in ones.weights:
        torch.testing.assert_close(own, torch.full_like(own, math.sqrt(2 / math.prod(own.shape[1:]))))
    assert all(bool((gain == 1).all()) for gain in ones.gains) and not any(bias.any() for bias in ones.biases)
    torch.testing.assert_close(ones.read_out[:, :-1], torch.full((3, net.widths[-1]), net.widths[-1] ** -0.5))
    assert not ones.read_out[:, -1].any()
    torch.testing.assert_close(ones.log_sharpness, torch.full((arranged.layers,), math.log(4.0)))
    torch.testing.assert_close(ones.thresholds.tanh(), torch.full((arranged.layers,), 0.25))


def test_draws_are_scaled_and_stay_where_they_are() -> None:
    arranged = Layout(truth.network("pools"))
    draws = torch.randn(arranged.size, generator=nets.generator(1))
    found, drawn = arranged.split(arranged.start(draws, 1.0, 0.5)), arranged.split(draws)
    for own, normal in zip(found.weights, drawn.weights, strict=True):
        torch.testing.assert_close(own, normal * math.sqrt(2 / math.prod(own.shape[1:])))


# What a chip is programmed with


def random(net: LayeredNetwork, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A vector with everything in it, and running means and variances."""
    arranged, draws = Layout(net), truth.drawn(net, 1, seed)
    read_out = torch.randn((3, net.widths[-1] + 1), generator=nets.generator(seed))
    thresholds = torch.linspace(0.3, 1.5, arranged.layers)
    biases = [bias + 0.7 for bias in draws.biases]
    vector = arranged.join(
        Parts(list(draws.weights), list(draws.gains), biases, read_out, torch.zeros(arranged.layers), thresholds)
    )
    running = torch.randn((2, arranged.channels), generator=nets.generator(seed + 2)) * 0.2
    running[1] = running[1].abs() + 0.5
    return vector, running


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
@pytest.mark.parametrize(
    ("name", "learnt"),
    [
        *((name, False) for name in truth.NETWORKS),
        *((name, True) for name in ("dense", "pools", "strides")),
    ],
)
def test_a_chip_has_the_rates_of_the_frozen_network(name: str, learnt: bool, constant: bool) -> None:
    """All layers' but those of gates; sums that are rounded elsewhere may lose a spike in thousands."""
    net, steps = truth.network(name), 8
    arranged = Layout(net)
    vector, running = random(net, 3)
    parts, inputs = arranged.split(vector), truth.shown(net, steps, constant, samples=20)
    gains, biases = arranged.frozen(parts, running)
    thresholds = parts.thresholds.tanh() if learnt else torch.full((arranged.layers,), 0.5)
    used = Parameters(parts.weights, gains, biases, torch.zeros(arranged.layers, steps), thresholds)
    course = present(net, used, inputs, How("arctan"))
    weights = arranged.programmed(vector, running, learnt)
    assert weights.shape == (net.parameters,)
    chip = SimulatedChip(net, [FaultSpec()], [0])
    whole = torch.cat([inputs, torch.ones(20, steps, 1)], dim=2)[None]
    whole = whole[:, :, :1].expand(-1, -1, steps, -1) if constant else whole
    found = chip.rates(weights[None], whole, torch.tensor([0])).mean[0].split(net.widths, dim=1)
    expected = course.sent.mean(dim=0).permute(0, 3, 1, 2).flatten(1)
    assert 0.02 < expected.mean() < 0.95 and expected.std() > 0.1
    assert (found[-1] != expected).float().mean() < 0.005 and (found[-1] - expected).abs().mean() < 0.001
    for number, moments in zip(neurons(net), course.moments, strict=True):
        if number + 1 == len(net.layers) or net.layers[number + 1].kind != "largest":
            assert found[number].mean().item() == pytest.approx(moments[2].mean().item(), abs=1e-3)


def test_frozen_batch_norm_by_hand() -> None:
    arranged = Layout(truth.network("dense"))
    vector, running = random(arranged.network, 1)
    parts = arranged.split(vector)
    gains, biases = arranged.frozen(parts, running)
    for k, own in enumerate((slice(0, 6), slice(6, 11))):
        mean, variance = running[:, own]
        x = torch.randn((4, len(mean)), generator=nets.generator(2))
        expected = (x - mean) / (variance + EPSILON).sqrt() * parts.gains[k] + parts.biases[k]
        torch.testing.assert_close(x * gains[k] + biases[k], expected)


def test_learnt_thresholds_scale_what_their_neurons_hear_alone() -> None:
    """A neuron of threshold V with currents I is one of 1/2 with currents I / (2 V); a wire's spike stays 1."""
    net = truth.network("wire")
    arranged = Layout(net)
    vector, running = random(net, 2)
    parts = arranged.split(vector)
    double = arranged.join(parts._replace(thresholds=torch.full((5,), 0.25).atanh()))
    one, other = (net.split(arranged.programmed(v, running, learnt)) for v, learnt in ((vector, False), (double, True)))
    for link, a, b in zip(net.links, one[0], other[0], strict=True):
        torch.testing.assert_close(b, a if link.pool else 2 * a)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(b, 2 * a)


def test_trained_links_are_those_of_weights() -> None:
    net = truth.network("wire")
    assert Layout(net).links == trained(net) == [link for link in net.links if not link.pool]


@pytest.mark.parametrize("w", [-0.2, 0.0, 0.3])
def test_learnt_thresholds_stay_above_0_and_are_those_of_the_chip(w: float) -> None:
    net = truth.network("dense")
    arranged = Layout(net)
    vector, running = random(net, 3)
    vector = arranged.join(arranged.split(vector)._replace(thresholds=torch.tensor([w, 0.5])))
    parts, inputs = arranged.split(vector), truth.shown(net, 8, samples=20)
    gains, biases = arranged.frozen(parts, running)
    assert parts.learnt_thresholds.tolist() == pytest.approx([max(0.05, math.tanh(w)), math.tanh(0.5)])
    used = Parameters(parts.weights, gains, biases, torch.zeros(2, 8), parts.learnt_thresholds)
    expected = present(net, used, inputs, How("arctan")).sent.mean(dim=0)[:, 0, 0]
    whole = torch.cat([inputs, torch.ones(20, 8, 1)], dim=2)[None]
    weights = arranged.programmed(vector, running, True)
    found = SimulatedChip(net, [FaultSpec()], [0]).rates(weights[None], whole, torch.tensor([0])).mean[0, :, 6:]
    assert (found - expected).abs().mean() < 0.001
