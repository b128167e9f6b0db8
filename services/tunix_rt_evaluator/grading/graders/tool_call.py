"""Calls of tools, with the arguments that are expected, in any order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from tunix_rt_evaluator.grading.graders.json_schema import schema_problem
from tunix_rt_evaluator.grading.model import (
    CannotGrade,
    GraderSettings,
    Grown,
    Problem,
    Question,
    Sandbox,
    Verdict,
    grader,
)
from tunix_rt_evaluator.grading.reading.calls import Call, exactly, read_calls
from tunix_rt_kit.conversations import json_object

_MAX_CALLS: Final = 128
_MAX_EXACT: Final = (1 << 53) - 1
_SHOWN: Final = 5
_WANTED: Final = ("arguments", "arguments_text", "arguments_schema")


class ExpectedToolCall(Grown):
    """A call that is to be made; one of the three that say what its arguments must be is given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    added = frozenset(_WANTED)

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Mapping[str, Any] | None = None
    arguments_text: Annotated[str, Field(max_length=50_000)] | None = None
    arguments_schema: Mapping[str, Any] | None = None

    @property
    def exact(self) -> Any:
        """The arguments as they are compared."""
        return exactly(json.dumps(self.arguments) if self.arguments_text is None else self.arguments_text)


class ToolCallGrader(GraderSettings):
    """Right when the output makes the ``calls``, each once and no others; or none, with ``no_calls``."""

    kind: Literal["tool_call"] = "tool_call"
    calls: Annotated[tuple[ExpectedToolCall, ...], Field(strict=False, max_length=_MAX_CALLS)] = ()
    calls_alone: bool = False
    no_calls: bool = False


def _problems(settings: ToolCallGrader, accepted: Sequence[str]) -> Iterator[Problem]:
    if accepted:
        yield ("accepted_answers",), "are given, and the tool_call grader compares calls alone"
    if not (settings.calls or settings.no_calls):
        yield ("grader", "calls"), "is empty; a call, or no_calls where none is to be made, would be right"
    for field in ("calls", "calls_alone"):
        if settings.no_calls and getattr(settings, field):
            yield ("grader", field), "is given beside no_calls; one of the two would be right"
    for index, call in enumerate(settings.calls):
        given = [name for name in _WANTED if getattr(call, name) is not None]
        if len(given) != 1:
            yield (
                ("grader", "calls", index),
                f"has {' and '.join(given) or 'no arguments'}; one of {', '.join(_WANTED)} would be right",
            )
        elif problem := _ARGUMENT_PROBLEMS[given[0]](getattr(call, given[0])):
            yield ("grader", "calls", index, given[0]), problem


def _unoffered(settings: ToolCallGrader, tools: Sequence[str]) -> Iterator[Problem]:
    offered = ", ".join(repr(name) for name in tools[:_SHOWN]) + (", ..." if tools[_SHOWN:] else "")
    for index, call in enumerate(settings.calls):
        if call.name not in tools:
            place = ("grader", "calls", index, "name")
            yield place, f"is {call.name[:60]!r}, which is none of the tools that the item offers: {offered}"


def _arguments_problem(arguments: Mapping[str, Any]) -> str:
    left: list[Any] = [arguments]
    while left:
        value = left.pop()
        if isinstance(value, float) and (value != value or abs(value) > _MAX_EXACT):
            return f"hold the number {value!r}, whose digits may be lost; arguments_text keeps them all"
        if isinstance(value, Mapping | list):
            left += value.values() if isinstance(value, Mapping) else value
    return ""


def _text_problem(text: str) -> str:
    right = "a JSON object at most 30 levels deep would be right"
    try:
        exactly(text)
    except ValueError as error:
        return f"is {text[:60]!r}, which is not JSON: {error}; {right}"
    return "" if json_object(text) is not None else f"is {text[:60]!r}; {right}"


