# Generated from aio/jobs.py by `make proto`: change that one.
"""Waiting for long work: a dataset build, a training job, an evaluation.

Each function watches the job, resumes the watch when the connection breaks or the server restarts, and
returns the resource once it has succeeded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

from tunix_rt import v1
from tunix_rt.client import Client, check_kind
from tunix_rt.errors import JobFailedError, UnavailableError
from tunix_rt.rpc.caller import facts_of_status, patient

Job: TypeAlias = v1.Dataset | v1.TrainingJob | v1.Evaluation

T = TypeVar("T")

# Seconds without an answer after which a server counts as gone.
PATIENCE: Final = 60.0


def has_ended(job: Job) -> bool:
    """Whether nothing more can happen to the job."""
    return _state(job) in ("STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED")


def has_succeeded(job: Job) -> bool:
    """Whether the job ended well."""
    return _state(job) == "STATE_SUCCEEDED"


def check_succeeded(job: Job) -> None:
    """Raise JobFailedError if the job ended FAILED or CANCELLED."""
    state = _state(job)
    if state == "STATE_FAILED":
        raise JobFailedError(
            f"{job.name} failed: {job.error.message}", resource=job, **facts_of_status(job.error)
        )
    if state == "STATE_CANCELLED":
        raise JobFailedError(
            f"{job.name} was cancelled", resource=job, code="CANCELLED", reason="JOB_CANCELLED"
        )


def wait_for_dataset(
    client: Client, name: str, on_update: Callable[[v1.Dataset], None] | None = None
) -> v1.Dataset:
    """Wait until the build of the dataset ``name`` has ended, and return the dataset.

    Args:
        client: where it is built.
        name: ``datasets/{dataset_id}@{version}``.
        on_update: called with the dataset's present state, and after each change.

    Raises:
        JobFailedError: the build failed or was cancelled.
        NotFoundError: there is no such dataset.
        UnavailableError: the server was away for more than a minute.
    """
    check_kind(client, wait_for_dataset)
    last = v1.Dataset()
    with patient(PATIENCE):
        for last in _watched(lambda: client.exporter.watch_dataset(name), has_ended):
            if on_update is not None:
                on_update(last)
    check_succeeded(last)
    return last


def wait_for_training_job(
    client: Client, name: str, on_event: Callable[[v1.WatchTrainingJobResponse], None] | None = None
) -> v1.TrainingJob:
    """Wait until the training job ``name`` has ended, and return it.

    Args:
        client: where it runs.
        name: ``trainingJobs/{training_job}``.
        on_event: called with each event: the job's state, metrics of a step, a log line. Metrics and log
            lines come once each, even if the watch has to be resumed.

    Raises:
        JobFailedError: the job failed or was cancelled.
        NotFoundError: there is no such job.
        UnavailableError: the server was away for more than a minute.
    """
    check_kind(client, wait_for_training_job)
    job = v1.TrainingJob()
    seen = 0

    def ended(event: v1.WatchTrainingJobResponse) -> bool:
        return event.WhichOneof("part") == "training_job" and has_ended(event.training_job)

    def open_watch() -> Iterator[v1.WatchTrainingJobResponse]:
        return client.trainer.watch_training_job(name, after_event=seen)

    with patient(PATIENCE):
        for event in _watched(open_watch, ended):
            if event.WhichOneof("part") == "training_job":
                job = event.training_job
            else:
                seen = max(seen, event.event)
            if on_event is not None:
                on_event(event)
    check_succeeded(job)
    return job


def wait_for_evaluation(
    client: Client, name: str, on_update: Callable[[v1.Evaluation], None] | None = None
) -> v1.Evaluation:
    """Wait until the evaluation ``name`` has ended, and return it; the rest as ``wait_for_dataset``."""
    check_kind(client, wait_for_evaluation)
    last = v1.Evaluation()
    with patient(PATIENCE):
        for last in _watched(lambda: client.evaluator.watch_evaluation(name), has_ended):
            if on_update is not None:
                on_update(last)
    check_succeeded(last)
    return last


def _state(job: Job) -> str:
    states: Any = type(job).State
    return str(states.Name(job.state))


def _watched(open_watch: Callable[[], Iterator[T]], ended: Callable[[T], bool]) -> Iterator[T]:
    """Yield what a watch yields up to the end of the job, however often the watch itself ends before."""
    away_since, pause = 0.0, 0.1
    while True:
        try:
            for update in open_watch():
                yield update
                if ended(update):
                    return
                away_since, pause = 0.0, 0.1
        except UnavailableError:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 2.0)
