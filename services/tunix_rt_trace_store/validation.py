"""Checks what arrives, and names every wrong field by its path in the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tunix_rt_kit.serving.field_errors import field_path, field_problems
from tunix_rt_kit.serving.validation import Violations
from tunix_rt_trace_store.model import (
    MAX_BATCH,
    MAX_TRACE_BYTES,
    TRACE_CONTENTS,
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
            draft.size_bytes <= MAX_TRACE_BYTES,
            path.format(index),
            f"is {draft.size_bytes:,} bytes encoded; at most {MAX_TRACE_BYTES:,} would be right",
        )
    contents: list[TraceContent] = []
    try:
        contents = TRACE_CONTENTS.validate_python([draft.content for draft in drafts], strict=True)
    except ValidationError as error:
        for location, description in field_problems(error):
            violations.add(f"{path.format(location[0])}.{field_path(location[1:])}", description)
    violations.raise_if_any("TRACE_INVALID")
    return contents


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
