"""What a conversation is: its turns, the tools that the model was offered, and the rules they keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, final

import orjson
from pydantic import AfterValidator, Field, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from tunix_rt_trace_store.traces.model import (
    MAX_DEPTH,
    Label,
    Metadata,
    Source,
    TraceContent,
    no_nul,
)

Role = Literal["system", "developer", "user", "assistant", "tool"]

MAX_MESSAGES: Final = 1_000
MAX_CALLS: Final = 128
MAX_TEXT: Final = 500_000
_FIRST: Final = ("system", "developer")
_SPOKEN_ALONE: Final = ("reasoning", "tool_calls", "train")

LongName = Annotated[str, Field(max_length=256), AfterValidator(no_nul)]
RequiredName = Annotated[LongName, Field(min_length=1)]
MessageText = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(no_nul)]


def _text_alone(kind: str) -> str:
    if kind not in ("", "text"):
        raise PydanticCustomError(
            "content_type", "is {kind}; a trace holds text alone", {"kind": repr(kind[:60])}
        )
    return kind


class ContentPart(TypedDict):
    """A part of a message's text."""

    type: Annotated[str, AfterValidator(_text_alone)]
    text: MessageText


def _agreeing_call(call: ToolCall) -> ToolCall:
    given, text = call.pop("arguments", None), call["arguments_text"]
    if given is None and not text:
        raise PydanticCustomError(
            "arguments_missing",
            "is missing; an object, {none} for no arguments, would be right",
            {"path": ("arguments",), "none": "{}"},
        )
    if given is not None and _typed(json_object(text)) != _typed(given):
        raise PydanticCustomError(
            "arguments_differ",
            "is {text}, which is not the object that arguments holds; give one of the two",
            {"path": ("arguments_text",), "text": repr(text[:60])},
        )
    return call


class ToolCall(TypedDict):
    """A call that the assistant makes. ``arguments`` is checked against the text, and not kept."""

    id: LongName
    name: RequiredName
    arguments: NotRequired[Metadata]
    arguments_text: MessageText


def _whole_message(message: Message) -> Message:
    parts, role = message["content"], message["role"]
    length = sum(len(part["text"]) for part in parts)
    if length > MAX_TEXT:
        raise PydanticCustomError(
            "content_length",
            "has {length} characters; at most {most} would be right",
            {"path": ("content",), "length": f"{length:,}", "most": f"{MAX_TEXT:,}"},
        )
    if role != "assistant":
        for field in _SPOKEN_ALONE:
            if message.get(field):
                raise PydanticCustomError(
                    "assistant_alone",
                    "is given in a message of role {role}; only the assistant's have it",
                    {"path": (field,), "role": role},
                )
    if role != "tool" and message["tool_call_id"]:
        raise PydanticCustomError(
            "tool_alone",
            "is given in a message of role {role}; only a tool's has it",
            {"path": ("tool_call_id",), "role": role},
        )
    if not length and role != "tool" and not message["tool_calls"]:
        raise PydanticCustomError(
            "content_empty", "is empty; the text of the message would be right", {"path": ("content",)}
        )
    return message


class Message(TypedDict):
    """One turn."""

    role: Role
    content: Annotated[list[ContentPart], Field(max_length=1_000)]
    reasoning: MessageText
    tool_calls: Annotated[
        list[Annotated[ToolCall, AfterValidator(_agreeing_call)]], Field(max_length=MAX_CALLS)
    ]
    tool_call_id: LongName
    name: LongName
    train: Literal["", "yes", "no"]


def _agreeing_tool(tool: Tool) -> Tool:
    fields, text = tool.pop("fields", {}), tool["definition_text"]
    if not text:
        raise PydanticCustomError(
            "tool_missing",
            "is missing; the tool's name, or its definition_text, would be right",
            {"path": ("name",)},
        )
    definition = json_object(text)
    function = tool_function(definition or {})
    if function is None:
        raise PydanticCustomError(
            "definition_text",
            "is {text}; a JSON object with a name, or with type function and such an object as function, "
            "at most {depth} levels deep, would be right",
            {"path": ("definition_text",), "text": repr(text[:60]), "depth": MAX_DEPTH},
        )
    for name, value in fields.items():
        if _typed(function.get(name)) != _typed(value):
            raise PydanticCustomError(
                "tool_differs",
                "is not what definition_text says; give one of the two",
                {"path": (name,)},
            )
    return tool


