"""The ``spikebench`` command: what the workflow's rules call. Each subcommand is a thin shell around one function."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikebench import config as configuration
from spikebench.config import Config
from spikebench.errors import UserError
from spikebench.paths import Results, project_root, replacing
from spikebench.sweep import make_plan


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand; a user's mistake is one sentence and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        # The workflow hands its configuration to its jobs by the environment (snakefile.plan_or_exit).
        overrides = json.loads(os.environ.get("SPIKEBENCH_CONFIG", "{}"))
        overrides |= {"preset": options.preset} if options.preset else {}
        config = configuration.load(project_root(), overrides)
        options.run(config, options)
    except UserError as error:
        sys.exit(f"spikebench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spikebench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, run in (
        ("plan", _plan), ("fetch", _fetch), ("prepare", _prepare), ("sheets", _sheets), ("train", _train),
        ("gather", _gather), ("claims", _claims), ("figures", _figures), ("track", _track),
        ("report", _report), ("all-from-rows", _all_from_rows), ("ui", _ui), ("where", _where),
        ("new-method", _new_method), ("forecast", _forecast), ("resources", _resources), ("calibrate", _calibrate),
        ("merge", _merge), ("archive", _archive), ("verify-archive", _verify_archive),
    ):  # fmt: skip
        command = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument("--preset", help="a file of config/presets/ (default: config/config.yaml's)")
        if run is _train:
            command.add_argument("--job", required=True)
            command.add_argument("--digest", help="what the job was when it was planned; it must still be that")
            command.add_argument("--retry-token", default="none", help="recorded in the job's manifest")
            command.add_argument("--attempt", type=int, default=1, help="which try this is, on a cluster")
            command.add_argument("--minutes", type=float, default=math.inf, help="that the cluster gives this try")
        if run in (_train, _fetch, _prepare):
            command.add_argument("--log", type=Path, help="a file for what the job says beside the terminal")
            command.add_argument("--parent", type=int, help="the process to end with (default: the one that called)")
        if run is _fetch:
            command.add_argument("source", help="a name of spikebench.archives.SOURCES")
        if run in (_fetch, _prepare):
            command.add_argument("--attempt", default="first", help="recorded in what the command writes")
        if run is _prepare:
            command.add_argument("--data", required=True, help="a data set as `spikebench plan` names it")
            command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads")
        if run is _figures:
            command.add_argument("--experiment", required=True)
        if run is _ui:
            command.add_argument("--port", type=int, default=5000)
        if run is _new_method:
            command.add_argument("name", help="of the method, in small letters: the file is methods/<name>.py")
        if run is _forecast:
            command.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="at work on it (default: all)")
        if run is _resources:
            command.add_argument("--total", action="store_true", help="only of all jobs together")
        if run is _merge:
            said = "a folder results/<preset> of another checkout, or an archive of one"
            command.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help=said)
            said = "the source, or this checkout's own folder, whose rows count where results differ"
            command.add_argument("--prefer", type=Path, metavar="SOURCE", help=said)
        if run is _archive:
            command.add_argument("--to", type=Path, metavar="FILE", help="(default: results/spikebench-<preset>.zip)")
        if run is _verify_archive:
            command.add_argument("file", type=Path, metavar="FILE")
    return parser


def _plan(config: Config, options: argparse.Namespace) -> None:
    """Print the jobs of the preset with their shards, cells and forecast seconds."""
    plan = make_plan(config)
    for job in plan.jobs.values():
        print(f"{job.name}: {len(job.shards)} shards, {sum(map(len, job.shards.values()))} cells, {job.seconds:.0f} s")
    for data in plan.data.values():
        print(f"data {data.name}: {data.kind}, {data.source or 'needs no archive'}, {data.settings}")
    print(f"preset {config.name}: {len(plan.jobs)} jobs, {len(plan.planned)} cells")


def _fetch(config: Config, options: argparse.Namespace) -> None:
    """Fetch the files of one source and verify them: mirror folder first, then the network."""
    from spikebench.archives import SOURCES
    from spikebench.preparation import fetch_source
    from spikebench.supervisor import die_with_parent

    if options.source not in SOURCES:
        raise UserError(f"source: found {options.source!r}, allowed: {', '.join(SOURCES)}")
    die_with_parent(options.parent)
    with _telling(options.log) as say:
        say(fetch_source(options.source, config, options.attempt, say))


@contextmanager
def _telling(log: Path | None) -> Iterator[Callable[[str], None]]:
    """A way to say things on the terminal, and in a log file where one is named."""
    if log is None:
        yield lambda sentence: print(sentence, file=sys.stderr, flush=True)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1) as file:

        def say(sentence: str) -> None:
            print(sentence, file=sys.stderr, flush=True)
            print(sentence, file=file)

        try:
            yield say
        except UserError as error:
            print(f"spikebench: {error}", file=file)
            raise


def _prepare(config: Config, options: argparse.Namespace) -> None:
    """Make one data set ready for training: read or film its recordings, bin them."""
    from spikebench.preparation import make_ready
    from spikebench.supervisor import die_with_parent

    die_with_parent(options.parent)
    jobs = make_plan(config).data
    if options.data not in jobs:
        raise UserError(f"--data: found {options.data!r}, allowed: {', '.join(jobs)}")
    with _telling(options.log) as say:
        say(make_ready(jobs[options.data], config, options.workers, options.attempt, say))


def _sheets(config: Config, options: argparse.Namespace) -> None:
    """Draw the contact sheets of all pictures and recordings."""
    from spikebench.figures.contact_sheet import draw_sheet

    results = Results(config.name, config.root)
    for job in make_plan(config).data.values():
        if job.source:
            draw_sheet(job, config, results.sheet(job.name))


def _train(config: Config, options: argparse.Namespace) -> None:
    """Train one job's shards (what the Snakemake rule `train` calls)."""
    from spikebench.supervisor import GaveUp, Tries, die_with_parent, run_job

    die_with_parent(options.parent)
    # A job's cells are all of one experiment, and planning the others takes seconds where there are many.
    own = tuple(e for e in config.experiments if e["name"] == options.job.partition(".")[0])
    job = make_plan(replace(config, experiments=own)).jobs.get(options.job)
    if job is None:
        raise UserError(f"--job: found {options.job!r}, allowed: {', '.join(make_plan(config).jobs)}")
    if options.digest not in (None, job.digest):
        raise UserError(f"the plan of {job.name} changed while the workflow was running: start `snakemake` again")
    try:
        run_job(job, config, options.retry_token, options.log, Tries.of(options.attempt, options.minutes))
    except GaveUp as reason:
        sys.exit(f"spikebench: {job.name}: {reason}")


