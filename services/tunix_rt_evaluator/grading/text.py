"""Exact match of normalised texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tunix_rt_evaluator.evaluations.model import Verdict
from tunix_rt_evaluator.grading.afterwords import objection
from tunix_rt_evaluator.grading.answers import Answer, read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Problem, Question
from tunix_rt_evaluator.grading.normal_text import SENTENCE_END, normalise
from tunix_rt_evaluator.grading.settings import TextGrader

VERSION: Final = "text/3"
# As many characters as may stand around an accepted answer that is enclosed in marks.
_AROUND: Final = 1_000
_ASKED: Final = ("?", "\uff1f", "\u061f")


def grade(_settings: TextGrader, question: Question, output: str) -> Verdict:
    """Right when the answer, its first line or the rest of the sentence that gives it is an accepted one."""
    answer = read_answer(output)
    wanted = {normalise(text) for text in question.accepted}
    named = any(text.strip().endswith(_ASKED) for text in question.accepted)
    longest = 2 * max(map(len, question.accepted)) + _AROUND
    for candidate in dict.fromkeys(_readings(answer)):
        if candidate and len(candidate) <= longest and normalise(candidate) in wanted:
            why = objection(answer.text.removeprefix(candidate) + answer.rest)
            if not why and not named and re.search(r"[?\uff1f\u061f]\W*$", candidate):
                why = "it is a question"
            return Verdict(extracted_answer=candidate, correct=not why, explanation=why)
    return Verdict(extracted_answer=answer.first_line, correct=False)


def _readings(answer: Answer) -> tuple[str, ...]:
    if not answer.in_sentence:
        return answer.text, answer.first_line
    return answer.text, answer.first_line, SENTENCE_END.split(answer.text, maxsplit=1)[0]


def _problems(_settings: Any, accepted: Sequence[str]) -> Iterator[Problem]:
    for number, text in enumerate(accepted):
        if not normalise(text):
            yield ("accepted_answers", number), f"is {text[:60]!r}, which holds no text"


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade, problems=_problems)
