"""Backpropagation through time with surrogate gradients on feedback networks: what IDE and SPIDE are compared with.

Network, forward stage, read-out and optimiser are theirs; what differs is that the graph of all time steps is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from spikebench import feedback_training, unrolled
from spikebench.chip.protocol import Chip
from spikebench.data import Batch
from spikebench.feedback_settings import FeedbackSettings
from spikebench.feedback_training import State
from spikebench.method import Info, Task
from spikebench.seeds import Streams

CITATION = (
    "Neftci, Mostafa, Zenke: Surrogate Gradient Learning in Spiking Neural Networks. "
    "IEEE Signal Processing Magazine 36 (2019), arXiv 1901.09948."
)
MODES = ("off-chip",)
BATCHED = True
SECONDS_PER_CELL = 0.2
network, init, predict = feedback_training.network, feedback_training.init, feedback_training.predict


@dataclass(frozen=True)
class Settings(FeedbackSettings):
    """See ``feedback_settings.FeedbackSettings``.

    Attributes:
        surrogate: a name of ``surrogates.SURROGATES``.
    """

    surrogate: str = "gaussian"


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """Forward and backward through all time steps of the ideal model."""
    net, shown = feedback_training.built(task), feedback_training.show(task, state, batch, chip, streams)
    found = unrolled.gradient(
        net, shown.weights, shown.batch.own_inputs[..., :-1], shown.masks, shown.slope, task.settings.surrogate
    )
    # At each step the error goes back through every link but the inputs', and each link's weights gather a product.
    examples, steps = shown.slope.shape[1], task.info.steps
    work = {
        "backward_macs": examples * steps * net.operations,
        "gradient_macs": examples * (steps - 1) * sum(link.operations for link in net.links if not link.pool),
    }
    gradient = found / task.settings.scale(net.widths[-1])
    return feedback_training.update(task, state, shown, gradient, work), feedback_training.info(task, shown)
