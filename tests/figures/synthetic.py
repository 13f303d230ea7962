"""Rows of the gathered table's shape with known means, for the tests of figures and report.

The accuracy of a cell is ``mean_accuracy`` of its axes plus 0.01 x (repetition - middle) x the arm's spread, so that
with three repetitions an arm of spread 1 has the sample standard deviation 0.01.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from synthetic_comparison import comparison
from synthetic_psg import psg, psg_traces
from synthetic_spide import spide

SEVERITIES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ARMS = (
    ("metropolis_hastings", "in-the-loop"),
    ("backprop", "in-the-loop"),
    ("backprop", "off-chip"),
    ("backprop", "oracle"),
)
#: Per arm: accuracy lost at severity 1, spread, chip presentations.
LOSS = {ARMS[0]: 0.02, ARMS[1]: 0.22, ARMS[2]: 0.30, ARMS[3]: 0.05}
SPREAD = {ARMS[0]: 1.0, ARMS[1]: 2.0, ARMS[2]: 3.0, ARMS[3]: 0.5}
PRESENTATIONS = {ARMS[0]: 3_980_000, ARMS[1]: 12_800, ARMS[2]: 0, ARMS[3]: 0}
FAULT_WEIGHT = {"threshold": 0.4, "gain-mismatch": 0.6, "threshold+tau+gain": 0.8, "paper-full": 1.0}
#: Of the third experiment: data set, kind and source; mean accuracy and size.
BASELINES = {
    ("mnist", "real", "mnist"): (0.95, 1250),
    ("mnist_dvs", "simulated", "mnist"): (0.84, 1250),
    ("cifar10", "real", "cifar10-subset-4000"): (0.3, 600),
    ("cifar10_dvs", "simulated", "cifar10-subset-4000"): (0.25, 600),
    ("two_moons", "synthetic", ""): (0.97, 200),
}
METRICS = (
    "accuracy", "nll", "brier", "ece_width_15", "ece_width_20", "ece_mass_15", "ece_null_low", "ece_null_high",
    "spikes", "synaptic_operations", "energy_pj", "chip_presentations", "gradient_steps", "test_size",
    "ece_debiased", "rmse", "memory_bits", "bit_error", "log_likelihood", "best_accuracy",
)  # fmt: skip
#: Of the fourth experiment: variant to accuracy lost, spread, by how much it is too confident, spread of its samples.
VARIANTS = {
    "full-precision": (0.01, 0.5, 0.06, 0.0),
    "straight-through": (0.06, 1.0, 0.12, 0.0),
    "bayes-mode": (0.05, 1.0, 0.09, 0.0),
    "bayes-ensemble": (0.03, 1.0, 0.02, 0.02),
}
#: Its sweeps: data set and kind, training sizes.
SETS = {
    "two-moons": (("two_moons", "synthetic", ""), (200,)),
    "regression": (("regression_1d", "synthetic", ""), (60,)),
    "recordings": (("mnist_dvs", "simulated", "mnist"), (100, 400, 1250)),
}
#: Of the fifth experiment: rule to accuracy gained and, in nats, likelihood gained over the single sample's.
RULES = {"single-sample": (0.0, 0.0), "mb": (0.01, 1.0), "iw": (0.02, 2.0), "gem": (0.03, 4.0)}
RECORDINGS = ("mnist_dvs", "simulated", "mnist")
_PAIR = {"classes": [1, 7], "polarity": False}
_GRID: list[tuple[str, dict[str, Any]]] = [
    ("single-sample", {}), *((rule, {"compartments": 5}) for rule in ("mb", "iw")),
    *(("gem", {"compartments": k}) for k in (1, 2, 5, 10, 20)),
]  # fmt: skip
#: Its sweeps: data settings, training size, network, settings of all arms, arms.
GEM: dict[str, tuple[Any, ...]] = {
    "classification": (_PAIR, 100, {"hidden": [32]}, {"epochs": 2}, _GRID),
    "memorisation": ({"halves": True}, 1, {"filters": 3, "hidden": [2]}, {"epochs": 5, "tune_once": True}, _GRID),
    "notebook": ({"halves": True}, 1, {"filters": 3, "hidden": [2]}, {"epochs": 5},
                 [("iw", {"compartments": k}) for k in (1, 5)]),
    "ablations": (_PAIR, 100, {"hidden": [32]}, {"epochs": 2}, [
        *(("gem", {"decay": kappa}) for kappa in (0.2, 0.5, 0.9)), ("iw", {"divided": True}),
        *((rule, {"baseline": "scalar"}) for rule in ("single-sample", "mb", "iw")),
    ]),
    "no-output-feedback": (_PAIR, 100, {"hidden": [32], "output_feedback": False}, {"epochs": 2},
                           [_GRID[0], *(("gem", {"compartments": k}) for k in (5, 20))]),
}  # fmt: skip
#: Output lines and time steps of a memorised recording.
SHAPE = (80, 24)


def mean_accuracy(arm: tuple[str, str], fault: str, severity: float, size: int) -> float:
    """What the repetitions of a point average to."""
    return 0.95 - LOSS.get(arm, 0.1) * severity * FAULT_WEIGHT.get(fault, 0.5) - 0.4 / size**0.5


def rows(repetitions: int = 3, preset: str = "default") -> pd.DataFrame:
    """The experiments as ``config/experiments`` lays them out, all cells finished."""
    made = [_row(*cell, repetitions, preset) for cell in _cells(repetitions)]
    for (data, (mean, size)), repetition in itertools.product(BASELINES.items(), range(repetitions)):
        base: tuple[Any, ...] = ("threshold", 0.0, size, {}, {"hidden": [64]}, {}, repetition, repetitions, preset)
        row = _row("data_baselines", "baselines", ARMS[2], *base, data)
        row["accuracy"] += mean - mean_accuracy(ARMS[2], "threshold", 0.0, size)
        made.append(row)
    made += comparison(_row, ARMS, repetitions, preset)
    made += _bisnn(repetitions, preset)
    made += _gem(repetitions, preset)
    made += spide(_row, repetitions, preset)
    made += psg(_row, repetitions, preset)
    table = pd.DataFrame(made)
    axes = [c for c in table.columns if c not in ("sweeps", *METRICS)]
    sweeps = table.groupby("cell")["sweeps"].agg(";".join)
    return table.drop_duplicates("cell")[axes + list(METRICS)].merge(sweeps.reset_index(), on="cell")


def _cells(repetitions: int) -> Iterator[tuple[Any, ...]]:
    """(experiment, sweep, arm, fault, severity, size, data settings, network, settings, repetition)."""
    base: tuple[dict[str, Any], ...] = ({}, {"hidden": [8]}, {})
    sizes, three = (10, 20, 40, 80, 160, 398), (0.0, 0.5, 1.0)
    papers = ("threshold", "threshold+tau+gain", "paper-full")
    grids: list[tuple[str, str, Any, Any, Any, Any, Any]] = [
        ("chip_in_the_loop", "severity", ARMS, papers, SEVERITIES, (398,), [base]),
        ("chip_in_the_loop", "training-size", ARMS, ("paper-full",), three, sizes, [base]),
        ("chip_in_the_loop", "encoding", ARMS[:2], ("paper-full",), three, (398,),
         [({"encoding": code}, *base[1:]) for code in ("latency", "rate")]),
        ("chip_in_the_loop", "width", ARMS[:2], ("paper-full",), three, (398,), [({}, {"hidden": [16]}, {})]),
        ("chip_in_the_loop", "temperature", ARMS[:1], ("paper-full",), three, (398,),
         [(*base[:2], {"temperature": t}) for t in (0.1, 10.0)]),
        ("grand_comparison", "training-sizes", ARMS, ("threshold", "gain-mismatch", "paper-full"), SEVERITIES,
         (20, 80, 398), [base]),
        ("grand_comparison", "families", ARMS, ("threshold", "gain-mismatch", "paper-full"), SEVERITIES, (398,),
         [base]),
        ("grand_comparison", "families", ARMS[:3], ("stuck-at", "sign-flips"), three, (398,), [base]),
        ("grand_comparison", "families", ARMS[2:3], ("dropped-spikes",), three, (398,), [base]),
    ]  # fmt: skip
    for experiment, sweep, arms, faults, severities, of_size, settings in grids:
        for arm, fault, severity, size, changed, repetition in itertools.product(
            arms, faults, severities, of_size, settings, range(repetitions)
        ):
            yield experiment, sweep, arm, fault, severity, size, *changed, repetition


def _row(
    experiment: str, sweep: str, arm: tuple[str, str], fault: str, severity: float, size: int,
    data_settings: dict[str, Any], network: dict[str, Any], settings: dict[str, Any], repetition: int,
    repetitions: int, preset: str, data: tuple[str, str, str] = ("breast_cancer", "real", ""), variant: str = "",
) -> dict[str, Any]:  # fmt: skip
    axes = {
        "experiment": experiment,
        "paper": "2402.06284",
        "preset": preset,
        "dataset": data[0],
        "data_kind": data[1],
        "data_source": data[2],
        "data_settings": _canonical(data_settings),
        "network": _canonical(network),
        "method": arm[0],
        "mode": arm[1],
        "variant": variant,
        "settings": _canonical(settings),
        "fault": fault,
        "severity": severity,
        "training_size": size,
        "repetition": repetition,
        "crossed": "{}",
    }
    accuracy = mean_accuracy(arm, fault, severity, size) + 0.01 * (repetition - (repetitions - 1) / 2) * SPREAD.get(
        arm, 1.0
    )
    estimates = {
        name: {"accuracy": accuracy - 0.01 * k}
        for k, name in enumerate(("averaged-predictions", "best-sample", "last-sample"))
    }
    return {
        **axes,
        "cell": hashlib.sha256(_canonical(axes).encode()).hexdigest()[:16],
        "shard": "0" * 16,
        "sweeps": sweep,
        "status": "ok",
        "error": "",
        "accuracy": accuracy,
        "nll": 2 * (1 - accuracy),
        "brier": 1 - accuracy,
        **dict.fromkeys(("ece_width_15", "ece_width_20", "ece_mass_15"), 0.5 * (1 - accuracy)),
        "ece_null_low": 0.02,
        "ece_null_high": 0.05,
        "spikes": 20.0,
        "synaptic_operations": 300.0,
        "energy_pj": 270.0,
        "chip_presentations": PRESENTATIONS.get(arm, 0) * size / 398,
        "gradient_steps": 0 if arm == ARMS[0] else 400,
        "test_size": 171,
        "ece_debiased": 0.4 * (1 - accuracy),
        "rmse": np.nan,
        "memory_bits": 4096,
        "bit_error": np.nan,
        "log_likelihood": np.nan,
        "best_accuracy": np.nan,
        "choice": "{}",
        "diagnostics": '{"acceptance_rate":0.25,"effective_sample_size":30.0}' if arm == ARMS[0] else "{}",
        "estimates": _canonical(estimates) if arm == ARMS[0] else "{}",
        "reliability": "{}",
        "outputs": "{}",
        "seconds": 0.5,
        "shared": arm == ARMS[0],
        "peak_memory_mb": 400.0,
        "host": "host",
        "versions": "{}",
        "commit": "0" * 40,
        "data_sha256": "a" * 64,
        "split_sha256": "b" * 64,
        "digest": "c" * 16,
    }


def _bisnn(repetitions: int, preset: str) -> Iterator[dict[str, Any]]:
    """The fourth experiment: mean accuracy 0.95 less the variant's loss and 0.4 / sqrt(size), ECE as in ``_ece``."""
    for (sweep, (data, sizes)), variant, r in itertools.product(SETS.items(), VARIANTS, range(repetitions)):
        loss, spread, _, _ = VARIANTS[variant]
        aside = 0.01 * (r - (repetitions - 1) / 2) * spread
        for size in sizes:
            network: tuple[Any, ...] = ({}, {"hidden": [64]}, {})
            row = _row("bisnn", sweep, ("bisnn", "off-chip"), "threshold", 0.0, size, *network, r, repetitions, preset,
                       data, variant)  # fmt: skip
            accuracy = 0.95 - loss - 0.4 / size**0.5 + aside
            row |= {"paper": "2012.08300", "accuracy": accuracy, "nll": 2 * (1 - accuracy), "brier": 1 - accuracy}
            row |= {"ece_width_15": _ece(variant, 10) + aside / 10, "ece_width_20": _ece(variant, 10) + 0.01}
            if sweep == "regression":
                row |= dict.fromkeys(METRICS[:8], np.nan) | {"rmse": loss + aside, "outputs": _line(variant, r)}
            else:
                row["reliability"] = _reliability(variant, r)
                if variant == "bayes-ensemble":
                    row["estimates"] = _canonical(_readings(row["accuracy"], aside))
            if sweep == "two-moons":
                row["outputs"] = _moons(variant, r)
            yield row


