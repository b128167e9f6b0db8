"""Several values in any order."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Final

from tunix_rt_evaluator.grader_settings import SetGrader
from tunix_rt_evaluator.grading.answers import read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Question
from tunix_rt_evaluator.grading.normal_text import normalise
from tunix_rt_evaluator.grading.numbers import read_number
from tunix_rt_evaluator.grading.overlap import f1
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "set/2"

# A comma between digits is one of thousands, unless a space follows it.
_BETWEEN: Final = re.compile(
    r"\s*(?:;|\n|,(?=\s)|,(?!\d{3}(?!\d))|(?<!\d),)\s*(?:(?:and|or)\s)?|\s+(?:and|or|&)\s+", re.IGNORECASE
)
_BRACKETS: Final = {"{": "}", "[": "]", "(": ")"}


def grade(_settings: SetGrader, question: Question, output: str) -> Verdict:
    """Right when the answer's entries, or those of its first line, are an accepted answer's."""
    answer = read_answer(output)
    wanted = [entries(text) for text in question.accepted]
    best, shown = 0.0, answer.first_line
    for text in dict.fromkeys((answer.text, answer.first_line)):
        given = entries(text)
        score = max((f1(given, each) for each in wanted), default=0.0)
        if score > best:
            best, shown = score, text
    return Verdict(extracted_answer=shown, correct=best == 1.0, score=best)


def entries(text: str) -> Counter[Fraction | str]:
    """The entries of a text: numbers where they are some, else normalised texts; each counts once."""
    inside = text.strip().strip("$").strip()
    inside = inside.replace("\\{", "{").replace("\\}", "}").rstrip(".")
    while inside[:1] in _BRACKETS and inside.endswith(_BRACKETS[inside[:1]]):
        inside = inside[1:-1].strip()
    return Counter({_value(part) for part in _BETWEEN.split(inside) if part.strip()})


def _value(part: str) -> Fraction | str:
    number = read_number(part)
    return normalise(part) if number is None else number.value * number.factor


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade)
