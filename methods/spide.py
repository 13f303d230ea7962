"""SPIDE: feedback networks trained at their equilibrium by ternary spikes (arXiv 2302.00232).

The adjoint of the equilibrium is itself the average rate of a second stage of spiking neurons: couples that send 1, 0
or -1 through the same synapses backwards. What is not spikes: the loss and its slope, which drives the last layer as a
constant current, the read-out, and the products of average rates that make the gradient. Only the abstract and the
authors' code could be read; docs/papers.md lists what was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spikebench import adjoint, feedback_training, gradient_probe
from spikebench.chip.protocol import Chip, Rates
from spikebench.data import Batch
from spikebench.feedback_settings import FeedbackSettings
from spikebench.feedback_training import Shown, State
from spikebench.method import Info, Prediction, Task
from spikebench.neurons import CoupleParameters
from spikebench.seeds import Streams

CITATION = (
    "Xiao, Meng, Zhang, Wang, Lin: SPIDE: A purely spike-based method for training feedback spiking neural networks. "
    "Neural Networks 161 (2023), arXiv 2302.00232."
)
MODES = ("off-chip", "in-the-loop")
BATCHED = True
SECONDS_PER_CELL = 0.03
network, init = feedback_training.network, feedback_training.init


@dataclass(frozen=True)
class Settings(FeedbackSettings):
    """See ``feedback_settings.FeedbackSettings``.

    Attributes:
        backward_steps: T_B.
        modified_reset: reset couples to -V_b with V_b = 1/2, so that they round; else to 0 with V_b = 1.
        leaky_backward: give the couples the neurons' leak, too.
        backward: run the second stage on the ``ideal`` model, or on the ``chip`` itself, with its faults.
        probe: compare each step's gradient with the exact one, see ``gradient_probe``; off-chip.
    """

    backward_steps: int = 100
    modified_reset: bool = True
    leaky_backward: bool = True
    backward: str = "ideal"
    probe: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backward not in ("ideal", "chip"):
            raise ValueError(f"backward: found {self.backward!r}, allowed: ideal, chip")

    def couple(self, leak: float) -> CoupleParameters:
        """The second stage's neurons, of spikes of height 1."""
        own = leak if self.leaky_backward else 1.0
        return CoupleParameters(0.5, -0.5, own) if self.modified_reset else CoupleParameters(1.0, 0.0, own)


def _second_stage(task: Task, shown: Shown, chip: Chip) -> Rates:
    settings: Settings = task.settings
    net = feedback_training.built(task)
    factors = adjoint.transmission(net, shown.rates.mean, shown.masks)
    couple = settings.couple(float(net.nominal.leak))
    if settings.backward == "ideal" and task.mode != "off-chip":
        return adjoint.differentiate(net, shown.weights, shown.slope, factors, couple, settings.backward_steps)
    return chip.differentiate(shown.weights, shown.slope, factors, couple, settings.backward_steps)


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """Forward on the chip; backward by ternary spikes, on the ideal model or on the chip."""
    settings: Settings = task.settings
    net, shown = feedback_training.built(task), feedback_training.show(task, state, batch, chip, streams)
    stage = _second_stage(task, shown, chip)
    gradient = feedback_training.weight_gradient(task, shown, stage.mean)
    couples = shown.slope.shape[1] * settings.backward_steps * sum(net.widths)
    spikes = stage.spikes.sum(dim=1)
    work = {
        "backward_spikes": spikes,
        "backward_additions": stage.operations,
        "neuron_updates": couples,
    }
    if settings.probe:
        examples = shown.slope.shape[1]
        work |= {name: examples * value for name, value in gradient_probe.measure(task, shown, gradient).items()}
    return (
        feedback_training.update(task, state, shown, gradient, work),
        feedback_training.info(task, shown, backward_rate=spikes / couples),
    )


def predict(task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
    """As ``feedback_training.predict``, with the couples' firing rate."""
    found = feedback_training.predict(task, state, inputs, index, chip)
    couples = task.settings.backward_steps * sum(feedback_training.built(task).widths)
    rate = found.diagnostics["backward_spikes"] / couples
    return Prediction(found.probabilities, diagnostics={**found.diagnostics, "backward_rate": rate})
