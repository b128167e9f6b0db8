"""Calls of tools: how they are read out of an output, and which are right."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.reading.calls import call_form, call_probe, exactly, read_calls, written
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.chat import ChatTemplate, Message, ToolCall
from tunix_rt_kit.errors import FailedPrecondition

GRADING = Grading()
ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}
NOW = {"name": "now", "arguments": {}}


def item(calls: Any = (), **settings: Any) -> EvalItem:
    grader = {"kind": "tool_call", "calls": calls, **settings}
    return EvalItem(id="q", prompt="?", accepted_answers=(), grader=grader)


def hermes(*calls: Any) -> str:
    blocks = (call if isinstance(call, str) else json.dumps(call) for call in calls)
    return "\n".join(f"<tool_call>\n{block}\n</tool_call>" for block in blocks)


def graded(output: str, calls: Any = (), cut: bool = False, **settings: Any) -> tuple[bool, float, str]:
    verdict = GRADING.grade(item(calls, **settings), output, cut=cut, call_form="hermes")
    assert not verdict.error
    return verdict.correct, verdict.value, verdict.explanation


NAMES = st.text(min_size=1, max_size=20)
TEXTS = st.text(max_size=8) | st.sampled_from(["</tool_call>", "<tool_call>", '"}', "\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)


@given(st.lists(st.tuples(NAMES, OBJECTS), max_size=4), st.randoms(use_true_random=False))
def test_what_is_written_is_read_and_right_in_any_order(calls: list[tuple[str, Any]], random: Any) -> None:
    texts = [(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls]
    output = "\n".join(written(name, text) for name, text in texts)
    read = read_calls(f"So: {output} done")
    assert not read.problem
    assert [(call.name, call.exact) for call in read.calls] == [(name, exactly(text)) for name, text in texts]
    wanted = [{"name": name, "arguments_text": text} for name, text in texts]
    random.shuffle(wanted)
    settings = {"calls": wanted} if wanted else {"no_calls": True}
    assert graded(output, **settings)[:2] == (True, 1.0)


@pytest.mark.parametrize(
    ("output", "score", "why"),
    [
        ("The sum is 3.", 0.0, "it makes no call"),
        (hermes({"name": "sub", "arguments": {"a": 1, "b": 2}}), 0.0, "it does not call add"),
        (hermes({"name": "add", "arguments": {"a": 2, "b": 1}}), 0.0, 'add({"a": 1, "b": 2})'),
        (hermes({"name": "add", "arguments": {"a": 1, "b": "2"}}), 0.0, "it does not call add"),
        (hermes({"name": "add", "arguments": {"a": True, "b": 2}}), 0.0, "it does not call add"),
        (hermes({"name": "add", "arguments": {"a": 1, "b": 2, "c": None}}), 0.0, "it does not call add"),
        (hermes(ADD, ADD), 2 / 3, "which is not expected"),
        (hermes(ADD, NOW), 2 / 3, "it calls now({}), which is not expected"),
        (hermes({"name": "add", "arguments": '{"a": 1, "b": 2}'}), 0.0, "its arguments are no JSON object"),
        (hermes({"name": "add"}), 0.0, "its arguments are no JSON object"),
        (hermes({**ADD, "parameters": {}}), 0.0, "it has 'parameters' beside name and arguments"),
        (hermes('{"name": "add", "arguments": {"a": 1, "a": 1, "b": 2}}'), 0.0, "a name stands twice"),
        (hermes('{"name": "add", "arguments": {"a": NaN, "b": 2}}'), 0.0, "NaN is not JSON"),
        (hermes('{"name": "add", "arguments": {"a": 1e9999999999999999999}}'), 0.0, "the exponent of 1e9"),
        (hermes('{"name": "add", "arguments": {"a": "\\ud800"}}'), 0.0, "half of a surrogate pair"),
        (hermes(f'{{"name": "add", "arguments": {{"a": {"[" * 600}{"]" * 600}}}}}'), 0.0, "nests too deep"),
        (hermes("add(1, 2)"), 0.0, "call 1 is malformed"),
        (hermes(ADD) + "<tool_call>", 0.0, "call 2 is malformed"),
        (hermes(ADD).removesuffix("</tool_call>"), 0.0, "call 1 is not closed"),
        (hermes(ADD) + "</tool_call>", 0.0, "closes what was not opened"),
        (json.dumps(ADD), 0.0, "it makes no call"),
        (json.dumps({"name": "add", "parameters": ADD["arguments"]}), 0.0, "it makes no call"),
    ],
)
def test_what_is_not_exactly_the_call_is_wrong(output: str, score: float, why: str) -> None:
    correct, found, explanation = graded(output, [ADD])
    assert (correct, found) == (False, pytest.approx(score))
    assert why in explanation


def test_numbers_are_compared_by_all_their_digits() -> None:
    big = {"name": "find", "arguments_text": '{"id": 9007199254740993, "part": 0.1}'}
    for text, right in [
        ('{"part": 1e-1, "id": 9007199254740993.0}', True),
        ('{"id": 9007199254740992, "part": 0.1}', False),
        ('{"id": 9007199254740993, "part": 0.10000000000000001}', False),
    ]:
        assert graded(hermes(f'{{"name": "find", "arguments": {text}}}'), [big])[0] is right
    assert graded(hermes('{"name": "add", "arguments": {"b": 2.0, "a": 1}}'), [ADD])[0]


def test_a_cut_output_text_beside_calls_and_calls_where_none_are_wanted() -> None:
    assert "cut" in graded(hermes(ADD), [ADD], cut=True)[2]
    beside = f"Let me see.\n{hermes(ADD)}"
    assert graded(beside, [ADD])[0]
    assert "beside its calls it says 'Let me see.'" in graded(beside, [ADD], calls_alone=True)[2]
    assert graded(hermes(ADD), [ADD], calls_alone=True)[0]
    assert graded("No tool is needed.", no_calls=True)[0]
    assert "it calls add" in graded(hermes(ADD), no_calls=True)[2]
    assert "malformed" in graded("<tool_call>", no_calls=True)[2]


@pytest.mark.parametrize(
    "output",
    [
        '<|python_tag|>{"name": "add", "parameters": {"a": 1}',
        '<|python_tag|>add.call(a="1")',
        '{"name": "add", "parameters": {"a": 1}',
        '{"name": "add", "arguments": {"a": 1}}',
        'Sure: {"name": "add", "parameters": {"a": 1}}',
        '[{"name": "add", "parameters": {"a": 1}}]',
    ],
)
def test_what_may_be_a_call_in_llama_3s_form_is_no_answer_without_calls(output: str) -> None:
    for form in ("llama-3", None):
        verdict = GRADING.grade(item(no_calls=True), output, call_form=form)
        assert not verdict.correct
        assert "a call is begun" in verdict.explanation
    assert GRADING.grade(item(no_calls=True), '{"name": "Ada"}', call_form="llama-3").correct


def test_text_before_a_call_in_llama_3s_form_stands_as_the_template_writes_it() -> None:
    template = ChatTemplate.built_in("llama-3")
    call = ToolCall(name="add", arguments=json.dumps(ADD["arguments"]))
    asked = Message(role="user", content="1 + 2?")
    said = Message(role="assistant", content="Let me see.\n\n{Adding}", tool_calls=(call,))
    turn = template.render([asked, said]).removeprefix(template.render([asked], add_generation_prompt=True))
    output = turn.removesuffix(template.end_of_turn)
    assert GRADING.grade(item([ADD]), output, call_form="llama-3").correct
    assert not GRADING.grade(item([ADD], calls_alone=True), output, call_form="llama-3").correct
    assert not GRADING.grade(item(no_calls=True), output, call_form="llama-3").correct
    started = time.process_time()
    assert not read_calls('\n\n{"name":' * 20_000, "llama-3").calls
    assert time.process_time() - started < 5


def test_many_calls_with_long_arguments_take_no_long_time() -> None:
    text = json.dumps({"ids": list(range(8_000))})
    made = hermes(*[{"name": "find", "arguments": {"id": number}} for number in range(128)])
    started = time.process_time()
    assert not graded(made, [{"name": "find", "arguments_text": text}] * 50)[0]
    assert time.process_time() - started < 5


def test_a_schema_takes_any_arguments_that_fit_and_finds_the_one_pairing() -> None:
    any_number = {
        "name": "add",
        "arguments_schema": {"required": ["a"], "properties": {"a": {"type": "number"}}},
    }
    assert graded(hermes({"name": "add", "arguments": {"a": 7, "more": 1}}), [any_number])[0]
    assert not graded(hermes({"name": "add", "arguments": {"a": "7"}}), [any_number])[0]
    # The looser one would take the call that the stricter one needs.
    for wanted in ([any_number, ADD], [ADD, any_number]):
        assert graded(hermes(ADD, {"name": "add", "arguments": {"a": 7}}), wanted)[0]


def test_wrong_settings_are_named() -> None:
    def problems(*calls: Any, accepted: tuple[str, ...] = (), **settings: Any) -> dict[str, str]:
        found = item(calls, **settings).model_copy(update={"accepted_answers": accepted})
        return {".".join(map(str, path)): problem for path, problem in GRADING.problems(found)}

    assert not problems(ADD, NOW)
    assert "no_calls" in problems()["grader.tool_call.calls"]
    assert problems(ADD, no_calls=True).keys() == {"grader.tool_call.calls"}
    assert problems(ADD, accepted=("3",)).keys() == {"accepted_answers"}
    place = "grader.tool_call.calls.0"
    assert "has no arguments" in problems({"name": "add"})[place]
    assert "arguments and arguments_text" in problems({**ADD, "arguments_text": "{}"})[place]
    lossy = {"name": "add", "arguments": {"ids": [float(1 << 53)]}}
    assert "arguments_text keeps them all" in problems(lossy)[f"{place}.arguments"]
    for text in ("[]", "{", '{"a": 1, "a": 2}', '{"a": NaN}'):
        assert problems({"name": "add", "arguments_text": text}).keys() == {f"{place}.arguments_text"}
    assert problems({"name": "add", "arguments_schema": {}}).keys() == {f"{place}.arguments_schema"}
    assert (
        "no JSON Schema"
        in problems({"name": "a", "arguments_schema": {"type": 3}})[f"{place}.arguments_schema"]
    )


def test_the_form_of_calls_is_the_templates() -> None:
    assert call_form(ChatTemplate.built_in("chatml").fields) == "hermes"
    llama = ChatTemplate.built_in("llama-3").fields
    assert call_form(llama) == "llama-3"
    probe = call_probe(llama)
    assert probe is not None
    assert probe.is_read_from(probe.turn)
    assert not probe.is_read_from(probe.turn.replace("three", "four"))
    for output, calls in [
        ('{"name": "add", "parameters": {"a": 1}}; {"name": "now", "parameters": {}}', ["add", "now"]),
        ('<|python_tag|>{"name": "add", "parameters": {}}', ["add"]),
        ('I call {"name": "add", "parameters": {}}', []),
        ('{"name": "Ada", "age": 36}', []),
    ]:
        assert [call.name for call in read_calls(output, "llama-3").calls] == calls
    assert read_calls('{"name": "add", "parameters": 3}', "llama-3").problem
    for fields in (None, ChatTemplate.built_in("gemma-it").fields):
        with pytest.raises(FailedPrecondition) as caught:
            call_form(fields)
        assert caught.value.reason == "TOOL_CALLS_UNREADABLE"
