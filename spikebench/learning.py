"""From the units of a shard to what they learnt: hyper-parameters by validation data, then training."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import torch

from spikebench.checkpoints import Checkpoints, Stage
from spikebench.chip.simulated import SimulatedChip
from spikebench.data import Batch, StoredBatch
from spikebench.evaluation import log_likelihood
from spikebench.fitting import Report, Shard, answer, fit, gradient_steps, predict, score
from spikebench.method import Task

Candidates = Sequence[Mapping[str, float]]


class Learnt(NamedTuple):
    """What one variant predicts from, an entry a unit.

    Attributes:
        state: the method's own.
        traces: name to [rounds, U, ...].
        choice: name to [U].
        presented: [U], what search and training would have cost this variant alone.
        epochs: the states after each epoch, where the settings ask to ``report_best``.
    """

    state: Any
    traces: Mapping[str, torch.Tensor]
    choice: Mapping[str, torch.Tensor]
    presented: torch.Tensor
    epochs: Sequence[Any] = ()

    def of(self, units: Sequence[int]) -> Learnt:
        """The same of some units."""
        place = torch.tensor(units)

        def mine(state: Any) -> Any:
            return type(state)(*(tensor[place] if tensor.dim() else tensor for tensor in state))

        return Learnt(
            state=mine(self.state),
            traces={name: values[:, place] for name, values in self.traces.items()},
            choice={name: values[place] for name, values in self.choice.items()},
            presented=self.presented[place],
            epochs=[mine(state) for state in self.epochs],
        )


def learn(
    shard: Shard,
    tuning: Shard | None,
    method: ModuleType,
    variants: Sequence[str],
    report: Report,
    checkpoints: Checkpoints | None = None,
) -> dict[str, Learnt]:
    """Choose, then train on training and validation examples together; by variant.

    Units that differ in their device alone (equal seed and split) are trained once off-chip, and variants of the same
    choice share a training.

    Args:
        shard: what is trained.
        tuning: the one unit that hyper-parameters are chosen for; None chooses for each.
        method: the plug-in.
        variants: that are asked for.
        report: called with the share that is done.
        checkpoints: where trainings are saved while they go on; None saves nothing.
    """
    model, place = shard, list(range(len(shard.seeds)))
    if shard.mode == "off-chip":
        trained_as = list(zip(shard.seeds, shard.index, strict=True))
        first = list(dict.fromkeys(map(trained_as.index, trained_as)))
        model, place = ideal(shard).of(first), [first.index(trained_as.index(own)) for own in trained_as]
    units, candidates = len(model.seeds), search_space(shard)
    best = {variant: [0] * units for variant in variants}
    paid = dict.fromkeys(variants, torch.zeros(units, dtype=torch.float64))
    before = 0.0  # the search's share of the work
    if len(candidates) > 1:
        searched = tuning or model
        trainings = len(candidates) * len(searched.seeds)
        before = trainings / (trainings + units)
        stage = checkpoints.stage() if checkpoints else None
        found, spent = _search(searched, method, candidates, variants, lambda share: report(before * share), stage)
        # The tuning's choice is everyone's, and was made without the devices.
        best, paid = ({v: b * units for v, b in found.items()}, paid) if tuning else (found, spent)
    # What is trained: units with a candidate; a unit twice where its variants have chosen differently.
    pairs = list(dict.fromkeys((u, best[variant][u]) for variant in variants for u in range(units)))
    trained = model.of([u for u, _ in pairs])
    choice = _values(candidates, [number for _, number in pairs])
    fitted = fit(
        method,
        trained.task(choice),
        trained.batch(lambda data: data.labelled),
        trained.chip,
        trained.streams,
        lambda share: report(before + (1 - before) * share),
        checkpoints.stage() if checkpoints else None,
        keep_epochs=getattr(shard.settings, "report_best", False),
        device=shard.device,
    )
    all_of_it = Learnt(fitted.state, fitted.traces, choice, trained.chip.meter.presentations, fitted.epochs)
    learnt = {}
    for variant in variants:
        mine = all_of_it.of([pairs.index((u, best[variant][u])) for u in place])
        presented = torch.zeros_like(mine.presented) if model is not shard else mine.presented + paid[variant]
        learnt[variant] = mine._replace(presented=presented)
    return learnt


def ideal(shard: Shard) -> Shard:
    """The same off-chip: the ideal model stands in for the devices, which are not touched."""
    return replace(shard, mode="off-chip", chip=shard.chip.ideal(len(shard.seeds)))


def search_space(shard: Shard) -> Candidates:
    """Every combination of the candidates of the search space; one that is empty where there is nothing to choose."""
    grid = itertools.product(*shard.settings.SEARCH.values())
    return [dict(zip(shard.settings.SEARCH, values, strict=True)) for values in grid]


def steps_paid(shard: Shard) -> int:
    """Optimiser steps of search and training for one cell."""
    learner, given = len(shard.splits[0].train.targets), len(shard.splits[0].labelled.targets)
    times = len(search_space(shard))
    searched = times * gradient_steps(shard.settings, learner, shard.info.steps) if times > 1 else 0
    return searched + gradient_steps(shard.settings, given, shard.info.steps)


def _values(candidates: Candidates, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
    """The hyper-parameters of the candidates with these numbers."""
    return {name: torch.tensor([candidates[n][name] for n in numbers]) for name in candidates[0]}


def _search(
    shard: Shard,
    method: ModuleType,
    candidates: Candidates,
    variants: Sequence[str],
    report: Report,
    stage: Stage | None,
) -> tuple[dict[str, list[int]], dict[str, torch.Tensor]]:
    """For each variant and unit the candidate of the lowest validation loss, and what that cost it [U].

    All candidates are trained as more cells of the same batched program, each unit's from the same random numbers.
    """
    times, units = len(candidates), range(len(shard.seeds))
    wide = shard.of([u for u in units for _ in candidates])
    choice = _values(candidates, [*range(times)] * len(units))
    batch = wide.batch(lambda data: data.train)
    state = fit(method, wide.task(choice), batch, wide.chip, wide.streams, report, stage, device=shard.device).state
    held_out = wide.batch(lambda data: data.validation)
    best, paid = {}, {}
    for variant in variants:
        chip = _as_it_is(wide.chip)
        loss = _loss(method, wide.task(choice, variant), state, held_out, chip)
        best[variant] = [int(number) for number in loss.unflatten(0, (-1, times)).argmin(dim=1)]
        paid[variant] = chip.meter.presentations.unflatten(0, (-1, times)).sum(dim=1)
    return best, paid


def _as_it_is(chip: SimulatedChip) -> SimulatedChip:
    """The same devices after the same uses: what one variant does with them, no other is to notice."""
    other = copy.copy(chip)
    other.meter, other._uses = copy.deepcopy(chip.meter), chip._uses.copy()
    return other


def _loss(
    method: ModuleType, task: Task, state: Any, held_out: Batch | StoredBatch, chip: SimulatedChip
) -> torch.Tensor:
    """[B]: the negative log-likelihood of the targets; of a regression the squared error of the samples' mean.

    A likelihood that the method itself gives goes before that of a class, which may come from few votes.
    """
    if task.info.task == "sequence" or (task.info.task == "classification" and hasattr(method, "score")):
        scores = score(method, task, state, held_out, chip)
        loss = -log_likelihood(scores, scores.shape[1])
        return loss.where(loss.isfinite(), torch.inf)
    mean = answer(predict(method, task, state, held_out, chip), task.info.task).mean(dim=1)
    targets = held_out.targets[held_out.index]
    if task.info.task == "classification":
        of_label = mean.clamp(min=1e-12).gather(2, targets[..., None])
        return -of_label.log().mean(dim=(1, 2)).nan_to_num(nan=torch.inf)
    return (mean - targets).square().mean(dim=(1, 2)).nan_to_num(nan=torch.inf)
