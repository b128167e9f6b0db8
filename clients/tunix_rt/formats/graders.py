"""Graders as people write them: the name of a kind, or an object with its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError

from tunix_rt import v1
from tunix_rt.schema import nearest

_KINDS: Final = v1.Grader.DESCRIPTOR.fields_by_name
GRADER_KINDS: Final = tuple(_KINDS)
"""The names of all kinds of graders."""

NEED_NO_ANSWER: Final = frozenset(("format", "json_schema", "judge"))
"""The kinds that can do without an accepted answer."""
_SHOWN: Final = 60


def read_grader(written: object) -> v1.Grader:
    """A grader out of ``"numeric"``, or out of ``{"kind": "numeric", "tolerance": 0.1}``.

    The settings are the fields of the kind's message in ``eval_set.proto``; a reasoning style may also be
    written "numbered" or "answer-only". Raises ValueError that names what is wrong.
    """
    settings = {"kind": written} if isinstance(written, str) else written
    if not isinstance(settings, Mapping):
        found = _shown(written)
        raise ValueError(f"is {found}; the name of a kind, or an object with a kind, would be right")  # noqa: TRY004
    if "kind" not in settings:
        raise ValueError(f"kind is missing; one of {', '.join(GRADER_KINDS)} would be right")
    kind = settings["kind"]
    if kind not in GRADER_KINDS:
        raise ValueError(f"kind is {_shown(kind)}, which is no grader; {nearest(str(kind), GRADER_KINDS)}")
    grader = v1.Grader()
    message = getattr(grader, kind)
    message.SetInParent()
    known = message.DESCRIPTOR.fields_by_name
    for name, value in settings.items():
        if name == "kind":
            continue
        if name not in known:
            raise ValueError(f"{name} is no setting of the {kind} grader; {_settings(name, known)}")
        try:
            ParseDict({name: _named(known[name], value)}, message)
        except ParseError as error:
            raise ValueError(f"{name} is {_shown(value)}: {str(error).rpartition(': ')[2]}") from None
    return grader


def read_grader_text(text: str) -> v1.Grader:
    """A grader as it is typed: the name of a kind, or JSON as ``read_grader`` takes it; raises ValueError."""
    if not text.lstrip().startswith(("{", "[")):
        return read_grader(text)
    try:
        return read_grader(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None


def _settings(name: str, known: Mapping[str, Any]) -> str:
    return nearest(name, known) if known else "it has none"


def _named(field: FieldDescriptor, value: Any) -> Any:
    """The value of an enum by its short name, such as "answer-only"."""
    if field.enum_type is None or not isinstance(value, str):
        return value
    short = value.upper().replace("-", "_")
    return next((full for full in field.enum_type.values_by_name if full.endswith(f"STYLE_{short}")), value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
