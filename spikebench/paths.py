"""Where things lie: the project's root and everything generated under ``results/<preset>/``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def project_root() -> Path:
    """The checkout that is worked in: the current folder if it is one, else the one this package lies in."""
    here = Path.cwd()
    return here if (here / "Snakefile").exists() and (here / "methods").is_dir() else Path(__file__).parents[1]


@dataclass(frozen=True)
class Store:
    """Data that all presets share: archives, frames made of them. Large, so it may lie on another disk.

    Attributes:
        folder: ``results/data``, or what the environment variable SPIKEBENCH_DATA names.
    """

    folder: Path

    @classmethod
    def of(cls, root: Path) -> Store:
        """The store of the project at ``root``."""
        elsewhere = os.environ.get("SPIKEBENCH_DATA")
        return cls(Path(elsewhere) if elsewhere else root / "results" / "data")

    def fetched(self, source: str) -> Path:
        """What became of fetching a source."""
        return self.folder / "archives" / f"{source}.json"

    def ready(self, job: str) -> Path:
        """What became of preparing a data set (``preparation.DataJob``)."""
        return self.folder / "ready" / f"{job}.json"

    def prepared(self, name: str) -> Path:
        """The folder of a data set's binned recordings."""
        return self.folder / "prepared" / name


@dataclass(frozen=True)
class Results:
    """The generated files of one preset."""

    preset: str
    root: Path

    @property
    def folder(self) -> Path:
        """Everything of this preset lies below."""
        return self.root / "results" / self.preset

    def shard(self, experiment: str, shard: str) -> Path:
        """The rows of one shard, written as it ends."""
        return self.folder / "shards" / experiment / f"{shard}.parquet"

    def checkpoints(self, experiment: str, shard: str) -> Path:
        """What the trainings of one shard have learnt so far; there while they go on."""
        return self.folder / "checkpoints" / experiment / shard

    def job(self, job: str) -> Path:
        """The manifest of one finished job."""
        return self.folder / "jobs" / f"{job}.json"

    @property
    def calibration(self) -> Path:
        """What a few steps of each kind of training took."""
        return self.folder / "calibration.json"

    @property
    def rows(self) -> Path:
        """The gathered table, one row a cell."""
        return self.folder / "rows.parquet"

    @property
    def traces(self) -> Path:
        """The gathered training traces in long form."""
        return self.folder / "traces.parquet"

    @property
    def coverage(self) -> Path:
        """Expected and finished cells by experiment, arm and fault."""
        return self.folder / "coverage.csv"

    @property
    def claims(self) -> Path:
        """The scoreboard."""
        return self.folder / "claims.json"

    def sheet(self, job: str) -> Path:
        """The contact sheet of a data set: caption and numbers; the picture lies beside it."""
        return self.folder / "data" / f"{job}.json"

    @property
    def figures(self) -> Path:
        """PNG, PDF and JSON (caption and numbers) of every figure."""
        return self.folder / "figures"

    @property
    def report(self) -> Path:
        """The report's first page, self-contained; the others lie in folders beside it."""
        return self.folder / "report" / "index.html"

    @property
    def variance_page(self) -> Path:
        """Where the spread of results comes from."""
        return self.report.parent / "variance.html"

    def method_page(self, method: str) -> Path:
        """What the report says of one method."""
        return self.report.parent / "methods" / f"{method}.html"

    def data_page(self, dataset: str) -> Path:
        """What the report says of one data set, by the name of its plug-in."""
        return self.report.parent / "data" / f"{dataset}.html"

    @property
    def tracking(self) -> Path:
        """What the last synchronisation with MLflow did."""
        return self.folder / "tracking.json"

    @property
    def database(self) -> Path:
        """MLflow's one database."""
        return self.root / "results" / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifact folder."""
        return self.root / "results" / "mlflow-artifacts"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name, unique to this process, that is moved to ``path`` when the block ends well.

    A reader sees the old file or the new one, never half of one, whenever the power goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".{os.getpid()}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; results are to be shared
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # else the name could outlive a power cut without its bytes
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
