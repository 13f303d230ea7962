"""What every data set promises, asked of every file in ``datasets/`` in every kind that can be had on this machine."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import archive_store
import numpy as np
import pytest
import torch
from project import CHECKOUT

from spikebench import config, plugins, preparation, training
from spikebench.archives import SOURCES
from spikebench.data import SpikeData, Stored, dense, is_constant
from spikebench.errors import Unavailable

NAMES = plugins.names("datasets", CHECKOUT)
CASES = [(name, kind) for name in NAMES for kind in plugins.constant("datasets", name, "KINDS", root=CHECKOUT)]
#: The same recordings in all three parts.
MEMORISED: dict[str, dict[str, Any]] = {"mnist_dvs": {"halves": True, "polarity": False, "classes": [1, 7]}}
#: Of many, those that the preset ``smoke`` takes.
SMOKE = config.load(CHECKOUT, {"preset": "smoke"})
SIZE = 20
PARTS = ("train", "validation", "test")

each = pytest.mark.parametrize(("name", "kind"), CASES)
memorised = pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in MEMORISED])


@pytest.fixture(autouse=True)
def in_the_store(store: object) -> None:
    pass


def source_of(name: str, kind: str) -> str:
    """As the plan chooses it; skipped where it is not here and is too large to be fetched by a test."""
    alternatives = preparation.needs(name, SMOKE).get(kind, ())
    for small in set(alternatives) & set(archive_store.IMAGES):
        archive_store.reason_against(small)  # fetched, where that is possible
    chosen = preparation.source(name, kind, SMOKE)
    if chosen:
        archive_store.need(chosen)
    return chosen


def load(name: str, kind: str, **settings: Any) -> SpikeData:
    module = plugins.load("datasets", name, CHECKOUT)
    given = {"split_seed": 1, "training_size": SIZE, "kind": kind, "source": source_of(name, kind)}
    data: SpikeData = module.load(module.Settings(**{**SMOKE.data_settings(name, {}), **given, **settings}))
    return data


def equal(a: SpikeData, b: SpikeData) -> bool:
    """Whether all inputs and targets are the same bits."""
    pairs = [(getattr(a, part), getattr(b, part)) for part in PARTS]
    return all(torch.equal(dense(x.inputs), dense(y.inputs)) and torch.equal(x.targets, y.targets) for x, y in pairs)


@each
class TestSplits:
    def test_shapes_and_types(self, name: str, kind: str) -> None:
        data = load(name, kind)
        assert not data.memorised, "only where that is asked for: the parts are disjoint"
        assert len(data.train.targets) + len(data.validation.targets) == SIZE
        assert len(data.validation.targets) > 0
        assert len(data.test.targets) >= SIZE
        steps, lines = data.train.inputs.shape[1:]
        for part in PARTS:
            stored, targets = getattr(data, part)
            inputs = dense(stored)
            assert inputs.dtype == torch.float32
            assert inputs.shape == stored.shape == (len(targets), steps, lines)
            assert inputs.isfinite().all()
            assert inputs[..., :-1].any(), "not all silent"
            assert inputs[..., -1].eq(1).all(), "the first layer's constant line"
            if data.binary_inputs:
                assert set(inputs.unique().tolist()) <= {0.0, 1.0}
            assert isinstance(stored, Stored) == isinstance(data.train.inputs, Stored)
            assert is_constant(inputs) == is_constant(dense(data.train.inputs))
        assert data.labelled.inputs.shape == (SIZE, steps, lines)
        assert not data.layout or np.prod(data.layout) + 1 == lines

    def test_labels_are_classes(self, name: str, kind: str) -> None:
        data = load(name, kind)
        if data.task != "classification":
            pytest.skip("no classes")
        for part in PARTS:
            targets = getattr(data, part).targets
            assert targets.dtype == torch.int64
            assert targets.dim() == 1
            assert set(targets.tolist()) <= set(range(len(data.classes)))
        assert set(data.test.targets.tolist()) == set(range(len(data.classes)))
        assert len(set(data.classes)) == len(data.classes) > 1
        assert all(data.classes)

    def test_values_are_one_number_an_example(self, name: str, kind: str) -> None:
        data = load(name, kind)
        if data.task != "regression":
            pytest.skip("no values")
        for part in PARTS:
            targets = getattr(data, part).targets
            assert targets.dtype == torch.float32
            assert targets.shape == (len(targets), 1)
            assert targets.isfinite().all()
        assert data.classes == ()

    def test_every_part_has_the_class_shares_of_the_whole(self, name: str, kind: str) -> None:
        data = load(name, kind)
        if data.task != "classification":
            pytest.skip("no classes")
        full = load(name, kind, training_size=None)
        whole = torch.cat([getattr(full, part).targets for part in PARTS])
        shares = np.bincount(whole.numpy()) / len(whole)
        for split in (data, full):
            for part in PARTS:
                counts = np.bincount(getattr(split, part).targets.numpy(), minlength=len(shares))
                # A cut out of a stratified order is at most about one example a class and end off.
                assert np.abs(counts - shares * counts.sum()).max() <= 2.0, part

    def test_a_probe_is_a_grid_told_as_the_examples_are(self, name: str, kind: str) -> None:
        data, again = load(name, kind), load(name, kind)
        if data.probe is None or again.probe is None:
            pytest.skip("no probe")
        probe = data.probe
        regression = data.task == "regression"
        assert regression or len(data.classes) == 2
        assert all(low < high and points >= 2 for low, high, points in probe.axes)
        assert probe.inputs.dtype == torch.float32
        assert probe.inputs.shape == (math.prod(n for *_, n in probe.axes), *data.train.inputs.shape[1:])
        assert probe.inputs[..., -1].eq(1).all()
        assert not data.binary_inputs or set(probe.inputs.unique().tolist()) <= {0.0, 1.0}
        assert probe.seen.shape == (SIZE, len(probe.axes) + regression)
        for (low, high, _), column in zip(probe.axes, probe.seen.T, strict=False):
            assert low - 1e-6 <= column.min() and column.max() <= high + 1e-6
        if regression:
            assert torch.equal(probe.seen[:, -1:], data.labelled.targets)
        assert probe.targets is None or probe.targets.shape == probe.inputs.shape[:1]
        assert torch.equal(probe.inputs, again.probe.inputs)
        assert not torch.equal(probe.inputs, load(name, kind, split_seed=2).probe.inputs), "spikes of its own"

    def test_the_same_settings_give_the_same_bits_and_hash(self, name: str, kind: str) -> None:
        first, second = load(name, kind), load(name, kind)
        assert equal(first, second)
        assert first.split_sha256 == second.split_sha256
        assert first.provenance == second.provenance
        assert len(first.split_sha256) == 64

    def test_another_seed_or_size_is_another_split(self, name: str, kind: str) -> None:
        splits = [load(name, kind, split_seed=s, training_size=n) for s in (1, 2, 3) for n in (SIZE, 2 * SIZE)]
        assert len({split.split_sha256 for split in splits}) == 6
        learners = {dense(split.labelled.inputs).numpy().tobytes() for split in splits}
        assert len(learners) == 6

    def test_the_test_split_does_not_depend_on_the_training_size(self, name: str, kind: str) -> None:
        """And is not scaled, drawn or cut by it: the examples themselves are the same where they are spikes."""
        small, large = load(name, kind), load(name, kind, training_size=2 * SIZE)
        assert torch.equal(small.test.targets, large.test.targets)
        if small.binary_inputs:
            assert torch.equal(dense(small.test.inputs), dense(large.test.inputs))
        assert len(large.train.targets) + len(large.validation.targets) == 2 * SIZE

    def test_a_smaller_training_set_is_part_of_a_larger_one(self, name: str, kind: str) -> None:
        small, large = load(name, kind), load(name, kind, training_size=2 * SIZE)
        if not small.binary_inputs and not small.layout:
            pytest.skip("inputs are scaled by the learner's own examples")
        ours, theirs = ({x.numpy().tobytes() for x in dense(d.labelled.inputs)} for d in (small, large))
        assert ours < theirs

    def test_no_example_is_in_two_parts(self, name: str, kind: str) -> None:
        data = load(name, kind, training_size=None)
        examples = [{x.numpy().tobytes() for x in dense(getattr(data, part).inputs)} for part in PARTS]
        assert not examples[0] & examples[1]
        assert not (examples[0] | examples[1]) & examples[2]

    def test_too_many_examples_are_not_silently_fewer(self, name: str, kind: str) -> None:
        with pytest.raises(Unavailable, match=r"\d+ training examples, 100000000 were asked for"):
            load(name, kind, training_size=100_000_000)

    def test_the_provenance_is_complete(self, name: str, kind: str) -> None:
        module = plugins.load("datasets", name, CHECKOUT)
        provenance = load(name, kind).provenance
        assert provenance.kind == kind
        assert all(dataclasses.asdict(provenance).values())
        assert len(provenance.sha256) == 64
        assert int(provenance.sha256, 16) > 0
        assert provenance.licence == module.LICENCE
        assert provenance.citation == module.CITATION
        assert any(char.isdigit() for char in provenance.citation), "a year or a number to find it by"
        assert ("sim" in provenance.name.lower()) == (kind == "simulated"), "never by the real name"
        assert not provenance.source.startswith("/"), "no path of this machine"


@memorised
class TestMemorised:
    """What is to be remembered: spikes as targets, and the same examples wherever the harness looks."""

    def test_shapes_and_types(self, name: str, kind: str) -> None:
        data = load(name, kind, **MEMORISED[name])
        assert data.memorised
        assert data.task == "sequence"
        assert data.classes == ()
        inputs, targets = dense(data.train.inputs), data.train.targets
        examples, steps, outputs = targets.shape
        assert examples == SIZE
        assert training.describe(data).outputs == outputs
        assert inputs.shape == (SIZE, steps, int(np.prod(data.layout)) + 1)
        assert inputs.dtype == targets.dtype == torch.float32
        assert inputs[..., -1].eq(1).all()
        assert inputs[..., :-1].any() and targets.any()
        assert set(targets.unique().tolist()) == {0.0, 1.0}
        assert not data.binary_inputs or set(inputs.unique().tolist()) == {0.0, 1.0}

    def test_all_parts_are_the_same_examples_and_the_learner_gets_them_once(self, name: str, kind: str) -> None:
        data = load(name, kind, **MEMORISED[name])
        for part in (data.validation, data.test, data.labelled):
            assert torch.equal(dense(part.inputs), dense(data.train.inputs))
            assert torch.equal(part.targets, data.train.targets)

    def test_no_seed_changes_them_and_a_size_does(self, name: str, kind: str) -> None:
        first, second = (load(name, kind, split_seed=s, **MEMORISED[name]) for s in (1, 2))
        assert equal(first, second)
        assert (first.split_sha256, first.provenance) == (second.split_sha256, second.provenance)
        assert len(first.split_sha256) == len(first.provenance.sha256) == 64
        one = load(name, kind, training_size=1, **MEMORISED[name])
        assert one.split_sha256 != first.split_sha256
        held = {x.numpy().tobytes() for x in dense(first.train.inputs)}
        assert {x.numpy().tobytes() for x in dense(one.train.inputs)} < held

    def test_too_many_examples_are_not_silently_fewer(self, name: str, kind: str) -> None:
        with pytest.raises(Unavailable, match=r"\d+ training examples, 100000000 were asked for"):
            load(name, kind, training_size=100_000_000, **MEMORISED[name])


@pytest.mark.parametrize("name", NAMES)
class TestModule:
    def test_the_settings_survive_a_round_trip_through_json(self, name: str) -> None:
        settings = plugins.load("datasets", name, CHECKOUT).Settings(split_seed=2**62, training_size=20)
        again = type(settings)(**json.loads(json.dumps(dataclasses.asdict(settings))))
        assert again == settings
        assert hash(again) == hash(settings)

    def test_the_settings_are_frozen_and_closed(self, name: str) -> None:
        module = plugins.load("datasets", name, CHECKOUT)
        with pytest.raises(dataclasses.FrozenInstanceError):
            module.Settings().split_seed = 3
        with pytest.raises(TypeError, match="unheard_of"):
            module.Settings(unheard_of=1)

    def test_what_the_plan_reads_is_what_the_module_says(self, name: str) -> None:
        module = plugins.load("datasets", name, CHECKOUT)
        common = {"split_seed", "training_size", "kind", "source"}
        fields = {field.name for field in dataclasses.fields(module.Settings)}
        assert common < fields
        assert set(plugins.settings_names("datasets", name, CHECKOUT)) == fields - common, "the harness sets the rest"
        for constant, default in (("KINDS", None), ("NEEDS", {}), ("LOAD", 1.0)):
            found = plugins.constant("datasets", name, constant, default, CHECKOUT)
            assert found == getattr(module, constant, default)
        assert module.KINDS
        assert set(module.KINDS) <= {"real", "simulated", "synthetic"}

    def test_what_it_is_made_from_is_known(self, name: str) -> None:
        """A kind that can be chosen says what it needs, or nobody could tell whether it is here."""
        module = plugins.load("datasets", name, CHECKOUT)
        needs = getattr(module, "NEEDS", {})
        assert set(needs) <= set(module.KINDS)
        assert all(names and set(names) <= set(SOURCES) for names in needs.values())
        assert len(module.KINDS) == 1 or set(needs) == set(module.KINDS)
        assert getattr(module, "LOAD", 1.0) > 0
