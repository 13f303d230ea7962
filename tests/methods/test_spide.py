"""SPIDE's settings, the networks that it is given, and where its second stage runs."""

from __future__ import annotations

from typing import Any

import feedback_course as course
import pytest
import torch

from spikebench import adjoint, feedback_training
from spikebench.data import DataInfo
from spikebench.errors import Unavailable
from spikebench.layered_networks import LayeredNetwork

SPIDE = course.SPIDE
PICTURES = DataInfo("classification", 65, 3, 10, False, (1, 8, 8))
LINES = DataInfo("classification", 13, 3, 10, True)
DEVIATIONS = {"gain_mismatch": 0.3, "threshold": 0.2, "offset": 0.05}


def build(info: DataInfo = PICTURES, **layers: Any) -> LayeredNetwork:
    net: LayeredNetwork = SPIDE.network(info, layers, "")
    return net


# Settings


def test_settings_that_are_not_allowed_are_said() -> None:
    with pytest.raises(ValueError, match="backward: found 'fpga', allowed: ideal, chip"):
        SPIDE.Settings(backward="fpga")
    with pytest.raises(ValueError, match="initial: found 'zero', allowed: kaiming, unit"):
        SPIDE.Settings(initial="zero")


@pytest.mark.parametrize(
    ("settings", "leak", "expected"),
    [
        ({}, 1.0, (0.5, -0.5, 1.0)),
        ({"modified_reset": False}, 1.0, (1.0, 0.0, 1.0)),
        ({}, 0.9, (0.5, -0.5, 0.9)),
        ({"modified_reset": False}, 0.9, (1.0, 0.0, 0.9)),
        ({"leaky_backward": False}, 0.9, (0.5, -0.5, 1.0)),
    ],
)
def test_couples_have_spikes_of_height_1_and_the_neurons_leak(
    settings: dict[str, bool], leak: float, expected: tuple[float, float, float]
) -> None:
    couple = SPIDE.Settings(**settings).couple(leak)
    assert tuple(couple) == expected and couple.amplitude == 1.0


# Networks


def test_hidden_layers_are_dense_ones_with_feedback() -> None:
    net = build(LINES, hidden=[8, 5])
    assert (net.widths, net.outputs, net.feedback) == ((8, 5), 3, 1)
    assert net.parameters == 8 * (12 + 5 + 1) + 5 * (8 + 1)
    assert tuple(net.nominal) == (1.0, -1.0, 1.0)
    assert build(PICTURES, hidden=[8]).links[-1].coarse == (8, 1, 1)


@pytest.mark.parametrize(("rest", "threshold"), [(-1.0, 1.0), (0.0, 2.0), (-0.5, 1.5)])
def test_the_rest_divides_the_same_kappa(rest: float, threshold: float) -> None:
    for layers in ({"hidden": [4]}, {"architecture": "4C3s-4C3 (F4C3)"}):
        assert tuple(build(**layers, rest=rest, leak=0.9).nominal) == (threshold, rest, 0.9)


def test_an_architecture_is_that_of_the_pictures() -> None:
    net = build(architecture="4C3s-2C3s (F4C3u)")
    assert net.maps == ((1, 8, 8), (4, 4, 4), (2, 2, 2))


