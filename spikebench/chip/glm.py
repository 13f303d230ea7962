"""GLM networks on simulated devices: what the compiled kernel takes and gives, and the session it is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from spikebench import number_kernels
from spikebench.chip import glm_kernel, srm
from spikebench.chip.faults import Device, compress
from spikebench.chip.protocol import Observation
from spikebench.chip.session import forced, transmit
from spikebench.networks import Network
from spikebench.neurons import GLMParameters, filtered, glm_spikes, raised_cosines

if TYPE_CHECKING:
    from spikebench.chip.simulated import SimulatedChip


class Flat:
    """A device as the kernel takes it: one array a quantity over all neurons, the hidden ones first."""

    def __init__(self, network: Network, device: Device) -> None:
        shifts = [layer.offset - layer.threshold for layer in device.layers]
        bound = [
            shift.masked_fill(layer.silent, -torch.inf).masked_fill(layer.saturated, torch.inf)
            for layer, shift in zip(device.layers, shifts, strict=True)
        ]
        self.filters = raised_cosines(_neuron(network)).numpy()
        self.free = torch.cat(bound, dim=1)
        self.clamped = torch.cat([bound[0], shifts[1]], dim=1)
        self.kappa = device.layers[0].compression.numpy()
        self.loss = torch.stack([device.drop, device.jitter], dim=1).numpy()


class Runs(NamedTuple):
    """What C runs on each of B devices give.

    Attributes:
        counts: [B, C, N, O], of the outputs.
        totals: [B] float64 a layer, all spikes that are sent.
        spikes: [B, N, T, H + O] bool, to keep them.
        likelihood: [B, C, N] float64, of targets.
        shown: [R], inputs that are not 0.
    """

    counts: torch.Tensor
    totals: tuple[torch.Tensor, torch.Tensor]
    spikes: torch.Tensor
    likelihood: torch.Tensor
    shown: torch.Tensor


def run(
    network: Network,
    flat: Flat,
    weights: torch.Tensor,
    inputs: torch.Tensor,
    index: torch.Tensor,
    keys: np.ndarray,
    runs: int,
    first: int = 0,
    targets: torch.Tensor | None = None,
    keep: bool = False,
) -> Runs:
    """C ``runs`` of one network a device.

    Args:
        network: of GLM neurons.
        flat: the B devices.
        weights: [B, P] that act.
        inputs: [R, N, T, I] with the constant line, which is left out.
        index: [B].
        keys: [B, 2], of the random numbers for spikes and for their losses.
        runs: C.
        first: number of the first run among those that draw from the same keys.
        targets: [R, N, T, O], what outputs are clamped to.
        keep: all spikes, of the one run.
    """
    devices, (samples, steps) = len(weights), inputs.shape[1:3]
    hidden, neurons = network.hidden[0], sum(network.widths)
    events = srm.events(inputs)
    clamps = None if targets is None else np.ascontiguousarray(targets.numpy(), np.float32)
    counts = np.empty((devices, runs, samples, network.outputs), np.float32)
    totals = np.empty((devices, neurons))
    spikes = np.empty((devices, samples, steps, neurons) if keep else (devices, 0, 0, 0), np.bool_)
    likelihood = np.zeros((devices, runs, samples) if targets is not None else (devices, 0, 0))
    counted = np.empty((runs, samples, neurons), np.float32)
    for d, split in enumerate(index.tolist()):
        by_line, biases = arrange(network, weights[d])
        shift = flat.free if clamps is None else flat.clamped
        glm_kernel.run(
            by_line.numpy(), flat.filters, hidden, (biases + shift[d]).numpy(), flat.kappa[d], flat.loss[d], keys[d],
            events.starts, events.lines, events.values, split * samples * (1 if events.constant else steps),
            events.constant, steps, np.empty((1, 0, 0), np.float32) if clamps is None else clamps[split], first,
            counted, spikes[d], likelihood[d],
        )  # fmt: skip
        counts[d] = counted[..., hidden:]
        totals[d] = counted.sum(axis=(0, 1), dtype=np.float64)
    of_layer = torch.from_numpy(totals).split([hidden, network.outputs], dim=1)
    return Runs(
        torch.from_numpy(counts),
        (of_layer[0].sum(dim=1), of_layer[1].sum(dim=1)),
        torch.from_numpy(spikes),
        torch.from_numpy(likelihood),
        torch.from_numpy(events.number(samples, steps)),
    )


def arrange(network: Network, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [P] as the kernel takes them, [lines, M, neurons], and biases [neurons]; lines not heard weigh 0."""
    layers = network.unpack(weights)
    filters, neurons = _neuron(network).filters, sum(network.widths)
    by_line = weights.new_zeros(network.inputs - 1 + neurons, filters, neurons)
    for layer, own in zip(layers, by_line.split(network.widths, dim=2), strict=True):
        heard = layer[:, :-1].unflatten(1, (-1, filters))
        own[: heard.shape[1]] = heard.permute(1, 2, 0)
    return by_line, torch.cat([layer[:, -1] for layer in layers])