def _ece(variant: str, members: int) -> float:
    return VARIANTS[variant][2] * (1 + 1 / members)


def _readings(accuracy: float, aside: float) -> dict[str, dict[str, float]]:
    """An ensemble's estimates: each halving of its members costs a point of accuracy."""
    of_size = {m: accuracy - 0.01 * np.log2(10 / m) for m in (1, 2, 5, 10, 20)}
    found = {f"ensemble-{m}": (a, _ece("bayes-ensemble", m) + aside / 10) for m, a in of_size.items()}
    found |= {"mode": (accuracy - 0.02, _ece("bayes-mode", 10) + aside / 10), "logit-average": (accuracy, 0.5)}
    return {
        name: {"accuracy": a, "nll": 2 * (1 - a), "brier": 1 - a, "ece_width_15": e, "ece_width_20": e + 0.01}
        for name, (a, e) in found.items()
    }


def _reliability(variant: str, repetition: int) -> str:
    """Bin k of 15 holds (repetition + 1) x k^2 predictions, of which its confidence less the variant's excess is right.

    The excess is 0.05 smaller in each further repetition. The first three bins are empty.
    """
    middle = (np.arange(15) + 0.5) / 15
    accuracy = np.clip(middle - VARIANTS[variant][2] + 0.05 * repetition, 0, 1)
    filled = np.arange(15) >= 3
    columns = {"confidence": np.where(filled, middle, np.nan), "accuracy": np.where(filled, accuracy, np.nan)}
    table = {name: [None if np.isnan(v) else float(v) for v in values] for name, values in columns.items()}
    return _canonical({**table, "count": [float((repetition + 1) * k * k * (k >= 3)) for k in range(15)]})


