"""Backpropagation through time with all time steps of a layer in one call: networks of LIF layers on maps.

A convolution does not look at time, so the T steps of N examples are T x N pictures of one call, channels last, which
is what the library is fastest with. What does look at time, the neurons, is one compiled call a layer
(``multistep_kernels``), together with batch norm, the pool behind it and the moments of potentials: between two
convolutions a layer's values are read and written once. Kept for the backward pass are each convolution's inputs and
outputs, and nothing else. On other devices than the CPU ``multistep_torch`` does what the kernels do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from spikebench import multistep_kernels as kernels
from spikebench import multistep_torch
from spikebench.data import is_constant
from spikebench.layered_networks import LayeredNetwork, Link
from spikebench.multistep_torch import EPSILON, Plan
from spikebench.neurons import LIFParameters
from spikebench.surrogates import FAMILIES


class How(NamedTuple):
    """What is the same for all layers.

    Attributes:
        family: a name of ``surrogates.FAMILIES``.
        normalise: whether trained links have batch norm, over examples, places and time steps.
        smooth: spikes are the surrogate's primitive; all gradients are then exact (for checks).
        edge: of the Bernoulli divergence among the moments, by which probabilities keep away from 0 and 1; 0 leaves
            it out.
        paths: run each layer but the first a second time, driven by clip(u, 0, V) / V of the layer before in place of
            its spikes, with the same normalisation.
    """

    family: str
    normalise: bool = False
    smooth: bool = False
    edge: float = 0.0
    paths: bool = False


class Parameters(NamedTuple):
    """What is trained of one network with K trained links and L layers of neurons.

    Attributes:
        weights: K of [coarse, fine, kernel, kernel]; [coarse, fine, 1, 1] where they hear a map's mean.
        gains: K of [channels]: batch norm's, or what currents are multiplied with.
        biases: K of [channels].
        log_sharpness: [L, T], log k of the surrogates.
        thresholds: [L].
    """

    weights: Sequence[torch.Tensor]
    gains: Sequence[torch.Tensor]
    biases: Sequence[torch.Tensor]
    log_sharpness: torch.Tensor
    thresholds: torch.Tensor


class Course(NamedTuple):
    """What a presentation did.

    Attributes:
        sent: [T, N, height, width, channels] of the last layer.
        moments: [MOMENTS, T, channels] a layer of neurons, see ``multistep_kernels.MOMENTS``.
        statistics: by trained link, if it is normalised, mean and variance, [channels] each.
        unquantised: moments likewise, of the second path of each layer but the first; where they are asked for.
        currents: [T or 1, N, height, width, channels] a layer of neurons, as they drive it; where they are asked for.
    """

    sent: torch.Tensor
    moments: list[torch.Tensor]
    statistics: dict[int, tuple[torch.Tensor, torch.Tensor]]
    unquantised: list[torch.Tensor]
    currents: list[torch.Tensor]


def neurons(network: LayeredNetwork) -> list[int]:
    """The layers that are neurons, by their place: those of trained weights.

    Raises:
        ValueError: there are pools that are neurons, pools that are not right behind neurons, or shortcuts that start
            before a pool: a layer and its pool of largest values are run at once.
    """
    kinds = [layer.kind for layer in network.layers]
    if "pool" in kinds:
        raise ValueError("layers trained through time have pools of their largest value (M2); found a mean (P2)")
    for number, (before, kind) in enumerate(zip(["largest", *kinds], kinds, strict=False)):
        if kind == before == "largest":
            raise ValueError(f"layer {number}: found a pool; in layers trained through time it must be behind neurons")
    for link in network.links:
        if 0 <= link.source < link.target - 1 and kinds[link.source + 1] == "largest":
            raise ValueError(f"layer {link.target}: a shortcut must not start before a pool (layer {link.source})")
    return [number for number, kind in enumerate(kinds) if kind != "largest"]


def trained(network: LayeredNetwork) -> list[Link]:
    """The K links of trained weights, in the order of ``Parameters``."""
    return [link for link in network.links if not link.pool]


def present(
    network: LayeredNetwork,
    parameters: Parameters,
    inputs: torch.Tensor,
    how: How,
    given: Mapping[int, torch.Tensor] | None = None,
    keep: bool = False,
) -> Course:
    """Show a minibatch; differentiable in all parameters.

    Args:
        network: of LIF neurons, without feedback.
        parameters: float32.
        inputs: [N, T, I - 1]; stride 0 over T where they are constant.
        how: see ``How``.
        given: by layer what its neurons send instead of their own spikes, [T, N, height, width, channels]: those of a
            device in the loop. The surrogate's derivative stays in place.
        keep: the currents, too.

    Raises:
        ValueError: see ``neurons``; or second paths of a network with shortcuts.
    """
    assert isinstance(network.neuron, LIFParameters)
    steps, links = inputs.shape[1], trained(network)
    shown = inputs[:, :1] if is_constant(inputs[None]) else inputs
    sent, graded = {-1: _pictures(shown.transpose(0, 1), network)}, None
    course = Course(sent[-1], [], {}, [], [])
    for place, number in enumerate(neurons(network)):
        mine = [k for k, link in enumerate(links) if link.target == number]
        wires = [link for link in network.links if link.pool and link.target == number]
        if how.paths and len(mine) + len(wires) > 1:
            raise ValueError(f"layer {number}: a second path past a shortcut is not defined")
        pool = network.layers[number + 1].kernel if _pooled(network, number) else 1
        sharpness, threshold = parameters.log_sharpness[place], parameters.thresholds[place]
        plan = Plan(steps, float(network.neuron.decay), how.family, int(how.smooth), pool, how.edge, how.normalise)
        values = [weigh(links[k], parameters.weights[k], sent[links[k].source]) for k in mine]
        gain, bias = parameters.gains[mine[0]], parameters.biases[mine[0]]
        if len(mine) + len(wires) > 1:  # each summand is normalised for itself
            values = [_scaled(value, parameters, k, how, course) for value, k in zip(values, mine, strict=True)]
            values = [torch.stack(torch.broadcast_tensors(*values, *(sent[w.source] for w in wires))).sum(dim=0)]
            gain, bias, plan = torch.ones_like(gain), torch.zeros_like(bias), plan._replace(normalise=False)
        of_device = None if given is None else given[number]
        found, moments, mean, variance = _spikes(values[0], gain, bias, sharpness, threshold, of_device, plan)
        course.moments.append(moments)
        if plan.normalise:
            course.statistics[mine[0]] = (mean, variance)
            gain = gain / (variance + EPSILON).sqrt()
            bias = bias - mean * gain
        if keep:
            course.currents.append(values[0] * gain + bias)
        if how.paths:
            plan = plan._replace(normalise=False)
            if graded is not None:
                again = weigh(links[mine[0]], parameters.weights[mine[0]], graded)
                course.unquantised.append(_spikes(again, gain, bias, sharpness, threshold, of_device, plan)[1])
            plan = plan._replace(mode=kernels.GRADED)
            graded = _spikes(values[0], gain, bias, sharpness, threshold, of_device, plan)[0]
        sent[number + (pool > 1)] = found
    return course._replace(sent=sent[len(network.layers) - 1])


def _scaled(values: torch.Tensor, parameters: Parameters, k: int, how: How, course: Course) -> torch.Tensor:
    """Link k's values [T, N, H, W, C] with batch norm, whose statistics the course keeps, or multiplied and shifted."""
    gain, bias = parameters.gains[k], parameters.biases[k]
    if not how.normalise:
        return values * gain + bias
    variance, mean = torch.var_mean(values, dim=(0, 1, 2, 3), correction=0)
    course.statistics[k] = (mean.detach(), variance.detach())
    return (values - mean) * (gain / (variance + EPSILON).sqrt()) + bias


