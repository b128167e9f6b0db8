# ruff: noqa: ARG002  (gRPC hands a watch a context)
"""The gRPC face of the exporter: convert, call, convert, in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from tunix_rt import v1
from tunix_rt_exporter import convert
from tunix_rt_exporter.audits.preview import RowPreviews
from tunix_rt_exporter.audits.service import AuditFilter, DatasetAudits
from tunix_rt_exporter.datasets.model import DatasetFilter
from tunix_rt_exporter.datasets.service import ExporterService
from tunix_rt_kit.convert import changed_labels, given_labels, list_asked, page_message
from tunix_rt_kit.serving.calls import run_blocking, streaming, unary, watch_state


class ExporterServicer(v1.ExporterServicer):
    """Serves ``tunix_rt.v1.Exporter``; watches end when ``stopping`` is set."""

    def __init__(
        self,
        service: ExporterService,
        audits: DatasetAudits,
        previews: RowPreviews,
        stopping: asyncio.Event,
    ) -> None:
        self._service = service
        self._audits = audits
        self._previews = previews
        self._stopping = stopping

    @unary
    def CreateDataset(self, request: v1.CreateDatasetRequest) -> v1.Dataset:
        fields = convert.spec_fields(request.spec)
        labels = given_labels(request)
        return convert.dataset_message(self._service.create_dataset(fields, request.request_id, labels))

    @unary
    def GetDataset(self, request: v1.GetDatasetRequest) -> v1.Dataset:
        return convert.dataset_message(self._service.get_dataset(request.name))

    @unary
    def ListDatasets(self, request: v1.ListDatasetsRequest) -> v1.ListDatasetsResponse:
        page = self._service.list_datasets(list_asked(request, DatasetFilter))
        return page_message(page, v1.ListDatasetsResponse, convert.dataset_message)

    @unary
    def UpdateDataset(self, request: v1.UpdateDatasetRequest) -> v1.Dataset:
        labels = changed_labels(request, "dataset")
        return convert.dataset_message(self._service.update_dataset(request.dataset.name, labels))

    async def WatchDataset(self, request: v1.WatchDatasetRequest, context: Any) -> AsyncIterator[v1.Dataset]:
        async for dataset in watch_state(
            lambda: run_blocking(self._service.get_dataset, request.name),
            is_terminal=lambda dataset: dataset.state.ended,
            stop=self._stopping,
        ):
            yield convert.dataset_message(dataset)

    @unary
    def CancelDataset(self, request: v1.CancelDatasetRequest) -> v1.Dataset:
        return convert.dataset_message(self._service.cancel_dataset(request.name))

    @unary
    def DeleteDataset(self, request: v1.DeleteDatasetRequest) -> v1.Dataset:
        return convert.dataset_message(self._service.delete_dataset(request.name, force=request.force))

    @streaming
    def ReadDataset(self, request: v1.ReadDatasetRequest) -> Iterator[v1.ReadDatasetResponse]:
        kind = convert.dataset_format(request.format)
        download = self._service.read_dataset(request.name, request.split, kind, request.offset)
        yield convert.download_header(download)
        for chunk in download.chunks:
            yield v1.ReadDatasetResponse(chunk=chunk)

    @streaming
    def ReadDroppedRows(self, request: v1.ReadDroppedRowsRequest) -> Iterator[v1.ReadDroppedRowsResponse]:
        download = self._service.read_dropped_rows(request.name, request.offset)
        yield convert.dropped_rows_header(download)
        for chunk in download.chunks:
            yield v1.ReadDroppedRowsResponse(chunk=chunk)

    @unary
    def ListTraceUses(self, request: v1.ListTraceUsesRequest) -> v1.ListTraceUsesResponse:
        uses = self._service.list_trace_uses(request.content_digest, request.page_size, request.page_token)
        return convert.trace_uses_message(*uses)

    @streaming
    def AuditContamination(
        self, request: v1.AuditContaminationRequest
    ) -> Iterator[v1.AuditContaminationResponse]:
        rule = convert.decontamination_fields(request.decontamination)
        for part in self._audits.contamination(request.name, request.eval_set, rule):
            yield convert.contamination_response(part)

    @unary
    def FindNearestRows(self, request: v1.FindNearestRowsRequest) -> v1.FindNearestRowsResponse:
        found = self._audits.nearest_rows(
            request.name,
            request.texts,
            request.split,
            request.row_count,
            or_by_characters=request.or_by_characters,
        )
        return convert.nearest_response(found)

    @streaming
    def PreviewRows(self, request: v1.PreviewRowsRequest) -> Iterator[v1.PreviewRowsResponse]:
        for part in self._previews.preview(
            request.name,
            split=request.split,
            row_id=request.row_id,
            count=request.row_count,
            tokenizer_digest=request.tokenizer.digest,
        ):
            yield convert.preview_response(part)

    @streaming
    def AuditSupervision(self, request: v1.AuditSupervisionRequest) -> Iterator[v1.AuditSupervisionResponse]:
        for part in self._audits.supervision(convert.question(request)):
            yield convert.supervision_response(request.name, part)

    @unary
    def GetSupervisionAudit(self, request: v1.GetSupervisionAuditRequest) -> v1.SupervisionAudit:
        return convert.audit_message(*self._audits.get(request.name))

    @unary
    def ListSupervisionAudits(
        self, request: v1.ListSupervisionAuditsRequest
    ) -> v1.ListSupervisionAuditsResponse:
        page = self._audits.list(request.parent, list_asked(request, AuditFilter))
        message = partial(convert.audit_message, request.parent)
        return page_message(page, v1.ListSupervisionAuditsResponse, message)
