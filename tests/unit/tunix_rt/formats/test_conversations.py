"""Conversations as lines of JSON: nothing is lost on the way, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.conversations import ADD, adding, call, conversation, turn
from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats import read_traces, trace_from_json, trace_to_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
CALLS = st.builds(
    lambda name, text, call_id: v1.ToolCall(name=name or "f", arguments_text=text or "{}", id=call_id),
    TEXTS,
    TEXTS,
    TEXTS,
)
MESSAGES = st.builds(
    lambda role, texts, reasoning, calls, call_id, name, train: v1.Message(
        role=role,
        content=[v1.ContentPart(text=text) for text in texts],
        reasoning=reasoning,
        tool_calls=calls,
        tool_call_id=call_id,
        name=name,
        train=train,
    ),
    st.integers(1, 5),
    st.lists(TEXTS, max_size=3),
    TEXTS,
    st.lists(CALLS, max_size=2),
    TEXTS,
    TEXTS,
    st.integers(0, 2),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(MESSAGES, min_size=1, max_size=5),
    st.lists(st.dictionaries(TEXTS, JSON, max_size=3), max_size=3),
    st.lists(TEXTS, max_size=2),
)
def test_a_conversation_is_the_same_after_a_line_of_json(
    messages: list[v1.Message], tools: list[dict[str, Any]], texts: list[str]
) -> None:
    made = conversation(*messages, tools=tools, source="s", metadata={"k": 1})
    made.tools.extend(v1.Tool(definition_text=text) for text in texts)
    assert trace_from_json(trace_to_json(made)) == made


def test_a_conversation_reads_as_people_write_it(tmp_path: Any) -> None:
    line = trace_to_json(adding())
    document = json.loads(line)
    assert [message["role"] for message in document["messages"]][:2] == ["system", "user"]
    assert document["messages"][2]["tool_calls"] == [
        {"id": "c1", "name": "add", "arguments": '{"b": 3, "a": 2}'}
    ]
    document["tools"] = [ADD]
    document["messages"][2]["tool_calls"][0]["arguments"] = {"b": 3, "a": 2}
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps(document) + "\n")
    (read,) = read_traces(str(file))
    assert read.messages[2].tool_calls[0].arguments_text == '{"b":3,"a":2}'
    assert json.loads(read.tools[0].definition_text) == ADD


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "weight": 1}]}, "messages[0].weight"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"prompt": "x"}, "prompt: is given beside messages; a trace has one of the two"),
        ({"tools": [1]}, "tools[0]"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content: holds a NUL"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_named(change: dict[str, Any], said: str) -> None:
    document = json.loads(trace_to_json(conversation(turn("user", "x"), turn("assistant", "y")))) | change
    with pytest.raises(FormatError) as caught:
        trace_from_json(json.dumps(document))
    assert said in str(caught.value)


def test_parts_and_calls_stay_apart() -> None:
    made = conversation(
        turn("user", "a", "", "b"),
        turn("assistant", "", tool_calls=[call("f", "{ }")]),
        turn("tool"),
        turn("assistant", "x", train=v1.Message.TRAIN_NO),
    )
    assert trace_from_json(trace_to_json(made)) == made
