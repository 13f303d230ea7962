from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from spikebench import claims
from spikebench.errors import UserError

ROOT = Path(__file__).parents[1]
SIZES = (10, 20, 40, 80, 160, 398)
MH, BACKPROP = "metropolis_hastings", "backprop"
SPREAD = (-0.03, -0.02, -0.01, 0.0, 0.0, 0.0, 0.0, 0.01, 0.02, 0.03)  # ten repetitions, mean 0

M1, M2 = claims.load(ROOT)[:2]

Curve = Mapping[int, float] | float


def arm(
    method: str, severity: float, accuracy: Curve, spread: Sequence[float] = SPREAD, preset: str = "default"
) -> list[dict[str, Any]]:
    """Rows of one arm: the mean accuracy by training size (a number: at 398) plus one deviation a repetition."""
    return [
        {
            "experiment": "chip_in_the_loop",
            "preset": preset,
            "dataset": "breast_cancer",
            "data_kind": "real",
            "data_source": "",
            "data_settings": "{}",
            "network": '{"hidden":[8]}',
            "method": method,
            "mode": "in-the-loop",
            "variant": "",
            "settings": "{}",
            "fault": "paper-full",
            "severity": severity,
            "training_size": size,
            "repetition": repetition,
            "status": "ok",
            "accuracy": mean + deviation,
            "nll": 1.0 - mean - deviation,
        }
        for size, mean in (accuracy if isinstance(accuracy, Mapping) else {398: accuracy}).items()
        for repetition, deviation in enumerate(spread)
    ]


def curve(first: int, target: float = 0.9) -> dict[int, float]:
    """Means that lie well below the target up to the size ``first`` and well above it from there."""
    return {size: target + (0.05 if size >= first else -0.2) for size in SIZES}


def m1(mh: float, backprop: float, spread: Sequence[float] = SPREAD, floor: float = 0.95) -> pd.DataFrame:
    """Rows for M1; the treatment deviates in ``spread``, the reference does not."""
    flat = [0.0] * len(spread)
    rows = arm(MH, 1.0, mh, spread) + arm(BACKPROP, 1.0, backprop, flat) + arm(BACKPROP, 0.0, floor, flat)
    return pd.DataFrame(rows)


def m2(mh: Curve, backprop: Curve, spread: Sequence[float] = SPREAD, floor: float = 0.95) -> pd.DataFrame:
    """Rows for M2."""
    return pd.DataFrame(arm(MH, 0.5, mh, spread) + arm(BACKPROP, 0.5, backprop, spread) + arm(MH, 0.0, floor, spread))


def judge(claim: claims.Claim, rows: pd.DataFrame) -> claims.Verdict:
    [verdict] = claims.evaluate([claim], rows)
    return verdict


def changed(claim: claims.Claim, **parts: Mapping[str, Any]) -> claims.Claim:
    """The claim with some keys of its parts replaced."""
    return {**claim, **{part: {**claim[part], **keys} for part, keys in parts.items()}}


# The file


def test_m1_and_m2_are_what_was_fixed_before_the_runs() -> None:
    assert [M1["id"], M2["id"]] == ["M1", "M2"]
    arms = {"treatment": (MH, "in-the-loop"), "reference": (BACKPROP, "in-the-loop")}
    for claim in (M1, M2):
        assert claim["paper"] == "2402.06284"
        test = claim["test"]
        assert {role: tuple(test[role]["axes"].values()) for role in arms} == arms
        assert (test["experiment"], test["metric"], test["better"]) == ("chip_in_the_loop", "accuracy", "higher")
    common = {"data_settings": "{}", "network": '{"hidden":[8]}', "settings": "{}", "fault": "paper-full"}
    assert M1["test"]["select"].items() >= {**common, "severity": 1.0, "training_size": "max"}.items()
    assert M2["test"]["select"].items() >= {**common, "severity": 0.5}.items()
    assert (M1["published"]["value"], M1["published"]["unit"], M1["margin"]) == (27, "points", 0.02)
    assert (M2["published"]["value"], M2["published"]["unit"], M2["test"]["target"]) == (10, "times", 0.9)
    assert (M1["floor"]["arm"], M1["floor"]["minimum"]) == (M1["test"]["reference"], 0.9)
    assert (M2["floor"]["arm"], M2["floor"]["minimum"]) == (M2["test"]["treatment"], 0.9)
    assert M1["floor"]["select"] == {"severity": 0.0}
    assert M2["floor"]["select"] == {"severity": 0.0, "training_size": "max"}


