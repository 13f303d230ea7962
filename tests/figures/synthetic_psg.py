"""The seventh experiment's rows for ``synthetic``: PSG and PDA, with values from short formulas.

Repetition r of R is ``aside`` = r - (R - 1) / 2 off the middle: three repetitions have the standard deviation of one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

ARM = ("psg_pda", "off-chip")
MNIST = ("mnist_dvs", "simulated", "mnist")
CIFAR = ("cifar10", "real", "cifar10-subset-4000")
TWO = {"bins": 2, "span_ms": 400}
LAYERS = (1, 2, 3)
#: Accuracy gained by each variant.
GAINED = {"fixed": 0.0, "psg": 0.01, "pda": 0.02, "psg+pda": 0.03, "ltmd": 0.015, "ltmd+psg": 0.04}
STARTS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Candidate's settings to how much of log2 k0 is left: P1 forgets its start, P2 keeps it.
KEPT: list[tuple[dict[str, Any], tuple[float, ...], float]] = [
    ({}, STARTS, 0.1),
    ({"sharpness_rate": 10}, (0.5, 2.0, 8.0), 0.5),
    ({"psg": "p2", "sharpness_rate": 10}, (0.5, 2.0, 8.0), 0.95),
]
FAMILIES = {"rectangular": 0.0, "triangular": -0.02, "arctan": -0.06, "sigmoid": -0.03}
#: What is trained on to accuracy, A-gauss and B shift, squared error and firing rate.
TREATED: list[tuple[dict[str, Any], tuple[float, ...]]] = [
    ({}, (0.02, 2.0, 0.4, 0.4, 0.2)),
    ({"pda": "a-bern"}, (0.0, 4.0, 0.6, 0.8, 0.3)),
    ({"pda": "b"}, (-0.02, 6.0, 0.3, 0.5, 0.25)),
    ({"pda": "c"}, (-0.04, 5.0, 0.6, 0.6, 0.3)),
    ({"pda": "quantisation"}, (-0.01, 3.0, 0.5, 0.3, 0.2)),
    ({"pda": "rate"}, (-0.01, 5.0, 0.6, 0.6, 0.1)),
    ({"rate_matched": True}, (-0.01, 5.0, 0.6, 0.6, 0.2)),
    ({"ratio": 0.1}, (-0.05, 1.0, 0.4, 0.3, 0.2)),
]
UNTREATED = (0.0, 5.0, 0.6, 0.6, 0.3)
#: Divergences rise with the square of an offset and of a scale's log2; C does not.
SENSITIVE = (2.0, 1.0, 0.5, 0.0)
OFFSETS, SCALES = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0), (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
#: log2 growth of each divergence over training.
GROWN = {"shift-a-gauss": 1.0, "shift-a-bern": 0.0, "shift-b": -1.0, "shift-c": 0.5}


def final(kept: float, start: float, layer: int, aside: float) -> float:
    """log2 k at the end."""
    return kept * float(np.log2(start)) + 0.5 * layer - 1.0 + 0.1 * aside


def psg(row: Callable[..., dict[str, Any]], repetitions: int, preset: str) -> Iterator[dict[str, Any]]:
    """All sweeps, with ``synthetic``'s own maker of rows."""
    for r in range(repetitions):
        aside = r - (repetitions - 1) / 2
        for sweep, variant, data, settings, size, values in _cells(aside):
            made = row("psg_pda", sweep, ARM, "threshold", 0.0, size, data[1], {"architecture": "8C3-M2-8C3-M2-8C3"},
                       settings, r, repetitions, preset, data[0], variant)  # fmt: skip
            wider = 1 + (variant != "fixed")
            accuracy = 0.8 + values.pop("accuracy", GAINED[variant]) + 0.01 * aside * values.pop("spread", wider)
            log2 = values.pop("log2", [0.0] * len(LAYERS))
            found = {name: value * (1 + 0.1 * aside) for name, value in values.items() if not isinstance(value, list)}
            found |= {name: value for name, value in values.items() if isinstance(value, list)}
            found |= {"log2_sharpness": float(np.mean(log2)), "log2_sharpness_of_layers": log2}
            yield made | {
                "paper": "2304.13289",
                "accuracy": accuracy,
                "nll": 2 * (1 - accuracy),
                "diagnostics": json.dumps(found),
            }


Cell = tuple[str, str, tuple[tuple[str, str, str], dict[str, Any]], dict[str, Any], int, dict[str, Any]]


