"""Spans as conversations: each way in which instrumentations write them, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.conversations import call, turn
from support.spans import agent_run, asks_weather, event, gen_ai, span, text, weather
from tunix_rt import v1
from tunix_rt.spans import Span, conversations, cycles, holds_content

ASKED, ANSWER = turn("user", "Weather in Paris?"), turn("assistant", "It rains.")
CALL = turn("assistant", tool_calls=[call("get_weather", '{"city":"Paris"}', "c1")])
RESULT = turn("tool", "rainy", tool_call_id="c1")
WHOLE = [ASKED, CALL, RESULT, ANSWER]
CALL_TEXT = '{"city": "Paris"}'


def messages(*spans: Span, **options: Any) -> list[v1.Message]:
    """Of the one conversation in these spans."""
    found = conversations(spans, **options)
    assert not found.refused
    (trace,) = found.traces
    return list(trace.messages)


def refusal(attributes: dict[str, Any], **fields: Any) -> str:
    found = conversations([span(1, attributes, **fields)])
    assert not found.traces
    (refused,) = found.refused
    assert refused.span_id == f"{1:016x}"
    return refused.reason


def test_an_agents_calls_become_one_conversation_with_what_it_thought() -> None:
    run = agent_run()
    found = conversations(reversed(run))
    (trace,) = found.traces
    thought = v1.Message()
    thought.CopyFrom(CALL)
    thought.reasoning = "Look it up."
    assert list(trace.messages) == [ASKED, thought, RESULT, ANSWER]
    definition = json.loads(trace.tools[0].definition_text)
    assert definition["type"] == "function"
    assert definition["function"]["parameters"]["properties"] == {"city": {"type": "string"}}
    assert dict(trace.metadata) == {
        "otel_trace_id": f"{1:032x}",
        "otel_span_ids": [run[1].span_id, run[3].span_id],
        "model": "m-1",
    }
    assert trace.source == "otlp"
    assert not found.left_out
    first, second = conversations(run, each_call=True).traces
    assert list(first.messages) == [ASKED, thought]
    assert list(second.messages) == WHOLE


def test_results_stand_in_the_order_of_their_calls() -> None:
    def given(kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, **fields}

    calls = [given("tool_call", id=one, name="f", arguments={}) for one in ("c1", "c2")]
    results = [
        {"role": "tool", "parts": [given("tool_call_response", id=one, response=f"of {one}")]}
        for one in ("c2", "c1")
    ]
    asked = [text("user", "Hi"), {"role": "assistant", "parts": calls}, *results]
    found = messages(span(1, gen_ai(asked, text("assistant", "Both."))))
    assert [(one.tool_call_id, one.content[0].text) for one in found[2:4]] == [
        ("c1", "of c1"),
        ("c2", "of c2"),
    ]


def test_thoughts_between_marks_are_no_part_of_what_is_said() -> None:
    first = [text("user", "Hi")]
    thought = text("assistant", "<think>\nGreet.\n</think>\n\nHello")
    # The history of the next call has the answer without its thoughts.
    later = [*first, text("assistant", "Hello"), text("user", "Bye")]
    found = messages(
        span(1, gen_ai(first, thought)), span(2, gen_ai(later, text("assistant", "Leave.\n</think>\nBye")))
    )
    assert [(one.content[0].text, one.reasoning) for one in found[1::2]] == [
        ("Hello", "Greet."),
        ("Bye", "Leave."),
    ]
    for prose in ("Write `</think>` behind it.", "```\n</think>\n```"):
        assert messages(span(1, gen_ai(first, text("assistant", prose))))[1].content[0].text == prose
    assert "never closes it" in refusal(gen_ai(first, text("assistant", "<think>Greet.")))


def test_calls_of_tools_that_nobody_recorded_are_counted() -> None:
    kind = "conversations that call tools whose definitions were not recorded"
    assert conversations([agent_run()[3]]).left_out == {kind: 1}


def test_an_agent_that_another_asks_has_a_conversation_of_its_own() -> None:
    inner = gen_ai([text("system", "You add."), text("user", "2 + 2?")], text("assistant", "4"))
    run = agent_run()
    found = conversations([*run, span(5, {"gen_ai.operation.name": "invoke_agent"}, 3), span(6, inner, 5)])
    assert [len(trace.messages) for trace in found.traces] == [4, 3]


def test_what_is_told_twice_counts_once() -> None:
    attributes = gen_ai([text("user", "Hi")], text("assistant", "Hello"))
    agent = {**attributes, "gen_ai.operation.name": "invoke_agent"}
    twice = [span(1, agent), span(2, attributes, 1), span(3), span(4, attributes, 2)]
    assert messages(*twice) == [turn("user", "Hi"), turn("assistant", "Hello")]
    # Alone, the agent's span tells it.
    assert messages(twice[0]) == [turn("user", "Hi"), turn("assistant", "Hello")]
    # A call that a tool of another call makes is another one.
    other = gen_ai([text("user", "Hi")], text("assistant", "Hey"))
    assert len(conversations([span(1, attributes), span(2, other, 1)]).traces) == 2


OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "m-1",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.contents.0.message_content.type": "text",
    "llm.input_messages.0.message.contents.0.message_content.text": "Weather in Paris?",
    "llm.input_messages.1.message.role": "assistant",
    "llm.input_messages.1.message.tool_calls.0.tool_call.id": "c1",
    "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "get_weather",
    "llm.input_messages.1.message.tool_calls.0.tool_call.function.arguments": '{"city":"Paris"}',
    "llm.input_messages.2.message.role": "tool",
    "llm.input_messages.2.message.tool_call_id": "c1",
    "llm.input_messages.2.message.content": "rainy",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "It rains.",
    "llm.tools.0.tool.json_schema": '{"type": "function",  "function": {"name": "get_weather"}}',
}
NESTED = {
    "openinference": {"span": {"kind": "LLM"}},
    "llm": {
        "input_messages": [
            {
                "message": {
                    "role": "user",
                    "contents": [{"message_content": {"type": "text", "text": "Weather in Paris?"}}],
                }
            },
            {
                "message.role": "assistant",
                "message.tool_calls": [
                    {
                        "tool_call.id": "c1",
                        "tool_call.function.name": "get_weather",
                        "tool_call.function.arguments": '{"city":"Paris"}',
                    }
                ],
            },
            {"message": {"role": "tool", "tool_call_id": "c1", "content": "rainy"}},
        ],
        "output_messages": [{"message": {"role": "assistant", "content": "It rains."}}],
    },
}
OPENLLMETRY = {
    "llm.request.type": "chat",
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": '[{"type": "text", "text": "Weather in Paris?"}]',
    "gen_ai.prompt.1.role": "assistant",
    "gen_ai.prompt.1.tool_calls.0.id": "c1",
    "gen_ai.prompt.1.tool_calls.0.name": "get_weather",
    "gen_ai.prompt.1.tool_calls.0.arguments": '{"city":"Paris"}',
    "gen_ai.prompt.2.role": "tool",
    "gen_ai.prompt.2.content": "rainy",
    "gen_ai.prompt.2.tool_call_id": "c1",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "It rains.",
    "llm.request.functions.0.name": "get_weather",
    "llm.request.functions.0.parameters": '{"type": "object"}',
}
OPENAI = [
    {"role": "user", "content": "Weather in Paris?"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "rainy"},
]
BEDROCK = [
    {"role": "user", "content": [{"text": "Weather in Paris?"}]},
    {
        "role": "assistant",
        "content": [{"toolUse": {"toolUseId": "c1", "name": "get_weather", "input": {"city": "Paris"}}}],
    },
    {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "rainy"}]}}]},
]
ANTHROPIC = [
    OPENAI[0],
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Paris"}}],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "rainy"}]},
]
EVENTS = [
    event("gen_ai.user.message", content="Weather in Paris?"),
    event("gen_ai.assistant.message", tool_calls=json.dumps(OPENAI[1]["tool_calls"])),
    event("gen_ai.tool.message", id="c1", content="rainy"),
    event("gen_ai.choice", index=0, finish_reason="stop", message=json.dumps({"content": "It rains."})),
]
ONE_ATTRIBUTE = [
    event(f"gen_ai.{row['role']}.message", **{"gen_ai.event.content": json.dumps(row)}) for row in OPENAI
] + [event("gen_ai.choice", **{"gen_ai.event.content": '{"message": {"content": "It rains."}}'})]
CONTENT = [
    event("gen_ai.content.prompt", **{"gen_ai.prompt": json.dumps(OPENAI)}),
    event("gen_ai.content.completion", **{"gen_ai.completion": '[{"content": "It rains."}]'}),
]
DETAILS = [
    event("gen_ai.client.inference.operation.details", **{"gen_ai.input.messages": json.dumps(OPENAI)}),
    event(
        "gen_ai.client.inference.operation.details",
        **{"gen_ai.output.messages": json.dumps([text("assistant", "It rains.")])},
    ),
]


@pytest.mark.parametrize(
    ("attributes", "events"),
    [
        (
            gen_ai(
                [text("user", "Weather in Paris?"), *map(dict, OPENAI[1:])], text("assistant", "It rains.")
            ),
            [],
        ),
        (gen_ai(BEDROCK, {"role": "assistant", "content": [{"text": "It rains."}]}), []),
        (gen_ai(ANTHROPIC, text("assistant", "It rains.")), []),
        (OPENINFERENCE, []),
        (NESTED, []),
        (OPENLLMETRY, []),
        ({"gen_ai.prompt": json.dumps(OPENAI), "gen_ai.completion": "It rains."}, []),
        ({}, EVENTS),
        ({}, ONE_ATTRIBUTE),
        ({}, CONTENT),
        ({}, DETAILS),
    ],
    ids=[
        *("gen_ai", "bedrock", "anthropic", "openinference", "nested", "openllmetry", "oldest"),
        *("events", "events-of-one-attribute", "content-events", "details"),
    ],
)
def test_each_form_says_the_same(attributes: dict[str, Any], events: list[Any]) -> None:
    given = span(1, attributes, events=events)
    assert holds_content(given)
    assert messages(given) == WHOLE


def test_attributes_may_be_values_instead_of_json() -> None:
    attributes = {
        "gen_ai.input.messages": [text("user", "Hi")],
        "gen_ai.output.messages": [text("assistant", "Hello")],
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
    }
    expected = [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Hello")]
    assert messages(span(1, attributes)) == expected
    assert messages(span(1, {**attributes, "gen_ai.system_instructions": "Be brief."})) == expected


def test_items_of_one_response_are_one_answer() -> None:
    items = {
        **{key: value for key, value in OPENINFERENCE.items() if not key.startswith("llm.output")},
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.contents.0.message_content.type": "reasoning",
        "llm.output_messages.0.message.contents.0.message_content.text": "Both.",
    }
    for number in (1, 2):
        start = f"llm.output_messages.{number}.message"
        items[f"{start}.role"] = "assistant"
        items[f"{start}.tool_calls.0.tool_call.function.name"] = f"f{number}"
        items[f"{start}.tool_calls.0.tool_call.function.arguments"] = "{}"
    answer = messages(span(1, items))[-1]
    assert answer.reasoning == "Both."
    assert [made.name for made in answer.tool_calls] == ["f1", "f2"]


def test_tools_are_kept_to_the_character_where_they_can_be() -> None:
    (trace,) = conversations([span(1, OPENINFERENCE)]).traces
    assert trace.tools[0].definition_text == OPENINFERENCE["llm.tools.0.tool.json_schema"]
    schema = {"name": "f", "input_schema": {"type": "object"}, "type": "custom"}
    tools = {"gen_ai.tool.definitions": json.dumps([schema, {"type": "web_search", "name": "w"}])}
    found = conversations([span(1, gen_ai([text("user", "Hi")], text("assistant", "Yes"), **tools))])
    (tool,) = found.traces[0].tools
    assert json.loads(tool.definition_text) == {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object"}},
    }
    assert found.left_out == {"tools that are no functions, or in a form that is not known": 1}


def test_of_several_answers_the_first_is_taken_and_the_others_are_counted() -> None:
    attributes = gen_ai([text("user", "A joke?")], text("assistant", "One"))
    attributes["gen_ai.output.messages"] = json.dumps([text("assistant", "One"), text("assistant", "Two")])
    found = conversations([span(1, attributes)])
    assert found.traces[0].messages[-1] == turn("assistant", "One")
    assert found.left_out == {"answers of a call beyond its first": 1}


def test_calls_without_content_and_calls_that_failed_are_counted() -> None:
    off = span(1, {"gen_ai.operation.name": "chat"})
    bare = [event("gen_ai.user.message"), event("gen_ai.choice", finish_reason="stop", index=0)]
    events = span(2, {"gen_ai.operation.name": "chat"}, events=bare)
    failed = span(3, gen_ai([text("user", "Hi")], text("assistant", "Hel")), failed=True)
    assert not holds_content(off)
    assert not holds_content(events)
    found = conversations([off, events, failed, span(4, {"http.method": "GET"})])
    assert not found.traces
    assert not found.refused
    assert found.left_out == {
        "calls of a model without its messages or its answer": 2,
        "calls of a model that failed": 1,
    }


def test_what_cannot_be_a_conversation_is_refused_by_name() -> None:
    hello = text("assistant", "Hello")
    image = {"role": "user", "parts": [{"type": "blob", "modality": "image", "content": "aGk="}]}
    assert "gen_ai.input.messages[0].parts[0]: is of type 'blob'" in refusal(gen_ai([image], hello))
    assert "is of type 'image'" in refusal(
        {**OPENINFERENCE, "llm.input_messages.0.message.contents.0.message_content.type": "image"}
    )
    assert "OPENINFERENCE_HIDE_INPUTS" in refusal(
        {**OPENINFERENCE, "llm.input_messages.2.message.content": "__REDACTED__"}
    )
    cut = gen_ai([text("user", "Hi")], hello)
    cut["gen_ai.input.messages"] = cut["gen_ai.input.messages"][:-5]
    assert "gen_ai.input.messages: is no JSON, or was cut off" in refusal(cut)
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in refusal(gen_ai([text("user", "Hi")], hello), dropped=3)
    lost = {key: value for key, value in OPENINFERENCE.items() if "input_messages.0" not in key}
    assert "llm.input_messages.0: is missing" in refusal(lost)
    assert "role: is 'judge'" in refusal(gen_ai([text("judge", "Hi")], hello))
    assert "was not recorded" in refusal(gen_ai([{"role": "user", "parts": []}], hello))


def test_a_tree_with_a_cycle_is_named_and_the_rest_is_taken() -> None:
    attributes = gen_ai([text("user", "Hi")], text("assistant", "Hello"))
    found = conversations([span(1, attributes, 2), span(2, {}, 1), span(3, {}, 3), span(4, attributes, 1)])
    assert len(found.traces) == 1
    assert [refused.span_id[-1] for refused in found.refused] == ["1", "2", "3"]
    assert "is inside itself: 0000000000000001 in 0000000000000002 in" in found.refused[0].reason
    assert cycles({"a": "b", "b": "c", "c": "b", "d": ""}) == {"b": "b in c in b", "c": "b in c in b"}


def test_long_chains_and_many_calls_take_no_time() -> None:
    attributes = gen_ai([text("user", "Hi")], text("assistant", "Hello"))
    spans = [span(number, attributes if number > 2_000 else {}, number - 1) for number in range(1, 3_001)]
    assert len(conversations(spans).traces) == 1


def test_arguments_that_are_a_text_are_kept_to_the_character() -> None:
    asked = [text("user", "Hi")]
    part = {"type": "tool_call", "id": "c1", "name": "f", "arguments": CALL_TEXT}
    answer = messages(span(1, gen_ai(asked, {"role": "assistant", "parts": [part]})))[-1]
    assert answer.tool_calls[0].arguments_text == CALL_TEXT
    # Two that differ in white space alone are one where a conversation goes on.
    later = [text("user", "Hi"), asks_weather(), weather()]
    assert (
        len(messages(span(1, gen_ai(asked, asks_weather())), span(2, gen_ai(later, text("ai", "So."))))) == 4
    )
