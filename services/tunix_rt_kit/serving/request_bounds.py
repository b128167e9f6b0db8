"""How much a request may hold, counted before it is decoded.

4 MiB have room for two million entries, each of which costs a hundred times its bytes when it is decoded and
checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tunix_rt_kit.errors import InvalidArgument

MAX_ENTRIES: Final = 10_000
"""Entries of one repeated field of the contract. Most fields take fewer, as their services say."""
MAX_FIELDS: Final = 500_000
"""Fields of one request, all messages in it together."""

_PACKAGE: Final = "tunix_rt."
# A shorter message cannot hold too many entries: the shortest, packed numbers, take a byte each.
_SMALL: Final = MAX_ENTRIES
_MAX_DEPTH: Final = 100  # of protobuf's own reader
_CONTINUED: Final = bytes(range(0x80, 0x100))
_FIXED: Final = {1: 8, 5: 4}  # bytes of a value by wire type
_BYTES: Final = 2  # the wire type of texts, messages and packed numbers


def check_bounds(descriptor: Descriptor, data: bytes) -> None:
    """Refuse an encoded message with more than ``MAX_ENTRIES`` in one repeated field.

    Free-form JSON (``google.protobuf.Struct``) is skipped; ``plain_struct`` counts that.

    Raises InvalidArgument: TOO_MANY_ENTRIES, which names the field; REQUEST_MALFORMED.
    """
    if len(data) <= _SMALL:
        return
    try:
        _Count(data).message(descriptor, 0, len(data), "", {}, 0)
    except IndexError as error:
        raise malformed() from error


def malformed() -> InvalidArgument:
    """The error for bytes that are no message of a method's type."""
    return InvalidArgument("the request is not a message of this method's type", reason="REQUEST_MALFORMED")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that is repeated, or that holds a message (``inner``) in which there may be such a field."""

    name: str
    repeated: bool
    inner: Descriptor | None
    packed: bool


class _Count:
    """Counts the entries in the bytes of one request."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_FIELDS

    def message(
        self, descriptor: Descriptor, at: int, end: int, path: str, counts: dict[str, Any], depth: int
    ) -> None:
        """Count the message between two places.

        ``counts`` is shared by its parts: a field that comes twice is merged.
        """
        fields = _fields(descriptor)
        if depth > _MAX_DEPTH:
            raise malformed()
        while at < end:
            self._take(1)
            tag, at = self._number(at)
            begin, kind = at, tag & 7
            if kind == _BYTES:
                length, begin = self._number(at)
                at = begin + length
            elif kind == 0:
                _, at = self._number(at)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise malformed()  # Groups, of which the contract has none.
            if at > end:
                raise malformed()
            field = fields.get(tag >> 3)
            if field is None:
                continue
            inner = field.inner if kind == _BYTES else None
            if not field.repeated:
                if inner is not None:
                    parts = counts.setdefault(field.name, {})
                    self.message(inner, begin, at, f"{path}{field.name}.", parts, depth + 1)
                continue
            before = counts.get(field.name, 0)
            packed = field.packed and kind == _BYTES
            counts[field.name] = before + (self._packed(begin, at) if packed else 1)
            if counts[field.name] > MAX_ENTRIES:
                raise _too_many(f"{path}{field.name}", "entries", MAX_ENTRIES)
            if inner is not None and at - begin > _SMALL:
                self.message(inner, begin, at, f"{path}{field.name}[{before}].", {}, depth + 1)

    def _packed(self, begin: int, end: int) -> int:
        """How many numbers of variable length lie between two places."""
        return len(self._data[begin:end].translate(None, _CONTINUED))

    def _take(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise _too_many("", "fields", MAX_FIELDS)

    def _number(self, at: int) -> tuple[int, int]:
        """A number of variable length, and the place behind it."""
        byte = self._data[at]
        number, shift = byte & 0x7F, 0
        while byte > 0x7F:
            at, shift = at + 1, shift + 7
            if shift > 63:
                raise malformed()
            byte = self._data[at]
            number |= (byte & 0x7F) << shift
        return number, at + 1


def _too_many(field: str, what: str, most: int) -> InvalidArgument:
    description = f"holds more than {most:,} {what}; at most {most:,} would be right"
    reason = "TOO_MANY_ENTRIES"
    if not field:
        return InvalidArgument(f"the request: {description}", reason=reason)
    return InvalidArgument.of_field(field, description, reason=reason)


@cache
def _fields(descriptor: Descriptor) -> Mapping[int, _Field]:
    """The fields of a message that matter, by number."""
    return {
        field.number: _Field(
            name=field.name,
            repeated=field.is_repeated,
            inner=field.message_type if _holds_entries(field) else None,
            packed=field.is_packed,
        )
        for field in descriptor.fields
        if field.is_repeated or _holds_entries(field)
    }


def _holds_entries(field: FieldDescriptor) -> bool:
    inner = field.message_type
    return (
        inner is not None
        and inner.full_name.startswith(_PACKAGE)
        and any(part.is_repeated or _holds_entries(part) for part in inner.fields)
    )
