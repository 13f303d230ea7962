"""The harness on data that stays on disk: the same rows, bit for bit, as on data in memory; and what it hands on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from project import CHECKOUT

from spikebench import evaluation, fitting, metrics, plugins, rows, training
from spikebench.chip import kernels
from spikebench.data import Batch, StoredBatch
from spikebench.errors import Unavailable
from spikebench.seeds import seed
from spikebench.sweep import Cell
from spikebench.training import Work

#: Spikes or currents of three classes, each with lines that are more active; in memory or behind a pool.
TOY = """
from dataclasses import dataclass

import torch

from spikebench.data import DataSettings, Provenance, SpikeData, Split, Stored

KINDS = ("real",)
READS = []  # rows asked for at once
ASKED = []  # settings


@dataclass(frozen=True)
class Settings(DataSettings):
    stored: bool = False
    binary: bool = True
    lines: int = 40
    steps: int = 6
    test: int = 50
    broken: bool = False


class Pool:
    def __init__(self, tensor, broken):
        self.tensor, self.shape, self.broken = tensor, tuple(tensor.shape), broken

    def read(self, rows):
        READS.append(rows.numel())
        if self.broken and len(READS) > 3:
            raise OSError("the disk is gone")
        return self.tensor[rows]


def load(settings):
    ASKED.append(settings)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120 + settings.test) % 3
    x = torch.rand((len(labels), settings.steps, settings.lines), generator=generator)
    active = torch.arange(settings.lines) % 3 == labels[:, None, None]
    x = (x < 0.1 + 0.4 * active).float() if settings.binary else x * (0.3 + 0.7 * active)
    x[..., -1] = 1.0
    order = torch.randperm(120, generator=torch.Generator().manual_seed(settings.split_seed))[: settings.training_size]
    cut = len(order) - len(order) // 5
    parts = {"train": order[:cut], "validation": order[cut:], "test": 120 + torch.arange(settings.test)}
    pool = Pool(x, settings.broken)
    splits = {n: Split(Stored(pool, r) if settings.stored else x[r], labels[r]) for n, r in parts.items()}
    source = Provenance("toy", "real", "a test", "0" * 64, "MIT", "none")
    return SpikeData("classification", classes=("a", "b", "c"), binary_inputs=settings.binary, provenance=source,
                     split_sha256=str(settings.split_seed), **splits)
"""
SETTINGS = {"backprop": {"steps": 12}, "metropolis_hastings": {"iterations": 60, "samples": 5}}
STATIC = {"threshold": 0.3, "gain_mismatch": 0.3, "offset": 0.1}
MADE = [column for column in rows.RESULT if column not in (*rows.AXES, "digest")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(CHECKOUT / "methods", tmp_path / "methods", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "toy.py").write_text(TOY)
    return tmp_path


@pytest.fixture
def toy(root: Path) -> ModuleType:
    return plugins.load("datasets", "toy", root)


def cells(method: str, mode: str, **axes: Any) -> list[Cell]:
    """Two repetitions at two severities."""
    common = {"experiment": "toy", "dataset": "toy", "data_kind": "real", "data_settings": "{}", "variant": ""}
    common |= {"network": '{"hidden":[6]}', "settings": "{}", "fault": "some", "preset": "test", "training_size": 60}
    return [
        Cell(**{**common, "method": method, "mode": mode, "severity": s, "repetition": r, **axes})
        for s in (0.0, 0.5)
        for r in (0, 1)
    ]


def train(root: Path, some: list[Cell], fault: dict[str, float] = STATIC, **data: Any) -> list[dict[str, str]]:
    """What each cell's training made, as texts in which equal bits are equal."""
    made = training.train(Work(some, SETTINGS[some[0].method], {some[0].fault: fault}, root, data))
    assert [row["status"] for row in made] == ["ok"] * len(some)
    return [{c: json.dumps(row.get(c)) for c in MADE} for row in made]


ARMS = [
    ("backprop", "off-chip"),
    ("backprop", "in-the-loop"),
    ("backprop", "oracle"),
    ("metropolis_hastings", "in-the-loop"),
]


