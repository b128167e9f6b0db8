"""Traces and scores between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from tunix_rt import v1
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.convert import filter_time, plain_struct, plain_value, timestamp
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_trace_store.traces.conversation import ConversationContent, json_object, tool_function
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
_ROLES: Final = {
    number: name.removeprefix("ROLE_").lower() for name, number in v1.Message.Role.items() if number
}
_TRAIN: Final = {v1.Message.TRAIN_UNSPECIFIED: "", v1.Message.TRAIN_YES: "yes", v1.Message.TRAIN_NO: "no"}
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
        "messages": [_message(message) for message in written.messages],
        "tools": [_tool(tool) for tool in written.tools],
    }
    return TraceDraft(fields, written.SerializeToString(deterministic=True), is_conversation=True)


def content(encoded: bytes) -> TraceContent | ConversationContent:
    """The content of a stored, encoded trace."""
    trace = v1.Trace.FromString(encoded)
    if not _is_conversation(trace):
        return cast(TraceContent, _content(trace))
    messages, tools = map(_message, trace.messages), map(_tool, trace.tools)
    return cast(ConversationContent, {**_shared(trace), "messages": list(messages), "tools": list(tools)})


def _is_conversation(trace: v1.Trace) -> bool:
    return bool(trace.messages or trace.tools)


def _shared(trace: v1.Trace) -> dict[str, Any]:
    return {
        "trace_version": trace.trace_version,
        "metadata": plain_struct(trace.metadata),
        "source": trace.source,
    }


def _message(message: v1.Message) -> dict[str, Any]:
    return {
        "role": _ROLES.get(message.role, str(message.role)),
        "content": [{"type": part.type, "text": part.text} for part in message.content],
        "reasoning": message.reasoning,
        "tool_calls": [_call(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "train": _TRAIN.get(message.train, str(message.train)),
    }


def _call(call: v1.ToolCall) -> dict[str, Any]:
    """The fields of a call; its arguments stay in ``call`` as a text alone."""
    fields: dict[str, Any] = {"id": call.id, "name": call.name}
    if call.HasField("arguments"):
        fields["arguments"] = plain_struct(call.arguments)
        call.arguments_text = call.arguments_text or _as_text(fields["arguments"])
        call.ClearField("arguments")
    return {**fields, "arguments_text": call.arguments_text}


def _tool(tool: v1.Tool) -> dict[str, Any]:
    """The fields of a tool; its definition stays in ``tool`` as a text alone."""
    fields: dict[str, Any] = {
        name: value for name in ("name", "description") if (value := getattr(tool, name))
    }
    if tool.HasField("parameters"):
        fields["parameters"] = plain_struct(tool.parameters)
    if fields:
        if not tool.definition_text and tool.name:
            tool.definition_text = _as_text({"type": "function", "function": fields})
        for name in ("name", "description", "parameters"):
            tool.ClearField(name)
        return {"fields": fields, "definition_text": tool.definition_text}
    return {"definition_text": tool.definition_text}


def _as_text(fields: dict[str, Any]) -> str:
    try:
        return canonical_json(fields).decode()
    except InvalidArgument:
        # The checks of the fields say what is wrong with them.
        return ""


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
    for turn in message.messages:
        for call in turn.tool_calls:
            if (arguments := json_object(call.arguments_text)) is not None:
                call.arguments.update(arguments)
    for tool in message.tools:
        function = tool_function(json_object(tool.definition_text) or {}) or {}
        tool.name, tool.description = function.get("name", ""), function.get("description", "")
        if "parameters" in function:
            tool.parameters.update(function["parameters"])
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
