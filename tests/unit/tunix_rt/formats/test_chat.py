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
from tunix_rt.formats.rows import paragraphs

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
        answered("\n<think>\nOne.\n\nAnd one.\n</think>\n\n2"),
        answered("<think>\r\n\r\nOne.\n\nAnd one.\r\n</think>\r\n2"),
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
            chat(ASSISTANT, USER),
            "messages[0].role: is assistant; a conversation begins with a message of the user's",
        ),
        (
            chat(USER, {"role": "tool", "content": "x"}, ASSISTANT),
            "messages[1].role: is tool, but the",
        ),
        (chat(USER, {"role": "bot", "content": "x"}), "messages[1].role: is 'bot'; system, developer, user,"),
        (chat(USER, {"content": "x"}), "messages[1].role: is missing"),
        (chat(USER, answered("<think>abc")), "messages[1].content: opens <think> and never closes it"),
        (chat(USER, answered("<think>a</think>b</think>c")), "messages[1].content: has </think> 2 times"),
        (chat(USER, answered("<think>a</think><think>c")), "opens <think> and never closes it"),
        (chat(USER, answered("Well. <think>a</think>b")), "messages[1].content: has text before <think>"),
        (
            chat(USER, answered("<think>a</think> ")),
            "messages[1].content: has no answer behind the reasoning",
        ),
        (chat(USER, ASSISTANT | {"content": "<think>b</think>2"}), "messages[1]: has its reasoning twice"),
        (chat(USER, ASSISTANT | {"thinking": "x"}), "has reasoning_content and thinking, which differ"),
        (chat(USER, ASSISTANT | {"reasoning_content": 5}), "messages[1].reasoning_content: is no string"),
        (chat(USER, ASSISTANT | {"content": None}), "messages[1].content: is missing"),
        (chat(USER | {"content": 5}, ASSISTANT), "messages[0].content: is no string and no list of texts"),
        (chat(USER | {"content": ""}, ASSISTANT), "messages[0].content: is empty"),
        (chat(USER | {"content": " "}, ASSISTANT), "messages[0].content: is white space alone"),
        (chat(USER, ASSISTANT | {"tool_calls": [{}]}), "messages[1].tool_calls[0].name: is missing"),
        (
            chat(USER | {"content": [{"type": "image_url", "image_url": "x"}]}, ASSISTANT),
            "messages[0].content[0]: is an image, and a trace holds text alone",
        ),
        (chat(SYSTEM, USER, ASSISTANT, system="Other."), "system: stands twice with different values"),
        (chat(USER, ASSISTANT, n=float("nan")), "metadata.n: is nan; numbers are finite"),
        (chat(USER, ASSISTANT | {"content": "a\0b"}), "final_answer: holds a NUL character"),
        (chat(USER | {"content": "x" * 50_001}, ASSISTANT), "messages[0].content: has 50,001 characters"),
        (chat(USER, answered("x" * 50_001, thinking="y")), "messages[1].content: has 50,001 characters"),
        (
            chat(USER, answered("2", thinking="x" * 500_001)),
            "messages[1].reasoning: has 500,001 characters without a blank line",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(row: Any, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(row)
    assert said in str(caught.value)
    assert caught.value.line == 1


UNLEARNED = [
    *(("weight", value) for value in (0.5, -1, 2, "1", [1])),
    ("mask", "x"),
    ("train_detail", [{"begin_offset": 0, "end_offset": 3, "train": False}]),
    # A name that is not known may mean either.
    *((key, value) for key in ("skip_loss", "lossWeight", "is-trained", "no_train") for value in (True, 0)),
]


MARKED_NO = [
    *(("weight", value) for value in (0, 0.0, False)),
    *((key, False) for key in ("train", "training", "trainable", "learn", "loss", "supervised")),
    *((key, 0) for key in ("loss_weight", "loss_scale", "loss_mask", "train_on_turn")),
    *(("mask", value) for value in (True, 1)),
    ("masked", True),
]


@pytest.mark.parametrize(("key", "value"), MARKED_NO)
def test_an_answer_that_is_not_to_be_learned_is_marked_so(key: str, value: Any) -> None:
    for assistant in (ASSISTANT | {key: value}, {"from": "gpt", "value": "<think>a</think>b", key: value}):
        trace = read(chat(SYSTEM, USER, assistant))
        assert [message.train for message in trace.messages] == [0, 0, v1.Message.TRAIN_NO]
        assert not trace.metadata.fields


@pytest.mark.parametrize(("key", "value"), UNLEARNED)
def test_an_answer_that_is_not_to_be_learned_is_refused_by_name(key: str, value: Any) -> None:
    for assistant in (ASSISTANT | {key: value}, {"from": "gpt", "value": "<think>a</think>b", key: value}):
        with pytest.raises(FormatError, match="but the answer of a trace is learned whole") as caught:
            read(chat(SYSTEM, USER, assistant))
        assert (caught.value.line, caught.value.field_violations[0].field) == (1, f"messages[2].{key}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("weight", 0),
            ("weight", -1),
            ("train", False),
            ("train", 0),
            ("trainable", 0),
            ("loss_weight", 0),
        ),
        *(("loss", False), ("masked", True), ("masked", 1)),
    ],
)
def test_a_line_that_is_not_to_be_learned_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(FormatError, match=f"{key}: is {value!r}, but the answer"):
        read(chat(USER, ASSISTANT, **{key: value}))


