"""What pydantic found wrong, as the wrong fields of a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_SHOWN = 60

Location = tuple[int | str, ...]


def field_problems(error: ValidationError) -> Iterator[tuple[Location, str]]:
    """Where and what each problem is, in the words of this project.

    A validator of our own raises ``PydanticCustomError``, whose message is taken as it is; its context may
    hold a ``path``, a tuple that leads from the validated field to the wrong place in it.
    """
    for problem in error.errors():
        inner: Location = tuple(problem.get("ctx", {}).get("path", ()))
        yield (*problem["loc"], *inner), _description(problem)


def field_path(location: Sequence[int | str]) -> str:
    """A location as text: ``traces[3].steps[0].content``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _description(problem: ErrorDetails) -> str:
    kind, value = problem["type"], problem["input"]
    limits: dict[str, Any] = problem.get("ctx", {})
    if kind == "string_too_short":
        return "is empty; at least 1 character is needed"
    if kind == "string_too_long":
        return f"has {len(value):,} characters; at most {limits['max_length']:,} would be right"
    if kind == "string_pattern_mismatch":
        return f"is {_shown(value)}; it must match {limits['pattern']}"
    if kind == "too_short":
        return f"has {limits['actual_length']:,} entries; at least {limits['min_length']:,} would be right"
    if kind == "too_long":
        return f"has {limits['actual_length']:,} entries; at most {limits['max_length']:,} would be right"
    if kind == "greater_than_equal":
        return f"is {value}; at least {limits['ge']} would be right"
    if kind == "less_than_equal":
        return f"is {value}; at most {limits['le']} would be right"
    if kind == "greater_than":
        return f"is {value}; more than {limits['gt']} would be right"
    if kind == "finite_number":
        return f"is {value}; a finite number would be right"
    # pydantic links a page to each kind of its own, and none to a custom one.
    return f"is {_shown(value)}: {problem['msg']}" if "url" in problem else problem["msg"]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
