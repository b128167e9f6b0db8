"""Numbers, compared exactly or within a tolerance, with units where they matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final

from tunix_rt_evaluator.grader_settings import NumericGrader
from tunix_rt_evaluator.grading.answers import Answer, read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Problem, Question
from tunix_rt_evaluator.grading.numbers import Number, find_in_plain, plain, read_number
from tunix_rt_evaluator.grading.units import has_right_unit
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "numeric/3"

_RESULT: Final = re.compile(r"[=\u2248\u2192]")
_LIST_NUMBER: Final = re.compile(r"^[ \t]*\d{1,3}[.)](?=[ \t]+\S)", re.MULTILINE)
_REMARK: Final = re.compile(r"\([^()]*\)")
_BARE_START: Final = re.compile(r"[\s*_$\\(\[{\"'~\u2248]*")
_OPERATOR: Final = re.compile(r"[-+*\u00d7\u00f7^]|\b(?:plus|minus|times)\b")
_OFFERED: Final = re.compile(r"^[\s,;&/]+$|(?:^|[\s,;])(?:or|and|to)[\s*_$\\(]*$", re.IGNORECASE)
_OR: Final = re.compile(r"(?:^|[\s,;])or[\s*_$\\(]*$", re.IGNORECASE)


def grade(settings: NumericGrader, question: Question, output: str) -> Verdict:
    """Right when the number that the answer is, or all that it offers side by side, are accepted ones."""
    answer = read_answer(output)
    text, numbers = read_numbers(answer)
    if not numbers or (settings.marked and not answer.labelled):
        return Verdict(extracted_answer="", correct=False)
    accepted = [number for entry in question.accepted if (number := read_number(entry)) is not None]
    # By its decimal digits: the float 0.3 is a little less than 0.3.
    tolerance, relative = Fraction(repr(settings.tolerance)), Fraction(repr(settings.relative_tolerance))
    equal = all(any(number.equals(wanted, tolerance, relative) for wanted in accepted) for number in numbers)
    last = numbers[-1]
    unit = not settings.units or has_right_unit(last, settings.units, required=settings.unit_required)
    return Verdict(
        extracted_answer=text[numbers[0].start : last.end].strip(),
        correct=equal and unit,
        explanation="the number is right, its unit is not" if equal and not unit else "",
    )


def read_numbers(answer: Answer) -> tuple[str, list[Number]]:
    """The number that an answer is, or all that it offers side by side, and the plain text they stand in.

    Of several lines without a label it is the last one that does not number a line. Else the first line with
    a number counts: what follows its last equals sign, remarks in brackets left out; there the first number,
    if the line begins with it, else the last.
    """
    if not answer.labelled and "\n" in answer.text:
        text = plain(_LIST_NUMBER.sub("", answer.text))
        return text, find_in_plain(text)[-1:]
    for line in answer.text.splitlines():
        text = plain(line)
        numbers = find_in_plain(text)
        if numbers:
            return _of_line(text, numbers)
    return "", []


def _of_line(text: str, numbers: Sequence[Number]) -> tuple[str, list[Number]]:
    for shorter in _shortened(text):
        if found := find_in_plain(shorter):
            text, numbers = shorter, found
    if len(numbers) == 1:
        return text, list(numbers)
    between = [text[left.end : right.start] for left, right in pairwise(numbers)]
    begins = _BARE_START.fullmatch(text[: numbers[0].start]) and not _OPERATOR.search(between[0])
    if begins:
        count = 1 + next((at for at, gap in enumerate(between) if not _OFFERED.search(gap)), len(between))
        return text, list(numbers[:count])
    joined = next((at for at, gap in enumerate(reversed(between)) if not _OR.search(gap)), len(between))
    return text, list(numbers[-1 - joined :])


def _shortened(text: str) -> Iterator[str]:
    result = _RESULT.split(text)[-1]
    if result != text:
        yield result
        text = result if find_in_plain(result) else text
    without = _REMARK.sub(" ", text)
    if without != text:
        yield without


def _problems(settings: NumericGrader, accepted: Sequence[str]) -> Iterator[Problem]:
    if settings.unit_required and not settings.units:
        yield ("grader", "unit_required"), "is set without units; name at least one in units"
    for number, answer in enumerate(accepted):
        if read_number(answer) is None:
            yield (
                ("accepted_answers", number),
                f"is {answer[:60]!r}, which is not one number; the numeric grader needs one",
            )


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade, problems=_problems)
