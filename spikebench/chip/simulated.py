"""Simulated devices: compiled kernels, or the session where LIF or SRM networks lose spikes or have convolutions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property

import numpy as np
import torch

from spikebench.chip import feedback, feedback_session, glm, kernels, srm
from spikebench.chip.faults import Device, FaultSpec, draw_device, effective_weights
from spikebench.chip.kept import Kept
from spikebench.chip.protocol import Meter, Rates, Session
from spikebench.chip.session import SimulatedSession
from spikebench.data import is_constant
from spikebench.layered_networks import LayeredNetwork
from spikebench.networks import Network, binary
from spikebench.neurons import CoupleParameters, GLMParameters, LIFParameters, SRMParameters
from spikebench.seeds import seed


class SimulatedChip:
    """B simulated devices, each with its own faults (implements ``protocol.Chip``).

    Args:
        network: what runs on every device.
        specs: the faults of each device.
        chip_seeds: which device each is; equal seeds are the same device.
        binary_inputs: whether input lines carry spikes; real-valued ones are metered as multiply-accumulates.
        read_seeds: of what each device draws anew after training; its own seed where they are not given.

    Attributes:
        srm: whether the neurons are SRM neurons.
        glm: whether they are GLM neurons.
        feedback: whether it is one of ``layered_networks``, with feedback or without.
        lossless: whether all spikes arrive, and in time.
        stage: names the part of a run, so that what is drawn anew in testing does not repeat training's draws.
        count_activity: whether spikes and operations are metered beside presentations; training has no use for them.
    """

    def __init__(
        self,
        network: Network,
        specs: Sequence[FaultSpec],
        chip_seeds: Sequence[int],
        binary_inputs: bool = False,
        read_seeds: Sequence[int] | None = None,
    ) -> None:
        self.network = network
        self.specs = tuple(specs)
        self.chip_seeds = tuple(chip_seeds)
        self.binary_inputs = binary_inputs
        self.read_seeds = tuple(chip_seeds if read_seeds is None else read_seeds)
        self.srm = isinstance(network.neuron, SRMParameters)
        self.glm = isinstance(network.neuron, GLMParameters)
        self.meter = Meter.zero(len(specs))
        self.count_activity = True
        self.stage = "training"
        # Decided by the fault family, whatever the severity: a cell takes the same path, and gets the same bits, alone
        # and beside cells of other severities.
        self.lossless = not any(spec.drop or spec.jitter for spec in specs)
        self.feedback = isinstance(network, LayeredNetwork)
        self._compiled = self.glm or (self.lossless and not network.convolutions and not self.feedback)
        steady = self.lossless and not any(spec.programming_noise or spec.read_noise for spec in specs)
        self.deterministic = steady and not self.glm
        self._uses: Counter[str] = Counter()

    def history(self) -> tuple[list[torch.Tensor], dict[str, int]]:
        """What the meter counted, in the order of its fields, and how often what was drawn: all that changes in use."""
        return [getattr(self.meter, part.name) for part in fields(Meter)], dict(self._uses)

    def restore(self, counts: Sequence[torch.Tensor], uses: Mapping[str, int]) -> None:
        """Become the devices that had this ``history``."""
        self.meter, self._uses = Meter(*counts), Counter(uses)

    @property
    def devices(self) -> int:
        """B."""
        return len(self.specs)

    @cached_property
    def device(self) -> Device:
        """What deviates, drawn when first asked for: off-chip, a shard's devices are tested a family at a time."""
        return draw_device(self.network, self.specs, self.chip_seeds)

    def repeat(self, times: int) -> SimulatedChip:
        """The same devices for ``times`` as many cells, cell-major."""
        return self.of([b for b in range(self.devices) for _ in range(times)])

    def of(self, devices: Sequence[int]) -> SimulatedChip:
        """Some of the devices, a device as often as it is named, as if they had never been used."""
        parts = [[own[b] for b in devices] for own in (self.specs, self.chip_seeds, self.read_seeds)]
        return SimulatedChip(self.network, parts[0], parts[1], self.binary_inputs, parts[2])  # type: ignore[arg-type]

    def ideal(self, devices: int) -> SimulatedChip:
        """``devices`` devices without any fault: the software model."""
        return SimulatedChip(self.network, [FaultSpec()] * devices, [0] * devices, self.binary_inputs)

    @cached_property
    def flat(self) -> Flat:
        """The devices as the kernels of LIF networks take them."""
        return Flat(self.network, self.device)

    @cached_property
    def _flat_srm(self) -> srm.Flat:
        return srm.Flat(self.network, self.device)

    @cached_property
    def _flat_glm(self) -> glm.Flat:
        return glm.Flat(self.network, self.device)

    @cached_property
    def _flat_feedback(self) -> feedback.Flat:
        if not isinstance(self.network, LayeredNetwork):
            raise TypeError("only a LayeredNetwork has average rates")
        return feedback.Flat(self.network, self.device)

    @cached_property
    def nominal(self) -> Device:
        """The ideal device, B times."""
        return draw_device(self.network, [FaultSpec()] * self.devices, self.chip_seeds)

    @property
    def knowledge(self) -> Device:
        """The true deviations."""
        return self.device

    def evaluate(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Output counts [B, C, N, O] of candidates [B, C, P]; see ``protocol.Chip``.

        Raises:
            TypeError: the read-out is not on the chip: of SRM neurons, and of layered networks but those of LIF neurons
                whose last layer are the outputs.
        """
        outputs, last = self.network.outputs, self.network.widths[-1]
        counting = isinstance(self.network.neuron, LIFParameters) and last == outputs
        if self.srm or (self.feedback and not counting):
            kind = "an SRM network" if self.srm else "this layered network"
            raise TypeError(f"{kind} has no output counts: its read-outs belong to the method")
        if self.feedback:
            rates = [self.rates(parameters[:, c], inputs, index).mean for c in range(parameters.shape[1])]
            counts = (torch.stack(rates, dim=1)[..., -outputs:] * inputs.shape[2]).round()
        elif self.glm:
            counts = self._count_glm(parameters, inputs, index)
        elif self._compiled:
            counts = self._simulate(parameters, inputs, index, keep=False)[0][..., -outputs:]
        else:
            candidates = [self.run(parameters[:, c], inputs, index)[-1].sum(dim=2) for c in range(parameters.shape[1])]
            counts = torch.stack(candidates, dim=1)
        return self.read(counts)

    def read(self, values: torch.Tensor) -> torch.Tensor:
        """Values [B, ...] with fresh read noise; see ``protocol.Chip``."""
        if not bool(self.device.read_noise.any()):
            return values
        noise = torch.stack([torch.randn(values.shape[1:], generator=g) for g in self.generators("read_noise")])
        return values + self.device.read_noise.view(-1, *[1] * (values.dim() - 1)) * noise

    def run(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
        """All spikes, one [B, N, T, neurons] a layer, of parameters [B, P]; see ``protocol.Chip``."""
        if self._compiled:
            if self.srm:
                return self._simulate_srm(parameters, inputs, index)
            if self.glm:
                spikes = self._simulate_glm(parameters, inputs, index, self._keys_glm(), keep=True).spikes
                return list(spikes.split(self.network.widths, dim=-1))
            _, spikes = self._simulate(parameters[:, None], inputs, index, keep=True)
            return list(spikes.split([o for o, _ in self.network.shapes], dim=-1))
        session = self.session(parameters, inputs.shape[1])
        kind = torch.bool if self.srm or self.feedback else torch.float32
        steps = [[s.to(kind) for s in session.advance(inputs[index, :, t]).spikes] for t in range(inputs.shape[2])]
        return [torch.stack(layer, dim=2) for layer in zip(*steps, strict=True)]

    def likelihood(
        self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, targets: torch.Tensor, runs: int
    ) -> torch.Tensor:
        """Log-probabilities [B, runs, N] of targets [R, N, T, O], of parameters [B, P]; see ``protocol.Chip``.

        Raises:
            TypeError: the neurons are not GLM neurons.
        """
        if not self.glm:
            raise TypeError("only spikes of GLM neurons have a likelihood")
        return self._simulate_glm(parameters, inputs, index, self._keys_glm(), runs, targets=targets).likelihood

    def rates(
        self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, masks: torch.Tensor | None = None
    ) -> Rates:
        """Average rates of parameters [B, P]; see ``protocol.Chip``.

        Raises:
            TypeError: it is not a feedback network.
        """
        flat, samples = self._flat_feedback, inputs.shape[1]
        if not self.lossless or flat.network.shortcuts:
            return feedback_session.rates_by_steps(self, parameters, inputs, index, masks)
        found = feedback.run(flat, self.program(parameters[:, None])[:, 0], inputs, index, masks)
        self.meter.presentations += samples
        if self.count_activity:
            of_layers = zip(found.spikes.unbind(dim=1), self.network.gates, strict=True)
            self.meter.spikes += sum(count for count, gate in of_layers if not gate)
            self.meter.synaptic_operations += found.operations + samples * inputs.shape[2] * self.network.always_on
            shown = self.meter.synaptic_operations if self.binary_inputs else self.meter.input_operations
            shown += found.input_operations
        return found

    def differentiate(
        self,
        parameters: torch.Tensor,
        current: torch.Tensor,
        factors: torch.Tensor,
        couple: CoupleParameters,
        steps: int,
    ) -> Rates:
        """The second stage on the devices; see ``protocol.Chip``. Weights are programmed anew.

        Raises:
            TypeError: it is not a feedback network, or one of LIF neurons or with gates.
        """
        flat = self._flat_feedback
        if flat.hard or any(self.network.gates):
            raise TypeError("only networks of neurons with reset by subtraction alone have a second stage")
        weights = self.program(parameters[:, None])[:, 0]
        if self.lossless:
            return feedback.differentiate(flat, weights, current, factors, couple, steps)
        return feedback_session.differentiate_by_steps(self, weights, current, factors, couple, steps)

    def session(self, parameters: torch.Tensor, samples: int, number: int | None = None) -> Session:
        """Begin a presentation; see ``protocol.Chip``."""
        if self.glm:
            return glm.GLMSession(self, parameters, samples, number)
        if self.feedback:
            return feedback_session.FeedbackSession(self, parameters, samples)
        return SimulatedSession(self, parameters, samples)

    def keys(self, effect: str, number: int | None = None) -> list[int]:
        """Fresh 63-bit keys, one a device, of the next use; the same in every batch that the device stands in.

        Uses are counted for each effect, unless a presentation has a number: what else its neighbours draw must not
        shift a device's own draws.
        """
        chips = self.chip_seeds if self.stage == "training" else self.read_seeds
        if number is not None:
            return [seed(chip=c, effect=effect, presentation=number, stage=self.stage) for c in chips]
        self._uses[effect] += 1
        use = self._uses[effect]
        return [seed(chip=c, effect=effect, use=use, stage=self.stage) for c in chips]

    def generators(self, effect: str) -> list[torch.Generator]:
        """Fresh randomness a device and use, of ``keys``."""
        return [torch.Generator().manual_seed(key) for key in self.keys(effect)]

    def program(self, parameters: torch.Tensor) -> torch.Tensor:
        """Effective weights [B, C, P] of programmed weights [B, C, P], with fresh programming noise."""
        if self.network.weight_bits == 1:
            parameters = binary(parameters)
        noise = None
        if bool(self.device.programming_noise.any()):
            draws = [torch.randn(parameters.shape[1:], generator=g) for g in self.generators("programming_noise")]
            noise = self.network.unpack(torch.stack(draws) * self.device.programming_noise[:, None, None])
        weights = [
            effective_weights(w, layer, self.device.levels, noise[index] if noise else None)
            for index, (w, layer) in enumerate(zip(self.network.unpack(parameters), self.device.layers, strict=True))
        ]
        effective = torch.cat([w.flatten(2) for w in weights], dim=-1)
        return effective.masked_fill_(~self.network.connected, 0.0) if self.glm else effective

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
            totals = torch.from_numpy(counts.sum(axis=(1, 2), dtype=np.float64))
            parts = totals.split([o for o, _ in self.network.shapes], dim=1)
            self.record(
                [part.sum(dim=1) for part in parts], candidates * active(inputs)[index], candidates * samples * steps
            )
        self.meter.presentations += candidates * samples
        if keep:
            spikes = spikes[:, 0].transpose(0, 1, 4, 3, 2).reshape(devices, -1, steps, neurons)[:, :samples]
        return torch.from_numpy(counts), torch.from_numpy(spikes)

    def _simulate_srm(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
        """Spikes [B, N, T, neurons] bool a layer."""
        weights = self.program(parameters[:, None])[:, 0]
        spikes, shown = srm.run(self.network, self._flat_srm, weights, inputs, index)
        samples, steps = inputs.shape[1:3]
        if self.count_activity:
            # NumPy counts truths many times as fast as torch.
            totals = [torch.tensor([np.count_nonzero(own) for own in layer.numpy()]) for layer in spikes]
            self.record(totals, shown[index], samples * steps)
        self.meter.presentations += samples
        return spikes

    def _count_glm(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Output counts [B, C, N, O] of candidates [B, C, P]."""
        candidates, keys = parameters.shape[1], self._keys_glm()
        # Runs of one network share what its inputs add; one that is programmed anew each time is another each time.
        same = parameters.stride(1) == 0 and not bool(self.device.programming_noise.any())
        runs = candidates if same else 1
        counts = [
            self._simulate_glm(parameters[:, c], inputs, index, keys, runs, first=c).counts
            for c in range(0, candidates, runs)
        ]
        return torch.cat(counts, dim=1)

    def _keys_glm(self) -> np.ndarray:
        return np.array([self.keys("neurons"), self.keys("events")], np.int64).T.copy()

    def _simulate_glm(
        self,
        parameters: torch.Tensor,
        inputs: torch.Tensor,
        index: torch.Tensor,
        keys: np.ndarray,
        runs: int = 1,
        first: int = 0,
        targets: torch.Tensor | None = None,
        keep: bool = False,
    ) -> glm.Runs:
        """Runs of parameters [B, P] that are programmed once; see ``glm.run``."""
        samples, steps = inputs.shape[1:3]
        weights = self.program(parameters[:, None])[:, 0]
        result = glm.run(self.network, self._flat_glm, weights, inputs, index, keys, runs, first, targets, keep)
        if self.count_activity:
            self.record(result.totals, runs * result.shown[index], runs * samples * steps)
        self.meter.presentations += runs * samples
        return result

    def record(
        self, spikes: Sequence[torch.Tensor], shown: torch.Tensor, steps: int, sent: Sequence[torch.Tensor] = ()
    ) -> None:
        """Add to the meter.

        Args:
            spikes: [B] of each layer.
            shown: [B] inputs other than 0.
            steps: of all samples.
            sent: [B] spikes that leave each layer, where they are not all of them: a square of a pool sends one.
        """
        fan_outs, gates = self.network.fan_outs, self.network.gates
        weighed = shown.double() * fan_outs[0]
        self.meter.synaptic_operations += weighed if self.binary_inputs else 0
        self.meter.input_operations += 0 if self.binary_inputs else weighed
        self.meter.synaptic_operations += steps * self.network.always_on
        for count, leaving, fan_out, gate in zip(spikes, sent or spikes, fan_outs[1:], gates, strict=True):
            self.meter.spikes += 0 if gate else count
            self.meter.synaptic_operations += leaving * fan_out


def active(inputs: torch.Tensor) -> torch.Tensor:
    """How many of inputs [R, N, T, I] are not 0, [R]; an expanded current is looked at once."""
    if is_constant(inputs):
        return (inputs[:, :, 0] != 0).sum(dim=(1, 2)) * inputs.shape[2]
    return (inputs != 0).sum(dim=(1, 2, 3))


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


#: Inputs [R, N, T, I] as the kernels of LIF networks take them, [R, K, T or 1, I, W], padded with silent samples.
tile = Kept(_tile)


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
