"""Time left is told when it is within a factor of two, and not before."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from tunix_rt_kit.values import TimeLeft

Duration = Callable[[int], float]

# Nothing is done while the model is loaded and compiled.
LOADING: Final = 20.0
# Below so many seconds nobody minds a factor.
MOMENTS: Final = 5.0
DICE: Final = random.Random(1)


def one_by_one(count: int, duration: Duration) -> list[float]:
    """When each unit is done, if each begins when the one before has ended."""
    ends, now = [], LOADING
    for unit in range(count):
        now += duration(unit)
        ends.append(now)
    return ends


def in_rows(count: int, rows: int, duration: Duration) -> list[float]:
    """When each unit is done, if a row that is free takes the next one."""
    free, ends = [LOADING] * rows, []
    for unit in range(count):
        ends.append(heapq.heappop(free) + duration(unit))
        heapq.heappush(free, ends[-1])
    return sorted(ends)


def told(ends: Sequence[float], parallel: int = 1) -> list[tuple[int, float, float]]:
    """Units done, seconds told and seconds that it took, for each time that something was told."""
    left, found = TimeLeft(parallel), []
    left.after(0, len(ends), 0.0)
    for done, now in enumerate(ends, start=1):
        seconds = left.after(done, len(ends), now)
        if seconds is not None and done < len(ends):
            found.append((done, seconds, ends[-1] - now))
    return found


@pytest.mark.parametrize(
    ("ends", "parallel"),
    [
        (one_by_one(40, lambda _: 1.0), 1),
        (one_by_one(500, lambda _: DICE.uniform(0.6, 1.6)), 1),
        (one_by_one(500, lambda _: DICE.lognormvariate(0, 1)), 1),
        (one_by_one(500, lambda unit: 0.05 + unit / 100), 1),
        (one_by_one(100, lambda unit: 60.0 if unit == 0 else 1.0), 1),
        (one_by_one(200, lambda unit: 11.0 if unit % 10 == 4 else 1.0), 1),
        (in_rows(120, 16, lambda _: DICE.uniform(1, 20)), 16),
        (in_rows(1000, 16, lambda _: DICE.choice([2.0, 30.0])), 16),
        (in_rows(500, 16, lambda _: 8.0), 16),
        (in_rows(500, 16, lambda unit: 2 + 20 * (500 - unit) / 500), 16),
    ],
    ids=[
        "like units", "noise", "much noise", "short units first", "the first one compiles",
        "pauses", "answers", "answers that are cut or short", "answers that end together",
        "long answers first",
    ],
)  # fmt: skip
def test_what_is_told_is_within_a_factor_of_two(ends: list[float], parallel: int) -> None:
    wrong = [
        (done, seconds, took)
        for done, seconds, took in told(ends, parallel)
        if took > MOMENTS and not took / 2 <= seconds <= took * 2
    ]
    assert wrong == []


def test_even_work_tells_it_from_a_fifth_on() -> None:
    first, seconds, took = told(one_by_one(200, lambda _: 1.0))[0]
    assert first in range(40, 46)
    assert seconds == pytest.approx(took)


def test_answers_in_rows_tell_it() -> None:
    assert len(told(in_rows(500, 16, lambda _: DICE.uniform(1, 20)), 16)) > 200


def test_nothing_is_told_of_the_last_answers_and_of_few_units() -> None:
    assert max(done for done, _, _ in told(in_rows(200, 16, lambda _: DICE.uniform(5, 6)), 16)) < 184
    assert told(in_rows(25, 16, lambda _: DICE.uniform(5, 20)), 16) == []
    assert told(one_by_one(9, lambda _: 10.0)) == []
    assert TimeLeft().after(9, 9, 1.0) == 0.0


def test_it_begins_where_an_earlier_attempt_ended() -> None:
    left = TimeLeft()
    seconds = [left.after(900 + done, 1000, 5.0 * done) for done in range(60)]
    assert seconds[-1] == pytest.approx(5.0 * 41)
    assert seconds[10] is None
