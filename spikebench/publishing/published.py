"""What a page may ask of the published run: means and differences of selected rows, claims, numbers of figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from spikebench import claims
from spikebench.errors import UserError
from spikebench.publishing.values import Estimate, Quantity, quantities

#: Axes in which the rows of one mean agree; each repetition then has one row.
AXES = (
    "dataset", "data_kind", "data_source", "data_settings", "network", "method", "mode", "variant", "settings",
    "fault", "severity", "training_size",
)  # fmt: skip
_DOCUMENTS = ("data_settings", "network", "settings")


@dataclass(frozen=True)
class Published:
    """The published run.

    Attributes:
        rows: the published table.
        figures: folder of the figures' JSON.
        definitions: the entries of ``config/claims.yaml``.
    """

    rows: pd.DataFrame
    figures: Path
    definitions: list[claims.Claim] = field(repr=False)

    @classmethod
    def of(cls, root: Path) -> Published:
        """What lies in ``docs/published`` below ``root``."""
        folder = root / "docs" / "published"
        return cls(pd.read_parquet(folder / "rows.parquet"), folder / "figures", claims.load(root))

    @cached_property
    def verdicts(self) -> list[claims.Verdict]:
        """Every claim put to its test on the published rows, and not on the run's own, which have more digits.

        A claim without a row of its experiment is younger than the run, and left out.
        """
        there = set(self.rows["experiment"])
        return claims.evaluate([c for c in self.definitions if c["test"]["experiment"] in there], self.rows)

    @cached_property
    def scoreboard(self) -> dict[str, dict[str, Any]]:
        """The entries of the scoreboard by id, with the numbers of each test beside its other keys."""
        entries = [verdict.entry() for verdict in self.verdicts]
        return {entry["id"]: quantities(entry["numbers"] | entry) for entry in entries}

    def claim(self, name: str) -> dict[str, Any]:
        """One entry: ``verdict``, ``statement``, ``estimate``, ``low``, ``high``, ``n`` and all that its test gave."""
        if name not in self.scoreboard:
            raise UserError(
                f"claim {name} was not tested on the published rows; there are {', '.join(self.scoreboard)}"
            )
        return self.scoreboard[name]

    def tally(self, verdict: str = "") -> Quantity:
        """How many claims have this verdict; without one, how many there are."""
        return Quantity(sum(verdict in ("", claim["verdict"]) for claim in self.scoreboard.values()))

    def select(self, **axes: Any) -> pd.DataFrame:
        """The finished rows of an ``experiment`` at these values of its axes.

        ``sweep`` names a sweep; a dict stands for a document that holds these settings, in which None means that
        a setting is not given; ``training_size="max"`` takes the largest of what the others leave.
        """
        chosen = self.rows[self.rows["status"] == "ok"]
        for axis, wanted in sorted(axes.items(), key=lambda item: item[1] == "max"):
            if axis == "sweep":
                chosen = chosen[
                    chosen["sweeps"].map(lambda names, sweep=wanted: sweep in names.split(";")).astype(bool)
                ]
            elif axis in _DOCUMENTS and isinstance(wanted, Mapping):
                chosen = chosen[chosen[axis].map(lambda text, part=wanted: _holds(text, part)).astype(bool)]
            else:
                chosen = chosen[chosen[axis] == (chosen[axis].max() if wanted == "max" else wanted)]
        return chosen

    def mean(self, metric: str, /, **axes: Any) -> Estimate:
        """The mean over repetitions of a column, or of a name in a column of documents, ``diagnostics.rate``.

        ``overconfidence`` is by how much confidence exceeds accuracy on average, by the bins of reliability.
        """
        return Estimate.of(self._values(metric, axes))

    def gain(self, metric: str, over: Mapping[str, Any], /, **axes: Any) -> Estimate:
        """The mean difference, in the same repetitions, to the rows in which the axes ``over`` are other ones."""
        both = [self._values(metric, axes), self._values(metric, {**axes, **over})]
        pairs = pd.concat(both, axis=1, join="inner", keys=["treatment", "reference"])
        if pairs.empty:
            raise UserError(f"no repetition has {metric} both at {_listed(axes)} and at {_listed(over)}")
        return Estimate.of(pairs["treatment"] - pairs["reference"])

    def figure(self, name: str, part: str, /, **where: Any) -> dict[str, Any]:
        """The one point of a list of a figure's JSON at which these keys have these values."""
        file = self.figures / f"{name}.json"
        points = json.loads(file.read_text(encoding="utf-8"))["numbers"].get(part, [])
        found = [point for point in points if all(point.get(key) == value for key, value in where.items())]
        if len(found) != 1:
            raise UserError(f"{file.name}: {len(found)} points of {part} at {_listed(where)}; expected one")
        point: dict[str, Any] = quantities(found[0])
        return point

    def _values(self, metric: str, axes: Mapping[str, Any]) -> pd.Series[float]:
        """A metric by repetition."""
        chosen = self.select(**axes)
        for axis in AXES:
            if chosen[axis].nunique() > 1:
                values = ", ".join(sorted(map(str, chosen[axis].unique()))[:3])
                raise UserError(f"rows at {_listed(axes)} differ in {axis} ({values} ...); name it")
        column, dot, name = metric.partition(".")
        found = chosen.set_index("repetition")["reliability" if metric == "overconfidence" else column]
        if dot:
            found = found.map(lambda text: json.loads(text).get(name))
        elif metric == "overconfidence":
            found = found.map(_overconfidence)
        measured: pd.Series[float] = found.astype(float).dropna()
        if measured.empty:
            raise UserError(f"no finished row has {metric} at {_listed(axes)}")
        return measured


def _holds(text: str, part: Mapping[str, Any]) -> bool:
    """Whether a JSON document has these settings; None: not this one."""
    document = json.loads(text)
    return all(document.get(name) == value for name, value in part.items())


def _overconfidence(text: str) -> float:
    """Mean confidence less accuracy, from the bins of a row."""
    bins = json.loads(text)
    gaps = [n * (c - a) for n, c, a in zip(bins["count"], bins["confidence"], bins["accuracy"], strict=True) if n]
    return float(sum(gaps) / sum(bins["count"]))


def _listed(axes: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in axes.items())
