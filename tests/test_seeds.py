from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from spikebench.seeds import Streams, canonical, digest, seed


def test_canonical_json_has_sorted_keys_and_no_spaces() -> None:
    assert canonical({"b": [1, 2.5], "a": {"d": None, "c": "x"}}) == '{"a":{"c":"x","d":null},"b":[1,2.5]}'


def test_digest_and_seed_are_the_sha256_of_the_canonical_text() -> None:
    expected = hashlib.sha256(b'{"dataset":"breast_cancer","repetition":3}').hexdigest()
    assert digest({"repetition": 3, "dataset": "breast_cancer"}) == expected[:16]
    assert digest({"repetition": 3, "dataset": "breast_cancer"}, length=8) == expected[:8]
    # 64 bits of the hash without the lowest: fits a signed 64-bit integer, as torch and numba want it.
    assert seed(repetition=3, dataset="breast_cancer") == int(expected[:16], 16) // 2


def test_seeds_do_not_depend_on_the_order_of_the_axes_but_on_every_name_and_value() -> None:
    assert seed(a=1, b=2) == seed(b=2, a=1)
    others = [seed(a=2, b=2), seed(a=1, c=2), seed(a=1), seed(a="1", b=2), seed(a=1, b=2, c=None), seed(a=1, b=[2])]
    assert len({seed(a=1, b=2), *others}) == 7


def test_seeds_of_consecutive_repetitions_are_63_uniform_bits() -> None:
    seeds = np.array([seed(purpose="chip", repetition=r) for r in range(4000)], dtype=np.uint64)
    assert seeds.max() < 2**63
    bits = (seeds[:, None] >> np.arange(63, dtype=np.uint64)) & np.uint64(1)
    ones = bits.sum(axis=0).astype(float)
    # 63 binomial tests at once: the largest deviation of a fair coin stays below 5 standard deviations.
    assert np.abs(ones - 2000).max() < 5 * np.sqrt(1000)
    assert stats.kstest(seeds.astype(np.float64) / 2**63, "uniform").pvalue > 1e-3


def test_a_draw_depends_on_its_own_seed_and_label_alone() -> None:
    together = Streams((11, 22, 33))
    together.normal((7,), "something else")  # what was drawn before has no influence
    torch.manual_seed(5)
    batch = together.normal((4, 2), "start")
    for b, own in enumerate((11, 22, 33)):
        torch.manual_seed(b)
        assert torch.equal(batch[b], Streams((own,)).normal((4, 2), "start")[0])
    assert torch.equal(batch, Streams((11, 22, 33)).normal((4, 2), "start"))


def test_labels_and_seeds_give_different_draws() -> None:
    streams = Streams((1, 2))
    draws = [*streams.normal((8,), "epoch", 0), *streams.normal((8,), "epoch", 1), *streams.normal((8,), "start")]
    for a, b in itertools.combinations(draws, 2):
        assert not torch.isclose(a, b).any()


def test_a_label_of_two_parts_is_not_their_concatenation() -> None:
    streams = Streams((1,))
    assert streams.keys("ab", "c") != streams.keys("a", "bc")
    assert streams.keys("chain", 1) != streams.keys("chain", "1")


def test_keys_are_the_hash_of_seed_and_label() -> None:
    expected = int(hashlib.sha256(b'{"label":["chain",0],"seed":9}').hexdigest()[:16], 16) // 2
    keys = Streams((9, 10)).keys("chain", 0)
    assert keys.dtype == torch.int64
    assert keys[0].item() == expected
    assert keys[1].item() != expected


def test_normal_draws_are_standard_normal() -> None:
    draws = Streams(tuple(range(20))).normal((500,), "start")
    assert draws.shape == (20, 500)
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 1e-3
    # ... and independent between streams: the mean over streams is N(0, 1/20).
    assert stats.kstest(draws.mean(dim=0).numpy() * np.sqrt(20), "norm").pvalue > 1e-3


def test_permutations_hold_every_number_once_and_differ_between_cells() -> None:
    orders = Streams((1, 2)).permutation(50, "epoch", 0)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(50).expand(2, -1))
    assert not torch.equal(orders[0], orders[1])


def test_repeat_is_cell_major() -> None:
    assert Streams((5, 6)).repeat(3).seeds == (5, 5, 5, 6, 6, 6)


def test_streams_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Streams((1,)).seeds = (2,)  # type: ignore[misc]
