"""The job engine: who runs which job, and how each ends, whatever happens to servers and databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from support import fake_jobs
from support.fake_jobs import Counting, Jobs, engine_of
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import DomainError, NotFound, ResourceExhausted, Unavailable
from tunix_rt_kit.jobs import JobCancelled, JobEngine, JobInterrupted, Run
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.jobs.run import LeaseLost
from tunix_rt_kit.values import JobState

PATIENCE_S = 20.0


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.fixture
def store(database_url: str) -> Iterator[Jobs]:
    database = Database(database_url)
    fake_jobs.metadata.create_all(database.engine)
    yield Jobs(database)
    database.close()


@pytest.fixture
def sqlite(tmp_path: Any) -> Iterator[Jobs]:
    """For what hangs on no database."""
    database = Database(f"sqlite:///{tmp_path}/test.db")
    fake_jobs.metadata.create_all(database.engine)
    yield Jobs(database)
    database.close()


@contextmanager
def running(*kinds: Counting, lease_s: float = 30.0) -> Iterator[list[JobEngine]]:
    engines = [engine_of(kind, lease_s) for kind in kinds]
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


def owners(store: Jobs) -> dict[str, str]:
    with store.database.read() as session:
        return {row.job_id: row.owner for row in session.execute(select(fake_jobs.leases))}


def test_jobs_run_oldest_first_and_one_at_a_time(store: Jobs) -> None:
    store.add("b", "a", "c")
    kind = Counting(store, most=2)
    seen: list[list[str]] = []
    with running(kind) as (engine,):
        kind.at_step = lambda _: seen.append(engine.running(kind))
        until(lambda: has_succeeded(store, "a", "b", "c"))
    assert kind.begun == ["a", "b", "c"]
    assert {len(ids) for ids in seen} == {1}
    assert owners(store) == {}


def test_slots_run_side_by_side(sqlite: Jobs) -> None:
    sqlite.add("a", "b", "c")
    kind = Counting(sqlite, slots=2, most=10_000)
    with running(kind) as (engine,):
        until(lambda: sorted(kind.begun) == ["a", "b"])
        time.sleep(0.2)
        assert sorted(engine.running(kind)) == ["a", "b"] and len(kind.begun) == 2


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
    until(lambda: has_succeeded(sqlite, "a"))
    sqlite.add("c", state=JobState.CANCELLING)
    engine.cancel("c")
    until(lambda: sqlite.state("c") is JobState.CANCELLED)
    told = time.monotonic()
    engine.stop(PATIENCE_S)
    assert time.monotonic() - told < PATIENCE_S / 2
    with running(kind):
        sqlite.add("b")
        until(lambda: has_succeeded(sqlite, "b"))


def test_a_job_that_is_queued_again_runs_again(sqlite: Jobs) -> None:
    sqlite.add("a")
    kind = Counting(sqlite, most=1)
    with running(kind) as (engine,):
        until(lambda: has_succeeded(sqlite, "a"))
        sqlite.change_state("a", [JobState.SUCCEEDED], JobState.QUEUED)
        engine.wake()
        until(lambda: sqlite.ends("a") == 2)


def test_two_servers_share_the_work_and_do_none_of_it_twice(store: Jobs) -> None:
    names = [f"{number:02}" for number in range(12)]
    store.add(*names)
    kinds = [Counting(store, most=3) for _ in range(2)]
    with running(*kinds):
        until(lambda: has_succeeded(store, *names))
    assert [store.ends(name) for name in names] == [1] * 12
    assert sorted(kinds[0].begun + kinds[1].begun) == names
    assert all(kind.begun for kind in kinds)


def test_the_jobs_of_a_server_that_was_killed_go_on_with_another(store: Jobs) -> None:
    store.add("a", "b")
    with other_process(store, lease_s=3_600.0) as process:
        until(lambda: store.steps("a") > 2 and store.steps("b") > 2)
        kind = Counting(store, slots=2, most=40)
        with running(kind):
            time.sleep(0.2)
            assert kind.begun == []
            process.kill()
            process.wait()
            until(lambda: has_succeeded(store, "a", "b"))
    assert sorted(kind.begun) == ["a", "b"]
    assert (store.ends("a"), store.steps("a")) == (1, 40)


def test_a_server_that_was_suspended_for_too_long_stores_nothing_more(store: Jobs) -> None:
    store.add("a")
    with other_process(store, lease_s=0.5) as process:
        until(lambda: store.steps("a") > 2)
        # Not while it writes: what it has locked would stay so.
        with store.database.write() as session:
            session.execute(select(fake_jobs.leases).with_for_update())
            process.send_signal(signal.SIGSTOP)
        kind = Counting(store, most=40, pause_s=0.05)
        with running(kind, lease_s=30.0):
            until(lambda: kind.begun == ["a"])
            process.send_signal(signal.SIGCONT)
            until(lambda: has_succeeded(store, "a"))
            assert process.poll() is None
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
    # A step that both had stored would have failed the job.
    assert (store.ends("a"), store.steps("a")) == (1, 40)


def test_a_lease_is_kept_as_long_as_its_server_runs_the_job(store: Jobs) -> None:
    store.add("a")
    kinds = [Counting(store, most=40, pause_s=0.05) for _ in range(2)]
    with running(*kinds, lease_s=0.4):
        until(lambda: has_succeeded(store, "a"))
    assert sorted(kinds[0].begun + kinds[1].begun) == ["a"]


def test_a_server_that_stops_leaves_its_jobs_to_others_at_once(store: Jobs) -> None:
    store.add("a", "b")
    first, second = Counting(store, most=100), Counting(store, most=10)
    with running(first, lease_s=3_600.0) as (engine,):
        until(lambda: store.steps("a") > 1)
        engine.stop(PATIENCE_S)
        assert store.state("a") is JobState.QUEUED
        assert owners(store) == {}
        with running(second):
            until(lambda: has_succeeded(store, "a", "b"))
    assert first.begun == ["a"]


def test_a_stop_does_not_wait_longer_than_its_grace_and_what_still_runs_stores_nothing(store: Jobs) -> None:
    store.add("a")
    release, raised = threading.Event(), []

    def stubborn(run: Run) -> None:
        if store.steps("a") == 2:
            release.wait(PATIENCE_S)
            run.check = lambda: None  # type: ignore[method-assign]
            try:
                store.add_step("a", 7)
            except LeaseLost as error:
                raised.append(error)
                raise

    with running(Counting(store, at_step=stubborn)) as (engine,):
        until(lambda: store.steps("a") == 2)
        engine.stop(0.05)
        assert owners(store) == {}
        release.set()
        until(lambda: raised)
    assert store.steps("a") == 2
    assert store.state("a") is JobState.RUNNING


def test_a_run_whose_lease_is_lost_ends(store: Jobs) -> None:
    store.add("a")
    ended: list[Exception] = []

    class Kind(Counting):
        def work(self, run: Run) -> None:
            try:
                run.pause(PATIENCE_S)
            except LeaseLost as error:
                ended.append(error)
                raise

    with running(Kind(store)):
        until(lambda: "a" in owners(store))
        with store.database.write() as session:
            session.execute(update(fake_jobs.leases).values(owner="elsewhere 1 2.0 x"))
        until(lambda: ended)
        time.sleep(0.1)
        assert owners(store) == {"a": "elsewhere 1 2.0 x"}
    assert store.state("a") is JobState.QUEUED


@pytest.mark.parametrize("by_another", [False, True])
def test_a_job_is_cancelled_whichever_server_is_asked(store: Jobs, by_another: bool) -> None:
    store.add("a")
    runs: list[Run] = []
    kind = Counting(store, most=10_000, at_step=runs.append)
    with running(kind) as (engine,):
        until(lambda: store.steps("a") > 1)
        asked = engine_of(kind) if by_another else engine
        store.change_state("a", [JobState.RUNNING], JobState.CANCELLING)
        asked.cancel("a")
        until(lambda: store.state("a") is JobState.CANCELLED)
        assert store.ends("a") == 1
        assert not runs[-1].at_once.is_set()


@pytest.mark.parametrize("by_another", [False, True])
def test_a_job_ends_at_once_whichever_server_is_asked(store: Jobs, by_another: bool) -> None:
    store.add("a")
    runs: list[Run] = []
    kind = Counting(store, most=10_000, at_step=runs.append)
    with running(kind) as (engine,):
        until(lambda: store.steps("a") > 1)
        (engine_of(kind) if by_another else engine).cancel("a", at_once=True)
        until(lambda: store.state("a") is JobState.CANCELLED)
        assert runs[-1].at_once.is_set()


def test_a_job_whose_server_died_while_it_was_cancelled_ends_though_all_slots_are_taken(store: Jobs) -> None:
    store.add("a")
    kind = Counting(store, most=10_000)
    with running(kind):
        until(lambda: kind.begun == ["a"])
        store.add("b", state=JobState.CANCELLING)
        until(lambda: store.state("b") is JobState.CANCELLED)
        assert store.state("a") is JobState.RUNNING


@pytest.mark.parametrize(
    ("error", "reason"),
    [(NotFound("gone", reason="THING_GONE"), "THING_GONE"), (ValueError("a bug"), "INTERNAL")],
)
def test_what_a_job_raises_is_its_failure_and_the_next_runs(
    sqlite: Jobs, error: Exception, reason: str
) -> None:
    def fail(run: Run) -> None:
        if run.job_id == "a":
            raise error

    sqlite.add("a", "b")
    with running(Counting(sqlite, at_step=fail)):
        until(lambda: has_succeeded(sqlite, "b"))
    assert (sqlite.state("a"), sqlite.reason("a")) == (JobState.FAILED, reason)


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
        until(lambda: sqlite.state("a").ended)
    assert (left, sqlite.state("a")) == (0, JobState.FAILED)


def test_a_queue_that_cannot_be_read_for_a_while_is_read_again(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [Unavailable("away", reason="DATABASE_UNAVAILABLE"), RuntimeError("a bug")]
    unfinished = Jobs.unfinished

    def read(store: Jobs) -> Any:
        if errors:
            raise errors.pop()
        return unfinished(store)

    with running(Counting(sqlite, most=1)):
        monkeypatch.setattr(Jobs, "unfinished", read)
        sqlite.add("a")
        until(lambda: has_succeeded(sqlite, "a"))


def test_a_server_does_not_start_where_the_queue_cannot_be_read(sqlite: Jobs) -> None:
    fake_jobs.leases.drop(sqlite.database.engine)
    with pytest.raises(DomainError):
        engine_of(Counting(sqlite)).start()


def test_what_runs_is_taken_up_before_what_waits(sqlite: Jobs) -> None:
    sqlite.add("a", "c")
    sqlite.add("b", state=JobState.RUNNING)
    kind = Counting(sqlite, most=1)
    with running(kind):
        until(lambda: has_succeeded(sqlite, "a", "b", "c"))
    assert kind.begun == ["b", "a", "c"]


def test_a_job_whose_thread_cannot_be_started_is_tried_again(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, []

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "counting-a" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    sqlite.add("a")
    with running(Counting(sqlite, most=1)):
        until(lambda: has_succeeded(sqlite, "a"))
    assert refused


def test_the_lease_of_a_job_that_ended_with_its_server_is_forgotten(store: Jobs) -> None:
    store.add("a", state=JobState.SUCCEEDED)
    with store.database.write() as session:
        session.execute(
            insert(fake_jobs.leases).values(job_id="a", owner="x 1 2.0 y", expires=0, at_once=False)
        )
    with running(Counting(store)):
        until(lambda: not owners(store))
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
        until(lambda: sqlite.state("a") is JobState.RUNNING)
    assert sqlite.state("a") is JobState.QUEUED


def test_a_lease_that_could_not_be_released_is_no_hindrance(
    sqlite: Jobs, monkeypatch: pytest.MonkeyPatch
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
        until(lambda: failed.is_set() and has_succeeded(sqlite, "a"))
        assert set(owners(sqlite)) == {"a"}
        sqlite.change_state("a", [JobState.SUCCEEDED], JobState.QUEUED)
        engine.wake()
        until(lambda: sqlite.ends("a") == 2)


# Leases.


def test_a_server_that_vanishes_in_the_middle_of_a_write_does_not_keep_the_job(postgres_url: str) -> None:
    """On PostgreSQL; a process that ends leaves SQLite's lock, and one that is stopped keeps all of it."""
    database = Database(postgres_url)
    fake_jobs.metadata.create_all(database.engine)
    mine, other = (SqlLeases(database, fake_jobs.leases, 1.0) for _ in range(2))
    assert mine.claim("a")
    with pytest.raises(DomainError), mine.held("a", lambda: None), database.write():
        time.sleep(1.2)
        assert other.claim("a")
    database.close()


