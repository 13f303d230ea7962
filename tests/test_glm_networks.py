"""The layout of GLM networks: which synapses there are, and how many."""

from __future__ import annotations

import nets
import pytest
import torch

from spikebench.networks import Network
from spikebench.neurons import GLMParameters

#: Two lines and the constant one, two hidden neurons, two outputs; two filters.
SMALL = Network(3, (2,), 2, GLMParameters(filters=2))
MUTE = Network(3, (2,), 2, GLMParameters(filters=2, output_feedback=False))


def test_every_line_has_all_filters_and_every_neuron_a_bias() -> None:
    assert SMALL.shapes == ((2, 4 * 2 + 1), (2, 6 * 2 + 1))
    assert SMALL.parameters == 2 * 9 + 2 * 13
    assert SMALL.widths == (2, 2)
    hidden, outputs = SMALL.unpack(torch.arange(44.0))
    assert hidden[1].tolist() == list(range(9, 18))
    assert outputs[0].tolist() == list(range(18, 31))


def test_the_papers_network_has_its_number_of_weights() -> None:
    network = Network(677, (128,), 10, GLMParameters())
    assert network.parameters == 128 * (804 * 8 + 1) + 10 * (814 * 8 + 1)
    assert int(network.connected.sum()) == network.parameters - 138 * 7


def test_a_neurons_own_synapse_has_the_first_filter_alone() -> None:
    hidden, outputs = SMALL.unpack(SMALL.connected)
    # Inputs 1 and 2, hidden neurons 1 and 2, outputs 1 and 2, bias; 0 where there is no synapse.
    assert hidden.int().tolist() == [[1, 1, 1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 0, 1]]
    assert outputs.int().tolist() == [
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1],
    ]


def test_outputs_that_do_not_hear_themselves_have_no_such_synapses() -> None:
    hidden, outputs = MUTE.unpack(MUTE.connected)
    assert torch.equal(hidden, SMALL.unpack(SMALL.connected)[0])
    assert outputs.int().tolist() == [[1] * 8 + [0] * 4 + [1]] * 2


@pytest.mark.parametrize("network", [SMALL, MUTE, nets.glm(), nets.glm(4, 3, False)], ids=str)
def test_fan_outs_are_the_synapses_that_there_are(network: Network) -> None:
    filters, first, (hidden,) = network.neuron.filters, network.inputs - 1, network.hidden
    driven = torch.zeros(first + hidden + network.outputs, dtype=torch.long)
    for layer in network.unpack(network.connected):
        lines = layer[:, :-1].unflatten(1, (-1, filters)).sum(dim=(0, 2))
        driven[: len(lines)] += lines
    parts = driven.split([first, hidden, network.outputs])
    assert [set(part.tolist()) for part in parts] == [{n} for n in network.fan_outs]
    assert network.always_on == hidden + network.outputs


def test_only_synapses_that_there_are_take_memory() -> None:
    assert SMALL.memory_bits == 32 * (44 - 4)
    assert MUTE.memory_bits == 32 * (44 - 2 - 8)


@pytest.mark.parametrize("network", [Network(5, (3,), 2), nets.srm(), nets.srm(weight_bits=1)], ids=str)
def test_networks_of_other_neurons_have_all_their_synapses(network: Network) -> None:
    assert network.connected.shape == (network.parameters,) and network.connected.all()


@pytest.mark.parametrize("hidden", [(), (3, 2)])
def test_there_is_one_hidden_layer(hidden: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected one layer of GLM neurons"):
        Network(3, hidden, 2, GLMParameters())


def test_weights_are_real() -> None:
    with pytest.raises(ValueError, match="weight_bits: found 1"):
        Network(3, (2,), 2, GLMParameters(), weight_bits=1)
    assert SMALL.full_scale == 4.0
