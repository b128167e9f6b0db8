"""The four services in memory, with just enough sense to run a loop against, and switches to break it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2, status_pb2

from tunix_rt import v1

ENDED = {"SUCCEEDED": 4, "FAILED": 5, "CANCELLED": 6}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class FakeLoopServices(v1.TraceStoreServicer, v1.ExporterServicer, v1.TrainerServicer, v1.EvaluatorServicer):
    """Creates are idempotent by request id; a job ends when it is watched, as ``outcomes`` says.

    ``made`` counts the jobs that were really created, by kind. Of files of datasets nothing is left behind
    byte ``damaged_at``.
    """

    def __init__(self) -> None:
        self.traces: dict[str, v1.Trace] = {}
        self.jobs: dict[str, Any] = {}
        self.eval_sets: dict[str, v1.EvalSet] = {}
        self.by_request: dict[str, Any] = {}
        self.made: Counter[str] = Counter()
        self.outcomes: dict[str, list[str]] = {}
        self.audits: list[v1.SupervisionAudit] = []
        self.batches = 0
        self.measures = True
        self.template_known = True
        self.breaks_before: str = ""
        self.dropped = b""
        self.damaged_at: int | None = None
        self.report = v1.ComparisonReport()
        self.records = ["metrics.jsonl", "ledger.jsonl"]
        self.uses: list[v1.TraceUse] = []
        self.unreadable: list[str] = []

    def add(self, server: grpc.Server) -> None:
        v1.add_TraceStoreServicer_to_server(self, server)
        v1.add_ExporterServicer_to_server(self, server)
        v1.add_TrainerServicer_to_server(self, server)
        v1.add_EvaluatorServicer_to_server(self, server)

    # Traces.
    def BatchCreateTraces(self, request: v1.BatchCreateTracesRequest, _: Any) -> v1.BatchCreateTracesResponse:
        self.batches += 1
        if request.request_id in self.by_request:
            answer: v1.BatchCreateTracesResponse = self.by_request[request.request_id]
            return answer
        results = []
        for trace in request.traces:
            name = f"traces/{hashlib.sha256(trace.prompt.encode()).hexdigest()[:12]}"
            results.append(v1.BatchCreateTracesResult(name=name, created=name not in self.traces))
            self.traces.setdefault(name, trace)
        created = sum(result.created for result in results)
        answer = v1.BatchCreateTracesResponse(
            results=results, created_count=created, skipped_count=len(results) - created
        )
        self.by_request[request.request_id] = answer
        return answer

    def GetTrace(self, request: v1.GetTraceRequest, context: Any) -> v1.Trace:
        return self._found(self.traces, request.name, context)

    def ListTraces(self, request: v1.ListTracesRequest, _: Any) -> v1.ListTracesResponse:
        traces = [v1.Trace(name=name, sequence=number) for number, name in enumerate(self.traces, start=1)]
        traces.reverse()
        return v1.ListTracesResponse(traces=traces[: request.page_size])

    def ListScores(self, _: v1.ListScoresRequest, __: Any) -> v1.ListScoresResponse:
        return v1.ListScoresResponse()

    def DeleteTrace(self, request: v1.DeleteTraceRequest, _: Any) -> Any:
        del self.traces[request.name]
        return empty_pb2.Empty()

    # Datasets: every fifth trace is held out.
    def CreateDataset(self, request: v1.CreateDatasetRequest, context: Any) -> v1.Dataset:
        spec = request.spec
        name = f"datasets/{spec.dataset_id}@{spec.version or '1'}"
        known = self.jobs.get(name)
        if (
            request.request_id not in self.by_request
            and known is not None
            and known.state == ENDED["SUCCEEDED"]
        ):
            if known.spec != spec or known.digest != self._dataset_digest(spec):
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} is bound")
            return known
        return self._create("dataset", request.request_id, v1.Dataset(name=name, spec=spec), context)

    def GetDataset(self, request: v1.GetDatasetRequest, context: Any) -> v1.Dataset:
        found: v1.Dataset = self._found(self.jobs, request.name, context)
        return found

    def WatchDataset(self, request: v1.WatchDatasetRequest, context: Any) -> Iterator[v1.Dataset]:
        job = self._found(self.jobs, request.name, context)
        yield job
        if self._end("dataset", job):
            job.digest = self._dataset_digest(job.spec)
            for split in ("train", "test"):
                job.splits.add(split=split, row_count=len(self._rows(split).splitlines()))
        yield job

    def ReadDataset(self, request: v1.ReadDatasetRequest, context: Any) -> Iterator[v1.ReadDatasetResponse]:
        rows = self._rows(request.split)
        if request.format == v1.DATASET_FORMAT_TRAINING_EXAMPLE:
            rows = b"".join(map(_example, rows.splitlines()))
        else:
            assert request.format == v1.DATASET_FORMAT_TRACE
        yield from self._download(rows, request.offset, v1.ReadDatasetResponse)
        self._check_whole(context)

    def ReadDroppedRows(
        self, request: v1.ReadDroppedRowsRequest, context: Any
    ) -> Iterator[v1.ReadDroppedRowsResponse]:
        yield from self._download(self.dropped, request.offset, v1.ReadDroppedRowsResponse)
        self._check_whole(context)

    def ListTraceUses(self, _: v1.ListTraceUsesRequest, __: Any) -> v1.ListTraceUsesResponse:
        return v1.ListTraceUsesResponse(trace_uses=self.uses, unreadable_datasets=self.unreadable)

    def AuditSupervision(
        self, request: v1.AuditSupervisionRequest, _: Any
    ) -> Iterator[v1.AuditSupervisionResponse]:
        rows = len(self._rows("train").splitlines())
        yield v1.AuditSupervisionResponse(progress=v1.Progress(stage="counting tokens", total=rows))
        audit = v1.SupervisionAudit(
            name=f"{request.name}/supervisionAudits/1",
            base_model=request.base_model,
            tokenizer_digest=request.tokenizer.digest,
            max_length=request.max_length,
        )
        split = audit.splits.add(split="train", row_count=rows, token_count=900, supervised_token_count=300)
        split.supervised_tokens.add(lower=8, upper=16, row_count=rows)
        split.truncated.row_count = 1
        split.truncated.example_row_ids.append("traces/0123456789abcdef")
        for length in request.packing_lengths or [request.max_length]:
            split.packing.add(max_length=length, sequence_count=4, efficiency=0.5)
        self.audits.append(audit)
        yield v1.AuditSupervisionResponse(audit=audit)

    def ListDatasets(self, _: v1.ListDatasetsRequest, __: Any) -> v1.ListDatasetsResponse:
        return v1.ListDatasetsResponse(datasets=self._all("datasets/"))

    def ListEvaluations(self, _: v1.ListEvaluationsRequest, __: Any) -> v1.ListEvaluationsResponse:
        return v1.ListEvaluationsResponse(evaluations=self._all("evaluations/"))

    def _all(self, kind: str) -> list[Any]:
        return [job for name, job in self.jobs.items() if name.startswith(kind)]

    def ListSupervisionAudits(
        self, request: v1.ListSupervisionAuditsRequest, _: Any
    ) -> v1.ListSupervisionAuditsResponse:
        audits = [audit for audit in self.audits if audit.name.startswith(request.parent)]
        return v1.ListSupervisionAuditsResponse(supervision_audits=audits)

    def _dataset_digest(self, spec: v1.DatasetSpec) -> str:
        return digest(spec.SerializeToString(deterministic=True) + self._rows(""))

    def _rows(self, split: str) -> bytes:
        lines = []
        for number, (name, trace) in enumerate(sorted(self.traces.items())):
            if split and (split == "test") != (number % 5 == 0):
                continue
            row = {
                "id": name,
                "prompts": trace.prompt,
                "trace_steps": [
                    {"i": step.i, "type": step.type, "content": step.content} for step in trace.steps
                ],
                "final_answer": trace.final_answer,
                "metadata": MessageToDict(trace.metadata) | {"source_trace_id": name},
            }
            lines.append(json.dumps(row).encode())
        return b"\n".join(lines)

    # Training.
    def GetBaseModel(self, request: v1.GetBaseModelRequest, context: Any) -> v1.BaseModel:
        models = self.ListBaseModels(v1.ListBaseModelsRequest(), context).base_models
        known = {model.base_model: model for model in models}
        if request.base_model not in known:
            message = f"base model {request.base_model!r} is unknown; known: {', '.join(known)}"
            context.abort(grpc.StatusCode.NOT_FOUND, message)
        return known[request.base_model]

    def ListBaseModels(self, _: v1.ListBaseModelsRequest, __: Any) -> v1.ListBaseModelsResponse:
        model = v1.BaseModel(
            base_model="tiny",
            available=True,
            tokenizer_file=v1.ArtifactFile(digest="sha256:k"),
            special_tokens=["</s>", "<pad>"],
        )
        if self.template_known:
            model.chat_template.CopyFrom(
                v1.ChatTemplate(jinja="{{ x }}", eos_token="</s>", digest="sha256:t")
            )
        far = v1.BaseModel(base_model="far")
        return v1.ListBaseModelsResponse(base_models=[model, far])

    def CreateTrainingJob(self, request: v1.CreateTrainingJobRequest, context: Any) -> v1.TrainingJob:
        job = v1.TrainingJob(name=f"trainingJobs/{self.made['training']}", spec=request.spec)
        return self._create("training", request.request_id, job, context)

    def PlanTrainingJob(self, request: v1.PlanTrainingJobRequest, _: Any) -> v1.TrainingPlan:
        plan = v1.TrainingPlan(
            train_examples=40,
            rows_per_epoch=16,
            steps_per_epoch=2,
            train_tokens=1000,
            supervised_tokens=250,
            packing_efficiency=0.9,
            memory_bytes={"process": 700_000_000, "activations": 1_300_000_000},
        )
        plan.spec.CopyFrom(request.spec)
        plan.spec.max_steps = 6
        return plan

    def MeasureTraining(self, request: v1.MeasureTrainingRequest, context: Any) -> v1.TrainingSpeed:
        if not self.measures:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not known")
        assert request.spec.base_model
        speed = v1.TrainingSpeed(rows=2, steps=5, dtype="float32", device="cpu")
        speed.step_duration.FromSeconds(3)
        speed.load_duration.FromSeconds(4)
        speed.compile_duration.FromSeconds(6)
        speed.measured_duration.FromSeconds(10)
        return speed

    def MeasureEvaluation(self, request: v1.MeasureEvaluationRequest, context: Any) -> v1.EvaluationSpeed:
        if not self.measures:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not known")
        assert request.spec.base_model
        speed = v1.EvaluationSpeed(
            tokens_per_second=64, prompt_tokens_per_second=800, rows=16, dtype="float32"
        )
        speed.load_duration.FromSeconds(1)
        speed.compile_duration.FromSeconds(1)
        return speed

    def ListTrainingJobs(self, request: v1.ListTrainingJobsRequest, _: Any) -> v1.ListTrainingJobsResponse:
        wanted = request.filter
        jobs = [
            job
            for name, job in self.jobs.items()
            if name.startswith(f"trainingJobs/{wanted.id_prefix}")
            and wanted.display_name in ("", job.display_name)
            and job.spec.dataset in (wanted.datasets or [job.spec.dataset])
        ]
        return v1.ListTrainingJobsResponse(training_jobs=jobs)

    def GetTrainingJob(self, request: v1.GetTrainingJobRequest, context: Any) -> v1.TrainingJob:
        found: v1.TrainingJob = self._found(self.jobs, request.name, context)
        return found

    def ResumeTrainingJob(self, request: v1.ResumeTrainingJobRequest, context: Any) -> v1.TrainingJob:
        job: v1.TrainingJob = self._found(self.jobs, request.name, context)
        job.state = v1.TrainingJob.STATE_QUEUED
        job.ClearField("error")
        return job

    def ExportCheckpoint(self, request: v1.ExportCheckpointRequest, _: Any) -> v1.CheckpointExport:
        files = [v1.ArtifactFile(path=path, size_bytes=len(path)) for path in ("config.json", "weights")]
        return v1.CheckpointExport(checkpoint=request.name, format=request.format, files=files)

    def ReadCheckpointFile(
        self, request: v1.ReadCheckpointFileRequest, context: Any
    ) -> Iterator[v1.ReadCheckpointFileResponse]:
        data = f"{request.path} of {request.name} as {request.format}".encode()
        yield from self._download(data, request.offset, v1.ReadCheckpointFileResponse)
        self._check_whole(context)

    def WatchTrainingJob(
        self, request: v1.WatchTrainingJobRequest, context: Any
    ) -> Iterator[v1.WatchTrainingJobResponse]:
        job = self._found(self.jobs, request.name, context)
        # A fast job, seen only when it is beyond its steps.
        job.progress.CopyFrom(v1.Progress(stage="saving"))
        seen = v1.TrainingJob()
        seen.CopyFrom(job)
        seen.spec.max_steps = 2
        yield v1.WatchTrainingJobResponse(training_job=seen)
        yield v1.WatchTrainingJobResponse(event=1, log_line="loading")
        for step in (1, 2):
            metrics = v1.TrainingMetrics(step=step, loss=1 / step)
            metrics.eta.FromMilliseconds(2500)
            job.latest_metrics.CopyFrom(metrics)
            yield v1.WatchTrainingJobResponse(event=step + 1, metrics=metrics)
        if self._end("training", job):
            job.checkpoint = f"{job.name}/checkpoints/2"
        yield v1.WatchTrainingJobResponse(event=3, training_job=job)

    def GetCheckpoint(self, request: v1.GetCheckpointRequest, _: Any) -> v1.Checkpoint:
        manifest = v1.ArtifactFile(path="manifest.json", size_bytes=2)
        files = [v1.ArtifactFile(path=path, size_bytes=1) for path in ["weights", *self.records]]
        return v1.Checkpoint(
            name=request.name, step=2, digest="sha256:weights", files=files, manifest_file=manifest
        )

    # Evaluation.
    def CreateEvalSet(self, request: v1.CreateEvalSetRequest, context: Any) -> v1.EvalSet:
        name = f"evalSets/{request.eval_set.eval_set_id}"
        if name in self.eval_sets and list(self.eval_sets[name].items) != list(request.eval_set.items):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} is bound")
        if name not in self.eval_sets:
            self.made["eval_set"] += 1
            stored = v1.EvalSet(name=name, item_count=len(request.eval_set.items), digest="sha256:items")
            stored.items.extend(request.eval_set.items)
            stored.python_sources.extend(request.eval_set.python_sources)
            self.eval_sets[name] = stored
        return self.eval_sets[name]

    def GetEvalSet(self, request: v1.GetEvalSetRequest, context: Any) -> v1.EvalSet:
        return self._found(self.eval_sets, request.name, context)

    def CreateEvaluation(self, request: v1.CreateEvaluationRequest, context: Any) -> v1.Evaluation:
        job = v1.Evaluation(name=f"evaluations/{self.made['evaluation']}", spec=request.spec)
        return self._create("evaluation", request.request_id, job, context)

    def WatchEvaluation(self, request: v1.WatchEvaluationRequest, context: Any) -> Iterator[v1.Evaluation]:
        job = self._found(self.jobs, request.name, context)
        job.progress.CopyFrom(v1.Progress(stage="generating", completed=1, total=4, unit="items"))
        yield job
        if self._end("evaluation", job):
            right = 3 if job.spec.checkpoint else 1
            overall = v1.Accuracy(item_count=4, correct_count=right, accuracy=right / 4)
            job.summary.overall.CopyFrom(overall)
            job.manifest.results_digest = f"sha256:{right}"
        yield job

    def CompareEvaluations(self, request: v1.CompareEvaluationsRequest, _: Any) -> v1.ComparisonReport:
        base, candidate = self.jobs[request.base], self.jobs[request.candidate]
        made = v1.ComparisonReport(
            name="comparisonReports/r",
            digest="sha256:report",
            verdict=v1.ComparisonReport.VERDICT_IMPROVED,
            overall=v1.PairedDifference(
                base=base.summary.overall, candidate=candidate.summary.overall, p_value=0.04
            ),
            training_metrics=[v1.TrainingMetrics(step=1, loss=1.0), v1.TrainingMetrics(step=2, loss=0.5)],
            display_name=self.report.display_name,
            tags=self.report.tags,
            note=self.report.note,
        )
        self.report = made
        return made

    def ReadComparisonReport(
        self, request: v1.ReadComparisonReportRequest, _: Any
    ) -> Iterator[v1.ReadComparisonReportResponse]:
        data = f"report in {v1.ReportFormat.Name(request.format)}".encode()
        yield from self._download(data, request.offset, v1.ReadComparisonReportResponse)

    # What people call things.
    def UpdateDataset(self, request: v1.UpdateDatasetRequest, context: Any) -> Any:
        return self._called(self.jobs, request.dataset, request, context)

    def UpdateTrainingJob(self, request: v1.UpdateTrainingJobRequest, context: Any) -> Any:
        return self._called(self.jobs, request.training_job, request, context)

    def UpdateEvaluation(self, request: v1.UpdateEvaluationRequest, context: Any) -> Any:
        return self._called(self.jobs, request.evaluation, request, context)

    def UpdateEvalSet(self, request: v1.UpdateEvalSetRequest, context: Any) -> Any:
        return self._called(self.eval_sets, request.eval_set, request, context)

    def UpdateComparisonReport(self, request: v1.UpdateComparisonReportRequest, context: Any) -> Any:
        changed, reports = request.comparison_report, {self.report.name: self.report}
        return self._called(reports, changed, request, context)

    def _called(self, stored: dict[str, Any], changed: Any, request: Any, context: Any) -> Any:
        found = self._found(stored, changed.name, context)
        found.tags.extend(request.add_tags)
        for path in request.update_mask.paths:
            found.ClearField(path)
            found.MergeFrom(type(found)(**{path: getattr(changed, path)}))
        return found

    # What they share.
    def _create(self, kind: str, request_id: str, job: Any, context: Any) -> Any:
        assert request_id
        if request_id in self.by_request:
            return self.by_request[request_id]
        if self.breaks_before == kind:
            context.abort(grpc.StatusCode.INTERNAL, "the machine is on fire")
        self.made[kind] += 1
        job.state = 1
        self.jobs[job.name] = self.by_request[request_id] = job
        return job

    def _end(self, kind: str, job: Any) -> bool:
        outcome = (self.outcomes.get(kind) or ["SUCCEEDED"]).pop(0)
        job.state = ENDED[outcome]
        if outcome == "FAILED":
            job.error.CopyFrom(status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="it broke"))
        return outcome == "SUCCEEDED"

    def _found(self, known: dict[str, Any], name: str, context: Any) -> Any:
        if name not in known:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {name}")
        return known[name]

    def _download(self, data: bytes, offset: int, kind: Any) -> Iterator[Any]:
        yield kind(header=v1.DownloadHeader(size_bytes=len(data), digest=digest(data)))
        yield kind(chunk=data[offset : self.damaged_at])

    def _check_whole(self, context: Any) -> None:
        if self.damaged_at is not None:
            context.abort(grpc.StatusCode.DATA_LOSS, f"all behind byte {self.damaged_at} is gone")


def _example(line: bytes) -> bytes:
    """A row of the format trace in the format training_example."""
    row = json.loads(line)
    example = {"id": row["id"], "prompt": row["prompts"], "response": row["final_answer"], "metadata": {}}
    return json.dumps(example).encode() + b"\n"
