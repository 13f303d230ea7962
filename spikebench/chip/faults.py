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

from spikebench.networks import FULL_SCALE, Network
from spikebench.neurons import GLMParameters, LIFParameters, SoftResetParameters, SRMParameters
from spikebench.seeds import seed

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
        stuck_at: synapse; probability of being stuck, half at 0, a quarter each at plus and minus full scale (1 for
            weights of one bit).
        flip: synapse; probability that a programmed weight acts with its sign inverted.
        drift: synapse; mean exponent nu of the power-law decay (t/t0)^-nu over four decades, sd 0.3 of it.
        threshold: neuron; standard deviation of the threshold, as a fraction (LIF) or in units of u (SRM, GLM).
        time_constant: neuron; standard deviation of every tau as a fraction, tau at least one step; not of GLM neurons.
        offset: neuron, hidden layers; standard deviation of a constant added to the current (LIF) or to u (SRM, GLM).
        compression: neuron, hidden layers; kappa in I -> tanh(kappa I)/kappa, for SRM and GLM neurons of their filtered
            input.
        dead: neuron; probability of never spiking.
        saturated: neuron; probability of spiking at every step.
        drop: event; probability that a hidden layer's spike is lost on its way.
        jitter: event; probability that a hidden layer's spike arrives one step late.
        read_noise: read-out; standard deviation of the error of each value that is read.

    Raises:
        ValueError: a strength that is negative or not finite, or a probability or severity above 1.
    """

    severity: float = 0.0
    gain_mismatch: float = 0.0
    programming_noise: float = 0.0
    quantisation: float = 0.0
    stuck_at: float = 0.0
    flip: float = 0.0
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
        shares = ("severity", "quantisation", "stuck_at", "flip", "dead", "saturated", "drop", "jitter")
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
    """What one layer of B devices does to its weights, currents and spikes; gates have no deviations.

    Attributes:
        gain: [B, O, I], programmed weight to effective weight, drift included; negative where the sign is inverted.
        stuck: [B, O, I] bool, the synapse ignores its programmed weight.
        stuck_value: [B, O, I], the weight it shows instead (before the gain).
        threshold: [B, O].
        decay: [B, O], of the membrane; 0 for GLM neurons, whose filters are tables.
        synapse_decay: [B, O], of SRM neurons; 0 for LIF neurons, whose synapses keep nothing, and for GLM neurons.
        refractory_decay: [B, O], likewise.
        offset: [B, O], constant current; of SRM and GLM neurons, potential.
        compression: [B], kappa; 0 is none.
        silent: [B, O] bool, dead neurons.
        saturated: [B, O] bool.
    """

    gain: torch.Tensor
    stuck: torch.Tensor
    stuck_value: torch.Tensor
    threshold: torch.Tensor
    decay: torch.Tensor
    synapse_decay: torch.Tensor
    refractory_decay: torch.Tensor
    offset: torch.Tensor
    compression: torch.Tensor
    silent: torch.Tensor
    saturated: torch.Tensor


class Device(NamedTuple):
    """B devices, layer by layer, with the effects that are drawn anew at each use.

    Attributes:
        layers: one ``LayerDevice`` a layer.
        levels: [B] int64, 2 to the power of the bits; 0 is not quantised, as weights of one bit never are.
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
    pairs = list(zip(specs, chip_seeds, strict=True))
    drawn = {(spec, chip): _draw(network, spec, chip) for spec, chip in dict.fromkeys(pairs)}
    layers = tuple(
        LayerDevice(*(torch.stack(parts) for parts in zip(*(drawn[pair][index] for pair in pairs), strict=True)))
        for index in range(len(network.shapes))
    )

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return Device(
        layers=layers,
        levels=torch.tensor([2**s.bits if s.bits and not network.weight_bits else 0 for s in specs]),
        programming_noise=column([s.strength("programming_noise") for s in specs]),
        drop=column([s.strength("drop") for s in specs]),
        jitter=column([s.strength("jitter") for s in specs]),
        read_noise=column([s.strength("read_noise") for s in specs]),
    )


def _draw(network: Network, spec: FaultSpec, chip: int) -> list[LayerDevice]:
    return [_draw_layer(network, spec, chip, layer) for layer in range(len(network.shapes))]


@dataclass(frozen=True)
class _Draws:
    """The random numbers of one layer of one chip, named by their effect."""

    spec: FaultSpec
    chip: int
    layer: int

    def generator(self, label: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed(chip=self.chip, layer=self.layer, effect=label))

    def normal(self, label: str, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator(label))

    def uniform(self, label: str, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator(label))

    def factor(self, effect: str, *shape: int, part: str = "") -> torch.Tensor:
        """max(1 + sigma eps, 0.05): mismatch around the nominal value."""
        return (1 + self.spec.strength(effect) * self.normal(effect + part, *shape)).clamp(min=FLOOR)


