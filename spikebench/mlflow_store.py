"""The one place that knows MLflow's tables: reads which runs exist and writes runs in bulk.

MLflow's client needs 20 to 40 ms a run (four transactions, an object a metric), one to two minutes for a default
replication. So the runs of an experiment are written in one transaction into MLflow's own table definitions, as
MLflow's importer of file stores does. A transaction is whole or absent, so a killed writer leaves no half-written run.
Databases, experiments and their life cycle go through MLflow's store. ``spikebench.tracking`` imports this module,
after it has set the environment that MLflow reads at its import.
"""

from __future__ import annotations

import fcntl
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import ExperimentTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH
from sqlalchemy import Connection, and_, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import aliased

from spikebench.errors import UserError
from spikebench.paths import replacing
from spikebench.tracking_runs import Metric, Run

#: Runs a statement.
BATCH = 400

Item = TypeVar("Item")


@dataclass(frozen=True)
class Experiment:
    """An MLflow experiment and the folder of its artifacts."""

    id: str
    name: str
    folder: Path

    def artifacts(self, run: str) -> Path:
        """Where the artifacts of a run lie."""
        return self.folder / run / "artifacts"


@dataclass(frozen=True)
class Changes:
    """Run ids by what happened to them."""

    created: list[str]
    replaced: list[str]
    deleted: list[str]
    unchanged: list[str]


@contextmanager
def writing(database: Path, artifacts: Path) -> Iterator[Store]:
    """The store, created if it does not exist, with every other writer of this database waiting.

    Raises:
        UserError: if MLflow cannot open the database.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(database.with_name(f"{database.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            with replacing(database) as temporary:  # a half-migrated database could not be opened again
                _open(temporary, artifacts).engine.dispose()
        try:
            store = _open(database, artifacts)
        except (MlflowException, SQLAlchemyError) as error:
            raise UserError(
                f"{database}: MLflow cannot open it ({str(error).splitlines()[0]}); "
                "delete it and run `make` again, which rebuilds it"
            ) from error
        try:
            yield Store(store)
        finally:
            store.engine.dispose()


def _open(database: Path, artifacts: Path) -> Any:  # MLflow leaves this class without types
    return SqlAlchemyStore(f"sqlite:///{database}", str(artifacts))  # type: ignore[no-untyped-call]


class Store:
    """MLflow's database, open for writing."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def experiments(self, preset: str) -> list[Experiment]:
        """The experiments of a preset."""
        found = self._store.search_experiments(max_results=1000)
        return [
            Experiment(e.experiment_id, e.name, Path(e.artifact_location))
            for e in found
            if e.tags.get("preset") == preset
        ]

    def experiment(self, name: str, preset: str, folder: Path) -> Experiment:
        """The experiment of this name: found, restored or created."""
        found = self._store.get_experiment_by_name(name)
        if found is None:
            tags = [ExperimentTag("preset", preset)]
            return Experiment(self._store.create_experiment(name, str(folder), tags), name, folder)
        if found.lifecycle_stage == "deleted":
            self._store.restore_experiment(found.experiment_id)
        return Experiment(found.experiment_id, name, folder)

    def drop(self, experiment: Experiment) -> None:
        """Delete (MLflow can restore it) an experiment, unless someone else's runs are in it."""
        if not self._store.search_runs([experiment.id], "", ViewType.ALL, max_results=1):
            self._store.delete_experiment(experiment.id)

    def update(self, experiment: Experiment, wanted: Sequence[Run]) -> Changes:
        """Make the runs of this writer in an experiment exactly the wanted ones, in one transaction.

        A run that was changed, half-written, deleted in MLflow or belongs to a checkout that was moved is replaced.
        Runs that others logged into the experiment (without a tag ``kind``) stay.
        """
        with self._store.engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 60000")  # a reader may hold the database for a moment
            connection.exec_driver_sql("PRAGMA cache_size = -262144")  # KiB: the indexes of a first import fit
            ids = {run.id for run in wanted}
            known = _known(connection, experiment, ids)
            stale = [r for r in wanted if known.get(r.id) != (r.content, str(experiment.artifacts(r.id)))]
            changes = Changes(
                created=[run.id for run in stale if run.id not in known],
                replaced=[run.id for run in stale if run.id in known],
                deleted=[run for run in known if run not in ids],
                unchanged=list(ids - {run.id for run in stale}),
            )
            for batch in _batches(changes.replaced + changes.deleted):
                for table in (SqlMetric, SqlLatestMetric, SqlParam, SqlTag, SqlRun):
                    connection.execute(delete(table).where(table.run_uuid.in_(batch)))
            for runs in _batches(stale):
                _insert(connection, experiment, runs)
        for run in changes.deleted:
            if (folder := experiment.artifacts(run).parent).exists():
                shutil.rmtree(folder)
        return changes


