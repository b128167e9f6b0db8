"""The folder of a job's child process: its data, its events, and the checkpoints that it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.artifacts import ArtifactStore, digest_json
from tunix_rt_kit.artifacts.store import storage_error
from tunix_rt_kit.jobs import WorkerProcess
from tunix_rt_kit.jobs.child_jobs import Launcher
from tunix_rt_kit.jobs.environment import Group, passed_on
from tunix_rt_kit.jobs.events import event_fields
from tunix_rt_kit.models.pull import pulling_environment
from tunix_rt_kit.regular_files import read_bytes
from tunix_rt_kit.values import StoredFile
from tunix_rt_trainer.checkpoints.model import Checkpoint, TrainingManifest
from tunix_rt_trainer.jobs.model import JobLine, MetricsSink, QueuedJob, StepMetrics, WorkerSpec
from tunix_rt_trainer.jobs.service import job_name

WORKER_MODULE: Final = "tunix_rt_trainer.worker"
METRICS_FILE: Final = "metrics.jsonl"
LEDGER_FILE: Final = "ledger.jsonl"
MANIFEST_FILE: Final = "manifest.json"
_MAX_MANIFEST_BYTES: Final = 64 << 20
_RECORDS: Final = (METRICS_FILE, LEDGER_FILE)
_STATES: Final = "states"
_TRAIN_FILE: Final = "data/train.jsonl"
_VALIDATION_FILE: Final = "data/validation.jsonl"


class JobFolders:
    """The folders of all jobs, ``<root>/<job id>``.

    Args:
        root: made when the first job needs it.
        artifacts: where data comes from and checkpoints go.
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
        self._root = root
        self._artifacts = artifacts
        self._models_dir = models_dir
        self._cache_dir = cache_dir
        # The libraries of these services have settings, keys and proxies of their own.
        groups: list[Group] = [name for name in ("mlflow", "wandb") if name in metrics_to]
        self._environment = {**environment, **(passed_on("network", *groups) if groups else {})}
        self._code_revision = code_revision
        self._metrics_to = metrics_to

    def process(self, job_id: str) -> WorkerProcess:
        """The child of a job, not started."""
        return WorkerProcess(WORKER_MODULE, self._root / job_id, env=self._environment)

    def left(self) -> Iterator[tuple[str, int, WorkerProcess]]:
        """The children that run, whichever server follows them: job, attempt and process of each."""
        for folder in sorted(self._root.glob("*")):
            process = self.process(folder.name)
            attempt = process.found()
            if attempt is not None:
                yield folder.name, attempt, process

    def start(self, child: Launcher, queued: QueuedJob) -> None:
        """Put a job's data into its folder and start its child.

        Raises:
            DataLoss: a file of the dataset is missing or damaged.
            ResourceExhausted, FailedPrecondition: the folder cannot be written.
        """
        job, inputs = queued.job, queued.inputs
        folder = self._root / job.id
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
        try:
            child.start(
                spec.model_dump(mode="json"), env=pulling_environment(self._models_dir, job.spec.base_model)
            )
        except OSError as error:
            raise storage_error(error, str(folder)) from error

    def store_checkpoint(self, queued: QueuedJob, step: int, folder: str) -> Checkpoint:
        """Put the files of a checkpoint that a child left in ``folder`` into the artifact store.

        Its digest is that of the weight files: canonical JSON of their paths and digests.

        Raises DomainError if a file cannot be read or stored.
        """
        at = self._root / queued.job.id / folder
        try:
            found = {file.name for file in at.iterdir()} - {MANIFEST_FILE}
            paths = [*sorted(filter(is_weights, found)), *(name for name in _RECORDS if name in found)]
            files = [self._stored(at, path) for path in paths]
            manifest_file = self._stored(at, MANIFEST_FILE)
            manifest = TrainingManifest.model_validate_json(
                read_bytes(at / MANIFEST_FILE, _MAX_MANIFEST_BYTES)
            )
        except OSError as error:
            raise storage_error(error, str(at)) from error
        return Checkpoint(
            job_id=queued.job.id,
            step=step,
            digest=digest_json({file.path: file.digest for file in files if is_weights(file.path)}),
            files=tuple(files),
            manifest=manifest,
            manifest_file=manifest_file,
            chat_template=queued.inputs.chat_template,
            create_time=datetime.now(UTC),
        )

    def discard_states(self, job_id: str) -> None:
        """Remove what a job would go on from; it has succeeded."""
        shutil.rmtree(self._root / job_id / _STATES, ignore_errors=True)

    def lines(self, job_id: str) -> FolderLines:
        """Reads on in the metrics and log lines of a job."""
        return FolderLines(self.process(job_id))

    def _stored(self, folder: Path, path: str) -> StoredFile:
        artifact = self._artifacts.put_file(folder / path)
        return StoredFile(path=path, size_bytes=artifact.size, digest=artifact.digest, uri=artifact.uri)


def is_weights(path: str) -> bool:
    """Whether a file of a checkpoint belongs to its weights, not to the records of how they came about."""
    return path not in (*_RECORDS, MANIFEST_FILE)


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
