"""A text as its paragraphs, without a byte of it lost."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from tunix_rt.formats.rows import MAX_STEPS

BETWEEN: Final = "\n\n"
# An indented line goes on with what stands before it, and a wider gap could not be written back.
_GAP: Final = re.compile(r"(?<=\S)\n\n(?=\S)")
_FENCE: Final = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})(.*)", re.DOTALL)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, which joined by ``BETWEEN`` are the text again, to the byte.

    A text is parted at an empty line between two lines that are not indented, and never inside a fenced block
    of code. Neighbours stay together if there are more than 1,000. An empty text has none.
    """
    if not text:
        return []
    fences = _fences(text)
    starts = [start for start, _ in fences]
    parts, begin = [], 0
    for gap in _GAP.finditer(text):
        fence = bisect_right(starts, gap.start()) - 1
        if fence < 0 or fences[fence][1] <= gap.start():
            parts.append(text[begin : gap.start()])
            begin = gap.end()
    parts.append(text[begin:])
    together = -(-len(parts) // MAX_STEPS)
    return [BETWEEN.join(parts[start : start + together]) for start in range(0, len(parts), together)]


def _fences(text: str) -> list[tuple[int, int]]:
    """Where fenced blocks of code begin and end; one that is never closed is none."""
    found, opened, start, place = [], "", 0, 0
    for line in text.split("\n"):
        mark = _FENCE.fullmatch(line)
        if mark and not opened:
            opened, start = mark[1], place
        elif mark and mark[1].startswith(opened) and not mark[2].strip():
            found.append((start, place + len(line)))
            opened = ""
        place += len(line) + 1
    return found
