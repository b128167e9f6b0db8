# ruff: noqa: ARG002  (gRPC hands a watch a context)
"""The gRPC face of the trainer: convert, call, convert, in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from tunix_rt import v1
from tunix_rt_kit.convert import changed_labels, given_labels, list_asked, page_message
from tunix_rt_kit.serving.calls import run_blocking, streaming, unary
from tunix_rt_trainer import convert
from tunix_rt_trainer.base_models import BaseModelFilter, BaseModelService
from tunix_rt_trainer.checkpoints.model import CheckpointFilter
from tunix_rt_trainer.checkpoints.service import CheckpointService
from tunix_rt_trainer.jobs.model import JobLine, TrainingJob, TrainingJobFilter
from tunix_rt_trainer.jobs.service import JobService

_WATCH_INTERVAL_S = 0.2


class TrainerServicer(v1.TrainerServicer):
    """Serves ``tunix_rt.v1.Trainer``; watches end when ``stopping`` is set."""

    def __init__(
        self,
        jobs: JobService,
        checkpoints: CheckpointService,
        base_models: BaseModelService,
        stopping: asyncio.Event,
    ) -> None:
        self._jobs = jobs
        self._checkpoints = checkpoints
        self._base_models = base_models
        self._stopping = stopping

    @unary
    def ListBaseModels(self, request: v1.ListBaseModelsRequest) -> v1.ListBaseModelsResponse:
        page = self._base_models.list_base_models(list_asked(request, BaseModelFilter))
        return page_message(page, v1.ListBaseModelsResponse, convert.base_model_message)

    @unary
    def GetBaseModel(self, request: v1.GetBaseModelRequest) -> v1.BaseModel:
        return convert.base_model_message(self._base_models.resolve(request.base_model))

    @unary
    def DeleteBaseModel(self, request: v1.DeleteBaseModelRequest) -> v1.BaseModel:
        return convert.base_model_message(self._base_models.delete(request.name, force=request.force))

    @unary
    def CreateTrainingJob(self, request: v1.CreateTrainingJobRequest) -> v1.TrainingJob:
        job = self._jobs.create_job(convert.asked(request.spec), request.request_id, given_labels(request))
        return convert.job_message(job)

    @unary
    def PlanTrainingJob(self, request: v1.PlanTrainingJobRequest) -> v1.TrainingPlan:
        return convert.plan_message(self._jobs.plan_job(convert.asked(request.spec)))

    @unary
    def MeasureTraining(self, request: v1.MeasureTrainingRequest) -> v1.TrainingSpeed:
        return convert.speed_message(self._jobs.measure(convert.asked(request.spec)))

    @unary
    def GetTrainingJob(self, request: v1.GetTrainingJobRequest) -> v1.TrainingJob:
        return convert.job_message(self._jobs.get_job(request.name))

    @unary
    def ListTrainingJobs(self, request: v1.ListTrainingJobsRequest) -> v1.ListTrainingJobsResponse:
        page = self._jobs.list_jobs(list_asked(request, TrainingJobFilter))
        return page_message(page, v1.ListTrainingJobsResponse, convert.job_message)

    @unary
    def UpdateTrainingJob(self, request: v1.UpdateTrainingJobRequest) -> v1.TrainingJob:
        labels = changed_labels(request, "training_job")
        return convert.job_message(self._jobs.update_job(request.training_job.name, labels))

    @unary
    def CancelTrainingJob(self, request: v1.CancelTrainingJobRequest) -> v1.TrainingJob:
        return convert.job_message(self._jobs.cancel_job(request.name))

    @unary
    def ResumeTrainingJob(self, request: v1.ResumeTrainingJobRequest) -> v1.TrainingJob:
        return convert.job_message(self._jobs.resume_job(request.name))

    @unary
    def DeleteTrainingJob(self, request: v1.DeleteTrainingJobRequest) -> v1.TrainingJob:
        return convert.job_message(self._jobs.delete_job(request.name))

    async def WatchTrainingJob(
        self, request: v1.WatchTrainingJobRequest, context: Any
    ) -> AsyncIterator[v1.WatchTrainingJobResponse]:
        reader = await run_blocking(self._jobs.lines, request.name)

        def poll() -> tuple[TrainingJob, Sequence[JobLine]]:
            # The state first: what an ended job told is then all there.
            return self._jobs.get_job(request.name), reader.read()

        job, lines = await run_blocking(poll)
        sent, shown = request.after_event, job
        yield convert.watch_state(job, sent)
        while True:
            news = [line for line in lines if line.number > sent]
            for line in news:
                sent = line.number
                yield convert.watch_line(line)
            # The end comes last, so that whoever waits for it has seen every line.
            if job != shown or (job.state.ended and news):
                shown = job
                yield convert.watch_state(job, sent)
            if job.state.ended or await self._stops():
                return
            job, lines = await run_blocking(poll)

    @unary
    def ListCheckpoints(self, request: v1.ListCheckpointsRequest) -> v1.ListCheckpointsResponse:
        asked = list_asked(request, CheckpointFilter)
        page = self._checkpoints.list_checkpoints(request.parent, asked)
        return page_message(page, v1.ListCheckpointsResponse, convert.checkpoint_message)

    @unary
    def GetCheckpoint(self, request: v1.GetCheckpointRequest) -> v1.Checkpoint:
        return convert.checkpoint_message(self._checkpoints.get_checkpoint(request.name))

    @unary
    def DeleteCheckpoint(self, request: v1.DeleteCheckpointRequest) -> v1.Checkpoint:
        return convert.checkpoint_message(self._checkpoints.delete_checkpoint(request.name))

    @unary
    def ExportCheckpoint(self, request: v1.ExportCheckpointRequest) -> v1.CheckpointExport:
        format_ = convert.export_format(request.format)
        checkpoint, files = self._checkpoints.export_checkpoint(request.name, format_)
        return convert.export_message(checkpoint, request.format, files)

    @streaming
    def ReadCheckpointFile(
        self, request: v1.ReadCheckpointFileRequest
    ) -> Iterator[v1.ReadCheckpointFileResponse]:
        file, chunks = self._checkpoints.read_file(
            request.name, request.path, request.offset, convert.export_format(request.format)
        )
        yield convert.file_header(file)
        for chunk in chunks:
            yield v1.ReadCheckpointFileResponse(chunk=chunk)

    async def _stops(self) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _WATCH_INTERVAL_S)
        return self._stopping.is_set()
