"""Publish a finished `full` run: its rows, scoreboard, figures and pages; `--render` and `--verify` need no run.

`python docs/published/publish.py` copies what is in `results/full` here and makes the pages. `--render` makes the pages
anew from what lies here, after `docs/README.md.in` was changed. `--verify` changes nothing: it prints a line for each
number of the README that is not what the published rows say, and then ends with 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spikebench.errors import UserError
from spikebench.publishing import checking, copying, pages

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Copy and render, render alone, or verify."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--render", action="store_true", help="make README.md, results.md and claims.json anew")
    mode.add_argument("--verify", action="store_true", help="check them, and change nothing")
    options = parser.parse_args()
    try:
        if options.verify:
            mismatches = checking.verify(ROOT)
            print("\n".join(mismatches) or "README.md and docs/published say what the published rows say")
            sys.exit(bool(mismatches))
        if not options.render:
            copying.copy(ROOT)
        pages.write(ROOT)
    except UserError as error:
        sys.exit(f"publish: {error}")


if __name__ == "__main__":
    main()
