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
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar, get_args

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.struct_pb2 import Value as StructValue
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status
from pydantic import BaseModel

from tunix_rt import v1
from tunix_rt.wire import error_status
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.conversations import Message as Turn
from tunix_rt_kit.conversations import json_object, tool_function
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import ChatTemplateFields, Filter, Labels, ListAsked, Page, TagChanges

M = TypeVar("M", bound=Message)
T = TypeVar("T")
V = TypeVar("V", bound=BaseModel)
# The classes of descriptors depend on how protobuf was built.
_Field: TypeAlias = Any

MAX_VALUES: Final = 100_000
"""Values in one free-form JSON object of a request."""

_LABELS: Final = tuple(Labels.model_fields)
# What fits in one message of 4 MiB.
_PAGE_BYTES: Final = 7 << 19
_SAFE_INTEGER: Final = (1 << 53) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENUM: Final = FieldDescriptor.TYPE_ENUM
_MESSAGE: Final = FieldDescriptor.TYPE_MESSAGE
_ROLES: Final = {
    number: name.removeprefix("ROLE_").lower() for name, number in v1.Message.Role.items() if number
}
_NUMBERS: Final = {role: number for number, role in _ROLES.items()}
_TRAIN: Final = {v1.Message.TRAIN_UNSPECIFIED: "", v1.Message.TRAIN_YES: "yes", v1.Message.TRAIN_NO: "no"}


def to_message(value: BaseModel, kind: type[M], *, unset: Collection[str] = (), **given: Any) -> M:
    """``value`` as a message of type ``kind``.

    Args:
        value: has a field for each of the message's, but for ``unset`` and ``given``.
        kind: the message's type.
        unset: fields of the message that stay unset.
        given: fields of the message that differ from the value's, by name.

    Raises:
        AttributeError: a field of the message is in none of these, so that none is forgotten.
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
    """The fields that are set in ``message``, for ``kind`` to validate; others of ``kind`` are left out.

    So are empty texts, lists and zeros that nothing tells from unset, where ``kind`` has a default. An enum's
    number that the contract does not name becomes its digits, which no ``kind`` takes.
    """
    read: dict[str, Any] = {}
    for field in _fields(message.DESCRIPTOR):
        expected = kind.model_fields.get(_name(field))
        if expected is None or (field.has_presence and not message.HasField(field.name)):
            continue
        found = getattr(message, field.name)
        if not (found or field.has_presence or expected.is_required()):
            continue
        if field.type == _ENUM and field.is_repeated:
            inner_type = get_args(expected.annotation)[0]
            read[field.name] = [
                _enum_text(field.enum_type, entry, inner_type) or str(entry) for entry in found
            ]
        elif field.type == _ENUM:
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


def page_message(page: Page[T], kind: type[M], convert: Callable[[T], Message]) -> M:
    """A page of a listing as a response, whose one other field has the items as ``convert`` gives them.

    A page that can be cut short stops short of 4 MiB.
    """
    (items,) = (field.name for field in _fields(kind.DESCRIPTOR) if field.name != "next_page_token")
    token, size = page.next_page_token, 0
    messages: list[Message] = []
    for message in map(convert, page.items):
        size += message.ByteSize() + 8
        if messages and size > _PAGE_BYTES and page.token_after is not None:
            token = page.token_after(len(messages) - 1)
            break
        messages.append(message)
    fields: dict[str, Any] = {items: messages}
    return kind(next_page_token=token, **fields)


def given_labels(request: Message) -> dict[str, Any]:
    """The name, tags and note that a create request, or a resource in it, gives, unchecked."""
    found = {name: getattr(request, name) for name in _LABELS}
    return {name: tuple(value) if name == "tags" else value for name, value in found.items() if value}


def changed_labels(request: Any, field: str) -> dict[str, Any]:
    """The name, tags and note that an update changes, and the tags that it adds and takes away, unchecked.

    Args:
        request: its ``update_mask`` says which of them change; empty: those that are given.
        field: the request's field that the resource stands in.

    Raises:
        InvalidArgument: UPDATE_MASK_INVALID, it names other fields, there is nothing to change, or tags are
            set and changed at once.
    """
    resource, mask = getattr(request, field), request.update_mask
    right = f"one of {', '.join(_LABELS)}, or * for all of them, would be right"
    for index, path in enumerate(mask.paths):
        if path not in (*_LABELS, "*"):
            problem = f"is {path[:60]!r}, which cannot be changed; {right}"
            raise InvalidArgument.of_field(
                f"update_mask.paths[{index}]", problem, reason="UPDATE_MASK_INVALID"
            )
    moved = {name: tuple(getattr(request, name)) for name in TagChanges.model_fields}
    moved = {name: tags for name, tags in moved.items() if tags}
    named = _LABELS if "*" in mask.paths else tuple(mask.paths) or tuple(given_labels(resource))
    if not (named or moved):
        problem = f"is empty, and {field} gives nothing to change; {right}"
        raise InvalidArgument.of_field("update_mask", problem, reason="UPDATE_MASK_INVALID")
    if moved and "tags" in named:
        problem = f"is given while {field}.tags is set as a whole; one of the two would be right"
        raise InvalidArgument.of_field(next(iter(moved)), problem, reason="UPDATE_MASK_INVALID")
    set_ = {name: tuple(resource.tags) if name == "tags" else getattr(resource, name) for name in named}
    return set_ | moved


def list_asked(request: Any, kind: type[Filter]) -> ListAsked:
    """What a list's request asks for, unchecked but for its times; raises InvalidArgument(FILTER_INVALID)."""
    for name in ("created_from", "created_before"):
        if name in request.filter.DESCRIPTOR.fields_by_name:
            filter_time(request.filter, name)
    fields = from_message(request.filter, kind)
    if "show_deleted" in kind.model_fields:
        fields["show_deleted"] = request.show_deleted
    return ListAsked(request.page_size, request.page_token, fields, request.order_by)


