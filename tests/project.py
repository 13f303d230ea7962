"""A temporary project: the checkout's workflow, configuration and plug-ins, with sweeps cut down to seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from spikebench import config, sweep
from spikebench import rows as row_file
from spikebench.config import Config
from spikebench.paths import Results
from spikebench.sweep import Plan

CHECKOUT = Path(__file__).parents[1]
#: Where this environment's commands lie.
BIN = Path(sys.executable).parent
PARTS = ("Snakefile", "workflow", "profiles", "config", "methods", "datasets")
MH = {"method": "metropolis_hastings", "mode": "in-the-loop"}
BACKPROP = {"method": "backprop", "mode": "in-the-loop"}
OFF_CHIP = {"method": "backprop", "mode": "off-chip"}
PRESET = "tiny"

#: A training method without training: its weights are drawn once. ``{step}`` is what one round does beside that, with
#: ``guilty`` [B] saying which cells' chips have deviating thresholds (severity above 0).
TOY = """
from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from spikebench.errors import Diverged, Unavailable
from spikebench.method import Info, Prediction
from spikebench.networks import log_probabilities

CITATION = "A toy."
MODES = ("in-the-loop",)
BATCHED = True
SECONDS_PER_CELL = 0.01


@dataclass(frozen=True)
class Settings:
    SEARCH: ClassVar[Mapping[str, tuple[float, ...]]] = {{}}
    behaviour: str = ""
    rounds: int = 1
    gradient_steps: int = 0
    batch_size: int | None = None


class State(NamedTuple):
    weights: torch.Tensor


def init(task, batch, chip, streams):
    return State(streams.normal((task.network.parameters,), "start"))


def step(task, state, batch, chip, streams):
    behaviour = task.settings.behaviour
    guilty = (chip.knowledge.layers[0].threshold != 1.0).any(dim=1)
    {step}
    return state, Info({{}})


def predict(task, state, inputs, index, chip):
    counts = chip.evaluate(state.weights[:, None], inputs, index)
    return Prediction(log_probabilities(counts, task.network.count_gain).exp())
"""


@dataclass(frozen=True)
class Done:
    """A finished command: status, and all that it said."""

    status: int
    said: str

    @property
    def sentences(self) -> list[str]:
        """What Spikebench itself said."""
        return [line for line in self.said.splitlines() if line.startswith("spikebench:")]

    def count(self, rule: str) -> int:
        """How many jobs of a rule Snakemake's table lists."""
        found = [line.split() for line in self.said.splitlines() if line.split()[:1] == [rule]]
        return next((int(words[1]) for words in found if len(words) == 2 and words[1].isdigit()), 0)


@dataclass(frozen=True)
class Running:
    """A command that may still be running, and the file that gets all it says."""

    process: subprocess.Popen[bytes]
    file: Path

    def wait(self, seconds: float = 240) -> Done:
        try:
            return Done(self.process.wait(timeout=seconds), self.file.read_text())
        finally:
            if self.process.poll() is None:
                self.process.kill()


