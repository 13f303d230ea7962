"""Hardware faults: one frozen specification, and the deviations of one device drawn from it.

``docs/faults.md`` states each effect for each neuron model and what severity means in physical values. Deviations
depend on (chip seed, layer, effect) alone: all methods meet the same chips, and a chip of higher severity is the same
chip with larger deviations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

from spikebench.networks import Network
from spikebench.seeds import seed

#: Weights are programmed into [-FULL_SCALE, FULL_SCALE] when they are quantised or stuck.
FULL_SCALE = 4.0
#: No multiplicative deviation takes a quantity below this share of its nominal value.
FLOOR = 0.05
#: Retention: decades of time between programming and use.
DRIFT_DECADES = 4.0


@dataclass(frozen=True)
class FaultSpec:
    """Every effect's strength at severity 1, and the severity: the strength in force is their product.

    Attributes:
        severity: in [0, 1].
        gain_mismatch: synapse; standard deviation of a fixed gain around 1.
        programming_noise: synapse; standard deviation of a fresh additive error at each programming, weight units.
        quantisation: synapse; bits = round(8 - 7 strength), none at 0.
        stuck_at: synapse; probability of being stuck, half at 0, a quarter each at plus and minus full scale.
        drift: synapse; mean exponent nu of the power-law decay (t/t0)^-nu over four decades, sd 0.3 of it.
        threshold: neuron; standard deviation of the threshold as a fraction.
        time_constant: neuron; standard deviation of tau as a fraction, tau at least one step.
        offset: neuron, hidden layers; standard deviation of a constant input current.
        compression: neuron, hidden layers; kappa in I -> tanh(kappa I)/kappa.
        dead: neuron; probability of never spiking.
        saturated: neuron; probability of spiking at every step.
        drop: event; probability that a hidden layer's spike is lost on its way.
        jitter: event; probability that a hidden layer's spike arrives one step late.
        read_noise: read-out; standard deviation of the error of each read count.

    Raises:
        ValueError: a strength that is negative or not finite, or a probability or severity above 1.
    """

    severity: float = 0.0
    gain_mismatch: float = 0.0
    programming_noise: float = 0.0
    quantisation: float = 0.0
    stuck_at: float = 0.0
    drift: float = 0.0
    threshold: float = 0.0
    time_constant: float = 0.0
    offset: float = 0.0
    compression: float = 0.0
    dead: float = 0.0
    saturated: float = 0.0
    drop: float = 0.0
    jitter: float = 0.0
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        shares = ("severity", "quantisation", "stuck_at", "dead", "saturated", "drop", "jitter")
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:  # written so that NaN fails too
                raise ValueError(f"FaultSpec.{field.name}: found {value}, expected a number of at least 0")
            if field.name in shares and value > 1:
                raise ValueError(f"FaultSpec.{field.name}: found {value}, expected a number of at most 1")

    def strength(self, effect: str) -> float:
        """Severity times the effect's coefficient."""
        return float(self.severity * getattr(self, effect))

    @property
    def bits(self) -> int:
        """Resolution of a programmed weight; 0 means not quantised."""
        strength = self.strength("quantisation")
        return round(8 - 7 * strength) if strength > 0 else 0


class LayerDevice(NamedTuple):
    """What one layer of B devices does to its weights, currents and spikes.

    Attributes:
        gain: [B, O, I], programmed weight to effective weight, drift included.
        stuck: [B, O, I] bool, the synapse ignores its programmed weight.
        stuck_value: [B, O, I], the weight it shows instead (before the gain).
        threshold: [B, O].
        decay: [B, O].
        offset: [B, O], constant current.
        compression: [B], kappa; 0 is none.
        silent: [B, O] bool, dead neurons.
        saturated: [B, O] bool.
    """

    gain: torch.Tensor
    stuck: torch.Tensor
    stuck_value: torch.Tensor
    threshold: torch.Tensor
    decay: torch.Tensor
    offset: torch.Tensor
    compression: torch.Tensor
    silent: torch.Tensor
    saturated: torch.Tensor


class Device(NamedTuple):
    """B devices, layer by layer, with the effects that are drawn anew at each use.

    Attributes:
        layers: one ``LayerDevice`` a layer.
        levels: [B] int64, 2 to the power of the bits; 0 is not quantised.
        programming_noise: [B], standard deviation.
        drop: [B], probability.
        jitter: [B], probability.
        read_noise: [B], standard deviation.
    """

    layers: tuple[LayerDevice, ...]
    levels: torch.Tensor
    programming_noise: torch.Tensor
    drop: torch.Tensor
    jitter: torch.Tensor
    read_noise: torch.Tensor


