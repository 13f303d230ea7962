"""One training step of a feedback network by SPIDE, IDE and BPTT: memory and time against time steps, and the peer.

Memory is how far a process's peak grows by one step of 128 examples over one of two time steps; each is a process of
its own. SPIDE has as many backward steps as forward ones. The peer of the forward stage is the same network as a loop
over PyTorch's convolutions under ``no_grad``, the usual way to write it; both on one thread, in one process, with the
same weights. Pictures are Gaussian, the network is 8C5s-16C5s (F8C3u) on 28 by 28 pixels.

    python benchmarks/feedback_training.py
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import subprocess
import sys
import time
from types import ModuleType

import torch
from timing import best_of

from spikebench import plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo
from spikebench.layered_networks import LayeredNetwork
from spikebench.method import Task
from spikebench.seeds import Streams

ARCHITECTURE, SIDE, EXAMPLES = "8C5s-16C5s (F8C3u)", 28, 128
STEPS = (10, 30, 100)
METHODS = ("spide", "ide", "feedback_bptt")


def prepared(method: ModuleType, steps: int) -> tuple[Task, Batch, SimulatedChip]:
    info = DataInfo("classification", SIDE**2 + 1, 10, steps, False, (1, SIDE, SIDE))
    network = method.network(info, {"architecture": ARCHITECTURE}, "")
    own = {"backward_steps": steps} if hasattr(method.Settings, "backward_steps") else {}
    task = Task(network, info, method.Settings(**own), "off-chip", {"learning_rate": torch.tensor([0.1])}, rounds=100)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, EXAMPLES, 1, info.inputs, generator=generator).expand(-1, -1, steps, -1)
    labels = torch.randint(0, 10, (1, EXAMPLES), generator=generator)
    return task, Batch(pixels, labels, torch.tensor([0])), SimulatedChip(network, [FaultSpec()], [0])


def one_step(name: str, steps: int) -> None:
    """What a process prints: MiB and seconds of one step, after one of two time steps."""
    torch.set_num_threads(1)
    method = plugins.load("methods", name)
    for number in (2, steps):
        task, batch, chip = prepared(method, number)
        state = method.init(task, batch, chip, Streams((1,)))
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        method.step(task, state, batch, chip, Streams((1,)))
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) / 1024, seconds)


def loop(network: LayeredNetwork, weights: torch.Tensor, pictures: torch.Tensor, steps: int) -> torch.Tensor:
    """Average rates of the last layer [N, n], as a loop over convolutions."""
    (first, second, back), biases = network.split(weights)
    down, up, feedback = network.links
    brought = down.down(pictures, first) + biases[0][:, None, None]
    u, v, total, spikes = 0.0, 0.0, 0.0, None
    for _ in range(steps):
        u = u + brought if spikes is None else u + brought + feedback.up(spikes, back)
        sent = (u >= 1).float()
        u = u - 2 * sent
        v = v + up.down(sent, second) + biases[1][:, None, None]
        spikes = (v >= 1).float()
        v = v - 2 * spikes
        total = total + spikes
    return total.flatten(1) / steps


def main() -> None:
    """All methods at all time steps, then the forward stage and its peer."""
    if len(sys.argv) == 3:
        one_step(sys.argv[1], int(sys.argv[2]))
        return
    print(f"one step of {EXAMPLES} examples, {ARCHITECTURE}: growth of memory in MiB (seconds)")
    for name in METHODS:
        cells = []
        for steps in STEPS:
            command = [sys.executable, __file__, name, str(steps)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            cells.append(f"T = {steps}: {float(told[0]):.0f} ({float(told[1]):.2f})")
        print(f"{name}: {', '.join(cells)}")
    torch.set_num_threads(1)
    method = plugins.load("methods", "spide")
    task, batch, chip = prepared(method, 30)
    state = method.init(task, batch, chip, Streams((1,)))
    pictures = batch.inputs[0, :, 0, :-1].unflatten(1, (1, SIDE, SIDE))
    with torch.no_grad():
        ours = best_of(lambda: chip.rates(state.weights, batch.inputs, batch.index))
        peer = best_of(lambda: loop(chip.network, state.weights[0], pictures, 30))
        found = chip.rates(state.weights, batch.inputs, batch.index)
        apart = (
            found.mean[0, :, -chip.network.widths[-1] :] - loop(chip.network, state.weights[0], pictures, 30)
        ).abs()
    rate = float(found.spikes.sum()) / (EXAMPLES * 30 * sum(chip.network.widths))
    print(
        f"forward stage, T = 30, {EXAMPLES} examples, {rate:.2f} spikes a neuron and step: {1e3 * ours:.1f} ms, "
        f"loop over convolutions {1e3 * peer:.1f} ms, {peer / ours:.1f} times faster "
        f"(rates differ by {float(apart.mean()):.1g})"
    )


if __name__ == "__main__":
    main()
