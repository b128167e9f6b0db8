"""Checks of requests: every wrong field is named by its path."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tunix_rt_kit.callers import check
from tunix_rt_kit.canonical import canonical_json, digest_json
from tunix_rt_kit.conversations import text_of
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.serving.requests import Violations, parse_name
from tunix_rt_trace_store.traces.conversation import CONVERSATION, canonical_content
from tunix_rt_trace_store.traces.model import (
    MAX_BATCH,
    MAX_TRACE_BYTES,
    SCORE_DRAFTS,
    TRACE_CONTENT,
    TRACE_NAME,
    NewTrace,
    ScoreDraft,
    TraceContent,
    TraceDraft,
    TraceFilter,
)


def checked_traces(drafts: Iterable[TraceDraft], count: int, path: str) -> list[NewTrace]:
    """Traces ready to be stored, every limit checked.

    Args:
        drafts: the traces as they arrived, read one by one until enough are wrong.
        count: how many traces there are.
        path: where a trace stands in the request: ``trace``, or ``traces[{}]`` for those of a batch.

    Raises InvalidArgument: BATCH_SIZE_INVALID, TRACE_INVALID with the wrong fields.
    """
    violations = Violations()
    violations.check(
        1 <= count <= MAX_BATCH, "traces", f"holds {count:,} traces; 1 to {MAX_BATCH:,} would be right"
    )
    violations.raise_if_any("BATCH_SIZE_INVALID")
    traces: list[NewTrace] = []
    for index, draft in enumerate(drafts):
        check()
        size, place = len(draft.encoded), path.format(index)
        violations.check(
            size <= MAX_TRACE_BYTES,
            place,
            f"is {size:,} bytes encoded; at most {MAX_TRACE_BYTES:,} would be right",
        )
        try:
            trace = _checked(draft)
        except ValidationError as error:
            violations.add_problems(error, place)
        if violations.enough:
            break
        if not violations.found:
            traces.append(trace)
    violations.raise_if_any("TRACE_INVALID")
    return traces


def checked_scores(drafts: Sequence[Mapping[str, Any]], reserved: Collection[str]) -> list[ScoreDraft]:
    """Scores that a client writes, every limit checked; ``reserved`` criteria are the server's own.

    Raises InvalidArgument: BATCH_SIZE_INVALID, SCORE_INVALID with every wrong field.
    """
    violations = Violations()
    violations.check(
        1 <= len(drafts) <= MAX_BATCH,
        "scores",
        f"holds {len(drafts)} scores; 1 to {MAX_BATCH:,} would be right",
    )
    violations.raise_if_any("BATCH_SIZE_INVALID")
    scores: list[ScoreDraft] = []
    try:
        scores = SCORE_DRAFTS.validate_python(drafts, strict=True)
    except ValidationError as error:
        violations.add_problems(error, "scores")
    for index, score in enumerate(scores):
        violations.check(
            score.criterion not in reserved,
            f"scores[{index}].criterion",
            f"is {score.criterion!r}, which ScoreTrace gives; a name of your own would be right",
        )
    violations.raise_if_any("SCORE_INVALID")
    return scores


def checked_trace_ids(names: Sequence[str], most: int) -> list[str]:
    """The ids of the traces that a batch names, at most so many.

    Raises InvalidArgument: BATCH_SIZE_INVALID, RESOURCE_NAME_INVALID with every wrong name.
    """
    violations = Violations()
    violations.check(
        1 <= len(names) <= most,
        "names",
        f"holds {len(names):,} names; 1 to {most:,} would be right",
    )
    violations.raise_if_any("BATCH_SIZE_INVALID")
    trace_ids: list[str] = []
    for index, name in enumerate(names):
        try:
            trace_ids.append(parse_name(TRACE_NAME, name, f"names[{index}]"))
        except InvalidArgument as error:
            violations.found.extend(error.violations)
    violations.raise_if_any("RESOURCE_NAME_INVALID")
    return trace_ids


def checked_filter(fields: Mapping[str, Any]) -> TraceFilter:
    """The filter of a request; raises InvalidArgument(FILTER_INVALID) with every wrong field."""
    violations = Violations()
    try:
        return TraceFilter.model_validate(fields, strict=True)
    except ValidationError as error:
        violations.add_problems(error, "filter")
    violations.raise_if_any("FILTER_INVALID")
    raise AssertionError("a validation error without a problem")


def rendered(content: TraceContent, encoded: bytes) -> NewTrace:
    """A trace of one answer, ready to be stored; its digest is that of the content's RFC 8785 form."""
    return NewTrace(
        encoded=encoded,
        content_digest=digest_json(content),
        source=content["source"],
        # Folded by Python, so that both databases find the same traces whatever their locale.
        prompt_folded=content["prompt"].casefold(),
        metadata_json=canonical_json(content["metadata"]).decode(),
    )


def _checked(draft: TraceDraft) -> NewTrace:
    if not draft.is_conversation:
        return rendered(TRACE_CONTENT.validate_python(draft.content, strict=True), draft.encoded)
    content = CONVERSATION.validate_python(draft.content, strict=True)
    messages = content["messages"]
    asked = "\n".join(text_of(message) for message in messages if message["role"] == "user")
    return NewTrace(
        encoded=draft.encoded,
        content_digest=digest_json(canonical_content(content)),
        source=content["source"],
        prompt_folded=asked.casefold(),
        metadata_json=canonical_json(content["metadata"]).decode(),
        is_conversation=True,
        assistant_turns=sum(message["role"] == "assistant" for message in messages),
        tool_calls=sum(len(message["tool_calls"]) for message in messages),
    )
