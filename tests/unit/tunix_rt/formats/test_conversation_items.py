"""Eval items that are conversations, and the calls that the grader `tool_call` expects."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.conversations import ADD, adding, call, conversation, turn
from support.traces import trace
from tunix_rt import v1
from tunix_rt.errors import FieldViolation, FormatError, InvalidArgumentError
from tunix_rt.formats import (
    ItemReading,
    Lossy,
    error_of_lines,
    eval_item_to_json,
    eval_items_from_traces,
    read_eval_items,
    read_grader,
    read_grader_text,
)
from tunix_rt.formats.grading import written

EXAMPLE: Final = Path(__file__).parents[4] / "examples" / "eval_sets" / "tool_calls.jsonl"
BIG: Final = 2**53 + 1
ASK: Final[dict[str, Any]] = {"role": "user", "content": "What is 2 + 3?"}
RESULT: Final[dict[str, Any]] = {"role": "tool", "tool_call_id": "c1", "content": "5"}
ITEM: Final[dict[str, Any]] = {"id": "a", "accepted_answers": ["5"], "grader": "numeric"}


def calling(arguments: Any = '{"b": 3,  "a": 2}', call_id: str = "c1") -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    return {"role": "assistant", "content": None,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}]}  # fmt: skip


def read(*rows: dict[str, Any] | str) -> list[v1.EvalItem]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return read_eval_items(io.BytesIO("\n".join(lines).encode()))


def refusal(*rows: dict[str, Any] | str) -> str:
    with pytest.raises(FormatError) as caught:
        read(*rows)
    return str(caught.value)


TEXTS: Final = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), max_size=12)
SAID: Final = TEXTS.filter(lambda text: bool(text.strip()))
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "Infinity" not in json.dumps(value))
OBJECTS: Final = st.dictionaries(TEXTS, JSON, max_size=3)
WRITTEN: Final = OBJECTS.map(json.dumps)
ANSWERS: Final = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": SAID}, optional={"reasoning_content": SAID}
)
ASKED: Final = st.fixed_dictionaries(
    {"role": st.just("user"), "content": SAID | st.lists(SAID, min_size=1, max_size=3)}
)
TOOLS: Final = st.dictionaries(SAID, OBJECTS, max_size=3).map(
    lambda named: [
        {"type": "function", "function": {"name": name, "parameters": parameters}}
        for name, parameters in named.items()
    ]
)


@given(st.lists(st.tuples(ASKED, ANSWERS | WRITTEN), max_size=3), ASKED, TOOLS, WRITTEN, OBJECTS)
def test_a_line_becomes_an_item_and_the_item_the_same_line_again(
    history: list[Any], asked: dict[str, Any], tools: list[Any], text: str, arguments: dict[str, Any]
) -> None:
    messages: list[Any] = []
    for place, (question, answer) in enumerate(history):
        made = [answer] if isinstance(answer, dict) else [calling(answer, f"c{place}")]
        result = [] if isinstance(answer, dict) else [RESULT | {"tool_call_id": f"c{place}"}]
        messages += [question, *made, *result]
    calls = [{"name": "f", "arguments_text": text}, {"name": "g", "arguments": arguments}]
    offered = [json.dumps(tool, indent=1) if place else tool for place, tool in enumerate(tools)]
    grader = {"kind": "tool_call", "calls": calls}
    (item,) = read({"id": "i", "messages": [*messages, asked], "tools": offered, "grader": grader})
    (again,) = read(eval_item_to_json(item))
    assert again == item
    shown = json.loads(eval_item_to_json(item))
    assert [one["role"] for one in shown["messages"]] == [one["role"] for one in [*messages, asked]]
    assert [one["tool_calls"][0]["arguments"] for one in shown["messages"] if "tool_calls" in one] == [
        answer for _, answer in history if isinstance(answer, str)
    ]
    # Objects keep the order of their keys, texts every character.
    assert [tool.definition_text for tool in item.tools] == [
        tool if isinstance(tool, str) else json.dumps(tool, ensure_ascii=False, separators=(",", ":"))
        for tool in offered
    ]
    first, second = item.grader.tool_call.calls
    assert first.arguments_text == text
    if second.HasField("arguments"):
        assert written(item.grader)["calls"][1]["arguments"] == arguments
    else:
        assert json.loads(second.arguments_text) == arguments


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ('{"a": 9007199254740991, "b": 0.1, "c": [1, 2.50, -0.0, true, null]}', None),
        ("{}", None),
        ('{"z": 9007199254740992,"a": "\u00e4"}', '{"z":9007199254740992,"a":"\u00e4"}'),
        ('{"a": {"b": [-9007199254740993]}}', '{"a":{"b":[-9007199254740993]}}'),
        ('{"a": 0.1234567890123456789}', '{"a":0.1234567890123456789}'),
        ('{"a": 1e400}', None),
        ('{"a": 1e22, "b": 1.10}', '{"a":1e+22,"b":1.1}'),
    ],
)
def test_no_digit_of_an_expected_argument_is_lost(arguments: str, kept: str | None) -> None:
    text = f'{{"kind": "tool_call", "calls": [{{"name": "f", "arguments": {arguments}}}]}}'
    line = f'{{"id": "a", "prompt": "q", "grader": {text}}}'
    if "e400" in arguments:
        assert "1e400: is a number beyond 1.8e308" in refusal(line)
        return
    grader = read_grader_text(text)
    (expected,) = grader.tool_call.calls
    assert (expected.arguments_text or None) == kept
    if kept is None:
        assert dict(written(grader)["calls"][0]["arguments"]) == json.loads(arguments)
    # From a line, from a cell of a table, and back from what is written.
    table = io.BytesIO(f'prompt,grader\nq,"{text.replace(chr(34), chr(34) * 2)}"\n'.encode())
    (of_line,), (of_cell,) = read(line), read_eval_items(table, ItemReading("csv"))
    assert of_line.grader == of_cell.grader == read_grader(written(grader)) == grader


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([{"name": "f"}], "calls[0]: has no arguments; one of arguments, arguments_text, arguments_schema"),
        ([{"name": "f", "arguments": {}, "arguments_schema": {}}], "has arguments and arguments_schema"),
        ([{"name": "", "arguments": {}}], "calls[0].name: is empty"),
        ([{"name": "f", "argument": {}}], "calls[0].argument: unknown key; did you mean 'arguments'?"),
        ([{"name": "f", "arguments": [1]}], "calls[0].arguments: is '[1]'; a JSON object"),
        ([{"name": "f", "arguments": {"a": float("nan")}}], "calls[0].arguments: is '{\"a\":NaN}'; a JSON"),
        ([{"name": "f", "arguments_schema": {"const": BIG}}], f"calls[0].arguments_schema.const: is {BIG}"),
        ({"name": "f"}, "calls: is {'name': 'f'} (an object); expected list"),
    ],
)
def test_a_wrong_expected_call_is_named(calls: Any, said: str) -> None:
    with pytest.raises(ValueError, match="calls") as caught:
        read_grader({"kind": "tool_call", "calls": calls})
    assert said in str(caught.value)


def test_the_example_holds_every_kind_of_expectation() -> None:
    items = read_eval_items(str(EXAMPLE))
    assert [item.grader.WhichOneof("kind") for item in items] == ["tool_call"] * 4 + ["numeric"]
    assert read(*map(eval_item_to_json, items)) == items


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": [ASK], "prompt": "q"}, "prompt: is given beside messages"),
        ({}, "prompt: is missing; a prompt, or messages, would be right"),
        ({"prompt": "q", "tools": [ADD]}, "tools: are given without messages"),
        ({"messages": []}, "messages: is empty"),
        ({"messages": [ASK | {"weight": 1}]}, "messages[0].weight: is given, and nothing of an eval item is"),
        ({"messages": [ASK, calling() | {"train": False}, RESULT]}, "messages[1].train: is given, and"),
        ({"messages": [ASK, {"role": "assistant", "content": "5"}]}, "messages[1].role: is assistant; the"),
        ({"messages": [ASK, calling()]}, "messages[1].tool_calls[0]: is a call 'c1' without a result"),
        ({"messages": [ASK, calling("{"), RESULT]}, "tool_calls[0].function.arguments: is '{', which is no"),
        ({"messages": [ASK, RESULT]}, "messages[1].role: is tool, but the assistant's message before it"),
        (
            {"messages": [ASK | {"tool_calls": calling()["tool_calls"]}]},
            "messages[0].tool_calls: is given in",
        ),
        ({"messages": [ASK | {"mood": "good"}]}, "messages[0].mood: is nothing that a message of an eval"),
        ({"messages": [ASK | {"content": [{"type": "image_url"}]}]}, "messages[0].content[0]: is an image"),
        ({"messages": [{"role": "system", "content": "s"}]}, "messages: has no user turn; an eval item"),
        ({"messages": [ASK], "tools": [{"type": "web_search"}]}, "kept whole, as an eval item is: 1 tool of"),
        ({"messages": [ASK], "tools": [ADD, ADD]}, "tools[1].name: is 'add', which tools[0] is already"),
    ],
)
def test_a_wrong_conversation_is_named_by_line_and_field(fields: dict[str, Any], said: str) -> None:
    told = refusal(ITEM | {"id": "before", "prompt": "before"}, ITEM | fields)
    assert told.startswith("line 2: ")
    assert said in told
    assert "--" not in told


def test_a_conversation_stands_once_however_its_texts_are_cut() -> None:
    parts = ASK | {"content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?"}]}
    rows = [ITEM | {"messages": [ASK]}, ITEM | {"id": "b", "messages": [ASK], "tools": [ADD]}]
    assert len(read(*rows)) == 2
    assert "line 3: messages: is the same as on line 1" in refusal(
        *rows, ITEM | {"id": "c", "messages": [parts]}
    )


def test_what_the_service_says_of_a_message_names_its_line() -> None:
    wrong = "eval_set.items[1].messages[1].tool_calls[0].arguments_text"
    error = InvalidArgumentError("no", field_violations=[FieldViolation(wrong, "is too deep")])
    told = str(error_of_lines(error, "f.jsonl", [3, 7]))
    assert told == "f.jsonl, line 7: messages[1].tool_calls[0].arguments_text: is too deep"


def test_a_conversation_asks_for_its_last_answer() -> None:
    calls = [call("add", f'{{"b": {BIG}, "a": 2}}', "c1"), call("add", '{"a": 1}', "c2")]
    called = conversation(
        turn("user", "Add."),
        turn("assistant", "Hello", train=v1.Message.TRAIN_YES),
        turn("user", "Go on."),
        turn("assistant", "I add.", tool_calls=calls),
        turn("tool", "5", tool_call_id="c1"),
        turn("tool", "6", tool_call_id="c2"),
        tools=[ADD],
        metadata={"family": "sums"},
    )
    made, answered, plain = eval_items_from_traces(
        [called, adding(answer="5"), called, trace(1)], grader="auto"
    )
    assert [turn.train for turn in made.messages] == [v1.Message.TRAIN_UNSPECIFIED] * 3
    assert (made.category, list(made.accepted_answers), list(made.tools)) == ("sums", [], list(called.tools))
    assert [(wanted.name, wanted.arguments_text) for wanted in made.grader.tool_call.calls] == [
        (one.name, one.arguments_text) for one in calls
    ]
    assert (answered.messages[-1].role, list(answered.accepted_answers)) == (v1.Message.ROLE_TOOL, ["5"])
    assert [one.grader.WhichOneof("kind") for one in (answered, plain)] == ["numeric", "numeric"]
    # The id is that of the question alone, and what is made can be read again.
    (other,) = eval_items_from_traces([adding(answer="It is 5.")], grader="text")
    assert other.id == answered.id != made.id
    assert read(*map(eval_item_to_json, (made, answered, plain))) == [made, answered, plain]


def test_a_conversation_that_makes_no_item_is_told() -> None:
    odd = [
        conversation(turn("user", "q"), turn("assistant", "a"), turn("assistant", "b")),
        conversation(turn("user", "q"), turn("assistant", tool_calls=[call("f", '{"a": 1, "a": 2}')])),
        conversation(turn("user", "q"), turn("assistant", tool_calls=[call("f", "not JSON")])),
        conversation(turn("user", "q"), turn("assistant", "x" * 50_001)),
        conversation(turn("user", "q"), turn("assistant", tool_calls=[call("f", "{}")]), tools=[ADD]),
    ]
    left_out = Lossy()
    (item,) = eval_items_from_traces([*odd, adding(), adding()], None, "text", left_out)
    assert item.messages
    assert left_out.counts == {
        "conversations left out: a call has a key twice in its arguments": 1,
        "conversations left out: a call is of a tool that was not offered": 1,
        "conversations left out: a call's arguments are no JSON object of at most 50,000 characters": 1,
        "conversations left out: the last answer is longer than 50,000 characters, or empty": 1,
        "conversations left out: the turn before the last answer is no user's and no tool's": 1,
        "traces left out: their questions were there already": 1,
    }
