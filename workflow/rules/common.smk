# What the rules share: the plan, made without importing torch each time the workflow is read.

from spikebench.paths import Results, Store
from spikebench.preparation import attempt, describe
from spikebench.resources import resources_of
from spikebench.snakefile import announce_tries, hold_the_project, plan_or_exit, retry_token, settle_or_exit

ROOT = Path(workflow.current_basedir).parents[1]
PLAN = plan_or_exit(ROOT, config)
PRESET = PLAN.config.name
RESULTS = Results(PRESET, Path(""))
STORE = Store.of(Path(""))


wildcard_constraints:
    job=r"[^/]+",
    data=r"[^/]+",
    source=r"[^/]+",
