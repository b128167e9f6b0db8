"""Training jobs between the protobuf contract and the domain."""

from __future__ import annotations

from typing import Any

from tunix_rt import v1
from tunix_rt_kit.convert import from_message, to_message
from tunix_rt_trainer.checkpoints.model import checkpoint_name
from tunix_rt_trainer.jobs.model import JobLine, TrainingJob, TrainingPlan, TrainingSpec


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