def _known(connection: Connection, experiment: Experiment, ids: set[str]) -> dict[str, tuple[str, str] | None]:
    """Content and artifact folder of each run of this writer; None for a run that somebody deleted."""
    kind, content = aliased(SqlTag), aliased(SqlTag)
    query = (
        select(SqlRun.run_uuid, SqlRun.lifecycle_stage, SqlRun.artifact_uri, kind.value, content.value)
        .outerjoin(kind, and_(kind.run_uuid == SqlRun.run_uuid, kind.key == "kind"))
        .outerjoin(content, and_(content.run_uuid == SqlRun.run_uuid, content.key == "content"))
        .where(SqlRun.experiment_id == int(experiment.id))
    )
    return {
        run: (content, folder) if stage == "active" else None
        for run, stage, folder, kind, content in connection.execute(query)
        if kind is not None or run in ids
    }


def _insert(connection: Connection, experiment: Experiment, runs: Sequence[Run]) -> None:
    """Write new runs as MLflow's own store would, their metrics' newest points included."""
    fixed = {"experiment_id": int(experiment.id), "lifecycle_stage": "active", "user_id": ""}
    fixed |= {"source_type": "UNKNOWN", "source_name": "", "source_version": "", "entry_point_name": ""}
    # MLflow shows the newest runs first: parents and figures before the cells that share their moment.
    start = {run.id: run.start + (run.tags["kind"] != "cell") for run in runs}
    tables: dict[Any, list[dict[str, Any]]] = {
        SqlRun: [
            fixed
            | {
                "run_uuid": run.id,
                "name": run.name,
                "status": run.state,
                "start_time": start[run.id],
                "end_time": start[run.id] + round(1000 * run.seconds),
                "artifact_uri": str(experiment.artifacts(run.id)),
            }
            for run in runs
        ],
        SqlParam: [
            {"run_uuid": run.id, "key": key, "value": value[:MAX_PARAM_VAL_LENGTH]}
            for run in runs
            for key, value in run.params.items()
        ],
        SqlTag: [
            {"run_uuid": run.id, "key": key, "value": value[:MAX_TAG_VAL_LENGTH]}
            for run in runs
            for key, value in {**run.tags, "mlflow.runName": run.name, "content": run.content}.items()
        ],
        SqlMetric: [_point(run, *metric) for run in runs for metric in run.metrics],
        SqlLatestMetric: [_point(run, *metric) for run in runs for metric in _latest(run)],
    }
    for table, rows in tables.items():
        if rows:
            connection.execute(insert(table.__table__), rows)


def _latest(run: Run) -> Iterable[Metric]:
    newest: dict[str, Metric] = {}
    for metric in run.metrics:
        if metric[0] not in newest or metric[1] >= newest[metric[0]][1]:
            newest[metric[0]] = metric
    return newest.values()


def _point(run: Run, key: str, step: int, value: float) -> dict[str, Any]:
    nan = math.isnan(value)
    # MLflow's tables know no NaN and no infinity: a flag stands for the one, the largest float for the other.
    value = 0.0 if nan else max(-sys.float_info.max, min(sys.float_info.max, value))
    return {"run_uuid": run.id, "key": key, "step": step, "value": value, "timestamp": run.start, "is_nan": nan}


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
