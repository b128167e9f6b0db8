"""Between plain values and the protobuf types that every service's ``convert`` meets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.serving.status import ERROR_DOMAIN

MAX_VALUES: Final = 100_000
"""Values in one free-form JSON object of a request."""

_SAFE_INTEGER: Final = (1 << 53) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def plain_struct(struct: Struct) -> dict[str, Any]:
    """A Struct as plain JSON values. Whole numbers up to 2**53 - 1 are ints, values that are not set None.

    Raises InvalidArgument(TOO_MANY_ENTRIES) if there are more than ``MAX_VALUES`` in it.
    """
    return _fields(struct, _Room())


def plain_value(value: Value) -> Any:
    """As ``plain_struct``, for one value."""
    return _plain(value, _Room())


class _Room:
    """How many values may still come."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise InvalidArgument(
                f"an object of the request holds more than {MAX_VALUES:,} values; at most {MAX_VALUES:,} "
                "would be right",
                reason="TOO_MANY_ENTRIES",
            )


def _fields(struct: Struct, room: _Room) -> dict[str, Any]:
    room.take(len(struct.fields))
    return {key: _plain(value, room) for key, value in struct.fields.items()}


def _plain(value: Value, room: _Room) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if abs(number) <= _SAFE_INTEGER and number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _fields(value.struct_value, room)
    if kind == "list_value":
        values = value.list_value.values
        room.take(len(values))
        return [_plain(item, room) for item in values]
    return None


def timestamp(moment: datetime) -> Timestamp:
    """An aware moment as a Timestamp."""
    # As Timestamp.FromDatetime, which takes longer than reading the trace that the moment belongs to.
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def failure_status(code: str, reason: str, message: str, metadata: Mapping[str, str]) -> status_pb2.Status:
    """Why a job failed, as it stands in the job's ``error``: ``code`` is the name of a canonical code."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata)
    )
    return status
