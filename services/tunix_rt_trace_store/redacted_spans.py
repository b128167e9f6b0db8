"""Spans without personal data and secrets, before they are stored, and the conversations made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tunix_rt import v1
from tunix_rt.redaction import Redactor
from tunix_rt.redaction.parts import PartsRedactor, tags_in
from tunix_rt.redaction.redactor import Edit

# What stands in a conversation's metadata by the store's own doing: ids, of which some look like cards.
_OWN: Final = ("otel_trace_id", "otel_span_ids")


class SpanRedaction:
    """What is kept out of spans that come, and out of their conversations.

    Args:
        redactor: None if nothing is kept out.
        key: of the tags; asked for when it is needed first.
    """

    def __init__(self, redactor: Redactor | None, key: Callable[[], bytes]) -> None:
        self._redactor = redactor
        self._key = key

    def received(self, spans: Sequence[Span]) -> Sequence[Span]:
        """Spans of one request with tags in place of values."""
        if self._redactor is None:
            return spans
        redactor = PartsRedactor(self._redactor, self._key())
        by_trace: dict[bytes, list[Span]] = defaultdict(list)
        for span in spans:
            _strip(span)
            by_trace[span.trace_id].append(span)
        parts = (redactor.part(trace_id, of_it, _edited) for trace_id, of_it in by_trace.items())
        return list(chain.from_iterable(parts))

    def joined(self, trace_id: bytes, spans: Sequence[Span], encoded: Sequence[bytes]) -> Sequence[Span]:
        """All spans of a trace, with tags also where only another one showed what a value is."""
        tags = tags_in(encoded)
        if not tags:
            return spans
        return PartsRedactor(self._redactor, self._key()).joined(trace_id, list(spans), _edited, tags)

    def conversation(self, trace_id: bytes, trace: v1.Trace) -> v1.Trace:
        """A conversation with placeholders, how many of which kind stands in its metadata."""
        if self._redactor is None and not tags_in([trace.SerializeToString()]):
            return trace
        bare = v1.Trace()
        bare.CopyFrom(trace)
        for name in _OWN:
            del bare.metadata.fields[name]
        redacted, counts = PartsRedactor(self._redactor, self._key()).trace(trace_id, bare)
        for name in _OWN:
            redacted.metadata.fields[name].CopyFrom(trace.metadata.fields[name])
        if counts:
            redacted.metadata.update({"redacted": dict(sorted(counts.items()))})
        return redacted


def _edited(spans: list[Span], edit: Edit) -> list[Span]:
    return [_edited_span(span, edit) for span in spans]


def _edited_span(span: Span, edit: Edit) -> Span:
    edited = Span()
    edited.CopyFrom(span)
    edited.name = edit.text(span.name, "")
    edited.status.message = edit.text(span.status.message, "")
    _edit_attributes(edited.attributes, edit)
    for event in edited.events:
        event.name = edit.text(event.name, "")
        _edit_attributes(event.attributes, edit)
    return edited


def _edit_attributes(attributes: Iterable[KeyValue], edit: Edit) -> None:
    for entry in attributes:
        _edit_value(entry.value, entry.key, edit)
        entry.key = edit.plain(entry.key, "", exact=True)


def _edit_value(value: AnyValue, key: str, edit: Edit) -> None:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        value.string_value = edit.text(value.string_value, key)
    elif kind == "int_value":
        shown = str(value.int_value)
        changed = edit.text(shown, key)
        if changed != shown:
            value.string_value = changed
    elif kind == "array_value":
        for inner in value.array_value.values:
            _edit_value(inner, key, edit)
    elif kind == "kvlist_value":
        _edit_attributes(value.kvlist_value.values, edit)


def _strip(span: Span) -> None:
    """Clear what no conversation needs and no pattern can look into."""
    span.DiscardUnknownFields()
    span.ClearField("trace_state")
    _clear_bytes(span.attributes)
    for event in span.events:
        _clear_bytes(event.attributes)


def _clear_bytes(attributes: Iterable[KeyValue]) -> None:
    values = [entry.value for entry in attributes]
    while values:
        value = values.pop()
        values += value.array_value.values
        values += (entry.value for entry in value.kvlist_value.values)
        if value.HasField("bytes_value"):
            value.Clear()