def test_one_of_many_that_claim_a_job_at_once_gets_it(store: Jobs) -> None:
    leases = [SqlLeases(store.database, fake_jobs.leases, 30.0) for _ in range(8)]
    for name in ("new", "expired"):
        if name == "expired":
            with store.database.write() as session:
                session.execute(delete(fake_jobs.leases))
            assert SqlLeases(store.database, fake_jobs.leases, -1.0).claim(name)
        won: list[int] = []
        start = threading.Barrier(len(leases))

        def claim(number: int, name: str = name, won: list[int] = won, start: Any = start) -> None:
            start.wait()
            if leases[number].claim(name):
                won.append(number)

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(len(leases))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert [lease.all()[name].mine for lease in leases].count(True) == 1


def test_a_lease_is_not_taken_while_its_owner_writes(store: Jobs) -> None:
    mine, other = (SqlLeases(store.database, fake_jobs.leases, seconds) for seconds in (-1.0, 30.0))
    store.add("a")
    assert mine.claim("a")
    taken: list[bool] = []
    taking = threading.Thread(target=lambda: taken.append(other.claim("a")))
    with mine.held("a", lambda: None), store.database.write() as session:
        taking.start()
        if store.database.dialect == "postgresql":
            taking.join()
            assert taken == [False]
        session.execute(update(fake_jobs.jobs).values(state="RUNNING"))
    taking.join()
    assert other.claim("a") or taken == [True]
    with pytest.raises(LeaseLost), mine.held("a", lambda: None):
        store.add_step("a", 1)
    assert store.steps("a") == 0
    mine.renew(["a"])
    mine.release("a")
    assert other.all()["a"].mine


