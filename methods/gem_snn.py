"""GEM-SNN: probabilistic spiking networks with several compartments (arXiv 2102.03280; sibling 2007.11894).

One hidden layer of recurrent GLM neurons, outputs clamped to target spikes, an update at every time step. The variants
are the rules of ``spikebench.compartments``; K is a setting, and the number of runs that decide in testing is another.
Only the authors' code could be read; docs/papers.md lists what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from spikebench import compartments
from spikebench.chip.protocol import Chip
from spikebench.compartments import Memory, Rule
from spikebench.data import Batch, DataInfo
from spikebench.method import Info, Prediction, Task
from spikebench.networks import Network
from spikebench.neurons import GLMParameters
from spikebench.seeds import Streams

CITATION = (
    "Jang, Simeone: Multi-Sample Online Learning for Spiking Neural Networks based on Generalized Expectation "
    "Maximization. ICASSP 2021, arXiv 2102.03280."
)
MODES = ("off-chip", "in-the-loop")
TASKS = ("classification", "sequence")
VARIANTS = {"single-sample": "single-sample", "mb": "mb", "iw": "iw", "gem": "gem"}
BATCHED = True
SECONDS_PER_CELL = 0.02
#: Numbers of runs whose decisions are kept beside the primary one.
RUNS = (1, 2, 5, 10, 20, 50)
#: Weight of the mean spike counts beside the votes: less than one vote, so that they decide ties alone.
TIES = 1e-3


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters; the learning rate is chosen on validation data.

    Attributes:
        epochs: passes over the examples, which are presented one by one.
        compartments: K, in training; the rule ``single-sample`` has one whatever is said here.
        decay: kappa.
        baseline: control variate of the hidden neurons' signal: ``weight``, ``scalar`` or ``none``.
        divided: divide the hidden step of ``iw`` by K.
        initial: weights start uniform in +-``initial``.
        inference: runs that vote on a test example.
        scored: runs that a likelihood is estimated from.
        learning_rates: the candidates.
        rate_drop: what the learning rate is divided by ...
        drop_every: ... after every so many presentations.
        tune_once: choose the learning rate once for all repetitions, on a split of its own.
    """

    epochs: int = 3
    compartments: int = 5
    decay: float = 0.05
    baseline: str = "weight"
    divided: bool = False
    initial: float = 0.1
    inference: int = 20
    scored: int = 100
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    rate_drop: float = 1.0
    drop_every: int = 200
    tune_once: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))  # YAML and JSON give a list

    @property
    def SEARCH(self) -> Mapping[str, tuple[float, ...]]:
        """Chosen on validation data."""
        return {"learning_rate": self.learning_rates}

    @property
    def batch_size(self) -> int | None:
        """Examples a presentation."""
        return 1

    def updates(self, steps: int) -> int:
        """One at each of T ``steps``."""
        return steps

    def rule(self, variant: str) -> Rule:
        """The learning rule of a variant."""
        number = 1 if variant == "single-sample" else self.compartments
        return Rule(variant, number, self.decay, self.baseline, self.divided)


class State(NamedTuple):
    """What is learnt.

    Attributes:
        weights: [B, P].
        round: [] int64, presentations done.
    """

    weights: torch.Tensor
    round: torch.Tensor


def network(info: DataInfo, layers: Mapping[str, Any], training: str) -> Network:
    """One hidden layer of GLM neurons; ``filters`` and ``output_feedback`` may stand beside ``hidden``."""
    own = {name: layers[name] for name in ("filters", "output_feedback") if name in layers}
    return Network(info.inputs, tuple(layers.get("hidden", ())), info.outputs, GLMParameters(**own))


def init(task: Task, batch: Batch, chip: Chip, streams: Streams) -> State:
    """Uniform weights; the chip is not touched."""
    uniform = 2 * torch.special.ndtr(streams.normal((task.network.parameters,), "start")) - 1
    return State(task.settings.initial * uniform * task.network.connected, torch.zeros((), dtype=torch.int64))


