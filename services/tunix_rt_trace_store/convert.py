"""Traces and scores between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Final, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tunix_rt import v1
from tunix_rt.spans import (
    CONTENT_IS_OFF,
    WITHOUT_CONTENT,
    Span,
    SpanEvent,
    conversations,
    cycles,
    holds_content,
    is_about_models,
    is_model_call,
)
from tunix_rt_kit.convert import (
    filter_time,
    message_fields,
    plain_struct,
    plain_value,
    read_texts,
    timestamp,
    tool_fields,
)
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_trace_store.redacted_spans import SpanRedaction
from tunix_rt_trace_store.traces.conversation import ConversationContent
from tunix_rt_trace_store.traces.live_spans import Assembled, NewSpan, RefusedTrace
from tunix_rt_trace_store.traces.model import (
    CreateResult,
    DuplicatePolicy,
    Score,
    ScoreResult,
    StoredTrace,
    TraceContent,
    TraceDraft,
)
from tunix_rt_trace_store.traces.service import Comparison, ScoredTrace, StepPair

_POLICIES: Final[Mapping[int, DuplicatePolicy]] = {
    v1.DUPLICATE_POLICY_UNSPECIFIED: "keep",
    v1.DUPLICATE_POLICY_KEEP: "keep",
    v1.DUPLICATE_POLICY_SKIP: "skip",
}
_OF_ONE_ANSWER: Final = ("prompt", "final_answer", "steps")
_OUTPUT_ONLY: Final = ("name", "content_digest", "sequence", "create_time")


def draft(trace: v1.Trace) -> TraceDraft:
    """A trace as a client wrote it, unchecked, without the server's own fields and unknown ones.

    Arguments of calls and definitions of tools are kept as texts.
    """
    written = v1.Trace()
    written.CopyFrom(trace)
    for field in _OUTPUT_ONLY:
        written.ClearField(field)
    written.DiscardUnknownFields()
    if not _is_conversation(trace):
        return TraceDraft(_content(trace), written.SerializeToString(deterministic=True))
    fields = {
        **_shared(trace),
        **{name: value for name in _OF_ONE_ANSWER if (value := getattr(trace, name))},
        "messages": [message_fields(message) for message in written.messages],
        "tools": [tool_fields(tool) for tool in written.tools],
    }
    return TraceDraft(fields, written.SerializeToString(deterministic=True), is_conversation=True)


def content(encoded: bytes) -> TraceContent | ConversationContent:
    """The content of a stored, encoded trace."""
    trace = v1.Trace.FromString(encoded)
    if not _is_conversation(trace):
        return cast(TraceContent, _content(trace))
    messages, tools = map(message_fields, trace.messages), map(tool_fields, trace.tools)
    return cast(ConversationContent, {**_shared(trace), "messages": list(messages), "tools": list(tools)})


def _is_conversation(trace: v1.Trace) -> bool:
    return bool(trace.messages or trace.tools)


def _shared(trace: v1.Trace) -> dict[str, Any]:
    return {
        "trace_version": trace.trace_version,
        "metadata": plain_struct(trace.metadata),
        "source": trace.source,
    }


def _content(trace: v1.Trace) -> dict[str, Any]:
    return {
        "trace_version": trace.trace_version,
        "prompt": trace.prompt,
        "steps": [{"i": step.i, "type": step.type, "content": step.content} for step in trace.steps],
        "final_answer": trace.final_answer,
        "metadata": plain_struct(trace.metadata),
        "source": trace.source,
    }


def duplicate_policy(policy: int) -> DuplicatePolicy:
    """The policy with that number in the contract; raises InvalidArgument(DUPLICATE_POLICY_INVALID)."""
    known = _POLICIES.get(policy)
    if known is None:
        raise InvalidArgument.of_field(
            "duplicate_policy",
            f"is {policy}; one of {', '.join(v1.DuplicatePolicy.keys())} would be right",
            reason="DUPLICATE_POLICY_INVALID",
        )
    return known


def filter_fields(wanted: v1.TraceFilter) -> dict[str, Any]:
    """A filter's fields, unchecked but for its times; raises InvalidArgument(FILTER_INVALID)."""
    return {
        "sources": list(wanted.sources),
        "metadata": [_metadata_condition(entry, index) for index, entry in enumerate(wanted.metadata)],
        "created_from": filter_time(wanted, "created_from"),
        "created_before": filter_time(wanted, "created_before"),
        "prompt_contains": wanted.prompt_contains,
        "scores": [{"criterion": entry.criterion, "minimum": entry.minimum} for entry in wanted.scores],
        "is_conversation": wanted.is_conversation if wanted.HasField("is_conversation") else None,
        "has_tool_calls": wanted.has_tool_calls if wanted.HasField("has_tool_calls") else None,
        "min_assistant_turns": wanted.min_assistant_turns,
        "max_assistant_turns": wanted.max_assistant_turns,
    }


def trace_message(trace: StoredTrace) -> v1.Trace:
    """A stored trace, its texts of JSON read."""
    message = streamed_message(trace)
    read_texts(message)
    return message


