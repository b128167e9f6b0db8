"""Jobs whose work a child process does: started, followed until it has ended, and tried again if it died."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from tunix_rt_kit.errors import NotFound
from tunix_rt_kit.jobs import files
from tunix_rt_kit.jobs.child import JobCancelled
from tunix_rt_kit.jobs.engine import LIVE, CancellableStore, JobKind
from tunix_rt_kit.jobs.process import STOPPED, running_children
from tunix_rt_kit.jobs.run import AWAY, AWAY_S, JobFailed, JobInterrupted, Run
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobError, JobState, Progress, StageTiming

_log = get_logger("tunix_rt.jobs")

HUNG_S: Final = 300.0
"""How long a child may be silent that is not stopped or stuck."""
_POLL_S: Final = 0.1
_SAVE_S: Final = 0.5
_NO_ATTEMPT: Final = 0
_SHUTDOWN_S: Final = 2.0
_END_S: Final = 30.0
_LOG_LINES: Final = 30
_LOG_CHARACTERS: Final = 4_000
_ENVELOPE: Final = {"kind", "time"}


@dataclass
class AttemptFacts:
    """The facts of one attempt at a job; a service's subclass adds its own.

    Args:
        attempt: its number. The events of a job are those of all its attempts, each after an event
            ``attempt``; those of others are passed over.
        exit_code: None while the child has not told its end.
    """

    attempt: int
    progress: Progress | None = None
    error: JobError | None = None
    exit_code: int | None = None

    def __post_init__(self) -> None:
        self._current = False
        self._timings: dict[str, float] = {}
        self._stage: tuple[str, float] | None = None

    @property
    def stage_timings(self) -> tuple[StageTiming, ...]:
        """Wall time of each stage that has ended, in the order in which they began; a stage that came again
        is added up."""
        return tuple(StageTiming(stage=stage, duration_s=spent) for stage, spent in self._timings.items())

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Fold in events, in order."""
        for event in events:
            kind = event["kind"]
            if kind == "attempt":
                self._current = event["number"] == self.attempt
                continue
            fields = event_fields(event)
            if self._current:
                self._take_common(kind, event["time"], fields)
            self.take_own(kind, fields, current=self._current)

    def take_own(self, kind: str, fields: Mapping[str, Any], *, current: bool) -> None:
        """Fold in an event of a kind that only this service has; ``current`` if it is of this attempt."""

    def _take_common(self, kind: str, time: float, fields: Mapping[str, Any]) -> None:
        if kind in ("stage", "exit") and self._stage is not None:
            stage, began = self._stage
            self._timings[stage] = self._timings.get(stage, 0.0) + max(0.0, time - began)
            self._stage = None
        if kind in ("stage", "progress"):
            self.progress = Progress.model_validate(fields)
        if kind == "stage":
            self._stage = (fields["stage"], time)
        elif kind == "error":
            self.error = JobError.model_validate(fields)
        elif kind == "exit":
            self.exit_code = fields["code"]


def event_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says besides its kind and its time."""
    return {name: value for name, value in event.items() if name not in _ENVELOPE}


Facts = TypeVar("Facts", bound=AttemptFacts)


class Launcher(Protocol):
    """The child of one job, wherever it runs; ``WorkerProcess`` runs it on this machine."""

    def start(self, spec: Mapping[str, Any]) -> None:
        """Start it to do what ``spec`` says."""

    def adopt(self, attempt: int) -> bool:
        """Take over the child that another server started for this attempt; returns whether it runs, or has
        told how it ended without being asked to stop."""

    def poll(self) -> int | None:
        """None while it runs, then its exit code (negative: the signal that ended it)."""

    def wait(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> int | None:
        """Wait until it has ended, at most ``timeout_s`` seconds, or ``is_enough``; returns as ``poll``."""

    def events(self, from_line: int = 0, most_bytes: int = -1) -> list[dict[str, Any]]:
        """What it told from an event on, as much as lies in ``most_bytes``, but one event at least."""

    def cancel(self) -> None:
        """Ask it to stop at its next opportunity."""

    def kill(self) -> None:
        """End it at once."""

    def silent_s(self) -> float:
        """Seconds since it gave a sign of life."""

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of what it wrote to its output."""

    @property
    def owned(self) -> bool:
        """Whether no other server has taken it over."""


class ChildJobStore(CancellableStore, Protocol):
    """The jobs of one kind in their table, and how far they have come."""

    def save(self, job_id: str, update: Any) -> None:
        """Store how far a job has come."""


