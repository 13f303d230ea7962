"""Compile the kernels once, at installation, so that no training job waits for it (numba keeps the result on disk).

python -m spikebench.compile
"""

from __future__ import annotations

import torch

from spikebench import bptt
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, Split
from spikebench.metropolis import Chains, Target, log_likelihood, run_block
from spikebench.networks import Network


def main() -> None:
    """Call every kernel with the types that training uses, on data of the smallest size."""
    network = Network(2, (2,), 2)
    batch = Batch.stack([Split(torch.zeros(2, 1, 2).expand(-1, 3, -1), torch.zeros(2, dtype=torch.int64))], [0])
    weights = torch.zeros(1, 1, network.parameters)
    keys = torch.zeros(1, 1, dtype=torch.int64)
    step = torch.ones(1, 1, dtype=torch.float64)
    for noise in (0.0, 1.0):  # compiled blocks, and blocks that measure on the chip
        chip = SimulatedChip(network, [FaultSpec(severity=1.0, read_noise=noise)], [0])
        chains = Chains(weights, log_likelihood(chip, weights, batch), step, torch.zeros_like(keys))
        run_block(chip, batch, chains, keys, 0, 1, Target(1.0, 1.0, 0.5))
    spikes = chip.run(weights[:, 0], batch.inputs, batch.index)
    bptt.loss_gradient(network, weights[:, 0], batch, bptt.Model.of(chip.nominal), "gaussian", spikes)


if __name__ == "__main__":
    main()
