"""Layered networks and their second stage step by step, in double precision: what the kernels are held to.

Every fault acts here, those drawn anew at each use included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from spikebench.chip.faults import LayerDevice, compress
from spikebench.chip.feedback import couples, soft_reset
from spikebench.chip.protocol import Observation, Rates
from spikebench.chip.session import forced, transmit
from spikebench.layered_networks import LayeredNetwork, Link
from spikebench.neurons import (
    CoupleParameters,
    LIFParameters,
    LIFState,
    SoftResetParameters,
    couple_step,
    lif_step,
    soft_reset_step,
)

if TYPE_CHECKING:
    from spikebench.chip.simulated import SimulatedChip


class FeedbackSession:
    """One presentation, step by step, in double precision; every fault acts here (``protocol.Session``).

    Args:
        chip: of a feedback network.
        parameters: [B, P].
        samples: N.
        masks: [B, N, M + neurons of the first layer], see ``protocol.Chip.rates``.

    Attributes:
        spikes: [B, L] float64, sent by each layer so far.
    """

    def __init__(
        self, chip: SimulatedChip, parameters: torch.Tensor, samples: int, masks: torch.Tensor | None = None
    ) -> None:
        assert isinstance(chip.network, LayeredNetwork)
        self._chip, self.network = chip, chip.network
        self._events = chip.generators("events")
        widths = self.network.widths
        self._masks = None if masks is None else masks.split((*widths, widths[0]), dim=2)
        self._kept = [torch.zeros(chip.devices, samples, width, dtype=torch.float64) for width in widths]
        self._sent = [torch.zeros(chip.devices, samples, width) for width in widths]
        self._late = [torch.zeros(chip.devices, samples, width) for width in widths]
        self.spikes = torch.zeros(chip.devices, len(widths), dtype=torch.float64)
        chip.meter.presentations += samples
        self.program(parameters)

    def program(self, parameters: torch.Tensor) -> None:
        """New weights [B, P] from the next step on."""
        effective = self._chip.program(parameters[:, None])[:, 0].double()
        self._weights = [self.network.split(own) for own in effective]

    def advance(self, inputs: torch.Tensor, clamp: torch.Tensor | None = None) -> Observation:
        """One time step: layers in order without delay, the feedback one step late; see ``protocol.Session``.

        Raises:
            TypeError: outputs are to be clamped; they are not on the chip.
        """
        if clamp is not None:
            raise TypeError("a feedback network's read-out is not on the chip, so it cannot be clamped")
        chip, network = self._chip, self.network
        last, shown, potentials, fired = len(network.layers) - 1, inputs[..., :-1], [], []
        fed_back, signal = self._sent[last], shown
        for number, layer in enumerate(chip.device.layers):
            current = self._weigh(number, signal) + self._bias(number)
            if number in network.shortcuts:
                shortcut = network.shortcuts[number]
                current = current + self._weigh(shortcut, self._sent[network.links[shortcut].source])
            if self._masks is not None:
                current = current * self._masks[number]
            if number == 0 and network.feedback:
                back = self._weigh(len(network.links) - 1, fed_back)
                current = current + (back if self._masks is None else back * self._masks[-1])
            current = compress(current, layer.compression[:, None, None].double()) + spread(
                network, number, layer.offset
            )
            potential, spikes = self._neurons(number, current)
            potentials.append(potential.float())
            fired.append(spikes.sum(dim=(1, 2)))
            signal = self._sent[number] = self._transmit(spikes.float(), number)
        self.spikes += torch.stack(fired, dim=1)
        if chip.count_activity:
            chip.record(fired, (shown != 0).sum(dim=(1, 2)), inputs.shape[1])
        return Observation(tuple(self._sent), tuple(potentials))

    def _neurons(self, number: int, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Potentials before the reset, and spikes, [B, N, neurons]; what the layer keeps is set."""
        network, layer, kept = self.network, self._chip.device.layers[number], self._kept[number]
        on_map = _on_map(network, number, layer)
        if isinstance(network.neuron, LIFParameters):  # which leak what the reset leaves only in the next step
            lif = LIFParameters(*(spread(network, number, x) for x in (layer.decay, layer.threshold)))
            potential, spikes = lif_step(current, LIFState(kept, torch.zeros_like(kept)), lif)
            spikes = forced(on_map, spikes)
            self._kept[number] = potential * (1 - spikes)
            return potential, spikes
        constants = SoftResetParameters(*(spread(network, number, x) for x in soft_reset(network, layer)))
        state = soft_reset_step(current, kept, constants)
        spikes = forced(on_map, state.spikes)
        self._kept[number] = constants.leak * (state.potential - (constants.threshold - constants.rest) * spikes)
        return state.potential, spikes

    def _weigh(self, link: int, signal: torch.Tensor) -> torch.Tensor:
        """[B, N, neurons of the target]."""
        return weigh(self.network.links[link], [weights[link] for weights, _ in self._weights], signal)

    def _bias(self, number: int) -> torch.Tensor:
        """[B, 1, neurons]."""
        return spread(self.network, number, torch.stack([biases[number] for _, biases in self._weights]))

    def _transmit(self, spikes: torch.Tensor, layer: int) -> torch.Tensor:
        """What arrives of a layer's spikes, at the next layer, the first one and the read-out alike."""
        device = self._chip.device
        if self._chip.lossless or self.network.gates[layer]:
            return spikes
        draws = torch.stack([torch.rand((2, *spikes.shape[1:]), generator=g) for g in self._events])
        arriving, self._late[layer] = transmit(device, spikes, self._late[layer], draws)
        return arriving


