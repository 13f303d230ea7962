"""What all ways of training a feedback network share: network, forward stage, read-out, optimiser and bookkeeping.

A method adds how the slope of the loss in the last layer's average rates becomes a gradient of the weights. The recipe
is that of arXiv 2302.00232's authors' code; docs/papers.md lists what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from spikebench import adjoint
from spikebench.architectures import feedback_network
from spikebench.chip.protocol import Chip, Rates
from spikebench.data import Batch, DataInfo, is_constant
from spikebench.draws import uniform
from spikebench.errors import Unavailable
from spikebench.feedback_regularisation import augmented, dropout_masks, restricted
from spikebench.feedback_settings import FeedbackSettings
from spikebench.feedback_work import WORK, an_example, counted
from spikebench.layered_networks import LayeredNetwork
from spikebench.method import Info, Prediction, Task
from spikebench.neurons import SoftResetParameters
from spikebench.seeds import Streams

#: V_th - u_rest of all neurons; the rest, an axis of the network, says how it is divided.
KAPPA = 2.0


class State(NamedTuple):
    """What is learnt.

    Attributes:
        weights: [B, P].
        read_out: [B, C, n + 1], of the last layer's n rates and a constant.
        momentum: [B, P], of the weights.
        read_out_momentum: [B, C, n + 1].
        work: [B, len(WORK)] float64.
        round: [] int64, steps done.
    """

    weights: torch.Tensor
    read_out: torch.Tensor
    momentum: torch.Tensor
    read_out_momentum: torch.Tensor
    work: torch.Tensor
    round: torch.Tensor


class Shown(NamedTuple):
    """What a minibatch did.

    Attributes:
        weights: [B, P], with the feedback's norm restricted.
        batch: what was shown.
        inputs: [B, N, I - 1], its mean over time.
        rates: of the network.
        masks: [B, N, M + H], or None.
        loss: [B], mean cross-entropy.
        slope: [B, N, n], of S times the mean cross-entropy in the last layer's rates.
        read_out: [B, C, n + 1], the gradient of the mean cross-entropy.
    """

    weights: torch.Tensor
    batch: Batch
    inputs: torch.Tensor
    rates: Rates
    masks: torch.Tensor | None
    loss: torch.Tensor
    slope: torch.Tensor
    read_out: torch.Tensor

    def cell(self, b: int) -> Shown:
        """What cell ``b`` alone was shown and did."""
        one = slice(b, b + 1)
        batch = Batch(self.batch.inputs, self.batch.targets, self.batch.index[one])
        masks = None if self.masks is None else self.masks[one]
        rates = Rates(*(values[one] for values in self.rates))
        return Shown(
            self.weights[one],
            batch,
            self.inputs[one],
            rates,
            masks,
            self.loss[one],
            self.slope[one],
            self.read_out[one],
        )


def network(info: DataInfo, layers: Mapping[str, Any], training: str) -> LayeredNetwork:
    """The network of an ``architecture``; ``hidden`` layers are dense ones, the last of which feeds back to the first.

    ``rest`` (u_rest, -1) and ``leak`` (lambda, 1) may stand beside them.

    Raises:
        Unavailable: it cannot be built for these data.
    """
    architecture = layers.get("architecture")
    given = "hidden" if architecture is None else "architecture"
    if not layers.get(given) or layers.keys() - {given, "rest", "leak"}:
        raise Unavailable(f"feedback networks need an architecture or hidden layers; found {dict(layers)}")
    if architecture is None:
        architecture = "-".join(map(str, layers["hidden"])) + f" (F{layers['hidden'][0]})"
    rest = float(layers.get("rest", -1.0))
    neuron = SoftResetParameters(KAPPA + rest, rest, float(layers.get("leak", 1.0)))
    try:
        found = feedback_network(architecture, info.inputs, info.layout or (), info.outputs, neuron)
    except ValueError as error:
        raise Unavailable(str(error)) from error
    if any(found.gates):
        raise Unavailable(f"the rates of gates have no equilibrium's equation; found the architecture {architecture!r}")
    return found


def built(task: Task) -> LayeredNetwork:
    """The task's network."""
    assert isinstance(task.network, LayeredNetwork)
    return task.network


def init(task: Task, batch: Batch, chip: Chip, streams: Streams) -> State:
    """Random weights, biases of 0; the chip is not touched."""
    net, settings = built(task), task.settings
    shape = (net.parameters,)
    draws = 2 * uniform(streams, shape, "start") - 1 if settings.initial == "unit" else streams.normal(shape, "start")
    weights = torch.stack([_scaled(net, own, settings) for own in draws])
    wide = net.widths[-1]
    # As torch.nn.Linear begins: uniform in +-1 / sqrt(fan-in).
    read_out = (2 * uniform(streams, (net.outputs, wide + 1), "read-out") - 1) / wide**0.5
    work = torch.zeros(len(weights), len(WORK), dtype=torch.float64)
    zeros = torch.zeros_like(weights), torch.zeros_like(read_out)
    return State(weights, read_out, *zeros, work, torch.zeros((), dtype=torch.int64))


