from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference_camera
from scipy import stats

from spikebench.events import EVENT, camera
from spikebench.events.camera import Camera, record
from spikebench.events.motion import Motion, rcls

#: No noise and no mismatch: what follows has a closed form.
CLEAN = Camera(mismatch=0, leak_hz=0, shot_hz=0, refractory_us=0, black_level=0, step_us=1000)
SECOND = 1_000_000
STILL = Motion(np.zeros(1), np.zeros(1), np.zeros(1))
#: Log intensity a pixel of ``ramp``.
SLOPE = 0.02


def ramp(width: int = 100, height: int = 8) -> np.ndarray:
    """Light that grows exponentially to the right: a move to the left is a linear rise of log intensity."""
    return np.tile(30 * np.exp(SLOPE * np.arange(width)), (height, 1))


def leftwards(pixels: float, duration_us: float = SECOND) -> Motion:
    return Motion(np.array([0, duration_us]), np.array([pixels / 2, -pixels / 2]), np.zeros(2))


def pixel_counts(events: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.bincount(events["y"].astype(int) * width + events["x"], minlength=width * height)


def signed(events: np.ndarray) -> np.ndarray:
    return np.where(events["p"] == 1, 1, -1)


def test_a_ramp_gives_the_closed_form_times() -> None:
    # 50 px raise log intensity by 1 in one second: the k-th event of every pixel is at k theta seconds.
    events = record(ramp(), leftwards(50), replace(CLEAN, theta_on=0.15), 0, duration_us=SECOND, sensor=(11, 3))
    assert events.dtype == EVENT
    assert (events["p"] == 1).all()
    assert (pixel_counts(events, 11, 3) == 6).all()
    np.testing.assert_allclose(events["t"].reshape(6, 33), np.arange(1, 7)[:, None] * 150_000 * np.ones(33), atol=30)


def test_twice_the_threshold_gives_half_the_events_and_a_reversed_ramp_the_other_polarity() -> None:
    fine, coarse = (replace(CLEAN, theta_on=theta, theta_off=theta) for theta in (0.12, 0.24))
    rise, half = (record(ramp(), leftwards(50), c, 0, duration_us=SECOND, sensor=(8, 2)) for c in (fine, coarse))
    assert (len(rise), len(half)) == (8 * 16, 4 * 16)
    fall = record(ramp()[:, ::-1], leftwards(50), fine, 0, duration_us=SECOND, sensor=(8, 2))
    assert (fall["p"] == 0).all()
    np.testing.assert_allclose(fall["t"], rise["t"], atol=30)


def test_signed_events_track_log_intensity_within_one_threshold() -> None:
    image = np.random.default_rng(0).uniform(0, 255, (40, 40))
    path = Motion(np.array([0, 0.3, 0.7, 1]) * SECOND, np.array([0, 4, -3, 2]), np.array([0, -5, 1, 3]))
    sensor = replace(CLEAN, theta_on=0.17, theta_off=0.23, black_level=10)
    events = record(image, path, sensor, 0, duration_us=SECOND, centre=(9.5, 9.5), sensor=(20, 20))
    # The picture's centre at 9.5 puts its column 10 on the sensor's column 0; whole moves need no interpolation.
    light = camera.log_intensity(10 + image * (245 / 255))
    change = light[10 - 3 : 30 - 3, 10 - 2 : 30 - 2] - light[10:30, 10:30]
    moved = np.zeros((20, 20))
    np.add.at(moved, (events["y"], events["x"]), np.where(events["p"] == 1, 0.17, -0.23))
    assert len(events) > 4000
    error = change - moved
    assert error.max() < 0.17 + 1e-4
    assert error.min() > -0.23 - 1e-4


def test_the_refractory_time_bounds_the_rate_and_loses_nothing() -> None:
    # The ramp passes in 0.1 s, faster than one event in 20 ms allows; the rest of the events follow while it rests.
    events = record(
        ramp(), leftwards(50, SECOND / 10), replace(CLEAN, theta_on=0.11, refractory_us=20_000), 0,
        duration_us=SECOND, sensor=(5, 1),
    )  # fmt: skip
    for x in range(5):
        t = events["t"][events["x"] == x]
        np.testing.assert_allclose(t, 11_000 + 20_000 * np.arange(9), atol=30)


@pytest.mark.parametrize("cutoff_hz", [0.0, 25.0, 50.0, 200.0])
def test_low_pass_attenuates_flicker_by_the_closed_form(cutoff_hz: float) -> None:
    # A grating of period 20 px at 1000 px/s flickers at 50 Hz.
    theta, amplitude = 0.01, 0.5
    image = np.tile(90 * np.exp(amplitude * np.sin(2 * np.pi * np.arange(260) / 20)), (4, 1))
    sensor = replace(CLEAN, theta_on=theta, theta_off=theta, cutoff_hz=cutoff_hz, step_us=200)
    events = record(image, leftwards(200, SECOND / 5), sensor, 0, duration_us=SECOND // 5, sensor=(1, 1))
    level = theta * np.cumsum(signed(events))
    late = level[events["t"] > 120_000]  # the filter has settled
    gain = 1 / np.sqrt(1 + (50 / cutoff_hz) ** 2) if cutoff_hz else 1.0
    assert np.ptp(late) == pytest.approx(2 * amplitude * gain, abs=2 * theta)


def test_the_leak_has_its_rate_on_a_still_picture_and_only_on_events() -> None:
    sensor = replace(CLEAN, leak_hz=0.3)
    events = record(ramp(), STILL, sensor, 3, duration_us=2 * SECOND, sensor=(40, 30))
    assert (events["p"] == 1).all()
    assert pixel_counts(events, 40, 30).max() == 1
    assert stats.binomtest(len(events), 1200, 0.6).pvalue > 1e-3
    assert stats.kstest(events["t"], "uniform", (0, 2 * SECOND)).pvalue > 1e-3
    steady = record(ramp(), STILL, replace(sensor, leak_hz=5), 3, duration_us=2 * SECOND, sensor=(40, 30))
    assert (pixel_counts(steady, 40, 30) == 10).all()


def test_shot_noise_is_a_poisson_process_of_both_polarities() -> None:
    events = record(ramp(), STILL, replace(CLEAN, shot_hz=4), 5, duration_us=2 * SECOND, sensor=(40, 30))
    expected = 4 * 2 * 1200
    assert abs(len(events) - expected) < 4 * np.sqrt(expected)
    assert stats.binomtest(int(events["p"].sum()), len(events)).pvalue > 1e-3
    counts = pixel_counts(events, 40, 30)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 1200))
    assert stats.kstest(events["t"], "uniform", (0, 2 * SECOND)).pvalue > 1e-3


