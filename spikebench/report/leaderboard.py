"""Who ranks where and at what price: in the comparison of all methods by data set and fault family, then elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from spikebench.comparison import EXPERIMENT, break_points, compared, planned, ranks, shared_families
from spikebench.figures.arms import styles, with_arms
from spikebench.figures.tables import at, faults, finished, hardest, pick, summary
from spikebench.report.formats import FILTERS
from spikebench.report.tables import DASH, Entry, Table, amount, share, word

#: What an arm spent on a cell, on average: column to heading.
COSTS = {
    "chip_presentations": "chip presentations",
    "gradient_steps": "gradient steps",
    "seconds": "seconds",
    "peak_memory_mb": "peak MB",
}


def links(rows: pd.DataFrame, folder: str = "methods/") -> dict[str, Entry]:
    """Every arm of the rows in the order of legends, as an entry that leads to its method's page."""
    methods = with_arms(rows[["method", "mode", "variant"]].drop_duplicates()).set_index("arm")["method"]
    return {arm: word(arm, f"{folder}{methods[arm]}.html") for arm in styles(rows)}


def by_dataset(rows: pd.DataFrame, areas: pd.DataFrame) -> list[Table]:
    """A table a data set of the comparison, a line for every arm that was to meet it, the best first.

    Args:
        rows: the gathered table, with the names of data sets that people read.
        areas: theirs (``comparison.areas``).
    """
    plan, done = planned(rows), compared(rows)
    means = areas.groupby(["dataset", "arm", "fault"])["area"].mean().to_dict()
    placed = ranks(rows).set_index(["dataset", "arm"]).to_dict("index")
    sound = at(done, severity=0.0).groupby(["dataset", "arm"])["accuracy"].mean().to_dict()
    costs = done.groupby(["dataset", "arm"])[list(COSTS)].mean().to_dict("index")
    tables = []
    for dataset in sorted(set(plan["dataset"])):
        here = at(plan, dataset=dataset)
        families, shared = faults(here), shared_families(rows, dataset)
        lines = []
        for arm, entry in links(here).items():
            place, spent = placed.get((dataset, arm), {}), costs.get((dataset, arm), {})
            note = FILTERS["interval"](place) + f", n = {place['n']}" if place else ""
            own = [share(means.get((dataset, arm, fault))) for fault in families]
            prices = [amount(spent.get(cost)) for cost in COSTS]
            ranked = [amount(place.get("rank")), share(place.get("area"), note)]
            lines.append([entry, *ranked, *own, share(sound.get((dataset, arm))), *prices])
        lines.sort(key=lambda line: float("inf") if line[1].value is None else float(line[1].value))
        title = f"{dataset}: mean over {', '.join(shared)}" if shared else f"{dataset}: no family that all arms meet"
        heads = ["Arm", "rank", "mean area", *families, "sound chips", *COSTS.values()]
        groups = [("", 1), ("area under the curve over severity", len(families) + 1), ("accuracy", 1)]
        groups.append(("mean of a cell", len(COSTS)))
        tables.append(Table(title, heads, lines, groups=groups, sorted_by=1, anchor=f"board-{dataset}"))
    return tables


def by_fault(rows: pd.DataFrame, areas: pd.DataFrame, margin: float) -> list[Table]:
    """A table a fault family of the comparison, a line for every arm, columns for each data set.

    Args:
        rows: the gathered table, with the names of data sets that people read.
        areas: theirs (``comparison.areas``).
        margin: the loss of accuracy that does not matter, for break points.
    """
    plan, done = planned(rows), compared(rows)
    accuracy = done.groupby(["dataset", "fault", "arm", "severity"])["accuracy"].mean().to_dict()
    means = areas.groupby(["dataset", "fault", "arm"])["area"].mean().to_dict()
    breaks = break_points(rows, margin).set_index(["dataset", "fault", "arm"]).to_dict("index")
    arms, tables = links(plan), []
    for fault in faults(plan):
        here = at(plan, fault=fault)
        met = {name: pick(at(here, dataset=name)["severity"]) for name in sorted(set(here["dataset"]))}
        heads, groups = ["Arm"], []
        for dataset, severities in met.items():
            heads += [*(f"at {severity:g}" for severity in severities), "area", "break point"]
            groups.append((dataset, len(severities) + 2))
        lines = []
        for arm, entry in arms.items():
            line = [entry]
            for dataset, severities in met.items():
                place = (dataset, fault, arm)
                line += [share(accuracy.get((*place, severity))) for severity in severities]
                line += [share(means.get(place)), _break(breaks.get(place))]
            lines.append(line)
        tables.append(Table(fault, heads, lines, groups=groups, anchor=f"family-{fault}"))
    return tables


def _break(found: Mapping[Any, Any] | None) -> Entry:
    """A break point; of two alike, the arm that never broke is the better."""
    if found is None or found["break_point"] != found["break_point"]:
        return DASH
    at_least = "≥ " if found["censored"] else ""
    return Entry(f"{at_least}{found['break_point']:g}", found["break_point"] + 1e-6 * bool(found["censored"]))


def boards(rows: pd.DataFrame) -> list[Table]:
    """A table for each other experiment and data set: strongest faults, all training data, default settings."""
    other = rows[rows["experiment"] != EXPERIMENT]
    plain = with_arms(other[(other["settings"] == "{}") & (other["data_settings"] == "{}")])
    found = []
    for (experiment, dataset), here in plain.groupby(["experiment", "dataset"]):
        main = hardest(at(here, network=here["network"].mode().iloc[0]))  # the ablations' networks have fewer cells
        if not finished(main).empty:
            found.append(_board(f"{experiment}, {dataset}", main))
    return found


def _board(place: str, rows: pd.DataFrame) -> Table:
    """Of one experiment on one data set, the best at the greatest severity first."""
    severities, done = pick(rows["severity"]), finished(rows)
    points = summary(done, ["arm", "severity"], "accuracy").to_dict("records")
    found = {(point["arm"], point["severity"]): point for point in points}
    costs, arms = done.groupby("arm")[list(COSTS)].mean(), links(rows)
    lines = []
    for arm in sorted(costs.index, key=lambda arm: _rank(found.get((arm, severities[-1])))):
        line = [arms[arm]]
        for severity in severities:
            point = found.get((arm, severity))
            note = f"{FILTERS['interval'](point)}, n = {point['n']}" if point else ""
            line.append(share(point["mean"] if point else None, note))
        lines.append(line + [amount(cost) for cost in costs.loc[arm]])
    title = f"{place}: {rows['fault'].iloc[0]}, {rows['training_size'].iloc[0]} training samples"
    return Table(title, ["Arm", *(f"severity {s:g}" for s in severities), *COSTS.values()], lines)


def _rank(point: Mapping[Any, Any] | None) -> float:
    return 1.0 if point is None else -point["mean"]
