"""Messages as instrumentations write them, in the contract's form.

GenAI's semantic conventions have ``parts``, OpenAI and Anthropic ``content`` and ``tool_calls``, Bedrock
``toolUse``. All are JSON objects of a role and what is said, and are read by one reader.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.thoughts import leading_thoughts

HIDDEN: Final = "__REDACTED__"
"""What OpenInference writes in the place of a text that it is told to hide."""

_ASSISTANT: Final = v1.Message.ROLE_ASSISTANT
_TOOL: Final = v1.Message.ROLE_TOOL
_ROLES: Final = {
    "system": v1.Message.ROLE_SYSTEM,
    "developer": v1.Message.ROLE_DEVELOPER,
    "user": v1.Message.ROLE_USER,
    "human": v1.Message.ROLE_USER,
    "assistant": _ASSISTANT,
    "ai": _ASSISTANT,
    "model": _ASSISTANT,
    # OpenLLMetry's name for the thoughts that come before an answer of the same call.
    "thinking": _ASSISTANT,
    "tool": _TOOL,
    "function": _TOOL,
}
_TEXTS: Final = ("text", "input_text", "output_text", "refusal")
_THOUGHTS: Final = ("reasoning", "thinking")
_CALLS: Final = ("tool_call", "tool_use", "function_call", "function")
_RESULTS: Final = ("tool_call_response", "tool_result", "function_call_output")
_OF_PROVIDER: Final = ("server_tool_call", "server_tool_call_response")


class SpanError(ValueError):
    """Why a span makes no conversation: one line that names the attribute and what is wrong with it."""


def json_text(value: Any) -> str:
    """``value`` as JSON without spaces, its keys in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass
class _Said:
    """What one object says."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[v1.ToolCall] = field(default_factory=list)
    results: list[v1.Message] = field(default_factory=list)


def messages_of(rows: Sequence[Any], where: str, left_out: Counter[str]) -> list[v1.Message]:
    """The messages of JSON objects in their order, those joined that are parts of one answer.

    Args:
        rows: the objects.
        where: the attribute that holds them, for errors.
        left_out: counts what is left out, by kind.

    Raises SpanError.
    """
    found: list[v1.Message] = []
    for index, row in enumerate(rows):
        for message in _messages(row, f"{where}[{index}]", left_out):
            if found and _of_one_answer(found[-1], message):
                join(found[-1], message)
            else:
                found.append(message)
    return found


def _of_one_answer(first: v1.Message, second: v1.Message) -> bool:
    """Whether two messages are one: OpenAI's Responses API has an item for each thought, text and call."""
    if first.role != _ASSISTANT or second.role != _ASSISTANT:
        return False
    return bool(first.tool_calls or second.tool_calls) or not (first.content and second.content)


def join(first: v1.Message, second: v1.Message) -> None:
    """Put what ``second`` says into ``first``."""
    first.content.extend(second.content)
    first.reasoning = "\n\n".join(filter(None, [first.reasoning, second.reasoning]))
    first.tool_calls.extend(second.tool_calls)


def _messages(row: Any, where: str, left_out: Counter[str]) -> Iterable[v1.Message]:
    if not isinstance(row, Mapping):
        raise SpanError(f"{where}: is {_shown(row)}; an object with a role would be right")
    name = str(row.get("role") or "")
    role = _ROLES.get(name.lower())
    if role is None:
        known = "system, developer, user, assistant, tool"
        raise SpanError(f"{where}.role: is {name[:60]!r}; one of {known} would be right")
    said = _said(row, where, left_out)
    if name.lower() == "thinking":
        said.thoughts, said.texts = said.thoughts + said.texts, []
    elif role == _ASSISTANT and not said.thoughts:
        _part_thoughts(said, where)
    if said.results:
        if role == _ASSISTANT:
            raise SpanError(f"{where}: holds the result of a tool in a message of the assistant's")
        yield from said.results
    if role == _TOOL:
        if said.results and not said.texts:
            return
        yield _result(_id_of(row, "tool_call_id", "id"), "".join(said.texts), row.get("name"))
    elif said.texts or said.thoughts or said.calls:
        if role != _ASSISTANT and (said.thoughts or said.calls):
            raise SpanError(f"{where}: thinks or calls tools, which only the assistant does")
        yield v1.Message(
            role=role,
            content=[v1.ContentPart(text=text) for text in said.texts],
            reasoning="\n\n".join(said.thoughts),
            tool_calls=said.calls,
            name=_text(row.get("name")),
        )
    elif role != _ASSISTANT and not said.results:
        raise SpanError(f"{where}: has no text; what it said was not recorded")


