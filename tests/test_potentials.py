"""What is seen of potentials: histograms, divergences of layers, shifts that are put in, traces and diagnostics."""

from __future__ import annotations

import math

import multistep_truth as truth
import nets
import pytest
import torch

from spikebench import multistep_parameters, potentials, surrogate_training
from spikebench.method import Task
from spikebench.multistep import How, Parameters, present
from spikebench.potential_shift import EDGE, between_paths, shift
from spikebench.potentials import BINS, MEASURED, OFFSETS, SCALES

T = 3


def binned(u: torch.Tensor, threshold: float) -> torch.Tensor:
    """Shares of u / V in quarters from -4 to 6."""
    places = ((u / threshold + 4) * 4).floor().clamp(0, 39).long().flatten()
    return torch.bincount(places, minlength=40) / len(places)


def trained(**settings: object) -> tuple[Task, torch.Tensor, torch.Tensor]:
    """A task, a vector with sharpness and gains of its own, and running means and variances."""
    task = truth.task("psg", "4C3-M2-5C3-3C3", (2, 6, 6), **settings)  # type: ignore[arg-type]
    arranged = multistep_parameters.Layout(task.network)  # type: ignore[arg-type]
    draws = torch.randn(arranged.size, generator=nets.generator(3))
    parts = arranged.split(arranged.start(draws, 2.0, 0.5))
    gains = [gain * torch.linspace(0.5, 1.5, len(gain)) for gain in parts.gains]
    vector = arranged.join(parts._replace(gains=gains, log_sharpness=torch.tensor([0.0, 0.5, 1.0])))
    running = torch.stack([torch.full((arranged.channels,), 0.1), torch.full((arranged.channels,), 0.8)])
    return task, vector, running


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "frames"])
@pytest.mark.parametrize("architecture", ["4C3-M2-5C3-M2-6", "3C3-4C3-5C3s+-M2-3C3-5C3+-A4"])
def test_histograms_are_of_the_potentials_before_the_reset(architecture: str, constant: bool) -> None:
    net = truth.build(architecture, (2, 8, 8))
    values, inputs = truth.drawn(net, T), truth.shown(net, T, constant)
    values = values._replace(gains=[3 * gain for gain in values.gains])
    found = potentials.histograms(net, present(net, values, inputs, How("arctan"), keep=True), values.thresholds, T)
    expected = truth.present(net, truth.doubled(values), inputs, How("arctan")).potentials
    assert found.shape == (len(expected), BINS) and (BINS, potentials.LOWEST, potentials.HIGHEST) == (40, -4.0, 6.0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(expected)))
    for own, u, threshold in zip(found, expected, values.thresholds, strict=True):
        torch.testing.assert_close(own, binned(u.detach(), threshold.item()), atol=2e-3, rtol=0)
    assert found[:, 0].max() > 0.001 and found[:, -1].max() > 0.001, "what is beyond is in the last bins"


def test_divergences_are_of_each_layer() -> None:
    net = truth.network("pools")
    values, inputs = truth.drawn(net, T), truth.shown(net, T)
    course = present(net, values, inputs, How("arctan", True, edge=EDGE, paths=True))
    found = potentials.measured(course, values.thresholds)
    assert tuple(found) == MEASURED
    for name in MEASURED[:3]:
        expected = [shift(name, m, v) for m, v in zip(course.moments, values.thresholds, strict=True)]
        assert torch.equal(found[name], torch.stack(expected)) and found[name].min() > 0
    assert found["c"].isnan().tolist() == [True, False, False], "the first layer has no second path"
    for k in (1, 2):
        assert found["c"][k] == between_paths(course.moments[k], course.unquantised[k - 1])
    without = potentials.measured(present(net, values, inputs, How("arctan")), values.thresholds)
    assert without["c"].isnan().all() and not without["a-bern"].any()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_layers_drive_is_offset_and_scaled(place: int) -> None:
    """By hand, of one layer alone: its currents times a scale, and an offset in units of its threshold."""
    net = truth.build("4C3-M2-5C3-3C3", (2, 6, 6))
    values, inputs = truth.drawn(net, T), truth.shown(net, T)
    how = How("arctan", edge=EDGE, paths=True)
    kept = [x.clone() for x in truth.leaves(values)]
    offset, scaled = potentials.injected(lambda changed: present(net, changed, inputs, how), values, place)
    assert all(map(torch.equal, kept, truth.leaves(values))), "the parameters are as they were"
    assert offset.shape == (len(MEASURED), len(OFFSETS)) and scaled.shape == (len(MEASURED), len(SCALES))

    def by_hand(scale: float, shift_by: float) -> list[float]:
        gains, biases = list(values.gains), list(values.biases)
        gains[place] = scale * gains[place]
        biases[place] = scale * biases[place] + shift_by * values.thresholds[place]
        course = present(net, values._replace(gains=gains, biases=biases), inputs, how)
        moments, v = course.moments[place], values.thresholds[place]
        path = between_paths(moments, course.unquantised[place - 1]) if place else torch.tensor(math.nan)
        return [float(shift(name, moments, v)) for name in MEASURED[:3]] + [float(path)]

    for found, pairs in ((offset, [(1.0, o) for o in OFFSETS]), (scaled, [(s, 0.0) for s in SCALES])):
        expected = torch.tensor([by_hand(*pair) for pair in pairs]).mT
        torch.testing.assert_close(found, expected, equal_nan=True)
    middle = offset[:, OFFSETS.index(0.0)]
    assert torch.equal(middle.nan_to_num(), scaled[:, SCALES.index(1.0)].nan_to_num())
    fixed = MEASURED.index("b")
    assert scaled[fixed, -1] > scaled[fixed, SCALES.index(1.0)] and offset[fixed].unique().numel() == len(OFFSETS)


