"""The job engine: who runs which job, and how each ends, whatever happens to servers and databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from support import fake_jobs
from support.fake_jobs import Counting, Jobs, engine_of
from support.logged import logged
from support.timing import PATIENCE_S, eventually
from tunix_rt_kit.errors import DomainError, NotFound, ResourceExhausted, Unavailable
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.jobs.run import JobFailed, LeaseLost, Run
from tunix_rt_kit.values import JobError, JobState


@contextmanager
def running(*kinds: Counting) -> Iterator[list[JobEngine]]:
    engines = [engine_of(kind) for kind in kinds]
    for engine in engines:
        engine.start()
    try:
        yield engines
    finally:
        for engine in engines:
            engine.stop(PATIENCE_S)


@contextmanager
def other_process(store: Jobs, lease_s: float) -> Iterator[subprocess.Popen[str]]:
    """Another server on the same database; ended with the block, if it runs by then."""
    url = store.database.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "support.fake_jobs", url, str(lease_s)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def has_succeeded(store: Jobs, *job_ids: str) -> bool:
    return all(store.state(job_id) is JobState.SUCCEEDED for job_id in job_ids)


def test_jobs_run_oldest_first_and_one_at_a_time(store: Jobs) -> None:
    store.add("b", "a", "c")
    kind = Counting(store, most=2)
    seen: list[list[str]] = []
    with running(kind) as (engine,):
        kind.at_step = lambda _: seen.append(engine.running(kind))
        eventually(lambda: has_succeeded(store, "a", "b", "c"))
    assert kind.begun == ["a", "b", "c"]
    assert {len(ids) for ids in seen} == {1}
    assert store.owners() == {}


def test_slots_run_side_by_side(sqlite: Jobs) -> None:
    sqlite.add("a", "b", "c")
    kind = Counting(sqlite, slots=2, most=10_000)
    with running(kind) as (engine,):
        eventually(lambda: sorted(kind.begun) == ["a", "b"])
        time.sleep(0.2)
        assert sorted(engine.running(kind)) == ["a", "b"] and len(kind.begun) == 2


def test_a_job_that_is_stuck_does_not_keep_its_process(sqlite: Jobs) -> None:
    sqlite.add("a")
    kind = Counting(sqlite, most=sys.maxsize)
    with running(kind):
        eventually(lambda: kind.begun)
        threads = {thread.name: thread.daemon for thread in threading.enumerate()}
    assert threads["job-engine"] and threads["counting-a"]


def test_no_slots_is_a_mistake(sqlite: Jobs) -> None:
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        Counting(sqlite, slots=0)


def test_a_server_sees_what_it_is_given_at_once_and_what_others_are_soon(sqlite: Jobs) -> None:
    kind = Counting(sqlite, most=1)
    engine = engine_of(kind, poll_s=PATIENCE_S)
    engine.start()
    time.sleep(0.1)
    sqlite.add("a")
    engine.wake()
    eventually(lambda: has_succeeded(sqlite, "a"))
    sqlite.add("c", state=JobState.CANCELLING)
    engine.cancel("c")
    eventually(lambda: sqlite.state("c") is JobState.CANCELLED)
    told = time.monotonic()
    engine.stop(PATIENCE_S)
    assert time.monotonic() - told < PATIENCE_S / 2
    with running(kind):
        sqlite.add("b")
        eventually(lambda: has_succeeded(sqlite, "b"))


def test_an_engine_that_only_ends_jobs_starts_none(sqlite: Jobs) -> None:
    sqlite.add("a")
    sqlite.add("b", state=JobState.CANCELLING)
    kind = Counting(sqlite)
    engine = engine_of(kind)
    engine.start(only_ends=True)
    eventually(lambda: sqlite.state("b") is JobState.CANCELLED)
    engine.stop(PATIENCE_S)
    assert (sqlite.state("a"), kind.begun) == (JobState.QUEUED, ["b"])


def test_a_job_that_is_queued_again_runs_again(sqlite: Jobs) -> None:
    sqlite.add("a")
    kind = Counting(sqlite, most=1)
    with running(kind) as (engine,):
        eventually(lambda: has_succeeded(sqlite, "a"))
        sqlite.change_state("a", [JobState.SUCCEEDED], JobState.QUEUED)
        engine.wake()
        eventually(lambda: sqlite.ends("a") == 2)


def test_two_servers_share_the_work_and_do_none_of_it_twice(store: Jobs) -> None:
    names = [f"{number:02}" for number in range(12)]
    store.add(*names)
    both = threading.Event()
    kinds: list[Counting] = []

    def wait_for_both(_: Run) -> None:
        if all(kind.begun for kind in kinds):
            both.set()
        both.wait(PATIENCE_S)

    kinds += [Counting(store, most=3, at_step=wait_for_both) for _ in range(2)]
    with running(*kinds):
        eventually(lambda: has_succeeded(store, *names))
    assert [store.ends(name) for name in names] == [1] * 12
    assert sorted(kinds[0].begun + kinds[1].begun) == names
    assert both.is_set()


def test_the_jobs_of_a_server_that_was_killed_go_on_with_another(store: Jobs) -> None:
    store.add("a", "b")
    killed = threading.Event()
    kind = Counting(store, slots=2, most=sys.maxsize, at_step=lambda _: killed.wait(PATIENCE_S))
    with other_process(store, lease_s=3_600.0) as process:
        eventually(lambda: store.steps("a") > 2 and store.steps("b") > 2)
        with running(kind):
            time.sleep(0.2)
            assert kind.begun == []
            process.kill()
            process.wait()
            kind.most = max(store.steps("a"), store.steps("b")) + 5
            killed.set()
            eventually(lambda: has_succeeded(store, "a", "b"))
    assert sorted(kind.begun) == ["a", "b"]
    assert (store.ends("a"), store.steps("a"), store.steps("b")) == (1, kind.most, kind.most)


def test_a_server_that_was_suspended_for_too_long_stores_nothing_more(store: Jobs) -> None:
    store.add("a")
    awake = threading.Event()
    kind = Counting(store, most=sys.maxsize, at_step=lambda _: awake.wait(PATIENCE_S))
    with other_process(store, lease_s=1.0) as process:
        assert process.stdout is not None
        eventually(lambda: store.steps("a") > 2)
        # Not while it writes: what it has locked would stay so.
        with store.database.write() as session:
            session.execute(select(fake_jobs.leases).with_for_update())
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
        with running(kind):
            eventually(lambda: kind.begun == ["a"])
            kind.most = store.steps("a") + 5
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == "over\n"
            # A step that it had stored would fail the job here.
            awake.set()
            eventually(lambda: has_succeeded(store, "a"))
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
    assert (store.ends("a"), store.steps("a")) == (1, kind.most)


def test_the_leases_of_jobs_that_run_are_renewed_three_times_in_their_length(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands still, for a busy machine may come late."""
    now, looks, renewed = 0.0, 0, []
    leases, renew = SqlLeases.all, SqlLeases.renew

    def look(of: SqlLeases) -> Any:
        nonlocal looks
        looks += 1
        return leases(of)

    def keep(of: SqlLeases, job_ids: Any) -> None:
        renewed.append((now, job_ids))
        renew(of, job_ids)

    def at(moment: float) -> None:
        nonlocal now
        now, before = moment, looks
        eventually(lambda: looks > before + 3)

    monkeypatch.setattr("tunix_rt_kit.jobs.engine.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(SqlLeases, "all", look)
    monkeypatch.setattr(SqlLeases, "renew", keep)
    kind = Counting(sqlite, most=sys.maxsize)
    engine = engine_of(kind, lease_s=30.0, poll_s=0.01)
    engine.start()
    at(0.0)
    sqlite.add("a")
    eventually(lambda: renewed)
    for moment in (0.0, 1.0, 9.9, 10.0, 10.1, 19.9, 21.0, 30.9):
        at(moment)
    engine.stop(PATIENCE_S)
    assert renewed == [(0.0, ["a"]), (10.0, ["a"]), (21.0, ["a"])]


def test_a_server_that_stops_leaves_its_jobs_to_others_at_once(store: Jobs) -> None:
    store.add("a", "b")
    first, second = Counting(store, most=100), Counting(store, most=10)
    with running(first) as (engine,):
        eventually(lambda: store.steps("a") > 1)
        engine.stop(PATIENCE_S)
        assert store.state("a") is JobState.QUEUED
        assert store.owners() == {}
        with running(second):
            eventually(lambda: has_succeeded(store, "a", "b"))
    assert first.begun == ["a"]


def test_a_stop_does_not_wait_longer_than_its_grace_and_what_still_runs_stores_nothing(
    store: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tunix_rt.jobs")
    store.add("a")
    release, raised, graces = threading.Event(), [], []

    def stubborn(run: Run) -> None:
        if store.steps("a") == 2:
            release.wait(PATIENCE_S)
            graces.append(run.grace_s)
            run.check = lambda: None  # type: ignore[method-assign]
            try:
                store.add_step("a", 7)
            except LeaseLost as error:
                raised.append(error)
                raise

    with running(Counting(store, at_step=stubborn)) as (engine,):
        eventually(lambda: store.steps("a") == 2)
        engine.stop(0.05)
        assert store.owners() == {}
        release.set()
        eventually(lambda: logged(caplog, "job_lost"))
    assert raised and graces == [0.05]
    assert logged(caplog, "jobs_left") == [{"jobs": ["a"]}]
    assert logged(caplog, "job_lost") == [{"job": "a"}]
    assert store.steps("a") == 2
    assert store.state("a") is JobState.RUNNING


@pytest.mark.parametrize("how", ["taken", "gone"])
def test_a_run_whose_lease_is_lost_ends(store: Jobs, how: str, caplog: pytest.LogCaptureFixture) -> None:
    store.add("a")
    ended: list[Exception] = []

    class Kind(Counting):
        def work(self, run: Run) -> None:
            try:
                run.confirm()
                run.pause(2 * PATIENCE_S)
            except LeaseLost as error:
                with pytest.raises(LeaseLost):
                    run.confirm()
                ended.append(error)
                raise

    elsewhere = {"a": "elsewhere 1 2.0 x"}
    with running(Kind(store)):
        eventually(lambda: "a" in store.owners())
        with store.database.write() as session:
            session.execute(update(fake_jobs.leases).values(owner=elsewhere["a"]))
            if how == "gone":
                session.execute(delete(fake_jobs.leases))
        eventually(lambda: logged(caplog, "job_lost"))
        assert how == "gone" or store.owners() == elsewhere
    assert [str(error) for error in ended] == ["a"]
    assert logged(caplog, "job_lost") == [{"job": "a"}]
    assert store.state("a") is JobState.QUEUED


@pytest.mark.parametrize("by_another", [False, True])
def test_a_job_is_cancelled_whichever_server_is_asked(store: Jobs, by_another: bool) -> None:
    store.add("a")
    runs: list[Run] = []
    kind = Counting(store, most=10_000, at_step=runs.append)
    with running(kind) as (engine,):
        eventually(lambda: store.steps("a") > 1)
        asked = engine_of(kind) if by_another else engine
        store.change_state("a", [JobState.RUNNING], JobState.CANCELLING)
        asked.cancel("a")
        eventually(lambda: store.state("a") is JobState.CANCELLED)
        assert store.ends("a") == 1
        assert not runs[-1].at_once.is_set()


@pytest.mark.parametrize("by_another", [False, True])
def test_a_job_ends_at_once_whichever_server_is_asked(store: Jobs, by_another: bool) -> None:
    store.add("a")
    runs: list[Run] = []
    kind = Counting(store, most=10_000, at_step=runs.append)
    with running(kind) as (engine,):
        eventually(lambda: store.steps("a") > 1)
        (engine_of(kind) if by_another else engine).cancel("a", at_once=True)
        eventually(lambda: store.state("a") is JobState.CANCELLED)
        assert runs[-1].at_once.is_set()


def test_a_second_wish_to_cancel_ends_a_job_at_once_and_a_third_changes_nothing(sqlite: Jobs) -> None:
    sqlite.add("a", "b")
    runs: list[Run] = []
    kind = Counting(sqlite, at_step=lambda run: (runs.append(run), run.at_once.wait(PATIENCE_S)))
    with running(kind) as (engine,):
        eventually(lambda: runs)
        engine.ask_to_cancel("b", sqlite)
        assert (sqlite.state("a"), sqlite.state("b")) == (JobState.RUNNING, JobState.CANCELLED)
        engine.ask_to_cancel("a", sqlite)
        assert sqlite.state("a") is JobState.CANCELLING
        assert runs[0].cancelled.is_set() and not runs[0].at_once.is_set()
        engine.ask_to_cancel("a", sqlite)
        assert runs[0].at_once.is_set()
        eventually(lambda: sqlite.state("a") is JobState.CANCELLED)
        engine.ask_to_cancel("a", sqlite)
    assert (sqlite.state("a"), sqlite.ends("a"), len(runs)) == (JobState.CANCELLED, 1, 1)


def test_a_job_whose_server_died_while_it_was_cancelled_ends_though_all_slots_are_taken(store: Jobs) -> None:
    store.add("a")
    kind = Counting(store, most=10_000)
    with running(kind):
        eventually(lambda: kind.begun == ["a"])
        store.add("b", state=JobState.CANCELLING)
        eventually(lambda: store.state("b") is JobState.CANCELLED)
        assert store.state("a") is JobState.RUNNING


GONE = NotFound("it is gone", reason="THING_GONE", metadata={"thing": "x"})
FAILURES = {
    GONE: JobError(code="NOT_FOUND", reason="THING_GONE", message="it is gone", metadata={"thing": "x"}),
    JobFailed(JobError(code="INTERNAL", reason="DIED", message="it died")): JobError(
        code="INTERNAL", reason="DIED", message="it died"
    ),
    ValueError("a bug"): JobError(
        code="INTERNAL", reason="INTERNAL", message="it failed; the server's log says why"
    ),
}


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_what_a_job_raises_is_its_failure_and_the_next_runs(
    sqlite: Jobs, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(run: Run) -> None:
        if run.job_id == "a":
            raise error

    stored: list[JobError | None] = []
    change_state = Jobs.change_state

    def change(*arguments: Any, **more: Any) -> bool:
        stored.append(more.get("error"))
        return change_state(*arguments, **more)

    monkeypatch.setattr(Jobs, "change_state", change)
    sqlite.add("a", "b")
    with running(Counting(sqlite, at_step=fail)):
        eventually(lambda: has_succeeded(sqlite, "b"))
    failure = FAILURES[error]
    assert (sqlite.state("a"), sqlite.reason("a")) == (JobState.FAILED, failure.reason)
    assert [told for told in stored if told is not None] == [failure]
    line = {"job": "a", "reason": failure.reason, "message": failure.message}
    assert logged(caplog, "job_failed") == [line]
    # Where the message says nothing, the log does.
    told = [] if failure.reason != "INTERNAL" else [{"job": "a", "exc_info": error}]
    assert logged(caplog, "job_failed_unexpectedly") == told


@pytest.mark.parametrize(
    ("state", "then", "waits"),
    [
        ("RUNNING", JobState.QUEUED, True),
        ("CANCELLING", JobState.CANCELLED, False),
        ("FAILED", JobState.FAILED, False),
    ],
)
def test_a_job_is_put_back_unless_it_was_to_end(
    sqlite: Jobs, state: str, then: JobState, waits: bool
) -> None:
    sqlite.add("a", "b", state=JobState(state))
    assert Counting(sqlite).requeue("a") is waits
    assert (sqlite.state("a"), sqlite.state("b")) == (then, JobState(state))


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ResourceExhausted("the database is full", reason="DATABASE_FULL"),
        RuntimeError("anything"),
    ],
)
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_failure_that_cannot_be_stored_is_stored_once_it_can(
    sqlite: Jobs, error: Exception, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for a while: neither the failure nor what failed may keep the job for ever."""
    change_state, left, refused = Jobs.change_state, 3, threading.Event()

    def change(store: Jobs, job_id: str, expected: Any, state: JobState, **more: Any) -> bool:
        nonlocal left
        if state is JobState.FAILED and left:
            left -= 1
            refused.set()
            raise error
        return change_state(store, job_id, expected, state, **more)

    monkeypatch.setattr(Jobs, "change_state", change)

    def full(_: Run) -> None:
        raise error

    sqlite.add("a")
    with running(Counting(sqlite, at_step=full)):
        refused.wait(PATIENCE_S)
        if cancelled:
            sqlite.change_state("a", [JobState.RUNNING], JobState.CANCELLING)
        eventually(lambda: sqlite.state("a").ended)
    assert (left, sqlite.state("a")) == (0, JobState.FAILED)


def test_an_end_that_cannot_be_stored_before_the_server_stops_is_logged(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change_state, refused, error = Jobs.change_state, threading.Event(), RuntimeError("no room")

    def change(store: Jobs, job_id: str, expected: Any, state: JobState, **more: Any) -> bool:
        if state.ended:
            refused.set()
            raise error
        return change_state(store, job_id, expected, state, **more)

    monkeypatch.setattr(Jobs, "change_state", change)
    sqlite.add("a")
    with running(Counting(sqlite, most=0)):
        refused.wait(PATIENCE_S)
    assert logged(caplog, "job_failed_unexpectedly") == [{"job": "a", "exc_info": error}]
    assert logged(caplog, "job_end_not_recorded") == [{"job": "a", "exc_info": error}]
    assert sqlite.owners() == {}


def test_a_queue_that_cannot_be_read_for_a_while_is_read_again(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bug = RuntimeError("a bug")
    errors = [Unavailable("away", reason="DATABASE_UNAVAILABLE"), bug]
    unfinished = Jobs.unfinished

    def read(store: Jobs) -> Any:
        if errors:
            raise errors.pop()
        return unfinished(store)

    with running(Counting(sqlite, most=1)):
        monkeypatch.setattr(Jobs, "unfinished", read)
        sqlite.add("a")
        eventually(lambda: has_succeeded(sqlite, "a"))
    assert logged(caplog, "queue_away") == [{"error": "away"}]
    assert logged(caplog, "queue_not_read") == [{"exc_info": bug}]


def test_a_server_does_not_start_where_the_queue_cannot_be_read(sqlite: Jobs) -> None:
    fake_jobs.leases.drop(sqlite.database.engine)
    with pytest.raises(DomainError):
        engine_of(Counting(sqlite)).start()


def test_what_runs_is_taken_up_before_what_waits(sqlite: Jobs) -> None:
    sqlite.add("a", "c")
    sqlite.add("b", state=JobState.RUNNING)
    kind = Counting(sqlite, most=1)
    with running(kind):
        eventually(lambda: has_succeeded(sqlite, "a", "b", "c"))
    assert kind.begun == ["b", "a", "c"]


def test_a_job_whose_thread_cannot_be_started_is_left_and_tried_again(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "counting-a" and not logged(caplog, "job_not_started"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    sqlite.add("a")
    engine = engine_of(Counting(sqlite, most=1), poll_s=2 * PATIENCE_S)
    engine.start()
    eventually(lambda: logged(caplog, "job_not_started"))
    eventually(lambda: not sqlite.owners())
    engine.wake()
    eventually(lambda: has_succeeded(sqlite, "a"))
    engine.stop(PATIENCE_S)
    assert logged(caplog, "job_not_started") == [{"job": "a", "error": "can't start new thread"}]


def test_the_lease_of_a_job_that_ended_with_its_server_is_forgotten(store: Jobs) -> None:
    store.add("a", state=JobState.SUCCEEDED)
    with store.database.write() as session:
        session.execute(
            insert(fake_jobs.leases).values(job_id="a", owner="x 1 2.0 y", expires=0, at_once=False)
        )
    with running(Counting(store)):
        eventually(lambda: not store.owners())
    assert store.ends("a") == 0


def test_a_cancel_reaches_a_job_that_is_put_back_meanwhile(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, times = Jobs.change_state, 0

    def put_back(store: Jobs, job_id: str, expected: Any, state: JobState, **changed: Any) -> bool:
        nonlocal times
        times += 1
        if times == 2:
            # Between the two changes, as another server that stops does it.
            change(store, job_id, [JobState.RUNNING], JobState.QUEUED)
        return change(store, job_id, expected, state, **changed)

    sqlite.add("a", state=JobState.RUNNING)
    monkeypatch.setattr(Jobs, "change_state", put_back)
    engine_of(Counting(sqlite)).ask_to_cancel("a", sqlite)
    assert sqlite.state("a") is JobState.CANCELLED


def test_a_job_whose_storage_is_away_when_the_server_stops_goes_on_later(sqlite: Jobs) -> None:
    def away(run: Run) -> None:
        run.stopping.wait(PATIENCE_S)
        raise Unavailable("away", reason="STORAGE_UNAVAILABLE")

    sqlite.add("a")
    with running(Counting(sqlite, at_step=away)):
        eventually(lambda: sqlite.state("a") is JobState.RUNNING)
    assert sqlite.state("a") is JobState.QUEUED


def test_a_lease_that_could_not_be_released_is_no_hindrance(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release, failed = SqlLeases.release, threading.Event()

    def fail_once(leases: SqlLeases, job_id: str) -> None:
        if not failed.is_set():
            failed.set()
            raise Unavailable("away", reason="DATABASE_UNAVAILABLE")
        release(leases, job_id)

    monkeypatch.setattr(SqlLeases, "release", fail_once)
    sqlite.add("a")
    with running(Counting(sqlite, most=1)) as (engine,):
        eventually(lambda: failed.is_set() and has_succeeded(sqlite, "a"))
        assert set(sqlite.owners()) == {"a"}
        sqlite.change_state("a", [JobState.SUCCEEDED], JobState.QUEUED)
        engine.wake()
        eventually(lambda: sqlite.ends("a") == 2)
    (line,) = logged(caplog, "lease_not_released")
    assert line["job"] == "a" and "away" in line["error"]