def _line(variant: str, repetition: int) -> str:
    """Regression: 0.05 x (repetition - 1) above the truth.

    Samples have the variant's standard deviation where there are data and 2 + repetition times that in the gaps.
    """
    x = np.linspace(-1.0, 4.95, 120)
    true = 0.5 + 0.3 * np.sin(x)
    seen = np.concatenate([np.linspace(a, a + 0.95, 20) for a in (-1.0, 1.5, 4.0)])
    gaps = ((x > -0.05 + 1e-9) & (x < 1.5 - 1e-9)) | ((x > 2.45 + 1e-9) & (x < 4.0 - 1e-9))
    noise = 0.03 * np.sin(40 * seen + repetition)
    return _canonical({
        "axes": [[-1.0, 4.95, 120]],
        "mean": [float(v) for v in true + 0.05 * (repetition - 1)],
        "sd": [float(v) for v in VARIANTS[variant][3] * np.where(gaps, 2 + repetition, 1)],
        "seen": [[float(a), float(b)] for a, b in zip(seen, 0.5 + 0.3 * np.sin(seen) + noise, strict=True)],
        "targets": [float(v) for v in true],
    })  # fmt: skip


def _moons(variant: str, repetition: int, side: int = 16) -> str:
    """A map with a curved border between the moons, the blurred more the less confident the variant is."""
    x, y = np.meshgrid(*[np.linspace(0, 1, side)] * 2, indexing="ij")
    border = 0.5 + 0.3 * np.sin(2 * np.pi * x) - y + 0.02 * repetition
    p = 1 / (1 + np.exp(-border * 400 * VARIANTS[variant][2]))
    angle = np.linspace(0, np.pi, 40)
    upper, lower = (np.cos(angle), np.sin(angle)), (1 - np.cos(angle), 0.5 - np.sin(angle))
    points = np.concatenate([np.transpose(upper), np.transpose(lower)])
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    return _canonical({
        "axes": [[0.0, 1.0, side]] * 2,
        "mean": [round(float(v), 3) for v in p.ravel()],
        "sd": [0.0] * side**2,
        "seen": [[round(float(v), 3) for v in point] for point in points],
    })  # fmt: skip


