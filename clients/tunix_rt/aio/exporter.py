"""The exporter's calls. Requests and answers are those of ``tunix_rt.v1``, where the limits stand.

Every method raises ``TunixRtError`` or one of its classes; ``timeout`` is in seconds, None for the client's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import BinaryIO, Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from tunix_rt import v1
from tunix_rt.aio.rpc.caller import AsyncCaller, fresh, mask_of
from tunix_rt.aio.rpc.download import receive, receive_bytes
from tunix_rt.aio.rpc.pager import AsyncPager
from tunix_rt.files import atomic_file

INDEXING: Final = 600.0
NEAREST_TIMEOUT_S: Final = 180.0


class AsyncExporterClient:
    """Asyncio calls to the exporter."""

    def __init__(self, channel: grpc.aio.Channel, caller: AsyncCaller) -> None:
        self._stub = v1.ExporterStub(channel)
        self._caller = caller

    async def create_dataset(
        self,
        spec: v1.DatasetSpec,
        *,
        display_name: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> v1.Dataset:
        """Start to build a dataset; ``tunix_rt.jobs.wait_for_dataset`` waits for its end.

        Of a dataset that is stored already, the name, tags and note that are given here replace its own.

        Raises:
            InvalidArgumentError: the spec is wrong; every wrong field is named.
            AlreadyExistsError: the name and version are bound to another spec or content.
            NotFoundError: an eval set that the spec names is not there.
        """
        request = v1.CreateDatasetRequest(
            spec=spec, request_id=fresh(request_id), display_name=display_name, tags=tags, note=note
        )
        return await self._caller.unary(self._stub.CreateDataset, request, timeout)

    async def get_dataset(self, name: str, *, timeout: float | None = None) -> v1.Dataset:
        """Return the dataset ``datasets/{dataset_id}@{version}``; raises NotFoundError if there is none."""
        return await self._caller.unary(self._stub.GetDataset, v1.GetDatasetRequest(name=name), timeout)

    def list_datasets(
        self,
        *,
        filter: v1.DatasetFilter | None = None,
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> AsyncPager[v1.Dataset, v1.ListDatasetsResponse]:
        """All datasets, or those that ``filter`` matches: the newest first, or in the order of ``order_by``,
        such as "display_name, create_time desc"."""
        request = v1.ListDatasetsRequest(
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
        )
        return self._caller.pages(self._stub.ListDatasets, request, lambda page: page.datasets, timeout)

    async def update_dataset(
        self,
        dataset: v1.Dataset,
        *,
        update_mask: FieldMask | Sequence[str] = (),
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        timeout: float | None = None,
    ) -> v1.Dataset:
        """Change what people call a dataset.

        Args:
            dataset: has the name of the one to change, and its new labels.
            update_mask: which of them change, of "display_name", "tags" and "note", or "*" for all three;
                left out: those that are not empty.
            add_tags: to add to those that it has, whatever others change at the same time.
            remove_tags: to take away, likewise.
            timeout: in seconds.

        Raises:
            NotFoundError: there is none of this name.
            InvalidArgumentError: the mask names another field, a label breaks a limit, or tags are set and
                changed at once.
        """
        mask = mask_of(update_mask)
        request = v1.UpdateDatasetRequest(
            dataset=dataset, update_mask=mask, add_tags=add_tags, remove_tags=remove_tags
        )
        return await self._caller.unary(self._stub.UpdateDataset, request, timeout)

    def watch_dataset(self, name: str) -> AsyncIterator[v1.Dataset]:
        """Yield the dataset now and after each change, until its build has ended or the server stops."""
        return self._caller.stream(self._stub.WatchDataset, v1.WatchDatasetRequest(name=name))

    async def cancel_dataset(self, name: str, *, timeout: float | None = None) -> v1.Dataset:
        """Ask a build to stop; one that has ended is returned as it is."""
        return await self._caller.unary(self._stub.CancelDataset, v1.CancelDatasetRequest(name=name), timeout)

    async def delete_dataset(
        self, name: str, *, force: bool = False, timeout: float | None = None
    ) -> v1.Dataset:
        """Delete a dataset; what it was stays on record. ``tunix_rt.deleting.delete`` looks first which
        training jobs use it, as the exporter knows none.

        Raises:
            NotFoundError: there is no such dataset, or it is deleted already.
            FailedPreconditionError: it is still built, or others were derived from it, and not ``force``.
        """
        request = v1.DeleteDatasetRequest(name=name, force=force)
        return await self._caller.unary(self._stub.DeleteDataset, request, timeout)

    async def read_dataset(
        self,
        name: str,
        split: str,
        *,
        format: v1.DatasetFormat.ValueType = v1.DATASET_FORMAT_UNSPECIFIED,
    ) -> bytes:
        """Return one split as JSON lines or Parquet, verified by SHA-256; resumed after a broken connection.

        Raises:
            NotFoundError: there is no such dataset or split.
            FailedPreconditionError: the dataset is not complete.
            DataLossError: the bytes are not those that the server announced.
        """
        return await receive_bytes(self._reader(name, split, format))

    async def read_dataset_into(
        self,
        name: str,
        split: str,
        file: BinaryIO,
        *,
        format: v1.DatasetFormat.ValueType = v1.DATASET_FORMAT_UNSPECIFIED,
    ) -> v1.DownloadHeader:
        """Write one split into an open file as it arrives, in bounded memory; raises as ``read_dataset``.

        The bytes are verified at the end: discard what was written if this raises.
        """
        return await receive(self._reader(name, split, format), file)

    async def download_dataset(
        self,
        name: str,
        split: str,
        path: str | os.PathLike[str],
        *,
        format: v1.DatasetFormat.ValueType = v1.DATASET_FORMAT_UNSPECIFIED,
    ) -> v1.DownloadHeader:
        """Write one split to ``path``, whole or not at all; raises as ``read_dataset``, and OSError."""
        with atomic_file(path) as file:
            return await self.read_dataset_into(name, split, file, format=format)

    async def read_dropped_rows(self, name: str) -> bytes:
        """Return what was dropped and why, as JSON lines; raises as ``read_dataset``."""
        return await receive_bytes(self._dropped_reader(name))

    async def read_dropped_rows_into(self, name: str, file: BinaryIO) -> v1.DownloadHeader:
        """Write what was dropped and why into an open file; as ``read_dataset_into``."""
        return await receive(self._dropped_reader(name), file)

    def list_trace_uses(
        self,
        content_digest: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = INDEXING,
    ) -> AsyncPager[v1.TraceUse, v1.ListTraceUsesResponse]:
        """What became of a trace in each complete dataset whose filter it matched, newest first.

        Datasets of earlier versions are read once, when they are first asked about, hence a ``timeout`` of
        ten minutes by default. Those that cannot be read are named by each page.

        Args:
            content_digest: ``Trace.content_digest``, or the id of a dataset's row.
            page_size: most datasets of a page; 0 for the server's default.
            page_token: of an earlier page, to go on behind it.
            timeout: seconds for each page.

        Raises:
            InvalidArgumentError: it is no digest.
        """
        request = v1.ListTraceUsesRequest(
            content_digest=content_digest, page_size=page_size, page_token=page_token
        )
        return self._caller.pages(self._stub.ListTraceUses, request, lambda page: page.trace_uses, timeout)

    def audit_contamination(
        self, name: str, eval_set: str, *, decontamination: v1.Decontamination | None = None
    ) -> AsyncIterator[v1.AuditContaminationResponse]:
        """Yield the rows of a dataset that leak items of an eval set, and how many were compared.

        Raises:
            NotFoundError: there is no such dataset or eval set.
            FailedPreconditionError: the dataset is not complete.
            DataLossError: a file of the dataset is missing or damaged.
        """
        request = v1.AuditContaminationRequest(name=name, eval_set=eval_set, decontamination=decontamination)
        return self._caller.stream(self._stub.AuditContamination, request)

    async def find_nearest_rows(
        self,
        name: str,
        texts: Sequence[str],
        *,
        split: str = "",
        row_count: int = 0,
        or_by_characters: bool = False,
        timeout: float | None = NEAREST_TIMEOUT_S,
    ) -> v1.FindNearestRowsResponse:
        """Return the rows of a dataset whose prompts share most words with each of ``texts``.

        ``split`` is "train" when left out, and ``row_count`` 3. All rows of the split are read. With
        ``or_by_characters`` a text that no row shares three words in a row with gets rows that share runs of
        characters, each marked as such: a weaker likeness.

        Raises:
            NotFoundError: there is no such dataset.
            FailedPreconditionError: the dataset is not complete.
            InvalidArgumentError: there is no such split, or no text, or more than 100.
            DataLossError: a file of the dataset is missing or damaged.
        """
        request = v1.FindNearestRowsRequest(
            name=name, texts=texts, split=split, row_count=row_count, or_by_characters=or_by_characters
        )
        return await self._caller.unary(self._stub.FindNearestRows, request, timeout)

    def preview_rows(
        self,
        name: str,
        *,
        split: str = "",
        row_id: str = "",
        row_count: int = 0,
        tokenizer: v1.ArtifactFile | None = None,
    ) -> AsyncIterator[v1.PreviewRowsResponse]:
        """Yield rows of a dataset as a model learns them, in parts.

        Args:
            name: of the dataset.
            split: whose first rows are shown; left out: "train".
            row_id: shows this row instead, in whatever split; its first four digits or more are enough.
            row_count: how many rows; 0 means 3.
            tokenizer: ``BaseModel.tokenizer_file``, to have the tokens too.

        Raises:
            NotFoundError: there is no such dataset, row or tokenizer.
            FailedPreconditionError: the dataset is not complete.
            InvalidArgumentError: there is no such split, or several rows have ids that begin so.
            DataLossError: a file of the dataset is missing or damaged.
        """
        request = v1.PreviewRowsRequest(
            name=name, split=split, row_id=row_id, row_count=row_count, tokenizer=tokenizer
        )
        return self._caller.stream(self._stub.PreviewRows, request)

    def audit_supervision(
        self,
        name: str,
        base_model: str,
        *,
        max_length: int = 0,
        packing_lengths: Sequence[int] = (),
        tokenizer: v1.ArtifactFile | None = None,
    ) -> AsyncIterator[v1.AuditSupervisionResponse]:
        """Yield progress, and last the audit of what a model would learn of a dataset."""
        request = v1.AuditSupervisionRequest(
            name=name,
            base_model=base_model,
            max_length=max_length,
            packing_lengths=packing_lengths,
            tokenizer=tokenizer,
        )
        return self._caller.stream(self._stub.AuditSupervision, request)

    async def get_supervision_audit(self, name: str, *, timeout: float | None = None) -> v1.SupervisionAudit:
        """Return one audit; raises NotFoundError if there is none of this name."""
        request = v1.GetSupervisionAuditRequest(name=name)
        return await self._caller.unary(self._stub.GetSupervisionAudit, request, timeout)

    def list_supervision_audits(
        self,
        parent: str,
        *,
        filter: v1.SupervisionAuditFilter | None = None,
        order_by: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> AsyncPager[v1.SupervisionAudit, v1.ListSupervisionAuditsResponse]:
        """All audits of the dataset ``parent``, or those that ``filter`` matches: the newest first, or in the
        order of ``order_by``, such as "base_model, max_length"."""
        request = v1.ListSupervisionAuditsRequest(
            parent=parent, filter=filter, order_by=order_by, page_size=page_size, page_token=page_token
        )
        return self._caller.pages(
            self._stub.ListSupervisionAudits, request, lambda page: page.supervision_audits, timeout
        )

    def _dropped_reader(self, name: str) -> Callable[[int], AsyncIterator[v1.ReadDroppedRowsResponse]]:
        return lambda offset: self._caller.stream(
            self._stub.ReadDroppedRows, v1.ReadDroppedRowsRequest(name=name, offset=offset)
        )

    def _reader(
        self, name: str, split: str, format: v1.DatasetFormat.ValueType
    ) -> Callable[[int], AsyncIterator[v1.ReadDatasetResponse]]:
        return lambda offset: self._caller.stream(
            self._stub.ReadDataset,
            v1.ReadDatasetRequest(name=name, split=split, format=format, offset=offset),
        )
