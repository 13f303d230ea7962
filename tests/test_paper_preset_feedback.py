"""The networks of SPIDE's authors start in the preset of the papers' sizes: each method takes one step, and predicts.

Networks, pictures and settings are those of the preset; there is one example, and few time steps and solver iterations.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from project import CHECKOUT

from spikebench import config, plugins
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo
from spikebench.method import Task
from spikebench.seeds import Streams
from spikebench.sweep import Cell, make_plan

CONFIG = config.load(CHECKOUT, {"preset": "paper", "experiments": ["spide"]})
SWEEPS = ("mnist", "mnist-lenet", "mnist-dvs", "cifar10", "cifar10-large", "cifar100", "cifar100-large", "cifar10-dvs")
CELLS = {
    f"{planned.sweeps} {planned.cell.method}": planned.cell
    for planned in make_plan(CONFIG).planned
    if planned.sweeps in SWEEPS
}
LAYOUTS = {
    "mnist": (1, 28, 28), "mnist_dvs": (2, 26, 26), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32),
    "cifar10_dvs": (2, 48, 48),
}  # fmt: skip
STEPS = 8


def test_the_sizes_are_those_of_the_code() -> None:
    found = {
        (c.dataset, json.loads(c.network)["architecture"], c.training_size, json.loads(c.settings)["epochs"])
        for c in CELLS.values()
    }
    alex, large = "96C3s-256C3-384C3s-384C3-256C3 (F96C3u)", "128C3s-256C3-512C3s-1024C3-512C3 (F128C3u)"
    assert found == {
        ("mnist", "64C5s-64C5s-64C5 (F64C3u)", 54210, 100),
        ("mnist", "15C5-P2-40C5-P2-300", 54210, 60),
        ("mnist_dvs", "64C5s-64C5s-64C5 (F64C3u)", 9000, 100),
        *((dataset, net, 50000, 100) for dataset in ("cifar10", "cifar100") for net in (alex, large)),
        ("cifar10_dvs", "512C9s (F512C5)", 9000, 70),
    }
    by_spikes = {
        c.dataset: json.loads(c.settings).get("backward_steps", 100) for c in CELLS.values() if c.method == "spide"
    }
    assert by_spikes == {"mnist": 100, "mnist_dvs": 250, "cifar10": 250, "cifar100": 250, "cifar10_dvs": 250}
    scales = {c.dataset: json.loads(c.settings)["loss_scale"] for c in CELLS.values()}
    assert scales == {"mnist": 100, "mnist_dvs": 100, "cifar10": 400, "cifar100": 500, "cifar10_dvs": 400}
    frames = json.loads(CELLS["cifar10-dvs spide"].data_settings)
    assert (frames["bins"], frames["equal"], frames["side"]) == (30, "count", 48)


def shown(cell: Cell) -> tuple[DataInfo, Batch]:
    """One random picture, or as many frames of random spikes."""
    layout = LAYOUTS[cell.dataset]
    lines, events = torch.Size(layout).numel() + 1, cell.dataset.endswith("dvs")
    generator = torch.Generator().manual_seed(0)
    if events:
        inputs = (torch.rand((1, 1, STEPS, lines), generator=generator) < 0.1).float()
    else:
        inputs = torch.randn((1, 1, 1, lines), generator=generator).expand(-1, -1, STEPS, -1)
    outputs = 100 if cell.dataset == "cifar100" else 10
    info = DataInfo("classification", lines, outputs, STEPS, events, layout)
    return info, Batch(inputs, torch.tensor([[3]]), torch.tensor([0]))


@pytest.mark.parametrize("name", CELLS)
def test_it_starts(name: str) -> None:
    cell = CELLS[name]
    method = plugins.load("methods", cell.method, CHECKOUT)
    info, batch = shown(cell)
    settings = method.Settings(**CONFIG.method_settings(cell.method, json.loads(cell.settings)))
    few = {"iterations": 2} if cell.method == "ide" else {"backward_steps": STEPS} if cell.method == "spide" else {}
    network = method.network(info, json.loads(cell.network), "")
    chip = SimulatedChip(network, [FaultSpec()], [0], info.binary_inputs)
    choice = {parameter: torch.tensor(values) for parameter, values in settings.SEARCH.items()}
    # One example of a minibatch of 128 has as large a slope as all of them; it need not wait for the learning rate.
    few |= {"loss_scale": settings.loss_scale / settings.minibatch, "warm_up": 0}
    task = Task(network, info, replace(settings, **few), cell.mode, choice, rounds=1)
    start = method.init(task, batch, chip, Streams((1,)))
    before = start.weights.clone()
    state, told = method.step(task, start, batch, chip, Streams((1,)))
    for moved, (neurons, inputs) in zip(network.unpack(state.weights - before), network.shapes, strict=True):
        assert moved.isfinite().all()
        assert moved.any() or neurons * inputs == 0, "each layer of trained weights learns"
    assert told.traces["train_loss"].isfinite().all()
    found = method.predict(task, state, batch.inputs, batch.index, chip)
    torch.testing.assert_close(found.probabilities.sum(dim=3), torch.ones(1, 1, 1))
