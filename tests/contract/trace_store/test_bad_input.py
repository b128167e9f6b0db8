"""Bad input to the trace store that a client library cannot send: sizes, bytes, page tokens, names."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.migrated import migrated
from support.serving import fields, refused, served_at
from support.timing import cheaply
from support.traces import step, trace
from tunix_rt import v1
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

MEBIBYTE = 1 << 20


@pytest.fixture
async def channel(database_url: str, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A channel without limits of its own, so that it is the server that refuses."""
    settings = TraceStoreSettings(listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path)
    migrated(settings, migrate)
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 4 * MEBIBYTE)]
    async with (
        served_at(build(settings, asyncio.Event())) as address,
        grpc.aio.insecure_channel(address, options=unlimited) as opened,
    ):
        yield opened


async def stored(store: Any) -> list[v1.Trace]:
    parts = [part async for part in store.StreamTraces(v1.StreamTracesRequest())]
    return [kept for part in parts for kept in part.batch.traces]


def grown(message: Any, fill: v1.TraceStep, size: int) -> None:
    """Make ``message`` encode to ``size`` bytes by the content of ``fill``, a step in it."""
    fill.content = ""
    fill.content = "x" * (size - message.ByteSize())
    fill.content = "x" * (len(fill.content) - (message.ByteSize() - size))
    assert message.ByteSize() == size


def sized_trace(size: int) -> v1.Trace:
    """A trace of exactly this many bytes."""
    steps = [step(i, content="x" * 20_000) for i in range(size // 20_100)]
    made = trace(0, steps=[*steps, step(len(steps), content="x")])
    grown(made, made.steps[-1], size)
    return made


def sized_batch(size: int) -> v1.BatchCreateTracesRequest:
    """A request of exactly this many bytes, whose traces are right."""
    request = v1.BatchCreateTracesRequest(traces=[sized_trace(MEBIBYTE - 1_000) for _ in range(4)])
    request.traces.append(trace(1))
    grown(request, request.traces[-1].steps[-1], size)
    return request


async def test_a_trace_of_one_mebibyte_is_kept_and_one_byte_more_is_not(store: Any) -> None:
    widest = sized_trace(MEBIBYTE)
    created = await store.CreateTrace(v1.CreateTraceRequest(trace=widest))
    assert (await store.GetTrace(v1.GetTraceRequest(name=created.name))).steps == widest.steps
    error = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=sized_trace(MEBIBYTE + 1))))
    assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", "TRACE_INVALID", ["trace"])
    assert [kept.name for kept in await stored(store)] == [created.name]


async def test_a_batch_of_four_mebibytes_is_kept_and_one_byte_more_is_not(store: Any) -> None:
    request = sized_batch(4 * MEBIBYTE)
    created = await store.BatchCreateTraces(request)
    assert [kept.steps for kept in await stored(store)] == [sent.steps for sent in request.traces]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await store.BatchCreateTraces(sized_batch(4 * MEBIBYTE + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194305 vs. 4194304" in str(caught.value.details())
    assert len(await stored(store)) == created.created_count


async def test_text_that_is_not_unicode_is_refused(channel: grpc.aio.Channel, store: Any) -> None:
    call = channel.unary_unary("/tunix_rt.v1.TraceStore/BatchCreateTraces")
    # A lone surrogate, a cut sequence, a byte that begins none.
    for wrong in (b"\xed\xa0\x80", b"\xe2\x82", b"\xff"):
        right = v1.BatchCreateTracesRequest(traces=[trace(0), trace(1, prompt="~" * len(wrong))])
        data = right.SerializeToString().replace(b"~" * len(wrong), wrong)
        error = await refused(call(data))
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    assert await stored(store) == []


async def test_page_tokens_that_the_server_did_not_give(store: Any) -> None:
    await store.BatchCreateTraces(v1.BatchCreateTracesRequest(traces=[trace(i) for i in range(3)]))
    token = (await store.ListTraces(v1.ListTracesRequest(page_size=1))).next_page_token
    made_up = [
        token[:-1],
        token[1:],
        token + "A",
        token.swapcase(),
        "\0",
        "é" * 100,
        "A" * 100_000,
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b'{"sequence": 1}').decode(),
        base64.urlsafe_b64encode(b"\xff" * 40).decode(),
        base64.urlsafe_b64encode(b"[" * 5_000).decode(),
    ]
    for wrong in made_up:
        error = await refused(store.ListTraces(v1.ListTracesRequest(page_token=wrong)))
        assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["page_token"]), wrong[:50]
        assert len(error.message) <= 1_024
    for wanted in (
        v1.TraceFilter(sources=["tests"]),
        v1.TraceFilter(prompt_contains="what"),
        v1.TraceFilter(metadata=[v1.MetadataCondition(key="number", exists=True)]),
        v1.TraceFilter(scores=[v1.ScoreCondition(criterion="answer")]),
    ):
        error = await refused(store.ListTraces(v1.ListTracesRequest(page_token=token, filter=wanted)))
        assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["page_token"])


