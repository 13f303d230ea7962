"""IDE: feedback networks trained at their equilibrium by implicit differentiation (arXiv 2109.14247).

Average rates of IF or LIF neurons tend to a fixed point; the gradient there needs no history, only the solution of one
linear equation, which Broyden's method finds. The baseline of SPIDE: network, forward stage, read-out and optimiser are
the same, so that only the solver differs. The paper's own networks have batch normalisation, these have none.
"""

from __future__ import annotations

from dataclasses import dataclass

from spikebench import adjoint, feedback_training
from spikebench.chip.protocol import Chip
from spikebench.data import Batch
from spikebench.feedback_settings import FeedbackSettings
from spikebench.feedback_training import State
from spikebench.method import Info, Task
from spikebench.seeds import Streams

CITATION = (
    "Xiao, Meng, Zhang, Wang, Lin: Training Feedback Spiking Neural Networks by Implicit Differentiation on the "
    "Equilibrium State. NeurIPS 2021, arXiv 2109.14247."
)
MODES = ("off-chip", "in-the-loop")
BATCHED = True
SECONDS_PER_CELL = 0.03
network, init, predict = feedback_training.network, feedback_training.init, feedback_training.predict


@dataclass(frozen=True)
class Settings(FeedbackSettings):
    """See ``feedback_settings.FeedbackSettings``; the constants of Broyden's method are those of the authors' code.

    Attributes:
        iterations: products with J^T at most.
        memory: rank-one updates that are kept.
        tolerance: of the residual's norm, times the square root of the number of neurons.
    """

    iterations: int = 30
    memory: int = 27
    tolerance: float = 2e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory: found {self.memory}, allowed: at least 1")


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """Forward on the chip; backward by Broyden's method on the ideal model."""
    settings: Settings = task.settings
    net, shown = feedback_training.built(task), feedback_training.show(task, state, batch, chip, streams)
    factors = adjoint.transmission(net, shown.rates.mean, shown.masks)
    solved = adjoint.broyden(
        net, shown.weights, shown.slope, factors, settings.iterations, settings.memory, settings.tolerance
    )
    gradient = feedback_training.weight_gradient(task, shown, solved.adjoint)
    # A product multiplies by the matrix of each layer but the inputs'; an iteration at rank k takes 6 k products of
    # vectors (step, and both halves of the update), and no more ranks count than are kept.
    products = solved.products.double()
    each = products / shown.slope.shape[1]
    ranks = each.clamp(max=settings.memory)
    work = {
        "products": products,
        "backward_macs": products * net.operations,
        "solver_macs": 6 * products * (ranks / 2) * net.widths[-1],
    }
    return (
        feedback_training.update(task, state, shown, gradient, work),
        feedback_training.info(task, shown, solver_residual=solved.residual.mean(dim=1), solver_products=each),
    )
