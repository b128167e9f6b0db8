"""Conversations: kept to the byte, found, compared, and refused by name where they are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from support.conversations import ADD, adding, call, conversation, turn
from support.serving import fields, refused
from support.storing import create, stream
from support.traces import trace
from tunix_rt import v1

USER, REPLY = turn("user", "2 + 2?"), turn("assistant", "4")
CALL = turn("assistant", tool_calls=[call("add", "{}", "c1")])
EMPTY = turn("assistant", tool_calls=[v1.ToolCall(name="f")])
ANSWERED = turn("tool", "5", tool_call_id="c1")


async def test_a_conversation_comes_back_with_its_texts_to_the_character(store: Any) -> None:
    given = adding()
    kept = await store.CreateTrace(v1.CreateTraceRequest(trace=given))
    assert await store.GetTrace(v1.GetTraceRequest(name=kept.name)) == kept
    made, tool = kept.messages[2].tool_calls[0], kept.tools[0]
    assert made.arguments_text == '{"b": 3, "a": 2}'
    assert dict(made.arguments) == {"a": 2, "b": 3}
    assert (tool.name, tool.description) == ("add", "Adds two numbers.")
    assert tool.definition_text == given.tools[0].definition_text
    _, (streamed,) = await stream(store)
    assert streamed.messages == given.messages
    assert streamed.tools == given.tools


async def test_a_conversation_has_one_digest_however_its_arguments_were_given(store: Any) -> None:
    as_text = conversation(USER, turn("assistant", tool_calls=[call("add", '{"a":1,"b":2}', "c1")]))
    as_object = conversation(USER, turn("assistant", tool_calls=[call("add", {"b": 2, "a": 1}, "c1")]))
    both = conversation(USER, turn("assistant", tool_calls=[call("add", {"b": 2, "a": 1}, "c1")]))
    both.messages[1].tool_calls[0].arguments_text = '{"a":1,"b":2}'
    answer = await create(store, as_text, as_object, both, duplicate_policy=v1.DUPLICATE_POLICY_SKIP)
    assert [result.created for result in answer.results] == [True, False, False]


async def test_what_is_no_object_stays_a_text(store: Any) -> None:
    texts = ['{"a": 1', "[1]", "add 1 and 2", '{"a": NaN}', '{"a":' * 40 + "1" + "}" * 40]
    for text in texts:
        made = conversation(USER, turn("assistant", tool_calls=[call("add", text)]))
        kept = (await store.CreateTrace(v1.CreateTraceRequest(trace=made))).messages[1].tool_calls[0]
        assert kept.arguments_text == text
        assert not kept.HasField("arguments")


async def test_each_field_is_in_the_digest(store: Any) -> None:
    changed = [
        turn("assistant", "5"),
        turn("assistant", "4", name="bob"),
        turn("assistant", "4", reasoning="Add."),
        turn("assistant", "4", train=v1.Message.TRAIN_YES),
        turn("assistant", "4", train=v1.Message.TRAIN_NO),
        turn("assistant", "4", tool_calls=[call("add", {})]),
        turn("assistant", "4", tool_calls=[call("add", {}, "c1")]),
        turn("assistant", "4", tool_calls=[call("sub", {})]),
        turn("assistant", "4", tool_calls=[call("add", '{"a": 1}')]),
        turn("assistant", "4", tool_calls=[call("add", '{"a":1}')]),
    ]
    made = [conversation(USER, reply) for reply in (REPLY, *changed)]
    made += [
        conversation(USER, REPLY, tools=[ADD]),
        conversation(turn("developer", "x"), USER, REPLY),
        conversation(turn("system", "x"), USER, REPLY),
        conversation(USER, REPLY, source="s"),
        conversation(USER, REPLY, metadata={"k": 1}),
    ]
    answer = await create(store, *made)
    assert len({result.content_digest for result in answer.results}) == len(made)


async def test_filters_find_conversations_by_form_calls_and_turns(store: Any) -> None:
    three = conversation(USER, REPLY, USER, REPLY, turn("user", "And Apples?"), REPLY)
    await create(store, trace(0), adding(), three)

    async def found(**wanted: Any) -> int:
        page = await store.ListTraces(v1.ListTracesRequest(filter=v1.TraceFilter(**wanted)))
        _, streamed = await stream(store, **wanted)
        assert len(streamed) == len(page.traces)
        return len(page.traces)

    assert await found(is_conversation=True) == 2
    assert await found(is_conversation=False) == 1
    assert await found(has_tool_calls=True) == 1
    assert await found(has_tool_calls=False) == 2
    assert await found(min_assistant_turns=2) == 2
    assert await found(min_assistant_turns=3) == 1
    assert await found(max_assistant_turns=1) == 1
    assert await found(prompt_contains="and apples") == 1


@pytest.mark.one_database
async def test_turns_are_set_side_by_side(store: Any) -> None:
    kept = (await create(store, adding(), adding(answer="Five."), trace(0))).results
    ask = v1.CompareTracesRequest(base=kept[0].name, other=kept[1].name)
    compared = await store.CompareTraces(ask)
    same, changed = v1.StepAlignment.RELATION_SAME, v1.StepAlignment.RELATION_CHANGED
    assert [pair.relation for pair in compared.turns] == [same, same, same, same, changed]
    assert not compared.alignment
    assert not compared.same_final_answer
    mixed = await store.CompareTraces(v1.CompareTracesRequest(base=kept[0].name, other=kept[2].name))
    assert len(mixed.turns) == 5


@pytest.mark.one_database
async def test_conversations_are_scored(store: Any) -> None:
    made = adding()
    made.metadata.update({"reference_answer": "it is 5."})
    kept = await store.CreateTrace(v1.CreateTraceRequest(trace=made))
    ask = v1.ScoreTraceRequest(name=kept.name, criteria=["structure", "answer"])
    structure, answer = (await store.ScoreTrace(ask)).scores
    assert answer.value == 100
    assert structure.details["step_count"] == 2


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("messages", "field", "said"),
    [
        ([], "trace.messages", "at least"),
        ([USER] * 1_001, "trace.messages", "1,000"),
        ([USER], "trace.messages", "no message of the assistant's"),
        ([REPLY, USER], "trace.messages[0].role", "begins with a message of the user's"),
        ([USER, REPLY, turn("system", "x"), REPLY], "trace.messages[2].role", "stand before"),
        ([v1.Message(content=USER.content), REPLY], "trace.messages[0].role", "system, developer, user"),
        ([USER, v1.Message(role=9), REPLY], "trace.messages[1].role", "'9'"),
        ([turn("user"), REPLY], "trace.messages[0].content", "is empty"),
        ([USER, turn("assistant", reasoning="hm")], "trace.messages[1].content", "is empty"),
        ([USER, turn("user", "x", reasoning="hm"), REPLY], "trace.messages[1].reasoning", "only the assis"),
        ([USER, turn("user", "x", train=1), REPLY], "trace.messages[1].train", "only the assistant"),
        ([USER, turn("user", "x", tool_call_id="c"), REPLY], "trace.messages[1].tool_call_id", "only a tool"),
        ([USER, ANSWERED, REPLY], "trace.messages[1].role", "makes no call"),
        ([USER, REPLY, ANSWERED], "trace.messages[2].role", "makes no call"),
        ([USER, CALL, turn("tool", "5", tool_call_id="c2"), REPLY], "trace.messages[2].tool_call_id", "'c1'"),
        ([USER, CALL, turn("tool", "5"), REPLY], "trace.messages[2].tool_call_id", "is missing"),
        ([USER, CALL, ANSWERED, ANSWERED, REPLY], "trace.messages[3].tool_call_id", "have their results"),
        ([USER, CALL, USER, REPLY], "trace.messages[1].tool_calls[0]", "without a result"),
        ([USER, CALL, ANSWERED, CALL], "trace.messages[3].tool_calls[0].id", "messages[1].tool_calls[0]"),
        ([USER, EMPTY], "trace.messages[1].tool_calls[0].arguments", "missing"),
        ([USER, turn("assistant", tool_calls=[call("", "{}")])], "trace.messages[1].tool_calls[0].name", "1"),
        ([USER, turn("assistant", "x" * 500_001)], "trace.messages[1].content[0].text", "500,000"),
        ([USER, turn("assistant", *["x" * 250_001] * 2)], "trace.messages[1].content", "500,002"),
        ([USER, turn("assistant", "a\0b")], "trace.messages[1].content[0].text", "NUL"),
    ],
)  # fmt: skip
async def test_a_conversation_that_breaks_a_rule_is_refused_at_its_place(
    store: Any, messages: list[v1.Message], field: str, said: str
) -> None:
    made = conversation(*messages, tools=[ADD])
    error = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=made)))
    assert field in fields(error)
    assert said in str(error)


@pytest.mark.one_database
async def test_an_image_is_refused_by_name(store: Any) -> None:
    image = v1.Message(role=v1.Message.ROLE_USER, content=[v1.ContentPart(type="image_url", text="x")])
    ask = v1.CreateTraceRequest(trace=conversation(image, REPLY))
    error = await refused(store.CreateTrace(ask))
    assert fields(error) == ["trace.messages[0].content[0].type"]
    assert "'image_url'; a trace holds text alone" in str(error)


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("tool", "field"),
    [
        (v1.Tool(), "trace.tools[0].name"),
        (v1.Tool(definition_text="{"), "trace.tools[0].definition_text"),
        (v1.Tool(definition_text='{"type": "function"}'), "trace.tools[0].definition_text"),
        (v1.Tool(definition_text='{"name": ""}'), "trace.tools[0].definition_text"),
        (v1.Tool(name="sub", definition_text='{"name": "add"}'), "trace.tools[0].name"),
        (v1.Tool(name="x" * 257), "trace.tools[0].definition_text"),
    ],
)
async def test_a_tool_that_is_none_is_refused(store: Any, tool: v1.Tool, field: str) -> None:
    made = conversation(USER, REPLY)
    made.tools.append(tool)
    error = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=made)))
    assert fields(error) == [field]


@pytest.mark.one_database
async def test_tools_and_forms_do_not_stand_twice(store: Any) -> None:
    twice = conversation(USER, REPLY, tools=[ADD, ADD["function"]])
    error = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=twice)))
    assert fields(error) == ["trace.tools[1].name"]
    both = trace(0)
    both.messages.extend([USER, REPLY])
    error = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=both)))
    assert fields(error) == ["trace.prompt", "trace.steps", "trace.final_answer"]


@pytest.mark.one_database
async def test_arguments_and_text_must_agree(store: Any) -> None:
    for text in ('{"a": 2}', '{"a": true}', '{"a": 1, "b": 1}', "{"):
        made = call("add", {"a": 1}, "c1")
        made.arguments_text = text
        ask = v1.CreateTraceRequest(trace=conversation(USER, turn("assistant", tool_calls=[made])))
        error = await refused(store.CreateTrace(ask))
        assert fields(error) == ["trace.messages[1].tool_calls[0].arguments_text"]


@pytest.mark.one_database
async def test_numbers_that_a_struct_cannot_tell_apart_agree(store: Any) -> None:
    made = call("add", {"a": 9007199254740993, "b": 2}, "c1")
    made.arguments_text = '{"b": 2.0, "a": 9007199254740993}'
    ask = v1.CreateTraceRequest(trace=conversation(USER, turn("assistant", tool_calls=[made])))
    kept = await store.CreateTrace(ask)
    assert kept.messages[1].tool_calls[0].arguments_text == made.arguments_text


@pytest.mark.one_database
async def test_calls_at_the_end_and_calls_without_ids_are_kept(store: Any) -> None:
    without_ids = conversation(
        USER,
        turn("assistant", tool_calls=[call("add", {"a": 1}), call("add", {"a": 2})]),
        turn("tool", "1"),
        turn("tool", "2"),
        REPLY,
    )
    half_answered = conversation(
        USER,
        turn("assistant", tool_calls=[call("add", {}, "c1"), call("add", {}, "c2")]),
        turn("tool", "", tool_call_id="c2"),
    )
    answer = await create(store, without_ids, half_answered, conversation(USER, CALL))
    assert answer.created_count == 3
