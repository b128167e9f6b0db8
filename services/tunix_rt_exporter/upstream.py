"""The trace store and the evaluator, through their stubs."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC
from itertools import islice
from typing import Final, TypeVar

import grpc

from tunix_rt import v1
from tunix_rt_exporter import convert
from tunix_rt_exporter.datasets.model import EvalPrompts, Filter, SourceTrace
from tunix_rt_kit.errors import (
    DomainError,
    FieldViolation,
    InvalidArgument,
    NotFound,
    Unavailable,
    check_living,
)
from tunix_rt_kit.serving.calls import answer_of, answers_of, calling

_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.5
_IDLE_S: Final = 0.2
_PAGE: Final = 1_000
T = TypeVar("T")


class GrpcTraceSource:
    """The trace store at the other end of ``channel``.

    A stream that breaks off is opened again, and goes on where it was: a snapshot is always streamed in the
    same order. ``patience_s`` is how long no new trace may come before the stream is given up, whether it is
    silent or breaks off again and again.
    """

    def __init__(self, channel: grpc.Channel, patience_s: float) -> None:
        self._stub = v1.TraceStoreStub(channel)
        self._patience_s = patience_s

    def resolve(self, wanted: Filter, as_of: int) -> int:
        request = v1.StreamTracesRequest(filter=convert.trace_filter(wanted), as_of=as_of)
        with _translated("the trace store", "spec."):
            return _first(answers_of(self._stub.StreamTraces, request, _TIMEOUT_S), 1)[0].header.as_of

    def unchanged_since(self, wanted: Filter, as_of: int) -> bool:
        newest = v1.ListTracesRequest(filter=convert.trace_filter(wanted), page_size=1)
        snapshot = v1.StreamTracesRequest(filter=convert.trace_filter(wanted), as_of=as_of)
        try:
            with _translated("the trace store", "spec."):
                found = answer_of(self._stub.ListTraces, newest, _TIMEOUT_S).traces
                if any(trace.sequence > as_of for trace in found):
                    return False
                # A score that was written since may have changed what matches.
                if wanted.get("scores") and self.resolve(wanted, 0) != as_of:
                    return False
                _first(answers_of(self._stub.StreamTraces, snapshot, _TIMEOUT_S), 2)
        except DomainError as error:
            if error.reason in {"SNAPSHOT_INCOMPLETE", "AS_OF_INVALID"}:
                return False
            raise
        return True

    def added_since(self, wanted: Filter, as_of: int, most: int) -> int:
        request = v1.ListTracesRequest(filter=convert.trace_filter(wanted), page_size=most)
        count = 0
        while count < most:
            with _translated("the trace store", "spec."):
                page = answer_of(self._stub.ListTraces, request, _TIMEOUT_S)
            added = [trace for trace in page.traces if trace.sequence > as_of]
            count += len(added)
            if len(added) < len(page.traces) or not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return min(count, most)

    def traces(
        self, wanted: Filter, as_of: int, pause: Callable[[float], None]
    ) -> Iterator[Sequence[SourceTrace]]:
        request = v1.StreamTracesRequest(filter=convert.trace_filter(wanted), as_of=as_of)
        heard = time.monotonic()

        def lost_patience() -> bool:
            return time.monotonic() - heard > self._patience_s

        def idle() -> None:
            pause(0)
            if lost_patience():
                raise Unavailable(
                    f"the trace store sent no new trace for {self._patience_s:g} s",
                    reason="UPSTREAM_UNAVAILABLE",
                )

        while True:
            try:
                for part in self._stream(request, idle):
                    # A store that is older than after_sequence begins anew.
                    fresh = [trace for trace in part if trace.sequence > request.after_sequence]
                    if fresh:
                        request.after_sequence = fresh[-1].sequence
                        yield fresh
                        heard = time.monotonic()
                return
            except Unavailable:
                if lost_patience():
                    raise
                pause(_PAUSE_S)

    def _stream(
        self, request: v1.StreamTracesRequest, idle: Callable[[], None]
    ) -> Iterator[list[SourceTrace]]:
        call = self._stub.StreamTraces(request)
        with ThreadPoolExecutor(1, "stream-traces") as ahead:
            try:
                with _translated("the trace store", "spec."):
                    # The store reads on while this process works.
                    waiting = ahead.submit(_next, call)
                    while (response := _result(waiting, idle)) is not None:
                        waiting = ahead.submit(_next, call)
                        yield [convert.source_trace(trace) for trace in response.batch.traces]
            finally:
                call.cancel()  # type: ignore[no-untyped-call]


class GrpcEvalSetSource:
    """The evaluator at the other end of ``channel``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = v1.EvaluatorStub(channel)

    def names(self) -> Iterator[str]:
        request = v1.ListEvalSetsRequest(page_size=_PAGE)
        while True:
            with _translated("the evaluator", ""):
                found = self._stub.ListEvalSets(request, timeout=_TIMEOUT_S)
            yield from (entry.name for entry in found.eval_sets)
            if not found.next_page_token:
                return
            request.page_token = found.next_page_token

    def prompts(self, name: str) -> EvalPrompts:
        try:
            with _translated("the evaluator", ""):
                found = answer_of(self._stub.GetEvalSet, v1.GetEvalSetRequest(name=name), _TIMEOUT_S)
        except NotFound as error:
            raise NotFound(
                f"{name} does not exist", reason="EVAL_SET_NOT_FOUND", metadata={"name": name}
            ) from error
        if found.HasField("delete_time"):
            check_living(name, "EVAL_SET", found.delete_time.ToDatetime(UTC))
        return EvalPrompts(name, found.digest, {item.id: convert.asked(item) for item in found.items})


def _next(call: grpc.CallIterator[v1.StreamTracesResponse]) -> v1.StreamTracesResponse | None:
    return next(iter(call), None)


def _result(waiting: Future[T], idle: Callable[[], None]) -> T:
    while True:
        try:
            return waiting.result(_IDLE_S)
        except TimeoutError:
            idle()


def _first(
    responses: Generator[v1.StreamTracesResponse, None, None], count: int
) -> list[v1.StreamTracesResponse]:
    with closing(responses):
        return list(islice(responses, count))


@contextmanager
def _translated(peer: str, prefix: str) -> Iterator[None]:
    try:
        with calling(peer):
            yield
    except InvalidArgument as error:
        error.violations = tuple(
            FieldViolation(prefix + violation.field, violation.description) for violation in error.violations
        )
        raise