def streamed_message(trace: StoredTrace) -> v1.Trace:
    """A stored trace as it is kept: the arguments of its calls and its tools are texts alone."""
    message = v1.Trace.FromString(trace.encoded)
    message.name = f"traces/{trace.id}"
    message.content_digest = trace.content_digest
    message.sequence = trace.sequence
    message.create_time.CopyFrom(timestamp(trace.create_time))
    return message


def create_response(results: Sequence[CreateResult]) -> v1.BatchCreateTracesResponse:
    """The results of a batch."""
    created = sum(result.created for result in results)
    return v1.BatchCreateTracesResponse(
        results=[
            v1.BatchCreateTracesResult(
                name=f"traces/{result.id}", content_digest=result.content_digest, created=result.created
            )
            for result in results
        ],
        created_count=created,
        skipped_count=len(results) - created,
    )


def batch_score_response(results: Iterable[ScoreResult]) -> v1.BatchScoreTracesResponse:
    """The scores of each trace, or why it has none."""
    return v1.BatchScoreTracesResponse(
        results=[
            v1.BatchScoreTracesResult(
                scores=[score_message(score) for score in result.scores],
                reason=result.reason,
                message=result.message,
            )
            for result in results
        ]
    )


def score_fields(scores: Iterable[v1.TraceScore]) -> list[dict[str, Any]]:
    """Scores that a client wrote, unchecked."""
    return [
        {
            "trace": score.trace,
            "criterion": score.criterion,
            "value": score.value,
            "details": plain_struct(score.details),
        }
        for score in scores
    ]


def comparison_response(comparison: Comparison) -> v1.CompareTracesResponse:
    """Two traces side by side."""
    return v1.CompareTracesResponse(
        base=_scored(comparison.base),
        other=_scored(comparison.other),
        alignment=map(_aligned, comparison.alignment),
        same_final_answer=comparison.same_final_answer,
        turns=map(_aligned, comparison.turns),
    )


def _aligned(pair: StepPair) -> v1.StepAlignment:
    return v1.StepAlignment(
        relation=v1.StepAlignment.Relation.Value(f"RELATION_{pair.relation.upper()}"),
        base_index=pair.base_index,
        other_index=pair.other_index,
    )


def _scored(scored: ScoredTrace) -> v1.ScoredTrace:
    return v1.ScoredTrace(
        trace=trace_message(scored.trace), scores=[score_message(score) for score in scored.scores]
    )


def score_message(score: Score) -> v1.TraceScore:
    """One score."""
    message = v1.TraceScore(
        trace=f"traces/{score.trace_id}",
        criterion=score.criterion,
        value=score.value,
        create_time=timestamp(score.create_time),
    )
    message.details.update(score.details)
    return message


def _metadata_condition(entry: v1.MetadataCondition, index: int) -> dict[str, Any]:
    kind = entry.WhichOneof("condition")
    if kind == "exists":
        return {"key": entry.key, "kind": "exists", "value": entry.exists}
    if kind is None or entry.equals.WhichOneof("kind") in {None, "struct_value", "list_value"}:
        raise _invalid_filter(
            f"filter.metadata[{index}].{kind or 'condition'}",
            "needs a string, number, boolean or null in equals, or exists",
        )
    return {"key": entry.key, "kind": "equals", "value": plain_value(entry.equals)}


