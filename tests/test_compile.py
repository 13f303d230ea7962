"""Installation compiles what training calls: no job waits for a kernel."""

from __future__ import annotations

import subprocess
import sys

from project import CHECKOUT

#: In a process of its own, as other tests call kernels with types of theirs.
SCRIPT = """
import json, pkgutil
from importlib import import_module
from pathlib import Path

import spikebench
from spikebench import compile, config, training
from spikebench.sweep import make_plan

names = [found.name for found in pkgutil.walk_packages(spikebench.__path__, "spikebench.") if "kernel" in found.name]

def compiled():
    kernels = [value for name in names for value in vars(import_module(name)).values() if hasattr(value, "signatures")]
    return {f"{kernel.py_func.__name__}{signature}" for kernel in kernels for signature in kernel.signatures}

compile.main()
before = compiled()
plan = make_plan(config.load(Path.cwd(), {"preset": "smoke", "experiments": ["grand_comparison"]}))
shards = [cells for cells in plan.shards.values() if cells[0].sweeps == "families"]
for cells in shards:
    first = cells[0].cell
    settings = plan.config.method_settings(first.method, json.loads(first.settings))
    training.train(training.Work([p.cell for p in cells], settings, plan.config.faults, Path.cwd()))
print(len(shards), sorted(compiled() - before))
"""


def test_every_method_finds_its_kernels_compiled() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shards, left = done.stdout.split(maxsplit=1)
    assert int(shards) > 20
    assert left.strip() == "[]"
