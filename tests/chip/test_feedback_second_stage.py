"""The second stage on ideal devices: the compiled kernel, the loop over steps, and the equations of both."""

from __future__ import annotations

import itertools

import feedback_truth as truth
import numpy as np
import pytest
import torch

from spikebench.architectures import feedback_network
from spikebench.chip.faults import FaultSpec
from spikebench.chip.feedback_session import differentiate_by_steps
from spikebench.chip.simulated import SimulatedChip
from spikebench.layered_networks import LayeredNetwork
from spikebench.neurons import CoupleParameters, SoftResetParameters

#: With the leak of the network's own neurons, which may be LIF neurons where the couples are not.
COUPLES = {
    "modified reset": (CoupleParameters(), 1.0),
    "plain reset": (CoupleParameters(1.0, 0.0), 1.0),
    "LIF": (CoupleParameters(leak=0.5), 0.5),
    "IF of a LIF network": (CoupleParameters(), 0.5),
}


def chip_of(network: LayeredNetwork, devices: int = 2) -> SimulatedChip:
    return SimulatedChip(network, [FaultSpec()] * devices, range(devices))


@pytest.mark.parametrize("couple", COUPLES)
@pytest.mark.parametrize("name", truth.ARCHITECTURES)
def test_the_second_stage_is_the_equations_spike_for_spike(name: str, couple: str) -> None:
    own, leak = COUPLES[couple]
    network = truth.network(name, SoftResetParameters(leak=leak))
    chip, parameters, (current, factors) = chip_of(network), truth.drawn(network), truth.second_stage(network)
    found = chip.differentiate(parameters, current, factors, own, truth.STEPS)
    by_steps = differentiate_by_steps(chip, parameters, current, factors, own, truth.STEPS)
    for b in range(2):
        expected = truth.differentiate(network, parameters[b], current[b], factors[b], own, truth.STEPS)
        assert truth.same(found, expected, b, own.leak) and truth.same(by_steps, expected, b, own.leak)
        for train in expected.spikes:
            assert (train > 0).mean() > 0.02 and (train < 0).mean() > 0.02
        if name not in truth.POOLS:
            assert found.operations[b] == expected.operations
    assert not found.input_operations.any()


@pytest.mark.parametrize(
    ("name", "shrink"), [("twice the side", 8), ("dense last", 8), ("no feedback", 8), ("one layer", 32)]
)
def test_the_second_stage_solves_the_adjoint_equation(name: str, shrink: float) -> None:
    """beta^N = W_fb^T f beta^1 + g and beta^l = W^(l+1)^T f beta^(l+1), within a few spikes in 20000 steps."""
    network = truth.network(name)
    parameters, (current, factors) = truth.drawn(network, 1) / shrink, truth.second_stage(network, 1)
    found = chip_of(network, 1).differentiate(parameters, current / 8, factors, CoupleParameters(), 20000).mean[0]
    ends = np.cumsum((0, *network.widths, network.widths[0]))
    neurons = [slice(*pair) for pair in itertools.pairwise(ends)]
    for n in range(truth.SAMPLES):
        joined = np.zeros((ends[-2], ends[-2]))
        for link, own in zip(network.links[1:], network.split(parameters[0])[0][1:], strict=True):
            scale = factors[0, n, neurons[link.target if link.upwards else -1]].double().numpy()
            joined[neurons[link.source], neurons[link.target]] = (scale[:, None] * truth.matrix(link, own)).T
        g = np.concatenate([np.zeros(ends[-3]), current[0, n].numpy() / 8])
        beta = np.linalg.solve(np.eye(ends[-2]) - joined, g)
        np.testing.assert_allclose(found[n].numpy(), beta, atol=1e-3)
        assert np.abs(beta).max() < 0.9 and np.abs(beta[neurons[0]]).max() > 0.002


@pytest.mark.parametrize("name", truth.POOLS)
def test_a_spike_from_a_pool_is_one_operation_to_each_neuron_of_its_square(name: str) -> None:
    network = truth.network(name)
    parameters, (current, factors) = truth.drawn(network), truth.second_stage(network)
    found = chip_of(network).differentiate(parameters, current, factors, CoupleParameters(), truth.STEPS)
    for b in range(2):
        own = current[b], factors[b], CoupleParameters(), truth.STEPS
        assert found.operations[b] == truth.differentiate(network, parameters[b], *own).operations


def test_the_second_stage_by_hand() -> None:
    """Two layers of one couple: down in the same step, back one step later."""
    network = feedback_network("1-1 (F1)", 2, (), 2, truth.IF)
    parameters = torch.tensor([[9.0, 0.25, 9.0, 0.5, 9.0]])  # input, feedback, bias; from below, bias
    current, factors = torch.tensor([[[0.5]]]), torch.tensor([[[9.0, 1.0, -2.0]]])
    # v^2 gets 0.5 - 0.5 s^1, and v^1 gets 0.5 s^2: 1 1, -1 -1, 1 1, 1 0, 0 0.
    found = [
        chip_of(network, 1).differentiate(parameters, current, factors, CoupleParameters(), t) for t in range(1, 6)
    ]
    sums = [[t * mean for mean in own.mean[0, 0].tolist()] for t, own in enumerate(found, 1)]
    assert sums == [pytest.approx(each) for each in ([1, 1], [0, 0], [1, 1], [1, 2], [1, 2])]
    assert found[-1].spikes.tolist() == [[3, 4]]
    assert found[-1].operations.item() == 3 + 4
    assert found[2].operations.item() == 2 + 3, "the last step's feedback would come after the end"
