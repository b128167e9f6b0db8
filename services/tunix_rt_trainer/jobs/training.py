"""Training as a kind of job: a child process trains in a folder of its own, and what it tells is stored."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.artifacts import ArtifactStore, storage_errors
from tunix_rt_kit.jobs.child_jobs import (
    Attempt,
    AttemptFacts,
    ChildJobs,
    Launcher,
    end_left_behind,
    event_fields,
)
from tunix_rt_kit.jobs.engine import LIVE
from tunix_rt_kit.jobs.files import Group, passed_on
from tunix_rt_kit.jobs.process import WorkerProcess, told_once
from tunix_rt_kit.jobs.run import Run
from tunix_rt_kit.models.pull import pulling_environment
from tunix_rt_kit.models.runtime import OUT_OF_MEMORY
from tunix_rt_kit.values import JobError, JobState
from tunix_rt_trainer.checkpoints.service import CheckpointService
from tunix_rt_trainer.jobs.admission import advice, rows_at_a_time
from tunix_rt_trainer.jobs.model import (
    JobLine,
    JobUpdate,
    MetricsSink,
    QueuedJob,
    StepMetrics,
    TrainingAttempt,
    TrainingJob,
    TrainingSpec,
    TrainingSpeed,
    WorkerSpec,
    job_name,
)
from tunix_rt_trainer.jobs.service import JobRepository

WORKER_MODULE: Final = "tunix_rt_trainer.worker"
_STATES: Final = "states"
_TRAIN_FILE: Final = "data/train.jsonl"
_VALIDATION_FILE: Final = "data/validation.jsonl"
_COUNTERS: Final = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True)
class WrittenCheckpoint:
    """A checkpoint that lies in ``folder`` (relative to the job's); ``best`` so far by validation loss, where
    that is asked for."""

    step: int
    folder: str
    best: bool = False


@dataclass
class TrainingFacts(AttemptFacts):
    """What a training process told.

    ``filled_in`` holds the fields of the spec that it chose, ``resumed_from_step`` is None until it has told
    that. ``new_checkpoints`` holds those that nobody has taken yet.
    """

    latest_metrics: StepMetrics | None = None
    filled_in: Mapping[str, Any] = field(default_factory=dict)
    resumed_from_step: int | None = None
    new_checkpoints: list[WrittenCheckpoint] = field(default_factory=list)

    def take_own(self, kind: str, fields: Mapping[str, Any], *, current: bool) -> None:
        if not current:
            return
        if kind == "metrics":
            self.latest_metrics = StepMetrics.model_validate(fields)
        elif kind == "plan":
            self.filled_in = fields
        elif kind == "checkpoint":
            self.new_checkpoints.append(WrittenCheckpoint(**fields))
        elif kind == "resumed":
            self.resumed_from_step = fields["step"]


class Training(ChildJobs[TrainingFacts]):
    """Training jobs.

    Args:
        store: where they are kept.
        checkpoints: takes what they leave.
        folders: of their child processes.
        slots: how many run at once.
    """

    name = "training"
    unexpected = JobError(
        code="INTERNAL", reason="TRAINER_FAILED", message="the trainer failed; its log says why"
    )
    # The rest of the time is for storing what the child told.
    saving_share = 0.7
    store: JobRepository

    def __init__(
        self, store: JobRepository, checkpoints: CheckpointService, folders: JobFolders, slots: int
    ) -> None:
        super().__init__(store, slots)
        self.checkpoints = checkpoints
        self.folders = folders

    def launcher(self, job_id: str) -> Launcher:
        return self.folders.process(job_id, self.store.get(job_id).spec.base_model)

    def open(self, run: Run, child: Launcher) -> FollowedTraining:
        return FollowedTraining(self, run, child, self.store.queued(run.job_id))

    def end_left_behind(self) -> None:
        """End the children of attempts that nobody follows any more: their jobs ended, or went on with
        another server, while there was none here."""
        end_left_behind(self.folders.root, WORKER_MODULE, self.store.get)


class FollowedTraining(Attempt[TrainingFacts]):
    """Follows ``child``, which does the job ``queued`` of ``kind`` in its present attempt."""

    what = "training process"

    def __init__(self, kind: Training, run: Run, child: Launcher, queued: QueuedJob) -> None:
        job = queued.job
        super().__init__(kind.store, run, child, job.state, TrainingFacts(job.attempt_count))
        self._kind = kind
        self._queued = queued
        self._killed_before = processes_killed_for_memory()

    def start(self) -> FollowedTraining | None:
        job = self._job
        number = job.attempt_count + 1
        attempts = (*job.attempts, TrainingAttempt(number=number, start_time=datetime.now(UTC)))
        change = self._kind.store.change_state
        if not change(job.id, [JobState.QUEUED], JobState.RUNNING, attempts=attempts):
            return None
        started = job.model_copy(
            update={"attempt_count": number, "attempts": attempts, "state": JobState.RUNNING}
        )
        queued = QueuedJob(started, self._queued.inputs)
        self._kind.folders.start(self.child, queued, self.run.confirm)
        return FollowedTraining(self._kind, self.run, self.child, queued)

    @property
    def step(self) -> int:
        """The last step that the child told of, in this attempt or before the one that it resumed from."""
        metrics = self.facts.latest_metrics
        return (self.facts.resumed_from_step or 0) if metrics is None else metrics.step

    @property
    def may_go_on(self) -> bool:
        return not self._killed_for_memory

    def collect(self) -> bool:
        if self.child.poll() is None:
            # What the system killed while this child lived was another process.
            self._killed_before = processes_killed_for_memory()
        more = super().collect()
        job, waiting = self._job, self.facts.new_checkpoints
        while waiting:
            written = waiting[0]
            self._kind.checkpoints.add(
                self._kind.folders.path(job.id) / written.folder,
                job.id,
                written.step,
                self._queued.inputs.chat_template,
                best=written.best,
                since=job.attempts[-1].start_time if job.attempts else None,
            )
            waiting.pop(0)
        return more

    def update(self) -> JobUpdate:
        facts, job = self.facts, self._job
        filled_in = job.spec.model_copy(update=facts.filled_in)
        attempts, step = job.attempts, facts.resumed_from_step
        if step is None or not attempts:
            attempts = ()
        else:
            attempts = (*attempts[:-1], attempts[-1].model_copy(update={"resumed_from_step": step}))
        # Until its first step, the metrics are those of the attempt that it resumed.
        before_first_step = facts.latest_metrics is None and facts.resumed_from_step
        return JobUpdate(
            progress=facts.progress,
            latest_metrics=job.latest_metrics if before_first_step else facts.latest_metrics,
            stage_timings=facts.stage_timings,
            spec=None if filled_in == job.spec else filled_in,
            attempts=attempts,
        )

    def succeed(self) -> None:
        self._kind.store.change_state(self._job.id, LIVE, JobState.SUCCEEDED)
        self._kind.folders.discard_states(self._job.id)

    def error(self, code: int | None, deaths: int) -> JobError:
        if self.facts.error is None and self._killed_for_memory:
            spec = self._job.spec
            return JobError(
                code="RESOURCE_EXHAUSTED",
                reason=OUT_OF_MEMORY,
                message="the system ran out of memory and killed the training process, which computed "
                f"{rows_at_a_time(spec)}; {advice(spec)}",
            )
        return super().error(code, deaths)

    @property
    def _job(self) -> TrainingJob:
        """The job, as it was when it was taken up."""
        return self._queued.job

    @property
    def _killed_for_memory(self) -> bool:
        """Whether it was the system that killed the child, because memory ran out."""
        before, now = self._killed_before, processes_killed_for_memory()
        more = before is not None and now is not None and now > before
        return more and not self.killed_here and self.child.poll() == -signal.SIGKILL


class JobFolders:
    """The folders of all jobs, ``<root>/<job id>``.

    Args:
        root: made when the first job needs it.
        artifacts: where data comes from.
        models_dir: folder of the base models.
        cache_dir: folder of what jobs share.
        environment: added to a child's environment.
        code_revision: for manifests.
        metrics_to: where metrics go beside the events.
    """

    def __init__(
        self,
        root: Path,
        artifacts: ArtifactStore,
        *,
        models_dir: Path,
        cache_dir: Path,
        environment: Mapping[str, str],
        code_revision: str,
        metrics_to: tuple[MetricsSink, ...] = (),
    ) -> None:
        self.root = root
        self._artifacts = artifacts
        self._models_dir = models_dir
        self._cache_dir = cache_dir
        # The libraries of these services have settings, keys and proxies of their own.
        groups: list[Group] = [name for name in ("mlflow", "wandb") if name in metrics_to]
        self._environment = {**environment, **(passed_on("network", *groups) if groups else {})}
        self._code_revision = code_revision
        self._metrics_to = metrics_to

    def path(self, job_id: str) -> Path:
        """The folder of a job."""
        return self.root / job_id

    def process(self, job_id: str, base_model: str = "") -> WorkerProcess:
        """The child of a job, not started; it may pull ``base_model``, should that not be here."""
        environment = self._environment | pulling_environment(self._models_dir, base_model)
        return WorkerProcess(WORKER_MODULE, self.path(job_id), env=environment)

    def start(self, child: Launcher, queued: QueuedJob, confirm: Callable[[], None]) -> None:
        """Put a job's data into its folder and start its child, unless ``confirm`` raises before.

        Raises:
            DataLoss: a file of the dataset is missing or damaged.
            ResourceExhausted, FailedPrecondition: the folder cannot be written.
        """
        job, inputs = queued.job, queued.inputs
        folder = self.path(job.id)
        self._artifacts.copy_to(inputs.train.digest, folder / _TRAIN_FILE)
        if inputs.validation is not None:
            self._artifacts.copy_to(inputs.validation.digest, folder / _VALIDATION_FILE)
        spec = WorkerSpec(
            job_name=job_name(job.id),
            spec=job.spec,
            inputs=inputs,
            attempt=job.attempt_count,
            models_dir=str(self._models_dir),
            train_file=_TRAIN_FILE,
            validation_file=_VALIDATION_FILE if inputs.validation is not None else None,
            code_revision=self._code_revision,
            metrics_to=self._metrics_to,
            cache_dir=str(self._cache_dir),
        )
        # To copy the data may have taken long.
        confirm()
        with storage_errors(str(folder)):
            child.start(spec.model_dump(mode="json"))

    def measure(self, spec: TrainingSpec) -> TrainingSpeed:
        """How fast this host trains, by a child process that leaves nothing behind.

        Raises DomainError for what it fails for. It ends with its caller, and after ten minutes.
        """
        fields = {"measure": True, "spec": spec.model_dump(mode="json"), "models_dir": str(self._models_dir)}
        told = told_once(WORKER_MODULE, self._cache_dir, fields, "speed", self._environment)
        return TrainingSpeed.model_validate(told)

    def discard_states(self, job_id: str) -> None:
        """Remove what a job would resume from; it has succeeded."""
        shutil.rmtree(self.path(job_id) / _STATES, ignore_errors=True)

    def discard(self, job_id: str) -> None:
        """Remove all that a job left in its folder; it was deleted."""
        shutil.rmtree(self.path(job_id), ignore_errors=True)

    def discard_checkpoint(self, job_id: str, step: int) -> None:
        """Remove the files of one checkpoint from a job's folder; it was deleted."""
        shutil.rmtree(self.path(job_id) / "checkpoints" / str(step), ignore_errors=True)

    def lines(self, job_id: str) -> FolderLines:
        """Reads on in the metrics and log lines of a job."""
        return FolderLines(self.process(job_id))


class FolderLines:
    """Metrics and log lines of one job, read from its events as they grow."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._events = 0
        self._lines = 0

    def read(self) -> Sequence[JobLine]:
        """The lines that came since the last call; the first call gives all."""
        events: list[dict[str, Any]] = self._process.events(self._events)
        lines = numbered_lines(events, self._lines)
        self._events += len(events)
        self._lines += len(lines)
        return lines


def numbered_lines(events: Iterable[Mapping[str, Any]], after: int) -> list[JobLine]:
    """The metrics, log lines and checkpoints among events, numbered on from ``after``; attempts are numbered
    as one."""
    lines: list[JobLine] = []
    for event in events:
        number = after + len(lines) + 1
        if event["kind"] == "metrics":
            lines.append(JobLine(number=number, metrics=StepMetrics.model_validate(event_fields(event))))
        elif event["kind"] == "log":
            lines.append(JobLine(number=number, log_line=event["line"]))
        elif event["kind"] == "checkpoint":
            lines.append(JobLine(number=number, checkpoint_step=event["step"]))
    return lines


def processes_killed_for_memory() -> int | None:
    """How many processes the system has killed since its start because memory ran out; None if unknown."""
    try:
        lines = _COUNTERS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
