"""Arbitrary requests for any method of the contract, as messages, nearly right messages, and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from support.traces import trace

# Below this, messages are left empty: Struct and Value hold each other.
_DEPTH = 5
_ODD_TEXTS = ["", "\0", "a\0b", " ", "\n", "\ufeff", "%_\\'\"", "x" * 70, "é" * 300, "x" * 20_001]
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(_ODD_TEXTS)
_SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-2, 3) | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-2, 3) | st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 3) | st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 3) | st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-1, 5) | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
}

Words = Callable[[str], st.SearchStrategy[str]]


def requests(method: MethodDescriptor, words: Words) -> st.SearchStrategy[bytes]:
    """Encoded requests of a method, right and wrong; ``words(field name)`` gives texts to try."""
    encoded = messages(method.input_type, words).map(lambda message: message.SerializeToString())
    return encoded | st.builds(_spoiled, encoded, st.integers(0, 200), st.binary(max_size=4)) | st.binary()


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, words: Words, depth: int = _DEPTH) -> Message:
    """Messages of a type whose fields hold anything that the wire allows."""
    message = GetMessageClass(descriptor)()
    fields = [field for field in descriptor.fields if draw(st.booleans())]
    if descriptor.full_name == "tunix_rt.v1.Trace" and draw(st.booleans()):
        message.CopyFrom(trace(draw(st.integers(0, 50))))
        fields = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=1))
    for field in fields:
        if field.is_repeated:
            _extend(draw, message, field, words, depth)
        else:
            _set(draw, message, field, words, depth)
    return message


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, words: Words, depth: int) -> None:
    if field.message_type is None:
        setattr(message, field.name, draw(_scalar(field, words)))
    elif depth:
        getattr(message, field.name).CopyFrom(draw(messages(field.message_type, words, depth - 1)))


def _extend(draw: st.DrawFn, message: Message, field: FieldDescriptor, words: Words, depth: int) -> None:
    values = getattr(message, field.name)
    count = draw(st.integers(0, 3))
    if field.message_type is None:
        values.extend(draw(_scalar(field, words)) for _ in range(count))
    elif not depth:
        return
    elif field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        for _ in range(count):
            key = draw(_scalar(entry["key"], words))
            if entry["value"].message_type is None:
                values[key] = draw(_scalar(entry["value"], words))
            else:
                values[key].CopyFrom(draw(messages(entry["value"].message_type, words, depth - 1)))
    else:
        values.extend(draw(messages(field.message_type, words, depth - 1)) for _ in range(count))


def _scalar(field: FieldDescriptor, words: Words) -> st.SearchStrategy[Any]:
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return _SCALARS[field.cpp_type]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=20)
    return _TEXT | words(field.name)


def _spoiled(data: bytes, position: int, other: bytes) -> bytes:
    """``data`` with some bytes overwritten."""
    start = position % (len(data) + 1)
    return data[:start] + other + data[start + len(other) :]
