"""Hyper-parameters that all ways of training a feedback network share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FeedbackSettings:
    """Hyper-parameters; the learning rate is chosen on validation data.

    Attributes:
        epochs: passes over the examples.
        minibatch: examples a step.
        loss_scale: S: the loss is S times the mean cross-entropy, and the learning rate is divided by S. The couples of
            the second stage are driven by slopes of about S / minibatch times a read-out's weight, and tell those
            between 1 / T_B and 1; the weight decay that acts is divided by S, too. 0 chooses it, see ``scale``.
        learning_rates: the candidates.
        momentum: of stochastic gradient descent.
        weight_decay: likewise.
        undivided_decay: multiply the weight decay by S, so that S does not change it.
        drops: shares of training after which the learning rate is divided by ten.
        warm_up: steps over which the learning rate rises.
        dropout: share of the currents that are cut off, the same ones at every time step of both stages.
        dropout_of: ``all`` layers or the ``dense`` ones.
        masked_gradient: let the weights' gradient see the dropout masks, as the authors' code does not.
        feedback_norm: Frobenius norm to which the feedback is shrunk before each step; 0 leaves it.
        initial: ``kaiming`` (normal, by the fan-in) or ``unit`` (uniform, each neuron's weights of norm 1).
        initial_feedback: what the feedback's weights are multiplied by at the start.
        crop: pixels by which training pictures are shifted at random, at most.
        flip: mirror training pictures at random.
        tune_once: choose the learning rate once for all repetitions, on a split of its own.
        report_best: also report the best test accuracy over the epochs, which is no estimate of anything.
    """

    epochs: int = 20
    minibatch: int = 32
    loss_scale: float = 0.0
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    undivided_decay: bool = False
    drops: tuple[float, ...] = (0.5, 0.75)
    warm_up: int = 0
    dropout: float = 0.0
    dropout_of: str = "all"
    masked_gradient: bool = False
    feedback_norm: float = 2.0
    initial: str = "kaiming"
    initial_feedback: float = 0.1
    crop: int = 0
    flip: bool = False
    tune_once: bool = False
    report_best: bool = False

    def __post_init__(self) -> None:
        for name in ("learning_rates", "drops"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # YAML and JSON give a list
        for name, allowed in (("initial", ("kaiming", "unit")), ("dropout_of", ("all", "dense"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, allowed: {', '.join(allowed)}")

    @property
    def SEARCH(self) -> Mapping[str, tuple[float, ...]]:
        """Chosen on validation data."""
        return {"learning_rate": self.learning_rates}

    @property
    def batch_size(self) -> int | None:
        """Examples a step."""
        return self.minibatch

    def scale(self, neurons: int) -> float:
        """S, for a last layer of so many neurons.

        Weights of the read-out start at about 1 / sqrt(neurons). So that slopes do not depend on the width, S is
        minibatch * sqrt(neurons) * 2/9: 6.2 a picture for 784 neurons, where untrained nets had the least error.
        """
        return self.loss_scale or 2 / 9 * self.minibatch * neurons**0.5

    def updates(self, steps: int) -> int:
        """One a presentation."""
        return 1
