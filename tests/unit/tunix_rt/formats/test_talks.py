"""Lines of several turns, tools and logs as conversations: what is kept, counted, and refused by name."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats import Lossy, read_records, read_traces

USER: dict[str, Any] = {"role": "user", "content": "Add 2 and 3."}
DONE: dict[str, Any] = {"role": "assistant", "content": "5"}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "x"}}


def called(arguments: Any = "{}", call_id: str = "c1", **fields: Any) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": "add", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **fields}


def result(call_id: str = "c1", content: Any = "5") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def read(row: Any, lossy: Lossy | None = None, **options: Any) -> v1.Trace:
    (trace,) = read_traces(BytesIO(json.dumps(row).encode()), lossy=lossy, **options)
    return trace


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **fields}


def said(trace: v1.Trace) -> list[tuple[str, str]]:
    return [
        (v1.Message.Role.Name(message.role)[5:].lower(), "|".join(part.text for part in message.content))
        for message in trace.messages
    ]


def refusal(row: Any, **options: Any) -> str:
    (record,) = read_records(BytesIO(json.dumps(row).encode()), **options)
    assert record.error is not None, record.trace
    return str(record.error)


@pytest.mark.parametrize("text", ['{"b": 1, "a": 12345678901234567890}', '{ "x" : "\\u00e9" }', "{}"])
def test_arguments_are_kept_to_the_character(text: str) -> None:
    trace = read(chat(USER, called(text), result(), DONE))
    assert trace.messages[1].tool_calls[0].arguments_text == text


def test_arguments_that_are_no_object_are_kept_and_counted_or_refused() -> None:
    lossy = Lossy()
    row = chat(USER, called("add(2, 3)"), result(), DONE)
    trace = read(row, lossy)
    assert trace.messages[1].tool_calls[0].arguments_text == "add(2, 3)"
    assert lossy.lines() == ["1 call whose arguments are no JSON object, kept as text"]
    assert "messages[1].tool_calls[0].function.arguments: is 'add(2, 3)'" in refusal(
        row, bad_arguments="refuse"
    )


def test_media_is_refused_or_left_out_and_counted() -> None:
    lossy = Lossy()
    row = chat(USER | {"content": [{"type": "text", "text": "Look."}, IMAGE, IMAGE]}, DONE)
    assert said(read(row, lossy, media="leave-out")) == [("user", "Look."), ("assistant", "5")]
    assert lossy.lines() == ["2 images left out"]
    assert "messages[0].content[1]: is an image" in refusal(row)
    assert "holds no text beside what is left out" in refusal(
        chat(USER | {"content": [IMAGE]}, DONE), media="leave-out"
    )
    assert "is an audio clip" in refusal(chat(USER | {"audio": {"id": "a"}}, DONE))


def test_media_beside_the_messages_is_refused_or_left_out_and_counted() -> None:
    lossy = Lossy()
    row = {"conversations": [{"from": "human", "value": "<image>Look."}, {"from": "gpt", "value": "A cat."}]}
    assert "images: holds media, and a trace" in refusal(row | {"images": ["a.png", "b.png"]})
    for field in ({"images": ["a.png", "b.png"]}, {"image": "a.png"}):
        assert not read(row | field, lossy, media="leave-out").metadata.fields
    assert lossy.lines() == ["3 images left out"]
    assert read(chat(USER, DONE, image="a fact")).metadata["image"] == "a fact"


def test_the_free_text_of_a_custom_tools_call_becomes_an_argument() -> None:
    lossy = Lossy()
    call = {"type": "custom", "id": "c1", "custom": {"name": "patch", "input": "*** Begin"}}
    trace = read(chat(USER, {"role": "assistant", "tool_calls": [call]}), lossy)
    assert trace.messages[1].tool_calls[0].arguments_text == '{"input":"*** Begin"}'
    assert lossy.lines() == ["1 free text of a call kept as its argument input"]


def test_nothing_is_counted_of_a_line_that_is_refused() -> None:
    lossy = Lossy()
    row = chat(USER | {"content": ["x", IMAGE]}, {"role": "bot", "content": "y"})
    refusal(row, lossy=lossy, media="leave-out")
    assert lossy.counts == {}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (chat(), "messages: needs at least 1"),
        (chat(USER), "messages: has no assistant turn"),
        (chat(USER, {"role": "critic", "content": "x"}, DONE), "messages[1].role: is 'critic'; system"),
        (chat(USER, result(), DONE), "messages[1].role: is tool, but the assistant's"),
        (chat(USER, called(), result("c2"), DONE), "messages[2].tool_call_id: is 'c2', which is"),
        (chat(USER, called(), result(), result(), DONE), "messages[3].tool_call_id: is 'c1', which is"),
        (chat(USER, called(), result(), called(), result()), "messages[3].tool_calls[0].id: is 'c1'"),
        (chat(USER, called(), DONE), "messages[1].tool_calls[0]: is a call 'c1' without a result"),
        (chat(USER, DONE, {"role": "system", "content": "x"}), "messages[2].role: is system; such messages"),
        (chat(USER, *[DONE] * 1000), "messages: has 1,001 messages; at most 1,000"),
        (chat(USER, "x"), "messages[1]: is no object"),
        (chat(USER, called({"a": 1}, "c" * 300), DONE), "messages[1].tool_calls[0].id: has 300 characters"),
        (chat(USER, DONE, USER | {"content": "x" * 500_001}), "messages[2].content: has 500,001 characters"),
        (chat(USER, DONE, tools=[{"name": 5}]), "tools[0].name: is 5; a text would be right"),
        (chat(USER, DONE, tools=[{"name": "f"}, {"name": "f"}]), "tools[1].name: is 'f', which tools[0] is"),
        (chat(USER, DONE, tools="[{"), "tools: is '[{', which is no JSON"),
        (chat(USER, DONE, tools=[{"name": "f", "parameters": []}]), "tools[0].parameters: is []"),
        (chat(USER, DONE | {"weight": 0.5}), "messages[1].weight: is 0.5; 0 or 1"),
        (chat(USER, DONE, train=False), "train: is False, so that nothing of the line"),
        (chat({"role": "system", "content": "a"}, USER, DONE, system="b"), "system: stands twice"),
        (chat(USER, DONE | {"content": [{"type": "hologram"}]}), "messages[1].content[0]: is no text, but"),
        ({"conversations": [{"from": "bing", "value": "x"}]}, "conversations[0].from: is 'bing'"),
        ({"conversations": []}, "conversations: needs at least 1"),
        (
            {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "f(1)"}]},
            "conversations[1].value: is no JSON",
        ),
        ({"instruction": "x", "output": 5}, "output: is no string"),
        ({"instruction": "x", "output": ""}, "output: is empty"),
        ({"instruction": "x", "output": "y", "history": [["a"]]}, "history[0]: is no pair"),
        ({"request": {"messages": [USER]}, "response": {"error": "x"}}, "response.error: is there"),
        ({"request": {"messages": [USER]}, "response": {"status_code": 429, "body": {}}}, "has status 429"),
        ({"request": {"model": "m"}, "response": {"choices": []}}, "request: has no messages and no input"),
        ({"custom_id": "1", "response": {"body": {"choices": []}}}, "is a response without its request"),
        (
            {"request": {"messages": [USER]}, "response": {"choices": [{"delta": {"content": "x"}}]}},
            "response.choices[0].delta: is a part of a streamed response",
        ),
        (
            {"request": {"messages": [USER, {"role": "x", "content": ""}]}, "response": "yes"},
            "request.messages[1].role: is 'x'",
        ),
    ],
)
def test_bad_input_is_named_with_line_and_field(row: Any, problem: str) -> None:
    assert f"line 1: {problem}" in refusal(row) or problem in refusal(row)


def test_results_stand_in_the_order_of_their_calls() -> None:
    """Most templates write no ids: there the order alone says which call a result is of."""
    both = called() | {"tool_calls": [*called()["tool_calls"], *called(call_id="c2")["tool_calls"]]}
    late = result("c1", "first") | {"took": 9}
    trace = read(chat(USER, both, result("c2", "second"), late, DONE))
    assert said(trace)[2:] == [("tool", "first"), ("tool", "second"), ("assistant", "5")]
    assert [message.tool_call_id for message in trace.messages[2:4]] == ["c1", "c2"]
    assert dict(trace.metadata["message_fields"]) == {"2": {"took": 9}}


def test_calls_at_the_end_may_have_no_result() -> None:
    trace = read(chat(USER, called()))
    assert trace.messages[-1].tool_calls[0].name == "add"


def test_hermes_writes_calls_and_results_into_texts() -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": %d}}\n</tool_call>'
    row = {
        "conversations": [
            {"from": "human", "value": "Add."},
            {"from": "gpt", "value": f"I add.\n{call % 1}\n{call % 2}"},
            {
                "from": "tool",
                "value": "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>",
            },
            {"from": "gpt", "value": "3"},
        ]
    }
    trace = read(row)
    assert said(trace) == [
        ("user", "Add."),
        ("assistant", "I add."),
        *[("tool", n) for n in "12"],
        ("assistant", "3"),
    ]
    assert [made.arguments_text for made in trace.messages[1].tool_calls] == ['{"a":1}', '{"a":2}']


def test_anthropics_results_stand_before_the_text_beside_them() -> None:
    row = chat(
        USER,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t"}, {"type": "text", "text": "?"}],
        },
        {
            "role": "assistant",
            "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "!"}],
        },
    )
    lossy = Lossy()
    assert said(read(row, lossy))[2:] == [("tool", ""), ("user", "?"), ("assistant", "!")]
    assert lossy.lines() == ["1 redacted thought left out"]


def test_a_log_may_hold_its_halves_as_text_and_in_bodies() -> None:
    response = {"choices": [{"message": {"content": "5"}}, {"message": {"content": "6"}}]}
    lossy = Lossy()
    expected = [("user", "Add 2 and 3."), ("assistant", "5")]
    for row in (
        {"request": json.dumps({"messages": [USER]}), "response": json.dumps(response)},
        {"body": {"messages": [USER]}, "response": {"status_code": 200, "body": response}},
        chat(USER, **response),
        {"request": {"messages": [USER]}, "response": "5"},
        {
            "model": "m",
            "input": "Add 2 and 3.",
            "output": [{"type": "message", "role": "assistant", "content": "5"}],
        },
    ):
        assert said(read(row, lossy)) == expected
    assert lossy.counts == {"other choices left out": 3}


def test_an_answer_behind_a_turn_of_the_assistants_is_not_lost() -> None:
    lossy = Lossy()
    begun = {"role": "assistant", "content": '{"a":'}
    claude = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": " 1}"}]}
    assert said(read({"request": chat(USER, begun), "response": claude}, lossy))[1:] == [
        ("assistant", '{"a":| 1}')
    ]
    assert lossy.lines() == ["1 answer that the request begins kept as one with its beginning"]
    first = chat(USER, begun, choices=[{"message": DONE}])
    assert said(read(first))[1:] == [("assistant", '{"a":'), ("assistant", "5")]
    again = chat(USER, DONE | {"content": [{"type": "text", "text": "5"}]}, choices=[{"message": DONE}])
    assert said(read(again))[1:] == [("assistant", "5")]


def test_a_question_with_reasoning_in_a_log_is_a_trace_in_the_first_form() -> None:
    thought = {"type": "thinking", "thinking": "2 + 3."}
    message = {"role": "assistant", "content": [thought, {"type": "text", "text": "5"}]}
    trace = read({"request": {"messages": [USER]}, "response": message})
    assert (trace.prompt, trace.steps[0].content, trace.final_answer) == ("Add 2 and 3.", "2 + 3.", "5")


def test_what_else_stands_on_a_message_is_kept_in_the_metadata() -> None:
    trace = read(chat(USER | {"id": "m1"}, DONE | {"info": [1]}, lang="en", metadata={"k": 1}, source="s"))
    assert trace.source == "s"
    assert dict(trace.metadata)["message_fields"] == {"0": {"id": "m1"}, "1": {"info": [1]}}
    assert (trace.metadata["lang"], trace.metadata["k"]) == ("en", 1)


def test_no_text_but_a_text_is_an_error_of_the_file_too() -> None:
    with pytest.raises(FormatError, match="NUL character"):
        read(chat(USER, called('{"a": "\0"}')))
