"""Runs queued jobs: a child process each, watched until it has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs import JobRunner, WorkerProcess
from tunix_rt_kit.jobs.runner import AWAY, AWAY_S
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobError, JobState
from tunix_rt_trainer.jobs.attempt import UNDER_WAY, Attempt
from tunix_rt_trainer.jobs.job_folders import FolderLines, JobFolders
from tunix_rt_trainer.jobs.model import TrainingAttempt
from tunix_rt_trainer.jobs.service import JobRepository, QueuedJob

T = TypeVar("T")

_log = get_logger("tunix_rt.trainer")

_POLL_S: Final = 0.1
_SHUTDOWN_S: Final = 2.0
_MOST_DEATHS: Final = 10
_HUNG_S: Final = 300.0
# Of the time to stop, what a child has to save how far it has come; the rest is for storing what it told.
_SAVING_SHARE: Final = 0.7


class Supervisor:
    """The queue of jobs, and the children of those that run."""

    def __init__(self, repository: JobRepository, folders: JobFolders, slots: int) -> None:
        self._repository = repository
        self._folders = folders
        self._slots = slots
        self._runner: JobRunner | None = None
        self._end_at_once: set[str] = set()
        self._deaths: dict[str, _Deaths] = {}
        self._saving_s = 0.0

    def start(self) -> None:
        """Take up the jobs that an earlier server did not finish, oldest first."""
        self._runner = JobRunner(self._slots, self._run, on_error=self._failed, name="training")
        for job in self._repository.unfinished():
            self._runner.submit(job.id)

    def stop(self, grace_s: float) -> None:
        """Have the children save how far they have come, end them, and put their jobs back into the queue."""
        self._saving_s = grace_s * _SAVING_SHARE
        if self._runner is not None:
            left = self._runner.stop(grace_s)
            if left:
                _log.info("jobs_left", jobs=left)

    def submit(self, job_id: str) -> None:
        """Put a job at the end of the queue. While the server stops, the next one will find it there."""
        if self._runner is not None and not self._runner.stopping.is_set():
            # A job that is resumed may not have left its slot yet.
            self._runner.submit(job_id, again=True)

    def stop_job(self, job_id: str, *, at_once: bool) -> None:
        """Ask a running job to stop at its next step, or end it at once."""
        if self._runner is None:
            return
        if at_once and job_id in self._runner.active():
            self._end_at_once.add(job_id)
        self._runner.cancel(job_id)

    def lines(self, job_id: str) -> FolderLines:
        """The metrics and log lines of a job."""
        return self._folders.lines(job_id)

    @property
    def _stopping(self) -> bool:
        return self._runner is not None and self._runner.stopping.is_set()

    def _run(self, job_id: str, cancelled: threading.Event) -> None:
        try:
            while self._attempted(job_id, cancelled) and not self._stopping:
                pass
        finally:
            self._end_at_once.discard(job_id)
            self._deaths.pop(job_id, None)

    def _attempted(self, job_id: str, cancelled: threading.Event) -> bool:
        """Make one attempt at a job, or see to the end of one; returns whether another is to follow."""
        process = self._folders.process(job_id)
        try:
            queued = self._insist(lambda: self._begin(job_id, process), cancelled)
            if queued is None:
                return False
            if queued.job.state is JobState.CANCELLING:
                cancelled.set()
            return self._watch(Attempt(self._repository, self._folders, queued, process), cancelled)
        finally:
            process.kill()

    def _begin(self, job_id: str, process: WorkerProcess) -> QueuedJob | None:
        """Start a job's child, or take over the one that an earlier server started; None if there is
        nothing to do."""
        queued = self._repository.queued(job_id)
        job, change = queued.job, self._repository.change_state
        if job.state in UNDER_WAY:
            process.adopt()
            attempt = Attempt(self._repository, self._folders, queued, process)
            if process.poll() is None or (attempt.told_its_end and not attempt.interrupted):
                return queued
            # What it told before it ended is not told again.
            attempt.collect(at_once=True)
            queued = self._repository.queued(job_id)
            job = queued.job
            if job.state is JobState.CANCELLING:
                change(job_id, [job.state], JobState.CANCELLED)
                return None
            change(job_id, [job.state], JobState.QUEUED)
        number = job.attempt_count + 1
        attempts = (*job.attempts, TrainingAttempt(number=number, start_time=datetime.now(UTC)))
        if not change(job_id, [JobState.QUEUED], JobState.RUNNING, attempts=attempts):
            return None
        started = job.model_copy(
            update={"attempt_count": number, "attempts": attempts, "state": JobState.RUNNING}
        )
        self._folders.start(process, QueuedJob(started, queued.inputs))
        return QueuedJob(started, queued.inputs)

    def _watch(self, attempt: Attempt, cancelled: threading.Event) -> bool:
        process, job_id = attempt.process, attempt.job.id
        while process.poll() is None:
            if self._stopping:
                self._save_and_end(attempt)
                return False
            if job_id in self._end_at_once:
                attempt.kill()
            elif process.silent_s() > _HUNG_S:
                _log.warning("worker_hung", job=job_id, silent_s=_HUNG_S)
                attempt.kill()
            elif cancelled.is_set():
                process.cancel()
            try:
                attempt.collect()
            except AWAY as error:
                # What a child tells waits in its folder.
                _log.warning("storage_away", job=job_id, error=str(error))
                time.sleep(AWAY_S)
            time.sleep(_POLL_S)
        return self._ended(attempt, cancelled)

    def _ended(self, attempt: Attempt, cancelled: threading.Event) -> bool:
        """Store how an attempt ended; returns whether another is to follow."""
        job_id = attempt.job.id
        self._insist(lambda: attempt.collect(at_once=True), cancelled)
        if self._insist(lambda: attempt.died, cancelled) and self._goes_on(attempt):
            return self._insist(attempt.give_back, cancelled)
        if self._insist(lambda: attempt.interrupted, cancelled):
            return self._insist(attempt.give_back, cancelled) and not self._stops_soon()
        deaths = self._deaths[job_id].in_a_row if job_id in self._deaths else 1
        self._insist(lambda: attempt.finish(deaths), cancelled)
        return False

    def _insist(self, act: Callable[[], T], cancelled: threading.Event) -> T:
        return act() if self._runner is None else self._runner.insist(act, cancelled)

    def _save_and_end(self, attempt: Attempt) -> None:
        attempt.process.cancel()
        attempt.process.wait(self._saving_s)
        attempt.process.kill()
        if attempt.told_its_end and not attempt.interrupted:
            attempt.finish()
            return
        attempt.collect(at_once=True)
        attempt.give_back()

    def _goes_on(self, attempt: Attempt) -> bool:
        """Whether a job whose child was killed is tried again: not for ever without a step forward, and not
        into the same lack of memory."""
        deaths = self._deaths.setdefault(attempt.job.id, _Deaths())
        deaths.count(attempt.step)
        _log.warning(
            "worker_died", job=attempt.job.id, step=attempt.step, deaths=deaths.in_a_row, most=_MOST_DEATHS
        )
        return deaths.in_a_row < _MOST_DEATHS and not attempt.killed_for_memory

    def _stops_soon(self) -> bool:
        """Whether the server is told to stop within moments, as when a whole machine is shut down."""
        return self._runner is not None and self._runner.stopping.wait(_SHUTDOWN_S)

    def _failed(self, job_id: str, error: Exception) -> None:
        failure = JobError(
            code="INTERNAL", reason="TRAINER_FAILED", message="the trainer failed; its log says why"
        )
        if isinstance(error, DomainError):
            failure = JobError(
                code=error.code, reason=error.reason, message=error.message, metadata=error.metadata
            )
        change = self._repository.change_state
        if isinstance(error, AWAY) and change(job_id, [JobState.CANCELLING], JobState.CANCELLED):
            # It was to stop, and what it had left to store found no store.
            return
        change(job_id, [JobState.QUEUED, *UNDER_WAY], JobState.FAILED, error=failure)


@dataclass
class _Deaths:
    """How often a job's child was killed in a row without a new step."""

    in_a_row: int = 0
    furthest: int = -1

    def count(self, step: int) -> None:
        self.in_a_row = 1 if step > self.furthest else self.in_a_row + 1
        self.furthest = max(step, self.furthest)
