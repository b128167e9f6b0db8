"""Storing any number of traces: split into batches, several on their way, each stored once."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from tunix_rt import v1
from tunix_rt.client import Client
from tunix_rt.errors import (
    AbortedError,
    DeadlineExceededError,
    FieldViolation,
    InvalidArgumentError,
    TunixRtError,
    UnavailableError,
)
from tunix_rt.rpc.channel import MAX_MESSAGE_BYTES

MAX_BATCH: Final = 1_000
# Seconds for which a batch is tried again while the server is away.
PATIENCE: Final = 120.0
# What stands before the length of each trace: the number of the field, and the wire type of a message.
_TRACES_TAG: Final = v1.BatchCreateTracesRequest.TRACES_FIELD_NUMBER << 3 | 2
# Room in a message for the request id and the policy.
_ENVELOPE: Final = 256

_POLICIES: Final = {"skip": v1.DUPLICATE_POLICY_SKIP, "keep": v1.DUPLICATE_POLICY_KEEP}
# What may be gone at the next attempt; the request id makes that attempt safe.
_PASSING: Final = (UnavailableError, DeadlineExceededError, AbortedError)


@dataclass(frozen=True, slots=True)
class RefusedTrace:
    """A trace that the server refused: its place in the whole import, from 1, and why."""

    position: int
    trace: v1.Trace
    field_violations: Sequence[FieldViolation]

    @property
    def reason(self) -> str:
        """Every wrong field, on one line."""
        return "; ".join(
            f"{violation.field}: {violation.description}" if violation.field else violation.description
            for violation in self.field_violations
        )


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did, or has done so far.

    ``read`` counts the traces that the server has answered for, ``created`` those that it stored, ``skipped``
    those whose content was there already, ``refused`` those that it refused; ``last_name`` names the trace
    that holds the last content.
    """

    read: int = 0
    created: int = 0
    skipped: int = 0
    last_name: str = ""
    refused: int = 0

    def plus(self, answer: v1.BatchCreateTracesResponse, refused: int = 0) -> ImportResult:
        """This result and one more batch."""
        return ImportResult(
            self.read + len(answer.results) + refused,
            self.created + answer.created_count,
            self.skipped + answer.skipped_count,
            answer.results[-1].name if answer.results else self.last_name,
            self.refused + refused,
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
    """Traces as they stand in a request, each encoded once, and the first one's place in the import."""

    first: int
    traces: list[bytes]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one batch."""

    answer: v1.BatchCreateTracesResponse
    refused: list[RefusedTrace]


def import_traces(
    client: Client,
    traces: Iterable[v1.Trace],
    *,
    duplicate_policy: Literal["skip", "keep"] = "skip",
    batch_size: int = MAX_BATCH,
    in_flight: int = 2,
    on_progress: Callable[[ImportResult], None] | None = None,
    on_refused: Callable[[RefusedTrace], None] | None = None,
    import_id: str | None = None,
) -> ImportResult:
    """Store traces, however many, in bounded memory.

    Batches hold at most ``batch_size`` traces and 4 MiB. While the server is away a batch is sent again, for
    up to two minutes; its request id sees to it that it is stored once.

    Args:
        client: where to.
        traces: read as they are needed, in the calling thread.
        duplicate_policy: ``skip`` leaves out content that is already stored, ``keep`` stores it again.
        batch_size: 1-1,000. With an ``import_id``, batches are as full as they can be, whatever it says.
        in_flight: batches on their way at once, at least 1. More than 1 may store batches out of order.
        on_progress: called in the calling thread after each batch, with the counts so far.
        on_refused: called in the calling thread for each trace that the server refuses, in order, before
            ``on_progress``; the rest of its batch is stored. Left out: such a trace ends the import.
        import_id: the same id and traces as in an earlier import, however much of that was done, store
            nothing twice, even with ``keep``, as long as no trace was refused: it is whole batches that are
            known again, so that where they end depends on the traces alone. Left out, this import stands for
            itself.

    Raises:
        ImportStoppedError: a trace was refused, could not be read, or the server stayed away.
        InvalidArgumentError: an argument is out of range.
    """
    _check_range("batch_size", batch_size, MAX_BATCH)
    _check_range("in_flight", in_flight, 64)
    if duplicate_policy not in _POLICIES:
        raise InvalidArgumentError(f"duplicate_policy {duplicate_policy!r}: expected 'skip' or 'keep'")
    name = import_id or uuid.uuid4().hex
    size = MAX_BATCH if import_id else batch_size
    run = _Import(client, _POLICIES[duplicate_policy], name, on_progress, on_refused)
    return run.store(traces, size, in_flight)


class _Import:
    def __init__(
        self,
        client: Client,
        policy: v1.DuplicatePolicy.ValueType,
        import_id: str,
        on_progress: Callable[[ImportResult], None] | None,
        on_refused: Callable[[RefusedTrace], None] | None,
    ) -> None:
        self._client = client
        self._policy = policy
        self._id = import_id
        self._on_progress = on_progress
        self._on_refused = on_refused
        self._result = ImportResult()
        self._stop = threading.Event()
        self._waiting: deque[tuple[_Batch, Future[_Outcome]]] = deque()

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
            outcome = future.result()
        except TunixRtError as error:
            self._drain()
            raise ImportStoppedError(self._result, error, _located(error, batch.first)) from error
        self._take(outcome)

    def _drain(self) -> None:
        """Count the batches that are on their way; the first error stands for theirs."""
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if future.exception() is None:
                self._take(future.result())

    def _take(self, outcome: _Outcome) -> None:
        self._result = self._result.plus(outcome.answer, len(outcome.refused))
        if self._on_refused is not None:
            for refused in outcome.refused:
                self._on_refused(refused)
        if self._on_progress is not None:
            self._on_progress(self._result)

    def _send(self, batch: _Batch) -> _Outcome:
        left = dict(enumerate(batch.traces, batch.first))
        refused: dict[int, RefusedTrace] = {}
        answer = v1.BatchCreateTracesResponse()
        while left:
            try:
                answer = self._store(batch.first, list(left.values()))
                break
            except InvalidArgumentError as error:
                wrong = _by_index(error)
                if self._on_refused is None or not wrong or max(wrong) >= len(left):
                    raise
                # An answer has no room for very many violations: the next ones come with the next attempt.
                positions = list(left)
                for index, violations in wrong.items():
                    place = positions[index]
                    refused[place] = RefusedTrace(place, _decoded(left.pop(place)), violations)
        return _Outcome(answer, [refused[place] for place in sorted(refused)])

    def _store(self, first: int, traces: list[bytes]) -> v1.BatchCreateTracesResponse:
        request = self._request(first, traces)
        give_up = time.monotonic() + PATIENCE
        pause = 0.2
        while True:
            try:
                return self._client.trace_store.batch_create_encoded_traces(request)
            except _PASSING:
                if time.monotonic() + pause > give_up:
                    raise
                if self._stop.wait(pause):
                    raise
            pause = min(pause * 2, 5.0)

    def _request(self, first: int, traces: list[bytes]) -> bytes:
        body = b"".join(traces)
        digest = hashlib.sha256(f"{self._id}/{self._policy}/{first}".encode())
        digest.update(body)
        rest = v1.BatchCreateTracesRequest(duplicate_policy=self._policy, request_id=digest.hexdigest()[:32])
        # Messages that are encoded one behind the other are one message.
        return body + rest.SerializeToString()


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
    first, size, batch = 1, _ENVELOPE, list[bytes]()
    for trace in traces:
        encoded = _encoded(trace)
        if batch and (len(batch) >= batch_size or size + len(encoded) > MAX_MESSAGE_BYTES):
            yield _Batch(first, batch)
            first, size, batch = first + len(batch), _ENVELOPE, []
        batch.append(encoded)
        size += len(encoded)
    if batch:
        yield _Batch(first, batch)


def _encoded(trace: v1.Trace) -> bytes:
    """The bytes of a request that holds one trace; deterministic, for the ids that are made of them."""
    data = trace.SerializeToString(deterministic=True)
    prefix, length = bytearray((_TRACES_TAG,)), len(data)
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + data


def _decoded(encoded: bytes) -> v1.Trace:
    return v1.BatchCreateTracesRequest.FromString(encoded).traces[0]


def _by_index(error: TunixRtError) -> dict[int, list[FieldViolation]]:
    """The violations of each trace of a batch, under their fields in it; those of none are left out."""
    found: dict[int, list[FieldViolation]] = {}
    for violation in error.field_violations:
        index, bracket, rest = violation.field.removeprefix("traces[").partition("]")
        if violation.field.startswith("traces[") and bracket and index.isdigit():
            field = FieldViolation(rest.removeprefix("."), violation.description)
            found.setdefault(int(index), []).append(field)
    return found


def _located(error: TunixRtError, first: int) -> str:
    """The error with ``traces[3]`` of its batch turned into the number of the trace in the whole import."""
    for index, (violation, *_) in _by_index(error).items():
        field = f"{violation.field}: " if violation.field else ""
        return f"trace {first + index:,}: {field}{violation.description}"
    return error.message


def _check_range(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidArgumentError(f"{name} is {value}; expected 1 to {most}", reason="ARGUMENT_INVALID")
