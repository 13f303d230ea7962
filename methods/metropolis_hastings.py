"""Metropolis-Hastings sampling of the weights with the chip in the loop (arXiv 2402.06284).

The chip is a black box: proposals are accepted or rejected by the likelihood that the distorted device itself shows.
The paper's prior, likelihood, proposal, schedule and estimator could not be read; every default below is our choice
(docs/papers.md), and ``Settings`` is where to change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from spikebench.chip.protocol import Chip
from spikebench.convergence import effective_sample_size
from spikebench.data import Batch
from spikebench.method import Info, Prediction, Task
from spikebench.metropolis import Chains, Target, log_likelihood, log_prior, run_block
from spikebench.networks import log_probabilities
from spikebench.seeds import Streams

CITATION = (
    "Safa, Jaltare, Sebt, Gano, Leugering, Gielen, Cauwenberghs: Towards Chip-in-the-loop Spiking Neural Network "
    "Training via Metropolis-Hastings Sampling. NICE 2024, arXiv 2402.06284."
)
MODES = ("in-the-loop", "off-chip")
BATCHED = True
SECONDS_PER_CELL = 0.13


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters.

    Attributes:
        iterations: proposals a chain; the first half is burn-in.
        samples: kept weights, evenly spaced over the second half.
        chains: independent chains; the one with the highest log-posterior is kept, all are paid for.
        prior_sd: s_p of the prior N(0, s_p^2).
        initial_sd: of the start.
        share: probability that a proposal changes a given weight.
        proposal_sd: of a changed weight, at the start; tuned in burn-in towards ``acceptance``.
        acceptance: wanted acceptance rate.
        temperature: of the likelihood.
        reread: measure the current weights anew at every test (matters on devices with read noise).
    """

    SEARCH: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    iterations: int = 10_000
    samples: int = 100
    chains: int = 2
    prior_sd: float = 1.0
    initial_sd: float = 0.5
    share: float = 0.1
    proposal_sd: float = 0.1
    acceptance: float = 0.25
    temperature: float = 1.0
    reread: bool = False

    def __post_init__(self) -> None:
        if self.iterations % (2 * self.samples):
            raise ValueError(
                f"metropolis_hastings: iterations: found {self.iterations}, expected a multiple of twice the samples "
                f"({2 * self.samples}), so that burn-in and samples come out even"
            )

    @property
    def block(self) -> int:
        """Proposals a step, which is also the thinning."""
        return self.iterations // (2 * self.samples)

    @property
    def rounds(self) -> int:
        """Steps: as many blocks of burn-in as of sampling."""
        return 2 * self.samples

    @property
    def gradient_steps(self) -> int:
        """None: the chip is a black box."""
        return 0

    @property
    def batch_size(self) -> int | None:
        """The likelihood is that of all examples."""
        return None

    @property
    def target(self) -> Target:
        """The distribution that is sampled."""
        return Target(self.prior_sd, self.temperature, self.share, self.reread)


class State(NamedTuple):
    """C chains a cell and what they left behind.

    Attributes:
        weights: [B, C, P], now.
        log_likelihood: [B, C], of ``weights``.
        step: [B, C], proposal standard deviation.
        accepted: [B, C], in the last block.
        round: [] int64, blocks done.
        samples: [B, C, S, P], kept weights.
        log_posterior: [B, C, S], of the kept weights.
        acceptance: [B, C], accepted proposals since burn-in.
    """

    weights: torch.Tensor
    log_likelihood: torch.Tensor
    step: torch.Tensor
    accepted: torch.Tensor
    round: torch.Tensor
    samples: torch.Tensor
    log_posterior: torch.Tensor
    acceptance: torch.Tensor


