r"""Reads the answer out of a model's text.

``Answer:`` is how our own datasets write it (``tunix_rt_kit.chat.reasoning``), ``####`` how GSM8K does,
``\boxed{}`` how MATH does, ``<answer>`` how R1 does, and "the answer is" how people do, in many languages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

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
_BOXED: Final = re.compile(r"\\(?:f?boxed)\s*\{")
_WORDS: Final = re.compile(r"\s*\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}\s*")
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
    """The answer in a text: whether a label marked it, and whether that was only a phrase in a sentence."""

    text: str
    labelled: bool
    in_sentence: bool = False

    @property
    def first_line(self) -> str:
        """Its first line: a model may go on after its answer, and what follows is not part of it."""
        return self.text.partition("\n")[0].strip()


def read_answer(output: str) -> Answer:
    """What follows the last ``Answer:`` or ``####`` or stands in the last boxed or ``<answer>``; without any
    of those what follows the last "the answer is"; without that the whole text."""
    label = _last(_LABEL, output)
    if (boxed := _last_boxed(output, label.end() if label else 0)) is not None:
        words = _WORDS.fullmatch(boxed)
        return Answer((words[1] if words else boxed).strip(), labelled=True)
    if label is not None:
        text = output[label.end() :]
        if label["tag"]:
            text = re.split(f"(?i)</{label['tag']}>", text, maxsplit=1)[0]
        return Answer(text.strip(), labelled=True)
    if (said := _last(_SAID, output)) is not None:
        return Answer(output[said.end() :].strip(), labelled=True, in_sentence=True)
    return Answer(output.strip(), labelled=False)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in pattern.finditer(text):
        found = match
    return found


def _last_boxed(text: str, start: int) -> str | None:
    """What the last closed ``\\boxed{...}`` that begins at ``start`` or later holds, braces in it paired."""
    opened = [match.end() for match in _BOXED.finditer(text, start)]
    return next(
        (inside for begin in reversed(opened[-3:]) if (inside := _braced(text, begin)) is not None), None
    )


def _braced(text: str, begin: int) -> str | None:
    depth = 1
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[begin:at]
    return None
