"""The pages: README.md from its template, and results.md with the whole sentences and the long tables."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from spikebench import claims, comparison
from spikebench.errors import UserError
from spikebench.paths import replacing
from spikebench.publishing import tables, values
from spikebench.publishing.published import Published
from spikebench.publishing.values import CLOSE, OPEN, Printed

TEMPLATE = "docs/README.md.in"

#: What a claim's metric is called behind its number, and a factor to that unit.
_METRICS: dict[str, tuple[str, float]] = {
    "accuracy": ("points of accuracy", 1),
    "ece_width_20": ("points of ECE", 1),
    "log_likelihood": ("nats of log-likelihood", 1),
    "diagnostics.gradient_error": ("of the gradient's norm", 1),
    "diagnostics.energy_training_pj": ("µJ an example", 1e-6),
    "diagnostics.shift_decades": ("decades of divergence", 1),
    "diagnostics.log2_sharpness": ("of the starts' spread of log k", 1),
}
#: The tables of results.md under their headings.
_TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "Chip in the loop, by severity": tables.by_severity,
    "Weights of one bit": tables.one_bit,
    "Compartments": tables.compartments,
    "Feedback networks": tables.equilibria,
    "PSG and PDA, by time steps": tables.surrogates,
    "All methods on the same chips": tables.areas,
    "Baselines": tables.baselines,
}


def write(root: Path) -> None:
    """Make README.md, and results.md and claims.json in ``docs/published``, from the published rows below ``root``."""
    published, folder = Published.of(root), root / "docs" / "published"
    texts = {root / "README.md": plain(render(root, published)), folder / "results.md": results(published)}
    for path, text in texts.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    claims.write(published.verdicts, folder / "claims.json")


def scoreboard(published: Published) -> pd.DataFrame:
    """The claims, a line each: what is claimed, the verdict, our figure with its 95 % interval, and n."""
    return pd.DataFrame(
        {
            "": name,
            "claimed": claim["statement"].rstrip("."),
            "verdict": f"{claim['verdict']}{' *' if claim.get('reconstruction') else ''}",
            "our figure [95 % interval]": _figure(claim),
            "n": f"{claim['n']:.0f}" if claim["n"] is not None else "0",
        }
        for name, claim in published.scoreboard.items()
    )


def results(published: Published) -> str:
    """The page of all verdicts and tables."""
    parts = [
        "# Results in full",
        "Written by `python docs/published/publish.py` from [the published rows](rows.parquet); the preset is "
        f"`{', '.join(sorted(published.rows['preset'].unique()))}`. Means with 95 % Student-t intervals over n "
        "repetitions. The scoreboard is also in [claims.json](claims.json), what ran and what did not in "
        "[coverage.csv](coverage.csv).",
        "## Verdicts",
        *(_verdict(name, claim) for name, claim in published.scoreboard.items()),
    ]
    for heading, make in _TABLES.items():
        if len(frame := make(published.rows)):
            parts += [f"## {heading}", tables.markdown(frame)]
    return "\n\n".join(parts) + "\n"


def render(root: Path, published: Published) -> str:
    """The README of the template below ``root``, with the marks of ``values`` around what expressions made.

    Raises:
        UserError: the template has a mistake, or a sentence that the rows do not bear out.
    """
    source = (root / TEMPLATE).read_text(encoding="utf-8")
    if OPEN in source or CLOSE in source:
        raise UserError(f"{TEMPLATE} holds a mark of rendered text (U+E000 or U+E001); it must be removed")
    broken: list[str] = []

    def holds(words: str, fact: object) -> Printed:
        """Words that are true as long as the rows bear them out; a number needs an expression of its own."""
        if any(letter.isdigit() for letter in words):
            raise UserError(f"holds({words!r}): a number needs an expression of its own")
        if not fact:
            lines = [i for i, line in enumerate(source.splitlines(), 1) if f'holds("{words}"' in line]
            broken.append(f"{TEMPLATE}:{lines[0] if lines else '?'}: the rows no longer say {words!r}; rewrite it")
        return Printed(words)

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=values.marked, autoescape=False
    )
    asked = (published.claim, published.mean, published.gain, published.figure, published.tally, holds)
    environment.globals |= {function.__name__: function for function in asked}
    environment.globals |= {"scoreboard": lambda: tables.markdown(scoreboard(published))}
    environment.globals |= {"survivors": lambda: tables.markdown(tables.survivors(published.rows))}
    environment.globals |= {"margin": values.Quantity(comparison.MARGIN)}
    environment.filters |= {
        filter_.__name__: filter_
        for filter_ in (values.decimals, values.percent, values.count, values.span, values.short)
    }
    try:
        text = environment.from_string(source).render()
    except (jinja2.TemplateError, UserError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{TEMPLATE}:{_line(error)}: {error}") from error
    if broken:
        raise UserError("\n".join(broken))
    return text


def plain(text: str) -> str:
    """Rendered text without its marks."""
    return text.replace(OPEN, "").replace(CLOSE, "")


def _figure(claim: dict[str, Any]) -> str:
    """``+11.3 points of accuracy [5.0, 17.7]``; of a claim that could not be tested, nothing."""
    if claim["estimate"] is None:
        return "none"
    metric = claim["test"]["metric"]
    words, scale = (
        ("times", 1.0) if claim["unit"] == "times" else _METRICS.get(metric, (f"{claim['unit']}, {metric}", 1))
    )
    is_gain = "reference" in claim["test"] and claim["unit"] != "times"
    ends = [end for end in (claim["low"], claim["high"]) if end is not None]
    half = abs(ends[-1] - ends[0]) / 2 * scale if len(ends) == 2 else 0
    # Two digits of half the interval's width.
    digits = max(0, 1 - math.floor(math.log10(half))) if half else 2
    told = values.span(
        {end: values.Quantity("nan") if claim[end] is None else claim[end] for end in ("low", "high")}, digits, scale
    )
    return f"{values.decimals(claim['estimate'], digits, scale, is_gain)} {words} {told}"


def _verdict(name: str, claim: dict[str, Any]) -> str:
    """The whole sentence of a verdict, and where it is seen."""
    seen = ", ".join(f"[{figure}](figures/{figure}.png)" for figure in claim["figures"])
    return f"**{name}.** {claim['statement']}\n\n{claim['explanation']} Figures: {seen}."


def _line(error: BaseException) -> int:
    """The line of the template in which an error arose."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return (frames[-1].lineno or 0) if frames else 0
