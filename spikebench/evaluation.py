"""From what a trained method predicts to the numbers of its row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from spikebench import metrics
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import SpikeData
from spikebench.seeds import seed
from spikebench.sweep import Cell

#: 45 nm CMOS, 32-bit floating point (Horowitz, ISSCC 2014): an addition a synaptic operation, a multiply-accumulate an
#: operation on a real-valued input. In picojoules.
ADDITION_PJ, MULTIPLY_ACCUMULATE_PJ = 0.9, 4.6
#: Steps of a training run that are kept as a trace.
TRACE_POINTS = 50

Row = dict[str, Any]


def _majority(data: SpikeData) -> int:
    """The most frequent class of the learner's examples: equal votes go to it."""
    return int(np.bincount(data.labelled.targets.numpy()).argmax())


def measure(probabilities: torch.Tensor, data: SpikeData, cell: Cell) -> Row:
    """Metrics of probabilities [S, N, C] against the test targets."""
    p, labels, majority = probabilities.double().numpy(), data.test.targets.numpy(), _majority(data)
    row: Row = metrics.classification_metrics(p, labels, majority, seed(purpose="null-band", cell=cell.id))
    mean = p.mean(axis=0)
    diagram = metrics.reliability(mean.max(axis=1), metrics.decide(mean, majority) == labels)
    return row | {
        "test_size": float(len(labels)),
        "reliability": json.dumps({name: _plain(values) for name, values in diagram._asdict().items()}),
    }


def scores(probabilities: torch.Tensor, data: SpikeData) -> dict[str, float]:
    """Accuracy and proper scores of another estimator."""
    p, labels = probabilities.double().numpy(), data.test.targets.numpy()
    return {
        "accuracy": metrics.accuracy(p, labels, _majority(data)),
        "nll": metrics.negative_log_likelihood(p, labels),
        "brier": metrics.brier(p, labels),
    }


def cost(chip: SimulatedChip, b: int, decisions: int) -> Row:
    """Activity and energy a decision, from a chip that has done nothing but predict the test set."""
    additions = float(chip.meter.synaptic_operations[b]) / decisions
    multiplications = float(chip.meter.input_operations[b]) / decisions
    return {
        "spikes": float(chip.meter.spikes[b]) / decisions,
        "synaptic_operations": additions + multiplications,
        "energy_pj": additions * ADDITION_PJ + multiplications * MULTIPLY_ACCUMULATE_PJ,
    }


def finite(state: Any, cells: int) -> list[bool]:
    """For each cell, whether all numbers of the state are finite."""
    all_finite = torch.ones(cells, dtype=torch.bool)
    for tensor in state:
        if tensor.is_floating_point() and tensor.dim() > 0:
            all_finite &= tensor.reshape(cells, -1).isfinite().all(dim=1)
    return [bool(f) for f in all_finite]


def thin(traces: Mapping[str, torch.Tensor], b: int) -> list[dict[str, Any]]:
    """At most ``TRACE_POINTS`` points of each trace, long form."""
    points = []
    for name, values in traces.items():
        mine = values[:, b].double().reshape(len(values), -1)
        stride = -(-len(mine) // TRACE_POINTS)
        for step in range(stride - 1, len(mine), stride):
            for chain, value in enumerate(mine[step].tolist()):
                points.append({"name": name, "chain": chain, "step": step + 1, "value": value})
    return points


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
