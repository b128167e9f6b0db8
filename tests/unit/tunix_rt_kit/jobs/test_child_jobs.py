"""Jobs whose work a child process does, with a child that acts as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from support import fake_jobs
from support.fake_children import (
    BUG,
    DEAF,
    HANGS,
    REFUSED,
    RUNS,
    Child,
    CountingAttempt,
    Kind,
    World,
    step,
)
from support.logged import logged
from support.timing import PATIENCE_S
from tunix_rt_kit.jobs.child_jobs import AttemptFacts
from tunix_rt_kit.jobs.files import LOCKED
from tunix_rt_kit.jobs.process import KILLED, STOPPED
from tunix_rt_kit.values import JobError, JobState, Progress, StageTiming


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
    assert world.store.saved_of == {"a"}
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


def test_a_child_that_is_killed_again_and_again_fails_its_job(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    child = world.begin(([step(1)], KILLED))
    assert world.ended() is JobState.FAILED
    assert (world.store.reason("a"), child.started) == ("WORKER_DIED", 3)
    assert world.store.error.message == (
        "the counting process was ended by signal 9 (SIGKILL), as happens when memory runs out, 3 times in a "
        "row without a new step; its last line of output: about to count"
    )
    line = {"job": "a", "code": KILLED, "step": 1}
    assert logged(caplog, "worker_died") == [{**line, "deaths": number} for number in (1, 2, 3)]


def test_deaths_are_counted_since_the_furthest_step(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.begin(*(([step(number)] if number else [], KILLED) for number in (0, 2, 1, 3, 3, 1)))
    assert world.ended() is JobState.FAILED
    assert [line["deaths"] for line in logged(caplog, "worker_died")] == [1, 1, 2, 1, 2, 3]


def test_a_bug_of_a_child_is_told_with_the_end_of_its_log(world: World) -> None:
    world.begin(([{"kind": "stage", "stage": "one"}, {"kind": "stage", "stage": "two"}, BUG], 1))
    assert world.ended() is JobState.FAILED
    assert world.store.error.message == "a bug"
    assert world.store.error.metadata == {"log_tail": "about to count"}


def test_a_child_that_hangs_is_killed_and_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    killed_here: list[bool] = []
    monkeypatch.setattr(
        CountingAttempt, "may_go_on", property(lambda self: killed_here.append(self.killed_here) or True)
    )
    child = world.begin(([step(1)], HANGS), ([step(2)], KILLED), ([step(3)], 0))
    assert world.ended() is JobState.SUCCEEDED
    assert (child.started, child.kills) == (3, 1)
    assert logged(caplog, "worker_hung") == [{"job": "a", "silent_s": 1_000}]
    assert killed_here == [True, False]


def test_a_child_that_is_silent_for_a_while_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kind, "hung_s", 1_000.0)
    child = world.begin(([step(1)], HANGS))
    world.until(lambda: world.store.saved)
    time.sleep(0.1)
    assert child.kills == 0


def test_a_job_that_was_killed_for_good_is_not_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CountingAttempt, "may_go_on", False)
    child = world.begin(([step(1)], KILLED))
    assert world.ended() is JobState.FAILED
    assert child.started == 1


def test_what_a_child_does_not_end_by_itself_is_ended_after_its_job(world: World) -> None:
    """A warm worker, which waits for the next job."""
    child = world.begin(([step(1)], RUNS))
    world.until(lambda: child.started == 1)
    child._tell({"kind": "exit", "code": 0})
    assert world.ended() is JobState.SUCCEEDED
    world.until(lambda: child.kills == 1)
    assert child.waits == [30.0]


def test_how_far_a_job_has_come_is_stored_twice_a_second_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands still."""
    now, rounds = 1_000.0, 0

    def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        time.sleep(0.005)

    def at(moment: float, *events: dict[str, Any]) -> list[int]:
        nonlocal now
        now, before = moment, rounds
        child._tell(*events)
        world.until(lambda: rounds > before + 2)
        return world.store.saved

    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    monkeypatch.setattr("tunix_rt_kit.jobs.child_jobs.time", clock)
    child = world.begin(([step(1)], RUNS))
    world.until(lambda: world.store.saved)
    assert at(1_000.0) == [1]
    assert at(1_000.4, step(2)) == [1]
    assert at(1_000.5) == [1, 2]
    assert at(1_000.9, step(3)) == [1, 2]
    # Only what is new.
    assert at(1_001.0) == at(1_002.0) == [1, 2, 3]


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("cancelled", [True, False])
def test_a_child_that_ended_well_in_spite_of_a_cancel_succeeds_if_all_was_done(
    world: World, monkeypatch: pytest.MonkeyPatch, complete: bool, cancelled: bool
) -> None:
    monkeypatch.setattr(CountingAttempt, "complete", complete)
    child = world.begin(([step(1)], DEAF))
    world.until(lambda: child.started == 1)
    if cancelled:
        world.cancel()
    child.end(0)
    succeeds = complete or not cancelled
    assert world.ended() is (JobState.SUCCEEDED if succeeds else JobState.CANCELLED)


def test_a_wish_to_cancel_that_only_the_database_knows_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CountingAttempt, "complete", False)
    world.store.add("a")
    child = world.go_on(Child([([step(1)], DEAF)]), poll_s=PATIENCE_S)
    world.until(lambda: child.started == 1)
    world.store.change_state("a", [JobState.RUNNING], JobState.CANCELLING)
    child.end(0)
    assert world.ended() is JobState.CANCELLED


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
    assert child.waits == []


