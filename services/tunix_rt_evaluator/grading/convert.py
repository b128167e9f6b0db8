"""Graders between the protobuf contract and the domain: their settings have the same names in both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from google.protobuf.struct_pb2 import Struct

from tunix_rt import v1
from tunix_rt_evaluator.grading.settings import Grader
from tunix_rt_kit.values.messages import plain_struct

_STYLES: Final[Mapping[int, Literal["numbered", "answer-only"]]] = {
    v1.REASONING_STYLE_UNSPECIFIED: "numbered",
    v1.REASONING_STYLE_NUMBERED: "numbered",
    v1.REASONING_STYLE_ANSWER_ONLY: "answer-only",
}
_STYLE_NUMBERS: Final = {
    "numbered": v1.REASONING_STYLE_NUMBERED,
    "answer-only": v1.REASONING_STYLE_ANSWER_ONLY,
}
# What is empty on the wire where it was left out.
_NEEDED: Final[Mapping[str, Mapping[str, Any]]] = {
    "multiple_choice": {"options": ()},
    "json_schema": {"schema": {}},
    "judge": {"model": ""},
}


def grader_fields(grader: v1.Grader) -> Mapping[str, Any]:
    """What a client wrote, unchecked; the kind is "" where it is none that this server knows."""
    kind = grader.WhichOneof("kind")
    if kind is None:
        return {"kind": ""}
    settings = getattr(grader, kind)
    given = {field.name: _plain(field.name, value) for field, value in settings.ListFields()}
    return {"kind": kind, **_NEEDED.get(kind, {}), **given}


def grader_message(grader: Grader) -> v1.Grader:
    """A grader with all its settings."""
    message = v1.Grader()
    settings = getattr(message, grader.kind)
    settings.SetInParent()
    for name, value in grader.model_dump().items():
        if name == "schema":
            settings.schema.update(dict(value))
        elif name == "reasoning_style":
            settings.reasoning_style = _STYLE_NUMBERS[value]
        elif isinstance(value, tuple):
            getattr(settings, name).extend(value)
        elif name != "kind":
            setattr(settings, name, value)
    return message


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Struct):
        return plain_struct(value)
    if name == "reasoning_style":
        return _STYLES.get(value, str(value))
    return value if isinstance(value, str | bool | int | float) else tuple(value)
