"""Numbers, compared exactly or within a tolerance, with units where they matter."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Final, Literal

from pydantic import Field

from tunix_rt_evaluator.grading.model import CannotGrade, GraderSettings, Problem, Question, Verdict, grader
from tunix_rt_evaluator.grading.reading.answers import read_answer, read_marked
from tunix_rt_evaluator.grading.reading.context import pattern
from tunix_rt_evaluator.grading.reading.numbers import Number, find_numbers, has_right_unit, units_differ
from tunix_rt_evaluator.grading.reading.statements import Statement, read_number, read_statement
from tunix_rt_evaluator.grading.reading.words import REFUSAL

_Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Unit = Annotated[str, Field(min_length=1, max_length=32)]
_REFUSAL: Final = pattern(REFUSAL)
_LIST_NUMBER: Final = re.compile(r"^[ \t]*\d{1,3}[.)](?=[ \t]+\S)", re.MULTILINE)


class NumericGrader(GraderSettings):
    """Right when the answer's number is within the tolerance of an accepted one.

    ``units`` may stand behind it, or must with ``unit_required``. With ``marked`` an unmarked answer does not
    count.
    """

    added = frozenset({"relative_tolerance", "units", "unit_required", "marked"})

    kind: Literal["numeric"] = "numeric"
    tolerance: _Tolerance = 0.0
    relative_tolerance: _Tolerance = 0.0
    units: Annotated[tuple[_Unit, ...], Field(max_length=32, strict=False)] = ()
    unit_required: bool = False
    marked: bool = False


def _problems(settings: NumericGrader, _accepted: Sequence[str]) -> Iterator[Problem]:
    if settings.unit_required and not settings.units:
        yield ("grader", "unit_required"), "is set without units; name at least one in units"


def _unfit(_settings: NumericGrader, accepted: str) -> str:
    if read_number(accepted) is not None:
        return ""
    return (
        ", which is not one number, as the numeric grader needs; math reads expressions, and text "
        "compares what is written"
    )


@grader(NumericGrader, 1, "numeric/3", problems=_problems, unfit=_unfit)
def grade(settings: NumericGrader, question: Question, output: str) -> Verdict:
    """Right when the numbers that the answer gives (one, as a rule) are accepted ones."""
    accepted = [number for entry in question.accepted if (number := read_number(entry)) is not None]
    if not accepted:
        raise CannotGrade(f"the accepted answer {question.accepted[0][:60]!r} is not one number")
    answer = read_answer(output)
    if settings.marked and not answer.labelled:
        return Verdict(extracted_answer="", correct=False, explanation="no mark shows an answer")
    statement = (
        read_marked(answer, settings.units)
        if answer.labelled
        else _unmarked(output, question, settings.units)
    )
    numbers = [_in_unit(number, settings.units) for number in statement.numbers]
    why = statement.why or _copied(numbers, question, accepted)
    if why or not numbers:
        explanation = why and f"{statement.shown[:60]!r} counts as no number: {why}"
        return Verdict(extracted_answer="", correct=False, explanation=explanation)
    # By its decimal digits: the float 0.3 is a little less than 0.3.
    tolerance, relative = Fraction(repr(settings.tolerance)), Fraction(repr(settings.relative_tolerance))
    equal = [[one for one in accepted if number.equals(one, tolerance, relative)] for number in numbers]
    right = all(equal)
    unit = not settings.units or has_right_unit(numbers[-1], settings.units, required=settings.unit_required)
    if not settings.units:
        unit = all(
            any(not units_differ(number, one) for one in same)
            for number, same in zip(numbers, equal, strict=True)
        )
    return Verdict(
        extracted_answer=statement.shown,
        correct=right and unit,
        explanation="the number is right, its unit is not" if right and not unit else "",
    )


def _unmarked(output: str, question: Question, units: Sequence[str]) -> Statement:
    """The number that the last sentence with one gives, where nothing marks an answer.

    What the question says itself is no answer to it, unless it is all that the output says, and there is none
    in an output that refuses one.
    """
    lines = output.split("\n") if "\n" in output.strip() else [output.strip()]
    text = output if len(lines) == 1 else _LIST_NUMBER.sub("", output)
    statement = read_statement(text, units=units, last=True)
    if statement.alone and len(lines) == 1:
        return statement
    if statement.numbers and (refused := _REFUSAL.search(output)):
        return replace(
            statement, numbers=(), why=f"nothing marks it, and {refused[0].strip()!r} refuses an answer"
        )
    told = _numbers_of(question)
    for number in _results(statement.numbers):
        if number.ratio is not None and math.gcd(*number.ratio) > 1:
            return replace(statement, numbers=(), why="nothing marks it, and it is an unfinished division")
        if _key(number) in told:
            return replace(statement, numbers=(), why="nothing marks it, and it stands in the question")
    return statement


def _copied(numbers: Sequence[Number], question: Question, accepted: Sequence[Number]) -> str:
    """Why a fraction is no answer that the question holds as well: it is a division that was not done."""
    fractions = {number.ratio for number in _results(numbers) if number.ratio} - {
        number.ratio for number in accepted
    }
    if fractions and fractions & _numbers_of(question):
        return "it is copied from the question"
    return ""


def _results(numbers: Sequence[Number]) -> Sequence[Number]:
    """In 48/6 = 8 the fraction is what was computed."""
    return [number for number in numbers if number.ratio is None] or numbers


def _numbers_of(question: Question) -> set[Fraction | tuple[int, int]]:
    return {_key(number) for number in find_numbers(question.prompt.replace("\u00f7", "/"))}


def _key(number: Number) -> Fraction | tuple[int, int]:
    return number.meant if number.ratio is None else number.ratio


def _in_unit(number: Number, units: Sequence[str]) -> Number:
    """Where a word such as million is the unit that is asked for, the number before it counts."""
    if number.scale in units and not number.is_percent:
        return replace(number, factor=Fraction(1))
    return number
