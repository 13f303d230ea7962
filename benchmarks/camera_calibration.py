"""What the simulated recordings have in common with the published ones: numbers of events, and how they are spread.

Published for CIFAR10-DVS: 205,071 events in 1.298 s, the mean over all recordings, and the sizes of the ten archives,
one a class, which should be proportional to the classes' events. For MNIST-DVS 17,011, 43,764 and 103,144 at scales 4,
8 and 16 are recalled and not confirmed.

    python benchmarks/camera_calibration.py train-images-idx3-ubyte cifar10.npz [images]

The first file is MNIST's, unpacked; the second has ``train_images`` uint8 [N, 32, 32, 3] and ``train_labels`` [N].
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from spikebench.events import camera

#: Bytes of the published archives, airplane to truck (figshare 4724671).
CIFAR10_DVS_BYTES = np.array(
    [747054427, 970159102, 760766288, 843271197, 778283422, 844609875, 818824848, 929265395, 742404857, 950111954]
)
MNIST_DVS_EVENTS = {4: 17011, 8: 43764, 16: 103144}
CROP = (48, 73)
#: The recording is cut into so many equal parts, whose mean event rates are printed.
PARTS = 8


def table(name: str, published: int, duration_us: int, recordings: Iterable[np.ndarray]) -> np.ndarray:
    """Print one line a quantity; returns the number of events of each recording."""
    events, on, cropped = [], [], []
    rate = np.zeros(PARTS)
    for e in recordings:
        inside = (e["x"] >= CROP[0]) & (e["x"] <= CROP[1]) & (e["y"] >= CROP[0]) & (e["y"] <= CROP[1])
        events.append(len(e))
        on.append(e["p"].mean())
        cropped.append(inside.mean())
        rate += np.bincount(e["t"] * PARTS // duration_us, minlength=PARTS)
    rate *= PARTS / duration_us * 1e3 / len(events)
    print(f"{name}: {len(events)} recordings of {duration_us / 1e6} s")
    print(f"  events a recording   {np.mean(events):.0f} (sd {np.std(events):.0f}); published {published}")
    print(f"  share of ON events   {np.mean(on):.3f}")
    print(f"  share in {CROP[0]}..{CROP[1]}      {np.mean(cropped):.3f}")
    print(f"  events a millisecond {' '.join(f'{r:.0f}' for r in rate)}, in {PARTS} equal parts")
    return np.array(events)


def main() -> None:
    """Print the table of each set-up."""
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    digits = np.fromfile(sys.argv[1], np.uint8, offset=16).reshape(-1, 28, 28)[:number]
    with np.load(sys.argv[2]) as file:
        photographs, labels = file["train_images"][:number], file["train_labels"][:number]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:

        def recordings(make: Callable[[np.ndarray, int], np.ndarray], images: np.ndarray) -> Iterable[np.ndarray]:
            return pool.map(make, images, range(len(images)))

        for scale, published in MNIST_DVS_EVENTS.items():
            made = recordings(lambda image, seed, s=scale: camera.mnist_dvs(image, s, seed), digits)
            table(f"MNIST-DVS-sim, scale {scale}", published, 2_300_000, made)
        silent = replace(camera.MNIST_DVS, leak_hz=0, shot_hz=0)
        made = recordings(lambda image, seed: camera.mnist_dvs(image, 4, seed, silent), digits)
        table("MNIST-DVS-sim, scale 4, without leak and shot noise", MNIST_DVS_EVENTS[4], 2_300_000, made)
        events = table("CIFAR10-DVS-sim", 205071, 1_298_000, recordings(camera.cifar10_dvs, photographs))
    classes = np.array([events[labels == k].mean() for k in range(10)])
    classes, archives = classes / classes.mean(), CIFAR10_DVS_BYTES / CIFAR10_DVS_BYTES.mean()
    print("  classes' events      " + " ".join(f"{c:.2f}" for c in classes) + f"; sd {classes.std():.3f}")
    print("  published archives   " + " ".join(f"{c:.2f}" for c in archives) + f"; sd {archives.std():.3f}")
    print(f"  correlation          {np.corrcoef(classes, archives)[0, 1]:.2f}")


if __name__ == "__main__":
    main()
