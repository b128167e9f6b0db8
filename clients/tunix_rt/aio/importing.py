"""Storing any number of traces: split into batches, several on their way, each stored once."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from tunix_rt import v1
from tunix_rt.aio.client import AsyncClient, check_kind
from tunix_rt.aio.rpc.caller import patient
from tunix_rt.errors import (
    AbortedError,
    DeadlineExceededError,
    InvalidArgumentError,
    TunixRtError,
    UnavailableError,
)
from tunix_rt.rpc.batches import (
    Batch,
    ImportResult,
    ImportStoppedError,
    Reader,
    RefusedTrace,
    batches,
    decoded,
    located,
    violations_by_index,
)
from tunix_rt.rpc.parallel import AsyncCalls, AsyncRunning

__all__ = ["MAX_BATCH", "PATIENCE", "ImportResult", "ImportStoppedError", "RefusedTrace", "import_traces"]

MAX_BATCH: Final = 1_000
# Seconds for which a batch is tried again while the server is away.
PATIENCE: Final = 120.0
_POLICIES: Final = {"skip": v1.DUPLICATE_POLICY_SKIP, "keep": v1.DUPLICATE_POLICY_KEEP}
# What may be gone at the next attempt; the request id makes that attempt safe.
_PASSING: Final = (UnavailableError, DeadlineExceededError, AbortedError)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one batch."""

    answer: v1.BatchCreateTracesResponse
    refused: list[RefusedTrace]


async def import_traces(
    client: AsyncClient,
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
    up to two minutes; its request id ensures that it is stored once.

    Args:
        client: where to.
        traces: read as they are needed, in the calling thread or task.
        duplicate_policy: ``skip`` leaves out content that is already stored, ``keep`` stores it again.
        batch_size: 1-1,000. Ignored with an ``import_id``: then batches are as full as they can be.
        in_flight: batches on their way at once, at least 1. More than 1 may store batches out of order.
        on_progress: called in the calling thread after each batch, with the counts so far.
        on_refused: called in the calling thread for each trace that the server refuses, in order, before
            ``on_progress``; the rest of its batch is stored. Left out: such a trace ends the import.
        import_id: makes an import safe to repeat. With the id and traces of an earlier import, complete or
            not, nothing is stored twice, even with ``keep``, as long as no trace was refused. Whole batches
            are recognised, so where they end depends on the traces alone. Left out: the import is a new one.

    Raises:
        ImportStoppedError: a trace was refused, could not be read, or the server stayed away.
        InvalidArgumentError: an argument is out of range.
    """
    _check_range("batch_size", batch_size, MAX_BATCH)
    _check_range("in_flight", in_flight, 64)
    check_kind(client, import_traces)
    if duplicate_policy not in _POLICIES:
        raise InvalidArgumentError(f"duplicate_policy {duplicate_policy!r}: expected 'skip' or 'keep'")
    name = import_id or uuid.uuid4().hex
    size = MAX_BATCH if import_id else batch_size
    run = _Import(client, _POLICIES[duplicate_policy], name, in_flight, on_progress, on_refused)
    return await run.store(traces, size)


class _Import:
    def __init__(
        self,
        client: AsyncClient,
        policy: v1.DuplicatePolicy.ValueType,
        import_id: str,
        in_flight: int,
        on_progress: Callable[[ImportResult], None] | None,
        on_refused: Callable[[RefusedTrace], None] | None,
    ) -> None:
        self._client = client
        self._policy = policy
        self._id = import_id
        self._on_progress = on_progress
        self._on_refused = on_refused
        self._result = ImportResult()
        self._in_flight = in_flight
        self._calls = AsyncCalls(in_flight)
        self._waiting: deque[tuple[Batch, AsyncRunning[_Outcome]]] = deque()

    async def store(self, traces: Iterable[v1.Trace], batch_size: int) -> ImportResult:
        reader = Reader(traces)
        try:
            for batch in batches(reader, batch_size):
                while len(self._waiting) >= self._in_flight:
                    await self._collect()
                self._waiting.append((batch, self._calls.start(self._send, batch)))
            while self._waiting:
                await self._collect()
        finally:
            await self._calls.close()
        if reader.error is not None:
            raise ImportStoppedError(self._result, reader.error, reader.error.message) from reader.error
        return self._result

    async def _collect(self) -> None:
        batch, call = self._waiting.popleft()
        try:
            outcome = await call.result()
        except TunixRtError as error:
            await self._drain()
            told = located(error, batch.first)
            raise ImportStoppedError(self._result, error, told, first=batch.first) from error
        self._take(outcome)

    async def _drain(self) -> None:
        """Count the batches that are on their way; the first error stands for theirs."""
        waiting, self._waiting = self._waiting, deque()
        for _, call in waiting:
            with suppress(Exception):
                self._take(await call.result())

    def _take(self, outcome: _Outcome) -> None:
        self._result = self._result.plus(outcome.answer, len(outcome.refused))
        if self._on_refused is not None:
            for refused in outcome.refused:
                self._on_refused(refused)
        if self._on_progress is not None:
            self._on_progress(self._result)

    async def _send(self, batch: Batch) -> _Outcome:
        left = dict(enumerate(batch.traces, batch.first))
        refused: dict[int, RefusedTrace] = {}
        answer = v1.BatchCreateTracesResponse()
        while left:
            try:
                answer = await self._store(batch.first, list(left.values()))
                break
            except InvalidArgumentError as error:
                wrong = violations_by_index(error)
                if self._on_refused is None or not wrong or max(wrong) >= len(left):
                    raise
                # An answer has no room for very many violations: the next ones come with the next attempt.
                positions = list(left)
                for index, violations in wrong.items():
                    place = positions[index]
                    refused[place] = RefusedTrace(place, decoded(left.pop(place)), violations)
        return _Outcome(answer, [refused[place] for place in sorted(refused)])

    async def _store(self, first: int, traces: list[bytes]) -> v1.BatchCreateTracesResponse:
        request = self._request(first, traces)
        give_up = time.monotonic() + PATIENCE
        pause = 0.2
        while True:
            try:
                with patient(PATIENCE):
                    return await self._client.trace_store.batch_create_encoded_traces(request)
            except _PASSING:
                if time.monotonic() + pause > give_up:
                    raise
                if await self._calls.pause(pause):
                    raise
            pause = min(pause * 2, 5.0)

    def _request(self, first: int, traces: list[bytes]) -> bytes:
        body = b"".join(traces)
        digest = hashlib.sha256(f"{self._id}/{self._policy}/{first}".encode())
        digest.update(body)
        rest = v1.BatchCreateTracesRequest(duplicate_policy=self._policy, request_id=digest.hexdigest()[:32])
        # Messages that are encoded one behind the other are one message.
        return body + rest.SerializeToString()


def _check_range(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidArgumentError(f"{name} is {value}; expected 1 to {most}", reason="ARGUMENT_INVALID")
