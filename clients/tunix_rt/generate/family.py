"""What a family of problems is, and the pieces that its solutions are written with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from tunix_rt.generate.sequence import mixed_radix

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: Final[tuple[Difficulty, ...]] = get_args(Difficulty)

StepType = Literal["compute", "recall"]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a solution: what kind it is, its text, and the number that it arrives at."""

    type: StepType
    content: str
    result: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and the steps that solve it; the answer is what the last step arrives at."""

    prompt: str
    steps: tuple[Step, ...]

    @property
    def answer(self) -> str:
        """The final answer, a whole number."""
        return str(self.steps[-1].result)


@dataclass(frozen=True)
class Family:
    """A kind of problem: which numbers it is made of, in which words, and how it is written and solved.

    ``numbers`` gives for each difficulty the range of each number; ``words`` the lists that one word or
    phrase each is taken from, all of which show in the prompt. Any combination is a problem, and no two have
    the same prompt.
    """

    name: str
    numbers: Mapping[Difficulty, tuple[Sequence[int], ...]]
    words: tuple[Sequence[str], ...]
    write: Callable[[Sequence[int], Sequence[str]], Problem]

    def problems(self, difficulty: Difficulty) -> int:
        """How many combinations of numbers there are."""
        return math.prod(len(choices) for choices in self.numbers[difficulty])

    @property
    def wordings(self) -> int:
        """How many ways there are to word one combination of numbers."""
        return math.prod(len(choices) for choices in self.words)

    def solved(self, difficulty: Difficulty, problem: int, wording: int) -> Problem:
        """A problem by the number of its combination of numbers, and that of its words."""
        return self.write(mixed_radix(problem, self.numbers[difficulty]), mixed_radix(wording, self.words))


def plus(left: int, right: int, what: str = "") -> Step:
    """An addition on one line, with what it is about before it if said."""
    return _compute(left, "+", right, left + right, what)


def minus(left: int, right: int, what: str = "") -> Step:
    """A subtraction on one line."""
    return _compute(left, "-", right, left - right, what)


def times(left: int, right: int, what: str = "") -> Step:
    """A multiplication on one line."""
    return _compute(left, "*", right, left * right, what)


def divided(left: int, right: int, what: str = "") -> Step:
    """A division without remainder on one line; raises ValueError if there is one."""
    result, remainder = divmod(left, right)
    if remainder:
        raise ValueError(f"{left} / {right} leaves a remainder of {remainder}")
    return _compute(left, "/", right, result, what)


def times_by_parts(left: int, right: int, what: str = "") -> tuple[Step, ...]:
    """A multiplication by one digit, tens and ones apart when ``left`` has both and is over twelve."""
    tens, ones = left // 10 * 10, left % 10
    if left <= 12 or not tens or not ones:
        return (times(left, right, what),)
    by_tens, by_ones = times(tens, right), times(ones, right)
    return by_tens, by_ones, plus(by_tens.result, by_ones.result, what)


def _compute(left: int, operator: str, right: int, result: int, what: str) -> Step:
    equation = f"{left} {operator} {right} = {result}"
    return Step("compute", f"{what}: {equation}" if what else equation, result)
