"""Words that must occur in an answer."""

from __future__ import annotations

import re
from typing import Final

from tunix_rt_evaluator.grader_settings import ContainsGrader
from tunix_rt_evaluator.grading.answers import read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Question
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "contains/2"


def grade(settings: ContainsGrader, question: Question, output: str) -> Verdict:
    """Right when any of the accepted answers occurs, or all do; the score is then the share that does."""
    text = output if settings.whole_output else read_answer(output).text
    found = [entry for entry in question.accepted if _occurs(entry, text, settings)]
    share = len(found) / len(question.accepted)
    score = share if settings.all else float(bool(found))
    return Verdict(extracted_answer=", ".join(found), correct=score == 1.0, score=score)


def _occurs(entry: str, text: str, settings: ContainsGrader) -> bool:
    wanted, given = " ".join(entry.split()), " ".join(text.split())
    if not settings.case_sensitive:
        wanted, given = wanted.casefold(), given.casefold()
    if not settings.whole_words:
        return wanted in given
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", given) is not None


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade)
