"""Which number an answer gives that a mark shows, and what stands around the mark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tunix_rt_evaluator.grading.afterwords import is_asserted, until_next
from tunix_rt_evaluator.grading.amounts import CHANGE, NUMBER_WORD
from tunix_rt_evaluator.grading.answers import Answer
from tunix_rt_evaluator.grading.languages import ANSWER, COPULA, FINAL, IS
from tunix_rt_evaluator.grading.neighbours import changes_beside, pattern
from tunix_rt_evaluator.grading.spelling import CURRENCY, plain
from tunix_rt_evaluator.grading.statements import Statement, is_corrected, read_statement

_MAX_LENGTH: Final = 2_000
_NEAR: Final = 200
# A phrase that marks an answer as well.
_PHRASE: Final = rf"""
    (?: \b(?:answer|(?:correct|right|true|actual|real|final|proper)\s+
        (?:value|result|total|number|amount|solution|one))
          (?:\s+(?:is|was|would\s+be|should\s+be|must\s+be)\b|['\u2019]s\b|\s*[=:\u2192])
      | (?:it|that|this)\s+(?:should|must|ought\s+to)\s+(?:be|have\s+been)\b
      | {ANSWER}{FINAL}\s*(?:{IS}|[:\uff1a]) )
    (?:\s+(?:in\s+fact|actually|really|instead|therefore|then|thus|about|exactly|just|simply))*
    """
_FORMULA_AGAIN: Final = pattern(
    rf"""
    {_PHRASE} [\s:*_]*
    (?= [-+\u2212]?\s*(?:[$\\\d(\[{{]|[a-z]\b) | (?!one\s+of|first|last|other|next){NUMBER_WORD}\b )
    """
)
_NUMBER_AGAIN: Final = pattern(
    rf"""
    {_PHRASE} [\s:*_$(]*(?:[a-z]\s*=\s*)?
    (?= [-+\u2212]?\s?[{CURRENCY}]?\.?\d | \\(?:d?frac|boxed|\$|[(\[])
      | (?!one\s+of|first|last|other|next){NUMBER_WORD}\b )
    """
)
_SIDE: Final = pattern(rf"{COPULA} | [=\u2248:;,&]")
_CHANGED: Final = pattern(CHANGE)
_CLAUSE: Final = re.compile(r"[.,;:!?]\s")
_BULLET: Final = re.compile(r"^\s*[-*+>]\s+[$\\(\[]*$")
# What is more than the unknown itself, as in 2x = \boxed{10}.
_MORE_THAN_UNKNOWN: Final = re.compile(
    r"(?:^|[\s$,:;])(?=[^=]*[-+*/^|\u221a\u00b2\u00b3\d\\])(?!\\[a-z]+\s*=)"
    r"(?:[-\d.+*/^|\u221a\u00b2\u00b3\u00d7(){}\s]|\\(?:sqrt|log|ln|sin|cos|tan)\b)*(?<![^\W\d_])[a-z](?![^\W\d_]|\()"
    r"[-\d.+*/^|\u00b2\u00b3\u00d7(){}\s]*=\s*$"
)
_SET: Final = re.compile(r"[\s$(]+$|\*\*\s*$|\\[(\[]\s*$|\\(?:text|mathbf|displaystyle)\s*\{?\s*$")
_BEHIND_BOX: Final = re.compile(r"^(?:\s*(?:\$+|\\[)\]]|\*\*|\}))+")


def read_marked(answer: Answer, units: Sequence[str]) -> Statement:
    """What an answer gives that a mark shows.

    Of several that are marked the last one counts, whatever its mark: behind ``Answer: 18`` or a box, "The
    correct answer is 20" says 20. What is taken back behind its mark gives none, nor does a box that stands
    in something larger, as in ``-\\boxed{5}``.
    """
    if again := _again(answer, _NUMBER_AGAIN):
        return read_statement(again, units=units)
    if answer.in_sentence and (changed := _CHANGED.search(_CLAUSE.split(answer.before)[-1])):
        return Statement(answer.first_line, why=f"it is said of {changed[0].strip()!r} the answer")
    statement = read_statement(answer.text, units=units)
    if statement.why or not statement.numbers:
        return statement
    if why := around_box(answer):
        return Statement(statement.text, why=why)
    if is_taken_back(answer):
        return Statement(statement.text, why="it is taken back behind it")
    return statement


def said_again(answer: Answer) -> str:
    """What a phrase that marks an answer as well says behind the mark that counts, from a number or a formula
    on; "" where none does."""
    return _again(answer, _FORMULA_AGAIN)


def is_taken_back(answer: Answer) -> bool:
    """Whether what stands behind a box or a closing tag corrects the answer in it."""
    return bool(answer.rest) and is_corrected(f"It is so.\n{until_next(answer.rest)}")


def _again(answer: Answer, phrase: re.Pattern[str]) -> str:
    behind = until_next(f"{'' if answer.boxed else answer.text}\n{answer.rest}"[:_MAX_LENGTH])
    found = [each for each in phrase.finditer(behind) if _states(_line_before(behind, each.start()))]
    return behind[found[-1].end() :].strip() if found else ""


def _line_before(text: str, end: int) -> str:
    return text[max(0, end - _NEAR) : end].rpartition("\n")[2]


def _states(before: str) -> bool:
    """Whether a phrase that marks an answer states it, and nothing that is more than it."""
    return is_asserted(before) and not _CHANGED.search(_CLAUSE.split(before)[-1])


def around_box(answer: Answer) -> str:
    """Why what stands beside a box leaves it no answer, "" where it stays one or there is no box."""
    if not answer.boxed:
        return ""
    before, after = answer.before, _BEHIND_BOX.sub("", answer.rest[:_NEAR].partition("\n")[0])
    while (shorter := _SET.sub("", before)) != before:
        before = shorter
    # Read with the box already, as of -\boxed{5} and \boxed{50}\%.
    if answer.text.startswith("-"):
        before = before.rstrip().removesuffix("-")
    if answer.text.endswith("%"):
        after = after.lstrip().removeprefix("\\").removeprefix("%")
    side = "" if _BULLET.match(answer.before) else _SIDE.split(plain(before))[-1]
    if _MORE_THAN_UNKNOWN.search(before):
        return "what stands before it is more than an unknown"
    if not is_asserted(answer.before):
        return "what stands before it denies or doubts it"
    return changes_beside(side, plain(after))
