"""The sixth experiment's rows for ``synthetic``: feedback networks, with values from short formulas.

Repetition r of R is ``aside`` = r - (R - 1) / 2 off the middle: three repetitions have the standard deviation of one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

SPIDE, LOOP = ("spide", "off-chip"), ("spide", "in-the-loop")
IDE, BPTT = ("ide", "off-chip"), ("feedback_bptt", "off-chip")
GAUSSIAN = ("gaussian_pictures", "synthetic", "")
#: Sweep to data set, its mean accuracy, and its training size.
TRAINED: dict[str, tuple[tuple[str, str, str], float, int]] = {
    "mnist": (("mnist", "real", "mnist"), 0.95, 1000),
    "mnist-dvs": (("mnist_dvs", "simulated", "mnist"), 0.8, 500),
    "cifar10": (("cifar10", "real", "cifar10-subset-4000"), 0.4, 2200),
    "cifar10-dvs": (("cifar10_dvs", "simulated", "cifar10-subset-4000"), 0.3, 2200),
}
#: Accuracy lost by each method, and what an example takes: forward additions, the inputs' operations, backward
#: additions and multiply-accumulates, those of the gradient and of the solver; firing rates.
LOST = {SPIDE: 0.01, IDE: 0.0, BPTT: 0.02}
WORK = {
    SPIDE: (1e6, 2e5, 4e6, 0.0, 3e5, 0.0),
    IDE: (1.1e6, 2e5, 0.0, 6e6, 3e5, 1e5),
    BPTT: (1.2e6, 2e5, 0.0, 3e7, 9e6, 0.0),
}
#: Changed settings to the accuracy that they bring.
ABLATED: list[tuple[dict[str, Any], float]] = [
    ({}, 0.0), ({"modified_reset": False}, -0.02), ({"backward_steps": 25}, -0.01), ({"loss_scale": 32}, -0.05),
    ({"undivided_decay": True}, 0.005), ({"dropout": 0.2}, -0.03), ({"dropout": 0.2, "masked_gradient": True}, -0.025),
    ({"feedback_norm": 0}, 0.0),
]  # fmt: skip
_OPERATIONS = (
    "forward_additions", "input_macs", "backward_additions", "backward_macs", "gradient_macs", "solver_macs",
)  # fmt: skip
_ARCHITECTURE = {"architecture": "8C5s-16C5s (F8C3u)"}


def clipped_error(slope: float, steps: int, modified: bool) -> float:
    """Halved by the modified reset."""
    return min(1.0, (30 if modified else 60) / (slope * steps))


def gradient_error(slope: float, steps: int, modified: bool) -> float:
    """Of the largest slope, a quarter remains."""
    return max(clipped_error(slope, steps, modified), 0.25 if slope == 25 else 0.0)


def spide(row: Callable[..., dict[str, Any]], repetitions: int, preset: str) -> Iterator[dict[str, Any]]:
    """All sweeps, with ``synthetic``'s own maker of rows.

    The work of a repetition is 1 + 0.1 x aside of what the formulas say, an accuracy 0.01 x aside x the spread off it.
    """
    for r in range(repetitions):
        for sweep, arm, places, values in (*_gradients(), *_trained(), *_steps(), *_ablated(), *_chips()):
            aside = r - (repetitions - 1) / 2
            yield row("spide", sweep, arm, *places[:-1], r, repetitions, preset, places[-1]) | {
                "paper": "2302.00232",
                "accuracy": values.get("accuracy", 0.1) + 0.01 * aside * values.get("spread", 1),
                "best_accuracy": values.get("best", float("nan")) + 0.01 * aside,
                "diagnostics": json.dumps({name: mean * (1 + 0.1 * aside) for name, mean in values["work"].items()}),
            }


Made = Iterator[tuple[str, tuple[str, str], tuple[Any, ...], dict[str, Any]]]


def _gradients() -> Made:
    """Errors by ``gradient_error``, cosine 1 - error / 10, twice as many backward spikes with the modified reset."""
    common = {"epochs": 1, "minibatch": 16, "probe": True}
    for steps, scale, modified in itertools.product((25, 100, 250), (1, 16, 100, 400), (True, False)):
        settings = {**common, "backward_steps": steps, "loss_scale": scale, "modified_reset": modified}
        error = gradient_error(scale / 16, steps, modified)
        work = {
            "gradient_error": error,
            "gradient_cosine": 0.9 * (1 - error / 10),
            "clipped_error": clipped_error(scale / 16, steps, modified),
            "rate_error": 0.004,
            "backward_rate": 0.004 * scale / 16 * (1 + modified),
        }
        places = ("threshold", 0.0, 16, {}, _ARCHITECTURE, settings, GAUSSIAN)
        yield f"gradient-{steps}", SPIDE, places, {"work": work}
    for steps, rest in itertools.product((5, 10, 30, 100), ({}, {"rest": 0.0})):
        places = ("threshold", 0.0, 16, {"steps": steps}, {**_ARCHITECTURE, **rest}, common, GAUSSIAN)
        yield "equilibrium", SPIDE, places, {"work": {"rate_error": (0.24 if rest else 0.12) / steps}}


def _work(arm: tuple[str, str]) -> dict[str, float]:
    work = dict(zip(_OPERATIONS, WORK[arm], strict=True)) | {"neuron_updates": 4e5, "forward_rate": 0.1}
    return work | ({"backward_rate": 0.08} if arm == SPIDE else {"products": 12.0 if arm == IDE else 0.0})


def _trained() -> Made:
    for (sweep, (data, mean, size)), (arm, lost) in itertools.product(TRAINED.items(), LOST.items()):
        settings = {"report_best": True} | ({"backward_steps": 250} if arm == SPIDE and sweep != "mnist" else {})
        places = ("threshold", 0.0, size, {"steps": 30}, _ARCHITECTURE, settings, data)
        yield sweep, arm, places, {"accuracy": mean - lost, "best": mean - lost + 0.01, "work": _work(arm)}


def _steps() -> Made:
    """Accuracy 0.9 - 0.5 / T_F less what the method loses, and additions in proportion to T_F."""
    for steps, (arm, lost) in itertools.product((5, 10, 30), LOST.items()):
        places = ("threshold", 0.0, 1000, {"steps": steps}, _ARCHITECTURE, {"epochs": 5}, TRAINED["mnist"][0])
        work = _work(arm) | {"forward_additions": WORK[arm][0] * steps / 30}
        yield "time-steps", arm, places, {"accuracy": 0.9 - 0.5 / steps - lost, "work": work}


def _ablated() -> Made:
    """A change spreads twice as much as what it changes."""
    for changed, brought in ABLATED:
        settings = {"epochs": 5, "learning_rates": [0.1], **changed}
        places = ("threshold", 0.0, 1000, {"steps": 30}, _ARCHITECTURE, settings, TRAINED["mnist"][0])
        yield "ablations", SPIDE, places, {"accuracy": 0.9 + brought, "spread": 1 + bool(changed), "work": _work(SPIDE)}


def _chips() -> Made:
    """Severity costs 0.4 off-chip, 0.1 in the loop, and 0.2 with the second stage on the chip."""
    for fault, severity in itertools.product(("gain-mismatch", "stuck-at", "threshold"), (0.0, 0.5, 1.0)):
        for arm, settings, lost in ((SPIDE, {}, 0.4), (LOOP, {}, 0.1), (LOOP, {"backward": "chip"}, 0.2)):
            places = (fault, severity, 398, {}, {"hidden": [8]}, settings, ("breast_cancer", "real", ""))
            spread = 1 + ("backward" in settings)
            yield "backward-on-chip", arm, places, {"accuracy": 0.9 - lost * severity, "spread": spread, "work": {}}
