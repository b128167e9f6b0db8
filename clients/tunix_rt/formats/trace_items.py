"""Eval items out of traces: what was asked, with what was answered as what is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.content import is_object
from tunix_rt.formats.conversations import json_text
from tunix_rt.formats.grading import grader_for, read_grader
from tunix_rt.formats.item_rows import GraderName, question_id
from tunix_rt.formats.lines import check_keys, plain_of
from tunix_rt.formats.reading import Lossy
from tunix_rt.turns import text_of, tool_name

_MAX_TEXT: Final = 50_000
_BEFORE_ANSWER: Final = (v1.Message.ROLE_USER, v1.Message.ROLE_TOOL)


class _NoItemError(Exception):
    """Why a conversation makes no item."""


def eval_items_from_traces(
    traces: Iterable[v1.Trace],
    limit: int | None = None,
    grader: GraderName | v1.Grader = "numeric",
    left_out: Lossy | None = None,
) -> list[v1.EvalItem]:
    """Questions out of traces: each prompt, with the final answer as the accepted one.

    Of a conversation the last turn of the assistant's is asked for, with the messages before it and its
    tools. Where that turn makes calls, these are what the grader ``tool_call`` expects, and its text counts
    for nothing; else its text is the accepted answer. A conversation whose last turn cannot be compared so is
    left out.

    An item's id is made from its prompt or conversation, so that the same question has the same id in every
    set. Of traces with the same question the first counts. Category, difficulty and cluster come from the
    metadata (``category`` or ``family``, ``difficulty``, ``cluster``).

    Args:
        traces: where they come from; read no further than ``limit`` needs.
        limit: most items; None for all.
        grader: how answers are graded, by name or with settings; ``auto`` grades an answer that is a number
            as one, mathematics as ``math``, others as text (see ``grader_for``).
        left_out: takes which traces became no item, and why.
    """
    return [item for _, item in numbered_trace_items(enumerate(traces), limit, grader, left_out)]


def numbered_trace_items(
    numbered: Iterable[tuple[int, v1.Trace]],
    limit: int | None = None,
    grader: GraderName | v1.Grader = "numeric",
    left_out: Lossy | None = None,
) -> list[tuple[int, v1.EvalItem]]:
    """As ``eval_items_from_traces``, each item with the number that its trace has."""
    lossy = Lossy() if left_out is None else left_out
    items: dict[str, tuple[int, v1.EvalItem]] = {}
    for number, trace in numbered:
        try:
            item = _conversation(trace, grader) if trace.messages else _question(trace, grader)
        except _NoItemError as reason:
            lossy.add("conversation", f"left out: {reason}")
        else:
            item.id = question_id(item)
            if item.id in items:
                asked = "questions" if trace.messages else "prompts"
                lossy.add("trace", f"left out: their {asked} were there already")
            else:
                items[item.id] = (number, _with_facts(item, trace))
        lossy.keep()
        if limit is not None and len(items) >= limit:
            break
    return list(items.values())


def _question(trace: v1.Trace, grader: GraderName | v1.Grader) -> v1.EvalItem:
    return v1.EvalItem(
        prompt=trace.prompt,
        accepted_answers=[trace.final_answer],
        grader=_grader(grader, trace.final_answer),
    )


def _conversation(trace: v1.Trace, grader: GraderName | v1.Grader) -> v1.EvalItem:
    """Raises _NoItemError."""
    spoken = [at for at, turn in enumerate(trace.messages) if turn.role == v1.Message.ROLE_ASSISTANT]
    last = spoken[-1] if spoken else 0
    if not last or trace.messages[last - 1].role not in _BEFORE_ANSWER:
        raise _NoItemError("the turn before the last answer is no user's and no tool's")
    item = v1.EvalItem(messages=trace.messages[:last], tools=trace.tools)
    for message in item.messages:
        message.ClearField("train")
    answer = trace.messages[last]
    if answer.tool_calls:
        offered = {tool_name(tool) for tool in item.tools}
        if offered and any(call.name not in offered for call in answer.tool_calls):
            raise _NoItemError("a call is of a tool that was not offered")
        item.grader.tool_call.calls.extend(map(_expected, answer.tool_calls))
        return item
    text = text_of(answer)
    if not 0 < len(text) <= _MAX_TEXT:
        raise _NoItemError(f"the last answer is longer than {_MAX_TEXT:,} characters, or empty")
    item.grader.CopyFrom(_grader(grader, text))
    item.accepted_answers.append(text)
    return item


def _expected(call: v1.ToolCall) -> v1.ExpectedToolCall:
    text = call.arguments_text
    if not text and call.HasField("arguments"):
        text = json_text(plain_of(call.arguments))
    try:
        check_keys(text.encode(), 0, "")
    except FormatError:
        raise _NoItemError("a call has a key twice in its arguments") from None
    if not is_object(text) or len(text) > _MAX_TEXT:
        raise _NoItemError(f"a call's arguments are no JSON object of at most {_MAX_TEXT:,} characters")
    return v1.ExpectedToolCall(name=call.name, arguments_text=text)


def _with_facts(item: v1.EvalItem, trace: v1.Trace) -> v1.EvalItem:
    item.category = _fact(trace, "category") or _fact(trace, "family")
    item.difficulty = _fact(trace, "difficulty")
    item.cluster = _fact(trace, "cluster", 128)
    return item


def _grader(name: GraderName | v1.Grader, answer: str) -> v1.Grader:
    if isinstance(name, v1.Grader):
        return name
    return read_grader(grader_for(answer) if name == "auto" else name)


def _fact(trace: v1.Trace, key: str, most: int = 64) -> str:
    value = trace.metadata.fields.get(key)
    return value.string_value[:most] if value is not None else ""
