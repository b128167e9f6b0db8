# ruff: noqa: ARG002  (a port's methods take more than this one uses)
"""Jobs whose work a child process does, with a child that acts as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from support import fake_jobs
from support.fake_jobs import Jobs
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import FailedPrecondition, Unavailable
from tunix_rt_kit.jobs import JobEngine, Run
from tunix_rt_kit.jobs.child_jobs import Attempt, AttemptFacts, ChildJobs, Launcher
from tunix_rt_kit.jobs.files import LOCKED
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.jobs.process import KILLED, STOPPED
from tunix_rt_kit.values import JobError, JobState

PATIENCE_S = 20.0
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

    def wait(self, timeout_s: float) -> int | None:
        return self.code

    def events(self, from_line: int = 0, most_bytes: int = -1) -> list[dict[str, Any]]:
        return self.told[from_line:]

    def cancel(self) -> None:
        if self.how != DEAF:
            self.end(STOPPED)

    def kill(self) -> None:
        self.kills += self.code is None
        self.end(KILLED)

    def silent_s(self) -> float:
        return 1_000.0 if self.how == HANGS else 0.0

    def log_tail(self, lines: int) -> list[str]:
        return ["about to count", ""]


class Store(Jobs):
    """Remembers the attempts, and what was saved."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.attempt = 1
        self.saved: list[int] = []
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
        kind = Kind(self.store, child)
        kind.refuses = refuses
        self.engine = JobEngine(SqlLeases(self.database, fake_jobs.leases), [kind], poll_s=poll_s)
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
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, self.store.state("a")
            time.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt_kit.jobs.child_jobs._POLL_S", 0.01)
    monkeypatch.setattr("tunix_rt_kit.jobs.child_jobs._SHUTDOWN_S", 0.05)
    monkeypatch.setattr("tunix_rt_kit.jobs.child_jobs.AWAY_S", 0.01)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    if world.engine is not None:
        world.engine.stop(PATIENCE_S)
    world.database.close()


def test_a_child_that_ends_well_is_a_success(world: World) -> None:
    child = world.begin(([step(1), step(2)], 0))
    assert world.ended() is JobState.SUCCEEDED
    assert world.store.saved[-1] == 2
    assert child.kills == 0


def test_a_success_that_is_none_after_all_fails_the_job(world: World) -> None:
    world.begin(([step(1)], 0), refuses=True)
    assert world.ended() is JobState.FAILED
    assert world.store.reason("a") == "COUNT_INCOMPLETE"


@pytest.mark.parametrize(("told", "reason"), [(REFUSED, "THING_NOT_FOUND"), (BUG, "WORKER_FAILED")])
def test_what_a_child_told_is_why_its_job_failed(world: World, told: dict[str, Any], reason: str) -> None:
    child = world.begin(([told], 1))
    assert world.ended() is JobState.FAILED
    assert (world.store.reason("a"), child.started) == (reason, 1)


def test_a_child_that_just_exits_fails_its_job(world: World) -> None:
    child = world.begin(([step(1)], RUNS))
    world.until(lambda: child.started == 1)
    child.code = 7
    assert world.ended() is JobState.FAILED
    assert (world.store.reason("a"), child.started) == ("WORKER_DIED", 1)


def test_a_child_that_exits_well_without_having_told_its_end_is_no_success(world: World) -> None:
    child = world.begin(([step(1)], RUNS))
    world.until(lambda: child.started == 1)
    child.code = 0
    assert world.ended() is JobState.FAILED
    assert (world.store.reason("a"), child.started) == ("WORKER_DIED", 1)


def test_a_child_that_is_killed_is_replaced_as_long_as_there_are_steps_forward(world: World) -> None:
    plans = [([step(number)], KILLED) for number in (1, 1, 2, 2, 3)]
    child = world.begin(*plans, ([step(4)], 0))
    assert world.ended() is JobState.SUCCEEDED
    assert child.started == 6


def test_a_child_that_is_killed_again_and_again_fails_its_job(world: World) -> None:
    child = world.begin(([step(1)], KILLED))
    assert world.ended() is JobState.FAILED
    assert (world.store.reason("a"), child.started) == ("WORKER_DIED", 3)
    assert world.store.error.message == (
        "the counting process was ended by signal 9 (SIGKILL), as happens when memory runs out, 3 times in a "
        "row without a new step; its last line of output: about to count"
    )


def test_a_bug_of_a_child_is_told_with_the_end_of_its_log(world: World) -> None:
    world.begin(([{"kind": "stage", "stage": "one"}, {"kind": "stage", "stage": "two"}, BUG], 1))
    assert world.ended() is JobState.FAILED
    assert world.store.error.message == "a bug"
    assert world.store.error.metadata == {"log_tail": "about to count"}


def test_a_child_that_hangs_is_killed_and_replaced(world: World) -> None:
    child = world.begin(([step(1)], HANGS), ([step(2)], 0))
    assert world.ended() is JobState.SUCCEEDED
    assert (child.started, child.kills) == (2, 1)


def test_a_child_that_somebody_else_stopped_is_replaced(world: World) -> None:
    child = world.begin(([step(1)], STOPPED), ([step(2)], 0))
    assert world.ended() is JobState.SUCCEEDED
    assert child.started == 2


def test_a_child_that_somebody_else_stops_each_time_fails_its_job(world: World) -> None:
    child = world.begin(([step(1)], STOPPED))
    assert world.ended() is JobState.FAILED
    assert (world.store.reason("a"), child.started) == ("WORKER_DIED", 3)


