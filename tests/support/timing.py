"""Waiting for what comes to pass, and what may cost how much."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 240.0
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1


def eventually(
    look: Callable[[], T], what: object = "", *, within_s: float = PATIENCE_S, pause_s: float | None = None
) -> T:
    """What ``look`` returns, once that is true; AssertionError(``what``) when it stays false.

    Args:
        look: called again and again.
        what: says what did not come to pass; one that can be called is called then.
        within_s: how long to wait.
        pause_s: seconds between two looks; left out, they grow from 5 to 100 ms.
    """
    looks = _Looks(what, within_s, pause_s)
    while not (found := look()):
        time.sleep(looks.pause())
    return found


async def eventually_async(
    look: Callable[[], Awaitable[T]], what: object = "", *, within_s: float = PATIENCE_S
) -> T:
    """As ``eventually``, where looking has to be waited for."""
    looks = _Looks(what, within_s, None)
    while not (found := await look()):
        await asyncio.sleep(looks.pause())
    return found


class _Looks:
    def __init__(self, what: object, within_s: float, pause_s: float | None) -> None:
        self._what = what
        self._end = time.monotonic() + within_s
        self._pause = pause_s or _FIRST_PAUSE_S
        self._growth = 1.0 if pause_s else 1.3

    def pause(self) -> float:
        if time.monotonic() > self._end:
            what = self._what() if inspect.isroutine(self._what) else self._what
            raise AssertionError(what or "it did not come to pass")
        pause = self._pause
        self._pause = min(_LONGEST_PAUSE_S, pause * self._growth) if self._growth > 1 else pause
        return pause


@contextmanager
def cheaply(cpu_s: float) -> Iterator[None]:
    """The block must take less than ``cpu_s`` seconds of this process's processor time, so that what grows
    with the square of its input is found whatever else the machine does."""
    began = time.process_time()
    yield
    took = time.process_time() - began
    assert took < cpu_s, f"it took {took:.2f} s of processor time, not less than {cpu_s} s"
