# ruff: noqa: ARG002  (gRPC hands a watch a context)
"""The gRPC face of the evaluator: convert, call, convert, in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tunix_rt import v1
from tunix_rt_evaluator.comparisons.model import ReportFilter
from tunix_rt_evaluator.comparisons.service import ComparisonService
from tunix_rt_evaluator.convert import (
    asked_evaluation,
    document_format,
    document_header,
    eval_set_draft,
    eval_set_message,
    evaluation_message,
    graded_answer_message,
    item_fields,
    item_filter,
    regrade_draft,
    report_facts,
    report_message,
    result_message,
)
from tunix_rt_evaluator.eval_sets.model import EvalSetFilter
from tunix_rt_evaluator.eval_sets.service import EvalSetService
from tunix_rt_evaluator.evaluations.model import EvaluationFilter
from tunix_rt_evaluator.evaluations.service import EvaluationService
from tunix_rt_kit.convert import changed_labels, given_labels, list_asked, page_message, to_message
from tunix_rt_kit.serving.calls import run_blocking, streaming, unary, watch_state
from tunix_rt_kit.values import ListAsked


class EvaluatorServicer(v1.EvaluatorServicer):
    """Serves ``tunix_rt.v1.Evaluator``; watches end when ``stopping`` is set."""

    def __init__(
        self,
        eval_sets: EvalSetService,
        evaluations: EvaluationService,
        comparisons: ComparisonService,
        stopping: asyncio.Event,
    ) -> None:
        self._eval_sets = eval_sets
        self._evaluations = evaluations
        self._comparisons = comparisons
        self._stopping = stopping

    @unary
    def CreateEvalSet(self, request: v1.CreateEvalSetRequest) -> v1.EvalSet:
        draft = eval_set_draft(request.eval_set)
        return eval_set_message(self._eval_sets.create_eval_set(draft, request.request_id))

    @unary
    def GetEvalSet(self, request: v1.GetEvalSetRequest) -> v1.EvalSet:
        return eval_set_message(self._eval_sets.get_eval_set(request.name))

    @unary
    def ListEvalSets(self, request: v1.ListEvalSetsRequest) -> v1.ListEvalSetsResponse:
        page = self._eval_sets.list_eval_sets(list_asked(request, EvalSetFilter))
        return page_message(page, v1.ListEvalSetsResponse, eval_set_message)

    @unary
    def DeleteEvalSet(self, request: v1.DeleteEvalSetRequest) -> v1.EvalSet:
        return eval_set_message(self._eval_sets.delete_eval_set(request.name, force=request.force))

    @unary
    def UpdateEvalSet(self, request: v1.UpdateEvalSetRequest) -> v1.EvalSet:
        labels = changed_labels(request, "eval_set")
        return eval_set_message(self._eval_sets.update_eval_set(request.eval_set.name, labels))

    @unary
    def CreateEvaluation(self, request: v1.CreateEvaluationRequest) -> v1.Evaluation:
        asked, labels = asked_evaluation(request.spec), given_labels(request)
        return evaluation_message(self._evaluations.create_evaluation(asked, request.request_id, labels))

    @unary
    def MeasureEvaluation(self, request: v1.MeasureEvaluationRequest) -> v1.EvaluationSpeed:
        speed = self._evaluations.measure(asked_evaluation(request.spec))
        return to_message(speed, v1.EvaluationSpeed)

    @unary
    def GetEvaluation(self, request: v1.GetEvaluationRequest) -> v1.Evaluation:
        return evaluation_message(self._evaluations.get_evaluation(request.name))

    @unary
    def ListEvaluations(self, request: v1.ListEvaluationsRequest) -> v1.ListEvaluationsResponse:
        page = self._evaluations.list_evaluations(list_asked(request, EvaluationFilter))
        return page_message(page, v1.ListEvaluationsResponse, evaluation_message)

    @unary
    def DeleteEvaluation(self, request: v1.DeleteEvaluationRequest) -> v1.Evaluation:
        return evaluation_message(self._evaluations.delete_evaluation(request.name, force=request.force))

    @unary
    def UpdateEvaluation(self, request: v1.UpdateEvaluationRequest) -> v1.Evaluation:
        labels = changed_labels(request, "evaluation")
        return evaluation_message(self._evaluations.update_evaluation(request.evaluation.name, labels))

    @unary
    def CancelEvaluation(self, request: v1.CancelEvaluationRequest) -> v1.Evaluation:
        return evaluation_message(self._evaluations.cancel_evaluation(request.name))

    async def WatchEvaluation(
        self, request: v1.WatchEvaluationRequest, context: Any
    ) -> AsyncIterator[v1.Evaluation]:
        states = watch_state(
            lambda: run_blocking(self._evaluations.get_evaluation, request.name),
            is_terminal=lambda evaluation: evaluation.state.ended,
            stop=self._stopping,
        )
        async for evaluation in states:
            yield evaluation_message(evaluation)

    @unary
    def ListEvaluationItems(self, request: v1.ListEvaluationItemsRequest) -> v1.ListEvaluationItemsResponse:
        wanted = item_filter(request.filter)
        asked = ListAsked(request.page_size, request.page_token, {}, request.order_by)
        page = self._evaluations.list_items(request.parent, asked, wanted)
        return page_message(page, v1.ListEvaluationItemsResponse, result_message)

    @unary
    def RegradeEvaluation(self, request: v1.RegradeEvaluationRequest) -> v1.Evaluation:
        draft, labels = regrade_draft(request), given_labels(request)
        return evaluation_message(self._evaluations.regrade_evaluation(draft, request.request_id, labels))

    @unary
    def GradeAnswer(self, request: v1.GradeAnswerRequest) -> v1.GradeAnswerResponse:
        fields = item_fields(request.item)
        graded = self._eval_sets.grade_answer(fields, request.output, truncated=request.truncated)
        return graded_answer_message(graded)

    @unary
    def CompareEvaluations(self, request: v1.CompareEvaluationsRequest) -> v1.ComparisonReport:
        bases = (request.base, *request.more_bases)
        candidates = (request.candidate, *request.more_candidates)
        labels = given_labels(request)
        return report_message(self._comparisons.compare(bases, candidates, request.waivers, labels))

    @unary
    def GetComparisonReport(self, request: v1.GetComparisonReportRequest) -> v1.ComparisonReport:
        return report_message(self._comparisons.get_report(request.name))

    @unary
    def ListComparisonReports(
        self, request: v1.ListComparisonReportsRequest
    ) -> v1.ListComparisonReportsResponse:
        page = self._comparisons.list_reports(list_asked(request, ReportFilter))
        return page_message(page, v1.ListComparisonReportsResponse, report_facts)

    @unary
    def DeleteComparisonReport(self, request: v1.DeleteComparisonReportRequest) -> v1.ComparisonReport:
        return report_message(self._comparisons.delete_report(request.name))

    @unary
    def UpdateComparisonReport(self, request: v1.UpdateComparisonReportRequest) -> v1.ComparisonReport:
        labels = changed_labels(request, "comparison_report")
        return report_message(self._comparisons.update_report(request.comparison_report.name, labels))

    @streaming
    def ReadComparisonReport(
        self, request: v1.ReadComparisonReportRequest
    ) -> Iterator[v1.ReadComparisonReportResponse]:
        format_ = document_format(request.format)
        document, chunks = self._comparisons.read_report(request.name, format_, request.offset)
        yield document_header(document, format_)
        for chunk in chunks:
            yield v1.ReadComparisonReportResponse(chunk=chunk)
