"""Which data a sweep needs, whether real or simulated, and from which archive: settled before the plan is made.

Imports no torch. A data set that needs archives says so in its literal ``NEEDS``: kind to alternative sources, the
preferred first (``spikebench.archives.SOURCES``). What is settled here are axes of every cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from spikebench import RESULTS_VERSION, fetch, plugins
from spikebench.archives import SOURCES
from spikebench.config import Config
from spikebench.errors import Unavailable
from spikebench.paths import Store, replacing
from spikebench.seeds import digest
from spikebench.store import identity

_PACKAGE = Path(__file__).parent
#: Fewer recordings or pictures than these are ready in about the time that the imports of their job take.
FEW = 200
#: What inputs are made with: a change here makes them anew, and with them the cells that learn from them.
_OF_PICTURES = ("images.py", "static_images.py", "encoding.py")
_OF_RECORDINGS = (
    "images.py", "seeds.py", "compiled.py",
    *(f"events/{name}.py" for name in (
        "aedat", "binning", "binning_kernels", "camera", "camera_kernel", "files", "frames", "motion", "prepared",
    )),
)  # fmt: skip


@dataclass(frozen=True)
class DataJob:
    """A data set as a sweep uses it.

    Attributes:
        dataset: file name of the plug-in.
        kind: real, simulated or synthetic.
        source: of ``archives.SOURCES``; empty where the data set needs none.
        settings: of the plug-in's ``Settings``, the preset's and the sweep's, as canonical JSON.
        digest: of all that its inputs depend on, archives' hashes and code included.
    """

    dataset: str
    kind: str
    source: str
    settings: str
    digest: str

    @cached_property
    def name(self) -> str:
        """Of its files."""
        return f"{self.dataset}-{digest(asdict(self), 12)}"

    @property
    def threads(self) -> int:
        """That preparing it is worth: one for a few recordings, whose jobs can run beside each other."""
        settings = json.loads(self.settings)
        return 1 if settings.get("training", FEW) + settings.get("test", 0) < FEW else 8

    @property
    def loading(self) -> dict[str, Any]:
        """Keyword arguments of the plug-in's ``Settings``."""
        return {**json.loads(self.settings), "kind": self.kind, "source": self.source}


def needs(dataset: str, config: Config) -> Mapping[str, tuple[str, ...]]:
    """The sources that a data set can be made from, by kind; empty where it needs none."""
    found: Mapping[str, tuple[str, ...]] = plugins.constant("datasets", dataset, "NEEDS", {}, config.root)
    return found


def kind(dataset: str, config: Config) -> str:
    """``data.kind`` of the configuration for a set that comes in several kinds; auto is real only where it lies ready.

    A set of one kind has no choice.
    """
    kinds: tuple[str, ...] = plugins.constant("datasets", dataset, "KINDS", ("real",), config.root)
    if len(kinds) == 1:
        return kinds[0]
    wanted = str(config.main["data"]["kind"])
    if wanted != "auto":
        return wanted
    store = Store.of(config.root).folder
    alternatives = needs(dataset, config).get("real", ())
    ready = not alternatives or any(fetch.verified(SOURCES[name], store) for name in alternatives)
    return "real" if ready else "simulated"


def source(dataset: str, chosen: str, config: Config) -> str:
    """The archive that a data set of the chosen kind is made from: one that is here before one that is not."""
    alternatives = needs(dataset, config).get(chosen, ())
    return fetch.choose(alternatives, Store.of(config.root).folder, config.mirror) if alternatives else ""


def data_job(dataset: str, chosen: str, archive: str, settings: str, config: Config) -> DataJob:
    """The data set as one cell uses it.

    Args:
        dataset: file name of the plug-in.
        chosen: kind.
        archive: source, or empty.
        settings: the sweep's own, canonical JSON.
        config: of the plan.
    """
    merged = config.data_settings(dataset, json.loads(settings))
    depends = {
        "code": plugins.fingerprint("datasets", dataset, config.root),
        "engine": engine_fingerprint(plugins.defines("datasets", dataset, "prepare", config.root)) if archive else "",
        "archive": identity(archive) if archive else "",
    }
    return DataJob(dataset, chosen, archive, json.dumps(merged, sort_keys=True), digest(depends))


@cache
def engine_fingerprint(recordings: bool) -> str:
    """Of the code that reads, simulates and bins recordings, or of that which shows pictures."""
    files = _OF_RECORDINGS if recordings else _OF_PICTURES
    return digest([RESULTS_VERSION, *(plugins.fingerprint_of(_PACKAGE / name) for name in files)])


def describe(jobs: Iterable[DataJob], config: Config) -> str:
    """One line that says which data is used, and where it comes from."""
    said = []
    for job in jobs:
        words = f"{job.dataset} {job.kind}"
        if job.source:
            made = "from " if job.kind == "simulated" else ""
            words += f" ({made}{job.source}{_state(job.source, Store.of(config.root))})"
        said.append(words)
    return "spikebench: data: " + "; ".join(dict.fromkeys(said))


def _state(name: str, store: Store) -> str:
    """What is to be said of a source that does not lie ready."""
    if fetch.verified(SOURCES[name], store.folder):
        return ""
    tried = ", which could not be had: `--config retry=unavailable` tries again"
    return tried if store.fetched(name).exists() else ", to be fetched"


def fetch_source(name: str, config: Config, attempt: str, say: Callable[[str], None] = print) -> str:
    """Have the files of a source in the store, or write down why not; a sentence that says which.

    Raises:
        UserError: a file that was found is not the known one.
    """
    online = bool(config.main["data"]["download"])
    fetched = fetch.fetch(SOURCES[name], Store.of(config.root).folder, config.mirror, online, say, attempt)
    return f"{name}: {'verified' if fetched.available else f'unavailable: {fetched.reason}'}"


def make_ready(job: DataJob, config: Config, workers: int, attempt: str, say: Callable[[str], None] = print) -> str:
    """Prepare a data set where its plug-in has something to prepare, and write down what became of it.

    Returns:
        The same in a sentence.
    """
    module = plugins.load("datasets", job.dataset, config.root)
    reason = ""
    try:
        settings = module.Settings(**job.loading)
        if hasattr(module, "prepare"):
            module.prepare(settings, workers, say)
        else:
            module.load(settings)
    except Unavailable as error:
        reason = str(error)
    with replacing(Store.of(config.root).ready(job.name)) as temporary:
        note = {**asdict(job), "available": not reason, "reason": reason, "attempt": attempt}
        temporary.write_text(json.dumps(note, indent=1) + "\n")
    return f"{job.dataset}: {f'unavailable: {reason}' if reason else 'ready'}"


def attempt(path: Path, retry: str) -> str:
    """A rule parameter that changes when what was unavailable is to be tried again, and else is what was recorded.

    Args:
        path: what the rule wrote.
        retry: statuses that the user wants tried again (``--config retry=unavailable``).
    """
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return "first"
    if found.get("available") or "unavailable" not in retry.split(","):
        return str(found.get("attempt") or "first")
    return f"after {path.stat().st_mtime_ns}"
