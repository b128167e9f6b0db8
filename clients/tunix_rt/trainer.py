# Generated from aio/trainer.py by `make proto`: change that one.
"""The trainer's calls. Requests and answers are those of ``tunix_rt.v1``, where the limits stand.

Every method raises ``TunixRtError`` or one of its classes; ``timeout`` is in seconds, None for the client's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from tunix_rt import v1
from tunix_rt.aio.trainer import AsyncTrainerClient as AsyncTrainerClient
from tunix_rt.files import atomic_file
from tunix_rt.rpc.caller import Caller, fresh, mask_of
from tunix_rt.rpc.download import receive, receive_bytes
from tunix_rt.rpc.pager import Pager

ADMISSION: Final = 600.0
"""Seconds for ``create_training_job``, which counts the rows of a dataset the first time it sees it."""
MEASURING: Final = 600.0
"""Seconds for ``measure_training``, which loads the model and compiles a step."""
EXPORT: Final = 3_600.0
"""Seconds for ``export_checkpoint``, which reads and writes a whole model."""


class TrainerClient:
    """Synchronous calls to the trainer."""

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._stub = v1.TrainerStub(channel)
        self._caller = caller

    def list_base_models(
        self,
        *,
        filter: v1.BaseModelFilter | None = None,
        order_by: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> Pager[v1.BaseModel, v1.ListBaseModelsResponse]:
        """The base models on the trainer's host and those that it can fetch, or those that ``filter``
        matches: by id, or in the order of ``order_by``, such as "parameter_count desc"."""
        request = v1.ListBaseModelsRequest(
            filter=filter, order_by=order_by, page_size=page_size, page_token=page_token
        )
        return self._caller.pages(self._stub.ListBaseModels, request, lambda page: page.base_models, timeout)

    def get_base_model(self, base_model: str, *, timeout: float | None = None) -> v1.BaseModel:
        """One base model: by id, by the absolute path of a folder on the trainer's host, or as it was pulled.

        Raises NotFoundError if there is none, FailedPreconditionError if it cannot be used.
        """
        request = v1.GetBaseModelRequest(base_model=base_model)
        return self._caller.unary(self._stub.GetBaseModel, request, timeout)

    def delete_base_model(
        self, name: str, *, force: bool = False, timeout: float | None = None
    ) -> v1.BaseModel:
        """Delete the files of the base model ``baseModels/{base_model}``; one of the catalogue can be fetched
        again.

        Raises:
            NotFoundError: it is not on the trainer's host.
            FailedPreconditionError: it is a folder that nobody fetched, jobs use it, or checkpoints need it,
                and not ``force``.
        """
        request = v1.DeleteBaseModelRequest(name=name, force=force)
        return self._caller.unary(self._stub.DeleteBaseModel, request, timeout)

    def plan_training_job(
        self, spec: v1.TrainingSpec, *, timeout: float | None = ADMISSION
    ) -> v1.TrainingPlan:
        """Check a spec as `create_training_job` does, and return what the job would do; raises as it does.

        Raises FailedPreconditionError too if the base model is not on the trainer's host.
        """
        request = v1.PlanTrainingJobRequest(spec=spec)
        return self._caller.unary(self._stub.PlanTrainingJob, request, timeout)

    def measure_training(
        self, spec: v1.TrainingSpec, *, timeout: float | None = MEASURING
    ) -> v1.TrainingSpeed:
        """Measure how fast the trainer's host takes the steps of a spec, whose dataset need not be there.

        It takes five seconds beside loading the model and compiling the step; ``timeout`` is ten minutes by
        default. Nothing is stored.

        Raises:
            InvalidArgumentError: the spec is wrong; every wrong field is named.
            NotFoundError: there is no such base model.
            FailedPreconditionError: the base model is not on the trainer's host.
            UnimplementedError: the server is of an earlier version.
        """
        request = v1.MeasureTrainingRequest(spec=spec)
        return self._caller.unary(self._stub.MeasureTraining, request, timeout)

    def create_training_job(
        self,
        spec: v1.TrainingSpec,
        *,
        display_name: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = ADMISSION,
    ) -> v1.TrainingJob:
        """Put a training job into the queue; ``tunix_rt.jobs.wait_for_training_job`` waits for its end.

        The first time for a dataset, model and length its rows are counted, which takes a minute or two for
        each million: ``timeout`` is ten minutes by default. Ask again with the same ``request_id`` after it.

        Raises:
            InvalidArgumentError: the spec is wrong; every wrong field is named.
            NotFoundError: the dataset or the base model is not there.
            FailedPreconditionError: the dataset is not complete.
        """
        request = v1.CreateTrainingJobRequest(
            spec=spec, request_id=fresh(request_id), display_name=display_name, tags=tags, note=note
        )
        return self._caller.unary(self._stub.CreateTrainingJob, request, timeout)

    def get_training_job(self, name: str, *, timeout: float | None = None) -> v1.TrainingJob:
        """Return the job ``trainingJobs/{training_job}``; raises NotFoundError if there is none."""
        request = v1.GetTrainingJobRequest(name=name)
        return self._caller.unary(self._stub.GetTrainingJob, request, timeout)

    def list_training_jobs(
        self,
        *,
        filter: v1.TrainingJobFilter | None = None,
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> Pager[v1.TrainingJob, v1.ListTrainingJobsResponse]:
        """All training jobs, or those that ``filter`` matches: the newest first, or in the order of
        ``order_by``, such as "display_name, create_time desc"."""
        request = v1.ListTrainingJobsRequest(
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
        )
        return self._caller.pages(
            self._stub.ListTrainingJobs, request, lambda page: page.training_jobs, timeout
        )

    def update_training_job(
        self,
        training_job: v1.TrainingJob,
        *,
        update_mask: FieldMask | Sequence[str] = (),
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        timeout: float | None = None,
    ) -> v1.TrainingJob:
        """Change what people call a training job.

        Args:
            training_job: has the name of the one to change, and its new labels.
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
        request = v1.UpdateTrainingJobRequest(
            training_job=training_job, update_mask=mask, add_tags=add_tags, remove_tags=remove_tags
        )
        return self._caller.unary(self._stub.UpdateTrainingJob, request, timeout)

    def cancel_training_job(self, name: str, *, timeout: float | None = None) -> v1.TrainingJob:
        """Ask a job to stop; one that has ended is returned as it is."""
        request = v1.CancelTrainingJobRequest(name=name)
        return self._caller.unary(self._stub.CancelTrainingJob, request, timeout)

    def resume_training_job(self, name: str, *, timeout: float | None = None) -> v1.TrainingJob:
        """Put a failed or cancelled job into the queue again, to resume from its latest checkpoint.

        A job that is queued or runs is returned as it is; raises FailedPreconditionError for one that has
        succeeded.
        """
        request = v1.ResumeTrainingJobRequest(name=name)
        return self._caller.unary(self._stub.ResumeTrainingJob, request, timeout)

    def delete_training_job(self, name: str, *, timeout: float | None = None) -> v1.TrainingJob:
        """Delete a job that has ended, with its checkpoints; what it was stays on record.
        ``tunix_rt.deleting.delete`` looks first which evaluations use them, as the trainer knows none.

        Raises NotFoundError if there is none or it is deleted already, FailedPreconditionError while it runs.
        """
        request = v1.DeleteTrainingJobRequest(name=name)
        return self._caller.unary(self._stub.DeleteTrainingJob, request, timeout)

    def watch_training_job(self, name: str, *, after_event: int = 0) -> Iterator[v1.WatchTrainingJobResponse]:
        """Yield the job's state, then each event, until it has ended or the server stops.

        Args:
            name: the job.
            after_event: leave out metrics and log lines up to this event, to go on with a watch.
        """
        request = v1.WatchTrainingJobRequest(name=name, after_event=after_event)
        return self._caller.stream(self._stub.WatchTrainingJob, request)

    def list_checkpoints(
        self,
        parent: str,
        *,
        filter: v1.CheckpointFilter | None = None,
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> Pager[v1.Checkpoint, v1.ListCheckpointsResponse]:
        """All checkpoints of the job ``parent``, or with ``trainingJobs/-`` of all jobs, or those that
        ``filter`` matches: the latest first, or in the order of ``order_by``, such as "step desc"."""
        request = v1.ListCheckpointsRequest(
            parent=parent,
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
            page_token=page_token,
        )
        return self._caller.pages(self._stub.ListCheckpoints, request, lambda page: page.checkpoints, timeout)

    def get_checkpoint(self, name: str, *, timeout: float | None = None) -> v1.Checkpoint:
        """Return the checkpoint ``trainingJobs/{training_job}/checkpoints/{step}``; raises NotFoundError."""
        return self._caller.unary(self._stub.GetCheckpoint, v1.GetCheckpointRequest(name=name), timeout)

    def delete_checkpoint(self, name: str, *, timeout: float | None = None) -> v1.Checkpoint:
        """Delete one checkpoint of a job that has ended, and its exports; as ``delete_training_job``."""
        request = v1.DeleteCheckpointRequest(name=name)
        return self._caller.unary(self._stub.DeleteCheckpoint, request, timeout)

    def export_checkpoint(
        self, name: str, format: v1.CheckpointFormat.ValueType, *, timeout: float | None = EXPORT
    ) -> v1.CheckpointExport:
        """Make the files of a checkpoint in another format, which takes about as long as copying the model.

        `download_checkpoint_file` fetches them, given the same format. Raises FailedPreconditionError if the
        format does not suit the checkpoint, or the base weights on the host are other ones.
        """
        request = v1.ExportCheckpointRequest(name=name, format=format)
        return self._caller.unary(self._stub.ExportCheckpoint, request, timeout)

    def read_checkpoint_file(
        self,
        name: str,
        path: str,
        *,
        format: v1.CheckpointFormat.ValueType = v1.CHECKPOINT_FORMAT_UNSPECIFIED,
    ) -> bytes:
        """Return one file of a checkpoint, verified by SHA-256; resumed after a broken connection.

        Args:
            name: the checkpoint.
            path: the file as the checkpoint lists it, such as ``adapter_model.safetensors``.
            format: unset for the checkpoint's own files, else for those that ``export_checkpoint`` made.

        Raises:
            NotFoundError: there is no such checkpoint or file.
            DataLossError: the bytes are not those that the server announced.
        """
        return receive_bytes(self._reader(name, path, format))

    def download_checkpoint_file(
        self,
        name: str,
        path: str,
        to: str | os.PathLike[str],
        *,
        format: v1.CheckpointFormat.ValueType = v1.CHECKPOINT_FORMAT_UNSPECIFIED,
    ) -> v1.DownloadHeader:
        """Write one file to ``to``, whole or not at all; raises as ``read_checkpoint_file``, and OSError."""
        with atomic_file(to) as file:
            return receive(self._reader(name, path, format), file)

    def _reader(
        self, name: str, path: str, format: v1.CheckpointFormat.ValueType
    ) -> Callable[[int], Iterator[v1.ReadCheckpointFileResponse]]:
        return lambda offset: self._caller.stream(
            self._stub.ReadCheckpointFile,
            v1.ReadCheckpointFileRequest(name=name, path=path, offset=offset, format=format),
        )
