"""The scoreboard: each claim of ``config/claims.yaml`` put to its one primary test on the gathered rows.

Differences are improvements, positive when the treatment is better, whether the metric is to be high or low, and in the
unit of the published value. Rows are paired by repetition, in which all arms meet the same split and the same chip.
The first rule that holds gives the verdict. For both kinds of test:

- *not testable*: rows are missing or ambiguous, or the floor is not reached, so that the test would mean nothing.

``paired-difference``, with the verdict of ``statistics.paired_difference`` at 5 %:

- *undecided*: that is undecided, which it always is below 6 pairs;
- *not reproduced*: it is equivalent or worse;
- *reproduced*: it is better, and the published value lies in the 95 % prediction interval of one run or within the
  tolerance written in the claim;
- *consistent*: it is better, by another size, or the published size is unknown.

``bound``, with the 95 % interval of the treatment's mean, or of its gain over a reference where there is one:

- *undecided*: fewer than 6 repetitions, or the interval holds the bound;
- *consistent*: the whole interval is on the side of the bound that is claimed;
- *not reproduced*: it is on the other side.

``spread``, with the 95 % interval of the standard deviation of the arms' values over that of where they started, by the
rules of ``bound``.

``size-ratio``, with the 95 % interval [low, high] of ``statistics.size_ratio`` and the published value as a lower bound
(where it is unknown, nothing is *reproduced*, and 1 stands in its place in *not reproduced*):

- *not testable*: neither arm reaches the target on average, so that there is no ratio;
- *undecided*: fewer than 6 repetitions;
- *reproduced*: low is at least the published value;
- *consistent*: low is above 1, so that less data is needed (all but a few resamples reached the target with it);
- *not reproduced*: low is at most 1, which shows no advantage, and high at most the published value, which is refuted;
- *undecided*: else, as the interval holds both 1 and more than the published value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from spikebench.config import read_yaml, validate
from spikebench.errors import UserError
from spikebench.paths import replacing
from spikebench.statistics import (
    Interval,
    PairedResult,
    SizeRatio,
    detectable_difference,
    mean_interval,
    paired_difference,
    size_ratio,
)

#: One entry of ``config/claims.yaml``, as its schema describes it.
Claim = Mapping[str, Any]
Outcome = Literal["reproduced", "consistent", "not reproduced", "undecided", "not testable"]

#: Axes in which both arms must agree, unless an arm or a sweep sets them, and axes in which an arm's own rows must.
SHARED = ("dataset", "data_kind", "data_source", "data_settings", "network", "fault", "severity", "training_size")
OWN = ("method", "mode", "variant", "settings")
#: Axes over which a test of this kind runs, beside the repetition.
SWEPT = {"size-ratio": ("training_size",)}

#: Five repetitions can never reach p < 0.05 in a two-sided sign-flip test, so fewer than six decide nothing.
FEWEST = 6


@dataclass(frozen=True)
class Verdict:
    """One line of the scoreboard: the verdict on a claim, what was measured, and the conclusion from it, both in words.

    ``numbers`` (in the published unit) holds estimate, low, high, n and all that the test gave; empty without rows.
    """

    claim: Claim
    verdict: Outcome
    conclusion: str
    measured: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def primary_test(self) -> str:
        """What is compared, and where, for people."""
        test = self.claim["test"]
        aim = test["metric"]
        if "target" in test:
            aim = f"the training size that reaches {test['target']:g} {test['metric']}"
        elif "starts" in test:
            aim = f"the spread of {test['metric']} over that at the start, which is to be at most {test['bound']:g}"
        elif "bound" in test:
            side = "least" if test["better"] == "higher" else "most"
            aim = f"{'the gain' if 'reference' in test else test['metric']}, which is to be at {side} {test['bound']:g}"
            aim = f"{aim}, in {test['metric']}" if "reference" in test else aim
        arms = " against ".join(arm["label"] for arm in _compared(test))
        return f"{test['kind']} in {aim}, {arms}, {test['experiment']} at {_listed(test['select'])}"

    @property
    def explanation(self) -> str:
        """One sentence with the numbers, the conclusion, the published figure and the primary test."""
        told = ", ".join(part for part in (self.measured, self.conclusion) if part)
        said = "published: {text} ({source})".format(**self.claim["published"])
        of_what = " by a reconstruction of the method" if self.claim.get("reconstruction") else ""
        return f"{self.verdict.capitalize()}{of_what}: {told}; {said}; primary test: {self.primary_test}."

    def entry(self) -> dict[str, Any]:
        """The entry of the scoreboard file; None stands for what is undefined or without bound."""
        numbers = {name: _json_number(value) for name, value in self.numbers.items()}
        return {
            **self.claim,
            "verdict": self.verdict,
            "explanation": self.explanation,
            "primary_test": self.primary_test,
            "unit": self.claim["published"]["unit"],
            **{name: numbers.get(name) for name in ("estimate", "low", "high", "margin", "n")},
            "numbers": numbers,
        }


class _Untestable(Exception):
    """Why these rows cannot decide the claim."""


def load(root: Path) -> list[Claim]:
    """The claims of ``config/claims.yaml`` below ``root``.

    Raises:
        UserError: the file breaks its schema, or an id is given twice.
    """
    file = "config/claims.yaml"
    document = read_yaml(root / file, root)
    validate(document, "claims", file)
    claims: list[Claim] = document["claims"]
    ids = [claim["id"] for claim in claims]
    if repeated := [i for i in ids if ids.count(i) > 1]:
        raise UserError(f"{file}: claims: the id {repeated[0]} is given twice; every claim needs its own")
    return claims


def evaluate(claims: Iterable[Claim], rows: pd.DataFrame) -> list[Verdict]:
    """Put every claim to its test on ``rows``, the gathered table of one preset."""
    return [_evaluate(claim, rows) for claim in claims]


def cells(claim: Claim, rows: pd.DataFrame) -> list[str]:
    """The ids of the cells that the primary test of a claim compares, of every status.

    Not those of its floor alone; none where rows of an arm are missing or ambiguous, as there is no test then.
    """
    try:
        return [cell for arm in _arms(claim["test"], rows) for cell in arm["cell"]]
    except _Untestable:
        return []


def write(verdicts: Iterable[Verdict], path: Path) -> None:
    """Write the scoreboard, a JSON list with one entry a claim."""
    text = json.dumps([verdict.entry() for verdict in verdicts], indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _evaluate(claim: Claim, rows: pd.DataFrame) -> Verdict:
    verdict = Verdict(claim, "not testable", "")
    test = {"paired-difference": _paired_difference, "bound": _bound, "spread": _spread, "size-ratio": _size_ratio}[
        claim["test"]["kind"]
    ]
    rows = _with_diagnostics(rows, {claim["test"]["metric"], claim["floor"]["metric"]})
    try:
        verdict = test(claim, rows)
        _check_floor(claim, rows)
    except _Untestable as reason:
        return replace(verdict, verdict="not testable", conclusion=str(reason))
    return verdict


def _paired_difference(claim: Claim, rows: pd.DataFrame) -> Verdict:
    test, published = claim["test"], claim["published"]
    metric, unit, scale = test["metric"], published["unit"], 100 if published["unit"] == "points" else 1
    arms = [arm.set_index("repetition") for arm in _arms(test, rows)]
    pairs = pd.concat([_usable(arm, metric)[metric] for arm in arms], axis=1, join="inner")
    lost = len(arms[0].index.union(arms[1].index)) - len(pairs)
    if pairs.empty:
        raise _Untestable(f"none of {lost} repetitions has a result of both arms")
    treatment, reference = pairs.to_numpy(dtype=float).T * scale
    result = paired_difference(_sign(test) * treatment, _sign(test) * reference, claim["margin"] * scale)
    measured = (
        f"the gain in {metric} of {test['treatment']['label']} over {test['reference']['label']} is {result.mean:+.3g} "
        f"{unit} ({treatment.mean():.3g} against {reference.mean():.3g} at {arms[0]['training_size'].iloc[0]} training "
        f"samples, n = {result.n} pairs{_without(lost)}, 95% interval {_range(result.low, result.high)}, margin "
        f"{result.margin:.3g})"
    )
    numbers = asdict(result) | {
        "estimate": result.mean,
        "treatment_mean": float(treatment.mean()),
        "reference_mean": float(reference.mean()),
        "detectable_difference": detectable_difference(result.sd, result.n),
        "lost": lost,
    }
    return Verdict(claim, *_judge_difference(result, published, _remedy(rows)), measured, numbers)


def _bound(claim: Claim, rows: pd.DataFrame) -> Verdict:
    test, metric = claim["test"], claim["test"]["metric"]
    unit, scale = claim["published"]["unit"], 100 if claim["published"]["unit"] == "points" else 1
    arms = [arm.set_index("repetition") for arm in _arms(test, rows)]
    columns = pd.concat([_usable(arm, metric)[metric] for arm in arms], axis=1, join="inner")
    if columns.empty:
        raise _Untestable("no repetition has a result of every arm")
    lost = len(set().union(*(arm.index for arm in arms))) - len(columns)
    values = columns.to_numpy(dtype=float) * scale
    found = values[:, 0] if len(arms) == 1 else _sign(test) * (values[:, 0] - values[:, 1])
    result, limit = mean_interval(found), test["bound"] * scale
    label, what = test["treatment"]["label"], f"{metric} of {test['treatment']['label']} is"
    if len(arms) > 1:
        what = f"the gain in {metric} of {label} over {test['reference']['label']} is"
    means = " against ".join(f"{mean:.3g}" for mean in values.mean(axis=0))
    measured = (
        f"{what} {result.mean:.3g} {unit} ({means} at {arms[0]['training_size'].iloc[0]} training samples, "
        f"n = {result.n}{_without(lost)}, 95% interval {_range(result.low, result.high)})"
    )
    numbers = asdict(result) | {"estimate": result.mean, "bound": limit, "lost": lost}
    # A gain is to be large, whichever values of the metric are the better ones.
    upwards = len(arms) > 1 or test["better"] == "higher"
    return Verdict(claim, *_judge_bound(result, limit, upwards, _remedy(rows)), measured, numbers)


def _spread(claim: Claim, rows: pd.DataFrame) -> Verdict:
    test, metric = claim["test"], claim["test"]["metric"]
    arms = [arm.set_index("repetition") for arm in _arms(test, rows)]
    columns = pd.concat([_usable(arm, metric)[metric] for arm in arms], axis=1, join="inner")
    if columns.empty:
        raise _Untestable("no repetition has a result of every arm")
    lost = len(set().union(*(arm.index for arm in arms))) - len(columns)
    values, start = columns.to_numpy(dtype=float), pd.Series(test["starts"], dtype=float).std()
    result = mean_interval(values.std(axis=1, ddof=1) / start)
    ends = ", ".join(f"{mean:.3g} from {at:g}" for mean, at in zip(values.mean(axis=0), test["starts"], strict=True))
    measured = (
        f"the spread of {metric} over that at the start is {result.mean:.3g} ({ends}; at "
        f"{arms[0]['training_size'].iloc[0]} training samples, n = {result.n}{_without(lost)}, 95% interval "
        f"{_range(result.low, result.high)})"
    )
    numbers = asdict(result) | {"estimate": result.mean, "bound": test["bound"], "lost": lost}
    return Verdict(claim, *_judge_bound(result, test["bound"], False, _remedy(rows)), measured, numbers)


def _judge_bound(result: Interval, limit: float, upwards: bool, remedy: str) -> tuple[Outcome, str]:
    """Verdict and conclusion of a bound, by the rules at the top of this file."""
    if result.n < FEWEST:
        return "undecided", f"and fewer than {FEWEST} repetitions decide nothing: {remedy}"
    side, above, below = ("least" if upwards else "most"), result.low >= limit, result.high <= limit
    if above if upwards else below:
        return "consistent", f"and the whole interval is at {side} {limit:g}"
    if below if upwards else above:
        return "not reproduced", f"and no part of the interval is at {side} {limit:g}"
    return "undecided", f"and the interval holds {limit:g}: {remedy}"


def _with_diagnostics(rows: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """The rows with a column for each metric that is a number of their diagnostics, ``diagnostics.<name>``."""
    for metric in metrics:
        _, dot, name = metric.partition(".")
        if dot:
            documents = rows["diagnostics"].map(json.loads)
            rows = rows.assign(**{metric: [float(found.get(name, math.nan)) for found in documents]})
    return rows


def _judge_difference(result: PairedResult, published: Mapping[str, Any], remedy: str) -> tuple[Outcome, str]:
    """Verdict and conclusion of a paired difference, by the rules at the top of this file."""
    value, test = published["value"], f"paired t p = {result.p_two_sided:.2g}"
    if result.n < FEWEST:
        return "undecided", f"and so few pairs can at best reach p = {result.attainable:.2g}: {remedy}"
    if result.verdict == "undecided":
        needed = f"{detectable_difference(result.sd, result.n):.3g} {published['unit']}"
        return "undecided", f"and only {needed} would be found four times in five ({test}): {remedy}"
    if result.verdict == "equivalent":
        return "not reproduced", f"which is equivalent within the margin (TOST p = {result.tost_p:.2g})"
    if result.verdict == "worse":
        return "not reproduced", f"which is worse ({test})"
    if value == "unknown":
        return "consistent", f"which is better ({test}), and by how much it should be is unknown"
    prediction = f"the 95% prediction interval of one run, {_range(result.prediction_low, result.prediction_high)}"
    if result.prediction_low <= value <= result.prediction_high:
        return "reproduced", f"which is better ({test}), and the published {value:g} lies in {prediction}"
    if abs(result.mean - value) <= published.get("tolerance", 0):
        return (
            "reproduced",
            f"which is better ({test}), and within {published['tolerance']:g} of the published {value:g}",
        )
    return "consistent", f"which is better ({test}), but the published {value:g} lies outside {prediction}"


def _size_ratio(claim: Claim, rows: pd.DataFrame) -> Verdict:
    test, metric = claim["test"], claim["test"]["metric"]
    arms = _arms(test, rows)
    sizes = sorted({int(size) for arm in arms for size in arm["training_size"]})
    tables = [_usable(arm, metric).pivot(index="repetition", columns="training_size", values=metric) for arm in arms]
    complete = pd.concat([table.reindex(columns=sizes) for table in tables], axis=1).dropna()
    lost = len({*arms[0]["repetition"], *arms[1]["repetition"]}) - len(complete)
    if complete.empty:
        raise _Untestable(f"none of {lost} repetitions has a result of both arms at all training sizes {sizes}")
    values = _sign(test) * complete.to_numpy(dtype=float)
    treatment, reference = values[:, : len(sizes)], values[:, len(sizes) :]
    result = size_ratio(reference, treatment, sizes, _sign(test) * test["target"], seed=0)
    got_treatment, got_reference = result.size_treatment is not None, result.size_reference is not None
    bound = "" if got_treatment == got_reference else "at least " if got_treatment else "at most "
    narrow = ", too narrow below ten repetitions" if result.n < 10 else ""
    measured = (
        f"on average {metric} {test['target']:g} is reached by {test['treatment']['label']} "
        f"{_at(result.size_treatment, sizes)} and by {test['reference']['label']} {_at(result.size_reference, sizes)} "
        f"training samples, ratio {bound}{_number(result.ratio)} (n = {result.n} repetitions{_without(lost)}, "
        f"95% interval {_range(result.low, result.high)}{narrow}, "
        f"reached in {result.fraction_treatment:.0%} and {result.fraction_reference:.0%} of the resamples)"
    )
    numbers = asdict(result) | {"estimate": result.ratio, "target": test["target"], "lost": lost}
    return Verdict(claim, *_judge_ratio(result, claim["published"]["value"], _remedy(rows)), measured, numbers)


def _judge_ratio(result: SizeRatio, published: float | Literal["unknown"], remedy: str) -> tuple[Outcome, str]:
    """Verdict and conclusion of a size ratio, by the rules at the top of this file."""
    if result.size_reference is None and result.size_treatment is None:
        return "not testable", "and where neither arm reaches the target there is no ratio"
    if result.n < FEWEST:
        return "undecided", f"and fewer than {FEWEST} repetitions decide nothing: {remedy}"
    if published != "unknown" and result.low >= published:
        return "reproduced", f"and the whole interval is at least the published {published:g}"
    if result.low > 1:
        return "consistent", f"and the interval shows that less data is needed, the published ratio being {published}"
    claimed = 1.0 if published == "unknown" else published
    if result.high <= claimed:
        return "not reproduced", f"and the interval shows no advantage and nothing above {claimed:g}"
    return "undecided", f"and the interval holds both no advantage and more than {claimed:g}: {remedy}"


def _check_floor(claim: Claim, rows: pd.DataFrame) -> None:
    floor, test = claim["floor"], claim["test"]
    chosen = _selected(rows, test["experiment"], floor["arm"], {**test["select"], **floor["select"]})
    values = _usable(chosen, floor["metric"])[floor["metric"]]
    if values.empty or values.mean() < floor["minimum"] - 1e-12:  # a mean of k/n may round to a hair below
        raise _Untestable(
            f"but the floor is not reached: {floor['metric']} of {floor['arm']['label']} at {_listed(floor['select'])} "
            f"is {_number(values.mean())} on average (n = {len(values)}), and {floor['minimum']:g} is asked"
        )


def _arms(test: Mapping[str, Any], rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of the arms that are compared, of every status."""
    compared, swept = _compared(test), SWEPT.get(test["kind"], ())
    arms = [_selected(rows, test["experiment"], arm, test["select"], swept) for arm in compared]
    for axis in SHARED:
        free = axis in swept or any(axis in arm["axes"] for arm in compared)
        found = [arm[axis].iloc[0] for arm in arms]
        if not free and len(set(found)) > 1:
            raise _Untestable(
                f"the arms differ in {axis} ({found[0]} against {found[1]}); name it in the claim's select"
            )
    return arms


