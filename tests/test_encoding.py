from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from spikebench import encoding
from spikebench.data import is_constant


def test_constant_current_is_the_value_at_every_step_and_is_stored_once() -> None:
    x = torch.tensor([[0.0, 0.25], [1.0, 0.5]])
    lines = encoding.constant_current(x, 3)
    assert lines.tolist() == [[[0.0, 0.25]] * 3, [[1.0, 0.5]] * 3]
    assert lines.stride(1) == 0
    assert lines.untyped_storage().nbytes() == x.untyped_storage().nbytes()


def test_latency_by_hand() -> None:
    # T = 4: 1 spikes at step 0, 0.75 at 1, 0.5 at 2, 0.25 at 3; 0 would spike at step 4, after the end.
    x = torch.tensor([[1.0, 0.75, 0.5, 0.25, 0.0]])
    expected = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert encoding.latency(x, 4).tolist() == [expected]


def test_latency_rounds_to_the_nearest_step() -> None:
    # (1 - x) T = 1.4, 1.6, 3.4, 3.6 at T = 4: steps 1, 2, 3 and none
    x = 1 - torch.tensor([[1.4, 1.6, 3.4, 3.6]]) / 4
    spikes = encoding.latency(x, 4)
    assert spikes[0].argmax(dim=0)[:3].tolist() == [1, 2, 3]
    assert spikes.sum(dim=1).tolist() == [[1, 1, 1, 0]]


def test_latency_spikes_at_most_once_and_earlier_for_larger_values() -> None:
    x = torch.linspace(0, 1, 101)[None]
    spikes = encoding.latency(x, 10)
    assert set(spikes.sum(dim=1).unique().tolist()) == {0.0, 1.0}
    times = torch.where(spikes.sum(dim=1) > 0, spikes.argmax(dim=1), 10)
    assert (times.diff() <= 0).all()


def test_rate_code_is_bernoulli_with_the_values_as_probabilities() -> None:
    x = torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]]).expand(200, -1)
    spikes = encoding.rate(x, 25, torch.Generator().manual_seed(0))
    assert spikes.shape == (200, 25, 5)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    counts = spikes.sum(dim=(0, 1)).long().tolist()
    assert counts[0] == 0
    assert counts[4] == 5000
    for count, p in zip(counts[1:4], (0.1, 0.5, 0.9), strict=True):
        assert stats.binomtest(count, 5000, p).pvalue > 1e-3


def test_rate_code_is_drawn_anew_at_each_step_and_for_each_value() -> None:
    spikes = encoding.rate(torch.full((400, 3), 0.5), 2, torch.Generator().manual_seed(1)).flatten(1)
    correlation = np.corrcoef(spikes.numpy().T) - np.eye(6)
    assert np.abs(correlation).max() < 4 / np.sqrt(400)


def test_rate_code_is_frozen_by_the_seed() -> None:
    x = torch.rand(10, 4, generator=torch.Generator().manual_seed(2))
    first, second, other = (encoding.rate(x, 8, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_constant_line_is_last_and_one_at_every_step() -> None:
    inputs = torch.zeros(2, 3, 4)
    lines = encoding.with_constant_line(inputs)
    assert lines.shape == (2, 3, 5)
    assert lines[..., -1].eq(1).all()
    assert torch.equal(lines[..., :-1], inputs)
    assert not is_constant(lines)


def test_constant_line_keeps_a_constant_current_expanded() -> None:
    x = torch.tensor([[0.25, 0.5]])
    lines = encoding.with_constant_line(encoding.constant_current(x, 6))
    assert lines.tolist() == [[[0.25, 0.5, 1.0]] * 6]
    assert is_constant(lines)
