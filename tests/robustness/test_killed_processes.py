"""Servers and clients that are killed amid an import; ``--kills`` and ``--writer-traces`` go further."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from support.server_process import environment
from support.spans import gen_ai, text
from support.store_process import StoreProcess
from support.traces import trace
from tunix_rt import Client, v1
from tunix_rt.errors import UnavailableError
from tunix_rt.importing import ImportResult, import_traces
from tunix_rt.wire import open_channel

pytestmark = pytest.mark.slow

WRITERS = 16


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    number: int = request.config.getoption("--kills")
    return number


def numbers_in_order(address: str) -> list[int]:
    """The number of each stored trace; the sequences must be 1, 2, 3 and so on."""
    traces: list[v1.Trace] = []

    def streamed() -> bool:
        # A channel of this process may still be waiting before it connects to the new server.
        try:
            with Client(address) as client:
                traces[:] = client.trace_store.stream_traces()
        except UnavailableError:
            return False
        return True

    wait_for(streamed)
    assert [stored.sequence for stored in traces] == list(range(1, len(traces) + 1))
    return [int(stored.metadata["number"]) for stored in traces]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within two minutes"
        time.sleep(0.005)


def test_a_server_that_is_killed_loses_nothing_that_it_acknowledged(
    database_url: str, tmp_path: Path, kills: int
) -> None:
    moments = random.Random(kills)
    acknowledged = ImportResult()
    enough = threading.Event()

    def endless() -> Iterator[v1.Trace]:
        for number in count():
            if enough.is_set():
                return
            yield trace(number)

    def progress(result: ImportResult) -> None:
        nonlocal acknowledged
        acknowledged = result

    with (
        StoreProcess(database_url, tmp_path) as store,
        Client(store.address) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        importing = pool.submit(
            import_traces,
            client,
            endless(),
            duplicate_policy="keep",
            batch_size=20,
            on_progress=progress,
        )
        try:
            for _ in range(kills):
                before = acknowledged.read
                wait_for(lambda before=before: acknowledged.read > before or importing.done())  # type: ignore[misc]
                time.sleep(moments.uniform(0, 0.1))
                store.kill()
                answered = acknowledged.read
                store.start()
                assert len(numbers_in_order(store.address)) >= answered
        finally:
            enough.set()
        result = importing.result(150)
        numbers = numbers_in_order(store.address)
    assert result.created == result.read == len(numbers)
    assert sorted(numbers) == list(range(result.read))


@pytest.mark.one_database
def test_a_server_that_is_killed_makes_one_trace_of_each_span_that_it_acknowledged(
    database_url: str, tmp_path: Path, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNIX_RT_TRACE_STORE_SPANS_WAIT_S", "0.1")
    moments = random.Random(kills)
    acknowledged: list[int] = []
    enough = threading.Event()

    def send_all(address: str) -> None:
        with open_channel(address, retried=()) as channel:
            export = TraceServiceStub(channel).Export  # type: ignore[no-untyped-call]
            for number in count(1):
                while not enough.is_set():
                    try:
                        export(one_call(number), timeout=5)
                        acknowledged.append(number)
                        break
                    except grpc.RpcError:
                        time.sleep(0.005)
                if enough.is_set():
                    return

    def stored(address: str) -> list[int]:
        with Client(address) as client:
            return [int(kept.metadata["otel_trace_id"], 16) for kept in client.trace_store.stream_traces()]

    with StoreProcess(database_url, tmp_path) as store, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_all, store.address)
        try:
            for _ in range(max(1, kills // 3)):
                before = len(acknowledged)
                wait_for(lambda before=before: len(acknowledged) > before + 5 or sending.done())  # type: ignore[misc]
                time.sleep(moments.uniform(0, 0.2))
                store.kill()
                store.start()
        finally:
            enough.set()
        sending.result(30)
        wait_for(lambda: len(stored(store.address)) >= len(acknowledged))
        found = stored(store.address)
    # The last one may have been stored without an answer.
    assert set(acknowledged) <= set(found) <= {*acknowledged, len(acknowledged) + 1}
    assert len(found) == len(set(found))


@pytest.mark.one_database
def test_a_server_that_is_killed_has_stored_nothing_of_what_it_redacts_and_goes_on_with_its_placeholders(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WAIT_S", "2"), ("IDLE_S", "2"), ("REDACT", "true")):
        monkeypatch.setenv(f"TUNIX_RT_TRACE_STORE_SPANS_{name}", value)
    address = "ann.lee@example.com"
    conversations: list[v1.Trace] = []

    def send(store: StoreProcess, request: ExportTraceServiceRequest) -> None:
        with open_channel(store.address, retried=()) as channel:
            TraceServiceStub(channel).Export(request, timeout=20)  # type: ignore[no-untyped-call]

    def is_made(at: str) -> bool:
        with Client(at) as client:
            conversations[:] = client.trace_store.stream_traces()
        return bool(conversations)

    def check_files() -> None:
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if address.encode() in file.read_bytes()]

    begun, went_on = one_call(1, address), one_call(1, address)
    (inner,) = went_on.resource_spans[0].scope_spans[0].spans
    inner.span_id = bytes(7) + b"2"
    inner.parent_span_id = bytes(7) + b"3"
    for value in inner.attributes:
        value.value.string_value = value.value.string_value.replace("Yes", f"Yes, {address}")
    with StoreProcess(database_url, tmp_path) as store:
        send(store, went_on)
        store.kill()
        check_files()
        store.start()
        send(store, begun)
        wait_for(lambda: is_made(store.address))
        store.kill()
        check_files()
        store.start()
    shown = [[part.text for turn in made.messages for part in turn.content] for made in conversations]
    assert sorted(shown) == [["<EMAIL_1>?", "Yes"], ["<EMAIL_1>?", "Yes, <EMAIL_1>"]]


def one_call(number: int, asked: object = None) -> ExportTraceServiceRequest:
    """A trace of one span, the call of a model that is asked for that."""
    span = Span(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"))
    for name, value in gen_ai([text("user", f"{asked or number}?")], text("assistant", "Yes")).items():
        span.attributes.add(key=name).value.string_value = value
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])])


class Writer:
    """A client process that imports its own traces, however often it is started."""

    def __init__(self, address: str, number: int, traces: int) -> None:
        self._command = [sys.executable, "-m", "support.trace_writer", address, str(number), str(traces)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=environment(), stdout=subprocess.PIPE, text=True)

    def finish(self) -> None:
        self._process.communicate(timeout=300)
        assert self._process.returncode == 0

    def kill_in_the_middle(self, after_s: float) -> bool:
        """Kill it some time after its first batch, and start it again; False if it had ended before."""
        assert self._process.stdout is not None
        self._process.stdout.readline()
        time.sleep(after_s)
        was_running = self._process.poll() is None
        self._process.kill()
        self._process.communicate()
        self.start()
        return was_running


class Snapshots:
    """The bytes of the snapshots that were the newest ones at some moments."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stream = self._channel.unary_stream("/tunix_rt.v1.TraceStore/StreamTraces")
        self.taken: dict[int, str] = {}

    def take(self, as_of: int = 0) -> tuple[int, str]:
        digest = hashlib.sha256()
        header = 0
        for part in self._stream(v1.StreamTracesRequest(as_of=as_of).SerializeToString()):
            header = header or v1.StreamTracesResponse.FromString(part).header.as_of
            digest.update(part)
        return header, digest.hexdigest()

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Take one after the other until the block ends."""
        done = threading.Event()

        def run() -> None:
            while not done.wait(0.1):
                as_of, digest = self.take()
                # Asking for 0 later would mean the newest one then.
                if as_of:
                    assert self.taken.setdefault(as_of, digest) == digest

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run)
            try:
                yield
            finally:
                done.set()
            running.result(60)

    def close(self) -> None:
        self._channel.close()


def test_writers_that_are_killed_store_each_trace_once(
    request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path, kills: int
) -> None:
    traces: int = request.config.getoption("--writer-traces")
    moments = random.Random(kills)
    with StoreProcess(postgres_url, tmp_path) as store:
        snapshots = Snapshots(store.address)
        with snapshots.taking():
            writers = [Writer(store.address, number, traces) for number in range(WRITERS)]
            killed = 0
            while killed < 2 * kills:
                killed += moments.choice(writers).kill_in_the_middle(moments.uniform(0, 0.2))
            for writer in writers:
                writer.finish()
        numbers = numbers_in_order(store.address)
        again = {as_of: snapshots.take(as_of) for as_of in snapshots.taken}
        snapshots.close()
    assert sorted(numbers) == list(range(WRITERS * traces))
    assert len(again) > 1
    assert again == {as_of: (as_of, digest) for as_of, digest in snapshots.taken.items()}