class Attempt(ABC, Generic[Facts]):
    """One attempt at a job, followed from the events of its child; a subclass says what is particular.

    Args:
        store: its job's.
        run: the run that follows it.
        child: its child.
        state: where the job stood when it was taken up.
        facts: what its child told.
    """

    what = "worker"
    """What the child is called in messages."""
    died = ("INTERNAL", "WORKER_DIED")
    """Code and reason of a job whose child died."""

    def __init__(
        self, store: ChildJobStore, run: Run, child: Launcher, state: JobState, facts: Facts
    ) -> None:
        self.run = run
        self.child = child
        self.state = state
        self.facts = facts
        self.killed_here = False
        self._store = store
        self._events = 0
        self._saved: Any = None

    @abstractmethod
    def start(self) -> Attempt[Facts] | None:
        """Begin the next attempt at a queued job and start its child; None if the job is queued no more."""

    @abstractmethod
    def update(self) -> Any:
        """How far the job has come, for the store's ``save``."""

    @abstractmethod
    def succeed(self) -> None:
        """Store that the job succeeded, whose child ended well; raises what it failed for all the same."""

    @property
    def step(self) -> int:
        """Grows with every step forward."""
        return 0

    @property
    def ended(self) -> bool:
        """Whether the child told its end, and all that it told was taken in."""
        return self.facts.exit_code is not None

    @property
    def complete(self) -> bool:
        """Whether all is done that the job asks for, as far as the child's end says."""
        return True

    @property
    def may_go_on(self) -> bool:
        """Whether another attempt may do better, now that the child was killed."""
        return True

    def collect(self) -> bool:
        """Take in some of what the child told since the last call, and store what must be; returns whether
        there was anything."""
        return bool(self.read())

    def collect_all(self) -> None:
        """Take in all that the child told since the last call, and store how far the job has come."""
        while self.collect():
            pass
        self.save()

    def read(self, most_bytes: int = -1) -> Sequence[Mapping[str, Any]]:
        """Fold in the child's next events."""
        events = self.child.events(self._events, most_bytes)
        self._events += len(events)
        self.facts.take(events)
        return events

    def save(self) -> None:
        """Store how far the job has come, unless that is stored, or another server's folder knows it."""
        if self._events and (update := self.update()) != self._saved:
            self._store.save(self.run.job_id, update)
            self._saved = update

    def error(self, code: int | None, deaths: int) -> JobError:
        """Why the job failed, whose child ended with ``code``, and died ``deaths`` times in a row."""
        told = self.facts.error
        if told is not None and told.code != "INTERNAL":
            return told
        lines = [line for line in self.child.log_tail(_LOG_LINES) if line.strip()]
        log = {"log_tail": "\n".join(lines)[-_LOG_CHARACTERS:]}
        if told is not None:
            return told.model_copy(update={"metadata": {**told.metadata, **log}})
        again = f", {deaths} times in a row without a new step" if deaths > 1 else ""
        last = f"; its last line of output: {lines[-1].strip()[:300]}" if lines else ""
        message = f"the {self.what} {_end_of(code)}{again}{last}"
        return JobError(code=self.died[0], reason=self.died[1], message=message, metadata=log)


