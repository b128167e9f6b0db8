"""What the trainer does with checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol, cast, get_args

from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import InvalidArgument, NotFound
from tunix_rt_kit.serving.resources import Paging, parse_name, parse_names
from tunix_rt_kit.values import Page, StoredFile
from tunix_rt_trainer.checkpoints.export import CheckpointExporter
from tunix_rt_trainer.checkpoints.model import Checkpoint, ExportFormat
from tunix_rt_trainer.jobs.model import TrainingJob

CHECKPOINT_NAME: Final = "trainingJobs/{training_job}/checkpoints/{checkpoint}"


class Jobs(Protocol):
    """Where jobs are kept."""

    def get(self, job_id: str) -> TrainingJob: ...


class CheckpointRepository(Protocol):
    """Where checkpoints are kept."""

    def add(self, checkpoint: Checkpoint, *, best: bool) -> None: ...
    def get(self, job_id: str, step: int) -> Checkpoint: ...
    def latest(self, job_id: str, before: int | None, limit: int) -> Sequence[Checkpoint]: ...


class CheckpointService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what the
    ports raise."""

    def __init__(
        self,
        jobs: Jobs,
        repository: CheckpointRepository,
        artifacts: ArtifactStore,
        exporter: CheckpointExporter,
    ) -> None:
        self._jobs = jobs
        self._repository = repository
        self._artifacts = artifacts
        self._exporter = exporter

    def list_checkpoints(self, parent: str, size: int, page_token: str) -> Page[Checkpoint]:
        """One page of a job's checkpoints, latest first."""
        job_id = parse_name("trainingJobs/{training_job}", parent, "parent")
        paging = Paging(size, page_token, method="ListCheckpoints", parent=parent)
        self._jobs.get(job_id)
        found = self._repository.latest(job_id, paging.after("step"), paging.limit + 1)
        return paging.page(found, lambda checkpoint: {"step": checkpoint.step})

    def get_checkpoint(self, name: str) -> Checkpoint:
        """One checkpoint by its resource name."""
        ids = parse_names(CHECKPOINT_NAME, name)
        step = ids["checkpoint"]
        if not (step.isascii() and step.isdigit() and len(step) < 19):
            raise NotFound(
                f"name: {name} does not exist; a checkpoint's id is the number of its step",
                reason="CHECKPOINT_NOT_FOUND",
                metadata={"name": name},
            )
        return self._repository.get(ids["training_job"], int(step))

    def export_checkpoint(self, name: str, format_: str) -> tuple[Checkpoint, Sequence[StoredFile]]:
        """A checkpoint and its files in a format; raises what `CheckpointExporter.export` raises."""
        checkpoint = self.get_checkpoint(name)
        known = get_args(ExportFormat)
        if format_ not in known:
            description = f"{format_} is no format; one of {', '.join(known)} would be right"
            raise InvalidArgument.of_field("format", description, reason="EXPORT_FORMAT_UNKNOWN")
        return checkpoint, self._exporter.export(checkpoint, cast("ExportFormat", format_))

    def read_file(
        self, name: str, path: str, offset: int, format_: str = ""
    ) -> tuple[StoredFile, Iterator[bytes]]:
        """A file of a checkpoint, as it was saved or in a format, and its bytes from ``offset`` on."""
        if format_:
            files: Sequence[StoredFile] = self.export_checkpoint(name, format_)[1]
        else:
            checkpoint = self.get_checkpoint(name)
            files = [*checkpoint.files, checkpoint.manifest_file]
        file = next((file for file in files if file.path == path), None)
        if file is None:
            known = ", ".join(file.path for file in files)
            raise NotFound(
                f"path: {name} has no file {path[:120]!r}; it has {known}",
                reason="CHECKPOINT_FILE_NOT_FOUND",
                metadata={"name": name, "path": path},
            )
        if not 0 <= offset <= file.size_bytes:
            description = f"{offset} is outside the file, which has {file.size_bytes} bytes"
            raise InvalidArgument.of_field("offset", description, reason="OFFSET_INVALID")
        return file, self._artifacts.iter_chunks(file.digest, offset)


def checkpoint_name(job_id: str, step: int) -> str:
    """The resource name of a checkpoint."""
    return f"trainingJobs/{job_id}/checkpoints/{step}"
