"""Layered networks of LIF neurons: gates, means and shortcuts, as they are written and as parameters."""

from __future__ import annotations

import itertools
import math

import feedback_truth as truth
import nets
import pytest
import torch

from spikebench.architectures import feedback_network
from spikebench.data import DataInfo
from spikebench.errors import Unavailable
from spikebench.feedback_training import network as trained
from spikebench.layered_networks import Layer, LayeredNetwork, Link
from spikebench.neurons import LIFParameters, SoftResetParameters

CIFAR, CAMERA = (3, 32, 32), (2, 48, 48)
VGG = "64C3-64C3-M2-128C3-128C3-M2-256C3-256C3-256C3-M2-512C3-512C3-512C3-M2-512C3-512C3-512C3-M2-512-512"
RESNET = (
    "128C3-128C3-128C3+-128C3-128C3+-128C3-128C3+-256C3s-256C3+-256C3-256C3+-256C3-256C3+-512C3s-512C3+-512C3-512C3+"
    "-A256"
)


def build(architecture: str, picture: tuple[int, ...], neuron: object = truth.HARD) -> LayeredNetwork:
    return feedback_network(architecture, 1 + math.prod(picture), picture, 10, neuron)  # type: ignore[arg-type]


def convolutions(*channels: int) -> int:
    """Weights of kernel 3 and biases from each number of channels to the next."""
    return sum(after * (9 * before + 1) for before, after in itertools.pairwise(channels))


# As they are written


def test_layers_as_they_are_written() -> None:
    network = build("4C3s-5C3-6C3s+-M3-A7", (1, 24, 24))
    assert network.layers == (
        Layer("convolution", 4, 3, 2),
        Layer("convolution", 5, 3, 1),
        Layer("convolution", 6, 3, 2, shortcut=True),
        Layer("largest", 0, 3, 3),
        Layer("dense", 7, 0, 1, mean=True),
    )
    assert network.maps == ((1, 24, 24), (4, 12, 12), (5, 12, 12), (6, 6, 6), (6, 2, 2), (7, 1, 1))


def test_what_is_left_over_by_a_gates_square_is_not_heard() -> None:
    network = truth.network("gates", truth.HARD)
    assert network.maps == ((2, 9, 9), (4, 9, 9), (4, 4, 4), (6, 4, 4), (6, 2, 2), (5, 1, 1))
    assert network.gates == (0.0, 0.125, 0.0, 0.125, 0.0)
    assert network.shapes == ((4, 19), (4, 0), (6, 37), (6, 0), (5, 25))
    assert network.always_on == 4 * 81 + 6 * 16 + 5, "gates have no biases"


def test_shortcuts_by_hand() -> None:
    network = truth.network("residual", truth.HARD)
    assert network.shortcuts == {2: 11, 4: 12, 7: 13, 9: 14}
    assert network.links[11:] == (
        Link(0, 2, True, (3, 8, 8), (3, 8, 8), 1, 1, 0, True),
        Link(2, 4, True, (3, 8, 8), (5, 4, 4), 1, 2, 0, False),
        Link(5, 7, True, (5, 2, 2), (5, 2, 2), 1, 1, 0, True),
        Link(7, 9, True, (5, 2, 2), (5, 2, 2), 1, 1, 0, True),
    )
    assert network.shapes[2] == (3, 28) and network.shapes[4] == (5, 45 + 3 + 1)
    # A spike of layer 2 reaches a kernel of 3 and stride 2, and at one of four positions the trained shortcut.
    assert network.fan_outs[3] == round((11**2 * 3 * 5 + 16 * 3 * 5) / 192)
    assert network.fan_outs[1] == round((22**2 * 3 * 3 + 192) / 192)


def test_a_neurons_weights_are_of_the_layer_before_of_the_shortcut_and_a_bias() -> None:
    network = build("1C1-2C1-1C1+-A2", (1, 2, 2))
    own, biases = network.split(torch.arange(2 + 4 + 3 + 4.0))
    assert [w.shape for w in own] == [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (2, 1, 2, 2), (1, 1, 1, 1)]
    assert [w.flatten().tolist() for w in own[:3]] == [[0], [2, 4], [6, 7]]
    assert own[3].flatten(1).tolist() == [[9 / 4] * 4, [11 / 4] * 4] and own[4].item() == 1, "wires have weight 1"
    assert [b.tolist() for b in biases] == [[1], [3, 5], [8], [10, 12]]
    wider = build("1C1-2C1-2C1+", (1, 2, 2))
    own, biases = wider.split(torch.arange(2 + 4 + 8.0))
    assert own[2].flatten(1).tolist() == [[6, 7], [10, 11]] and own[3].flatten().tolist() == [8, 12]
    assert biases[2].tolist() == [9, 13]