def _gem(repetitions: int, preset: str) -> Iterator[dict[str, Any]]:
    """The fifth experiment: means as in ``gem_scores`` and ``gem_error``."""
    for (sweep, (data, size, network, common, arms)), r in itertools.product(GEM.items(), range(repetitions)):
        for rule, settings in arms:
            aside = r - (repetitions - 1) / 2
            k = 1 if rule == "single-sample" else settings.get("compartments", 5)
            row = _row("gem_snn", sweep, ("gem_snn", "off-chip"), "threshold", 0.0, size, data, network,
                       {**common, **settings}, r, repetitions, preset, RECORDINGS, rule)  # fmt: skip
            x, h = (SHAPE[1], 2) if "halves" in data else (2, 32)
            back = {"iw": k * x + h, "gem": k * (x + h)}.get(rule, k * h)
            row |= {"paper": "2102.03280", "choice": '{"learning_rate":0.05}'}
            row["diagnostics"] = _canonical({"compartments": k, "from_centre": back, "to_centre": k * x})
            found: dict[str, dict[str, float]] = {
                f"likelihood-{s}": {"log_likelihood": gem_likelihood(rule, k, s, sweep, aside)}
                for s in (1, 2, 5, 10, 20, 50, 100)
            }
            row["log_likelihood"] = found["likelihood-100"]["log_likelihood"]
            if "halves" in data:
                row |= dict.fromkeys(METRICS[:8], np.nan) | {"bit_error": gem_error(rule, k) + 0.001 * aside}
                found |= {"mean": {"bit_error": row["bit_error"]}, "majority": {"bit_error": row["bit_error"] / 2}}
                row["outputs"] = _recording(r)
            else:
                found |= {f"votes-{s}": gem_scores(rule, k, s, sweep, aside) for s in (1, 2, 5, 10, 20, 50)}
                row |= found["votes-20"]
            yield row | {"estimates": _canonical(found)}


