"""One step of training a network of LIF layers with surrogates, thresholds and divergences that may be learnt.

What ``methods/psg_pda.py`` does to one network of one cell; its ``Settings`` say what the names mean.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional

from spikebench import multistep, potential_shift, sharpness
from spikebench.errors import Unavailable
from spikebench.layered_networks import LayeredNetwork
from spikebench.method import Task
from spikebench.multistep import How, Parameters
from spikebench.multistep_parameters import Layout, Parts
from spikebench.neurons import LIFParameters

#: LTMD's neuron: tau, and V where it is not learnt.
NEURON = LIFParameters(decay=0.25, threshold=0.5)
#: Share of a minibatch in the running means and variances of batch norm.
RUNNING = 0.1


class Net(NamedTuple):
    """One network while it is trained.

    Attributes:
        vector: [Q], see ``multistep_parameters``.
        momentum: [Q].
        running: [2, S], means and variances of batch norm.
        norms: [2], sums over the first epoch of the gradients' norms: of the loss, and of the divergence.
        sensitivity: [L, Q], of the last step's gradient in log k (P2).
    """

    vector: torch.Tensor
    momentum: torch.Tensor
    running: torch.Tensor
    norms: torch.Tensor
    sensitivity: torch.Tensor


class Shown(NamedTuple):
    """What a minibatch did: the mean cross-entropy [], the divergence [] and the course."""

    loss: torch.Tensor
    shift: torch.Tensor
    course: multistep.Course


def layout(task: Task) -> Layout:
    """Of the task's network.

    Raises:
        Unavailable: it has shortcuts, and thresholds are to be learnt, to whose scale a chip's wires cannot be adapted,
            or second paths to be run.
    """
    assert isinstance(task.network, LayeredNetwork)
    paths = task.settings.probe or (task.settings.pda == "c" and task.variant.endswith("pda"))
    if task.network.shortcuts and (paths or learns_thresholds(task)):
        raise Unavailable("networks with shortcuts have no learnt thresholds, no probe and no divergence between paths")
    return _layout(task.network)


_layout = lru_cache(maxsize=8)(Layout)  # asked for several times a step


def learns_thresholds(task: Task) -> bool:
    """LTMD's variants."""
    return task.variant.startswith("ltmd")


def learns_sharpness(task: Task) -> bool:
    """PSG's variants."""
    return "psg" in task.variant


def schedule(task: Task, number: int) -> float:
    """What the learning rate is multiplied with: a cosine from 1 to 0; with ``retrain`` two, one after the other.

    Steps that belong to no training have no end to go to: 1.
    """
    if not task.rounds:
        return 1.0
    half = task.rounds // 2
    done = number / task.rounds
    if task.settings.retrain:
        done = number / half if number < half else (number - half) / (task.rounds - half)
    return 0.5 * (1 + math.cos(math.pi * done))


def parameters(task: Task, parts: Parts, offset: torch.Tensor | None = None) -> Parameters:
    """What the engine differentiates; P3's sharpness and thresholds that are not learnt are constants.

    Args:
        task: what is learnt.
        parts: of the vector.
        offset: [L], added to log k.
    """
    settings, layers, steps = task.settings, len(parts.log_sharpness), task.info.steps
    fixed = torch.full_like(parts.thresholds, float(NEURON.threshold))
    thresholds = parts.learnt_thresholds if learns_thresholds(task) else fixed
    log_k = parts.log_sharpness.mean().expand(layers) if settings.shared_sharpness else parts.log_sharpness
    if learns_sharpness(task) and settings.psg == "p3":
        log_k_of_steps = sharpness.from_statistics(
            [gain.detach() for gain in parts.gains], thresholds.detach(), float(NEURON.decay), steps
        )
    else:
        log_k_of_steps = (log_k if offset is None else log_k + offset)[:, None].expand(-1, steps)
    return Parameters(parts.weights, parts.gains, parts.biases, log_k_of_steps, thresholds)


