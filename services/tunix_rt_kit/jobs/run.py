"""One run of a job: when it is to end, and how it waits for what is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_base,
    retry_if_exception_type,
    retry_if_not_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)
from tenacity.stop import stop_base

from tunix_rt_kit.errors import Aborted, Unavailable
from tunix_rt_kit.jobs.child import JobCancelled
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobError

_log = get_logger("tunix_rt.jobs")

AWAY: Final = (Aborted, Unavailable)
"""What a database or an artifact store raises that may be there again in a moment."""
AWAY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.1
# What a cancelled job may wait for what it depends on, to store how far it had come.
_CANCELLED_S: Final = 5.0
_LOOK_S: Final = 0.2

T = TypeVar("T")


class JobInterrupted(Exception):
    """The server stops; the job goes on with the next one."""


class JobFailed(Exception):
    """The job failed for the reason in ``error``."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class LeaseLost(Exception):
    """Another server has the job now: this one must store nothing more of it."""


class Run:
    """One run of the job ``job_id`` on this server.

    Its events say why it should end: ``cancelled`` was asked for, ``at_once`` was asked for twice,
    ``lost`` to another server, ``stopping`` as this server does, within ``grace_s`` seconds.
    """

    def __init__(
        self, job_id: str, stopping: threading.Event, confirm: Callable[[], None] = lambda: None
    ) -> None:
        self.job_id = job_id
        self.confirm = confirm
        self.stopping = stopping
        self.cancelled = threading.Event()
        self.at_once = threading.Event()
        self.lost = threading.Event()
        self.grace_s = 0.0

    def check(self) -> None:
        """Raise LeaseLost, JobCancelled or JobInterrupted if the run should end."""
        if self.lost.is_set():
            raise LeaseLost(self.job_id)
        if self.cancelled.is_set():
            raise JobCancelled
        if self.stopping.is_set():
            raise JobInterrupted

    def pause(self, seconds: float) -> None:
        """Wait, and ``check`` meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self.cancelled.wait(min(left, _LOOK_S))
        self.check()

    def retry(self, act: Callable[[], T], errors: tuple[type[Exception], ...] = AWAY) -> T:
        """What ``act`` returns, once it raises none of ``errors``: by default, once the database and the
        artifact store can be reached.

        Raises what else ``act`` raises. Meanwhile: JobInterrupted if the server stops, LeaseLost, and
        JobCancelled a few seconds after ``act`` was first tried if the job is cancelled.
        """
        given_up = stop_when_event_set(self.cancelled) & stop_after_delay(_CANCELLED_S)
        try:
            return self._tried(act, retry_if_exception_type(errors), given_up)
        except errors as error:
            if self.lost.is_set():
                raise LeaseLost(self.job_id) from error
            raise (JobInterrupted if self.stopping.is_set() else JobCancelled) from error

    def record(self, act: Callable[[], T]) -> T:
        """What ``act``, which stores how a job ended, returns once it can, whatever is in its way.

        Raises LeaseLost, and what ``act`` raises if the server stops before.
        """
        return self._tried(act, retry_if_not_exception_type(LeaseLost))

    def _tried(self, act: Callable[[], T], errors: retry_base, given_up: stop_base | None = None) -> T:
        stop = stop_when_event_set(self.stopping) | stop_when_event_set(self.lost)
        return Retrying(
            retry=errors,
            wait=wait_exponential(_FIRST_PAUSE_S, max=AWAY_S),
            stop=stop if given_up is None else stop | given_up,
            sleep=sleep_using_event(self.stopping),
            before_sleep=_log_away,
            reraise=True,
        )(act)


def _log_away(state: RetryCallState) -> None:
    if state.outcome is not None:
        _log.warning("storage_away", tries=state.attempt_number, error=repr(state.outcome.exception()))
