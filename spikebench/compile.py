"""Compile the kernels once, at installation, so that no training job waits for it (numba keeps the result on disk).

python -m spikebench.compile
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from spikebench import adjoint, bptt, compartments, multistep
from spikebench.architectures import feedback_network
from spikebench.bernoulli import Posterior, natural_step, relax
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.compartments import Rule
from spikebench.data import Batch, Split
from spikebench.events import camera
from spikebench.events.binning import Binning, bin_events
from spikebench.events.frames import Frames, write_part
from spikebench.local_learning import Learning, present
from spikebench.metropolis import Chains, Target, log_likelihood, run_block
from spikebench.networks import Network
from spikebench.neurons import CoupleParameters, GLMParameters, LIFParameters, SoftResetParameters, SRMParameters


def main() -> None:
    """Call every kernel with the types that training uses, on data of the smallest size."""
    batch = Batch.stack([Split(torch.zeros(2, 1, 2).expand(-1, 3, -1), torch.zeros(2, dtype=torch.int64))], [0])
    surrogate_gradient(batch)
    srm = Network(2, (2, 2), 2, SRMParameters())
    SimulatedChip(srm, [FaultSpec()], [0]).run(torch.zeros(1, srm.parameters), batch.inputs, batch.index)
    glm(batch)
    local_learning()
    probabilistic()
    feedback(batch)
    maps()
    recordings()


def surrogate_gradient(batch: Batch) -> None:
    """Blocks of Metropolis-Hastings, and gradients for a device's spikes."""
    network = Network(2, (2,), 2)
    weights = torch.zeros(1, 1, network.parameters)
    keys = torch.zeros(1, 1, dtype=torch.int64)
    step = torch.ones(1, 1, dtype=torch.float64)
    for noise in (0.0, 1.0):  # compiled blocks, and blocks that measure on the chip
        chip = SimulatedChip(network, [FaultSpec(severity=1.0, read_noise=noise)], [0])
        chains = Chains(weights, log_likelihood(chip, weights, batch), step, torch.zeros_like(keys))
        run_block(chip, batch, chains, keys, 0, 1, Target(1.0, 1.0, 0.5))
    two, pair = torch.zeros(2, network.parameters), batch._replace(index=torch.zeros(2, dtype=torch.int64))
    for spec in (FaultSpec(), FaultSpec(severity=1.0, drop=0.5)):  # simulated at once, and step by step
        device = SimulatedChip(network, [spec] * 2, [0, 1])
        spikes = device.run(two, pair.inputs, pair.index)
        bptt.loss_gradient(network, two, pair, bptt.Model.of(device.nominal), "gaussian", spikes)


def glm(batch: Batch) -> None:
    """Runs, and one time step, of stochastic neurons."""
    network = Network(2, (1,), 1, GLMParameters())
    chip, weights = SimulatedChip(network, [FaultSpec()], [0]), torch.zeros(1, network.parameters)
    chip.evaluate(weights[:, None], batch.inputs, batch.index)
    chip.session(weights, 1).advance(batch.inputs[:, :1, 0])


def local_learning() -> None:
    """Presentations with an update at each time step, and relaxed samples of weights."""
    network, index = Network(2, (2, 2), 1, SRMParameters()), torch.zeros(1, dtype=torch.int64)
    natural, readouts = torch.zeros(1, network.parameters), [torch.ones(1, 1, 2)] * 2
    present(
        network, Learning("logistic", "boxcar", 0, "bernoulli"), natural, readouts, torch.zeros(1, 1, 1, 2), index,
        torch.zeros(1, 1, 1), torch.ones(1), index,
    )  # fmt: skip
    weights, slope = relax(natural, Posterior(), index, 0)
    natural_step(natural, natural, weights, slope, torch.ones(1), Posterior())


def probabilistic() -> None:
    """A presentation to compartments, with an update at each time step."""
    network = Network(2, (2,), 2, GLMParameters())
    weights, shown = torch.zeros(1, network.parameters), torch.zeros(1, 3, 2)
    index = torch.zeros(1, dtype=torch.int64)
    compartments.present(network, Rule("mb", 2), weights, shown, shown, torch.ones(1), index)


def feedback(batch: Batch) -> None:
    """Average rates of a feedback network, and both ways of differentiating them."""
    network = feedback_network("1 (F1)", 2, (), 1, SoftResetParameters())
    chip, weights = SimulatedChip(network, [FaultSpec()], [0]), torch.zeros(1, network.parameters)
    mean = chip.rates(weights, batch.inputs, batch.index).mean
    factors, slope = torch.ones(1, 2, 2), torch.ones(1, 2, 1)
    chip.differentiate(weights, slope, factors, CoupleParameters(), 1)
    found = adjoint.broyden(network, weights, slope, factors).adjoint
    for errors in (found.float(), found):
        adjoint.gradient(network, errors, mean, batch.inputs[:, :, 0, :-1], errors)


def maps() -> None:
    """A layer through time, with batch norm, forward and backward."""
    network = feedback_network("1", 2, (), 1, LIFParameters())
    weights, ones, zeros = torch.ones(1, 1, 1, 1, requires_grad=True), torch.ones(1), torch.zeros(1)
    used = multistep.Parameters([weights], [ones], [zeros], torch.zeros(1, 1), ones)
    course = multistep.present(network, used, torch.ones(1, 1, 1), multistep.How("arctan", normalise=True))
    torch.autograd.grad(course.sent.sum() + course.moments[0].sum(), weights)


def recordings() -> None:
    """The camera, binning and decoding."""
    digit = camera.mnist_dvs(np.zeros((28, 28), np.uint8), 4, 0)
    camera.cifar10_dvs(np.zeros((32, 32, 3), np.uint8), 0)
    with TemporaryDirectory() as folder:
        for binary in (True, False):
            few = bin_events(digit, Binning(bins=1, span_us=1000, binary=binary))
            for frames in [few] if binary else [few, few + np.uint16(256)]:  # counts of one byte and of two
                part = Path(folder) / "part.npy"
                write_part(part, [frames])
                Frames([part], frames.shape, binary, constant=True).read([0])


if __name__ == "__main__":
    main()
