"""One of several options, named by its letter or its text; ``reading.options`` reads which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Annotated, Final, Literal

from pydantic import Field

from tunix_rt_evaluator.grading.model import GraderSettings, Problem, Question, Verdict, grader
from tunix_rt_evaluator.grading.reading.answers import read_answer
from tunix_rt_evaluator.grading.reading.options import choice, index
from tunix_rt_evaluator.grading.reading.spelling import normalise

_MAX_OPTIONS: Final = 26
_Option = Annotated[str, Field(min_length=1, max_length=1_000)]


class MultipleChoiceGrader(GraderSettings):
    """Right when the answer names the right one of ``options``, A first."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    options: Annotated[tuple[_Option, ...], Field(min_length=2, max_length=_MAX_OPTIONS, strict=False)]


def _problems(settings: MultipleChoiceGrader, _accepted: Sequence[str]) -> Iterator[Problem]:
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


def _unfit(settings: MultipleChoiceGrader, accepted: str) -> str:
    if _meant(accepted, settings.options) is not None:
        return ""
    return f"; a letter from A to {ascii_uppercase[len(settings.options) - 1]} or an option would be right"


@grader(MultipleChoiceGrader, 5, "multiple_choice/3", problems=_problems, unfit=_unfit)
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
