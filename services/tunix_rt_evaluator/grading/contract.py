"""What a kind of grader is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tunix_rt_evaluator.evaluations.model import Verdict
from tunix_rt_evaluator.grading.answers import read_answer

Problem: TypeAlias = tuple[tuple[str | int, ...], str]
"""What is wrong with an item, and where: a path below it, such as ``("grader", "options", 1)``."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a grader may know of an item besides its own settings, and of the output besides its text.

    ``cut`` says that the output ended at the most new tokens, and not by itself.
    """

    prompt: str
    accepted: Sequence[str]
    cut: bool = False


def needs_no_mark(_settings: Any, _output: str) -> bool:
    """Of a kind that looks at the whole output."""
    return True


def no_problems(_settings: Any, _accepted: Sequence[str]) -> Iterable[Problem]:
    """Of a kind whose settings can only be wrong in ways that their types tell."""
    return ()


@dataclass(frozen=True, slots=True)
class GraderKind:
    """One kind of grader.

    Args:
        version: names the kind and all that a verdict depends on besides the item, such as ``numeric/3``. It
            is part of an evaluation's identity: it must change whenever a verdict could.
        grade: the verdict on a model's whole output; raises CannotGrade.
        problems: what is wrong with an item's settings and accepted answers.
        needs_accepted: whether an item must have an accepted answer.
        marked: whether an output shows by a mark what its answer is. An answer that no mark shows counts only
            in an output that came to its end by itself. Kinds that look at the whole output need no mark.
    """

    version: Callable[[Any], str]
    grade: Callable[[Any, Question, str], Verdict]
    problems: Callable[[Any, Sequence[str]], Iterable[Problem]] = no_problems
    needs_accepted: bool = True
    marked: Callable[[Any, str], bool] = lambda _, output: read_answer(output).labelled


class CannotGrade(Exception):
    """There is no verdict on an answer; the message says why in one line."""
