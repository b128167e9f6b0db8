"""How failed calls reach the caller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from support.threaded import fake_server
from tunix_rt import AsyncClient, Client, v1
from tunix_rt.errors import (
    CancelledError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    TunixRtError,
    UnavailableError,
    UnimplementedError,
    class_of,
)


def packed(message: Any) -> AnyMessage:
    detail = AnyMessage()
    detail.Pack(message)
    return detail


class Store(v1.TraceStoreServicer):
    """Fails as the name of the trace says; counts calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.failures_left = 0

    def GetTrace(self, request: v1.GetTraceRequest, context: Any) -> v1.Trace:
        self.calls.append(dict(context.invocation_metadata()))
        if self.failures_left:
            self.failures_left -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        if request.name == "traces/slow":
            time.sleep(1)
        if request.name == "traces/rich":
            details = [
                packed(error_details_pb2.ErrorInfo(reason="TRACE_INVALID", domain="x", metadata={"k": "v"})),
                packed(
                    error_details_pb2.BadRequest(
                        field_violations=[
                            error_details_pb2.BadRequest.FieldViolation(field="name", description="is wrong")
                        ]
                    )
                ),
            ]
            status = status_pb2.Status(
                code=code_pb2.INVALID_ARGUMENT, message="name: is\nwrong", details=details
            )
            answer = rpc_status.to_status(status)
            context.set_trailing_metadata((*answer.trailing_metadata, ("x-request-id", "from-server")))
            context.abort(answer.code, answer.details)
        if request.name == "traces/dropped":
            context.abort(grpc.StatusCode.CANCELLED, "")
        if request.name == "traces/gone":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such trace")
        return v1.Trace(name=request.name)

    def DeleteTrace(self, _: v1.DeleteTraceRequest, context: Any) -> Any:
        self.calls.append({})
        context.abort(grpc.StatusCode.UNAVAILABLE, "busy")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with fake_server(lambda server: v1.add_TraceStoreServicer_to_server(store, server)) as address:
        yield address


@pytest.mark.usefixtures("quick_retries")
def test_a_server_that_is_not_there_is_named() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(UnavailableError) as caught:
        client.trace_store.get_trace("traces/x")
    assert str(caught.value).startswith("no tunix-rt server at 127.0.0.1:1 (start one with `tunix-rt up`")
    assert caught.value.reason == "SERVER_NOT_FOUND"


@pytest.mark.usefixtures("quick_retries")
async def test_a_server_that_is_not_there_is_named_by_the_asyncio_client() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError, match="no tunix-rt server at 127"):
            await client.trace_store.get_trace("traces/x")
        with pytest.raises(UnavailableError, match="no tunix-rt server at 127"):
            async for _ in client.exporter.watch_dataset("datasets/x@1"):
                pass


def check_rich(error: InvalidArgumentError) -> None:
    assert (error.code, error.reason, error.metadata) == ("INVALID_ARGUMENT", "TRACE_INVALID", {"k": "v"})
    assert error.field_violations == [FieldViolation("name", "is wrong")]
    assert error.request_id == "from-server"
    assert str(error) == "name: is wrong"


def test_details_of_an_error_arrive(address: str) -> None:
    with Client(address) as client, pytest.raises(InvalidArgumentError) as caught:
        client.trace_store.get_trace("traces/rich")
    check_rich(caught.value)


async def test_details_of_an_error_arrive_at_the_asyncio_client(address: str) -> None:
    async with AsyncClient(address) as client:
        with pytest.raises(InvalidArgumentError) as caught:
            await client.trace_store.get_trace("traces/rich")
    check_rich(caught.value)


def test_an_error_without_details_keeps_code_and_text(address: str, store: Store) -> None:
    with Client(address) as client, pytest.raises(NotFoundError, match="no such trace") as caught:
        client.trace_store.get_trace("traces/gone")
    assert caught.value.request_id == store.calls[0]["x-request-id"]


def test_a_call_has_a_deadline(address: str) -> None:
    with Client(address, timeout=0.1) as client:
        with pytest.raises(TunixRtError, match=f"{address} did not answer in time") as caught:
            client.trace_store.get_trace("traces/slow")
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert client.trace_store.get_trace("traces/slow", timeout=10).name == "traces/slow"


def test_a_service_that_the_server_lacks_is_said_to_be_missing(address: str) -> None:
    with Client(address) as client, pytest.raises(UnimplementedError, match="does not offer this call"):
        client.trainer.get_training_job("trainingJobs/x")


def test_a_message_that_is_too_large_is_said_to_be(address: str) -> None:
    with Client(address) as client, pytest.raises(ResourceExhaustedError) as caught:
        client.trace_store.create_trace(v1.Trace(prompt="x" * (4 * 1024 * 1024)))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


def test_a_call_that_a_stopping_server_drops_may_be_made_again(address: str) -> None:
    with Client(address) as client, pytest.raises(UnavailableError, match="the server stopped") as caught:
        client.trace_store.get_trace("traces/dropped")
    assert caught.value.reason == "CONNECTION_BROKEN"


def test_a_client_that_is_closed_says_so(address: str, store: Store) -> None:
    client = Client(address)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.trace_store.get_trace, "traces/slow")
        while not store.calls:
            time.sleep(0.01)
        client.close()
        with pytest.raises(CancelledError, match="Channel closed"):
            answer.result()


def test_reads_are_tried_again(address: str, store: Store) -> None:
    store.failures_left = 2
    with Client(address) as client:
        assert client.trace_store.get_trace("traces/x").name == "traces/x"
    assert len(store.calls) == 3


def test_a_deletion_is_not_sent_twice(address: str, store: Store) -> None:
    with Client(address) as client, pytest.raises(UnavailableError, match="busy"):
        client.trace_store.delete_trace("traces/x")
    assert len(store.calls) == 1


def test_every_canonical_code_has_a_class() -> None:
    for code in grpc.StatusCode:
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN):
            assert class_of(code.name).default_code == code.name
