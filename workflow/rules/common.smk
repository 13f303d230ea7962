# What the rules share: the plan, made without importing torch each time the workflow is read.

from spikebench.paths import Results
from spikebench.snakefile import hold_the_project, plan_or_exit, retry_token

ROOT = Path(workflow.current_basedir).parents[1]
PLAN = plan_or_exit(ROOT, config)
PRESET = PLAN.config.name
RESULTS = Results(PRESET, Path(""))


wildcard_constraints:
    job=r"[^/]+",
