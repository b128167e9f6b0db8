"""Traces and scores between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from tunix_rt import v1
from tunix_rt_kit.convert import filter_time, plain_struct, plain_value, timestamp
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_trace_store.traces.model import (
    CreateResult,
    DuplicatePolicy,
    Score,
    ScoreResult,
    StoredTrace,
    TraceContent,
    TraceDraft,
)
from tunix_rt_trace_store.traces.service import Comparison, ScoredTrace

_POLICIES: Final[Mapping[int, DuplicatePolicy]] = {
    v1.DUPLICATE_POLICY_UNSPECIFIED: "keep",
    v1.DUPLICATE_POLICY_KEEP: "keep",
    v1.DUPLICATE_POLICY_SKIP: "skip",
}
_OUTPUT_ONLY: Final = ("name", "content_digest", "sequence", "create_time")


def draft(trace: v1.Trace) -> TraceDraft:
    """A trace as a client wrote it, unchecked, without the server's own fields and unknown ones."""
    fields = _content(trace)
    written = v1.Trace()
    written.CopyFrom(trace)
    for field in _OUTPUT_ONLY:
        written.ClearField(field)
    written.DiscardUnknownFields()
    return TraceDraft(fields, written.SerializeToString(deterministic=True))


def content(encoded: bytes) -> TraceContent:
    """The content of a stored, encoded trace."""
    return cast(TraceContent, _content(v1.Trace.FromString(encoded)))


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
    }


def trace_message(trace: StoredTrace) -> v1.Trace:
    """A stored trace."""
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
        alignment=[
            v1.StepAlignment(
                relation=v1.StepAlignment.Relation.Value(f"RELATION_{pair.relation.upper()}"),
                base_index=pair.base_index,
                other_index=pair.other_index,
            )
            for pair in comparison.alignment
        ],
        same_final_answer=comparison.same_final_answer,
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