def init(task: Task, batch: Batch, chip: Chip, streams: Streams) -> State:
    """Chains from N(0, initial_sd^2), measured once on the chip."""
    settings: Settings = task.settings
    weights = settings.initial_sd * streams.normal((settings.chains, task.network.parameters), "start")
    shape = weights.shape[:2]
    return State(
        weights=weights,
        log_likelihood=log_likelihood(chip, weights, batch),
        step=torch.full(shape, settings.proposal_sd, dtype=torch.float64),
        accepted=torch.zeros(shape, dtype=torch.int64),
        round=torch.zeros((), dtype=torch.int64),
        samples=torch.zeros((*shape, settings.samples, task.network.parameters)),
        log_posterior=torch.zeros((*shape, settings.samples), dtype=torch.float64),
        acceptance=torch.zeros(shape, dtype=torch.int64),
    )


def step(task: Task, state: State, batch: Batch, chip: Chip, streams: Streams) -> tuple[State, Info]:
    """One block of proposals; in burn-in the step size follows the acceptance rate, then the last weights are kept."""
    settings: Settings = task.settings
    done = int(state.round)
    keys = torch.stack([streams.keys("chain", c) for c in range(settings.chains)], dim=1)
    chains = Chains(state.weights, state.log_likelihood, state.step, state.accepted)
    chains = run_block(chip, batch, chains, keys, done * settings.block, settings.block, settings.target)
    posterior = chains.log_likelihood / settings.temperature + log_prior(chains.weights, settings.target)
    rate = chains.accepted / settings.block
    size, acceptance, kept = chains.step, state.acceptance, done - settings.samples
    if kept < 0:
        # Robbins-Monro on the logarithm; it ends with burn-in, so that what is sampled is a Markov chain.
        size = (size * torch.exp((rate - settings.acceptance) / (1 + done / 10))).clamp(1e-3, 10.0)
    else:
        state.samples[:, :, kept] = chains.weights
        state.log_posterior[:, :, kept] = posterior
        acceptance = acceptance + chains.accepted
    state = State(
        chains.weights, chains.log_likelihood, size, chains.accepted,
        state.round + 1, state.samples, state.log_posterior, acceptance,
    )  # fmt: skip
    return state, Info({"log_posterior": posterior, "acceptance_rate": rate, "proposal_sd": size})


def _kept(state: State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each cell's best chain: samples [B, S, P], their log-posterior [B, S], and the chain's number [B]."""
    cells = torch.arange(len(state.samples))
    best = state.log_posterior.mean(dim=2).argmax(dim=1)
    return state.samples[cells, best], state.log_posterior[cells, best], best


def _probabilities(
    task: Task, weights: torch.Tensor, inputs: torch.Tensor, index: torch.Tensor, chip: Chip
) -> torch.Tensor:
    counts = chip.evaluate(weights.contiguous(), inputs, index)
    return log_probabilities(counts, task.network.count_gain).exp()


def predict(task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip) -> Prediction:
    """The network whose weights are the mean of the kept ones."""
    samples, posterior, best = _kept(state)
    cells = torch.arange(len(samples))
    ess = [effective_sample_size(trace[None].numpy()) for trace in posterior]
    return Prediction(
        probabilities=_probabilities(task, samples.mean(dim=1, keepdim=True), inputs, index, chip),
        diagnostics={
            "acceptance_rate": state.acceptance[cells, best] / (task.settings.samples * task.settings.block),
            "effective_sample_size": torch.tensor(ess),
            "proposal_sd": state.step[cells, best],
            "log_posterior": posterior.mean(dim=1),
        },
    )


def estimates(
    task: Task, state: State, inputs: torch.Tensor, index: torch.Tensor, chip: Chip
) -> dict[str, torch.Tensor]:
    """What the same chain gives otherwise: its most probable sample, its last, and the predictions' average."""
    samples, posterior, _ = _kept(state)
    cells = torch.arange(len(samples))
    chosen = {
        "best-sample": samples[cells, posterior.argmax(dim=1)][:, None],
        "last-sample": samples[:, -1:],
        "averaged-predictions": samples,
    }
    return {name: _probabilities(task, weights, inputs, index, chip) for name, weights in chosen.items()}
