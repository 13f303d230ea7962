"""What training a feedback network takes: spikes, operations and energy, counted the same way for all methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from spikebench.chip.protocol import Rates
from spikebench.evaluation import ADDITION_PJ, MULTIPLY_ACCUMULATE_PJ
from spikebench.layered_networks import LayeredNetwork

#: What is counted over training, as sums over examples: spikes of both stages; additions for spikes; of real numbers
#: the multiply-accumulates of inputs, of the error's way back, and of the weights' gradient from it; the solver's own
#: vector work; and updates of neurons (and couples). The read-out's work, which all methods share, is left out. The
#: last four are what ``gradient_probe`` measures, where it does.
WORK = (
    "examples", "forward_spikes", "forward_additions", "input_macs", "backward_spikes", "backward_additions",
    "backward_macs", "gradient_macs", "solver_macs", "neuron_updates", "products",
    "gradient_error", "gradient_cosine", "clipped_error", "rate_error",
)  # fmt: skip


def counted(net: LayeredNetwork, rates: Rates, steps: int, work: Mapping[str, Any]) -> torch.Tensor:
    """One step's work, [B, len(WORK)] float64: of the forward stage, and of a backward stage.

    Args:
        net: what was trained.
        rates: of the forward stage.
        steps: T.
        work: of the backward stage, [B] or numbers by the names of ``WORK``.
    """
    examples = rates.mean.shape[1]
    mine = {
        "examples": examples,
        "forward_spikes": rates.spikes.sum(dim=1),
        "forward_additions": rates.operations + examples * steps * net.always_on,
        "input_macs": rates.input_operations,
        "gradient_macs": examples * sum(link.operations for link in net.links if not link.pool),
        "neuron_updates": examples * steps * sum(net.widths),
    }
    total = torch.zeros(len(rates.mean), len(WORK), dtype=torch.float64)
    for place, name in enumerate(WORK):
        for part in (mine, work):
            total[:, place] += torch.as_tensor(part.get(name, 0), dtype=torch.float64)
    return total


def an_example(net: LayeredNetwork, work: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
    """Training's work an example, by the names of ``WORK``; firing rate; and the energy of both stages in picojoules.

    Energies are those of the spikes' additions, and backward also of what carries the error back in real numbers.
    Inputs, the weights' gradient, the solver's vector work and the neurons are counted beside them.

    Args:
        net: what was trained.
        work: [B, len(WORK)], of the whole training.
        steps: T.
    """
    work_of = {name: work[:, place] / work[:, 0] for place, name in enumerate(WORK)}
    neurons = sum(net.widths)
    found = {name: values for name, values in work_of.items() if name != "examples"}
    found["forward_rate"] = work_of["forward_spikes"] / (neurons * steps)
    found["energy_forward_pj"] = ADDITION_PJ * work_of["forward_additions"]
    found["energy_backward_pj"] = (
        ADDITION_PJ * work_of["backward_additions"] + MULTIPLY_ACCUMULATE_PJ * work_of["backward_macs"]
    )
    found["energy_training_pj"] = found["energy_forward_pj"] + found["energy_backward_pj"]
    return found
