"""Imports split what they send, and store each trace once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.threaded import fake_server
from support.traces import trace
from tunix_rt import AsyncClient, Client, ImportResult, import_traces, v1
from tunix_rt.aio.importing import import_traces as aio_import_traces
from tunix_rt.errors import InvalidArgumentError
from tunix_rt.formats import FormatError
from tunix_rt.importing import ImportStoppedError, RefusedTrace

LIMIT = 4 * 1024 * 1024


class Store(v1.TraceStoreServicer):
    """Stores a batch once per request id, and fails as it is told."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: dict[str, v1.BatchCreateTracesRequest] = {}
        self.calls = 0
        self.lost_answers = 0
        self.bad_prompts: set[str] = set()
        # An answer has room for so many violations.
        self.named_at_once = 2

    @property
    def stored(self) -> list[str]:
        return sorted(trace.prompt for batch in self.batches.values() for trace in batch.traces)

    def BatchCreateTraces(
        self, request: v1.BatchCreateTracesRequest, context: Any
    ) -> v1.BatchCreateTracesResponse:
        with self.lock:
            self.calls += 1
            assert request.ByteSize() <= LIMIT
            assert 1 <= len(request.traces) <= 1000
            bad = [i for i, entry in enumerate(request.traces) if entry.prompt in self.bad_prompts]
            if bad:
                refuse(context, bad[: self.named_at_once])
            self.batches.setdefault(request.request_id, request)
            assert self.batches[request.request_id] == request
            if self.lost_answers:
                self.lost_answers -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return v1.BatchCreateTracesResponse(
            results=[v1.BatchCreateTracesResult(name=f"traces/{entry.prompt}") for entry in request.traces],
            created_count=len(request.traces),
        )


def refuse(context: Any, indices: list[int]) -> None:
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=f"traces[{index}].{field}", description="is odd")
        for index in indices
        for field in ("prompt", "steps[0].i")
    ]
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="a trace is odd")
    for message in (
        error_details_pb2.ErrorInfo(reason="TRACE_INVALID"),
        error_details_pb2.BadRequest(field_violations=violations),
    ):
        detail = AnyMessage()
        detail.Pack(message)
        status.details.append(detail)
    context.abort_with_status(rpc_status.to_status(status))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def client(store: Store) -> Iterator[Client]:
    with (
        fake_server(lambda server: v1.add_TraceStoreServicer_to_server(store, server)) as address,
        Client(address) as client,
    ):
        yield client


def test_traces_are_split_by_count(client: Client, store: Store) -> None:
    progress: list[ImportResult] = []
    result = import_traces(client, (trace(i) for i in range(2500)), on_progress=progress.append)
    assert (result.read, result.created, result.skipped) == (2500, 2500, 0)
    assert sorted(len(batch.traces) for batch in store.batches.values()) == [500, 1000, 1000]
    assert [entry.read for entry in progress] == [1000, 2000, 2500]
    assert {batch.duplicate_policy for batch in store.batches.values()} == {v1.DUPLICATE_POLICY_SKIP}
    assert result.last_name == f"traces/{trace(2499).prompt}"


