# Generated from aio/trace_store.py by `make proto`: change that one.
"""The trace store's calls. Requests and answers are those of ``tunix_rt.v1``, where the limits stand.

Every method raises ``TunixRtError`` or one of its classes; ``timeout`` is in seconds, None for the client's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from tunix_rt import v1
from tunix_rt.aio.trace_store import AsyncTraceStoreClient as AsyncTraceStoreClient
from tunix_rt.rpc.caller import Caller, fresh
from tunix_rt.rpc.pager import Pager
from tunix_rt.rpc.trace_stream import Snapshot, TraceStream
from tunix_rt.v1 import trace_store_pb2


def _encoded_call(channel: Any) -> Any:
    """BatchCreateTraces of a request that is bytes; there is no stub for that."""
    method = trace_store_pb2.DESCRIPTOR.services_by_name["TraceStore"].methods_by_name["BatchCreateTraces"]
    return channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        response_deserializer=v1.BatchCreateTracesResponse.FromString,
    )


class TraceStoreClient:
    """Synchronous calls to the trace store."""

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._stub = v1.TraceStoreStub(channel)
        self._batch_create_encoded = _encoded_call(channel)
        self._caller = caller

    def create_trace(
        self, trace: v1.Trace, *, request_id: str | None = None, timeout: float | None = None
    ) -> v1.Trace:
        """Store one trace.

        Args:
            trace: its output-only fields are ignored.
            request_id: makes a call that you repeat yourself safe; a new one when left out.

        Raises:
            InvalidArgumentError: the trace breaks a limit; every wrong field is named.
            AlreadyExistsError: ``request_id`` came with another trace before.
        """
        request = v1.CreateTraceRequest(trace=trace, request_id=fresh(request_id))
        return self._caller.unary(self._stub.CreateTrace, request, timeout)

    def batch_create_traces(
        self,
        traces: Iterable[v1.Trace],
        *,
        duplicate_policy: v1.DuplicatePolicy.ValueType = v1.DUPLICATE_POLICY_UNSPECIFIED,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> v1.BatchCreateTracesResponse:
        """Store 1-1,000 traces of at most 4 MiB together, all of them or none.

        ``tunix_rt.importing.import_traces`` splits any number of traces into such batches.

        Raises:
            InvalidArgumentError: a trace breaks a limit; ``field_violations`` names each, as
                ``traces[3].steps[0].content``.
            ResourceExhaustedError: the batch is larger than 4 MiB.
        """
        request = v1.BatchCreateTracesRequest(
            traces=traces, duplicate_policy=duplicate_policy, request_id=fresh(request_id)
        )
        return self._caller.unary(self._stub.BatchCreateTraces, request, timeout)

    def batch_create_encoded_traces(
        self, request: bytes, *, timeout: float | None = None
    ) -> v1.BatchCreateTracesResponse:
        """As ``batch_create_traces``, with a ``BatchCreateTracesRequest`` that is encoded already.

        For callers that send many: it is encoded once, even if it is sent again. It needs a ``request_id``,
        because the call is retried while the server is unavailable.
        """
        answer: v1.BatchCreateTracesResponse = self._caller.unary(
            self._batch_create_encoded, request, timeout
        )
        return answer

    def get_trace(self, name: str, *, timeout: float | None = None) -> v1.Trace:
        """Return the trace ``traces/{trace}``; raises NotFoundError if there is none."""
        return self._caller.unary(self._stub.GetTrace, v1.GetTraceRequest(name=name), timeout)

    def list_traces(
        self,
        *,
        filter: v1.TraceFilter | None = None,
        order_by: str = "",
        id_prefix: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> Pager[v1.Trace, v1.ListTracesResponse]:
        """All traces that ``filter`` matches and whose ids begin with ``id_prefix``: the newest first, or in
        the order of ``order_by``, such as "source, create_time desc". Raises InvalidArgumentError."""
        request = v1.ListTracesRequest(
            filter=filter,
            order_by=order_by,
            page_size=page_size,
            page_token=page_token,
            id_prefix=id_prefix,
        )
        return self._caller.pages(self._stub.ListTraces, request, lambda page: page.traces, timeout)

    def stream_traces(self, *, filter: v1.TraceFilter | None = None, as_of: int = 0) -> TraceStream:
        """Every trace of a snapshot in the order of commits, in bounded memory.

        Args:
            filter: which traces; all of them when left out.
            as_of: the snapshot; 0 for the newest, whose number the returned iterator has as ``as_of``.

        Raises:
            InvalidArgumentError: ``as_of`` lies in the future.
            FailedPreconditionError: traces of the snapshot were deleted.
        """
        return TraceStream(
            lambda request: self._caller.stream(self._stub.StreamTraces, request), Snapshot(filter, as_of)
        )

    def delete_trace(self, name: str, *, timeout: float | None = None) -> None:
        """Delete one trace; its id and digest stay on record. Raises NotFoundError if there is none."""
        self._caller.unary(self._stub.DeleteTrace, v1.DeleteTraceRequest(name=name), timeout)

    def batch_delete_traces(
        self, names: Iterable[str], *, timeout: float | None = None
    ) -> v1.BatchDeleteTracesResponse:
        """Delete 1-1,000 traces together; the answer names those that were there.

        Raises InvalidArgumentError: a name is malformed, or there are too many names.
        """
        request = v1.BatchDeleteTracesRequest(names=names)
        return self._caller.unary(self._stub.BatchDeleteTraces, request, timeout)

    def score_trace(
        self, name: str, *, criteria: Sequence[str] = (), timeout: float | None = None
    ) -> v1.ScoreTraceResponse:
        """Score one trace by built-in criteria ("structure", "answer") and store the scores.

        Raises:
            NotFoundError: there is no such trace.
            InvalidArgumentError: a criterion is unknown.
            FailedPreconditionError: a criterion needs what the trace does not have.
        """
        request = v1.ScoreTraceRequest(name=name, criteria=criteria)
        return self._caller.unary(self._stub.ScoreTrace, request, timeout)

    def batch_score_traces(
        self, names: Iterable[str], *, criteria: Sequence[str] = (), timeout: float | None = None
    ) -> v1.BatchScoreTracesResponse:
        """Score 1-500 traces as ``score_trace`` does, and store the scores together.

        A trace that cannot be scored has ``reason`` and ``message`` in its result instead of scores. Very
        large scores may end the results before the last name: send the rest again.

        Raises:
            InvalidArgumentError: a name is malformed, a criterion is unknown, or there are too many names.
        """
        request = v1.BatchScoreTracesRequest(names=names, criteria=criteria)
        return self._caller.unary(self._stub.BatchScoreTraces, request, timeout)

    def write_scores(
        self, scores: Iterable[v1.TraceScore], *, request_id: str | None = None, timeout: float | None = None
    ) -> v1.WriteScoresResponse:
        """Store 1-1,000 scores of your own together, all of them or none.

        Args:
            scores: each with ``trace``, ``criterion``, a finite ``value`` and perhaps ``details``.
            request_id: makes a call that you repeat yourself safe; a new one when left out.

        Raises:
            InvalidArgumentError: a score is wrong; ``field_violations`` names each.
            NotFoundError: a trace is not there.
        """
        request = v1.WriteScoresRequest(scores=scores, request_id=fresh(request_id))
        return self._caller.unary(self._stub.WriteScores, request, timeout)

    def list_scores(
        self,
        trace: str,
        *,
        criterion: str = "",
        order_by: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> Pager[v1.TraceScore, v1.ListScoresResponse]:
        """All scores of one trace, or those of one criterion: the newest first, or in the order of
        ``order_by``, such as "value desc". Raises NotFoundError."""
        request = v1.ListScoresRequest(
            trace=trace, criterion=criterion, order_by=order_by, page_size=page_size, page_token=page_token
        )
        return self._caller.pages(self._stub.ListScores, request, lambda page: page.scores, timeout)

    def list_refused_spans(
        self, *, page_size: int = 0, page_token: str = "", timeout: float | None = None
    ) -> Pager[v1.RefusedSpans, v1.ListRefusedSpansResponse]:
        """All spans of OpenTelemetry that became no traces in the last seven days, and why: an entry for each
        trace of OpenTelemetry, the newest first."""
        request = v1.ListRefusedSpansRequest(page_size=page_size, page_token=page_token)
        return self._caller.pages(
            self._stub.ListRefusedSpans, request, lambda page: page.refused_spans, timeout
        )

    def compare_traces(
        self, base: str, other: str, *, timeout: float | None = None
    ) -> v1.CompareTracesResponse:
        """Set two traces side by side; raises NotFoundError if either is not there."""
        request = v1.CompareTracesRequest(base=base, other=other)
        return self._caller.unary(self._stub.CompareTraces, request, timeout)