class TestStored:
    @pytest.mark.parametrize("binary", [True, False], ids=["spikes", "currents"])
    @pytest.mark.parametrize(("method", "mode"), ARMS)
    def test_the_same_row_whether_inputs_are_in_memory_or_on_disk(
        self, method: str, mode: str, binary: bool, root: Path, toy: ModuleType
    ) -> None:
        some = cells(method, mode)
        dense = train(root, some, binary=binary)
        assert not toy.READS
        assert train(root, some, binary=binary, stored=True) == dense
        assert toy.READS
        assert len({row["nll"] for row in dense}) > 2, "they would be equal too if nothing mattered"

    @pytest.mark.parametrize("fault", [{"read_noise": 1.0}, {"programming_noise": 0.3}, {"drop": 0.3}], ids=str)
    def test_also_where_faults_are_drawn_anew_at_each_use(self, fault: dict[str, float], root: Path) -> None:
        some = cells("backprop", "in-the-loop")
        assert train(root, some, fault) == train(root, some, fault, stored=True)

    def test_also_on_wide_inputs(self, root: Path) -> None:
        some = cells("backprop", "in-the-loop")
        wide = {"lines": kernels.WIDE + 5}
        assert train(root, some, **wide) == train(root, some, stored=True, **wide)

    def test_a_cell_does_not_depend_on_its_company(self, root: Path) -> None:
        """Alone its test set is one split, and its training set another one's neighbour no more."""
        for lines in (40, kernels.WIDE + 5):
            some = cells("backprop", "in-the-loop")
            together = train(root, some, stored=True, lines=lines)
            for number, one in enumerate(some):
                assert train(root, [one], stored=True, lines=lines) == [together[number]]

    @pytest.mark.parametrize("part", [1, 16, 37, 49])
    def test_the_size_of_the_parts_that_are_predicted_does_not_matter(
        self, part: int, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = cells("backprop", "in-the-loop")
        whole = train(root, some)
        monkeypatch.setattr(fitting, "PART", part)
        assert train(root, some, stored=True) == whole

    @pytest.mark.parametrize("stored", [False, True])
    def test_nor_does_it_where_the_network_is_large(
        self, stored: bool, root: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = cells("backprop", "in-the-loop")
        whole = train(root, some)
        kind, shown = StoredBatch if stored else Batch, list[int]()
        at = kind.at

        def noted(batch: Any, rows: torch.Tensor) -> Batch:
            shown.append(len(rows))
            return at(batch, rows)

        monkeypatch.setattr(kind, "at", noted)
        monkeypatch.setattr(fitting, "AT_ONCE", 17 * len(some) * (6 + 3))
        assert train(root, some, stored=stored) == whole
        assert shown[-3:] == [17, 17, 16]

    def test_a_samplers_diagnostics_are_those_of_its_training_in_parts_too(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = cells("metropolis_hastings", "in-the-loop")[:1]
        whole = train(root, some)[0]
        monkeypatch.setattr(fitting, "PART", 16)
        parts = train(root, some, stored=True)[0]
        assert {column for column in MADE if whole[column] != parts[column]} <= {"diagnostics"}
        assert json.loads(parts["diagnostics"].strip('"').replace("\\", "")) == pytest.approx(
            json.loads(whole["diagnostics"].strip('"').replace("\\", "")), rel=1e-6
        )

    def test_it_is_read_in_minibatches_and_parts_never_whole(
        self, root: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fitting, "PART", 20)
        monkeypatch.setitem(SETTINGS, "backprop", {"steps": 12, "minibatch": 8})
        train(root, cells("backprop", "in-the-loop"), stored=True)
        # Four cells with three candidates of the learning rate; the held-out twelve of two splits; the last training;
        # the fifty tests, which are the same for all cells.
        assert toy.READS == [4 * 3 * 8] * 12 + [2 * 12] + [4 * 8] * 12 + [20, 20, 10]

    def test_what_goes_wrong_with_the_disk_is_heard(self, root: Path) -> None:
        work = Work(
            cells("backprop", "in-the-loop"),
            {"steps": 12},
            {cells("backprop", "in-the-loop")[0].fault: STATIC},
            root,
            {"stored": True, "broken": True},
        )
        with pytest.raises(OSError, match="the disk is gone"):
            training.train(work)


class TestEstimates:
    def test_each_has_the_null_band_of_its_own_confidences(self, toy: ModuleType) -> None:
        one = cells("backprop", "off-chip")[0]
        data = toy.load(toy.Settings(training_size=60))
        values = torch.rand((4, 50, 3), generator=torch.Generator().manual_seed(0)).softmax(dim=2)
        bands = []
        for name, few in (("some", values[:2]), ("some", values), ("all", values)):
            found = evaluation.scores(few, data, one, name)
            confidence = few.double().mean(dim=0).amax(dim=1).numpy()
            band = metrics.ece_null_band(confidence, seed=seed(purpose="null-band", cell=one.id, estimator=name))
            assert (found["ece_null_low"], found["ece_null_high"]) == band
            assert band[0] < band[1]
            bands.append(band)
        assert len(set(bands)) == 3

    def test_a_row_has_those_of_all_its_estimators(self, root: Path) -> None:
        row = train(root, cells("metropolis_hastings", "in-the-loop")[:1])[0]
        found = json.loads(json.loads(row["estimates"]))
        assert len(found) > 1
        assert all(0 <= scores["ece_null_low"] <= scores["ece_null_high"] <= 1 for scores in found.values())


class TestWork:
    def test_a_data_set_gets_the_presets_settings_kind_and_source(self, root: Path, toy: ModuleType) -> None:
        """And the sweep's own, which are in both."""
        some = cells("backprop", "in-the-loop", data_settings='{"steps":4}', data_source="mnist", training_size=30)
        training.train(Work(some, {"steps": 1}, {some[0].fault: {}}, root, {"steps": 4, "test": 21}))
        asked = set(toy.ASKED)
        assert {(s.steps, s.test, s.kind, s.source, s.training_size) for s in asked} == {(4, 21, "real", "mnist", 30)}
        assert len({s.split_seed for s in asked}) == 2

    @pytest.mark.parametrize(("steps", "gain"), [(10, 1.0), (5, 2.0), (40, 0.25)])
    def test_the_same_share_of_steps_with_a_spike_means_the_same_at_every_duration(
        self, steps: int, gain: float, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        method = plugins.load("methods", "backprop", root)
        gains, original = [], method.predict

        def predict(task: Any, *arguments: Any) -> Any:
            gains.append(task.network.count_gain)
            return original(task, *arguments)

        monkeypatch.setattr(method, "predict", predict)
        train(root, cells("backprop", "off-chip"), steps=steps)
        assert set(gains) == {gain}

    def test_a_method_begins_with_what_it_is_then_shown(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All examples where it takes all, a minibatch where it takes minibatches; in memory in both cases."""
        sizes: dict[str, set[int]] = {}
        for name in ("backprop", "metropolis_hastings"):
            method = plugins.load("methods", name, root)

            def init(task: Any, batch: Any, *rest: Any, name: str = name, original: Any = method.init) -> Any:
                sizes.setdefault(name, set()).add(batch.inputs.numpy().shape[1])
                return original(task, batch, *rest)

            monkeypatch.setattr(method, "init", init)
            train(root, cells(name, "in-the-loop"), stored=True)
        assert sizes["backprop"] == {32}
        assert sizes["metropolis_hastings"] == {60}

    def test_layers_that_a_network_cannot_have_are_unavailable(self, root: Path) -> None:
        some = cells("backprop", "off-chip", network='{"convolutions":[[4,3,1]]}')
        with pytest.raises(Unavailable, match=r"networks of LIF neurons have .hidden. layers or"):
            training.train(Work(some, {}, {some[0].fault: {}}, root))

    def test_two_moons_are_learnt(self) -> None:
        some = cells("backprop", "off-chip", dataset="two_moons", data_kind="synthetic", training_size=200)
        made = training.train(Work(some[:1], {"steps": 150}, {some[0].fault: {}}, CHECKOUT))
        assert made[0]["accuracy"] > 0.9
        mapped = json.loads(made[0]["outputs"])
        assert len(mapped["mean"]) == 1600
        upper, lower = mapped["mean"][7 * 40 + 39], mapped["mean"][32 * 40]  # (0.2, 1) and (0.8, 0)
        assert upper < 0.2 and lower > 0.8
