r"""Reads the answer out of a model's text.

``Answer:`` is how our own datasets write it (``tunix_rt_kit.chat.reasoning``), ``####`` how GSM8K does,
``\boxed{}`` how MATH does, ``<answer>`` how R1 does, and "the answer is" how people do, in many languages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tunix_rt_evaluator.grading.afterwords import is_asserted
from tunix_rt_evaluator.grading.languages import ANSWER, FINAL, IS

_LABEL: Final = re.compile(
    rf"""
    (?P<bold>\*\*|__)?
    (?: \b(?:Final\s+)?(?:Answer|ANSWER)
      | (?i:\bfinal\s+answer)
      | (?im:^[^\w\n]*(?:the\s+)?(?:(?:correct|right|best)\s+)?answer)
      | (?i:{ANSWER}{FINAL})
    )
    (?:(?P=bold))?\s*[:\uff1a](?:[ \t]*(?P=bold))?
    | \#{{4}}(?=[^\S\n]*(?:[-+\u2212$\u20ac\u00a3]?\s?\.?\d|\(?[A-Z]\)?[^\S\n]*$))
    | (?i:<(?P<tag>(?:final[_-]?)?answer)>)
    """,
    re.VERBOSE | re.MULTILINE,
)
_BOXED: Final = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
# An escaped one is a brace of its own, as of a set, and closes nothing.
_BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)
# Between boxes that are offered side by side, as in \boxed{1} or \boxed{2}.
_BESIDE: Final = re.compile(
    r"[\s$]*(?:[,;]|,?\s*(?:and|or|\\text\s*\{\s*(?:and|or)\s*\}))[\s$]*", re.IGNORECASE
)
_WORDS: Final = re.compile(r"\s*\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}\s*")
_CLOSED: Final = re.compile(r"</(?:final[_-]?)?answer>", re.IGNORECASE)
_NEAR: Final = 200
_SAID: Final = re.compile(
    rf"""
    \banswer(?:\ (?:to|for)\ (?:the|this|that|your)\ \w+)?
      (?:\s+(?:is|was|would\s+be|should\s+be|must\s+be)\b|['\u2019]s\b|\s*[=\u2192])\s*:?(?:\s*that\b)?
    | {ANSWER}{FINAL}\s*{IS}\s*[:\uff1a]?
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer in a text: whether a label marked it, and whether that was only a phrase in a sentence.

    It is empty where a mark was set and no answer followed, where it was cut off, or where the sentence
    denies, doubts or only quotes it. ``rest`` is what stands behind a box or a closing tag, and ``before``
    what stands before it on its line, without a label.
    """

    text: str
    labelled: bool
    in_sentence: bool = False
    boxed: bool = False
    rest: str = ""
    before: str = ""

    @property
    def first_line(self) -> str:
        """Its first line: a model may go on after its answer, and what follows is not part of it."""
        return self.text.partition("\n")[0].strip()


def read_answer(output: str) -> Answer:
    """What follows the last ``Answer:`` or ``####``, or stands in ``<answer>`` or the last boxed, or in
    several side by side; without any of those what follows the last "the answer is"; without that the whole
    text.

    The last mark counts, even where the text ends before its answer does.
    """
    label = _last(_LABEL, output)
    if (boxed := _last_boxed(output, label.end() if label else 0)) is not None:
        return boxed
    if label is not None:
        text, rest = output[label.end() :], ""
        if label["tag"]:
            text, *behind = _CLOSED.split(text, maxsplit=1)
            rest = "".join(behind)
        return Answer(text.strip(), labelled=True, rest=rest)
    if (said := _last(_SAID, output)) is not None:
        before = _near(output, said.start())
        text = output[said.end() :].strip() if is_asserted(before) else ""
        return Answer(text, labelled=True, in_sentence=True, before=before + said[0])
    return Answer(output.strip(), labelled=False)


def _near(text: str, end: int) -> str:
    """What stands before ``end`` on its line."""
    return text[max(0, end - _NEAR) : end].rpartition("\n")[2]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    for match in reversed(list(pattern.finditer(text))):
        if pattern is not _LABEL or match["tag"] or is_asserted(_near(text, match.start())):
            return match
    return None


def _last_boxed(text: str, start: int) -> Answer | None:
    r"""What the last ``\boxed{...}`` from ``start`` on holds, and those beside it; "" where it is not closed,
    None where there is none."""
    opened = list(_BOXED.finditer(text, start))
    if not opened:
        return None
    inside = _braced(text, opened[-1].end(), len(text))
    if inside is None:
        return Answer("", labelled=True, boxed=True)
    rest = text[opened[-1].end() + len(inside) + 1 :]
    found = [inside]
    for before, box in reversed(list(pairwise(opened))):
        inside = _braced(text, before.end(), box.start())
        if inside is None or not _BESIDE.fullmatch(text, before.end() + len(inside) + 1, box.start()):
            break
        found.append(inside)
    joined = ", ".join(_words(entry) for entry in reversed(dict.fromkeys(found)))
    return Answer(joined, labelled=True, boxed=True, rest=rest, before=_near(text, opened[0].start()))


def _words(boxed: str) -> str:
    words = _WORDS.fullmatch(boxed)
    return (words[1] if words else boxed).strip()


def _braced(text: str, begin: int, end: int) -> str | None:
    depth = 1
    for brace in _BRACE.finditer(text, begin, end):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return text[begin : brace.start()]
    return None
