"""What every data set promises, asked of every file in ``datasets/``."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from project import CHECKOUT

from spikebench import plugins
from spikebench.data import SpikeData, is_constant
from spikebench.errors import Unavailable

NAMES = plugins.names("datasets", CHECKOUT)
SIZE = 40
PARTS = ("train", "validation", "test")


def load(name: str, **settings: Any) -> SpikeData:
    module = plugins.load("datasets", name, CHECKOUT)
    kind = module.KINDS[0]
    data: SpikeData = module.load(module.Settings(**{"split_seed": 1, "training_size": SIZE, "kind": kind, **settings}))
    return data


def equal(a: SpikeData, b: SpikeData) -> bool:
    """Whether all inputs and targets are the same bits."""
    pairs = [(getattr(a, part), getattr(b, part)) for part in PARTS]
    return all(torch.equal(x.inputs, y.inputs) and torch.equal(x.targets, y.targets) for x, y in pairs)


@pytest.mark.parametrize("name", NAMES)
class TestSplits:
    def test_shapes_and_types(self, name: str) -> None:
        data = load(name)
        assert len(data.train.targets) + len(data.validation.targets) == SIZE
        assert len(data.validation.targets) > 0
        assert len(data.test.targets) > SIZE
        steps, lines = data.train.inputs.shape[1:]
        for part in PARTS:
            inputs, targets = getattr(data, part)
            assert inputs.dtype == torch.float32
            assert inputs.shape == (len(targets), steps, lines)
            assert inputs.isfinite().all()
            assert inputs.any(), "not all silent"
            if data.binary_inputs:
                assert set(inputs.unique().tolist()) <= {0.0, 1.0}
            assert is_constant(inputs) == is_constant(data.train.inputs)
        assert data.labelled.inputs.shape == (SIZE, steps, lines)

    def test_labels_are_classes(self, name: str) -> None:
        data = load(name)
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

    def test_every_part_has_the_class_shares_of_the_whole(self, name: str) -> None:
        data = load(name)
        if data.task != "classification":
            pytest.skip("no classes")
        full = load(name, training_size=None)
        whole = torch.cat([getattr(full, part).targets for part in PARTS])
        shares = np.bincount(whole.numpy()) / len(whole)
        for split in (data, full):
            for part in PARTS:
                counts = np.bincount(getattr(split, part).targets.numpy(), minlength=len(shares))
                # A cut out of a stratified order is at most about one example a class and end off.
                assert np.abs(counts - shares * counts.sum()).max() <= 2.0, part

    def test_the_same_settings_give_the_same_bits_and_hash(self, name: str) -> None:
        first, second = load(name), load(name)
        assert equal(first, second)
        assert first.split_sha256 == second.split_sha256
        assert len(first.split_sha256) == 64

    def test_another_seed_or_size_is_another_split(self, name: str) -> None:
        hashes = {load(name, split_seed=s, training_size=n).split_sha256 for s in (1, 2, 3) for n in (SIZE, 2 * SIZE)}
        assert len(hashes) == 6
        assert not torch.equal(load(name).test.targets, load(name, split_seed=2).test.targets)

    def test_the_test_split_does_not_depend_on_the_training_size(self, name: str) -> None:
        small, large = load(name), load(name, training_size=2 * SIZE)
        assert torch.equal(small.test.targets, large.test.targets)
        assert len(large.train.targets) + len(large.validation.targets) == 2 * SIZE

    def test_no_example_is_in_two_parts(self, name: str) -> None:
        data = load(name, training_size=None)
        examples = [{x.numpy().tobytes() for x in getattr(data, part).inputs} for part in PARTS]
        assert not examples[0] & examples[1]
        assert not (examples[0] | examples[1]) & examples[2]

    def test_too_many_examples_are_not_silently_fewer(self, name: str) -> None:
        with pytest.raises(Unavailable, match=r"\d+ training examples, 100000000 were asked for"):
            load(name, training_size=100_000_000)


@pytest.mark.parametrize("name", NAMES)
class TestModule:
    def test_the_provenance_is_complete(self, name: str) -> None:
        module = plugins.load("datasets", name, CHECKOUT)
        for kind in module.KINDS:
            provenance = load(name, kind=kind).provenance
            assert provenance.kind == kind
            assert all(dataclasses.asdict(provenance).values())
            assert len(provenance.sha256) == 64
            assert int(provenance.sha256, 16) > 0
            assert provenance.licence == module.LICENCE
            assert provenance.citation == module.CITATION
            assert any(char.isdigit() for char in provenance.citation), "a year or a number to find it by"
            assert ("sim" in provenance.name.lower()) == (kind == "simulated"), "never by the real name"
            assert not provenance.source.startswith("/"), "no path of this machine"

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
        common = {"split_seed", "training_size", "kind"}
        fields = {field.name for field in dataclasses.fields(module.Settings)}
        assert common < fields
        assert set(plugins.settings_names("datasets", name, CHECKOUT)) == fields - common, "the harness sets the rest"
        assert plugins.constant("datasets", name, "KINDS", root=CHECKOUT) == module.KINDS
        assert set(module.KINDS) <= {"real", "simulated"}
