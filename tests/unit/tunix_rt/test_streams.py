"""A stream of a snapshot goes on behind its last trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from support.threaded import fake_server
from tunix_rt import AsyncClient, Client, v1
from tunix_rt.errors import UnavailableError

COUNT = 10


class Store(v1.TraceStoreServicer):
    """Streams COUNT traces in batches of three; breaks behind trace ``break_behind``, ``breaks`` times.

    An ``old`` one does not know ``after_sequence``.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.old = False
        self.breaks = 0
        self.break_behind = 6

    def StreamTraces(
        self, request: v1.StreamTracesRequest, context: Any
    ) -> Iterator[v1.StreamTracesResponse]:
        self.asked.append((request.as_of, request.after_sequence))
        before = 0 if self.old else request.after_sequence
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=request.as_of or COUNT))
        for first in range(before + 1, COUNT + 1, 3):
            if self.breaks and first > self.break_behind:
                self.breaks -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            batch = [v1.Trace(sequence=sequence) for sequence in range(first, min(first + 3, COUNT + 1))]
            yield v1.StreamTracesResponse(batch=v1.TraceBatch(traces=batch))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with fake_server(lambda server: v1.add_TraceStoreServicer_to_server(store, server)) as address:
        yield address


@pytest.mark.parametrize("old", [False, True])
def test_a_broken_stream_yields_each_trace_once(address: str, store: Store, old: bool) -> None:
    store.breaks, store.old = 1, old
    with Client(address) as client:
        stream = client.trace_store.stream_traces()
        assert [trace.sequence for trace in stream] == list(range(1, COUNT + 1))
    assert store.asked == [(0, 0), (COUNT, 6)]


@pytest.mark.parametrize("old", [False, True])
async def test_a_broken_stream_yields_each_trace_once_in_asyncio(
    address: str, store: Store, old: bool
) -> None:
    store.breaks, store.old = 1, old
    async with AsyncClient(address) as client:
        stream = client.trace_store.stream_traces()
        assert [trace.sequence async for trace in stream] == list(range(1, COUNT + 1))
    assert store.asked == [(0, 0), (COUNT, 6)]


def test_a_stream_that_gets_no_further_ends(address: str, store: Store) -> None:
    store.breaks = 1000
    with Client(address) as client:
        stream = client.trace_store.stream_traces()
        seen: list[int] = []
        with pytest.raises(UnavailableError, match="going away"):
            seen.extend(trace.sequence for trace in stream)
        assert store.breaks > 900


def test_the_snapshot_is_known_before_the_first_trace_and_none_is_lost(address: str) -> None:
    with Client(address) as client:
        stream = client.trace_store.stream_traces()
        assert stream.as_of == COUNT
        assert next(stream).sequence == 1
        assert stream.as_of == COUNT
        assert len(list(stream)) == COUNT - 1


def test_a_stream_can_be_closed_early(address: str) -> None:
    with Client(address) as client:
        stream = client.trace_store.stream_traces()
        next(stream)
        stream.close()
        assert len(list(stream)) == 2, "the rest of the batch that had arrived"