def _gather(config: Config, options: argparse.Namespace) -> None:
    """Gather the shards that exist into one table."""
    from spikebench.gather import gather

    print(gather(make_plan(config)))


def _tables(results: Results) -> tuple[Any, Any]:
    import pandas as pd

    if not results.rows.exists():
        raise UserError(f"results/{results.preset}/rows.parquet does not exist: run `make report` or `snakemake` first")
    return pd.read_parquet(results.rows), pd.read_parquet(results.traces)


def _claims(config: Config, options: argparse.Namespace) -> None:
    """Judge the claims of config/claims.yaml by their primary tests."""
    from spikebench import claims

    results = Results(config.name, config.root)
    verdicts = claims.evaluate(claims.load(config.root), _tables(results)[0])
    claims.write(verdicts, results.claims)
    for verdict in verdicts:
        print(f"{verdict.claim['id']}: {verdict.explanation}")


def _figures(config: Config, options: argparse.Namespace) -> None:
    """Draw the figures of one experiment from the gathered rows."""
    from spikebench.figures import draw

    results = Results(config.name, config.root)
    rows, traces = _tables(results)
    claims = configuration.read_yaml(config.root / "config" / "claims.yaml", config.root)["claims"]
    known = {experiment["name"]: experiment["figures"] for experiment in config.experiments}
    if options.experiment not in known:
        raise UserError(f"--experiment: found {options.experiment!r}, allowed: {', '.join(known)}")
    for name in known[options.experiment]:
        draw(name, rows, traces, config.name, results.figures, claims)


