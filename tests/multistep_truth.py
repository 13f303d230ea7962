"""The multi-step engine once more: a plain loop over time in double precision, which torch differentiates.

One layer and one time step after the other, pictures with channels first: nothing of the engine is used but the shapes
of its parameters. And the tasks that its trainings are tested with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from spikebench import plugins
from spikebench.architectures import feedback_network
from spikebench.data import DataInfo
from spikebench.layered_networks import LayeredNetwork
from spikebench.method import Task
from spikebench.multistep import EPSILON, How, Parameters, neurons, trained
from spikebench.neurons import LIFParameters
from spikebench.surrogates import FAMILIES

PSG = plugins.load("methods", "psg_pda")
NEURON = LIFParameters(0.25, 0.5)
#: Pools that leave a row over, strides, means, and shortcuts that are wires or weights, from a pool or behind it.
NETWORKS = {
    "dense": ("6-5", (2, 2, 2)),
    "pools": ("4C3-M2-5C3-M2-6", (2, 7, 7)),
    "pool last": ("3C3-4C3-M3", (2, 7, 7)),
    "strides": ("3C5s-4C3s-A5", (1, 9, 9)),
    "wire": ("3C3-M2-4C3-4C3-4C3+-5", (2, 5, 5)),
    "projection": ("3C3-4C3-5C3s+-M2-3C3-5C3+-A4", (2, 8, 8)),
}


class Spike(torch.autograd.Function):
    """Heaviside step of x forward; backward what torch finds for the primitive g(k x), in x and in k."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, k: torch.Tensor, family: str) -> torch.Tensor:
        ctx.save_for_backward(x, k)
        ctx.family = family
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        with torch.enable_grad():
            x, k = (saved.detach().requires_grad_() for saved in ctx.saved_tensors)
            of_x, of_k = torch.autograd.grad(FAMILIES[ctx.family].primitive(k * x), (x, k), slope)
        return of_x, of_k, None


class Truth(NamedTuple):
    """What the last layer sends [T, N, C, H, W]; of each layer moments [5, T, C], spikes and potentials likewise.

    Potentials and spikes are of the neurons that are heard. ``unquantised`` are moments of the second path: with the
    first one's means and variances, which it takes as given, as it does the threshold that it divides by.
    """

    sent: torch.Tensor
    moments: list[torch.Tensor]
    spikes: list[torch.Tensor]
    potentials: list[torch.Tensor]
    unquantised: list[torch.Tensor]


def network(name: str) -> LayeredNetwork:
    """One of ``NETWORKS``, of three classes."""
    return build(*NETWORKS[name])


def build(architecture: str, picture: tuple[int, ...], neuron: LIFParameters = NEURON) -> LayeredNetwork:
    """Of three classes."""
    return feedback_network(architecture, 1 + math.prod(picture), picture, 3, neuron)


def drawn(net: LayeredNetwork, steps: int, seed: int = 0) -> Parameters:
    """Random parameters in single precision, all different."""
    g = torch.Generator().manual_seed(seed)
    layers, shapes = len(neurons(net)), [link.weights for link in trained(net)]
    tied = [net.layers[link.target].mean and link.source == link.target - 1 for link in trained(net)]
    shapes = [(*s[:2], 1, 1) if mean else s for s, mean in zip(shapes, tied, strict=True)]
    return Parameters(
        [torch.randn(s, generator=g) / math.prod(s[1:]) ** 0.5 for s in shapes],
        [torch.rand(s[0], generator=g) + 0.5 for s in shapes],
        [torch.randn(s[0], generator=g) * 0.3 for s in shapes],
        torch.randn(layers, steps, generator=g) * 0.3,
        torch.rand(layers, generator=g) * 0.3 + 0.4,
    )


def shown(net: LayeredNetwork, steps: int, constant: bool = False, samples: int = 6, seed: int = 1) -> torch.Tensor:
    """Random inputs [N, T, I - 1]."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn((samples, 1 if constant else steps, net.inputs - 1), generator=g).expand(-1, steps, -1)


def leaf(parameters: Parameters, dtype: torch.dtype = torch.float32) -> Parameters:
    """The same ready to be differentiated."""

    def own(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(dtype, copy=True).requires_grad_()

    weights, gains, biases = ([own(x) for x in part] for part in parameters[:3])
    return Parameters(weights, gains, biases, own(parameters.log_sharpness), own(parameters.thresholds))


def doubled(parameters: Parameters) -> Parameters:
    """The same in double precision, ready to be differentiated."""
    return leaf(parameters, torch.float64)


def leaves(parameters: Parameters) -> list[torch.Tensor]:
    """All tensors of it, in one order."""
    return [*parameters.weights, *parameters.gains, *parameters.biases, *parameters[3:]]


def run(
    currents: torch.Tensor, decay: float, k: torch.Tensor, threshold: torch.Tensor, how: How, given: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes and potentials before the reset [T, N, C, H, W] of one layer; ``k`` [T]."""
    held, spikes, potentials = torch.zeros(()), [], []
    for t, current in enumerate(currents):
        u = decay * held + current
        if how.smooth:
            o = FAMILIES[how.family].primitive(k[t] * (u - threshold))
        else:
            o = Spike.apply(u - threshold, k[t], how.family)
        if given is not None:
            o = given[t] + o - o.detach()
        held = u * (1 - o)
        spikes.append(o)
        potentials.append(u)
    return torch.stack(spikes), torch.stack(potentials)


