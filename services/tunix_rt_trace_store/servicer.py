"""The gRPC face of the trace store: convert, call, convert, in a worker thread."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceServicer

from tunix_rt import v1
from tunix_rt_kit.convert import page_message
from tunix_rt_kit.serving.calls import streaming, unary
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import ListAsked
from tunix_rt_trace_store import convert
from tunix_rt_trace_store.redacted_spans import SpanRedaction
from tunix_rt_trace_store.traces.live_spans import MAX_WAITING_BYTES, LiveSpans
from tunix_rt_trace_store.traces.service import TraceStoreService

_log = get_logger("tunix_rt.spans")


class TraceStoreServicer(v1.TraceStoreServicer):
    """Serves ``tunix_rt.v1.TraceStore``."""

    def __init__(self, service: TraceStoreService, live_spans: LiveSpans) -> None:
        self._service = service
        self._live_spans = live_spans

    @unary
    def CreateTrace(self, request: v1.CreateTraceRequest) -> v1.Trace:
        trace = self._service.create_trace(convert.draft(request.trace), request.request_id)
        return convert.trace_message(trace)

    @unary
    def BatchCreateTraces(self, request: v1.BatchCreateTracesRequest) -> v1.BatchCreateTracesResponse:
        policy = convert.duplicate_policy(request.duplicate_policy)
        drafts = map(convert.draft, request.traces)
        results = self._service.create_traces(drafts, len(request.traces), policy, request.request_id)
        return convert.create_response(results)

    @unary
    def GetTrace(self, request: v1.GetTraceRequest) -> v1.Trace:
        return convert.trace_message(self._service.get_trace(request.name))

    @unary
    def ListTraces(self, request: v1.ListTracesRequest) -> v1.ListTracesResponse:
        fields = convert.filter_fields(request.filter)
        asked = ListAsked(request.page_size, request.page_token, fields, request.order_by)
        page = self._service.list_traces(asked, request.id_prefix)
        return page_message(page, v1.ListTracesResponse, convert.trace_message)

    @streaming
    def StreamTraces(self, request: v1.StreamTracesRequest) -> Iterator[v1.StreamTracesResponse]:
        fields = convert.filter_fields(request.filter)
        as_of, parts = self._service.stream_traces(fields, request.as_of, request.after_sequence)
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=as_of))
        for part in parts:
            batch = v1.TraceBatch(traces=map(convert.streamed_message, part))
            yield v1.StreamTracesResponse(batch=batch)

    @unary
    def DeleteTrace(self, request: v1.DeleteTraceRequest) -> Empty:
        self._service.delete_trace(request.name)
        return Empty()

    @unary
    def BatchDeleteTraces(self, request: v1.BatchDeleteTracesRequest) -> v1.BatchDeleteTracesResponse:
        return v1.BatchDeleteTracesResponse(names=self._service.delete_traces(request.names))

    @unary
    def ScoreTrace(self, request: v1.ScoreTraceRequest) -> v1.ScoreTraceResponse:
        scores = self._service.score_trace(request.name, request.criteria)
        return v1.ScoreTraceResponse(scores=map(convert.score_message, scores))

    @unary
    def BatchScoreTraces(self, request: v1.BatchScoreTracesRequest) -> v1.BatchScoreTracesResponse:
        results = self._service.score_traces(request.names, request.criteria)
        return convert.batch_score_response(results)

    @unary
    def WriteScores(self, request: v1.WriteScoresRequest) -> v1.WriteScoresResponse:
        fields = convert.score_fields(request.scores)
        return v1.WriteScoresResponse(written_count=self._service.write_scores(fields, request.request_id))

    @unary
    def ListScores(self, request: v1.ListScoresRequest) -> v1.ListScoresResponse:
        fields = {"criterion": request.criterion}
        asked = ListAsked(request.page_size, request.page_token, fields, request.order_by)
        page = self._service.list_scores(request.trace, asked)
        return page_message(page, v1.ListScoresResponse, convert.score_message)

    @unary
    def ListRefusedSpans(self, request: v1.ListRefusedSpansRequest) -> v1.ListRefusedSpansResponse:
        page = self._live_spans.list_refused(request.page_size, request.page_token)
        return page_message(page, v1.ListRefusedSpansResponse, convert.refused_message)

    @unary
    def CompareTraces(self, request: v1.CompareTracesRequest) -> v1.CompareTracesResponse:
        return convert.comparison_response(self._service.compare_traces(request.base, request.other))


class SpanServicer(TraceServiceServicer):
    """Serves ``opentelemetry.proto.collector.trace.v1.TraceService``."""

    def __init__(self, live_spans: LiveSpans, redaction: SpanRedaction) -> None:
        self._live_spans = live_spans
        self._redaction = redaction

    @unary
    def Export(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        with self._live_spans.arriving():
            received = convert.received_spans(request, self._redaction)
            full = self._live_spans.take(received.spans)
        response = convert.export_response(received, full, MAX_WAITING_BYTES)
        if told := response.partial_success.error_message:
            # Few SDKs show it.
            _log.warning("spans_partly_taken", refused=response.partial_success.rejected_spans, message=told)
        return response
