"""BiSNN: spiking networks with one-bit weights, trained straight-through or by Bayes' rule (arXiv 2012.08300).

SRM neurons, dense or in convolutions, a fixed random read-out and a loss in every layer, an update at every time step;
``full-precision`` is the same network with real weights. ``bayes-mode`` and ``bayes-ensemble`` are two readings of one
posterior. The paper's text could not be read: equations are those of its authors' code, and docs/papers.md lists what
was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from spikebench import bernoulli, local_learning
from spikebench.bernoulli import Posterior
from spikebench.chip.protocol import Chip
from spikebench.data import Batch, DataInfo
from spikebench.errors import Unavailable
from spikebench.local_learning import Learning, Traces
from spikebench.method import Info, Prediction, Task
from spikebench.networks import Convolution, Network
from spikebench.neurons import SRMParameters
from spikebench.seeds import Streams

CITATION = (
    "Jang, Skatchkovsky, Simeone: BiSNN: Training Spiking Neural Networks with Binary Weights via Bayesian Learning. "
    "DSLW 2021, arXiv 2012.08300."
)
MODES = ("off-chip", "in-the-loop")
TASKS = ("classification", "regression")
VARIANTS = {
    "full-precision": "full-precision",
    "straight-through": "straight-through",
    "bayes-mode": "bayes",
    "bayes-ensemble": "bayes",
}
BATCHED = True
SECONDS_PER_CELL = 0.03
#: Learning rule of each training, what its learning rates are multiples of, and how far from 0 its weights start.
RULES = {"full-precision": "real", "straight-through": "straight-through", "bayes": "bernoulli"}
ENSEMBLES = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters; the learning rate is chosen on validation data.

    Attributes:
        epochs: passes over the examples.
        minibatch: examples of a presentation.
        burn_in: share of a presentation's steps that are neither learnt from nor read.
        surrogate: ``boxcar`` or ``sigmoid``.
        temperature: tau of the relaxed weights.
        kl_weight: rho, the weight of the prior.
        prior_probability: of a weight being +1.
        cap: of the natural gradient's scale.
        literal: that scale as the published code computes it.
        initial: real weights start uniform in +-``initial``, the others at +-``initial``, by a fair coin.
        ensemble: networks drawn from the posterior.
        learning_rates: the candidates, as multiples of the rule's unit.
        full_precision_unit: of the learning rates, with real weights.
        straight_through_unit: with binary weights, straight-through.
        bayes_unit: with binary weights and a posterior.
        tune_once: choose the learning rate once for all repetitions, on a split of its own.
    """

    epochs: int = 50
    minibatch: int = 32
    burn_in: float = 0.1
    surrogate: str = "boxcar"
    temperature: float = 1.0
    kl_weight: float = 5e-4
    prior_probability: float = 0.5
    cap: float = 1e3
    literal: bool = False
    initial: float = 1.0
    ensemble: int = 10
    learning_rates: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    full_precision_unit: float = 1.0
    straight_through_unit: float = 3.0
    bayes_unit: float = 1.0
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
        return self.minibatch

    def updates(self, steps: int) -> int:
        """Optimiser steps of a presentation of T ``steps``."""
        return steps - self.silent(steps)

    def silent(self, steps: int) -> int:
        """Steps of burn-in."""
        return round(self.burn_in * steps)

    def rate(self, training: str) -> float:
        """The unit of a training's learning rates."""
        return float(getattr(self, f"{training.replace('-', '_')}_unit"))


class State(NamedTuple):
    """What is learnt and what stays.

    Attributes:
        natural: [B, P], real weights, those behind the straight-through ones, or natural parameters.
        readouts: [B, O x neurons], the fixed matrices, layer after layer.
        seeds: [B] int64, of the ensemble.
        round: [] int64, presentations done.
    """

    natural: torch.Tensor
    readouts: torch.Tensor
    seeds: torch.Tensor
    round: torch.Tensor


def network(info: DataInfo, layers: Mapping[str, Any], training: str) -> Network:
    """Dense layers of SRM neurons or, before pictures, convolutions; two classes need one read-out only.

    Raises:
        Unavailable: convolutions before inputs that are no picture.
    """
    if "convolutions" in layers and not info.layout:
        raise Unavailable("convolutions look at pictures, and these inputs are none")
    return Network(
        info.inputs,
        tuple(layers.get("hidden", ())),
        1 if info.outputs <= 2 else info.outputs,
        SRMParameters(),
        weight_bits=0 if training == "full-precision" else 1,
        convolutions=tuple(Convolution(*layer) for layer in layers.get("convolutions", ())),
        picture=info.layout,
    )


