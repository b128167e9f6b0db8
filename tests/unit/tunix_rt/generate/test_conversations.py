"""Generated conversations: every call, result and answer is right, and an eval item asks for that."""

from __future__ import annotations

import json
import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tunix_rt.formats import trace_from_json, trace_to_json
from tunix_rt.generate import (
    CONVERSATION_FAMILIES,
    DIFFICULTIES,
    Difficulty,
    GeneratedTrace,
    capacity,
    generate_traces,
)

ALL = list(CONVERSATION_FAMILIES)
# What one of each is in the base unit of its kind, of the international definitions.
SIZES = {
    "kilometres": ("km", "length", "1000"),
    "metres": ("m", "length", "1"),
    "centimetres": ("cm", "length", "0.01"),
    "miles": ("mi", "length", "1609.344"),
    "feet": ("ft", "length", "0.3048"),
    "inches": ("in", "length", "0.0254"),
    "kilograms": ("kg", "mass", "1000"),
    "grams": ("g", "mass", "1"),
    "pounds": ("lb", "mass", "453.59237"),
    "litres": ("l", "volume", "1"),
    "millilitres": ("ml", "volume", "0.001"),
    "days": ("d", "time", "86400"),
    "hours": ("h", "time", "3600"),
    "minutes": ("min", "time", "60"),
    "seconds": ("s", "time", "1"),
}
SIGNS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
NAMES = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
NUMBER = r"(\d+(?:\.\d+)?)"
CALCULATION = re.compile(rf"{NUMBER} (\+|-|\*|/|plus|minus|times|divided by) {NUMBER}")
UNIT = rf"({'|'.join(SIZES)}|degrees Celsius)"
CONVERSION = re.compile(rf"{NUMBER} {UNIT} (?:to|in) ({'|'.join(SIZES)}|degrees Fahrenheit)")


def calculated(found: re.Match[str]) -> tuple[dict[str, Any], Fraction]:
    """Arguments and result of a calculation that a question asks for."""
    left, right = Fraction(found[1]), Fraction(found[3])
    sign = SIGNS.get(found[2], found[2])
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign]
    return {"op": NAMES[sign], "a": json.loads(found[1]), "b": json.loads(found[3])}, result


def converted(found: re.Match[str]) -> tuple[dict[str, Any], Fraction]:
    """Arguments and result of a conversion that a question asks for."""
    value, source, target = Fraction(found[1]), found[2], found[3]
    if source == "degrees Celsius":
        assert target == "degrees Fahrenheit"
        return {"value": json.loads(found[1]), "from": "C", "to": "F"}, value * 9 / 5 + 32
    (short, kind, size), (other, same, unit) = SIZES[source], SIZES[target]
    assert kind == same
    arguments = {"value": json.loads(found[1]), "from": short, "to": other}
    return arguments, value * Fraction(size) / Fraction(unit)


def asked_for(family: str, question: str) -> list[tuple[str, dict[str, Any], Fraction]]:
    """The calls that a question is answered by, read out of its words, each with its result."""
    if family == "calculator":
        return [("calculate", *calculated(found)) for found in CALCULATION.finditer(question)]
    return [("convert", *converted(found)) for found in CONVERSION.finditer(question)]


def schemas(trace: GeneratedTrace) -> dict[str, dict[str, Any]]:
    tools = [tool["function"] for tool in trace.to_dict()["tools"]]
    return {tool["name"]: tool["parameters"] for tool in tools}


def check_calls(trace: GeneratedTrace) -> int:
    """Every call is what the question before it asks for, and is answered by its exact result."""
    messages, offered, made = trace.to_dict()["messages"], schemas(trace), 0
    for before, message in pairwise(messages):
        if "tool_calls" not in message:
            continue
        wanted = asked_for(trace.family, before["content"])
        calls = message["tool_calls"]
        assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [
            (name, arguments) for name, arguments, _ in wanted
        ]
        after = messages[messages.index(message) + 1 :]
        for call, result, (name, arguments, value) in zip(calls, after, wanted, strict=False):
            Draft202012Validator(offered[name]).validate(arguments)
            assert call["arguments"] == json.dumps(arguments)
            assert (result["role"], result["tool_call_id"], result["name"]) == ("tool", call["id"], name)
            written = re.fullmatch(r'\{"result": (\S+)\}', result["content"])
            assert written is not None
            assert Fraction(written[1]) == value
            answer = after[len(calls)]
            assert answer["role"] == "assistant"
            assert re.search(rf"(?<![\d.]){re.escape(written[1])}(?!\d|\.\d)", answer["content"])
        made += len(calls)
    return made


