"""Exact match of normalised texts."""

from __future__ import annotations

from typing import Final

from tunix_rt_evaluator.grader_settings import TextGrader
from tunix_rt_evaluator.grading.answers import Answer, read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Question
from tunix_rt_evaluator.grading.languages import CORRECTION
from tunix_rt_evaluator.grading.neighbours import pattern
from tunix_rt_evaluator.grading.normal_text import SENTENCE_END, normalise
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "text/3"
_CORRECTED: Final = pattern(rf"[.!?\s*]*(?:{CORRECTION})")


def grade(_settings: TextGrader, question: Question, output: str) -> Verdict:
    """Right when the answer, its first line or the rest of the sentence that gives it is an accepted one."""
    answer = read_answer(output)
    wanted = {normalise(text) for text in question.accepted}
    for candidate in _readings(answer):
        if candidate and normalise(candidate) in wanted:
            if _CORRECTED.match(answer.text[len(candidate) :]):
                return Verdict(
                    extracted_answer=candidate, correct=False, explanation="it is corrected behind it"
                )
            return Verdict(extracted_answer=candidate, correct=True)
    return Verdict(extracted_answer=answer.first_line, correct=False)


def _readings(answer: Answer) -> tuple[str, ...]:
    if not answer.in_sentence:
        return answer.text, answer.first_line
    return answer.text, answer.first_line, SENTENCE_END.split(answer.text, maxsplit=1)[0]


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade)
