"""Architectures with feedback: what they are made of, and each link against its synapses one by one."""

from __future__ import annotations

import math

import feedback_truth as truth
import nets
import numpy as np
import pytest
import torch

from spikebench.architectures import feedback_network
from spikebench.layered_networks import Layer, LayeredNetwork, Link
from spikebench.neurons import SoftResetParameters, SRMParameters

MNIST, CIFAR, CAMERA = (1, 28, 28), (3, 32, 32), (2, 48, 48)
ALEXNET = "96C3s-256C3-384C3s-384C3-256C3 (F96C3u)"
CIFARNET = "128C3s-256C3-512C3s-1024C3-512C3 (F128C3u)"


def build(architecture: str, picture: tuple[int, ...], outputs: int = 10) -> LayeredNetwork:
    return feedback_network(architecture, 1 + math.prod(picture), picture, outputs, SoftResetParameters())


NETWORKS = {name: truth.network(name) for name in truth.ARCHITECTURES}
NETWORKS["26 to 13 to 7"] = build("3C5s-2C5s (F3C3u)", (1, 26, 26))
NETWORKS["a kernel smaller than the stride"] = build("3C1s-2C1s-P4-4", (2, 13, 13))
NETWORKS |= {name: truth.network(name, truth.HARD) for name in truth.GATES | truth.SHORTCUTS}
LINKS = {f"{name}, {link.source} to {link.target}": link for name, own in NETWORKS.items() for link in own.links}
WITH_FEEDBACK = [name for name, own in NETWORKS.items() if own.feedback]


def weights(link: Link, seed: int = 0) -> torch.Tensor:
    """Random dyadic weights in double precision; a pool's are what they are."""
    drawn = nets.dyadic(link.weights, nets.generator(seed)).double()
    return (
        torch.eye(link.fine[0])[..., None, None].double().expand(link.weights) / link.kernel**2 if link.pool else drawn
    )