def draw_device(network: Network, specs: Sequence[FaultSpec], chip_seeds: Sequence[int]) -> Device:
    """The devices that these specifications and seeds name, one for each of the B pairs."""
    devices = [_draw(network, spec, chip) for spec, chip in zip(specs, chip_seeds, strict=True)]
    layers = tuple(
        LayerDevice(*(torch.stack(parts) for parts in zip(*(layers[index] for layers in devices), strict=True)))
        for index in range(len(network.shapes))
    )

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return Device(
        layers=layers,
        levels=torch.tensor([2**s.bits if s.bits else 0 for s in specs]),
        programming_noise=column([s.strength("programming_noise") for s in specs]),
        drop=column([s.strength("drop") for s in specs]),
        jitter=column([s.strength("jitter") for s in specs]),
        read_noise=column([s.strength("read_noise") for s in specs]),
    )


def _draw(network: Network, spec: FaultSpec, chip: int) -> list[LayerDevice]:
    return [_draw_layer(network, spec, chip, layer) for layer in range(len(network.shapes))]


def _draw_layer(network: Network, spec: FaultSpec, chip: int, layer: int) -> LayerDevice:
    neurons, inputs = network.shapes[layer]
    hidden = layer < len(network.shapes) - 1

    def generator(effect: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed(chip=chip, layer=layer, effect=effect))

    def normal(effect: str, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator(effect))

    def uniform(effect: str, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator(effect))

    def factor(effect: str, *shape: int) -> torch.Tensor:
        """max(1 + sigma eps, 0.05): mismatch around the nominal value."""
        return (1 + spec.strength(effect) * normal(effect, *shape)).clamp(min=FLOOR)

    exponent = (spec.strength("drift") * (1 + 0.3 * normal("drift", neurons, inputs))).clamp(min=0)
    stuck = uniform("stuck_at", neurons, inputs) < spec.strength("stuck_at")
    place = torch.randint(0, 4, (neurons, inputs), generator=generator("stuck_value"))
    levels = torch.tensor([0.0, 0.0, FULL_SCALE, -FULL_SCALE])
    # One uniform number decides dead and saturated, so that no neuron is both while the probabilities sum to at most 1.
    fate = uniform("fate", neurons)
    tau = (factor("time_constant", neurons) / (1 - float(network.neuron.decay))).clamp(min=1.0)
    nominal = spec.strength("time_constant") == 0  # 1 - 1/tau would not give back the nominal decay bit for bit
    return LayerDevice(
        gain=factor("gain_mismatch", neurons, inputs) * 10.0 ** (-DRIFT_DECADES * exponent),
        stuck=stuck,
        stuck_value=levels[place],
        threshold=float(network.neuron.threshold) * factor("threshold", neurons),
        decay=torch.full((neurons,), float(network.neuron.decay)) if nominal else 1 - 1 / tau,
        offset=spec.strength("offset") * normal("offset", neurons) * hidden,
        compression=torch.tensor(spec.strength("compression") * hidden),
        silent=fate < spec.strength("dead"),
        saturated=fate > 1 - spec.strength("saturated"),
    )


def effective_weights(
    programmed: torch.Tensor, layer: LayerDevice, levels: torch.Tensor, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """Programmed weights [B, C, O, I] to the weights that act: quantise, add programming noise, stick, apply the gain.

    Args:
        programmed: the weights that were asked for.
        layer: of the B devices.
        levels: [B], quantisation levels over the full scale; 0 is none.
        noise: programming errors like ``programmed``, or None.
    """
    step = (2 * FULL_SCALE / levels.clamp(min=1)).to(programmed.dtype)[:, None, None, None]
    quantised = ((torch.floor(programmed / step) + 0.5) * step).clamp(-FULL_SCALE + step / 2, FULL_SCALE - step / 2)
    weights = torch.where((levels > 0)[:, None, None, None], quantised, programmed)
    if noise is not None:
        weights = weights + noise
    weights = torch.where(layer.stuck[:, None], layer.stuck_value[:, None], weights)
    return weights * layer.gain[:, None]


def compress(current: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
    """I -> tanh(kappa I)/kappa, the identity where kappa is 0; ``kappa`` broadcasts to ``current``."""
    safe = torch.where(kappa > 0, kappa, torch.ones_like(kappa))
    return torch.where(kappa > 0, torch.tanh(safe * current) / safe, current)
