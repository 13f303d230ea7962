"""The figures of PSG and PDA, and the tests of their candidates: expected values are those of ``synthetic_psg``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
import synthetic_psg
from numpy.testing import assert_allclose
from spide_drawn import HALF, point

from spikebench import figures, potentials
from spikebench.figures import pda_criteria, psg_criteria
from spikebench.figures.arms import LEAD
from spikebench.figures.psg_criteria import FAILS, PASSES, UNDECIDED, UNTESTED, decided
from spikebench.figures.psg_rows import DIVERGENCES
from spikebench.figures.tables import at

Draw = Callable[..., dict[str, Any]]
Gallery = tuple[Path, dict[str, dict[str, Any]]]
NAMES = [name for name in figures.NAMES if name.startswith(("psg-", "pda-"))]
WITHOUT = ("starts-by-candidate", "cifar10")


@pytest.fixture(scope="module")
def own(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["experiment"] == "psg_pda"]


@pytest.fixture(scope="module")
def traces(own: pd.DataFrame) -> pd.DataFrame:
    return synthetic.traces(own.assign(method="psg_pda"))


def changed(own: pd.DataFrame, variant: str, sweep: str, by: float, **where: object) -> pd.DataFrame:
    """Some cells' accuracy moved."""
    there = own["sweeps"].str.contains(sweep) & (own["variant"] == variant)
    for name, value in where.items():
        there &= own["settings"].str.contains(f'"{name}":{json.dumps(value)}', regex=False)
    return own.assign(accuracy=own["accuracy"] + by * there)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_that_it_is_of_a_reconstruction(gallery: Gallery, name: str) -> None:
    document = gallery[1][name]
    assert "reconstructed" in document["title"]
    assert "reconstruction: the paper's text was not read" in document["caption"]


@pytest.mark.parametrize("name", NAMES)
def test_two_repetitions_without_some_sweeps_are_drawn(draw: Draw, name: str) -> None:
    """As in the preset ``default``."""
    table = synthetic.rows(repetitions=2)
    table = table[~table["sweeps"].isin(WITHOUT)]
    holes = (table["experiment"] == "psg_pda") & (table["repetition"] == 1) & (np.arange(len(table)) % 5 == 0)
    assert draw(name, synthetic.fail(table, holes))["n"] == 2


def test_variants_have_looks_of_their_own() -> None:
    looks = [style for arm, style in LEAD.items() if (arm.method, arm.mode) == ("psg_pda", "off-chip")]
    assert len({style.colour for style in looks}) == len(looks) == 6


def test_an_interval_decides() -> None:
    one = {"low": 0.1, "high": 0.2, "n": 3}
    assert decided(one, high=0.25) == decided(one, low=0.0) == PASSES
    assert decided(one, high=0.1) == decided(one, low=0.25) == FAILS
    assert decided(one, high=0.15) == UNDECIDED
    assert decided(one | {"n": 2}, high=0.25) == UNDECIDED
    assert decided(one | {"n": 0}, high=0.25) == UNTESTED
    assert decided({"low": 0.0, "high": 0.0, "n": 3}, low=0.0) == FAILS, "no gain is none"


def test_starts_are_forgotten_or_kept(own: pd.DataFrame, gallery: Gallery) -> None:
    found = {name: psg_criteria.independence(own, f"P1, rate {name}×") for name in (1, 10, 100)}
    assert [found[name].verdict for name in (1, 10, 100)] == [PASSES, FAILS, UNTESTED]
    assert (found[1].number, found[10].number) == (pytest.approx(0.1), pytest.approx(0.5))
    assert psg_criteria.independence(own, "P2").number == pytest.approx(0.95)
    assert psg_criteria.independence(own, "P3").verdict == UNTESTED, "it has no start"
    caption = gallery[1]["psg-starts"]["caption"]
    assert "P1, rate 1× 0.10 [0.10, 0.10] (passes), P1, rate 10× 0.50 [0.50, 0.50] (fails)" in caption
    assert "Begun once, at k = 1, end at k: P3, layer 1, 8 [8, 8]" in caption


