"""Resources with ids and names, to be found by the beginnings of either."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_status import rpc_status

from tunix_rt import v1
from tunix_rt.wire import error_status

JOB = "01a22d4a-4677-77aa-8a11-4a0e383d0748"
NEAR = "01a22d4a-4677-7bbb-8a11-4a0e383d0748"
FAR = "01a99999-0000-7000-8000-000000000000"


class Resources(v1.TraceStoreServicer, v1.ExporterServicer, v1.TrainerServicer, v1.EvaluatorServicer):
    """Lists what it has, with the filters of the contract, or without if it is ``old``. ``asked`` counts."""

    def __init__(self) -> None:
        self.ids: dict[str, dict[str, str]] = {
            "traces": {JOB: "", NEAR: "", FAR: ""},
            "training_jobs": {JOB: "first run", NEAR: "second", FAR: "twin"},
            "evaluations": {JOB: "twin", NEAR: "twin", FAR: "with/slash"},
            "datasets": {
                "gsm8k@1": "",
                "gsm8k@2": "words",
                "gsm8k-train@1": "",
                "only-two@2": "",
                "ab@1": "",
                f"{'0a' * 16}@1": "",
            },
            "eval_sets": {"exam": "", "exam-2": "", "exam-2-corrected": "exam-3", "exam-0b": ""}
            # Called as one that was deleted.
            | {"arithmetic-test": "exam-0"},
            "comparison_reports": {"f" * 32: "", "f0" * 16: "", "ffff" + "0" * 28: ""},
        }
        self.old = False
        self.asked = 0

    def add(self, server: grpc.Server) -> None:
        v1.add_TraceStoreServicer_to_server(self, server)
        v1.add_ExporterServicer_to_server(self, server)
        v1.add_TrainerServicer_to_server(self, server)
        v1.add_EvaluatorServicer_to_server(self, server)

    def _found(self, field: str, folder: str, request: Any) -> list[dict[str, str]]:
        self.asked += 1
        wanted = request if field == "traces" else request.filter
        found = []
        for resource_id, label in self.ids[field].items():
            fits = resource_id.startswith(wanted.id_prefix)
            if field != "traces":
                fits = fits and wanted.display_name in ("", label) and wanted.display_name_contains in label
            if fits or self.old:
                labels = {} if field == "traces" else {"display_name": label}
                found.append({"name": f"{folder}/{resource_id}", **labels})
        if getattr(request, "order_by", ""):
            found.sort(key=lambda entry: entry["name"])
        return found

    def ListTraces(self, request: v1.ListTracesRequest, _: Any) -> v1.ListTracesResponse:
        return v1.ListTracesResponse(traces=self._found("traces", "traces", request))

    def ListTrainingJobs(self, request: v1.ListTrainingJobsRequest, _: Any) -> v1.ListTrainingJobsResponse:
        jobs = self._found("training_jobs", "trainingJobs", request)
        return v1.ListTrainingJobsResponse(training_jobs=jobs)

    def ListEvaluations(self, request: v1.ListEvaluationsRequest, _: Any) -> v1.ListEvaluationsResponse:
        return v1.ListEvaluationsResponse(evaluations=self._found("evaluations", "evaluations", request))

    def ListEvalSets(self, request: v1.ListEvalSetsRequest, _: Any) -> v1.ListEvalSetsResponse:
        return v1.ListEvalSetsResponse(eval_sets=self._found("eval_sets", "evalSets", request))

    def ListDatasets(self, request: v1.ListDatasetsRequest, _: Any) -> v1.ListDatasetsResponse:
        return v1.ListDatasetsResponse(datasets=self._found("datasets", "datasets", request))

    def ListComparisonReports(
        self, request: v1.ListComparisonReportsRequest, _: Any
    ) -> v1.ListComparisonReportsResponse:
        found = self._found("comparison_reports", "comparisonReports", request)
        return v1.ListComparisonReportsResponse(comparison_reports=found)

    def _get(self, field: str, kind: Any, request: Any, context: Any) -> Any:
        self.asked += 1
        resource_id = request.name.partition("/")[2]
        if resource_id not in self.ids[field]:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.name}")
        return kind(name=request.name)

    def GetDataset(self, request: v1.GetDatasetRequest, context: Any) -> Any:
        return self._get("datasets", v1.Dataset, request, context)

    def GetTrace(self, request: v1.GetTraceRequest, context: Any) -> Any:
        return self._get("traces", v1.Trace, request, context)

    def GetTrainingJob(self, request: v1.GetTrainingJobRequest, context: Any) -> Any:
        return self._get("training_jobs", v1.TrainingJob, request, context)

    def GetEvalSet(self, request: v1.GetEvalSetRequest, context: Any) -> Any:
        if request.name == "evalSets/exam-0":
            status = error_status("NOT_FOUND", "it was deleted", reason="EVAL_SET_DELETED", metadata={})
            context.abort_with_status(rpc_status.to_status(status))
        return self._get("eval_sets", v1.EvalSet, request, context)
