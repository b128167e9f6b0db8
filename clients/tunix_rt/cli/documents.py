"""What commands write with `--json`: which kinds of documents there are, and how a message becomes one.

docs/reference/json holds a schema of each kind, made from the messages' protos and from the classes here and
beside the commands: a field's description stands in its ``Annotated``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict, get_args, get_origin

from tunix_rt.escapes import visible_json

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

UNDECLARED: Final = ()
"""The kinds of a command that does not say what it writes."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What a command writes that streams: JSON lines, each of ``kind``."""

    kind: Any


@dataclass(frozen=True, slots=True)
class Extended:
    """A message with further fields, those of the ``TypedDict`` ``added``."""

    name: str
    message: Any
    added: Any


class ViolationDocument(TypedDict):
    """One wrong field."""

    field: Annotated[str, "Path of the field in the request, or name of the parameter of the command."]
    option: Annotated[str | None, "The option or argument that fills it; null where none does."]
    description: Annotated[str, "What is wrong with it."]


class ErrorDocument(TypedDict):
    """Why a command failed: one line on stderr."""

    code: Annotated[str, "Name of the canonical code (google.rpc.Code), such as NOT_FOUND."]
    reason: Annotated[
        str,
        "UPPER_SNAKE name of the cause, to branch on; USAGE, GATE_FAILED, INTERRUPTED and TERMINATED are the "
        "command line's own. Empty where nothing more is known.",
    ]
    message: Annotated[str, "What happened, in one line for people. It may change."]
    violations: Annotated[list[ViolationDocument], "Each wrong field, if it is the input that is wrong."]
    metadata: Annotated[dict[str, str], "Further facts by name."]
    exit_code: Annotated[int, "What the command exits with: 1, 2, 3, 130 or 143."]


class NoticeDocument(TypedDict):
    """What is to be known beside a result: one line on stderr."""

    level: Annotated[str, "NOTICE, or the level of a line of the log: DEBUG, INFO, WARNING, ERROR."]
    message: Annotated[str, "What is to be known, in words. It may change."]
    next_page_token: Annotated[
        str | None, "Where the next entries of a list begin, for --page-token; null where that is all."
    ]


class WrittenFile(TypedDict):
    """What was written into a file instead of being stored."""

    written: Annotated[int, "How many lines."]
    file: Annotated[str, "The file, as it was given."]


STDERR: Final = (ErrorDocument, NoticeDocument)
"""What each command may write to stderr."""


def kind_name(kind: Any) -> str:
    """The name of a kind of document, which is that of its schema: ``training-job``, ``trace-list``."""
    if get_origin(kind) is list:
        return f"{kind_name(get_args(kind)[0])}-list"
    name: str = kind.name if isinstance(kind, Extended) else kind.__name__.removesuffix("Document")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def document_text(
    document: Any,
    kinds: tuple[Any, ...],  # noqa: ARG001 - what tests check it against
    encoding: str,
    *,
    indent: int | None = 2,
) -> str:
    r"""A document as JSON for a stream of this encoding. All that commands write as JSON comes through here.

    Characters that a terminal would obey are written as ``\uXXXX``, and so is all but ASCII for an encoding
    that is not one of Unicode's. The document still reads as the same values.

    Args:
        document: its values.
        kinds: it is one of these.
        encoding: of the stream.
        indent: of what is inside; None: all on one line.
    """
    unicode = encoding.lower().startswith("utf")
    return visible_json(json.dumps(document, ensure_ascii=not unicode, indent=indent))


def as_document(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON mapping, under the field names of the contract.

    Other than there, every field is present: one that is not set is null, where it can be told from its
    zero value; of the kinds of a grader, which are messages of their own, the chosen one alone is. Integers
    are numbers, but for seeds of 64 bits, which stay strings; so are whole numbers of free-form metadata.
    """
    from google.protobuf.json_format import MessageToDict

    plain = MessageToDict(message, preserving_proto_field_name=True)
    document: dict[str, Any] = _completed(plain, message.DESCRIPTOR)
    return document


_FREE_FORM: Final = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue")
_AS_IT_IS: Final = ("google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask")
_ANY: Final = "google.protobuf.Any"
# Such an integer is exact in the numbers of every reader of JSON.
_MAX_INTEGER: Final = 2**53


def _completed(document: Any, message: Any) -> Any:
    name = message.full_name
    if name in _AS_IT_IS:
        return document
    if name in _FREE_FORM:
        return _whole_numbers(document)
    if name == _ANY:
        from google.protobuf.descriptor_pool import Default

        kind = Default().FindMessageTypeByName(document["@type"].rpartition("/")[2])
        return {"@type": document["@type"], **_completed(document, kind)}
    return {
        field.name: _value(field, document[field.name]) if field.name in document else _absent(field)
        for field in message.fields
        if field.name in document or not is_kind(field)
    }


def is_kind(field: FieldDescriptor) -> bool:
    """Whether the field is one of several kinds, each a message of its own: absent unless it is the one."""
    choice = field.containing_oneof
    return choice is not None and len(choice.fields) > 1 and all(one.message_type for one in choice.fields)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _single(entry, value[key]) for key in sorted(value)}
    if field.is_repeated:
        plain = field.message_type is None and field.cpp_type != field.CPPTYPE_INT64
        return value if plain else [_single(field, one) for one in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return _completed(value, field.message_type)
    return int(value) if field.cpp_type == field.CPPTYPE_INT64 else value


def _absent(field: FieldDescriptor) -> Any:
    if field.message_type and field.message_type.GetOptions().map_entry:
        return {}
    if field.is_repeated:
        return []
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
        return {}
    if field.has_presence:
        return None
    if field.enum_type is not None:
        return field.enum_type.values_by_number[field.default_value].name
    return str(field.default_value) if field.cpp_type == field.CPPTYPE_UINT64 else field.default_value


def _whole_numbers(value: Any) -> Any:
    """Free-form values with integers where they were integers, in the order of the keys."""
    if isinstance(value, dict):
        return {key: _whole_numbers(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_whole_numbers(one) for one in value]
    # An integer has no negative zero, and beyond 2**53 it would look more exact than it is.
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_INTEGER:
        return int(value) if value or math.copysign(1, value) > 0 else value
    return value
