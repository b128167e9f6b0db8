"""Checks what arrives, and names every wrong field by its path in the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from tunix_rt_kit.serving.validation import Violations

from tunix_rt_trace_store.model import (
    MAX_BATCH,
    MAX_TRACE_BYTES,
    TRACE_CONTENTS,
    TraceContent,
    TraceDraft,
    TraceFilter,
)

_SHOWN = 60


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
            draft.size_bytes <= MAX_TRACE_BYTES,
            path.format(index),
            f"is {draft.size_bytes:,} bytes encoded; at most {MAX_TRACE_BYTES:,} would be right",
        )
    contents: list[TraceContent] = []
    try:
        contents = TRACE_CONTENTS.validate_python([draft.content for draft in drafts], strict=True)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            violations.add(
                path.format(problem["loc"][0]) + _path(problem["loc"][1:], problem), _description(problem)
            )
    violations.raise_if_any("TRACE_INVALID")
    return contents


def checked_filter(fields: Mapping[str, Any]) -> TraceFilter:
    """The filter of a request; raises InvalidArgument(FILTER_INVALID) with every wrong field."""
    violations = Violations()
    try:
        return TraceFilter.model_validate(fields, strict=True)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            violations.add("filter" + _path(problem["loc"], problem), _description(problem))
    violations.raise_if_any("FILTER_INVALID")
    raise AssertionError("a validation error without a problem")


def _path(loc: Sequence[int | str], problem: ErrorDetails) -> str:
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return f"{parts}{problem.get('ctx', {}).get('path', '')}"


def _description(problem: ErrorDetails) -> str:
    kind, value, limits = problem["type"], problem["input"], problem.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= _SHOWN else repr(value)[:_SHOWN] + "..."
    if kind == "string_too_short":
        return "is empty; at least 1 character is needed"
    if kind == "string_too_long":
        return f"has {len(value):,} characters; at most {limits['max_length']:,} would be right"
    if kind == "too_short":
        return "is empty; at least 1 is needed"
    if kind == "too_long":
        return f"has {limits['actual_length']:,} entries; at most {limits['max_length']:,} would be right"
    if kind == "greater_than_equal":
        return f"is {value}; at least {limits['ge']} would be right"
    if kind in {"nul_character", "json_value", "duplicate_step"}:
        return problem["msg"]
    return f"is {shown}: {problem['msg']}"