def _part_thoughts(said: _Said, where: str) -> None:
    """Part what was thought from what was said, where the one stands between marks before the other."""
    text = "".join(said.texts)
    try:
        thought, answer = leading_thoughts(text)
    except ValueError as problem:
        raise SpanError(f"{where}: {problem}") from None
    if answer != text:
        said.thoughts = [thought] if thought.strip() else []
        said.texts = [answer] if answer.strip() else []


def _said(row: Mapping[str, Any], where: str, left_out: Counter[str]) -> _Said:
    said = _Said()
    held = "parts" if row.get("parts") is not None else "content"
    content = _listed(row.get(held))
    for index, part in enumerate(content if isinstance(content, list) else [content]):
        if part is not None and part != "":
            _add(
                said, part, f"{where}.{held}" + (f"[{index}]" if isinstance(content, list) else ""), left_out
            )
    for key in ("reasoning_content", "reasoning"):
        if isinstance(thought := row.get(key), str) and thought:
            said.thoughts.append(_shown_text(thought, f"{where}.{key}"))
    calls = _listed(row.get("tool_calls"))
    for index, call in enumerate(calls if isinstance(calls, list) else []):
        said.calls.append(_call(call, f"{where}.tool_calls[{index}]"))
    if isinstance(old := row.get("function_call"), Mapping):
        said.calls.append(_call(old, f"{where}.function_call"))
    return said


def _listed(value: Any) -> Any:
    """``value``; the list of objects that it is as JSON, as attributes can hold no other."""
    if isinstance(value, str) and value.startswith("[{"):
        try:
            found = json.loads(value)
        except ValueError:
            return value
        if all(isinstance(entry, dict) and _kind(entry) for entry in found):
            return found
    return value


def _add(said: _Said, part: Any, where: str, left_out: Counter[str]) -> None:
    """Put one part of a message where it belongs; raises SpanError for what a trace cannot hold."""
    if isinstance(part, str):
        said.texts.append(_shown_text(part, where))
        return
    kind = _kind(part) if isinstance(part, Mapping) else ""
    # Bedrock's parts have what they are inside.
    inner: Any = part[kind] if kind and isinstance(part.get(kind), Mapping) else part
    if kind in _TEXTS:
        if text := _first(part, "content", "text", "refusal"):
            said.texts.append(_shown_text(text, where))
    elif kind in _THOUGHTS or kind == "reasoningContent":
        thought = inner.get("reasoningText") if kind == "reasoningContent" else part
        text = _first(thought, "content", "thinking", "text", "reasoning") if thought else ""
        if text:
            said.thoughts.append(_shown_text(text, where))
        else:
            left_out["thoughts that the model's provider keeps to itself"] += 1
    elif kind in _CALLS or kind == "toolUse":
        said.calls.append(_call(inner, where))
    elif kind in _RESULTS or kind == "toolResult":
        given = next(
            (inner[key] for key in ("response", "result", "output", "content") if key in inner), None
        )
        call_id = _id_of(inner, "id", "tool_use_id", "call_id", "toolUseId")
        said.results.append(_result(call_id, _result_text(given, where), inner.get("name")))
    elif kind in _OF_PROVIDER:
        left_out["calls of tools that the model's provider runs, and their results"] += 1
    elif kind == "redacted_thinking":
        left_out["thoughts that the model's provider keeps to itself"] += 1
    else:
        raise SpanError(f"{where}: is of type {kind[:60] or 'unknown'!r}; a trace holds text alone")


def _kind(part: Mapping[str, Any]) -> str:
    """The type of a part; Bedrock's parts have none, and are told by their only key."""
    if kind := part.get("type"):
        return str(kind)
    return next((key for key in ("text", "toolUse", "toolResult", "reasoningContent") if key in part), "")


def _call(call: Any, where: str) -> v1.ToolCall:
    if not isinstance(call, Mapping):
        raise SpanError(f"{where}: is {_shown(call)}; an object would be right")
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    name = _text(function.get("name"))
    if not name:
        raise SpanError(f"{where}.name: is missing; the name of the tool that is called would be right")
    given = next((function[key] for key in ("arguments", "input", "args") if key in function), None)
    arguments = given if isinstance(given, str) else json_text(given if given is not None else {})
    call_id = _id_of(call, "id", "call_id", "toolUseId")
    return v1.ToolCall(id=call_id, name=name, arguments_text=_shown_text(arguments or "{}", where))