def test_a_child_that_nobody_follows_leaves_the_folder_to_the_next(world: World) -> None:
    child = world.begin(([], RUNS), ([step(1)], 0))
    world.until(lambda: child.started == 1)
    child.code = LOCKED
    assert world.ended() is JobState.SUCCEEDED
    assert (child.started, child.asked_for) == (2, [0])


def test_the_end_of_an_earlier_attempt_is_not_that_of_this_one(world: World) -> None:
    child = Child([([], 1), ([step(1)], 0)])
    killed_server(world, child)
    world.store.attempt = 2
    world.go_on(child)
    assert world.ended() is JobState.SUCCEEDED
    assert child.started == 2


def test_a_cancel_is_told_to_the_child(world: World) -> None:
    child = world.begin(([step(1)], RUNS))
    world.until(lambda: child.started == 1)
    world.cancel()
    assert world.ended() is JobState.CANCELLED
    assert (child.code, child.kills) == (STOPPED, 0)


def test_a_child_that_does_not_listen_is_ended_by_a_second_cancel(world: World) -> None:
    child = world.begin(([step(1)], DEAF))
    world.until(lambda: child.started == 1)
    world.cancel()
    time.sleep(0.1)
    assert world.store.state("a") is JobState.CANCELLING
    world.cancel(at_once=True)
    assert world.ended() is JobState.CANCELLED
    assert child.kills == 1
    assert world.store.saved[-1] == 1


def test_a_failure_that_a_child_told_is_kept_though_it_was_cancelled(world: World) -> None:
    child = world.begin(([], DEAF))
    world.until(lambda: child.started == 1)
    world.cancel()
    child._tell(REFUSED)
    child.end(1)
    assert world.ended() is JobState.FAILED


def test_a_stop_ends_the_child_and_the_next_server_starts_another(world: World) -> None:
    child = world.begin(([step(1)], DEAF), ([step(2)], 0))
    world.until(lambda: world.store.saved)
    assert world.engine is not None
    world.engine.stop(PATIENCE_S)
    assert (world.store.state("a"), child.code) == (JobState.QUEUED, KILLED)
    world.go_on(child)
    assert world.ended() is JobState.SUCCEEDED


def test_what_a_child_told_before_a_stop_without_a_database_is_taken_in_by_the_next_server(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = world.begin(([step(1)], RUNS), ([step(2)], RUNS))
    world.until(lambda: world.store.saved)
    monkeypatch.setattr(world.store, "away", 1_000)
    child._tell(step(5))
    child.how = 0
    assert world.engine is not None
    world.engine.stop(PATIENCE_S)
    assert (world.store.state("a"), child.code) == (JobState.RUNNING, STOPPED)
    world.store.away = 0
    world.go_on(child)
    world.until(lambda: child.started == 2)
    assert 5 in world.store.saved


def killed_server(world: World, child: Child) -> None:
    """What a server leaves that was killed while the child ran."""
    world.store.add("a", state=JobState.RUNNING)
    child.start({"attempt": 1})


@pytest.mark.parametrize("ended_meanwhile", [False, True])
def test_the_child_of_a_killed_server_is_followed_on(world: World, ended_meanwhile: bool) -> None:
    child = Child([([step(1)], 0 if ended_meanwhile else RUNS)])
    killed_server(world, child)
    world.go_on(child)
    world.until(lambda: child.adopted)
    child.end(0)
    assert world.ended() is JobState.SUCCEEDED
    assert (child.started, world.store.saved[-1]) == (1, 1)


@pytest.mark.parametrize("code", [KILLED, STOPPED])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_child_that_died_with_its_server_is_replaced_unless_it_was_cancelled(
    world: World, code: int, cancelled: bool
) -> None:
    child = Child([([step(1)], code), ([step(2)], 0)])
    killed_server(world, child)
    if cancelled:
        world.store.change_state("a", [JobState.RUNNING], JobState.CANCELLING)
    world.go_on(child)
    assert world.ended() is (JobState.CANCELLED if cancelled else JobState.SUCCEEDED)
    assert child.started == (1 if cancelled else 2)
    # What it had told was stored.
    assert 1 in world.store.saved


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("noticed_by", ["the keeper", "a write"])
def test_a_lost_job_ends_its_child_unless_another_server_follows_that(
    world: World, owned: bool, noticed_by: str
) -> None:
    world.store.add("a")
    child = Child([([step(1)], RUNS)])
    world.go_on(child, poll_s=0.02 if noticed_by == "the keeper" else PATIENCE_S)
    world.until(lambda: world.store.saved)
    child.owned = owned
    with world.database.write() as session:
        session.execute(update(fake_jobs.leases).values(owner="elsewhere 1 2.0 x"))
    if noticed_by == "a write":
        child._tell(step(2))
    assert world.engine is not None
    world.until(lambda: not world.engine._running)  # type: ignore[union-attr]
    assert child.kills == owned
    assert world.store.state("a") is JobState.RUNNING


def test_a_child_goes_on_while_the_database_is_away(world: World) -> None:
    world.store.away = 5
    world.begin(([step(1)], 0))
    assert world.ended() is JobState.SUCCEEDED
    assert (world.store.away, world.store.saved) == (0, [1])


def test_what_cannot_be_followed_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Child, "log_tail", broken)
    monkeypatch.setattr(CountingAttempt, "update", broken)
    child = world.begin(([step(1)], RUNS))
    assert world.ended() is JobState.FAILED
    world.until(lambda: child.kills == 1)
    assert world.store.reason("a") == "INTERNAL"


def test_threads_are_named_after_their_job(world: World) -> None:
    child = world.begin(([step(1)], RUNS))
    world.until(lambda: child.started == 1)
    assert "job-a" in {thread.name for thread in threading.enumerate()}