def gem_likelihood(rule: str, k: int, runs: int, sweep: str, aside: float) -> float:
    """-40 nats, and what rule, K and runs bring; ablations cost 3. Ten times that for a recording learnt by heart."""
    value = RULES[rule][1] + np.log2(k) + np.log2(runs / 100) + 0.5 * aside - 3 * (sweep != "classification")
    return float((10 if sweep in ("memorisation", "notebook") else 1) * (value - 40))


def gem_scores(rule: str, k: int, runs: int, sweep: str, aside: float) -> dict[str, float]:
    """Accuracy 0.8, and what rule, K and runs bring; an ablation costs 0.04. The null band is 0.01 wide."""
    accuracy = 0.8 + RULES[rule][0] + 0.01 * np.log2(k) + 0.01 * np.log2(runs / 20) + 0.01 * aside
    accuracy -= 0.04 * (sweep != "classification")
    ece, low = 0.2 - 0.01 * np.log2(k) - 0.02 * np.log2(runs), 0.01 * np.log2(runs)
    return {
        "accuracy": float(accuracy), "nll": 0.5, "brier": 0.2, "ece_width_15": float(ece),
        "ece_width_20": float(ece) + 0.01, "ece_null_low": float(low), "ece_null_high": float(low) + 0.01,
    }  # fmt: skip


