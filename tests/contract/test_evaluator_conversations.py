"""Eval items that are conversations, over a real channel: stored, asked of an endpoint with the real worker,
and graded by the calls that it makes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.evaluating import create, ended, eval_set, items_of, running, until
from support.fake_endpoint import FakeEndpoint, Reply, answering, completion
from support.migrated import migrated
from support.serving import fields, refused
from tunix_rt import v1
from tunix_rt_evaluator.wiring import EvaluatorSettings, migrate

pytestmark = pytest.mark.one_database

Role = v1.Message
TOOL = v1.Tool(name="add", description="Adds.")
TOOL.parameters.update({"type": "object", "properties": {"a": {"type": "number"}}})


def said(role: int, text: str = "", **more: Any) -> v1.Message:
    return v1.Message(role=role, content=[v1.ContentPart(text=text)] if text else [], **more)


def user(text: str) -> v1.Message:
    return said(Role.ROLE_USER, text)


def called(*texts: str) -> v1.Message:
    return said(
        Role.ROLE_ASSISTANT, tool_calls=[v1.ToolCall(name="add", arguments_text=text) for text in texts]
    )


def expected(name: str, **arguments: Any) -> v1.ExpectedToolCall:
    made = v1.ExpectedToolCall(name=name)
    made.arguments.update(arguments)
    return made


def item(item_id: str, *messages: v1.Message, **more: Any) -> v1.EvalItem:
    return v1.EvalItem(**({"id": item_id, "messages": messages, "tools": [TOOL]} | more))


def tool_call(*calls: v1.ExpectedToolCall, **settings: Any) -> v1.Grader:
    return v1.Grader(tool_call=v1.ToolCallGrader(calls=calls, **settings))


ASKED = item("asked", user("2 + 2?"), grader=tool_call(expected("add", a=2, b=2)))
GREETED = item("greeted", user("Hello."), grader=tool_call(no_calls=True))
ANSWERED = item(
    "answered",
    user("2 + 2?"),
    called('{"b": 2, "a": 2}'),
    said(Role.ROLE_TOOL, "4"),
    accepted_answers=["4"],
    grader=v1.Grader(contains=v1.ContainsGrader()),
)


def reply(_: str) -> Reply:
    return completion("It is 4.", model="m")


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with answering(reply) as made:
        yield made


@pytest.fixture
async def evaluator(database_url: str, tmp_path: Path, endpoint: FakeEndpoint) -> AsyncIterator[Any]:
    settings = EvaluatorSettings(
        listen="127.0.0.1:0",
        database_url=database_url,
        data_dir=tmp_path,
        shutdown_grace_s=10.0,
        endpoint_url=endpoint.url,
        python_graders="sandboxed",
    )
    migrated(settings, migrate)
    async with running(settings) as stub:
        yield stub


async def test_conversations_are_kept_whole_and_tell_one_item_from_another(evaluator: Any) -> None:
    parts = item("parts", user("2 + "), grader=GREETED.grader)
    parts.messages[0].content.add(text="3?", type="text")
    made = await evaluator.CreateEvalSet(eval_set([ASKED, GREETED, ANSWERED, parts]))
    stored = await evaluator.GetEvalSet(v1.GetEvalSetRequest(name=made.name))
    assert stored == made
    by_id = {entry.id: entry for entry in stored.items}
    assert by_id["asked"].grader == ASKED.grader
    assert by_id["asked"].tools[0].parameters == TOOL.parameters
    assert json.loads(by_id["asked"].tools[0].definition_text)["function"]["name"] == "add"
    (call,) = by_id["answered"].messages[1].tool_calls
    assert call.arguments_text == '{"b": 2, "a": 2}'
    assert dict(call.arguments) == {"a": 2, "b": 2}
    assert [part.text for part in by_id["parts"].messages[0].content] == ["2 + 3?"]
    again = await evaluator.CreateEvalSet(eval_set([ANSWERED, parts, GREETED, ASKED], "again"))
    assert again.digest == made.digest
    # What a list is given back is taken as it is.
    third = await evaluator.CreateEvalSet(eval_set(list(stored.items), "third"))
    assert third.digest == made.digest
    other = item("asked", user("2 + 2?"), tools=[TOOL, v1.Tool(name="sub")], grader=ASKED.grader)
    assert (await evaluator.CreateEvalSet(eval_set([other], "o"))).digest != made.digest
    same = item("b", user("2 + 2?"), grader=ASKED.grader)
    error = await refused(evaluator.CreateEvalSet(eval_set([ASKED, same], "twice")))
    assert fields(error) == ["eval_set.items[1].messages"]


TWO = called("{}", "{}")


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (item("a", user("Hi"), prompt="Hi"), "prompt"),
        (v1.EvalItem(id="a"), "prompt"),
        (v1.EvalItem(id="a", prompt="Hi", tools=[TOOL]), "tools"),
        (item("a", user("Hi"), called("{}")), "messages[1].role"),
        (item("a", user("Hi"), TWO, said(Role.ROLE_TOOL, "1")), "messages[1].tool_calls"),
        (item("a", user("Hi"), TWO, said(Role.ROLE_TOOL, "1"), user("So?")), "messages[1].tool_calls[1]"),
        (item("a", user("Hi"), said(Role.ROLE_TOOL, "1")), "messages[1].role"),
        (item("a", said(Role.ROLE_ASSISTANT, "Hi"), user("Hi")), "messages[0].role"),
        (item("a", user("Hi"), said(Role.ROLE_SYSTEM, "So"), user("Hi")), "messages[1].role"),
        (item("a", said(9, "x"), user("Hi")), "messages[0].role"),
        (item("a", user("Hi"), said(Role.ROLE_ASSISTANT, "Hi", train=1), user("Hi")), "messages[1].train"),
        (item("a", *[user("Hi")] * 1_001), "messages"),
        (item("a", user("Hi"), tools=[TOOL, TOOL]), "tools[1].name"),
        (item("a", user("Hi"), grader=tool_call()), "grader.tool_call.calls"),
        (item("a", user("Hi"), grader=tool_call(expected("sub", a=1))), "grader.tool_call.calls[0].name"),
        (
            item("a", user("Hi"), grader=tool_call(v1.ExpectedToolCall(name="add"))),
            "grader.tool_call.calls[0]",
        ),
    ],
)
async def test_what_is_no_conversation_to_be_answered_is_refused_by_field(
    evaluator: Any, wrong: v1.EvalItem, path: str
) -> None:
    given = v1.EvalItem()
    given.CopyFrom(wrong)
    if not given.HasField("grader"):
        given.accepted_answers.append("x")
    error = await refused(evaluator.CreateEvalSet(eval_set([given])))
    assert error.reason == "EVAL_SET_INVALID"
    assert fields(error) == [f"eval_set.items[0].{path}"]


async def test_an_endpoint_is_asked_and_its_calls_are_graded(
    evaluator: Any, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [{"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"b": 2.0, "a": 2}'}}]
    call = completion(None, "tool_calls", message={"tool_calls": made})
    monkeypatch.setattr(endpoint, "answer", lambda prompt: call if "2 + 2" in prompt else reply(prompt))
    source = "def grade(output, item):\n    return item['prompt'] == 'Hi.' and len(item['messages']) == 1\n"
    own = item("own", user("Hi."), grader=v1.Grader(python=v1.PythonGrader(source=source)))
    await evaluator.CreateEvalSet(eval_set([ASKED, GREETED, ANSWERED, own]))
    evaluation = await create(evaluator, base_model="", endpoint_model="m")
    done = await until(evaluator, evaluation, ended)
    assert done.state == v1.Evaluation.STATE_SUCCEEDED, done.error
    results = {result.item_id: result for result in await items_of(evaluator, done)}
    assert {name: result.correct for name, result in results.items()} == {
        "asked": True,
        "greeted": True,
        "answered": False,
        "own": True,
    }
    assert results["asked"].extracted_answer == 'add({"b": 2.0, "a": 2})'
    assert results["asked"].grader == "tool_call/1"
    assert results["answered"].prompt == (
        'tools: add\n\nuser: 2 + 2?\n\nassistant: add({"b": 2, "a": 2})\n\ntool: 4'
    )
    assert list(results["asked"].accepted_answers) == ['add({"a": 2, "b": 2})']
    assert list(results["greeted"].accepted_answers) == ["no call"]
    other = item("asked", user("2 + 2?"), grader=tool_call(expected("add", a=2, b=3)))
    await evaluator.CreateEvalSet(eval_set([other, GREETED, ANSWERED, own], "strict"))
    regrade = v1.RegradeEvaluationRequest(name=done.name, eval_set="evalSets/strict")
    again = await until(evaluator, await evaluator.RegradeEvaluation(regrade), ended)
    assert again.summary.overall.correct_count == 2
    await evaluator.CreateEvalSet(eval_set([item("asked", user("2 + 2!"), grader=ASKED.grader)], "new"))
    error = await refused(
        evaluator.RegradeEvaluation(v1.RegradeEvaluationRequest(name=done.name, eval_set="evalSets/new"))
    )
    assert error.reason == "EVAL_SET_MISMATCH"


async def test_one_answer_is_graded_in_the_form_that_it_shows(evaluator: Any) -> None:
    for output, right in [
        ('<tool_call>{"name": "add", "arguments": {"a": 2, "b": 2}}</tool_call>', True),
        ('{"name": "add", "parameters": {"b": 2, "a": 2}}', True),
        ("add(2, 2)", False),
    ]:
        graded = await evaluator.GradeAnswer(v1.GradeAnswerRequest(item=ASKED, output=output))
        assert graded.correct is right