def written(tmp_path: Path, edit: Callable[[list[dict[str, Any]]], object]) -> Path:
    """A project root whose claims file was edited."""
    document = copy.deepcopy(yaml.safe_load((ROOT / "config" / "claims.yaml").read_text()))
    edit(document["claims"])
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "claims.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c[0].pop("margin"), r"claims\.0: the key 'margin' is missing"),
        (lambda c: c[1].update(margin=0.02), r"claims\.1\.margin: found 0\.02"),
        (lambda c: c[1]["test"].pop("target"), r"claims\.1\.test: the key 'target' is missing"),
        (lambda c: c[0]["test"]["select"].update(colour="red"), r"unknown key 'colour'; allowed: .*severity"),
        (lambda c: c[1]["test"]["select"].update(training_size=20), r"select\.training_size: found 20"),
        (lambda c: c[0]["published"].update(value="27"), r"published\.value: found \"27\", allowed: .*unknown"),
        (lambda c: c[0]["published"].update(unit="times"), r"published\.unit: found \"times\", allowed: points"),
        (lambda c: c[1].update(id="M1"), "the id M1 is given twice"),
    ],
)
def test_a_wrong_file_dies_with_its_key(
    tmp_path: Path, edit: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    with pytest.raises(UserError, match=f"config/claims.yaml: .*{message}|config/claims.yaml: {message}"):
        claims.load(written(tmp_path, edit))


def test_the_claims_to_come_fit_the_schema(tmp_path: Path) -> None:
    def edit(entries: list[dict[str, Any]]) -> None:
        for name in ("X3", "Y1", "Z4", "X12"):
            unknown = {"value": "unknown", "unit": "nats", "source": "abstract", "text": "better calibrated"}
            entry = {**copy.deepcopy(entries[0]), "id": name, "paper": "2012.08300", "published": unknown}
            entry["test"] |= {"metric": "nll", "better": "lower"}
            entry["test"]["treatment"]["axes"] = {"method": "bayes", "variant": "ensemble"}
            entries.append(entry)

    assert [claim["id"] for claim in claims.load(written(tmp_path, edit))][-4:] == ["X3", "Y1", "Z4", "X12"]


# Paired difference


def test_reproduced_when_the_published_value_lies_in_the_prediction_interval() -> None:
    verdict = judge(M1, m1(0.95, 0.70))
    # by hand: sd = sqrt(28e-4 / 9) = 1.764 points, t(0.975, 9) = 2.262: half widths 1.262 and, for one run, 4.185
    numbers = verdict.numbers
    assert verdict.verdict == "reproduced"
    assert numbers["estimate"] == pytest.approx(25)
    assert (numbers["low"], numbers["high"]) == pytest.approx((25 - 1.262, 25 + 1.262), abs=1e-3)
    assert (numbers["prediction_low"], numbers["prediction_high"]) == pytest.approx((20.815, 29.185), abs=1e-3)
    assert (numbers["n"], numbers["lost"], numbers["margin"]) == (10, 0, 2)
    assert (numbers["treatment_mean"], numbers["reference_mean"]) == pytest.approx((95, 70))


def test_consistent_when_better_by_another_size() -> None:
    assert judge(M1, m1(0.95, 0.80)).verdict == "consistent"
    assert judge(M1, m1(0.99, 0.60)).verdict == "consistent"  # by more than was published, too
    unknown = changed(M1, published={"value": "unknown"})
    assert judge(unknown, m1(0.95, 0.70)).verdict == "consistent"


def test_reproduced_within_the_written_tolerance() -> None:
    narrow = [d / 100 for d in SPREAD]
    rows = m1(0.95, 0.70, narrow)  # 25 points, and the prediction interval is far from 27
    assert judge(M1, rows).verdict == "consistent"
    assert judge(changed(M1, published={"tolerance": 2.5}), rows).verdict == "reproduced"
    assert judge(changed(M1, published={"tolerance": 1.5}), rows).verdict == "consistent"


def test_not_reproduced_when_equivalent_or_worse() -> None:
    equivalent = judge(M1, m1(0.95, 0.95, [d / 10 for d in SPREAD]))
    assert equivalent.verdict == "not reproduced" and "equivalent" in equivalent.conclusion
    worse = judge(M1, m1(0.80, 0.95))
    assert worse.verdict == "not reproduced" and "worse" in worse.conclusion


def test_undecided_when_the_interval_is_too_wide() -> None:
    verdict = judge(M1, m1(0.90, 0.89, [5 * d for d in SPREAD]))
    assert verdict.verdict == "undecided"
    assert verdict.conclusion.endswith("run `make full`")
    full = judge(M1, m1(0.90, 0.89, [5 * d for d in SPREAD]).assign(preset="full"))
    assert full.verdict == "undecided" and "make full" not in full.conclusion


@pytest.mark.parametrize("n", [1, 2, 5])
def test_undecided_with_few_pairs_however_clear_they_look(n: int) -> None:
    verdict = judge(M1, m1(0.95, 0.70, [0.0] * n))
    assert verdict.verdict == "undecided"
    assert f"n = {n} pairs" in verdict.explanation and "run `make full`" in verdict.explanation


def test_lower_may_be_better() -> None:
    claim = changed(M1, test={"metric": "nll", "better": "lower"}, published={"value": "unknown", "unit": "nats"})
    verdict = judge(claim, m1(0.95, 0.70))
    assert verdict.verdict == "consistent"
    assert verdict.numbers["estimate"] == pytest.approx(0.25)
    assert verdict.numbers["treatment_mean"] == pytest.approx(0.05)


def test_the_largest_training_size_present_is_taken() -> None:
    small = m1(0.95, 0.70).assign(training_size=40)
    smaller = m1(0.70, 0.95).assign(training_size=20)
    verdict = judge(M1, pd.concat([small, smaller]))
    assert verdict.verdict == "reproduced"


def test_pairs_without_a_result_are_left_out_and_counted() -> None:
    rows = m1(0.95, 0.70)
    failed = (rows["method"] == BACKPROP) & (rows["severity"] == 1.0) & (rows["repetition"].isin([3, 4]))
    rows.loc[failed, "status"] = "timed-out"
    verdict = judge(M1, rows)
    assert (verdict.numbers["n"], verdict.numbers["lost"]) == (8, 2)
    assert "n = 8 pairs, 2 more lack a result" in verdict.explanation


def test_other_rows_of_the_experiment_do_not_matter() -> None:
    rows = m1(0.95, 0.70)
    worse = m1(0.50, 0.90, floor=0.5)
    others = [
        worse.assign(mode="off-chip"),
        worse.assign(network='{"hidden":[16]}'),
        worse.assign(settings='{"temperature":10.0}'),
        worse.assign(data_settings='{"encoding":"rate"}'),
        worse.assign(fault="threshold"),
        worse.assign(experiment="grand_comparison"),
    ]
    assert judge(M1, pd.concat([rows, *others])) == judge(M1, rows)


# Size ratio


@pytest.mark.parametrize(
    ("mh", "backprop", "verdict", "interval"),
    [
        (curve(20), curve(398), "reproduced", (19.9, 19.9)),
        (curve(20), curve(999), "reproduced", (19.9, math.inf)),  # backprop never gets there: at least 19.9
        (curve(40), curve(398), "consistent", (9.95, 9.95)),
        (curve(80), curve(999), "consistent", (398 / 80, math.inf)),
        (curve(80), curve(80), "not reproduced", (1, 1)),
        (curve(160), curve(20), "not reproduced", (0.125, 0.125)),
        (curve(999), curve(20), "not reproduced", (0, 20 / 398)),  # MH never gets there: at most 0.05
        (curve(999), curve(999), "not testable", (0, math.inf)),
    ],
)
def test_size_ratio_verdicts(
    mh: dict[int, float], backprop: dict[int, float], verdict: str, interval: tuple[float, float]
) -> None:
    found = judge(M2, m2(mh, backprop))
    assert found.verdict == verdict
    assert (found.numbers["low"], found.numbers["high"]) == pytest.approx(interval)


def test_undecided_when_the_interval_holds_both_no_advantage_and_the_published_ratio() -> None:
    # backprop's means hover about the target, so that it seems to reach it anywhere from 20 to 398 training samples
    shaky = {10: 0.7, 20: 0.901, 40: 0.902, 80: 0.903, 160: 0.904, 398: 0.95}
    rows = pd.concat([m2(curve(20), {}, SPREAD), pd.DataFrame(arm(BACKPROP, 0.5, shaky, [10 * d for d in SPREAD]))])
    found = judge(M2, rows)
    assert found.numbers["low"] <= 1 and found.numbers["high"] > 10
    assert found.verdict == "undecided" and "run `make full`" in found.conclusion


def test_size_ratio_without_a_published_value() -> None:
    unknown = changed(M2, published={"value": "unknown"})
    assert judge(unknown, m2(curve(20), curve(398))).verdict == "consistent"
    assert judge(unknown, m2(curve(40), curve(40))).verdict == "not reproduced"
    assert judge(unknown, m2(curve(80), curve(20))).verdict == "not reproduced"


def test_size_ratio_needs_six_repetitions_and_warns_below_ten() -> None:
    few = judge(M2, m2(curve(20), curve(398), [0.0] * 5))
    assert few.verdict == "undecided" and few.numbers["n"] == 5
    some = judge(M2, m2(curve(20), curve(398), [0.0] * 6))
    assert some.verdict == "reproduced" and "too narrow below ten repetitions" in some.explanation
    assert "too narrow" not in judge(M2, m2(curve(20), curve(398))).explanation


def test_size_ratio_of_a_metric_that_should_be_low() -> None:
    claim = changed(M2, test={"metric": "nll", "better": "lower", "target": 0.1})
    assert judge(claim, m2(curve(20), curve(398))).numbers["ratio"] == pytest.approx(19.9)


def test_size_ratio_uses_repetitions_that_have_every_size() -> None:
    rows = m2(curve(20), curve(398))
    rows.loc[(rows["training_size"] == 10) & (rows["repetition"] == 0) & (rows["method"] == MH), "status"] = "diverged"
    found = judge(M2, rows)
    assert (found.numbers["n"], found.numbers["lost"]) == (9, 1)


# Not testable


def test_a_floor_that_is_not_reached_keeps_the_numbers_but_not_the_verdict() -> None:
    verdict = judge(M1, m1(0.95, 0.70, floor=0.85))
    assert verdict.verdict == "not testable"
    assert verdict.numbers["estimate"] == pytest.approx(25)
    assert (
        "accuracy of Backprop in the loop at severity 0.0 is 0.85 on average (n = 10), and 0.9" in verdict.explanation
    )
    assert judge(M1, m1(0.95, 0.70, floor=0.90)).verdict == "reproduced"
    assert judge(M2, m2(curve(20), curve(398), floor=0.85)).verdict == "not testable"


@pytest.mark.parametrize(
    ("claim", "rows", "reason"),
    [
        (M1, m1(0.95, 0.70).iloc[:0], "no rows of MH in the loop"),
        (M1, m1(0.95, 0.70).query("method == 'metropolis_hastings'"), "no rows of Backprop in the loop"),
        (M1, m1(0.95, 0.70).query("severity == 1.0"), "no rows of Backprop in the loop at .*severity 0.0"),
        (M1, m1(0.95, 0.70).assign(status="failed"), "none of 10 repetitions has a result of both arms"),
        (
            M1,
            pd.concat([m1(0.95, 0.70), m1(0.9, 0.7).assign(data_kind="simulated")]),
            "MH in the loop differ in data_kind",
        ),
        (
            M1,
            pd.DataFrame(arm(MH, 1.0, 0.9) + arm(BACKPROP, 1.0, {40: 0.9})),
            r"differ in training_size \(398 against 40\)",
        ),
        (M2, m2(curve(20), {10: 0.8, 398: 0.9}), r"none of 10 repetitions .* all training sizes \[10, 20"),
    ],
)
def test_missing_or_ambiguous_rows_are_named(claim: claims.Claim, rows: pd.DataFrame, reason: str) -> None:
    verdict = judge(claim, rows)
    assert verdict.verdict == "not testable"
    assert re.search(reason, verdict.explanation)


def test_a_smoke_table_gives_undecided_or_not_testable() -> None:
    rng = np.random.default_rng(0)
    rows = [
        row
        for method in (MH, BACKPROP)
        for severity in (0.0, 0.5, 1.0)
        for row in arm(method, severity, {20: 0.7, 398: 0.92}, rng.normal(0, 0.02, 2).tolist(), preset="smoke")
    ]
    verdicts = claims.evaluate([M1, M2], pd.DataFrame(rows))
    assert {verdict.verdict for verdict in verdicts} <= {"undecided", "not testable"}


# The scoreboard file


def test_the_explanation_is_one_sentence_with_everything_in_it() -> None:
    assert judge(M1, m1(0.95, 0.70)).explanation == (
        "Reproduced: the gain in accuracy of MH in the loop over Backprop in the loop is +25 points (95 against 70 at "
        "398 training samples, n = 10 pairs, 95% interval 23.7 to 26.3, margin 2), which is better (paired t p = "
        "6.8e-12), and the published 27 lies in the 95% prediction interval of one run, 20.8 to 29.2; published: up to "
        "27% higher accuracy when subject to strong hardware non-idealities (abstract of arXiv 2402.06284v1); primary "
        "test: paired-difference in accuracy, MH in the loop against Backprop in the loop, chip_in_the_loop at dataset "
        'breast_cancer, data_settings {}, network {"hidden":[8]}, settings {}, fault paper-full, severity 1.0, '
        "training_size max."
    )


def test_the_scoreboard_is_strict_json_with_one_entry_a_claim(tmp_path: Path) -> None:
    rows = pd.concat([m1(0.95, 0.70), m2(curve(20), curve(999))])
    path = tmp_path / "results" / "claims.json"
    verdicts = claims.evaluate([M1, M2], rows)
    claims.write(verdicts, path)
    first, second = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [path] == list(path.parent.iterdir())
    assert (first["id"], first["verdict"], first["unit"], first["n"]) == ("M1", "reproduced", "points", 10)
    assert (first["estimate"], first["margin"]) == (pytest.approx(25), 2)
    assert first["explanation"] == verdicts[0].explanation
    assert first["deviations"] == M1["deviations"] and first["published"] == M1["published"]
    assert (second["estimate"], second["low"], second["high"]) == (19.9, 19.9, None)  # null: no bound
    assert second["numbers"]["size_reference"] is None and second["margin"] is None
    claims.write(claims.evaluate([M1], rows.iloc[:0]), path)
    [empty] = json.loads(path.read_text())
    assert (empty["verdict"], empty["estimate"], empty["n"], empty["numbers"]) == ("not testable", None, None, {})
