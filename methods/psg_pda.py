"""Parametric surrogate gradient and potential distribution adjustment (PSG, PDA): arXiv 2304.13289, reconstructed.

The paper's text could not be had. From its abstract: PSG trains the sharpness of each layer's surrogate, PDA adds a
divergence that keeps potentials from drifting away from what their spikes say. What either does in detail is a choice
between candidates (docs/papers.md), and no result of theirs says more than that about the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from spikebench import multistep, potential_shift, potentials
from spikebench.architectures import feedback_network
from spikebench.chip.protocol import Chip
from spikebench.data import Batch, DataInfo
from spikebench.errors import Unavailable
from spikebench.feedback_regularisation import augmented
from spikebench.layered_networks import LayeredNetwork
from spikebench.method import Info, Prediction, Task
from spikebench.seeds import Streams
from spikebench.surrogate_training import (
    NEURON,
    Net,
    agreement,
    descend,
    layout,
    learns_sharpness,
    learns_thresholds,
    logits,
    schedule,
)
from spikebench.surrogates import FAMILIES

CITATION = (
    "Wang, Cheng, Lim: Potential distribution adjustment and parametric surrogate gradient in spiking neural networks. "
    "Neurocomputing 620 (2025) 129189, arXiv 2304.13289. A reconstruction: its text was not read."
)
MODES = ("off-chip",)
BATCHED = True
DEVICES = ("cpu", "cuda")
SECONDS_PER_CELL = 0.003
#: ``ltmd`` has fixed surrogates and learns thresholds (the authors' earlier LTMD), ``ltmd+psg`` learns both.
VARIANTS = {
    "fixed": "fixed",
    "psg": "psg",
    "pda": "pda",
    "psg+pda": "psg+pda",
    "ltmd": "ltmd",
    "ltmd+psg": "ltmd+psg",
}
#: LTMD's w of V = tanh(w) at the start.
FIRST_THRESHOLD = math.tanh(0.5)


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters; the learning rate is chosen on validation data.

    Attributes:
        epochs: passes over the examples.
        minibatch: examples a step.
        learning_rates: the candidates; the rate falls as a cosine to 0.
        momentum: of stochastic gradient descent.
        weight_decay: of all but the sharpness.
        family: of the surrogate, a name of ``surrogates.FAMILIES``.
        sharpness: k at the start; 1 is LTMD's width in the rectangular family.
        psg: ``p1``, the primitive's gradient; ``p2``, the look-ahead; ``p3``, tied to the scale of batch norm.
        sharpness_rate: learning rate of log k, in multiples of that of the weights.
        shared_sharpness: one k for all layers.
        decayed_sharpness: weight decay on log k, too.
        retrain: at half of training start once more, with the sharpness found so far, and leave that as it is.
        pda: the divergence, a name of ``potential_shift.SHIFTS``, or a control of that list.
        ratio: of the norms of the divergence's gradient and the loss's over the first epoch; it sets the weight.
        through_spikes: differentiate the spikes within the divergence, too.
        by_layer: pool a layer's channels before its distributions are compared.
        rate_matched: the control of PDA: beside a network with it, train one whose firing rates are drawn to that
            one's, and answer with this.
        matching: weight of the squared difference of rates.
        crop: pixels by which training pictures are shifted at random, at most.
        flip: mirror training pictures at random.
        probe: measure all divergences, shift injection, the look-ahead's agreement and histograms of potentials.
        tune_once: choose the learning rate once for all repetitions, on a split of its own.
    """

    epochs: int = 30
    minibatch: int = 32
    learning_rates: tuple[float, ...] = (0.03, 0.1)
    momentum: float = 0.9
    weight_decay: float = 1e-4
    family: str = "rectangular"
    sharpness: float = 1.0
    psg: str = "p1"
    sharpness_rate: float = 1.0
    shared_sharpness: bool = False
    decayed_sharpness: bool = False
    retrain: bool = False
    pda: str = "a-gauss"
    ratio: float = 0.01
    through_spikes: bool = False
    by_layer: bool = False
    rate_matched: bool = False
    matching: float = 100.0
    crop: int = 0
    flip: bool = False
    probe: bool = False
    tune_once: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))  # YAML and JSON give a list
        allowed = {"psg": ("p1", "p2", "p3"), "pda": potential_shift.SHIFTS, "family": tuple(FAMILIES)}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, allowed: {', '.join(values)}")

    @property
    def SEARCH(self) -> Mapping[str, tuple[float, ...]]:
        """Chosen on validation data."""
        return {"learning_rate": self.learning_rates}

    @property
    def batch_size(self) -> int | None:
        """Examples a step."""
        return self.minibatch

    def updates(self, steps: int) -> int:
        """One a presentation."""
        return 1


class State(NamedTuple):
    """W networks a cell: one, or with ``rate_matched`` the one that it is matched to before it.

    Attributes:
        vector: [B, W, Q], see ``multistep_parameters``.
        momentum: [B, W, Q].
        running: [B, W, 2, S], means and variances of batch norm.
        norms: [B, W, 2], sums over the first epoch of the gradients' norms, of the loss and of the divergence.
        sensitivity: [B, W, L, Q] of the last step's gradient in log k, of P2; else L is 0 here.
        before: [B, L, bins], histograms of potentials before training, of a probe; else L is 0 here.
        round: [] int64, steps done.
    """

    vector: torch.Tensor
    momentum: torch.Tensor
    running: torch.Tensor
    norms: torch.Tensor
    sensitivity: torch.Tensor
    before: torch.Tensor
    round: torch.Tensor


