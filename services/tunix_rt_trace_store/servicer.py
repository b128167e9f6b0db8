# ruff: noqa: ARG002  (gRPC hands every method a context)
"""The gRPC face of the trace store: convert, call, convert, in a worker thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from google.protobuf.empty_pb2 import Empty

from tunix_rt import v1
from tunix_rt_kit.serving.calls import iterate_blocking, run_blocking
from tunix_rt_trace_store.traces import convert
from tunix_rt_trace_store.traces.service import TraceStoreService


class TraceStoreServicer(v1.TraceStoreServicer):
    """Serves ``tunix_rt.v1.TraceStore``."""

    def __init__(self, service: TraceStoreService) -> None:
        self._service = service

    async def CreateTrace(self, request: v1.CreateTraceRequest, context: Any) -> v1.Trace:
        def call() -> v1.Trace:
            trace = self._service.create_trace(convert.draft(request.trace), request.request_id)
            return convert.trace_message(trace)

        return await run_blocking(call)

    async def BatchCreateTraces(
        self, request: v1.BatchCreateTracesRequest, context: Any
    ) -> v1.BatchCreateTracesResponse:
        def call() -> v1.BatchCreateTracesResponse:
            policy = convert.duplicate_policy(request.duplicate_policy)
            drafts = map(convert.draft, request.traces)
            results = self._service.create_traces(drafts, len(request.traces), policy, request.request_id)
            return convert.create_response(results)

        return await run_blocking(call)

    async def GetTrace(self, request: v1.GetTraceRequest, context: Any) -> v1.Trace:
        return await run_blocking(lambda: convert.trace_message(self._service.get_trace(request.name)))

    async def ListTraces(self, request: v1.ListTracesRequest, context: Any) -> v1.ListTracesResponse:
        def call() -> v1.ListTracesResponse:
            fields = convert.filter_fields(request.filter)
            return convert.list_response(
                *self._service.list_traces(fields, request.page_size, request.page_token)
            )

        return await run_blocking(call)

    async def StreamTraces(
        self, request: v1.StreamTracesRequest, context: Any
    ) -> AsyncIterator[v1.StreamTracesResponse]:
        def messages() -> Iterator[v1.StreamTracesResponse]:
            fields = convert.filter_fields(request.filter)
            as_of, parts = self._service.stream_traces(fields, request.as_of, request.after_sequence)
            yield convert.stream_header(as_of)
            for part in parts:
                yield convert.stream_part(part)

        async for message in iterate_blocking(messages):
            yield message

    async def DeleteTrace(self, request: v1.DeleteTraceRequest, context: Any) -> Empty:
        await run_blocking(self._service.delete_trace, request.name)
        return Empty()

    async def ScoreTrace(self, request: v1.ScoreTraceRequest, context: Any) -> v1.ScoreTraceResponse:
        def call() -> v1.ScoreTraceResponse:
            scores = self._service.score_trace(request.name, request.criteria)
            return convert.score_response(scores)

        return await run_blocking(call)

    async def BatchScoreTraces(
        self, request: v1.BatchScoreTracesRequest, context: Any
    ) -> v1.BatchScoreTracesResponse:
        def call() -> v1.BatchScoreTracesResponse:
            results = self._service.score_traces(request.names, request.criteria)
            return convert.batch_score_response(results)

        return await run_blocking(call)

    async def WriteScores(self, request: v1.WriteScoresRequest, context: Any) -> v1.WriteScoresResponse:
        def call() -> v1.WriteScoresResponse:
            fields = convert.score_fields(request.scores)
            return v1.WriteScoresResponse(
                written_count=self._service.write_scores(fields, request.request_id)
            )

        return await run_blocking(call)

    async def ListScores(self, request: v1.ListScoresRequest, context: Any) -> v1.ListScoresResponse:
        return await run_blocking(
            lambda: convert.score_list_response(
                *self._service.list_scores(
                    request.trace, request.criterion, request.page_size, request.page_token
                )
            )
        )

    async def CompareTraces(self, request: v1.CompareTracesRequest, context: Any) -> v1.CompareTracesResponse:
        return await run_blocking(
            lambda: convert.comparison_response(self._service.compare_traces(request.base, request.other))
        )
