"""What a span says of one call of a model: the messages that went in, the answer, and the tools.

Read are, in this order, the first that is there:

- GenAI's semantic conventions: ``gen_ai.input.messages`` and ``gen_ai.output.messages`` (with
  ``gen_ai.system_instructions`` and ``gen_ai.tool.definitions``) as attributes of the span, or of its event
  ``gen_ai.client.inference.operation.details``.
- OpenInference: ``llm.input_messages.N.message...``, ``llm.output_messages...``, ``llm.tools...``.
- OpenLLMetry: ``gen_ai.prompt.N...``, ``gen_ai.completion.N...``, ``llm.request.functions...``.
- GenAI's older conventions: events of the span, ``gen_ai.user.message`` and its like and ``gen_ai.choice``;
  and ``gen_ai.content.prompt`` and ``gen_ai.content.completion``, or attributes of such names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.spans.messages import SpanError, join, messages_of, read_json, tools_of

Attributes = Mapping[str, Any]

_OPERATIONS: Final = ("chat", "generate_content", "text_completion")
_MESSAGES: Final = ("gen_ai.input.messages", "gen_ai.output.messages")
_DETAILS: Final = "gen_ai.client.inference.operation.details"
_EVENT_ROLES: Final = {
    f"gen_ai.{role}.message": role for role in ("system", "developer", "user", "assistant", "tool")
}
_CHOICE: Final = "gen_ai.choice"
_OLDEST: Final = {"gen_ai.content.prompt": "gen_ai.prompt", "gen_ai.content.completion": "gen_ai.completion"}
_ABOUT: Final = ("gen_ai.", "llm.", "openinference.")


UNREADABLE: Final = (TypeError, ValueError, AttributeError, KeyError, IndexError)
"""What reading attributes of any kind may raise."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened in a span."""

    name: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of OpenTelemetry.

    ``trace_id``, ``span_id`` and ``parent_id`` (empty for the root) are hex digits, times nanoseconds since
    1970. ``service`` is the resource's ``service.name``. ``dropped`` counts attributes and events that the
    application's SDK left out, ``failed`` says that the status is an error.
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str = ""
    start_ns: int = 0
    end_ns: int = 0
    attributes: Attributes = field(default_factory=dict)
    events: Sequence[SpanEvent] = ()
    service: str = ""
    dropped: int = 0
    failed: bool = False


@dataclass(slots=True)
class ModelCall:
    """One call of a model: ``messages`` went in, ``answer`` came out."""

    span: Span
    messages: list[v1.Message]
    answer: v1.Message
    tools: list[v1.Tool]


@dataclass(slots=True)
class _Held:
    """The content of a span, as objects: what each list is, and the attribute that it stands in."""

    asked: Sequence[Any]
    answered: Sequence[Any]
    tools: Sequence[Any] = ()
    system: Sequence[Any] = ()
    names: tuple[str, str, str] = ("", "", "")
    choices: bool = False


def is_about_models(name: str) -> bool:
    """Whether an attribute or an event of this name may belong to the call of a model."""
    return name.startswith(_ABOUT)


def is_model_call(attributes: Attributes) -> bool:
    """Whether the span with these attributes is the call of a model, with its content or without."""
    kind = attributes.get("openinference.span.kind")
    if isinstance(kind, str) and kind:
        return kind.upper() == "LLM"
    if operation := attributes.get("gen_ai.operation.name"):
        return operation in _OPERATIONS
    return attributes.get("llm.request.type") in ("chat", "completion")


def holds_content(span: Span) -> bool:
    """Whether what was asked and answered is in the span; most instrumentations leave it out unless told."""
    try:
        # Not read where it need not be: it is large.
        if all(len(span.attributes.get(name) or "") > 2 for name in _MESSAGES):
            return True
        held = _held(span)
    except UNREADABLE:
        return True
    return held is not None and bool(held.asked and held.answered)


def read_call(span: Span, left_out: Counter[str]) -> ModelCall | None:
    """The call that a span with content is; None where what was asked or answered is missing.

    ``left_out`` counts, by kind, what the span says and a trace does not hold. Raises SpanError.
    """
    held = _held(span)
    if held is None or not held.asked or not held.answered:
        return None
    if span.dropped:
        raise SpanError(
            f"the application's SDK left out {span.dropped} of the span's attributes or events; set "
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and OTEL_SPAN_EVENT_COUNT_LIMIT there, 10000 for instance"
        )
    asked, answered, offered = held.names
    system = _system(held.system)
    messages = messages_of([*system, *held.asked], asked, left_out)
    if len(system) and len(messages) > 1 and messages[0] == messages[1]:
        del messages[0]
    answer = _answer(held, messages_of_each(held.answered, answered, left_out), _count(span), left_out)
    if answer is None:
        return None
    return ModelCall(span, messages, answer, tools_of(held.tools, offered, left_out))


