"""One of several options, named by its letter or by its text, as ``choices`` reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Final

from tunix_rt_evaluator.evaluations.model import Verdict
from tunix_rt_evaluator.grading.answers import read_answer
from tunix_rt_evaluator.grading.choice_marks import index
from tunix_rt_evaluator.grading.choices import choice
from tunix_rt_evaluator.grading.contract import GraderKind, Problem, Question
from tunix_rt_evaluator.grading.normal_text import normalise
from tunix_rt_evaluator.grading.settings import MultipleChoiceGrader

VERSION: Final = "multiple_choice/3"


def grade(settings: MultipleChoiceGrader, question: Question, output: str) -> Verdict:
    """Right when the one option that the answer names is an accepted one."""
    answer = read_answer(output)
    chosen = choice(answer, settings.options)
    if chosen is None:
        return Verdict(extracted_answer="", correct=False)
    accepted = {_meant(entry, settings.options) for entry in question.accepted}
    return Verdict(extracted_answer=ascii_uppercase[chosen], correct=chosen in accepted)


def _meant(accepted: str, options: Sequence[str]) -> int | None:
    """The place of the option that an accepted answer means."""
    if accepted in options:
        return options.index(accepted)
    bare = accepted.strip().strip("().:").upper()
    if len(bare) == 1 and bare in ascii_uppercase[: len(options)]:
        return index(bare)
    return next((at for at, option in enumerate(options) if normalise(option) == normalise(accepted)), None)


def _problems(settings: MultipleChoiceGrader, accepted: Sequence[str]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    letters = ascii_uppercase[: len(settings.options)]
    for at, option in enumerate(settings.options):
        if not option.strip():
            yield ("grader", "options", at), "is empty; a text would be right"
        earlier = first.setdefault(normalise(option), at)
        if earlier != at:
            yield ("grader", "options", at), f"is the same as options[{earlier}]; each must be different"
        other = option.strip().strip("().:").upper()
        if len(other) == 1 and other in letters and other != letters[at]:
            yield (
                ("grader", "options", at),
                f"is {option[:60]!r}, the letter of another option; words would be right",
            )
    for number, entry in enumerate(accepted):
        if _meant(entry, settings.options) is None:
            yield (
                ("accepted_answers", number),
                f"is {entry[:60]!r}; a letter from {letters[0]} to {letters[-1]} or an option would be right",
            )


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade, problems=_problems)
