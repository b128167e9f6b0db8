"""Storing any number of traces: split into batches, several on their way, each stored once."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from tunix_rt import v1
from tunix_rt.client import Client
from tunix_rt.errors import InvalidArgumentError, TunixRtError, UnavailableError
from tunix_rt.rpc.channel import MAX_MESSAGE_BYTES

MAX_BATCH: Final = 1_000
# Seconds for which a batch is tried again while the server is away.
PATIENCE: Final = 120.0
# Room in a message for the request id and the policy, and for the tag and length of each trace.
_ENVELOPE: Final = 256
_PER_TRACE: Final = 6

_POLICIES: Final = {"skip": v1.DUPLICATE_POLICY_SKIP, "keep": v1.DUPLICATE_POLICY_KEEP}


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did, or has done so far.

    ``read`` counts the traces that the server has answered for, ``created`` those that it stored, ``skipped``
    those whose content was there already; ``last_name`` names the trace that holds the last content.
    """

    read: int = 0
    created: int = 0
    skipped: int = 0
    last_name: str = ""

    def plus(self, answer: v1.BatchCreateTracesResponse) -> ImportResult:
        """This result and one more batch."""
        return ImportResult(
            self.read + len(answer.results),
            self.created + answer.created_count,
            self.skipped + answer.skipped_count,
            answer.results[-1].name if answer.results else self.last_name,
        )


class ImportStoppedError(TunixRtError):
    """An import could not go on. What was stored stays; ``result`` counts it, ``__cause__`` says why."""

    def __init__(self, result: ImportResult, cause: TunixRtError, message: str) -> None:
        stored = f"{result.created:,} {'trace' if result.created == 1 else 'traces'} stored"
        if result.skipped:
            stored += f", {result.skipped:,} skipped"
        super().__init__(
            f"{stored}, then: {message}",
            code=cause.code,
            reason=cause.reason,
            metadata=cause.metadata,
            field_violations=cause.field_violations,
            request_id=cause.request_id,
        )
        self.result = result


@dataclass(frozen=True, slots=True)
class _Batch:
    first: int
    traces: list[v1.Trace]


def import_traces(
    client: Client,
    traces: Iterable[v1.Trace],
    *,
    duplicate_policy: Literal["skip", "keep"] = "skip",
    batch_size: int = MAX_BATCH,
    in_flight: int = 2,
    on_progress: Callable[[ImportResult], None] | None = None,
    import_id: str | None = None,
) -> ImportResult:
    """Store traces, however many, in bounded memory.

    Batches hold at most ``batch_size`` traces and 4 MiB. While the server is away a batch is sent again, for
    up to two minutes; its request id sees to it that it is stored once.

    Args:
        client: where to.
        traces: read as they are needed, in the calling thread.
        duplicate_policy: ``skip`` leaves out content that is already stored, ``keep`` stores it again.
        batch_size: 1-1,000.
        in_flight: batches on their way at once, at least 1. More than 1 may store batches out of order.
        on_progress: called in the calling thread after each batch, with the counts so far.
        import_id: the same id and traces as in an earlier import store nothing twice, even with ``keep``;
            left out, this import stands for itself.

    Raises:
        ImportStoppedError: a trace was refused, could not be read, or the server stayed away.
        InvalidArgumentError: an argument is out of range.
    """
    _check_range("batch_size", batch_size, MAX_BATCH)
    _check_range("in_flight", in_flight, 64)
    if duplicate_policy not in _POLICIES:
        raise InvalidArgumentError(f"duplicate_policy {duplicate_policy!r}: expected 'skip' or 'keep'")
    run = _Import(client, _POLICIES[duplicate_policy], import_id or uuid.uuid4().hex, on_progress)
    return run.store(traces, batch_size, in_flight)


