"""The networks of arXiv 2304.13289 start in the preset of the papers' sizes: a step of training, and a prediction.

Networks and settings are those of the preset; there are two examples and two time steps.
"""

from __future__ import annotations

import json

import multistep_truth as truth
import pytest
import torch
from project import CHECKOUT

from spikebench import config, surrogate_training
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo
from spikebench.method import Task
from spikebench.seeds import Streams
from spikebench.sweep import Cell, make_plan

CONFIG = config.load(CHECKOUT, {"preset": "paper", "experiments": ["psg_pda"]})
RESNET = (
    "128C3-128C3-128C3+-128C3-128C3+-128C3-128C3+-256C3s-256C3+-256C3-256C3+-256C3-256C3+-512C3s-512C3+-512C3-512C3+"
    "-A256"
)
VGG = "64C3-64C3-M2-128C3-128C3-M2-256C3-256C3-256C3-M2-512C3-512C3-512C3-M2-512C3-512C3-512C3-M2-512-512"
NAMES = {RESNET: "ResNet-19", VGG: "VGG-16"}
LAYOUTS = {"mnist_dvs": (2, 26, 26), "cifar10": (3, 32, 32), "cifar10_dvs": (2, 48, 48)}
#: One of each data set and network.
CELLS: dict[str, Cell] = {}
for planned in make_plan(CONFIG).planned:
    if planned.sweeps in ("two-steps", "cifar10", "cifar10-dvs") and planned.cell.variant == "psg+pda":
        architecture = json.loads(planned.cell.network)["architecture"]
        CELLS.setdefault(f"{planned.cell.dataset} {NAMES.get(architecture, architecture)}", planned.cell)


def test_the_sizes_are_those_of_the_authors_earlier_code() -> None:
    assert set(CELLS) == {
        "mnist_dvs 64C3-M2-128C3-M2-256C3",
        *(f"{dataset} {name}" for dataset in ("cifar10", "cifar10_dvs") for name in NAMES.values()),
    }
    settings = [json.loads(cell.settings) for cell in CELLS.values()]
    assert {(own["epochs"], own["minibatch"], *own["learning_rates"]) for own in settings} == {(200, 64, 0.04)}


@pytest.mark.parametrize("name", CELLS)
def test_it_starts(name: str) -> None:
    cell = CELLS[name]
    layout, events = LAYOUTS[cell.dataset], cell.dataset.endswith("dvs")
    info = DataInfo("classification", torch.Size(layout).numel() + 1, 10, 2, events, layout)
    settings = truth.PSG.Settings(**CONFIG.method_settings(cell.method, json.loads(cell.settings)))
    network = truth.PSG.network(info, json.loads(cell.network), "")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((1, 2, 2 if events else 1, info.inputs), generator=generator).expand(-1, -1, 2, -1)
    batch = Batch((inputs > 1).float() if events else inputs, torch.tensor([[3, 7]]), torch.tensor([0]))
    chip = SimulatedChip(network, [FaultSpec()], [0], info.binary_inputs)
    choice = {parameter: torch.tensor(values) for parameter, values in settings.SEARCH.items()}
    task = Task(network, info, settings, cell.mode, choice, cell.variant, rounds=4)
    start = truth.PSG.init(task, batch, chip, Streams((1,)))
    before = start.vector[0, 0].clone()
    state, told = truth.PSG.step(task, start, batch, chip, Streams((1,)))
    assert told.traces["train_loss"].isfinite().all() and state.vector.isfinite().all()
    arranged = surrogate_training.layout(task)
    old, new = (arranged.split(vector) for vector in (before, state.vector[0, 0]))
    for one, other in zip(old.weights, new.weights, strict=True):
        assert (one != other).float().mean() > 0.1, "each layer learns, the first one too"
    assert (told.traces["rate"] > 0).all() and (new.log_sharpness != 0).any()
    found = truth.PSG.predict(task, state, batch.inputs[:, :1], batch.index, chip)
    torch.testing.assert_close(found.probabilities.sum(dim=3), torch.ones(1, 1, 1))
