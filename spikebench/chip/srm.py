"""SRM networks on simulated devices: what the compiled kernel takes and gives."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from spikebench.chip import srm_kernel
from spikebench.chip.faults import Device
from spikebench.chip.kept import Kept
from spikebench.data import is_constant
from spikebench.networks import Network


class Events(NamedTuple):
    """Inputs that are not 0, see ``srm_kernel.collect``; rows are splits, samples and time steps.

    Attributes:
        starts: [R * N * (1 or T) + 1].
        lines: of each event.
        values: of each event.
        constant: whether there is one row for all time steps.
    """

    starts: np.ndarray
    lines: np.ndarray
    values: np.ndarray
    constant: bool

    def number(self, samples: int, steps: int) -> np.ndarray:
        """How many there are in each split's ``samples`` and ``steps``, [R]."""
        counts: np.ndarray = np.diff(self.starts[:: samples * (1 if self.constant else steps)])
        return counts * (steps if self.constant else 1)


class Flat:
    """A device as the kernel takes it: one array a quantity over all neurons of all layers."""

    def __init__(self, network: Network, device: Device) -> None:
        layers = device.layers
        never, always = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        names = ("decay", "synapse_decay", "refractory_decay", "threshold", "offset")
        neurons = {name: torch.cat([getattr(layer, name) for layer in layers], dim=1) for name in names}
        silent, saturated = (torch.cat([getattr(x, n) for x in layers], dim=1) for n in ("silent", "saturated"))
        neurons["threshold"] = torch.where(silent, never, torch.where(saturated, always, neurons["threshold"]))
        self.shapes = np.array(network.shapes, dtype=np.int64)
        self.constants = torch.stack(list(neurons.values()), dim=1).numpy()
        self.scales = np.array(network.scales, dtype=np.float32)
        self.kappa = torch.stack([layer.compression for layer in layers], dim=1).numpy()


def run(
    network: Network, flat: Flat, weights: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Spikes and how much came in.

    Args:
        network: of SRM neurons.
        flat: the B devices.
        weights: [B, P] that act.
        inputs: [R, N, T, I] with the constant line, which is left out.
        index: [B].

    Returns:
        Spikes [B, N, T, neurons] bool a layer, and the number of inputs that are not 0, [R].
    """
    samples, steps = inputs.shape[1:3]
    shapes = [(len(weights), samples, steps, neurons) for neurons, _ in network.shapes]
    spikes = np.empty(sum(math.prod(shape) for shape in shapes), np.bool_)
    shown = events(inputs)
    by_line = torch.cat([w.mT.flatten(1) for w in network.unpack(weights)], dim=1).numpy()
    srm_kernel.run(
        by_line, index.numpy(), *shown,
        flat.shapes, flat.constants, flat.scales, flat.kappa, samples, steps, spikes,
    )  # fmt: skip
    parts = torch.from_numpy(spikes).split([math.prod(shape) for shape in shapes])
    layers = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    return layers, torch.from_numpy(shown.number(samples, steps))


def _events(inputs: torch.Tensor) -> Events:
    constant = is_constant(inputs)
    rows = np.ascontiguousarray((inputs[:, :, :1] if constant else inputs).numpy())
    starts, lines, values = srm_kernel.collect(rows.reshape(-1, rows.shape[3]), rows.shape[3] - 1)
    return Events(starts, lines, values, constant)


#: Inputs [R, N, T, I] as the kernel takes them, the constant line left out.
events = Kept(_events)
