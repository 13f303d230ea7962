"""Simulated devices: the compiled kernel where no spike gets lost or late, the step-by-step session otherwise."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from spikebench.chip import kernels
from spikebench.chip.faults import Device, FaultSpec, compress, draw_device, effective_weights
from spikebench.chip.protocol import Meter, Observation
from spikebench.data import is_constant
from spikebench.networks import Network
from spikebench.neurons import LIFParameters, LIFState, lif_step
from spikebench.seeds import seed


class SimulatedChip:
    """B simulated devices, each with its own faults (implements ``protocol.Chip``).

    Args:
        network: what runs on every device.
        specs: the faults of each device.
        chip_seeds: which device each is; equal seeds are the same device.
        binary_inputs: whether input lines carry spikes; real-valued ones are metered as multiply-accumulates.

    Attributes:
        stage: names the part of a run, so that what is drawn anew in testing does not repeat training's draws.
        count_activity: whether spikes and operations are metered beside presentations; training has no use for them.
    """

    def __init__(
        self, network: Network, specs: Sequence[FaultSpec], chip_seeds: Sequence[int], binary_inputs: bool = False
    ) -> None:
        self.network = network
        self.specs = tuple(specs)
        self.chip_seeds = tuple(chip_seeds)
        self.binary_inputs = binary_inputs
        self.device = draw_device(network, specs, chip_seeds)
        self.flat = Flat(network, self.device)
        self.meter = Meter.zero(len(specs))
        self.count_activity = True
        self.stage = "training"
        # Decided by the fault family, whatever the severity: a cell takes the same path, and gets the same bits, alone
        # and beside cells of other severities.
        self._compiled = not any(spec.drop or spec.jitter for spec in specs)
        self.deterministic = self._compiled and not any(spec.programming_noise or spec.read_noise for spec in specs)
        self._uses: Counter[str] = Counter()

    @property
    def devices(self) -> int:
        """B."""
        return len(self.specs)

    def repeat(self, times: int) -> SimulatedChip:
        """The same devices for ``times`` as many cells, cell-major."""
        specs = [s for s in self.specs for _ in range(times)]
        return SimulatedChip(
            self.network, specs, [s for s in self.chip_seeds for _ in range(times)], self.binary_inputs
        )

    def ideal(self, devices: int) -> SimulatedChip:
        """``devices`` devices without any fault: the software model."""
        return SimulatedChip(self.network, [FaultSpec()] * devices, [0] * devices, self.binary_inputs)

    @cached_property
    def nominal(self) -> Device:
        """The ideal device, B times."""
        return draw_device(self.network, [FaultSpec()] * self.devices, self.chip_seeds)

    @property
    def knowledge(self) -> Device:
        """The true deviations."""
        return self.device

    def evaluate(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Output counts [B, C, N, O] of candidates [B, C, P]; see ``protocol.Chip``."""
        if self._compiled:
            counts = self._simulate(parameters, inputs, index, keep=False)[0][..., -self.network.outputs :]
        else:
            candidates = [self.run(parameters[:, c], inputs, index)[-1].sum(dim=2) for c in range(parameters.shape[1])]
            counts = torch.stack(candidates, dim=1)
        if not bool(self.device.read_noise.any()):
            return counts
        noise = [torch.randn(counts.shape[1:], generator=g) for g in self._generators("read_noise")]
        return counts + self.device.read_noise[:, None, None, None] * torch.stack(noise)

    def run(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
        """All spikes, one [B, N, T, neurons] a layer, of parameters [B, P]; see ``protocol.Chip``."""
        if self._compiled:
            _, spikes = self._simulate(parameters[:, None], inputs, index, keep=True)
            return list(spikes.split([o for o, _ in self.network.shapes], dim=-1))
        session = self.session(parameters, inputs.shape[1])
        steps = [session.advance(inputs[index, :, t]).spikes for t in range(inputs.shape[2])]
        return [torch.stack(layer, dim=2) for layer in zip(*steps, strict=True)]

    def session(self, parameters: torch.Tensor, samples: int) -> SimulatedSession:
        """Begin a presentation; see ``protocol.Chip``."""
        return SimulatedSession(self, parameters, samples)

    def _generators(self, effect: str) -> list[torch.Generator]:
        """Fresh randomness a device and use, the same in every batch that the device stands in.

        Uses are counted for each effect: what else its neighbours draw must not shift a device's own draws.
        """
        self._uses[effect] += 1
        use = self._uses[effect]
        return [
            torch.Generator().manual_seed(seed(chip=c, effect=effect, use=use, stage=self.stage))
            for c in self.chip_seeds
        ]

    def program(self, parameters: torch.Tensor) -> torch.Tensor:
        """Effective weights [B, C, P] of programmed weights [B, C, P], with fresh programming noise."""
        noise = None
        if bool(self.device.programming_noise.any()):
            draws = [torch.randn(parameters.shape[1:], generator=g) for g in self._generators("programming_noise")]
            noise = self.network.unpack(torch.stack(draws) * self.device.programming_noise[:, None, None])
        weights = [
            effective_weights(w, layer, self.device.levels, noise[index] if noise else None)
            for index, (w, layer) in enumerate(zip(self.network.unpack(parameters), self.device.layers, strict=True))
        ]
        return torch.cat([w.flatten(2) for w in weights], dim=-1)

    def _simulate(
        self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, keep: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts [B, C, N, M] and, to keep, spikes [B, N, T, M] of the first candidate."""
        samples, steps = inputs.shape[1], inputs.shape[2]
        tiles = tile(inputs)
        devices, candidates = parameters.shape[:2]
        neurons, width = self.flat.threshold.shape[1], tiles.shape[-1]
        shape = (devices, candidates, tiles.shape[1])
        counts = np.empty((*shape, neurons, width), np.float32)
        spikes = np.empty((*shape, neurons, steps, width) if keep else (0,) * 6, np.float32)
        weights = np.ascontiguousarray(self.program(parameters).numpy())
        kernels.evaluate(weights, index.numpy(), tiles, *self.flat.arrays, steps, counts, spikes)
        counts = counts.transpose(0, 1, 2, 4, 3).reshape(devices, candidates, -1, neurons)[:, :, :samples]
        if self.count_activity:
            self.record(torch.from_numpy(counts.sum(axis=(1, 2), dtype=np.float64)), inputs, index, candidates)
        self.meter.presentations += candidates * samples
        if keep:
            spikes = spikes[:, 0].transpose(0, 1, 4, 3, 2).reshape(devices, -1, steps, neurons)[:, :samples]
        return torch.from_numpy(counts), torch.from_numpy(spikes)

    def record(self, totals: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, times: int) -> None:
        """Add to the meter: each neuron's spikes [B, M] and the inputs that were shown ``times`` over."""
        shapes = self.network.shapes
        widths = [o for o, _ in shapes]
        fan_out = torch.tensor(
            [float(n) for width, n in zip(widths, [*widths[1:], 0], strict=True) for _ in range(width)]
        )
        samples, steps = inputs.shape[1:3]
        # Counting each sample of an expanded current once keeps the meter cheap beside the kernel.
        active = (
            (inputs[:, :, 0] != 0).sum(dim=(1, 2)) * steps if is_constant(inputs) else (inputs != 0).sum(dim=(1, 2, 3))
        )
        shown = active[index].double() * times * widths[0]
        always_on = times * samples * steps * sum(widths[1:])
        self.meter.spikes += totals.sum(dim=1)
        self.meter.synaptic_operations += totals @ fan_out.double() + always_on + (shown if self.binary_inputs else 0)
        self.meter.input_operations += 0 if self.binary_inputs else shown


class Flat:
    """A device as the kernels take it: one array a quantity over all neurons or synapses of all layers."""

    def __init__(self, network: Network, device: Device) -> None:
        def neurons(name: str) -> np.ndarray:
            return torch.cat([getattr(layer, name) for layer in device.layers], dim=1).numpy()

        def synapses(name: str) -> np.ndarray:
            return torch.cat([getattr(layer, name).flatten(1) for layer in device.layers], dim=1).numpy()

        self.shapes = np.array(network.shapes, dtype=np.int64)
        self.threshold = neurons("threshold")
        self.kappa = torch.stack([layer.compression for layer in device.layers], dim=1).numpy()
        fate = np.where(neurons("saturated"), 2, np.where(neurons("silent"), 1, 0)).astype(np.int8)
        self.arrays = (self.shapes, self.threshold, neurons("decay"), neurons("offset"), self.kappa, fate)
        self.synapses = (synapses("gain"), synapses("stuck"), synapses("stuck_value"), device.levels.numpy())


def tile(inputs: torch.Tensor) -> np.ndarray:
    """Inputs [R, N, T, I] as the kernels take them, [R, K, T or 1, I, W], padded with silent samples.

    The forward and the backward pass of a step ask for the same inputs: the last ones are kept, while they live.
    """
    global _last
    if _last is None or _last[0]() is not inputs or _last[1] != inputs._version:
        _last = (weakref.ref(inputs), inputs._version, _tile(inputs))
    return _last[2]


_last: tuple[weakref.ref[torch.Tensor], int, np.ndarray] | None = None


def _tile(inputs: torch.Tensor) -> np.ndarray:
    if is_constant(inputs):
        inputs = inputs[:, :, :1]
    splits, samples, steps, lines = inputs.shape
    count, width = _tiling(samples)
    tiles = inputs.numpy()
    if count * width != samples:
        tiles = np.zeros((splits, count * width, steps, lines), np.float32)
        tiles[:, :samples] = inputs.numpy()
    tiles = tiles.reshape(splits * count, width, steps * lines).transpose(0, 2, 1)
    return np.ascontiguousarray(tiles).reshape(splits, count, steps, lines, width)


def tile_labels(labels: torch.Tensor) -> np.ndarray:
    """Class labels [R, N] as the kernels take them, [R, K, W]; padding has class 0 and is not looked at."""
    splits, samples = labels.shape
    count, width = _tiling(samples)
    tiles = np.zeros((splits, count * width), np.int64)
    tiles[:, :samples] = labels.numpy()
    return tiles.reshape(splits, count, width)


def _tiling(samples: int) -> tuple[int, int]:
    """How many tiles, all of one width, hold so many samples with the least padding."""
    count = max(1, -(-samples // kernels.WIDEST))
    lanes = kernels.LANES
    return count, max(lanes, -(-samples // (count * lanes)) * lanes)


class SimulatedSession:
    """One presentation, step by step; every fault acts here, those drawn anew at each use included."""

    def __init__(self, chip: SimulatedChip, parameters: torch.Tensor, samples: int) -> None:
        self._chip = chip
        self._events = chip._generators("events")
        widths = [o for o, _ in chip.network.shapes]
        zeros = [torch.zeros(chip.devices, samples, width) for width in widths]
        self._states = [LIFState(z, z) for z in zeros]
        self._late = [torch.zeros_like(z) for z in zeros]
        chip.meter.presentations += samples
        self.program(parameters)

    def program(self, parameters: torch.Tensor) -> None:
        """New weights [B, P] from the next step on."""
        effective = self._chip.program(parameters[:, None])[:, 0]
        self._weights = self._chip.network.unpack(effective)

    def advance(self, inputs: torch.Tensor, clamp: torch.Tensor | None = None) -> Observation:
        """One time step of all layers, in order and without delay between them; see ``protocol.Session``."""
        signal, potentials = inputs, []
        last = len(self._weights) - 1
        for index, (weights, layer) in enumerate(zip(self._weights, self._chip.device.layers, strict=True)):
            if index > 0:
                arriving = self._transmit(self._states[index - 1].spikes, index - 1)
                signal = torch.cat([arriving, torch.ones_like(arriving[..., :1])], dim=-1)
            # A matrix product sums in another order beside other devices; rounding from double precision hides it.
            weighed = (signal.double() @ weights.double().mT).float()
            current = compress(weighed, layer.compression[:, None, None]) + layer.offset[:, None]
            constants = LIFParameters(layer.decay[:, None], layer.threshold[:, None])
            potential, spikes = lif_step(current, self._states[index], constants)
            spikes = torch.where(layer.silent[:, None], 0.0, torch.where(layer.saturated[:, None], 1.0, spikes))
            if clamp is not None and index == last:
                spikes = clamp
            self._states[index] = LIFState(potential, spikes)
            potentials.append(potential)
        spiked = tuple(state.spikes for state in self._states)
        if self._chip.count_activity:
            totals = torch.cat([s.sum(dim=1, dtype=torch.float64) for s in spiked], dim=1)
            self._chip.record(totals, inputs[:, :, None], torch.arange(len(inputs)), 1)
        return Observation(spiked, tuple(potentials))

    def _transmit(self, spikes: torch.Tensor, layer: int) -> torch.Tensor:
        """What arrives of a hidden layer's spikes: some are lost, some come one step late."""
        device = self._chip.device
        if not bool(device.drop.any() or device.jitter.any()):
            return spikes
        draws = torch.stack([torch.rand((2, *spikes.shape[1:]), generator=g) for g in self._events])
        sent = spikes * (draws[:, 0] >= device.drop[:, None, None])
        late = sent * (draws[:, 1] < device.jitter[:, None, None])
        arriving = ((sent - late) + self._late[layer]).clamp(max=1.0)
        self._late[layer] = late
        return arriving
