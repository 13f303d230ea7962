"""What the potentials of a network look like while it is trained and after: moments, histograms, injected shifts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from spikebench import multistep, surrogate_training
from spikebench.layered_networks import LayeredNetwork
from spikebench.method import Task
from spikebench.multistep import Course, How, Parameters
from spikebench.neurons import LIFParameters, LIFState, lif_step
from spikebench.potential_shift import EDGE, between_paths, shift
from spikebench.surrogate_training import Shown

#: Of a histogram of u / V from ``LOWEST`` to ``HIGHEST``; the first and the last hold what is beyond, too.
BINS, LOWEST, HIGHEST = 40, -4.0, 6.0
#: What is added to the potentials' drive of a layer, in units of V, and what it is multiplied with.
OFFSETS = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
SCALES = (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
#: Divergences that a probe measures.
MEASURED = ("a-gauss", "a-bern", "b", "c")
#: Test examples at most that potentials are measured on.
EXAMPLES = 128


def histograms(network: LayeredNetwork, course: Course, thresholds: torch.Tensor, steps: int) -> torch.Tensor:
    """Shares [L, BINS] of u / V before the reset, over all neurons, examples and steps, of a course with currents."""
    assert isinstance(network.neuron, LIFParameters)
    found = []
    for currents, threshold in zip(course.currents, thresholds, strict=True):
        constants = LIFParameters(network.neuron.decay, threshold)
        state = LIFState(torch.zeros_like(currents[0]), torch.zeros_like(currents[0]))
        counts = torch.zeros(BINS, device="cpu")
        for t in range(steps):
            state = lif_step(currents[t % len(currents)], state, constants)
            inside = (state.potential / threshold).clamp(LOWEST, HIGHEST)
            counts += inside.cpu().histc(BINS, LOWEST, HIGHEST)  # GPUs count in no order
        found.append(counts / counts.sum())
    return torch.stack(found)


def measured(course: Course, thresholds: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each divergence a layer, [L]; NaN of what the course does not hold."""
    unknown = torch.full((), torch.nan)
    second = [unknown, *(between_paths(*pair) for pair in zip(course.moments[1:], course.unquantised, strict=False))]
    values = {
        name: torch.stack([shift(name, m, v) for m, v in zip(course.moments, thresholds, strict=True)])
        for name in MEASURED[:3]
    }
    return values | {"c": torch.stack(second) if course.unquantised else unknown.expand(len(thresholds))}


def injected(
    present: Callable[[Parameters], Course], parameters: Parameters, place: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergences of one layer [MEASURED, OFFSETS] and [MEASURED, SCALES] when its drive is offset, or scaled.

    Args:
        present: shows examples to a network without batch norm.
        parameters: of it.
        place: of the layer, whose link has the same place.
    """

    def under(scale: float, offset: float) -> torch.Tensor:
        gains, biases = list(parameters.gains), list(parameters.biases)
        gains[place] = gains[place] * scale
        biases[place] = biases[place] * scale + offset * parameters.thresholds[place]
        found = measured(present(parameters._replace(gains=gains, biases=biases)), parameters.thresholds)
        return torch.stack([found[name][place] for name in MEASURED])

    return (
        torch.stack([under(1.0, offset) for offset in OFFSETS], dim=1),
        torch.stack([under(scale, 0.0) for scale in SCALES], dim=1),
    )


def traces(task: Task, vector: torch.Tensor, shown: Shown) -> dict[str, torch.Tensor]:
    """The loss [] and of each layer [L] log2 k, firing rate, A-gauss and squared quantisation error; of a probe, all.

    Args:
        task: what is learnt.
        vector: [Q], after the step.
        shown: what the step's minibatch did.
    """
    used = surrogate_training.parameters(task, surrogate_training.layout(task).split(vector))
    found = {"train_loss": shown.loss, "sharpness": used.log_sharpness.mean(dim=1) / math.log(2)}
    found |= _of_layers(
        shown.course, used.thresholds, {"rate": "rate", "a-gauss": "shift", "quantisation": "quantisation"}
    )
    if task.settings.probe:
        found |= {f"shift-{name}": values for name, values in measured(shown.course, used.thresholds).items()}
    return {name: values.detach() for name, values in found.items()}


def _of_layers(course: Course, thresholds: torch.Tensor, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Shifts [L] under other names."""
    pairs = list(zip(course.moments, thresholds, strict=True))
    return {said: torch.stack([shift(name, m, v) for m, v in pairs]) for name, said in names.items()}


def at_the_start(task: Task, vector: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Histograms [L, BINS] before training, with batch norm of these very examples."""
    arranged = surrogate_training.layout(task)
    used = surrogate_training.parameters(task, arranged.split(vector))
    with torch.no_grad():
        course = multistep.present(arranged.network, used, inputs, How(task.settings.family, normalise=True), keep=True)
    return histograms(arranged.network, course, used.thresholds, task.info.steps)


def diagnostics(
    task: Task, vector: torch.Tensor, running: torch.Tensor, inputs: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What the trained model shows on these examples: means over layers, each layer's log2 k, and what a probe finds.

    Args:
        task: what was learnt.
        vector: [Q].
        running: [2, S], which stand in for batch norm.
        inputs: [N, T, I - 1].
    """
    arranged, probe = surrogate_training.layout(task), task.settings.probe
    parts = arranged.split(vector)
    gains, biases = arranged.frozen(parts, running)
    used = surrogate_training.parameters(task, parts)._replace(gains=gains, biases=biases)
    how = How(task.settings.family, edge=EDGE if probe else 0.0, paths=probe)

    def present(changed: Parameters) -> Course:
        with torch.no_grad():
            return multistep.present(arranged.network, changed, inputs, how, keep=probe)

    course, log2 = present(used), used.log_sharpness.mean(dim=1) / math.log(2)
    names = {"a-gauss": "shift", "b": "shift_b", "quantisation": "quantisation", "rate": "rate"}
    of_layers = _of_layers(course, used.thresholds, names)
    found = {name: values.mean() for name, values in of_layers.items()}
    found["shift_decades"] = of_layers["shift"].log10().mean()  # silent channels have divergences of thousands
    found |= {"log2_sharpness": log2.mean(), "log2_sharpness_of_layers": log2}
    if probe:
        found["potentials"] = histograms(arranged.network, course, used.thresholds, task.info.steps)
        found["offset"], found["scaled"] = injected(present, used, arranged.layers // 2)
    return {name: values.detach() for name, values in found.items()}
