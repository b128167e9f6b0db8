"""Mathematical equality, by math-verify and SymPy."""

from __future__ import annotations

from functools import partial
from importlib import metadata
from typing import Final

from tunix_rt_evaluator.grader_settings import MathGrader
from tunix_rt_evaluator.grading.answers import read_answer
from tunix_rt_evaluator.grading.contract import CannotGrade, GraderKind, Question
from tunix_rt_evaluator.grading.normal_text import normalise
from tunix_rt_evaluator.grading.sandbox import GradingSandbox
from tunix_rt_evaluator.model import Verdict

VERSION: Final = f"math/2 math-verify={metadata.version('math-verify')} sympy={metadata.version('sympy')}"
_MAX_ANSWER: Final = 2_000


def kind(sandbox: GradingSandbox) -> GraderKind:
    """The kind, which computes in ``sandbox``."""
    return GraderKind(version=lambda _: VERSION, grade=partial(_grade, sandbox))


def _grade(sandbox: GradingSandbox, _settings: MathGrader, question: Question, output: str) -> Verdict:
    """Right when the answer equals an accepted one; what is written alike is equal without computing."""
    answer = read_answer(output)
    shown = answer.first_line if answer.labelled else answer.text[-_MAX_ANSWER:]
    if shown and any(normalise(shown) == normalise(text) for text in question.accepted):
        return Verdict(extracted_answer=shown, correct=True)
    if not shown:
        return Verdict(extracted_answer="", correct=False)
    # Math-verify looks for formulas; a bare one is taken whole only where it is marked as one.
    readings = [_marked(shown), shown] if answer.labelled else [shown]
    try:
        reply = sandbox.run(
            "math",
            accepted=[_marked(text) for text in question.accepted],
            answers=[text[:_MAX_ANSWER] for text in readings],
        )
    except CannotGrade as error:
        raise CannotGrade(f"comparing {shown[:60]!r} with the accepted answers: {error}") from None
    return Verdict(extracted_answer=shown if answer.labelled else reply["read"], correct=reply["correct"])


def _marked(text: str) -> str:
    bare = text.strip().rstrip(".").strip()
    if bare.startswith("$") and bare.count("$") == 1:
        bare = bare[1:]
    return bare if "$" in bare or "\\boxed" in bare or "\\(" in bare or "\\[" in bare else f"${bare}$"
