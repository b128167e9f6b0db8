"""Checkpoints in other layouts: an adapter for `peft`, a whole model for `transformers`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.artifacts.store import storage_error
from tunix_rt_kit.callers import check, ended_by_leaving, holding
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs.environment import passed_on
from tunix_rt_kit.values import ChatTemplateFields, StoredFile
from tunix_rt_trainer.base_models.model import BaseModelSummary
from tunix_rt_trainer.checkpoints.model import Checkpoint, ExportFormat
from tunix_rt_trainer.jobs.job_folders import is_weights


class Exports(Protocol):
    """Where it is kept what was exported."""

    def export(self, job_id: str, step: int, format_: ExportFormat) -> Sequence[StoredFile] | None: ...
    def add_export(
        self, job_id: str, step: int, format_: ExportFormat, files: Sequence[StoredFile]
    ) -> None: ...


class Models(Protocol):
    """The base models on this host."""

    def resolve(self, base_model: str) -> BaseModelSummary: ...


class CheckpointExporter:
    """Makes the files of a checkpoint in a format, once.

    Args:
        exports: remembers what was made.
        artifacts: where checkpoints are and exports go.
        models: for the base weights.
        work_dir: for folders that are thrown away; as large as a model.
    """

    def __init__(self, exports: Exports, artifacts: ArtifactStore, models: Models, work_dir: Path) -> None:
        self._exports = exports
        self._artifacts = artifacts
        self._models = models
        self._work_dir = work_dir
        # A model's weights go through memory shard by shard: one export at a time.
        self._lock = threading.Lock()

    def export(self, checkpoint: Checkpoint, format_: ExportFormat) -> Sequence[StoredFile]:
        """The files, by path.

        Raises:
            FailedPrecondition: EXPORT_FORMAT_UNSUITABLE, a checkpoint of all weights has no adapter;
                BASE_MODEL_CHANGED, the base weights are not those that were trained on.
            NotFound: BASE_MODEL_UNKNOWN, they are not on the host any more.
            DomainError: a file cannot be read or written.
        """
        if format_ == "peft":
            return self._adapter(checkpoint)
        with holding(self._lock):
            known = self._exports.export(checkpoint.job_id, checkpoint.step, format_)
            if known is not None and all(self._artifacts.exists(file.digest) for file in known):
                return known
            files = self._whole_model(checkpoint)
            self._exports.add_export(checkpoint.job_id, checkpoint.step, format_, files)
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
        try:
            self._work_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._work_dir) as work:
                adapter, out = Path(work) / "adapter", Path(work) / "model"
                for file in self._adapter(checkpoint):
                    self._artifacts.copy_to(file.digest, adapter / file.path)
                _merge(base, adapter, out, checkpoint.chat_template)
                return [self._stored(path) for path in sorted(out.iterdir())]
        except OSError as error:
            raise storage_error(error, str(self._work_dir)) from error

    def _base_folder(self, checkpoint: Checkpoint) -> Path:
        manifest = checkpoint.manifest
        model = self._models.resolve(manifest.spec.base_model)
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
