"""Which children hold a model for the next evaluation, and for how long."""

from __future__ import annotations

import time
from typing import Any, cast

from tunix_rt_evaluator.evaluations.job_folders import WarmWorkers
from tunix_rt_kit.jobs.process import WarmWorker


class Child:
    closed = False

    def close(self) -> None:
        self.closed = True


def child() -> Any:
    return cast(WarmWorker, Child())


def test_a_child_is_given_to_the_next_job_of_its_model_once() -> None:
    kept, mine = WarmWorkers(1, 60.0), child()
    kept.give("a", mine)
    assert kept.take("a") is mine
    assert kept.take("a") is None
    assert not mine.closed


def test_a_job_of_another_model_has_the_room() -> None:
    kept, mine = WarmWorkers(1, 60.0), child()
    kept.give("a", mine)
    assert kept.take("b") is None
    assert mine.closed


def test_children_that_run_take_the_room_of_those_that_wait() -> None:
    kept, children = WarmWorkers(3, 60.0), [child() for _ in range(3)]
    for name, each in zip("abc", children, strict=True):
        kept.give(name, each)
    assert kept.take("c", running=1) is children[2]
    assert not any(each.closed for each in children)
    assert kept.take("d", running=2) is None
    assert [each.closed for each in children] == [True, False, False]
    assert kept.take("b", running=3) is children[1]
    assert not children[1].closed


def test_the_oldest_goes_when_there_are_too_many() -> None:
    kept, children = WarmWorkers(2, 60.0), [child() for _ in range(3)]
    for name, each in zip("abc", children, strict=True):
        kept.give(name, each)
    assert [each.closed for each in children] == [True, False, False]
    kept.close()
    assert all(each.closed for each in children)


def test_a_child_ends_when_nobody_needs_it_for_long() -> None:
    kept, mine = WarmWorkers(1, 0.05), child()
    kept.give("a", mine)
    end = time.monotonic() + 20
    while not mine.closed and time.monotonic() < end:
        time.sleep(0.01)
    assert mine.closed
    assert kept.take("a") is None
