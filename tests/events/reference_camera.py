"""The camera's pixel model once more, in plain NumPy and double precision: all pixels at once, one step after another.

It shares with ``spikebench.events.camera`` only the edges of the steps and the numbering of the random numbers.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

from spikebench.events import EVENT
from spikebench.events.camera import Camera, steps
from spikebench.events.motion import Motion


def uniform(seed: int, counter: np.ndarray) -> np.ndarray:
    """SplitMix64: number ``counter`` of the stream ``seed``, in (0, 1)."""
    z = np.uint64(seed) + (counter.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)) + 0.5) / 2.0**53


def keys_kernel(d: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -1/2 (Keys 1981)."""
    d = np.abs(d)
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


def fine_log_picture(
    image: np.ndarray, reach: tuple[int, int], magnification: float, blur_px: float, camera: Camera
) -> np.ndarray:
    """Log intensity at multiples of 1/4 sensor pixel, up to ``reach`` (down, right) from the picture's centre."""
    margin = [math.ceil(r / magnification) + 3 for r in reach]
    padded = np.pad(image.astype(float), [(m, m) for m in margin], mode="edge")
    for axis in (0, 1):
        q = np.arange(-4 * reach[axis], 4 * reach[axis] + 1) / 4
        u = np.arange(padded.shape[axis]) - (padded.shape[axis] - 1) / 2
        padded = np.moveaxis(np.tensordot(keys_kernel(q[:, None] / magnification - u), padded, (1, axis)), 0, axis)
    shown = np.clip(padded, 0, 255)
    if blur_px:
        shown = gaussian_filter(shown, 4 * blur_px, mode="nearest")
    light = camera.black_level + (1 - camera.black_level / 255) * shown
    return np.where(light < 20, light * math.log(20) / 20, np.log(np.maximum(light, 20)))


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
    """As ``camera.record``."""
    w, h = sensor
    cx, cy = centre or ((w - 1) / 2, (h - 1) / 2)
    edges, positions = steps(path, camera, duration_us)
    far = np.abs(positions).max() + max(abs(cx), abs(cy), abs(w - 1 - cx), abs(h - 1 - cy))
    reach = (math.ceil(far) + 2, math.ceil(far) + 2)
    fine = fine_log_picture(image, reach, magnification, blur_px, camera)

    def look(k: int) -> np.ndarray:
        fx, fy = (4 * (r - c - p) for r, c, p in zip(reach[::-1], (cx, cy), positions[k], strict=True))
        j, i = int(fx), int(fy)
        v, u = fx - j, fy - i
        a, b, c, d = (
            fine[i + m : i + m + 4 * h : 4, j + n : j + n + 4 * w : 4][:h, :w] for m in (0, 1) for n in (0, 1)
        )
        return ((1 - u) * ((1 - v) * a + v * b) + u * ((1 - v) * c + v * d)).ravel()

    own = np.arange(w * h, dtype=np.uint64) << np.uint64(32)
    normal = np.sqrt(-2 * np.log(uniform(seed, own))) * np.exp(2j * np.pi * uniform(seed, own + np.uint64(1)))
    on = np.maximum(camera.theta_on + camera.mismatch * normal.real, camera.theta_on / 4)
    off = np.maximum(camera.theta_off + camera.mismatch * normal.imag, camera.theta_off / 4)
    light = look(0)
    level, reference = light, light.copy()
    if camera.leak_hz:
        reference -= on * uniform(seed, own + np.uint64(2))
    ready = np.full(w * h, -np.inf)
    counter = own + np.uint64(3)
    noise = np.full(w * h, np.inf)
    if camera.shot_hz:
        noise = -np.log(uniform(seed, counter)) / camera.shot_hz * 1e6
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for s, (t0, t1) in enumerate(pairwise(edges)):
        dt = t1 - t0
        new = look(s + 1)
        if camera.cutoff_hz:
            # dv/dt = (L(t) - v)/tau with L(t) = light + r (t - t0) is solved by L(t) - r tau + C exp(-(t - t0)/tau).
            tau = 1e6 / (2 * math.pi * camera.cutoff_hz)
            r = (new - light) / dt
            after = new - r * tau + (level - light + r * tau) * math.exp(-dt / tau)
        else:
            after = new
        begin = level - reference
        reference -= camera.leak_hz * 1e-6 * dt * on
        end = after - reference
        level, light = after, new
        start = np.full(w * h, t0)
        pixels = np.flatnonzero((np.maximum(begin, end) >= on) | (np.minimum(begin, end) <= -off) | (noise < t1))
        while pixels.size:
            begins, ends, plus, minus = begin[pixels], end[pixels], on[pixels], off[pixels]
            first = start[pixels] = np.maximum(start[pixels], ready[pixels])
            slope = (ends - begins) / dt
            now = begins + slope * (first - t0)
            rising = (now >= plus) | ((now > -minus) & (ends > plus))
            falling = ~rising & ((now <= -minus) | (ends < -minus))
            with np.errstate(divide="ignore", invalid="ignore"):
                cross = np.where(
                    (now >= plus) | (now <= -minus), first, t0 + (np.where(rising, plus, -minus) - begins) / slope
                )
            time = np.where((rising | falling) & (first < t1), cross, np.inf)
            shot = noise[pixels] < np.minimum(time, t1)
            crossed = ~shot & (time < np.inf)
            move = np.where(crossed, np.where(rising, plus, -minus), 0)
            begin[pixels] -= move
            end[pixels] -= move
            reference[pixels] += move
            p = rising.astype(np.int64)
            sent = crossed.copy()
            if shot.any():
                who = pixels[shot]
                time[shot] = noise[who]
                p[shot] = uniform(seed, counter[who] + np.uint64(1)) < 0.5
                counter[who] += np.uint64(2)
                noise[who] -= np.log(uniform(seed, counter[who])) / camera.shot_hz * 1e6
                sent[shot] = time[shot] >= ready[who]
            start[pixels[crossed]] = time[crossed]
            ready[pixels[sent]] = time[sent] + camera.refractory_us
            found.append((time[sent].astype(np.int64), pixels[sent], p[sent]))
            pixels = pixels[shot | crossed]
    t, pixel, p = (np.concatenate(column) if found else np.empty(0, int) for column in zip(*found, strict=True))
    order = np.lexsort((p, pixel, t))
    events = np.empty(len(t), EVENT)
    events["t"], events["y"], events["x"], events["p"] = t[order], pixel[order] // w, pixel[order] % w, p[order]
    return events
