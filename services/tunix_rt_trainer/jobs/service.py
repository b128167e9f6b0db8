"""What the trainer does with training jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.errors import FailedPrecondition, NotFound, Unavailable, check_ended, check_living
from tunix_rt_kit.jobs.child_jobs import ChildJobStore
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.models.runtime import fast_dtype, on_gpu
from tunix_rt_kit.serving.requests import (
    checked_labels,
    listed,
    new_id,
    parse_name,
)
from tunix_rt_kit.values import (
    NO_LABELS,
    JobError,
    JobState,
    ListAsked,
    Order,
    Page,
    Position,
    RequestKey,
    StoredFile,
)
from tunix_rt_trainer.base_models import BaseModelService, BaseModelSummary
from tunix_rt_trainer.jobs.admission import (
    check_model,
    check_rows,
    check_validation,
    check_warmup,
    checked_spec,
    training_input,
)
from tunix_rt_trainer.jobs.model import (
    DatasetInput,
    JobLine,
    QueuedJob,
    SplitFindings,
    TrainingAttempt,
    TrainingInput,
    TrainingJob,
    TrainingJobFilter,
    TrainingPlan,
    TrainingSpec,
    TrainingSpeed,
    job_name,
)
from tunix_rt_trainer.jobs.plan import planned

JOB_NAME: Final = "trainingJobs/{training_job}"


class JobRepository(ChildJobStore, Protocol):
    """Where jobs are kept."""

    def requested(self, request: RequestKey) -> str | None: ...
    def create(self, job: TrainingJob, inputs: TrainingInput, request: RequestKey) -> str: ...
    def get(self, job_id: str) -> TrainingJob: ...
    def queued(self, job_id: str) -> QueuedJob: ...
    def page(
        self, wanted: TrainingJobFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[TrainingJob, Position]]: ...
    def set_labels(self, job_id: str, labels: Mapping[str, Any]) -> None: ...
    def delete(self, job_id: str) -> bool: ...
    def change_state(
        self,
        job_id: str,
        expected: Sequence[JobState],
        state: JobState,
        *,
        attempts: Sequence[TrainingAttempt] = (),
        error: JobError | None = None,
    ) -> bool: ...


class Datasets(Protocol):
    """The exporter's datasets."""

    def get(self, name: str) -> DatasetInput:
        """One dataset; raises NotFound, and Unavailable if the exporter cannot be reached."""

    def audit(
        self, name: str, base_model: str, tokenizer: StoredFile, max_length: int
    ) -> Mapping[str, SplitFindings]:
        """What an audit tells of each split; raises DomainError."""


class JobLines(Protocol):
    """The metrics and log lines of a job, as they grow."""

    def read(self) -> Sequence[JobLine]:
        """The lines that came since the last call; the first call gives all."""