def _track(config: Config, options: argparse.Namespace) -> None:
    """Make MLflow's database say what the rows say."""
    from spikebench import claims
    from spikebench.tracking import synchronise

    results = Results(config.name, config.root)
    rows, traces = _tables(results)
    known = claims.load(config.root)
    summary = synchronise(rows, traces, results.figures, results.database, results.artifacts, config.name, known)
    with replacing(results.tracking) as temporary:
        temporary.write_text(json.dumps(vars(summary), indent=1) + "\n")
    print(f"MLflow: {summary}")


def _report(config: Config, options: argparse.Namespace) -> None:
    """Build the report's pages from rows, claims and figures."""
    import pandas as pd

    from spikebench import claims, report
    from spikebench.provenance import describe
    from spikebench.report.times import records

    results = Results(config.name, config.root)
    rows, traces = _tables(results)
    verdicts = json.loads(results.claims.read_text())
    provenance = describe(config, rows)
    coverage = pd.read_csv(results.coverage)
    page, definitions = results.report, claims.load(config.root)
    sheets = [results.sheet(data.name) for data in make_plan(config).data.values()]
    report.build(
        *(rows, traces, verdicts, results.figures, coverage, provenance, config.name, page, definitions, sheets),
        jobs=records(results.folder),
        root=config.root,
    )
    if config.name != "smoke":
        report.write_pointer(config.root / "results", config.name)


def _all_from_rows(config: Config, options: argparse.Namespace) -> None:
    """Everything after training, from whatever rows exist (`make report`)."""
    _gather(config, options)
    _claims(config, options)
    for experiment in config.experiments:
        options.experiment = experiment["name"]
        _figures(config, options)
    _track(config, options)
    _report(config, options)
    _where(config, options)


def _ui(config: Config, options: argparse.Namespace) -> None:
    """Serve the MLflow UI on 127.0.0.1."""
    from spikebench.mlflow_ui import serve

    serve(Results(config.name, config.root).database, options.port)


def _where(config: Config, options: argparse.Namespace) -> None:
    """Say where the report is and how to open MLflow."""
    page = Results(config.name, config.root).report.relative_to(config.root)
    print(f"Report: {page} | MLflow: `make ui`" if (config.root / page).exists() else f"{page} is not built yet")


def _new_method(config: Config, options: argparse.Namespace) -> None:
    """Write methods/<name>.py for a new method, with places to fill in."""
    from spikebench.scaffold import new_method

    print(new_method(options.name, config.root))


def _calibrate(config: Config, options: argparse.Namespace) -> None:
    """Try a few steps of each kind of training, to know how long all will take, and in how much memory."""
    from spikebench.calibration import calibrate

    print(calibrate(make_plan(config), lambda sentence: print(sentence, flush=True)))


def _resources(config: Config, options: argparse.Namespace) -> None:
    """Print what each job asks a cluster for."""
    from spikebench.resources import table

    said = table(make_plan(config))
    print(said.splitlines()[-1] if options.total else said)


def _forecast(config: Config, options: argparse.Namespace) -> None:
    """Say how much of the preset is trained and how long the rest will take."""
    from spikebench.forecast import forecast

    print(forecast(make_plan(config), options.cores))


def _merge(config: Config, options: argparse.Namespace) -> None:
    """Take over the rows that other checkouts or archives have of this plan's cells."""
    from spikebench.merging import merge
    from spikebench.snakefile import hold_the_project

    hold_the_project(config.root)
    print(merge(make_plan(config), options.sources, options.prefer))


def _archive(config: Config, options: argparse.Namespace) -> None:
    """Write rows, configuration, figures and report with all hashes as one zip file."""
    from spikebench.bundle import write_archive
    from spikebench.snakefile import hold_the_project

    hold_the_project(config.root)  # what a workflow is still changing does not fit together
    destination = options.to or config.root / "results" / f"spikebench-{config.name}.zip"
    print(write_archive(config, Results(config.name, config.root), destination))


def _verify_archive(config: Config, options: argparse.Namespace) -> None:
    """Check an archive: every file by its hash, and the gathered rows by the shards."""
    from spikebench.bundle import verify_archive

    print(verify_archive(options.file))


if __name__ == "__main__":
    main()
