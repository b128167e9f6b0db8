"""Whether an output has the form in which ``tunix_rt_kit.chat.trace_text`` writes reasoning."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from tunix_rt_evaluator.grading.model import GraderSettings, Question, Verdict, grader
from tunix_rt_kit.chat.trace_text import ANSWER_LABEL, REASONING_HEADING

_STEP: Final = re.compile(r"(\d+)\. \S.*")


class FormatGrader(GraderSettings):
    """Right when the whole output has the form in which datasets write reasoning."""

    kind: Literal["format"] = "format"
    reasoning_style: Literal["numbered", "answer-only"] = "numbered"
    min_steps: Annotated[int, Field(ge=0, le=1_000)] = 1


@grader(FormatGrader, 8, "format/1", needs_accepted=False, marked=lambda _, __: True)
def grade(settings: FormatGrader, _question: Question, output: str) -> Verdict:
    """Right when nothing is missing and nothing more is there; the explanation says what is wrong."""
    *body, last = output.strip().split("\n")
    answer = last.removeprefix(ANSWER_LABEL).strip() if last.startswith(ANSWER_LABEL) else ""
    wrong = (
        f"the last line is not {ANSWER_LABEL!r} and an answer"
        if not answer
        else _body_problem(body, settings)
    )
    return Verdict(extracted_answer=answer, correct=not wrong, explanation=wrong)


def _body_problem(body: list[str], settings: FormatGrader) -> str:
    if settings.reasoning_style == "answer-only":
        return f"{len(body)} lines stand before the answer" if body else ""
    if not body:
        return "" if settings.min_steps == 0 else f"there is no {REASONING_HEADING!r}"
    if body[0] != REASONING_HEADING:
        return f"the first line is not {REASONING_HEADING!r}"
    for number, line in enumerate(body[1:], start=1):
        match = _STEP.fullmatch(line)
        if match is None or match[1] != str(number):
            return f"line {number + 1} is not step {number}, '{number}. ...'"
    steps = len(body) - 1
    least = max(settings.min_steps, 1)
    return f"it has {steps} steps, at least {least} would be right" if steps < least else ""