@pytest.mark.parametrize("by", ["a second cancel", "a stop"])
def test_a_cancelled_child_that_told_its_end_and_goes_on_keeps_no_job_from_its_end(
    world: World, by: str
) -> None:
    child = world.begin(([step(1)], DEAF))
    child.lingers = True
    world.until(lambda: child.started == 1)
    world.cancel()
    child._tell({"kind": "exit", "code": STOPPED})
    world.until(lambda: child.waits)
    assert world.store.state("a") is JobState.CANCELLING
    assert world.engine is not None
    world.engine.stop(PATIENCE_S) if by == "a stop" else world.cancel(at_once=True)
    assert world.ended() is JobState.CANCELLED
    assert child.kills == 1


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
    assert child.waits == [Kind.saving_share * PATIENCE_S]
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
    world.until(lambda: not world.engine.running(world.kind))  # type: ignore[union-attr]
    assert child.kills == owned
    assert world.store.state("a") is JobState.RUNNING


def test_a_child_goes_on_while_the_database_is_away(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.store.away = 2
    child = world.begin(([step(1)], RUNS))
    world.until(lambda: world.store.away < 2)
    child.end(0)
    assert world.ended() is JobState.SUCCEEDED
    assert (world.store.away, world.store.saved) == (0, [1])
    assert {"job": "a", "error": "the database is away"} in logged(caplog, "storage_away")


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


# What a child told, and what is said of its end.


class OwnFacts(AttemptFacts):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.own: list[tuple[str, dict[str, Any], bool]] = []

    def take_own(self, kind: str, fields: Mapping[str, Any], *, current: bool) -> None:
        self.own.append((kind, dict(fields), current))


def stage(name: str, at: float) -> dict[str, Any]:
    return {"kind": "stage", "time": at, "stage": name, "total": 4, "unit": "steps"}


TOLD: list[dict[str, Any]] = [
    stage("of nobody", 1.0),
    {"kind": "attempt", "time": 2.0, "number": 1},
    stage("loading", 2.0),
    {"time": 3.0, **REFUSED},
    {"kind": "exit", "time": 5.0, "code": 1},
    {"kind": "attempt", "time": 6.0, "number": 2},
    stage("loading", 10.0),
    {"kind": "note", "time": 11.0, "text": "half"},
    {"time": 11.0, **step(2)},
    stage("counting", 12.5),
    stage("loading", 14.0),
    # The clock was set back.
    stage("counting", 13.0),
    {"kind": "exit", "time": 20.0, "code": 0},
]


@pytest.mark.parametrize("at_once", [True, False])
def test_the_facts_of_an_attempt_are_those_that_its_child_told(at_once: bool) -> None:
    first, second = OwnFacts(1), OwnFacts(2)
    for facts in (first, second):
        for events in [TOLD] if at_once else [[event] for event in TOLD]:
            facts.take(events)
    assert first.stage_timings == (StageTiming(stage="loading", duration_s=3.0),)
    assert first.error is not None and first.error.reason == "THING_NOT_FOUND"
    assert (first.progress, first.exit_code) == (Progress(stage="loading", total=4, unit="steps"), 1)
    assert second.stage_timings == (
        StageTiming(stage="loading", duration_s=2.5),
        StageTiming(stage="counting", duration_s=8.5),
    )
    assert (second.progress, second.exit_code) == (Progress(stage="counting", total=4, unit="steps"), 0)
    assert second.error is None
    assert ("note", {"text": "half"}, True) in second.own
    assert ("note", {"text": "half"}, False) in first.own
    assert [current for _, _, current in second.own] == [False] * 4 + [True] * 7


def test_progress_is_what_was_told_last_and_nothing_has_ended_before_it_did() -> None:
    facts = AttemptFacts(2)
    facts.take(TOLD[5:9])
    assert facts.progress == Progress(stage="counting", completed=2)
    assert (facts.exit_code, facts.stage_timings) == (None, ())


@pytest.mark.parametrize(
    ("code", "deaths", "said"),
    [
        (7, 0, "ended with exit code 7"),
        (0, 0, "ended with exit code 0"),
        (None, 1, "ended with exit code None"),
        (STOPPED, 2, "was asked to stop by another program, 2 times in a row without a new step"),
        (-11, 1, "was ended by signal 11 (SIGSEGV)"),
        (-99, 1, "was ended by signal 99 (unknown)"),
        (KILLED, 1, "was ended by signal 9 (SIGKILL), as happens when memory runs out"),
    ],
)
def test_the_error_of_a_job_says_how_its_child_ended(
    world: World, code: int | None, deaths: int, said: str
) -> None:
    world.store.add("a")
    error = world.attempt(Child([], output=[])).error(code, deaths)
    assert error == JobError(
        code="INTERNAL",
        reason="WORKER_DIED",
        message=f"the counting process {said}",
        metadata={"log_tail": ""},
    )


def test_the_error_of_a_job_holds_the_end_of_what_its_child_wrote(world: World) -> None:
    world.store.add("a")
    child = Child([], output=[f"line {number}" for number in range(60)])
    child.output[-2:] = [" ", "  last " + 300 * "x" + "y"]
    error = world.attempt(child).error(1, 0)
    assert error.message.endswith(f"; its last line of output: last {295 * 'x'}")
    lines = [f"line {number}" for number in range(30, 58)]
    assert error.metadata == {"log_tail": "\n".join([*lines, child.output[-1]])}
    child.output = [4_000 * "x", "end"]
    assert world.attempt(child).error(1, 0).metadata == {"log_tail": 3_996 * "x" + "\nend"}
