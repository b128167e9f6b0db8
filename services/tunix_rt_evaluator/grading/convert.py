"""Graders between the protobuf contract and the domain: their settings have the same names in both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct

from tunix_rt import v1
from tunix_rt_evaluator.grading.model import GraderSettings, kinds
from tunix_rt_kit.convert import plain_struct


def grader_fields(grader: v1.Grader) -> Mapping[str, Any]:
    """The settings that a client wrote, unchecked; ``kind`` is "" if this server does not know it."""
    kind = grader.WhichOneof("kind")
    if kind is None:
        return {"kind": ""}
    message = getattr(grader, kind)
    given = {field.name for field, _ in message.ListFields()}
    known = kinds()[kind].settings.model_fields
    required = {field.alias or name for name, field in known.items() if field.is_required()}
    fields = message.DESCRIPTOR.fields_by_name
    return {"kind": kind} | {
        name: _plain(fields[name], getattr(message, name)) for name in fields if name in given | required
    }


def grader_message(grader: GraderSettings) -> v1.Grader:
    """A grader with all its settings."""
    message = v1.Grader()
    settings = getattr(message, grader.kind)
    settings.SetInParent()
    for name, value in grader.model_dump(exclude={"kind"}).items():
        field = settings.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None:
            getattr(settings, name).update(value)
        elif field.is_repeated:
            getattr(settings, name).extend(value)
        elif field.enum_type is not None:
            setattr(settings, name, {text: number for number, text in _texts(field).items()}[value])
        else:
            setattr(settings, name, value)
    return message


def _plain(field: Any, value: Any) -> Any:
    if isinstance(value, Struct):
        return plain_struct(value)
    if field.enum_type is not None:
        return _texts(field).get(value, str(value))
    return tuple(value) if field.is_repeated else value


def _texts(field: Any) -> Mapping[int, str]:
    """The names of an enum's values as settings have them: "answer-only" for REASONING_STYLE_ANSWER_ONLY."""
    names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return {number: name.removeprefix(prefix).lower().replace("_", "-") for number, name in names.items()}
