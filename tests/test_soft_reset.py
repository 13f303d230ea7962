"""Neurons with reset by subtraction, alone and as couples of opposite sign, against traces by hand and snnTorch."""

from __future__ import annotations

import math

import pytest
import snntorch
import torch

from spikebench.neurons import CoupleParameters, SoftResetParameters, SoftResetState, couple_step, soft_reset_step

#: The couples of arXiv 2302.00232, and those that are reset to 0, whose spikes are as high.
MODIFIED, PLAIN = CoupleParameters(), CoupleParameters(1.0, 0.0)


def run(currents: torch.Tensor, parameters: SoftResetParameters | CoupleParameters, kept: float = 0) -> SoftResetState:
    """What happens under currents [T, ...], each [T, ...]; ``kept`` is u[0]."""
    step = couple_step if isinstance(parameters, CoupleParameters) else soft_reset_step
    state = []
    last = torch.full_like(currents[0], kept)
    for current in currents:
        state.append(step(current, last, parameters))  # type: ignore[arg-type]
        last = state[-1].kept
    return SoftResetState(*map(torch.stack, zip(*state, strict=True)))


def eighths(shape: tuple[int, ...], low: int = -4, high: int = 9) -> torch.Tensor:
    """Random multiples of 1/8."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(0)) / 8


# One neuron


def test_if_trace_by_hand() -> None:
    # V_th = 1 and rest at -1: a spike takes 2 off.
    state = run(torch.tensor([0.75, 0.25, 0.5, 1.5, 2.5, 1.0]), SoftResetParameters())
    assert state.potential.tolist() == [0.75, 1.0, -0.5, 1.0, 1.5, 0.5]
    assert state.spikes.tolist() == [0, 1, 0, 1, 1, 0]
    assert state.kept.tolist() == [0.75, -1.0, -0.5, -1.0, -0.5, 0.5]


def test_lif_trace_by_hand() -> None:
    # V_th = 1, rest at -1/2, lambda = 1/2: a spike takes 3/2 off, and half of what is left stays, also right after it.
    state = run(torch.tensor([1.0, 1.25, 0.0, 3.0, 0.0]), SoftResetParameters(1.0, -0.5, 0.5))
    assert state.potential.tolist() == [1.0, 1.0, -0.25, 2.875, 0.6875]
    assert state.spikes.tolist() == [1, 1, 0, 1, 0]
    assert state.kept.tolist() == [-0.25, -0.25, -0.125, 0.6875, 0.34375]


def test_the_nominal_neuron_is_the_papers() -> None:
    assert SoftResetParameters() == (1.0, -1.0, 1.0)
    assert CoupleParameters() == (0.5, -0.5, 1.0)
    assert CoupleParameters().amplitude == 1.0
    assert CoupleParameters(2.0, 0.5).amplitude == 1.5


def test_a_potential_at_the_threshold_spikes() -> None:
    currents = torch.tensor([[1.0, 1.0 - 2**-24]])
    assert run(currents, SoftResetParameters()).spikes.tolist() == [[1, 0]]
    for couple in (MODIFIED, PLAIN):
        sizes = couple.threshold * torch.cat([currents, -currents], dim=1)
        assert run(sizes, couple).spikes.tolist() == [[1, 0, -1, 0]]


def test_nothing_bounds_what_is_left_of_a_potential() -> None:
    state = run(torch.tensor([9.0, 0.0, 0.0, 0.0, 0.0, 0.0]), SoftResetParameters(2.0, 0.0))
    assert state.kept.tolist() == [7, 5, 3, 1, 1, 1]
    assert run(torch.full((3,), -4.0), SoftResetParameters()).kept.tolist() == [-4, -8, -12]


@pytest.mark.parametrize("leak", [0.5, 1.0])
def test_the_step_is_snntorchs_leaky_with_reset_by_subtraction(leak: float) -> None:
    """snnTorch returns the potential after the reset, which leaks in its next step; its neurons spike above V_th."""
    threshold = 1 + 2**-9  # which no potential equals
    reference = snntorch.Leaky(beta=leak, threshold=threshold, reset_mechanism="subtract", reset_delay=False)
    currents, membrane, last, fired = eighths((10, 20, 3)), torch.zeros(20, 3), torch.zeros(20, 3), 0
    for current in currents:
        state = soft_reset_step(current, last, SoftResetParameters(threshold, 0.0, leak))
        spikes, membrane = reference(current, membrane)
        assert (state.potential != threshold).all() and (membrane < threshold).all()
        assert torch.equal(state.spikes, spikes)
        assert torch.equal(state.kept, leak * membrane)
        last, fired = state.kept, fired + int(spikes.sum())
    assert fired > 40


def test_the_modified_reset_is_another_start_of_twice_the_threshold() -> None:
    """Of IF neurons; a leak pulls to another point."""
    currents, same = eighths((20, 50), -12, 17), {}
    for leak in (1.0, 0.5):
        modified = run(currents, SoftResetParameters(0.75, -0.75, leak))
        shifted = run(currents, SoftResetParameters(1.5, 0.0, leak), kept=0.75)
        same[leak] = torch.equal(modified.spikes, shifted.spikes)
        if leak == 1:
            assert torch.equal(modified.potential + 0.75, shifted.potential)
    assert same == {1.0: True, 0.5: False}


@pytest.mark.parametrize(("parameters", "half"), [((0.5, -0.5), 0.5), ((1.0, 0.0), 0.0), ((0.5, 0.0), 0.0)])
def test_a_mean_of_spikes_rounds_or_truncates_the_current(parameters: tuple[float, float], half: float) -> None:
    steps, current = 16, torch.arange(-40, 41) / 64
    kappa = parameters[0] - parameters[1]
    count = run(current.expand(steps, -1), SoftResetParameters(*parameters)).spikes.sum(dim=0)
    exact = steps * current / kappa
    assert torch.equal(count, (exact + half).floor().clamp(0, steps))


def test_constants_may_differ_between_neurons_and_no_state_changes_in_place() -> None:
    kept, current = torch.tensor([[0.5, 2.0], [1.0, 3.0]]), torch.ones(2, 2)
    parameters = SoftResetParameters(*(torch.tensor(x) for x in ([1.5, 4.0], [0.5, -1.0], [1.0, 0.5])))
    state = soft_reset_step(current, kept, parameters)
    assert state.spikes.tolist() == [[1, 0], [1, 1]]
    assert state.kept.tolist() == [[0.5, 1.5], [1.0, -0.5]]
    couple = couple_step(-current, -kept, CoupleParameters(*parameters))
    assert couple.spikes.tolist() == [[-1, 0], [-1, -5]]
    assert couple.kept.tolist() == [[-0.5, -1.5], [-1.0, 0.5]]
    assert kept.tolist() == [[0.5, 2.0], [1.0, 3.0]] and current.eq(1).all()


def test_spikes_have_the_currents_type() -> None:
    for step, parameters in ((soft_reset_step, SoftResetParameters()), (couple_step, MODIFIED)):
        for kind in (torch.float32, torch.float64):
            zero = torch.zeros(2, dtype=kind)
            assert {part.dtype for part in step(zero, zero, parameters)} == {kind}  # type: ignore[arg-type]


# Couples


def test_couple_trace_by_hand() -> None:
    # V_b = 1/2 and rest at -1/2: spikes of height 1.
    state = run(torch.tensor([0.25, 0.25, -0.25, -0.5, 0.75, 1.25, -3.0]), MODIFIED)
    assert state.potential.tolist() == [0.25, 0.5, -0.75, -0.25, 0.5, 0.75, -3.25]
    assert state.spikes.tolist() == [0, 1, -1, 0, 1, 1, -1]
    assert state.kept.tolist() == [0.25, -0.5, 0.25, -0.25, -0.5, -0.25, -2.25]


def test_leaking_couple_trace_by_hand() -> None:
    # V_b = 1 and rest at -1: spikes of height 2; lambda = 1/2.
    state = run(torch.tensor([1.5, -1.0, -1.0, 0.0]), CoupleParameters(1.0, -1.0, 0.5))
    assert state.potential.tolist() == [1.5, -1.25, -0.625, -0.3125]
    assert state.spikes.tolist() == [2, -2, 0, 0]
    assert state.kept.tolist() == [-0.25, 0.375, -0.3125, -0.15625]


@pytest.mark.parametrize("leak", [1.0, 0.5])
@pytest.mark.parametrize("couple", [MODIFIED, PLAIN])
def test_negated_currents_give_negated_spikes(couple: CoupleParameters, leak: float) -> None:
    currents = eighths((15, 60), -12, 13)
    ways = [run(sign * currents, couple._replace(leak=leak)) for sign in (1, -1)]
    for one, other in zip(*ways, strict=True):
        assert torch.equal(one, -other)
    assert ways[0].spikes.unique().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("leak", [1.0, 0.5])
def test_a_couple_is_two_neurons_of_opposite_sign_that_reset_each_other(leak: float) -> None:
    currents, couple = eighths((15, 60), -12, 13), CoupleParameters(0.5, -0.25, leak)
    expected, twins = run(currents, couple), torch.zeros(2, 60)
    for t, current in enumerate(currents):
        twins = twins + torch.stack([current, -current])
        spikes = (twins >= 0.5).float()
        twins = leak * (twins - 0.75 * spikes + 0.75 * spikes.flip(0))
        assert torch.equal(expected.spikes[t], 0.75 * (spikes[0] - spikes[1]))
        assert torch.equal(expected.kept[t], twins[0]) and torch.equal(twins[0], -twins[1])


@pytest.mark.parametrize("steps", [1, 10, 64])
@pytest.mark.parametrize("amplitude", [1.0, 0.5])
def test_the_modified_reset_rounds_where_the_plain_one_truncates(amplitude: float, steps: int) -> None:
    """Up to A the mean of a constant current's spikes is within A / T_B of it."""
    current = amplitude * torch.arange(-64, 65, dtype=torch.float64) / 64
    exact = steps * current / amplitude
    shown = current.expand(steps, -1)
    modified, plain = (
        run(shown, CoupleParameters(threshold, threshold - amplitude)).spikes.sum(dim=0) / amplitude
        for threshold in (amplitude / 2, amplitude)
    )
    assert torch.equal(plain, exact.trunc())
    assert torch.equal(modified, exact.sign() * (exact.abs() + 0.5).floor())
    for counts in (modified, plain):
        assert ((counts - exact).abs() * amplitude / steps <= amplitude / steps).all()


def test_a_couple_sends_at_most_its_amplitude_at_each_step() -> None:
    for current in (1.5, -7.0):
        assert run(torch.full((20,), current), MODIFIED).spikes.tolist() == [math.copysign(1, current)] * 20
