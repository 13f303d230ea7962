"""The tables of the published pages, each a data frame made from the rows, and how a frame becomes Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from spikebench import comparison
from spikebench.figures.tables import at, faults, finished, in_sweep
from spikebench.naming import display_name, named
from spikebench.publishing.values import Printed
from spikebench.statistics import mean_interval

_ARMS = {
    ("metropolis_hastings", "in-the-loop"): "MH in the loop",
    ("backprop", "in-the-loop"): "Backprop in the loop",
    ("backprop", "off-chip"): "Backprop off-chip",
    ("backprop", "oracle"): "Backprop oracle",
}
_VARIANTS = {
    "full-precision": "full precision",
    "straight-through": "straight-through",
    "bayes-mode": "Bayes (mode)",
    "bayes-ensemble": "Bayes (ensemble)",
}
_RULES = ("single-sample", "mb", "iw", "gem")
_SURROGATES = {"fixed": "fixed surrogate", "psg": "PSG", "pda": "PDA", "psg+pda": "PSG+PDA"}
_FEEDBACK = {"spide": "SPIDE", "ide": "IDE", "feedback_bptt": "BPTT"}
#: Arms, as figures call them, that stand beside the best one under each fault family.
_BESIDE = ("MH in the loop", "Backprop in the loop", "Backprop off-chip")


def markdown(frame: pd.DataFrame) -> Printed:
    """A table of words and numbers that are printed already: a column a heading, a row a line, without the index."""
    lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return Printed(
        "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
    )


def with_interval(values: pd.Series[float], scale: float = 100, digits: int = 1) -> str:
    """Mean and half width of the 95 % interval: ``95.1 ± 1.0``; a single value has no interval."""
    found = mean_interval(scale * values.to_numpy(dtype=float))
    half = f"{found.high - found.mean:.{digits}f}" if found.n > 1 else "?"
    return f"{found.mean:.{digits}f} ± {half}"


def by_severity(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy at `paper-full`, all training data, by severity."""
    chosen = at(in_sweep(finished(rows), "severity"), experiment="chip_in_the_loop", fault="paper-full")
    size = chosen["training_size"].max()
    chosen = at(chosen, training_size=size)
    lines = []
    for (method, mode), label in _ARMS.items():
        arm = at(chosen, method=method, mode=mode)
        cells = {f"severity {s:g}": with_interval(of["accuracy"]) for s, of in arm.groupby("severity")}
        lines.append({f"accuracy in %, `paper-full`, {size} samples": label, **cells})
    return pd.DataFrame(lines)


def one_bit(rows: pd.DataFrame) -> pd.DataFrame:
    """BiSNN's variants at the largest training size of each data set."""
    chosen = at(finished(rows), experiment="bisnn")
    chosen = chosen[chosen["accuracy"].notna() & ~chosen.index.isin(in_sweep(chosen, "ablations").index)]
    lines = []
    for _, of_set in chosen.groupby("dataset"):
        largest = at(of_set, training_size=of_set["training_size"].max())
        for arm, label in _arms(largest, "variant", _VARIANTS):
            lines.append(
                {
                    "one-bit weights": f"{_name(arm)}, {label}",
                    **_size(arm),
                    "accuracy in %": with_interval(arm["accuracy"]),
                    "NLL in nats": with_interval(arm["nll"], 1, 3),
                    "ECE (20 bins) in %": with_interval(arm["ece_width_20"]),
                }
            )
    return pd.DataFrame(lines)


def compartments(rows: pd.DataFrame) -> pd.DataFrame:
    """GEM-SNN's rules and compartments, in the sweep of the claims."""
    chosen = in_sweep(at(finished(rows), experiment="gem_snn"), "classification")
    number = chosen["settings"].map(lambda settings: json.loads(settings).get("compartments", 1))
    lines = []
    for rule in _RULES:
        for k, arm in at(chosen, variant=rule).groupby(number):
            lines.append(
                {
                    "compartments": f"{_name(arm)}, {rule}, K = {k}",
                    **_size(arm),
                    "log-likelihood in nats": with_interval(arm["log_likelihood"], 1),
                    "accuracy in %": with_interval(arm["accuracy"]),
                    "ECE (20 bins) in %": with_interval(arm["ece_width_20"]),
                }
            )
    return pd.DataFrame(lines)


def equilibria(rows: pd.DataFrame) -> pd.DataFrame:
    """Feedback networks: accuracy of the last and of the best epoch, and energy of training, by data set."""
    chosen = at(finished(rows), experiment="spide")
    lines = []
    for sweep in ("mnist", "mnist-dvs", "cifar10", "cifar10-dvs"):
        for arm, label in _arms(in_sweep(chosen, sweep), "method", _FEEDBACK):
            lines.append(
                {
                    "feedback networks": f"{_name(arm)}, {label}",
                    **_size(arm),
                    "accuracy in %": with_interval(arm["accuracy"]),
                    "best epoch on the test set": with_interval(arm["best_accuracy"]),
                    "µJ an example, forward": f"{_diagnostic(arm, 'energy_forward_pj') / 1e6:.2f}",
                    "backward": f"{_diagnostic(arm, 'energy_backward_pj') / 1e6:.2f}",
                }
            )
    return pd.DataFrame(lines)


