"""Claims that a mean, or a gain, reaches a bound; and metrics that are numbers of the rows' diagnostics."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from spikebench import claims
from spikebench.config import validate
from spikebench.errors import UserError

ROOT = Path(__file__).parents[1]
S1, S2, S3, S4 = (claim for claim in claims.load(ROOT) if claim["paper"] == "2302.00232")
ERRORS = (0.04, 0.05, 0.05, 0.06, 0.05, 0.05)


def rows(
    claim: Any, role: str, values: Sequence[float], metric: str, preset: str = "full", **axes: Any
) -> list[dict[str, Any]]:
    """One row a repetition of an arm of a claim; the metric is a column or a number of the diagnostics."""
    test = claim["test"]
    chosen = {**test["select"], **test[role]["axes"], **axes}
    chosen["training_size"] = 4000 if chosen.get("training_size") in (None, "max") else chosen["training_size"]
    base = {
        "experiment": "spide", "preset": preset, "data_kind": "real", "data_source": "", "variant": "", "status": "ok",
        "data_settings": "{}", "network": "{}", **chosen,
    }  # fmt: skip
    found = []
    for repetition, value in enumerate(values):
        _, dot, name = metric.partition(".")
        own = {"diagnostics": json.dumps({name: value, "forward_rate": 0.1})} if dot else {"diagnostics": "{}"}
        found.append({**base, "repetition": repetition, "accuracy": 0.97 if dot else value, **own})
    return found


def judged(claim: Any, table: list[dict[str, Any]]) -> claims.Verdict:
    (verdict,) = claims.evaluate([claim], pd.DataFrame(table))
    return verdict


@pytest.mark.parametrize(
    ("shift", "outcome"), [(0.0, "consistent"), (0.05, "undecided"), (0.1, "not reproduced"), (0.04, "consistent")]
)
def test_a_mean_is_on_one_side_of_its_bound_or_astride(shift: float, outcome: str) -> None:
    values = [error + shift for error in ERRORS]
    verdict = judged(S1, rows(S1, "treatment", values, "diagnostics.gradient_error"))
    low, high = stats.t.interval(0.95, 5, loc=pd.Series(values).mean(), scale=stats.sem(values))
    assert (verdict.numbers["low"], verdict.numbers["high"]) == pytest.approx((low, high))
    assert verdict.verdict == outcome
    assert (high <= 0.1) == (outcome == "consistent")


def test_five_repetitions_decide_no_bound() -> None:
    verdict = judged(S1, rows(S1, "treatment", ERRORS[:5], "diagnostics.gradient_error", preset="default"))
    assert verdict.verdict == "undecided"
    assert "make full" in verdict.conclusion


@pytest.mark.parametrize(("gain", "outcome"), [(-0.01, "consistent"), (-0.03, "not reproduced"), (0.05, "consistent")])
def test_a_gain_has_the_sign_of_the_better_arm(gain: float, outcome: str) -> None:
    ide = (0.96, 0.965, 0.955, 0.96, 0.962, 0.958)
    near = [value + gain + wobble for value, wobble in zip(ide, (0.001, -0.001) * 3, strict=True)]
    verdict = judged(S4, rows(S4, "treatment", near, "accuracy") + rows(S4, "reference", ide, "accuracy"))
    assert verdict.verdict == outcome
    assert verdict.numbers["estimate"] == pytest.approx(100 * gain)
    assert verdict.numbers["bound"] == pytest.approx(-2)


def test_gains_are_paired_by_repetition() -> None:
    ide = rows(S4, "reference", (0.99, 0.96, 0.95, 0.96, 0.95, 0.97, 0.96), "accuracy")
    spide = [{**row, "accuracy": row["accuracy"] - 0.01, "method": "spide"} for row in ide]
    verdict = judged(S4, ide + spide[::-1][:6])
    assert verdict.numbers["estimate"] == pytest.approx(-1)
    assert (verdict.numbers["n"], verdict.numbers["lost"]) == (6, 1)


def test_the_floor_comes_first() -> None:
    low = (0.5,) * 6
    table = rows(S4, "treatment", low, "accuracy") + rows(S4, "reference", low, "accuracy")
    assert judged(S4, table).verdict == "not testable"
    quiet = [
        {**row, "diagnostics": json.dumps({"gradient_error": 0.01, "forward_rate": 0.0})}
        for row in rows(S1, "treatment", ERRORS, "diagnostics.gradient_error")
    ]
    assert judged(S1, quiet).verdict == "not testable"


def test_a_number_that_the_diagnostics_lack_is_no_result() -> None:
    table = rows(S1, "treatment", ERRORS, "diagnostics.gradient_error")
    lacking = [{**row, "diagnostics": json.dumps({"forward_rate": 0.1})} for row in table]
    assert judged(S1, lacking).verdict == "not testable"
    verdict = judged(S1, table[:5] + lacking[5:])
    assert verdict.numbers["n"] == 5


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (S1, "bound in diagnostics.gradient_error, which is to be at most 0.1, SPIDE with 250 backward steps, spide"),
        (S4, "bound in the gain, which is to be at least -0.02, in accuracy, SPIDE against IDE, spide"),
    ],
)
def test_the_primary_test_in_words(claim: Any, words: str) -> None:
    assert claims.Verdict(claim, "undecided", "").primary_test.startswith(words)


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        (S1, {"margin": 0.1}),
        (S1, {"test": {"bound": None}}),
        (S1, {"published": {"value": 3}}),
        (S2, {"test": {"bound": 0.1}}),
        (S2, {"test": {"reference": None}}),
        (S3, {"margin": None}),
        (S1, {"test": {"metric": "diagnostics.Gradient"}}),
    ],
)
def test_the_schema_refuses_keys_of_another_kind(claim: Any, change: dict[str, Any]) -> None:
    wrong = copy.deepcopy(dict(claim))
    for key, value in change.items():
        if isinstance(value, dict):
            wrong[key] = {k: v for k, v in {**wrong[key], **value}.items() if v is not None}
        elif value is None:
            del wrong[key]
        else:
            wrong[key] = value
    with pytest.raises(UserError, match=r"claims\.yaml"):
        validate({"claims": [wrong]}, "claims", "claims.yaml")
