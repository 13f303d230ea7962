# Spikebench: train every method under every sweep, gather the rows, judge the claims, draw, track, report.
#
#   snakemake                               the default preset, with profiles/default/profile.yaml
#   snakemake -n                            what would run
#   snakemake --config preset=smoke         another preset
#   snakemake results/default/figures/accuracy-vs-severity.pdf      one figure
#
# Rules hold no logic: each names inputs, outputs and resources and calls the `spikebench` command.

import sys
from pathlib import Path

from snakemake.utils import min_version

from spikebench.snakefile import readable_or_exit

min_version("9.0")
readable_or_exit(Path(workflow.basedir))


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


localrules:
    all,
    fetch,
    gather,
    claims,
    track,
    report,


rule all:
    """The replication of the preset: report, figures, claims and the MLflow database."""
    input:
        # The report can be made of whatever rows exist (`make report`): that it is there does not mean that all are.
        [RESULTS.job(job) for job in PLAN.jobs],
        RESULTS.report,
        RESULTS.tracking,


include: "workflow/rules/fetch.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/results.smk"


onstart:
    hold_the_project(ROOT)
    settle_or_exit(workflow.executor_settings)
    announce_tries(workflow.execution_settings.retries)
    print(describe(PLAN.data.values(), PLAN.config), file=sys.stderr, flush=True)
