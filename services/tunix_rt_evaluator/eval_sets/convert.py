"""Eval sets and graders between the protobuf contract and the domain.

The settings of a grader have the same names in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct

from tunix_rt import v1
from tunix_rt_evaluator.eval_sets.model import EvalItem, EvalSet, EvalSetDraft, eval_set_name
from tunix_rt_evaluator.grading.model import GraderSettings, kinds
from tunix_rt_kit.convert import plain_struct, to_message


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


def eval_set_draft(eval_set: v1.EvalSet) -> EvalSetDraft:
    """What a client wrote, unchecked."""
    return EvalSetDraft(
        id=eval_set.eval_set_id,
        description=eval_set.description,
        items=[_item_fields(item) for item in eval_set.items],
        size_bytes=eval_set.ByteSize(),
    )


def eval_set_message(eval_set: EvalSet) -> v1.EvalSet:
    """A stored eval set, with its items where it holds them."""
    items = [_item(item) for item in eval_set.items or ()]
    name = eval_set_name(eval_set.id)
    return to_message(eval_set, v1.EvalSet, name=name, eval_set_id=eval_set.id, items=items)


def _item_fields(item: v1.EvalItem) -> Mapping[str, Any]:
    return {
        "id": item.id,
        "prompt": item.prompt,
        "accepted_answers": tuple(item.accepted_answers),
        "grader": grader_fields(item.grader) if item.HasField("grader") else None,
        "category": item.category,
        "difficulty": item.difficulty,
        "cluster": item.cluster,
        "metadata": plain_struct(item.metadata),
    }


def _item(item: EvalItem) -> v1.EvalItem:
    message = to_message(item, v1.EvalItem, unset=["metadata"], grader=grader_message(item.grader))
    if item.metadata:
        message.metadata.update(dict(item.metadata))
    return message
