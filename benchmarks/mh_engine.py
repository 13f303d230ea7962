"""Speed of the Metropolis-Hastings engine against snnTorch, on the 31-8-2 network, T = 10, N = 398.

The engine is timed through ``metropolis.run_block``, the function that training calls: proposals, faults, likelihood
and acceptance included. The peer evaluates one chain at a time with ``snntorch.Leaky`` in a loop over time, and does
nothing else. Both run on the same threads, and give the same output spikes (weights, inputs and decay are dyadic, so
that sums are exact).

    python benchmarks/mh_engine.py [threads]
"""

from __future__ import annotations

import os
import sys

import numba
import snntorch
import torch
from timing import best_of

from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, Split
from spikebench.metropolis import Chains, Target, log_likelihood, run_block
from spikebench.networks import Network
from spikebench.neurons import LIFParameters
from spikebench.seeds import Streams

INPUTS, HIDDEN, OUTPUTS, STEPS, SAMPLES = 31, 8, 2, 10, 398
DEVICES, CHAINS, PROPOSALS = 30, 2, 100
DECAY = 0.875


def peer(network: Network, weights: torch.Tensor, inputs: torch.Tensor, once: bool) -> torch.Tensor:
    """Output spikes [T, N, O] of one chain by snnTorch; ``once`` weighs the constant inputs outside the loop."""
    first, second = network.unpack(weights)
    hidden, output = (snntorch.Leaky(beta=DECAY, reset_mechanism="zero") for _ in range(2))
    v1, v2 = hidden.init_leaky(), output.init_leaky()
    spikes = []
    with torch.no_grad():
        current = inputs @ first.T
        for _ in range(STEPS):
            s1, v1 = hidden(current if once else inputs @ first.T, v1)
            s2, v2 = output(s1 @ second[:, :-1].T + second[:, -1], v2)
            spikes.append(s2)
    return torch.stack(spikes)


def dyadic(values: torch.Tensor) -> torch.Tensor:
    """Rounded to sixteenths, so that every sum of the simulation is exact."""
    return torch.round(values * 16) / 16


def matrix_rate() -> float:
    """Floating-point operations a second in a large matrix product on the same threads: the machine's ceiling."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / best_of(lambda: a @ a, 10)


def main() -> None:
    """Time both, compare their spikes, print the ratios; exit status 1 if the spikes differ."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    network = Network(INPUTS, (HIDDEN,), OUTPUTS, LIFParameters(decay=DECAY))
    x = dyadic(torch.rand((SAMPLES, INPUTS), generator=generator))
    labels = torch.randint(0, OUTPUTS, (SAMPLES,), generator=generator)
    batch = Batch.stack([Split(x[:, None].expand(-1, STEPS, -1), labels)], [0] * DEVICES)
    weights = dyadic(0.5 * torch.randn((DEVICES, CHAINS, network.parameters), generator=generator))

    chip = SimulatedChip(network, [FaultSpec()] * DEVICES, range(DEVICES))
    same = all(
        torch.equal(peer(network, weights[d, 0], x, once=False).movedim(0, 1), spikes)
        for d, spikes in enumerate(chip.run(weights[:, 0], batch.inputs, batch.index)[-1])
    )
    print(f"threads {threads}; output spikes of {DEVICES} networks identical to snnTorch's: {same}")

    slow = best_of(lambda: peer(network, weights[0, 0], x, once=False))
    generous = best_of(lambda: peer(network, weights[0, 0], x, once=True))
    streams = Streams(tuple(range(DEVICES)))
    keys = torch.stack([streams.keys("chain", c) for c in range(CHAINS)], dim=1)
    rate = matrix_rate()
    # What a dense evaluation needs: both layers' multiply-adds (inputs once, they are constant) and three operations a
    # neuron and step.
    operations = SAMPLES * (2 * INPUTS * HIDDEN + STEPS * (2 * (HIDDEN + 1) * OUTPUTS + 3 * (HIDDEN + OUTPUTS)))
    print(f"snnTorch Leaky loop, one chain at a time:      {slow * 1e6:9.1f} us an evaluation")
    print(f"the same, constant inputs weighed once:        {generous * 1e6:9.1f} us")
    for name, spec in (
        ("no faults", FaultSpec()),
        ("paper-full, severity 1", FaultSpec(1.0, 1.0, threshold=1.0, time_constant=1.0, offset=0.1, compression=2.0)),
    ):
        chip = SimulatedChip(network, [spec] * DEVICES, range(DEVICES))
        step = torch.full((DEVICES, CHAINS), 0.1, dtype=torch.float64)
        start = Chains(weights, log_likelihood(chip, weights, batch), step, torch.zeros_like(keys))
        target = Target(prior_sd=1.0, temperature=1.0, share=0.1)
        seconds = best_of(lambda c=chip, s=start, t=target: run_block(c, batch, s, keys, 0, PROPOSALS, t))
        each = seconds / (DEVICES * CHAINS * PROPOSALS)
        print(
            f"engine, {name + ':':<38} {each * 1e6:9.1f} us -> {slow / each:.0f}x snnTorch ({generous / each:.0f}x the "
            f"generous form); {operations / each / rate:.0%} of the matrix-product rate"
        )
    sys.exit(not same)


if __name__ == "__main__":
    main()
