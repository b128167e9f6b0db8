"""One run of a job: what it waits for, and what ends its waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from support.logged import logged
from support.timing import PATIENCE_S
from tunix_rt_kit.errors import ResourceExhausted, Unavailable
from tunix_rt_kit.jobs.child import JobCancelled
from tunix_rt_kit.jobs.run import JobInterrupted, LeaseLost, Run


class Storage:
    """Fails as it is told, so many times (-1: always); ``then`` is told of each call, by its number."""

    def __init__(
        self, error: Exception, times: int = -1, then: Callable[[int], object] = lambda _: None
    ) -> None:
        self.error = error
        self.left = times
        self.then = then
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.then(self.calls)
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


class Waits(threading.Event):
    """Remembers for how long it was waited for, which takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        return self.is_set()


def test_pauses_between_tries_grow_to_a_second_and_each_try_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stopping = Waits()
    assert Run("a", stopping).retry(Storage(AWAY_NOW, 6)) == "stored"
    assert stopping.asked == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    lines = logged(caplog, "storage_away")
    assert [line["tries"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert "storage is away" in lines[0]["error"]


def test_a_pause_ends_when_it_is_over_or_the_run_is_to_end() -> None:
    run = Run("a", threading.Event())
    begin = time.monotonic()
    run.pause(0.05)
    assert time.monotonic() - begin >= 0.05
    for name, error in (("stopping", JobInterrupted), ("cancelled", JobCancelled), ("lost", LeaseLost)):
        run = Run("a", threading.Event())
        threading.Timer(0.01, getattr(run, name).set).start()
        with pytest.raises(error):
            run.pause(2 * PATIENCE_S)
    assert time.monotonic() - begin < PATIENCE_S


def test_a_cancel_ends_the_waiting_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("a", threading.Event())
    away = Storage(AWAY_NOW, then=lambda calls: run.cancelled.set() if calls == 3 else None)
    monkeypatch.setattr("tunix_rt_kit.jobs.run._CANCELLED_S", 0.0)
    with pytest.raises(JobCancelled):
        run.retry(away)
    assert away.calls == 3
    # What was asked to stop before still has a moment to store what it did.
    monkeypatch.setattr("tunix_rt_kit.jobs.run._CANCELLED_S", PATIENCE_S)
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