class JobService:
    """The use cases. Every method raises InvalidArgument that names each wrong field, NotFound, and what the
    ports raise."""

    def __init__(
        self,
        repository: JobRepository,
        datasets: Datasets,
        models: BaseModelService,
        engine: JobEngine,
        lines: Callable[[str], JobLines],
        discard: Callable[[str], None],
        measured: Callable[[TrainingSpec], TrainingSpeed],
    ) -> None:
        self._repository = repository
        self._datasets = datasets
        self._models = models
        self._engine = engine
        self._lines = lines
        self._discard = discard
        self._measured = measured

    def create_job(
        self, asked: Mapping[str, Any], request_id: str, labels: Mapping[str, Any] = NO_LABELS
    ) -> TrainingJob:
        """Put a job into the queue, once for each request id."""
        spec, labels = checked_spec(asked), checked_labels(labels)
        body = spec.model_dump(mode="json")
        # A type that was left out was bfloat16 before hosts chose it.
        earlier = body | {"dtype": "bfloat16"} if spec.dtype == "auto" else body
        request = RequestKey(
            "CreateTrainingJob",
            request_id,
            digest_json({"spec": body, **labels}),
            "" if labels else digest_json(earlier),
        )
        known = self._repository.requested(request) if request_id else None
        if known is not None:
            return self._repository.get(known)
        inputs = self._admit(spec, self._models.resolve(spec.base_model))[0]
        job = TrainingJob(
            id=new_id(),
            spec=spec,
            state=JobState.QUEUED,
            dataset_digest=inputs.dataset_digest,
            chat_template_digest=inputs.chat_template_digest,
            create_time=datetime.now(UTC),
            **labels,
        )
        stored = self._repository.create(job, inputs, request)
        if stored == job.id:
            self._check_still_there(spec.dataset, stored)
        self._engine.wake()
        return self._repository.get(stored)

    def _check_still_there(self, dataset: str, job_id: str) -> None:
        """Withdraw a job whose dataset was deleted while it was looked at: from now on, whoever deletes it
        finds the job."""
        try:
            self._datasets.get(dataset)
        except NotFound:
            self._engine.ask_to_cancel(job_id, self._repository)
            raise
        except Unavailable:
            # It was there a moment ago; the job has what it needs.
            return

    def plan_job(self, asked: Mapping[str, Any]) -> TrainingPlan:
        """What a job would do. The spec is checked as `create_job` checks it.

        Raises FailedPrecondition: BASE_MODEL_NOT_PULLED, there is no tokenizer on the host to count with.
        """
        spec = checked_spec(asked)
        if spec.dtype == "auto":
            # The job's child decides by the device that it finds, which takes a model library to look at.
            likely = fast_dtype("gpu" if on_gpu() else "cpu")
            spec = spec.model_copy(update={"dtype": likely})
        model = self._here(spec, "its tokens cannot be counted")
        findings = self._admit(spec, model)[1]
        return planned(spec, self._models.shape(model), findings)

    def measure(self, asked: Mapping[str, Any]) -> TrainingSpeed:
        """How fast this host takes the steps of a spec, whose dataset is not looked at.

        Raises FailedPrecondition: BASE_MODEL_NOT_PULLED; and what the measuring process fails for.
        """
        spec = checked_spec(asked)
        check_model(spec, self._here(spec, "nothing can be measured"))
        speed = self._measured(spec)
        running = any(state is JobState.RUNNING for _, state in self._repository.unfinished())
        return speed.model_copy(update={"busy": running})

    def _here(self, spec: TrainingSpec, otherwise: str) -> BaseModelSummary:
        model = self._models.resolve(spec.base_model)
        if model.tokenizer_file is None:
            raise FailedPrecondition(
                f"spec.base_model: {model.id} is not on the trainer's host yet, so {otherwise}; fetch it "
                f"first: tunix-rt models pull {model.id}",
                reason="BASE_MODEL_NOT_PULLED",
                metadata={"base_model": model.id},
            )
        return model

    def _admit(
        self, spec: TrainingSpec, model: BaseModelSummary
    ) -> tuple[TrainingInput, Mapping[str, SplitFindings]]:
        check_model(spec, model)
        inputs = training_input(self._datasets.get(spec.dataset))
        check_validation(spec, inputs)
        self._models.check_template(model, inputs.turn_markers)
        if model.tokenizer_file is None:
            # A model that is not on the host yet has no tokenizer to count with: then the worker checks.
            return inputs, {}
        findings = self._datasets.audit(spec.dataset, model.id, model.tokenizer_file, spec.max_length)
        check_rows(spec, inputs, findings)
        check_warmup(spec, findings)
        return inputs, findings

    def get_job(self, name: str) -> TrainingJob:
        """One job by its resource name."""
        return self._repository.get(parse_name(JOB_NAME, name))

    def list_jobs(self, asked: ListAsked) -> Page[TrainingJob]:
        """One page of those that are wanted, the newest first unless another order is asked for."""
        return listed("ListTrainingJobs", TrainingJobFilter, asked, self._repository.page)

    def update_job(self, name: str, labels: Mapping[str, Any]) -> TrainingJob:
        """Change what people call a job: those of its labels that are given."""
        job_id = parse_name(JOB_NAME, name, "training_job.name")
        self._repository.set_labels(job_id, checked_labels(labels, "training_job"))
        return self._repository.get(job_id)

    def cancel_job(self, name: str) -> TrainingJob:
        """Ask a job to stop at its next step; asked again, it is ended at once. An ended job stays."""
        job_id = parse_name(JOB_NAME, name)
        self._repository.get(job_id)
        self._engine.ask_to_cancel(job_id, self._repository)
        return self._repository.get(job_id)

    def delete_job(self, name: str) -> TrainingJob:
        """Delete a job that has ended, with its checkpoints and all its files; what it was stays on record.

        Raises NotFound(TRAINING_JOB_NOT_FOUND), also if it is deleted already;
        FailedPrecondition(TRAINING_JOB_RUNNING).
        """
        job_id = parse_name(JOB_NAME, name)
        # Again if somebody resumed it, or deleted it, in between.
        while True:
            job = self._living(job_id)
            check_ended(job_name(job_id), "TRAINING_JOB", job.state, f"tunix-rt train cancel {job_id}")
            if self._repository.delete(job_id):
                self._discard(job_id)
                return self._repository.get(job_id)

    def _living(self, job_id: str) -> TrainingJob:
        job = self._repository.get(job_id)
        check_living(job_name(job_id), "TRAINING_JOB", job.delete_time)
        return job

    def resume_job(self, name: str) -> TrainingJob:
        """Put a failed or cancelled job into the queue again, to resume from its latest checkpoint. A job
        that is queued or runs stays as it is.

        Raises FailedPrecondition: TRAINING_JOB_SUCCEEDED, there is nothing left to do; TRAINING_JOB_STOPPING,
        its cancellation is not done yet.
        """
        job_id = parse_name(JOB_NAME, name)
        job = self._living(job_id)
        refusals = {
            JobState.SUCCEEDED: ("TRAINING_JOB_SUCCEEDED", "has succeeded; there is nothing to go on with"),
            JobState.CANCELLING: ("TRAINING_JOB_STOPPING", "is still being cancelled; ask again when it is"),
        }
        if job.state in refusals:
            reason, problem = refusals[job.state]
            raise FailedPrecondition(f"name: {name} {problem}", reason=reason, metadata={"name": name})
        ended = [JobState.FAILED, JobState.CANCELLED]
        if self._repository.change_state(job_id, ended, JobState.QUEUED):
            self._engine.wake()
        # It may have been deleted in between.
        return self._living(job_id)

    def lines(self, name: str) -> JobLines:
        """The metrics and log lines of a job."""
        return self._lines(self.get_job(name).id)
