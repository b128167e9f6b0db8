# ruff: noqa: ARG002  (a port's methods take more than this one uses)
"""One job in a database whose child acts as it is told, and an engine that runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import fake_jobs
from support.fake_jobs import Jobs
from support.timing import eventually
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import FailedPrecondition, Unavailable
from tunix_rt_kit.jobs.child_jobs import Attempt, AttemptFacts, ChildJobs, Launcher
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.jobs.process import KILLED, STOPPED
from tunix_rt_kit.jobs.run import Run
from tunix_rt_kit.values import JobError, JobState

RUNS, HANGS, DEAF = "runs", "hangs", "deaf"
REFUSED = {"kind": "error", "code": "NOT_FOUND", "reason": "THING_NOT_FOUND", "message": "no", "metadata": {}}
BUG = {"kind": "error", "code": "INTERNAL", "reason": "WORKER_FAILED", "message": "a bug", "metadata": {}}


def step(number: int) -> dict[str, Any]:
    return {"kind": "progress", "stage": "counting", "completed": number}


@dataclass
class Child:
    """A child that goes on as ``plans`` say, one for each attempt: what it tells, and its exit code or how it
    is otherwise."""

    plans: list[tuple[list[dict[str, Any]], int | str]]
    told: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = KILLED
    how: int | str = 0
    started: int = 0
    kills: int = 0
    owned: bool = True
    adopted: bool = False
    asked_for: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    lingers: bool = False
    """Goes on after it told its end, which is waited for."""
    output: list[str] = field(default_factory=lambda: ["about to count", ""])

    def start(self, spec: Mapping[str, Any]) -> None:
        events, self.how = self.plans[min(self.started, len(self.plans) - 1)]
        self.started += 1
        self.code = None
        self._tell({"kind": "attempt", "number": spec["attempt"]}, *events)
        if isinstance(self.how, int):
            self.end(self.how)

    def end(self, code: int) -> None:
        if self.code is None:
            self.code = code
            if code >= 0:
                self._tell({"kind": "exit", "code": code})

    def _tell(self, *events: dict[str, Any]) -> None:
        self.told += [{"time": time.time(), **event} for event in events]

    def adopt(self, attempt: int) -> bool:
        self.asked_for.append(attempt)
        self.adopted = self.poll() not in (KILLED, STOPPED)
        return self.adopted

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> int | None:
        self.waits.append(timeout_s)
        while self.lingers and self.code is None and not is_enough():
            time.sleep(0.01)
        return self.code

    def events(self, from_line: int = 0, most_bytes: int = -1) -> list[dict[str, Any]]:
        return self.told[from_line:][: None if most_bytes < 0 else 1]

    def cancel(self) -> None:
        if self.how != DEAF:
            self.end(STOPPED)

    def kill(self) -> None:
        self.kills += self.code is None
        self.end(KILLED)

    def silent_s(self) -> float:
        return 1_000.0 if self.how == HANGS else 0.0

    def log_tail(self, lines: int) -> list[str]:
        return self.output[-lines:]


class Store(Jobs):
    """Remembers the attempts, and what was saved."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.attempt = 1
        self.saved: list[int] = []
        self.saved_of: set[str] = set()
        self.away = 0
        self.error = JobError(code="", reason="", message="")

    def change_state(
        self, job_id: str, expected: Sequence[JobState], state: JobState, *, error: JobError | None = None
    ) -> bool:
        self.error = error or self.error
        return super().change_state(job_id, expected, state, error=error)

    def save(self, job_id: str, update: Any) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")
        with self.database.write():
            self.saved.append(update)
            self.saved_of.add(job_id)


class CountingAttempt(Attempt[AttemptFacts]):
    what = "counting process"

    def __init__(self, kind: Kind, run: Run, child: Launcher) -> None:
        self._kind = kind
        store = kind.store
        super().__init__(store, run, child, store.state(run.job_id), AttemptFacts(store.attempt))

    def start(self) -> CountingAttempt | None:
        store = self._kind.store
        if not store.change_state(self.run.job_id, [JobState.QUEUED], JobState.RUNNING):
            return None
        store.attempt += 1
        attempt = CountingAttempt(self._kind, self.run, self.child)
        self.child.start({"attempt": store.attempt})
        return attempt

    @property
    def step(self) -> int:
        return self.facts.progress.completed if self.facts.progress else 0

    def update(self) -> int:
        return self.step

    def succeed(self) -> None:
        if self._kind.refuses:
            raise FailedPrecondition("not all was counted", reason="COUNT_INCOMPLETE")
        states = (JobState.RUNNING, JobState.CANCELLING)
        self._kind.store.change_state(self.run.job_id, states, JobState.SUCCEEDED)


class Kind(ChildJobs[AttemptFacts]):
    store: Store
    most_deaths = 3
    saving_share = 0.5
    refuses = False

    def __init__(self, store: Store, child: Child) -> None:
        super().__init__(store, 1)
        self.child = child

    def launcher(self, job_id: str) -> Launcher:
        return self.child

    def open(self, run: Run, child: Launcher) -> CountingAttempt:
        return CountingAttempt(self, run, child)


class World:
    """One job, its child, and the engine that runs it."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder}/test.db")
        fake_jobs.metadata.create_all(self.database.engine)
        self.store = Store(self.database)
        self.engine: JobEngine | None = None

    def begin(self, *plans: tuple[list[dict[str, Any]], int | str], refuses: bool = False) -> Child:
        child = Child(list(plans))
        self.store.add("a")
        return self.go_on(child, refuses=refuses)

    def go_on(self, child: Child, *, refuses: bool = False, poll_s: float = 0.02) -> Child:
        self.kind = kind = Kind(self.store, child)
        kind.refuses = refuses
        leases = SqlLeases(self.database, fake_jobs.leases, 3_600.0)
        self.engine = JobEngine(leases, [kind], poll_s=poll_s)
        self.engine.start()
        return child

    def cancel(self, *, at_once: bool = False) -> None:
        assert self.engine is not None
        self.store.change_state("a", [JobState.RUNNING], JobState.CANCELLING)
        self.engine.cancel("a", at_once=at_once)

    def ended(self) -> JobState:
        self.until(lambda: self.store.state("a").ended)
        return self.store.state("a")

    def until(self, condition: Callable[[], object]) -> None:
        eventually(condition, lambda: self.store.state("a"))

    def attempt(self, child: Child) -> CountingAttempt:
        """The present attempt at a job that no engine runs."""
        return CountingAttempt(Kind(self.store, child), Run("a", threading.Event()), child)