def test_a_spread_needs_all_starts(own: pd.DataFrame) -> None:
    one = (own["sweeps"] == "starts") & (own["repetition"] == 0) & own["settings"].str.contains('"sharpness":8.0')
    assert one.sum() == 1
    assert set(at(psg_criteria.spreads(own[~one]), candidate="P1, rate 1×")["repetition"]) == {1, 2}


def test_the_best_of_the_grid(own: pd.DataFrame, gallery: Gallery) -> None:
    best, found = psg_criteria.against_grid(own)
    usual = at(found, candidate="P1, rate 1×")
    assert best == 1.0
    assert set(usual["start"]) == {1.0}
    # Layers at -0.5, 0, 0.5 and 0.1 x aside; accuracy 0.01 above, of twice the spread.
    assert_allclose(sorted(usual["distance"]), [-0.1, 0.0, 0.1], atol=1e-9)
    assert_allclose(sorted(usual["difference"]), [0.0, 0.01, 0.02], atol=1e-9)
    assert set(at(found, candidate="P1, rate 10×")["start"]) == {2.0}, "the nearest to 1"
    assert psg_criteria.optimality(own, "P1, rate 1×").verdict == UNDECIDED
    better = changed(own, "psg", "starts", 0.05)
    assert psg_criteria.optimality(better, "P1, rate 1×").verdict == PASSES
    assert psg_criteria.optimality(better, "P3").verdict == FAILS, "a factor of 8 away"
    assert psg_criteria.optimality(changed(own, "psg", "starts", -0.1), "P1, rate 1×").verdict == FAILS
    caption = gallery[1]["psg-grid"]["caption"]
    assert "the best is k = 1" in caption
    assert "+1.0 [-1.5, 3.5] points to the grid's best" in caption


def test_agreement_with_the_look_ahead(own: pd.DataFrame, traces: pd.DataFrame) -> None:
    result = psg_criteria.looking_ahead(own, traces)
    assert (result.verdict, result.number) == (UNDECIDED, pytest.approx(2 / 3))
    always = traces.assign(value=traces["value"].where(traces["name"] != "look_ahead", 1.0))
    never = traces.assign(value=traces["value"].where(traces["name"] != "look_ahead", 0.5))
    assert psg_criteria.looking_ahead(own, always).verdict == PASSES
    assert psg_criteria.looking_ahead(own, never).verdict == FAILS
    assert psg_criteria.looking_ahead(own, traces.iloc[:0]).verdict == UNTESTED


def test_families_matter_less(own: pd.DataFrame, gallery: Gallery) -> None:
    spreads = {p["variant"]: p for p in gallery[1]["psg-families"]["numbers"]["spreads"]}
    assert (spreads["fixed"]["mean"], spreads["psg"]["mean"]) == (pytest.approx(0.06), pytest.approx(0.03))
    result = psg_criteria.calibration(own)
    assert (result.verdict, result.number) == (PASSES, pytest.approx(-0.03))
    worse = changed(own, "psg", "families", -0.2, family="arctan")
    assert psg_criteria.calibration(worse).verdict == FAILS


def test_psg_beside_thresholds(own: pd.DataFrame, gallery: Gallery) -> None:
    result = psg_criteria.beyond_thresholds(own)
    assert (result.verdict, result.number) == (PASSES, pytest.approx(0.025))
    assert psg_criteria.beyond_thresholds(changed(own, "ltmd+psg", "thresholds", -0.1)).verdict == FAILS
    apart = point(gallery[1]["psg-thresholds"], "differences", added="psg", to="fixed")
    assert (apart["mean"], apart["high"]) == (pytest.approx(0.01), pytest.approx(0.01 + 0.01 * HALF))


def test_shifts_raise_a_divergence(own: pd.DataFrame, gallery: Gallery) -> None:
    found = {name: pda_criteria.injection(own, name) for name in DIVERGENCES}
    assert [found[name].verdict for name in DIVERGENCES] == [PASSES, PASSES, PASSES, FAILS]
    assert found["a-gauss"].words == "12 of 12 shifts raise it"
    offset = point(gallery[1]["pda-injection"], divergence="a-gauss", kind="offset", size=1.0)
    assert offset["mean"] == pytest.approx(np.mean(np.log2([2.8, 3.0, 3.2])))
    assert (synthetic_psg.OFFSETS, synthetic_psg.SCALES) == (potentials.OFFSETS, potentials.SCALES)