def test_a_mean_of_one_pixel_is_a_dense_layer() -> None:
    mean, dense = (build(f"4C3-{word}", (2, 1, 1)) for word in ("A6", "6"))
    assert mean.shapes == dense.shapes and mean.links == dense.links
    parameters = torch.randn(mean.parameters, generator=nets.generator())
    for one, other in zip(mean.split(parameters)[0], dense.split(parameters)[0], strict=True):
        assert torch.equal(one, other)


def test_a_mean_hears_pictures_too() -> None:
    network = build("A6-4", (2, 3, 3))
    assert network.shapes == ((6, 3), (4, 7)) and network.links[0].kernel == 3
    with pytest.raises(ValueError, match="need pictures"):
        feedback_network("A6", 5, (), 2, truth.HARD)


# The architectures of arXiv 2304.13289


def test_vgg_16_has_its_weights() -> None:
    network = build(VGG, CIFAR)
    expected = convolutions(3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512) + 2 * 512 * 513
    assert network.parameters == expected
    assert network.maps[-3] == (512, 1, 1)
    assert sum(layer.trained for layer in network.layers) + 1 == 16, "the read-out is the last"


@pytest.mark.parametrize(("picture", "side"), [(CIFAR, 8), (CAMERA, 12)])
def test_resnet_19_has_its_weights(picture: tuple[int, int, int], side: int) -> None:
    network = build(RESNET, picture)
    assert len(network.layers) + 1 == 19, "the read-out is the last"
    wide = [picture[0], *[128] * 7, *[256] * 6, *[512] * 4]
    projections = 128 * 256 + 256 * 512
    assert network.parameters == convolutions(*wide) + projections + 256 * (512 + 1)
    trained = [link for link in network.links[18:] if not link.pool]
    assert [(link.target, link.stride, link.weights) for link in trained] == [
        (8, 2, (256, 128, 1, 1)),
        (14, 2, (512, 256, 1, 1)),
    ]
    assert network.maps[-2] == (512, side, side) and len(network.links) == 18 + 8


# What cannot be


@pytest.mark.parametrize("bad", ["4C3+s", "A", "M", "M0", "A0", "P2+", "A4+", "4C3++", "MA2"])
def test_layers_that_cannot_be_read(bad: str) -> None:
    with pytest.raises(ValueError, match=r"found the layer .*, expected .*64C5[+], P2, M2, 300 or A300"):
        build(f"4C3-4C3-{bad}", (1, 8, 8))


@pytest.mark.parametrize(
    ("architecture", "neuron", "message"),
    [
        ("5-4 (F5)", truth.HARD, "feedback is for neurons with reset by subtraction, found LIF neurons"),
        ("4C3-4C3-4C3+", truth.IF, "shortcuts are for LIF neurons, found reset by subtraction"),
        ("4C3+-4C3", truth.HARD, "a shortcut to layer 0, expected a convolution behind two layers"),
        ("4C3-4C3+", truth.HARD, "a shortcut to layer 1, expected a convolution behind two layers"),
        ("4C3-4C3s-4C3s+", truth.HARD, r"a shortcut cannot take the map \(4, 9, 9\) to \(4, 3, 3\) with stride 1 or 2"),
        ("4C3-M2-4C3+", truth.HARD, r"a shortcut cannot take the map \(4, 9, 9\) to \(4, 4, 4\)"),
        ("4C3-4C4-4C3+", truth.HARD, r"a shortcut cannot take the map \(4, 9, 9\) to \(4, 10, 10\)"),
        ("4C3-M16-5", truth.HARD, "leaves nothing of a picture"),
        ("M2-4C3 (F4C3u)", truth.IF, "must go to a layer of trained weights, not a pool"),
    ],
)
def test_networks_that_do_not_fit(architecture: str, neuron: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(architecture, (1, 9, 9), neuron)


def test_only_convolutions_have_shortcuts() -> None:
    layers = (*[Layer("dense", 3, 0, 1)] * 2, Layer("dense", 3, 0, 1, shortcut=True))
    with pytest.raises(ValueError, match="a shortcut to layer 2, expected a convolution behind two layers"):
        LayeredNetwork(4, (), 2, LIFParameters(), layers=layers)


def test_feedback_goes_to_no_gate() -> None:
    layers = (Layer("largest", 0, 2, 2), Layer("convolution", 2, 3, 1))
    with pytest.raises(ValueError, match="feedback must go to a layer of trained weights"):
        LayeredNetwork(17, (), 2, SoftResetParameters(), picture=(1, 4, 4), layers=layers, feedback=3)


def test_gates_are_not_trained_at_the_equilibrium() -> None:
    info = DataInfo("classification", 17, 2, 4, False, (1, 4, 4))
    with pytest.raises(Unavailable, match="the rates of gates have no equilibrium"):
        trained(info, {"architecture": "4C3-M2-3"}, "bptt")
    assert trained(info, {"architecture": "4C3-P2-3"}, "bptt").layers[1].kind == "pool"
