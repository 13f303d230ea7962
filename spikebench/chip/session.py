"""One presentation to simulated devices, step by step: what the compiled kernels are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spikebench.chip.faults import Device, LayerDevice, compress
from spikebench.chip.protocol import Observation
from spikebench.convolutions import pool, split, weigh
from spikebench.neurons import LIFParameters, LIFState, SRMParameters, SRMState, lif_step, srm_step

if TYPE_CHECKING:
    from spikebench.chip.simulated import SimulatedChip


class SimulatedSession:
    """One presentation; every fault acts here, those drawn anew at each use included."""

    def __init__(self, chip: SimulatedChip, parameters: torch.Tensor, samples: int) -> None:
        self._chip = chip
        self._events = chip.generators("events")
        network = chip.network
        zeros = [
            torch.zeros(chip.devices, samples * positions, neurons)
            for (neurons, _), positions in zip(network.shapes, network.positions, strict=True)
        ]
        self._states: list[LIFState | SRMState] = [
            SRMState(z, z, z, z, z) if chip.srm else LIFState(z, z) for z in zeros
        ]
        self._late = [torch.zeros(chip.devices, samples, width) for width in network.widths]
        chip.meter.presentations += samples
        self.program(parameters)

    def program(self, parameters: torch.Tensor) -> None:
        """New weights [B, P] from the next step on."""
        effective = self._chip.program(parameters[:, None])[:, 0]
        network = self._chip.network
        # A matrix product sums in another order beside other devices; rounding from double precision hides it.
        kind = torch.float32 if network.convolutions else torch.float64
        self._weights = [split(network, weights.to(kind)) for weights in network.unpack(effective)]

    def advance(self, inputs: torch.Tensor, clamp: torch.Tensor | None = None) -> Observation:
        """One time step of all layers, in order and without delay between them; see ``protocol.Session``."""
        chip, last = self._chip, len(self._weights) - 1
        if clamp is not None and chip.srm:
            raise TypeError("an SRM network's outputs are not on the chip, so they cannot be clamped")
        signal = inputs[..., :-1] if chip.srm else inputs
        shown, seen, sent = signal, [], []
        for index, ((weights, _), layer) in enumerate(zip(self._weights, chip.device.layers, strict=True)):
            weighed = weigh(chip.network, index, signal.to(weights.dtype), weights).float()
            state = self._neurons(index, weighed)
            spikes = forced(layer, state.spikes)
            if clamp is not None and index == last:
                spikes = clamp
            self._states[index] = state._replace(spikes=spikes)
            sent.append(spikes := pool(chip.network, index, spikes))
            if chip.srm:  # a layer's read-out hears what the next layer hears
                signal = self._transmit(spikes, index)
            elif index < last:
                arriving = self._transmit(spikes, index)
                signal = torch.cat([arriving, torch.ones_like(arriving[..., :1])], dim=-1)
            seen.append(signal if chip.srm else spikes)
        if chip.count_activity:
            fired = [state.spikes for state in self._states]
            totals, leaving = ([x.sum(dim=(1, 2), dtype=torch.float64) for x in each] for each in (fired, sent))
            chip.record(totals, (shown != 0).sum(dim=(1, 2)), inputs.shape[1], leaving)
        return Observation(tuple(seen), tuple(state.potential for state in self._states))

    def _neurons(self, index: int, weighed: torch.Tensor) -> LIFState | SRMState:
        """The layer's next state for its weighted inputs, before its spikes are overridden."""
        layer, state = self._chip.device.layers[index], self._states[index]
        decay, threshold = layer.decay[:, None], layer.threshold[:, None]

        def distort(current: torch.Tensor) -> torch.Tensor:
            return compress(current, layer.compression[:, None, None]) + layer.offset[:, None]

        if isinstance(state, LIFState):
            return lif_step(distort(weighed), state, LIFParameters(decay, threshold))
        constants = SRMParameters(decay, layer.synapse_decay[:, None], layer.refractory_decay[:, None], threshold)
        biases = self._weights[index][1]
        return srm_step(weighed, state, constants, self._chip.network.scales[index], distort, biases)

    def _transmit(self, spikes: torch.Tensor, layer: int) -> torch.Tensor:
        """What arrives of a layer's spikes: some are lost, some come one step late."""
        device = self._chip.device
        if not bool(device.drop.any() or device.jitter.any()):
            return spikes
        draws = torch.stack([torch.rand((2, *spikes.shape[1:]), generator=g) for g in self._events])
        arriving, self._late[layer] = transmit(device, spikes, self._late[layer], draws)
        return arriving


def forced(layer: LayerDevice, spikes: torch.Tensor) -> torch.Tensor:
    """Spikes [B, N, neurons], but those of dead and saturated neurons."""
    return torch.where(layer.silent[:, None], 0.0, torch.where(layer.saturated[:, None], 1.0, spikes))


def transmit(
    device: Device,
    spikes: torch.Tensor,
    late: torch.Tensor,
    draws: torch.Tensor,
    height: torch.Tensor | float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What arrives of spikes [B, N, neurons], and what of them is late; two that arrive at once count as one.

    Args:
        device: B devices.
        spikes: that set out.
        late: of the step before.
        draws: [B, 2, N, neurons], uniform: whether each is lost, and whether late.
        height: of a spike; a positive and a negative one that arrive at once are none.
    """
    sent = spikes * (draws[:, 0] >= device.drop[:, None, None])
    delayed = sent * (draws[:, 1] < device.jitter[:, None, None])
    limit = torch.as_tensor(height, dtype=spikes.dtype)
    return ((sent - delayed) + late).clamp(-limit, limit), delayed