def _compared(test: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Treatment and reference, where there is one, or the arms of a spread."""
    return test.get("arms") or [test[role] for role in ("treatment", "reference") if role in test]


def _selected(
    rows: pd.DataFrame, experiment: str, arm: Mapping[str, Any], select: Mapping[str, Any], swept: tuple[str, ...] = ()
) -> pd.DataFrame:
    """The rows of one arm, of every status, at one value of every axis but the repetition and the ``swept``."""
    wanted = {**select, **arm["axes"]}
    chosen = rows[rows["experiment"] == experiment]
    for axis in sorted(wanted, key=lambda axis: wanted[axis] == "max"):  # last, the largest of what the others leave
        chosen = chosen[chosen[axis] == (chosen[axis].max() if wanted[axis] == "max" else wanted[axis])]
    if chosen.empty:
        raise _Untestable(f"there are no rows of {arm['label']} at {_listed(wanted)}")
    for axis in (*SHARED, *OWN):
        if axis not in swept and chosen[axis].nunique() > 1:
            raise _Untestable(f"the rows of {arm['label']} differ in {axis}; name it in the claim's select")
    return chosen


def _usable(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[(rows["status"] == "ok") & rows[metric].notna()]


def _sign(test: Mapping[str, Any]) -> int:
    """What makes high values of the metric the better ones."""
    return 1 if test["better"] == "higher" else -1


def _remedy(rows: pd.DataFrame) -> str:
    """What would decide an undecided claim."""
    large = rows["preset"].isin(["full", "paper"]).any()
    return "more repetitions are needed than this preset has" if large else "run `make full`"


def _listed(axes: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in axes.items())


def _number(value: float) -> str:
    return "no bound" if math.isinf(value) else "undefined" if math.isnan(value) else f"{value:.3g}"


def _range(low: float, high: float) -> str:
    return "undefined" if math.isnan(low) else f"{_number(low)} to {_number(high)}"


def _at(size: int | None, sizes: list[int]) -> str:
    return f"at none of {sizes}" if size is None else f"at {size}"


def _without(lost: int) -> str:
    return f", {lost} more lack a result" if lost else ""


def _json_number(value: Any) -> Any:
    """None for a float that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
