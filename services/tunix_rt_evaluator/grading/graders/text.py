"""Exact match of normalised texts."""

from __future__ import annotations

import re
from typing import Final, Literal

from tunix_rt_evaluator.grading.model import GraderSettings, Question, Verdict, grader
from tunix_rt_evaluator.grading.reading.afterwords import objection
from tunix_rt_evaluator.grading.reading.answers import Answer, read_answer
from tunix_rt_evaluator.grading.reading.spelling import SENTENCE_END, normalise

# As many characters as may stand around an accepted answer that is enclosed in marks.
_AROUND: Final = 1_000
_ASKED: Final = ("?", "\uff1f", "\u061f")


class TextGrader(GraderSettings):
    """Right when the answer, normalised, equals an accepted one."""

    kind: Literal["text"] = "text"


def _unfit(_settings: TextGrader, accepted: str) -> str:
    return "" if normalise(accepted) else ", which holds no text"


@grader(TextGrader, 2, "text/3", unfit=_unfit)
def grade(_settings: TextGrader, question: Question, output: str) -> Verdict:
    """Right when the answer, its first line, or the rest of its sentence is an accepted one."""
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
