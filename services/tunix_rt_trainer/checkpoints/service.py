"""What the trainer does with checkpoints."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, cast, get_args

from tunix_rt_kit.artifacts import ArtifactStore, storage_errors
from tunix_rt_kit.callers import check, ended_by_leaving, holding
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument, NotFound, check_ended, check_living
from tunix_rt_kit.jobs.files import passed_on
from tunix_rt_kit.regular_files import read_bytes
from tunix_rt_kit.serving.requests import listed, parse_name, parse_names
from tunix_rt_kit.values import ChatTemplateFields, ListAsked, Order, Page, Position, StoredFile
from tunix_rt_trainer.base_models import BaseModelService
from tunix_rt_trainer.checkpoints.model import (
    MANIFEST_FILE,
    RECORDS,
    Checkpoint,
    CheckpointFilter,
    ExportFormat,
    TrainingManifest,
    is_weights,
)
from tunix_rt_trainer.jobs.model import job_name
from tunix_rt_trainer.jobs.service import JobRepository

_STEP: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_ALL_JOBS: Final = "trainingJobs/-"
CHECKPOINT_NAME: Final = "trainingJobs/{training_job}/checkpoints/{checkpoint}"
_MAX_MANIFEST_BYTES: Final = 64 << 20


class CheckpointRepository(Protocol):
    """Where checkpoints and their exports are kept."""

    def add(self, checkpoint: Checkpoint, *, best: bool) -> None: ...
    def get(self, job_id: str, step: int) -> Checkpoint: ...
    def delete(self, job_id: str, step: int) -> bool: ...
    def page(
        self, job_id: str | None, wanted: CheckpointFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[Checkpoint, Position]]: ...
    def export(self, job_id: str, step: int, format_: ExportFormat) -> Sequence[StoredFile] | None: ...
    def add_export(
        self, job_id: str, step: int, format_: ExportFormat, files: Sequence[StoredFile]
    ) -> None: ...


class CheckpointService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what the
    ports raise.

    Args:
        jobs: where jobs are kept.
        repository: where checkpoints are kept.
        artifacts: where their files are kept.
        base_models: for the base weights of an export.
        work_dir: for the folders of exports, which are thrown away; as large as a model.
        discard: removes what a job's folder has of the checkpoint of a step.
    """

    def __init__(
        self,
        jobs: JobRepository,
        repository: CheckpointRepository,
        artifacts: ArtifactStore,
        base_models: BaseModelService,
        work_dir: Path,
        discard: Callable[[str, int], None],
    ) -> None:
        self._jobs = jobs
        self._repository = repository
        self._artifacts = artifacts
        self._base_models = base_models
        self._work_dir = work_dir
        self._discard = discard
        # A model's weights go through memory shard by shard: one export at a time.
        self._exporting = threading.Lock()

    def add(
        self,
        folder: Path,
        job_id: str,
        step: int,
        template: ChatTemplateFields,
        *,
        best: bool,
        since: datetime | None,
    ) -> None:
        """Keep the checkpoint that a job left in a folder, unless that was done ``since``.

        Its digest is that of the weight files: canonical JSON of their paths and digests.

        Args:
            folder: the files; they are copied into the artifact store.
            job_id: its job.
            step: after which the weights were so.
            template: the job's chat template.
            best: whether it is the best of the job so far.
            since: when the present attempt began; None to keep the checkpoint in any case.

        Raises:
            DomainError: a file cannot be read or stored.
        """
        with suppress(NotFound):
            if since is not None and self._repository.get(job_id, step).create_time >= since:
                return
        with storage_errors(str(folder)):
            found = {file.name for file in folder.iterdir()} - {MANIFEST_FILE}
            paths = [*sorted(filter(is_weights, found)), *(name for name in RECORDS if name in found)]
            files = [self._stored(folder / path) for path in paths]
            manifest_file = self._stored(folder / MANIFEST_FILE)
            manifest = TrainingManifest.model_validate_json(
                read_bytes(folder / MANIFEST_FILE, _MAX_MANIFEST_BYTES)
            )
        checkpoint = Checkpoint(
            job_id=job_id,
            step=step,
            digest=digest_json({file.path: file.digest for file in files if is_weights(file.path)}),
            files=tuple(files),
            manifest=manifest,
            manifest_file=manifest_file,
            chat_template=template,
            create_time=datetime.now(UTC),
        )
        self._repository.add(checkpoint, best=best)

    def list_checkpoints(self, parent: str, asked: ListAsked) -> Page[Checkpoint]:
        """One page of a job's checkpoints, or of those of all jobs (``trainingJobs/-``), the latest first
        unless another order is asked for."""
        job_id = None
        if parent != _ALL_JOBS:
            job_id = parse_name("trainingJobs/{training_job}", parent, "parent")
            self._jobs.get(job_id)

        def find(
            wanted: CheckpointFilter, order: Order, after: Position | None, limit: int
        ) -> Sequence[tuple[Checkpoint, Position]]:
            return self._repository.page(job_id, wanted, order, after, limit)

        return listed("ListCheckpoints", CheckpointFilter, asked, find, parent=parent)

    def get_checkpoint(self, name: str) -> Checkpoint:
        """One checkpoint by its resource name."""
        ids = parse_names(CHECKPOINT_NAME, name)
        step = ids["checkpoint"]
        # One name for each: whoever looks what uses a checkpoint compares names.
        if not _STEP.fullmatch(step):
            raise NotFound(
                f"name: {name} does not exist; a checkpoint's id is the number of its step",
                reason="CHECKPOINT_NOT_FOUND",
                metadata={"name": name},
            )
        return self._repository.get(ids["training_job"], int(step))

    def delete_checkpoint(self, name: str) -> Checkpoint:
        """Delete a checkpoint of a job that has ended, and its exports; what it was stays on record.

        Raises NotFound(CHECKPOINT_NOT_FOUND), also if it is deleted already;
        FailedPrecondition(TRAINING_JOB_RUNNING).
        """
        # Again if somebody resumed its job, or deleted it, in between.
        while True:
            checkpoint = self._living(name)
            job = self._jobs.get(checkpoint.job_id)
            check_ended(job_name(job.id), "TRAINING_JOB", job.state, f"tunix-rt train cancel {job.id}")
            if self._repository.delete(checkpoint.job_id, checkpoint.step):
                self._discard(checkpoint.job_id, checkpoint.step)
                return self.get_checkpoint(name)

    def _living(self, name: str) -> Checkpoint:
        checkpoint = self.get_checkpoint(name)
        check_living(name, "CHECKPOINT", checkpoint.delete_time)
        return checkpoint

    def export_checkpoint(self, name: str, format_: str) -> tuple[Checkpoint, Sequence[StoredFile]]:
        """A checkpoint and its files in a format, by path: an adapter for `peft`, a whole model for
        `transformers`. What is made is made once.

        Raises:
            InvalidArgument: EXPORT_FORMAT_UNKNOWN.
            FailedPrecondition: EXPORT_FORMAT_UNSUITABLE, a checkpoint of all weights has no adapter;
                BASE_MODEL_CHANGED, the base weights are not those that were trained on; EXPORT_FAILED.
            NotFound: BASE_MODEL_UNKNOWN, they are not on the host any more.
            DomainError: a file cannot be read or written.
        """
        checkpoint = self._living(name)
        known = get_args(ExportFormat)
        if format_ not in known:
            description = f"{format_} is no format; one of {', '.join(known)} would be right"
            raise InvalidArgument.of_field("format", description, reason="EXPORT_FORMAT_UNKNOWN")
        if format_ == "peft":
            return checkpoint, self._adapter(checkpoint)
        with holding(self._exporting):
            return checkpoint, self._exported(checkpoint, cast("ExportFormat", format_))

    def read_file(
        self, name: str, path: str, offset: int, format_: str = ""
    ) -> tuple[StoredFile, Iterator[bytes]]:
        """A file of a checkpoint, as it was saved or in a format, and its bytes from ``offset`` on."""
        if format_:
            files: Sequence[StoredFile] = self.export_checkpoint(name, format_)[1]
        else:
            checkpoint = self._living(name)
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

    def _exported(self, checkpoint: Checkpoint, format_: ExportFormat) -> Sequence[StoredFile]:
        made = self._repository.export(checkpoint.job_id, checkpoint.step, format_)
        if made is not None and all(self._artifacts.exists(file.digest) for file in made):
            return made
        files = self._whole_model(checkpoint)
        self._repository.add_export(checkpoint.job_id, checkpoint.step, format_, files)
        return files

    def _adapter(self, checkpoint: Checkpoint) -> Sequence[StoredFile]:
        if checkpoint.manifest.spec.lora is None:
            raise FailedPrecondition(
                f"format: trainingJobs/{checkpoint.job_id} tuned all weights, so there is no adapter; "
                "export it as a whole Hugging Face model",
                reason="EXPORT_FORMAT_UNSUITABLE",
                metadata={"format": "peft"},
            )
        return [file for file in checkpoint.files if is_weights(file.path)]

    def _whole_model(self, checkpoint: Checkpoint) -> Sequence[StoredFile]:
        if checkpoint.manifest.spec.lora is None:
            return [file for file in checkpoint.files if is_weights(file.path)]
        base = self._base_folder(checkpoint)
        with storage_errors(str(self._work_dir)):
            self._work_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._work_dir) as work:
                adapter, out = Path(work) / "adapter", Path(work) / "model"
                for file in self._adapter(checkpoint):
                    self._artifacts.copy_to(file.digest, adapter / file.path)
                _merge(base, adapter, out, checkpoint.chat_template)
                return [self._stored(path) for path in sorted(out.iterdir())]

    def _base_folder(self, checkpoint: Checkpoint) -> Path:
        manifest = checkpoint.manifest
        model = self._base_models.resolve(manifest.spec.base_model)
        if model.weights_digest != manifest.base_weights_digest:
            raise FailedPrecondition(
                f"base_model: {model.id} has weights {model.weights_digest or '(none)'} here, but the "
                f"checkpoint was trained on {manifest.base_weights_digest}; put those back",
                reason="BASE_MODEL_CHANGED",
                metadata={"base_model": model.id, "digest": manifest.base_weights_digest},
            )
        return Path(model.path)

    def _stored(self, path: Path) -> StoredFile:
        artifact = self._artifacts.put_file(path)
        return StoredFile(path=path.name, size_bytes=artifact.size, digest=artifact.digest, uri=artifact.uri)


def _merge(base: Path, adapter: Path, out: Path, template: ChatTemplateFields) -> None:
    # In a process of its own: a server holds no arrays, and what it takes is given back.
    command = [sys.executable, "-m", "tunix_rt_kit.models.export", str(base), str(adapter), str(out)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True, env=passed_on("models")
    )
    with process:
        try:
            with ended_by_leaving(process.kill):
                _, errors = process.communicate(template.model_dump_json())
                check()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise FailedPrecondition(f"the adapter cannot be merged: {last}", reason="EXPORT_FAILED")