class Tool(TypedDict):
    """A tool that the model was offered. ``fields`` are checked against the text, and not kept."""

    fields: NotRequired[Metadata]
    definition_text: MessageText


def _unique_tools(tools: list[Tool]) -> list[Tool]:
    seen: dict[str, int] = {}
    for index, tool in enumerate(tools):
        function = tool_function(json_object(tool["definition_text"]) or {})
        assert function is not None
        first = seen.setdefault(function["name"], index)
        if first != index:
            raise PydanticCustomError(
                "duplicate_tool",
                "is {name}, which tools[{first}] is already; each tool needs a name of its own",
                {"path": (index, "name"), "name": repr(function["name"][:60]), "first": first},
            )
    return tools


def _in_order(messages: list[Message]) -> list[Message]:
    begun, open_calls = False, _OpenCalls()
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            open_calls.answer(index, message)
            continue
        open_calls.close(index)
        if role in _FIRST:
            if begun:
                raise _wrong(index, "role", f"is {role}; such messages stand before the first of the user's")
            continue
        if not begun and role != "user":
            raise _wrong(index, "role", f"is {role}; a conversation begins with a message of the user's")
        begun = True
        open_calls.make(index, message)
    if not any(message["role"] == "assistant" for message in messages):
        raise PydanticCustomError(
            "no_assistant", "hold no message of the assistant's; a trace needs at least one", {}
        )
    return messages