def filter_time(wanted: Message, field: str) -> datetime | None:
    """A time in a filter, None where it is not set; raises InvalidArgument(FILTER_INVALID)."""
    if not wanted.HasField(field):
        return None
    moment: Timestamp = getattr(wanted, field)
    try:
        return moment.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        problem = f"is {moment.seconds} s and {moment.nanos} ns; a time of the years 1 to 9999 would be right"
        raise InvalidArgument.of_field(f"filter.{field}", problem, reason="FILTER_INVALID") from error


def value_of(message: Message, kind: type[V]) -> V:
    """``message`` as a value of type ``kind``, which has fields of the same names."""
    return kind.model_validate(from_message(message, kind))


def plain_struct(struct: Struct) -> dict[str, Any]:
    """A Struct as plain JSON values. Whole numbers up to 2**53 - 1 are ints, values that are not set None.

    Raises InvalidArgument(TOO_MANY_ENTRIES) if there are more than ``MAX_VALUES`` in it.
    """
    return _struct(struct, _Room())


def plain_value(value: StructValue) -> Any:
    """As ``plain_struct``, for one value."""
    return _plain(value, _Room())


class _Room:
    """How many more values may come."""

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


def _struct(struct: Struct, room: _Room) -> dict[str, Any]:
    room.take(len(struct.fields))
    return {key: _plain(value, room) for key, value in struct.fields.items()}


def _plain(value: StructValue, room: _Room) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if abs(number) <= _SAFE_INTEGER and number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _struct(value.struct_value, room)
    if kind == "list_value":
        values = value.list_value.values
        room.take(len(values))
        return [_plain(item, room) for item in values]
    return None


def timestamp(moment: datetime) -> Timestamp:
    """An aware moment as a Timestamp."""
    # Timestamp.FromDatetime takes longer than reading the trace that the moment belongs to.
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def template_message(fields: ChatTemplateFields, digest: str) -> v1.ChatTemplate:
    """A chat template with its digest."""
    return to_message(fields, v1.ChatTemplate, digest=digest)


def message_fields(message: v1.Message) -> dict[str, Any]:
    """The fields of a message, unchecked; the arguments of its calls stay in ``message`` as texts alone."""
    return {
        "role": _ROLES.get(message.role, str(message.role)),
        "content": [{"type": part.type, "text": part.text} for part in message.content],
        "reasoning": message.reasoning,
        "tool_calls": [_call(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "train": _TRAIN.get(message.train, str(message.train)),
    }


def _call(call: v1.ToolCall) -> dict[str, Any]:
    """The fields of a call; its arguments stay in ``call`` as a text alone."""
    fields: dict[str, Any] = {"id": call.id, "name": call.name}
    if call.HasField("arguments"):
        fields["arguments"] = plain_struct(call.arguments)
        call.arguments_text = call.arguments_text or _as_text(fields["arguments"])
        call.ClearField("arguments")
    return {**fields, "arguments_text": call.arguments_text}


def tool_fields(tool: v1.Tool) -> dict[str, Any]:
    """The fields of a tool, unchecked; its definition stays in ``tool`` as a text alone."""
    fields: dict[str, Any] = {
        name: value for name in ("name", "description") if (value := getattr(tool, name))
    }
    if tool.HasField("parameters"):
        fields["parameters"] = plain_struct(tool.parameters)
    if fields:
        if not tool.definition_text and tool.name:
            tool.definition_text = _as_text({"type": "function", "function": fields})
        for name in ("name", "description", "parameters"):
            tool.ClearField(name)
        return {"fields": fields, "definition_text": tool.definition_text}
    return {"definition_text": tool.definition_text}


def _as_text(fields: dict[str, Any]) -> str:
    try:
        return canonical_json(fields).decode()
    except InvalidArgument:
        # The checks of the fields say what is wrong with them.
        return ""


def conversation_message(message: Turn) -> v1.Message:
    """A checked message."""
    return v1.Message(
        role=_NUMBERS[message["role"]],
        content=[v1.ContentPart(**part) for part in message["content"]],
        reasoning=message["reasoning"],
        tool_calls=[
            v1.ToolCall(id=call["id"], name=call["name"], arguments_text=call["arguments_text"])
            for call in message["tool_calls"]
        ],
        tool_call_id=message["tool_call_id"],
        name=message["name"],
    )


def read_texts(conversation: v1.Trace | v1.EvalItem) -> None:
    """Set the arguments of calls and the fields of tools, of which a stored conversation has the texts."""
    for turn in conversation.messages:
        for call in turn.tool_calls:
            if (arguments := json_object(call.arguments_text)) is not None:
                call.arguments.update(arguments)
    for tool in conversation.tools:
        function = tool_function(json_object(tool.definition_text) or {}) or {}
        tool.name, tool.description = function.get("name", ""), function.get("description", "")
        if "parameters" in function:
            tool.parameters.update(function["parameters"])


def duration(seconds: float) -> Duration:
    """Seconds as a Duration, to the nanosecond."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
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
        return error_status(found.code, found.message, reason=found.reason, metadata=found.metadata)
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