# What a run waits for.


class Storage:
    """Fails as it is told, so many times (-1: always)."""

    def __init__(self, error: Exception, times: int = -1) -> None:
        self.error = error
        self.left = times
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "stored"


AWAY_NOW = Unavailable("storage is away", reason="STORAGE_UNAVAILABLE")
FULL = ResourceExhausted("no space left", reason="STORAGE_FULL")


def test_what_is_away_is_waited_for_and_what_will_not_pass_is_not() -> None:
    away, full = Storage(AWAY_NOW, 2), Storage(FULL, 2)
    run = Run("a", threading.Event())
    assert run.retry(away) == "stored"
    assert away.calls == 3
    with pytest.raises(ResourceExhausted, match="no space left"):
        run.retry(full)
    assert full.calls == 1


def test_a_cancel_ends_the_waiting_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt_kit.jobs.run._CANCELLED_S", 0.3)
    away, run = Storage(AWAY_NOW), Run("a", threading.Event())
    threading.Timer(0.2, run.cancelled.set).start()
    with pytest.raises(JobCancelled):
        run.retry(away)
    assert run.cancelled.is_set() and away.calls > 2
    # What was asked to stop before still has a moment to store what it did.
    assert run.retry(Storage(AWAY_NOW, 1)) == "stored"


def test_a_stop_ends_the_waiting_at_once() -> None:
    run = Run("a", threading.Event())
    threading.Timer(0.1, run.stopping.set).start()
    with pytest.raises(JobInterrupted):
        run.retry(Storage(AWAY_NOW))
    full = Storage(FULL)
    with pytest.raises(ResourceExhausted):
        run.record(full)
    assert full.calls == 1


def test_a_lost_lease_ends_the_waiting() -> None:
    run = Run("a", threading.Event())
    run.lost.set()
    with pytest.raises(LeaseLost):
        run.retry(Storage(AWAY_NOW))
    lost = Storage(LeaseLost("a"))
    run.lost.clear()
    with pytest.raises(LeaseLost):
        run.record(lost)
    assert lost.calls == 1
