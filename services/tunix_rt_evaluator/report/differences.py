"""Where two texts differ, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Final

from tunix_rt_kit.callers import check

# With the space behind them: half as many to compare.
_WORDS: Final = re.compile(r"\s+|(?:\d+(?:[.,]\d+)*|\w+|[^\w\s])\s*")
_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")
# Comparing takes up to the product of both lengths: some milliseconds for this much.
_MOST: Final = 40_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text; ``changed`` where the other text has something else."""

    text: str
    changed: bool


def differences(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts.

    Lines are matched first. Lines in the same place that do not match are compared by words, very long ones
    as a whole; so a report with thousands of answers is written in seconds.
    """
    check()
    one, two = _LINES.findall(before), _LINES.findall(after)
    first: list[Part] = []
    second: list[Part] = []
    if len(one) * len(two) > _MOST:
        blocks = [("replace", 0, len(one), 0, len(two))]
    else:
        blocks = list(SequenceMatcher(None, one, two, autojunk=False).get_opcodes())
    for tag, a, b, c, d in blocks:
        if tag == "equal":
            first += [Part(line, False) for line in one[a:b]]
            second += [Part(line, False) for line in two[c:d]]
            continue
        for old, new in zip_longest(one[a:b], two[c:d], fillvalue=""):
            left, right = _words(old, new)
            first += left
            second += right
    return list(_joined(first)), list(_joined(second))


def _words(before: str, after: str) -> tuple[list[Part], list[Part]]:
    one, two = _WORDS.findall(before), _WORDS.findall(after)
    if not one or not two or len(one) * len(two) > _MOST:
        changed = before != after
        return [Part(before, changed)], [Part(after, changed)]
    blocks = SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    return (
        [Part("".join(one[a:b]), tag != "equal") for tag, a, b, _, _ in blocks],
        [Part("".join(two[c:d]), tag != "equal") for tag, _, _, c, d in blocks],
    )


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    """Neighbours of one kind as one part. Space behind a change is not marked, unless it is all that is."""
    pending, changed = "", False
    # An empty part, where the other text has something more, keeps no neighbours apart.
    for part in [*(part for part in parts if part.text), Part("", False)]:
        if pending and part.changed is not changed:
            kept = pending.rstrip() if changed and pending.strip() else pending
            yield Part(kept, changed)
            pending = pending[len(kept) :]
        pending, changed = pending + part.text, part.changed
    if pending:
        yield Part(pending, changed)