@pytest.mark.parametrize("size", [3000, 300_000, 1_000_000])
def test_traces_are_split_by_encoded_size(client: Client, store: Store, size: int) -> None:
    steps = [v1.TraceStep(i=i, type="t", content="x" * 20_000) for i in range(size // 20_000)]
    traces = [trace(i, steps=steps or [v1.TraceStep(type="t", content="x" * size)]) for i in range(30)]
    import_traces(client, traces)
    assert store.stored == sorted(entry.prompt for entry in traces)
    sizes = sorted(batch.ByteSize() for batch in store.batches.values())
    # All but the last are as full as they can be.
    assert all(LIMIT - size - 500 < taken <= LIMIT for taken in sizes[1:])


def test_what_a_message_adds_to_each_trace_is_counted(client: Client, store: Store) -> None:
    bare = trace(1000, steps=[v1.TraceStep(type="t", content="x" * 3000)]).ByteSize()
    content = "x" * (3000 + LIMIT // 1000 - bare)
    traces = [trace(i, steps=[v1.TraceStep(type="t", content=content)]) for i in range(1000, 2000)]
    assert sum(entry.ByteSize() for entry in traces) <= LIMIT
    import_traces(client, traces)
    assert store.stored == sorted(entry.prompt for entry in traces)
    assert len(store.batches) == 2


def test_an_answer_that_was_lost_does_not_store_a_batch_twice(client: Client, store: Store) -> None:
    store.lost_answers = 9
    result = import_traces(
        client, (trace(i) for i in range(40)), batch_size=10, in_flight=3, duplicate_policy="keep"
    )
    assert result.created == 40
    assert len(store.batches) == 4
    assert store.calls == 13
    assert len(set(store.stored)) == 40


def test_the_same_import_id_sends_the_same_request_ids(client: Client, store: Store) -> None:
    for _ in range(2):
        import_traces(client, [trace(1), trace(2)], import_id="mine", duplicate_policy="keep")
    assert len(store.batches) == 1
    import_traces(client, [trace(1), trace(3)], import_id="mine", duplicate_policy="keep")
    assert len(store.batches) == 2


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.sampled_from([1, 999, 1000, 1001, 2300]),
    done=st.integers(0, 2300),
    sizes=st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
    large=st.booleans(),
)
def test_an_import_that_goes_on_with_another_batch_size_stores_nothing_twice(
    client: Client, store: Store, count: int, done: int, sizes: tuple[int, int], large: bool
) -> None:
    store.batches.clear()
    # Of the large ones fewer than a thousand fit in a message.
    content = "x" * 9_000 if large else "x"
    traces = [trace(number, steps=[v1.TraceStep(type="t", content=content)]) for number in range(count)]

    def broken_off() -> Iterator[v1.Trace]:
        yield from traces[:done]
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        import_traces(client, broken_off(), batch_size=sizes[0], import_id="mine", duplicate_policy="keep")
    import_traces(client, traces, batch_size=sizes[1], import_id="mine", duplicate_policy="keep")
    assert store.stored == sorted(entry.prompt for entry in traces)


def test_imports_without_an_id_stand_for_themselves(client: Client, store: Store) -> None:
    for _ in range(2):
        import_traces(client, [trace(1)], duplicate_policy="keep")
    assert len(store.batches) == 2


def test_equal_batches_of_one_import_are_not_one(client: Client, store: Store) -> None:
    assert import_traces(client, [trace(1)] * 3, batch_size=1, duplicate_policy="keep").created == 3
    assert len(store.batches) == 3


def test_a_refused_trace_is_named_by_its_place_in_the_whole_import(client: Client, store: Store) -> None:
    store.bad_prompts = {trace(25).prompt}
    with pytest.raises(ImportStoppedError) as caught:
        import_traces(client, (trace(i) for i in range(40)), batch_size=10, in_flight=1)
    assert str(caught.value) == "20 traces stored, then: trace 26: prompt: is odd"
    assert caught.value.reason == "TRACE_INVALID"
    assert caught.value.result.created == len(store.stored) == 20


def test_batches_on_their_way_when_one_is_refused_are_counted(client: Client, store: Store) -> None:
    store.bad_prompts = {trace(0).prompt}
    with pytest.raises(ImportStoppedError) as caught:
        import_traces(client, (trace(i) for i in range(40)), batch_size=10, in_flight=4)
    assert caught.value.result.created == len(store.stored)


@pytest.mark.parametrize("bad", [{25}, {0, 39}, set(range(7, 35)), set(range(40))])
def test_refused_traces_are_taken_out_and_the_rest_of_their_batch_is_stored(
    client: Client, store: Store, bad: set[int]
) -> None:
    store.bad_prompts = {trace(number).prompt for number in bad}
    refused: list[RefusedTrace] = []
    progress: list[ImportResult] = []
    result = import_traces(
        client,
        (trace(i) for i in range(40)),
        batch_size=10,
        in_flight=3,
        on_refused=refused.append,
        on_progress=progress.append,
    )
    assert store.stored == sorted(trace(number).prompt for number in range(40) if number not in bad)
    assert [entry.position for entry in refused] == [number + 1 for number in sorted(bad)]
    assert [entry.trace for entry in refused] == [trace(number) for number in sorted(bad)]
    assert {entry.reason for entry in refused} == {"prompt: is odd; steps[0].i: is odd"}
    assert (result.read, result.created, result.refused) == (40, 40 - len(bad), len(bad))
    assert [entry.read for entry in progress] == [10, 20, 30, 40]


def test_a_refusal_that_names_no_trace_ends_the_import_all_the_same(client: Client, store: Store) -> None:
    store.named_at_once = 0
    store.bad_prompts = {trace(0).prompt}
    refused: list[RefusedTrace] = []
    with pytest.raises(ImportStoppedError):
        import_traces(client, [trace(0)], on_refused=refused.append)
    assert not refused


def test_what_is_sent_is_the_request_that_the_traces_make(client: Client, store: Store) -> None:
    traces = [trace(0, prompt="x" * length) for length in (1, 100, 128, 20_000, 50_000)]
    import_traces(client, traces)
    (request,) = store.batches.values()
    assert list(request.traces) == traces
    assert len(request.request_id) == 32


def test_what_was_read_before_a_bad_line_is_stored(client: Client, store: Store) -> None:
    def reader() -> Iterator[v1.Trace]:
        yield from (trace(i) for i in range(3))
        raise FormatError(4, "not JSON", file="f.jsonl")

    with pytest.raises(ImportStoppedError) as caught:
        import_traces(client, reader())
    assert str(caught.value) == "3 traces stored, then: f.jsonl, line 4: not JSON"
    assert len(store.stored) == 3


def test_nothing_to_import_is_nothing_sent(client: Client, store: Store) -> None:
    assert import_traces(client, []) == ImportResult()
    assert store.calls == 0


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"batch_size": 1001}, {"in_flight": 0}, {"duplicate_policy": "drop"}]
)
def test_arguments_out_of_range_are_named(client: Client, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
        import_traces(client, [trace(1)], **arguments)


@pytest.mark.parametrize("other", [{"prompt": "2 + 2?"}, "2 + 2?", None, v1.EvalItem(id="a")])
def test_what_is_no_trace_ends_the_import_by_its_place(client: Client, store: Store, other: Any) -> None:
    with pytest.raises(ImportStoppedError, match=f"trace 3: a {type(other).__name__} is given") as caught:
        import_traces(client, [trace(1), trace(2), other, trace(4)])
    assert caught.value.result.created == len(store.stored) == 2


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with fake_server(lambda server: v1.add_TraceStoreServicer_to_server(store, server)) as address:
        yield address


async def test_an_import_in_asyncio_stores_what_an_import_stores(address: str, store: Store) -> None:
    store.lost_answers = 3
    store.bad_prompts = {trace(7).prompt, trace(31).prompt}
    progress: list[ImportResult] = []
    refused: list[RefusedTrace] = []
    async with AsyncClient(address) as client:
        result = await aio_import_traces(
            client,
            (trace(i) for i in range(40)),
            batch_size=10,
            in_flight=3,
            on_progress=progress.append,
            on_refused=refused.append,
        )
    assert (result.read, result.created, result.refused) == (40, 38, 2)
    assert [entry.position for entry in refused] == [8, 32]
    assert [entry.read for entry in progress] == [10, 20, 30, 40]
    assert store.stored == sorted(trace(i).prompt for i in range(40) if i not in (7, 31))


async def test_an_import_in_asyncio_that_is_stopped_counts_what_was_stored(
    address: str, store: Store
) -> None:
    store.bad_prompts = {trace(25).prompt}
    async with AsyncClient(address) as client:
        with pytest.raises(ImportStoppedError) as caught:
            await aio_import_traces(client, (trace(i) for i in range(40)), batch_size=10, in_flight=2)
        assert caught.value.message.startswith("20 traces stored, then: trace 26: ") or (
            caught.value.message.startswith("30 traces stored, then: trace 26: ")
        )
        assert caught.value.result.created == len(store.stored)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