def surrogates(rows: pd.DataFrame) -> pd.DataFrame:
    """PSG and PDA, reconstructed: accuracy by time steps, and what potentials and slopes are like."""
    chosen = at(finished(rows), experiment="psg_pda")
    lines = []
    for sweep in ("time-steps", "two-steps", "cifar10", "cifar10-dvs"):
        named = in_sweep(chosen, sweep)
        for t, of_steps in named.groupby(named["data_settings"].map(_steps)):
            for arm, label in _arms(of_steps, "variant", _SURROGATES):
                lines.append(
                    {
                        "PSG and PDA, reconstructed": f"{_name(arm)}, T = {t}, {label}",
                        **_size(arm),
                        "accuracy in %": with_interval(arm["accuracy"]),
                        "log2 k": f"{_diagnostic(arm, 'log2_sharpness'):.2f}",
                        "A-gauss, decades": f"{_diagnostic(arm, 'shift_decades'):.2f}",
                        "E[(u − V o)²]": f"{_diagnostic(arm, 'quantisation'):.2f}",
                        "spikes a step": f"{_diagnostic(arm, 'rate'):.2f}",
                    }
                )
    return pd.DataFrame(lines)


def survivors(rows: pd.DataFrame) -> pd.DataFrame:
    """Who survives which faults on breast cancer: the best mean over severities by family, and how many keep up.

    An arm cannot be told apart from the best one if the paired test after Holm among all pairs of the family does not
    find it worse; it holds out if its mean accuracy is within the margin of its own on a sound chip up to severity 1.
    """
    here, margin = at(rows, experiment=comparison.EXPERIMENT, dataset="breast_cancer"), comparison.MARGIN
    found, breaks = comparison.areas(here), comparison.break_points(here, margin)
    lines = []
    for fault in faults(found):
        by_arm = at(found, fault=fault).groupby("arm")["area"]
        told, best = by_arm.agg(with_interval), str(by_arm.mean().idxmax())
        behind = at(comparison.verdicts(at(here, fault=fault), margin), arm=best, verdict="better")
        held = at(breaks, fault=fault)["censored"]
        lines.append(
            {
                "fault family": fault,
                "best arm": best,
                "its accuracy in %": told[best],
                "not told apart from it": f"{len(told) - 1 - len(behind)} of {len(told) - 1}",
                **{arm: told.get(arm, "not run") for arm in _BESIDE},
                "arms that hold out": f"{held.sum()} of {len(held)}",
            }
        )
    return pd.DataFrame(lines)


def areas(rows: pd.DataFrame) -> pd.DataFrame:
    """The comparison of all methods: mean accuracy over severities, a line an arm and data set, by fault family."""
    found = comparison.areas(named(rows))
    families = faults(found)
    texts = (
        found.groupby(["dataset", "arm", "fault"])["area"].agg(with_interval).unstack("fault").reindex(columns=families)
    )
    lines = texts.fillna("–").reset_index()
    lines.insert(0, "accuracy in %, mean over severities", lines.pop("dataset") + ", " + lines.pop("arm"))
    return lines


def baselines(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of plain backprop on the ideal model, a data set a line."""
    chosen = at(finished(rows), experiment="data_baselines")
    axes = ["dataset", "data_kind", "data_source", "training_size"]
    return pd.DataFrame(
        {"baseline": _name(arm), **_size(arm), "accuracy in %": with_interval(arm["accuracy"])}
        for _, arm in chosen.groupby(axes)
    )


def _arms(rows: pd.DataFrame, column: str, labels: dict[str, str]) -> Iterator[tuple[pd.DataFrame, str]]:
    """The arms that there are, with their labels and in their order."""
    for value, label in labels.items():
        if len(arm := at(rows, **{column: value})):
            yield arm, label


def _name(arm: pd.DataFrame) -> str:
    first = arm.iloc[0]
    return display_name(first["dataset"], first["data_kind"], first["data_source"])


def _size(arm: pd.DataFrame) -> dict[str, str]:
    """How much was learnt from, and how often."""
    return {"learner's examples": f"{arm.iloc[0]['training_size']:,}", "n": str(len(arm))}


def _diagnostic(arm: pd.DataFrame, name: str) -> float:
    return float(arm["diagnostics"].map(lambda text: json.loads(text)[name]).mean())


def _steps(settings: str) -> int:
    """Time steps of a data set's settings."""
    document = json.loads(settings)
    return int(document.get("bins", document.get("steps")))