class _Import:
    def __init__(
        self,
        client: Client,
        policy: v1.DuplicatePolicy.ValueType,
        import_id: str,
        on_progress: Callable[[ImportResult], None] | None,
    ) -> None:
        self._client = client
        self._policy = policy
        self._id = import_id
        self._on_progress = on_progress
        self._result = ImportResult()
        self._stop = threading.Event()
        self._waiting: deque[tuple[_Batch, Future[v1.BatchCreateTracesResponse]]] = deque()

    def store(self, traces: Iterable[v1.Trace], batch_size: int, in_flight: int) -> ImportResult:
        reader = _Reader(traces)
        pool = ThreadPoolExecutor(in_flight, thread_name_prefix="tunix-rt-import")
        try:
            for batch in _batches(reader, batch_size):
                while len(self._waiting) >= in_flight:
                    self._collect()
                self._waiting.append((batch, pool.submit(self._send, batch)))
            while self._waiting:
                self._collect()
        finally:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        if reader.error is not None:
            raise ImportStoppedError(self._result, reader.error, reader.error.message) from reader.error
        return self._result

    def _collect(self) -> None:
        batch, future = self._waiting.popleft()
        try:
            answer = future.result()
        except TunixRtError as error:
            self._drain()
            raise ImportStoppedError(self._result, error, _located(error, batch.first)) from error
        self._take(answer)

    def _drain(self) -> None:
        """Count the batches that are on their way; the first error stands for theirs."""
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if future.exception() is None:
                self._take(future.result())

    def _take(self, answer: v1.BatchCreateTracesResponse) -> None:
        self._result = self._result.plus(answer)
        if self._on_progress is not None:
            self._on_progress(self._result)

    def _send(self, batch: _Batch) -> v1.BatchCreateTracesResponse:
        request_id = self._request_id(batch)
        give_up = time.monotonic() + PATIENCE
        pause = 0.2
        while True:
            try:
                return self._client.trace_store.batch_create_traces(
                    batch.traces, duplicate_policy=self._policy, request_id=request_id
                )
            except UnavailableError:
                if time.monotonic() + pause > give_up:
                    raise
                if self._stop.wait(pause):
                    raise
            pause = min(pause * 2, 5.0)

    def _request_id(self, batch: _Batch) -> str:
        digest = hashlib.sha256(f"{self._id}/{self._policy}/{batch.first}".encode())
        for trace in batch.traces:
            digest.update(trace.SerializeToString(deterministic=True))
        return digest.hexdigest()[:32]


class _Reader:
    """Hands on traces until reading one fails, and keeps why; what was read before is still stored."""

    def __init__(self, traces: Iterable[v1.Trace]) -> None:
        self._traces = traces
        self.error: TunixRtError | None = None

    def __iter__(self) -> Iterator[v1.Trace]:
        try:
            yield from self._traces
        except TunixRtError as error:
            self.error = error


def _batches(traces: Iterable[v1.Trace], batch_size: int) -> Iterator[_Batch]:
    first, size, batch = 1, _ENVELOPE, list[v1.Trace]()
    for trace in traces:
        grown = trace.ByteSize() + _PER_TRACE
        if batch and (len(batch) >= batch_size or size + grown > MAX_MESSAGE_BYTES):
            yield _Batch(first, batch)
            first, size, batch = first + len(batch), _ENVELOPE, []
        batch.append(trace)
        size += grown
    if batch:
        yield _Batch(first, batch)


def _located(error: TunixRtError, first: int) -> str:
    """The error with ``traces[3]`` of its batch turned into the number of the trace in the whole import."""
    for violation in error.field_violations:
        index, bracket, rest = violation.field.removeprefix("traces[").partition("]")
        if bracket and index.isdigit():
            field = rest.removeprefix(".")
            return f"trace {first + int(index):,}: {field + ': ' if field else ''}{violation.description}"
    return error.message


def _check_range(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidArgumentError(f"{name} is {value}; expected 1 to {most}", reason="ARGUMENT_INVALID")