def rates_by_steps(
    chip: SimulatedChip,
    parameters: torch.Tensor,
    inputs: torch.Tensor,
    index: torch.Tensor,
    masks: torch.Tensor | None = None,
) -> Rates:
    """What ``protocol.Chip.rates`` gives, through a session."""
    session = FeedbackSession(chip, parameters, inputs.shape[1], masks)
    network = session.network
    leak, total, weight = network.averaging, torch.zeros(()), 0.0
    for t in range(inputs.shape[2]):
        sent = torch.cat(session.advance(inputs[index, :, t]).spikes, dim=2)
        total, weight = leak * total + sent, leak * weight + 1.0
    fan_outs = torch.tensor(network.fan_outs, dtype=torch.float64)
    shown = torch.stack([(own[..., :-1] != 0).sum() for own in inputs])[index]
    return Rates(total / weight, session.spikes, session.spikes @ fan_outs[1:], shown * fan_outs[0])


def weigh(link: Link, weights: Sequence[torch.Tensor], signal: torch.Tensor, back: bool = False) -> torch.Tensor:
    """Sums [B, N, neurons] along a link, or against it; one call a device, which beside others keeps its bits."""
    from_coarse = link.upwards == back
    shown = signal.to(weights[0].dtype).unflatten(2, link.coarse if from_coarse else link.fine)
    act = link.send_back if back else link.send
    return torch.stack([act(x, w) for x, w in zip(shown, weights, strict=True)]).flatten(2)


def spread(network: LayeredNetwork, layer: int, values: torch.Tensor | float) -> torch.Tensor:
    """A value a channel [B, channels], or one number, as one a neuron [B, 1, neurons]."""
    values = torch.as_tensor(values).double()
    if values.dim() == 0:
        return values
    return values.repeat_interleave(network.positions[layer], dim=1)[:, None]


def _on_map(network: LayeredNetwork, number: int, layer: LayerDevice) -> LayerDevice:
    """With the fate of each neuron, [B, neurons]."""
    fates = (x.repeat_interleave(network.positions[number], dim=1) for x in (layer.silent, layer.saturated))
    silent, saturated = fates
    return layer._replace(silent=silent, saturated=saturated)


def differentiate_by_steps(
    chip: SimulatedChip,
    weights: torch.Tensor,
    current: torch.Tensor,
    factors: torch.Tensor,
    couple: CoupleParameters,
    steps: int,
) -> Rates:
    """What ``differentiate`` computes, step by step in double precision; here spikes may be lost or late.

    Args:
        chip: whose devices they are.
        weights: [B, P] that act.
        current: see ``protocol.Chip.differentiate``, as the rest.
        factors: likewise.
        couple: likewise.
        steps: likewise.
    """
    network, device = chip.network, chip.device
    assert isinstance(network, LayeredNetwork)
    links = [network.split(own.double())[0] for own in weights]
    last, events = len(network.layers) - 1, chip.generators("events")
    scale = factors.double().split((*network.widths, network.widths[0]), dim=2)
    zeros = [torch.zeros(*current.shape[:2], width, dtype=torch.float64) for width in network.widths]
    kept, sent, late, total = list(zeros), list(zeros), list(zeros), list(zeros)
    spikes, weight = torch.zeros(len(weights), len(zeros), dtype=torch.float64), 0.0
    for _ in range(steps):
        weight = float(couple.leak) * weight + 1.0
        for number in range(last, -1, -1):
            layer = device.layers[number]
            above = number + 1 if number < last else -1
            drive = current.double() if number == last else zeros[number]
            if number < last or network.feedback:
                signal = sent[number + 1 if number < last else 0] * scale[above]
                drive = drive + weigh(network.links[above], [own[above] for own in links], signal, back=True)
            drive = compress(drive, layer.compression[:, None, None].double()) + spread(network, number, layer.offset)
            constants = CoupleParameters(*(spread(network, number, x) for x in couples(network, layer, couple)))
            state, on_map = couple_step(drive, kept[number], constants), _on_map(network, number, layer)
            positive = constants.amplitude.expand_as(state.spikes)  # type: ignore[union-attr]
            own = torch.where(
                on_map.silent[:, None], 0.0, torch.where(on_map.saturated[:, None], positive, state.spikes)
            )
            kept[number] = constants.leak * (state.potential - own)
            spikes[:, number] += (own != 0).sum(dim=(1, 2))
            if not chip.lossless:
                draws = torch.stack([torch.rand((2, *own.shape[1:]), generator=g) for g in events])
                own, late[number] = transmit(device, own, late[number], draws, positive)
            sent[number] = own
            total[number] = float(couple.leak) * total[number] + own
    rates = torch.cat([summed / weight for summed in total], dim=2).float()
    fan_outs = torch.zeros(len(zeros), dtype=torch.float64)
    for link in network.links[1:]:
        fan_outs[link.target] = link.operations / network.widths[link.target]
    return Rates(rates, spikes, spikes @ fan_outs, torch.zeros(len(weights), dtype=torch.float64))
