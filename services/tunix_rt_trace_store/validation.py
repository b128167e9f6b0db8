"""Checks what arrives, and names every wrong field by its path in the request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tunix_rt_kit.serving.field_errors import field_path, field_problems
from tunix_rt_kit.serving.validation import Violations
from tunix_rt_trace_store.model import (
    MAX_BATCH,
    MAX_TRACE_BYTES,
    SCORE_DRAFTS,
    TRACE_CONTENTS,
    ScoreDraft,
    TraceContent,
    TraceDraft,
    TraceFilter,
)


def checked_contents(drafts: Sequence[TraceDraft], path: str) -> list[TraceContent]:
    """The contents of ``drafts``, every limit checked.

    Args:
        drafts: the traces as they arrived.
        path: where a trace stands in the request: ``trace``, or ``traces[{}]`` for those of a batch.

    Raises InvalidArgument: BATCH_SIZE_INVALID, TRACE_INVALID with every wrong field.
    """
    violations = Violations()
    violations.check(
        1 <= len(drafts) <= MAX_BATCH,
        "traces",
        f"holds {len(drafts)} traces; 1 to {MAX_BATCH:,} would be right",
    )
    violations.raise_if_any("BATCH_SIZE_INVALID")
    for index, draft in enumerate(drafts):
        violations.check(
            len(draft.encoded) <= MAX_TRACE_BYTES,
            path.format(index),
            f"is {len(draft.encoded):,} bytes encoded; at most {MAX_TRACE_BYTES:,} would be right",
        )
    contents: list[TraceContent] = []
    try:
        contents = TRACE_CONTENTS.validate_python([draft.content for draft in drafts], strict=True)
    except ValidationError as error:
        for location, description in field_problems(error):
            violations.add(f"{path.format(location[0])}.{field_path(location[1:])}", description)
    violations.raise_if_any("TRACE_INVALID")
    return contents


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
        for location, description in field_problems(error):
            violations.add(field_path(("scores", *location)), description)
    for index, score in enumerate(scores):
        violations.check(
            score.criterion not in reserved,
            f"scores[{index}].criterion",
            f"is {score.criterion!r}, which ScoreTrace gives; a name of your own would be right",
        )
    violations.raise_if_any("SCORE_INVALID")
    return scores


def checked_filter(fields: Mapping[str, Any]) -> TraceFilter:
    """The filter of a request; raises InvalidArgument(FILTER_INVALID) with every wrong field."""
    violations = Violations()
    try:
        return TraceFilter.model_validate(fields, strict=True)
    except ValidationError as error:
        for location, description in field_problems(error):
            violations.add(field_path(("filter", *location)), description)
    violations.raise_if_any("FILTER_INVALID")
    raise AssertionError("a validation error without a problem")
