"""The evaluator's calls. Requests and answers are those of ``tunix_rt.v1``, where the limits stand.

Every method raises ``TunixRtError`` or one of its classes; ``timeout`` is in seconds, None for the client's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from tunix_rt import v1
from tunix_rt.aio.rpc.caller import AsyncCaller, fresh, mask_of
from tunix_rt.aio.rpc.download import receive, receive_bytes
from tunix_rt.aio.rpc.pager import AsyncPager
from tunix_rt.files import atomic_file

MEASURING: Final = 600.0
"""Seconds for ``measure_evaluation``, which loads the model and compiles it."""
COMPARE_TIMEOUT_S: Final = 180.0
"""A comparison reads all rows of the candidate's training data, once."""


class AsyncEvaluatorClient:
    """Asyncio calls to the evaluator."""

    def __init__(self, channel: grpc.aio.Channel, caller: AsyncCaller) -> None:
        self._stub = v1.EvaluatorStub(channel)
        self._caller = caller

    async def create_eval_set(
        self, eval_set: v1.EvalSet, *, request_id: str | None = None, timeout: float | None = None
    ) -> v1.EvalSet:
        """Store an eval set with its items; the same id and items return the stored one.

        Raises:
            InvalidArgumentError: an item is wrong; every wrong field is named.
            AlreadyExistsError: the id is bound to other items.
        """
        request = v1.CreateEvalSetRequest(eval_set=eval_set, request_id=fresh(request_id))
        return await self._caller.unary(self._stub.CreateEvalSet, request, timeout)

    async def get_eval_set(self, name: str, *, timeout: float | None = None) -> v1.EvalSet:
        """Return ``evalSets/{eval_set}`` with its items; raises NotFoundError if there is none."""
        return await self._caller.unary(self._stub.GetEvalSet, v1.GetEvalSetRequest(name=name), timeout)

    def list_eval_sets(
        self,
        *,
        filter: v1.EvalSetFilter | None = None,
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> AsyncPager[v1.EvalSet, v1.ListEvalSetsResponse]:
        """All eval sets, or those that ``filter`` matches, without their items: the newest first, or in the
        order of ``order_by``, such as "display_name, create_time desc"."""
        request = v1.ListEvalSetsRequest(
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
        )
        return self._caller.pages(self._stub.ListEvalSets, request, lambda page: page.eval_sets, timeout)

    async def update_eval_set(
        self,
        eval_set: v1.EvalSet,
        *,
        update_mask: FieldMask | Sequence[str] = (),
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        timeout: float | None = None,
    ) -> v1.EvalSet:
        """Change what people call an eval set.

        Args:
            eval_set: has the name of the one to change, and its new labels.
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
        request = v1.UpdateEvalSetRequest(
            eval_set=eval_set, update_mask=mask, add_tags=add_tags, remove_tags=remove_tags
        )
        return await self._caller.unary(self._stub.UpdateEvalSet, request, timeout)

    async def delete_eval_set(
        self, name: str, *, force: bool = False, timeout: float | None = None
    ) -> v1.EvalSet:
        """Delete an eval set; what it was stays on record.

        Raises:
            NotFoundError: there is no such eval set, or it is deleted already.
            FailedPreconditionError: evaluations or datasets were made with it, and not ``force``, or are made
                now.
            UnavailableError: the exporter cannot tell whether datasets were.
        """
        request = v1.DeleteEvalSetRequest(name=name, force=force)
        return await self._caller.unary(self._stub.DeleteEvalSet, request, timeout)

    async def measure_evaluation(
        self, spec: v1.EvaluationSpec, *, timeout: float | None = MEASURING
    ) -> v1.EvaluationSpeed:
        """Measure how fast the evaluator's host answers by a base model; the eval set need not be there.

        It takes five seconds beside loading and compiling; ``timeout`` is ten minutes by default. Nothing is
        stored.

        Raises:
            InvalidArgumentError: the spec is wrong, or is not of a base model.
            NotFoundError: there is no such base model.
            FailedPreconditionError: the base model is not on the evaluator's host.
            UnimplementedError: the server is of an earlier version.
        """
        request = v1.MeasureEvaluationRequest(spec=spec)
        return await self._caller.unary(self._stub.MeasureEvaluation, request, timeout)

    async def create_evaluation(
        self,
        spec: v1.EvaluationSpec,
        *,
        display_name: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> v1.Evaluation:
        """Put an evaluation into the queue; ``tunix_rt.jobs.wait_for_evaluation`` waits for its end.

        Raises:
            InvalidArgumentError: the spec is wrong; every wrong field is named.
            NotFoundError: the eval set, the base model or the checkpoint is not there.
            FailedPreconditionError: the chat template is not the checkpoint's.
        """
        request = v1.CreateEvaluationRequest(
            spec=spec, request_id=fresh(request_id), display_name=display_name, tags=tags, note=note
        )
        return await self._caller.unary(self._stub.CreateEvaluation, request, timeout)

    async def get_evaluation(self, name: str, *, timeout: float | None = None) -> v1.Evaluation:
        """Return the evaluation ``evaluations/{evaluation}``; raises NotFoundError if there is none."""
        return await self._caller.unary(self._stub.GetEvaluation, v1.GetEvaluationRequest(name=name), timeout)

    def list_evaluations(
        self,
        *,
        filter: v1.EvaluationFilter | None = None,
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> AsyncPager[v1.Evaluation, v1.ListEvaluationsResponse]:
        """All evaluations, or those that ``filter`` matches: the newest first, or in the order of
        ``order_by``, such as "display_name, create_time desc"."""
        request = v1.ListEvaluationsRequest(
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
        )
        return self._caller.pages(self._stub.ListEvaluations, request, lambda page: page.evaluations, timeout)

    async def update_evaluation(
        self,
        evaluation: v1.Evaluation,
        *,
        update_mask: FieldMask | Sequence[str] = (),
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        timeout: float | None = None,
    ) -> v1.Evaluation:
        """Change what people call an evaluation.

        Args:
            evaluation: has the name of the one to change, and its new labels.
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
        request = v1.UpdateEvaluationRequest(
            evaluation=evaluation, update_mask=mask, add_tags=add_tags, remove_tags=remove_tags
        )
        return await self._caller.unary(self._stub.UpdateEvaluation, request, timeout)

    async def cancel_evaluation(self, name: str, *, timeout: float | None = None) -> v1.Evaluation:
        """Ask an evaluation to stop; one that has ended is returned as it is."""
        request = v1.CancelEvaluationRequest(name=name)
        return await self._caller.unary(self._stub.CancelEvaluation, request, timeout)

    async def delete_evaluation(
        self, name: str, *, force: bool = False, timeout: float | None = None
    ) -> v1.Evaluation:
        """Delete an evaluation that has ended, with its answers; what it was stays on record.

        Raises:
            NotFoundError: there is no such evaluation, or it is deleted already.
            FailedPreconditionError: it runs, or reports or regrades were made from it, and not ``force``.
        """
        request = v1.DeleteEvaluationRequest(name=name, force=force)
        return await self._caller.unary(self._stub.DeleteEvaluation, request, timeout)

    def watch_evaluation(self, name: str) -> AsyncIterator[v1.Evaluation]:
        """Yield the evaluation now and after each change, until it has ended or the server stops."""
        return self._caller.stream(self._stub.WatchEvaluation, v1.WatchEvaluationRequest(name=name))

    def list_evaluation_items(
        self,
        parent: str,
        *,
        filter: v1.EvaluationItemFilter | None = None,
        order_by: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> AsyncPager[v1.EvaluationResult, v1.ListEvaluationItemsResponse]:
        """The answers to the items of the evaluation ``parent`` that ``filter`` matches, ordered by item
        id."""
        request = v1.ListEvaluationItemsRequest(
            parent=parent, filter=filter, order_by=order_by, page_size=page_size, page_token=page_token
        )
        return self._caller.pages(self._stub.ListEvaluationItems, request, lambda page: page.results, timeout)

    async def regrade_evaluation(
        self,
        name: str,
        *,
        eval_set: str = "",
        grader: v1.Grader | None = None,
        reasoning_marks: v1.ReasoningMarks | None = None,
        display_name: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> v1.Evaluation:
        """Grade the answers of a finished evaluation again. The result is an evaluation of its own in the
        queue; ``tunix_rt.jobs.wait_for_evaluation`` waits for its end.

        Raises:
            InvalidArgumentError: the grader is wrong, or does not fit the items; or the marks are wrong.
            NotFoundError: the evaluation or the eval set is not there.
            FailedPreconditionError: it did not succeed, the eval set asks other questions, or a judge is
                needed and the evaluator has none.
        """
        request = v1.RegradeEvaluationRequest(
            name=name,
            eval_set=eval_set,
            grader=grader,
            reasoning_marks=reasoning_marks,
            request_id=fresh(request_id),
            display_name=display_name,
            tags=tags,
            note=note,
        )
        return await self._caller.unary(self._stub.RegradeEvaluation, request, timeout)

    async def grade_answer(
        self, item: v1.EvalItem, output: str, *, truncated: bool = False, timeout: float | None = None
    ) -> v1.GradeAnswerResponse:
        """Grade one answer to one question and store nothing, to try a grader. ``truncated`` says that the
        answer was cut at the most new tokens.

        Raises:
            InvalidArgumentError: the item or its grader is wrong; every wrong field is named.
            FailedPreconditionError: a grader written in Python is not run there, or does not give an answer
                the same grade twice.
        """
        request = v1.GradeAnswerRequest(item=item, output=output, truncated=truncated)
        return await self._caller.unary(self._stub.GradeAnswer, request, timeout)

    async def compare_evaluations(
        self,
        base: str,
        candidate: str,
        *,
        more_bases: Sequence[str] = (),
        more_candidates: Sequence[str] = (),
        waivers: Sequence[str] = (),
        display_name: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        timeout: float | None = COMPARE_TIMEOUT_S,
    ) -> v1.ComparisonReport:
        """Compare finished evaluations item by item, one a side or several training seeds.

        ``waivers`` are differences besides the model that are allowed, such as "dtype". Of a report that is
        stored already, the name, tags and note that are given here replace its own.

        Raises:
            NotFoundError: one is not there.
            InvalidArgumentError: a waiver is unknown, or two seeds of a side are of the same weights.
            FailedPreconditionError: they differ in more than the model; every difference is named.
        """
        request = v1.CompareEvaluationsRequest(
            base=base,
            candidate=candidate,
            more_bases=more_bases,
            more_candidates=more_candidates,
            waivers=waivers,
            display_name=display_name,
            tags=tags,
            note=note,
        )
        return await self._caller.unary(self._stub.CompareEvaluations, request, timeout)

    async def get_comparison_report(self, name: str, *, timeout: float | None = None) -> v1.ComparisonReport:
        """Return ``comparisonReports/{comparison_report}``; raises NotFoundError if there is none."""
        request = v1.GetComparisonReportRequest(name=name)
        return await self._caller.unary(self._stub.GetComparisonReport, request, timeout)

    def list_comparison_reports(
        self,
        *,
        filter: v1.ComparisonReportFilter | None = None,
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> AsyncPager[v1.ComparisonReport, v1.ListComparisonReportsResponse]:
        """All comparison reports, or those that ``filter`` matches, without flips and training metrics: by
        name, or in the order of ``order_by``, such as "create_time desc"."""
        request = v1.ListComparisonReportsRequest(
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
        )
        return self._caller.pages(
            self._stub.ListComparisonReports, request, lambda page: page.comparison_reports, timeout
        )

    async def update_comparison_report(
        self,
        comparison_report: v1.ComparisonReport,
        *,
        update_mask: FieldMask | Sequence[str] = (),
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        timeout: float | None = None,
    ) -> v1.ComparisonReport:
        """Change what people call a comparison report.

        Args:
            comparison_report: has the name of the one to change, and its new labels.
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
        request = v1.UpdateComparisonReportRequest(
            comparison_report=comparison_report, update_mask=mask, add_tags=add_tags, remove_tags=remove_tags
        )
        return await self._caller.unary(self._stub.UpdateComparisonReport, request, timeout)

    async def delete_comparison_report(
        self, name: str, *, timeout: float | None = None
    ) -> v1.ComparisonReport:
        """Delete a report and its documents; what it was stays on record. To compare again makes it again.

        Raises NotFoundError if there is none or it is deleted already.
        """
        request = v1.DeleteComparisonReportRequest(name=name)
        return await self._caller.unary(self._stub.DeleteComparisonReport, request, timeout)

    async def read_comparison_report(
        self, name: str, *, format: v1.ReportFormat.ValueType = v1.REPORT_FORMAT_UNSPECIFIED
    ) -> bytes:
        """Return a report as a document, verified by SHA-256; resumed after a broken connection.

        Raises:
            NotFoundError: there is no such report.
            DataLossError: the bytes are not those that the server announced.
        """
        return await receive_bytes(self._reader(name, format))

    async def download_comparison_report(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        format: v1.ReportFormat.ValueType = v1.REPORT_FORMAT_UNSPECIFIED,
    ) -> v1.DownloadHeader:
        """Write a report to ``path``, whole or not at all. Raises as ``read_comparison_report``, OSError."""
        with atomic_file(path) as file:
            return await receive(self._reader(name, format), file)

    def _reader(
        self, name: str, format: v1.ReportFormat.ValueType
    ) -> Callable[[int], AsyncIterator[v1.ReadComparisonReportResponse]]:
        return lambda offset: self._caller.stream(
            self._stub.ReadComparisonReport,
            v1.ReadComparisonReportRequest(name=name, format=format, offset=offset),
        )
