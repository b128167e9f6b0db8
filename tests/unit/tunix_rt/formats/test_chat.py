"""Chats as traces."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunix_rt import v1
from tunix_rt.formats import FormatError, read_traces
from tunix_rt.formats.chat import paragraphs

USER: dict[str, Any] = {"role": "user", "content": "What is 1 + 1?"}
ASSISTANT: dict[str, Any] = {"role": "assistant", "reasoning_content": "One.\n\nAnd one.", "content": "2"}
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be brief."}


def read(row: Any) -> v1.Trace:
    (trace,) = read_traces(BytesIO(json.dumps(row).encode()))
    return trace


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **fields}


def contents(trace: v1.Trace) -> list[tuple[int, str, str]]:
    return [(step.i, step.type, step.content) for step in trace.steps]


def answered(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def test_paragraphs_of_the_reasoning_become_steps() -> None:
    trace = read(chat(USER, ASSISTANT))
    assert (trace.trace_version, trace.prompt, trace.final_answer) == ("1.0", "What is 1 + 1?", "2")
    assert contents(trace) == [(0, "reason", "One."), (1, "reason", "And one.")]
    assert not trace.metadata.fields


@pytest.mark.parametrize(
    "assistant",
    [
        answered("<think>One.\n\nAnd one.</think>2"),
        answered("\n<think>\nOne.\n \nAnd one.\n</think>\n\n2\n"),
        # The chat template of some models opens the reasoning, so that the answer only closes it.
        answered("One.\n\nAnd one.\n</think>\n2"),
        answered("2", reasoning="One.\n\nAnd one."),
        answered("2", thinking="One.\n\nAnd one.", reasoning_content=None),
        answered("<think></think>2", reasoning_content="One.\n\nAnd one."),
        answered(
            [{"type": "text", "text": "<think>One.\n\nAnd "}, {"type": "text", "text": "one.</think>2"}]
        ),
        {"from": "gpt", "value": "<think>One.\n\nAnd one.</think>2"},
    ],
)
def test_every_way_of_writing_the_reasoning_is_the_same_trace(assistant: Any) -> None:
    assert read(chat(USER, assistant)) == read(chat(USER, ASSISTANT))


def test_sharegpt_conversations_are_chats() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "What is 1 + 1?"},
            {"from": "gpt", "value": "<think>One.\n\nAnd one.</think>2"},
        ]
    }
    assert read(row) == read(chat(USER, ASSISTANT))


def test_the_system_message_and_what_else_is_on_the_line_become_metadata() -> None:
    trace = read(
        chat(
            SYSTEM,
            USER | {"name": "ann"},
            ASSISTANT | {"tool_calls": None, "annotations": [], "info": {"score": 1.5}},
            id="x",
            correct=True,
            nothing=None,
            source="open",
            metadata={"reference_answer": "2"},
        )
    )
    assert trace.source == "open"
    assert dict(trace.metadata) == {
        "reference_answer": "2",
        "system": "Be brief.",
        "id": "x",
        "correct": True,
        "message_fields": {"user": {"name": "ann"}, "assistant": {"info": {"score": 1.5}}},
    }


def test_a_source_that_is_too_long_for_the_field_is_kept_in_the_metadata() -> None:
    trace = read(chat(USER, ASSISTANT, source="x" * 65))
    assert (trace.source, trace.metadata["source"]) == ("", "x" * 65)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (chat(), "messages: needs at least 1"),
        (chat(USER), "messages: has no assistant turn"),
        (chat(SYSTEM, ASSISTANT), "messages: has no user turn"),
        (
            chat(USER, ASSISTANT, USER, ASSISTANT),
            "messages: has 2 assistant turns; a trace holds one question",
        ),
        (chat(USER, USER, ASSISTANT), "messages: has the turns user, user, assistant; expected system"),
        (chat(ASSISTANT, USER), "messages: has the turns assistant, user; expected system"),
        (chat(USER, {"role": "tool", "content": "x"}), "messages[1].role: is 'tool'; a trace is made of"),
        (chat(USER, {"content": "x"}), "messages[1].role: is missing"),
        (chat(USER, answered("<think>abc")), "messages[1].content: opens <think> and never closes it"),
        (chat(USER, answered("<think>a</think>b</think>c")), "messages[1].content: has </think> 2 times"),
        (chat(USER, answered("<think>a</think><think>c")), "opens <think> and never closes it"),
        (chat(USER, answered("Well. <think>a</think>b")), "messages[1].content: has text before <think>"),
        (chat(USER, answered("2")), "messages[1]: has no reasoning: neither reasoning_content nor"),
        (chat(USER, answered("<think> </think>2")), "messages[1]: has no reasoning"),
        (
            chat(USER, answered("<think>a</think> ")),
            "messages[1].content: has no answer behind the reasoning",
        ),
        (chat(USER, ASSISTANT | {"content": "<think>b</think>2"}), "messages[1]: has its reasoning twice"),
        (chat(USER, ASSISTANT | {"thinking": "x"}), "has reasoning_content and thinking, which differ"),
        (chat(USER, ASSISTANT | {"reasoning_content": 5}), "messages[1].reasoning_content: is no string"),
        (chat(USER, ASSISTANT | {"content": None}), "messages[1].content: is missing"),
        (chat(USER | {"content": 5}, ASSISTANT), "messages[0].content: is no string and no list of texts"),
        (chat(USER | {"content": " "}, ASSISTANT), "messages[0].content: is empty"),
        (chat(USER, ASSISTANT | {"tool_calls": [{}]}), "messages[1].tool_calls: cannot be kept in a trace"),
        (
            chat(USER | {"content": [{"type": "image_url", "image_url": "x"}]}, ASSISTANT),
            "messages[0].content[0]: is no text",
        ),
        (chat(SYSTEM, USER, ASSISTANT, system="Other."), "system: stands twice with different values"),
        (chat(USER, ASSISTANT, n=float("nan")), "metadata.n: is nan; numbers are finite"),
        (chat(USER, ASSISTANT | {"content": "a\0b"}), "final_answer: holds a NUL character"),
        (chat(USER | {"content": "x" * 50_001}, ASSISTANT), "messages[0].content: has 50,001 characters"),
        (chat(USER, answered("x" * 50_001, thinking="y")), "messages[1].content: has 50,001 characters"),
        (
            chat(USER, answered("2", thinking="x" * 20_001)),
            "messages[1].reasoning: has 20,001 characters without a blank line",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(row: Any, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(row)
    assert said in str(caught.value)
    assert caught.value.line == 1


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_no_text_is_lost_between_paragraphs(texts: list[str]) -> None:
    text = "\n\n".join(texts)
    assert "".join("".join(paragraphs(text)).split()) == "".join(text.split())
    assert all(part.strip() for part in paragraphs(text))


@settings(deadline=None)
@given(st.integers(1, 3500))
def test_paragraphs_are_never_more_than_a_trace_has_room_for(count: int) -> None:
    parts = paragraphs("\n\n".join(str(number) for number in range(count)))
    assert len(parts) <= 1000
    assert " ".join(parts).split() == [str(number) for number in range(count)]
