"""Copy a finished `full` run here and write its numbers into the README: `python docs/published/publish.py`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spikebench.naming import display_name
from spikebench.rows import METRICS
from spikebench.statistics import mean_interval

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ARMS = {
    ("metropolis_hastings", "in-the-loop"): "MH in the loop",
    ("backprop", "in-the-loop"): "Backprop in the loop",
    ("backprop", "off-chip"): "Backprop off-chip",
    ("backprop", "oracle"): "Backprop oracle",
}
VARIANTS = {
    "full-precision": "full precision",
    "straight-through": "straight-through",
    "bayes-mode": "Bayes (mode)",
    "bayes-ensemble": "Bayes (ensemble)",
}
RULES = ("single-sample", "mb", "iw", "gem")
SURROGATES = {"fixed": "fixed surrogate", "psg": "PSG", "pda": "PDA", "psg+pda": "PSG+PDA"}
FEEDBACK = {"spide": "SPIDE", "ide": "IDE", "feedback_bptt": "BPTT"}


def table(rows: pd.DataFrame) -> str:
    """Accuracy at `paper-full`, all training data, by severity: mean and half width of the 95 % interval, per cent."""
    chosen = rows[
        (rows["experiment"] == "chip_in_the_loop")
        & rows["sweeps"].str.split(";").map(lambda names: "severity" in names)
        & (rows["fault"] == "paper-full")
        & (rows["status"] == "ok")
    ]
    severities = sorted(chosen["severity"].unique())
    lines = ["| accuracy in %, `paper-full`, 398 samples | " + " | ".join(f"severity {s:g}" for s in severities) + " |"]
    lines.append("| --- |" + " --- |" * len(severities))
    for (method, mode), label in ARMS.items():
        arm = chosen[(chosen["method"] == method) & (chosen["mode"] == mode)]
        cells = []
        for severity in severities:
            interval = mean_interval(100 * arm.loc[arm["severity"] == severity, "accuracy"])
            cells.append(f"{interval.mean:.1f} ± {interval.high - interval.mean:.1f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def baselines(rows: pd.DataFrame) -> str:
    """Accuracy of plain backprop on the ideal model, a data set a line."""
    chosen = rows[(rows["experiment"] == "data_baselines") & (rows["status"] == "ok")]
    lines = ["| baseline, accuracy in % | learner's examples | n | plain backprop |", "| --- | --- | --- | --- |"]
    axes = ["dataset", "data_kind", "data_source", "training_size"]
    for (name, kind, source, size), group in chosen.groupby(axes):
        interval = mean_interval(100 * group["accuracy"])
        half = interval.high - interval.mean
        lines.append(
            f"| {display_name(name, kind, source)} | {size:,} | {interval.n} | {interval.mean:.1f} ± {half:.1f} |"
        )
    return "\n".join(lines)


def one_bit(rows: pd.DataFrame) -> str:
    """BiSNN's variants: accuracy, negative log-likelihood and ECE of the largest training size, a data set a block."""
    chosen = rows[(rows["experiment"] == "bisnn") & (rows["status"] == "ok") & rows["accuracy"].notna()]
    chosen = chosen[chosen["sweeps"].str.split(";").map(lambda names: "ablations" not in names)]
    lines = [
        "| one-bit weights | learner's examples | n | accuracy in % | NLL in nats | ECE (20 bins) in % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for _, of_set in chosen.groupby("dataset"):
        largest = of_set[of_set["training_size"] == of_set["training_size"].max()]
        for variant, label in VARIANTS.items():
            arm = largest[largest["variant"] == variant]
            if arm.empty:
                continue
            first, cells = arm.iloc[0], []
            for column, scale in (("accuracy", 100), ("nll", 1), ("ece_width_20", 100)):
                interval = mean_interval(scale * arm[column])
                digits = 3 if scale == 1 else 1
                cells.append(f"{interval.mean:.{digits}f} ± {interval.high - interval.mean:.{digits}f}")
            name = display_name(first["dataset"], first["data_kind"], first["data_source"])
            lines.append(f"| {name}, {label} | {first['training_size']:,} | {len(arm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def compartments(rows: pd.DataFrame) -> str:
    """GEM-SNN's rules and compartments: log-likelihood, accuracy and ECE of the sweep of the claims."""
    chosen = rows[(rows["experiment"] == "gem_snn") & (rows["status"] == "ok")]
    chosen = chosen[chosen["sweeps"].str.split(";").map(lambda names: "classification" in names)]
    lines = [
        "| compartments | learner's examples | n | log-likelihood in nats | accuracy in % | ECE (20 bins) in % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    number = chosen["settings"].map(lambda settings: json.loads(settings).get("compartments", 1))
    for rule in RULES:
        for k, arm in chosen[chosen["variant"] == rule].groupby(number):
            first, cells = arm.iloc[0], []
            for column, scale in (("log_likelihood", 1), ("accuracy", 100), ("ece_width_20", 100)):
                interval = mean_interval(scale * arm[column])
                cells.append(f"{interval.mean:.1f} ± {interval.high - interval.mean:.1f}")
            name = display_name(first["dataset"], first["data_kind"], first["data_source"])
            lines.append(f"| {name}, {rule}, K = {k} | {first['training_size']:,} | {len(arm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def equilibria(rows: pd.DataFrame) -> str:
    """Feedback networks by method: accuracy of the last and of the best epoch, and energy of training, by data set."""
    chosen = rows[(rows["experiment"] == "spide") & (rows["status"] == "ok")]
    lines = [
        "| feedback networks | learner's examples | n | accuracy in % | best epoch on the test set | "
        "µJ an example, forward | backward |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for sweep in ("mnist", "mnist-dvs", "cifar10", "cifar10-dvs"):
        of_set = chosen[chosen["sweeps"].str.split(";").map(lambda names, sweep=sweep: sweep in names)]
        for method, label in FEEDBACK.items():
            arm = of_set[of_set["method"] == method]
            if arm.empty:
                continue
            first, found = arm.iloc[0], arm["diagnostics"].map(json.loads)
            cells = []
            for column in ("accuracy", "best_accuracy"):
                interval = mean_interval(100 * arm[column])
                cells.append(f"{interval.mean:.1f} ± {interval.high - interval.mean:.1f}")
            cells += [
                f"{found.map(lambda d, s=s: d[f'energy_{s}_pj']).mean() / 1e6:.2f}" for s in ("forward", "backward")
            ]
            name = display_name(first["dataset"], first["data_kind"], first["data_source"])
            lines.append(f"| {name}, {label} | {first['training_size']:,} | {len(arm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def surrogates(rows: pd.DataFrame) -> str:
    """PSG and PDA, reconstructed: accuracy by time steps, and at two of them what potentials are like."""
    chosen = rows[(rows["experiment"] == "psg_pda") & (rows["status"] == "ok")]
    lines = [
        "| PSG and PDA, reconstructed | learner's examples | n | accuracy in % | log2 k | A-gauss, decades | "
        "E[(u − V o)²] | spikes a step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    steps = chosen["data_settings"].map(lambda text: json.loads(text).get("bins", json.loads(text).get("steps")))
    for sweep in ("time-steps", "two-steps", "cifar10", "cifar10-dvs"):
        named = chosen["sweeps"].str.split(";").map(lambda names, sweep=sweep: sweep in names)
        for t, of_steps in chosen[named].groupby(steps):
            for variant, label in SURROGATES.items():
                arm = of_steps[of_steps["variant"] == variant]
                if arm.empty:
                    continue
                first, found = arm.iloc[0], arm["diagnostics"].map(json.loads)
                interval = mean_interval(100 * arm["accuracy"])
                names = ("log2_sharpness", "shift_decades", "quantisation", "rate")
                means = [f"{found.map(lambda d, name=name: d[name]).mean():.2f}" for name in names]
                name = display_name(first["dataset"], first["data_kind"], first["data_source"])
                lines.append(
                    f"| {name}, T = {t}, {label} | {first['training_size']:,} | {interval.n} | {interval.mean:.1f} ± "
                    f"{interval.high - interval.mean:.1f} | {' | '.join(means)} |"
                )
    return "\n".join(lines)


def results(rows: pd.DataFrame, claims: list[dict[str, object]]) -> str:
    """The README's section: verdicts with their explanations, then the tables."""
    verdicts = "\n".join(f"- **{claim['id']}.** {claim['explanation']}" for claim in claims)
    tables = (table(rows), one_bit(rows), compartments(rows), equilibria(rows), surrogates(rows), baselines(rows))
    return "\n\n".join((verdicts, *tables))


def copy_rows(source: Path, target: Path) -> None:
    """The rows, small enough for a repository: metrics to five digits, more than any printed figure shows.

    Hashes of a row's axes and of what makes it stale are left out, and of the largest sweep what is in no figure:
    reliability, estimates and diagnostics.
    """
    table = pq.read_table(source)
    bulky = pc.equal(table["experiment"], "faults_and_data")
    for name in ("reliability", "estimates", "diagnostics"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pc.if_else(bulky, "{}", table[name]))
    for name in METRICS:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(_shortened(table[name].to_numpy())))
    table = table.drop_columns(["cell", "shard", "digest", "started"])
    words = [field.name for field in table.schema if field.name not in METRICS]
    pq.write_table(table, target, compression="brotli", compression_level=11, use_dictionary=words)


def _shortened(values: np.ndarray) -> np.ndarray:
    """Single precision, of whose 23 bits after the point the first 16 are kept: the others hardly compress."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x40)) & np.uint32(0xFFFFFF80)).view(np.float32)


def main() -> None:
    """Copy table, claims and figures; rewrite the README between its markers."""
    source = ROOT / "results" / "full"
    copy_rows(source / "rows.parquet", HERE / "rows.parquet")
    for name in ("claims.json", "coverage.csv"):
        shutil.copy(source / name, HERE / name)
    (HERE / "figures").mkdir(exist_ok=True)
    for figure in sorted((source / "figures").glob("*.png")):
        shutil.copy(figure, HERE / "figures" / figure.name)
        shutil.copy(figure.with_suffix(".json"), HERE / "figures" / f"{figure.stem}.json")
    text = results(pd.read_parquet(HERE / "rows.parquet"), json.loads((HERE / "claims.json").read_text()))
    readme = ROOT / "README.md"
    marked = re.compile(r"(<!-- results: begin[^\n]*-->\n).*?(<!-- results: end -->)", re.DOTALL)
    readme.write_text(marked.sub(lambda match: f"{match[1]}{text}\n{match[2]}", readme.read_text()))


if __name__ == "__main__":
    main()