def gem_error(rule: str, k: int) -> float:
    """Share of wrong bits of a recording learnt by heart."""
    return 0.04 - 0.1 * RULES[rule][0] - 0.002 * float(np.log2(k))


def _recording(repetition: int) -> str:
    """A target with a spike where the sum of step and line is a multiple of 5; generated are two wrong bits.

    In repetition r, line r + 1 lacks its first spike and line 0 has one too many at step 1.
    """
    target = (np.add.outer(*map(np.arange, SHAPE)) % 5 == 0).astype(np.uint8)
    generated = target.copy()
    generated[4 - repetition, repetition + 1] = 0
    generated[1, 0] = 1
    packed = {n: base64.b64encode(np.packbits(b).tobytes()).decode() for n, b in
              (("target", target), ("generated", generated))}  # fmt: skip
    return _canonical({"shape": list(SHAPE), **packed})


def traces(table: pd.DataFrame, points: int = 40, chains: int = 2) -> pd.DataFrame:
    """Log-posterior and acceptance traces for the sampler's cells of the main sweep; those of GEM's cells."""
    chosen = table[(table["method"] == "metropolis_hastings") & table["sweeps"].str.contains("severity")]
    chosen = chosen[chosen["fault"] == "paper-full"]
    steps = np.linspace(1, 100, points).astype(int)
    parts = []
    for cell, chain in itertools.product(chosen["cell"], range(chains)):
        climb = -60 - 220 * np.exp(-steps / 12) - 5 * chain
        settle = 0.25 + 0.3 * np.exp(-steps / 6)
        for name, values in (("log_posterior", climb), ("acceptance_rate", settle)):
            parts.append(pd.DataFrame({"cell": cell, "name": name, "chain": chain, "step": steps, "value": values}))
    parts += [_gem_traces(row) for row in table[table["method"] == "gem_snn"].to_dict("records")]
    parts += [psg_traces(row) for row in table[table["method"] == "psg_pda"].to_dict("records")]
    return pd.concat(parts, ignore_index=True)


def _gem_traces(row: dict[Any, Any]) -> pd.DataFrame:
    """After presentation p of five, a bound of -4000 + 20 K + 10 r over p and a bit error of 0.12 / p.

    Of K compartments, 1 + (K - 1) x p / 10 are effective, 1 + 0.3 (K - 1) on average.
    """
    p, k, r = np.arange(1, 6), json.loads(row["diagnostics"])["compartments"], row["repetition"]
    bound = (-4000 + 20 * k + 10 * r) / p
    of_name = {
        "bound": bound, "log_likelihood": bound * 0.95, "effective_samples": 1 + (k - 1) * p / 10,
        "hidden_rate": 0.6 - 0.02 * p, "bit_error": 0.12 / p,
    }  # fmt: skip
    points = {"name": np.repeat(list(of_name), len(p)), "step": np.tile(p, len(of_name))}
    return pd.DataFrame({"cell": row["cell"], "chain": 0, **points, "value": np.concatenate(list(of_name.values()))})


def fail(table: pd.DataFrame, where: pd.Series, status: str = "failed", error: str = "it broke") -> pd.DataFrame:
    """The table with some cells failed, as gathering would report them: the axes stay, the metrics are NaN."""
    table = table.copy()
    table.loc[where, ["status", "error"]] = [status, error]
    table[list(METRICS)] = table[list(METRICS)].astype(float)
    table.loc[where, list(METRICS)] = np.nan
    return table


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """The coverage table that goes with the rows."""
    by = ["experiment", "method", "mode", "dataset", "fault"]
    counts = table.groupby(by)["status"].value_counts().unstack(fill_value=0)
    statuses = ["ok", "failed", "timed-out", "diverged", "unavailable", "missing"]
    counts = counts.reindex(columns=statuses, fill_value=0)
    counts.insert(0, "expected", counts.sum(axis=1))
    return counts.reset_index()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
