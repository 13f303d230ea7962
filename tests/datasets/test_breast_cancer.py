from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from spikebench import plugins
from spikebench.data import SpikeData, is_constant
from spikebench.errors import Unavailable, UserError

PLUGIN = plugins.load("datasets", "breast_cancer")
BITS = 10
REFERENCE = load_breast_cancer()


def load(**settings: object) -> SpikeData:
    return PLUGIN.load(PLUGIN.Settings(**settings))


def positions(monkeypatch: pytest.MonkeyPatch, **settings: object) -> dict[str, list[int]]:
    """Rows of scikit-learn's table in each part, in order: the features are replaced by the row number in binary,
    which min-max scaling leaves alone."""
    numbers = (np.arange(569)[:, None] >> np.arange(BITS) & 1).astype(float)
    with monkeypatch.context() as patch:
        patch.setattr(PLUGIN, "_read", lambda: (numbers, REFERENCE.target.astype(np.int64), ""))
        data = load(**settings)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    powers = 2 ** torch.arange(BITS)
    return {name: (part.inputs[:, 0, :BITS].long() @ powers).tolist() for name, part in parts.items()}


def test_the_file_holds_what_scikit_learn_loads() -> None:
    features, labels, digest = PLUGIN._read()
    assert np.array_equal(features, REFERENCE.data)
    assert np.array_equal(labels, REFERENCE.target)
    assert list(load().classes) == list(REFERENCE.target_names)
    assert digest == PLUGIN.SHA256 == load().provenance.sha256


@pytest.mark.parametrize("size", [10, 160, None])
def test_parts_are_disjoint_stratified_and_70_to_30(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    rows = positions(monkeypatch, split_seed=4, training_size=size)
    learner = size or 398
    assert len(rows["test"]) == 171
    assert len(rows["validation"]) == round(0.2 * learner)
    assert len(rows["train"]) + len(rows["validation"]) == learner
    everything = [row for part in rows.values() for row in part]
    assert len(set(everything)) == len(everything)
    if size is None:
        assert sorted(everything) == list(range(569))
    for part in rows.values():
        benign = int(REFERENCE.target[part].sum())
        assert abs(benign - len(part) * 357 / 569) <= 2


def test_a_smaller_training_set_is_part_of_a_larger_one_and_the_test_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [10, 20, 40, 80, 160, 398]
    rows = [positions(monkeypatch, split_seed=2, training_size=size) for size in sizes]
    for small, large in pairwise(rows):
        assert set(small["train"]) < set(large["train"])
        assert set(small["train"] + small["validation"]) < set(large["train"] + large["validation"])
        assert small["test"] == large["test"]


def test_the_split_is_given_by_its_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (positions(monkeypatch, split_seed=s) for s in (1, 1, 2))
    assert first == again
    assert set(first["test"]) != set(other["test"])
    assert not torch.equal(load(split_seed=1).test.targets, load(split_seed=2).test.targets)
    assert positions(monkeypatch, split_seed=1, encoding="constant", steps=3) == first
    hashes = [load(split_seed=s, training_size=n).split_sha256 for s, n in [(1, 40), (1, 40), (2, 40), (1, 41)]]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_targets_belong_to_their_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = positions(monkeypatch, split_seed=3, training_size=50)
    data = load(split_seed=3, training_size=50)
    for name in ("train", "validation", "test"):
        assert getattr(data, name).targets.tolist() == REFERENCE.target[rows[name]].tolist()


def test_scaling_is_fitted_on_the_learners_examples_and_the_rest_is_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = positions(monkeypatch, split_seed=5, training_size=40)
    data = load(split_seed=5, training_size=40)
    learner = REFERENCE.data[rows["train"] + rows["validation"]]
    low, high = learner.min(axis=0), learner.max(axis=0)
    for name in ("train", "validation", "test"):
        expected = np.clip((REFERENCE.data[rows[name]] - low) / (high - low), 0, 1)
        inputs = getattr(data, name).inputs
        np.testing.assert_allclose(inputs[:, 0, :30].numpy(), expected, atol=1e-6)
    # The test part has values beyond those of 40 examples; unclipped they would leave [0, 1].
    outside = (REFERENCE.data[rows["test"]] < low) | (REFERENCE.data[rows["test"]] > high)
    assert outside.sum() > 100
    assert data.labelled.inputs[:, 0, :30].amin(dim=0).eq(0).all()
    assert data.labelled.inputs[:, 0, :30].amax(dim=0).eq(1).all()


def test_a_feature_without_spread_among_the_learners_examples_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    features = REFERENCE.data.copy()
    features[:, 7] = 3.0
    monkeypatch.setattr(PLUGIN, "_read", lambda: (features, REFERENCE.target.astype(np.int64), ""))
    assert load().test.inputs[:, 0, 7].eq(0).all()


def test_the_last_line_is_constant_one_in_every_encoding() -> None:
    for name in ("constant", "latency", "rate"):
        for part in (load(encoding=name).train, load(encoding=name).test):
            assert part.inputs.shape[1:] == (10, 31)
            assert part.inputs.dtype == torch.float32
            assert part.inputs[..., 30].eq(1).all()


def test_constant_encoding_is_stored_once() -> None:
    data = load(steps=7)
    assert data.train.inputs.shape[1] == 7
    assert is_constant(data.train.inputs) and is_constant(data.test.inputs)
    assert not data.binary_inputs


def test_latency_encoding_spikes_at_round_of_one_minus_x_times_t() -> None:
    values = load(split_seed=1).test.inputs[:, 0, :30]
    data = load(split_seed=1, encoding="latency")
    times = torch.round((1 - values) * 10)
    spikes = data.test.inputs[..., :30]
    assert data.binary_inputs
    assert torch.equal(spikes.sum(dim=1), (times < 10).float())
    fired = times < 10
    assert torch.equal(spikes.argmax(dim=1)[fired].float(), times[fired])


def test_rate_encoding_has_the_values_as_probabilities_and_is_frozen() -> None:
    values = load(split_seed=1, steps=200).test.inputs[:, 0, :30]
    data = load(split_seed=1, steps=200, encoding="rate")
    spikes = data.test.inputs[..., :30]
    assert data.binary_inputs
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    deviation = spikes.mean(dim=1) - values
    sd = (values * (1 - values) / 200).sqrt()
    assert (deviation.abs() <= 5 * sd + 1e-6).all()
    assert deviation.mean().abs() < 5 * float(sd.square().mean().sqrt()) / values.numel() ** 0.5
    assert torch.equal(load(split_seed=1, steps=200, encoding="rate").test.inputs, data.test.inputs)
    assert not torch.equal(load(split_seed=2, steps=200, encoding="rate").test.inputs, data.test.inputs)


def test_an_unknown_encoding_is_named_with_those_allowed() -> None:
    with pytest.raises(UserError, match="encoding: found 'lattency', allowed: constant, latency, rate"):
        load(encoding="lattency")


def test_more_training_examples_than_there_are_make_the_cell_unavailable() -> None:
    assert len(load(training_size=398).labelled.targets) == 398
    with pytest.raises(Unavailable, match="398 training examples, 399 were asked for"):
        load(training_size=399)


def test_other_bytes_than_those_known_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: changed(path).replace(b"17.99", b"18.99", 1))
    with pytest.raises(UserError, match=f"breast_cancer.csv has sha256 [0-9a-f]{{64}}, expected {PLUGIN.SHA256}"):
        load()


def test_provenance_is_complete() -> None:
    provenance = load().provenance
    assert provenance.kind == "real"
    assert all(vars(provenance).values())
    assert provenance.citation == PLUGIN.CITATION
