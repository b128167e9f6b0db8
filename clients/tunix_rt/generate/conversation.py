"""What conversations with tools are written with: turns, calls, results, and what an eval item asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Final

from tunix_rt.generate.sequence import keyed_number

Message = dict[str, Any]
"""A turn as a line of native trace JSONL holds it."""

_SYSTEM: Final = (
    "You are a helpful assistant.",
    "Use a tool where it helps.",
    "Answer in one short sentence.",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The turn that an eval item asks for: how many messages come before it, and how it is graded."""

    after: int
    grader: Mapping[str, Any]
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of a conversation, the tools that it offers, and what an eval item asks of it."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    asked: Asked

    @property
    def prompt(self) -> str:
        """What the user asks first."""
        return str(next(turn["content"] for turn in self.messages if turn["role"] == "user"))

    @property
    def answer(self) -> str:
        """What the assistant says last."""
        return str(self.messages[-1]["content"])


@dataclass(frozen=True, slots=True)
class Task:
    """A question that one call answers: the call, its exact result, and the sentence that tells the result.

    ``also`` are other arguments of the same meaning, such as the terms of a sum the other way round.
    """

    question: str
    tool: str
    arguments: Mapping[str, Any]
    result: Fraction
    answer: str
    also: tuple[Mapping[str, Any], ...] = ()


@dataclass(slots=True)
class Dice:
    """Choices that only ``key`` and the name of each choice decide."""

    key: tuple[int | str, ...]

    def pick(self, what: str, options: Sequence[Any]) -> Any:
        """One of the options."""
        return options[keyed_number(*self.key, what) % len(options)]


@dataclass(slots=True)
class Turns:
    """A conversation as it is written, turn by turn.

    ``calls`` and ``answers`` collect what may be asked of it.
    """

    messages: list[Message] = field(default_factory=list)
    calls: list[Asked] = field(default_factory=list)
    answers: list[Asked] = field(default_factory=list)
    _made: int = 0

    def system(self, dice: Dice) -> None:
        """A system message, in every other conversation."""
        if text := dice.pick("system", (*_SYSTEM, *[""] * len(_SYSTEM))):
            self.messages.append({"role": "system", "content": text})

    def say(self, role: str, text: str) -> None:
        """A turn of text alone."""
        self.messages.append({"role": role, "content": text})

    def solve(self, question: str, tasks: Sequence[Task]) -> None:
        """A question, one call for each of its tasks, their results, and the answer."""
        self.say("user", question)
        ids = [f"call_{self._made + place}" for place in range(1, len(tasks) + 1)]
        self._made += len(tasks)
        grader = {"kind": "tool_call", "calls": [expected(task) for task in tasks]}
        self.calls.append(Asked(len(self.messages), grader))
        calls = [
            {"id": name, "name": task.tool, "arguments": json.dumps(task.arguments)}
            for name, task in zip(ids, tasks, strict=True)
        ]
        self.messages.append({"role": "assistant", "tool_calls": calls})
        results = [decimal_text(task.result) for task in tasks]
        for name, task, result in zip(ids, tasks, results, strict=True):
            content = f'{{"result": {result}}}'
            self.messages.append(
                {"role": "tool", "tool_call_id": name, "name": task.tool, "content": content}
            )
        every = {"kind": "contains", "all": True, "whole_words": True}
        self.answers.append(Asked(len(self.messages), every, tuple(dict.fromkeys(results))))
        self.say("assistant", joined([task.answer for task in tasks]))


def expected(task: Task) -> dict[str, Any]:
    """The call that a grader expects for a task."""
    if not task.also:
        return {"name": task.tool, "arguments": dict(task.arguments)}
    return {"name": task.tool, "arguments_schema": {"enum": [dict(task.arguments), *map(dict, task.also)]}}


def joined(sentences: Sequence[str]) -> str:
    """One sentence out of one or two: "A, and a." of "A." and "A."."""
    first, *more = sentences
    for sentence in more:
        first = f"{first.rstrip('.?')}, and {sentence[0].lower()}{sentence[1:]}"
    return first


def number(value: Fraction) -> int | float:
    """A number of at most one decimal as JSON has it."""
    return int(value) if value.denominator == 1 else float(value)


def decimal_text(value: Fraction) -> str:
    """All the digits of a number; raises ValueError if they do not end."""
    context = Context(prec=60)
    text = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    if Fraction(text) != value:
        raise ValueError(f"{value} has no end as a decimal")
    return f"{text:f}"
