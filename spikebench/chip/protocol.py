"""What a method may do with a device, simulated or real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from spikebench.chip.faults import Device
from spikebench.networks import Network
from spikebench.neurons import CoupleParameters


class Observation(NamedTuple):
    """What a method sees of one time step.

    Attributes:
        spikes: one [B, N, neurons] a layer; of SRM networks those that arrive at the next layer and at the read-out, of
            convolutions one for each square of the pool, [B, N, channels x height x width].
        potentials: V before the reset, or u, likewise, but of SRM convolutions [B, N x positions, channels]; None where
            the device does not show them.
    """

    spikes: tuple[torch.Tensor, ...]
    potentials: tuple[torch.Tensor, ...] | None


class Rates(NamedTuple):
    """What a feedback network's neurons, or the couples of its second stage, do over a presentation on average.

    Attributes:
        mean: [B, N, M] of all neurons, layer after layer: mean of the spikes that arrive, weighted by lambda^(T - t),
            which is 1 for LIF neurons.
        spikes: [B, L] float64, sent by each layer in all samples and steps, gates included.
        operations: [B] float64, additions to sums of neurons, borders and strides counted as they are; of devices that
            may lose spikes, and of networks with shortcuts, the spikes sent times their mean fan-out.
        input_operations: [B] float64, multiply-accumulates of the inputs.
    """

    mean: torch.Tensor
    spikes: torch.Tensor
    operations: torch.Tensor
    input_operations: torch.Tensor


class Session(Protocol):
    """One presentation of a batch, step by step, for methods that learn at every time step."""

    def advance(self, inputs: torch.Tensor, clamp: torch.Tensor | None = None) -> Observation:
        """One time step.

        Args:
            inputs: [B, N, I].
            clamp: output spikes [B, N, O] that replace the device's own (teacher forcing).

        Raises:
            TypeError: outputs of an SRM or a feedback network are to be clamped; they are not on the chip.
        """
        ...

    def program(self, parameters: torch.Tensor) -> None:
        """New weights [B, P] from the next step on; neuron states stay."""
        ...


@dataclass
class Meter:
    """What was done with the devices, each [B]: the currency in which training is paid.

    Attributes:
        presentations: samples shown.
        spikes: of all neurons; gates are none (``Network.gates``).
        synaptic_operations: spikes (and always-on lines, and binary inputs) times their fan-out on the chip; of a
            convolution, kernel^2 times channels, at the picture's border too.
        input_operations: real-valued inputs times their fan-out; multiply-accumulates rather than additions.
    """

    presentations: torch.Tensor
    spikes: torch.Tensor
    synaptic_operations: torch.Tensor
    input_operations: torch.Tensor

    @classmethod
    def zero(cls, devices: int) -> Meter:
        """A meter that has counted nothing."""
        return cls(*(torch.zeros(devices, dtype=torch.float64) for _ in range(4)))


class Chip(Protocol):
    """B devices that run one network each; every tensor has the devices as its first axis.

    ``inputs`` are given as ``data.Batch`` gives them: [R, N, T, I] with ``index`` [B] saying which each device sees.
    """

    network: Network
    meter: Meter

    @property
    def devices(self) -> int:
        """B."""
        ...

    @property
    def deterministic(self) -> bool:
        """Whether the same weights and inputs always give the same spikes (no fault is drawn anew at each use)."""
        ...

    def evaluate(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Output spike counts [B, C, N, O] of C candidate parameter sets a device, [B, C, P].

        Candidates run independently, each with random numbers of its own where neurons are stochastic: one that is
        expanded C times gives C runs.

        Raises:
            TypeError: the network is one of SRM neurons, or a layered one but of LIF neurons whose last layer are the
                outputs: its read-out belongs to the method.
        """
        ...

    def run(self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
        """All spikes, one [B, N, T, neurons] a layer, of parameters [B, P]: float32 of LIF networks, bool of others.

        Of convolutions they are as ``Observation`` has them. What a read-out of an SRM network reads is what arrives of
        them, where some are lost or late.
        """
        ...

    def likelihood(
        self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, targets: torch.Tensor, runs: int
    ) -> torch.Tensor:
        """Log-probabilities [B, runs, N] float64 of output spikes ``targets`` [R, N, T, O], of parameters [B, P].

        Outputs are clamped to the targets while hidden neurons run free, in each of ``runs`` runs anew. With v = u less
        the device's threshold it is the sum over steps and outputs of ln sigma(v) where there is a spike, and of
        ln sigma(-v) where there is none.

        Raises:
            TypeError: the network is not one of GLM neurons.
        """
        ...

    def rates(
        self, parameters: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, masks: torch.Tensor | None = None
    ) -> Rates:
        """Average rates of a feedback network with parameters [B, P] over one presentation; no spikes are kept.

        Args:
            parameters: [B, P].
            inputs: [R, N, T, I].
            index: [B].
            masks: [B, N, M + H], what the currents into each layer's neurons are multiplied by, biases included, and
                last those that the feedback brings to the H neurons of the first layer; without them it is 1.

        Raises:
            TypeError: it is not a feedback network.
        """
        ...

    def differentiate(
        self,
        parameters: torch.Tensor,
        current: torch.Tensor,
        factors: torch.Tensor,
        couple: CoupleParameters,
        steps: int,
    ) -> Rates:
        """The second stage: the same synapses are run backwards by ternary spikes of couples of neurons.

        v^L += current + W_fb^T (f s^1) of the step before, then v^l += W^(l+1)^T (f s^(l+1)) for l = L - 1 ... 1; each
        ``neurons.couple_step``, from v = 0. The couples share the thresholds' deviations, offsets and fates of the
        network's neurons.

        Args:
            parameters: [B, P].
            current: [B, N, neurons of the last layer], constant.
            factors: [B, N, M + H], f of each neuron's link from below, and last f of the first layer's feedback.
            couple: nominal constants.
            steps: T_B.

        Raises:
            TypeError: it is not a feedback network, or one of LIF neurons or with gates.
        """
        ...

    def read(self, values: torch.Tensor) -> torch.Tensor:
        """Values [B, ...] as they are read off the devices, with the read-out's noise, new at each use.

        It stands between the device and whatever a method computes from its spikes outside of it.
        """
        ...

    def session(self, parameters: torch.Tensor, samples: int, number: int | None = None) -> Session:
        """Begin a presentation of ``samples`` examples with parameters [B, P]; all states are zero.

        Args:
            parameters: to begin with.
            samples: N.
            number: of the presentation. It names what GLM neurons draw, so that a training that was broken off draws
                the same when it goes on; without it, uses are counted.
        """
        ...

    def repeat(self, times: int) -> Chip:
        """The same devices for ``times`` as many cells, cell-major, with a meter of their own."""
        ...

    @property
    def nominal(self) -> Device:
        """The ideal device as everybody knows it from the data sheet."""
        ...

    @property
    def knowledge(self) -> Device:
        """The device's true deviations: for the ``oracle`` training mode alone."""
        ...
