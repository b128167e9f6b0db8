"""Where two texts differ, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

_WORDS: Final = re.compile(r"\s+|\d+(?:[.,]\d+)*|\w+|[^\w\s]")
_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")
# Comparing takes up to the product of both lengths: a second for this much.
_MOST: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text; ``changed`` where the other text has something else."""

    text: str
    changed: bool


def differences(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts: by words, of very long texts by lines, and beyond that as one part each."""
    for pattern in (_WORDS, _LINES):
        one, two = pattern.findall(before), pattern.findall(after)
        if len(one) * len(two) <= _MOST:
            return _compared(one, two)
    changed = before != after
    return [Part(before, changed)], [Part(after, changed)]


def _compared(before: Sequence[str], after: Sequence[str]) -> tuple[list[Part], list[Part]]:
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    first = [("".join(before[a:b]), tag != "equal") for tag, a, b, _, _ in blocks]
    second = [("".join(after[c:d]), tag != "equal") for tag, _, _, c, d in blocks]
    return list(_joined(first)), list(_joined(second))


def _joined(parts: Sequence[tuple[str, bool]]) -> Iterator[Part]:
    """Space between two changes belongs to them, so that a changed sentence is marked in one piece."""
    pending: list[Part] = []
    for index, (text, changed) in enumerate(parts):
        between = 0 < index < len(parts) - 1 and not text.strip()
        marked = changed or (between and parts[index - 1][1] and parts[index + 1][1])
        if not text:
            continue
        if pending and pending[-1].changed is marked:
            pending[-1] = Part(pending[-1].text + text, marked)
        else:
            pending.append(Part(text, marked))
    yield from pending