def messages_of_each(rows: Iterable[Any], where: str, left_out: Counter[str]) -> list[v1.Message]:
    """As ``messages_of``, of an answer: its objects are not joined. Raises SpanError."""
    found: list[v1.Message] = []
    for index, row in enumerate(rows):
        row = {"role": "assistant", **row} if isinstance(row, Mapping) else row
        for message in messages_of([row], f"{where}[{index}]", left_out):
            if message.role != v1.Message.ROLE_ASSISTANT:
                raise SpanError(f"{where}[{index}].role: is no assistant's; an answer is the assistant's")
            found.append(message)
    return found


def _answer(held: _Held, messages: list[v1.Message], count: int, left_out: Counter[str]) -> v1.Message | None:
    """The answer: the first of several, or one whose parts are messages of their own."""
    if not messages:
        return None
    spoken = sum(bool(message.content) for message in messages)
    first, *others = messages
    if count > 1 or spoken > 1 or (held.choices and others):
        left_out["answers of a call beyond its first"] += len(others)
        others = []
    for other in others:
        join(first, other)
    return first if first.content or first.tool_calls else None


def _count(span: Span) -> int:
    """How many answers were asked for."""
    count = span.attributes.get("gen_ai.request.choice.count")
    parameters = span.attributes.get("llm.invocation_parameters")
    if count is None and isinstance(parameters, str) and '"n"' in parameters:
        found = read_json(parameters, "llm.invocation_parameters")
        count = found.get("n") if isinstance(found, Mapping) else None
    return count if isinstance(count, int) else 1


def _system(parts: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "parts": list(parts)}] if parts else []


def _held(span: Span) -> _Held | None:
    ways: Iterable[Callable[[Span], _Held | None]] = (_gen_ai, _openinference, _openllmetry, _events, _oldest)
    return next((held for way in ways if (held := way(span)) is not None), None)


def _gen_ai(span: Span) -> _Held | None:
    names = (*_MESSAGES, "gen_ai.tool.definitions")
    given: dict[str, Any] = {}
    for event in span.events:
        if event.name == _DETAILS:
            given.update(event.attributes)
    given.update(span.attributes)
    if names[0] not in given and names[1] not in given:
        return None
    asked, answered, tools, system = (_rows(given, name) for name in (*names, "gen_ai.system_instructions"))
    return _Held(asked, answered, tools, system, names)


def _rows(given: Attributes, name: str) -> list[Any]:
    """The list that an attribute holds, as it is or as JSON; a text is the only entry of one."""
    value = given.get(name)
    if isinstance(value, str) and value[:1] in ("[", "{"):
        value = read_json(value, name)
    if isinstance(value, Mapping):
        inner = value.get("messages")
        value = inner if isinstance(inner, list) else [value]
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _openinference(span: Span) -> _Held | None:
    names = ("llm.input_messages", "llm.output_messages", "llm.tools")
    if not _any_begins(span.attributes, "llm"):
        return None
    asked, answered, tools = (entries(span.attributes, name) for name in names)
    if not asked and not answered:
        return None
    return _Held(
        [_openinference_message(row) for row in asked],
        [_openinference_message(row) for row in answered],
        [_openinference_tool(row) for row in tools],
        names=names,
    )


def _openinference_message(row: dict[str, Any]) -> dict[str, Any]:
    message = _inside(row, "message")
    parts: list[Any] = []
    for part in entries(message, "contents"):
        content, call = _inside(part, "message_content"), _inside(part, "tool_call")
        if content.get("type") == "tool_use":
            # Most have it among the calls of the message, too.
            parts += [] if entries(message, "tool_calls") else [_openinference_call(call)]
        else:
            parts.append(content)
    calls = [_openinference_call(_inside(call, "tool_call")) for call in entries(message, "tool_calls")]
    if name := message.get("function_call_name"):
        calls.append({"name": name, "arguments": message.get("function_call_arguments_json")})
    return {
        "role": message.get("role"),
        "content": parts or message.get("content"),
        "tool_calls": calls,
        "tool_call_id": message.get("tool_call_id"),
        "name": message.get("name"),
    }


def _openinference_call(call: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "tool_call",
        "id": call.get("id"),
        "name": call.get("function.name"),
        "arguments": call.get("function.arguments"),
    }


def _openinference_tool(row: dict[str, Any]) -> Any:
    tool = _inside(row, "tool")
    text, name = tool.get("json_schema"), tool.get("name")
    if not isinstance(text, str):
        return {key: tool.get(key) for key in ("name", "description")}
    schema = read_json(text, "llm.tools")
    if not name or not isinstance(schema, Mapping) or schema.get("name") or schema.get("function"):
        return text
    # Some providers' definitions are the schema of the arguments alone.
    return {"name": name, "description": tool.get("description"), "parameters": schema}


def _openllmetry(span: Span) -> _Held | None:
    names = ("gen_ai.prompt", "gen_ai.completion", "llm.request.functions")
    if not _any_begins(span.attributes, "gen_ai.prompt", "gen_ai.completion"):
        return None
    asked, answered, tools = (
        entries(span.attributes, name) if not isinstance(span.attributes.get(name), str) else []
        for name in names
    )
    if not asked and not answered:
        return None
    return _Held(
        [_openllmetry_message(row) for row in asked],
        [_openllmetry_message(row) for row in answered],
        [_openllmetry_tool(row) for row in tools],
        names=names,
    )