def _pooled(network: LayeredNetwork, number: int) -> bool:
    return number + 1 < len(network.layers) and network.layers[number + 1].kind == "largest"


def _pictures(lines: torch.Tensor, network: LayeredNetwork) -> torch.Tensor:
    """[T, N, height, width, channels] of lines [T, N, channels x height x width]."""
    pictures: torch.Tensor = lines.unflatten(2, network.maps[0])
    return pictures.permute(0, 1, 3, 4, 2).contiguous()


def weigh(link: Link, weights: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """Sums [T, N, height, width, channels] along a link of what its source sends, in one call."""
    if weights.shape[2] < link.kernel:  # of a map's mean
        mean: torch.Tensor = signal.mean(dim=(2, 3), keepdim=True)
        return mean @ weights[:, :, 0, 0].mT
    if link.coarse[1] == 1 and link.kernel == link.fine[1]:  # dense
        return (signal.flatten(2) @ weights.permute(0, 2, 3, 1).flatten(1).mT)[:, :, None, None]
    pictures = signal.flatten(0, 1).permute(0, 3, 1, 2)
    shaped = weights.contiguous(memory_format=torch.channels_last)
    sums = functional.conv2d(pictures, shaped, stride=link.stride, padding=link.padding)
    by_step: torch.Tensor = sums.permute(0, 2, 3, 1).unflatten(0, signal.shape[:2])
    return by_step.contiguous()


def _spikes(currents: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
    """A layer of neurons by the kernels, or by torch where they cannot reach the tensors."""
    run = _Spikes.apply if currents.is_cpu else multistep_torch.spikes
    found: tuple[torch.Tensor, ...] = run(currents, *others)
    return found


class _Spikes(torch.autograd.Function):
    """From what a link sums, [T or 1, N, H, W, C], to what its neurons send, with batch norm between them."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: torch.Tensor,
        gain: torch.Tensor,
        bias: torch.Tensor,
        log_sharpness: torch.Tensor,
        threshold: torch.Tensor,
        given: torch.Tensor | None,
        plan: Plan,
    ) -> tuple[torch.Tensor, ...]:
        """What is sent [T, N, H / pool, W / pool, C], moments [MOMENTS, T, C], mean [C] and variance [C]."""
        _, samples, height, width, channels = currents.shape
        mean, variance = torch.zeros(channels), torch.ones(channels)
        scale, shift = gain.contiguous(), bias.contiguous()
        if plan.normalise:
            totals = torch.empty(2, channels, dtype=torch.float64)
            kernels.sums(currents.flatten(0, 1).flatten(1, 2).numpy(), totals.numpy())
            totals /= currents.numel() / channels
            mean, variance = totals[0].float(), (totals[1] - totals[0].square()).clamp(min=0).float()
            scale = gain / (variance + EPSILON).sqrt()
            shift = bias - mean * scale
        sent = torch.empty(plan.steps, samples, height // plan.pool, width // plan.pool, channels)
        moments = torch.empty(kernels.MOMENTS, plan.steps, channels)
        ctx.rule = (
            scale.numpy(), shift.numpy(), log_sharpness.exp().numpy(), threshold.numpy()[()], kernels._f(plan.decay),
            list(FAMILIES).index(plan.family), plan.mode, plan.pool, kernels._f(plan.edge),
            (torch.empty(0, 0, 0, 0, 0) if given is None else given).numpy(),
        )  # fmt: skip
        kernels.forward(currents.numpy(), *ctx.rule, sent.numpy(), moments.numpy())
        ctx.plan = plan
        ctx.save_for_backward(currents, mean, variance, scale)
        ctx.mark_non_differentiable(mean, variance)
        return sent, moments, mean, variance

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Slopes in currents, gain, bias, log_sharpness and threshold."""
        currents, mean, variance, scale = ctx.saved_tensors
        slope, by_channel = torch.empty_like(currents), torch.empty(2, len(mean), dtype=torch.float64)
        by_step = torch.empty(ctx.plan.steps, dtype=torch.float64)
        by_threshold = torch.empty(1, dtype=torch.float64)
        kernels.backward(
            currents.numpy(), *ctx.rule, slopes[0].contiguous().numpy(), slopes[1].contiguous().numpy(), slope.numpy(),
            by_channel.numpy(), by_step.numpy(), by_threshold.numpy(),
        )  # fmt: skip
        bias = by_channel[0]
        if ctx.plan.normalise:
            deviation = (variance.double() + EPSILON).sqrt()
            gain = (by_channel[1] - mean * bias) / deviation
            count = currents.numel() / len(mean)
            tilt = -scale * gain / deviation / count
            level = -scale * bias / count - tilt * mean
        else:
            gain, tilt, level = by_channel[1], torch.zeros(len(mean)), torch.zeros(len(mean))
        kernels.centre(
            slope.flatten(0, 1).flatten(1, 2).numpy(), currents.flatten(0, 1).flatten(1, 2).numpy(), scale.numpy(),
            level.float().numpy(), tilt.float().numpy(),
        )  # fmt: skip
        return slope, gain.float(), bias.float(), by_step.float(), by_threshold.float()[0], None, None
