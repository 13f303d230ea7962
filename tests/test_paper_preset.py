"""The preset of the papers' own sizes starts: each training of BiSNN and GEM-SNN learns once, and predicts.

Networks, time steps and settings are those of the preset; only examples are few, and an ensemble is one network.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from project import CHECKOUT

from spikebench import config, plugins, training
from spikebench.chip.faults import FaultSpec
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, DataInfo
from spikebench.method import Task
from spikebench.seeds import Streams
from spikebench.sweep import Cell, make_plan

CONFIG = config.load(CHECKOUT, {"preset": "paper"})
BISNN, GEM = (plugins.load("methods", name, CHECKOUT) for name in ("bisnn", "gem_snn"))
PLAN = make_plan(CONFIG)
EXAMPLES = 2


def trainings(method: ModuleType, of: str) -> dict[str, Cell]:
    """Of every shard of an experiment one cell, by sweep, training and what the arm sets."""
    return {
        f"{cells[0].sweeps} {method.VARIANTS[cells[0].cell.variant]} {shard}": cells[0].cell
        for (experiment, shard), cells in PLAN.shards.items()
        if experiment == of
    }


TRAININGS = trainings(BISNN, "bisnn")
COMPARTMENTS = trainings(GEM, "gem_snn")


def recordings(cell: Cell) -> tuple[DataInfo, Batch]:
    """Random spikes in the frames that the recordings of a cell would have; of halves, targets are the next ones."""
    module = plugins.load("datasets", "mnist_dvs", CHECKOUT)
    given = module.Settings(**json.loads(cell.data_settings))
    binning = module.recordings(replace(given, halves=False)).binning
    channels, height, width = layout = binning.frame_shape()
    if given.halves:
        layout = (channels, height // 2, width)
    lines = torch.Size(layout).numel() + 1
    shown = (torch.rand((1, EXAMPLES, binning.bins, lines), generator=torch.Generator().manual_seed(0)) < 0.03).float()
    shown[..., -1] = 1
    if given.halves:
        info = DataInfo("sequence", lines, lines - 1, binning.bins, True, layout)
        return info, Batch(shown[:, :1], shown[:, 1:, :, :-1], torch.tensor([0]))
    info = DataInfo("classification", lines, 10, binning.bins, True, layout)
    return info, Batch(shown, torch.tensor([[3, 7]]), torch.tensor([0]))


def points(cell: Cell) -> tuple[DataInfo, Batch]:
    data = training._load(CHECKOUT, cell.dataset, cell.data_settings, 0, cell.training_size)
    return training.describe(data), Batch.stack([data.labelled[torch.arange(EXAMPLES)]], [0])


def test_the_sizes_are_the_papers() -> None:
    found = {(c.dataset, c.network, c.training_size, json.loads(c.settings)["epochs"]) for c in TRAININGS.values()}
    assert found == {
        ("mnist_dvs", '{"convolutions":[[64,7,2],[128,7,1],[128,7,2]]}', 9000, 500),
        ("two_moons", '{"hidden":[256,256]}', 200, 5000),
        ("regression_1d", '{"hidden":[128,128]}', 60, 5000),
    }
    assert CONFIG.preset["data"]["mnist_dvs"] == {"training": 9000, "test": 1000}


#: A baseline whose steps are those of the rules, some seconds of them.
LONG = "recordings full-precision"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n.startswith(LONG) else ()) for n in TRAININGS]
)
def test_it_starts(name: str) -> None:
    cell = TRAININGS[name]
    trained = BISNN.VARIANTS[cell.variant]
    info, batch = recordings(cell) if cell.dataset == "mnist_dvs" else points(cell)
    assert (info.steps, round(info.steps * 0.25)) == (400, 100) or cell.dataset != "mnist_dvs"
    settings = BISNN.Settings(**CONFIG.method_settings("bisnn", json.loads(cell.settings)))
    network = training.network(BISNN, info, json.loads(cell.network), trained)
    chip = SimulatedChip(network, [FaultSpec()], [0], info.binary_inputs)
    choice = {parameter: torch.tensor(values[:1]) for parameter, values in settings.SEARCH.items()}
    task = Task(network, info, replace(settings, ensemble=1), cell.mode, choice, trained)
    start = BISNN.init(task, batch, chip, Streams((1,)))
    state, told = BISNN.step(task, start._replace(natural=start.natural.clone()), batch, chip, Streams((1,)))
    for moved in network.unpack(state.natural - start.natural):
        assert moved.isfinite().all()
        assert moved.any(), "each layer learns"
    assert told.traces["train_loss"].isfinite().all()
    variant = "bayes-ensemble" if trained == "bayes" else trained
    asked = replace(task, variant=variant)
    found = BISNN.predict(asked, state, batch.inputs[:, :1], batch.index, chip)
    values = found.outputs if info.task == "regression" else found.probabilities
    assert values.shape == (1, 1, 1, info.outputs)
    assert values.isfinite().all()
    if info.task == "classification":
        torch.testing.assert_close(values.sum(dim=3), torch.ones(values.shape[:3]))


def test_the_sizes_of_gem_snn() -> None:
    found = {(c.dataset, c.network, c.training_size) for c in COMPARTMENTS.values()}
    assert found == {
        ("mnist_dvs", '{"hidden":[256]}', 9000),
        ("mnist_dvs", '{"hidden":[256],"output_feedback":false}', 9000),
        ("mnist_dvs", '{"filters":3,"hidden":[2]}', 1),
    }


@pytest.mark.parametrize("name", COMPARTMENTS)
def test_gem_snn_starts(name: str) -> None:
    cell = COMPARTMENTS[name]
    info, batch = recordings(cell)
    one = Batch(batch.inputs[:, :1], batch.targets[:, :1], batch.index)
    settings = replace(
        GEM.Settings(**CONFIG.method_settings("gem_snn", json.loads(cell.settings))), inference=1, scored=1
    )
    network = training.network(GEM, info, json.loads(cell.network), cell.variant)
    chip = SimulatedChip(network, [FaultSpec()], [0], info.binary_inputs)
    choice = {parameter: torch.tensor(values[:1]) for parameter, values in settings.SEARCH.items()}
    task = Task(network, info, settings, cell.mode, choice, cell.variant)
    start = GEM.init(task, one, chip, Streams((1,)))
    state, told = GEM.step(task, start._replace(weights=start.weights.clone()), one, chip, Streams((1,)))
    for moved in network.unpack(state.weights - start.weights):
        assert moved.isfinite().all()
        assert moved.any(), "each layer learns"
    assert told.traces["log_likelihood"].isfinite().all()
    found = GEM.predict(task, state, one.inputs, one.index, chip)
    shape = (1, 1, 1, info.steps, info.outputs) if info.task == "sequence" else (1, 1, 1, 10)
    assert (found.outputs if info.task == "sequence" else found.probabilities).shape == shape
    assert GEM.score(task, state, one.inputs, one.targets, one.index, chip).isfinite().all()
