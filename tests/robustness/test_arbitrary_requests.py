"""Arbitrary bytes and messages to every method: a meaningful answer each time, and nothing half-written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

import tunix_rt_local
from support.arbitrary import requests
from support.migrated import migrated
from support.threaded import real_server
from support.traces import trace
from tunix_rt import v1
from tunix_rt.wire import services
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

TRACE_STORE = v1.trace_store_pb2.DESCRIPTOR.services_by_name["TraceStore"]
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}


def methods(*given: ServiceDescriptor) -> st.SearchStrategy[MethodDescriptor]:
    return st.sampled_from([method for service in given for method in service.methods])


def answers(
    channel: grpc.Channel, method: MethodDescriptor, request: bytes
) -> tuple[grpc.StatusCode, list[bytes]]:
    """The status of a call and the messages that came before it."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    received: list[bytes] = []
    try:
        if method.server_streaming:
            received.extend(channel.unary_stream(path)(request, timeout=30))
        else:
            received.append(channel.unary_unary(path)(request, timeout=30))
    except grpc.RpcError as error:
        return error.code(), received
    return grpc.StatusCode.OK, received


# As long as a real name, so that one can be put in its place in an encoded request.
PLACES = [f"traces/{number:036}" for number in range(3)]


def trace_store_words(field: str) -> st.SearchStrategy[str]:
    if field in {"name", "names", "base", "other", "trace"}:
        return st.sampled_from([*PLACES, "traces/0192f3a0-0000-7000-8000-000000000000"])
    return st.sampled_from(["structure", "answer", "number", "a"])


class Shadow:
    """What a trace store must hold, by what it answered."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stream = v1.TraceStoreStub(channel).StreamTraces
        self._seen: set[str] = set()
        self._scored: set[str] = set()
        self.names: list[str] = []
        self.newest = 0

    def take(self, method: MethodDescriptor, request: bytes, answer: bytes) -> None:
        """Follow a call that succeeded."""
        if method.name == "CreateTrace":
            self._add(v1.Trace.FromString(answer).name)
        elif method.name == "BatchCreateTraces":
            for result in v1.BatchCreateTracesResponse.FromString(answer).results:
                self._add(result.name)
        elif method.name == "DeleteTrace":
            self.names.remove(v1.DeleteTraceRequest.FromString(request).name)
            self.newest += 1
        elif method.name == "BatchDeleteTraces":
            deleted = v1.BatchDeleteTracesResponse.FromString(answer).names
            self.names = [name for name in self.names if name not in deleted]
            self.newest += bool(deleted)
        elif method.name == "ScoreTrace":
            self.newest += 1
        elif method.name == "BatchScoreTraces":
            results = v1.BatchScoreTracesResponse.FromString(answer).results
            self.newest += any(result.scores for result in results)
        elif method.name == "WriteScores":
            request_id = v1.WriteScoresRequest.FromString(request).request_id
            # As for traces: an id that was used before stores nothing more.
            if not request_id or request_id not in self._scored:
                self._scored.add(request_id)
                self.newest += 1

    def with_names(self, request: bytes) -> bytes:
        """The request with the newest names in the places for them."""
        for place, name in zip(PLACES, reversed(self.names), strict=False):
            request = request.replace(place.encode(), name.encode())
        return request

    def check(self) -> None:
        """The store holds these traces, in this order, and its newest commit has this number."""
        header, *batches = self._stream(v1.StreamTracesRequest())
        assert header.header.as_of == self.newest
        assert [trace.name for part in batches for trace in part.batch.traces] == self.names

    def _add(self, name: str) -> None:
        # A request id that was used before answers with what was stored then.
        if name not in self._seen:
            self._seen.add(name)
            self.names.append(name)
            self.newest += 1


@pytest.fixture
def trace_store(database_url: str, tmp_path: Path) -> Iterator[grpc.Channel]:
    settings = TraceStoreSettings(listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path)
    migrated(settings, migrate)
    with (
        real_server(lambda stop: build(settings, stop)) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield channel


def test_the_trace_store_holds_what_its_answers_say(trace_store: grpc.Channel) -> None:
    shadow = Shadow(trace_store)
    # Some runs make no trace that is stored: those have one to read, score and delete.
    create = TRACE_STORE.methods_by_name["CreateTrace"]
    first = v1.CreateTraceRequest(trace=trace(0)).SerializeToString()
    _, received = answers(trace_store, create, first)
    shadow.take(create, first, *received)
    shadow.check()

    @settings(max_examples=250, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        method = data.draw(methods(TRACE_STORE))
        request = shadow.with_names(data.draw(requests(method, trace_store_words)))
        code, received = answers(trace_store, method, request)
        assert code in EXPECTED
        if code is grpc.StatusCode.OK and not method.server_streaming:
            shadow.take(method, request, *received)
        shadow.check()

    check()


def test_every_service_answers_with_a_meaning(tmp_path: Path) -> None:
    with (
        tunix_rt_local.embedded(tmp_path / "data") as server,
        grpc.insecure_channel(server.address) as channel,
    ):

        @settings(max_examples=400, deadline=None)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            method = data.draw(methods(*services()))
            request = data.draw(requests(method, lambda _: st.sampled_from(["a", "number", "chatml"])))
            code, _ = answers(channel, method, request)
            assert code in EXPECTED

        check()