class GLMSession:
    """One presentation, in double precision; every fault acts here (implements ``protocol.Session``)."""

    def __init__(self, chip: SimulatedChip, parameters: torch.Tensor, samples: int, number: int | None = None) -> None:
        self._chip = chip
        self._keys = {effect: chip.keys(effect, number) for effect in ("neurons", "events")}
        self._step = 0
        self._filters = raised_cosines(_neuron(chip.network))
        hidden, outputs = chip.network.widths
        lines = chip.network.inputs - 1 + hidden + outputs
        self._history = torch.zeros(chip.devices, samples, len(self._filters), lines, dtype=torch.float64)
        self._late = torch.zeros(chip.devices, samples, hidden)
        chip.meter.presentations += samples
        self.program(parameters)

    def program(self, parameters: torch.Tensor) -> None:
        """New weights [B, P] from the next step on."""
        self._weights = self._chip.network.unpack(self._chip.program(parameters[:, None])[:, 0].double())

    def advance(self, inputs: torch.Tensor, clamp: torch.Tensor | None = None) -> Observation:
        """One time step of all neurons at once, each from steps before alone; see ``protocol.Session``."""
        chip, samples = self._chip, inputs.shape[1]
        potentials = self._potentials()
        uniforms = self._uniform("neurons", samples, sum(chip.network.widths)).split(chip.network.widths, dim=-1)
        hidden, outputs = (
            forced(layer, glm_spikes(u.double() - layer.threshold[:, None], x.double()).float())
            for layer, u, x in zip(chip.device.layers, potentials, uniforms, strict=True)
        )
        if clamp is not None:
            outputs = clamp
        shown, arriving = inputs[..., :-1], hidden
        if bool(chip.device.drop.any() or chip.device.jitter.any()):
            draws = self._uniform("events", samples, 2 * hidden.shape[-1]).unflatten(-1, (2, -1)).transpose(1, 2)
            arriving, self._late = transmit(chip.device, hidden, self._late, draws)
        signal = torch.cat([shown, arriving, outputs], dim=-1).double()
        self._history = torch.cat([signal[:, :, None], self._history[:, :, :-1]], dim=2)
        self._step += 1
        if chip.count_activity:
            fired = [spikes.sum(dim=(1, 2), dtype=torch.float64) for spikes in (hidden, outputs)]
            chip.record(fired, (shown != 0).sum(dim=(1, 2)), samples)
        return Observation((hidden, outputs), potentials)

    def _potentials(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both layers' u, [B, N, neurons] each."""
        traces = filtered(self._history, self._filters).flatten(2)
        hidden, outputs = (
            (traces[..., : weights.shape[2] - 1] @ weights[..., :-1].mT, weights[:, None, :, -1])
            for weights in self._weights
        )
        layer = self._chip.device.layers[0]
        squeezed = compress(hidden[0], layer.compression[:, None, None].double()) + layer.offset[:, None]
        # A matrix product sums in another order beside other devices; rounding from double precision hides it.
        return (squeezed + hidden[1]).float(), (outputs[0] + outputs[1]).float()

    def _uniform(self, effect: str, samples: int, width: int) -> torch.Tensor:
        """This step's random numbers, [B, N, width]."""
        keys = self._keys[effect]
        numbers = np.empty((len(keys), samples * width), np.float32)
        for own, key in zip(numbers, keys, strict=True):
            number_kernels.uniforms(key, self._step, own)
        return torch.from_numpy(numbers).view(-1, samples, width)


def _neuron(network: Network) -> GLMParameters:
    assert isinstance(network.neuron, GLMParameters)
    return network.neuron