@dataclass(frozen=True)
class Project:
    """A project folder and what a user does in it."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> Project:
        """The checkout's parts with a preset of two repetitions and one small experiment of two methods."""
        root.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = CHECKOUT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, root / part, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}))
        project = cls(root)
        project.write(
            f"config/presets/{PRESET}.yaml",
            {
                "name": PRESET,
                "description": "For tests.",
                "repetitions": 2,
                "cost": 1.0,
                "settings": {"metropolis_hastings": {"iterations": 40, "samples": 4}, "backprop": {"steps": 4}},
            },
        )
        project.experiment(arms=[MH, BACKPROP, OFF_CHIP])
        project.change("config/config.yaml", preset=PRESET, experiments=["chip_in_the_loop"])
        return project

    def copy(self, root: Path) -> Project:
        """The same project, results and Snakemake's own records included, elsewhere."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

    # Files

    def write(self, path: str, document: Mapping[str, Any]) -> None:
        (self.root / path).write_text(yaml.safe_dump(dict(document), sort_keys=False))

    def change(self, path: str, **keys: Any) -> None:
        """Change keys at the top of a YAML file."""
        self.write(path, {**yaml.safe_load((self.root / path).read_text()), **keys})

    def experiment(self, name: str = "chip_in_the_loop", **keys: Any) -> None:
        """Write an experiment: one sweep of few cells, with ``keys`` of its own."""
        axes = {"dataset": ["breast_cancer"], "network": [{"hidden": [4]}], "fault": ["paper-full"]}
        axes |= {"severity": [0.0, 1.0], "training_size": [20]}
        document = {"name": name, "paper": "2402.06284", "title": "A test", "axes": axes, "arms": [MH]}
        document |= {"sweeps": [{"name": "severity"}], "figures": []}
        self.write(f"config/experiments/{name}.yaml", {**document, **keys})

    def toy(self, name: str = "toy", step: str = "pass") -> None:
        """Drop a method into ``methods/``; ``step`` is the body of one round."""
        text = TOY.format(step=step.strip().replace("\n", "\n    "))
        (self.root / "methods" / f"{name}.py").write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that occurs exactly once in a file."""
        text = (self.root / path).read_text()
        assert text.count(old) == 1, f"{path} holds {text.count(old)} times {old!r}"
        (self.root / path).write_text(text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        """Add to the end of a file."""
        with (self.root / path).open("a") as file:
            file.write(text)

    # What is expected, and what there is

    def config(self, **overrides: Any) -> Config:
        return config.load(self.root, overrides)

    def plan(self, **overrides: Any) -> Plan:
        return sweep.make_plan(self.config(**overrides))

    @property
    def results(self) -> Results:
        return Results(PRESET, self.root)

    def table(self) -> pd.DataFrame:
        """The gathered rows by cell."""
        return pd.read_parquet(self.results.rows).set_index("cell")

    def shard_rows(self) -> pd.DataFrame:
        """The rows of all shard files that there are."""
        files = sorted((self.results.folder / "shards").rglob("*.parquet"))
        return pd.DataFrame([row for file in files for row in row_file.read(file)])

    def times(self, folder: str) -> dict[str, int]:
        """When each file below ``results/<preset>/<folder>`` was last changed."""
        found = sorted((self.results.folder / folder).rglob("*"))
        return {path.name: path.stat().st_mtime_ns for path in found if path.is_file()}

    # Commands

    def start(self, *command: str, **variables: str) -> Running:
        """Start a command in the project, with further environment variables."""
        said = self.root / f"said-{time.monotonic_ns()}.txt"
        with said.open("w") as stream:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=self.root,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**_plain_environment(), **variables},
            )
        return Running(process, said)

    def run(self, *command: str, **variables: str) -> Done:
        """Run a command of this environment to its end."""
        return self.start(*command, **variables).wait()

    def snakemake(self, *arguments: str, **variables: str) -> Done:
        return self.run("snakemake", *arguments, **variables)

    def processes(self) -> list[psutil.Process]:
        """All processes at work in this project's folder."""
        return list(at_work_in(self.root))

    def explain(self) -> str:
        """Every log there is, for the message of a failed assertion."""
        return "\n".join(f"--- {log}\n{log.read_text()}" for log in sorted(self.results.folder.glob("logs/*")))


def _plain_environment() -> dict[str, str]:
    """The environment without what pytest or an outer workflow put there, Python's own commands first on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPIKEBENCH_", "PYTEST_", "SNAKEMAKE_"))}
    kept = {k: v for k, v in kept.items() if not k.endswith("_NUM_THREADS")}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def at_work_in(folder: Path) -> Iterator[psutil.Process]:
    """Living processes whose current folder is ``folder``, this one excepted."""
    for process in psutil.process_iter():
        try:
            here = Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if here and process.pid != os.getpid():
            yield process


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition; an assertion error when it does not come true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not true after {seconds} s: {holds}"
        time.sleep(0.02)


def cut_the_power(folder: Path) -> None:
    """Kill -9 every process at work in a folder; they are stopped first, so that none sees another die."""
    while moving := [p for p in at_work_in(folder) if p.status() != psutil.STATUS_STOPPED]:
        for process in moving:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
    kill_all(list(at_work_in(folder)))


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """Kill -9."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def results_of(table: pd.DataFrame | Sequence[Mapping[str, Any]]) -> list[str]:
    """The result columns of rows, sorted by cell, as text in which equal bits are equal."""
    rows = table.reset_index().to_dict("records") if isinstance(table, pd.DataFrame) else [dict(row) for row in table]
    columns = [c for c in row_file.RESULT if all(c in row for row in rows)]
    return sorted(json.dumps([row["cell"], *(row[c] for c in columns)], default=float) for row in rows)