def _result(call_id: str, text: str, name: Any) -> v1.Message:
    return v1.Message(role=_TOOL, content=[v1.ContentPart(text=text)], tool_call_id=call_id, name=_text(name))


def _result_text(given: Any, where: str) -> str:
    """What a tool gave as the text that the model reads: a text, the texts of its parts, or JSON."""
    given = _listed(given)
    if given is None or isinstance(given, str):
        return _shown_text(given or "", where)
    if isinstance(given, list) and given and all(isinstance(part, Mapping) for part in given):
        kinds = [_kind(part) for part in given]
        if all(kind in _TEXTS for kind in kinds):
            return "".join(_first(part, "text", "content") for part in given)
        if unfit := next((kind for kind in kinds if kind in ("image", "image_url", "audio", "blob")), ""):
            raise SpanError(f"{where}: is of type {unfit!r}; a trace holds text alone")
    return json_text(given)


def _id_of(row: Mapping[str, Any], *keys: str) -> str:
    return next((str(row[key]) for key in keys if row.get(key)), "")


def _first(part: Any, *keys: str) -> str:
    """The first of these fields that is a text, or the part if it is one."""
    if not isinstance(part, Mapping):
        return part if isinstance(part, str) else ""
    return next((part[key] for key in keys if isinstance(part.get(key), str)), "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _shown_text(text: str, where: str) -> str:
    if text == HIDDEN:
        raise SpanError(
            f"{where}: is hidden ({HIDDEN}); unset OPENINFERENCE_HIDE_INPUTS, OPENINFERENCE_HIDE_OUTPUTS and "
            "their like where the application runs"
        )
    return text


def _shown(value: Any) -> str:
    return repr(value)[:60]


def tools_of(definitions: Iterable[Any], where: str, left_out: Counter[str]) -> list[v1.Tool]:
    """The tools that were offered, each name once.

    Args:
        definitions: JSON objects, or their texts, in OpenAI's, Anthropic's or GenAI's form. A text that needs
            no change is kept to the character.
        where: the attribute that holds them, for errors.
        left_out: counts the tools that are no functions.

    Raises SpanError.
    """
    found: dict[str, v1.Tool] = {}
    for index, given in enumerate(definitions):
        place = f"{where}[{index}]"
        definition = read_json(given, place) if isinstance(given, str) else given
        if not isinstance(definition, Mapping):
            raise SpanError(f"{place}: is {_shown(given)}; an object would be right")
        function = _function(definition)
        if function is None:
            left_out["tools that are no functions, or in a form that is not known"] += 1
            continue
        wrapped = {"type": "function", "function": function}
        as_it_is = isinstance(given, str) and definition in (function, wrapped)
        tool = v1.Tool(definition_text=given if as_it_is else json_text(wrapped))
        found.setdefault(function["name"], tool)
    return list(found.values())


def _function(definition: Mapping[str, Any]) -> dict[str, Any] | None:
    """The function of a definition, its schema as ``parameters``; None where it is another tool."""
    inner = definition.get("function")
    function = inner if isinstance(inner, Mapping) else definition
    schema = next((function[key] for key in ("parameters", "input_schema") if function.get(key)), None)
    is_function = definition.get("type", "function") == "function" or "input_schema" in function
    if not is_function or not isinstance(function.get("name"), str):
        return None
    own = {"type", "input_schema"} if function is definition else {"input_schema"}
    kept = {key: value for key, value in function.items() if value is not None and key not in own}
    if isinstance(schema, Mapping):
        kept["parameters"] = schema
    return kept


def read_json(text: str, where: str) -> Any:
    """The JSON value that an attribute holds as a text; raises SpanError."""
    try:
        return json.loads(text, parse_float=_finite)
    except OverflowError as error:
        digits = str(error)[:40]
        raise SpanError(f"{where}: holds {digits}, a number beyond 1.8e308, which would be lost") from None
    except (ValueError, RecursionError) as error:
        if text.strip() == HIDDEN:
            _shown_text(HIDDEN, where)
        raise SpanError(
            f"{where}: is no JSON, or was cut off; OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT of the application, "
            "where it is set, must have room for it"
        ) from error


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise OverflowError(digits)
    return value
