"""What a conversation is: its messages, the tools that the model was offered, and the rules they keep.

Plain dictionaries that pydantic checks when they arrive, in a trace or in an item of an eval set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired, TypeVar

import orjson
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

Role = Literal["system", "developer", "user", "assistant", "tool"]

MAX_MESSAGES: Final = 1_000
MAX_CALLS: Final = 128
MAX_TEXT: Final = 500_000
# A message is read to a depth of 100, and a trace stands deeper in some answers than in the request.
MAX_DEPTH: Final = 30
_FIRST: Final = ("system", "developer")
_SPOKEN_ALONE: Final = ("reasoning", "tool_calls", "train")


def no_nul(text: str) -> str:
    """``text``; what validates texts that are stored."""
    if "\0" in text:
        raise PydanticCustomError(
            "nul_character", "holds a NUL character at position {at}", {"at": text.index("\0")}
        )
    return text


def _bad_value(value: Any, path: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], str] | None:
    """Where a JSON value holds something that cannot be stored, and what it is."""
    if len(path) > MAX_DEPTH:
        return path[:1], f"is nested more than {MAX_DEPTH} levels deep"
    if isinstance(value, str):
        return (path, "holds a NUL character") if "\0" in value else None
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"is {value}; numbers must be finite"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if "\0" in key:
                return path, f"has the key {key!r}, which holds a NUL character"
            if bad := _bad_value(item, (*path, key)):
                return bad
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if bad := _bad_value(item, (*path, index)):
                return bad
    return None


def keepable(metadata: dict[str, Any]) -> dict[str, Any]:
    """``metadata``; what validates free-form JSON that is stored."""
    if bad := _bad_value(metadata, ()):
        raise PydanticCustomError("json_value", "{problem}", {"path": bad[0], "problem": bad[1]})
    return metadata


Metadata = Annotated[dict[str, Any], AfterValidator(keepable)]
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


T = TypeVar("T", bound=Sequence["Tool"])


def unique_tools(tools: T) -> T:
    """``tools``, each with a name of its own; what validates them."""
    seen: dict[str, int] = {}
    for index, name in enumerate(tool_names(tools)):
        first = seen.setdefault(name, index)
        if first != index:
            raise PydanticCustomError(
                "duplicate_tool",
                "is {name}, which tools[{first}] is already; each tool needs a name of its own",
                {"path": (index, "name"), "name": repr(name[:60]), "first": first},
            )
    return tools


def tool_names(tools: Sequence[Tool]) -> list[str]:
    """The names of tools, in order."""
    functions = [tool_function(json_object(tool["definition_text"]) or {}) or {} for tool in tools]
    return [function["name"] for function in functions]


M = TypeVar("M", bound=Sequence["Message"])


def in_order(messages: M) -> M:
    """``messages``, whose roles are in an order that a chat template can render; what validates them."""
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


CheckedMessage = Annotated[Message, AfterValidator(_whole_message)]
CheckedTool = Annotated[Tool, AfterValidator(_agreeing_tool)]

Messages = Annotated[
    list[CheckedMessage],
    Field(min_length=1, max_length=MAX_MESSAGES),
    AfterValidator(in_order),
]
"""The messages of a conversation, in an order that a chat template can render."""

Tools = Annotated[
    list[CheckedTool],
    Field(max_length=MAX_CALLS),
    AfterValidator(unique_tools),
]
"""The tools that the model was offered, each with a name of its own."""


def text_of(message: Message) -> str:
    """The text of a message, its parts joined."""
    return "".join(part["text"] for part in message["content"])


def whole_text(message: Message) -> str:
    """All that is said in a message: thoughts, text and calls."""
    said = (message["reasoning"], text_of(message), *map(written_call, message["tool_calls"]))
    return "\n".join(text for text in said if text)


def written_call(call: ToolCall) -> str:
    """A call as people read it, such as ``add({"a": 1})``."""
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
