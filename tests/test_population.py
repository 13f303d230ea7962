from __future__ import annotations

import pytest
import torch

from spikebench.population import rates


@pytest.mark.parametrize("neurons", [5, 10, 20])
def test_at_a_centre_one_neuron_is_certain_and_with_width_1_all_others_are_silent(neurons: int) -> None:
    centres = torch.arange(neurons) / (neurons - 1)
    found = rates(centres, neurons, width=1.0)
    torch.testing.assert_close(found, torch.eye(neurons), atol=1e-6, rtol=0)


def test_with_width_4_the_neighbours_fire_as_the_cosine_says() -> None:
    found = rates(torch.tensor([10 / 19]), 20, width=4.0)[0]
    # 1/2 + 1/2 cos(pi d / 4) at the distance of d centres.
    expected = {0: 1.0, 1: 0.5 + 0.5 * 0.5**0.5, 2: 0.5, 3: 0.5 - 0.5 * 0.5**0.5, 4: 0.0, 5: 0.0, 9: 0.0}
    for distance, rate in expected.items():
        assert float(found[10 + distance]) == pytest.approx(rate, abs=1e-6)
        assert float(found[10 - distance]) == pytest.approx(rate, abs=1e-6)


def test_half_way_between_two_centres_both_fire_half_the_time() -> None:
    found = rates(torch.tensor([4.5 / 9]), 10, width=1.0)[0]
    assert found[4:6].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    assert found[[0, 1, 2, 3, 6, 7, 8, 9]].tolist() == pytest.approx([0] * 8, abs=1e-6)


def test_with_width_1_rates_of_any_number_add_up_to_one() -> None:
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rates(x, 10, width=1.0).sum(dim=-1), torch.ones(1000), atol=1e-5, rtol=0)


def test_a_last_axis_is_added_whatever_the_shape() -> None:
    x = torch.rand((3, 2), generator=torch.Generator().manual_seed(0))
    found = rates(x, 7, width=4.0)
    assert found.shape == (3, 2, 7)
    assert torch.equal(found[1, 0], rates(x[1, 0][None], 7, width=4.0)[0])
    assert found.min() >= 0 and found.max() <= 1
