"""The job engine: takes jobs out of the queue in the database, runs them, and stores how each ended.

The queue is the jobs' own table: what has not ended and has no owner is to be run, oldest first. A server
owns a job by a lease, which it renews. A lease that its owner did not renew in time may be taken by any
server, so several servers share one database, and the jobs of one that was killed go on with another.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs.child import JobCancelled
from tunix_rt_kit.jobs.run import AWAY, JobFailed, JobInterrupted, LeaseLost, Run
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobError, JobState

_log = get_logger("tunix_rt.jobs")

LIVE: Final = (JobState.RUNNING, JobState.CANCELLING)
_POLL_S: Final = 1.0
# Of the time to stop: how long the queue may take to be read once more.
_LAST_LOOK: Final = 0.25


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has a job.

    Args:
        mine: whether it is this engine that asks.
        free: whether any server may take the job: its owner is gone, or was silent for too long.
        at_once: whether the job was asked to end at once.
    """

    mine: bool
    free: bool
    at_once: bool


class Leases(Protocol):
    """Which server has which job, for one engine; ``tunix_rt_kit.jobs.leases`` keeps them in a database."""

    seconds: float

    def all(self) -> Mapping[str, Lease]:
        """Every lease, by job."""

    def claim(self, job_id: str) -> bool:
        """Own a job, unless another engine does; says whether it worked."""

    def renew(self, job_ids: Sequence[str]) -> None:
        """Keep these jobs, those that are another's by now aside."""

    def release(self, job_id: str) -> None:
        """Own a job no longer."""

    def end_at_once(self, job_id: str) -> None:
        """Have its owner, whoever that is, end a job at once."""

    def held(self, job_id: str, lost: Callable[[], None]) -> AbstractContextManager[None]:
        """A block in which every write of this thread calls ``lost`` and raises LeaseLost if the job is not
        owned any more."""

    def confirm(self) -> None:
        """In such a block: raise LeaseLost if the job is not owned any more."""


class JobStore(Protocol):
    """The jobs of one kind in their table."""

    def unfinished(self) -> Sequence[tuple[str, JobState]]:
        """The ids and states of the jobs that have not ended, oldest first."""

    def change_state(
        self, job_id: str, expected: Sequence[JobState], state: JobState, *, error: JobError | None = None
    ) -> bool:
        """Set a job's state if it is one of ``expected``; returns whether it was."""


class CancellableStore(JobStore, Protocol):
    """Jobs in their table, one by one too."""

    def state(self, job_id: str) -> JobState:
        """Where a job stands."""


