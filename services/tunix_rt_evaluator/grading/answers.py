r"""Reads the answer out of a model's text.

``Answer:`` is how our own datasets write it (``tunix_rt_kit.chat.trace_text``), ``####`` how GSM8K does,
``\boxed{}`` how MATH does, ``<answer>`` how R1 does, and "the answer is" how people do, in many languages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tunix_rt_evaluator.grading.afterwords import is_asserted
from tunix_rt_evaluator.grading.boxes import last_boxed
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
    | \#{{4}}(?=(?:[^\w\n]|\\[a-z]+|minus|negative|\u8d1f|\u8ca0)*\d|[^\S\n]*\(?[A-Z]\)?[^\S\n]*$)
    | (?i:<(?P<tag>(?:final[_-]?)?answer)>)
    """,
    re.VERBOSE | re.MULTILINE,
)
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
    what stands before it on its line, without a label. ``alone`` says that a box is the whole answer, and
    not a part of it.
    """

    text: str
    labelled: bool
    in_sentence: bool = False
    boxed: bool = False
    rest: str = ""
    before: str = ""
    alone: bool = True

    @property
    def first_line(self) -> str:
        """Its first line: a model may go on after its answer, and what follows is not part of it."""
        return self.text.partition("\n")[0].strip()


def read_answer(output: str) -> Answer:
    r"""What follows the last ``Answer:`` or ``####``, or stands in ``<answer>`` or the last boxed, or in
    several side by side; without any of those what follows the last "the answer is"; without that the whole
    text.

    The last mark counts, even where the text ends before its answer does. Of a box that is a part of a
    formula, such as ``-\boxed{5}``, that formula is the answer.
    """
    label = _last(_LABEL, output)
    if (box := last_boxed(output, label.end() if label else 0)) is not None:
        rest, before = output[box.end :], _near(output, box.begin)
        return Answer(box.text, labelled=True, boxed=True, rest=rest, before=before, alone=box.alone)
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