def moments_of(u: torch.Tensor, o: torch.Tensor, k: torch.Tensor, threshold: torch.Tensor, how: How) -> torch.Tensor:
    """[5, T, C]; the divergence is a function of u alone, and 0 where it is not asked for."""
    away, given = (k.detach()[:, None, None, None, None] * (u - threshold.detach())), o.detach()
    p = FAMILIES[how.family].primitive(away).clamp(how.edge, 1 - how.edge)
    q = given.clamp(how.edge, 1 - how.edge)
    bernoulli = 0.5 * (p - q) * (p.logit() - q.logit()) if how.edge else torch.zeros_like(u)
    return torch.stack([x.mean(dim=(1, 3, 4)) for x in (u, u.square(), o, u * given, bernoulli)])


def present(
    net: Any,
    parameters: Parameters,
    inputs: torch.Tensor,
    how: How,
    given: Mapping[int, torch.Tensor] | None = None,
) -> Truth:
    """The engine's task; ``given`` are spikes [T, N, C, H, W] of each layer of neurons, as in the engine."""
    steps, links = inputs.shape[1], [link for link in net.links if not link.pool]
    sent: dict[int, torch.Tensor] = {-1: inputs.double().transpose(0, 1).unflatten(2, net.maps[0])}
    graded: dict[int, torch.Tensor] = {}
    found = Truth(sent[-1], [], [], [], [])
    for number, layer in enumerate(net.layers):
        if layer.kind == "largest":
            for maps in (sent, graded):
                if number - 1 in maps:
                    maps[number] = torch.stack([functional.max_pool2d(x, layer.kernel) for x in maps[number - 1]])
            continue
        place = len(found.moments)
        currents: Any = 0.0
        second: Any = 0.0
        frozen: Any = 0.0
        for link in net.links:
            if link.target != number:
                continue
            heard = sent[link.source]
            again = graded.get(link.source, heard) if link.source == number - 1 else heard
            if link.pool:
                currents, second, frozen = currents + heard, second + again, frozen + heard
                continue
            k = next(k for k, other in enumerate(links) if other is link)
            w = parameters.weights[k]
            if w.shape[2] == 1 and link.fine[1] > 1 and link.coarse[1] == 1:
                w = w.expand(-1, -1, link.fine[1], link.fine[1]) / link.fine[1] ** 2

            def summed(maps: torch.Tensor, w: torch.Tensor = w, link: Any = link) -> torch.Tensor:
                return torch.stack([functional.conv2d(x, w, stride=link.stride, padding=link.padding) for x in maps])

            brought, other, gain = summed(heard), summed(again), parameters.gains[k][:, None, None]
            held = brought
            if how.normalise:
                variance, mean = torch.var_mean(brought, dim=(0, 1, 3, 4), correction=0, keepdim=True)
                brought = (brought - mean) / (variance + EPSILON).sqrt()
                other, held = ((x - mean.detach()) / (variance.detach() + EPSILON).sqrt() for x in (other, held))
            scaled = [x * gain + parameters.biases[k][:, None, None] for x in (brought, other, held)]
            currents, second, frozen = currents + scaled[0], second + scaled[1], frozen + scaled[2]
        threshold, sharpness = parameters.thresholds[place], parameters.log_sharpness[place].exp()
        own = None if given is None else given[number].double()
        o, u = run(currents, net.neuron.decay, sharpness, threshold, how, own)
        _, unquantised = run(frozen, net.neuron.decay, sharpness, threshold, how, own)
        sent[number], graded[number] = o, (unquantised / threshold.detach()).clamp(0, 1)
        side = 1
        if number + 1 < len(net.layers) and net.layers[number + 1].kind == "largest":
            side = net.layers[number + 1].kernel

        def heard_of(x: torch.Tensor, side: int = side) -> torch.Tensor:
            return x[..., : x.shape[3] // side * side, : x.shape[4] // side * side]

        found.spikes.append(heard_of(o))
        found.potentials.append(heard_of(u))
        found.moments.append(moments_of(heard_of(u), heard_of(o), sharpness, threshold, how))
        if how.paths and place:
            o, u = run(second, net.neuron.decay, sharpness, threshold, how, own)
            found.unquantised.append(moments_of(heard_of(u), heard_of(o), sharpness, threshold, how))
    assert len(sent[len(net.layers) - 1]) == steps
    return found._replace(sent=sent[len(net.layers) - 1])


def task(
    variant: str = "fixed", architecture: str = "3C3-M2-4C3-4C3-4C3+", picture: tuple[int, ...] = (2, 6, 6),
    classes: int = 3, steps: int = 3, cells: int = 1, rate: float = 0.1, rounds: int = 8, **settings: Any,
) -> Task:  # fmt: skip
    """A task of ``rounds`` rounds."""
    info = DataInfo("classification", math.prod(picture) + 1, classes, steps, False, picture)
    net = PSG.network(info, {"architecture": architecture}, "")
    choice = {"learning_rate": torch.full((cells,), rate)}
    return Task(net, info, PSG.Settings(**settings), "off-chip", choice, variant, rounds)