class JobKind(ABC):
    """What is particular about one kind of job.

    Args:
        store: its jobs.
        slots: how many of them run at once, at least 1.
    """

    name = "job"
    """For threads and log lines."""
    unexpected = JobError(code="INTERNAL", reason="INTERNAL", message="it failed; the server's log says why")
    """What is stored of a job that failed for a reason that no user should read."""

    def __init__(self, store: JobStore, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.store = store
        self.slots = slots

    @abstractmethod
    def work(self, run: Run) -> None:
        """Do a job and store that it succeeded. It has any state but an ended one, as an earlier server may
        have begun with it.

        It looks at ``run`` several times a second. Whatever it raises ends the run: JobCancelled and
        JobInterrupted as they say, any other error as the job's failure.
        """

    def requeue(self, job_id: str) -> bool:
        """Put a job that ran back into the queue, or call it cancelled if that was asked for; returns whether
        it is in the queue."""
        change = self.store.change_state
        if change(job_id, [JobState.RUNNING], JobState.QUEUED):
            return True
        change(job_id, [JobState.CANCELLING], JobState.CANCELLED)
        return False

    def failure(self, job_id: str, error: Exception) -> JobError:  # noqa: ARG002  (a kind may name it)
        """What is stored of the job ``job_id``, which failed by ``error``."""
        if isinstance(error, JobFailed):
            return error.error
        if isinstance(error, DomainError):
            return JobError(
                code=error.code, reason=error.reason, message=error.message, metadata=error.metadata
            )
        return self.unexpected


class JobEngine:
    """Runs the jobs of some kinds on this server, each in a thread of its own.

    Args:
        leases: this engine's.
        kinds: what it runs.
        poll_s: how often it looks for jobs and wishes of other servers. Those of its own are seen at once.
    """

    def __init__(self, leases: Leases, kinds: Sequence[JobKind], *, poll_s: float = _POLL_S) -> None:
        self._leases = leases
        self._kinds = kinds
        self._poll_s = poll_s
        self._ending = threading.Event()
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, tuple[JobKind, Run, threading.Thread]] = {}
        self._renew_at = 0.0
        self._only_ends = False
        self._keeper = threading.Thread(target=self._keep, name="job-engine", daemon=True)

    def start(self, *, only_ends: bool = False) -> None:
        """Begin to run what is in the queue; raises what reading it raises.

        ``only_ends``: end the jobs that are to be cancelled, and leave all others for another server.
        """
        self._only_ends = only_ends
        self._leases.all()
        for kind in self._kinds:
            kind.store.unfinished()
        self._keeper.start()

    def wake(self) -> None:
        """There is something new in the queue."""
        self._woken.set()

    def cancel(self, job_id: str, *, at_once: bool = False) -> None:
        """Have a job stop whose state is CANCELLING, whichever server has it: soon, or at once."""
        with self._lock:
            entry = self._running.get(job_id)
        if entry is not None:
            _cancel(entry[1], at_once=at_once)
        elif at_once:
            self._leases.end_at_once(job_id)
        self.wake()

    def ask_to_cancel(self, job_id: str, store: CancellableStore) -> None:
        """Have a job stop: at once if it was asked for that before, else soon. An ended one stays."""
        again = store.state(job_id) is JobState.CANCELLING
        # Again if a server took the job up, or put it back, in between.
        while (state := store.state(job_id)) in (JobState.QUEUED, JobState.RUNNING):
            store.change_state(job_id, [JobState.QUEUED], JobState.CANCELLED)
            store.change_state(job_id, [JobState.RUNNING], JobState.CANCELLING)
        if state is JobState.CANCELLING:
            self.cancel(job_id, at_once=again)

    def running(self, kind: JobKind) -> list[str]:
        """The ids of the jobs of a kind that run here now."""
        with self._lock:
            return [job_id for job_id, (of, _, _) in self._running.items() if of is kind]

    def stop(self, grace_s: float) -> None:
        """Start no further job, end those that are to be cancelled, and have those that run leave things so
        that they can go on with another server, within so many seconds."""
        end = time.monotonic() + grace_s
        self._ending.set()
        self._woken.set()
        if self._keeper.is_alive():
            # Who asked a moment ago for a job to be cancelled is not there to ask again.
            self._keeper.join(grace_s * _LAST_LOOK)
        with self._lock:
            entries = list(self._running.values())
            for _, run, _ in entries:
                run.grace_s = grace_s
            self._stopping.set()
        self._woken.set()
        for thread in (*(thread for _, _, thread in entries), self._keeper):
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
        with self._lock:
            left = {job_id: run for job_id, (_, run, _) in self._running.items()}
        if left:
            _log.info("jobs_left", jobs=list(left))
        for job_id, run in left.items():
            run.lost.set()
            self._release(job_id)

    def _keep(self) -> None:
        ending = False
        while not ending and not self._stopping.is_set():
            ending = self._ending.is_set()
            self._woken.clear()
            try:
                self._look()
            except DomainError as error:
                _log.warning("queue_away", error=str(error))
            except Exception as error:
                _log.error("queue_not_read", exc_info=error)
            if not ending:
                self._woken.wait(self._poll_s)

    def _look(self) -> None:
        """Renew the leases, learn what is asked of the jobs that run, and start others."""
        with self._lock:
            runs = {job_id: run for job_id, (_, run, _) in self._running.items()}
        if runs and time.monotonic() >= self._renew_at:
            self._leases.renew(list(runs))
            self._renew_at = time.monotonic() + self._leases.seconds / 3
        leases = self._leases.all()
        for job_id, run in runs.items():
            lease = leases.get(job_id)
            if lease is None or not lease.mine:
                run.lost.set()
            elif lease.at_once:
                _cancel(run, at_once=True)
        over = {job_id for job_id, lease in leases.items() if lease.free and not lease.mine}
        for kind in self._kinds:
            unfinished = kind.store.unfinished()
            over.difference_update(job_id for job_id, _ in unfinished)
            # What runs, perhaps in a child that lives, goes before what waits.
            for job_id, state in sorted(unfinished, key=lambda job: job[1] is JobState.QUEUED):
                if job_id in runs:
                    if state is JobState.CANCELLING:
                        runs[job_id].cancelled.set()
                elif ((lease := leases.get(job_id)) is None or lease.free) and self._has_room(kind, state):
                    self._take(kind, job_id, state, at_once=lease is not None and lease.at_once)
        for job_id in over:
            # Its owner was killed between the end of the job and that of the lease.
            if self._leases.claim(job_id):
                self._release(job_id)

    def _has_room(self, kind: JobKind, state: JobState) -> bool:
        # What is only to be ended takes no time.
        if state is JobState.CANCELLING:
            return True
        return not self._only_ends and not self._ending.is_set() and len(self.running(kind)) < kind.slots

    def _take(self, kind: JobKind, job_id: str, state: JobState, *, at_once: bool) -> None:
        if not self._leases.claim(job_id):
            return
        run = Run(job_id, self._stopping, self._leases.confirm)
        if state is JobState.CANCELLING:
            # Its owner may have ended before it saw that.
            _cancel(run, at_once=at_once)
        thread = threading.Thread(
            target=self._run, args=(kind, run), name=f"{kind.name}-{job_id}", daemon=True
        )
        with self._lock:
            if not self._stopping.is_set():
                try:
                    thread.start()
                except RuntimeError as error:
                    _log.error("job_not_started", job=job_id, error=str(error))
                else:
                    self._running[job_id] = (kind, run, thread)
                    return
        self._release(job_id)

    def _run(self, kind: JobKind, run: Run) -> None:
        try:
            with self._leases.held(run.job_id, run.lost.set):
                self._to_its_end(kind, run)
        except LeaseLost:
            _log.warning("job_lost", job=run.job_id)
        except Exception as error:
            _log.error("job_end_not_recorded", job=run.job_id, exc_info=error)
        finally:
            self._release(run.job_id)
            with self._lock:
                del self._running[run.job_id]
            self.wake()

    def _to_its_end(self, kind: JobKind, run: Run) -> None:
        job_id, change = run.job_id, kind.store.change_state
        try:
            kind.work(run)
        except LeaseLost:
            raise
        except JobInterrupted:
            run.record(lambda: kind.requeue(job_id))
        except JobCancelled:
            run.record(lambda: change(job_id, LIVE, JobState.CANCELLED))
        except Exception as error:
            if isinstance(error, AWAY) and self._stopping.is_set():
                run.record(lambda: kind.requeue(job_id))
                return
            failure = kind.failure(job_id, error)
            exc_info = None if isinstance(error, JobFailed | DomainError) else error
            _log.warning("job_failed", job=job_id, reason=failure.reason, message=failure.message)
            if exc_info is not None:
                _log.error("job_failed_unexpectedly", job=job_id, exc_info=exc_info)
            states = (JobState.QUEUED, *LIVE)
            run.record(lambda: change(job_id, states, JobState.FAILED, error=failure))

    def _release(self, job_id: str) -> None:
        try:
            self._leases.release(job_id)
        except Exception as error:
            # It is renewed no more, and this engine may take it again.
            _log.warning("lease_not_released", job=job_id, error=repr(error))


def _cancel(run: Run, *, at_once: bool) -> None:
    if at_once:
        run.at_once.set()
    run.cancelled.set()