def _openllmetry_message(row: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {
            "id": call.get("id"),
            "name": call.get("name") or call.get("function.name"),
            "arguments": call.get("arguments") or call.get("function.arguments"),
        }
        for call in entries(row, "tool_calls")
    ]
    return {**row, "tool_calls": calls} if calls else row


def _openllmetry_tool(row: dict[str, Any]) -> dict[str, Any]:
    given = row.get("parameters")
    parameters = read_json(given, "llm.request.functions") if isinstance(given, str) else given
    return {"name": row.get("name"), "description": row.get("description"), "parameters": parameters}


def _events(span: Span) -> _Held | None:
    asked: list[Any] = []
    answered: list[Any] = []
    for event in span.events:
        if event.name == _CHOICE:
            answered.append(_choice(_body(event)))
        elif role := _EVENT_ROLES.get(event.name):
            asked.append({"role": role, **_body(event)})
    if not asked and not answered:
        return None
    # Without their content there are events of roles alone.
    asked = asked if any(_speaks(row) for row in asked) else []
    answered = [row for row in answered if _speaks(row)]
    return _Held(asked, answered, names=("gen_ai.*.message", _CHOICE, ""), choices=True)


def _body(event: SpanEvent) -> dict[str, Any]:
    """An event's body, which stands in one attribute as JSON, or field by field."""
    for key in ("gen_ai.event.content", "body", "event_body"):
        if isinstance(text := event.attributes.get(key), str) and text:
            found = read_json(text, f"{event.name}.{key}") if text[0] in "{[" else text
            return dict(found) if isinstance(found, Mapping) else {"content": found}
    given = {key: value for key, value in event.attributes.items() if not key.startswith("gen_ai.")}
    if isinstance(calls := given.get("tool_calls"), str):
        given["tool_calls"] = read_json(calls, f"{event.name}.tool_calls")
    return given


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    message = body.get("message")
    if isinstance(message, str) and message[:1] in ("{", "["):
        message = read_json(message, f"{_CHOICE}.message")
    if isinstance(message, Mapping):
        return {"role": "assistant", **message}
    if message is not None:
        return {"role": "assistant", "content": message}
    inside = _inside(body, "message")
    return {"role": "assistant", **(inside or body)}


def _speaks(row: Mapping[str, Any]) -> bool:
    return any(row.get(key) for key in ("content", "parts")) or any(
        isinstance(call, Mapping) and (call.get("arguments") or _inside(call, "function").get("arguments"))
        for call in row.get("tool_calls") or []
    )


def _oldest(span: Span) -> _Held | None:
    found: dict[str, list[Any]] = {"gen_ai.prompt": [], "gen_ai.completion": []}
    for event in span.events:
        if name := _OLDEST.get(event.name):
            found[name] += _rows(event.attributes, name)
    for name, rows in found.items():
        rows += [] if rows else _rows(span.attributes, name)
    asked, answered = (
        [row if isinstance(row, Mapping) else {"role": role, "content": row} for row in rows]
        for role, rows in zip(("user", "assistant"), found.values(), strict=True)
    )
    if not asked and not answered:
        return None
    return _Held(asked, answered, names=("gen_ai.prompt", "gen_ai.completion", ""))


def _any_begins(attributes: Attributes, *names: str) -> bool:
    return any(key.startswith(names) for key in attributes)


def entries(attributes: Attributes, prefix: str) -> list[dict[str, Any]]:
    """The objects of a list that is written as attributes, ``PREFIX.N.KEY``, or stands in one as it is.

    Each object has its keys in the flattened form. Raises SpanError if one is missing.
    """
    if isinstance(whole := _nested(attributes, prefix), list | tuple):
        return [_flat(entry) if isinstance(entry, Mapping) else {"": entry} for entry in whole]
    start, found = f"{prefix}.", dict[int, dict[str, Any]]()
    for key, value in attributes.items():
        if key.startswith(start):
            number, _, rest = key[len(start) :].partition(".")
            if number.isascii() and number.isdigit() and len(number) < 7:
                found.setdefault(int(number), {})[rest] = value
    numbers = sorted(found)
    for expected, at in enumerate(numbers):
        if at != expected:
            raise SpanError(f"{start}{expected}: is missing, and {start}{at} is there")
    return [_flat(found[at]) for at in numbers]


def _nested(attributes: Attributes, prefix: str) -> Any:
    """The value at a dotted name, in attributes that are nested or not; None where there is none."""
    if prefix in attributes:
        return attributes[prefix]
    head, _, rest = prefix.partition(".")
    inner = attributes.get(head)
    return _nested(inner, rest) if rest and isinstance(inner, Mapping) else None


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An object with objects in it as one of dotted names; lists stay."""
    found: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            found.update({f"{key}.{name}": inner for name, inner in _flat(value).items()})
        else:
            found[key] = value
    return found


def _inside(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of ``NAME.FIELD``."""
    if isinstance(row.get(name), Mapping):
        return _flat(row[name])
    start = f"{name}."
    return {key[len(start) :]: value for key, value in row.items() if key.startswith(start)}