def test_divergences_drift(own: pd.DataFrame, traces: pd.DataFrame, gallery: Gallery) -> None:
    found = {name: pda_criteria.drift(own, traces, name) for name in DIVERGENCES}
    assert [found[name].verdict for name in DIVERGENCES] == [PASSES, FAILS, FAILS, PASSES]
    assert_allclose([found[name].number for name in DIVERGENCES], [1.0, 0.0, -1.0, 0.5], atol=1e-9)
    assert {p["layer"] for p in gallery[1]["pda-drift"]["numbers"]["points"] if p["divergence"] == "c"} == {2, 3}
    deeper = traces.assign(value=traces["value"] * np.where(traces["name"] == "shift-a-bern", 1 + traces["chain"], 1))
    assert pda_criteria.drift(own, deeper, "a-bern").verdict == PASSES, "with depth"
    assert pda_criteria.drift(own, traces[traces["step"] == 1], "a-bern").verdict == UNTESTED


def test_what_training_on_a_divergence_does(own: pd.DataFrame, gallery: Gallery) -> None:
    found = {name: pda_criteria.causality(own, name) for name in DIVERGENCES}
    assert [found[name].verdict for name in DIVERGENCES] == [PASSES, FAILS, UNDECIDED, FAILS]
    assert found["a-gauss"].words == "D -3 (yes), error -0.2 (yes), +3.0 to control (yes)"
    assert (
        pda_criteria.causality(changed(own, "pda", "divergences", 0.1, rate_matched=True), "a-gauss").verdict == FAILS
    )
    document = gallery[1]["pda-divergences"]
    shift = point(document, arm="a-gauss", metric="shift_decades")
    assert (shift["mean"], shift["high"]) == (pytest.approx(2.0), pytest.approx(2.0 + 0.2 * HALF))
    assert point(document, arm="ratio 0.1", metric="accuracy")["words"] == "A-gauss, ratio 0.1"


def test_the_ablation_is_paired_at_one_t(gallery: Gallery) -> None:
    document = gallery[1]["psg-time-steps"]
    both = point(document, "differences", dataset="mnist-dvs-sim", steps=2, training_size=2000, arm="PSG+PDA")
    assert (both["mean"], both["high"]) == (pytest.approx(0.03), pytest.approx(0.03 + 0.01 * HALF))
    assert "cifar10-subset-4000: T = 4, fixed 80.0% [77.5, 82.5], PSG +1.0 [-1.5, 3.5]" in document["caption"]


def test_sharpness_over_training(gallery: Gallery) -> None:
    end = point(gallery[1]["psg-trajectories"], "ends", layer=3, sharpness=8.0)
    assert end["mean"] == pytest.approx(0.8 + (3 - 0.8) * 2**-10)


def test_potentials_above_the_threshold(gallery: Gallery) -> None:
    above = {p["curve"]: p["mean"] for p in gallery[1]["pda-potentials"]["numbers"]["above"] if p["layer"] == 2}
    at_bins = np.linspace(-4, 6, 41)[:-1] + 0.125
    shares = np.exp(-0.5 * (at_bins / 2) ** 2)
    assert above["trained with a fixed surrogate"] == pytest.approx(shares[20:].sum() / shares.sum(), abs=2e-3)
    assert above["before training"] > above["trained with a fixed surrogate"] > above["trained with PDA (A-gauss)"]


def test_verdicts_of_all_candidates(gallery: Gallery, draw: Draw) -> None:
    cells = {(c["candidate"], c["test"][0]): c["verdict"] for c in gallery[1]["psg-tests"]["numbers"]["cells"]}
    assert len(cells) == 5 * 5 + 4 * 3
    assert cells["P1, rate 1×", "1"] == cells["a-gauss", "8"] == PASSES
    assert cells["P2", "3"] == cells["P3", "1"] == UNTESTED
    few = draw("psg-tests", synthetic.rows(repetitions=2))["numbers"]["cells"]
    assert {cell["verdict"] for cell in few} == {UNDECIDED, UNTESTED}
