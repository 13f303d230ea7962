"""Why memorisation differs from the authors' notebook (arXiv 2102.03280): the same training on sparser recordings.

The sizes of the notebook (IW, K = 5, two hidden neurons, three filters, eta = kappa = 0.05, five presentations of a 1),
on the recording of the experiment and on the same with a share of its events removed at random. Prints bound and
probability of a wrong bit in each presentation, means over six starts, above what the notebook printed.

    python benchmarks/gem_snn_notebook.py
"""

from __future__ import annotations

import json

import torch

from spikebench import config, plugins, preparation
from spikebench.compartments import Rule, Shown, present
from spikebench.networks import Network
from spikebench.neurons import GLMParameters
from spikebench.paths import project_root

KEPT = (1.0, 0.75, 0.5, 0.25)
STARTS, PRESENTATIONS, RATE = 6, 5, 0.05
NOTEBOOK = {"bound": [-3995, -1700, -924, -567, -438], "wrong bits": [0.113, 0.051, 0.034, 0.022, 0.017]}
SETTINGS = {"classes": [1], "polarity": False, "halves": True, "training": 10, "test": 10}


def recording() -> tuple[torch.Tensor, torch.Tensor]:
    """The experiment's inputs [T, I] with the constant line, and targets [T, O]."""
    root = project_root()
    chosen = config.load(root, {})
    kind = preparation.kind("mnist_dvs", chosen)
    source = preparation.source("mnist_dvs", kind, chosen)
    module = plugins.load("datasets", "mnist_dvs", root)
    settings = module.Settings(kind=kind, source=source, training_size=1, **SETTINGS)
    module.prepare(settings, 2, print)
    part = module.load(settings).train
    return part.inputs[0], part.targets[0]


def curve(inputs: torch.Tensor, targets: torch.Tensor) -> list[Shown]:
    """What each presentation was like, of ``STARTS`` networks."""
    network = Network(inputs.shape[1], (2,), targets.shape[1], GLMParameters(filters=3))
    uniform = torch.rand((STARTS, network.parameters), generator=torch.Generator().manual_seed(0))
    weights = 0.1 * (2 * uniform - 1) * network.connected
    shown, clamps = (x.expand(STARTS, -1, -1) for x in (inputs, targets))
    rates = torch.full((STARTS,), RATE)
    keys = [torch.arange(STARTS) + STARTS * n for n in range(PRESENTATIONS)]
    return [present(network, Rule("iw", 5), weights, shown, clamps, rates, key) for key in keys]


def main() -> None:
    """Print a block for each share of the events."""
    inputs, targets = recording()
    generator = torch.Generator().manual_seed(0)
    for share in KEPT:
        kept = [x * (torch.rand(x.shape, generator=generator) < share) for x in (inputs, targets)]
        kept[0][:, -1] = 1
        told = curve(*kept)
        print(f"{share:.0%} of the events, {kept[1].mean():.1%} of the target's bits are spikes:")
        print("  bound in nats   ", "  ".join(f"{float(shown.bound.mean()):9,.0f}" for shown in told))
        print("  wrong bits      ", "  ".join(f"{float(shown.bit_error.mean()):9.3f}" for shown in told))
    print("the authors' notebook:", json.dumps(NOTEBOOK))


if __name__ == "__main__":
    main()
