"""A simulated event camera before a moving picture, and the two published set-ups.

The pixel is that of v2e (Hu, Liu, Delbruck 2021, doi 10.1109/CVPRW53098.2021.00144). It sees L = log I, linear below
``LINEAR_BELOW``; a first-order low-pass follows; the contrast to a stored reference is compared with two thresholds of
the pixel's own; an event moves the reference by one threshold, so that what is below it is never forgotten. A leak
lowers the reference, and shot noise adds events. A change that meets the refractory time waits for its end.

Positions are in sensor pixels, x to the right and y downwards; pixel (0, 0) has its centre at (0, 0). The picture is
shown on a screen with ``FINE`` of its own pixels to one of the sensor's, as in the published recordings (512 to 128).
L is exact at the screen's pixels and linear between them, and so is its course within a step. Steps begin and end where
the picture turns or changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from scipy.ndimage import gaussian_filter

from spikebench.events import EVENT
from spikebench.events.camera_kernel import sense, unpack
from spikebench.events.motion import Motion, mnist_dvs_zigzag, rcls

#: Screen pixels to a sensor pixel, along each axis.
FINE = 4
#: Intensity (of 255) below which the pixel's response is linear: L = I log(20)/20.
LINEAR_BELOW = 20.0
#: ITU-R BT.601 luma of red, green, blue.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Camera:
    """The sensor, and the screen it looks at.

    Attributes:
        theta_on: mean threshold of ON events, in units of log intensity.
        theta_off: likewise OFF.
        mismatch: standard deviation of the pixels' thresholds, same units; none is below a quarter of the mean.
        cutoff_hz: of the photoreceptor's first-order low-pass, which acts on L; 0 is none.
        leak_hz: ON events a second of a pixel that sees no change; its phase at the start is uniform.
        shot_hz: Poisson noise events a second and pixel, ON and OFF alike.
        refractory_us: a pixel is silent for so long after an event.
        black_level: what a black screen sends, where a white one sends 255: a picture value g is seen as
            I = black_level + (1 - black_level / 255) g.
        screen_hz: the screen shows a new picture so often, which then fades in during one step; 0 is a motion without
            jumps.
        step_us: the longest step of the simulation.

    Raises:
        ValueError: a value out of its range.
    """

    theta_on: float = 0.2
    theta_off: float = 0.2
    mismatch: float = 0.03
    cutoff_hz: float = 0.0
    leak_hz: float = 0.01
    shot_hz: float = 0.1
    refractory_us: float = 500.0
    black_level: float = 20.0
    screen_hz: float = 0.0
    step_us: float = 4000.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:  # written so that NaN fails too
                raise ValueError(f"Camera.{field.name}: found {value}, expected a number of at least 0")
        for name in ("theta_on", "theta_off", "step_us"):
            if getattr(self, name) == 0:
                raise ValueError(f"Camera.{name}: found 0, expected a number above 0")
        if self.black_level >= 255:
            raise ValueError(f"Camera.black_level: found {self.black_level}, expected a number below 255")


#: MNIST-DVS: constants chosen beforehand, among v2e's usual ones.
MNIST_DVS = Camera(black_level=40.0, step_us=5000.0)
#: Sensor pixels to a pixel of the digit at each scale, blur, and the centre of the customary crop, 48 to 73.
MNIST_MAGNIFICATION = {4: 1.0, 8: 2.0, 16: 4.0}
MNIST_BLUR_PX = 0.8
MNIST_CENTRE = (60.5, 60.5)
#: CIFAR10-DVS: shot noise is that of v2e's noisy setting; the thresholds are set so that recordings have the published
#: mean number of events (``benchmarks/camera_calibration.py``).
CIFAR10_DVS = Camera(theta_on=0.19, theta_off=0.19, shot_hz=5.0)


def mnist_dvs(
    image: np.ndarray, scale: int, seed: int, camera: Camera = MNIST_DVS, duration_us: int = 2_300_000
) -> np.ndarray:
    """A recording of one digit as in MNIST-DVS, on a sensor of 128 x 128.

    Args:
        image: [28, 28] uint8.
        scale: 4, 8 or 16; the 28 pixels become 28, 56 or 112 sensor pixels.
        seed: of the pixels' thresholds and noise.
        camera: the sensor.
        duration_us: of the recording; the published ones take 2 to 3 s.

    Returns:
        [N] ``EVENT``, sorted by time.

    Raises:
        ValueError: another scale or image.
    """
    if scale not in MNIST_MAGNIFICATION:
        raise ValueError(f"scale: found {scale}, allowed: 4, 8, 16")
    if np.shape(image) != (28, 28):
        raise ValueError(f"image: found shape {np.shape(image)}, expected (28, 28)")
    return record(
        image,
        mnist_dvs_zigzag(duration_us),
        camera,
        seed,
        magnification=MNIST_MAGNIFICATION[scale],
        blur_px=MNIST_BLUR_PX,
        centre=MNIST_CENTRE,
        duration_us=duration_us,
    )


def cifar10_dvs(image: np.ndarray, seed: int, camera: Camera = CIFAR10_DVS, duration_us: int = 1_298_000) -> np.ndarray:
    """A recording of one picture as in CIFAR10-DVS: its luma, enlarged to the sensor's 128 x 128, moved six loops.

    Args:
        image: [32, 32, 3] uint8, red, green, blue.
        seed: of the pixels' thresholds and noise.
        camera: the sensor.
        duration_us: of the recording; the published mean is 1.298 s, of which the picture moves in the first 1.2 s.

    Returns:
        [N] ``EVENT``, sorted by time.

    Raises:
        ValueError: another image.
    """
    if np.shape(image) != (32, 32, 3):
        raise ValueError(f"image: found shape {np.shape(image)}, expected (32, 32, 3)")
    return record(image @ np.array(LUMA), rcls(), camera, seed, magnification=4.0, duration_us=duration_us)


def record(
    image: np.ndarray,
    path: Motion,
    camera: Camera,
    seed: int,
    *,
    duration_us: int,
    magnification: float = 1.0,
    blur_px: float = 0.0,
    centre: tuple[float, float] | None = None,
    sensor: tuple[int, int] = (128, 128),
) -> np.ndarray:
    """The events of a picture that moves before the camera.

    The result depends on the arguments alone: random numbers are counted per pixel. Most of the time is spent without
    Python's lock, so threads can record several pictures at once.

    Args:
        image: [h, w] screen values in [0, 255]; the border's values go on outside.
        path: displacement of the picture over time.
        camera: the sensor and the screen.
        seed: of the pixels' thresholds and noise.
        duration_us: length of the recording in microseconds.
        magnification: sensor pixels to a picture pixel; the picture is interpolated bicubically on the screen.
        blur_px: standard deviation of the lens's Gaussian blur, sensor pixels.
        centre: where on the sensor the undisplaced picture has its centre (x, y); None is the sensor's centre.
        sensor: width and height.

    Returns:
        [N] ``EVENT`` with 0 <= t < duration_us, sorted by time, then row, column and polarity.

    Raises:
        ValueError: an image of another shape or range, or a number that is out of range.
    """
    image = np.asarray(image, np.float32)
    if image.ndim != 2 or not (image.size and image.min() >= 0 and image.max() <= 255):
        raise ValueError(f"image: found shape {image.shape}, expected [h, w] with values in [0, 255]")
    if not 0 < duration_us < 2**31:
        raise ValueError(f"duration_us: found {duration_us}, expected a number above 0 and below 2^31")
    if not (0 < magnification < math.inf and 0 <= blur_px < math.inf):
        raise ValueError(f"magnification, blur_px: found {magnification}, {blur_px}, expected above 0 and at least 0")
    width, height = sensor
    if not (0 < width <= 2**15 and 0 < height <= 2**15):
        raise ValueError(f"sensor: found {sensor}, expected a width and a height from 1 to 2^15")
    edges, positions = steps(path, camera, duration_us)
    # Where pixel (0, 0) looks in the picture, seen from the picture's centre: [S + 1, (y, x)].
    origin = -(positions + (((width - 1) / 2, (height - 1) / 2) if centre is None else centre))[:, ::-1]
    low = np.floor(origin.min(axis=0))
    size = np.array((height, width)) + np.floor(origin.max(axis=0)).astype(int) - low.astype(int) + 2
    shown = screen(image, low, size, magnification, blur_px)
    planes = log_intensity(camera.black_level + (1 - camera.black_level / 255) * shown)
    planes = np.ascontiguousarray(planes.reshape(size[0], FINE, size[1], FINE).transpose(1, 3, 0, 2), np.float32)
    fine = (origin - low) * FINE
    whole = np.floor(fine).astype(np.int64)
    rates = (camera.leak_hz * 1e-6, camera.shot_hz * 1e-6)
    pixel = (camera.theta_on, camera.theta_off, camera.mismatch, *rates, camera.refractory_us)
    codes = sense(
        planes,
        np.concatenate([whole % FINE, whole // FINE], axis=1),
        (fine - whole).astype(np.float32),
        edges,
        low_pass(camera, np.diff(edges)),
        tuple(map(float, pixel)),
        height,
        width,
        np.uint64(int(seed) % 2**64),
    )
    codes.sort()
    events = np.empty(len(codes), EVENT)
    unpack(codes, events.view(np.int64).reshape(-1, 2))
    return events


def steps(path: Motion, camera: Camera, duration_us: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the steps in microseconds [S + 1], and the displacement (x, y) of what is seen there [S + 1, 2]."""
    if camera.screen_hz > 0:
        marks = np.arange(0.0, duration_us, 1e6 / camera.screen_hz)
    else:
        marks = np.unique(np.append(path.t_us[(path.t_us > 0) & (path.t_us < duration_us)], 0.0))
    ends = np.append(marks[1:], duration_us)
    counts = np.ceil((ends - marks) / camera.step_us).astype(int)
    edges = np.concatenate([np.linspace(a, b, n, endpoint=False) for a, b, n in zip(marks, ends, counts, strict=True)])
    edges = np.append(edges, duration_us)
    # At a refresh the old picture is still seen; the new one has faded in when the step that begins there ends.
    frame = np.searchsorted(marks, edges, side="left") - 1
    return edges, path.position(marks[np.maximum(frame, 0)] if camera.screen_hz > 0 else edges)


