"""Personal data and secrets in spans: replaced before they are stored, and the same all through a trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from support.migrated import migrated
from support.serving import served_at
from support.spans import gen_ai, text
from support.storing import settings_for, stream
from tunix_rt import v1
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

WAIT_S = 0.3
MAIL = "ann.lee@example.com"
PHONE = "+49 30 901820"
# Only what stands before it shows that this is a secret.
TOKEN = "zebra-crossing-41"


def settings(database_url: str, folder: Path, **more: Any) -> TraceStoreSettings:
    made = settings_for(database_url, folder).model_copy(
        update={"spans_wait_s": WAIT_S, "spans_idle_s": WAIT_S, "spans_redact": True, **more}
    )
    migrated(made, migrate)
    return made


@pytest.fixture
async def channel(database_url: str, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        served_at(build(settings(database_url, tmp_path), asyncio.Event())) as address,
        grpc.aio.insecure_channel(address) as opened,
    ):
        yield opened


def span(number: int, attributes: dict[str, Any], parent: int = 0, trace: int = 1) -> SpanMessage:
    made = SpanMessage(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        start_time_unix_nano=number,
    )
    for name, value in attributes.items():
        made.attributes.add(key=name).value.string_value = value
    return made


async def send(channel: grpc.aio.Channel, *spans: SpanMessage) -> None:
    """Send the spans in one request."""
    of_resource = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    of_resource.resource.attributes.add(key="service.name").value.string_value = f"app of {MAIL}"
    request = ExportTraceServiceRequest(resource_spans=[of_resource])
    answer = await TraceServiceStub(channel).Export(request)  # type: ignore[no-untyped-call]
    assert answer == ExportTraceServiceResponse()


async def traces_of(channel: grpc.aio.Channel, count: int) -> list[v1.Trace]:
    for _ in range(200):
        _, found = await stream(v1.TraceStoreStub(channel))
        if len(found) >= count:
            break
        await asyncio.sleep(0.05)
    assert len(found) == count
    return found


def texts(trace: v1.Trace) -> list[str]:
    return [part.text for message in trace.messages for part in message.content]


def conversation() -> list[dict[str, Any]]:
    """Two calls that go on with one another; each names the address, in two spellings, and one the token."""
    asked = [text("user", f"I am {MAIL} and my word is {TOKEN}.")]
    answer = text("assistant", f"Hello {MAIL.upper()}")
    more = [*asked, answer, text("user", f"Call {PHONE} with authorization: bearer {TOKEN} for {MAIL}")]
    return [gen_ai(asked, answer), gen_ai(more, text("assistant", "Done, " + PHONE))]


async def test_a_value_has_one_placeholder_in_spans_that_come_in_several_requests(
    channel: grpc.aio.Channel,
) -> None:
    first, second = conversation()
    await send(channel, span(2, first, 1))
    await send(channel, span(3, second, 1))
    await send(channel, span(2, first, 1), span(1, {}))
    (trace,) = await traces_of(channel, 1)
    assert texts(trace) == [
        "I am <EMAIL_1> and my word is <BEARER_TOKEN_1>.",
        "Hello <EMAIL_1>",
        "Call <PHONE_1> with authorization: bearer <BEARER_TOKEN_1> for <EMAIL_1>",
        "Done, <PHONE_1>",
    ]
    assert trace.source == "app of <EMAIL_1>"
    assert trace.metadata["redacted"] == {"BEARER_TOKEN": 2, "EMAIL": 4, "PHONE": 2}
    assert trace.metadata["otel_span_ids"] == ["0000000000000002", "0000000000000003"]


async def test_traces_of_the_same_content_are_the_same_and_numbers_that_stand_there_stay(
    channel: grpc.aio.Channel,
) -> None:
    said = gen_ai([text("user", f"<EMAIL_1> is not {MAIL}")], text("assistant", "Right"))
    await send(channel, span(1, said, trace=1), span(1, said, trace=2))
    first, second = await traces_of(channel, 2)
    assert texts(first) == texts(second) == ["<EMAIL_1> is not <EMAIL_2>", "Right"]


@pytest.mark.one_database
async def test_arguments_stay_json_and_ids_are_no_cards(channel: grpc.aio.Channel) -> None:
    call = {
        "type": "tool_call",
        "id": "c1",
        "name": "mail",
        "arguments": {"to": MAIL, "card": 4111111111111111},
    }
    said = gen_ai([text("user", "Send it")], {"role": "assistant", "parts": [call]})
    number = int("4111111111111111", 16)
    sent = span(number, said)
    sent.attributes.add(key="gen_ai.other").value.bytes_value = MAIL.encode()
    await send(channel, sent)
    (trace,) = await traces_of(channel, 1)
    (made,) = trace.messages[1].tool_calls
    assert json.loads(made.arguments_text) == {"to": "<EMAIL_1>", "card": "<CARD_1>"}
    assert trace.metadata["otel_span_ids"] == ["4111111111111111"]


@pytest.mark.one_database
async def test_nothing_of_a_value_is_in_the_files_of_the_store(database_url: str, tmp_path: Path) -> None:
    made = settings(database_url, tmp_path, spans_wait_s=60, spans_idle_s=60)

    def stored() -> bytes:
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        return b"".join(file.read_bytes() for file in files)

    async with (
        served_at(build(made, asyncio.Event())) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        for number, said in enumerate(conversation(), 2):
            sent = span(number, said, 1)
            sent.name = sent.trace_state = MAIL
            sent.status.message = PHONE
            sent.events.add(name="gen_ai.event").attributes.add(key=MAIL).value.string_value = PHONE
            sent.attributes.add(key="gen_ai.other").value.bytes_value = MAIL.encode()
            await send(channel, sent)
        while_it_waits = stored()
    assert b"gen_ai.input.messages" in while_it_waits
    for whole in (while_it_waits, stored()):
        assert MAIL.encode() not in whole.lower()
        assert PHONE.encode() not in whole


@pytest.mark.one_database
async def test_spans_that_were_redacted_become_the_same_conversation_where_nothing_is_redacted(
    database_url: str, tmp_path: Path
) -> None:
    first, second = conversation()
    made = settings(database_url, tmp_path, spans_wait_s=60, spans_idle_s=60)
    async with (
        served_at(build(made, asyncio.Event())) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await send(channel, span(2, first, 1), span(3, second, 1))
    later = settings(database_url, tmp_path, spans_redact=False)
    async with (
        served_at(build(later, asyncio.Event())) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await send(channel, span(1, {}))
        (trace,) = await traces_of(channel, 1)
    assert texts(trace)[0] == "I am <EMAIL_1> and my word is <BEARER_TOKEN_1>."


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"spans_redact": True, "spans_redact_skip": "phone, Mail"}, "'MAIL' is none of PRIVATE_KEY, JWT"),
        ({"spans_redact_skip": "phone"}, "it goes with spans_redact"),
    ],
)
def test_wrong_settings_are_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="spans_redact_skip") as caught:
        TraceStoreSettings(**given)
    assert told in str(caught.value)


@pytest.mark.one_database
async def test_kinds_that_are_left_out_stay(database_url: str, tmp_path: Path) -> None:
    made = settings(database_url, tmp_path, spans_redact_skip="phone, EMAIL")
    async with (
        served_at(build(made, asyncio.Event())) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await send(
            channel, span(1, gen_ai([text("user", f"{MAIL} {PHONE} 10.1.2.3")], text("assistant", "Yes")))
        )
        (trace,) = await traces_of(channel, 1)
    assert texts(trace)[0] == f"{MAIL} {PHONE} <IP_ADDRESS_1>"
