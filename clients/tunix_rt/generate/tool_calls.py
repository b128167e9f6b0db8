"""Families of conversations in which a tool is to be called: a calculator, and a converter of units."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from tunix_rt.generate.conversation import (
    Asked,
    Conversation,
    Dice,
    Task,
    Turns,
    decimal_text,
    joined,
    number,
)
from tunix_rt.generate.family import Difficulty
from tunix_rt.generate.sequence import mixed_radix, permuted

CALCULATE: Final = "calculate"
CONVERT: Final = "convert"


@dataclass(frozen=True)
class _Size:
    """Which numbers a difficulty has: those of the first question, those of a further one, and their unit."""

    first: range
    further: range
    parts: int = 1


@dataclass(frozen=True)
class CallFamily:
    """A kind of question that a tool answers.

    Every question of a conversation is asked in no other one in the same words: the first and the further
    ones have numbers out of ranges that do not meet, and the further one is a permutation of the first.

    Attributes:
        name: what the family is called.
        tool: the tool that answers.
        sizes: which numbers there are at each difficulty.
        choices: what else a question is made of.
        asking: the words of a question.
        task: writes the question of numbers, choices and words, and solves it.
    """

    name: str
    tool: str
    sizes: Mapping[Difficulty, _Size]
    choices: tuple[Sequence[int], ...]
    asking: Sequence[str]
    task: Callable[[Fraction, Sequence[int], str], Task]

    def problems(self, difficulty: Difficulty) -> int:
        """How many first questions there are, but for their words."""
        return math.prod(map(len, (self.sizes[difficulty].first, *self.choices)))

    @property
    def wordings(self) -> int:
        """How many ways there are to word one."""
        return len(self.asking)

    def solved(self, difficulty: Difficulty, problem: int, wording: int) -> Conversation:
        """The conversation that begins with a question."""
        size = self.sizes[difficulty]
        dice = Dice((self.name, difficulty, problem, wording))
        first = self._task(size.first, size.parts, problem, self.asking[wording])
        other = permuted(problem, self.problems(difficulty), self.name, difficulty, "further")
        further = self._task(size.further, size.parts, other, self.asking[wording])
        turns = Turns()
        turns.system(dice)
        shape = dice.pick("shape", ("one", "one", "one", "both", "both", "then", "then", "thanks"))
        if shape == "both":
            turns.solve(joined([first.question, further.question]), [first, further])
        else:
            turns.solve(first.question, [first])
        if shape == "then":
            turns.solve(
                f"{dice.pick('then', ('Thanks.', 'Good.', 'Next one:'))} {further.question}", [further]
            )
        if shape == "thanks":
            turns.say("user", "Thank you.")
            turns.say("assistant", "You are welcome.")
        # Whether to call, and how, is what there is to learn: it is asked for more often.
        asked: Asked = dice.pick("asked", (*[turns.calls[-1]] * 3, turns.answers[-1]))
        return Conversation(tuple(turns.messages), offered(dice, self.tool), asked)

    def _task(self, numbers: range, parts: int, place: int, words: str) -> Task:
        value, *choices = mixed_radix(place, (numbers, *self.choices))
        return self.task(Fraction(value, parts), choices, words)


def offered(dice: Dice, tool: str) -> tuple[Mapping[str, Any], ...]:
    """The tools of a conversation: the one that is needed, alone or with the other one."""
    both = (CALCULATE, CONVERT), (CONVERT, CALCULATE)
    # A definition is most of what a model reads: the tool that is needed stands alone more often.
    names: tuple[str, ...] = dice.pick("tools", (*[(tool,)] * 4, *both))
    return tuple(TOOLS[name] for name in names)


_OPERATIONS: Final[Sequence[tuple[str, str, str, Callable[[Any, Any], Any]]]] = (
    ("add", "+", "plus", operator.add),
    ("subtract", "-", "minus", operator.sub),
    ("multiply", "*", "times", operator.mul),
    ("divide", "/", "divided by", operator.truediv),
)


def _calculation(value: Fraction, choices: Sequence[int], words: str) -> Task:
    right, kind = Fraction(choices[0]), choices[1]
    name, sign, word, apply = _OPERATIONS[kind]
    # So that nothing is below zero, and every quotient ends.
    left = {"subtract": value + right, "divide": value * right}.get(name, value)
    result = apply(left, right)
    texts = decimal_text(left), decimal_text(right)
    asked = f" {word if 'word' in words else sign} ".join(texts)
    other = {"op": name, "a": number(right), "b": number(left)}
    return Task(
        question=words.format(sign=asked, word=asked),
        tool=CALCULATE,
        arguments={"op": name, "a": number(left), "b": number(right)},
        result=result,
        answer=f"{f' {sign} '.join(texts)} = {decimal_text(result)}.",
        also=(other,) if name in ("add", "multiply") and left != right else (),
    )


_LENGTHS: Final = {
    "km": "kilometres",
    "m": "metres",
    "cm": "centimetres",
    "mi": "miles",
    "ft": "feet",
    "in": "inches",
}
_OTHERS: Final = {"kg": "kilograms", "g": "grams", "lb": "pounds", "l": "litres", "ml": "millilitres"}
_TIMES: Final = {"d": "days", "h": "hours", "min": "minutes", "s": "seconds"}
_UNITS: Final = {**_LENGTHS, **_OTHERS, **_TIMES, "C": "degrees Celsius", "F": "degrees Fahrenheit"}
"""What each unit is called."""

_CONVERSIONS: Final[Sequence[tuple[str, str, Fraction]]] = tuple(
    (source, target, Fraction(factor))
    for source, target, factor in (
        ("km", "m", "1000"),
        ("m", "km", "1/1000"),
        ("m", "cm", "100"),
        ("mi", "km", "1.609344"),
        ("ft", "in", "12"),
        ("in", "cm", "2.54"),
        ("kg", "g", "1000"),
        ("g", "kg", "1/1000"),
        ("lb", "g", "453.59237"),
        ("l", "ml", "1000"),
        ("ml", "l", "1/1000"),
        ("d", "h", "24"),
        ("h", "min", "60"),
        ("min", "s", "60"),
        ("C", "F", "1.8"),
    )
)
"""From, to, and how many of the one the other is: by definition, and with an end as a decimal."""


def _conversion(value: Fraction, choices: Sequence[int], words: str) -> Task:
    source, target, factor = _CONVERSIONS[choices[0]]
    result = value * factor + (32 if target == "F" else 0)
    given = f"{decimal_text(value)} {_UNITS[source]}"
    return Task(
        question=words.format(given, _UNITS[target]),
        tool=CONVERT,
        arguments={"value": number(value), "from": source, "to": target},
        result=result,
        answer=f"{given} are {decimal_text(result)} {_UNITS[target]}.",
    )


def _function(name: str, description: str, properties: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


_NUMBER: Final = {"type": "number"}
_TEXT: Final = {"type": "string"}
TOOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    CALCULATE: _function(
        CALCULATE,
        "Work out a op b.",
        {"op": {"enum": [name for name, *_ in _OPERATIONS]}, "a": _NUMBER, "b": _NUMBER},
    ),
    CONVERT: _function(
        CONVERT,
        f"Convert between units: {', '.join(_UNITS)}.",
        {"value": _NUMBER, "from": _TEXT, "to": _TEXT},
    ),
}
"""The definition of each tool, as a conversation offers it."""

TOOL_CALLS: Final = (
    CallFamily(
        "calculator",
        CALCULATE,
        {
            "easy": _Size(range(2, 100), range(100, 198)),
            "medium": _Size(range(101, 1_000), range(1_000, 1_899)),
            "hard": _Size(range(101, 10_000), range(10_000, 19_899), parts=10),
        },
        (range(2, 100), range(len(_OPERATIONS))),
        (
            *("What is {sign}?", "What is {word}?", "Calculate {sign}.", "Work out {word}."),
            *("How much is {word}?", "Please tell me what {sign} is."),
        ),
        _calculation,
    ),
    CallFamily(
        "unit_converter",
        CONVERT,
        {
            "easy": _Size(range(2, 100), range(100, 198)),
            "medium": _Size(range(101, 1_000), range(1_000, 1_899)),
            "hard": _Size(range(101, 10_000), range(10_000, 19_899), parts=10),
        },
        (range(len(_CONVERSIONS)),),
        (
            *("Convert {} to {}.", "What is {} in {}?", "Change {} to {}.", "How much is {} in {}?"),
            *("Please write {} in {}.", "Give me {} in {}."),
        ),
        _conversion,
    ),
)
"""All of them, in the order in which they are listed."""
