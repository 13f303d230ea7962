"""Claims that arms end closer together than they started, and verdicts that name a reconstruction."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spikebench import claims
from spikebench.config import validate
from spikebench.errors import UserError

ROOT = Path(__file__).parents[1]
P1 = next(claim for claim in claims.load(ROOT) if claim["id"] == "P1")
STARTS = np.array([-1.0, 0.0, 1.0, 2.0, 3.0])


def table(ends: np.ndarray, accuracy: float = 0.9, **columns: Any) -> pd.DataFrame:
    """Rows of each arm whose log2 k ends at ends [repetitions, arms]."""
    rows = []
    for number, arm in enumerate(P1["test"]["arms"]):
        for repetition, end in enumerate(ends[:, number]):
            rows.append(
                {
                    "experiment": "psg_pda",
                    "preset": "full",
                    "data_kind": "simulated",
                    "data_source": "mnist",
                    "status": "ok",
                    "data_settings": "{}",
                    "network": "{}",
                    **P1["test"]["select"],
                    **arm["axes"],
                    "training_size": 1000,
                    "repetition": repetition,
                    "accuracy": accuracy,
                    "diagnostics": json.dumps({"log2_sharpness": end}),
                    **columns,
                }
            )
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame) -> claims.Verdict:
    (verdict,) = claims.evaluate([P1], rows)
    return verdict


def jitter(scale: float) -> np.ndarray:
    return scale * np.random.default_rng(0).normal(size=(6, 5))


@pytest.mark.parametrize(("kept", "outcome"), [(0.1, "consistent"), (0.25, "undecided"), (1.0, "not reproduced")])
def test_the_share_of_the_spread_that_is_left_decides(kept: float, outcome: str) -> None:
    ends = 1.5 + kept * STARTS + jitter(0.05)
    verdict = judged(table(ends))
    shares = ends.std(axis=1, ddof=1) / STARTS.std(ddof=1)
    low, high = stats.t.interval(0.95, 5, loc=shares.mean(), scale=stats.sem(shares))
    assert verdict.numbers["estimate"] == pytest.approx(shares.mean())
    assert (verdict.numbers["low"], verdict.numbers["high"]) == pytest.approx((low, high))
    assert verdict.verdict == outcome


def test_it_says_where_each_arm_ended_and_that_it_is_a_reconstruction() -> None:
    verdict = judged(table(np.tile([0.5, 0.5, 0.5, 0.5, 0.6], (6, 1))))
    assert verdict.explanation.startswith("Consistent by a reconstruction of the method: the spread of ")
    assert "0.5 from -1, 0.5 from 0, 0.5 from 1, 0.5 from 2, 0.6 from 3" in verdict.explanation
    assert "which is to be at most 0.25, PSG from k = 0.5 against PSG from 1 against" in verdict.primary_test
    others = [claim for claim in claims.load(ROOT) if claim["paper"] != "2304.13289"]
    assert not any("reconstruction of the method" in v.explanation for v in claims.evaluate(others, table(jitter(1.0))))


def test_a_repetition_counts_where_all_arms_have_it() -> None:
    rows = table(1.5 + 0.1 * STARTS + jitter(0.01))
    rows.loc[(rows["repetition"] == 2) & rows["settings"].str.contains("8.0"), "status"] = "failed"
    verdict = judged(rows)
    assert verdict.numbers["n"] == 5
    assert verdict.numbers["lost"] == 1
    assert verdict.verdict == "undecided", "five decide nothing"


def test_an_arm_that_is_not_there_or_has_not_learnt_tests_nothing() -> None:
    rows = table(1.5 + 0.1 * STARTS + jitter(0.01))
    assert judged(rows[~rows["settings"].str.contains("8.0")]).verdict == "not testable"
    slow = judged(table(1.5 + 0.1 * STARTS + jitter(0.01), accuracy=0.79))
    assert slow.verdict == "not testable"
    assert "and 0.8 is asked" in slow.conclusion


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [("test", "treatment", P1["test"]["arms"][0]), ("test", "better", "higher"), ("published", "unit", "points"),
     ("test", "target", 1.0), (None, "margin", 0.1)],
)  # fmt: skip
def test_the_schema_knows_what_a_spread_has_not(where: str | None, key: str, value: Any) -> None:
    claim = copy.deepcopy(dict(P1))
    (claim if where is None else claim[where])[key] = value
    with pytest.raises(UserError):
        validate({"claims": [claim]}, "claims", "config/claims.yaml")


@pytest.mark.parametrize("key", ["bound", "arms", "starts"])
def test_the_schema_knows_what_a_spread_needs(key: str) -> None:
    claim = copy.deepcopy(dict(P1))
    del claim["test"][key]
    with pytest.raises(UserError):
        validate({"claims": [claim]}, "claims", "config/claims.yaml")
