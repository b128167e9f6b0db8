"""Traces for tests."""

from __future__ import annotations

from typing import Any

from tunix_rt import v1


def trace(number: int = 0, **changes: Any) -> v1.Trace:
    """A valid trace whose content depends on ``number``; ``changes`` replace fields."""
    message = v1.Trace(
        trace_version="1.0",
        prompt=f"What is {number} + 1?",
        steps=[
            v1.TraceStep(i=0, type="recall", content=f"We have {number}."),
            v1.TraceStep(i=1, type="compute", content=f"{number} + 1 = {number + 1}"),
        ],
        final_answer=str(number + 1),
        source="tests",
    )
    message.metadata.update({"number": number, "reference_answer": str(number + 1)})
    if "metadata" in changes:
        message.metadata.Clear()
        message.metadata.update(changes.pop("metadata"))
    if "steps" in changes:
        del message.steps[:]
    message.MergeFrom(v1.Trace(**changes))
    return message


def step(i: int, type: str = "compute", content: str = "1 + 1 = 2") -> v1.TraceStep:
    """One step."""
    return v1.TraceStep(i=i, type=type, content=content)
