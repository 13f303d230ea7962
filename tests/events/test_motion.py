from __future__ import annotations

import numpy as np
import pytest

from spikebench.events.motion import Motion, mnist_dvs_zigzag, rcls


def test_zigzag_at_knots_and_between() -> None:
    # x takes 596.4 ms each way over 10 px, y 298.2 ms each way over 5 px, both around 0.
    t = np.array([0, 149_100, 298_200, 447_300, 596_400, 894_600, 1_192_800])
    expected = [[-5, -2.5], [-2.5, 0], [0, 2.5], [2.5, 0], [5, -2.5], [0, 2.5], [-5, -2.5]]
    np.testing.assert_allclose(mnist_dvs_zigzag(1_200_000).position(t), expected, atol=1e-12)


def test_zigzag_has_the_published_speed_on_both_axes_at_all_times() -> None:
    t = np.arange(0, 2_300_000, 149_100)
    speed = np.abs(np.diff(mnist_dvs_zigzag(2_300_000).position(t), axis=0)) / 0.1491
    np.testing.assert_allclose(speed, 16.77, atol=0.01)


def test_zigzag_is_periodic_and_lasts() -> None:
    path = mnist_dvs_zigzag(3_000_000)
    assert path.t_us[-1] >= 3_000_000
    t = np.linspace(0, 1_800_000, 97)
    np.testing.assert_allclose(path.position(t), path.position(t + 1_192_800), atol=1e-9)
    assert len(mnist_dvs_zigzag(298_200).t_us) == 2  # not a knot more than needed


def test_rcls_is_six_diamonds_of_50_ms_a_side_and_then_rest() -> None:
    path = rcls()
    diamond = np.array([[-2.5, 0], [0, -2.5], [2.5, 0], [0, 2.5]])
    for loop in range(6):
        np.testing.assert_allclose(path.position(200_000 * loop + 50_000 * np.arange(4)), diamond)
    np.testing.assert_allclose(path.position(np.array([25_000])), [[-1.25, -1.25]])
    np.testing.assert_allclose(path.position(np.array([1_200_000, 1_250_000])), [[-2.5, 0]] * 2)
    np.testing.assert_allclose(
        path.position(np.linspace(0, 1_200_000, 1000, endpoint=False)).mean(axis=0), 0, atol=1e-9
    )


@pytest.mark.parametrize(
    ("t", "x", "message"),
    [
        ([0, 1], [0], "shapes"),
        ([], [], "shapes"),
        ([0, 0], [0, 1], "do not increase"),
        ([0, 1], [0, np.nan], "not finite"),
    ],
)
def test_broken_paths_are_refused(t: list[float], x: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Motion(np.array(t), np.array(x), np.array(x))
