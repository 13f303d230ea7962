"""From what a trained method predicts to the numbers of its row."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from spikebench import metrics
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Probe, SpikeData
from spikebench.seeds import seed
from spikebench.sweep import Cell

#: 45 nm CMOS, 32-bit floating point (Horowitz, ISSCC 2014): an addition a synaptic operation, a multiply-accumulate an
#: operation on a real-valued input. In picojoules.
ADDITION_PJ, MULTIPLY_ACCUMULATE_PJ = 0.9, 4.6
#: Steps of a training run that are kept as a trace.
TRACE_POINTS = 50
#: Of so many runs the likelihood is averaged, as far as there are as many.
RUNS = (1, 2, 5, 10, 20, 50, 100)

Row = dict[str, Any]


def _majority(data: SpikeData) -> int:
    """The most frequent class of the learner's examples: equal votes go to it."""
    return int(np.bincount(data.labelled.targets.numpy()).argmax())


def measure(values: torch.Tensor, data: SpikeData, cell: Cell) -> Row:
    """Metrics of probabilities [S, N, C], outputs [S, N, 1] or spikes [S, N, T, O] against the test targets."""
    size = {"test_size": float(len(data.test.targets))}
    if data.task != "classification":
        return size | _error(values, data)
    p, labels, majority = values.double().numpy(), data.test.targets.numpy(), _majority(data)
    row: Row = metrics.classification_metrics(p, labels, majority, seed(purpose="null-band", cell=cell.id))
    mean = p.mean(axis=0)
    diagram = metrics.reliability(mean.max(axis=1), metrics.decide(mean, majority) == labels)
    return (
        row | size | {"reliability": json.dumps({name: _plain(values) for name, values in diagram._asdict().items()})}
    )


def accuracy(values: torch.Tensor, data: SpikeData) -> float:
    """Share of test examples that probabilities [S, N, C] decide rightly by their mean."""
    return metrics.accuracy(values.double().numpy(), data.test.targets.numpy(), _majority(data))


def scores(values: torch.Tensor, data: SpikeData, cell: Cell, name: str) -> dict[str, float]:
    """Accuracy, proper scores and calibration of another estimator; where values or spikes are learnt, its error.

    Args:
        values: as those of ``measure``.
        data: with the test targets.
        cell: whose estimator it is.
        name: the estimator's.
    """
    if data.task != "classification":
        return _error(values, data)
    p, labels, majority = values.double().numpy(), data.test.targets.numpy(), _majority(data)
    confidence, correct = metrics.decided(p, labels, majority)
    bits = seed(purpose="null-band", cell=cell.id, estimator=name)
    null_low, null_high = metrics.ece_null_band(confidence, 15, seed=bits)
    return {
        "accuracy": metrics.accuracy(p, labels, majority),
        "nll": metrics.negative_log_likelihood(p, labels),
        "brier": metrics.brier(p, labels),
        "ece_width_15": metrics.expected_calibration_error(confidence, correct, 15),
        "ece_width_20": metrics.expected_calibration_error(confidence, correct, 20),
        "ece_null_low": null_low,
        "ece_null_high": null_high,
    }


def _error(values: torch.Tensor, data: SpikeData) -> dict[str, float]:
    """Root mean squared error of the samples' mean of outputs [S, N, 1]; share of wrong bits of spikes [S, N, T, O]."""
    if data.task == "sequence":
        return {"bit_error": float((values.float() - data.test.targets).abs().mean(dtype=torch.float64))}
    return {"rmse": float((values.double().mean(dim=0) - data.test.targets).square().mean().sqrt())}


def log_likelihood(scores: torch.Tensor, runs: int) -> torch.Tensor:
    """log((1/s) sum exp) over blocks of s ``runs`` of log-likelihoods [..., S, N], averaged over blocks and examples.

    Returns:
        [...], in nats. One run a block is a lower bound of many, on average. What is left of the S is not looked at.
    """
    blocks = scores.shape[-2] // runs
    of_blocks: torch.Tensor = scores[..., : blocks * runs, :].unflatten(-2, (blocks, runs)).logsumexp(dim=-2)
    return of_blocks.mean(dim=(-2, -1)) - math.log(runs)


def likelihoods(scores: torch.Tensor) -> dict[str, dict[str, float]]:
    """Of log-likelihoods [S, N]: as estimates by one run, two, ..., as far as there are as many."""
    return {
        f"likelihood-{runs}": {"log_likelihood": float(log_likelihood(scores, runs))}
        for runs in RUNS
        if runs <= len(scores)
    }


def outputs(values: torch.Tensor, probe: Probe) -> str:
    """The answer at a probe as JSON: mean and standard deviation over the samples, of the output or of P(class 1).

    Args:
        values: outputs [S, G, 1] or probabilities [S, G, 2].
        probe: where they were asked for.
    """
    said = values[..., -1].double()
    document = {
        "axes": probe.axes,
        "mean": _rounded(said.mean(dim=0)),
        "sd": _rounded(said.std(dim=0, correction=0)),
        "seen": _rounded(probe.seen),
    }
    if probe.targets is not None:
        document["targets"] = _rounded(probe.targets)
    return json.dumps(document)


def raster(spikes: torch.Tensor, targets: torch.Tensor) -> str:
    """The first example's target and the first run's answer as JSON: bits packed by ``numpy.packbits``, in base 64.

    Args:
        spikes: [S, N, T, O].
        targets: [N, T, O].
    """

    def packed(bits: torch.Tensor) -> str:
        return base64.b64encode(np.packbits(bits.numpy() > 0.5).tobytes()).decode()

    shape = list(targets.shape[1:])
    return json.dumps({"shape": shape, "target": packed(targets[0]), "generated": packed(spikes[0, 0])})


def _rounded(values: torch.Tensor) -> Any:
    return np.round(values.double().numpy(), 3).tolist()


def cost(chip: SimulatedChip, b: int, decisions: int) -> Row:
    """Activity and energy a decision, from a chip that has done nothing but predict the test set."""
    additions = float(chip.meter.synaptic_operations[b]) / decisions
    multiplications = float(chip.meter.input_operations[b]) / decisions
    return {
        "spikes": float(chip.meter.spikes[b]) / decisions,
        "synaptic_operations": additions + multiplications,
        "energy_pj": additions * ADDITION_PJ + multiplications * MULTIPLY_ACCUMULATE_PJ,
    }


def diagnostics(found: Mapping[str, torch.Tensor], b: int) -> str:
    """Cell b's diagnostics as JSON: numbers, or lists of them to four digits after the point."""
    return json.dumps(
        {name: v[b].item() if v.dim() == 1 else v[b].double().numpy().round(4).tolist() for name, v in found.items()}
    )


def finite(tensors: Iterable[torch.Tensor], cells: int) -> list[bool]:
    """For each cell, whether all numbers of its state and its predictions, each [B, ...], are finite."""
    all_finite = torch.ones(cells, dtype=torch.bool)
    for tensor in tensors:
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
