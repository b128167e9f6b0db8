"""Conversations in the contract's form, made in a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunix_rt import v1

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"b": {"type": "number"}, "a": {"type": "number"}},
            "required": ["b", "a"],
        },
    },
}


def turn(role: str, *texts: str, **fields: Any) -> v1.Message:
    """One message; ``fields`` are its other fields."""
    parts = [v1.ContentPart(text=text) for text in texts]
    return v1.Message(role=v1.Message.Role.Value(f"ROLE_{role.upper()}"), content=parts, **fields)


def call(name: str, arguments: Mapping[str, Any] | str, call_id: str = "") -> v1.ToolCall:
    """A call; arguments that are a text are given as one."""
    if isinstance(arguments, str):
        return v1.ToolCall(id=call_id, name=name, arguments_text=arguments)
    made = v1.ToolCall(id=call_id, name=name)
    made.arguments.SetInParent()
    made.arguments.update(arguments)
    return made


def conversation(*messages: v1.Message, tools: Sequence[Any] = (), **fields: Any) -> v1.Trace:
    """A trace of these messages; ``tools`` are definitions as JSON objects."""
    offered = [v1.Tool(definition_text=json.dumps(tool)) for tool in tools]
    metadata = fields.pop("metadata", {})
    made = v1.Trace(trace_version="1.0", messages=messages, tools=offered, **fields)
    if metadata:
        made.metadata.update(metadata)
    return made


def adding(question: str = "What is 2 + 3?", answer: str = "It is 5.") -> v1.Trace:
    """A conversation in which the assistant adds two numbers by a tool."""
    return conversation(
        turn("system", "Be brief."),
        turn("user", question),
        turn("assistant", reasoning="I had better add.", tool_calls=[call("add", '{"b": 3, "a": 2}', "c1")]),
        turn("tool", "5", tool_call_id="c1", name="add"),
        turn("assistant", answer),
        tools=[ADD],
        source="made",
    )
