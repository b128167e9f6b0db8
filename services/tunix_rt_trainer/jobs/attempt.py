"""One attempt at a job, from the events of its child to what is stored."""

from __future__ import annotations

import signal
import time
from typing import Final

from tunix_rt_kit.errors import NotFound
from tunix_rt_kit.jobs import WorkerProcess
from tunix_rt_kit.models.runtime import OUT_OF_MEMORY
from tunix_rt_kit.values import JobError, JobState
from tunix_rt_trainer.jobs.events import AttemptFacts
from tunix_rt_trainer.jobs.job_folders import JobFolders
from tunix_rt_trainer.jobs.model import StepMetrics, TrainingAttempt, TrainingJob
from tunix_rt_trainer.jobs.refusals import advice, processes_killed_for_memory, rows_at_a_time
from tunix_rt_trainer.jobs.service import JobRepository, JobUpdate, QueuedJob

UNDER_WAY: Final = (JobState.RUNNING, JobState.CANCELLING)

_SAVE_S: Final = 0.5
_LOG_LINES: Final = 30
_LOG_CHARACTERS: Final = 4_000
_STOPPED: Final = 3
"""Exit code of a child that was asked to stop."""


class Attempt:
    """Follows ``process``, the child of the job ``queued`` in its present attempt."""

    def __init__(
        self, repository: JobRepository, folders: JobFolders, queued: QueuedJob, process: WorkerProcess
    ) -> None:
        self.process = process
        self._repository = repository
        self._folders = folders
        self._queued = queued
        self._facts = AttemptFacts(queued.job.attempt_count)
        self._events = 0
        self._saved: JobUpdate | None = None
        self._saved_at = 0.0
        self._killed_before = processes_killed_for_memory()
        self._killed_here = False

    @property
    def job(self) -> TrainingJob:
        """The job, as it was when it was taken up."""
        return self._queued.job

    @property
    def told_its_end(self) -> bool:
        """Whether the child of this attempt came to its own end, well or not."""
        self._read()
        return self._facts.exit_code is not None

    @property
    def step(self) -> int:
        """The last step that the child told of, in this attempt or before the one that it goes on from."""
        metrics = self._facts.latest_metrics
        return (self._facts.resumed_from_step or 0) if metrics is None else metrics.step

    @property
    def died(self) -> bool:
        """Whether a signal ended the child, for no cancellation, before it could tell why."""
        self._read()
        code = self.process.poll()
        told = self._facts.exit_code is not None or self._facts.error is not None
        running = self._repository.get(self.job.id).state is JobState.RUNNING
        return code is not None and code < 0 and not told and running

    def kill(self) -> None:
        """End the child at once."""
        self._killed_here = True
        self.process.kill()

    @property
    def killed_for_memory(self) -> bool:
        """Whether it was the system that killed the child, because memory ran out."""
        before, now = self._killed_before, processes_killed_for_memory()
        more = before is not None and now is not None and now > before
        return more and not self._killed_here and self.process.poll() == -signal.SIGKILL

    @property
    def interrupted(self) -> bool:
        """Whether the child was asked to stop by somebody else than this service."""
        self._read()
        asked = self._repository.get(self.job.id).state is JobState.CANCELLING
        return self._facts.exit_code == _STOPPED and not asked

    def collect(self, *, at_once: bool = False) -> None:
        """Store what the child told since the last call; progress twice a second at most."""
        if self.process.poll() is None:
            # What the system killed while this child lived was another process.
            self._killed_before = processes_killed_for_memory()
        self._read()
        while self._facts.new_checkpoints:
            written = self._facts.new_checkpoints[0]
            if not self._is_stored(written.step):
                stored = self._folders.store_checkpoint(self._queued, written.step, written.folder)
                self._repository.add_checkpoint(stored, best=written.best)
            self._facts.new_checkpoints.pop(0)
        update, now = self._update(), time.monotonic()
        if update != self._saved and (at_once or now - self._saved_at >= _SAVE_S):
            self._repository.save(self.job.id, update)
            self._saved, self._saved_at = update, now

    def give_back(self) -> bool:
        """Put the job back into the queue, or call it cancelled if that was asked for; returns whether it is
        in the queue."""
        change = self._repository.change_state
        if change(self.job.id, [JobState.RUNNING], JobState.QUEUED):
            return True
        change(self.job.id, [JobState.CANCELLING], JobState.CANCELLED)
        return False

    def finish(self, deaths: int = 1) -> None:
        """Store the end of the job, whose child has ended; ``deaths`` is how often in a row one has died."""
        self.collect(at_once=True)
        change = self._repository.change_state
        if self._facts.exit_code == 0:
            change(self.job.id, UNDER_WAY, JobState.SUCCEEDED)
            self._folders.discard_states(self.job.id)
        elif self._facts.error is None and change(self.job.id, [JobState.CANCELLING], JobState.CANCELLED):
            return
        else:
            change(self.job.id, UNDER_WAY, JobState.FAILED, error=self._error(deaths))

    def _is_stored(self, step: int) -> bool:
        """Whether an earlier server stored the checkpoint of this attempt at ``step``."""
        attempts = self.job.attempts
        try:
            stored = self._repository.checkpoint(self.job.id, step)
        except NotFound:
            return False
        return bool(attempts) and stored.create_time >= attempts[-1].start_time

    def _read(self) -> None:
        events = self.process.events(self._events)
        self._events += len(events)
        self._facts.take(events)

    def _update(self) -> JobUpdate:
        facts, spec = self._facts, self.job.spec
        filled_in = spec.model_copy(update=facts.filled_in)
        return JobUpdate(
            progress=facts.progress,
            latest_metrics=self._latest_metrics(),
            stage_timings=facts.stage_timings,
            spec=None if filled_in == spec else filled_in,
            attempts=self._attempts(),
        )

    def _latest_metrics(self) -> StepMetrics | None:
        if self._facts.latest_metrics is None and self._facts.resumed_from_step:
            # Until its first step, those of the attempt that it goes on from.
            return self.job.latest_metrics
        return self._facts.latest_metrics

    def _attempts(self) -> tuple[TrainingAttempt, ...]:
        attempts, step = self.job.attempts, self._facts.resumed_from_step
        if step is None or not attempts:
            return ()
        return (*attempts[:-1], attempts[-1].model_copy(update={"resumed_from_step": step}))

    def _error(self, deaths: int) -> JobError:
        told = self._facts.error
        if told is not None and told.code != "INTERNAL":
            return told
        if told is None and self.killed_for_memory:
            spec = self.job.spec
            return JobError(
                code="RESOURCE_EXHAUSTED",
                reason=OUT_OF_MEMORY,
                message="the system ran out of memory and killed the training process, which computed "
                f"{rows_at_a_time(spec)}; {advice(spec)}",
            )
        lines = [line for line in self.process.log_tail(_LOG_LINES) if line.strip()]
        log = {"log_tail": "\n".join(lines)[-_LOG_CHARACTERS:]}
        if told is not None:
            return told.model_copy(update={"metadata": {**told.metadata, **log}})
        again = f", {deaths} times in a row without a new step" if deaths > 1 else ""
        last = f"; its last line of output: {lines[-1].strip()[:300]}" if lines else ""
        return JobError(
            code="INTERNAL",
            reason="WORKER_DIED",
            message=f"the training process {_end_of(self.process.poll())}{again}{last}",
            metadata=log,
        )


def _end_of(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {entry.value for entry in signal.Signals} else "unknown"
    hint = ", as happens when memory runs out" if -code == signal.SIGKILL else ""
    return f"was ended by signal {-code} ({name}){hint}"
