"""A queue of jobs with a number of slots, each slot a thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)
from tenacity.stop import stop_base

from tunix_rt_kit.errors import Aborted, DomainError, Unavailable
from tunix_rt_kit.serving.logging import get_logger

_log = get_logger("tunix_rt.jobs")

AWAY: Final = (Aborted, Unavailable)
"""What a database or an artifact store raises that may be there again in a moment."""
AWAY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.1
# What a cancelled job may wait for what it depends on, to store how far it had come.
_CANCELLED_S: Final = 5.0

T = TypeVar("T")

Cancellation = Literal["dequeued", "signalled", "unknown"]


class JobRunner:
    """Runs jobs first in, first out, ``slots`` at a time.

    Args:
        slots: how many jobs run at once, at least 1.
        run: does one job, given its id and an event that is set when it is cancelled. It should look at the
        event, and
            at the runner's ``stopping``, several times a second: a cancelled job has failed to finish,
            while a job that sees ``stopping`` should leave things so that it can go on later.
        on_error: is told of whatever ``run`` raises, after it was logged; told again, every second, as long
        as it
            raises a domain error itself, for else nothing would say how the job ended. It is not told when
            the runner stops and what a job needs is away: that job can go on later.
        name: for threads and log lines.
    """

    def __init__(
        self,
        slots: int,
        run: Callable[[str, threading.Event], None],
        *,
        on_error: Callable[[str, Exception], None],
        name: str = "job",
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.stopping = threading.Event()
        self._run = run
        self._on_error = on_error
        self._changed = threading.Condition()
        self._queue: deque[str] = deque()
        self._running: dict[str, threading.Event] = {}
        self._again: set[str] = set()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(slots)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job_id: str, *, again: bool = False) -> None:
        """Put a job at the end of the queue; nothing happens if it is queued or running. RuntimeError after
        ``stop``.

        With ``again`` one that is running comes there once it has ended.
        """
        with self._changed:
            if self.stopping.is_set():
                raise RuntimeError("the runner is stopping")
            if job_id in self._running:
                if again:
                    self._again.add(job_id)
            elif job_id not in self._queue:
                self._queue.append(job_id)
                self._changed.notify()

    def cancel(self, job_id: str) -> Cancellation:
        """Cancel a job.

        Returns "dequeued" if it had not begun and never will, "signalled" if it runs and its event was set,
        and "unknown" if it is neither queued nor running.
        """
        with self._changed:
            if job_id in self._queue:
                self._queue.remove(job_id)
                return "dequeued"
            if job_id in self._running:
                self._running[job_id].set()
                return "signalled"
        return "unknown"

    def insist(self, act: Callable[[], T], cancelled: threading.Event) -> T:
        """What ``act`` returns, once the database and the artifact store can be reached.

        Raises what ``act`` raises: at once what will not pass by itself; what says that something is away
        when the runner stops, or a few seconds after ``act`` was first tried if ``cancelled`` is set.
        """
        given_up = stop_when_event_set(cancelled) & stop_after_delay(_CANCELLED_S)
        return self._tried(act, AWAY, given_up)

    def record(self, act: Callable[[], T]) -> T:
        """What ``act``, which stores how a job ended, returns once it can, whichever domain error is in its
        way; raises that when the runner stops before."""
        return self._tried(act, (DomainError,))

    def _tried(
        self, act: Callable[[], T], errors: tuple[type[DomainError], ...], given_up: stop_base | None = None
    ) -> T:
        stopping = stop_when_event_set(self.stopping)
        return Retrying(
            retry=retry_if_exception_type(errors),
            wait=wait_exponential(_FIRST_PAUSE_S, max=AWAY_S),
            stop=stopping if given_up is None else stopping | given_up,
            sleep=sleep_using_event(self.stopping),
            before_sleep=_log_away,
            reraise=True,
        )(act)

    def active(self) -> list[str]:
        """The ids of the jobs that run now."""
        with self._changed:
            return list(self._running)

    def stop(self, grace_s: float) -> list[str]:
        """Start no further job, set ``stopping``, and wait at most ``grace_s`` seconds for those that run.

        Returns the ids that never began or still run.
        """
        end = time.monotonic() + grace_s
        with self._changed:
            self.stopping.set()
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            return [*self._running, *self._queue]

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            job_id, cancelled = taken
            try:
                self._run(job_id, cancelled)
            except Exception as error:
                _log.error("job_failed", job=job_id, exc_info=error)
                self._tell(job_id, error)
            finally:
                with self._changed:
                    del self._running[job_id]
                    if job_id in self._again:
                        self._again.remove(job_id)
                        self._queue.append(job_id)
                        self._changed.notify()

    def _take(self) -> tuple[str, threading.Event] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self.stopping.is_set())
            if self.stopping.is_set():
                return None
            job_id = self._queue.popleft()
            cancelled = self._running[job_id] = threading.Event()
            return job_id, cancelled

    def _tell(self, job_id: str, error: Exception) -> None:
        if self.stopping.is_set() and isinstance(error, AWAY):
            return
        try:
            self.record(lambda: self._on_error(job_id, error))
        except Exception as second:
            _log.error("job_failure_not_recorded", job=job_id, exc_info=second)


def _log_away(state: RetryCallState) -> None:
    if state.outcome is not None:
        _log.warning("storage_away", tries=state.attempt_number, error=str(state.outcome.exception()))
