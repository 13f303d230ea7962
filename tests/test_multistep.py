"""The multi-step engine against a plain loop over time in double precision, and against what it may not depend on."""

from __future__ import annotations

import math

import multistep_truth as truth
import nets
import numba
import pytest
import snntorch
import torch
from snntorch import surrogate
from torch.nn import functional

from spikebench import multistep
from spikebench.layered_networks import LayeredNetwork
from spikebench.multistep import Course, How, Parameters, present
from spikebench.neurons import LIFParameters, SoftResetParameters
from spikebench.surrogates import FAMILIES

networks = pytest.mark.parametrize("name", truth.NETWORKS)
families = pytest.mark.parametrize("family", FAMILIES)
constant = pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
normalise = pytest.mark.parametrize("normalise", [True, False], ids=["batch norm", "gains"])
#: Steps.
T = 4


def pictures(found: torch.Tensor) -> torch.Tensor:
    """Channels first."""
    return found.permute(0, 1, 4, 2, 3)


def close(one: torch.Tensor, other: torch.Tensor, share: float = 1e-4) -> None:
    """Within a share of the norm."""
    assert float((one - other).detach().norm()) <= share * float(other.detach().norm()) + 1e-9


def scalar(sent: torch.Tensor, *moments: list[torch.Tensor]) -> torch.Tensor:
    """Some number that depends on all of it."""
    total = (sent * torch.randn(sent.shape, generator=nets.generator(1)).to(sent.dtype)).sum()
    for number, own in enumerate(m for listed in moments for m in listed):
        total = total + (own * torch.randn(own.shape, generator=nets.generator(2 + number)).to(own.dtype)).sum()
    return total


def compare(
    net: LayeredNetwork, how: How, inputs: torch.Tensor, given: dict[int, torch.Tensor] | None = None, seed: int = 0
) -> tuple[Course, truth.Truth]:
    """Values and gradients of engine and truth are the same."""
    values = truth.drawn(net, inputs.shape[1], seed)
    own, exact = truth.leaf(values), truth.doubled(values)
    found = present(net, own, inputs, how, given)
    expected = truth.present(net, exact, inputs, how, given and {n: pictures(o) for n, o in given.items()})
    close(pictures(found.sent), expected.sent)
    for one, other in zip(found.moments + found.unquantised, expected.moments + expected.unquantised, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-5)
    one = torch.autograd.grad(scalar(pictures(found.sent), found.moments, found.unquantised), truth.leaves(own))
    other = torch.autograd.grad(
        scalar(expected.sent, expected.moments, expected.unquantised), truth.leaves(exact), materialize_grads=True
    )
    for mine, theirs in zip(one, other, strict=True):
        close(mine, theirs, 1e-3)
    assert all(g.norm() > 1e-4 for g in other)
    return found, expected


# Against the loop


@normalise
@constant
@networks
def test_spikes_moments_and_gradients_are_those_of_the_loop(name: str, constant: bool, normalise: bool) -> None:
    net = truth.network(name)
    found, expected = compare(net, How("arctan", normalise), truth.shown(net, T, constant))
    rates = [float(o.detach().mean()) for o in expected.spikes]
    assert min(rates) > 0.02 and max(rates) < 0.95
    assert bool(found.statistics) == normalise and not found.currents


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "spikes"])
@families
def test_all_families_have_the_gradient_of_the_loop(family: str, smooth: bool) -> None:
    net = truth.network("wire" if smooth else "pools")
    compare(net, How(family, True, smooth), truth.shown(net, 3))


@pytest.mark.parametrize("edge", [0.02, 0.2])
@families
def test_the_bernoulli_divergence_has_the_gradient_of_the_loop(family: str, edge: float) -> None:
    net = truth.network("dense")
    _, expected = compare(net, How(family, True, edge=edge), truth.shown(net, T))
    assert min(m[4].detach().mean() for m in expected.moments) > 0.01


