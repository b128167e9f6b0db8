"""Marks of reasoning as people write them: the name of a pair, or an object with two marks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from tunix_rt import v1
from tunix_rt.schema import nearest

MARKS_FIELDS: Final = ("name", "start", "end", "opened")


def read_marks(written: object) -> v1.ReasoningMarks:
    """Marks out of ``"think"``, or out of ``{"start": "<a>", "end": "</a>", "opened": true}``.

    Which names and marks are right, the evaluator says. Raises ValueError that names what is no setting.
    """
    settings = {"name": written} if isinstance(written, str) else written
    if not isinstance(settings, Mapping):
        found = f"is {written!r}"
        raise ValueError(f"{found}; a name, or an object with start and end, would be right")  # noqa: TRY004
    for field, value in settings.items():
        if field not in MARKS_FIELDS:
            raise ValueError(f"{field} is no setting of reasoning marks; {nearest(str(field), MARKS_FIELDS)}")
        wanted, known = (bool, "true or false") if field == "opened" else (str, "a text")
        if not isinstance(value, wanted):
            raise ValueError(f"{field} is {value!r}; {known} would be right")  # noqa: TRY004
    return v1.ReasoningMarks(**settings)


def read_marks_text(text: str) -> v1.ReasoningMarks:
    """Marks as they are typed: a name, or JSON as ``read_marks`` takes it; raises ValueError."""
    if not text.lstrip().startswith("{"):
        return read_marks(text)
    try:
        return read_marks(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