def test_what_says_that_an_answer_is_learned_is_kept_as_a_fact() -> None:
    said = {"weight": 1, "train": True, "mask": False, "loss_scale": 1.0, "training": None, "reweighed": 7}
    kept = {key: value for key, value in said.items() if value is not None}
    trace = read(chat(USER, ASSISTANT | said, weight=2.5, loss=0.0))
    assert dict(trace.metadata) == {"message_fields": {"assistant": kept}, "weight": 2.5, "loss": 0.0}


def test_nothing_is_learned_of_a_question_whatever_stands_beside_it() -> None:
    assert read(chat(SYSTEM | {"train": False}, USER | {"weight": 0}, ASSISTANT)).final_answer == "2"


MAKEFILE = "all:\n\tcc -o a a.c\n\n\t./a"
PYTHON = "def f(x):\n    y = x\n\n    return y"
FENCED = "```python\nimport os\n\nprint(os)\n```"


@pytest.mark.parametrize(
    "text", [MAKEFILE, PYTHON, FENCED, "a\n\n\nb", "a\r\n\r\nb", "a\u2028\u2028b", "~~~\na\n\nb\n~~~"]
)
def test_what_an_empty_line_does_not_part_is_one_step(text: str) -> None:
    assert paragraphs(text) == [text]
    assert paragraphs(f"Before.\n\n{text}\n\nAfter.") == ["Before.", text, "After."]


def test_a_fence_that_is_never_closed_holds_nothing_together() -> None:
    assert paragraphs("``` opens\n\na\n\nb") == ["``` opens", "a", "b"]
    assert paragraphs("````\na\n\n```\n\nb\n````\n\nc") == ["````\na\n\n```\n\nb\n````", "c"]
    assert paragraphs("```a``` b\n\nc") == ["```a``` b", "c"]


def test_an_answer_keeps_its_indentation() -> None:
    assert read(chat(USER, answered(f"<think>\n{PYTHON}\n</think>\n\n    return 1\n"))) == read(
        chat(USER, answered("    return 1\n", reasoning=PYTHON))
    )
    trace = read(chat(USER, answered(" \t2\x0b", reasoning="\n a \n")))
    assert ([step.content for step in trace.steps], trace.final_answer) == (["\n a \n"], " \t2\x0b")


# Every character that some program takes for white space or the end of a line, often, and all others.
SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u2029\u3000"
TEXTS = st.text(
    st.sampled_from(SPACES)
    | st.sampled_from("a`~<>#")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=60,
)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=6))
def test_no_byte_is_lost_between_paragraphs(texts: list[str]) -> None:
    text = "\n\n".join(texts)
    assert "\n\n".join(paragraphs(text)) == text
    assert all(paragraphs(text))


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.booleans())
def test_texts_are_kept_to_the_byte(prompt: str, reasoning: str, answer: str, marked: bool) -> None:
    texts = [text if text.strip() else f"{text}x" for text in (prompt, reasoning, answer)]
    texts = [text.replace("think", "") for text in texts]
    prompt, reasoning, answer = texts
    assistant = answered(answer, thinking=reasoning)
    if marked:
        # Line breaks that touch a mark are the mark's.
        reasoning, answer = reasoning.strip("\r\n"), answer.lstrip("\r\n")
        assistant = answered(f"<think>\n{reasoning}\n</think>\n\n{answer}")
    trace = read(chat(USER | {"content": prompt}, assistant))
    steps = "\n\n".join(step.content for step in trace.steps)
    assert (trace.prompt, steps, trace.final_answer) == (prompt, reasoning, answer)


@settings(deadline=None)
@given(st.integers(1, 3500))
def test_paragraphs_are_never_more_than_a_trace_has_room_for(count: int) -> None:
    parts = paragraphs("\n\n".join(str(number) for number in range(count)))
    assert len(parts) <= 1000
    assert "\n\n".join(parts).split("\n\n") == [str(number) for number in range(count)]
