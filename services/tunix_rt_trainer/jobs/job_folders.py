"""The folder of a job's child process: its data, its events, and the checkpoints that it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.artifacts.store import storage_errors
from tunix_rt_kit.jobs import WorkerProcess
from tunix_rt_kit.jobs.child_jobs import Launcher, event_fields
from tunix_rt_kit.jobs.environment import Group, passed_on
from tunix_rt_kit.models.pull import pulling_environment
from tunix_rt_trainer.jobs.model import (
    JobLine,
    MetricsSink,
    QueuedJob,
    StepMetrics,
    WorkerSpec,
    job_name,
)

WORKER_MODULE: Final = "tunix_rt_trainer.worker"
_STATES: Final = "states"
_TRAIN_FILE: Final = "data/train.jsonl"
_VALIDATION_FILE: Final = "data/validation.jsonl"


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

    def discard_states(self, job_id: str) -> None:
        """Remove what a job would resume from; it has succeeded."""
        shutil.rmtree(self.path(job_id) / _STATES, ignore_errors=True)

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
