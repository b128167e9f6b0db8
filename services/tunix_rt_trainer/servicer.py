# ruff: noqa: ARG002  (gRPC hands every method a context)
"""The gRPC face of the trainer: convert, call, convert, in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from tunix_rt import v1
from tunix_rt_kit.serving.blocking import iterate_blocking, run_blocking
from tunix_rt_trainer.jobs import convert
from tunix_rt_trainer.jobs.model import JobLine, TrainingJob
from tunix_rt_trainer.jobs.service import TrainerService

_WATCH_INTERVAL_S = 0.2


class TrainerServicer(v1.TrainerServicer):
    """Serves ``tunix_rt.v1.Trainer``; watches end when ``stopping`` is set."""

    def __init__(self, service: TrainerService, stopping: asyncio.Event) -> None:
        self._service = service
        self._stopping = stopping

    async def ListBaseModels(
        self, request: v1.ListBaseModelsRequest, context: Any
    ) -> v1.ListBaseModelsResponse:
        def call() -> v1.ListBaseModelsResponse:
            return convert.base_models_response(
                *self._service.list_base_models(request.page_size, request.page_token)
            )

        return await run_blocking(call)

    async def GetBaseModel(self, request: v1.GetBaseModelRequest, context: Any) -> v1.BaseModel:
        return await run_blocking(
            lambda: convert.base_model_message(self._service.get_base_model(request.base_model))
        )

    async def CreateTrainingJob(self, request: v1.CreateTrainingJobRequest, context: Any) -> v1.TrainingJob:
        def call() -> v1.TrainingJob:
            job = self._service.create_job(convert.asked(request.spec), request.request_id)
            return convert.job_message(job)

        return await run_blocking(call)

    async def PlanTrainingJob(self, request: v1.PlanTrainingJobRequest, context: Any) -> v1.TrainingPlan:
        return await run_blocking(
            lambda: convert.plan_message(self._service.plan_job(convert.asked(request.spec)))
        )

    async def GetTrainingJob(self, request: v1.GetTrainingJobRequest, context: Any) -> v1.TrainingJob:
        return await run_blocking(lambda: convert.job_message(self._service.get_job(request.name)))

    async def ListTrainingJobs(
        self, request: v1.ListTrainingJobsRequest, context: Any
    ) -> v1.ListTrainingJobsResponse:
        def call() -> v1.ListTrainingJobsResponse:
            return convert.jobs_response(*self._service.list_jobs(request.page_size, request.page_token))

        return await run_blocking(call)

    async def CancelTrainingJob(self, request: v1.CancelTrainingJobRequest, context: Any) -> v1.TrainingJob:
        return await run_blocking(lambda: convert.job_message(self._service.cancel_job(request.name)))

    async def ResumeTrainingJob(self, request: v1.ResumeTrainingJobRequest, context: Any) -> v1.TrainingJob:
        return await run_blocking(lambda: convert.job_message(self._service.resume_job(request.name)))

    async def WatchTrainingJob(
        self, request: v1.WatchTrainingJobRequest, context: Any
    ) -> AsyncIterator[v1.WatchTrainingJobResponse]:
        reader = await run_blocking(self._service.lines, request.name)

        def poll() -> tuple[TrainingJob, Sequence[JobLine]]:
            # The state first: what an ended job told is then all there.
            return self._service.get_job(request.name), reader.read()

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

    async def ListCheckpoints(
        self, request: v1.ListCheckpointsRequest, context: Any
    ) -> v1.ListCheckpointsResponse:
        def call() -> v1.ListCheckpointsResponse:
            return convert.checkpoints_response(
                *self._service.list_checkpoints(request.parent, request.page_size, request.page_token)
            )

        return await run_blocking(call)

    async def GetCheckpoint(self, request: v1.GetCheckpointRequest, context: Any) -> v1.Checkpoint:
        return await run_blocking(
            lambda: convert.checkpoint_message(self._service.get_checkpoint(request.name))
        )

    async def ExportCheckpoint(
        self, request: v1.ExportCheckpointRequest, context: Any
    ) -> v1.CheckpointExport:
        def call() -> v1.CheckpointExport:
            format_ = convert.export_format(request.format)
            checkpoint, files = self._service.export_checkpoint(request.name, format_)
            return convert.export_message(checkpoint, request.format, files)

        return await run_blocking(call)

    async def ReadCheckpointFile(
        self, request: v1.ReadCheckpointFileRequest, context: Any
    ) -> AsyncIterator[v1.ReadCheckpointFileResponse]:
        def messages() -> Iterator[v1.ReadCheckpointFileResponse]:
            file, chunks = self._service.read_file(
                request.name, request.path, request.offset, convert.export_format(request.format)
            )
            yield convert.file_header(file)
            for chunk in chunks:
                yield convert.file_chunk(chunk)

        async for message in iterate_blocking(messages):
            yield message

    async def _stops(self) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _WATCH_INTERVAL_S)
        return self._stopping.is_set()
