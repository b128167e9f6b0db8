"""Base models, training jobs and checkpoints between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tunix_rt import v1
from tunix_rt_kit.convert import from_message, template_message, to_message
from tunix_rt_kit.values import StoredFile
from tunix_rt_trainer.base_models import BaseModelSummary
from tunix_rt_trainer.checkpoints.model import Checkpoint, checkpoint_name
from tunix_rt_trainer.jobs.model import JobLine, TrainingJob, TrainingPlan, TrainingSpec, TrainingSpeed


def asked(spec: v1.TrainingSpec) -> dict[str, Any]:
    """The fields of a spec that a client set, unchecked."""
    fields = from_message(spec, TrainingSpec)
    if spec.HasField("tokens_per_batch"):
        fields["tokens_per_batch"] = spec.tokens_per_batch
    return fields


def job_message(job: TrainingJob) -> v1.TrainingJob:
    """A training job."""
    latest, best = job.checkpoint_step, job.best_checkpoint_step
    return to_message(
        job,
        v1.TrainingJob,
        name=f"trainingJobs/{job.id}",
        spec=spec_message(job.spec),
        checkpoint=None if latest is None else checkpoint_name(job.id, latest),
        best_checkpoint=None if best is None else checkpoint_name(job.id, best),
    )


def plan_message(plan: TrainingPlan) -> v1.TrainingPlan:
    """What a job would do."""
    return to_message(plan, v1.TrainingPlan, spec=spec_message(plan.spec))


def speed_message(speed: TrainingSpeed) -> v1.TrainingSpeed:
    """How fast this host trains."""
    return to_message(speed, v1.TrainingSpeed)


def watch_state(job: TrainingJob, event: int) -> v1.WatchTrainingJobResponse:
    """A job's state in a watch; ``event`` is the number of the latest line that was sent before it."""
    return v1.WatchTrainingJobResponse(event=event, training_job=job_message(job))


def watch_line(line: JobLine) -> v1.WatchTrainingJobResponse:
    """Metrics, a log line or a checkpoint in a watch."""
    if line.metrics is not None:
        return v1.WatchTrainingJobResponse(
            event=line.number, metrics=to_message(line.metrics, v1.TrainingMetrics)
        )
    if line.checkpoint_step is not None:
        return v1.WatchTrainingJobResponse(event=line.number, checkpoint_step=line.checkpoint_step)
    return v1.WatchTrainingJobResponse(event=line.number, log_line=line.log_line or "")


def spec_message(spec: TrainingSpec) -> v1.TrainingSpec:
    """A spec as it can be sent back to be run again, which is refused with both epochs and steps."""
    epochs = spec.epochs if spec.max_steps is None else None
    return to_message(spec, v1.TrainingSpec, unset=["tokens_per_batch"], epochs=epochs)


_EXPORT_FORMATS: Final[Mapping[int, str]] = {
    v1.CHECKPOINT_FORMAT_UNSPECIFIED: "",
    v1.CHECKPOINT_FORMAT_PEFT: "peft",
    v1.CHECKPOINT_FORMAT_HUGGING_FACE: "hugging_face",
}
_MEDIA_TYPES: Final = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".safetensors": "application/octet-stream",
}


def checkpoint_message(checkpoint: Checkpoint) -> v1.Checkpoint:
    """A checkpoint."""
    manifest = checkpoint.manifest
    return to_message(
        checkpoint,
        v1.Checkpoint,
        name=checkpoint_name(checkpoint.job_id, checkpoint.step),
        manifest=to_message(manifest, v1.TrainingManifest, spec=spec_message(manifest.spec)),
        chat_template=template_message(checkpoint.chat_template, manifest.chat_template_digest),
    )


def export_format(format_: int) -> str:
    """A format's name, empty for none; the digits of one that the contract does not name."""
    return _EXPORT_FORMATS.get(format_, str(format_))


def export_message(
    checkpoint: Checkpoint, format_: v1.CheckpointFormat.ValueType, files: Iterable[StoredFile]
) -> v1.CheckpointExport:
    """The files of a checkpoint in a format."""
    name = checkpoint_name(checkpoint.job_id, checkpoint.step)
    return v1.CheckpointExport(
        checkpoint=name, format=format_, files=[to_message(file, v1.ArtifactFile) for file in files]
    )


def file_header(file: StoredFile) -> v1.ReadCheckpointFileResponse:
    """The first message of a download."""
    suffix = file.path[file.path.rfind(".") :]
    return v1.ReadCheckpointFileResponse(
        header=v1.DownloadHeader(
            size_bytes=file.size_bytes,
            digest=file.digest,
            media_type=_MEDIA_TYPES.get(suffix, "application/octet-stream"),
            file_name=file.path.rpartition("/")[2],
        )
    )


def base_model_message(model: BaseModelSummary) -> v1.BaseModel:
    """A base model."""
    template = model.chat_template
    return to_message(
        model,
        v1.BaseModel,
        name=f"baseModels/{model.id}",
        base_model=model.id,
        chat_template=None if template is None else template_message(template, model.chat_template_digest),
    )