def init(task: Task, batch: Batch, chip: Chip, streams: Streams) -> State:
    """Random weights and read-outs; the chip is not touched."""
    settings: Settings = task.settings
    width = task.network.outputs * sum(task.network.widths)
    coins = streams.normal((task.network.parameters,), "start")
    if RULES[task.variant] == "real":
        natural = settings.initial * (2 * torch.special.ndtr(coins) - 1)
    else:
        natural = settings.initial * bernoulli.sign(coins)
    readouts = bernoulli.sign(streams.normal((width,), "readout"))
    return State(natural, readouts, streams.keys("ensemble"), torch.zeros((), dtype=torch.int64))


def _learning(task: Task) -> Learning:
    """What is minimised, and how."""
    settings: Settings = task.settings
    loss = "smooth-l1" if task.info.task == "regression" else "logistic" if task.network.outputs == 1 else "softmax"
    posterior = Posterior(
        settings.temperature, settings.kl_weight, settings.prior_probability, settings.cap, settings.literal
    )
    return Learning(
        loss,
        settings.surrogate,
        settings.silent(task.info.steps),
        RULES[VARIANTS.get(task.variant, task.variant)],
        posterior,
    )


def _matrices(task: Task, state: State) -> list[torch.Tensor]:
    """The read-outs [B, O, neurons] of each layer."""
    outputs = task.network.outputs
    parts = state.readouts.split([outputs * width for width in task.network.widths], dim=1)
    return [part.unflatten(1, (outputs, -1)) for part in parts]


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """One presentation of a minibatch, with an update at every time step after burn-in."""
    learning = _learning(task)
    rates = task.choice["learning_rate"] * task.settings.rate(task.variant)
    keys = streams.keys("weights", int(state.round))
    targets = local_learning.targets_of(batch.targets[batch.index], learning.loss, task.network.outputs)
    learn = _by_steps if task.mode == "in-the-loop" or task.network.convolutions else _compiled
    loss, near = learn(task, learning, state, batch, targets, rates, keys, chip)
    return state._replace(round=state.round + 1), Info({"train_loss": loss, "boxcar_share": near})