def test_thresholds_have_the_stated_mean_and_deviation() -> None:
    sensor = replace(CLEAN, theta_on=0.2, theta_off=0.25, mismatch=0.03)
    thresholds = []
    for image, theta in ((ramp(), 0.2), (ramp()[:, ::-1], 0.25)):
        events = record(image, leftwards(50), sensor, 1, duration_us=SECOND, sensor=(40, 50))
        _, first = np.unique(events["y"].astype(int) * 40 + events["x"], return_index=True)
        own = events["t"][first] / SECOND  # the ramp rises by 1 a second
        assert own.mean() == pytest.approx(theta, abs=4 * 0.03 / np.sqrt(2000))
        assert own.std() == pytest.approx(0.03, abs=4 * 0.03 / np.sqrt(4000))
        assert stats.kstest(own, "norm", (theta, 0.03)).pvalue > 1e-3
        thresholds.append(own)
    assert abs(np.corrcoef(thresholds)[0, 1]) < 4 / np.sqrt(2000)


def test_no_threshold_is_below_a_quarter_of_the_mean() -> None:
    sensor = replace(CLEAN, theta_on=0.2, mismatch=1.0)
    events = record(ramp(), leftwards(2), sensor, 1, duration_us=SECOND, sensor=(40, 50))
    assert len(events) == 0  # the ramp rises by 0.04, the least threshold is 0.05


def test_the_screens_pictures_come_at_its_refresh_times() -> None:
    sensor = replace(CLEAN, theta_on=0.01, screen_hz=60, step_us=2000)
    smooth = record(ramp(), leftwards(50), replace(sensor, screen_hz=0), 0, duration_us=SECOND, sensor=(8, 1))
    events = record(ramp(), leftwards(50), sensor, 0, duration_us=SECOND, sensor=(8, 1))
    since_refresh = (events["t"] + 1) % (SECOND / 60)  # times are rounded down
    assert since_refresh.max() < 2001
    assert (smooth["t"] % (SECOND / 60) > 2000).mean() > 0.8
    # The last refresh is 1/60 s before the end, so the screen is at most that far behind.
    assert 0 <= len(smooth) - len(events) <= 8 * (1 / 60 / 0.01 + 1)


def test_steps_end_at_the_paths_corners_and_are_short_enough() -> None:
    edges, positions = camera.steps(rcls(), Camera(step_us=3000), 1_298_000)
    assert set(range(0, 1_200_001, 50_000)) <= set(edges)
    assert (edges[0], edges[-1]) == (0, 1_298_000)
    assert np.diff(edges).max() <= 3000
    np.testing.assert_allclose(positions, rcls().position(edges))