_ARGUMENT_PROBLEMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "arguments": _arguments_problem,
    "arguments_text": _text_problem,
    "arguments_schema": lambda schema: schema_problem(dict(schema)),
}


@grader(
    ToolCallGrader,
    13,
    "tool_call/1",
    needs=("sandbox",),
    needs_accepted=False,
    marked=lambda _, __: True,
    problems=_problems,
    unoffered=_unoffered,
    expected=lambda settings: [*map(_shown, settings.calls)] or ["no call"],
)
def grade(settings: ToolCallGrader, question: Question, output: str, sandbox: Sandbox) -> Verdict:
    """Right when the output makes the calls that are expected, and no others."""
    read = read_calls(output, question.call_form)
    shown = "\n".join(map(str, read.calls))
    problem = read.problem
    if not problem and question.cut:
        problem = "the output was cut: more might have come"
    if problem:
        return Verdict(extracted_answer=shown, correct=False, score=0.0, explanation=problem)
    made = read.calls
    if settings.no_calls:
        explanation = f"it calls {made[0]}" if made else ""
        return Verdict(extracted_answer=shown, correct=not made, explanation=explanation)
    found = _matching(settings.calls, made[:_MAX_CALLS], sandbox)
    explanation = _missing(settings.calls, made, found)
    if not explanation and settings.calls_alone and read.text:
        explanation = f"beside its calls it says {read.text[:60]!r}"
    score = 2 * len(found) / (len(settings.calls) + len(made))
    return Verdict(extracted_answer=shown, correct=not explanation, score=score, explanation=explanation)


def _matching(expected: Sequence[ExpectedToolCall], made: Sequence[Call], sandbox: Sandbox) -> dict[int, int]:
    """The most expected calls that were made, each with the call that makes it (Kuhn's algorithm)."""
    fits = [_fitting(wanted, made, sandbox) for wanted in expected]
    maker: dict[int, int] = {}

    def assign(wanted: int, seen: set[int]) -> bool:
        for at in fits[wanted]:
            if at not in seen:
                seen.add(at)
                if at not in maker or assign(maker[at], seen):
                    maker[at] = wanted
                    return True
        return False

    for wanted in range(len(expected)):
        assign(wanted, set())
    return {wanted: at for at, wanted in maker.items()}


def _fitting(wanted: ExpectedToolCall, made: Sequence[Call], sandbox: Sandbox) -> list[int]:
    """Which of the calls are the one that is expected."""
    named = [(at, call) for at, call in enumerate(made) if call.name == wanted.name]
    if wanted.arguments_schema is None:
        exact = wanted.exact if named else None
        return [at for at, call in named if call.exact == exact]
    schema = dict(wanted.arguments_schema)
    try:
        return [
            at
            for at, call in named
            if not sandbox.run("schema", schema=schema, value=call.arguments)["problem"]
        ]
    except CannotGrade as error:
        raise CannotGrade(f"checking the arguments of {wanted.name} by the schema: {error}") from None


def _missing(expected: Sequence[ExpectedToolCall], made: Sequence[Call], found: Mapping[int, int]) -> str:
    """Which call is not made, or not expected; "" if all are as they should be."""
    if len(found) == len(expected) == len(made):
        return ""
    if not made:
        return "it makes no call"
    lacking = [_shown(wanted) for at, wanted in enumerate(expected) if at not in found]
    if lacking:
        return f"it does not call {lacking[0]}" + (f" and {len(lacking) - 1} more" if lacking[1:] else "")
    makers = set(found.values())
    return f"it calls {next(call for at, call in enumerate(made) if at not in makers)}, which is not expected"


def _shown(wanted: ExpectedToolCall) -> str:
    if wanted.arguments_schema is not None:
        return f"{wanted.name} with arguments that the schema allows"
    arguments = wanted.arguments_text
    return f"{wanted.name}({json.dumps(wanted.arguments) if arguments is None else arguments})"
