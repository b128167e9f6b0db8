"""Between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from tunix_rt import v1
from tunix_rt_kit.serving.messages import failure_status, timestamp
from tunix_rt_trainer.jobs.model import (
    BaseModelSummary,
    ChatTemplateFields,
    Checkpoint,
    CheckpointFile,
    JobLine,
    Progress,
    StepMetrics,
    TrainingJob,
    TrainingManifest,
    TrainingPlan,
    TrainingSpec,
    TrainingSpecDraft,
)

_DTYPES: Final[Mapping[int, str]] = {
    v1.DTYPE_UNSPECIFIED: "auto",
    v1.DTYPE_AUTO: "auto",
    v1.DTYPE_BFLOAT16: "bfloat16",
    v1.DTYPE_FLOAT32: "float32",
}
_METHODS: Final[Mapping[int, str]] = {
    v1.TUNING_METHOD_UNSPECIFIED: "lora",
    v1.TUNING_METHOD_LORA: "lora",
    v1.TUNING_METHOD_QLORA: "qlora",
    v1.TUNING_METHOD_FULL: "full",
}
_REMATS: Final[Mapping[int, str]] = {
    v1.REMAT_POLICY_UNSPECIFIED: "dots",
    v1.REMAT_POLICY_NONE: "none",
    v1.REMAT_POLICY_DOTS: "dots",
    v1.REMAT_POLICY_FULL: "full",
}
_SCHEDULES: Final[Mapping[int, str]] = {
    v1.LEARNING_RATE_SCHEDULE_UNSPECIFIED: "linear",
    v1.LEARNING_RATE_SCHEDULE_CONSTANT: "constant",
    v1.LEARNING_RATE_SCHEDULE_LINEAR: "linear",
    v1.LEARNING_RATE_SCHEDULE_COSINE: "cosine",
}
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


def draft(spec: v1.TrainingSpec) -> TrainingSpecDraft:
    """What a client asks for, unchecked."""
    optimizer = spec.optimizer
    return TrainingSpecDraft(
        base_model=spec.base_model,
        dataset=spec.dataset,
        target_modules=tuple(spec.lora.target_modules),
        schedule=_SCHEDULES.get(optimizer.schedule, str(optimizer.schedule)),
        dtype=_DTYPES.get(spec.dtype, str(spec.dtype)),
        seed=spec.seed,
        method=_METHODS.get(spec.method, str(spec.method)),
        remat=_REMATS.get(spec.remat, str(spec.remat)),
        has_lora=spec.HasField("lora") and spec.lora != v1.LoraConfig(),
        keep_best_checkpoint=spec.keep_best_checkpoint,
        stops_early=spec.HasField("early_stopping"),
        **_given(spec.lora, "rank", "alpha"),
        **_given(spec.early_stopping, "patience", "min_delta"),
        **_given(spec.mesh, "fsdp", "tp"),
        **_given(
            optimizer,
            "learning_rate",
            "warmup_steps",
            "weight_decay",
            "beta1",
            "beta2",
            "epsilon",
            "max_grad_norm",
        ),
        **_given(
            spec,
            "max_steps",
            "epochs",
            "rows_per_batch",
            "tokens_per_batch",
            "gradient_accumulation_steps",
            "max_length",
            "packing",
            "validation_interval_steps",
            "checkpoint_interval_steps",
        ),
    )


def base_models_response(
    models: Iterable[BaseModelSummary], next_page_token: str
) -> v1.ListBaseModelsResponse:
    """One page of base models."""
    return v1.ListBaseModelsResponse(
        base_models=[base_model_message(model) for model in models], next_page_token=next_page_token
    )


def job_message(job: TrainingJob) -> v1.TrainingJob:
    """A training job."""
    message = v1.TrainingJob(
        name=f"trainingJobs/{job.id}",
        spec=_spec(job.spec),
        state=v1.TrainingJob.State.Value(f"STATE_{job.state}"),
        dataset_digest=job.dataset_digest,
        chat_template_digest=job.chat_template_digest,
        attempt_count=job.attempt_count,
        create_time=timestamp(job.create_time),
        stage_timings=[
            v1.StageTiming(stage=timing.stage, duration=_duration(timing.duration_s))
            for timing in job.stage_timings
        ],
    )
    if job.error is not None:
        error = job.error
        message.error.CopyFrom(failure_status(error.code, error.reason, error.message, error.metadata))
    if job.progress is not None:
        message.progress.CopyFrom(_progress(job.progress))
    if job.latest_metrics is not None:
        message.latest_metrics.CopyFrom(_metrics(job.latest_metrics))
    if job.checkpoint_step is not None:
        message.checkpoint = _checkpoint_name(job.id, job.checkpoint_step)
    if job.best_checkpoint_step is not None:
        message.best_checkpoint = _checkpoint_name(job.id, job.best_checkpoint_step)
    for attempt in job.attempts:
        message.attempts.add(
            number=attempt.number,
            resumed_from_step=attempt.resumed_from_step,
            start_time=timestamp(attempt.start_time),
        )
    if job.start_time is not None:
        message.start_time.CopyFrom(timestamp(job.start_time))
    if job.end_time is not None:
        message.end_time.CopyFrom(timestamp(job.end_time))
    return message


def plan_message(plan: TrainingPlan) -> v1.TrainingPlan:
    """What a job would do."""
    return v1.TrainingPlan(**plan.model_dump(exclude={"spec"}), spec=_spec(plan.spec))


def jobs_response(jobs: Iterable[TrainingJob], next_page_token: str) -> v1.ListTrainingJobsResponse:
    """One page of jobs."""
    return v1.ListTrainingJobsResponse(
        training_jobs=[job_message(job) for job in jobs], next_page_token=next_page_token
    )


def watch_state(job: TrainingJob, event: int) -> v1.WatchTrainingJobResponse:
    """A job's state in a watch; ``event`` is the number of the latest line that was sent before it."""
    return v1.WatchTrainingJobResponse(event=event, training_job=job_message(job))


