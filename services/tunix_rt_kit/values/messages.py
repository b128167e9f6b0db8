"""Between values and messages whose fields have the same names: the one converter of every service.

A field of a message and the field of a value that it comes from share their name, with these rules:

- A ``Duration`` such as ``eta`` is ``eta_s`` in the value, in seconds.
- A ``Timestamp`` is an aware ``datetime``.
- An enum's value ``STATE_QUEUED`` is ``QUEUED`` in the value, or ``queued`` where the value's type has it so.
- A ``google.rpc.Status`` is a value with ``code``, ``reason``, ``message`` and ``metadata``.
- None is a field that is not set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar, get_args

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status
from pydantic import BaseModel

from tunix_rt_kit.serving.messages import failure_status, timestamp

M = TypeVar("M", bound=Message)
# The classes of descriptors hang on how protobuf was built.
_Field: TypeAlias = Any

_ENUM: Final = FieldDescriptor.TYPE_ENUM
_MESSAGE: Final = FieldDescriptor.TYPE_MESSAGE


def to_message(value: BaseModel, kind: type[M], *, unset: Collection[str] = (), **given: Any) -> M:
    """The message of type ``kind`` that says what ``value`` does.

    Args:
        value: where the fields come from.
        kind: the message's type.
        unset: fields of the message that the value has nothing for.
        given: fields of the message, by name, that are something else than the value's field.

    Raises:
        AttributeError: the message has a field that is in none of these, so that none is forgotten.
    """
    message = kind()
    for field in _fields(kind.DESCRIPTOR):
        if field.name in unset:
            continue
        found = given[field.name] if field.name in given else getattr(value, _name(field))
        if found is not None:
            _put(message, field, found)
    return message


def from_message(message: Message, kind: type[BaseModel]) -> dict[str, Any]:
    """What is set in ``message``, for ``kind`` to validate; fields that ``kind`` does not have are left out.

    An enum's number that the contract does not name becomes its digits, which no kind takes.
    """
    read: dict[str, Any] = {}
    for field in _fields(message.DESCRIPTOR):
        expected = kind.model_fields.get(_name(field))
        if expected is None or (field.has_presence and not message.HasField(field.name)):
            continue
        found = getattr(message, field.name)
        if not (found or field.has_presence or expected.is_required()):
            continue
        if field.type == _ENUM:
            if (text := _enum_text(field.enum_type, found, expected.annotation)) is not None:
                read[field.name] = text
        elif field.type == _MESSAGE and not _is_map(field):
            inner = _model_of(expected.annotation)  # type: ignore[arg-type]
            read[_name(field)] = (
                [_read(entry, inner) for entry in found] if field.is_repeated else _read(found, inner)
            )
        else:
            read[field.name] = list(found) if field.is_repeated and not _is_map(field) else found
    return read


def duration(seconds: float) -> Duration:
    """Seconds as a Duration."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def _fields(descriptor: Any) -> Iterable[_Field]:
    return list(descriptor.fields)


def _name(field: _Field) -> str:
    """The name of the value's field."""
    is_duration = field.type == _MESSAGE and field.message_type.full_name == Duration.DESCRIPTOR.full_name
    return f"{field.name}_s" if is_duration else field.name


def _is_map(field: _Field) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _put(message: Message, field: _Field, found: Any) -> None:
    name = field.name
    if _is_map(field):
        getattr(message, name).update(found)
    elif field.is_repeated:
        getattr(message, name).extend(_sent(entry, field) for entry in found)
    elif field.type == _MESSAGE:
        getattr(message, name).CopyFrom(_sent(found, field))
    else:
        setattr(message, name, _sent(found, field))


def _sent(found: Any, field: _Field) -> Any:
    if field.type == _ENUM:
        return found if isinstance(found, int) else _enum_number(field.enum_type, found)
    if isinstance(found, datetime):
        return timestamp(found)
    if field.type != _MESSAGE or isinstance(found, Message):
        return found
    kind = GetMessageClass(field.message_type)
    if kind is Duration:
        return duration(found)
    if kind is Status:
        return failure_status(found.code, found.reason, found.message, found.metadata)
    return to_message(found, kind)


def _read(found: Message, inner: type[BaseModel] | None) -> Any:
    if isinstance(found, Timestamp):
        return found.ToDatetime(UTC)
    if isinstance(found, Duration):
        return found.ToTimedelta().total_seconds()
    return found if inner is None else from_message(found, inner)


@cache
def _prefix(enum: _Field) -> str:
    """``TUNING_METHOD_`` for ``TuningMethod``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"


def _enum_number(enum: _Field, found: str) -> int:
    return int(enum.values_by_name[_prefix(enum) + str(found).upper()].number)


def _enum_text(enum: _Field, number: int, expected: Any) -> str | None:
    """None for what is unspecified."""
    if not number:
        return None
    if number not in enum.values_by_number:
        return str(number)
    text: str = enum.values_by_number[number].name.removeprefix(_prefix(enum))
    return text if isinstance(expected, type) and issubclass(expected, Enum) else text.lower()


@cache
def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as ``Model``, ``Model | None`` or ``tuple[Model, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_of(part)) is not None), None)