def _spikes(targets: torch.Tensor, task: Task) -> torch.Tensor:
    """Target spikes [..., T, O]: of a class its own output at every step, the others never."""
    if task.info.task == "sequence":
        return targets
    return (
        functional.one_hot(targets, task.info.outputs).float()[..., None, :].expand(*targets.shape, task.info.steps, -1)
    )


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """One presentation of one example, with an update at every time step."""
    rule = task.settings.rule(task.variant)
    inputs, targets = batch.inputs[batch.index, 0], _spikes(batch.targets[batch.index, 0], task)
    done = int(state.round)
    rates = task.choice["learning_rate"] / task.settings.rate_drop ** (done // task.settings.drop_every)
    keys = streams.keys("hidden", done)
    if task.mode == "in-the-loop":
        weights, traces = _in_the_loop(task, rule, state.weights, inputs, targets, rates, chip, done)
    else:
        weights = state.weights
        shown = compartments.present(task.network, rule, weights, inputs, targets, rates, keys)
        traces = shown._asdict()
    return State(weights, state.round + 1), Info(traces)


def _in_the_loop(
    task: Task, rule: Rule, weights: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, rates: torch.Tensor,
    chip: Chip, number: int,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
    """The same with the spikes of a device; probabilities, and so errors and signals, are the model's."""
    session = chip.session(weights, rule.compartments, number)
    memory = Memory.rest(task.network, rule, len(weights))
    total = torch.zeros(len(weights), rule.compartments, dtype=torch.float64)
    fired = torch.zeros(len(weights), dtype=torch.float64)
    for t in range(inputs.shape[1]):
        shown, clamp = (x[:, None, t].expand(-1, rule.compartments, -1) for x in (inputs, targets))
        hidden = session.advance(shown, clamp).spikes[0]
        memory, change, likelihood = compartments.online_step(
            task.network, rule, memory, weights, inputs[:, t], targets[:, t], hidden
        )
        weights = (weights + rates[:, None] * change).float()
        session.program(weights)
        total += likelihood
        fired += hidden.double().mean(dim=(1, 2))
    mean = torch.logsumexp(total, dim=1) - torch.tensor(rule.compartments).double().log()
    return weights, {"log_likelihood": mean, "hidden_rate": fired / inputs.shape[1]}


def _runs(weights: torch.Tensor, number: int) -> torch.Tensor:
    """The same weights [B, number, P], for so many runs."""
    return weights[:, None].expand(-1, number, -1)


def _vote(counts: torch.Tensor) -> torch.Tensor:
    """Class probabilities [B, 1, N, C] from the output spikes [B, S, N, C] of S runs: the share of runs that say so.

    A run says the class of most spikes, in equal parts where several have them; equal shares are told apart by the mean
    spike counts.
    """
    best = (counts == counts.amax(dim=3, keepdim=True)).float()
    votes = (best / best.sum(dim=3, keepdim=True)).mean(dim=1, keepdim=True)
    return (1 - TIES) * votes + TIES * _rates(counts)


def _rates(counts: torch.Tensor) -> torch.Tensor:
    """Each class's share [B, 1, N, C] of all output spikes [B, S, N, C]; equal where there are none."""
    total = counts.clamp(min=0).mean(dim=1, keepdim=True)
    mass = total.sum(dim=3, keepdim=True)
    return torch.where(mass > 0, total / mass, 1 / total.shape[3])


def predict(task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
    """Outputs run free in ``inference`` runs, which vote on a class or are the answer themselves."""
    rule, number = task.settings.rule(task.variant), task.settings.inference
    up, down = compartments.communication(rule, task.network.hidden[0], task.network.outputs)
    told = {"to_centre": up, "from_centre": down, "compartments": rule.compartments}
    diagnostics = {name: torch.full((len(index),), float(value)) for name, value in told.items()}
    if task.info.task == "sequence":
        return Prediction(outputs=_generated(task, state, inputs, index, chip, number), diagnostics=diagnostics)
    counts = chip.evaluate(_runs(state.weights, number), inputs, index)
    return Prediction(probabilities=_vote(counts), diagnostics=diagnostics)


def _generated(
    task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip, number: int
) -> torch.Tensor:
    """Output spikes [B, S, N, T, O] of S runs."""
    return torch.stack([chip.run(state.weights, inputs, index)[-1].float() for _ in range(number)], dim=1)


def estimates(
    task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip
) -> dict[str, torch.Tensor]:
    """Other numbers of runs, and decisions by mean rate; of sequences the runs' mean and their majority."""
    if task.info.task == "sequence":
        mean = _generated(task, state, inputs, index, chip, task.settings.inference).mean(dim=1, keepdim=True)
        return {"mean": mean, "majority": (mean > 0.5).float()}
    counts = chip.evaluate(_runs(state.weights, max(RUNS)), inputs, index)
    named = (("votes", _vote), ("rates", _rates))
    return {f"{name}-{number}": decide(counts[:, :number]) for name, decide in named for number in RUNS}


def score(
    task: Task, state: State, inputs: torch.Tensor, targets: torch.Tensor, index: torch.Tensor, chip: Chip
) -> torch.Tensor:
    """Log-likelihood of the target spikes in each of ``scored`` runs of the hidden neurons, [B, S, N]."""
    return chip.likelihood(state.weights, inputs, index, _spikes(targets, task), task.settings.scored)