def screen(image: np.ndarray, low: np.ndarray, size: np.ndarray, magnification: float, blur_px: float) -> np.ndarray:
    """The picture on the screen, as the lens shows it to the sensor.

    Args:
        image: [h, w].
        low: (y, x) of the first screen pixel from the picture's centre, sensor pixels.
        size: (height, width) of the part that is needed, sensor pixels.
        magnification: sensor pixels to a picture pixel.
        blur_px: sensor pixels.

    Returns:
        [FINE height, FINE width] in [0, 255].
    """
    for axis in (0, 1):  # rows, then columns: each pass enlarges the first axis and swaps both
        at = (low[axis] + np.arange(FINE * size[axis]) / FINE) / magnification + (image.shape[0] - 1) / 2
        image = cubic(image, at).T
    image = np.clip(image, 0, 255)
    return np.asarray(gaussian_filter(image, blur_px * FINE, mode="nearest") if blur_px else image)


def cubic(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows [h, w] at fractional positions [H], by cubic convolution with a = -1/2 (Keys 1981): [H, w]."""
    base = np.floor(at)
    f = (at - base).astype(np.float32)[:, None]
    weights = (
        ((2 - f) * f - 1) * f / 2,
        ((3 * f - 5) * f * f + 2) / 2,
        ((4 - 3 * f) * f + 1) * f / 2,
        (f - 1) * f * f / 2,
    )
    near = np.clip(base.astype(int)[:, None] + (-1, 0, 1, 2), 0, len(rows) - 1)
    total: np.ndarray = weights[0] * rows[near[:, 0]]
    term = np.empty_like(total)
    for weight, n in zip(weights[1:], near.T[1:], strict=True):  # in place: half the time goes into new memory
        np.take(rows, n, axis=0, out=term, mode="clip")
        term *= weight
        total += term
    return total


def log_intensity(intensity: np.ndarray) -> np.ndarray:
    """L of intensities on the scale where white is 255; linear below ``LINEAR_BELOW``."""
    level: np.ndarray = np.maximum(intensity, LINEAR_BELOW)
    np.log(level, out=level)
    dark = intensity < LINEAR_BELOW
    if dark.any():
        level[dark] = intensity[dark] * (math.log(LINEAR_BELOW) / LINEAR_BELOW)
    return level


def low_pass(camera: Camera, dt_us: np.ndarray) -> np.ndarray:
    """The filter's step of dt [S], exact for light that changes linearly: [S, 3] for (level, old light, new light).

    With a = exp(-dt/tau) and k = (1 - a) tau/dt: level <- a level + (k - a) old + (1 - k) new.
    """
    if camera.cutoff_hz == 0:
        return np.tile(np.array([0, 0, 1], np.float32), (len(dt_us), 1))
    ratio = dt_us * 1e-6 * 2 * math.pi * camera.cutoff_hz
    a = np.exp(-ratio)
    k = -np.expm1(-ratio) / ratio
    return np.stack([a, k - a, 1 - k], axis=1).astype(np.float32)