def test_an_offset_of_one_threshold_is_that_of_the_mean() -> None:
    """At one step, where nothing is reset."""
    net = truth.build("4C3", (2, 4, 4))
    values, inputs, means = truth.drawn(net, 1), truth.shown(net, 1), []

    def watched(changed: Parameters) -> object:
        course = present(net, changed, inputs, How("arctan", edge=EDGE))
        means.append(course.moments[0][0].mean().item())
        return course

    potentials.injected(watched, values, 0)  # type: ignore[arg-type]
    none, v = means[OFFSETS.index(0.0)], values.thresholds[0].item()
    for offset, mean in zip(OFFSETS, means, strict=False):
        assert mean - none == pytest.approx(offset * v, abs=1e-5)
    for scale, mean in zip(SCALES, means[len(OFFSETS) :], strict=True):
        assert mean == pytest.approx(scale * none, abs=1e-5)


@pytest.mark.parametrize("probe", [False, True])
def test_traces_are_of_the_step(probe: bool) -> None:
    task, vector, _ = trained(probe=probe)
    shown = surrogate_training.show(task, vector, truth.shown(task.network, T), torch.arange(6) % 3)  # type: ignore[arg-type]
    found = potentials.traces(task, vector, shown)
    assert found["train_loss"] == shown.loss
    torch.testing.assert_close(found["sharpness"], torch.tensor([0.0, 0.5, 1.0]) / math.log(2))
    names = {"rate": "rate", "shift": "a-gauss", "quantisation": "quantisation"}
    if probe:
        names |= {f"shift-{name}": name for name in ("a-gauss", "a-bern", "b")}
        assert found["shift-c"].shape == (3,) and found["shift-c"][1:].isfinite().all()
    assert found.keys() == {"train_loss", "sharpness", *names} | ({"shift-c"} if probe else set())
    for said, name in names.items():
        expected = [shift(name, m, torch.tensor(0.5)) for m in shown.course.moments]
        torch.testing.assert_close(found[said], torch.stack(expected))
        assert not found[said].requires_grad


def test_potentials_at_the_start_are_those_of_batch_norm() -> None:
    task, vector, _ = trained()
    inputs = truth.shown(task.network, T)  # type: ignore[arg-type]
    used = surrogate_training.parameters(task, surrogate_training.layout(task).split(vector))
    expected = truth.present(task.network, truth.doubled(used), inputs, How("rectangular", True)).potentials
    found = potentials.at_the_start(task, vector, inputs)
    for own, u in zip(found, expected, strict=True):
        torch.testing.assert_close(own, binned(u.detach(), 0.5), atol=2e-3, rtol=0)


@pytest.mark.parametrize("probe", [False, True])
def test_diagnostics_are_of_the_running_means_and_variances(probe: bool) -> None:
    task, vector, running = trained(probe=probe)
    inputs, arranged = truth.shown(task.network, T, samples=9), surrogate_training.layout(task)  # type: ignore[arg-type]
    found = potentials.diagnostics(task, vector, running, inputs)
    parts = arranged.split(vector)
    gains = [gain / math.sqrt(0.8 + 1e-5) for gain in parts.gains]
    biases = [bias - 0.1 * gain for bias, gain in zip(parts.biases, gains, strict=True)]
    used = surrogate_training.parameters(task, parts)._replace(gains=gains, biases=biases)
    exact = truth.present(task.network, truth.doubled(used), inputs, How("rectangular"))
    for name, said in (("a-gauss", "shift"), ("b", "shift_b"), ("quantisation", "quantisation"), ("rate", "rate")):
        expected = torch.stack([shift(name, m.detach().float(), torch.tensor(0.5)) for m in exact.moments]).mean()
        torch.testing.assert_close(found[said], expected, atol=1e-4, rtol=2e-3)
    log2 = torch.tensor([0.0, 0.5, 1.0]) / math.log(2)
    torch.testing.assert_close(found["log2_sharpness_of_layers"], log2)
    assert found["log2_sharpness"].item() == pytest.approx(log2.mean().item())
    assert ({"potentials", "offset", "scaled"} <= found.keys()) == probe
    if probe:
        for own, u in zip(found["potentials"], exact.potentials, strict=True):
            torch.testing.assert_close(own, binned(u.detach(), 0.5), atol=2e-3, rtol=0)
        how = How("rectangular", edge=EDGE, paths=True)
        middle = potentials.injected(lambda changed: present(task.network, changed, inputs, how), used, 1)  # type: ignore[arg-type]
        for own, name in zip(middle, ("offset", "scaled"), strict=True):
            torch.testing.assert_close(found[name], own, atol=1e-3, rtol=1e-3)
