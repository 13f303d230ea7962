"""How plan, dry run, gathering, MLflow and report grow with the number of cells: time and memory of each command.

Nothing is trained. A temporary project is the checkout's workflow with one sweep of its own. Its rows are the plan's
axes with outcomes drawn from the published rows of the same methods, and traces as long as in the preset full. A shard
has ten cells and a job few shards, fewer than in real presets, so that files and jobs grow as well. Each command is one
that a user or the workflow calls, in a process of its own; given are seconds by the clock and of a core, and the peak
memory of the process. Sizes of ``--runs`` are imported into MLflow too, a run a cell, first into no database and then
again.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --cells 20000 100000 --runs 20000
"""

from __future__ import annotations

# Only small modules: the system counts as a process's memory what the one that started it had at that moment.
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

CHECKOUT, BIN = Path(__file__).parents[1], Path(sys.executable).parent
PARTS = ("Snakefile", "workflow", "profiles", "config", "methods", "datasets")
NAME = "scaling"
#: Whose claims are judged and whose figures are drawn; its sweeps are replaced by one.
EXPERIMENT = "chip_in_the_loop"
#: Methods, and the points that each trace of a cell has in the preset full; those of MH are of two chains.
TRACES = {
    "metropolis_hastings": {"log_posterior": 100, "acceptance_rate": 100, "proposal_sd": 100},
    "backprop": {"train_loss": 50},
}
FAULTS = ["threshold", "paper-full", "gain-mismatch", "quantisation", "stuck-at"]
SEVERITIES, REPETITIONS = [0.0, 0.25, 0.5, 0.75, 1.0], 2
#: Cells of one training size.
STEP = len(TRACES) * len(FAULTS) * len(SEVERITIES) * REPETITIONS


def create(root: Path, cells: int, job_seconds: float) -> None:
    """A project whose plan has so many cells, rounded up to whole training sizes."""
    for part in PARTS:
        copy = shutil.copytree if (CHECKOUT / part).is_dir() else shutil.copy2
        copy(CHECKOUT / part, root / part)
    axes = {"dataset": ["breast_cancer"], "network": [{"hidden": [8]}], "fault": FAULTS, "severity": SEVERITIES}
    axes |= {"training_size": list(range(10, 10 + -(-cells // STEP)))}
    experiment = yaml.safe_load((root / f"config/experiments/{EXPERIMENT}.yaml").read_text()) | {"axes": axes}
    experiment |= {"arms": [{"method": method, "mode": "in-the-loop"} for method in TRACES]}
    main = yaml.safe_load((root / "config" / "config.yaml").read_text())
    for path, document in (
        ("config.yaml", main | {"preset": NAME, "experiments": [EXPERIMENT], "jobs": {"seconds": job_seconds}}),
        (f"presets/{NAME}.yaml", {"name": NAME, "description": "", "repetitions": REPETITIONS, "cost": 1.0}),
        (f"experiments/{EXPERIMENT}.yaml", experiment | {"sweeps": [{"name": "all"}]}),
    ):
        (root / "config" / path).write_text(yaml.safe_dump(document))


def fill(root: Path) -> None:
    """Leave what training would have left, shards and manifests, and say how much it is."""
    import pandas as pd

    from spikebench import config, sweep
    from spikebench import rows as row_file
    from spikebench.paths import Results

    plan, results, draw = sweep.make_plan(config.load(root)), Results(NAME, root), random.Random(0)
    published = pd.read_parquet(CHECKOUT / "docs" / "published" / "rows.parquet").query(f"experiment=='{EXPERIMENT}'")
    columns = [c for c in row_file.SCHEMA.names if c in published and c not in (*row_file.AXES, "digest")]
    outcomes = {method: published.loc[published["method"] == method, columns].to_dict("records") for method in TRACES}
    for planned in plan.shards.values():
        method = planned[0].cell.method
        made = [draw.choice(outcomes[method]) | {"traces": json.dumps(list(trace(method, draw)))} for _ in planned]
        rows = [row_file.complete(p, outcome, {}) for p, outcome in zip(planned, made, strict=True)]
        row_file.write(rows, results.shard(EXPERIMENT, planned[0].shard))
    (results.folder / "jobs").mkdir()
    for job in plan.jobs.values():
        statuses = {"ok": sum(map(len, job.shards.values()))}
        manifest = {"job": job.name, "digest": job.digest, "retry": "none", "statuses": statuses, "shards": {}}
        results.job(job.name).write_text(json.dumps(manifest))
    rows = size(results.folder / "shards")
    print(
        f"{len(plan.planned):,} cells in {len(plan.jobs):,} jobs, {len(plan.shards):,} shards of together {rows:.1f} MB"
    )


def trace(method: str, draw: random.Random) -> Iterator[dict[str, object]]:
    """The points of a cell's traces."""
    chains = 2 if len(TRACES[method]) > 1 else 1
    for name, points in TRACES[method].items():
        for n in range(points):
            yield {"name": name, "chain": n % chains, "step": 4 * (n // chains + 1), "value": draw.gauss(0.0, 100.0)}


def measure(root: Path, command: str, note: str = "", *made: str) -> None:
    """Run a command in the project, and say what it took and how large the files are that it made."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SPIKEBENCH_", "SNAKEMAKE_"))}
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(BIN / command.split()[0]), *command.split()[1:]],
            cwd=root,
            env=environment | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        # Of this command alone; resource.getrusage knows only the largest of all that have ended so far.
        _, status, used = os.wait4(process.pid, 0)
        seconds, process.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{command} ended with {process.returncode}:\n{said.read()[-2000:]}")
    core, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    sizes = ", ".join(f"{Path(name).name} {size(root / 'results' / name):.1f} MB" for name in made)
    name = " ".join(command.split()[:2])
    print(f"  {name:<17} {note:<23} {seconds:7.1f} s {core:7.1f} s of a core {peak:7,.0f} MiB  {sizes}", flush=True)


def size(path: Path) -> float:
    """Of a file, or of all files in a folder, in MB."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Print a block for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="*", default=[5000], help="sizes without MLflow")
    parser.add_argument("--runs", type=int, nargs="*", default=[2000], help="sizes with MLflow")
    parser.add_argument("--job-seconds", type=float, default=5.0, help="forecast seconds in which a job is full")
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(options.fill)
        return
    for cells in sorted({*options.cells, *options.runs}):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            create(root, cells, options.job_seconds)
            subprocess.run([sys.executable, __file__, "--fill", folder], check=True)
            measure(root, "spikebench plan")
            (root / f"results/{NAME}/jobs").rename(root / "kept")
            measure(root, "snakemake -n", "nothing is trained")
            (root / "kept").rename(root / f"results/{NAME}/jobs")
            measure(root, "snakemake -n", "all is trained")
            measure(root, f"spikebench train --job {EXPERIMENT}.backprop.00", "one job, all is trained")
            measure(root, "spikebench gather", "", f"{NAME}/rows.parquet", f"{NAME}/traces.parquet")
            measure(root, "spikebench claims")
            measure(root, f"spikebench figures --experiment {EXPERIMENT}")
            if cells in options.runs:
                measure(root, "spikebench track", "no database yet", "mlflow.db")
                measure(root, "spikebench track", "nothing has changed", "mlflow.db")
            measure(root, "spikebench report", "", f"{NAME}/report/index.html")


if __name__ == "__main__":
    main()