class _OpenCalls:
    """The calls of the assistant's latest message that have no result yet, and the ids of all calls."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[int, int]] = {}
        self._open: list[tuple[tuple[int, int], str]] = []
        self._may_follow = False

    def make(self, index: int, message: Message) -> None:
        self._open = []
        self._may_follow = bool(message["tool_calls"])
        for number, call in enumerate(message["tool_calls"]):
            place = (index, number)
            if call["id"] and (first := self._made.setdefault(call["id"], place)) != place:
                raise _wrong(
                    index,
                    "tool_calls",
                    f"is {call['id'][:60]!r}, which messages[{first[0]}].tool_calls[{first[1]}] has already",
                    number,
                    "id",
                )
            self._open.append((place, call["id"]))

    def answer(self, index: int, message: Message) -> None:
        wanted = message["tool_call_id"]
        for at, (_, call_id) in enumerate(self._open):
            if call_id == wanted:
                del self._open[at]
                return
        if not self._may_follow:
            raise _wrong(index, "role", "is tool, but the assistant's message before it makes no call")
        if not wanted:
            raise _wrong(
                index,
                "tool_call_id",
                "is missing; the id of the call that the message answers would be right",
            )
        left = ", ".join(repr(call_id[:60]) for _, call_id in self._open if call_id)
        right = f"one of {left} would be right" if left else "all calls before it have their results"
        raise _wrong(
            index, "tool_call_id", f"is {wanted[:60]!r}, which is no call that waits for one; {right}"
        )

    def close(self, index: int) -> None:
        if self._open:
            (at, number), call_id = self._open[0]
            told = f" {call_id[:60]!r}" if call_id else ""
            raise _wrong(
                at,
                "tool_calls",
                f"is a call{told} without a result, and messages[{index}] goes on; only those at the end of "
                "a conversation may have none",
                number,
            )


def _wrong(index: int, field: str, problem: str, *inner: int | str) -> PydanticCustomError:
    return PydanticCustomError(
        "conversation", "{problem}", {"path": (index, field, *inner), "problem": problem}
    )


def _either(_: Any) -> Any:
    raise PydanticCustomError("either_form", "is given beside messages; a trace has one of the two", {})


NotBeside = Annotated[Any, AfterValidator(_either)]


@final
class ConversationContent(TypedDict):
    """What a client writes of a conversation."""

    prompt: NotRequired[NotBeside]
    steps: NotRequired[NotBeside]
    final_answer: NotRequired[NotBeside]
    trace_version: Label
    messages: Annotated[
        list[Annotated[Message, AfterValidator(_whole_message)]],
        Field(min_length=1, max_length=MAX_MESSAGES),
        AfterValidator(_in_order),
    ]
    tools: Annotated[
        list[Annotated[Tool, AfterValidator(_agreeing_tool)]],
        Field(max_length=MAX_CALLS),
        AfterValidator(_unique_tools),
    ]
    metadata: Metadata
    source: Source


CONVERSATION: Final = TypeAdapter(ConversationContent)


def canonical_content(content: ConversationContent) -> dict[str, Any]:
    """What the content digest of a conversation is over: its fields, without those that are empty."""
    return {
        "trace_version": content["trace_version"],
        "messages": [_canonical_message(message) for message in content["messages"]],
        "tools": [tool["definition_text"] for tool in content["tools"]],
        "metadata": content["metadata"],
        "source": content["source"],
    }


def _canonical_message(message: Message) -> dict[str, Any]:
    calls = [
        {"id": call["id"], "name": call["name"], "arguments": call["arguments_text"]}
        for call in message["tool_calls"]
    ]
    fields = {
        "role": message["role"],
        "content": [part["text"] for part in message["content"]],
        "reasoning": message["reasoning"],
        "tool_calls": calls,
        "tool_call_id": message["tool_call_id"],
        "name": message["name"],
        "train": message["train"],
    }
    return {name: value for name, value in fields.items() if value}


def text_of(message: Message) -> str:
    """The text of a message, its parts joined."""
    return "".join(part["text"] for part in message["content"])


def final_text(content: TraceContent | ConversationContent) -> str:
    """What the assistant says last; empty where that is a call alone."""
    if "messages" not in content:
        return content["final_answer"]
    return text_of(
        next(message for message in reversed(content["messages"]) if message["role"] == "assistant")
    )


def thoughts(content: TraceContent | ConversationContent) -> list[str]:
    """The steps of a trace; of a conversation what the assistant thought, and the calls that it made."""
    if "messages" not in content:
        return [step["content"] for step in content["steps"]]
    found: list[str] = []
    for message in content["messages"]:
        found += [message["reasoning"]] if message["reasoning"] else []
        found += map(_written, message["tool_calls"])
    return found


def turns(content: TraceContent | ConversationContent) -> list[tuple[str, str]]:
    """Who speaks, and all that is said, turn by turn."""
    if "messages" not in content:
        answer = "\n".join([*thoughts(content), content["final_answer"]])
        return [("user", content["prompt"]), ("assistant", answer)]
    return [(message["role"], _whole_text(message)) for message in content["messages"]]


def _whole_text(message: Message) -> str:
    said = (message["reasoning"], text_of(message), *map(_written, message["tool_calls"]))
    return "\n".join(text for text in said if text)


def _written(call: ToolCall) -> str:
    return f"{call['name']}({call['arguments_text']})"


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, as a Struct can hold it; None if it is none."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and _fits(found, 1) else None


def _typed(value: Any) -> Any:
    """``value`` such that only what a Struct cannot tell apart is equal: it has numbers of one type."""
    if isinstance(value, dict):
        return {key: _typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_typed(entry) for entry in value]
    return float(value) if type(value) in (int, float) else (type(value), value)


def _fits(value: Any, depth: int) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth <= MAX_DEPTH and all(_fits(entry, depth + 1) for entry in inner)
    return not isinstance(value, float) or math.isfinite(value)


def tool_function(definition: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The function of a tool's definition, bare or wrapped; None if it is no such definition."""
    function = definition.get("function") if definition.get("type") == "function" else definition
    if not isinstance(function, Mapping):
        return None
    name, description = function.get("name"), function.get("description", "")
    parameters = function.get("parameters", {})
    named = isinstance(name, str) and 0 < len(name) <= 256
    fits = isinstance(description, str) and isinstance(parameters, dict)
    return function if named and fits else None