class ChildJobs(JobKind, Generic[Facts]):
    """A kind of job whose work a child process does.

    A child outlives a server that is killed, and the next one follows it on. A job whose child was killed, or
    stopped by somebody else, is tried again, but not for ever without a step forward.
    """

    store: ChildJobStore
    most_deaths = 10
    """How often in a row a child may be killed without a new step."""
    hung_s = HUNG_S
    saving_share = 0.0
    """Of the server's time to stop, what a child has to save how far it has come."""

    @abstractmethod
    def launcher(self, job_id: str) -> Launcher:
        """The child of a job, not started."""

    @abstractmethod
    def open(self, run: Run, child: Launcher) -> Attempt[Facts]:
        """The present attempt at a job."""

    def let_go(self, attempt: Attempt[Facts]) -> None:
        """An attempt is over: see that its child is."""
        run = attempt.run
        if attempt.ended:
            # How a cancelled job ended is stored after this: by a server that has no time left, not at all.
            attempt.child.wait(_END_S, lambda: run.at_once.is_set() or run.stopping.is_set())
        attempt.child.kill()

    def requeue(self, job_id: str) -> bool:  # noqa: ARG002
        # Whoever takes the job up next takes in first what its child told, and that may not be stored yet.
        return False

    def work(self, run: Run) -> None:
        child, deaths = run.retry(lambda: self.launcher(run.job_id)), _Deaths()
        attempt: Attempt[Facts] | None = None
        try:
            while (attempt := run.retry(lambda: self._begin(run, child))) is not None:
                self._follow(attempt)
                if not self._is_tried_again(attempt, deaths) or run.stopping.is_set():
                    return
                self.let_go(attempt)
        finally:
            if not run.lost.is_set() or child.owned:
                child.kill() if attempt is None else self.let_go(attempt)

    def _begin(self, run: Run, child: Launcher) -> Attempt[Facts] | None:
        """Take over the child that an earlier server started, or start one; None where nothing is to do."""
        attempt = self.open(run, child)
        if attempt.state in LIVE:
            if child.adopt(attempt.facts.attempt) and child.poll() is None:
                return attempt
            # What it told before it ended is not told again.
            attempt.collect_all()
            if attempt.ended and attempt.facts.exit_code != STOPPED:
                return attempt
            if not self._put_back(run):
                return None
            attempt = self.open(run, child)
        return attempt.start() if attempt.state is JobState.QUEUED else None

    def _follow(self, attempt: Attempt[Facts]) -> None:
        """Until the child has ended, or is to."""
        run, child, more, saved = attempt.run, attempt.child, True, 0.0
        while not attempt.ended and (more or child.poll() is None):
            if run.lost.is_set():
                run.check()
            if run.stopping.is_set():
                self._save_and_end(attempt)
                return
            if run.at_once.is_set():
                attempt.killed_here = True
                child.kill()
                return
            self._see_to(attempt)
            try:
                more = attempt.collect()
                if time.monotonic() - saved >= _SAVE_S:
                    saved = time.monotonic()
                    attempt.save()
            except AWAY as error:
                # What a child tells waits in its folder.
                _log.warning("storage_away", job=run.job_id, error=str(error))
                if child.poll() is not None:
                    return
                time.sleep(AWAY_S)
            if not more:
                time.sleep(_POLL_S)

    def _see_to(self, attempt: Attempt[Facts]) -> None:
        told_end, silent_s = attempt.facts.exit_code is not None, attempt.child.silent_s()
        if silent_s > self.hung_s and not told_end and attempt.child.poll() is None:
            _log.warning("worker_hung", job=attempt.run.job_id, silent_s=round(silent_s))
            attempt.killed_here = True
            attempt.child.kill()
        elif attempt.run.cancelled.is_set():
            attempt.child.cancel()

    def _save_and_end(self, attempt: Attempt[Facts]) -> None:
        """The server stops: have the child save how far it has come, and end it."""
        attempt.child.cancel()
        attempt.child.wait(self.saving_share * attempt.run.grace_s)
        attempt.child.kill()
        attempt.collect_all()
        if not attempt.ended or attempt.facts.exit_code == STOPPED:
            self._put_back(attempt.run)
            raise JobInterrupted

    def _put_back(self, run: Run) -> bool:
        """Queue a job all that was told of which is stored; returns as ``JobKind.requeue``."""
        return super().requeue(run.job_id)

    def _is_tried_again(self, attempt: Attempt[Facts], deaths: _Deaths) -> bool:
        """Store how an attempt ended; returns whether another is to follow."""
        run, told = attempt.run, attempt.facts
        run.retry(attempt.collect_all)
        code = told.exit_code if attempt.ended else attempt.child.poll()
        cancelled = run.cancelled.is_set() or self._is_cancelling(run)
        if attempt.ended and code == 0 and (attempt.complete or not cancelled):
            run.retry(attempt.succeed)
            return False
        if told.error is None and cancelled:
            raise JobCancelled
        if told.error is None and code is not None and (code < 0 or code in (STOPPED, files.LOCKED)):
            deaths.count(attempt.step)
            _log.warning("worker_died", job=run.job_id, code=code, step=attempt.step, deaths=deaths.in_a_row)
            if deaths.in_a_row < self.most_deaths and attempt.may_go_on:
                return run.retry(lambda: self._put_back(run)) and self._may_start(run, code)
        raise JobFailed(attempt.error(code, deaths.in_a_row))

    def _may_start(self, run: Run, code: int) -> bool:
        """See that another attempt can begin after one with exit code ``code``; False if the server stops."""
        if code == files.LOCKED:
            # The child of an attempt that nobody follows has the folder; the job is this server's.
            self.launcher(run.job_id).adopt(_NO_ATTEMPT)
        # Stopped by somebody else: most likely a whole machine is shut down, this server too in a moment.
        return code != STOPPED or not run.stopping.wait(_SHUTDOWN_S)

    def _is_cancelling(self, run: Run) -> bool:
        return run.retry(lambda: self.store.state(run.job_id)) is JobState.CANCELLING


class AttemptedJob(Protocol):
    """A job in its table."""

    @property
    def state(self) -> JobState:
        """Where it stands."""

    @property
    def attempt_count(self) -> int:
        """The number of its latest attempt."""


def end_left_behind(root: Path, module: str, get: Callable[[str], AttemptedJob]) -> None:
    """End the children in folders of ``root`` that nobody will follow any more: their jobs, which ``get``
    gives, ended or went on with another server, while there was none here."""
    for job_id, attempt, child in running_children(root, module):
        with suppress(NotFound):
            job = get(job_id)
            if job.state not in LIVE or job.attempt_count != attempt:
                child.kill()


class _Deaths:
    """How often a job's child was killed in a row without a new step."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self._furthest = -1

    def count(self, step: int) -> None:
        self.in_a_row = 1 if step > self._furthest else self.in_a_row + 1
        self._furthest = max(step, self._furthest)


def _end_of(code: int | None) -> str:
    if code == STOPPED:
        return "was asked to stop by another program"
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {entry.value for entry in signal.Signals} else "unknown"
    hint = ", as happens when memory runs out" if -code == signal.SIGKILL else ""
    return f"was ended by signal {-code} ({name}){hint}"