def watch_line(line: JobLine) -> v1.WatchTrainingJobResponse:
    """Metrics, a log line or a checkpoint in a watch."""
    if line.metrics is not None:
        return v1.WatchTrainingJobResponse(event=line.number, metrics=_metrics(line.metrics))
    if line.checkpoint_step is not None:
        return v1.WatchTrainingJobResponse(event=line.number, checkpoint_step=line.checkpoint_step)
    return v1.WatchTrainingJobResponse(event=line.number, log_line=line.log_line or "")


def checkpoint_message(checkpoint: Checkpoint) -> v1.Checkpoint:
    """A checkpoint."""
    return v1.Checkpoint(
        name=_checkpoint_name(checkpoint.job_id, checkpoint.step),
        step=checkpoint.step,
        digest=checkpoint.digest,
        files=[_file(file) for file in checkpoint.files],
        manifest=_manifest(checkpoint.manifest),
        manifest_file=_file(checkpoint.manifest_file),
        create_time=timestamp(checkpoint.create_time),
        chat_template=_chat_template(checkpoint.chat_template, checkpoint.manifest.chat_template_digest),
    )


def export_format(format_: int) -> str:
    """A format's name, empty for none; the digits of one that the contract does not name."""
    return _EXPORT_FORMATS.get(format_, str(format_))


def export_message(
    checkpoint: Checkpoint, format_: v1.CheckpointFormat.ValueType, files: Iterable[CheckpointFile]
) -> v1.CheckpointExport:
    """The files of a checkpoint in a format."""
    name = _checkpoint_name(checkpoint.job_id, checkpoint.step)
    return v1.CheckpointExport(checkpoint=name, format=format_, files=[_file(file) for file in files])


def checkpoints_response(
    checkpoints: Iterable[Checkpoint], next_page_token: str
) -> v1.ListCheckpointsResponse:
    """One page of checkpoints."""
    return v1.ListCheckpointsResponse(
        checkpoints=[checkpoint_message(checkpoint) for checkpoint in checkpoints],
        next_page_token=next_page_token,
    )


def file_header(file: CheckpointFile) -> v1.ReadCheckpointFileResponse:
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


def file_chunk(chunk: bytes) -> v1.ReadCheckpointFileResponse:
    """A piece of a download."""
    return v1.ReadCheckpointFileResponse(chunk=chunk)


