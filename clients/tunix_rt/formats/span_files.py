"""Exported spans: OTLP JSON, what Phoenix exports, and what Langfuse does.

Each becomes spans of OpenTelemetry, which ``tunix_rt.spans`` makes conversations of: an agent's calls of a
model are one conversation, and so are the traces of a session where the spans name it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.content import is_object
from tunix_rt.formats.dialogue import BAD_CALL, BAD_CALLS, mended
from tunix_rt.formats.reading import Lossy, Reading, Record
from tunix_rt.spans import CONTENT_IS_OFF, Span, SpanEvent, conversations, is_about_models

_SESSION: Final = ("gen_ai.conversation.id", "session.id")
_ERROR: Final = (2, "STATUS_CODE_ERROR", "ERROR")
# The last is Tempo's name, which other documents may have, too.
_OTLP: Final = ("resourceSpans", "resource_spans", "resourceLogs", "resource_logs", "batches")
_LANGFUSE: Final = (
    {"trace", "observations"},
    {"id", "observations"},
    {"id", "traceId", "type"},
    {"id", "trace_id", "project_id", "type"},
    *({"id", "timestamp", "input", "output", mark} for mark in ("sessionId", "projectId", "htmlPath")),
)
_LANGCHAIN: Final[Mapping[Any, str]] = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
}
# A log record may tell of a call whose span is not in the file.
_CALL: Final = {"gen_ai.operation.name": "chat"}
_SPEAKS: Final = ("content", "tool_calls", "parts")
# Of what spans leave out: how one is called, and what became of it, where it is not as it is of the others.
_TOLD: Final = {
    "conversations that call tools whose definitions were not recorded": (
        "conversation that calls tools whose definitions were not recorded",
        "kept without these",
    ),
    "tools that are no functions, or in a form that is not known": (
        "tool that is no function, or in a form that is not known",
        "left out",
    ),
}
_ITEMS: Final = ("data", "spans", "observations", "traces")


def is_otlp(keys: Iterable[str]) -> bool:
    """Whether a document is spans, or log records, in OTLP JSON."""
    return not set(keys).isdisjoint(_OTLP[:-1])


def is_phoenix(keys: Iterable[str]) -> bool:
    """Whether a document is a span as Phoenix exports it: by its API, or a row of its data frame."""
    found = set(keys)
    return {"context", "span_kind"} <= found or {"context.trace_id", "context.span_id"} <= found


def is_langfuse(keys: Iterable[str]) -> bool:
    """Whether a document is a trace, or an observation, as Langfuse exports it."""
    found = set(keys)
    return (
        {"trace", "observations"} <= found
        or {"id", "observations"} <= found
        or {"traceId", "type", "id"} <= found
        or {"trace_id", "type", "id", "project_id"} <= found
        or (
            {"id", "timestamp", "input", "output"} <= found
            and not found.isdisjoint({"sessionId", "projectId", "htmlPath"})
        )
    )


def span_records(
    documents: Iterable[tuple[int, Mapping[str, Any] | Record]], file: str, reading: Reading
) -> Iterator[Record]:
    """Yield the conversations in the spans of a file, and what is wrong with others. All spans are read
    first, as those of a trace may stand anywhere.

    Raises FormatError for a file in whose calls of a model nothing was recorded of what was said.
    """
    spans: dict[tuple[str, str], Span] = {}
    events: dict[tuple[str, str], list[SpanEvent]] = {}
    for number, document in documents:
        if isinstance(document, Record):
            yield document
            continue
        try:
            for span in _spans(_mended(document, reading.lossy), events):
                spans.setdefault((span.trace_id, span.span_id), span)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            problem = f"holds spans that cannot be read: {error}"
            yield Record(number, b"", None, FormatError(number, problem, file=file))
    for (trace_id, span_id), told in events.items():
        span = spans.get((trace_id, span_id)) or Span(trace_id, span_id, attributes=_CALL)
        spans[trace_id, span_id] = replace(span, events=[*span.events, *told])
    yield from _records(_groups(spans.values()), file, reading)


def _records(groups: Iterable[list[Span]], file: str, reading: Reading) -> Iterator[Record]:
    number, silent = 0, 0
    for spans in groups:
        found = conversations(spans)
        for what, count in found.left_out.items():
            one, became = _TOLD.get(what, (what.replace("s ", " ", 1), "left out"))
            reading.lossy.add(one, became, count, many=what)
            silent += count if "without its messages" in what else 0
        for trace in found.traces:
            number += 1
            error = _unreadable_call(trace, file, reading)
            yield Record(number, b"", trace if error is None else None, error)
        for refused in found.refused:
            number += 1
            told = f"span {refused.span_id[:40]} {refused.reason}"
            yield Record(number, b"", None, FormatError(0, told, file=file))
        if not found.traces and not found.refused:
            # What was counted of spans that gave nothing counts all the same.
            reading.lossy.keep()
    if not number:
        problem = "holds no call of a model with what was asked and answered"
        raise FormatError(0, f"{problem}: {CONTENT_IS_OFF}" if silent else problem, file=file)


def _unreadable_call(trace: v1.Trace, file: str, reading: Reading) -> FormatError | None:
    """What is wrong with calls whose arguments are no JSON object, if these are refused; else they count."""
    for message in trace.messages:
        for call in message.tool_calls:
            if is_object(call.arguments_text):
                continue
            if reading.bad_arguments == "refuse":
                of = trace.metadata.fields["otel_trace_id"].string_value[:40]
                problem = f"has a call of {call.name[:60]} whose arguments are no JSON object"
                return FormatError(0, f"a conversation of trace {of} {problem}", file=file)
            reading.lossy.add(BAD_CALL, "kept as text", many=BAD_CALLS)
    return None


def _groups(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans of each trace, or of each session of which traces say that they are a part."""
    traces: dict[str, list[Span]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    groups: dict[tuple[str, str], list[Span]] = {}
    for trace_id, found in traces.items():
        names = {str(span.attributes[key]) for span in found for key in _SESSION if span.attributes.get(key)}
        # Several sessions in one trace are the affair of a workflow that runs them.
        key = ("session", names.pop()) if len(names) == 1 else ("trace", trace_id)
        groups.setdefault(key, []).extend(found)
    return list(groups.values())


def _spans(document: Mapping[str, Any], events: dict[tuple[str, str], list[SpanEvent]]) -> Iterator[Span]:
    if not document.keys().isdisjoint(_OTLP):
        yield from _otlp(document, events)
    elif is_phoenix(document):
        yield _phoenix(document)
    elif is_langfuse(document):
        yield from _langfuse(document)
    elif inner := next((document[key] for key in _ITEMS if isinstance(document.get(key), list)), None):
        # A page of an API's answer, or a trace with its spans.
        for entry in inner:
            yield from _spans(entry, events)
    elif isinstance(document.get("trace"), Mapping):
        yield from _spans(document["trace"], events)


def _mended(value: Any, lossy: Lossy) -> Any:
    """A document whose texts are all such that a trace can hold them."""
    if isinstance(value, str):
        return mended(value, lossy)
    if isinstance(value, dict):
        return {mended(key, lossy): _mended(entry, lossy) for key, entry in value.items()}
    return [_mended(entry, lossy) for entry in value] if isinstance(value, list) else value


def _otlp(document: Mapping[str, Any], events: dict[tuple[str, str], list[SpanEvent]]) -> Iterator[Span]:
    for resource in _lists(document, *_OTLP):
        facts = _attributes(_either(resource.get("resource") or {}, "attributes"))
        service = str(facts.get("service.name") or "")
        for scope in _lists(resource, "scopeSpans", "scope_spans", "instrumentationLibrarySpans"):
            for span in _lists(scope, "spans"):
                yield _otlp_span(span, service)
        for scope in _lists(resource, "scopeLogs", "scope_logs"):
            for record in _lists(scope, "logRecords", "log_records"):
                _add_event(record, events)


def _otlp_span(span: Mapping[str, Any], service: str) -> Span:
    status = span.get("status") or {}
    told = [
        SpanEvent(str(event.get("name") or ""), _attributes(event.get("attributes")))
        for event in _lists(span, "events")
    ]
    return Span(
        trace_id=str(_either(span, "traceId", "trace_id") or ""),
        span_id=str(_either(span, "spanId", "span_id") or ""),
        parent_id=str(_either(span, "parentSpanId", "parent_span_id") or ""),
        name=str(span.get("name") or ""),
        start_ns=int(_either(span, "startTimeUnixNano", "start_time_unix_nano") or 0),
        end_ns=int(_either(span, "endTimeUnixNano", "end_time_unix_nano") or 0),
        attributes=_attributes(span.get("attributes")),
        events=[event for event in told if is_about_models(event.name)],
        service=service,
        dropped=sum(int(span.get(key) or 0) for key in ("droppedAttributesCount", "droppedEventsCount")),
        failed=status.get("code") in _ERROR,
    )


def _add_event(record: Mapping[str, Any], events: dict[tuple[str, str], list[SpanEvent]]) -> None:
    """A log record that tells of a span, as some instrumentations write what was said."""
    attributes = _attributes(record.get("attributes"))
    name = str(_either(record, "eventName", "event_name") or attributes.get("event.name") or "")
    body = _value(record.get("body"))
    if is_about_models(name):
        place = (
            str(_either(record, "traceId", "trace_id") or ""),
            str(_either(record, "spanId", "span_id") or ""),
        )
        given = {**attributes, **body} if isinstance(body, dict) else {**attributes, "body": body}
        events.setdefault(place, []).append(SpanEvent(name, given))


def _attributes(rows: Any) -> dict[str, Any]:
    if isinstance(rows, Mapping):
        return dict(rows)
    return {str(row["key"]): _value(row.get("value")) for row in rows or ()}


def _value(value: Any) -> Any:
    """A value of OTLP JSON as Python's own."""
    if not isinstance(value, Mapping):
        return value
    for kind, inner in value.items():
        match kind.replace("_value", "Value"):
            case "stringValue" | "boolValue" | "doubleValue" | "bytesValue":
                return inner
            case "intValue":
                return int(inner)
            case "arrayValue":
                return [_value(entry) for entry in inner.get("values") or ()]
            case "kvlistValue":
                return _attributes(inner.get("values"))
    return None


def _phoenix(row: Mapping[str, Any]) -> Span:
    context = row.get("context")
    if isinstance(context, Mapping):
        attributes = dict(row.get("attributes") or {})
    else:
        context = {key: row.get(f"context.{key}") for key in ("trace_id", "span_id")}
        start = "attributes."
        attributes = {key[len(start) :]: value for key, value in row.items() if key.startswith(start)}
    attributes = {key: value for key, value in attributes.items() if value is not None}
    attributes.setdefault("openinference.span.kind", str(row.get("span_kind") or ""))
    told = [
        SpanEvent(str(event.get("name") or ""), event.get("attributes") or {})
        for event in row.get("events") or ()
    ]
    return Span(
        trace_id=str(context.get("trace_id") or ""),
        span_id=str(context.get("span_id") or ""),
        parent_id=str(row.get("parent_id") or ""),
        name=str(row.get("name") or ""),
        start_ns=_nanoseconds(row.get("start_time")),
        end_ns=_nanoseconds(row.get("end_time")),
        attributes=attributes,
        events=[event for event in told if is_about_models(event.name)],
        service="phoenix",
        failed=row.get("status_code") in _ERROR,
    )


def _langfuse(row: Mapping[str, Any]) -> Iterator[Span]:
    trace = row.get("trace")
    observations = row.get("observations")
    if not isinstance(observations, list):
        is_trace = not row.get("traceId") and not row.get("trace_id")
        yield _trace_span(row) if is_trace else _observation(row, "")
        return
    trace = trace if isinstance(trace, Mapping) else row
    session = str(trace.get("sessionId") or "")
    spans = [_observation(entry, session) for entry in observations if isinstance(entry, Mapping)]
    spans = [replace(span, trace_id=span.trace_id or str(trace.get("id") or "")) for span in spans]
    yield from spans
    if not any(span.attributes.get("gen_ai.input.messages") for span in spans):
        yield _trace_span(trace)


def _observation(row: Mapping[str, Any], session: str) -> Span:
    attributes: dict[str, Any] = {}
    if str(row.get("type")).upper() == "GENERATION":
        asked, tools = _asked(row.get("input"))
        attributes = {
            **_CALL,
            "gen_ai.input.messages": asked,
            "gen_ai.output.messages": _answered(row.get("output")),
            "gen_ai.tool.definitions": tools or _offered(_either(row, "toolDefinitions", "tool_definitions")),
            "gen_ai.request.model": _either(row, "model", "provided_model_name"),
        }
    attributes["session.id"] = session or _either(row, "sessionId", "session_id")
    return Span(
        trace_id=str(_either(row, "traceId", "trace_id") or ""),
        span_id=str(row.get("id") or ""),
        parent_id=str(_either(row, "parentObservationId", "parent_observation_id") or ""),
        name=str(row.get("name") or ""),
        start_ns=_nanoseconds(_either(row, "startTime", "start_time")),
        end_ns=_nanoseconds(_either(row, "endTime", "end_time")),
        attributes={key: value for key, value in attributes.items() if value},
        service="langfuse",
        failed=row.get("level") == "ERROR",
    )


def _trace_span(row: Mapping[str, Any]) -> Span:
    """A trace whose calls are not there, as the one call that its input and output tell of."""
    whole = {**row, "type": "GENERATION", "traceId": row.get("id"), "startTime": row.get("timestamp")}
    return _observation(whole, "")


def _asked(given: Any) -> tuple[list[Any], list[Any]]:
    """The messages that went in, and the tools."""
    given = _parsed(given)
    tools: list[Any] = []
    if isinstance(given, Mapping) and isinstance(given.get("messages"), list):
        tools = list(given.get("tools") or ())
        given = given["messages"]
    rows = given if isinstance(given, list) else [] if given in (None, "") else [given]
    messages = []
    for row in map(_parsed, rows):
        content = row.get("content") if isinstance(row, Mapping) else None
        if isinstance(row, Mapping) and row.get("role") == "tool" and _is_tool(content):
            # The handler for LangChain writes the tools behind the messages.
            tools.append(content)
        else:
            messages.append(_message(row, "user"))
    return messages, tools


def _is_tool(content: Any) -> bool:
    return isinstance(content, Mapping) and content.get("type") == "function" and "function" in content


def _answered(given: Any) -> list[Any]:
    given = _parsed(given)
    if isinstance(given, Mapping) and isinstance(given.get("choices"), list) and given["choices"]:
        first = given["choices"][0]
        given = first.get("message") if isinstance(first, Mapping) else first
    if given in (None, "", [], {}):
        return []
    return [_message(row, "assistant") for row in (given if isinstance(given, list) else [given])]


def _message(row: Any, role: str) -> Any:
    if isinstance(row, Mapping) and (
        row.get("role") or not row.keys().isdisjoint({"content", "tool_calls", "parts"})
    ):
        return (
            {"role": role, **row}
            if row.get("role")
            else {**row, "role": _LANGCHAIN.get(row.get("type"), role)}
        )
    return {"role": role, "content": row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)}


def _offered(given: Any) -> list[Any]:
    """Tools as Langfuse keeps them beside a call: by name, each as JSON."""
    given = _parsed(given)
    if isinstance(given, Mapping):
        found = []
        for name, tool in given.items():
            tool = _parsed(tool)
            found.append(
                {"name": name, **tool} if isinstance(tool, Mapping) and "function" not in tool else tool
            )
        return found
    return given if isinstance(given, list) else []


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _nanoseconds(value: Any) -> int:
    """A moment that a document tells in ISO 8601, or in milliseconds."""
    if isinstance(value, str) and value:
        return int(datetime.fromisoformat(value).timestamp() * 1_000_000) * 1_000
    return int(value * 1_000_000) if isinstance(value, int | float) else 0


def _either(row: Mapping[str, Any], *keys: str) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _lists(row: Mapping[str, Any], *keys: str) -> Iterator[Mapping[str, Any]]:
    """The objects of the lists under some keys."""
    for key in keys:
        for entry in row.get(key) or ():
            if isinstance(entry, Mapping):
                yield entry