def _invalid_filter(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.of_field(field, description, reason="FILTER_INVALID")


_SERVICE: Final = "service.name"
_NAMED: Final = 5
_TOLD: Final = 20
_REASON_CHARACTERS: Final = 2_000


@dataclass(slots=True)
class ReceivedSpans:
    """The spans of a request: those to store, and what is wrong with which others; how many of the first are
    calls of a model, and how many of these come without what was said."""

    spans: list[NewSpan] = dataclass_field(default_factory=list)
    refused: list[str] = dataclass_field(default_factory=list)
    model_calls: int = 0
    without_content: int = 0


def received_spans(request: ExportTraceServiceRequest, redaction: SpanRedaction) -> ReceivedSpans:
    """The spans of a request, without what no conversation needs and what is to be kept out."""
    received = ReceivedSpans()
    kept: list[SpanMessage] = []
    for resource_at, of_resource in enumerate(request.resource_spans):
        service = _service_name(of_resource.resource.attributes)
        for scope_at, of_scope in enumerate(of_resource.scope_spans):
            place = f"resource_spans[{resource_at}].scope_spans[{scope_at}]"
            inside = cycles(
                {_ids(span): span.trace_id.hex() + span.parent_span_id.hex() for span in of_scope.spans}
            )
            for index, span in enumerate(of_scope.spans):
                problem = _span_problem(span, inside)
                if problem:
                    received.refused.append(f"{place}.spans[{index}].{problem}")
                else:
                    kept.append(_kept(span, service, received))
    received.spans = [
        NewSpan(span.trace_id, span.span_id, not span.parent_span_id, span.SerializeToString())
        for span in redaction.received(kept)
    ]
    return received


def _ids(span: SpanMessage) -> str:
    return span.trace_id.hex() + span.span_id.hex()


def _span_problem(span: SpanMessage, inside: Mapping[str, str]) -> str:
    """What is wrong with a span's ids, empty if nothing is."""
    for name, size in (("trace_id", 16), ("span_id", 8), ("parent_span_id", 8)):
        found: bytes = getattr(span, name)
        if len(found) != size and (found or name != "parent_span_id"):
            return f"{name}: has {len(found)} bytes; {size} would be right"
        if found and not any(found):
            return f"{name}: is zero, which is no id"
    if _ids(span) in inside:
        return f"parent_span_id: leads back to the span {span.span_id.hex()} itself"
    return ""


def _kept(span: SpanMessage, service: str, received: ReceivedSpans) -> SpanMessage:
    names = (*(entry.key for entry in span.attributes), *(event.name for event in span.events))
    if not any(map(is_about_models, names)):
        return SpanMessage(trace_id=span.trace_id, span_id=span.span_id, parent_span_id=span.parent_span_id)
    read = _span(span)
    if is_model_call(read.attributes) and not read.failed:
        received.model_calls += 1
        received.without_content += not holds_content(read)
    span.ClearField("links")
    if service:
        span.attributes.append(KeyValue(key=_SERVICE, value=AnyValue(string_value=service)))
    return span


def _service_name(attributes: Iterable[KeyValue]) -> str:
    """The name that somebody gave the service; SDKs make one up where nobody did."""
    found = next((entry.value.string_value for entry in attributes if entry.key == _SERVICE), "")
    return "" if found.startswith("unknown_service") else found


def export_response(
    received: ReceivedSpans, full: Sequence[NewSpan], most: int
) -> ExportTraceServiceResponse:
    """The answer to a request: what was refused, in OTLP's way, or what its sender should know.

    ``full`` are the spans for which there was no room, as more than ``most`` bytes of their trace wait.
    """
    told = [
        f"trace {span.trace_id.hex()}, span {span.span_id.hex()}: more than {most:,} bytes of its trace wait"
        for span in full
    ]
    refused = [*received.refused, *told]
    more = [f"and {len(refused) - _NAMED:,} more"] if len(refused) > _NAMED else []
    lines = [*refused[:_NAMED], *more]
    if received.without_content:
        lines.append(
            f"{received.without_content:,} of {received.model_calls:,} calls of models come without messages "
            f"and become no traces; {CONTENT_IS_OFF}"
        )
    response = ExportTraceServiceResponse()
    if lines:
        response.partial_success.rejected_spans = len(refused)
        response.partial_success.error_message = "; ".join(lines)
    return response


def assembled(
    trace_id: bytes, encoded: Sequence[bytes], *, each_call: bool, redaction: SpanRedaction
) -> Assembled:
    """The conversations in the stored spans of one trace; see ``tunix_rt.spans.conversations``."""
    spans = redaction.joined(trace_id, list(map(SpanMessage.FromString, encoded)), encoded)
    found = conversations(map(_span, spans), each_call=each_call)
    traces = [redaction.conversation(trace_id, trace) for trace in found.traces]
    return Assembled(
        [(draft(trace), plain_struct(trace.metadata)["otel_span_ids"]) for trace in traces],
        {refused.span_id: refused.reason for refused in found.refused},
        found.left_out,
        0 if found.traces else found.left_out[WITHOUT_CONTENT],
    )


def refused_message(trace: RefusedTrace) -> v1.RefusedSpans:
    """The spans of a trace that were refused, those with one reason together."""
    by_reason: dict[str, list[str]] = {}
    for span_id, reason in trace.refused.items():
        by_reason.setdefault(reason, []).append(span_id)
    reasons = [
        v1.RefusalReason(
            reason=reason[:_REASON_CHARACTERS],
            span_count=0 if "" in ids else len(ids),
            span_ids=[] if "" in ids else ids[:_TOLD],
        )
        for reason, ids in by_reason.items()
    ]
    if trace.silent:
        reason = f"{WITHOUT_CONTENT}; {CONTENT_IS_OFF}"
        reasons.append(v1.RefusalReason(reason=reason, span_count=trace.silent))
    message = v1.RefusedSpans(otel_trace_id=trace.trace_id.hex(), reasons=reasons[:_TOLD])
    message.refuse_time.CopyFrom(timestamp(trace.refuse_time))
    return message


def _span(span: SpanMessage) -> Span:
    attributes = _attributes(span.attributes)
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes,
        events=[SpanEvent(event.name, _attributes(event.attributes)) for event in span.events],
        service=str(attributes.get(_SERVICE, "")),
        dropped=span.dropped_attributes_count + span.dropped_events_count,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
    )


def _attributes(entries: Iterable[KeyValue]) -> dict[str, Any]:
    return {entry.key: _attribute(entry.value) for entry in entries}


def _attribute(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_attribute(entry) for entry in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None