def _cells(aside: float) -> Iterator[Cell]:
    two, common = (MNIST, TWO), {"epochs": 10, "learning_rates": [0.1]}
    for variant in ("fixed", "psg", "pda", "psg+pda"):
        yield "two-steps", variant, two, {"epochs": 8, "tune_once": True}, 2000, {}
        for steps in (1, 10):
            yield "time-steps", variant, (MNIST, {"bins": steps}), {"epochs": 8}, 1000, {}
        yield "cifar10", variant, (CIFAR, {"steps": 4, "normalised": True}), {"epochs": 8}, 1000, {}
    for (settings, starts, kept), sweep in zip(KEPT, ("starts", *["starts-by-candidate"] * 2), strict=True):
        for start in starts:
            log2 = [final(kept, start, layer, aside) for layer in LAYERS]
            yield sweep, "psg", two, {**common, **settings, "sharpness": start}, 500, {"log2": log2}
    yield "starts-by-candidate", "psg", two, {**common, "psg": "p3"}, 500, {"log2": [3.0] * 3}
    for k in (0.25, 0.5, 1.0, 2.0, 4.0):
        lost = -0.02 * abs(float(np.log2(k)))
        yield "grid", "fixed", two, {**common, "sharpness": k}, 500, {"accuracy": lost}
    yield "grid", "psg", two, {**common, "retrain": True, "epochs": 20}, 500, {"log2": [0.5] * 3, "accuracy": 0.02}
    for (family, lost), variant in itertools.product(FAMILIES.items(), ("fixed", "psg")):
        own = lost * (0.5 if variant == "psg" else 1.0 + 0.1 * aside)
        yield "families", variant, two, {**common, "family": family}, 500, {"accuracy": own, "spread": 1}
    for variant in ("fixed", "psg", "ltmd", "ltmd+psg"):
        own = _treated(UNTREATED) if variant == "fixed" else {}
        yield "thresholds", variant, two, common, 500, own
    yield "divergences", "fixed", two, common, 500, _treated(UNTREATED)
    for settings, values in TREATED:
        yield "divergences", "pda", two, {**common, **settings}, 500, _treated(values)
    for variant in ("fixed", "psg", "pda", "psg+pda"):
        yield "probe", variant, two, {**common, "probe": True}, 500, _probed(variant, aside)


def _treated(values: tuple[float, ...]) -> dict[str, Any]:
    return dict(zip(("accuracy", "shift_decades", "shift_b", "quantisation", "rate"), values, strict=True))


def _probed(variant: str, aside: float) -> dict[str, Any]:
    offset = [[1.0 + s * (1 + 0.1 * aside) * o**2 for o in OFFSETS] for s in SENSITIVE]
    scaled = [[1.0 + s * (1 + 0.1 * aside) * float(np.log2(c)) ** 2 for c in SCALES] for s in SENSITIVE]
    narrow = 1.5 if variant == "pda" else 2.0
    return {
        "offset": offset,
        "scaled": scaled,
        "potentials": [_histogram(0.1 * aside, narrow) for _ in LAYERS],
        "potentials_before": [_histogram(0.1 * aside, 3.0) for _ in LAYERS],
    }


def _histogram(middle: float, width: float) -> list[float]:
    at = np.linspace(-4, 6, 41)[:-1] + 0.125
    shares = np.exp(-0.5 * ((at - middle) / width) ** 2)
    return [float(share) for share in shares / shares.sum()]


def psg_traces(row: dict[Any, Any]) -> pd.DataFrame:
    """Of starts the way to ``final`` as 1 - 2^(-step); of probes divergences, and agreement in two of three steps."""
    steps, parts = np.arange(1, 11), []
    if row["sweeps"] == "starts":
        end, first = (
            json.loads(row["diagnostics"])["log2_sharpness_of_layers"],
            json.loads(row["settings"])["sharpness"],
        )
        for chain, last in enumerate(end):
            parts.append(("sharpness", chain, last + (np.log2(first) - last) * 2.0**-steps))
    if row["sweeps"] == "probe":
        for (name, grown), chain in itertools.product(GROWN.items(), range(len(LAYERS))):
            values = 2.0 ** (grown * (steps - 1) / 9 + 0.01 * row["repetition"])
            parts.append((name, chain, np.where(chain == 0, np.nan, values) if name == "shift-c" else values))
        for chain in range(len(LAYERS)):
            parts.append(("look_ahead", chain, ((steps + row["repetition"]) % 3 > 0).astype(float)))
    tables = [pd.DataFrame({"name": n, "chain": c, "step": steps, "value": v}) for n, c, v in parts]
    empty = pd.DataFrame({"name": [], "chain": [], "step": [], "value": []})
    return pd.concat(tables).assign(cell=row["cell"]) if tables else empty.assign(cell=row["cell"])