def _scaled(net: LayeredNetwork, draws: torch.Tensor, settings: FeedbackSettings) -> torch.Tensor:
    """Initial weights [P] from draws [P]."""
    weights, biases = net.split(draws)
    made = []
    for link, own in zip(net.links, weights, strict=True):
        # Of a transposed convolution the fan-in is that of the convolution which it turns round (as PyTorch has it).
        fan_in = link.fine[0] * link.kernel**2
        if settings.initial == "unit":
            own = own / own.square().sum(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        else:
            own = own * (2 / fan_in) ** 0.5
        made.append(own if link.upwards else settings.initial_feedback * own)
    return net.join(made, [torch.zeros_like(bias) for bias in biases])


def show(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> Shown:
    """The forward stage: average rates on the chip, and the loss of the read-out; no graph is kept over time."""
    net, settings = built(task), task.settings
    number = int(state.round)
    weights = restricted(net, state.weights, settings.feedback_norm)
    batch = augmented(task, batch, streams, number)
    masks = dropout_masks(net, settings, batch, streams, number)
    rates = chip.rates(weights, batch.inputs, batch.index, masks)
    features = _features(net, chip, rates, batch.inputs.shape[2])
    logits = _logits(state.read_out, features)
    targets = batch.targets[batch.index]
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    errors = (logits.softmax(dim=2) - functional.one_hot(targets, net.outputs)) / targets.shape[1]
    slope = settings.scale(net.widths[-1]) * _product(errors, state.read_out[..., :-1].double())
    read_out = _product(errors.mT, _with_one(features)).float()
    inputs = _mean(batch, float(net.nominal.leak))
    return Shown(weights, batch, inputs, rates, masks, loss.mean(dim=1), slope.float(), read_out)


def _mean(batch: Batch, leak: float) -> torch.Tensor:
    """Inputs [B, N, I - 1] averaged over time, as the neurons weigh it."""
    inputs, steps = batch.inputs[..., :-1], batch.inputs.shape[2]
    if is_constant(batch.inputs):
        return inputs[batch.index, :, 0]
    weigh = leak ** torch.arange(steps - 1, -1, -1.0)
    # One product a split: summed beside others, a split might have other bits.
    means = [torch.einsum("nti,t->ni", own, weigh / weigh.sum()) for own in inputs]
    return torch.stack(means)[batch.index]


def _features(net: LayeredNetwork, chip: Chip, rates: Rates, steps: int) -> torch.Tensor:
    """The last layer's rates [B, N, n] float64, of spike counts that are read off the chip."""
    return chip.read(rates.mean[..., -net.widths[-1] :] * steps).double() / steps


def _with_one(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=2)


def _logits(read_out: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """[B, N, C] float64."""
    return _product(_with_one(features), read_out.double().mT)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Matrix products [B, ...], one call a cell: beside others a cell might be summed in another order."""
    return torch.stack([a @ b for a, b in zip(left, right, strict=True)])


def weight_gradient(task: Task, shown: Shown, found: torch.Tensor) -> torch.Tensor:
    """Gradient [B, P] of the mean cross-entropy from the adjoint [B, N, M] of S times it, at the average rates."""
    net = built(task)
    settings: FeedbackSettings = task.settings
    slope = adjoint.transmission(net, shown.rates.mean, shown.masks if settings.masked_gradient else None).to(
        found.dtype
    )
    of_layers, of_feedback = slope.split((found.shape[2], net.widths[0]), dim=2)
    errors, fed_back = of_layers * found, of_feedback * found[..., : net.widths[0]]
    made = adjoint.gradient(net, errors, shown.rates.mean, shown.inputs, fed_back)
    return (made / settings.scale(net.widths[-1])).float()


def update(task: Task, state: State, shown: Shown, gradient: torch.Tensor, work: Mapping[str, Any]) -> State:
    """Stochastic gradient descent with momentum, as torch.optim.SGD, with one learning rate a cell.

    Args:
        task: with the settings.
        state: before.
        shown: the minibatch.
        gradient: [B, P] of the mean cross-entropy.
        work: of the backward stage, [B] or numbers by the names of ``WORK``; the forward stage's is added here.
    """
    settings, done = task.settings, int(state.round)
    rate = task.choice["learning_rate"] * min(1.0, (done + 1) / max(1, settings.warm_up))
    rate = rate / 10 ** sum(done >= drop * task.rounds for drop in settings.drops)
    decay = settings.weight_decay / (1.0 if settings.undivided_decay else settings.scale(built(task).widths[-1]))
    momentum = settings.momentum * state.momentum + gradient + decay * shown.weights
    of_read_out = settings.momentum * state.read_out_momentum + shown.read_out + decay * state.read_out
    return State(
        shown.weights - rate[:, None] * momentum,
        state.read_out - rate[:, None, None] * of_read_out,
        momentum,
        of_read_out,
        state.work + counted(built(task), shown.rates, task.info.steps, work),
        state.round + 1,
    )


def info(task: Task, shown: Shown, **traces: torch.Tensor) -> Info:
    """The traces that all methods have: the loss, and spikes a neuron and step."""
    neurons = shown.slope.shape[1] * task.info.steps * sum(built(task).widths)
    return Info({"train_loss": shown.loss, "forward_rate": shown.rates.spikes.sum(dim=1) / neurons, **traces})


def predict(task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
    """Class probabilities from the last layer's average rates, and what training took, an example."""
    net = built(task)
    weights = restricted(net, state.weights, task.settings.feedback_norm)
    rates = chip.rates(weights, inputs, index)
    features = _features(net, chip, rates, inputs.shape[2])
    probabilities = _logits(state.read_out, features).softmax(dim=2).float()
    return Prediction(probabilities=probabilities[:, None], diagnostics=an_example(net, state.work, task.info.steps))
