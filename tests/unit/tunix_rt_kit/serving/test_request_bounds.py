"""What a request may hold, whichever method it is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from support.arbitrary import messages
from tunix_rt import v1
from tunix_rt.wire import services
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.serving import interceptors
from tunix_rt_kit.serving.interceptors import MAX_ENTRIES, MAX_FIELDS, check_bounds

OURS = "tunix_rt."
REQUESTS = [method.input_type for service in services() for method in service.methods]
Path = tuple[FieldDescriptor, ...]


def number(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def entry(field: int, content: bytes = b"") -> bytes:
    """A text or message as it stands in an encoded message."""
    return number(field << 3 | 2) + number(len(content)) + content


def repeated(descriptor: Descriptor, path: Path = ()) -> Iterator[Path]:
    """Where in a request type of ours a repeated field is."""
    for field in descriptor.fields:
        here = (*path, field)
        if field.is_repeated:
            yield here
        if field.message_type is not None and field.message_type.full_name.startswith(OURS):
            yield from repeated(field.message_type, here)


def filled(path: Path, count: int) -> bytes:
    """A request with ``count`` empty entries at the end of ``path``."""
    *outer, last = path
    data = entry(last.number, bytes(count)) if last.is_packed else entry(last.number) * count
    for field in reversed(outer):
        data = entry(field.number, data)
    return data


PLACES = [(request, path) for request in REQUESTS for path in repeated(request)]


@pytest.mark.parametrize(
    ("request_type", "path"),
    PLACES,
    ids=[f"{request.name}-{'.'.join(field.name for field in path)}" for request, path in PLACES],
)
def test_every_repeated_field_of_every_request_is_bounded(request_type: Descriptor, path: Path) -> None:
    check_bounds(request_type, filled(path, MAX_ENTRIES))
    *outer, last = path
    name = "".join(f"{field.name}{'[0]' if field.is_repeated else ''}." for field in outer) + last.name
    for count in (MAX_ENTRIES + 1, 500_000):
        with pytest.raises(InvalidArgument) as caught:
            check_bounds(request_type, filled(path, count))
        assert caught.value.reason == "TOO_MANY_ENTRIES"
        assert caught.value.violations[0].field == name


def test_a_message_in_several_parts_is_counted_as_one() -> None:
    items = filled((v1.EvalSet.DESCRIPTOR.fields_by_name["items"],), MAX_ENTRIES)
    part = entry(v1.CreateEvalSetRequest.EVAL_SET_FIELD_NUMBER, items)
    check_bounds(v1.CreateEvalSetRequest.DESCRIPTOR, part)
    with pytest.raises(InvalidArgument, match=r"^eval_set\.items: holds more than 10,000 entries"):
        check_bounds(v1.CreateEvalSetRequest.DESCRIPTOR, part + part)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0b" * 100_000, id="groups"),
        pytest.param(b"\x0a\xff\xff\xff\x7f" + bytes(30_000), id="longer-than-the-request"),
        pytest.param(b"\xff" * 30_000, id="a-number-without-end"),
        pytest.param(entry(1, bytes(30_000)) + b"\x0a", id="cut-off"),
        pytest.param(entry(1, entry(4, b"\x0a\x7f") * 20_000), id="an-entry-that-leaves-its-message"),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        check_bounds(v1.BatchCreateTracesRequest.DESCRIPTOR, data)


def test_fields_that_nobody_knows_are_bounded_too() -> None:
    check_bounds(v1.GetTraceRequest.DESCRIPTOR, b"\x78\x00" * MAX_FIELDS)
    with pytest.raises(InvalidArgument, match="500,000 fields"):
        check_bounds(v1.GetTraceRequest.DESCRIPTOR, b"\x78\x00" * (MAX_FIELDS + 1))


def most_entries(message: Message) -> int:
    """The length of the longest repeated field of ours in a message."""
    longest = 0
    for field, value in message.ListFields():
        if field.is_repeated:
            longest = max(longest, len(value))
        of_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.message_type is not None and not of_map and field.message_type.full_name.startswith(OURS):
            inner = value if field.is_repeated else [value]
            longest = max(longest, *(most_entries(part) for part in inner), 0)
    return longest


def test_exactly_what_holds_too_many_entries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptors, "MAX_ENTRIES", 2)
    monkeypatch.setattr(interceptors, "_SMALL", 0)

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        descriptor = data.draw(st.sampled_from(REQUESTS))
        message = data.draw(messages(descriptor, lambda _: st.just("a")))
        encoded = message.SerializeToString()
        assert GetMessageClass(descriptor).FromString(encoded) == message
        try:
            check_bounds(descriptor, encoded)
            refused = False
        except InvalidArgument as error:
            assert error.reason == "TOO_MANY_ENTRIES"
            refused = True
        assert refused == (most_entries(message) > 2)

    check()
