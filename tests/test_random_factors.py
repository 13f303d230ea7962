"""What a cell's numbers depend on: off-chip on no other fault, and crossed on split, seed, chip and read alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from project import CHECKOUT

from spikebench import rows, training
from spikebench.sweep import FACTORS, Cell
from spikebench.training import Work

FAULTS = {
    "lost": {"drop": 0.4},
    "gain": {"gain_mismatch": 0.5},
    "noisy": {"gain_mismatch": 0.5, "read_noise": 1.0},
    "programmed": {"programming_noise": 0.5},
}
SETTINGS = {"backprop": {"steps": 15, "learning_rates": (0.05, 0.2)}, "bisnn": {"epochs": 2}}
CROSSED = {"split": 2, "seed": 2, "chip": 2, "read": 2}
#: What tests measure, but for what names the cell's own draws: the null band's labels hang on the cell's id.
MEASURED = [c for c in rows.RESULT if c not in (*rows.AXES, "digest", "ece_null_low", "ece_null_high")]


def cell(method: str = "backprop", mode: str = "off-chip", **axes: Any) -> Cell:
    common = {"experiment": "factors", "dataset": "breast_cancer", "data_kind": "real", "data_settings": "{}"}
    common |= {"network": '{"hidden":[6]}', "settings": "{}", "fault": "gain", "severity": 0.5, "training_size": 40}
    return Cell(**{**common, "method": method, "mode": mode, "variant": "", "repetition": 0, "preset": "test", **axes})


def train(some: list[Cell], root: Path = CHECKOUT) -> list[dict[str, str]]:
    made = training.train(Work(some, SETTINGS[some[0].method], FAULTS, root))
    assert [row["status"] for row in made] == ["ok"] * len(some)
    return [{c: json.dumps(row.get(c)) for c in MEASURED} for row in made]


@pytest.mark.parametrize(("method", "variant"), [("backprop", ""), ("bisnn", "straight-through")])
def test_off_chip_cells_of_all_faults_are_as_they_would_be_alone(method: str, variant: str) -> None:
    """A device that loses spikes is simulated another way; one that does not must not notice its neighbour."""
    points = [(fault, s, r) for fault in FAULTS for s in (0.0, 0.5) for r in (0, 1)]
    some = [cell(method, variant=variant, fault=f, severity=s, repetition=r) for f, s, r in points]
    together = train(some)
    for one, row in zip(some, together, strict=True):
        assert train([one]) == [row]
    assert len({row["nll"] for row in together}) > 8
    sound = [row for (_, severity, _), row in zip(points, together, strict=True) if severity == 0.0]
    assert len({row["accuracy"] for row in sound}) <= 2, "of two repetitions, whatever the family"


def crossed(mode: str, **draw: int) -> Cell:
    place, repetition = 1, 0
    for factor in FACTORS:
        repetition += place * draw.get(factor, 0)
        place *= CROSSED[factor]
    return cell(mode=mode, fault="noisy", crossed=json.dumps(CROSSED), repetition=repetition)


@pytest.mark.parametrize("mode", ["off-chip", "in-the-loop"])
def test_each_factor_changes_what_is_its_own(mode: str) -> None:
    draws = [{}, *({factor: 1} for factor in FACTORS), dict.fromkeys(FACTORS, 1)]
    base, split, seed, chip, read, other = train([crossed(mode, **draw) for draw in draws])
    plain = [train([cell(mode=mode, fault="noisy", repetition=r)])[0] for r in (0, 1)]
    assert [base, other] == plain, "the draws of a repetition are those of the level with its number"
    assert split["split_sha256"] != base["split_sha256"] == seed["split_sha256"] == chip["split_sha256"]
    for changed in (split, seed, chip, read):
        assert changed["nll"] != base["nll"]
    trained = "traces"
    assert read[trained] == base[trained] and seed[trained] != base[trained] != split[trained]
    assert (chip[trained] == base[trained]) == (mode == "off-chip")


def test_a_read_is_no_factor_without_noise() -> None:
    one, other = (crossed("in-the-loop", read=r) for r in (0, 1))
    quiet = [Cell(**{**c.axes, "fault": "gain"}) for c in (one, other)]
    first, second = train(quiet)
    assert first == second