@pytest.mark.parametrize(
    ("info", "layers", "message"),
    [
        (PICTURES, {}, r"feedback networks need an architecture or hidden layers; found \{\}"),
        (PICTURES, {"hidden": []}, "feedback networks need an architecture or hidden layers"),
        (
            PICTURES,
            {"convolutions": [[4, 3, 2]], "hidden": [5]},
            "need an architecture or hidden layers; found .*convol",
        ),
        (PICTURES, {"hidden": [5], "filters": 2}, "need an architecture or hidden layers; found .*filters"),
        (LINES, {"architecture": "4C3 (F4C3)"}, "convolutions and pools need pictures"),
        (PICTURES, {"architecture": "4C3 (F5C3)"}, "found the feedback 'F5C3', expected F4, of maps with"),
        (PICTURES, {"architecture": "4C3s-4C3s (F4C3)"}, "a feedback of kernel 3 cannot take the last layer's map"),
        (
            PICTURES,
            {"architecture": "4X3"},
            "found the layer '4X3', expected e.g. 64C5, 64C5s, 64C5\\+, P2, M2, 300 or A300",
        ),
        (PICTURES, {"architecture": "P2-4C3 (F1C3u)"}, "expected F0|feedback must go to a layer of trained weights"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_unavailable(info: DataInfo, layers: dict[str, Any], message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        SPIDE.network(info, layers, "")


# Where the second stage runs


def second_stage(backward: str, mode: str = "in-the-loop", severity: float = 1.0, **fault: float) -> list[torch.Tensor]:
    """The state after three rounds."""
    task = course.course(SPIDE, mode=mode, backward=backward, backward_steps=40, initial_feedback=1.0)
    state = course.train(SPIDE, task, course.shown(task), course.chip_of(task, severity, **fault), 3)
    return list(state)


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_on_an_ideal_chip_it_does_not_matter_where_anything_runs() -> None:
    off_chip = second_stage("ideal", "off-chip")
    for backward, mode, severity in (
        ("ideal", "in-the-loop", 1.0),
        ("chip", "in-the-loop", 1.0),
        ("chip", "off-chip", 1.0),
    ):
        assert same(off_chip, second_stage(backward, mode, severity))


def test_at_severity_0_the_devices_are_ideal_and_above_it_backward_spikes_deviate_as_well() -> None:
    runs = {b: [second_stage(b, severity=s, **DEVIATIONS) for s in (0.0, 1.0)] for b in ("ideal", "chip")}
    assert same(runs["ideal"][0], runs["chip"][0])
    assert same(runs["ideal"][0], second_stage("ideal", "off-chip"))
    assert not torch.equal(runs["ideal"][0][0], runs["ideal"][1][0])
    assert not torch.equal(runs["ideal"][1][0], runs["chip"][1][0])


@pytest.mark.parametrize("backward", ["ideal", "chip"])
def test_the_second_stage_is_run_with_the_shown_weights_slope_and_factors(
    backward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its gradient is the step's: by a chip or a model that says what it was asked."""
    task = course.course(
        SPIDE, mode="in-the-loop", backward=backward, dropout=0.3, backward_steps=17, modified_reset=False,
        momentum=0.0, leak=0.9, feedback_norm=0.5, initial_feedback=1.0,
    )  # fmt: skip
    batch, chip = course.shown(task), course.chip_of(task, **DEVIATIONS)
    state, asked = course.begin(SPIDE, task, batch, chip), []
    shown = feedback_training.show(task, state, batch, course.chip_of(task, **DEVIATIONS), course.streams(task))
    ideal, own = adjoint.differentiate, chip.differentiate

    def model(net: LayeredNetwork, *arguments: Any) -> Any:
        asked.append(("ideal", arguments))
        return ideal(net, *arguments)

    def device(*arguments: Any) -> Any:
        asked.append(("chip", arguments))
        return own(*arguments)

    monkeypatch.setattr(adjoint, "differentiate", model)
    monkeypatch.setattr(chip, "differentiate", device)
    after, _ = SPIDE.step(task, state, batch, chip, course.streams(task))
    ((where, (weights, slope, factors, couple, steps)),) = asked
    assert (where, tuple(couple), steps) == (backward, (1.0, 0.0, 0.9), 17)
    assert torch.equal(weights, shown.weights) and torch.equal(slope, shown.slope)
    assert torch.equal(factors, adjoint.transmission(task.network, shown.rates.mean, shown.masks))
    again = own if backward == "chip" else lambda *arguments: ideal(task.network, *arguments)
    gradient = feedback_training.weight_gradient(task, shown, again(weights, slope, factors, couple, steps).mean)
    torch.testing.assert_close(after.weights, shown.weights - 0.1 * gradient)
    assert gradient.std() > 0
