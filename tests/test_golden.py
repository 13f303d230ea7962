"""A few cells whose numbers are known: rows are only stale when ``RESULTS_VERSION`` says so, so it must be raised
whenever a change of the engine moves numbers.

Where a change is meant to move them: raise ``spikebench.RESULTS_VERSION``, run ``python tests/test_golden.py``, which
writes ``tests/golden.json`` anew, and look at its difference in git. Averages over repetitions are compared within a
tolerance, because a sum that is rounded otherwise on another processor moves single cells.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spikebench import RESULTS_VERSION, training
from spikebench.sweep import Cell

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("golden.json")
REPETITIONS = 8
FAULT = {"threshold": 1.0, "time_constant": 1.0, "gain_mismatch": 1.0, "offset": 0.1, "compression": 2.0}
ARMS = {
    "metropolis_hastings in-the-loop": {"iterations": 1200, "samples": 20},
    "backprop in-the-loop": {"steps": 40},
    "backprop off-chip": {"steps": 40},
    "backprop oracle": {"steps": 40},
}
#: How far an average may be off: absolute for accuracy, relative for the rest.
ACCURACY, RELATIVE = 0.02, 0.1
ADVICE = (
    "raise spikebench.RESULTS_VERSION: the numbers have moved, and without it old rows would pass for fresh ones; "
    "then run `python tests/test_golden.py` (if they were not meant to move, there is a bug)"
)

Numbers = dict[str, dict[str, float]]


def measure() -> Numbers:
    """For each arm and severity: averages over the repetitions."""
    numbers: Numbers = {}
    for arm, settings in ARMS.items():
        method, mode = arm.split()
        cells = [
            Cell(
                experiment="golden",
                dataset="breast_cancer",
                data_kind="real",
                data_settings="{}",
                network='{"hidden":[8]}',
                method=method,
                mode=mode,
                variant="",
                settings="{}",
                fault="golden",
                severity=severity,
                training_size=40,
                repetition=repetition,
                preset="golden",
            )
            for severity in (0.0, 0.5)
            for repetition in range(REPETITIONS)
        ]
        rows = training.train(training.Work(cells, settings, {cells[0].fault: FAULT}, ROOT))
        for severity in (0.0, 0.5):
            mine = [row for cell, row in zip(cells, rows, strict=True) if cell.severity == severity]
            assert {row["status"] for row in mine} == {"ok"}
            columns = ("accuracy", "nll", "spikes", "synaptic_operations", "chip_presentations", "gradient_steps")
            averages = {column: float(np.mean([row[column] for row in mine])) for column in columns}
            numbers[f"{arm} severity {severity}"] = {name: round(value, 4) for name, value in averages.items()}
    return numbers


def compare(found: Numbers, golden: Numbers) -> list[str]:
    """What differs by more than the tolerances, in words."""
    assert found.keys() == golden.keys()
    moved = []
    for arm, expected in golden.items():
        for column, value in expected.items():
            match column:
                case "accuracy":
                    near = abs(found[arm][column] - value) <= ACCURACY
                case "chip_presentations" | "gradient_steps":
                    near = found[arm][column] == value
                case _:
                    near = abs(found[arm][column] - value) <= RELATIVE * abs(value)
            if not near:
                moved.append(f"{arm}: {column}: found {found[arm][column]}, golden {value}")
    return moved


def test_numbers_move_only_with_the_version() -> None:
    golden = json.loads(FILE.read_text())
    assert golden["version"] == RESULTS_VERSION, "the version was raised: run `python tests/test_golden.py`"
    moved = compare(measure(), golden["numbers"])
    assert not moved, "\n".join([ADVICE, *moved])


def test_the_golden_cells_learn() -> None:
    """Numbers of guessing networks would hide most mistakes."""
    numbers = json.loads(FILE.read_text())["numbers"]
    assert len(numbers) == 2 * len(ARMS)
    assert all(n["accuracy"] > 0.75 for arm, n in numbers.items() if arm.endswith("0.0"))


@pytest.mark.parametrize(
    ("column", "change"), [("accuracy", 0.03), ("nll", 0.2), ("spikes", 5.0), ("gradient_steps", 1.0)]
)
def test_the_comparison_notices(column: str, change: float) -> None:
    golden = json.loads(FILE.read_text())["numbers"]
    assert compare(golden, golden) == []
    arm = "backprop in-the-loop severity 0.5"
    moved = {**golden, arm: {**golden[arm], column: golden[arm][column] + change}}
    assert compare(moved, golden) == [f"{arm}: {column}: found {moved[arm][column]}, golden {golden[arm][column]}"]


if __name__ == "__main__":
    FILE.write_text(json.dumps({"version": RESULTS_VERSION, "numbers": measure()}, indent=1) + "\n")
