"""Conversations as an OpenAI-compatible API takes them, and the calls that it returns.

What a model thought in earlier turns is left out: these APIs have no field for it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tunix_rt_evaluator.evaluations.job_folders import WorkerItem
from tunix_rt_evaluator.grading.reading.calls import written
from tunix_rt_kit.conversations import Message, text_of


def asked_of(item: WorkerItem) -> dict[str, Any]:
    """The messages, and the tools if there are any, of the request for an item."""
    if not item.messages:
        return {"messages": [{"role": "user", "content": item.prompt}]}
    asked: dict[str, Any] = {"messages": _messages(item.messages)}
    if item.tools:
        asked["tools"] = [_tool(json.loads(text)) for text in item.tools]
    return asked


def with_calls(text: str, reply: Any) -> str:
    """The text of a reply's message with its calls behind it, each as Hermes' block; raises as
    ``openai_endpoint.text_of`` where a call is no text."""
    blocks = []
    for call in getattr(reply, "tool_calls", None) or ():
        block = written(call.function.name, call.function.arguments or "{}")
        block.encode()
        blocks.append(block)
    return "\n".join([*([text] if text else []), *blocks])


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []
    # A call needs an id there; a result without one answers the first such call that has none yet.
    unnamed: deque[str] = deque()
    for index, message in enumerate(messages):
        fields: dict[str, Any] = {"role": message["role"], "content": text_of(message)}
        if message["role"] == "tool":
            fields["tool_call_id"] = message["tool_call_id"] or unnamed.popleft()
        elif message["name"]:
            fields["name"] = message["name"]
        if message["tool_calls"]:
            unnamed.clear()
            fields["tool_calls"] = []
            fields["content"] = fields["content"] or None
            for number, call in enumerate(message["tool_calls"]):
                call_id = call["id"] or f"call_{index}_{number}"
                unnamed += [] if call["id"] else [call_id]
                function = {"name": call["name"], "arguments": call["arguments_text"]}
                fields["tool_calls"].append({"id": call_id, "type": "function", "function": function})
        asked.append(fields)
    return asked


def _tool(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    if definition.get("type") == "function" and "function" in definition:
        return definition
    return {"type": "function", "function": definition}