async def test_snapshots_at_the_ends_of_the_number_range(store: Any) -> None:
    await store.CreateTrace(v1.CreateTraceRequest(trace=trace(0)))
    for as_of in (2, 2**63 - 1, -1, -(2**63)):
        parts = store.StreamTraces(v1.StreamTracesRequest(as_of=as_of))
        error = await refused(parts.read())
        assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", "AS_OF_INVALID", ["as_of"])


async def test_names_that_are_none(store: Any) -> None:
    kept = await store.CreateTrace(v1.CreateTraceRequest(trace=trace(0)))
    for wrong in (
        "traces/",
        "traces/a\0b",
        "traces/a/b",
        "traces/../traces/x",
        kept.name + "\n",
        " " + kept.name,
        kept.name.removeprefix("traces/"),
        "traces/" + "a" * 100_000,
        "traces/é",
        "Traces/x",
    ):
        for call in (
            store.GetTrace(v1.GetTraceRequest(name=wrong)),
            store.DeleteTrace(v1.DeleteTraceRequest(name=wrong)),
            store.ScoreTrace(v1.ScoreTraceRequest(name=wrong)),
        ):
            error = await refused(call)
            assert error.code in ("INVALID_ARGUMENT", "NOT_FOUND"), wrong[:50]
            assert len(error.message) <= 1_024
    assert await stored(store) == [kept]


async def test_a_thousand_wrong_traces_make_one_readable_error(store: Any) -> None:
    error = await refused(
        store.BatchCreateTraces(v1.BatchCreateTracesRequest(traces=[v1.Trace() for _ in range(1_000)]))
    )
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "TRACE_INVALID")
    assert fields(error)[0] == "traces[0].trace_version"
    assert "and at least 999 more" in error.message
    # Nobody reads as many as there are, and the next ones come with the next attempt.
    assert int(error.metadata["violations_omitted"]) + len(error.violations) == 1_000
    assert await stored(store) == []


@pytest.mark.parametrize("method", ["BatchCreateTraces", "BatchScoreTraces", "WriteScores"])
async def test_a_call_with_two_million_entries_costs_next_to_nothing(
    channel: grpc.aio.Channel, method: str
) -> None:
    call = channel.unary_unary(f"/tunix_rt.v1.TraceStore/{method}")
    # One took half a minute of the server once.
    with cheaply(2):
        error = await refused(call(b"\x0a\x00" * 2_000_000))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ENTRIES")


async def test_small_traces_with_very_many_empty_steps_are_refused_at_once(store: Any) -> None:
    trace = v1.Trace(steps=[v1.TraceStep()] * 1_000)
    with cheaply(5):
        error = await refused(store.BatchCreateTraces(v1.BatchCreateTracesRequest(traces=[trace] * 1_000)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "TRACE_INVALID")


async def test_metadata_of_very_many_values_is_refused(store: Any) -> None:
    odd = trace(1)
    odd.metadata.update({"values": [None] * 200_000})
    error = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=odd)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ENTRIES")
    assert await stored(store) == []
