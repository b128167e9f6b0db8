"""Spans of calls of a model, as instrumentations write them."""

from __future__ import annotations

import json
from typing import Any

from tunix_rt.spans import Span, SpanEvent

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def text(role: str, content: str) -> dict[str, Any]:
    """A message of GenAI's conventions."""
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def asks_weather(call_id: str = "c1") -> dict[str, Any]:
    """The message in which the assistant calls the tool."""
    part = {"type": "tool_call", "id": call_id, "name": "get_weather", "arguments": {"city": "Paris"}}
    return {"role": "assistant", "parts": [{"type": "reasoning", "content": "Look it up."}, part]}


def weather(call_id: str = "c1") -> dict[str, Any]:
    """What the tool gives."""
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "response": "rainy"}]}


def gen_ai(asked: list[Any], answer: Any, **more: Any) -> dict[str, Any]:
    """Attributes of a call of GenAI's conventions."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m-1",
        "gen_ai.input.messages": json.dumps(asked),
        "gen_ai.output.messages": json.dumps([answer]),
        **more,
    }


def span(number: int, attributes: dict[str, Any] | None = None, parent: int = 0, **fields: Any) -> Span:
    """A span whose id and start are ``number``; parent 0 is none."""
    return Span(
        trace_id=f"{1:032x}",
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        start_ns=fields.pop("start_ns", number),
        attributes=attributes or {},
        **fields,
    )


def agent_run() -> list[Span]:
    """An agent's run: two calls of a model, a tool between them."""
    question = text("user", "Weather in Paris?")
    first = gen_ai([question], asks_weather(), **{"gen_ai.tool.definitions": json.dumps([WEATHER])})
    # What goes in later is without the thoughts, as providers want it.
    sent = {"role": "assistant", "parts": asks_weather()["parts"][1:]}
    second = gen_ai([question, sent, weather()], text("assistant", "It rains."))
    return [
        span(1, {"gen_ai.operation.name": "invoke_agent"}),
        span(2, first, 1),
        span(3, {"gen_ai.operation.name": "execute_tool"}, 1),
        span(4, second, 1),
    ]


def event(name: str, **attributes: Any) -> SpanEvent:
    return SpanEvent(name, attributes)