@constant
@pytest.mark.parametrize("name", ["dense", "pools", "strides"])
def test_the_second_path_is_driven_by_what_is_not_quantised(name: str, constant: bool) -> None:
    net = truth.network(name)
    for normal in (True, False):
        found, expected = compare(net, How("triangular", normal, paths=True), truth.shown(net, T, constant))
        assert len(found.unquantised) == len(found.moments) - 1
        assert not torch.allclose(expected.unquantised[0][0], expected.moments[1][0], atol=0.01)


@pytest.mark.parametrize("name", ["wire", "projection"])
def test_there_is_no_second_path_past_a_shortcut(name: str) -> None:
    net = truth.network(name)
    with pytest.raises(ValueError, match="a second path past a shortcut is not defined"):
        present(net, truth.drawn(net, T), truth.shown(net, T), How("triangular", paths=True))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("M2-4C3", "layer 0: found a pool"),
        ("4C3-M2-M2", "layer 2: found a pool"),
        ("4C3-P2-4C3", "found a mean"),
        ("4C3-4C3-M1-4C3+", "layer 3: a shortcut must not start before a pool"),
    ],
)
def test_layers_that_cannot_be_run_at_once_are_named(architecture: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multistep.neurons(truth.build(architecture, (2, 8, 8)))


@pytest.mark.parametrize("name", ["pools", "projection"])
def test_what_a_device_sends_takes_the_place_of_spikes(name: str) -> None:
    """And the surrogate keeps its derivative at the model's potentials."""
    net, places = truth.network(name), nets.generator(3)
    given = {}
    for number in multistep.neurons(net):
        channels, height, width = net.maps[number + 1]
        given[number] = torch.randint(0, 2, (T, 6, height, width, channels), generator=places).float()
    found, _ = compare(net, How("gaussian", edge=0.1), truth.shown(net, T), given)
    spikes, side = given[multistep.neurons(net)[0]], 2 if name == "pools" else 1
    heard = spikes[:, :, : spikes.shape[2] // side * side, : spikes.shape[3] // side * side]
    torch.testing.assert_close(found.moments[0][2], heard.mean(dim=(1, 2, 3)))
    if name == "projection":
        assert torch.equal(found.sent, given[len(net.layers) - 1])


def test_batch_norm_keeps_means_and_variances_over_examples_places_and_steps() -> None:
    net, how = truth.network("projection"), How("arctan", True)
    values, inputs = truth.drawn(net, T), truth.shown(net, T)
    course = present(net, values, inputs, how)
    assert sorted(course.statistics) == list(range(len(multistep.trained(net))))
    first = functional.conv2d(inputs.flatten(0, 1).unflatten(1, net.maps[0]), values.weights[0], padding=1)
    torch.testing.assert_close(course.statistics[0][0], first.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(course.statistics[0][1], first.var(dim=(0, 2, 3), correction=0), atol=1e-5, rtol=1e-4)
    # With these in place of batch norm, link by link, the same network is frozen.
    frozen = [gain / (course.statistics[k][1] + multistep.EPSILON).sqrt() for k, gain in enumerate(values.gains)]
    biases = [bias - course.statistics[k][0] * frozen[k] for k, bias in enumerate(values.biases)]
    again = present(net, values._replace(gains=frozen, biases=biases), inputs, How("arctan"))
    assert (again.sent != course.sent).float().mean() < 1e-3
    for one, other in zip(again.moments, course.moments, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-2)


@normalise
@constant
@networks
def test_currents_that_are_kept_are_what_drives_the_potentials(name: str, constant: bool, normalise: bool) -> None:
    net = truth.network(name)
    values, inputs = truth.drawn(net, T), truth.shown(net, T, constant)
    course = present(net, values, inputs, How("arctan", normalise), keep=True)
    expected = truth.present(net, truth.doubled(values), inputs, How("arctan", normalise))
    for place, (currents, u) in enumerate(zip(course.currents, expected.potentials, strict=True)):
        assert len(currents) == (1 if constant and place == 0 else T)
        own = pictures(currents)[..., : u.shape[3], : u.shape[4]].expand(T, -1, -1, -1, -1).double()
        _, potentials = truth.run(own, 0.25, torch.ones(T), values.thresholds[place].double(), How("arctan"))
        torch.testing.assert_close(potentials, u.detach(), atol=1e-5, rtol=1e-5)


# Against differences


@pytest.mark.parametrize("family", ["arctan", "sigmoid", "gaussian"])
def test_the_smooth_network_has_the_gradient_of_its_own_differences(family: str) -> None:
    net, how = truth.build("3C3-M2-4", (2, 4, 4)), How(family, True, smooth=True)
    values, inputs = truth.drawn(net, 3), truth.shown(net, 3)

    def loss(parameters: Parameters) -> torch.Tensor:
        course = present(net, parameters, inputs, how)
        return scalar(course.sent.double(), [m[:3].double() for m in course.moments])  # of u o, o is taken as given

    own = truth.leaf(values)
    slopes = torch.autograd.grad(loss(own), truth.leaves(own))
    steps, part = 1e-2, len(values.weights)
    for place, (tensor, slope) in enumerate(zip(truth.leaves(values), slopes, strict=True)):
        flat = tensor.flatten()
        for coordinate in {int(slope.abs().argmax()), 0, len(flat) - 1}:
            kept, found = flat[coordinate].item(), []
            for sign in (1, -1):
                tensor.view(-1)[coordinate] = kept + sign * steps
                found.append(loss(values).item())
            tensor.view(-1)[coordinate] = kept
            difference = (found[0] - found[1]) / (2 * steps)
            own_slope = float(slope.flatten()[coordinate])
            assert own_slope == pytest.approx(difference, rel=0.02, abs=0.02 * float(slope.abs().max()) + 1e-3), place
    assert len(slopes) == 3 * part + 2


@families
def test_the_divergences_slope_is_that_of_its_differences(family: str) -> None:
    """At one time step, where no reset acts, and with the spikes held."""
    net = truth.build("8", (1, 2, 2))
    values, inputs = truth.drawn(net, 1), truth.shown(net, 1, samples=10)
    how, biases = How(family, edge=0.02), values.biases[0]
    spikes = {0: present(net, values, inputs, how).sent}

    def total(shift: float) -> float:
        changed = values._replace(biases=[biases + shift])
        return float(present(net, changed, inputs, how, spikes).moments[0][4].double().sum())

    own = truth.leaf(values)
    (slope,) = torch.autograd.grad(present(net, own, inputs, how).moments[0][4].sum(), own.biases)
    h = 1e-3
    assert float(slope.sum()) == pytest.approx((total(h) - total(-h)) / (2 * h), rel=0.03, abs=0.01)
    assert slope.abs().max() > 0.01


# Against snnTorch


def test_a_layers_spikes_are_snntorchs() -> None:
    """With dyadic weights and a decay of 1/4 no sum is rounded."""
    net = truth.build("6", (1, 2, 2))
    weights, inputs = nets.dyadic((6, 4, 2, 2), nets.generator(4))[:, :1], nets.dyadic((20, 6, 4), nets.generator(5))
    ones, none = torch.ones(6), torch.zeros(6)
    values = Parameters([weights], [2 * ones], [0.25 * ones], torch.zeros(1, 6), torch.tensor([0.5]))
    found = present(net, values, inputs, How("arctan")).sent[:, :, 0, 0]
    layer = snntorch.Leaky(beta=0.25, threshold=0.5, reset_mechanism="zero", reset_delay=True)
    membrane = none.expand(20, -1)
    for t in range(6):
        spikes, membrane = layer(2 * inputs[:, t] @ weights.flatten(1).mT + 0.25, membrane)
        assert torch.equal(found[t], spikes)
    assert 0.2 < found.mean() < 0.8


def test_gradients_are_snntorchs_where_nothing_is_reset() -> None:
    """At one time step: snnTorch takes the reset of later ones as given."""
    net = truth.build("4C3-M2-5C3-6", (2, 7, 7))
    values, inputs = truth.drawn(net, 1), truth.shown(net, 1)
    values = values._replace(log_sharpness=torch.full((3, 1), math.log(2.0)), thresholds=torch.full((3,), 0.5))
    own, theirs = truth.leaf(values), truth.leaf(values)
    found = present(net, own, inputs, How("arctan")).sent[0, :, 0, 0]
    leaky = snntorch.Leaky(
        beta=0.25, threshold=0.5, reset_mechanism="zero", reset_delay=True, spike_grad=surrogate.atan(alpha=2.0)
    )
    signal = inputs[:, 0].unflatten(1, net.maps[0])
    for place, (w, gain, bias) in enumerate(zip(*theirs[:3], strict=True)):
        sums = functional.conv2d(signal, w, padding=0 if place == 2 else 1)
        signal, _ = leaky(sums * gain[:, None, None] + bias[:, None, None], torch.zeros_like(sums))
        signal = functional.max_pool2d(signal, 2) if place == 0 else signal
    expected = signal[:, :, 0, 0]
    assert torch.equal(found, expected) and 0.1 < found.mean() < 0.9
    to_what = torch.randn(found.shape, generator=nets.generator(6))
    for one, other in zip(
        torch.autograd.grad((found * to_what).sum(), truth.leaves(own)[:9]),
        torch.autograd.grad((expected * to_what).sum(), truth.leaves(theirs)[:9]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


# What it may not depend on


def bits(net: LayeredNetwork, values: Parameters, inputs: torch.Tensor, how: How) -> list[torch.Tensor]:
    own = truth.leaf(values)
    course = present(net, own, inputs, how)
    slopes = torch.autograd.grad(scalar(course.sent, course.moments, course.unquantised), truth.leaves(own))
    return [course.sent, *course.moments, *course.unquantised, *slopes]


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread is all there is")
@networks
def test_the_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    net, found = truth.network(name), []
    how = How("arctan", True, edge=0.01, paths=not net.shortcuts)
    for threads in (1, 2):
        numba.set_num_threads(threads)
        found.append(bits(net, truth.drawn(net, T), truth.shown(net, T, samples=11), how))
    numba.set_num_threads(1)
    assert all(map(torch.equal, *found))


@networks
def test_without_batch_norm_an_example_does_not_see_its_company(name: str) -> None:
    net, how = truth.network(name), How("arctan")
    values, inputs = truth.drawn(net, T), truth.shown(net, T, samples=9)
    together = present(net, values, inputs, how).sent
    for n in (0, 4, 8):
        assert torch.equal(present(net, values, inputs[n : n + 1], how).sent, together[:, n : n + 1])


@constant
def test_pixels_that_no_square_holds_are_not_heard(constant: bool) -> None:
    net = truth.build("3C1-M2-4", (1, 5, 5))
    values, inputs = truth.drawn(net, T), truth.shown(net, T, constant).contiguous()
    changed = inputs.unflatten(2, (5, 5)).clone()
    changed[..., 4, :], changed[..., 4] = 9.0, -9.0
    one, other = (bits(net, values, shown, How("arctan")) for shown in (inputs, changed.flatten(2)))
    assert all(map(torch.equal, one, other))


# What cannot be


def test_pools_that_are_neurons_are_not_trained() -> None:
    with pytest.raises(ValueError, match=r"have pools of their largest value \(M2\); found a mean \(P2\)"):
        multistep.neurons(truth.build("3C3-P2-4", (1, 4, 4)))


def test_a_shortcut_does_not_start_at_a_pooled_layer() -> None:
    net = truth.build("3C3-M1-3C3+", (1, 4, 4))
    with pytest.raises(ValueError, match="layer 2: a shortcut must not start before a pool"):
        present(net, truth.drawn(net, 1), truth.shown(net, 1), How("arctan"))


def test_only_lif_neurons() -> None:
    net = truth.build("3", (1, 2, 2), SoftResetParameters())  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        present(net, truth.drawn(net, 1), truth.shown(net, 1), How("arctan"))
    assert isinstance(truth.network("dense").neuron, LIFParameters)
