"""A worker process: trains the shards that its supervisor sends and answers with their rows, one JSON line each.

It dies with its supervisor: a thread waits for the end of standard input and then ends the process, whatever it is
doing (compiled kernels release the interpreter's lock).
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from spikebench.errors import Diverged, Unavailable, UserError
from spikebench.sweep import Cell


def _listen(inbox: queue.Queue[str]) -> None:
    for line in sys.stdin:
        inbox.put(line)
    os._exit(1)  # the supervisor is gone: nobody would read the rows


def main() -> None:
    """Read requests until told to stop; answers go to the standard output the process was started with."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a plug-in prints must not end up among the answers
    inbox: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    # Threads of the BLAS library inside those of the kernels may hang, and their sums have other bits.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

    import numba
    import torch

    from spikebench import training  # noqa: F401  (the cells' time limits begin after the imports)

    numba.set_num_threads(min(threads, numba.get_num_threads()))
    torch.set_num_threads(threads)  # last: numba starts threads that the two share, and torch would use them all
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    while (request := json.loads(inbox.get())) is not None:
        answers.write(json.dumps(_answer(request, answers)) + "\n")


def _answer(request: dict[str, Any], answers: Any) -> dict[str, Any]:
    """The rows of a request's cells, or what went wrong with them."""
    from spikebench import training
    from spikebench.checkpoints import Checkpoints

    started, said, saved = time.time(), time.monotonic(), request.get("checkpoints", "")

    def report(share: float) -> None:
        nonlocal said
        if time.monotonic() - said > 0.5:
            said = time.monotonic()
            answers.write(json.dumps({"share": share}) + "\n")

    work = training.Work(
        cells=[Cell(**cell) for cell in request["cells"]],
        settings=request["settings"],
        data=request["data"],
        faults=request["faults"],
        root=Path(request["root"]),
        checkpoints=Checkpoints(Path(saved), request["checkpoint_seconds"]) if saved else None,
        device=request.get("device", "cpu"),
    )
    try:
        return {"rows": training.train(work, report)}
    except Unavailable as error:
        return {"rows": [{"status": "unavailable", "error": str(error), "started": started} for _ in work.cells]}
    except Diverged as error:
        # Of many cells it does not say whose numbers they were: they are asked for again one by one.
        alone = len(work.cells) == 1
        row = {"status": "diverged", "error": str(error), "started": started}
        return {"rows": [row]} if alone else {"error": f"Diverged: {error}"}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "machine": _of_the_machine(error)}


def _of_the_machine(error: Exception) -> bool:
    """Whether another machine, or more memory, might do what failed; else it is the method's own failure."""
    import torch

    return isinstance(error, (OSError, MemoryError, UserError, torch.OutOfMemoryError)) or "CUDA error" in str(error)


if __name__ == "__main__":
    main()