def _draw_layer(network: Network, spec: FaultSpec, chip: int, layer: int) -> LayerDevice:
    neurons, inputs = network.shapes[layer]
    gate = network.gates[layer]
    spec, nominal = (FaultSpec(), LIFParameters(0.0, gate)) if gate else (spec, network.neuron)
    draws = _Draws(spec, chip, layer)
    hidden = network.read_out_off_chip or layer < len(network.shapes) - 1
    exponent = (spec.strength("drift") * (1 + 0.3 * draws.normal("drift", neurons, inputs))).clamp(min=0)
    stuck = draws.uniform("stuck_at", neurons, inputs) < spec.strength("stuck_at")
    flipped = ~stuck & (draws.uniform("flip", neurons, inputs) < spec.strength("flip"))
    place = torch.randint(0, 4, (neurons, inputs), generator=draws.generator("stuck_value"))
    levels = torch.tensor([0.0, 0.0, network.full_scale, -network.full_scale])
    # One uniform number decides dead and saturated, so that no neuron is both while the probabilities sum to at most 1.
    fate = draws.uniform("fate", neurons)
    gain = draws.factor("gain_mismatch", neurons, inputs) * 10.0 ** (-DRIFT_DECADES * exponent)
    return LayerDevice(
        gain=torch.where(flipped, -gain, gain),
        stuck=stuck,
        stuck_value=levels[place],
        **_constants(nominal, draws, neurons),
        offset=spec.strength("offset") * draws.normal("offset", neurons) * hidden,
        compression=torch.tensor(spec.strength("compression") * hidden),
        silent=fate < spec.strength("dead"),
        saturated=fate > 1 - spec.strength("saturated"),
    )


def _constants(
    nominal: LIFParameters | SRMParameters | GLMParameters | SoftResetParameters, draws: _Draws, neurons: int
) -> dict[str, torch.Tensor]:
    """Thresholds and decays of one layer."""
    spread = draws.spec.strength("time_constant")

    def deviating(decay: float, part: str) -> torch.Tensor:
        """exp(-1 / tau) of an SRM neuron's filter."""
        if spread == 0:  # what follows would not give back the nominal decay bit for bit
            return torch.full((neurons,), decay)
        rate = torch.tensor(decay).log().abs()  # 1 / tau
        return (-1 / (draws.factor("time_constant", neurons, part=part) / rate).clamp(min=1.0)).exp()

    if isinstance(nominal, SRMParameters):
        return {
            "threshold": float(nominal.threshold)
            + draws.spec.strength("threshold") * draws.normal("threshold", neurons),
            "decay": deviating(float(nominal.membrane_decay), ""),
            "synapse_decay": deviating(float(nominal.synapse_decay), " synapse"),
            "refractory_decay": deviating(float(nominal.refractory_decay), " refractory"),
        }
    if isinstance(nominal, GLMParameters):
        none = torch.zeros(neurons)
        return {
            "threshold": draws.spec.strength("threshold") * draws.normal("threshold", neurons),
            "decay": none,
            "synapse_decay": none,
            "refractory_decay": none,
        }
    decay = float(nominal.leak if isinstance(nominal, SoftResetParameters) else nominal.decay)
    tau = (draws.factor("time_constant", neurons) / (1 - decay)).clamp(min=1.0)
    return {
        "threshold": float(nominal.threshold) * draws.factor("threshold", neurons),
        "decay": torch.full((neurons,), decay) if spread == 0 else 1 - 1 / tau,
        "synapse_decay": torch.zeros(neurons),
        "refractory_decay": torch.zeros(neurons),
    }


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
    weights = programmed
    if bool(levels.any()):
        step = (2 * FULL_SCALE / levels.clamp(min=1)).to(programmed.dtype)[:, None, None, None]
        quantised = (torch.floor(programmed / step) + 0.5) * step
        quantised = quantised.clamp(-FULL_SCALE + step / 2, FULL_SCALE - step / 2)
        weights = torch.where((levels > 0)[:, None, None, None], quantised, programmed)
    if noise is not None:
        weights = weights + noise
    weights = torch.where(layer.stuck[:, None], layer.stuck_value[:, None], weights)
    return weights * layer.gain[:, None]


def compress(current: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
    """I -> tanh(kappa I)/kappa, the identity where kappa is 0; ``kappa`` broadcasts to ``current``."""
    safe = torch.where(kappa > 0, kappa, torch.ones_like(kappa))
    return torch.where(kappa > 0, torch.tanh(safe * current) / safe, current)