def _given(message: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def base_model_message(model: BaseModelSummary) -> v1.BaseModel:
    """A base model."""
    message = v1.BaseModel(
        name=f"baseModels/{model.id}",
        base_model=model.id,
        available=model.available,
        family=model.family,
        parameter_count=model.parameter_count,
        context_length=model.context_length,
        license=model.license,
        weights_digest=model.weights_digest,
        tokenizer_digest=model.tokenizer_digest,
        special_tokens=model.special_tokens,
    )
    if model.tokenizer_file is not None:
        message.tokenizer_file.CopyFrom(_file(model.tokenizer_file))
    if model.chat_template is not None:
        message.chat_template.CopyFrom(_chat_template(model.chat_template, model.chat_template_digest))
    return message


def _chat_template(fields: ChatTemplateFields, digest: str) -> v1.ChatTemplate:
    return v1.ChatTemplate(**fields.model_dump(exclude_none=True), digest=digest)


def _spec(spec: TrainingSpec) -> v1.TrainingSpec:
    optimizer = spec.optimizer.model_dump(exclude={"schedule"})
    stopping = spec.early_stopping
    return v1.TrainingSpec(
        base_model=spec.base_model,
        dataset=spec.dataset,
        method=v1.TuningMethod.Value(f"TUNING_METHOD_{spec.method.upper()}"),
        lora=None if spec.lora is None else v1.LoraConfig(**spec.lora.model_dump()),
        optimizer=v1.OptimizerConfig(
            schedule=v1.LearningRateSchedule.Value(
                f"LEARNING_RATE_SCHEDULE_{spec.optimizer.schedule.upper()}"
            ),
            **optimizer,
        ),
        max_steps=spec.max_steps,
        # A spec is sent back to be run again, and would then be refused with both.
        epochs=spec.epochs if spec.max_steps is None else None,
        rows_per_batch=spec.rows_per_batch,
        gradient_accumulation_steps=spec.gradient_accumulation_steps,
        max_length=spec.max_length,
        packing=spec.packing,
        dtype=v1.Dtype.Value(f"DTYPE_{spec.dtype.upper()}"),
        remat=v1.RematPolicy.Value(f"REMAT_POLICY_{spec.remat.upper()}"),
        seed=spec.seed,
        validation_interval_steps=spec.validation_interval_steps,
        checkpoint_interval_steps=spec.checkpoint_interval_steps,
        keep_best_checkpoint=spec.keep_best_checkpoint,
        early_stopping=None if stopping is None else v1.EarlyStopping(**stopping.model_dump()),
        mesh=v1.MeshShape(**spec.mesh.model_dump()),
    )


def _progress(progress: Progress) -> v1.Progress:
    message = v1.Progress(
        stage=progress.stage, completed=progress.completed, total=progress.total, unit=progress.unit
    )
    if progress.eta_s is not None:
        message.eta.CopyFrom(_duration(progress.eta_s))
    return message


def _metrics(metrics: StepMetrics) -> v1.TrainingMetrics:
    return v1.TrainingMetrics(
        step=metrics.step,
        loss=metrics.loss,
        learning_rate=metrics.learning_rate,
        grad_norm=metrics.grad_norm,
        supervised_tokens=metrics.supervised_tokens,
        tokens=metrics.tokens,
        tokens_per_second=metrics.tokens_per_second,
        step_duration=_duration(metrics.step_duration_s),
        eta=_duration(metrics.eta_s),
        validation_loss=metrics.validation_loss,
        epoch=metrics.epoch,
        supervised_tokens_per_second=metrics.supervised_tokens_per_second,
    )


def _manifest(manifest: TrainingManifest) -> v1.TrainingManifest:
    return v1.TrainingManifest(
        **manifest.model_dump(exclude={"spec"}),
        spec=_spec(manifest.spec),
    )


def _file(file: CheckpointFile) -> v1.ArtifactFile:
    return v1.ArtifactFile(path=file.path, size_bytes=file.size_bytes, digest=file.digest, uri=file.uri)


def _checkpoint_name(job_id: str, step: int) -> str:
    return f"trainingJobs/{job_id}/checkpoints/{step}"


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
