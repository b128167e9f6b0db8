"""Spans of OpenTelemetry, sent by its own SDK or as bare requests, become conversations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer
from sqlalchemy import insert

from support.migrated import migrated
from support.serving import refused, served_at
from support.spans import agent_run, gen_ai, text
from support.storing import settings_for, stream
from tunix_rt import v1
from tunix_rt.spans import Span
from tunix_rt_kit.database import Database
from tunix_rt_trace_store.tables import span_traces
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

one_database = pytest.mark.one_database
WAIT_S = 0.1
HELLO = gen_ai([text("user", "Hi")], text("assistant", "Hello"))


def settings(database_url: str, folder: Path, **more: Any) -> TraceStoreSettings:
    made = settings_for(database_url, folder).model_copy(
        update={"spans_wait_s": WAIT_S, "spans_idle_s": 3 * WAIT_S, **more}
    )
    migrated(made, migrate)
    return made


@pytest.fixture
async def address(database_url: str, tmp_path: Path) -> AsyncIterator[str]:
    async with served_at(build(settings(database_url, tmp_path), asyncio.Event())) as running:
        yield running


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as opened:
        yield opened


@pytest.fixture
def store(channel: grpc.aio.Channel) -> Any:
    return v1.TraceStoreStub(channel)


@pytest.fixture
def export(channel: grpc.aio.Channel) -> Any:
    return TraceServiceStub(channel).Export


async def traces_of(store: Any, count: int) -> list[v1.Trace]:
    """All traces, when there are so many."""
    for _ in range(100):
        _, found = await stream(store)
        if len(found) >= count:
            break
        await asyncio.sleep(0.05)
    assert len(found) == count
    return found


def request(*spans: SpanMessage) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])


def message(span: Span, trace: int = 1) -> SpanMessage:
    """A span as it is sent; it is of the trace with this number."""
    made = SpanMessage(
        trace_id=trace.to_bytes(16, "big"),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        start_time_unix_nano=span.start_ns,
    )
    for name, value in span.attributes.items():
        made.attributes.add(key=name).value.string_value = value
    return made


def bare(
    number: int, attributes: dict[str, Any] | None = None, parent: int = 0, trace: int = 1
) -> SpanMessage:
    given = Span("", f"{number:016x}", f"{parent:016x}" if parent else "", "", number, 0, attributes or {})
    return message(given, trace)


def run_agent(tracer: Tracer, run: Sequence[Span]) -> None:
    with tracer.start_as_current_span("invoke_agent", attributes=dict(run[0].attributes)):
        for span in run[1:]:
            with tracer.start_as_current_span("inner", attributes=dict(span.attributes)):
                pass


@one_database
async def test_what_an_instrumented_application_does_becomes_a_conversation(address: str, store: Any) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "weather-app"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, insecure=True)))
    tracer = provider.get_tracer("test")
    run_agent(tracer, agent_run())
    with tracer.start_as_current_span("GET /health"):
        pass
    assert await asyncio.to_thread(provider.force_flush)
    assert not (await stream(store))[1]
    (trace,) = await traces_of(store, 1)
    await asyncio.to_thread(provider.shutdown)
    assert [v1.Message.Role.Name(turn.role) for turn in trace.messages] == [
        "ROLE_USER",
        "ROLE_ASSISTANT",
        "ROLE_TOOL",
        "ROLE_ASSISTANT",
    ]
    assert trace.source == "weather-app"
    assert trace.metadata["model"] == "m-1"
    assert len(trace.metadata["otel_span_ids"]) == 2


async def test_each_span_counts_once_and_late_ones_become_another_trace(store: Any, export: Any) -> None:
    root, call = bare(1), bare(2, HELLO, 1)
    for sent in (request(call), request(call, root), request(root, call)):
        assert await export(sent) == ExportTraceServiceResponse()
    await traces_of(store, 1)
    await export(request(call, root))
    await export(request(bare(3, gen_ai([text("user", "More?")], text("assistant", "No")), 1)))
    first, late = await traces_of(store, 2)
    assert first.metadata["otel_trace_id"] == late.metadata["otel_trace_id"]
    assert late.messages[0].content[0].text == "More?"
    await asyncio.sleep(4 * WAIT_S)
    await traces_of(store, 2)


@one_database
async def test_spans_whose_root_never_comes_are_taken_after_the_longer_window(
    store: Any, export: Any
) -> None:
    await export(request(bare(2, HELLO, 1)))
    await asyncio.sleep(2 * WAIT_S)
    assert not (await stream(store))[1]
    await traces_of(store, 1)


@one_database
async def test_each_call_becomes_a_trace_where_that_is_set(database_url: str, tmp_path: Path) -> None:
    made = settings(database_url, tmp_path, spans_as="calls", spans_wait_s=0.0)
    async with (
        served_at(build(made, asyncio.Event())) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await TraceServiceStub(channel).Export(request(*map(message, agent_run())))
        assert [len(trace.messages) for trace in await traces_of(v1.TraceStoreStub(channel), 2)] == [2, 4]


@one_database
async def test_wrong_spans_are_refused_one_by_one(store: Any, export: Any) -> None:
    good = bare(1, HELLO)
    short, zero, parent = bare(2), bare(3), bare(4)
    short.trace_id = b"12345"
    zero.span_id = bytes(8)
    parent.parent_span_id = b"1"
    sent = request(short, good, zero, parent, bare(5, {}, 6), bare(6, {}, 5), bare(7, {}, 7))
    partial = (await export(sent)).partial_success
    assert partial.rejected_spans == 6
    start = "resource_spans[0].scope_spans[0].spans"
    for line in (
        f"{start}[0].trace_id: has 5 bytes; 16 would be right",
        f"{start}[2].span_id: is zero, which is no id",
        f"{start}[3].parent_span_id: has 1 bytes; 8 would be right",
        f"{start}[4].parent_span_id: leads back to the span 0000000000000005 itself",
        "and 1 more",
    ):
        assert line in partial.error_message
    await traces_of(store, 1)


@one_database
async def test_who_sends_no_content_is_told_how_to_switch_it_on(export: Any) -> None:
    off = {name: value for name, value in HELLO.items() if not name.endswith(".messages")}
    partial = (await export(request(bare(1, off), bare(2, HELLO), bare(3)))).partial_success
    assert partial.rejected_spans == 0
    assert "1 of 2 calls of models come without messages" in partial.error_message
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only" in partial.error_message
    assert await export(request(bare(4))) == ExportTraceServiceResponse()


@one_database
async def test_what_is_too_large_is_refused_whole(export: Any) -> None:
    many = await refused(export(request(*[SpanMessage()] * 10_001)))
    assert many.reason == "TOO_MANY_ENTRIES"
    assert many.violations[0].field == "resource_spans[0].scope_spans[0].spans"
    for size, compression in ((5, grpc.Compression.NoCompression), (8, grpc.Compression.Gzip)):
        large = request(bare(1, {"gen_ai.input.messages": "x" * (size << 20)}))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await export(large, compression=compression)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def refused_spans(store: Any, count: int, **asked: Any) -> v1.ListRefusedSpansResponse:
    """The refused spans, when they are of so many traces."""
    for _ in range(100):
        page = await store.ListRefusedSpans(v1.ListRefusedSpansRequest(**asked))
        if len(page.refused_spans) >= count:
            break
        await asyncio.sleep(0.05)
    assert len(page.refused_spans) == count
    return page


async def test_refused_spans_are_listed_with_what_is_wrong_and_what_to_do(store: Any, export: Any) -> None:
    off = {name: value for name, value in HELLO.items() if not name.endswith(".messages")}
    image = gen_ai([{"role": "user", "parts": [{"type": "blob"}]}], text("assistant", "Nice"))
    good = bare(9, HELLO, trace=9)
    await export(request(bare(1, off, trace=1), bare(2, off, 1, trace=1), good))
    await refused_spans(store, 1)
    await export(request(bare(1, image, trace=2), bare(2, image, 1, trace=2), bare(3, HELLO, 1, trace=2)))
    image_entry, off_entry = (await refused_spans(store, 2)).refused_spans
    assert [entry.otel_trace_id for entry in (image_entry, off_entry)] == [f"{2:032x}", f"{1:032x}"]
    (about_images,) = image_entry.reasons
    assert "a trace holds text alone" in about_images.reason
    assert about_images.span_count == 2
    assert sorted(about_images.span_ids) == [f"{1:016x}", f"{2:016x}"]
    (about_content,) = off_entry.reasons
    assert (about_content.span_count, list(about_content.span_ids)) == (2, [])
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only" in about_content.reason
    assert off_entry.refuse_time.ToDatetime() < image_entry.refuse_time.ToDatetime()
    # A page at a time.
    first = await refused_spans(store, 1, page_size=1)
    assert list(first.refused_spans) == [image_entry]
    second = await refused_spans(store, 1, page_size=1, page_token=first.next_page_token)
    assert list(second.refused_spans) == [off_entry]
    assert not second.next_page_token
    # What comes late does not make it forgotten.
    await export(request(bare(3, {}, 1, trace=1)))
    await asyncio.sleep(5 * WAIT_S)
    (late, _) = (await refused_spans(store, 2)).refused_spans
    assert (late.otel_trace_id, late.reasons) == (off_entry.otel_trace_id, off_entry.reasons)


@one_database
async def test_spans_that_were_refused_before_there_was_a_list_are_in_it(
    database_url: str, store: Any
) -> None:
    database = Database(database_url)
    with database.write() as session:
        row = {"trace_id": bytes(16), "arrivals": 1, "size_bytes": 0, "root_ended": True}
        problems = {"": "internal error: KeyError"}
        session.execute(insert(span_traces).values(**row, update_time=datetime.now(UTC), problems=problems))
    database.close()
    ((entry,),) = [page.refused_spans for page in [await refused_spans(store, 1)]]
    assert entry.reasons == [v1.RefusalReason(reason="internal error: KeyError")]


@one_database
async def test_conversations_that_the_store_refuses_leave_the_others_and_are_kept(
    store: Any, export: Any
) -> None:
    begins = gen_ai([text("assistant", "I begin")], text("assistant", "Again"))
    await export(request(bare(1, HELLO), bare(2, begins, 1)))
    (trace,) = await traces_of(store, 1)
    assert trace.messages[0].content[0].text == "Hi"