def maps(link: Link, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random values of the source and of the target, three samples each."""
    shapes = (link.fine, link.coarse) if link.upwards else (link.coarse, link.fine)
    generator = nets.generator(seed)
    return tuple(nets.dyadic((3, *shape), generator).double() for shape in shapes)  # type: ignore[return-value]


# The architectures of arXiv 2302.00232


@pytest.mark.parametrize(
    ("architecture", "picture", "outputs", "millions", "neurons"),
    [
        ("64C5s-64C5s-64C5 (F64C3u)", MNIST, 10, 0.275, 18816),
        ("15C5-P2-40C5-P2-300", MNIST, 10, 0.607, 24800),
        (ALEXNET, CIFAR, 10, 3.71, 155648),
        (ALEXNET, CIFAR, 100, 5.18, 155648),
        (CIFARNET, CIFAR, 10, 11.84, 229376),
        (CIFARNET, CIFAR, 100, 14.78, 229376),
        ("512C9s (F512C5)", CAMERA, 10, 9.59, 294912),
    ],
)
def test_the_papers_networks_have_its_weights_and_neurons(
    architecture: str, picture: tuple[int, ...], outputs: int, millions: float, neurons: int
) -> None:
    network = build(architecture, picture, outputs)
    total = network.parameters + (network.widths[-1] + 1) * outputs
    assert abs(total / 1e6 - millions) <= (0.0005 if millions < 1 else 0.005)
    assert sum(network.widths) == neurons


@pytest.mark.parametrize(
    ("architecture", "picture", "millions"),
    [
        ("64C5s-64C5s-64C5 (F64C3u)", MNIST, 12),
        (ALEXNET, CIFAR, 269),
        (CIFARNET, CIFAR, 790),
        ("512C9s (F512C5)", CAMERA, 3800),
    ],
)
def test_the_papers_operations_are_those_without_borders(
    architecture: str, picture: tuple[int, ...], millions: float
) -> None:
    network = build(architecture, picture)
    endless = sum(math.prod(link.coarse) * link.fine[0] * link.kernel**2 for link in network.links if link.source >= 0)
    assert endless / 1e6 == pytest.approx(millions, rel=0.02)
    assert 0.7 * endless < network.operations < endless


def test_layers_as_they_are_written() -> None:
    network = build("12C5s-8C3-P3-7-300 (F12)", MNIST)
    assert network.layers == (
        Layer("convolution", 12, 5, 2),
        Layer("convolution", 8, 3, 1),
        Layer("pool", 0, 3, 3),
        Layer("dense", 7, 0, 1),
        Layer("dense", 300, 0, 1),
    )
    assert network.maps == (MNIST, (12, 14, 14), (8, 14, 14), (8, 4, 4), (7, 1, 1), (300, 1, 1))
    assert (network.feedback, network.enlarge, network.outputs, network.picture) == (14, 1, 10, MNIST)
    assert build("12C5s-8C3s (F12C3u)", MNIST).enlarge == 2
    assert not build("12C5s-8C3s", MNIST).feedback


def test_a_dense_first_layer_sees_no_picture() -> None:
    assert build("7-5 (F7)", MNIST).maps == ((784, 1, 1), (7, 1, 1), (5, 1, 1))
    assert feedback_network("7-5 (F7)", 32, (), 2, truth.IF).shapes == ((7, 31 + 5 + 1), (5, 8))


@pytest.mark.parametrize("bad", ["", "64C", "C5", "5u", "64C5ss", "p2", "4C3-", "4C3--6", "4C3 -6", "5(F5)", "-5"])
def test_layers_that_cannot_be_read(bad: str) -> None:
    with pytest.raises(ValueError, match=r"found the layer .*, expected e[.]g[.] 64C5, 64C5s, 64C5[+], P2"):
        build(bad, MNIST)


@pytest.mark.parametrize("bad", ["F3C3", "F4C3s", "F4C", "F4u", "4C3", "F", "F4C3u) x"])
def test_feedback_that_cannot_be_read(bad: str) -> None:
    with pytest.raises(ValueError, match=r"architecture '4C3s-2C3s .*found the feedback '.*', expected F4"):
        build(f"4C3s-2C3s ({bad})", MNIST)


@pytest.mark.parametrize("architecture", ["4C3", "P2-5"])
def test_convolutions_and_pools_need_pictures(architecture: str) -> None:
    with pytest.raises(ValueError, match="convolutions and pools need pictures"):
        feedback_network(architecture, 5, (), 2, truth.IF)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("4C3-0", "found the layer '0'"),
        ("P0", "found the layer 'P0'"),
        ("4C0", "found the layer '4C0'"),
        ("P2-5 (F5)", "must go to a layer of trained weights, not a pool"),
        ("5 (F5C3)", "found the feedback 'F5C3', expected F5"),
        ("5 (F5", "found the feedback 'F5', expected F5, .* in brackets"),
        ("4C3-6 (F4C3u)", "found the feedback 'F4C3u', expected F4"),
        ("4C3-4C3 (F4)", "found the feedback 'F4', expected F4, of maps with C<kernel>"),
    ],
)
def test_architectures_that_cannot_be_read(architecture: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"architecture '.*': .*{message}"):
        build(architecture, (1, 4, 4))


def test_pictures_are_all_the_lines_but_the_constant_one() -> None:
    with pytest.raises(ValueError, match=r"need pictures; found 29 lines, \(1, 4, 4\)"):
        feedback_network("4C3", 30, (1, 4, 4), 2, SoftResetParameters())


def test_a_last_map_of_one_pixel_is_still_a_map() -> None:
    assert build("4C3s-3C3s-2C3s (F4C3u)", (1, 4, 4)).links[-1].padding == 1
    assert build("4C3 (F4C3)", (1, 1, 1)).links[-1].padding == 1


@pytest.mark.parametrize(
    ("architecture", "picture", "message"),
    [
        ("4C3", (1, 4, 5), r"found maps .*\(4, 4, 5\).*, expected square ones"),
        ("4C3-P8", (1, 4, 4), r"leaves nothing of a picture of \(1, 4, 4\)"),
        ("4C3-3C3s (F4C3)", (1, 8, 8), r"\(3, 4, 4\) to the first one's, \(4, 8, 8\), with stride 1"),
        ("4C3-3C3 (F4C3u)", (1, 8, 8), r"kernel 3 cannot take the last layer's map \(3, 8, 8\).*with stride 2"),
        ("4C3s-3C3s-2C3s (F4C3u)", (1, 16, 16), r"\(2, 2, 2\) to the first one's, \(4, 8, 8\), with stride 2"),
    ],
)
def test_networks_that_do_not_fit(architecture: str, picture: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"LayeredNetwork: .*{message}"):
        build(architecture, picture)


@pytest.mark.parametrize(("layers", "neuron"), [((), truth.IF), ((Layer("dense", 3, 0, 1),), SRMParameters())])
def test_a_network_is_layers_of_neurons_with_a_reset(layers: tuple[Layer, ...], neuron: object) -> None:
    with pytest.raises(ValueError, match="expected at least one layer, of neurons with reset by subtraction or of LIF"):
        LayeredNetwork(5, (3,), 2, neuron, layers=layers)  # type: ignore[arg-type]


def test_a_network_by_hand() -> None:
    """Two channels of 4 x 4, pooled to 2 x 2, then three neurons, which drive all 4 x 4 positions."""
    network = build("2C3s-P2-3 (F2)", (1, 8, 8))
    assert network.shapes == ((2, 1 * 9 + 3 * 16 + 1), (2, 0), (3, 2 * 4 + 1))
    assert network.parameters == 2 * 58 + 3 * 9
    assert network.memory_bits == 32 * 143
    assert network.positions == (16, 4, 1)
    assert network.widths == (32, 8, 3)
    assert network.always_on == 32 + 3
    assert network.links[-1] == Link(2, 0, False, (2, 4, 4), (3, 1, 1), 4, 1, 0, False)
    # Fields of three rows begin at -1, 1, 3 and 5: 2 + 3 + 3 + 3 rows of the picture.
    assert [link.operations for link in network.links] == [11**2 * 2, 32, 8 * 3, 3 * 32]
    assert network.operations == 32 + 24 + 96
    assert network.fan_outs == (round(242 / 64), 1, 3, 32)


# Weights


def test_a_neurons_weights_are_of_the_layer_before_of_the_feedback_and_a_bias() -> None:
    network = build("2-1 (F2)", (1, 1, 3))
    own, biases = network.split(torch.arange(2 * 5 + 3.0))
    assert [w.flatten(1).tolist() for w in own] == [[[0, 1, 2], [5, 6, 7]], [[10, 11]], [[3, 8]]]
    assert [b.tolist() for b in biases] == [[4, 9], [12]]


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_split_and_joined_again(name: str) -> None:
    network = NETWORKS[name]
    parameters = torch.randn(network.parameters, generator=nets.generator())
    own, biases = network.split(parameters)
    assert torch.equal(network.join(own, biases), parameters)
    assert [tuple(w.shape) for w in own] == [link.weights for link in network.links]
    assert [len(b) for b in biases] == [shown[0] for shown in network.maps[1:]]
    for link, found in zip(network.links, own, strict=True):
        if link.pool:
            assert torch.equal(found.double(), weights(link))


@pytest.mark.parametrize("name", WITH_FEEDBACK)
def test_the_feedbacks_norm_is_that_of_its_matrix(name: str) -> None:
    network = NETWORKS[name]
    parameters = torch.randn(network.parameters, generator=nets.generator(), dtype=torch.float64)
    link, last = network.links[-1], network.widths[-1]
    columns = link.send(
        torch.eye(last, dtype=torch.float64).view(last, *network.maps[-1]), network.split(parameters)[0][-1]
    )
    assert network.feedback_norm(parameters).item() == pytest.approx(columns.square().sum().sqrt().item(), rel=1e-12)


# Links


@pytest.mark.parametrize("name", LINKS)
def test_what_a_link_sends_is_summed_over_its_synapses(name: str) -> None:
    link = LINKS[name]
    (source, target), own = maps(link), weights(link)
    expected = source.flatten(1).numpy() @ truth.matrix(link, own).T
    assert np.array_equal(link.send(source, own).flatten(1).numpy(), expected)
    assert link.send(source, own).shape == target.shape
    assert (expected != 0).mean() > 0.3


@pytest.mark.parametrize("name", LINKS)
def test_sending_back_is_the_adjoint_of_sending(name: str) -> None:
    link = LINKS[name]
    (source, target), own = maps(link), weights(link)
    back = link.send_back(target, own)
    assert back.shape == source.shape
    assert (link.send(source, own) * target).sum().item() == (source * back).sum().item() != 0
    assert np.array_equal(back.flatten(1).numpy(), target.flatten(1).numpy() @ truth.matrix(link, own))


@pytest.mark.parametrize("name", LINKS)
def test_operations_are_the_synapses(name: str) -> None:
    link = LINKS[name]
    assert link.operations == truth.synapses(link).sum()


@pytest.mark.parametrize("name", NETWORKS)
def test_fan_outs_are_the_mean_number_of_synapses_a_line(name: str) -> None:
    network, driven = NETWORKS[name], {}
    for link in network.links:
        driven[link.source] = driven.get(link.source, 0) + truth.synapses(link).sum(axis=0).mean()
    assert network.fan_outs == tuple(round(driven.get(source, 0)) for source in range(-1, len(network.layers)))
    assert network.operations == sum(truth.synapses(link).sum() for link in network.links[1:])
