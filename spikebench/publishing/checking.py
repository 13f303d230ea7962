"""Does the README say what the published rows say? Nothing is changed; the package's docstring tells the rules."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikebench.config import read_yaml
from spikebench.errors import UserError
from spikebench.publishing import pages
from spikebench.publishing.published import Published
from spikebench.publishing.values import CLOSE, OPEN

ALLOWED = "docs/published/allowed-numbers.yaml"
#: A number: digits that do not continue a word, so that `M1`, `CIFAR10` and `log2` hold none.
_DIGITS = r"(?<![\w.,])(?:\d+(?:[.,]\d+)*|\.\d+)|[½⅓⅔¼¾⅕⅛]"
#: Words that stand for measured numbers.
_WORDS = (
    r"\b(?:half|hal(?:f|v)ed?|halves|twice|thrice|doubl(?:es?|ed|ing)|trebles?|tripl(?:es?|ed|ing)|thirds?|quarters?"
    r"|fifths?|tenths?|hundred(?:th)?s?|thousand(?:th)?s?|millions?|billions?|\w+fold"
    r"|(?:two|three|four|five|six|seven|eight|nine|ten|twenty)\s+(?:times|points|per\s+cent|percent|%))\b"
)
_NUMBER = re.compile(f"{_DIGITS}|{_WORDS}", re.IGNORECASE)
_FENCE = re.compile(r"^(```+)([^\n]*)\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_BENCH = re.compile(r"<!-- bench: begin(?: (\w+))?[^\n]*-->\n(.*?)<!-- bench: end -->", re.DOTALL)
#: No prose: comments, where links lead, bare addresses.
_UNSEEN = re.compile(r"<!--.*?-->|(?<=\])\([^)\s]*\)|https?://\S+", re.DOTALL)


@dataclass(frozen=True)
class Prose:
    """A page as it is read.

    Attributes:
        text: the page.
        seen: the same, with spaces for every character that is no prose, so that places agree.
        rendered: begin and end of each text that an expression made.
    """

    text: str
    seen: str
    rendered: list[tuple[int, int]]

    @classmethod
    def of(cls, marked: str) -> Prose:
        """From a page with the marks of ``values``."""
        rendered, place, begin = [], 0, 0
        for part in re.split(f"([{OPEN}{CLOSE}])", marked):
            if part == OPEN:
                begin = place
            elif part == CLOSE:
                rendered.append((begin, place))
            else:
                place += len(part)
        text = pages.plain(marked)
        seen = _UNSEEN.sub(_blank, _FENCE.sub(_blank, text))
        return cls(text, seen, rendered)

    def line(self, place: int) -> int:
        """The line, from 1, in which a character stands."""
        return self.text.count("\n", 0, place) + 1


def verify(root: Path) -> list[str]:
    """What of README.md, results.md and claims.json is not as the published rows below ``root`` say: a line each."""
    try:
        published = Published.of(root)
        marked, full = pages.render(root, published), pages.results(published)
        allowed = read_yaml(root / ALLOWED, root)
    except UserError as error:
        return str(error).splitlines()
    folder = root / "docs" / "published"
    return [
        *_scoreboard(json.loads((folder / "claims.json").read_text(encoding="utf-8")), published),
        *_differences("README.md", (root / "README.md").read_text(encoding="utf-8"), pages.plain(marked)),
        *_differences("docs/published/results.md", (folder / "results.md").read_text(encoding="utf-8"), full),
        *numbers(Prose.of(marked), allowed, root),
    ]


def numbers(prose: Prose, allowed: dict[str, Any], root: Path) -> Iterator[str]:
    """The numbers of a page that neither an expression made nor a source vouches for, and sources that do not."""
    names = [match.span() for name in allowed["names"] for match in re.finditer(name, prose.seen)]
    known = [*prose.rendered, *names]
    for entry in allowed["numbers"]:
        found = [m.span() for m in re.finditer(r"\s+".join(map(re.escape, entry["text"].split())), prose.seen)]
        known += found
        if not found:
            yield f"{ALLOWED}: {entry['text']!r} is not in README.md: remove the entry"
        elif len(entry["text"].split()) < 2:
            yield f"{ALLOWED}: {entry['text']!r} is a number alone and would allow any like it: add the words around it"
        elif missing := set(_tokens(entry["text"])) - _said_by(entry, prose, root):
            yield (
                f"README.md:{prose.line(found[0][0])}: {', '.join(sorted(missing))} of {entry['text']!r} is not in "
                f"{entry.get('source')}: correct {pages.TEMPLATE} or the source in {ALLOWED}"
            )
    for match in _NUMBER.finditer(prose.seen):
        begin, end = match.span()
        where = f"README.md:{prose.line(begin)}: {match.group()!r}"
        if not any(low <= begin and end <= high for low, high in known):
            yield (
                f"{where} was typed by hand: write an expression into {pages.TEMPLATE}, or the number with its source "
                f"into {ALLOWED}"
            )
        elif any(begin == low for low, _ in prose.rendered) and re.search(r"(?:^|[\s(\[])[-−+]$", prose.seen[:begin]):
            yield f"{where} was made by an expression, its sign typed by hand: write sign=True in {pages.TEMPLATE}"
    marked = [match.span() for match in _BENCH.finditer(prose.text)]
    for match in _FENCE.finditer(prose.text):
        if not match[2].strip() and not any(low < match.start() < high for low, high in marked):
            yield (
                f"README.md:{prose.line(match.start())}: a block of code without a language is not between "
                "`<!-- bench: begin -->` and `<!-- bench: end -->`: mark it, or name its language"
            )


def _said_by(entry: dict[str, str], prose: Prose, root: Path) -> set[str]:
    """The numbers that the source of an entry says; with a reason in place of a source, those of the entry itself."""
    if "reason" in entry:
        return set(_tokens(entry["text"]))
    kind, _, name = entry["source"].partition(" ")
    if kind == "bench":
        blocks = [match[2] for match in _BENCH.finditer(prose.text) if match[1] == name]
        return set(_tokens("\n".join(blocks)))
    file = root / entry["source"]
    return set(_tokens(file.read_text(encoding="utf-8"))) if file.is_file() else set()


def _tokens(text: str) -> Iterable[str]:
    """The numbers of a text, whatever separates their thousands."""
    return (token.replace(",", "").lower() for token in _NUMBER.findall(text.replace("_", " ")))


def _scoreboard(entries: list[dict[str, Any]], published: Published) -> Iterator[str]:
    """Entries of claims.json that are not what the tests say of the published rows."""
    file, remedy = "docs/published/claims.json", "run `python docs/published/publish.py --render`"
    now = {entry["id"]: entry for entry in (verdict.entry() for verdict in published.verdicts)}
    for name in now.keys() ^ {entry["id"] for entry in entries}:
        yield f"{file}: claim {name} is {'missing' if name in now else 'not one of config/claims.yaml'}: {remedy}"
    for entry in entries:
        for key in ("statement", "verdict", "explanation", "estimate", "low", "high", "n"):
            told, found = entry.get(key), now.get(entry["id"], entry).get(key)
            if not _alike(told, found):
                yield f"{file}: {key} of {entry['id']} is {told!r}, the rows say {found!r}: {remedy}"


def _alike(a: Any, b: Any) -> bool:
    """Equality, and for numbers what another machine's arithmetic would give."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    return bool(a == b)


def _differences(name: str, found: str, expected: str) -> Iterator[str]:
    """Lines of a file that are not as they are made now, with the numbers in which they differ."""
    old, new = found.splitlines(keepends=True), expected.splitlines(keepends=True)
    remedy = f"change {pages.TEMPLATE} or the rows, then run `python docs/published/publish.py --render`"
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for place in range(max(b - a, d - c)):
            was = old[a + place] if a + place < b else ""
            made = new[c + place] if c + place < d else ""
            told, says = list(_tokens(was)), list(_tokens(made))
            pairs = [(x, y) for x, y in zip(told, says, strict=False) if x != y] if len(told) == len(says) else []
            what = (
                "; ".join(f"{x!r} is there, the rows say {y!r}" for x, y in pairs)
                or f"{was.strip()[:80]!r} is there, made is {made.strip()[:80]!r}"
            )
            yield f"{name}:{min(a + place + 1, max(b, a + 1))}: {what}: {remedy}"


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())
