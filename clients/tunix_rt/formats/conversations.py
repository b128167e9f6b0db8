"""Conversations in our own form: a JSON object of ``messages`` and ``tools``, from which nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunix_rt import v1
from tunix_rt.turns import role_of

MAX_MESSAGES: Final = 1_000
MAX_MESSAGE_TEXT: Final = 500_000
MAX_CALLS: Final = 128

_Text = Annotated[str, Field(max_length=MAX_MESSAGE_TEXT)]
_Name = Annotated[str, Field(max_length=256)]
Role = Literal["system", "developer", "user", "assistant", "tool"]
_TRAIN: Final = {None: v1.Message.TRAIN_UNSPECIFIED, True: v1.Message.TRAIN_YES, False: v1.Message.TRAIN_NO}


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ToolCallRow(_Row):
    """A call: ``arguments`` are an object, or a text that is kept to the character."""

    name: Annotated[_Name, Field(min_length=1)]
    arguments: dict[str, Any] | _Text
    id: _Name = ""


class MessageRow(_Row):
    """One turn: ``content`` is a text, or the texts that it is made of."""

    role: Role
    content: _Text | list[_Text] | None = None
    reasoning: _Text = ""
    tool_calls: Annotated[list[ToolCallRow], Field(max_length=MAX_CALLS)] = []
    tool_call_id: _Name = ""
    name: _Name = ""
    train: bool | None = None


Messages = Annotated[list[MessageRow], Field(min_length=1, max_length=MAX_MESSAGES)]
Tools = Annotated[list[dict[str, Any] | _Text], Field(max_length=MAX_CALLS)]


def json_text(value: Any) -> str:
    """``value`` as JSON without spaces, its keys in their order: how arguments and tools that were given as
    objects are kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def message_of(row: MessageRow) -> v1.Message:
    """A turn as the contract has it."""
    texts = [row.content] if isinstance(row.content, str) else row.content or []
    return v1.Message(
        role=v1.Message.Role.Value(f"ROLE_{row.role.upper()}"),
        content=[v1.ContentPart(text=text) for text in texts],
        reasoning=row.reasoning,
        tool_calls=[
            v1.ToolCall(id=call.id, name=call.name, arguments_text=_as_text(call.arguments))
            for call in row.tool_calls
        ],
        tool_call_id=row.tool_call_id,
        name=row.name,
        train=_TRAIN[row.train],
    )


def tools_of(rows: Sequence[dict[str, Any] | str]) -> list[v1.Tool]:
    """The tools that a conversation offers, as the contract has them."""
    return [v1.Tool(definition_text=_as_text(row)) for row in rows]


def _as_text(value: dict[str, Any] | str) -> str:
    return value if isinstance(value, str) else json_text(value)


def conversation_document(conversation: v1.Trace | v1.EvalItem) -> dict[str, Any]:
    """``messages`` and ``tools`` of a trace, or of an item of an eval set, in our own form."""
    document: dict[str, Any] = {"messages": [_message_document(message) for message in conversation.messages]}
    if conversation.tools:
        document["tools"] = [_tool_document(tool.definition_text) for tool in conversation.tools]
    return document


def _message_document(message: v1.Message) -> dict[str, Any]:
    texts = [part.text for part in message.content]
    fields: dict[str, Any] = {
        "role": role_of(message),
        "content": texts[0] if len(texts) == 1 else texts,
        "reasoning": message.reasoning,
        "tool_calls": [_call_document(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    # A message whose one text is empty differs from one without any.
    kept = {name: value for name, value in fields.items() if value or (name == "content" and texts)}
    if message.train:
        kept["train"] = message.train == v1.Message.TRAIN_YES
    return kept


def _call_document(call: v1.ToolCall) -> dict[str, Any]:
    fields = {"id": call.id} if call.id else {}
    return {**fields, "name": call.name, "arguments": call.arguments_text}


def _tool_document(text: str) -> dict[str, Any] | str:
    """The definition as an object, if that is written as the same text."""
    try:
        definition = json.loads(text)
    except ValueError:
        return text
    return definition if isinstance(definition, dict) and json_text(definition) == text else text


def is_contract_form(messages: Any) -> bool:
    """Whether these are messages as ``--json`` shows them: their roles are words of the contract's."""
    first = messages[0] if isinstance(messages, list) and messages else None
    role = first.get("role") if isinstance(first, dict) else None
    return isinstance(role, str) and role.startswith("ROLE_")


def without_empty_objects(trace: v1.Trace) -> None:
    """Take away the empty objects that ``--json`` shows where a text holds no object."""
    for message in trace.messages:
        for call in message.tool_calls:
            if call.arguments_text and not call.arguments.fields:
                call.ClearField("arguments")
    for tool in trace.tools:
        if tool.definition_text and not tool.parameters.fields:
            tool.ClearField("parameters")