def test_same_seed_same_bits_in_any_thread_and_another_seed_other_noise() -> None:
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)

    def shot(seed: int) -> np.ndarray:
        return camera.cifar10_dvs(image, seed, duration_us=150_000)

    with ThreadPoolExecutor(2) as pool:
        first, again, other = pool.map(shot, (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, shot(7))
    assert len(first) != len(other) or (first != other).any()
    assert (np.diff(first["t"]) >= 0).all()
    assert first["t"][0] >= 0
    assert first["t"][-1] < 150_000
    assert set(np.unique(first["x"])) == set(np.unique(first["y"])) == set(range(128))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cutoff_hz": 30.0, "leak_hz": 2.0, "shot_hz": 20.0, "refractory_us": 3000.0, "theta_off": 0.1},
        {"screen_hz": 75.0, "black_level": 5.0, "cutoff_hz": 300.0},
    ],
)
def test_agrees_with_the_reference_in_numpy(changes: dict[str, float]) -> None:
    image = np.random.default_rng(2).uniform(0, 255, (9, 12))
    sensor = replace(Camera(), **changes)
    options: dict[str, Any] = {"magnification": 2.5, "blur_px": 0.4, "centre": (12.0, 9.25), "sensor": (27, 19)}
    ours, theirs = (
        module.record(image, rcls(), sensor, 11, duration_us=450_000, **options)
        for module in (camera, reference_camera)
    )
    assert len(theirs) > 5000
    # A contrast that only touches a threshold, or two that are crossed in one microsecond, are matters of rounding.
    assert abs(len(ours) - len(theirs)) <= 5
    same = pixel_counts(ours, 27, 19) == pixel_counts(theirs, 27, 19)
    assert same.mean() > 0.99
    ours, theirs = (e[np.lexsort((e["t"], e["x"], e["y"]))] for e in (ours, theirs))
    ours, theirs = (e[same[e["y"].astype(int) * 27 + e["x"]]] for e in (ours, theirs))
    assert (ours["p"] == theirs["p"]).mean() > 0.999
    assert np.quantile(np.abs(ours["t"] - theirs["t"]), 0.95) <= 2


def test_enlarging_is_exact_for_parabolas() -> None:
    at = np.linspace(1, 8, 50)  # cubic convolution with a = -1/2 is, away from the border (Keys 1981)
    rows = (np.arange(10.0)[:, None] - 3) ** 2
    np.testing.assert_allclose(camera.cubic(rows, at)[:, 0], (at - 3) ** 2, atol=1e-5)
    np.testing.assert_allclose(camera.cubic(rows, np.array([-4.0, 13.0]))[:, 0], [9, 36])


def test_log_intensity_is_linear_below_20_and_continuous() -> None:
    expected = [0, np.log(20) / 2, np.log(20), np.log(255)]
    np.testing.assert_allclose(camera.log_intensity(np.array([0.0, 10, 20, 255])), expected)


def test_digits_have_their_size_and_place_at_each_scale() -> None:
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 4:24] = 255
    for scale, side in ((4, 20), (8, 40), (16, 80)):
        events = camera.mnist_dvs(image, scale, 0, replace(camera.MNIST_DVS, shot_hz=0, leak_hz=0))
        # The square sweeps 10 px to the sides and 5 px up and down, around (60.5, 60.5); blur adds to its border.
        for axis, sweep in (("x", 10), ("y", 5)):
            low, high = events[axis].min(), events[axis].max()
            assert (low + high) / 2 == pytest.approx(60.5, abs=1)
            assert side + sweep <= high - low + 1 <= side + sweep + 8


def test_cifar_is_seen_by_its_luma() -> None:
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[8:24, 8:24] = (200, 100, 50)
    grey = 0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2]
    expected = record(grey, rcls(), camera.CIFAR10_DVS, 4, duration_us=100_000, magnification=4)
    np.testing.assert_array_equal(camera.cifar10_dvs(colour, 4, duration_us=100_000), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("theta_on", 0),
        ("step_us", 0),
        ("leak_hz", -1),
        ("shot_hz", np.nan),
        ("cutoff_hz", np.inf),
        ("black_level", 255),
    ],
)
def test_wrong_settings_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"Camera\.{field}: found {value}, expected"):
        Camera(**{field: value})


def test_wrong_arguments_are_refused_by_name() -> None:
    for image, changes, message in (
        (np.zeros(3), {}, "image"),
        (np.full((2, 2), 256), {}, "image"),
        (np.full((2, 2), np.nan), {}, "image"),
        (ramp(), {"duration_us": 0}, "duration_us"),
        (ramp(), {"magnification": 0}, "magnification"),
        (ramp(), {"blur_px": -1}, "blur_px"),
        (ramp(), {"sensor": (0, 4)}, "sensor"),
    ):
        with pytest.raises(ValueError, match=message):
            record(image, STILL, CLEAN, 0, **{"duration_us": 10, **changes})
    with pytest.raises(ValueError, match="scale: found 5, allowed: 4, 8, 16"):
        camera.mnist_dvs(np.zeros((28, 28)), 5, 0)
    with pytest.raises(ValueError, match=r"expected \(28, 28\)"):
        camera.mnist_dvs(np.zeros((32, 32)), 4, 0)
    with pytest.raises(ValueError, match=r"expected \(32, 32, 3\)"):
        camera.cifar10_dvs(np.zeros((32, 32)), 0)
