"""One training step through time of a spiking convolutional network: the multi-step engine and its peers.

A step is forward pass, cross-entropy, backward pass and gradient descent of 32C3-M2-64C3-M2-128C3-M2 (batch norm, LIF
neurons with reset to zero, arctan surrogate) with a linear read-out of the rates, on 16 binary pictures of 48 x 48 x 2
in 10 time steps. The peers start from the same weights: snnTorch as the usual loop over time, whose batch norm takes
its statistics from one time step each, and whose reset is not differentiated; and, where it is installed, the
multi-step mode of SpikingJelly, whose batch norm and reset are the engine's. Unlike its peers the engine also computes
moments of all potentials, and slopes in the surrogates' sharpness and thresholds.

First the last layer's rates are compared with the loop's without batch norm, and slopes with SpikingJelly's (for two
examples: of many, rounding moves some potential past its threshold). Then rounds take turns, and the shortest time
counts. The limit is 2 operations a multiply-add in 3 passes at the faster of two rates, of a product of matrices and
of a large convolution. Memory is how far a process's peak grows by one step over one of a single example in two steps.

    python benchmarks/bptt.py
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")  # torch's, so that one does not wait while the other spins

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import snntorch
import torch
from snntorch import surrogate
from timing import best_of
from torch import nn

from spikebench import multistep
from spikebench.architectures import feedback_network
from spikebench.neurons import LIFParameters

try:
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.surrogate import ATan
except ImportError:
    layer = None

STEPS, EXAMPLES, CLASSES, SIDE, ROUNDS, RATE = 10, 16, 10, 48, 10, 0.01
NEURON = LIFParameters(decay=0.25, threshold=0.5)
NETWORK = feedback_network("32C3-M2-64C3-M2-128C3-M2", 2 * SIDE**2 + 1, (2, SIDE, SIDE), CLASSES, NEURON)
LINKS = multistep.trained(NETWORK)
#: From pictures [T, N, 2, 48, 48] to the last layer's rates [N, 128, 6, 6]; and all weights, all gains, all biases.
Peer = tuple[Callable[[torch.Tensor], torch.Tensor], list[torch.Tensor]]


def engine(weights: list[torch.Tensor], normalise: bool) -> Peer:
    gains, biases = [torch.ones(len(w)) for w in weights], [torch.zeros(len(w)) for w in weights]
    free = [value.clone().requires_grad_() for value in (*weights, *gains, *biases)]
    sharpness, thresholds = torch.full((3, STEPS), 2.0).log().requires_grad_(), torch.full((3,), NEURON.threshold)

    def rates(pictures: torch.Tensor) -> torch.Tensor:
        parts = multistep.Parameters(free[:3], free[3:6], free[6:], sharpness[:, : len(pictures)], thresholds)
        lines, how = pictures.flatten(2).transpose(0, 1), multistep.How("arctan", normalise)
        return multistep.present(NETWORK, parts, lines, how).sent.mean(dim=0).permute(0, 3, 1, 2)

    return rates, free


def snntorch_loop(weights: list[torch.Tensor], normalise: bool) -> Peer:
    spike = {"spike_grad": surrogate.atan(alpha=2.0), "reset_mechanism": "zero", "reset_delay": True}
    neurons = [snntorch.Leaky(NEURON.decay, NEURON.threshold, **spike) for _ in weights]
    convolutions = [nn.Conv2d(w.shape[1], len(w), 3, padding=1, bias=False) for w in weights]
    norms = [nn.BatchNorm2d(len(w)) if normalise else nn.Identity() for w in weights]
    pool = nn.MaxPool2d(2)

    def rates(pictures: torch.Tensor) -> torch.Tensor:
        potentials, total = [leaky.reset_mem() for leaky in neurons], 0.0
        for spikes in pictures:
            for place, (convolution, norm, leaky) in enumerate(zip(convolutions, norms, neurons, strict=True)):
                spikes, potentials[place] = leaky(norm(convolution(spikes)), potentials[place])
                spikes = pool(spikes)
            total = total + spikes
        return total / len(pictures)

    return rates, _started(convolutions, norms, weights)


def spikingjelly(weights: list[torch.Tensor], normalise: bool) -> Peer:
    convolutions = [layer.Conv2d(w.shape[1], len(w), 3, padding=1, bias=False) for w in weights]
    norms = [layer.BatchNorm2d(len(w)) if normalise else nn.Identity() for w in weights]
    network = nn.Sequential()
    for convolution, norm in zip(convolutions, norms, strict=True):
        node = neuron.LIFNode(1 / (1 - NEURON.decay), False, NEURON.threshold, 0.0, ATan(alpha=2.0))
        network.extend([convolution, norm, node, layer.MaxPool2d(2)])
    functional.set_step_mode(network, "m")

    def rates(pictures: torch.Tensor) -> torch.Tensor:
        functional.reset_net(network)
        return network(pictures).mean(dim=0)

    return rates, _started(convolutions, norms, weights)


def _started(convolutions: list[Any], norms: list[Any], weights: list[torch.Tensor]) -> list[torch.Tensor]:
    for convolution, given in zip(convolutions, weights, strict=True):
        convolution.weight.data = given.clone()
    norms = [norm for norm in norms if not isinstance(norm, nn.Identity)]
    return [*(part.weight for part in [*convolutions, *norms]), *(norm.bias for norm in norms)]


PEERS = {"engine": engine, "snnTorch": snntorch_loop} | ({} if layer is None else {"SpikingJelly": spikingjelly})


def drawn(steps: int = STEPS, examples: int = EXAMPLES) -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    weights = [torch.randn(link.weights) / link.weights[1] ** 0.5 / link.kernel for link in LINKS]
    return weights, (torch.rand(steps, examples, 2, SIDE, SIDE) < 0.2).float()


def training(peer: Peer, pictures: torch.Tensor) -> Callable[[], None]:
    torch.manual_seed(1)
    rates, parameters = peer
    labels, features = torch.randint(0, CLASSES, pictures.shape[1:2]), NETWORK.widths[-1]
    read_out = (torch.randn(CLASSES, features) / features**0.5).requires_grad_()
    optimiser = torch.optim.SGD([*parameters, read_out], RATE)

    def step() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(rates(pictures).flatten(1) @ read_out.T, labels).backward()
        optimiser.step()

    return step


def memory(name: str) -> None:
    peaks = []
    for size in ((2, 1), (STEPS, EXAMPLES)):
        weights, pictures = drawn(*size)
        training(PEERS[name](weights, True), pictures)()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(f"{name}, {torch.get_num_threads()} threads: a step takes {(peaks[1] - peaks[0]) / 1024:.0f} MiB more")


def compare() -> None:
    weights, pictures = drawn()
    with torch.no_grad():
        ours, loop = (PEERS[name](weights, False)[0](pictures) for name in ("engine", "snnTorch"))
    differ, rates = int((ours - loop).abs().gt(1e-6).sum()), [f"{float(found.mean()):.6f}" for found in (ours, loop)]
    print(f"without batch norm: mean rates {rates[0]}, snnTorch {rates[1]}; {differ} of {ours.numel()} differ")
    if "SpikingJelly" in PEERS:
        weights, pictures = drawn(examples=2)
        peers = [PEERS[name](weights, True) for name in ("engine", "SpikingJelly")]
        for peer in peers:
            training(peer, pictures)()
        pairs = zip(*(parameters for _, parameters in peers), strict=True)
        apart = max(float((a.grad - b.grad).norm() / b.grad.norm()) for a, b in pairs)
        print(f"slopes in weights, gains and biases are a share of {apart:.1g} apart from SpikingJelly's")


def timed() -> None:
    print(f"threads: {torch.get_num_threads()}")
    compare()
    weights, pictures = drawn()
    steps = {name: training(make(weights, True), pictures) for name, make in PEERS.items()}
    seconds = dict.fromkeys(steps, float("inf"))
    square, rates, convolve = torch.randn(2048, 2048), [0.0, 0.0], nn.Conv2d(128, 128, 3, padding=1)
    maps = torch.randn(160, 128, 24, 24).to(memory_format=torch.channels_last)
    products = [(2048**3, lambda: square @ square), (maps.numel() * 128 * 9, lambda: convolve(maps))]
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name] = min(seconds[name], time.perf_counter() - began) if turn else seconds[name]
        rates = [max(rate, 2 * n / best_of(run, 1)) for rate, (n, run) in zip(rates, products, strict=True)]
    summed = sum(math.prod(link.coarse) * math.prod(link.weights[1:]) for link in LINKS)
    operations = 6 * EXAMPLES * (STEPS * summed + CLASSES * NETWORK.widths[-1])
    ours, limit = seconds["engine"], operations / max(rates)
    print(", ".join(f"{name} {value:.3f} s" for name, value in seconds.items()) + " a step")
    print(", ".join(f"{name} / engine {value / ours:.1f}" for name, value in seconds.items() if name != "engine"))
    print(f"matrix product {rates[0] / 1e9:.0f} GFLOP/s, convolution {rates[1] / 1e9:.0f}", end="; ")
    print(f"limit of {operations / 1e9:.1f} GFLOP {limit:.3f} s; engine / limit {ours / limit:.1f}")


def main() -> None:
    if len(sys.argv) > 1:
        timed() if sys.argv[1] == "timed" else memory(sys.argv[1])
        return
    if layer is None:
        print("SpikingJelly is not installed and left out: pip install spikingjelly")
    for what, threads in (("timed", "2"), ("timed", "1"), *((name, "2") for name in PEERS)):
        own = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
        subprocess.run([sys.executable, __file__, what], check=True, env=os.environ | own)


if __name__ == "__main__":
    main()
