"""The queue of jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tunix_rt_kit.errors import ResourceExhausted, Unavailable
from tunix_rt_kit.jobs import JobRunner

PATIENCE_S = 10.0


class Jobs:
    """Jobs that run until they are released, and what happened to them."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.errors: list[tuple[str, Exception]] = []
        self.release = threading.Event()
        self.runner: JobRunner | None = None

    def run(self, job_id: str, cancelled: threading.Event) -> None:
        self.started.append(job_id)
        if job_id.startswith("bad"):
            raise ValueError(job_id)
        while not (self.release.is_set() or cancelled.is_set() or self.open().stopping.is_set()):
            time.sleep(0.002)
        self.ended.append(f"{job_id} cancelled" if cancelled.is_set() else job_id)

    def on_error(self, job_id: str, error: Exception) -> None:
        self.errors.append((job_id, error))
        if job_id == "bad-twice":
            raise OSError("cannot record")

    def open(self, slots: int = 1) -> JobRunner:
        if self.runner is None:
            self.runner = JobRunner(slots, self.run, on_error=self.on_error)
        return self.runner


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.release.set()
    jobs.open().stop(PATIENCE_S)
    assert jobs.open().active() == []


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def test_jobs_run_in_order_one_at_a_time(jobs: Jobs) -> None:
    runner = jobs.open()
    for name in "abc":
        runner.submit(name)
    until(lambda: jobs.started == ["a"])
    time.sleep(0.02)
    assert jobs.started == ["a"] and runner.active() == ["a"]
    jobs.release.set()
    until(lambda: jobs.ended == ["a", "b", "c"])


def test_slots_run_side_by_side(jobs: Jobs) -> None:
    runner = jobs.open(slots=2)
    for name in "abc":
        runner.submit(name)
    until(lambda: sorted(jobs.started) == ["a", "b"])
    time.sleep(0.02)
    assert len(jobs.started) == 2
    jobs.release.set()
    until(lambda: sorted(jobs.ended) == ["a", "b", "c"])


def test_a_job_is_not_queued_twice(jobs: Jobs) -> None:
    runner = jobs.open()
    for name in ("a", "a", "b", "b"):
        runner.submit(name)
    jobs.release.set()
    until(lambda: jobs.ended == ["a", "b"])
    runner.submit("a")
    until(lambda: jobs.ended == ["a", "b", "a"])


def test_a_job_that_runs_is_queued_again_where_that_is_asked_for(jobs: Jobs) -> None:
    runner = jobs.open()
    runner.submit("a")
    until(lambda: jobs.started == ["a"])
    runner.submit("b")
    runner.submit("a", again=True)
    runner.submit("a", again=True)
    jobs.release.set()
    until(lambda: jobs.ended == ["a", "b", "a"])
    until(lambda: runner.active() == [])
    assert jobs.started == ["a", "b", "a"]


def test_cancel_dequeues_signals_or_knows_nothing(jobs: Jobs) -> None:
    runner = jobs.open()
    runner.submit("a")
    runner.submit("b")
    until(lambda: jobs.started == ["a"])
    assert runner.cancel("b") == "dequeued"
    assert runner.cancel("a") == "signalled"
    assert runner.cancel("c") == "unknown"
    until(lambda: jobs.ended == ["a cancelled"])
    until(lambda: runner.active() == [])
    assert jobs.started == ["a"]


def test_an_exception_is_told_and_the_slot_goes_on(jobs: Jobs) -> None:
    runner = jobs.open()
    jobs.release.set()
    for name in ("bad", "bad-twice", "good"):
        runner.submit(name)
    until(lambda: jobs.ended == ["good"])
    assert [(name, str(error)) for name, error in jobs.errors] == [
        ("bad", "bad"),
        ("bad-twice", "bad-twice"),
    ]


def test_stop_lets_running_jobs_see_it_and_begins_no_other() -> None:
    jobs = Jobs()
    runner = jobs.open()
    runner.submit("a")
    runner.submit("b")
    until(lambda: jobs.started == ["a"])
    assert runner.stop(PATIENCE_S) == ["b"]
    assert jobs.ended == ["a"] and jobs.started == ["a"]
    with pytest.raises(RuntimeError, match="stopping"):
        runner.submit("c")


def test_stop_does_not_wait_longer_than_its_grace() -> None:
    release = threading.Event()
    runner = JobRunner(1, lambda _id, _cancelled: release.wait(PATIENCE_S) and None, on_error=lambda *_: None)
    runner.submit("stubborn")
    until(lambda: runner.active() == ["stubborn"])
    assert runner.stop(0.05) == ["stubborn"]
    assert runner.active() == ["stubborn"]
    release.set()


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


def test_what_is_away_is_waited_for_and_what_will_not_pass_is_not(jobs: Jobs) -> None:
    away, full = Storage(AWAY_NOW, 2), Storage(FULL, 2)
    assert jobs.open().insist(away, threading.Event()) == "stored"
    assert away.calls == 3
    with pytest.raises(ResourceExhausted, match="no space left"):
        jobs.open().insist(full, threading.Event())
    assert full.calls == 1


def test_a_cancel_ends_the_waiting_after_a_moment(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt_kit.jobs.runner._CANCELLED_S", 0.3)
    away, cancelled = Storage(AWAY_NOW), threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    with pytest.raises(Unavailable, match="storage is away"):
        jobs.open().insist(away, cancelled)
    assert cancelled.is_set() and away.calls > 2
    # What was asked to stop before still has a moment to store what it did.
    assert jobs.open().insist(Storage(AWAY_NOW, 1), cancelled) == "stored"


def test_a_stop_ends_the_waiting_at_once(jobs: Jobs) -> None:
    away = Storage(AWAY_NOW)
    threading.Timer(0.1, lambda: jobs.open().stop(0.0)).start()
    with pytest.raises(Unavailable):
        jobs.open().insist(away, threading.Event())
    full = Storage(FULL)
    with pytest.raises(ResourceExhausted):
        jobs.open().record(full)
    assert full.calls == 1


def test_the_end_of_a_job_is_told_until_it_is_stored() -> None:
    store, told = Storage(FULL, 3), []

    def fail(job_id: str, _: threading.Event) -> None:
        raise ValueError(job_id)

    def on_error(job_id: str, error: Exception) -> None:
        told.append((job_id, str(error), store()))

    runner = JobRunner(1, fail, on_error=on_error)
    runner.submit("a")
    until(lambda: told == [("a", "a", "stored")])
    assert store.calls == 4
    runner.stop(PATIENCE_S)


@pytest.mark.parametrize("error", [AWAY_NOW, FULL])
def test_a_job_that_found_its_storage_away_when_the_server_stops_can_go_on_later(error: Exception) -> None:
    told: list[str] = []

    def wait(_: str, __: threading.Event) -> None:
        runner.stopping.wait(PATIENCE_S)
        raise error

    runner = JobRunner(1, wait, on_error=lambda job_id, _: told.append(job_id))
    runner.submit("a")
    until(lambda: runner.active() == ["a"])
    assert runner.stop(PATIENCE_S) == []
    assert told == ([] if error is AWAY_NOW else ["a"])


def test_no_slots_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        JobRunner(0, lambda _id, _cancelled: None, on_error=lambda *_: None)