def logits(read_out: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """[N, C] of the last layer's average rates [N, n]."""
    return functional.linear(rates, read_out[:, :-1], read_out[:, -1])


def show(
    task: Task,
    vector: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    offset: torch.Tensor | None = None,
    matched: Shown | None = None,
    bare: bool = False,
) -> Shown:
    """Forward, with batch norm of this minibatch.

    Args:
        task: what is learnt.
        vector: [Q].
        inputs: [N, T, I - 1].
        targets: [N] labels.
        offset: [L], added to log k.
        matched: of the network whose firing rates are to be met, instead of a divergence.
        bare: the loss is all that is wanted: no divergence, and nothing that it alone is made of.
    """
    settings, arranged = task.settings, layout(task)
    parts = arranged.split(vector)
    used, probe = parameters(task, parts, offset), settings.probe and not bare
    divergence = settings.pda if task.variant.endswith("pda") and matched is None and not bare else ""
    how = How(
        settings.family,
        normalise=True,
        edge=potential_shift.EDGE if probe or divergence == "a-bern" else 0.0,
        paths=probe or divergence == "c",
    )
    course = multistep.present(arranged.network, used, inputs, how)
    rates = course.sent.mean(dim=0).permute(0, 3, 1, 2).flatten(1)
    loss = functional.cross_entropy(logits(parts.read_out, rates), targets)
    if matched is not None:
        pairs = zip(course.moments, matched.course.moments, strict=True)
        of_layers = [(own[2].mean() - other[2].mean().detach()).square() for own, other in pairs]
    elif divergence == "c":
        pairs = zip(course.moments[1:], course.unquantised, strict=True)
        of_layers = [potential_shift.between_paths(*pair, settings.by_layer) for pair in pairs]
    elif divergence:
        layers = zip(course.moments, used.thresholds, strict=True)
        how_compared = (not settings.through_spikes, settings.by_layer)
        of_layers = [potential_shift.shift(divergence, m, v, *how_compared) for m, v in layers]
    else:
        of_layers = [loss.new_zeros(())]
    return Shown(loss, torch.stack(of_layers).mean(), course)


def descend(
    task: Task,
    net: Net,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    rate: float,
    number: int,
    matched: Shown | None = None,
) -> tuple[Net, Shown]:
    """Step ``number`` of stochastic gradient descent with momentum, as torch.optim.SGD; the rest as in ``show``."""
    settings, arranged = task.settings, layout(task)
    vector = net.vector.clone().requires_grad_()
    shown = show(task, vector, inputs, targets, matched=matched)
    (gradient,) = torch.autograd.grad(shown.loss, vector, retain_graph=shown.shift.requires_grad)
    # The sharpness follows the loss alone: it adapts in classification, beside the divergence.
    log_sharpness, norms, sensitivity = arranged.split(gradient).log_sharpness, net.norms, net.sensitivity
    if not learns_sharpness(task) or settings.psg == "p3" or (settings.retrain and number >= task.rounds // 2):
        log_sharpness = torch.zeros_like(log_sharpness)
    elif settings.psg == "p2":
        made_with = rate * schedule(task, number - 1) / schedule(task, number)  # of the step before this one
        log_sharpness = sharpness.look_ahead(gradient, net.sensitivity, made_with)
        sensitivity = sharpness.sensitivity(
            lambda offset: weights_gradient(task, net.vector, inputs, targets, offset), arranged.layers, vector.device
        )
    if shown.shift.requires_grad:
        (other,) = torch.autograd.grad(shown.shift, vector)
        epoch = max(1, task.rounds // settings.epochs)
        if number < epoch:
            norms = norms + torch.stack([gradient.norm(), other.norm()])
        wanted = settings.ratio * norms[0]
        weight = wanted / norms[1].clamp(min=1e-12)
        # A channel that falls silent has a divergence of thousands: no step is led by it.
        weight = torch.minimum(weight, wanted / min(number + 1, epoch) / other.norm().clamp(min=1e-12))
        gradient = gradient + (settings.matching if matched is not None else weight) * other
    gradient = arranged.join(arranged.split(gradient)._replace(log_sharpness=log_sharpness))
    rates, decays = _by_coordinate(task, arranged, net.vector)
    momentum = settings.momentum * net.momentum + gradient + settings.weight_decay * decays * net.vector
    of_links = [torch.stack(shown.course.statistics[k]) for k in range(len(arranged.links))]
    running = net.running + RUNNING * (torch.cat(of_links, dim=1) - net.running)
    return Net(net.vector - rate * rates * momentum, momentum, running, norms, sensitivity), shown


def _by_coordinate(task: Task, arranged: Layout, vector: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``vector`` [Q] each: learning rates in multiples of the weights' own, and whether there is weight decay."""
    settings, ones = task.settings, arranged.split(torch.ones_like(vector))
    thresholds = float(learns_thresholds(task)) * ones.thresholds
    rates = ones._replace(log_sharpness=settings.sharpness_rate * ones.log_sharpness, thresholds=thresholds)
    decays = ones._replace(log_sharpness=settings.decayed_sharpness * ones.log_sharpness, thresholds=thresholds)
    return arranged.join(rates), arranged.join(decays)


def weights_gradient(
    task: Task, vector: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, offset: torch.Tensor
) -> torch.Tensor:
    """The loss's surrogate gradient [Q] with an offset of log k; 0 in sharpness and thresholds."""
    arranged, leaf = layout(task), vector.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(show(task, leaf, inputs, targets, offset, bare=True).loss, leaf)
    none = gradient.new_zeros(arranged.layers)
    return arranged.join(arranged.split(gradient)._replace(log_sharpness=none, thresholds=none))


def agreement(task: Task, net: Net, inputs: torch.Tensor, targets: torch.Tensor, rate: float) -> torch.Tensor:
    """[L], whether P1's slope in log k has the sign of the loss's after the step, by differences: 1, 0, or 0.5 if none.

    The step w' = w - rate g(w; k) is made on one half of the minibatch, and the loss is the real one of the other half.
    """
    arranged, half, leaf = layout(task), len(targets) // 2, net.vector.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(show(task, leaf, inputs[:half], targets[:half], bare=True).loss, leaf)

    def later(offset: torch.Tensor) -> torch.Tensor:
        found = weights_gradient(task, net.vector, inputs[:half], targets[:half], offset)
        with torch.no_grad():
            return show(task, net.vector - rate * found, inputs[half:], targets[half:], bare=True).loss

    true = sharpness.difference(later, arranged.layers, net.vector.device)
    return 0.5 + 0.5 * true.sign() * arranged.split(gradient).log_sharpness.sign()