def network(info: DataInfo, layers: Mapping[str, Any], training: str) -> LayeredNetwork:
    """LIF layers of an ``architecture``, or dense ``hidden`` ones; the read-out is linear, of average rates.

    Raises:
        Unavailable: they are to be others.
    """
    given = "architecture" if "architecture" in layers else "hidden"
    if not layers.get(given) or layers.keys() - {given}:
        raise Unavailable(f"networks of LIF layers need an architecture or hidden layers; found {dict(layers)}")
    architecture = layers["architecture"] if given == "architecture" else "-".join(map(str, layers["hidden"]))
    try:
        net = feedback_network(architecture, info.inputs, info.layout or (), info.outputs, NEURON)
        multistep.neurons(net)
    except ValueError as error:
        raise Unavailable(str(error)) from error
    return net


def init(task: Task, batch: Batch, chip: Chip, streams: Streams) -> State:
    """Random weights, the same of both networks; the chip is not touched."""
    arranged, probe = layout(task), task.settings.probe
    first = FIRST_THRESHOLD if learns_thresholds(task) else float(NEURON.threshold)
    drawn = streams.normal((arranged.size,), "start")
    start = torch.stack([arranged.start(normal, task.settings.sharpness, first) for normal in drawn])
    vector = start[:, None].repeat(1, 2 if task.settings.rate_matched else 1, 1)
    cells, networks, _ = vector.shape
    running = torch.zeros(cells, networks, 2, arranged.channels)
    running[:, :, 1] = 1.0
    sensed = arranged.layers if learns_sharpness(task) and task.settings.psg == "p2" else 0
    return State(
        vector=vector,
        momentum=torch.zeros_like(vector),
        running=running,
        norms=torch.zeros(cells, networks, 2),
        sensitivity=torch.zeros(cells, networks, sensed, arranged.size),
        before=torch.zeros(cells, arranged.layers if probe else 0, potentials.BINS),
        round=torch.zeros((), dtype=torch.int64),
    )


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """One step of stochastic gradient descent of every network."""
    settings, number = task.settings, int(state.round)
    batch = augmented(task, batch, streams, number)
    inputs, targets, before = batch.own_inputs[..., :-1], batch.targets[batch.index], state.before
    if settings.retrain and number == task.rounds // 2:
        state = _restarted(task, state, init(task, batch, chip, streams))
    cells, traces = [], []
    for b, (own, labels) in enumerate(zip(inputs, targets, strict=True)):
        rate = float(task.choice["learning_rate"][b]) * schedule(task, number)
        nets, shown = [Net(*(values[b, w] for values in state[:5])) for w in range(state.vector.shape[1])], None
        if settings.probe and number == 0:
            before[b] = potentials.at_the_start(task, nets[-1].vector, own)
        look_ahead = agreement(task, nets[-1], own, labels, rate) if settings.probe else None
        for w, net in enumerate(nets):
            nets[w], shown = descend(task, net, own, labels, rate, number, shown)
        assert shown is not None
        found = potentials.traces(task, nets[-1].vector, shown)
        traces.append(found if look_ahead is None else found | {"look_ahead": look_ahead})
        cells.append(Net(*(torch.stack(parts) for parts in zip(*nets, strict=True))))
    made = Net(*(torch.stack(parts) for parts in zip(*cells, strict=True)))
    info = Info({name: torch.stack([found[name] for found in traces]) for name in traces[0]})
    return State(*made, before, state.round + 1), info


def _restarted(task: Task, state: State, first: State) -> State:
    """The first state with the sharpness of a later one, and the weight of its divergence."""
    arranged = layout(task)
    for later, vector in zip(state.vector.flatten(0, 1), first.vector.flatten(0, 1), strict=True):
        found = arranged.split(later).log_sharpness
        vector[:] = arranged.join(arranged.split(vector)._replace(log_sharpness=found))
    return first._replace(round=state.round, before=state.before, norms=state.norms)


def predict(task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
    """Class probabilities from the last layer's average rates on the chip, and what the model says of potentials."""
    arranged, steps, learnt = layout(task), inputs.shape[2], learns_thresholds(task)
    nets = list(zip(state.vector[:, -1], state.running[:, -1], strict=True))
    weights = torch.stack([arranged.programmed(vector, running, learnt) for vector, running in nets])
    rates = chip.rates(weights, inputs, index).mean[..., -arranged.network.widths[-1] :]
    features = chip.read(rates * steps) / steps
    said = [logits(arranged.split(vector).read_out, f) for (vector, _), f in zip(nets, features, strict=True)]
    some = [inputs[split, : potentials.EXAMPLES, :, :-1] for split in index]
    found = [potentials.diagnostics(task, *net, shown) for net, shown in zip(nets, some, strict=True)]
    if task.settings.probe:
        found = [own | {"potentials_before": before} for own, before in zip(found, state.before, strict=True)]
    diagnostics = {name: torch.stack([own[name] for own in found]) for name in found[0]}
    return Prediction(probabilities=torch.stack(said).softmax(dim=2)[:, None], diagnostics=diagnostics)