def _compiled(
    task: Task, learning: Learning, state: State, batch: Batch, targets: torch.Tensor, rates: torch.Tensor,
    keys: torch.Tensor, chip: Chip,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """A whole presentation to the model of a dense network; overwrites the state's parameters."""
    return local_learning.present(
        task.network, learning, state.natural, _matrices(task, state), batch.inputs, batch.index, targets, rates, keys
    )


def _by_steps(
    task: Task, learning: Learning, state: State, batch: Batch, targets: torch.Tensor, rates: torch.Tensor,
    keys: torch.Tensor, chip: Chip,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The same step by step; in the loop with the device's spikes forward and the model's derivatives backward.

    A device has one bit a weight, so that it shows the sign of a relaxed sample: a hard sample of the same posterior.
    The derivatives are those at the weights that were programmed.
    """
    samples, steps = batch.inputs.shape[1:3]
    matrices = _matrices(task, state)
    weights, slope = _sample(learning, state.natural, keys, 0)
    session = chip.session(weights, samples) if task.mode == "in-the-loop" else None
    # Beside other devices sums may round otherwise; in the loop double precision hides that from the spikes to come.
    kind = torch.float64 if session else torch.float32
    matrices, targets = [m.to(kind) for m in matrices], targets.to(kind)
    traces = Traces.rest(task.network, len(weights), samples, kind)
    loss, near = torch.zeros(2, len(weights), dtype=torch.float64)
    for t in range(steps):
        shown = batch.inputs[batch.index, :, t]
        spikes = [s.to(kind) for s in session.advance(shown).spikes] if session else None
        acting = bernoulli.sign(weights) if session and learning.rule != "real" else weights
        learn = t >= learning.burn_in
        done = local_learning.online_step(
            task.network, learning, traces, acting.to(kind), matrices, shown.to(kind), targets, spikes, learn
        )
        traces, gradient = done.traces, done.gradient.float()
        if not learn:
            continue
        if learning.rule == "bernoulli":
            bernoulli.natural_step(state.natural, gradient, weights, slope, rates, learning.posterior)
        else:
            state.natural.addcmul_(gradient, rates[:, None], value=-1)
        weights, slope = _sample(learning, state.natural, keys, t + 1)
        if session:
            session.program(weights)
        loss += done.loss.float()
        near += torch.cat([local_learning.derivative(u, "boxcar").flatten(1) for u in done.potentials], 1).mean(1)
    return loss / (steps - learning.burn_in), near / (steps - learning.burn_in)


def _sample(
    learning: Learning, natural: torch.Tensor, keys: torch.Tensor, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights that a rule asks for next, and 1 - w^2 where it takes relaxed samples."""
    if learning.rule == "bernoulli":
        return bernoulli.relax(natural, learning.posterior, keys, number)
    return (natural if learning.rule == "real" else bernoulli.sign(natural)), torch.empty(0)


def _answers(
    task: Task, state: State, weights: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, chip: Chip
) -> torch.Tensor:
    """Read-outs after burn-in of networks with weights [B, S, P], [B, S, N, T', O]."""
    last, steps = _matrices(task, state)[-1], inputs.shape[2]
    silent, answers = task.settings.silent(steps), []
    for acting in weights.unbind(dim=1):
        if task.network.convolutions:  # the spikes of all steps would fill the memory
            session = chip.session(acting, inputs.shape[1])
            spikes = (session.advance(inputs[index, :, t]).spikes[-1] for t in range(steps))
            values = torch.stack([local_learning.read(s, last) for s in spikes][silent:], dim=2)
        else:
            values = local_learning.read(chip.run(acting, inputs, index)[-1][:, :, silent:], last)
        answers.append(chip.read(values))
    return torch.stack(answers, dim=1)


def _probabilities(answers: torch.Tensor, logits_averaged: bool = False) -> torch.Tensor:
    """Class probabilities [B, S, N, C] of read-outs [B, S, N, T', O]: those of every step, averaged over time.

    Args:
        answers: the read-outs.
        logits_averaged: average the read-outs over samples and time before, [B, 1, N, C].
    """
    if logits_averaged:
        answers = answers.mean(dim=(1, 3), keepdim=True)
    if answers.shape[-1] == 1:
        p = torch.sigmoid(answers).mean(dim=3)
        return torch.cat([1 - p, p], dim=-1)
    return torch.softmax(answers, dim=-1).mean(dim=3)


def _drawn(task: Task, state: State, number: int) -> torch.Tensor:
    """The weights [B, S, P] that a variant predicts with; ``number`` networks of an ensemble."""
    if task.variant == "full-precision":
        return state.natural[:, None]
    if task.variant in ("bayes-ensemble", "bayes"):
        return bernoulli.draw(state.natural, number, state.seeds)
    return bernoulli.sign(state.natural)[:, None]


def predict(task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
    """One network, or an ensemble whose members are the same for all inputs."""
    answers = _answers(task, state, _drawn(task, state, task.settings.ensemble), inputs, index, chip)
    diagnostics = {"certain_weights": (state.natural.abs() > 2).float().mean(dim=1)}
    if task.info.task == "regression":
        return Prediction(outputs=answers.mean(dim=3), diagnostics=diagnostics)
    return Prediction(probabilities=_probabilities(answers), diagnostics=diagnostics)


def estimates(
    task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip
) -> dict[str, torch.Tensor]:
    """Of an ensemble: the mode, ensembles of other sizes, and read-outs averaged before the softmax."""
    if task.variant != "bayes-ensemble":
        return {}
    regression = task.info.task == "regression"

    def read(answers: torch.Tensor) -> torch.Tensor:
        return answers.mean(dim=3) if regression else _probabilities(answers)

    mode = _answers(task, state, bernoulli.sign(state.natural)[:, None], inputs, index, chip)
    members = _answers(task, state, _drawn(task, state, max(ENSEMBLES)), inputs, index, chip)
    found = {"mode": read(mode)} | {f"ensemble-{size}": read(members[:, :size]) for size in ENSEMBLES}
    if not regression:
        found["logit-average"] = _probabilities(members[:, : task.settings.ensemble], logits_averaged=True)
    return found