def check_item(trace: GeneratedTrace) -> None:
    """The item holds the turns before one of the assistant's, which its grader takes as right."""
    record, item = trace.to_dict(), trace.to_eval_item()
    history = item["messages"]
    assert history == record["messages"][: len(history)]
    assert item["tools"] == record["tools"]
    turn, grader = record["messages"][len(history)], item["grader"]
    assert turn["role"] == "assistant"
    if grader["kind"] == "contains":
        assert item["accepted_answers"]
        assert all(accepted in turn["content"] for accepted in item["accepted_answers"])
        return
    assert grader["kind"] == "tool_call"
    assert item["accepted_answers"] == []
    calls = turn.get("tool_calls", [])
    assert grader.get("no_calls", False) == (not calls)
    for call, expected in zip(calls, grader.get("calls", []), strict=True):
        given = json.loads(call["arguments"])
        assert call["name"] == expected["name"]
        other = {**given, "a": given.get("b"), "b": given.get("a")}
        either = given.get("op") in ("add", "multiply") and given != other
        if either:
            Draft202012Validator(expected["arguments_schema"]).validate(other)
            Draft202012Validator(expected["arguments_schema"]).validate(given)
            wrong = {**given, "a": given["a"] + 1}
            assert not Draft202012Validator(expected["arguments_schema"]).is_valid(wrong)
        else:
            assert expected["arguments"] == given


@given(st.integers(0, 2**63), st.integers(0, 10_000), st.sampled_from(DIFFICULTIES))
@settings(max_examples=40, deadline=None)
def test_every_call_is_what_the_question_asks_for(seed: int, start: int, difficulty: Difficulty) -> None:
    start %= capacity(ALL, difficulty) - 24
    for trace in generate_traces(24, seed, families=ALL, difficulty=difficulty, start=start):
        made = check_calls(trace)
        assert (made > 0) == (trace.family != "small_talk")
        check_item(trace)


def test_there_is_all_that_a_model_is_to_learn() -> None:
    """Two calls in a turn, a further question, no system message, one tool or both, and each kind of item."""
    seen: Counter[object] = Counter()
    for trace in generate_traces(240, 3, families=ALL):
        record, item = trace.to_dict(), trace.to_eval_item()
        roles = [message["role"] for message in record["messages"]]
        seen[f"{roles.count('user')} questions"] += 1
        seen[f"{max(len(message.get('tool_calls', ())) for message in record['messages'])} at once"] += 1
        seen["system" if roles[0] == "system" else "no system"] += 1
        seen[f"{len(record['tools'])} tools"] += 1
        seen[trace.family, item["grader"]["kind"], item["messages"][-1]["role"]] += 1
    assert seen == {name: count for name, count in seen.items() if count >= 10}
    assert set(seen) == {
        *("1 questions", "2 questions", "0 at once", "1 at once", "2 at once"),
        *("system", "no system", "1 tools", "2 tools"),
        ("small_talk", "tool_call", "user"),
        *((name, "tool_call", "user") for name in ("calculator", "unit_converter")),
        *((name, "contains", "tool") for name in ("calculator", "unit_converter")),
    }


@pytest.mark.parametrize("family", ALL)
def test_no_question_is_asked_in_two_conversations(family: str) -> None:
    """So that a later stretch of a sequence is held out, its further questions too."""
    count = min(capacity([family]), 2_000)
    asked: Counter[str] = Counter()
    for trace in generate_traces(count, 1, families=[family]):
        questions = [
            message["content"] for message in trace.to_dict()["messages"] if message["role"] == "user"
        ]
        pattern = CALCULATION if family == "calculator" else CONVERSION
        for question in questions:
            found = [found[0] for found in pattern.finditer(question)] or [question]
            asked.update(part for part in found if part != "Thank you.")
    wordings = CONVERSATION_FAMILIES[family].wordings
    problems = CONVERSATION_FAMILIES[family].problems("easy")
    assert max(asked.values()) <= -(-count // problems) <= wordings
    assert len(asked) >= min(count, problems)


def test_they_are_read_as_native_traces_and_nothing_is_lost() -> None:
    for trace in generate_traces(60, 8, families=ALL, difficulty="hard"):
        record = trace.to_dict()
        read = trace_from_json(trace.to_json())
        assert json.loads(trace_to_json(read)) == record
        assert record["metadata"]["family"] in ALL
        assert len({message.get("tool_call_id") for message in record["messages"]} - {None}) == sum(
            len(message.get("tool_calls", ())) for message in record["messages"]
        )


def test_items_of_a_later_stretch_ask_for_nothing_that_was_learned() -> None:
    learned = {trace.prompt for trace in generate_traces(400, 1, families=ALL)}
    items = [trace.to_eval_item() for trace in generate_traces(90, 1, families=ALL, start=400)]
    assert len({item["id"] for item in items}) == 90
    for item in items:
        assert learned.isdisjoint(turn["content"] for turn in item["messages"] if turn["role"] == "user")


def test_the_first_question_of_problems_and_conversations_alike_is_the_prompt() -> None:
    for trace in generate_traces(16, 2, families=["addition", *ALL]):
        record = trace.to_dict()
        if trace.family == "addition":
            assert record["prompt"] == trace.prompt
        else:
            for parameters in schemas(trace).values():
                Draft202012Validator.check_schema(parameters)
            assert set(record) == {"trace_version", "messages", "tools", "metadata", "source"}
            users = [turn["content"] for turn in record["messages"] if turn["role"] == "user"]
            assert users[0] == trace.prompt
            assert record["messages"][-1]["content"] == trace.final_answer
