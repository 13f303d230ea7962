"""A new method's file, with a place for each thing that a method must have (``spikebench new-method``)."""

from __future__ import annotations

import keyword
from importlib import resources
from pathlib import Path

from spikebench import plugins
from spikebench.errors import UserError
from spikebench.paths import replacing


def new_method(name: str, root: Path) -> str:
    """Write ``methods/<name>.py``; nothing else must be edited for it to join the comparison.

    Args:
        name: of the method, in small letters as rows and pages show it.
        root: of the project.

    Returns:
        What to do next.

    Raises:
        UserError: the name is no identifier in small letters, or is taken; nothing has been written.
    """
    # Small letters, since some file systems take Spide.py and spide.py for one file.
    if not (name.isascii() and name.isidentifier() and name.islower()) or keyword.iskeyword(name) or name[0] == "_":
        raise UserError(
            f"new-method: found {name!r}, allowed: small letters, digits and _, a letter first, and no word of Python's"
        )
    path = root / "methods" / f"{name}.py"
    if path.exists():
        known = ", ".join(plugins.names("methods", root))
        raise UserError(f"methods/{name}.py exists and is left as it is; taken names: {known}")
    template = resources.files("spikebench").joinpath("templates/method.py.txt").read_text(encoding="utf-8")
    with replacing(path) as temporary:
        temporary.write_text(template.replace("NAME", name), encoding="utf-8")
    return (
        f"methods/{name}.py is there. Next:\n"
        f"  1. fill in what it says; the README's random search is an example, docs/contracts.md the contract\n"
        f"  2. pytest tests/conformance -k {name}    does it keep the contract?\n"
        f"  3. snakemake    trains its cells alone and ranks it in every leaderboard"
    )
